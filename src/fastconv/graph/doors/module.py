# SPDX-License-Identifier: BSD-3-Clause
"""Modules of `fastconv.nn`: their `forward` runs once, on symbols, and what the layers do with those is written down.

A module that is known here becomes a node. Any other is looked into, by running its forward on the same symbols; if
that wants numbers, the module becomes a step in Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv import _args, nn
from fastconv._names import only
from fastconv.graph.ir import Graph, Value
from fastconv.graph.programs import Program, clamp
from fastconv.nn.module import Module, Symbol

__all__ = ["read_module"]
__dir__ = only(__all__)


class _NeedsNumbers(TypeError):
    """A symbol was asked for its numbers."""


class _Traced(Symbol):
    """A value of a graph, in place of an array."""

    __slots__ = ("reader", "value")
    __array_priority__ = 1000

    def __init__(self, reader: _Reader, value: Value) -> None:
        self.reader, self.value = reader, value

    def enter(self, module: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self.reader.enter(module, inputs, named)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise _NeedsNumbers("this is a symbol, which has no numbers")

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **named: Any) -> Any:
        name = _UFUNCS.get(function)
        if name is None or method != "__call__" or named or len(inputs) != 2:
            raise _NeedsNumbers(f"numpy.{function.__name__} of a symbol")
        return self.reader.combine(name, *inputs)

    def __getattr__(self, name: str) -> Any:
        raise _NeedsNumbers(f"a symbol has no {name}")

    def __bool__(self) -> bool:
        raise _NeedsNumbers("a symbol is neither true nor false")

    def __iter__(self) -> Any:
        raise _NeedsNumbers("a symbol cannot be gone through")

    def __add__(self, other: Any) -> Any:
        return self.reader.combine("add", self, other)

    __radd__ = __iadd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self.reader.combine("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.reader.combine("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self.reader.combine("mul", self, other)

    __rmul__ = __imul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self.reader.combine("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.reader.combine("div", other, self)

    def __neg__(self) -> Any:
        return self.reader.traced(self.reader.graph.add("map", [self.value], program=(("neg",),)))


_UFUNCS = {
    np.add: "add",
    np.subtract: "sub",
    np.multiply: "mul",
    np.divide: "div",
    np.maximum: "max",
    np.minimum: "min",
}


class _Reader:
    """A graph that grows as modules are called."""

    def __init__(self, model: Module) -> None:
        self.graph = Graph(type(model).__name__)
        self.names = {module: name for name, module in model.named_modules()}
        self.dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))

    def traced(self, value: Value) -> _Traced:
        return _Traced(self, value)

    def name(self, module: Module) -> str:
        """A name for the next node of a module, which may be used more than once."""
        name = self.names.get(module) or type(module).__name__
        taken = sum(node.name == name or node.name.startswith(f"{name}#") for node in self.graph.nodes)
        return f"{name}#{taken + 1}" if taken else name

    def constant(self, parameter: Any, name: str) -> Value | None:
        return None if parameter is None else self.graph.constant(parameter.value, name, shared=True)

    def combine(self, name: str, first: Any, second: Any) -> _Traced:
        operands = []
        for operand in (first, second):
            if isinstance(operand, _Traced):
                operands.append(operand.value)
            else:
                array = np.asarray(operand)
                if array.dtype.kind not in "fiu":
                    raise _NeedsNumbers(f"a symbol and {_args.said(operand)}")
                operands.append(self.graph.constant(array.astype(self.dtype)))
        if operands[0].constant is not None and name in ("add", "mul", "max", "min"):
            operands.reverse()
        return self.traced(self.graph.add("map", operands, program=((name, 1),)))

    def enter(self, module: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What a module makes of symbols."""
        translate = _translator(type(module))
        values = [x.value for x in inputs if isinstance(x, _Traced)]
        if translate is not None and len(values) == len(inputs) and not named:
            made = translate(self, module, values)
            if made is not None:
                return self.traced(made)
        nodes = list(self.graph.nodes)
        try:
            return module.forward(*inputs, **named)
        except _NeedsNumbers:
            self.graph.nodes = nodes
        if len(values) != len(inputs) or named:
            raise TypeError(f"{type(module).__name__} takes more than arrays, and cannot be compiled")
        return self.traced(self.graph.add("python", values, self.name(module), call=module.forward))


