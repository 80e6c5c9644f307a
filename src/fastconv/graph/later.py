# SPDX-License-Identifier: BSD-3-Clause
"""What comes after shapes that depend on numbers: nodes that have to run before anybody can say what follows them.

A program ends where such nodes begin. They are called, and what depends on them is a network of its own, whose sizes
are those that have come out; it keeps programs for the last ones, and may end in the same way. Where a condition
decides which of two graphs follows, there is such a network for each answer.
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

Run = Callable[[list[np.ndarray]], tuple[np.ndarray, ...]]


class Later:
    """Nodes that are called, choices that are made, and the graph of what depends on them.

    Attributes
    ----------
    name : str
        Of the first such node.
    compiled : callable
        From a graph to what runs it; whoever has networks puts it here. The graph's inputs are what the nodes before it
        return (``given``), then what the called ones do.
    """

    def __init__(self, late: Sequence[Node], called: Sequence[Node], given: Sequence[Value], wanted: Sequence[Value]):
        self.name, self.nodes, self.given = late[0].name, list(called), {value: i for i, value in enumerate(given)}
        self.compiled: Callable[[Graph], Run] | None = None
        self._left = [node for node in late if node not in called]
        self._wanted = list(wanted)
        self._decides = [node.inputs[0] for node in self._left if node.op == "choice" and node.inputs[0] in self.given]
        self._runs: dict[tuple[bytes, ...], Run] = {}

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
        answers = {value: arrays[self.given[value]] for value in self._decides if value is not None}
        key = tuple(answer.tobytes() for answer in answers.values())
        run = self._runs.get(key)
        if run is None:
            assert self.compiled is not None
            run = self._runs.setdefault(key, self.compiled(self._rest(answers)))
        return run([*arrays, *made])

    def _rest(self, answers: dict[Value, np.ndarray]) -> Graph:
        """What is left, once the conditions are known."""
        rest, values = Graph(self.name), {}
        for value in (*self.given, *(v for node in self.nodes for v in node.outputs)):
            values[value] = Value(value.name)
            rest.inputs.append(values[value])
        for node in self._left:
            inputs = [None if v is None else values.get(v, v) for v in node.inputs]
            if node.op == "choice" and node.inputs[0] in answers:
                inputs[0] = rest.constant(np.array(answers[node.inputs[0]]), node.inputs[0].name)
            copy = rest.adopt(node, inputs)
            values.update(zip(node.outputs, copy.outputs, strict=True))
        rest.outputs = [values.get(value, value) for value in self._wanted]
        return rest


def split(graph: Graph, types: dict[Value, Type]) -> tuple[Graph, Later | None]:
    """A graph up to the first nodes whose results have no type, and the rest, if there is any."""
    late = [node for node in graph.nodes if any(value not in types for value in node.outputs)]
    if not late:
        return graph, None
    known = [value for node in late for value in node.given() if value.constant is None and value in types]
    known += [value for value in graph.outputs if value.constant is None and value in types]
    given = list(dict.fromkeys(known))
    before = Graph(graph.name)
    before.inputs, before.outputs = graph.inputs, given
    before.nodes = [node for node in graph.nodes if node not in late]
    called = [
        node for node in late if node.op != "choice" and all(v.constant is not None or v in types for v in node.given())
    ]
    return before, Later(late, called, given, graph.outputs)
