# SPDX-License-Identifier: BSD-3-Clause
"""From a graph and the types of its inputs to steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fastconv import _args
from fastconv._names import only
from fastconv.graph import batches, joining, layout, memory
from fastconv.graph.folding import derived, folded
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.listing import Front, Listing, Options, Step
from fastconv.graph.operators import OPERATORS
from fastconv.graph.operators.choice import branch_of
from fastconv.graph.operators.foreign import DependsOnNumbers
from fastconv.graph.operators.shape import sizes
from fastconv.graph.views import Type

__all__ = ["infer", "known_types", "lower", "specialise"]
__dir__ = only(__all__)


def infer(graph: Graph, inputs: Sequence[Type]) -> dict[Value, Type]:
    """The types of all values but those whose shapes depend on numbers, and what is computed from them.

    Raises
    ------
    ValueError, TypeError
        Where the inputs of a node do not fit each other; its name is said.
    """
    types = dict(zip(graph.inputs, inputs, strict=True))
    for value, t in types.items():
        if _elements(t) > _args.LIMIT:
            raise ValueError(f"input {value.name!r} would be an array of shape {t.shape}")
    for value in graph.constants():
        assert value.constant is not None
        types[value] = Type(value.constant.shape, value.constant.dtype)
    for node in graph.nodes:
        if any(value not in types for value in node.given()):
            continue
        try:
            found = OPERATORS[node.op].infer(node, [None if v is None else types[v] for v in node.inputs])
            for t in found:
                if _elements(t) > _args.LIMIT:
                    raise ValueError(f"it would return an array of shape {t.shape}")
        except DependsOnNumbers:
            continue
        except _WRONG as error:
            raise _named(node, error) from error
        types.update(zip(node.outputs, found, strict=True))
    return types


def _elements(t: Type) -> int:
    """Of an array, as many as it would have without its empty axes: strides are counted in those."""
    return math.prod(n for n in t.shape if n)


def known_types(graph: Graph) -> tuple[Type, ...] | None:
    """The types of the inputs, if none of their sizes is open."""
    types = []
    for value in graph.inputs:
        if value.shape is None or None in value.shape:
            return None
        types.append(Type(value.shape, value.dtype))  # type: ignore[arg-type]
    return tuple(types)


def specialise(graph: Graph, inputs: Sequence[Type]) -> Graph:
    """The graph as it is for inputs of these types: sizes are numbers, and what is computed from those is, too.

    A step in Python whose inputs have become constants is asked whether it is a node of the graph by now
    (``call.translated``), and of a choice whose condition has become one the chosen graph remains. A graph that asks
    for no sizes and has no such nodes is returned as it is.
    """
    if not any(node.op in ("shape", "choice") or _may_be_another(node) for node in graph.nodes):
        return graph
    made = Graph(graph.name)
    made.output_names, made.output_dtypes = list(graph.output_names), list(graph.output_dtypes)
    values: dict[Value, Value] = {}
    types: dict[Value, Type] = {}
    for value, t in zip(graph.inputs, inputs, strict=True):
        values[value] = made.input(value.name, value.shape, t.dtype)
        types[values[value]] = t
    for node in graph.nodes:
        given = [None if v is None else values.get(v, v) for v in node.inputs]
        try:
            results = _specialised(made, node, given, types)
        except _WRONG as error:
            raise _named(node, error) from error
        values.update(zip(node.outputs, results, strict=True))
    made.outputs = [values.get(value, value) for value in graph.outputs]
    made.verify()
    return made


def _may_be_another(node: Node) -> bool:
    return node.op == "python" and hasattr(node.attributes["call"], "translated")


def _specialised(graph: Graph, node: Node, given: list[Value | None], types: dict[Value, Type]) -> Sequence[Value]:
    """The outputs of a node, which is added to the graph, or others are that do the same, or none."""
    reads = [v for v in given if v is not None]
    for value in reads:
        if value.constant is not None:
            types[value] = Type(value.constant.shape, value.constant.dtype)
    condition = given[0] if node.op == "choice" else None
    if condition is not None and condition.constant is not None:
        return _chosen(graph, branch_of(node, condition.constant.array()), given[1:], types)
    if any(value not in types for value in reads):
        return graph.adopt(node, given).outputs  # of something that has to run first
    if _may_be_another(node):
        known: dict[Value, Any] = {v: types[v] for v in reads}
        start = len(graph.nodes)
        others = node.attributes["call"].translated(graph, reads, known)
        if others is not None:
            added, graph.nodes[start:] = graph.nodes[start:], []
            return _all_of(graph, added, {}, others, types)
    constants = [sizes(node, types[reads[0]].shape)] if node.op == "shape" else folded(node, given)
    if constants is not None:
        return [graph.computed(array, value.name) for array, value in zip(constants, node.outputs, strict=True)]
    weights = derived(node, given)
    if weights is not None:
        return [graph.constant(weights, node.output.name)]
    copy = graph.adopt(node, given)
    with suppress(DependsOnNumbers):
        found_types = OPERATORS[node.op].infer(copy, [None if v is None else types[v] for v in given])
        types.update(zip(copy.outputs, found_types, strict=True))
    return copy.outputs


def _chosen(graph: Graph, branch: Graph, given: Sequence[Value | None], types: dict[Value, Type]) -> Sequence[Value]:
    found = {inner: outer for inner, outer in zip(branch.inputs, given, strict=True) if outer is not None}
    return _all_of(graph, branch.nodes, found, branch.outputs, types)


def _all_of(
    graph: Graph, nodes: Sequence[Node], found: dict[Value, Value], wanted: Sequence[Value], types: dict[Value, Type]
) -> Sequence[Value]:
    """Nodes of elsewhere, where ``found`` says what some values are here; those that are wanted."""
    for node in nodes:
        inputs = [None if v is None else found.get(v, v) for v in node.inputs]
        found.update(zip(node.outputs, _specialised(graph, node, inputs, types), strict=True))
    return [found.get(v, v) for v in wanted]


def lower(graph: Graph, types: dict[Value, Type], options: Options, pack: Any) -> list[Step]:
    """The steps of a graph; ``pack`` as for `Listing`."""
    graph, types = joining.settled(graph, types, options)
    places = memory.places(graph, types)
    front = batches.front(graph, types, places)
    steps = _listed(graph, types, front, places, options, pack)
    if any(step.times > 1 and step.plan is None for step in steps):  # Python's steps take the batch as it is
        steps = _listed(graph, types, None, places, options, pack)
    return steps


def _listed(
    graph: Graph,
    types: dict[Value, Type],
    front: Front | None,
    places: dict[Value, tuple[Value, int, int]],
    options: Options,
    pack: Any,
) -> list[Step]:
    order = layout.assign(graph, types if front is None else types | front.types, options)
    listing = Listing(graph, types, front, order, places, options, pack)
    for number, node in enumerate(graph.nodes):
        if front is not None and number == front.nodes:
            listing.join()
        try:
            OPERATORS[node.op].lower(listing, node)
        except _WRONG as error:
            raise _named(node, error) from error
    if front is not None and front.nodes == len(graph.nodes):
        listing.join()
    return listing.finish()


_WRONG = (ValueError, TypeError, NotImplementedError)


def _named(node: Node, error: Exception) -> Exception:
    return type(error)(f"node {node.name!r} ({node.op}): {error}")
