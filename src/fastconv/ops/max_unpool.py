# SPDX-License-Identifier: BSD-3-Clause
"""The way back from maxima to where they were found, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _core
from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.ops import _windows

__all__ = [
    "max_unpool1d",
    "max_unpool1d_grad",
    "max_unpool2d",
    "max_unpool2d_grad",
    "max_unpool3d",
    "max_unpool3d_grad",
]
__dir__ = only(__all__)

Size = int | Sequence[int]


def _flat(array: np.ndarray, images: _windows.Images) -> np.ndarray:
    """An array of planes as (images, channels, elements of a plane); a copy where strides do not allow a view."""
    planes = images.planes(array)
    return planes.reshape(*planes.shape[:2], math.prod(planes.shape[2:]))


def _max_unpool(
    rank: int,
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
    layout: str,
) -> np.ndarray:
    """Elements at the places that `indices` say, zeros elsewhere."""
    array, images = _windows.input_of(input, rank, layout)
    where = _windows.positions(indices, array.shape, "input")
    kernel = _args.per_axis(kernel_size, rank, "kernel_size", 1)
    steps = _windows.steps_of(stride, kernel)
    pads = _args.per_axis(padding, rank, "padding", 0)
    plain = tuple((n - 1) * s + k - 2 * p for n, s, k, p in zip(images.size, steps, kernel, pads, strict=True))
    size = plain
    if output_size is not None:
        size = _args.sizes(output_size, "output_size", 1)
        if len(size) == rank + 2:
            size = _windows.Images(size, rank, layout, "output_size").size
        if len(size) != rank:
            raise ValueError(f"output_size is {output_size}; it needs {rank} sizes, or the output's shape")
    if min(size) < 1 or any(abs(n - m) >= s for n, m, s in zip(size, plain, steps, strict=True)):
        raise ValueError(f"output_size is {output_size}; it needs positive sizes less than {steps} away from {plain}")
    return _to_size(rank, array, where, size, layout)


def _to_size(rank: int, array: np.ndarray, where: np.ndarray, size: tuple[int, ...], layout: str) -> np.ndarray:
    """Planes of this size, whatever the windows were."""
    images = _windows.Images(array.shape, rank, layout, "input")
    shape = images.pooled(size)
    result = _windows.Images(shape, rank, layout, "the output")
    if where.size and not 0 <= where.min() <= where.max() < math.prod(size):
        raise _windows.outside(where, result)
    out = _core.new_array(shape, array.dtype, images.order(array))
    out.fill(0)
    # The rows of a plane follow each other in a new array of either order, so that this is a view of it.
    np.put_along_axis(_flat(out, result), _flat(where, images), _flat(array, images), axis=2)
    return out


def _max_unpool_grad(rank: int, grad_output: Any, indices: Any, layout: str) -> np.ndarray:
    """What lies where `indices` say; nothing at -1, where no element was a maximum."""
    grad = _args.as_operand(grad_output, "grad_output")
    images = _windows.Images(grad.shape, rank, layout, "grad_output")
    where = _args.as_array(indices, "indices")
    places = _windows.Images(where.shape, rank, layout, "indices")
    _windows.positions(where, where.shape, "the input")
    if len(where.shape) != len(grad.shape) or images.planes(grad).shape[:2] != places.planes(where).shape[:2]:
        raise ValueError(
            f"grad_output has shape {grad.shape}; it needs the batch and channels of indices {where.shape}"
        )
    if where.size and not -1 <= where.min() <= where.max() < math.prod(images.size):
        raise _windows.outside(where, images)
    at = _flat(where, places)
    found = np.where(at < 0, 0, np.take_along_axis(_flat(grad, images), np.maximum(at, 0), axis=2))
    result = _core.new_array(where.shape, grad.dtype, places.order(where))
    planes = places.planes(result)
    planes[...] = found.reshape(planes.shape)
    return result


def max_unpool2d(
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Put elements back to where :func:`fastconv.max_pool2d` took them from, zeros elsewhere.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    indices : array_like of int64, of the same shape
        As :func:`fastconv.max_pool2d` returned them. Where one occurs twice the last element counts.
    kernel_size, stride, padding : int or (int, int)
        Those of the pooling: OH = (H - 1) * stride - 2 * padding + KH.
    output_size : sequence of int, optional
        The spatial size, or the whole shape, where pooling may have started from another: less than a stride away.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    numpy.ndarray, shape (N, C, OH, OW), or as `layout` and the input's rank say

    Raises
    ------
    TypeError
        If a dtype is not supported.
    ValueError
        If sizes do not fit, or an index lies outside of its plane.

    References
    ----------
    M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", ECCV, 2014.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool2d(np.array([[[1.0, 5.0], [2.0, 3.0]]]), 2, return_indices=True)
    >>> fc.max_unpool2d(y, where, 2)
    array([[[0., 5.],
            [0., 0.]]])
    """
    windows = (kernel_size, stride, padding, output_size)
    return _max_unpool(2, input, indices, *windows, layout)


