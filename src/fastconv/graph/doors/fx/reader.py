# SPDX-License-Identifier: BSD-3-Clause
"""From nodes of torch's to nodes of ours."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from fastconv._names import only
from fastconv.graph.doors.fx.aliases import Aliases, target_of
from fastconv.graph.doors.fx.calls import CALLS, FRESH, Parts, Shape
from fastconv.graph.doors.fx.growing import Growing, Size, Unknown
from fastconv.graph.doors.fx.layers import LAYERS
from fastconv.graph.ir import Value
from fastconv.graph.views import Type

__all__ = ["Reader"]
__dir__ = only(__all__)


class Reader(Growing):
    """A graph that grows, node by node, with what each node of torch's graph means.

    Parameters
    ----------
    module : torch.nn.Module
        Whose layers and tensors the nodes name.
    source : torch.fx.Graph
    name : str
    dtype : dtype
        Of inputs and weights.
    given : mapping of fx.Node to Tensor
        Weights that come as arguments.
    shared : bool
        Whether somebody may change weights unnoticed, see `Constant`.
    """

    def __init__(
        self,
        module: nn.Module,
        source: fx.Graph,
        name: str,
        dtype: np.dtype,
        given: Mapping[fx.Node, Tensor] | None = None,
        shared: bool = True,
        aliases: Aliases | None = None,
    ) -> None:
        super().__init__(name, dtype, shared)
        self.module, self.modules = module, dict(module.named_modules(remove_duplicate=False))
        self.aliases = aliases or Aliases(source, self.modules)
        self.values: dict[fx.Node, Any] = {}
        self._given = given or {}

    # --- values -----------------------------------------------------------------------------------

    def input(self, node: fx.Node, shape: Any = None) -> Value:
        value = self.graph.input(node.name, shape, self.dtype)
        self.values[node] = value
        self._ranks[value] = None if shape is None else len(shape)
        if shape is not None and None not in shape:
            self._types[value] = Type(tuple(shape), self.dtype)
        return value

    # --- nodes ------------------------------------------------------------------------------------

    def _argument(self, x: Any) -> Any:
        """An argument of a call, with what is known of each node in its place."""
        if isinstance(x, fx.Node):
            if x not in self.values:
                self.values[x] = self.outside(x)
            return self.values[x]
        if isinstance(x, (tuple, list)):
            return type(x)(self._argument(y) for y in x) if type(x) in (tuple, list) else [self._argument(y) for y in x]
        if isinstance(x, dict):
            return {key: self._argument(value) for key, value in x.items()}
        if isinstance(x, slice):
            return slice(self._argument(x.start), self._argument(x.stop), self._argument(x.step))
        return x

    def outside(self, node: fx.Node) -> Any:
        """A weight, or what comes from elsewhere."""
        if node in self._given:
            return self.tensor(self._given[node], node.name)
        if node.op != "get_attr":
            return self.input(node)
        thing: Any = self.module
        for part in str(node.target).split("."):
            thing = getattr(thing, part)
        return self.tensor(thing, str(node.target)) if isinstance(thing, Tensor) else thing

    def read(self, node: fx.Node) -> None:
        """Adds what a node means.

        Raises
        ------
        Unknown
            If the graph has no words for it.
        """
        self._name = str(node.target) if node.op == "call_module" else node.name
        written = self.aliases.written[node]
        names = [name for write in written for name in self._names_of(node, write)]
        before = len(self.graph.nodes)
        try:
            result = self._result(node)
        except Unknown:
            del self.graph.nodes[before:]
            raise
        self.values[node] = result
        for name in names:
            self.values[name] = result

    def _names_of(self, node: fx.Node, written: fx.Node) -> Iterator[fx.Node]:
        """The names for a tensor that a node writes to; Unknown if others may see it."""
        for other in self.aliases.shared(written):
            if self.aliases.order[other] >= self.aliases.order[node]:
                continue
            if other.op == "get_attr" or other in self._given:
                raise Unknown("it writes to a weight")
            if other is written or self.aliases.tensor(other) is self.aliases.tensor(written):
                yield other
            elif self.aliases.read_after(other, node):
                raise Unknown(f"it writes to a tensor of which {other.name!r} is another view")

    def called(self, node: fx.Node) -> tuple[Any, dict[str, Any]]:
        """The function or the method that a node calls, and arguments that a layer has for it."""
        target = target_of(node, self.modules)
        if node.op != "call_module":
            return target, {}
        layer = self.modules[str(node.target)]
        if target not in LAYERS:
            raise Unknown(f"a {target.__name__}")
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise Unknown("a hook")
        return LAYERS[target](self, layer)

    def _result(self, node: fx.Node) -> Any:
        target, given = self.called(node)
        if target not in CALLS:
            raise Unknown(f"a call of {getattr(target, '__name__', target)}")
        call = CALLS[target][0]
        try:
            bound = inspect.signature(call).bind(self, *node.args, **{**node.kwargs, **given})
        except TypeError as error:
            raise Unknown(str(error)) from error
        return call(self, *map(self._argument, bound.args[1:]), **self._argument(bound.kwargs))

    def foreign(self, node: fx.Node) -> None:
        """A step that calls torch, on tensors over the arrays that it is given.

        Its results are those of the call, and behind them the tensors that it may have written to, of which it has
        copies.
        """
        in_place, written = node in self.aliases.in_place, self.aliases.written[node]
        names = [list(self._names_of(node, write)) for write in written]
        given: list[Value] = []
        args, kwargs = self._argument(node.args), self._argument(dict(node.kwargs))
        changed = [] if in_place else self._argument(written)
        rebuild = _rebuilder((args, kwargs, changed), given)
        indices = [] if node.target is operator.setitem else _used(node)
        call = _caller(node, self.modules, rebuild, indices, bool(written))
        results = 1 if indices is None else len(indices)
        made = self.graph.add_node("python", given, results + len(changed), self._next_name(), call=call)
        self._note(made, None)
        for value in made.outputs:
            if value not in self._types:
                self._others.add(value)
        if indices is None:
            self.values[node] = made.outputs[0]
        else:
            found = dict(zip(indices, made.outputs, strict=False))
            self.values[node] = Parts(found.__getitem__)
        for i, same in enumerate(names):
            for name in same:
                self.values[name] = self.values[node] if in_place else made.outputs[results + i]


def _used(node: fx.Node) -> list[int] | None:
    """The parts of a node's result that others take, if they only take parts of it."""
    indices = set()
    for user in node.users:
        if user.op != "call_function" or user.target is not operator.getitem or not isinstance(user.args[1], int):
            return None
        indices.add(user.args[1])
    return sorted(indices) if min(indices, default=-1) >= 0 and not _is_tensor(node) else None


