# SPDX-License-Identifier: BSD-3-Clause
"""Which tensors of a graph of `torch.fx` share memory, and which calls write to it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from fastconv._names import only
from fastconv.graph.doors.fx.calls import CALLS, FRESH, SAME, VIEW
from fastconv.graph.doors.fx.layers import LAYERS
from fastconv.graph.doors.fx.tracing import is_torchs

__all__ = ["Aliases", "target_of"]
__dir__ = only(__all__)

#: Functions of Python's that leave their operands as they are.
_PURE = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow),
    *(operator.matmul, operator.neg, operator.getitem, operator.eq, operator.ne, operator.lt, operator.gt),
)


def target_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> Any:
    """What a node calls, as the tables of translations know it."""
    return type(modules.get(str(node.target))) if node.op == "call_module" else node.target


def _tensors(node: fx.Node) -> list[fx.Node]:
    return list(node.all_input_nodes)


def _writes(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[list[fx.Node], bool]:
    """The nodes whose tensors a call may write to, and whether its result is the first of them, for sure.

    If in doubt, it may write to all of its arguments.
    """
    given = list(node.all_input_nodes)
    first = [node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else given
    if node.op == "call_module":
        module = modules.get(str(node.target))
        if module is None or not is_torchs(module) or module._forward_hooks or module._forward_pre_hooks:
            return given, False
        return (first, True) if getattr(module, "inplace", False) else ([], False)
    if node.op not in ("call_method", "call_function"):
        return [], False
    if "out" in node.kwargs:
        return given, False
    if node.op == "call_function" and getattr(node.target, "__module__", None) == "_operator":
        pure = node.target in _PURE
        return ([], False) if pure else (first, node.target is not operator.setitem)
    known = CALLS.get(node.target)
    if known is not None and "inplace" in (parameters := inspect.signature(known[0]).parameters):
        place = list(parameters).index("inplace") - 1
        where = node.args[place] if len(node.args) > place else node.kwargs.get("inplace", False)
        if where is not False:
            return first, True
    elif known is None and (node.kwargs.get("inplace") or any(a is True for a in node.args)):
        return given, False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    return (first, True) if name.endswith("_") and not name.endswith("__") else ([], False)


class Aliases:
    """Which nodes of a graph may share memory, and which are one and the same tensor.

    Attributes
    ----------
    written : dict
        From a node to those whose tensors its call may write to.
    in_place : set
        Nodes whose result is the one tensor that they write to.
    """

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self._parent: dict[fx.Node, fx.Node] = {}
        self._tensor: dict[fx.Node, fx.Node] = {}
        self.written: dict[fx.Node, list[fx.Node]] = {}
        self.in_place: set[fx.Node] = set()
        for node in graph.nodes:
            self.written[node], same = _writes(node, modules)
            self._parent[node] = self._tensor[node] = node
            given, kind = list(node.all_input_nodes), self._kind(node, modules)
            if same:
                self.in_place.add(node)
                given = self.written[node][:1]
            elif kind in (SAME, VIEW):
                given = given[:1]
            elif node.op == "output" or (kind == FRESH and not self.written[node]):
                continue
            for other in given:
                self._parent[self._root(node)] = self._root(other)
            if given and (same or kind == SAME):
                self._tensor[node] = self._tensor[given[0]]
        self.classes: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            self.classes.setdefault(self._root(node), []).append(node)

    @staticmethod
    def _kind(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
        """What a call's result lies in; None if nothing is known of it."""
        target = target_of(node, modules)
        if node.op == "call_module" and target in LAYERS:
            if target is nn.Flatten:
                return VIEW
            return SAME if target is nn.Identity or "Dropout" in target.__name__ else FRESH
        return CALLS[target][1] if target in CALLS else None

    def _root(self, node: fx.Node) -> fx.Node:
        while self._parent[node] is not node:
            node = self._parent[node]
        return node

    def shared(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose tensors may lie in the memory of this one's."""
        return self.classes[self._root(node)]

    def tensor(self, node: fx.Node) -> fx.Node:
        """The first name of the tensor that a node is a name for."""
        return self._tensor[node]

    def is_before(self, first: fx.Node, second: fx.Node) -> bool:
        return self.order[first] < self.order[second]

    def read_after(self, node: fx.Node, write: fx.Node) -> bool:
        """Whether somebody reads a node's tensor after a write."""
        return any(self.order[user] > self.order[write] for user in node.users)
