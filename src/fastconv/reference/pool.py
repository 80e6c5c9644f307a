# SPDX-License-Identifier: BSD-3-Clause
"""Pooling and its gradients: a list of windows along each axis, and one rule for each of them.

All kinds of pooling differ only in where their windows lie, so each window is a pair of slices,
already cut to the image: padding is never stored. :class:`_Axis` and :func:`_adaptive` make the
slices, :func:`_largest` and :func:`_mean` look through them.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, overload

import numpy as np

from ._axes import Pair, channels_as, channels_first, channels_first_shape, pair

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_input",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "avg_pool2d_input",
    "global_avg_pool",
    "global_max_pool",
    "max_pool2d",
    "max_pool2d_input",
]
__dir__ = __all__.copy


OptionalPair = int | Sequence[int | None]
Windows = tuple[list[slice], list[slice]]


# --- maximum --------------------------------------------------------------------------------------


@overload
def max_pool2d(
    input: np.ndarray,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    layout: str = "NCHW",
) -> np.ndarray: ...
@overload
def max_pool2d(
    input: np.ndarray,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    layout: str = "NCHW",
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def max_pool2d(
    input: np.ndarray,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> np.ndarray | tuple[np.ndarray, np.ndarray]: ...
def max_pool2d(
    input: np.ndarray,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Largest value in each window.

    Among equal values the first in row-major order is taken. NaN is larger than any number, and
    among several the last is taken, as in torch.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        With ``layout="NHWC"`` the channels come last.
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        `kernel_size` unless given.
    padding : int or pair of int
        Rows and columns of minus infinity on both sides.
    dilation : int or pair of int
        Step between the elements of a window.
    ceil_mode : bool
        Round the output's size up, except that no window starts in the padding after the image.
    return_indices : bool
        Return also where each maximum was found.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    output : ndarray, shape (N, C, OH, OW) or (C, OH, OW)
    indices : ndarray of int64, of the same shape
        Row * W + column in the input's plane; only with `return_indices`. A window that holds no pixel at
        all, which takes dilation and padding together, gives minus infinity at -1.

    Raises
    ------
    ValueError
        If the window is larger than the padded image.

    Examples
    --------
    >>> image = np.arange(16.0).reshape(1, 4, 4)
    >>> max_pool2d(image, 2, return_indices=True)
    (array([[[ 5.,  7.],
            [13., 15.]]]), array([[[ 5,  7],
            [13, 15]]]))
    """
    planes = channels_first(input, layout)
    rows, columns = _axes(planes.shape[-2:], kernel_size, stride, padding, dilation, ceil_mode)
    windows = rows.windows(), columns.windows()
    output, indices = _largest(planes, windows, layout)
    return (output, indices) if return_indices else output


