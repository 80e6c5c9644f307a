# SPDX-License-Identifier: BSD-3-Clause
"""A graph as a torch module: a call of torch's functions for each node, written out as Python by torch.fx."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fastconv._names import only
from fastconv.graph import Graph, Node, Value
from fastconv.graph.operators.conv import geometry
from fastconv.graph.operators.pool import pooling
from fastconv.graph.views import Type

__all__ = ["torch_module"]
__dir__ = only(__all__)


def torch_module(graph: Graph, types: dict[Value, Type]) -> torch.fx.GraphModule:
    """The graph for inputs of these types, weights in ``torch.channels_last``.

    Sums and activations take the memory of what they are computed from where nobody else reads it, as in torchvision's
    networks; no node is fused with another.

    Raises
    ------
    NotImplementedError
        For what there is no function for, with the node's name.
    """
    writer = _Writer(graph, types)
    for node in graph.nodes:
        try:
            writer.known[node.output] = _WRITERS.get(node.op, _unknown)(writer, node)
        except NotImplementedError as error:
            raise NotImplementedError(f"torch has no form of {node.op} {node.name!r}: {error}") from error
    results = tuple(writer.known[value] for value in graph.outputs)
    writer.fx.output(results[0] if len(results) == 1 else results)
    return torch.fx.GraphModule(writer.root, writer.fx).eval()


class _Writer:
    """A torch.fx graph as it grows, and the module that has its weights."""

    def __init__(self, graph: Graph, types: dict[Value, Type]) -> None:
        self.graph, self.types, self.readers = graph, types, graph.readers()
        self.root, self.fx = torch.nn.Module(), torch.fx.Graph()
        self.known: dict[Value, torch.fx.Node] = {
            value: self.fx.placeholder(f"x{i}") for i, value in enumerate(graph.inputs)
        }

    def read(self, value: Value | None) -> torch.fx.Node | None:
        if value is None:
            return None
        if value not in self.known:
            assert value.constant is not None
            self.known[value] = self.tensor(torch.from_numpy(value.constant.array().copy()))
        return self.known[value]

    def tensor(self, tensor: torch.Tensor) -> torch.fx.Node:
        """A constant."""
        name = f"c{sum(1 for _ in self.root.buffers())}"
        ordered = tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        self.root.register_buffer(name, ordered)
        return self.fx.get_attr(name)

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> torch.fx.Node:
        return self.fx.call_function(function, arguments, named)

    def shape(self, value: Value | None) -> tuple[int, ...]:
        assert value is not None
        return self.types[value].shape

    def is_free(self, value: Value | None, node: Node) -> bool:
        """Whether a node may write its result in place of what it reads."""
        assert value is not None
        made = value.producer is not None and value.producer.op in ("conv", "linear", "batch_norm", "map", "concat")
        alone = len(self.readers[value]) == 1 and value not in self.graph.outputs
        return made and alone and self.types[value] == self.types[node.output]


def _sides(pads: tuple[tuple[int, int], ...]) -> list[int]:
    """As F.pad takes them: the last axis first."""
    return [number for pair in reversed(pads) for number in pair]


def _conv(to: _Writer, node: Node) -> torch.fx.Node:
    g = geometry(node, to.shape(node.inputs[0]), to.shape(node.inputs[1]))
    _only(node, 3)
    x, weight, bias = map(to.read, (*node.inputs, None)[:3])
    rank = len(g.kernel)
    if node.attributes.get("transposed"):
        before, after = zip(*g.padding, strict=True)
        more = [
            length - (step * (count - 1) + dilation * (k - 1) + 1 - 2 * pad)
            for length, count, step, k, dilation, pad in zip(
                g.in_size, g.out_size, g.stride, g.kernel, g.dilation, before, strict=True
            )
        ]
        if before != after:
            raise NotImplementedError("its borders differ")
        function = getattr(F, f"conv_transpose{rank}d")
        return to.call(function, x, weight, bias, g.stride, before, tuple(more), g.groups, g.dilation)
    padding = tuple(before for before, _ in g.padding)
    if any(before != after for before, after in g.padding):
        x, padding = to.call(F.pad, x, _sides(g.padding)), (0,) * rank
    return to.call(getattr(F, f"conv{rank}d"), x, weight, bias, g.stride, padding, g.dilation, g.groups)


def _only(node: Node, inputs: int) -> None:
    if node.attributes.get("finish") or len(node.inputs) > inputs:
        raise NotImplementedError("something has been fused into it")


def _linear(to: _Writer, node: Node) -> torch.fx.Node:
    _only(node, 3)
    return to.call(F.linear, *map(to.read, node.inputs))


def _batch_norm(to: _Writer, node: Node) -> torch.fx.Node:
    _only(node, 5)
    x, weight, bias, mean, var = map(to.read, node.inputs)
    return to.call(F.batch_norm, x, mean, var, weight, bias, False, 0.0, node.attributes["eps"])


def _pool(to: _Writer, node: Node) -> torch.fx.Node:
    shape = to.shape(node.inputs[0])
    found, rank = pooling(node, shape), len(shape) - 2
    x, function = to.read(node.inputs[0]), getattr(F, f"{node.op}{rank}d")
    if found.windows.adaptive:
        return to.call(function, x, found.windows.out_size)
    kernel, stride, dilation, padding, _ = zip(*found.windows.axes, strict=True)
    ceil = bool(node.attributes.get("ceil_mode", False))
    if node.op == "max_pool":
        return to.call(function, x, kernel, stride, padding, dilation, ceil)
    return to.call(function, x, kernel, stride, padding, ceil, found.count_include_pad, found.divisor or None)


# ---------------------------------------------------------------------------------- number by number

#: Functions, and whether they can work in place.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], bool]] = {
    **{name: (getattr(torch, name), False) for name in ("exp", "log", "sqrt", "rsqrt", "reciprocal", "abs", "neg")},
    **{name: (getattr(torch, name), False) for name in ("square", "erf", "floor", "ceil", "round", "sign", "tanh")},
    "sigmoid": (torch.sigmoid, False),
    "silu": (F.silu, True),
    "hardswish": (F.hardswish, True),
    "leaky_relu": (F.leaky_relu, True),
    "elu": (F.elu, True),
    "mish": (F.mish, True),
    "softplus": (F.softplus, False),
    "gelu": (F.gelu, False),
}
_COMBINING: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul")},
    "div": operator.truediv,
    "rsub": lambda x, y: y - x,
    "rdiv": lambda x, y: y / x,
    "min": torch.minimum,
    "max": torch.maximum,
    "pow": torch.pow,
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "fma": lambda x, scale, shift: torch.addcmul(shift, x, scale),
}


def _map(to: _Writer, node: Node) -> torch.fx.Node:
    first, *others = node.given()
    x, operands = to.read(first), [None, *map(to.read, others)]
    in_place = to.is_free(first, node)
    for name, *rest in node.attributes["program"]:
        if name in _COMBINING:
            function = operator.iadd if name == "add" and in_place else _COMBINING[name]
            x = to.call(function, x, *(operands[i] for i in rest))
        elif name in _FUNCTIONS:
            function, can = _FUNCTIONS[name]
            x = to.call(function, x, *rest, **({"inplace": True} if can and in_place else {}))
        elif name == "clamp":
            x = _clamped(to, x, in_place, *rest)
        elif name == "affine":
            x = to.call(operator.add, to.call(operator.mul, x, rest[0]), rest[1])
        else:
            raise NotImplementedError(f"function {name}")
    assert x is not None
    return x


def _clamped(to: _Writer, x: Any, in_place: bool, low: float, high: float) -> torch.fx.Node:
    if (low, high) == (0, math.inf):
        return to.call(F.relu, x, inplace=in_place)
    if (low, high) == (0, 6):
        return to.call(F.relu6, x, inplace=in_place)
    return to.call(F.hardtanh, x, low, high, inplace=in_place)


def _softmax(to: _Writer, node: Node) -> torch.fx.Node:
    function = F.log_softmax if node.attributes.get("log") else F.softmax
    return to.call(function, to.read(node.inputs[0]), node.attributes["axis"])


def _response(to: _Writer, node: Node) -> torch.fx.Node:
    a = node.attributes
    return to.call(F.local_response_norm, to.read(node.inputs[0]), a["size"], a["alpha"], a["beta"], a["k"])


# -------------------------------------------------------------------------------------------- shapes


def _reshape(to: _Writer, node: Node) -> torch.fx.Node:
    return to.call(torch.reshape, to.read(node.inputs[0]), to.shape(node.output))


def _transpose(to: _Writer, node: Node) -> torch.fx.Node:
    return to.call(torch.permute, to.read(node.inputs[0]), tuple(node.attributes["order"]))


def _slice(to: _Writer, node: Node) -> torch.fx.Node:
    shape, axis = to.shape(node.inputs[0]), node.attributes["axis"]
    start, stop, _ = slice(node.attributes["start"], node.attributes["stop"]).indices(shape[axis])
    return to.call(torch.narrow, to.read(node.inputs[0]), axis, start, max(stop - start, 0))


def _concat(to: _Writer, node: Node) -> torch.fx.Node:
    return to.call(torch.cat, [to.read(value) for value in node.given()], node.attributes["axis"])


def _pad(to: _Writer, node: Node) -> torch.fx.Node:
    a = node.attributes
    return to.call(F.pad, to.read(node.inputs[0]), _sides(a["pairs"]), "constant", a.get("value", 0))


def _identity(to: _Writer, node: Node) -> torch.fx.Node:
    x = to.read(node.inputs[0])
    assert x is not None
    return x


def _unknown(to: _Writer, node: Node) -> torch.fx.Node:
    raise NotImplementedError("there is no such function")


_WRITERS: dict[str, Callable[[_Writer, Node], torch.fx.Node]] = {
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "max_pool": _pool,
    "avg_pool": _pool,
    "adaptive_max_pool": _pool,
    "adaptive_avg_pool": _pool,
    "map": _map,
    "softmax": _softmax,
    "local_response_norm": _response,
    "flatten": _reshape,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "identity": _identity,
}
