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
    best, found = max(_GAIN, _SHARE * plain), None
    if plain < best:
        return None  # there is not as much to save
    for parts in range(2, n + 1):
        if n % parts:
            continue
        few = _types_of(graph, types, n // parts)
        gain = 0.0
        for count, node in enumerate(graph.nodes, 1):
            if any(value not in few for value in node.outputs):
                break
            activations, constant = whole[count - 1]
            gain += moved(activations) - parts * moved(activations / parts) - (parts - 1) * (constant * again + _STEP)
            if gain > best:
                leaving = _leaving(graph, count)
                if leaving is not None and not any(value in places for value in leaving):
                    inside = (*graph.inputs, *(v for node in graph.nodes[:count] for v in node.outputs))
                    best, found = gain, Front(count, parts, {v: few[v] for v in inside}, leaving)
    return found


def _bytes(node: Node, types: dict[Value, Type]) -> tuple[float, float]:
    """Of what a node reads and writes for each image anew, and of its constants."""
    given = list(node.given())
    constant = sum(types[value].nbytes for value in given if value.constant is not None)
    return sum(types[v].nbytes for v in (*given, *node.outputs)) - constant, constant


def _types_of(graph: Graph, types: dict[Value, Type], n: int) -> dict[Value, Type]:
    """What the values are for n images, up to the first node that does not treat each image by itself."""
    few = {value: _with(types[value], n) for value in graph.inputs}
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
    return few


def _with(t: Type, n: int) -> Type:
    return Type((n, *t.shape[1:]), t.dtype)


def _leaving(graph: Graph, count: int) -> tuple[Value, ...] | None:
    """The values that cross a cut behind so many nodes; None where there can be none."""
    made = [value for node in graph.nodes[:count] for value in node.outputs]
    read = {value for node in graph.nodes[count:] for value in node.given()}
    if any(value in read or value in graph.outputs for value in graph.inputs):
        return None
    return tuple(value for value in made if value in read or value in graph.outputs)
