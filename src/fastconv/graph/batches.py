# SPDX-License-Identifier: BSD-3-Clause
"""How many images at a time: the front of a network may run for some images after the others.

A batch that goes through a network as a whole leaves activations behind each step that no cache holds until the next
step; a few images do not. Weights, on the other hand, are then read once more for each of those parts. Activations are
large where a network begins and weights where it ends, so there is one cut: what is before it runs part by part, and
what is behind it for the whole batch. Where, and in how many parts, is what moves the fewest bytes, weighted by where
they come from.
"""

from __future__ import annotations

from collections.abc import Container

from fastconv import _core
from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.listing import Front
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["front"]
__dir__ = only(__all__)

# Seconds per byte of what lies beyond the second level of the cache, and beyond the third, of which others use a half.
_THIRD, _MEMORY = 1 / 60e9, 1 / 25e9
_STEP = 4e-6  # seconds for a step that is run once more
_GAIN = 0.5e-3  # seconds that a cut is to save at least, and of those that moving bytes takes
_SHARE = 0.1


def front(graph: Graph, types: dict[Value, Type], places: Container[Value]) -> Front | None:
    """The part of a graph that is better run for some images after the others, if there is one.

    Values that are a part of another, as ``places`` has them, do not cross its end.
    """
    images = {types[value].shape[0] if types[value].shape else 0 for value in graph.inputs}
    if len(images) != 1 or min(images) < 2:
        return None
    (n,) = images
    whole = [_bytes(node, types) for node in graph.nodes]
    caches = dict(zip(_core.CACHE_NAMES, _core.caches(), strict=True))
    second = 2 * caches["l2"]  # of two threads: a result must not depend on how many there are
    third = max(second, caches["l3"] / 2)
    again = _THIRD if sum(constant for _, constant in whole) <= third else _MEMORY

    def moved(activations: float) -> float:
        """Seconds for a step's activations, by where they lie."""
        if activations <= second:
            return 0.0
        return activations * (_THIRD if activations <= third else _MEMORY)

    plain = sum(moved(activations) for activations, _ in whole)
    least = max(_GAIN, _SHARE * plain)
    if plain < least:
        return None  # there is not as much to save
    counts = [parts for parts in range(2, n + 1) if n % parts == 0]
    reach = len(_types_of(graph, types, n // counts[0])[1])  # nodes that treat each image by itself
    cuts: list[tuple[float, int, int]] = []
    for parts in counts:
        gain = 0.0
        for count, (activations, constant) in enumerate(whole[:reach], 1):
            gain += moved(activations) - parts * moved(activations / parts) - (parts - 1) * (constant * again + _STEP)
            if gain > least:
                cuts.append((-gain, count, parts))
    readers = _last_readers(graph)
    for _, count, parts in sorted(cuts):
        leaving = _leaving(graph, count, readers)
        if leaving is None or any(value in places for value in leaving):
            continue
        few, served = _types_of(graph, types, n // parts)
        if count <= len(served):
            inside = (*graph.inputs, *(v for node in graph.nodes[:count] for v in node.outputs))
            return Front(count, parts, {v: few[v] for v in inside}, leaving)
    return None


def _bytes(node: Node, types: dict[Value, Type]) -> tuple[float, float]:
    """Of what a node reads and writes for each image anew, and of its constants."""
    given = list(node.given())
    constant = sum(types[value].nbytes for value in given if value.constant is not None)
    return sum(types[v].nbytes for v in (*given, *node.outputs)) - constant, constant


def _types_of(graph: Graph, types: dict[Value, Type], n: int) -> tuple[dict[Value, Type], list[Node]]:
    """What the values are for n images, and the nodes up to the first that does not treat each image by itself."""
    few = {value: _with(types[value], n) for value in graph.inputs}
    served = []
    for node in graph.nodes:
        operator = OPERATORS[node.op]
        given = [None if v is None else few.get(v, types[v] if v.constant is not None else None) for v in node.inputs]
        if not operator.by_image or any(t is None and v is not None for t, v in zip(given, node.inputs, strict=True)):
            break
        try:
            found = operator.infer(node, given)
        except (ValueError, TypeError):
            break  # it needs the images that it was made for
        if any(t != _with(types[value], n) for t, value in zip(found, node.outputs, strict=True)):
            break
        ranks = {len(t.shape) for t in (*found, *(few[value] for value in node.given() if value in few))}
        if len(ranks) > 1:
            break  # a first axis that is not that of the result's images
        few.update(zip(node.outputs, found, strict=True))
        served.append(node)
    return few, served


def _with(t: Type, n: int) -> Type:
    return Type((n, *t.shape[1:]), t.dtype)


def _last_readers(graph: Graph) -> dict[Value, int]:
    """The number of the last node that takes a value; one more than there are for what the caller takes."""
    readers = {value: number for number, node in enumerate(graph.nodes, 1) for value in node.given()}
    return readers | dict.fromkeys(graph.outputs, len(graph.nodes) + 1)


def _leaving(graph: Graph, count: int, readers: dict[Value, int]) -> tuple[Value, ...] | None:
    """The values that cross a cut behind so many nodes; None where there can be none."""
    if any(readers.get(value, 0) > count for value in graph.inputs):
        return None
    made = (value for node in graph.nodes[:count] for value in node.outputs)
    return tuple(value for value in made if readers.get(value, 0) > count)
