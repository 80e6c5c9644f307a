# SPDX-License-Identifier: BSD-3-Clause
"""Images of another size, with torch's arguments: ``size`` or ``scale_factor``, ``mode`` and ``align_corners``."""

from __future__ import annotations

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


OPERATORS = (Operator("resize", _infer, _evaluate, _lower),)
