# SPDX-License-Identifier: BSD-3-Clause
"""Pooling layers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv import functional as F
from fastconv import grad as G
from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]
__dir__ = only(__all__)

Size = int | tuple[int, ...]


class _Pool(Module):
    """What all of them share: a class says its rank, and the name of its functions but for that."""

    rank: ClassVar[int]
    function: ClassVar[str]
    stride: Size | None

    def _set_layout(self, layout: str | None) -> None:
        self.layout = _args.channels_first(self.rank) if layout is None else layout
        _args.layout_axes(self.layout, self.rank)

    def _checked(self, value: Size, name: str, least: int = 1) -> Size:
        """`value` as it was given (torch shows an int as an int), if it is one whole number or one per axis."""
        _args.per_axis(value, self.rank, name, least)
        return value

    def _checked_stride(self, stride: Size) -> Size:
        """As `_checked`; torch takes an empty one, too, which stands for the kernel's size."""
        return stride if isinstance(stride, (list, tuple)) and not stride else self._checked(stride, "stride")

    def _set_window(self, kernel_size: Size, stride: Size | None, padding: Size = 0) -> None:
        self.kernel_size = self._checked(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else self._checked_stride(stride)
        self.padding = self._checked(padding, "padding", 0)

    def _checked_output(self, output_size: Any) -> Any:
        """As `_checked`, where None, alone or for an axis, stands for the size of the input."""
        if isinstance(output_size, (tuple, list)):
            filled = tuple(1 if size is None else size for size in output_size)
            _args.per_axis(filled, self.rank, "output_size", 0)
            return tuple(output_size)
        return None if output_size is None else self._checked(output_size, "output_size", 0)

    def _forward(self) -> Any:
        return getattr(F, f"{self.function}{self.rank}d")

    def _seen(self, input: ArrayLike) -> tuple[tuple[int, ...], _args.Order]:
        """What its gradient has of an input: the shape, and the order of axes in memory."""
        array = _args.as_array(input, "input")
        return array.shape, _args.order_of(array, self.rank, self.layout)

    def _gradient(self, order: _args.Order, *arguments: Any) -> np.ndarray:
        """That of the input, in this order. Of one pixel the operator could not tell."""
        return _args.dense(getattr(G, f"{self.function}{self.rank}d")(*arguments, layout=self.layout), order)


class _MaxPool(_Pool):
    function = "max_pool"

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        layout: str | None = None,
    ) -> None:
        self._set_window(kernel_size, stride, padding)
        self.dilation = self._checked(dilation, "dilation")
        self.return_indices, self.ceil_mode = return_indices, ceil_mode
        self._set_layout(layout)

    def forward(self, input: ArrayLike) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        if not (self.training or self.return_indices):
            self.save_for_backward()
            return self._forward()(input, *window, layout=self.layout)
        y, indices = self._forward()(input, *window, return_indices=True, layout=self.layout)
        self.save_for_backward(indices, *self._seen(input))
        return (y, indices) if self.return_indices else y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        indices, input_size, order = self.saved()
        if not self.needs_input_grad:
            return None
        return self._gradient(order, grad_output, indices, input_size)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class _AvgPool(_Pool):
    function = "avg_pool"

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        layout: str | None = None,
    ) -> None:
        self._set_window(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override
        self._set_layout(layout)

    def _window(self) -> tuple[Any, ...]:
        divisor = () if self.rank == 1 else (self.divisor_override,)
        return (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, *divisor)

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = self._forward()(input, *self._window(), layout=self.layout)
        self.save_for_backward(*self._seen(input))
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        input_size, order = self.saved()
        if not self.needs_input_grad:
            return None
        return self._gradient(order, grad_output, input_size, *self._window())

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveAvgPool(_Pool):
    function = "adaptive_avg_pool"

    def __init__(self, output_size: Any, *, layout: str | None = None) -> None:
        self.output_size = self._checked_output(output_size)
        self._set_layout(layout)

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = self._forward()(input, self.output_size, layout=self.layout)
        self.save_for_backward(*self._seen(input))
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        input_size, order = self.saved()
        if not self.needs_input_grad:
            return None
        return self._gradient(order, grad_output, input_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveMaxPool(_Pool):
    function = "adaptive_max_pool"

    def __init__(self, output_size: Any, return_indices: bool = False, *, layout: str | None = None) -> None:
        self.output_size = self._checked_output(output_size)
        self.return_indices = return_indices
        self._set_layout(layout)

    def forward(self, input: ArrayLike) -> Any:
        y, indices = self._forward()(input, self.output_size, return_indices=True, layout=self.layout)
        self.save_for_backward(indices, *self._seen(input))
        return (y, indices) if self.return_indices else y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        indices, input_size, order = self.saved()
        if not self.needs_input_grad:
            return None
        return self._gradient(order, grad_output, indices, input_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class MaxPool2d(_MaxPool):
    """The largest value of each window, as `torch.nn.MaxPool2d`.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if not given.
    padding, dilation : int or (int, int)
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

    rank = 2


@of_rank(1, MaxPool2d)
class MaxPool1d(_MaxPool):
    """The largest value of each window, as `torch.nn.MaxPool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.MaxPool1d(2)(np.ones((1, 1, 4))).shape
    (1, 1, 2)
    """

    rank = 1


@of_rank(3, MaxPool2d)
class MaxPool3d(_MaxPool):
    """The largest value of each window, as `torch.nn.MaxPool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.MaxPool3d(2)(np.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 2, 2, 2)
    """

    rank = 3


class AvgPool2d(_AvgPool):
    """The mean of each window, as `torch.nn.AvgPool2d`.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if not given.
    padding : int or (int, int)
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

    rank = 2


@of_rank(1, AvgPool2d)
class AvgPool1d(_AvgPool):
    """The mean of each window, as `torch.nn.AvgPool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AvgPool1d(2)(np.ones((1, 1, 4))).shape
    (1, 1, 2)
    """

    rank = 1

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        layout: str | None = None,
    ) -> None:
        # torch shows these as tuples.
        kernel = _args.per_axis(kernel_size, 1, "kernel_size", 1)
        steps = None if stride is None or stride in ([], ()) else _args.per_axis(stride, 1, "stride", 1)
        super().__init__(
            kernel, steps, _args.per_axis(padding, 1, "padding", 0), ceil_mode, count_include_pad, layout=layout
        )


@of_rank(3, AvgPool2d)
class AvgPool3d(_AvgPool):
    """The mean of each window, as `torch.nn.AvgPool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AvgPool3d(2)(np.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 2, 2, 2)
    """

    rank = 3


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means over as many windows as give `output_size`, as `torch.nn.AdaptiveAvgPool2d`.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        Size of the output; None keeps the input's.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool2d(1)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[7.5]]]])
    """

    rank = 2


@of_rank(1, AdaptiveAvgPool2d)
class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means over as many windows as give `output_size`, as `torch.nn.AdaptiveAvgPool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool1d(1)(np.ones((1, 1, 4))).shape
    (1, 1, 1)
    """

    rank = 1


@of_rank(3, AdaptiveAvgPool2d)
class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means over as many windows as give `output_size`, as `torch.nn.AdaptiveAvgPool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool3d(1)(np.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 1, 1, 1)
    """

    rank = 3


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maxima over as many windows as give `output_size`, as `torch.nn.AdaptiveMaxPool2d`.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        Size of the output; None keeps the input's.
    return_indices : bool
        Return ``(values, indices)``.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool2d(1)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[15.]]]])
    """

    rank = 2


@of_rank(1, AdaptiveMaxPool2d)
class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maxima over as many windows as give `output_size`, as `torch.nn.AdaptiveMaxPool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool1d(1)(np.ones((1, 1, 4))).shape
    (1, 1, 1)
    """

    rank = 1


@of_rank(3, AdaptiveMaxPool2d)
class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maxima over as many windows as give `output_size`, as `torch.nn.AdaptiveMaxPool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool3d(1)(np.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 1, 1, 1)
    """

    rank = 3
