# SPDX-License-Identifier: BSD-3-Clause
"""Numbers of any type, by NumPy's functions: integers and truth values, which the core does not compute with.

What is said by two functions of NumPy is one of these as well, so that a step in Python is one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, first
from fastconv.graph.views import Type

__all__ = ["FUNCTIONS", "OPERATORS"]
__dir__ = only(__all__)


def _quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As C divides: integers towards zero."""
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    away = np.equal(np.signbit(x.astype(np.float64)), np.signbit(y.astype(np.float64)))
    found = np.floor_divide(x, y)
    return np.where(away | (np.multiply(found, y) == x), found, found + 1).astype(x.dtype)


def _saturated(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """To the nearest integer, of two the even one, or the end of the type's range."""
    limits = np.iinfo(dtype)
    return np.clip(np.rint(x), limits.min, limits.max).astype(dtype)


def _along(array: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """One number for each element of an axis, or one for all."""
    return array.reshape(-1, *(1,) * (rank - 1 - axis % rank)) if array.ndim == 1 and array.size > 1 else array


def _quantized(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, *, axis: int) -> np.ndarray:
    """x / scale + zero, of the type of zero."""
    scale, offset = _along(scale, x.ndim, axis), _along(zero, x.ndim, axis)
    return _saturated(np.rint(x / scale) + offset.astype(x.dtype), zero.dtype)


def _dequantized(x: np.ndarray, scale: np.ndarray, *zero: np.ndarray, axis: int) -> np.ndarray:
    """(x - zero) * scale, of the type of scale."""
    wide = x.astype(np.int32) - _along(zero[0], x.ndim, axis).astype(np.int32) if zero else x
    return wide.astype(scale.dtype) * _along(scale, x.ndim, axis)


def _largest(
    x: np.ndarray,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[Sequence[int]],
    column_major: bool,
) -> np.ndarray:
    """Where in x, counted over all planes, each window of a max pool has its maximum: the first of several."""
    rank, planes, sizes = len(kernel), x.shape[: -len(kernel)], x.shape[-len(kernel) :]
    padded = np.pad(x, [(0, 0)] * len(planes) + [(before, after) for before, after in pads], constant_values=-np.inf)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, tuple(range(-rank, 0)))
    steps: tuple[Any, ...] = tuple(slice(None, None, step) for step in (*stride, *dilation))
    windows = windows[(..., *steps)]
    within = np.unravel_index(windows.reshape(*windows.shape[:-rank], -1).argmax(axis=-1), tuple(kernel))
    place = np.arange(math.prod(planes)).reshape(*planes, *(1,) * rank) * math.prod(sizes)
    for axis in range(rank):
        at = np.arange(windows.shape[len(planes) + axis]) * stride[axis] - pads[axis][0]
        at = at.reshape(-1, *(1,) * (rank - 1 - axis)) + within[axis] * dilation[axis]
        place = place + at * math.prod(sizes[:axis] if column_major else sizes[axis + 1 :])
    return place


#: By name: of arrays, and of attributes of these names.
FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "pow": lambda x, y: np.power(x, y).astype(x.dtype, copy=False),
    "min": np.minimum,
    "max": np.maximum,
    "abs": np.abs,
    "neg": np.negative,
    "sign": np.sign,
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "where": np.where,
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "cast": lambda x, *, to: x.astype(to),
    "take": lambda x, indices, *, axis: np.take(x, indices, axis),
    "largest": _largest,
    "quantize": _quantized,
    "dequantize": _dequantized,
}


def _called(node: Node, arrays: Sequence[np.ndarray]) -> np.ndarray:
    others = {key: value for key, value in node.attributes.items() if key != "function"}
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[node.attributes["function"]](*arrays, **others))


def _infer(node: Node, types: Sequence[Type | None]) -> list[Type]:
    """The type is that of a single number; of several axes they broadcast, but for those of indices and of scales."""
    known = [t for t in types if t is not None]
    name, shape = node.attributes["function"], first(types).shape
    few = np.dtype(node.attributes["to"]) if name == "cast" else None
    if name == "take":
        axis, rank = node.attributes["axis"], len(shape)
        if not -rank <= axis < rank:
            raise ValueError(f"its input has {rank} axes; there is no axis {axis}")
        axis %= rank
        return [Type((*shape[:axis], *known[1].shape, *shape[axis + 1 :]), known[0].dtype)]
    if name == "largest":
        a = node.attributes
        ends = [
            n + sum(pair) - d * (k - 1) - 1
            for n, k, d, pair in zip(shape[2:], a["kernel"], a["dilation"], a["pads"], strict=True)
        ]
        if min(ends) < 0:
            raise ValueError(f"its input has shape {shape}, which is smaller than a window")
        pixels = (n // s + 1 for n, s in zip(ends, a["stride"], strict=True))
        return [Type((*shape[:2], *pixels), np.dtype(np.int64))]
    if name in ("quantize", "dequantize"):
        return [Type(shape, known[2].dtype if name == "quantize" else known[1].dtype)]
    if few is None:
        few = _called(node, [np.ones((), t.dtype) for t in known]).dtype
    return [Type(np.broadcast_shapes(*(t.shape for t in known)), few)]


def _evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [_called(node, [a for a in arrays if a is not None])]


def _lower(to: Listing, node: Node) -> None:
    """NumPy's own functions, and conversions, write where the result lies."""
    function, attributes = FUNCTIONS[node.attributes["function"]], node.attributes

    def fill(*arrays: np.ndarray) -> None:
        *given, y = arrays
        with np.errstate(all="ignore"):
            if isinstance(function, np.ufunc):
                function(*given, out=y)
            elif attributes["function"] == "cast":
                np.copyto(y, given[0], casting="unsafe")
            elif attributes["function"] == "where":
                np.copyto(y, given[2])
                np.copyto(y, given[1], where=given[0])
            else:
                y[...] = _called(node, given)

    to.filling(node, fill)


OPERATORS = (Operator("numpy", _infer, _evaluate, _lower, order="first"),)
