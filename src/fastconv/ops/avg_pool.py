# SPDX-License-Identifier: BSD-3-Clause
"""Means under a window that moves over the planes, and their gradients.

The functions have `torch.nn.functional`'s names, argument order, defaults and results, on NumPy arrays of float32 or
float64 (float16 is computed in float32 and returned as float16), along one, two or three axes. All of them are one
problem to the C core, in which windows differ only by where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.ops import _windows

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_grad",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_grad",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_grad",
    "avg_pool1d",
    "avg_pool1d_grad",
    "avg_pool2d",
    "avg_pool2d_grad",
    "avg_pool3d",
    "avg_pool3d_grad",
    "global_avg_pool",
    "global_avg_pool_grad",
]
__dir__ = only(__all__)

Size = int | Sequence[int]


def _avg_pool(
    rank: int,
    input: Any,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    layout: str,
    out: np.ndarray | None,
) -> np.ndarray:
    include = bool(count_include_pad)
    parameters = ("avg", kernel_size, stride, padding, int(bool(ceil_mode)), int(include), divisor_override)

    def pool(images: _windows.Images) -> _windows.Pooling:
        windows = _windows.strided(images, kernel_size, stride, padding, 1, bool(ceil_mode))
        return _windows.Pooling(windows, _windows.AVG, include, _windows.divisor(divisor_override))

    return _windows.forward(rank, input, layout, parameters, pool, out)


def _avg_pool_grad(
    rank: int,
    grad_output: Any,
    input_size: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    layout: str,
) -> np.ndarray:
    include = bool(count_include_pad)
    parameters = ("avg", kernel_size, stride, padding, int(bool(ceil_mode)), int(include), divisor_override)

    def pool(images: _windows.Images, grad: _windows.Images) -> _windows.Pooling:
        windows = _windows.strided(images, kernel_size, stride, padding, 1, bool(ceil_mode))
        return _windows.Pooling(windows, _windows.AVG, include, _windows.divisor(divisor_override))

    return _windows.backward(rank, grad_output, None, input_size, layout, parameters, pool)


def avg_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Take the mean of the elements under each window.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        float32, float64, or float16. With ``layout="NHWC"`` the channels come last. Any strides.
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if not given.
    padding : int or (int, int)
        Zeros on both sides of each axis; at most half of `kernel_size`.
    ceil_mode : bool
        Round the output's size up rather than down, but start no window behind the input. What
        such a window has beyond the padding does not count.
    count_include_pad : bool
        Whether the zeros of the padding count.
    divisor_override : int, optional
        What to divide the sums by instead of the number of elements.
    layout : {"NCHW", "NHWC"}
    out : numpy.ndarray, optional
        Takes the result; it must not overlap the input.

    Returns
    -------
    numpy.ndarray, shape (N, C, OH, OW), or as `layout` and the input's rank say
        OH = (H + 2 * padding - KH) // stride + 1. `out`, if given; else its axes lie in memory as the input's.

    Raises
    ------
    TypeError
        If a dtype or the type of a parameter is not supported.
    ValueError
        If a parameter is out of range, or a window does not fit.

    See Also
    --------
    fastconv.grad.avg_pool2d : its gradient.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool(2, input, *windows, layout, out)


def avg_pool2d_grad(
    grad_output: ArrayLike,
    input_size: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.avg_pool2d`: each element is shared evenly by its window.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape `input_size`

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.avg_pool2d`; also if `grad_output` has not the output's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.avg_pool2d(np.ones((1, 1, 2)), (1, 1, 3), (1, 2), stride=1)
    array([[[0.5, 1. , 0.5]]])
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool_grad(2, grad_output, input_size, *windows, layout)


@of_rank(1, avg_pool2d)
def avg_pool1d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    layout: str = "NCW",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Take the mean of the elements under each window.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.avg_pool1d(np.ones((1, 2, 4)), 2).shape
    (1, 2, 2)
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, None)
    return _avg_pool(1, input, *windows, layout, out)


@of_rank(1, avg_pool2d_grad)
def avg_pool1d_grad(
    grad_output: ArrayLike,
    input_size: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    layout: str = "NCW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.avg_pool1d`: each element is shared evenly by its window.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.avg_pool1d(np.ones((1, 2, 2)), (1, 2, 4), 2).shape
    (1, 2, 4)
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, None)
    return _avg_pool_grad(1, grad_output, input_size, *windows, layout)


@of_rank(3, avg_pool2d)
def avg_pool3d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCDHW",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Take the mean of the elements under each window.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.avg_pool3d(np.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool(3, input, *windows, layout, out)


@of_rank(3, avg_pool2d_grad)
def avg_pool3d_grad(
    grad_output: ArrayLike,
    input_size: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCDHW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.avg_pool3d`: each element is shared evenly by its window.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.avg_pool3d(np.ones((1, 2, 2, 2, 2)), (1, 2, 4, 4, 4), 2).shape
    (1, 2, 4, 4, 4)
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool_grad(3, grad_output, input_size, *windows, layout)


def _adaptive_avg_pool(rank: int, input: Any, output_size: Any, layout: str, out: np.ndarray | None) -> np.ndarray:
    def pool(images: _windows.Images) -> _windows.Pooling:
        return _windows.Pooling(_windows.adaptive(images, output_size), _windows.AVG)

    return _windows.forward(rank, input, layout, ("avg to", output_size), pool, out)


def _adaptive_avg_pool_grad(rank: int, grad_output: Any, input_size: Sequence[int], layout: str) -> np.ndarray:
    return _windows.evenly_grad(_windows.AVG, rank, grad_output, None, input_size, layout)


def adaptive_avg_pool2d(
    input: ArrayLike,
    output_size: int | Sequence[int | None],
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Take the mean of each cell of a grid over the image, whatever the image's size.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    output_size : int or (int or None, int or None)
        The cells are those of :func:`fastconv.adaptive_max_pool2d`.
    layout, out
        As for :func:`fastconv.avg_pool2d`.

    Returns
    -------
    numpy.ndarray
        As from :func:`fastconv.avg_pool2d`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.avg_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.adaptive_avg_pool2d(np.arange(15.0).reshape(1, 3, 5), (1, 2))
    array([[[6., 8.]]])
    """
    return _adaptive_avg_pool(2, input, output_size, layout, out)