def read_module(model: Module, shapes: Any) -> Graph:
    """The graph of a module in evaluation mode."""
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f"{training[0]!r} is in training mode; a network is compiled in evaluation mode: call eval()")
    reader = _Reader(model)
    names = _input_names(model)
    if shapes is None or not isinstance(shapes, Mapping):
        shapes = {names[0]: shapes}
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise ValueError(f"input_shape names {unknown[0]!r}; the inputs are {', '.join(names)}")
    needed = [name for name in names if name in shapes or name in _required(model)]
    symbols = [reader.traced(reader.graph.input(name, shapes.get(name), reader.dtype)) for name in needed]
    result = reader.enter(model, tuple(symbols), {})
    results = result if isinstance(result, (tuple, list)) else (result,)
    for y in results:
        if not isinstance(y, _Traced):
            raise TypeError(f"{type(model).__name__} returns {_args.said(y)}, which is no result of its layers")
        reader.graph.outputs.append(y.value)
    reader.graph.verify()
    return reader.graph


def _input_names(model: Module) -> list[str]:
    """Names of what forward takes; a chain takes what its first module does, which is called input."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds] or ["input"]


def _required(model: Module) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    return [name for name in names if name in _input_names(model)] or ["input"]


# --- layers -----------------------------------------------------------------------------------------------------------

Translator = Callable[[_Reader, Any, list[Value]], Value | None]
_TRANSLATORS: dict[type, Translator] = {}


def _translator(kind: type) -> Translator | None:
    """That of a class, or of the class that it has its forward from."""
    for base in kind.__mro__:
        if base in _TRANSLATORS:
            return _TRANSLATORS[base] if base.forward is kind.forward else None  # type: ignore[attr-defined]
    return None


def _translates(*kinds: type) -> Callable[[Translator], Translator]:
    def register(translator: Translator) -> Translator:
        for kind in kinds:
            _TRANSLATORS[kind] = translator
        return translator

    return register


def _in_order(layer: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Axes that bring an array of the layer's layout to channels first, and back; None if it has that order."""
    if layer.layout == _args.channels_first(rank):
        return None
    axes = _args.layout_axes(layer.layout, rank)
    return axes, tuple(axes.index(i) for i in range(len(axes)))


def _around(reader: _Reader, layer: Any, rank: int, x: Value, make: Callable[[Value], Value]) -> Value:
    """What a layer does, for a layer of any layout."""
    orders = _in_order(layer, rank)
    if orders is None:
        return make(x)
    first = reader.graph.add("transpose", [x], order=orders[0])
    return reader.graph.add("transpose", [make(first)], order=orders[1])


