# SPDX-License-Identifier: BSD-3-Clause
"""Padding in front of a convolution."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph, Node
from fastconv.graph.passes.convolutions import pairs_of

__all__ = ["fold_pads"]
__dir__ = only(__all__)


def _is_zero_border(node: Node | None) -> bool:
    if node is None or node.op != "pad" or node.attributes.get("value", 0) != 0:
        return False
    if node.attributes.get("mode", "constant") != "constant":
        return False
    pairs = node.attributes["pairs"]
    return not any(any(pair) for pair in pairs[:2]) and all(min(pair) >= 0 for pair in pairs)


def fold_pads(graph: Graph) -> int:
    """conv(pad(x, p), padding=q) = conv(x, padding=p + q), for zeros around the pixels."""
    folded = 0
    for node in graph.nodes:
        source = node.inputs[0] if node.op == "conv" and not node.attributes.get("transposed") else None
        before = source.producer if source is not None else None
        if not _is_zero_border(before):
            continue
        assert before is not None
        border = before.attributes["pairs"][2:]
        own = pairs_of(node.attributes.get("padding", 0), len(border))
        if own is not None:
            both = zip(border, own, strict=True)
            node.attributes["padding"] = tuple((a + c, b + d) for (a, b), (c, d) in both)
            node.inputs[0] = before.inputs[0]
            folded += 1
    return folded
