# SPDX-License-Identifier: BSD-3-Clause
"""What only Python knows: a step that calls a function, between those that the core runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator
from fastconv.graph.views import Type

__all__ = ["OPERATORS", "DependsOnNumbers"]
__dir__ = only(__all__)


class DependsOnNumbers(NotImplementedError):
    """The shape of a result cannot be told from those of what is read."""


def _evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    result = node.attributes["call"](*(a for a in arrays if a is not None))
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(results) != len(node.outputs):
        raise ValueError(f"it returns {len(results)} arrays; {len(node.outputs)} were expected")
    return [np.asarray(y) for y in results]


def _infer(node: Node, types: Sequence[Type | None]) -> list[Type]:
    """It may know what it does to shapes (``call.infer``), or else is tried on zeros."""
    if hasattr(node.attributes["call"], "infer"):
        known = [None if v.constant is None else v.constant.array() for v in node.given()]
        return node.attributes["call"].infer([t for t in types if t is not None], known)
    arrays = [None if t is None else np.zeros(t.shape, t.dtype) for t in types]
    return [Type(y.shape, y.dtype) for y in _evaluate(node, arrays)]


def _lower(to: Listing, node: Node) -> None:
    to.foreign(node, _evaluate)


OPERATORS = (Operator("python", _infer, _evaluate, _lower, order="first"),)
