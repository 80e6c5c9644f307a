# SPDX-License-Identifier: BSD-3-Clause
"""Sums of which one term is a convolution."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Readers, Value
from fastconv.graph.passes.convolutions import is_open

__all__ = ["fuse_residuals"]
__dir__ = only(__all__)


def fuse_residuals(graph: Graph) -> int:
    """conv(x) + y, added as the convolution stores its result; of two convolutions the later one."""
    fused = 0
    readers, order = graph.readers(), {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "map" or len(node.inputs) != 2 or node.attributes["program"][:1] != (("add", 1),):
            continue
        found: list[tuple[int, Value, Value]] = []
        for value, other in (node.inputs, node.inputs[::-1]):
            if value is not None and other is not None and value is not other and is_open(value, graph, readers):
                assert value.producer is not None
                found.append((order[value.producer], value, other))
        if found:
            _, value, other = max(found, key=lambda entry: entry[0])
            conv = _fuse(graph, node, value, other, readers)
            order[conv] = order[node]
            readers[other] = [conv if reader is node else reader for reader in readers[other]]
            fused += 1
    return fused


def _fuse(graph: Graph, node: Node, value: Value, other: Value, readers: Readers) -> Node:
    """The convolution that does both; its output takes the place of the sum."""
    conv = value.producer
    assert conv is not None
    conv.inputs = [*conv.inputs, *[None] * (3 - len(conv.inputs)), other]
    conv.attributes["finish"] = node.attributes["program"][1:]
    # Where the sum stood, both terms are there.
    graph.nodes.remove(conv)
    graph.nodes[graph.nodes.index(node)] = conv
    readers[value] = []
    graph.replace(node.output, value, readers)
    return conv
