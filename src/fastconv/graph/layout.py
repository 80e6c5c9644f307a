# SPDX-License-Identifier: BSD-3-Clause
"""The order of axes in memory: channels or pixels innermost, for each value, by predicted cost.

Values whose order has to be the same (a sum and its terms, a concatenation and its parts, a map and what it reads) form
a class. Convolutions read one order and write another as they like, at a cost that the core predicts; so classes are
turned over, one by one, as long as that makes the sum of all costs smaller. Nothing is converted but where a
convolution does so on its way, or at the borders of the graph.
"""

from __future__ import annotations

import math

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.listing import FLOATS, Options
from fastconv.graph.operators import OPERATORS, conv
from fastconv.graph.views import Type

__all__ = ["assign"]
__dir__ = only(__all__)

_COPY = 2e-10  # seconds for a byte that has to be put into another order
_SWEEPS = 4


def assign(graph: Graph, types: dict[Value, Type], options: Options) -> dict[Value, bool]:
    """Whether each value of three axes and more has its channels last."""
    return _Assignment(graph, types, options).run()


class _Assignment:
    def __init__(self, graph: Graph, types: dict[Value, Type], options: Options) -> None:
        self.graph, self.types, self.options = graph, types, options
        self.parent: dict[Value, Value] = {}
        self.pinned: dict[Value, bool] = {}
        self.costs: dict[tuple[Node, bool, bool], float] = {}
        for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
            if len(types[value].shape) > 2:
                self.parent[value] = value

    def find(self, value: Value) -> Value:
        while self.parent[value] is not value:
            self.parent[value] = self.parent[self.parent[value]]
            value = self.parent[value]
        return value

    def tie(self, *values: Value | None) -> None:
        """These have the same order, those among them that have the same number of axes."""
        first = values[0]
        if first is None or first not in self.parent:
            return
        for value in values[1:]:
            if value in self.parent and len(self.types[value].shape) == len(self.types[first].shape):
                self.parent[self.find(value)] = self.find(first)

    def run(self) -> dict[Value, bool]:
        choosing: list[Node] = []  # nodes whose cost depends on an order
        for node in self.graph.nodes:
            order = OPERATORS[node.op].order
            if order == "same":
                self.tie(*node.outputs, *node.inputs)
            elif node.op == "conv" and len(node.inputs) > 3:
                self.tie(node.output, node.inputs[3])
            if order != "same":
                choosing.append(node)
        for value in (*self.graph.inputs, *self.graph.outputs):
            if value in self.parent:
                self.pinned[self.find(value)] = self.options.last
        orders = {root: self.pinned.get(root, True) for root in map(self.find, self.parent)}
        touching: dict[Value, list[Node]] = {root: [] for root in orders}
        for node in choosing:
            for root in {self.find(v) for v in (*node.given(), *node.outputs) if v in self.parent}:
                touching[root].append(node)
        for _ in range(_SWEEPS):
            turned = False
            for root, nodes in touching.items():
                if root in self.pinned or not nodes:
                    continue
                before = sum(self.cost(node, orders) for node in nodes)
                orders[root] = not orders[root]
                if sum(self.cost(node, orders) for node in nodes) < before:
                    turned = True
                else:
                    orders[root] = not orders[root]
            if not turned:
                break
        return {value: orders[self.find(value)] for value in self.parent}

    def cost(self, node: Node, orders: dict[Value, bool]) -> float:
        """Predicted seconds of what depends on an order."""
        if node.op == "transpose":
            return self.transposed(node, orders)
        if node.op != "conv":  # in order, or a copy
            return sum(
                _COPY * self.types[v].nbytes
                for v in (*node.given(), *node.outputs)
                if v in self.parent and orders[self.find(v)] and _has_order(self.types[v].shape)
            )
        x, y = node.inputs[0], node.output
        assert x is not None
        read = x in self.parent and orders[self.find(x)]
        written = y in self.parent and orders[self.find(y)]
        key = (node, read, written)
        if key not in self.costs:
            self.costs[key] = self.convolution(node, read, written)
        return self.costs[key]

    def transposed(self, node: Node, orders: dict[Value, bool]) -> float:
        """Nothing is moved; who takes the result to lie otherwise than it does has to copy it."""
        x, y = node.inputs[0], node.output
        if y not in self.parent or not _has_order(self.types[y].shape):
            return 0.0
        rank, order = len(self.types[y].shape), tuple(node.attributes["order"])
        read = x in self.parent and orders[self.find(x)]
        is_last = not read and order == (0, rank - 1, *range(1, rank - 1))
        return _COPY * self.types[y].nbytes if orders[self.find(y)] != is_last else 0.0

    def convolution(self, node: Node, read: bool, written: bool) -> float:
        x, weight = self.types[node.inputs[0]], self.types[node.inputs[1]]  # type: ignore[index]
        if x.dtype not in FLOATS:
            return 0.0
        return conv.predicted(node, x, weight, read, written, self.options)


def _has_order(shape: tuple[int, ...]) -> bool:
    return shape[1] > 1 and math.prod(shape[2:]) > 1
