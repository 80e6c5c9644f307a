# SPDX-License-Identifier: BSD-3-Clause
"""Transposes between a convolution or a linear layer and functions of its result."""

from __future__ import annotations

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Constant, Graph, Node, Readers, Value
from fastconv.graph.passes.cleanup import remove_dead_nodes
from fastconv.graph.passes.ranks import ranks_of

__all__ = ["sink_transposes"]
__dir__ = only(__all__)

Order = tuple[int, ...]


def sink_transposes(graph: Graph) -> int:
    """f(transpose(y), a) = transpose(f(y, transpose back(a))): the layer that computes y may carry out f, too."""
    remove_dead_nodes(graph)
    readers, ranks = graph.readers(), ranks_of(graph)
    sunk = 0
    for node in list(graph.nodes):
        if node.op != "map" or node.output in graph.outputs:
            continue
        orders = (_order(value, graph, readers) for value in node.given())
        order = next((order for order in orders if order is not None), None)
        if order is None or not all(_can_turn(value, len(order), ranks) for value in node.given()):
            continue
        node.inputs = [_turned_back(graph, node, value, order) for value in node.given()]
        _turn_result(graph, node, order, readers.get(node.output, []))
        remove_dead_nodes(graph)  # transposes, or y would have more readers than there are
        sunk, readers, ranks = sunk + 1, graph.readers(), ranks_of(graph)
    return sunk


def _order(value: Value, graph: Graph, readers: Readers) -> Order | None:
    """Of a transpose that nobody else reads, of what a layer has computed, or functions behind it."""

    def is_alone(value: Value) -> bool:
        return len(readers[value]) == 1 and value not in graph.outputs

    transpose = value.producer
    if transpose is None or transpose.op != "transpose" or not is_alone(value):
        return None
    sources = list(transpose.given())
    while sources:
        source = sources.pop()
        if source.producer is None or not is_alone(source):
            continue
        if source.producer.op in ("conv", "linear"):
            return tuple(transpose.attributes["order"])
        if source.producer.op == "map":
            sources.extend(source.producer.given())
    return None


def _can_turn(value: Value, rank: int, ranks: dict[Value, int]) -> bool:
    """What is not known has to have all the axes: it may lack those in front, or be of one element."""
    known = ranks.get(value, rank + 1)
    return known <= rank if value.constant is not None else known == rank


def _turned_back(graph: Graph, node: Node, value: Value, order: Order) -> Value:
    back = tuple(order.index(i) for i in range(len(order)))
    if value.constant is not None:
        constant, missing = value.constant, len(order) - len(value.constant.shape)
        shape = (1,) * missing + constant.shape

        def make(array: np.ndarray) -> np.ndarray:
            return array.reshape(shape).transpose(back)

        turned = Constant.derived(make, [constant], tuple(shape[i] for i in back), constant.dtype)
        return graph.constant(turned, value.name)
    before = value.producer
    if before is not None and before.op == "transpose" and tuple(before.attributes["order"]) == order:
        assert before.inputs[0] is not None
        return before.inputs[0]
    return graph.insert(node, "transpose", [value], order=back)


def _turn_result(graph: Graph, node: Node, order: Order, reading: list[Node]) -> None:
    """Whoever reads the node's result reads it transposed."""
    if not reading:
        return
    behind = graph.nodes[graph.nodes.index(node) + 1]
    turned = graph.insert(behind, "transpose", [node.output], node.name, order=order)
    for reader in dict.fromkeys(reading):
        reader.inputs = [turned if value is node.output else value for value in reader.inputs]
