# SPDX-License-Identifier: BSD-3-Clause
"""Convolution layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _args
from fastconv import functional as F
from fastconv import grad as G
from fastconv.nn import init
from fastconv.nn._packed import PackedPlan
from fastconv.nn.module import Module, Parameter
from fastconv.ops._operand import channel_sum
from fastconv.ops.pad import pad_grad
from fastconv.plan import ConvPlan

__all__ = ["Conv2d"]

Padding = str | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


class Conv2d(Module):
    """Two-dimensional convolution, as `torch.nn.Conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or pair
    stride, dilation : int or pair
    padding : int, pair, pair of pairs, "valid", "same" or "same_lower"
        As `fastconv.conv2d`.
    groups : int
        Must divide both channel counts.
    bias : bool
        Whether to add a learnt constant to each output channel.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding consists of.
    dtype : dtype, keyword only
        Of the parameters: float32 (the default), float64 or float16.
    layout : {"NCHW", "NHWC"}, keyword only
        Of input and output; the weight is OIHW always.
    rng : numpy.random.Generator or int, keyword only
        Source of the initial values, see `fastconv.nn.init`.

    Attributes
    ----------
    weight : Parameter (out_channels, in_channels / groups, kH, kW)
    bias : Parameter (out_channels,) or None

    Raises
    ------
    ValueError, TypeError
        An argument out of range or of the wrong type.

    Notes
    -----
    In eval mode the layer packs its weights once and keeps the plan of the last input shape, until
    the shape or a parameter changes.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Conv2d(3, 8, kernel_size=3, padding=1, rng=0)
    >>> layer(np.zeros((1, 3, 10, 10), np.float32)).shape
    (1, 8, 10, 10)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
        layout: str = "NCHW",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.in_channels = _args.integer(in_channels, "in_channels", 1)
        self.out_channels = _args.integer(out_channels, "out_channels", 1)
        self.kernel_size = _args.per_axis(kernel_size, 2, "kernel_size", 1)
        self.stride = _args.per_axis(stride, 2, "stride", 1)
        self.dilation = _args.per_axis(dilation, 2, "dilation", 1)
        self.groups = _args.integer(groups, "groups", 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"groups is {groups}; it needs to divide {name}, {channels}")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                f"padding_mode is {padding_mode!r}; it needs 'zeros', 'reflect', 'replicate' or 'circular'"
            )
        self.padding_mode = padding_mode
        self.padding = padding
        pairs = self._pairs((1, 1))
        if not isinstance(padding, str):
            symmetric = all(before == after for before, after in pairs)
            self.padding = tuple(before for before, _ in pairs) if symmetric else pairs
        self.layout = layout
        self._channel_axis = _args.layout_axes(layout, 2)[1]
        self._packed = PackedPlan()
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = Parameter.empty(shape, dtype or np.float32)
        self.bias = Parameter.empty(shape[:1], dtype or np.float32) if bias else None
        self.reset_parameters(rng)

    def reset_parameters(self, rng: np.random.Generator | int | None = None) -> None:
        """Draw new initial values, as torch's default."""
        init.default_(self.weight, self.bias, rng=rng)

    def _pairs(self, size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Padding before and after each axis of an image of this size."""
        return _args.paddings(self.padding, size, self.kernel_size, self.stride, self.dilation)

    def _border(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """`pad`'s argument for a border that is not zeros; the convolution then adds none."""
        if self.padding_mode == "zeros" or len(shape) not in (3, 4):
            return None
        first = self._channel_axis == 1
        vertical, horizontal = self._pairs(shape[-2:] if first else shape[-3:-1])
        inner = (*horizontal, *vertical)
        return inner if first else (0, 0, *inner)

    def _arguments(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding if self.padding_mode == "zeros" else 0,
            "dilation": self.dilation,
            "groups": self.groups,
            "layout": self.layout,
        }

    def forward(self, x: Any) -> np.ndarray:
        x = _args.as_array(x, "input")
        shape, border = x.shape, self._border(x.shape)
        if border is not None:
            x = F.pad(x, border, self.padding_mode)
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        if not self.training:
            plan = self._packed.get(
                x.shape,
                (self.weight, self.bias),
                lambda: ConvPlan(x.shape, weight, bias, **self._arguments()),
            )
            if plan is not None:
                return plan(x)
        self.save_for_backward(x, shape, border)
        return F.conv2d(x, weight, bias, **self._arguments())

    def backward(self, grad_output: np.ndarray) -> np.ndarray | None:
        x, shape, border = self.saved()
        arguments = self._arguments()
        self.weight.accumulate(G.conv2d_weight(x, self.weight.shape, grad_output, **arguments))
        if self.bias is not None:
            images = grad_output.reshape(-1, *grad_output.shape[-3:])
            total = channel_sum(images, self._channel_axis)
            self.bias.accumulate(total.astype(grad_output.dtype))
        if not self.needs_input_grad:
            return None
        d_input = G.conv2d_input(x.shape, self.weight.value, grad_output, **arguments)
        if border is None:
            return d_input
        return pad_grad(d_input, shape, border, self.padding_mode)

    def _release(self) -> None:
        self._packed.clear()

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        if self.layout != "NCHW":
            parts.append(f"layout={self.layout!r}")
        return ", ".join(parts)
