# SPDX-License-Identifier: BSD-3-Clause
"""Nodes that need not be there."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.folding import derived
from fastconv.graph.ir import Graph, Node, Value

__all__ = ["fold_constants", "remove_dead_nodes", "remove_identities"]
__dir__ = only(__all__)


def fold_constants(graph: Graph) -> int:
    """What depends on constants alone is a constant, which is computed when somebody asks for it."""
    folded, readers = 0, graph.readers()
    for node in list(graph.nodes):
        constant = derived(node, node.inputs)
        if constant is not None:
            graph.remove(node, graph.constant(constant, node.name), readers)
            folded += 1
    return folded


def _is_nothing(node: Node) -> bool:
    if node.op == "map":
        return not node.attributes["program"] and len(node.inputs) == 1
    if node.op == "pad":
        return not any(any(pair) for pair in node.attributes["pairs"])
    if node.op == "transpose":
        return tuple(node.attributes["order"]) == tuple(range(len(node.attributes["order"])))
    return node.op == "identity" or (node.op == "concat" and len(node.inputs) == 1)


def remove_identities(graph: Graph) -> int:
    """Nodes whose output is their input: x instead of f(x) = x."""
    nothing, readers = [node for node in graph.nodes if _is_nothing(node)], graph.readers()
    for node in nothing:
        source = node.inputs[0]
        assert source is not None
        graph.remove(node, source, readers)
    return len(nothing)


def remove_dead_nodes(graph: Graph) -> int:
    """Nodes that no output depends on."""
    needed: set[Value] = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(value in needed for value in node.outputs):
            needed.update(node.given())
            kept.append(node)
    removed = len(graph.nodes) - len(kept)
    graph.nodes = kept[::-1]
    return removed