@_translates(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _conv(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    (x,), graph, name = inputs, reader.graph, reader.name(layer)
    if layer.padding_mode != "zeros":
        return None
    attributes: dict[str, Any] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    if layer.transposed:
        attributes |= {"transposed": True, "output_padding": layer.output_padding}
    weights = [reader.constant(layer.weight, f"{name}.weight"), reader.constant(layer.bias, f"{name}.bias")]
    return _around(reader, layer, layer.rank, x, lambda x: graph.add("conv", [x, *weights], name, **attributes))


@_translates(nn.Linear)
def _linear(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    name = reader.name(layer)
    weights = [reader.constant(layer.weight, f"{name}.weight"), reader.constant(layer.bias, f"{name}.bias")]
    return reader.graph.add("linear", [*inputs, *weights], name)


@_translates(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
def _max_pool(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if layer.return_indices:
        return None
    attributes = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "ceil_mode": layer.ceil_mode,
    }
    return _pool(reader, layer, inputs[0], "max_pool", attributes)


@_translates(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def _avg_pool(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    attributes = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "ceil_mode": layer.ceil_mode,
        "count_include_pad": layer.count_include_pad,
        "divisor_override": layer.divisor_override,
    }
    return _pool(reader, layer, inputs[0], "avg_pool", attributes)


@_translates(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
def _adaptive_avg_pool(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    return _pool(reader, layer, inputs[0], "adaptive_avg_pool", {"output_size": layer.output_size})


@_translates(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
def _adaptive_max_pool(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if getattr(layer, "return_indices", False):
        return None
    return _pool(reader, layer, inputs[0], "adaptive_max_pool", {"output_size": layer.output_size})


def _pool(reader: _Reader, layer: Any, x: Value, op: str, attributes: dict[str, Any]) -> Value:
    name, graph = reader.name(layer), reader.graph
    return _around(reader, layer, layer.rank, x, lambda x: graph.add(op, [x], name, **attributes))


@_translates(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if not layer.track_running_stats or layer.layout != "NCHW":
        return None
    name = reader.name(layer)
    of = ("weight", "bias", "running_mean", "running_var")
    parameters = [reader.constant(getattr(layer, part), f"{name}.{part}") for part in of]
    return reader.graph.add("batch_norm", [*inputs, *parameters], name, eps=float(layer.eps))


@_translates(nn.LocalResponseNorm)
def _response_norm(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if getattr(layer, "layout", "NCHW") != "NCHW":
        return None
    attributes = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "k": layer.k}
    return reader.graph.add("local_response_norm", inputs, reader.name(layer), **attributes)


def _affine(reader: _Reader, layer: Any, name: str) -> list[Value | None]:
    return [reader.constant(layer.weight, f"{name}.weight"), reader.constant(layer.bias, f"{name}.bias")]


@_translates(nn.LayerNorm)
def _layer_norm(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    name = reader.name(layer)
    given = [*inputs, *_affine(reader, layer, name)]
    return reader.graph.add("layer_norm", given, name, shape=tuple(layer.normalized_shape), eps=float(layer.eps))


@_translates(nn.GroupNorm)
def _group_norm(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if layer.layout != "NCHW":
        return None
    name = reader.name(layer)
    given = [*inputs, *_affine(reader, layer, name)]
    return reader.graph.add("group_norm", given, name, groups=layer.num_groups, eps=float(layer.eps))


@_translates(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _instance_norm(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if layer.layout != "NCHW" or layer.track_running_stats:
        return None
    name = reader.name(layer)
    given = [*inputs, *_affine(reader, layer, name)]
    return reader.graph.add("group_norm", given, name, groups=layer.num_features, eps=float(layer.eps))


@_translates(nn.Upsample)
def _upsample(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if layer.layout != "NCHW":
        return None
    names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    return reader.graph.add("resize", inputs, reader.name(layer), **{name: getattr(layer, name) for name in names})


@_translates(nn.Flatten)
def _flatten(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    return reader.graph.add("flatten", inputs, reader.name(layer), start=layer.start_dim, stop=layer.end_dim)


@_translates(nn.Identity, nn.Dropout)
def _identity(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    return inputs[0]


@_translates(nn.Add)
def _add(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    total, name = inputs[0], reader.name(layer)
    for i, value in enumerate(inputs[1:], 1):
        total = reader.graph.add("map", [total, value], name if i == len(inputs) - 1 else "", program=(("add", 1),))
    return total


@_translates(nn.Concat)
def _concat(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    return reader.graph.add("concat", inputs, reader.name(layer), axis=layer.dim)


@_translates(nn.Softmax)
def _softmax(reader: _Reader, layer: Any, inputs: list[Value]) -> Value | None:
    if layer.dim is None:
        return None
    return reader.graph.add("softmax", inputs, reader.name(layer), axis=layer.dim)


#: Activations without parameters of their own, by class: their program, from the layer.
_ACTIVATIONS: dict[str, Callable[[Any], Program]] = {
    "ReLU": lambda layer: (clamp(0),),
    "ReLU6": lambda layer: (clamp(0, 6),),
    "Hardtanh": lambda layer: (clamp(layer.min_val, layer.max_val),),
    "LeakyReLU": lambda layer: (("leaky_relu", float(layer.negative_slope)),),
    "SiLU": lambda layer: (("silu",),),
    "Sigmoid": lambda layer: (("sigmoid",),),
    "Hardsigmoid": lambda layer: (("affine", 1 / 6, 0.5), clamp(0, 1)),
    "Hardswish": lambda layer: (("hardswish",),),
    "Tanh": lambda layer: (("tanh",),),
    "ELU": lambda layer: (("elu", float(layer.alpha)),),
    "GELU": lambda layer: (("gelu_tanh" if layer.approximate == "tanh" else "gelu",),),
    "Mish": lambda layer: (("mish",),),
}


def _activation(reader: _Reader, layer: Any, inputs: list[Value]) -> Value:
    kind = next(base.__name__ for base in type(layer).__mro__ if base.__name__ in _ACTIVATIONS)
    return reader.graph.add("map", inputs, reader.name(layer), program=_ACTIVATIONS[kind](layer))


for _name in _ACTIVATIONS:
    if hasattr(nn, _name):
        _TRANSLATORS[getattr(nn, _name)] = _activation
