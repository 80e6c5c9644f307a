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
from fastconv.graph.doors.fx.calls import CALLS, FRESH, Parts, Shape, Size, Unknown
from fastconv.graph.doors.fx.layers import LAYERS
from fastconv.graph.ir import Graph, Value
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["Reader"]
__dir__ = only(__all__)

#: Operators that keep the number of images, and those that do so unless they touch the first axis.
_KEEP_IMAGES = frozenset(
    {"conv", "batch_norm", "max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool", "identity", "softmax"}
)
_ANY_DTYPE = frozenset({"flatten", "reshape", "transpose", "slice", "identity"})


class Reader:
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
        self.module, self.modules = module, dict(module.named_modules(remove_duplicate=False))
        self.aliases = aliases or Aliases(source, self.modules)
        self.graph, self.dtype = Graph(name), np.dtype(dtype)
        self.values: dict[fx.Node, Any] = {}
        self.weights: dict[int, Tensor] = {}  # tensors that are constants, by their ids
        self._given, self._shared = given or {}, shared
        self._constants: dict[int, Value] = {}
        self._ranks: dict[Value, int | None] = {}
        self._types: dict[Value, Type] = {}
        self._others: set[Value] = set()  # values that may have another dtype
        self._names: dict[str, int] = {}
        self._name = ""

    # --- values -----------------------------------------------------------------------------------

    def input(self, node: fx.Node, shape: Any = None) -> Value:
        value = self.graph.input(node.name, shape, self.dtype)
        self.values[node] = value
        self._ranks[value] = None if shape is None else len(shape)
        if shape is not None and None not in shape:
            self._types[value] = Type(tuple(shape), self.dtype)
        return value

    def tensor(self, tensor: Any, name: str) -> Value | None:
        """A weight, over its memory."""
        if tensor is None:
            return None
        if id(tensor) not in self._constants:
            plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
            if not plain or tensor.device.type != "cpu" or tensor.is_neg() or tensor.is_conj():
                raise Unknown(f"a weight of type {type(tensor).__name__}, {getattr(tensor, 'device', '')}")
            try:
                array = tensor.detach().numpy()
            except (TypeError, RuntimeError) as error:
                raise Unknown(f"a weight of dtype {tensor.dtype}") from error
            value = self.graph.constant(array, f"{self._name}.{name}" if self._name else name, shared=self._shared)
            self._constants[id(tensor)], self.weights[id(tensor)] = value, tensor
            self._ranks[value], self._types[value] = array.ndim, Type(array.shape, array.dtype)
            if array.dtype != self.dtype:
                self._others.add(value)
        return self._constants[id(tensor)]

    def emit(self, op: str, inputs: Sequence[Value | None], rank: int | None, **attributes: Any) -> Value:
        """A node of the graph."""
        given = [value for value in inputs if value is not None]
        if op not in _ANY_DTYPE and any(value in self._others for value in given):
            raise Unknown("a tensor of another dtype")
        value = self.graph.add(op, inputs, self._next_name(), **attributes)
        self._note(self.graph.nodes[-1], rank)
        if given[0] in self._others:
            self._others.add(value)
        return value

    def _next_name(self) -> str:
        taken = self._names.get(self._name, 0)
        self._names[self._name] = taken + 1
        return f"{self._name}#{taken + 1}" if taken else self._name

    def _note(self, node: Any, rank: int | None) -> None:
        """Types of a node's outputs, where those of its inputs are known."""
        for value in node.outputs:
            self._ranks[value] = rank
        if all(value in self._types for value in node.given()):
            try:
                found = OPERATORS[node.op].infer(node, [None if v is None else self._types[v] for v in node.inputs])
            except (ValueError, TypeError, NotImplementedError) as error:
                raise type(error)(f"node {node.name!r} ({node.op}): {error}") from error
            for value, made in zip(node.outputs, found, strict=True):
                self._types[value], self._ranks[value] = made, len(made.shape)
                if made.dtype != self.dtype:
                    self._others.add(value)
                else:
                    self._others.discard(value)

    def rank(self, value: Value) -> int | None:
        """The number of axes, if it is known."""
        return self._ranks.get(value)

    def shape(self, value: Value) -> tuple[int, ...] | None:
        """All sizes, if they are known."""
        return self._types[value].shape if value in self._types else None

    # --- sizes ------------------------------------------------------------------------------------

    def size(self, value: Value, axis: int) -> int | Size:
        shape = self.shape(value)
        if shape is None:
            return Size(("size", value, axis))
        if not 0 <= axis < len(shape):
            raise Unknown(f"axis {axis} of {len(shape)}")
        return shape[axis]

    def _images(self, value: Value) -> Value:
        """The first value that has as many images as this one."""
        node = value.producer
        while node is not None and node.inputs[0] is not None:
            a = node.attributes
            keeps = (
                node.op in _KEEP_IMAGES
                or (node.op == "map" and len(node.inputs) == 1)
                or (node.op == "flatten" and a["start"] > 0)
                or (node.op == "slice" and a["axis"] > 0)
                or (node.op == "concat" and a["axis"] > 0)
                or (node.op == "reshape" and a["shape"][:1] in ((0,), (("size", 0, 0),)))
            )
            if not keeps:
                break
            value, node = node.inputs[0], node.inputs[0].producer
        return value

    def is_size_of(self, size: Any, x: Value, axis: int) -> bool:
        """Whether a number is the size of just that axis."""
        if not isinstance(size, Size) or size.entry[0] != "size" or size.entry[2] != axis:
            return False
        of = size.entry[1]
        return of is x or (axis == 0 and isinstance(of, Value) and self._images(of) is self._images(x))

    def entries(self, x: Value, sizes: Sequence[Any]) -> tuple[tuple[Any, ...], list[Value]]:
        """Sizes as attributes of a node that reads x, and what else it has to read for them."""
        others: list[Value] = []

        def entry(size: Any) -> Any:
            if not isinstance(size, tuple):
                return size
            name, first, second = size
            if name != "size":
                return name, entry(first), entry(second)
            if not isinstance(first, Value):
                return size
            of = self._images(first) if second == 0 else first
            if of is x:
                return name, 0, second
            if of not in others:
                others.append(of)
            return name, 1 + others.index(of), second

        return tuple(entry(size.entry if isinstance(size, Size) else size) for size in sizes), others

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
