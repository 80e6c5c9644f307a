# SPDX-License-Identifier: BSD-3-Clause
"""Pooling layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _args
from fastconv import functional as F
from fastconv import grad as G
from fastconv.nn.module import Module

__all__ = ["AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "MaxPool2d"]

Pair = int | tuple[int, int]


def _checked(value: Pair, name: str, least: int = 1) -> Pair:
    """`value` as it was given (torch shows an int as an int), if it is one or two whole numbers."""
    _args.per_axis(value, 2, name, least)
    return value


def _checked_output(output_size: Any) -> Any:
    """As `_checked`, where None, alone or in a pair, stands for the size of the input."""
    if isinstance(output_size, (tuple, list)):
        filled = tuple(1 if size is None else size for size in output_size)
        _args.per_axis(filled, 2, "output_size", 1)
        return tuple(output_size)
    return None if output_size is None else _checked(output_size, "output_size")


class MaxPool2d(Module):
    """The largest value of each window, as `torch.nn.MaxPool2d`.

    Parameters
    ----------
    kernel_size : int or pair
    stride : int or pair, optional
        `kernel_size` if not given.
    padding, dilation : int or pair
    return_indices : bool
        Return ``(values, indices)``.
    ceil_mode : bool
        Keep the last, incomplete window.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.MaxPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = _checked(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else _checked(stride, "stride")
        self.padding = _checked(padding, "padding", 0)
        self.dilation = _checked(dilation, "dilation")
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode
        self.layout = layout
        _args.layout_axes(layout, 2)

    def forward(self, x: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        if not (self.training or self.return_indices):
            self.save_for_backward()
            return F.max_pool2d(x, *window, layout=self.layout)
        y, indices = F.max_pool2d(x, *window, return_indices=True, layout=self.layout)
        self.save_for_backward(indices, np.shape(x))
        return (y, indices) if self.return_indices else y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | None:
        indices, input_size = self.saved()
        if not self.needs_input_grad:
            return None
        return G.max_pool2d(grad_output, indices, input_size, layout=self.layout)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of each window, as `torch.nn.AvgPool2d`.

    Parameters
    ----------
    kernel_size : int or pair
    stride : int or pair, optional
        `kernel_size` if not given.
    padding : int or pair
    ceil_mode : bool
        Keep the last, incomplete window.
    count_include_pad : bool
        Whether padding counts in the divisor.
    divisor_override : int, optional
        Divide by this instead.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AvgPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = _checked(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else _checked(stride, "stride")
        self.padding = _checked(padding, "padding", 0)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override
        self.layout = layout
        _args.layout_axes(layout, 2)

    def _window(self) -> tuple:
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def forward(self, x: Any) -> np.ndarray:
        self.save_for_backward(np.shape(x))
        return F.avg_pool2d(x, *self._window(), layout=self.layout)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | None:
        (input_size,) = self.saved()
        if not self.needs_input_grad:
            return None
        return G.avg_pool2d(grad_output, input_size, *self._window(), layout=self.layout)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Means over as many windows as give `output_size`, as `torch.nn.AdaptiveAvgPool2d`.

    Parameters
    ----------
    output_size : int, or pair of int or None
        Height and width of the output; None keeps the input's.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool2d(1)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[7.5]]]])
    """

    def __init__(self, output_size: Any, *, layout: str = "NCHW") -> None:
        self.output_size = _checked_output(output_size)
        self.layout = layout
        _args.layout_axes(layout, 2)

    def forward(self, x: Any) -> np.ndarray:
        self.save_for_backward(np.shape(x))
        return F.adaptive_avg_pool2d(x, self.output_size, layout=self.layout)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | None:
        (input_size,) = self.saved()
        if not self.needs_input_grad:
            return None
        return G.adaptive_avg_pool2d(grad_output, input_size, layout=self.layout)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(Module):
    """Maxima over as many windows as give `output_size`, as `torch.nn.AdaptiveMaxPool2d`.

    Parameters
    ----------
    output_size : int, or pair of int or None
        Height and width of the output; None keeps the input's.
    return_indices : bool
        Return ``(values, indices)``.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool2d(1)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[15.]]]])
    """

    def __init__(self, output_size: Any, return_indices: bool = False, *, layout: str = "NCHW") -> None:
        self.output_size = _checked_output(output_size)
        self.return_indices = return_indices
        self.layout = layout
        _args.layout_axes(layout, 2)

    def forward(self, x: Any) -> Any:
        y, indices = F.adaptive_max_pool2d(x, self.output_size, return_indices=True, layout=self.layout)
        self.save_for_backward(indices, np.shape(x))
        return (y, indices) if self.return_indices else y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | None:
        indices, input_size = self.saved()
        if not self.needs_input_grad:
            return None
        return G.max_pool2d(grad_output, indices, input_size, layout=self.layout)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
