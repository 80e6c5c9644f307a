# SPDX-License-Identifier: BSD-3-Clause
"""Power means under a window: p-norms of what a window sees, and their gradients.

Powers and roots are NumPy's, the sums between them those of :func:`fastconv.avg_pool2d`, as in torch: a window that
`ceil_mode` lets reach beyond the input counts as if it were full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.ops import _windows, avg_pool, max_pool
from fastconv.ops._operand import like, operand

__all__ = [
    "lp_pool1d",
    "lp_pool1d_grad",
    "lp_pool2d",
    "lp_pool2d_grad",
    "lp_pool3d",
    "lp_pool3d_grad",
]
__dir__ = only(__all__)

Size = int | Sequence[int]


class _Norm:
    """The arguments of one call, checked."""

    def __init__(
        self, rank: int, norm_type: float, kernel_size: Size, stride: Size | None, ceil_mode: bool, layout: str
    ) -> None:
        if isinstance(norm_type, bool) or not isinstance(norm_type, (int, float, np.integer, np.floating)):
            raise TypeError(f"norm_type is {norm_type!r}; it needs a number")
        if norm_type == 0 or norm_type != norm_type:
            raise ValueError(f"norm_type is {norm_type!r}; it needs a number other than 0")
        self.rank, self.power, self.layout = rank, norm_type, layout
        self.taps = math.prod(_args.per_axis(kernel_size, rank, "kernel_size", 1))
        self.mean = (kernel_size, stride, 0, ceil_mode, True, None)
        self.peak = (kernel_size, stride, 0, 1, ceil_mode)

    def forward(self, input: ArrayLike) -> np.ndarray:
        return like(self._forward(operand(input)), input)

    def backward(self, grad_output: ArrayLike, input: ArrayLike) -> np.ndarray:
        given = _args.as_operand(input, "input")
        _args.same_dtype(_args.as_operand(grad_output, "grad_output"), "grad_output", given, "input")
        return like(self._backward(operand(grad_output, "grad_output"), operand(given)), given)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        if np.isinf(self.power):
            sign = x.dtype.type(np.sign(self.power))
            return sign * max_pool._max_pool(self.rank, sign * np.abs(x), *self.peak, False, self.layout, None)
        with np.errstate(all="ignore"):  # roots of negative sums are NaN, and zeros to negative powers infinite
            return self._root(avg_pool._avg_pool(self.rank, self._powers(x), *self.mean, self.layout, None))

    def _backward(self, grad: np.ndarray, x: np.ndarray) -> np.ndarray:
        if np.isinf(self.power):
            sign = x.dtype.type(np.sign(self.power))
            _, where = max_pool._max_pool(self.rank, sign * np.abs(x), *self.peak, True, self.layout, None)
            return np.sign(x) * _args.ordered_as(_windows.max_grad(grad, where, x.shape, self.rank, self.layout), x)
        with np.errstate(all="ignore"):
            total = self.taps * avg_pool._avg_pool(self.rank, self._powers(x), *self.mean, self.layout, None)
            if grad.shape != total.shape:
                raise ValueError(f"grad_output has shape {grad.shape}; it needs the output's {total.shape}")
            # Where a window holds zeros only the root has no slope; it counts as flat, as in torch.
            inner = grad * np.where(total == 0, 0, total ** x.dtype.type(1 / self.power - 1))
            shared = self.taps * avg_pool._avg_pool_grad(self.rank, inner, x.shape, *self.mean, self.layout)
            return _args.ordered_as(shared, x) * x ** x.dtype.type(self.power - 1)

    def _powers(self, x: np.ndarray) -> np.ndarray:
        return x ** x.dtype.type(self.power)

    def _root(self, mean: np.ndarray) -> np.ndarray:
        return (mean * mean.dtype.type(self.taps)) ** mean.dtype.type(1 / self.power)


def lp_pool2d(
    input: ArrayLike,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Take the p-norm of the elements under each window, but for the signs: (sum of x**p) ** (1 / p).

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        float32, float64, or float16. With ``layout="NHWC"`` the channels come last.
    norm_type : float
        p, not 0; infinite for the largest magnitude.
    kernel_size, stride, ceil_mode, layout
        As for :func:`fastconv.avg_pool2d`.

    Returns
    -------
    numpy.ndarray
        Of the shape that :func:`fastconv.avg_pool2d` makes.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.avg_pool2d`, or if `norm_type` is no number other than 0.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.lp_pool2d(np.full((1, 2, 4, 4), 2.0), 1, 2).ravel()[0]
    np.float64(8.0)
    """
    return _Norm(2, norm_type, kernel_size, stride, ceil_mode, layout).forward(input)


def lp_pool2d_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.lp_pool2d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    input, norm_type, kernel_size, stride, ceil_mode, layout
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of `input`'s shape

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.lp_pool2d`; also if `grad_output` has not the output's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.full((1, 2, 4, 4), 2.0)
    >>> fc.grad.lp_pool2d(fc.lp_pool2d(x, 1, 2), x, 1, 2).shape
    (1, 2, 4, 4)
    """
    return _Norm(2, norm_type, kernel_size, stride, ceil_mode, layout).backward(grad_output, input)


@of_rank(1, lp_pool2d)
def lp_pool1d(
    input: ArrayLike,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "NCW",
) -> np.ndarray:
    """Take the p-norm of the elements under each window, but for the signs: (sum of x**p) ** (1 / p).

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.lp_pool1d(np.full((1, 2, 4), 2.0), 1, 2).ravel()[0]
    np.float64(4.0)
    """
    return _Norm(1, norm_type, kernel_size, stride, ceil_mode, layout).forward(input)


@of_rank(1, lp_pool2d_grad)
def lp_pool1d_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "NCW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.lp_pool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.full((1, 2, 4), 2.0)
    >>> fc.grad.lp_pool1d(fc.lp_pool1d(x, 1, 2), x, 1, 2).shape
    (1, 2, 4)
    """
    return _Norm(1, norm_type, kernel_size, stride, ceil_mode, layout).backward(grad_output, input)


@of_rank(3, lp_pool2d)
def lp_pool3d(
    input: ArrayLike,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "NCDHW",
) -> np.ndarray:
    """Take the p-norm of the elements under each window, but for the signs: (sum of x**p) ** (1 / p).

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.lp_pool3d(np.full((1, 2, 4, 4, 4), 2.0), 1, 2).ravel()[0]
    np.float64(16.0)
    """
    return _Norm(3, norm_type, kernel_size, stride, ceil_mode, layout).forward(input)


@of_rank(3, lp_pool2d_grad)
def lp_pool3d_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "NCDHW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.lp_pool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.full((1, 2, 4, 4, 4), 2.0)
    >>> fc.grad.lp_pool3d(fc.lp_pool3d(x, 1, 2), x, 1, 2).shape
    (1, 2, 4, 4, 4)
    """
    return _Norm(3, norm_type, kernel_size, stride, ceil_mode, layout).backward(grad_output, input)
