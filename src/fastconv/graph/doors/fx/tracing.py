# SPDX-License-Identifier: BSD-3-Clause
"""Modules of torch's as graphs of `torch.fx`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx, nn

from fastconv._names import only
from fastconv.graph.doors.fx.layers import LAYERS

__all__ = ["Tracer", "defaults_of", "is_torchs", "name_of", "traced"]
__dir__ = only(__all__)


def _in_place(function: Any) -> Any:
    def method(self: fx.Proxy, *args: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, *args), {})

    return method


class _Proxy(fx.Proxy):
    """What happens in place is traced as such: other names for a tensor see it."""

    __iadd__, __isub__, __imul__ = _in_place(operator.iadd), _in_place(operator.isub), _in_place(operator.imul)
    __itruediv__, __ipow__ = _in_place(operator.itruediv), _in_place(operator.ipow)
    __setitem__ = _in_place(operator.setitem)


class Tracer(fx.Tracer):
    """torch's, which also sees what happens in place."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def traced(self, module: nn.Module, known: Mapping[str, Any]) -> fx.Graph:
        """The graph of a module, of whose arguments some are known."""
        graph = self.trace(module, dict(known) or None)
        # What is known is an argument all the same, of a name with a number, and asserted to be what it is.
        given = {node for node in graph.nodes if node.op == "placeholder" and name_of(node).rpartition("_")[0] in known}
        for node in list(graph.nodes)[::-1]:
            asserts = node.target in _ASSERTIONS or (node.target is operator.eq and set(node.all_input_nodes) <= given)
            if (asserts or node in given) and not node.users:
                graph.erase_node(node)
        return graph


_ASSERTIONS = (fx._symbolic_trace._assert_is_none, torch._assert)


def name_of(placeholder: fx.Node) -> str:
    return str(placeholder.target).lstrip("*")


def defaults_of(module: nn.Module, wanted: Collection[str] | None = None) -> dict[str, Any]:
    """The defaults of arguments that are not wanted; the first one is unless others are named."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    wanted = [p.name for p in parameters[:1]] if wanted is None else wanted
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in wanted}


def is_torchs(module: nn.Module) -> bool:
    """Whether a module is a layer of torch's, into which tracing does not look."""
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)


def traced(model: nn.Module, defaults: Mapping[str, Any]) -> fx.GraphModule:
    if isinstance(model, fx.GraphModule):
        return model
    for name, child in model.named_modules():
        if not is_torchs(child) and (child._forward_hooks or child._forward_pre_hooks):
            raise TypeError(f"{name or type(model).__name__!r} has hooks, which cannot be compiled")
    if type(model) in LAYERS:
        return _alone(model)
    try:
        return fx.GraphModule(model, Tracer().traced(model, defaults))
    except Exception as error:  # what fx cannot trace says so in many ways
        raise TypeError(f"{type(model).__name__} cannot be traced by torch.fx: {error}") from error


def _alone(layer: nn.Module) -> fx.GraphModule:
    """A layer as a model."""
    graph, name = fx.Graph(), type(layer).__name__
    x = graph.placeholder(next(iter(inspect.signature(layer.forward).parameters)))
    graph.output(graph.call_module(name, (x,)))
    return fx.GraphModule({name: layer}, graph, name)
