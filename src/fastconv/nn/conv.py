# SPDX-License-Identifier: BSD-3-Clause
"""Convolution layers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv import functional as F
from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.nn import init
from fastconv.nn._packed import PackedPlan
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.ops._convolution import Asked, back, convolve
from fastconv.ops._operand import like, widened
from fastconv.ops.activation import UNBOUNDED, activation_of
from fastconv.ops.pad import pad_grad
from fastconv.plan import ConvPlan

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
__dir__ = only(__all__)

Size = int | tuple[int, ...]
Padding = str | int | tuple[int, ...] | tuple[tuple[int, int], ...]
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What all of them share; a class says its rank, and whether it is transposed."""

    rank: ClassVar[int]
    transposed: ClassVar[bool] = False
    _takes_bounds = True
    _owns_gradients = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Padding,
        dilation: Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: Any,
        layout: str | None,
        batch_invariant: bool,
        rng: np.random.Generator | int | None,
    ) -> None:
        self.in_channels = _args.integer(in_channels, "in_channels", 1)
        self.out_channels = _args.integer(out_channels, "out_channels", 1)
        self.kernel_size = _args.per_axis(kernel_size, self.rank, "kernel_size", 1)
        self.stride = _args.per_axis(stride, self.rank, "stride", 1)
        self.dilation = _args.per_axis(dilation, self.rank, "dilation", 1)
        self.groups = _args.integer(groups, "groups", 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"groups is {groups}; it needs to divide {name}, {channels}")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(
                f"padding_mode is {padding_mode!r}; it needs one of {', '.join(map(repr, _PADDING_MODES))}"
            )
        self.padding_mode = padding_mode
        self.padding = padding
        pairs = self._pairs((1,) * self.rank)
        if not isinstance(padding, str):
            symmetric = all(before == after for before, after in pairs)
            self.padding = tuple(before for before, _ in pairs) if symmetric else pairs
        self.layout = _args.channels_first(self.rank) if layout is None else layout
        self._channel_axis = _args.layout_axes(self.layout, self.rank)[1]
        self.batch_invariant = _args.is_batch_invariant(batch_invariant)
        self._packed = PackedPlan()
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        shape = (first, second // self.groups, *self.kernel_size)
        self.weight = Parameter.empty(shape, dtype or np.float32)
        self.bias = Parameter.empty((self.out_channels,), dtype or np.float32) if bias else None
        self.reset_parameters(rng)

    def reset_parameters(self, rng: np.random.Generator | int | None = None) -> None:
        """Draw new initial values, as torch's default."""
        init.default_(self.weight, self.bias, rng=rng)

    def _pairs(self, size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Padding before and after each axis of an image of this size."""
        return _args.paddings(self.padding, size, self.kernel_size, self.stride, self.dilation)

    def _border(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """`pad`'s argument for a border that is not zeros; the convolution then adds none."""
        if self.padding_mode == "zeros" or len(shape) not in (self.rank + 1, self.rank + 2):
            return None
        first = self._channel_axis == 1
        pairs = self._pairs(shape[-self.rank :] if first else shape[-self.rank - 1 : -1])
        inner = tuple(n for pair in reversed(pairs) for n in pair)
        return inner if first else (0, 0, *inner)

    def _arguments(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding if self.padding_mode == "zeros" else 0,
            "dilation": self.dilation,
            "groups": self.groups,
            "layout": self.layout,
        }

    def _parameters(self, arguments: dict[str, Any], *further: Any) -> tuple[Any, ...]:
        """Arguments as the operators have them, one after the other."""
        names = "stride", "padding", "output_padding", "dilation", "groups", "layout"
        return (*(arguments.get(name, 0) for name in names), *further, "auto", "default")

    def _forward(
        self,
        x: Any,
        arguments: dict[str, Any],
        plan_arguments: dict[str, Any],
        bounds: tuple[float, float] = UNBOUNDED,
    ) -> np.ndarray:
        x = _args.as_array(x, "input")
        shape, border = x.shape, self._border(x.shape)
        if border is not None:
            x = F.pad(x, border, self.padding_mode)
        order = own = self._order(x) if self._writes_last or not self.training else None
        if self._writes_last and order is not None:  # to read one order and write the other was slower at times
            own, x = _args.order_of(x, self.rank, self.layout), _args.dense(x, order)
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        if not self.training:
            if order is not None:
                x, plan_arguments = x.transpose(order), {**plan_arguments, "layout": _args.channels_last(self.rank)}
            plan = self._packed.get(
                (x.shape, self.batch_invariant, *plan_arguments.items()),
                (self.weight, self.bias),
                lambda: ConvPlan(x.shape, weight, bias, batch_invariant=self.batch_invariant, **plan_arguments),
            )
            if plan is not None:
                return _args.turned_back(plan(x), order)
            x = _args.turned_back(x, order)
        parameters = self._parameters(arguments, activation_of(bounds))
        arrays = (x, weight, bias, None, None)
        y = convolve(self.rank, self.transposed, arrays, parameters, self.batch_invariant, self._writes_last)
        self.save_for_backward(x, shape, border, own, arguments, bounds, None if bounds == UNBOUNDED else y)
        return y

    def _order(self, x: np.ndarray) -> _args.Order:
        """That of the axes of results in memory, for this input."""
        if x.ndim not in (self.rank + 1, self.rank + 2):
            return None
        if self._writes_last and self._channel_axis == 1:
            return _args.last_order(x.ndim, self.rank)
        return _args.order_of(x, self.rank, self.layout)

    def forward(self, input: ArrayLike) -> np.ndarray:
        return self._forward(input, self._arguments(), self._arguments())

    def _clamped(self, bounds: tuple[float, float], *inputs: Any) -> np.ndarray:
        return self._forward(inputs[0], self._arguments(), self._arguments(), bounds)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        x, shape, border, own, arguments, bounds, y = self.saved()
        parameters = self._parameters(arguments)
        needed = {"input": self.needs_input_grad, "weight": True, "bias": self.bias is not None}
        arrays = [x, self.weight.value, _args.as_operand(grad_output, "grad_output"), y]
        if border is not None:  # what its elements came from adds up in float32
            arrays = [None if a is None else widened(a) for a in arrays]
        x, weight, grad, y = arrays
        asked = Asked(grad, [name for name in needed if needed[name]], y, bounds)
        d_input, d_weight, d_bias = back(self.rank, self.transposed, x, weight, parameters, asked, self.batch_invariant)
        for parameter, gradient in ((self.weight, d_weight), (self.bias, d_bias)):
            if parameter is not None and gradient is not None:
                parameter.accumulate(gradient)
        if d_input is None:
            return None
        if border is not None:
            d_input = like(pad_grad(d_input, shape, border, self.padding_mode), grad_output)
        return _args.dense(d_input, own) if self._writes_last else d_input

    def _release(self) -> None:
        self._packed.clear()

    def extra_repr(self) -> str:
        none, one = (0,) * self.rank, (1,) * self.rank
        output_padding = getattr(self, "output_padding", none)
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
            *([f"padding={self.padding}"] if self.padding != none else []),
            *([f"output_padding={output_padding}"] if output_padding != none else []),
            *([f"dilation={self.dilation}"] if self.dilation != one else []),
            *([f"groups={self.groups}"] if self.groups != 1 else []),
            *(["bias=False"] if self.bias is None else []),
            *([f"padding_mode={self.padding_mode}"] if self.padding_mode != "zeros" else []),
            *([f"layout={self.layout!r}"] if self.layout != _args.channels_first(self.rank) else []),
            *(["batch_invariant=True"] if self.batch_invariant else []),
            *(["memory_format='channels_last'"] if self._writes_last else []),
        ]
        return ", ".join(parts)


class _PlainConv(_Conv):
    """torch.nn's arguments of a convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
        layout: str | None = None,
        batch_invariant: bool = False,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*sizes, bias, padding_mode, dtype, layout, batch_invariant, rng)


class _TransposedConv(_Conv):
    """torch.nn's arguments of a transposed convolution."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
        layout: str | None = None,
        batch_invariant: bool = False,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode is {padding_mode!r}; a transposed convolution has 'zeros' only")
        self.output_padding = _args.per_axis(output_padding, self.rank, "output_padding", 0)
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*sizes, bias, padding_mode, dtype, layout, batch_invariant, rng)

    def forward(self, input: ArrayLike, output_size: tuple[int, ...] | None = None) -> np.ndarray:
        """The result, of spatial sizes `output_size` where `output_padding` would leave a choice."""
        extra = self.output_padding
        if output_size is not None:
            extra = self._padding_for(_args.as_array(input, "input").shape, output_size)
        arguments = {**self._arguments(), "output_padding": extra}
        return self._forward(input, arguments, {**arguments, "transposed": True})

    def _padding_for(self, shape: tuple[int, ...], output_size: tuple[int, ...]) -> tuple[int, ...]:
        wanted = _args.sizes(output_size, "output_size", 1)[-self.rank :]
        first = self._channel_axis == 1
        size = shape[-self.rank :] if first else shape[-self.rank - 1 : -1]
        least = tuple(
            (n - 1) * s - before - after + d * (k - 1) + 1
            for n, s, d, k, (before, after) in zip(
                size, self.stride, self.dilation, self.kernel_size, self._pairs(size), strict=True
            )
        )
        most = tuple(n + max(s, d) - 1 for n, s, d in zip(least, self.stride, self.dilation, strict=True))
        if len(wanted) != self.rank or not all(a <= n <= b for a, n, b in zip(least, wanted, most, strict=True)):
            raise ValueError(f"output_size is {output_size}; it needs {self.rank} sizes from {least} to {most}")
        return tuple(n - a for n, a in zip(wanted, least, strict=True))


