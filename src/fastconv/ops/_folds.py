# SPDX-License-Identifier: BSD-3-Clause
"""Folding axes of an array, and spreading what was found over it: what norms, softmax and sums share of the core.

Arrays come as operands, float32 or float64, of any strides and at most eight axes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastconv import _args, _config, _core

#: The core's numbers: of reductions, and of what is spread.
_SUM, _L1, _L2, _MOMENTS = 0, 6, 7, 9
STANDARD, RMS, SOFTMAX, LOG_SOFTMAX = range(4)


def _bits(axes: Iterable[int]) -> int:
    return sum(1 << axis for axis in axes)


def _run(
    kind: int,
    x: np.ndarray,
    axes: Iterable[int],
    eps: float = 0.0,
    scale: np.ndarray | None = None,
    shift: np.ndarray | None = None,
) -> np.ndarray:
    x = _args.addressable(x)
    y = _core.new_like(x)
    _core.norm(x, y, scale, shift, _bits(axes), kind, eps, _config.ISA, _config.get_num_threads())
    return y


def softmax(x: np.ndarray, axis: int, logarithm: bool) -> np.ndarray:
    """Of any number of axes: those before and behind `axis` can be one each."""
    if x.ndim not in range(1, 9):
        flat = np.ascontiguousarray(x).reshape(-1, x.shape[axis] if x.ndim else 1, int(np.prod(x.shape[axis + 1 :])))
        return softmax(flat, 1, logarithm).reshape(x.shape)
    return _run(LOG_SOFTMAX if logarithm else SOFTMAX, x, (axis,))


def standardised(
    x: np.ndarray, axes: Iterable[int], eps: float, scale: np.ndarray | None = None, shift: np.ndarray | None = None
) -> np.ndarray:
    """(x − mean)/√(var + eps)·scale + shift; scale and shift have x's axes, some of one."""
    if scale is None and shift is None:
        return _run(STANDARD, x, axes, eps)
    return _run(STANDARD, x, axes, eps, *_both(scale, shift, x.dtype))


def _both(scale: np.ndarray | None, shift: np.ndarray | None, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of one layout, of which there is at least one."""
    a = np.ones_like(shift, dtype) if scale is None else np.ascontiguousarray(scale, dtype)
    b = np.zeros_like(scale, dtype) if shift is None else np.ascontiguousarray(shift, dtype)
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def _reduced(kind: int, x: np.ndarray, axes: Iterable[int], results: tuple[int, ...] = ()) -> np.ndarray:
    x, axes = _args.addressable(x), tuple(axes)
    y = np.empty((*results, *(1 if i in axes else n for i, n in enumerate(x.shape))), x.dtype)
    _core.reduce(x, y, _bits(axes), kind, _config.ISA, _config.get_num_threads())
    return y


def total(x: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """The sum along `axes`, which stay with one element each, in x's dtype."""
    return _reduced(_SUM, x, axes)


def through(
    grad: np.ndarray, output: np.ndarray, axis: int, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient below a clamp by `bounds` of which `output` is the result, and its sum over all axes but one."""
    grad, output = _args.addressable(grad), _args.addressable(output)
    order = _core.axes_in_memory(output)
    grad, output = _args.turned(grad, order), _args.turned(output, order)
    axis = axis if order is None else order.index(axis)
    found = _core.new_array((grad.size + grad.shape[axis],), grad.dtype)
    _core.through(grad, output, found, axis, *bounds, _config.ISA, _config.get_num_threads())
    return _args.turned_back(found[: grad.size].reshape(grad.shape), order), found[grad.size :].copy()


def length(x: np.ndarray, power: int) -> float:
    """The 1-norm or the 2-norm of all elements, of any axes."""
    flat = np.ravel(x, "K")
    return float(_reduced({1: _L1, 2: _L2}[power], flat, (0,))[0])


def moments(x: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """The mean and the biased variance along `axes`, which stay with one element each: an axis of two before all."""
    return _reduced(_MOMENTS, x, axes, (2,))