def _is_tensor(node: fx.Node) -> bool:
    """Whether a call surely returns one tensor, of which numbers take parts."""
    return node.op == "call_function" and node.target in CALLS and CALLS[node.target][1] == FRESH


def _rebuilder(arguments: Any, given: list[Value]) -> Callable[[Sequence[Tensor]], Any]:
    """From tensors, of the values that are collected in ``given``, to the arguments of a call."""

    def place(value: Value) -> int:
        if value not in given:
            given.append(value)
        return given.index(value)

    def entry(size: Any) -> Callable[[Sequence[Tensor]], int]:
        if not isinstance(size, tuple):
            return lambda _: size
        name, first, second = size
        if name == "size":
            i = place(first)
            return lambda tensors: tensors[i].shape[second]
        a, b = entry(first), entry(second)
        return lambda tensors: getattr(operator, name)(a(tensors), b(tensors))

    def part(x: Any) -> Callable[[Sequence[Tensor]], Any]:
        if isinstance(x, Value):
            i = place(x)
            return lambda tensors: tensors[i]
        if isinstance(x, Size):
            return entry(x.entry)
        if isinstance(x, Shape):
            i = place(x.value)
            return lambda tensors: tensors[i].shape
        if isinstance(x, Parts):
            raise Unknown("it takes several tensors as one argument")
        if isinstance(x, (tuple, list)):
            parts, kind = [part(y) for y in x], list if isinstance(x, list) else tuple
            return lambda tensors: kind(p(tensors) for p in parts)
        if isinstance(x, dict):
            named = {key: part(y) for key, y in x.items()}
            return lambda tensors: {key: p(tensors) for key, p in named.items()}
        if isinstance(x, slice):
            bounds = [part(y) for y in (x.start, x.stop, x.step)]
            return lambda tensors: slice(*(p(tensors) for p in bounds))
        return lambda _: x

    return part(arguments)


def _caller(
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    rebuild: Callable[[Sequence[Tensor]], Any],
    indices: Sequence[int] | None,
    copies: bool,
) -> Callable[..., Any]:
    """A call of torch's as a function of arrays, which are copied for one that writes."""
    target: Any = modules[str(node.target)] if node.op == "call_module" else node.target

    def call(*arrays: np.ndarray) -> Any:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of arrays that are not to be written to, and are not
            tensors = [torch.from_numpy(np.array(a) if copies else a) for a in arrays]
            args, kwargs, changed = rebuild(tensors)
            try:
                if node.op == "call_method":
                    result = getattr(args[0], str(target))(*args[1:], **kwargs)
                else:
                    result = target(*args, **kwargs)
            except (RuntimeError, IndexError) as error:
                raise ValueError(str(error)) from error
        results = [*([result] if indices is None else [result[i] for i in indices]), *changed]
        for y in results:
            if not isinstance(y, Tensor):
                raise TypeError(f"it returns a {type(y).__name__}; it needs to return tensors")
        return [y.numpy() for y in results]

    return call
