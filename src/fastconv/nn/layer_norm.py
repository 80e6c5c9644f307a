# SPDX-License-Identifier: BSD-3-Clause
"""Layer, group and instance normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv.nn import init
from fastconv.nn.module import Module
from fastconv.nn.norm import _BatchNorm
from fastconv.nn.parameter import Parameter
from fastconv.ops import layer_norm as L
from fastconv.ops._operand import channel_axis

__all__ = ["GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm"]
__dir__ = only(__all__)


class _Affine(Module):
    """What has a scale and a shift of one shape, or neither, or the scale alone."""

    weight: Parameter | None
    bias: Parameter | None

    def _make(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: Any) -> None:
        dtype = dtype or np.float32
        self.weight = init.ones_(Parameter.empty(shape, dtype)) if weight else None
        self.bias = init.zeros_(Parameter.empty(shape, dtype)) if bias else None

    def _affine(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        weight, bias = self.weight, self.bias
        return (None if weight is None else weight.value, None if bias is None else bias.value)

    def _accumulate(self, gradients: L.Gradients) -> np.ndarray | Any:
        d_input, d_weight, d_bias = gradients
        for parameter, gradient in ((self.weight, d_weight), (self.bias, d_bias)):
            if parameter is not None:
                parameter.accumulate(gradient)
        return d_input


class LayerNorm(_Affine):
    """Normalisation over the last axes, as `torch.nn.LayerNorm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Over how many of the last axes, and their lengths.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether to learn a scale and a shift of each element.
    bias : bool
        Whether, if so, to learn a shift.
    dtype : dtype, keyword only
        Of the parameters: float32 (the default) or float64.

    Attributes
    ----------
    weight, bias : Parameter of shape `normalized_shape`, or None

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LayerNorm(4)(np.zeros((2, 4), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = None,
    ) -> None:
        single = isinstance(normalized_shape, (int, np.integer))
        self.normalized_shape = _args.sizes((normalized_shape,) if single else normalized_shape, "normalized_shape", 1)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._make(self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype)

    def forward(self, input: ArrayLike) -> np.ndarray:
        self.save_for_backward(input)
        return L.layer_norm(input, self.normalized_shape, *self._affine(), eps=self.eps)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (x,) = self.saved()
        shape, weight, needed = self.normalized_shape, self._affine()[0], self.needs_input_grad
        return self._accumulate(L.layer_norm_grad(grad_output, x, shape, weight, self.eps, need_input=needed))

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(_Affine):
    """Normalisation of groups of channels, as `torch.nn.GroupNorm`.

    Parameters
    ----------
    num_groups : int
        Number of groups, which share the channels evenly.
    num_channels : int
        Number of channels.
    eps : float
        Added to the variance.
    affine : bool
        Whether to learn a scale and a shift per channel.
    bias : bool, keyword only
        Whether, if `affine`, to learn a shift.
    dtype : dtype, keyword only
        Of the parameters: float32 (the default) or float64.
    layout : str, keyword only
        Channels-first or channels-last, see `fastconv.batch_norm`.

    Attributes
    ----------
    weight, bias : Parameter (num_channels,) or None

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.GroupNorm(2, 8)(np.zeros((1, 8, 5, 5), np.float32)).shape
    (1, 8, 5, 5)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = None,
        layout: str = "NCHW",
    ) -> None:
        self.num_groups = _args.integer(num_groups, "num_groups", 1)
        self.num_channels = _args.integer(num_channels, "num_channels", 1)
        if num_channels % num_groups:
            raise ValueError(f"num_channels is {num_channels}; it needs to be a multiple of num_groups, {num_groups}")
        self.eps = eps
        self.affine = affine
        self.layout = layout
        channel_axis(layout, 4)
        self._make((self.num_channels,), affine, affine and bias, dtype)

    def forward(self, input: ArrayLike) -> np.ndarray:
        shape = np.shape(input)
        if len(shape) < 2 or shape[channel_axis(self.layout, len(shape))] != self.num_channels:
            raise ValueError(f"input has shape {shape}; it needs {self.num_channels} channels in layout {self.layout}")
        self.save_for_backward(input)
        return L.group_norm(input, self.num_groups, *self._affine(), eps=self.eps, layout=self.layout)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (x,) = self.saved()
        groups, weight, needed = self.num_groups, self._affine()[0], self.needs_input_grad
        gradients = L.group_norm_grad(grad_output, x, groups, weight, self.eps, layout=self.layout, need_input=needed)
        return self._accumulate(gradients)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class _InstanceNorm(_BatchNorm):
    """Instance normalisation for the ranks that a subclass names.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float
        Added to the variance.
    momentum : float
        Weight of a new batch in the running statistics.
    affine : bool
        Whether to learn a scale and a shift per channel.
    track_running_stats : bool
        True keeps statistics in training, and normalises by them in eval mode.
    bias : bool, keyword only
        Whether, if `affine`, to learn a shift.
    dtype : dtype, keyword only
        Of parameters and statistics: float32 (the default) or float64.
    layout : str, keyword only
        Channels-first or channels-last, see `fastconv.batch_norm`.

    Attributes
    ----------
    weight, bias : Parameter (num_features,) or None
    running_mean, running_var : Buffer (num_features,) or None
    num_batches_tracked : Buffer () of int64, or None
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: Any = None,
        layout: str = "NCHW",
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, dtype=dtype, layout=layout
        )

    def _batched(self, array: ArrayLike) -> ArrayLike:
        """One image without the axis of the batch is a batch of one."""
        return _args.as_array(array, "input")[np.newaxis] if np.ndim(array) == min(self._ranks) else array

    def forward(self, input: ArrayLike) -> np.ndarray:
        if np.ndim(input) not in self._ranks:
            ranks = " or ".join(map(str, self._ranks))
            raise ValueError(f"input has shape {np.shape(input)}; it needs {ranks} axes")
        mean, var = self.running_mean, self.running_var
        x = self._batched(input)
        axis = channel_axis(self.layout, np.ndim(x))
        if np.shape(x)[axis] != self.num_features:
            raise ValueError(f"input has shape {np.shape(input)}; it needs {self.num_features} channels")
        self.save_for_backward(input)
        y = L.instance_norm(
            x,
            None if mean is None else mean.data,
            None if var is None else var.data,
            *self._affine(),
            use_input_stats=self.training or mean is None,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
            layout=self.layout,
        )
        return y.reshape(np.shape(input))

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (x,) = self.saved()
        d_input, d_weight, d_bias = L.instance_norm_grad(
            self._batched(grad_output),
            self._batched(x),
            self._affine()[0],
            eps=self.eps,
            layout=self.layout,
            need_input=self.needs_input_grad,
        )
        for parameter, gradient in ((self.weight, d_weight), (self.bias, d_bias)):
            if parameter is not None:
                parameter.accumulate(gradient)
        return None if d_input is None else d_input.reshape(np.shape(x))


def _of_inputs(inputs: str, name: str, shape: tuple[int, ...]) -> str:
    text = (_InstanceNorm.__doc__ or "").replace(
        "Instance normalisation for the ranks that a subclass names.",
        f"Instance normalisation of inputs {inputs}, as `torch.nn.{name}`.",
    )
    return f"""{text}
    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.{name}({shape[1]})(np.zeros({shape}, np.float32)).shape
    {shape}
    """


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _of_inputs("(N, C, L) or (C, L)", "InstanceNorm1d", (2, 3, 8))

    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _of_inputs("(N, C, H, W) or (C, H, W)", "InstanceNorm2d", (2, 3, 8, 8))

    _ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = _of_inputs("(N, C, D, H, W) or (C, D, H, W)", "InstanceNorm3d", (2, 3, 4, 4, 4))

    _ranks = (4, 5)