def max_unpool2d_grad(grad_output: ArrayLike, indices: ArrayLike, *, layout: str = "NCHW") -> np.ndarray:
    """Gradient of :func:`fastconv.max_unpool2d`: what lies at the indices.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    indices : array_like of int64
        Those of the forward call; the result has their shape.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not fit, or an index lies outside of its plane.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool2d(np.ones((1, 2, 4, 4)), 2, return_indices=True)
    >>> fc.grad.max_unpool2d(np.ones((1, 2, 4, 4)), where).shape
    (1, 2, 2, 2)
    """
    return _max_unpool_grad(2, grad_output, indices, layout)


@of_rank(1, max_unpool2d)
def max_unpool1d(
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
    *,
    layout: str = "NCW",
) -> np.ndarray:
    """Put elements back to where :func:`fastconv.max_pool1d` took them from, zeros elsewhere.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool1d(np.ones((1, 2, 4)), 2, return_indices=True)
    >>> fc.max_unpool1d(y, where, 2).shape
    (1, 2, 4)
    """
    windows = (kernel_size, stride, padding, output_size)
    return _max_unpool(1, input, indices, *windows, layout)


@of_rank(1, max_unpool2d_grad)
def max_unpool1d_grad(grad_output: ArrayLike, indices: ArrayLike, *, layout: str = "NCW") -> np.ndarray:
    """Gradient of :func:`fastconv.max_unpool1d`: what lies at the indices.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool1d(np.ones((1, 2, 4)), 2, return_indices=True)
    >>> fc.grad.max_unpool1d(np.ones((1, 2, 4)), where).shape
    (1, 2, 2)
    """
    return _max_unpool_grad(1, grad_output, indices, layout)


@of_rank(3, max_unpool2d)
def max_unpool3d(
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
    *,
    layout: str = "NCDHW",
) -> np.ndarray:
    """Put elements back to where :func:`fastconv.max_pool3d` took them from, zeros elsewhere.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool3d(np.ones((1, 2, 4, 4, 4)), 2, return_indices=True)
    >>> fc.max_unpool3d(y, where, 2).shape
    (1, 2, 4, 4, 4)
    """
    windows = (kernel_size, stride, padding, output_size)
    return _max_unpool(3, input, indices, *windows, layout)


@of_rank(3, max_unpool2d_grad)
def max_unpool3d_grad(grad_output: ArrayLike, indices: ArrayLike, *, layout: str = "NCDHW") -> np.ndarray:
    """Gradient of :func:`fastconv.max_unpool3d`: what lies at the indices.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool3d(np.ones((1, 2, 4, 4, 4)), 2, return_indices=True)
    >>> fc.grad.max_unpool3d(np.ones((1, 2, 4, 4, 4)), where).shape
    (1, 2, 2, 2, 2)
    """
    return _max_unpool_grad(3, grad_output, indices, layout)
