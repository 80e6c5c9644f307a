# SPDX-License-Identifier: BSD-3-Clause
"""From a graph and the types of its inputs to steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastconv._names import only
from fastconv.graph import layout, memory
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.listing import Listing, Options, Step
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["infer", "lower"]
__dir__ = only(__all__)


def infer(graph: Graph, inputs: Sequence[Type]) -> dict[Value, Type]:
    """The types of all values.

    Raises
    ------
    ValueError, TypeError
        Where the inputs of a node do not fit each other; its name is said.
    """
    types = dict(zip(graph.inputs, inputs, strict=True))
    for value in graph.constants():
        assert value.constant is not None
        types[value] = Type(value.constant.shape, value.constant.dtype)
    for node in graph.nodes:
        try:
            found = OPERATORS[node.op].infer(node, [None if v is None else types[v] for v in node.inputs])
        except _WRONG as error:
            raise _named(node, error) from error
        types.update(zip(node.outputs, found, strict=True))
    return types


def lower(graph: Graph, types: dict[Value, Type], options: Options, pack: Any) -> list[Step]:
    """The steps of a graph; ``pack`` as for `Listing`."""
    order = layout.assign(graph, types, options)
    listing = Listing(graph, types, order, memory.places(graph, types), options, pack)
    for node in graph.nodes:
        try:
            OPERATORS[node.op].lower(listing, node)
        except _WRONG as error:
            raise _named(node, error) from error
    return listing.finish()


_WRONG = (ValueError, TypeError, NotImplementedError)


def _named(node: Node, error: Exception) -> Exception:
    return type(error)(f"node {node.name!r} ({node.op}): {error}")
