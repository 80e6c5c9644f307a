# SPDX-License-Identifier: BSD-3-Clause
"""Reshapes and transposes that follow each other."""

from __future__ import annotations

from typing import Any

from fastconv._names import only
from fastconv.graph.ir import Graph

__all__ = ["merge_shapes"]
__dir__ = only(__all__)


def _is_fixed(shape: tuple[Any, ...]) -> bool:
    """Whether a shape is one of numbers, and not of the sizes of what is read."""
    return 0 not in shape and all(isinstance(n, int) for n in shape)


def merge_shapes(graph: Graph) -> int:
    """reshape(reshape(x)) = reshape(x), and transpose(transpose(x, p), q) = transpose(x, p[q])."""
    merged = 0
    for node in list(graph.nodes):
        source = node.inputs[0] if node.inputs else None
        before = source.producer if source is not None else None
        if before is None or not before.inputs or before.inputs[0] is None:
            continue
        if node.op == "reshape" and before.op in ("reshape", "flatten") and _is_fixed(node.attributes["shape"]):
            node.inputs[0] = before.inputs[0]
            merged += 1
        elif node.op == "transpose" and before.op == "transpose":
            first, second = before.attributes["order"], node.attributes["order"]
            node.attributes["order"] = tuple(first[i] for i in second)
            node.inputs[0] = before.inputs[0]
            merged += 1
    return merged