class Conv2d(_PlainConv):
    """Two-dimensional convolution, as `torch.nn.Conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
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
    batch_invariant : bool, keyword only
        As `fastconv.conv2d`; also for the gradient with respect to the input.
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

    rank = 2


@of_rank(1, Conv2d)
class Conv1d(_PlainConv):
    """One-dimensional convolution, as `torch.nn.Conv1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Conv1d(3, 8, kernel_size=3, padding=1, rng=0)
    >>> layer(np.zeros((1, 3, 10), np.float32)).shape
    (1, 8, 10)
    """

    rank = 1


@of_rank(3, Conv2d)
class Conv3d(_PlainConv):
    """Three-dimensional convolution, as `torch.nn.Conv3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Conv3d(3, 8, kernel_size=3, padding=1, rng=0)
    >>> layer(np.zeros((1, 3, 4, 10, 10), np.float32)).shape
    (1, 8, 4, 10, 10)
    """

    rank = 3


class ConvTranspose2d(_TransposedConv):
    """Two-dimensional transposed convolution, as `torch.nn.ConvTranspose2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    stride : int or (int, int)
        Distance of neighbouring input elements in the output.
    padding : int, (int, int) or ((top, bottom), (left, right))
        Elements of the output that are left out at its borders.
    output_padding : int or (int, int)
        Elements added at the end of each axis.
    groups : int
    bias : bool
    dilation : int or (int, int)
    padding_mode : {"zeros"}
    dtype, layout, batch_invariant, rng
        As for :class:`Conv2d`.

    Attributes
    ----------
    weight : Parameter (in_channels, out_channels / groups, kH, kW)
    bias : Parameter (out_channels,) or None

    Raises
    ------
    ValueError, TypeError
        An argument out of range or of the wrong type.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.ConvTranspose2d(3, 8, kernel_size=2, stride=2, rng=0)
    >>> layer(np.zeros((1, 3, 10, 10), np.float32)).shape
    (1, 8, 20, 20)
    """

    rank = 2


@of_rank(1, ConvTranspose2d)
class ConvTranspose1d(_TransposedConv):
    """One-dimensional transposed convolution, as `torch.nn.ConvTranspose1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.ConvTranspose1d(3, 8, kernel_size=2, stride=2, rng=0)
    >>> layer(np.zeros((1, 3, 10), np.float32)).shape
    (1, 8, 20)
    """

    rank = 1


@of_rank(3, ConvTranspose2d)
class ConvTranspose3d(_TransposedConv):
    """Three-dimensional transposed convolution, as `torch.nn.ConvTranspose3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.ConvTranspose3d(3, 8, kernel_size=2, stride=2, rng=0)
    >>> layer(np.zeros((1, 3, 4, 10, 10), np.float32)).shape
    (1, 8, 8, 20, 20)
    """

    rank = 3
