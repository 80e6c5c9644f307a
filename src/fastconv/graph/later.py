# SPDX-License-Identifier: BSD-3-Clause
"""What comes after shapes that depend on numbers: nodes that have to run before anybody can say what follows them.

A program ends where such nodes begin. They are called, and what depends on them is a network of its own, whose sizes
are those that have come out; it keeps programs for the last ones, and may end in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["Later", "split"]
__dir__ = only(__all__)


class Later:
    """Nodes that are called, and the graph of what depends on them.

    Attributes
    ----------
    graph : Graph
        Its inputs are what the nodes before it return (``given``), then what these nodes do.
    run : callable
        From the arrays of its inputs to those of its outputs; whoever has a network for it puts it here.
    """

    def __init__(self, graph: Graph, nodes: Sequence[Node], given: Sequence[Value]) -> None:
        self.graph, self.nodes = graph, list(nodes)
        self.given = {value: i for i, value in enumerate(given)}
        self.run: Callable[[list[np.ndarray]], tuple[np.ndarray, ...]] | None = None

    def finish(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs of the whole, from the results of what ran before."""
        made: list[np.ndarray] = []
        for node in self.nodes:
            reads: list[Any] = []
            for value in node.inputs:
                if value is None or value.constant is not None:
                    reads.append(None if value is None or value.constant is None else value.constant.array())
                else:
                    reads.append(arrays[self.given[value]])
            try:
                made += OPERATORS[node.op].evaluate(node, reads)
            except Exception as error:
                error.add_note(f"in node {node.name!r} ({node.op}) of a compiled network")
                raise
        assert self.run is not None
        return self.run([*arrays, *made])


def split(graph: Graph, types: dict[Value, Type]) -> tuple[Graph, Later | None]:
    """A graph up to the first nodes whose results have no type, and the rest, if there is any."""
    late = [node for node in graph.nodes if any(value not in types for value in node.outputs)]
    if not late:
        return graph, None
    known = [value for node in late for value in node.given() if value.constant is None and value in types]
    known += [value for value in graph.outputs if value.constant is None and value in types]
    given = list(dict.fromkeys(known))
    before, rest = Graph(graph.name), Graph(graph.name)
    before.inputs, before.outputs = graph.inputs, given
    before.nodes = [node for node in graph.nodes if node not in late]
    called = [node for node in late if all(v.constant is not None or v in types for v in node.given())]
    values: dict[Value, Value] = {}
    for value in (*given, *(v for node in called for v in node.outputs)):
        values[value] = Value(value.name)
        rest.inputs.append(values[value])
    for node in late:
        if node not in called:
            copy = rest.adopt(node, [None if v is None else values.get(v, v) for v in node.inputs])
            values.update(zip(node.outputs, copy.outputs, strict=True))
    rest.outputs = [values.get(value, value) for value in graph.outputs]
    return before, Later(rest, called, given)