@overload
def adaptive_max_pool2d(
    input: np.ndarray, output_size: OptionalPair, return_indices: Literal[False] = False, *, layout: str = "NCHW"
) -> np.ndarray: ...
@overload
def adaptive_max_pool2d(
    input: np.ndarray, output_size: OptionalPair, return_indices: Literal[True], *, layout: str = "NCHW"
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def adaptive_max_pool2d(
    input: np.ndarray, output_size: OptionalPair, return_indices: bool = False, *, layout: str = "NCHW"
) -> np.ndarray | tuple[np.ndarray, np.ndarray]: ...
def adaptive_max_pool2d(
    input: np.ndarray,
    output_size: OptionalPair,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Largest value in each cell of a grid of `output_size`, whatever the size of the image.

    Cell i covers the rows from ``floor(i * H / OH)`` to ``ceil((i + 1) * H / OH)``, so that
    neighbours overlap when OH does not divide H.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
    output_size : int or pair of (int or None)
        None keeps the input's size along that axis.
    return_indices, layout
        As for :func:`max_pool2d`.

    Returns
    -------
    ndarray or pair of ndarray
        As for :func:`max_pool2d`.

    References
    ----------
    K. He et al., "Spatial pyramid pooling in deep convolutional networks", ECCV, 2014.

    Examples
    --------
    >>> adaptive_max_pool2d(np.arange(15.0).reshape(1, 3, 5), (None, 2))
    array([[[ 2.,  4.],
            [ 7.,  9.],
            [12., 14.]]])
    """
    planes = channels_first(input, layout)
    output, indices = _largest(planes, _adaptive(planes.shape[-2:], output_size), layout)
    return (output, indices) if return_indices else output


def global_max_pool(input: np.ndarray, *, layout: str = "NCHW") -> np.ndarray:
    """Largest value of each plane, kept as an image of 1 x 1.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape (N, C, 1, 1) or (C, 1, 1)

    Examples
    --------
    >>> global_max_pool(np.arange(8.0).reshape(2, 2, 2)).shape
    (2, 1, 1)
    """
    planes = channels_first(input, layout)
    return _largest(planes, _adaptive(planes.shape[-2:], 1), layout)[0]


def max_pool2d_input(
    grad_output: np.ndarray,
    indices: np.ndarray,
    input_size: Sequence[int],
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Gradient of maximum pooling, strided or adaptive, with respect to its input.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the loss with respect to the output.
    indices : ndarray of int64
        As returned by the forward function.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape `input_size`

    Examples
    --------
    >>> image = np.array([[[1.0, 5.0, 2.0]]])
    >>> output, indices = max_pool2d(image, (1, 2), stride=1, return_indices=True)
    >>> max_pool2d_input(np.ones_like(output), indices, image.shape)
    array([[[0., 2., 0.]]])
    """
    grad = channels_first(grad_output, layout)
    *planes, height, width = channels_first_shape(input_size, layout)
    grad_input = np.zeros((*planes, height * width), grad.dtype)
    for plane in np.ndindex(*planes):
        where = channels_first(indices, layout)[plane]
        np.add.at(grad_input[plane], where[where >= 0], grad[plane][where >= 0])
    return channels_as(grad_input.reshape(*planes, height, width), layout)


# --- average --------------------------------------------------------------------------------------


def avg_pool2d(
    input: np.ndarray,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Mean of each window.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        With ``layout="NHWC"`` the channels come last.
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        `kernel_size` unless given.
    padding : int or pair of int
        Rows and columns of zeros on both sides.
    ceil_mode : bool
        Round the output's size up, except that no window starts in the padding after the image.
    count_include_pad : bool
        Count the padding's zeros in the divisor. What a window has beyond the padding, which
        happens with `ceil_mode`, never counts.
    divisor_override : int, optional
        Divide by this number instead.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape (N, C, OH, OW) or (C, OH, OW)

    Raises
    ------
    ValueError
        If the window is larger than the padded image.

    Examples
    --------
    >>> avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    planes = channels_first(input, layout)
    windows, divisor = _average(
        planes.shape[-2:],
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )
    return _mean(planes, windows, divisor, layout)


def adaptive_avg_pool2d(input: np.ndarray, output_size: OptionalPair, *, layout: str = "NCHW") -> np.ndarray:
    """Mean of each cell of a grid of `output_size`; the cells are :func:`adaptive_max_pool2d`'s.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
    output_size : int or pair of (int or None)
        None keeps the input's size along that axis.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape (N, C, OH, OW) or (C, OH, OW)

    Examples
    --------
    >>> adaptive_avg_pool2d(np.arange(15.0).reshape(1, 3, 5), (1, 2))
    array([[[6., 8.]]])
    """
    planes = channels_first(input, layout)
    windows = _adaptive(planes.shape[-2:], output_size)
    return _mean(planes, windows, _sizes(windows), layout)


def global_avg_pool(input: np.ndarray, *, layout: str = "NCHW") -> np.ndarray:
    """Mean of each plane, kept as an image of 1 x 1.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape (N, C, 1, 1) or (C, 1, 1)

    References
    ----------
    M. Lin, Q. Chen, S. Yan, "Network in network", ICLR, 2014.

    Examples
    --------
    >>> global_avg_pool(np.arange(8.0).reshape(2, 2, 2))
    array([[[1.5]],
    <BLANKLINE>
           [[5.5]]])
    """
    return adaptive_avg_pool2d(input, 1, layout=layout)


def avg_pool2d_input(
    grad_output: np.ndarray,
    input_size: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Gradient of :func:`avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the loss with respect to the output.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout
        As given to :func:`avg_pool2d`.

    Returns
    -------
    ndarray, shape `input_size`

    Examples
    --------
    >>> avg_pool2d_input(np.ones((1, 1, 2)), (1, 1, 3), (1, 2), stride=1)
    array([[[0.5, 1. , 0.5]]])
    """
    windows, divisor = _average(
        channels_first_shape(input_size, layout)[-2:],
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )
    return _spread(grad_output, input_size, windows, divisor, layout)


def adaptive_avg_pool2d_input(
    grad_output: np.ndarray, input_size: Sequence[int], *, layout: str = "NCHW"
) -> np.ndarray:
    """Gradient of :func:`adaptive_avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the loss with respect to the output, which also tells the output's size.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape `input_size`

    Examples
    --------
    >>> adaptive_avg_pool2d_input(np.ones((1, 1, 2)), (1, 1, 3))
    array([[[0.5, 1. , 0.5]]])
    """
    size = channels_first_shape(input_size, layout)[-2:]
    windows = _adaptive(size, channels_first(grad_output, layout).shape[-2:])
    return _spread(grad_output, input_size, windows, _sizes(windows), layout)


# --- the windows ----------------------------------------------------------------------------------


class _Axis(NamedTuple):
    """Strided windows along one axis."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    ceil_mode: bool

    def starts(self) -> range:
        """Where the windows start; in the padding before the image this is negative."""
        extent = self.dilation * (self.kernel - 1) + 1
        slack = self.size + 2 * self.padding - extent
        steps = -(-slack // self.stride) if self.ceil_mode else slack // self.stride
        last = steps * self.stride - self.padding
        if self.ceil_mode and last >= self.size:  # it would see only the padding after the image
            last -= self.stride
        if last < -self.padding:
            raise ValueError(
                f"kernel_size: got {self.kernel} with dilation {self.dilation}, "
                f"needs to fit into {self.size} pixels with padding {self.padding}"
            )
        return range(-self.padding, last + 1, self.stride)

    def windows(self) -> list[slice]:
        """The part of each window that lies in the image."""
        return [
            slice(
                start if start >= 0 else start % self.dilation,  # its first element in the image
                min(start + self.dilation * (self.kernel - 1) + 1, self.size),
                self.dilation,
            )
            for start in self.starts()
        ]

    def padded_sizes(self) -> list[int]:
        """How many elements each window holds, counting the padding but nothing beyond it."""
        return [min(self.kernel, self.size + self.padding - start) for start in self.starts()]


def _axes(
    size: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> tuple[_Axis, _Axis]:
    per_axis = zip(
        size,
        pair(kernel_size, "kernel_size"),
        pair(kernel_size if stride is None else stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
        strict=True,
    )
    rows, columns = (_Axis(*values, ceil_mode) for values in per_axis)
    return rows, columns


def _average(
    size: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> tuple[Windows, np.ndarray]:
    """The windows of :func:`avg_pool2d`, and what the sum over each of them is divided by."""
    rows, columns = _axes(size, kernel_size, stride, padding, 1, ceil_mode)
    windows = rows.windows(), columns.windows()
    if divisor_override is not None:
        return windows, np.full_like(_sizes(windows), divisor_override)
    if count_include_pad:
        return windows, np.outer(rows.padded_sizes(), columns.padded_sizes())
    return windows, _sizes(windows)


def _adaptive(size: Sequence[int], output_size: OptionalPair) -> Windows:
    """Windows from floor(i * size / count) to ceil((i + 1) * size / count), along either axis."""

    def cells(length: int, count: int | None) -> list[slice]:
        count = length if count is None else count
        return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]

    rows, columns = map(cells, size, pair(output_size, "output_size"))
    return rows, columns


def _sizes(windows: Windows) -> np.ndarray:
    """How many pixels of the image each window holds, for windows without dilation."""
    rows, columns = ([window.stop - window.start for window in axis] for axis in windows)
    return np.outer(rows, columns)


def _each(windows: Windows) -> Iterator[tuple[int, int, slice, slice]]:
    """(i, j, rows, columns) of every output pixel."""
    for i, rows in enumerate(windows[0]):
        for j, columns in enumerate(windows[1]):
            yield i, j, rows, columns


# --- the rules ------------------------------------------------------------------------------------


def _largest(planes: np.ndarray, windows: Windows, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """The maxima, and where they were found."""
    *outer, height, width = planes.shape
    position = np.arange(height * width).reshape(height, width)
    indices = np.empty((*outer, len(windows[0]), len(windows[1])), np.int64)
    for i, j, rows, columns in _each(windows):
        candidates = position[rows, columns].ravel()
        if candidates.size == 0:
            indices[..., i, j] = -1
            continue
        values = planes[..., rows, columns].reshape(*outer, candidates.size)
        indices[..., i, j] = candidates[_argmax(values)]

    flat = planes.reshape(*outer, height * width)
    found = indices.reshape(*outer, len(windows[0]) * len(windows[1]))
    output = np.where(found < 0, -np.inf, np.take_along_axis(flat, np.maximum(found, 0), axis=-1))
    output = output.astype(planes.dtype).reshape(indices.shape)
    return channels_as(output, layout), channels_as(indices, layout)


def _argmax(values: np.ndarray) -> np.ndarray:
    """Along the last axis: the last NaN where there is one, else the first of the largest."""
    nan = np.isnan(values)
    last_nan = values.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
    return np.where(nan.any(axis=-1), last_nan, values.argmax(axis=-1))


def _mean(planes: np.ndarray, windows: Windows, divisor: np.ndarray, layout: str) -> np.ndarray:
    output = np.empty((*planes.shape[:-2], *divisor.shape), planes.dtype)
    for i, j, rows, columns in _each(windows):
        output[..., i, j] = planes[..., rows, columns].sum(axis=(-2, -1))
    return channels_as(output / divisor.astype(planes.dtype), layout)


def _spread(
    grad_output: np.ndarray,
    input_size: Sequence[int],
    windows: Windows,
    divisor: np.ndarray,
    layout: str,
) -> np.ndarray:
    """The transpose of :func:`_mean`: every window gets back its share of the gradient."""
    shares = channels_first(grad_output, layout)
    shares = shares / divisor.astype(shares.dtype)
    grad_input = np.zeros(channels_first_shape(input_size, layout), shares.dtype)
    for i, j, rows, columns in _each(windows):
        grad_input[..., rows, columns] += shares[..., i, j, np.newaxis, np.newaxis]
    return channels_as(grad_input, layout)
