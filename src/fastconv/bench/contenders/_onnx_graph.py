# SPDX-License-Identifier: BSD-3-Clause
"""A graph as nodes of ONNX, one for one as far as ONNX has them; nothing is folded or fused on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fastconv._names import only
from fastconv.graph import Graph, Node, Value
from fastconv.graph.operators.conv import geometry
from fastconv.graph.operators.pool import pooling
from fastconv.graph.views import Type

__all__ = ["OPSET", "onnx_graph"]
__dir__ = only(__all__)

OPSET = 17


def onnx_graph(graph: Graph, types: dict[Value, Type]) -> onnx.GraphProto:
    """The graph for inputs of these types.

    Parameters
    ----------
    graph : Graph
        Before passes that fuse.
    types : dict
        Of all values.

    Raises
    ------
    NotImplementedError
        For what ONNX has no operator for, with the node's name.
    """
    writer = _Writer(graph, types)
    for node in graph.nodes:
        try:
            _WRITERS.get(node.op, _unknown)(writer, node)
        except NotImplementedError as error:
            raise NotImplementedError(f"ONNX has no form of {node.op} {node.name!r}: {error}") from error
    values = [[writer.described(value) for value in side] for side in (graph.inputs, graph.outputs)]
    return helper.make_graph(writer.nodes, graph.name, *values, writer.constants)


class _Writer:
    """Nodes as they grow; names are numbered, since those of a graph may be anything."""

    def __init__(self, graph: Graph, types: dict[Value, Type]) -> None:
        self.types = types
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: dict[Value, str] = {value: f"x{i or ''}" for i, value in enumerate(graph.inputs)}
        self._names |= {value: f"y{i or ''}" for i, value in enumerate(graph.outputs)}

    def name(self, value: Value | None) -> str:
        """That of a value, which is written down if it is a constant; nothing for none."""
        if value is None:
            return ""
        if value not in self._names:
            self._names[value] = f"v{len(self._names)}"
            if value.constant is not None:
                self.constants.append(numpy_helper.from_array(value.constant.array(), self._names[value]))
        return self._names[value]

    def array(self, numbers: Any, dtype: Any) -> str:
        """A new constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(numbers, dtype), name))
        return name

    def add(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}" if output is None else output
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}{len(self.nodes)}", **attributes))
        return name

    def shape(self, value: Value | None) -> tuple[int, ...]:
        assert value is not None
        return self.types[value].shape

    def described(self, value: Value) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(self.types[value].dtype)
        return helper.make_tensor_value_info(self.name(value), kind, self.types[value].shape)


# ----------------------------------------------------------------------------------- multiplications


def _conv(to: _Writer, node: Node) -> None:
    g = geometry(node, to.shape(node.inputs[0]), to.shape(node.inputs[1]))
    before, after = zip(*g.padding, strict=True)
    attributes: dict[str, Any] = {
        "kernel_shape": g.kernel,
        "strides": g.stride,
        "dilations": g.dilation,
        "group": g.groups,
        "pads": [*before, *after],
    }
    op = "Conv"
    if node.attributes.get("transposed"):
        op = "ConvTranspose"
        axes = zip(g.in_size, g.out_size, g.stride, g.kernel, g.dilation, g.padding, strict=True)
        attributes["output_padding"] = [
            length - (step * (count - 1) + dilation * (k - 1) + 1 - sum(pads))
            for length, count, step, k, dilation, pads in axes
        ]
    _only(node, 3)
    to.add(op, [to.name(value) for value in node.inputs], to.name(node.output), **attributes)


def _linear(to: _Writer, node: Node) -> None:
    _only(node, 3)
    if len(to.shape(node.inputs[0])) != 2:
        raise NotImplementedError("its input has more than two axes")
    to.add("Gemm", [to.name(value) for value in node.inputs], to.name(node.output), transB=1)


def _only(node: Node, inputs: int) -> None:
    if node.attributes.get("finish") or len(node.inputs) > inputs:
        raise NotImplementedError("something has been fused into it")


def _batch_norm(to: _Writer, node: Node) -> None:
    x, *given = node.inputs
    _only(node, 5)
    (channels,) = {to.shape(value) for value in given if value is not None}
    dtype = to.types[node.output].dtype
    names = [
        to.array(np.full(channels, number), dtype) if value is None else to.name(value)
        for value, number in zip(given, (1, 0, 0, 1), strict=True)
    ]
    to.add("BatchNormalization", [to.name(x), *names], to.name(node.output), epsilon=node.attributes["eps"])


# ------------------------------------------------------------------------------------------- windows


def _pool(to: _Writer, node: Node) -> None:
    shape = to.shape(node.inputs[0])
    found = pooling(node, shape)
    kernel, strides, dilations, before, after = zip(*found.windows.axes, strict=True)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": [*before, *after]}
    attributes["ceil_mode"] = int(node.attributes.get("ceil_mode", False))
    if node.op == "max_pool":
        op = "MaxPool"
        attributes["dilations"] = dilations
    elif found.divisor:
        raise NotImplementedError("it has a divisor of its own")
    else:
        op = "AveragePool"
        attributes["count_include_pad"] = int(found.count_include_pad)
    to.add(op, [to.name(node.inputs[0])], to.name(node.output), **attributes)


