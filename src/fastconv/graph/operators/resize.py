# SPDX-License-Identifier: BSD-3-Clause
"""Images of another size, with torch's arguments: ``size`` or ``scale_factor``, ``mode`` and ``align_corners``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastconv import _args, _config, _core
from fastconv import functional as F
from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, first, needs
from fastconv.graph.views import Type
from fastconv.ops import interpolate

__all__ = ["OPERATORS"]
__dir__ = only(__all__)


def _tables(node: Node, shape: tuple[int, ...]) -> tuple[interpolate.Table, ...]:
    a = node.attributes
    needs(3 <= len(shape) <= 5, "its input has shape {}; it needs 3 to 5 axes", shape)
    return interpolate.tables_of(
        shape,
        1,
        a.get("size"),
        a.get("scale_factor"),
        a.get("mode", "nearest"),
        a.get("align_corners"),
        a.get("recompute_scale_factor"),
    )


def _infer(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    return [Type((*x.shape[:2], *(out for _, out, _, _ in _tables(node, x.shape))), x.dtype)]


def _evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x = first(arrays)
    return [np.asarray(F.interpolate(x, **node.attributes))]


def _lower(to: Listing, node: Node) -> None:
    x = to.view(node.inputs[0])
    tables = _tables(node, x.shape)
    if x.dtype not in to.floats or 0 in x.shape or not interpolate.is_at_once(tables):
        to.foreign(node, _evaluate)
        return
    y, missing = to.result(node), (0,) * (5 - len(x.shape))
    src, dst = ((*v.strides[:2], *missing, *v.strides[2:]) for v in (x, y))
    plan = _core.resize_plan(x.shape[0], x.shape[1], src, dst, tables, _args.FLOATS[x.dtype], _config.ISA)
    to.step(node, plan, src=x, dst=y)


# --- by tables --------------------------------------------------------------------------------------------------------


def _axes(arrays: Sequence[np.ndarray | None]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices and weights, (taps, size), of each axis of pixels: inputs behind the first."""
    tables = [np.asarray(a) for a in arrays if a is not None]
    return list(zip(tables[::2], tables[1::2], strict=True))


def _infer_tables(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, tables = first(types), [t for t in types[1::2] if t is not None]
    needs(3 <= len(x.shape) <= 5 and len(tables) == len(x.shape) - 2, "its input has shape {}", x.shape)
    return [Type((*x.shape[:2], *(t.shape[1] for t in tables)), x.dtype)]


def _evaluate_tables(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    y = first(arrays).astype(np.float64)
    for axis, (index, weight) in enumerate(_axes(arrays[1:]), 2):
        along = (-1, *(1,) * (y.ndim - 1 - axis))
        terms = [np.take(y, i, axis) * w.reshape(along) for i, w in zip(index, weight, strict=True)]
        y = np.sum(terms, axis=0)
    return [y.astype(first(arrays).dtype)]


def _lower_tables(to: Listing, node: Node) -> None:
    x = to.view(node.inputs[0])
    constants = [None if v is None else v.constant for v in node.inputs[1:]]
    known = [c.array() for c in constants if c is not None]
    y = to.type(node.output)
    taps = math.prod(len(a) for a in known[::2])
    if len(known) < len(constants) or x.dtype not in to.floats or 0 in (*x.shape, *y.shape) or taps > _MOST_TAPS:
        to.foreign(node, _evaluate_tables)
        return
    tables = tuple(
        (n, index.shape[1], np.ascontiguousarray(index, np.int32), np.ascontiguousarray(weight, np.float64))
        for n, (index, weight) in zip(x.shape[2:], _axes(known), strict=True)
    )
    written, missing = to.result(node), (0,) * (5 - len(x.shape))
    src, dst = ((*v.strides[:2], *missing, *v.strides[2:]) for v in (x, written))
    plan = _core.resize_plan(x.shape[0], x.shape[1], src, dst, tables, _args.FLOATS[x.dtype], _config.ISA)
    to.step(node, plan, src=x, dst=written)


_MOST_TAPS = 64

OPERATORS = (
    Operator("resize", _infer, _evaluate, _lower, by_image=True),
    Operator("resample", _infer_tables, _evaluate_tables, _lower_tables),
)
