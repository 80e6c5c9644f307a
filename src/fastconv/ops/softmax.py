# SPDX-License-Identifier: BSD-3-Clause
"""Softmax and its logarithm, each with its gradient beside it; conventions as in `activation.py`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only
from fastconv.ops import _folds
from fastconv.ops._operand import axis_index, like, operand, pair

__all__ = ["log_softmax", "log_softmax_grad", "softmax", "softmax_grad"]
__dir__ = only(__all__)


def softmax_axis(dim: int | None, ndim: int) -> int:
    if dim is not None:
        return axis_index(dim, ndim)
    warnings.warn("softmax without dim guesses the axis, as torch does; pass dim explicitly", stacklevel=3)
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: ArrayLike, dim: int | None = None, *, dtype: Any = None) -> np.ndarray:
    """``exp(x) / sum(exp(x))`` along `dim`, computed without overflow.

    Parameters
    ----------
    input : array of any shape, float32, float64 or float16
    dim : int
        The axis that sums to one. Leaving it out is allowed as in torch (axis 0 for ranks 0, 1
        and 3, else axis 1), with a warning.
    dtype : dtype, optional
        Convert `input` to this dtype first.

    Returns
    -------
    numpy.ndarray
        The shape of `input`. A slice that is −∞ throughout, or holds +∞ or NaN, gives NaN.

    Raises
    ------
    ValueError
        `dim` is not an axis of `input`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.softmax(np.array([[1.0, 1.0], [1000.0, 0.0]]), dim=1)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    if dtype is not None:
        input = np.asarray(input).astype(dtype)
    x = operand(input)
    axis = softmax_axis(dim, x.ndim)
    return like(_folds.softmax(x, axis, logarithm=False), input)


def softmax_grad(grad_output: ArrayLike, output: ArrayLike, dim: int) -> np.ndarray:
    """Gradient of `softmax` from its result y: ``y·(g − Σ g·y)`` along `dim`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.softmax(np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0)
    array([ 0.25, -0.25])
    """
    g, y = pair(grad_output, output, "output")
    axis = axis_index(dim, y.ndim)
    d = np.multiply(g, y, out=np.empty_like(y))
    d -= y * d.sum(axis=axis, keepdims=True)
    return like(d, grad_output)


def log_softmax(input: ArrayLike, dim: int | None = None, *, dtype: Any = None) -> np.ndarray:
    """``log(softmax(x))`` along `dim`, accurate where the softmax itself would round to 0 or 1.

    The arguments are those of `softmax`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.log_softmax(np.array([[0.0, 1000.0]]), dim=1)
    array([[-1000.,     0.]])
    """
    if dtype is not None:
        input = np.asarray(input).astype(dtype)
    x = operand(input)
    axis = softmax_axis(dim, x.ndim)
    return like(_folds.softmax(x, axis, logarithm=True), input)


def log_softmax_grad(grad_output: ArrayLike, output: ArrayLike, dim: int) -> np.ndarray:
    """Gradient of `log_softmax` from its result y: ``g − exp(y)·Σ g`` along `dim`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.log_softmax(np.array([1.0, 0.0]), np.log([0.5, 0.5]), 0)
    array([ 0.5, -0.5])
    """
    g, y = pair(grad_output, output, "output")
    axis = axis_index(dim, y.ndim)
    d = np.exp(y, out=np.empty_like(y))
    d *= g.sum(axis=axis, keepdims=True)
    return like(np.subtract(g, d, out=d), grad_output)