def _adaptive(to: _Writer, node: Node) -> None:
    """Over all of an image, or in windows of one size where those are the same."""
    size, out = to.shape(node.inputs[0])[2:], pooling(node, to.shape(node.inputs[0])).windows.out_size
    kind, x, y = node.op.removeprefix("adaptive_"), to.name(node.inputs[0]), to.name(node.output)
    if math.prod(out) == 1:
        to.add({"max_pool": "GlobalMaxPool", "avg_pool": "GlobalAveragePool"}[kind], [x], y)
        return
    if any(n % m for n, m in zip(size, out, strict=True)):
        raise NotImplementedError(f"from {size} to {out} its windows are of several sizes")
    kernel = [n // m for n, m in zip(size, out, strict=True)]
    to.add({"max_pool": "MaxPool", "avg_pool": "AveragePool"}[kind], [x], y, kernel_shape=kernel, strides=kernel)


# ---------------------------------------------------------------------------------- number by number

#: Functions that ONNX has too, by its names of them and of their numbers.
_FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name.capitalize(), ()) for name in ("sigmoid", "tanh", "softplus", "exp", "log", "sqrt", "reciprocal")},
    **{name: (name.capitalize(), ()) for name in ("abs", "neg", "erf", "floor", "ceil", "round", "sign")},
    "hardswish": ("HardSwish", ()),
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
}
_COMBINING = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "min": "Min",
    "max": "Max",
    "pow": "Pow",
    "rsub": "Sub",
    "rdiv": "Div",
    "prelu": "PRelu",
}


def _map(to: _Writer, node: Node) -> None:
    operands = [to.name(value) for value in node.given()]
    *first, last = node.attributes["program"]
    x = operands[0]
    for function in first:
        x = _apply(to, node, function, x, operands, None)
    _apply(to, node, last, x, operands, to.name(node.output))


def _apply(to: _Writer, node: Node, function: tuple[Any, ...], x: str, operands: list[str], output: str | None) -> str:
    name, *rest = function
    dtype = to.types[node.output].dtype
    if name in _COMBINING:
        (other,) = (operands[i] for i in rest)
        return to.add(_COMBINING[name], [other, x] if name in ("rsub", "rdiv") else [x, other], output)
    if name in _FUNCTIONS:
        op, numbers = _FUNCTIONS[name]
        return to.add(op, [x], output, **dict(zip(numbers, rest, strict=True)))
    if name == "clamp":
        if tuple(rest) == (0, math.inf):
            return to.add("Relu", [x], output)
        limits = [to.array(limit, dtype) if math.isfinite(limit) else "" for limit in rest]
        return to.add("Clip", [x, *limits], output)
    if name == "silu":
        return to.add("Mul", [x, to.add("Sigmoid", [x])], output)
    if name == "affine":
        scale, shift = (to.array(number, dtype) for number in rest)
        return to.add("Add", [to.add("Mul", [x, scale]), shift], output)
    if name == "fma":
        scale, shift = (operands[i] for i in rest)
        return to.add("Add", [to.add("Mul", [x, scale]), shift], output)
    raise NotImplementedError(f"function {name}")


def _softmax(to: _Writer, node: Node) -> None:
    op = "LogSoftmax" if node.attributes.get("log") else "Softmax"
    to.add(op, [to.name(node.inputs[0])], to.name(node.output), axis=node.attributes["axis"])


def _response(to: _Writer, node: Node) -> None:
    a = node.attributes
    names = {"size": a["size"], "alpha": a["alpha"], "beta": a["beta"], "bias": a["k"]}
    if a["size"] % 2 == 0:
        raise NotImplementedError("of an even number of channels its window lies elsewhere")
    to.add("LRN", [to.name(node.inputs[0])], to.name(node.output), **names)


# -------------------------------------------------------------------------------------------- shapes


def _flatten(to: _Writer, node: Node) -> None:
    shape, result = to.shape(node.inputs[0]), to.shape(node.output)
    if result == (shape[0], math.prod(shape[1:])):
        to.add("Flatten", [to.name(node.inputs[0])], to.name(node.output), axis=1)
    else:
        _reshape(to, node)


def _reshape(to: _Writer, node: Node) -> None:
    wanted = to.array(to.shape(node.output), np.int64)
    to.add("Reshape", [to.name(node.inputs[0]), wanted], to.name(node.output))


def _transpose(to: _Writer, node: Node) -> None:
    to.add("Transpose", [to.name(node.inputs[0])], to.name(node.output), perm=list(node.attributes["order"]))


def _slice(to: _Writer, node: Node) -> None:
    shape, axis = to.shape(node.inputs[0]), node.attributes["axis"]
    start, stop, _ = slice(node.attributes["start"], node.attributes["stop"]).indices(shape[axis])
    limits = [to.array([number], np.int64) for number in (start, stop, axis)]
    to.add("Slice", [to.name(node.inputs[0]), *limits], to.name(node.output))


def _concat(to: _Writer, node: Node) -> None:
    to.add("Concat", [to.name(value) for value in node.given()], to.name(node.output), axis=node.attributes["axis"])


def _pad(to: _Writer, node: Node) -> None:
    before, after = zip(*node.attributes["pairs"], strict=True)
    pads = to.array([*before, *after], np.int64)
    value = to.array(node.attributes.get("value", 0), to.types[node.output].dtype)
    to.add("Pad", [to.name(node.inputs[0]), pads, value], to.name(node.output))


def _identity(to: _Writer, node: Node) -> None:
    to.add("Identity", [to.name(node.inputs[0])], to.name(node.output))


def _unknown(to: _Writer, node: Node) -> None:
    raise NotImplementedError("it is no operator of ONNX")


_WRITERS: dict[str, Callable[[_Writer, Node], None]] = {
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "max_pool": _pool,
    "avg_pool": _pool,
    "adaptive_max_pool": _adaptive,
    "adaptive_avg_pool": _adaptive,
    "map": _map,
    "softmax": _softmax,
    "local_response_norm": _response,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "identity": _identity,
}
