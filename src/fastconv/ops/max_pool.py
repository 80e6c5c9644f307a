# SPDX-License-Identifier: BSD-3-Clause
"""Maxima under a window that moves over the planes, and their gradients.

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
from fastconv.ops import _maxima, _windows
from fastconv.ops._maxima import Size
from fastconv.ops._windows import Pooled

__all__ = [
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_grad",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_grad",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_grad",
    "global_max_pool",
    "global_max_pool_grad",
    "max_pool1d",
    "max_pool1d_grad",
    "max_pool2d",
    "max_pool2d_grad",
    "max_pool3d",
    "max_pool3d_grad",
]
__dir__ = only(__all__)


def _max_pool(
    rank: int,
    input: Any,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
    return_indices: bool,
    layout: str,
    out: np.ndarray | None,
) -> Pooled:
    parameters = ("max", kernel_size, stride, padding, dilation, int(bool(ceil_mode)))

    def pool(images: _windows.Images) -> _windows.Pooling:
        windows = _windows.strided(images, kernel_size, stride, padding, dilation, bool(ceil_mode))
        return _windows.Pooling(windows, _windows.MAX)

    return _windows.forward(rank, input, layout, parameters, pool, out, bool(return_indices))


@_maxima.moving
def max_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element under each window.

    Among equals the first in row-major order counts. NaN is larger than any number, and among
    several the last counts, as in torch.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        float32, float64, or float16. With ``layout="NHWC"`` the channels come last. Any strides.
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if not given.
    padding : int or (int, int)
        Elements that never count, on both sides of each axis; at most half of `kernel_size`.
    dilation : int or (int, int)
        Distance of neighbouring elements of a window.
    ceil_mode : bool
        Round the output's size up rather than down, but start no window behind the input.
    return_indices : bool
        Return also where the maxima were found.
    layout : {"NCHW", "NHWC"}
    out : numpy.ndarray, optional
        Takes the result; it must not overlap the input.

    Returns
    -------
    output : numpy.ndarray, shape (N, C, OH, OW), or as `layout` and the input's rank say
        OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1. `out`, if given; else its axes lie
        in memory as the input's.
    indices : numpy.ndarray of int64, of the same shape
        Positions in the planes, counted in row-major order; only with `return_indices`. A window that
        steps over the whole input, from padding to padding, holds nothing: minus infinity, at -1. (So is
        torch's value; its position there is of an element that the window does not hold, or of none.)

    Raises
    ------
    TypeError
        If a dtype or the type of a parameter is not supported.
    ValueError
        If a parameter is out of range, or a window does not fit.

    See Also
    --------
    fastconv.grad.max_pool2d : its gradient.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.arange(16.0).reshape(1, 4, 4)
    >>> fc.max_pool2d(image, 2, return_indices=True)
    (array([[[ 5.,  7.],
            [13., 15.]]]), array([[[ 5,  7],
            [13, 15]]]))
    """
    windows = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(2, input, *windows, return_indices, layout, out)


def max_pool2d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.max_pool2d`: each element goes back to where it came from.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    indices : array_like of int64, of the same shape
        As the forward call returned them.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    numpy.ndarray, of shape `input_size`
        Sums where windows overlapped.

    Raises
    ------
    TypeError
        If `grad_output` is not floating point or `indices` are not int64.
    ValueError
        If shapes do not fit, or an index lies outside of its plane.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.array([[[1.0, 5.0, 2.0]]])
    >>> output, indices = fc.max_pool2d(image, (1, 2), stride=1, return_indices=True)
    >>> fc.grad.max_pool2d(np.ones_like(output), indices, image.shape)
    array([[[0., 2., 0.]]])
    """
    return _windows.max_grad(grad_output, indices, input_size, 2, layout)


@_maxima.moving
@of_rank(1, max_pool2d)
def max_pool1d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element under each window.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.max_pool1d(np.ones((1, 2, 4)), 2).shape
    (1, 2, 2)
    """
    windows = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(1, input, *windows, return_indices, layout, out)


@of_rank(1, max_pool2d_grad)
def max_pool1d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.max_pool1d`: each element goes back to where it came from.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, i = fc.max_pool1d(np.ones((1, 2, 4)), 2, return_indices=True)
    >>> fc.grad.max_pool1d(y, i, (1, 2, 4)).shape
    (1, 2, 4)
    """
    return _windows.max_grad(grad_output, indices, input_size, 1, layout)


@_maxima.moving
@of_rank(3, max_pool2d)
def max_pool3d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCDHW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element under each window.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.max_pool3d(np.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    windows = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(3, input, *windows, return_indices, layout, out)


@of_rank(3, max_pool2d_grad)
def max_pool3d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCDHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.max_pool3d`: each element goes back to where it came from.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, i = fc.max_pool3d(np.ones((1, 2, 4, 4, 4)), 2, return_indices=True)
    >>> fc.grad.max_pool3d(y, i, (1, 2, 4, 4, 4)).shape
    (1, 2, 4, 4, 4)
    """
    return _windows.max_grad(grad_output, indices, input_size, 3, layout)


