# SPDX-License-Identifier: BSD-3-Clause
"""What passes ask of convolutions and linear layers."""

from __future__ import annotations

from typing import Any

from fastconv._names import only
from fastconv.graph.ir import Graph, Readers, Value

__all__ = ["is_open", "pairs_of"]
__dir__ = only(__all__)


def is_open(value: Value | None, graph: Graph, readers: Readers) -> bool:
    """Whether a convolution computes the value, with nothing behind it yet, and for one reader alone."""
    node = value.producer if value is not None else None
    if node is None or node.op not in ("conv", "linear") or node.attributes.get("finish") or len(node.inputs) > 3:
        return False
    if len(readers[node.output]) != 1 or node.output in graph.outputs:
        return False
    return all(v is None or v.constant is not None for v in node.inputs[1:3])


def pairs_of(padding: Any, rank: int) -> list[tuple[int, int]] | None:
    """Padding before and after each axis, if it is given in numbers."""
    if isinstance(padding, str):
        return [(0, 0)] * rank if padding == "valid" else None
    sizes = [padding] * rank if isinstance(padding, int) else list(padding)
    return [(p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in sizes]
