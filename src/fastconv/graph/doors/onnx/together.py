# SPDX-License-Identifier: BSD-3-Clause
"""Values that are no arrays of numbers, as sequences and strings: nodes that hand such on are one step together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from onnx import NodeProto

from fastconv._names import only
from fastconv.graph.doors.onnx.reference import captured

__all__ = ["reads_of", "together"]
__dir__ = only(__all__)

_TRIES = 64


def reads_of(node: NodeProto) -> list[str]:
    """What a node reads, and the graphs in it from around it."""
    return list(dict.fromkeys(name for name in (*node.input, *captured(node)) if name))


def together(nodes: Sequence[NodeProto], opaque: set[str]) -> list[list[NodeProto]]:
    """The nodes in an order in which they can be computed, those between which values of these names go as one.

    So are nodes that lie between them, without which there would be no order; these are found as circles.
    """
    if not opaque:
        return [[node] for node in nodes]
    parts, touching = _Parts(nodes), defaultdict(list)
    for i, node in enumerate(nodes):
        for name in opaque.intersection((*node.output, *parts.reads[i])):
            touching[name].append(i)
    for members in touching.values():
        parts.join(members)
    for _ in range(_TRIES):
        try:
            order = parts.order()
            break
        except CycleError as error:
            parts.join(error.args[1])
    else:  # everything from the first to the last, between which there can be no circle
        touched = sorted(i for members in touching.values() for i in members)
        parts.join(range(touched[0], touched[-1] + 1))
        order = parts.order()
    return [[nodes[i] for i in members] for members in order]


class _Parts:
    """Nodes by their numbers, and which of them go together."""

    def __init__(self, nodes: Sequence[NodeProto]) -> None:
        self.reads = [reads_of(node) for node in nodes]
        self._above = list(range(len(nodes)))  # another that goes together with each; itself where it is the first
        self._before: list[list[int]] = []  # which nodes compute what each reads
        writers: dict[str, int] = {}
        for i, node in enumerate(nodes):
            self._before.append([writers[name] for name in self.reads[i] if name in writers])
            writers.update((name, i) for name in node.output if name)

    def _home(self, i: int) -> int:
        """The first of those that a node goes together with."""
        while self._above[i] != i:
            self._above[i] = i = self._above[self._above[i]]
        return i

    def join(self, members: Iterable[int]) -> None:
        homes = {self._home(i) for i in members}
        for home in homes:
            self._above[home] = min(homes)

    def order(self) -> list[list[int]]:
        """Lists of nodes that go together, each behind what it reads; CycleError if there is no order."""
        members: dict[int, list[int]] = {}
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for i, before in enumerate(self._before):
            home = self._home(i)
            members.setdefault(home, []).append(i)
            sorter.add(home, *({self._home(b) for b in before} - {home}))
        return [members[home] for home in sorter.static_order()]