def _adaptive_max_pool(
    rank: int, input: Any, output_size: Any, return_indices: bool, layout: str, out: np.ndarray | None
) -> Pooled:
    def pool(images: _windows.Images) -> _windows.Pooling:
        return _windows.Pooling(_windows.adaptive(images, output_size), _windows.MAX)

    return _windows.forward(rank, input, layout, ("max to", output_size), pool, out, bool(return_indices))


@_maxima.adaptive
def adaptive_max_pool2d(
    input: ArrayLike,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element of each cell of a grid over the image, whatever the image's size.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        float32, float64, or float16. With ``layout="NHWC"`` the channels come last. Any strides.
    output_size : int or (int or None, int or None)
        Cell i of OH covers floor(i * H / OH) to ceil((i + 1) * H / OH), and so along each axis. None keeps the
        input's size.
    return_indices, layout, out
        As for :func:`fastconv.max_pool2d`.

    Returns
    -------
    numpy.ndarray, or (output, indices)
        As from :func:`fastconv.max_pool2d`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.max_pool2d`.

    References
    ----------
    K. He et al., "Spatial pyramid pooling in deep convolutional networks for visual recognition",
    ECCV, 2014.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.adaptive_max_pool2d(np.arange(15.0).reshape(1, 3, 5), (None, 2))
    array([[[ 2.,  4.],
            [ 7.,  9.],
            [12., 14.]]])
    """
    return _adaptive_max_pool(2, input, output_size, return_indices, layout, out)


def adaptive_max_pool2d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_max_pool2d`: each element goes back to where it came from.

    Parameters
    ----------
    grad_output, indices, input_size, layout
        As for :func:`fastconv.grad.max_pool2d`.

    Returns
    -------
    numpy.ndarray, of shape `input_size`

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.adaptive_max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.array([[[1.0, 5.0, 2.0]]])
    >>> output, indices = fc.adaptive_max_pool2d(image, (1, 2), return_indices=True)
    >>> fc.grad.adaptive_max_pool2d(np.ones_like(output), indices, image.shape)
    array([[[0., 2., 0.]]])
    """
    return _windows.max_grad(grad_output, indices, input_size, 2, layout)


@_maxima.adaptive
@of_rank(1, adaptive_max_pool2d)
def adaptive_max_pool1d(
    input: ArrayLike,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
    *,
    layout: str = "NCW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element of each cell of a grid, whatever the input's size.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.adaptive_max_pool1d(np.ones((1, 2, 4)), 2).shape
    (1, 2, 2)
    """
    return _adaptive_max_pool(1, input, output_size, return_indices, layout, out)


@of_rank(1, adaptive_max_pool2d_grad)
def adaptive_max_pool1d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_max_pool1d`: each element goes back to where it came from.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, i = fc.adaptive_max_pool1d(np.ones((1, 2, 4)), 2, return_indices=True)
    >>> fc.grad.adaptive_max_pool1d(y, i, (1, 2, 4)).shape
    (1, 2, 4)
    """
    return _windows.max_grad(grad_output, indices, input_size, 1, layout)


@_maxima.adaptive
@of_rank(3, adaptive_max_pool2d)
def adaptive_max_pool3d(
    input: ArrayLike,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
    *,
    layout: str = "NCDHW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element of each cell of a grid, whatever the input's size.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.adaptive_max_pool3d(np.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _adaptive_max_pool(3, input, output_size, return_indices, layout, out)


@of_rank(3, adaptive_max_pool2d_grad)
def adaptive_max_pool3d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCDHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_max_pool3d`: each element goes back to where it came from.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, i = fc.adaptive_max_pool3d(np.ones((1, 2, 4, 4, 4)), 2, return_indices=True)
    >>> fc.grad.adaptive_max_pool3d(y, i, (1, 2, 4, 4, 4)).shape
    (1, 2, 4, 4, 4)
    """
    return _windows.max_grad(grad_output, indices, input_size, 3, layout)


@_maxima.whole
def global_max_pool(
    input: ArrayLike,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> Pooled:
    """Take the largest element of each plane, kept as an image of one pixel.

    Parameters and errors are those of :func:`fastconv.adaptive_max_pool2d`; the layout says how many axes a plane has.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not supported, or there are no spatial axes.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.global_max_pool(np.arange(8.0).reshape(2, 2, 2)).ravel()
    array([3., 7.])
    """
    return _adaptive_max_pool(_args.rank_of(layout), input, 1, return_indices, layout, out)


def global_max_pool_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_size: Sequence[int], *, layout: str = "NCHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.global_max_pool`; all as for :func:`max_pool2d_grad`.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> output, indices = fc.global_max_pool(np.array([[[1.0, 5.0, 2.0]]]), return_indices=True)
    >>> fc.grad.global_max_pool(np.ones_like(output), indices, (1, 1, 3))
    array([[[0., 1., 0.]]])
    """
    return _windows.max_grad(grad_output, indices, input_size, _args.rank_of(layout), layout)