def adaptive_avg_pool2d_grad(grad_output: ArrayLike, input_size: Sequence[int], *, layout: str = "NCHW") -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_avg_pool2d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output; the grid is the one that it has.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    numpy.ndarray, of shape `input_size`

    Raises
    ------
    TypeError, ValueError
        If `grad_output` is not floating point, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.adaptive_avg_pool2d(np.ones((1, 1, 2)), (1, 1, 3))
    array([[[0.5, 1. , 0.5]]])
    """
    return _adaptive_avg_pool_grad(2, grad_output, input_size, layout)


@of_rank(1, adaptive_avg_pool2d)
def adaptive_avg_pool1d(
    input: ArrayLike,
    output_size: int | Sequence[int | None],
    *,
    layout: str = "NCW",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Take the mean of each cell of a grid, whatever the input's size.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.adaptive_avg_pool1d(np.ones((1, 2, 4)), 2).shape
    (1, 2, 2)
    """
    return _adaptive_avg_pool(1, input, output_size, layout, out)


@of_rank(1, adaptive_avg_pool2d_grad)
def adaptive_avg_pool1d_grad(grad_output: ArrayLike, input_size: Sequence[int], *, layout: str = "NCW") -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_avg_pool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.adaptive_avg_pool1d(np.ones((1, 2, 2)), (1, 2, 4)).shape
    (1, 2, 4)
    """
    return _adaptive_avg_pool_grad(1, grad_output, input_size, layout)


@of_rank(3, adaptive_avg_pool2d)
def adaptive_avg_pool3d(
    input: ArrayLike,
    output_size: int | Sequence[int | None],
    *,
    layout: str = "NCDHW",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Take the mean of each cell of a grid, whatever the input's size.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.adaptive_avg_pool3d(np.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _adaptive_avg_pool(3, input, output_size, layout, out)


@of_rank(3, adaptive_avg_pool2d_grad)
def adaptive_avg_pool3d_grad(grad_output: ArrayLike, input_size: Sequence[int], *, layout: str = "NCDHW") -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_avg_pool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.adaptive_avg_pool3d(np.ones((1, 2, 2, 2, 2)), (1, 2, 4, 4, 4)).shape
    (1, 2, 4, 4, 4)
    """
    return _adaptive_avg_pool_grad(3, grad_output, input_size, layout)


def global_avg_pool(input: ArrayLike, *, layout: str = "NCHW", out: np.ndarray | None = None) -> np.ndarray:
    """Take the mean of each plane, kept as an image of one pixel.

    Parameters and errors are those of :func:`fastconv.adaptive_avg_pool2d`; the layout says how many axes a plane has.

    References
    ----------
    M. Lin, Q. Chen, S. Yan, "Network in network", ICLR, 2014.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not supported, or there are no spatial axes.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.global_avg_pool(np.arange(8.0).reshape(2, 2, 2)).ravel()
    array([1.5, 5.5])
    """
    return _adaptive_avg_pool(_args.rank_of(layout), input, 1, layout, out)


def global_avg_pool_grad(grad_output: ArrayLike, input_size: Sequence[int], *, layout: str = "NCHW") -> np.ndarray:
    """Gradient of :func:`fastconv.global_avg_pool`; all as for :func:`adaptive_avg_pool2d_grad`.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.global_avg_pool(np.ones((1, 1, 1)), (1, 1, 2))
    array([[[0.5, 0.5]]])
    """
    return _adaptive_avg_pool_grad(_args.rank_of(layout), grad_output, input_size, layout)
