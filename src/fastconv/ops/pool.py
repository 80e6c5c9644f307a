# SPDX-License-Identifier: BSD-3-Clause
"""Pooling and its gradients: maxima and averages under a window that moves over the planes.

The functions have `torch.nn.functional`'s names, argument order, defaults and results, on NumPy
arrays of float32 or float64 (float16 is computed in float32 and returned as float16). All of them
are one problem to the C core, in which windows differ only by where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _args
from fastconv.ops import _windows

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_grad",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_grad",
    "avg_pool2d",
    "avg_pool2d_grad",
    "global_avg_pool",
    "global_avg_pool_grad",
    "global_max_pool",
    "global_max_pool_grad",
    "max_pool2d",
    "max_pool2d_grad",
]

Size = int | Sequence[int]


# --- maximum --------------------------------------------------------------------------------------


def max_pool2d(
    input: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
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
        Rows and columns that never count, on both sides; at most half of `kernel_size`.
    dilation : int or (int, int)
        Distance of neighbouring elements of a window.
    ceil_mode : bool
        Round the output's size up rather than down, but start no window behind the image.
    return_indices : bool
        Return also where the maxima were found.
    layout : {"NCHW", "NHWC"}
    out : numpy.ndarray, optional
        Takes the result; it must not overlap the input.

    Returns
    -------
    output : numpy.ndarray, shape (N, C, OH, OW), or as `layout` and the input's rank say
        OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1. `out`, if given.
    indices : numpy.ndarray of int64, of the same shape
        Positions row * W + column in the planes; only with `return_indices`.

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
    x, images = _windows.input_of(input, 2, layout)
    windows = _windows.strided(images, kernel_size, stride, padding, dilation, ceil_mode)
    return _windows.forward(x, images, windows, windows.core(_windows.MAX), out, return_indices)


def max_pool2d_grad(grad_output: Any, indices: Any, input_size: Sequence[int], *, layout: str = "NCHW") -> np.ndarray:
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


def adaptive_max_pool2d(
    input: Any,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Take the largest element of each cell of a grid over the image, whatever the image's size.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        float32, float64, or float16. With ``layout="NHWC"`` the channels come last. Any strides.
    output_size : int or (int or None, int or None)
        Cell i of OH covers the rows floor(i * H / OH) to ceil((i + 1) * H / OH). None keeps the
        input's size.
    return_indices, layout, out
        As for :func:`fastconv.max_pool2d`.

    Returns
    -------
    numpy.ndarray, or a pair of them
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
    x, images = _windows.input_of(input, 2, layout)
    windows = _windows.adaptive(images, output_size)
    return _windows.forward(x, images, windows, windows.core(_windows.MAX), out, return_indices)


def adaptive_max_pool2d_grad(
    grad_output: Any, indices: Any, input_size: Sequence[int], *, layout: str = "NCHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_max_pool2d`; all as for :func:`max_pool2d_grad`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.array([[[1.0, 5.0, 2.0]]])
    >>> output, indices = fc.adaptive_max_pool2d(image, (1, 2), return_indices=True)
    >>> fc.grad.adaptive_max_pool2d(np.ones_like(output), indices, image.shape)
    array([[[0., 2., 0.]]])
    """
    return _windows.max_grad(grad_output, indices, input_size, 2, layout)


def global_max_pool(
    input: Any,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Take the largest element of each plane, kept as an image of 1 x 1.

    Parameters and errors are those of :func:`fastconv.adaptive_max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.global_max_pool(np.arange(8.0).reshape(2, 2, 2)).ravel()
    array([3., 7.])
    """
    return adaptive_max_pool2d(input, 1, return_indices, layout=layout, out=out)


def global_max_pool_grad(
    grad_output: Any, indices: Any, input_size: Sequence[int], *, layout: str = "NCHW"
) -> np.ndarray:
    """Gradient of :func:`fastconv.global_max_pool`; all as for :func:`max_pool2d_grad`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> output, indices = fc.global_max_pool(np.array([[[1.0, 5.0, 2.0]]]), return_indices=True)
    >>> fc.grad.global_max_pool(np.ones_like(output), indices, (1, 1, 3))
    array([[[0., 1., 0.]]])
    """
    return _windows.max_grad(grad_output, indices, input_size, 2, layout)


# --- average --------------------------------------------------------------------------------------


def avg_pool2d(
    input: Any,
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
        Rows and columns of zeros on both sides; at most half of `kernel_size`.
    ceil_mode : bool
        Round the output's size up rather than down, but start no window behind the image. What
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
        OH = (H + 2 * padding - KH) // stride + 1. `out`, if given.

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
    x, images = _windows.input_of(input, 2, layout)
    windows = _windows.strided(images, kernel_size, stride, padding, 1, ceil_mode)
    pool = windows.core(_windows.AVG, bool(count_include_pad), _windows.divisor(divisor_override))
    return _windows.forward(x, images, windows, pool, out)


def avg_pool2d_grad(
    grad_output: Any,
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
    images = _windows.input_size_of(input_size, 2, layout)
    windows = _windows.strided(images, kernel_size, stride, padding, 1, ceil_mode)
    pool = windows.core(_windows.AVG, bool(count_include_pad), _windows.divisor(divisor_override))
    return _windows.backward(grad_output, images, windows, pool)


def adaptive_avg_pool2d(
    input: Any,
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
    x, images = _windows.input_of(input, 2, layout)
    windows = _windows.adaptive(images, output_size)
    return _windows.forward(x, images, windows, windows.core(_windows.AVG), out)


def adaptive_avg_pool2d_grad(grad_output: Any, input_size: Sequence[int], *, layout: str = "NCHW") -> np.ndarray:
    """Gradient of :func:`fastconv.adaptive_avg_pool2d`; the grid is that of `grad_output`.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
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
    images = _windows.input_size_of(input_size, 2, layout)
    grad = _args.as_operand(grad_output, "grad_output")
    windows = _windows.evenly(_windows.Images(grad.shape, 2, layout, "grad_output").size)
    return _windows.backward(grad, images, windows, windows.core(_windows.AVG))


def global_avg_pool(input: Any, *, layout: str = "NCHW", out: np.ndarray | None = None) -> np.ndarray:
    """Take the mean of each plane, kept as an image of 1 x 1.

    Parameters and errors are those of :func:`fastconv.adaptive_avg_pool2d`.

    References
    ----------
    M. Lin, Q. Chen, S. Yan, "Network in network", ICLR, 2014.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.global_avg_pool(np.arange(8.0).reshape(2, 2, 2)).ravel()
    array([1.5, 5.5])
    """
    return adaptive_avg_pool2d(input, 1, layout=layout, out=out)


def global_avg_pool_grad(grad_output: Any, input_size: Sequence[int], *, layout: str = "NCHW") -> np.ndarray:
    """Gradient of :func:`fastconv.global_avg_pool`; all as for :func:`adaptive_avg_pool2d_grad`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.global_avg_pool(np.ones((1, 1, 1)), (1, 1, 2))
    array([[[0.5, 0.5]]])
    """
    return adaptive_avg_pool2d_grad(grad_output, input_size, layout=layout)
