# SPDX-License-Identifier: BSD-3-Clause
"""How large a model may be, so that reading it ends in time and in memory whatever it says."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from fastconv._names import only
from fastconv.graph.doors.onnx.tensors import graphs_in
from fastconv.graph.ir import DEEPEST

__all__ = ["MOST_NODES", "check_limits", "name_of"]
__dir__ = only(__all__)

MOST_NODES = 50_000  # with functions put in place
_ALLOWED = f"models of up to {MOST_NODES} nodes are read"


class _Size(NamedTuple):
    nodes: int
    depth: int


def check_limits(model: ModelProto) -> None:
    """A ValueError if a model has more nodes, graphs that lie deeper in others, or functions that call themselves."""
    bodies: dict[Any, GraphProto | FunctionProto] = {_key(f.domain, f.name, f.overload): f for f in model.functions}
    called = {
        key: {_key(node.domain, node.op_type, node.overload) for node, _ in _nodes(body)} & bodies.keys()
        for key, body in bodies.items()
    }
    try:
        order = list(TopologicalSorter(called).static_order())
    except CycleError as error:
        names = " -> ".join(key[1] for key in error.args[1])
        raise ValueError(f"functions of the model call themselves: {names}") from None
    sizes: dict[Any, _Size] = {}
    for key in order:
        sizes[key] = _size(bodies[key], sizes)
    _size(model.graph, sizes)


def _size(body: GraphProto | FunctionProto, sizes: dict[Any, _Size]) -> _Size:
    """Of a body with all functions in it put in place."""
    count = deepest = 0
    for node, depth in _nodes(body):
        inner = sizes.get(_key(node.domain, node.op_type, node.overload), _Size(1, 0))
        count, deepest = count + inner.nodes, max(deepest, depth + inner.depth)
        if count > MOST_NODES:
            raise ValueError(f"node {name_of(node)!r} is number {count}, with functions put in place; {_ALLOWED}")
        if deepest > DEEPEST:
            raise ValueError(f"node {name_of(node)!r} lies {deepest} graphs deep in others; {DEEPEST} are read")
    return _Size(count, deepest)


def _nodes(body: GraphProto | FunctionProto) -> Iterator[tuple[NodeProto, int]]:
    """The nodes of a body and of the graphs in it, and how deep they lie; no more than are needed to refuse it."""
    count = 0
    for graph, depth in graphs_in(body):
        for node in graph.node:
            count += 1
            if count > MOST_NODES:
                raise ValueError(f"node {name_of(node)!r} is number {count}; {_ALLOWED}")
            yield node, depth
            if depth > DEEPEST:
                return


def name_of(node: NodeProto) -> str:
    """In errors and profiles; nodes need not have one."""
    return node.name or next((name for name in node.output if name), node.op_type)


def _key(domain: str, name: str, overload: str) -> tuple[str, str, str]:
    return domain, name, overload
