# SPDX-License-Identifier: BSD-3-Clause
"""The way back from maxima to where they were found, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.ops import _windows

__all__ = [
    "max_unpool1d",
    "max_unpool1d_grad",
    "max_unpool2d",
    "max_unpool2d_grad",
    "max_unpool3d",
    "max_unpool3d_grad",
]

Size = int | Sequence[int]


def max_unpool1d(
    input: Any,
    indices: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
    *,
    layout: str = "NCW",
) -> np.ndarray:
    """Put elements back to where :func:`fastconv.max_pool1d` took them from, zeros elsewhere.

    Parameters, results and errors are those of :func:`fastconv.max_unpool2d`, with 1 number where that has
    two; layouts are ``"NCW"`` and ``"NWC"``.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool1d(np.ones((1, 2, 4)), 2, return_indices=True)
    >>> fc.max_unpool1d(y, where, 2).shape
    (1, 2, 4)
    """
    windows = (kernel_size, stride, padding, output_size)
    return _windows.unpool(input, indices, *windows, 1, layout)


def max_unpool1d_grad(grad_output: Any, indices: Any, *, layout: str = "NCW") -> np.ndarray:
    """Gradient of :func:`fastconv.max_unpool1d`: what lies at the indices.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    indices : array_like of int64
        Those of the forward call; the result has their shape.
    layout : {"NCW", "NWC"}

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
    >>> y, where = fc.max_pool1d(np.ones((1, 2, 4)), 2, return_indices=True)
    >>> fc.grad.max_unpool1d(np.ones((1, 2, 4)), where).shape
    (1, 2, 2)
    """
    return _windows.unpool_grad(grad_output, indices, 1, layout)


def max_unpool2d(
    input: Any,
    indices: Any,
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
    return _windows.unpool(input, indices, *windows, 2, layout)


def max_unpool2d_grad(grad_output: Any, indices: Any, *, layout: str = "NCHW") -> np.ndarray:
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
    return _windows.unpool_grad(grad_output, indices, 2, layout)


def max_unpool3d(
    input: Any,
    indices: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
    *,
    layout: str = "NCDHW",
) -> np.ndarray:
    """Put elements back to where :func:`fastconv.max_pool3d` took them from, zeros elsewhere.

    Parameters, results and errors are those of :func:`fastconv.max_unpool2d`, with 3 numbers where that has
    two; layouts are ``"NCDHW"`` and ``"NDHWC"``.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y, where = fc.max_pool3d(np.ones((1, 2, 4, 4, 4)), 2, return_indices=True)
    >>> fc.max_unpool3d(y, where, 2).shape
    (1, 2, 4, 4, 4)
    """
    windows = (kernel_size, stride, padding, output_size)
    return _windows.unpool(input, indices, *windows, 3, layout)


def max_unpool3d_grad(grad_output: Any, indices: Any, *, layout: str = "NCDHW") -> np.ndarray:
    """Gradient of :func:`fastconv.max_unpool3d`: what lies at the indices.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    indices : array_like of int64
        Those of the forward call; the result has their shape.
    layout : {"NCDHW", "NDHWC"}

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
    >>> y, where = fc.max_pool3d(np.ones((1, 2, 4, 4, 4)), 2, return_indices=True)
    >>> fc.grad.max_unpool3d(np.ones((1, 2, 4, 4, 4)), where).shape
    (1, 2, 2, 2, 2)
    """
    return _windows.unpool_grad(grad_output, indices, 3, layout)
