# SPDX-License-Identifier: BSD-3-Clause
"""What comes after shapes that depend on numbers: nodes that have to run before anybody can say what follows them.

A program ends where such nodes begin. They are called, and what depends on them is a network of its own, whose sizes
are those that have come out; it keeps programs for the last ones, and may end in the same way. Where a condition
decides which of two graphs follows, there is such a network for each answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["Call", "Later", "split"]
__dir__ = only(__all__)


class Call:
    """A node that is called, and what is known of it since it was called last.

    Attributes
    ----------
    node : Node
    seconds : float or None
        That it took.
    shape : tuple of int
        Of its first result.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.seconds: float | None = None
        self.shape: tuple[int, ...] = ()

    def run(self, results: Callable[[Value], np.ndarray]) -> list[np.ndarray]:
        """What it returns, where ``results`` says what others have."""
        node, started = self.node, time.perf_counter()
        reads: list[Any] = []
        for value in node.inputs:
            if value is None:
                reads.append(None)
            else:
                reads.append(results(value) if value.constant is None else value.constant.array())
        try:
            made = OPERATORS[node.op].evaluate(node, reads)
        except Exception as error:
            error.add_note(f"in node {node.name!r} ({node.op}) of a compiled network")
            raise
        self.shape, self.seconds = made[0].shape, time.perf_counter() - started
        return made


class Later:
    """Nodes that are called, choices that are made, and the graph of what depends on them.

    Attributes
    ----------
    name : str
        Of the first such node.
    calls : list of Call
    given : dict of Value to int
        What they and the rest read of what ran before, and where it is among its results.
    compiled : callable
        From a graph to a network of it; whoever has networks puts it here. The graph's inputs are what the nodes before
        it return (``given``), then what the called ones do.
    networks : list
        Those that have been made so, one for each answer of the conditions.
    last : network or None
        The one that ran last.
    """

    def __init__(self, late: Sequence[Node], called: Sequence[Node], given: Sequence[Value], wanted: Sequence[Value]):
        self.name, self.calls, self.given = late[0].name, list(map(Call, called)), {v: i for i, v in enumerate(given)}
        self.compiled: Callable[[Graph], Any] | None = None
        self.last: Any = None
        self._left = [node for node in late if node not in called]
        self._wanted = list(wanted)
        self._decides = [node.inputs[0] for node in self._left if node.op == "choice" and node.inputs[0] in self.given]
        self._networks: dict[tuple[bool, ...], Any] = {}

    @property
    def networks(self) -> list[Any]:
        return list(self._networks.values())

    def finish(self, arrays: Sequence[np.ndarray], watch: list[Any] | None = None) -> tuple[np.ndarray, ...]:
        """The outputs of the whole, from the results of what ran before; ``watch`` as for `CompiledNet._run`."""
        made: list[np.ndarray] = []
        for call in self.calls:
            made += call.run(lambda value: arrays[self.given[value]])
            if watch is not None:
                watch[-1][1].append(call.seconds)
        answers = {value: arrays[self.given[value]] for value in self._decides if value is not None}
        key = tuple(bool(answer.any()) for answer in answers.values())
        network = self._networks.get(key)
        if network is None:
            assert self.compiled is not None
            network = self._networks.setdefault(key, self.compiled(self._rest(answers)))
        self.last = network
        return network._run_any([*arrays, *made], watch)

    def _rest(self, answers: dict[Value, np.ndarray]) -> Graph:
        """What is left, once the conditions are known."""
        rest, values = Graph(self.name), {}
        for value in (*self.given, *(v for call in self.calls for v in call.node.outputs)):
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
