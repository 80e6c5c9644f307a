# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions, transposed ones, and linear layers: ``activation(conv(x, weight) + bias + residual)``.

The residual broadcasts as in NumPy; where it has just the shape of the result, and an activation that the core stores
through, all of it is one step.

Of a convolution with the attribute ``pooled``, the name of what was a node, the result is the maxima of 2 x 2 of those
(`fastconv.graph.joining`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv import _args, _config, _core, _costs
from fastconv import functional as F
from fastconv._names import only
from fastconv.graph import programs
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing, Options
from fastconv.graph.operators.pool import pooling
from fastconv.graph.operators.record import Operator, needs
from fastconv.graph.views import Type, View, dense, reshaped, spread

__all__ = ["OPERATORS"]
__dir__ = only(__all__)

#: What a convolution has been joined with that has the attribute.
POOL = Node("max_pool", "pooled", [], attributes={"kernel_size": 2})


def geometry(node: Node, x: tuple[int, ...], weight: tuple[int, ...]) -> _args.Geometry:
    a, rank = node.attributes, len(weight) - 2
    if len(x) != rank + 2:
        raise ValueError(f"its input has shape {x}; it needs {rank + 2} axes, as its weight of shape {weight}")
    return _args.geometry_of(
        rank,
        a.get("transposed", False),
        x,
        weight,
        a.get("stride", 1),
        a.get("padding", 0),
        a.get("output_padding", 0),
        a.get("dilation", 1),
        a.get("groups", 1),
        _args.channels_first(rank),
        "input",
    )


def result_of(node: Node, g: _args.Geometry) -> tuple[int, ...]:
    """The shape of what it computes: of a transposed one, the input of the convolution that the geometry describes."""
    shape = g.input_shape if node.attributes.get("transposed") else g.output_shape
    return pooled_shape(shape) if "pooled" in node.attributes else shape


def pooled_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the maxima of an array of this shape."""
    return (*shape[:2], *pooling(POOL, shape).windows.out_size)


def fields_of(
    node: Node,
    g: _args.Geometry,
    dtype: np.dtype,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    y: tuple[int, ...],
    finish: _args.Activation = programs.NOTHING,
) -> _args.Fields:
    """The core's problem, for arrays x and y of these strides, in elements, and weights of this shape."""
    if "pooled" in node.attributes:  # the last of an odd number is in no window
        g = replace(g, out_size=tuple(n - n % 2 for n in g.out_size))
    direction, read, written = ("input", y, x) if node.attributes.get("transposed") else ("forward", x, y)
    src, wei, dst = (tuple(s * dtype.itemsize for s in strides) for strides in (read, dense(weight), written))
    return g.fields(direction, dtype, src, wei, dst, finish)._replace(pooled="pooled" in node.attributes)


def predicted(node: Node, x: Type, weight: Type, read: bool, written: bool, options: Options) -> float:
    """Seconds, where ``read`` and ``written`` say whether the channels of input and result come last."""
    g, item = geometry(node, x.shape, weight.shape), x.dtype.itemsize
    src, dst = spread(x.shape, item, read), spread(result_of(node, g), item, written)
    fields = fields_of(node, g, x.dtype, src, weight.shape, dst)
    verdicts = _core.explain(fields, _config.ISA, options.strict, options.batch_invariant, _costs.COSTS.seconds)
    by_name = {_args.ALGORITHMS.index(name) for name in _args.BY_NAME}
    return min(seconds for i, (_, _, seconds) in enumerate(verdicts) if i not in by_name)


def _checked(types: Sequence[Type | None]) -> tuple[Type, Type]:
    x, weight = types[0], types[1]
    assert x is not None
    assert weight is not None
    if x.dtype != weight.dtype:
        raise TypeError(f"its input has dtype {x.dtype}; it needs {weight.dtype}, as its weight")
    return x, weight


def _finished(result: tuple[int, ...], types: Sequence[Type | None], dtype: np.dtype) -> list[Type]:
    residual = types[3] if len(types) > 3 else None
    return [Type(result if residual is None else np.broadcast_shapes(result, residual.shape), dtype)]


def _infer_conv(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, weight = _checked(types)
    g = geometry(node, x.shape, weight.shape)
    shape = g.input_result_shape if node.attributes.get("transposed") else g.result_shape
    return _finished(pooled_shape(shape) if "pooled" in node.attributes else shape, types, x.dtype)


def _infer_linear(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, weight = _checked(types)
    needs(
        len(x.shape) >= 1 and x.shape[-1] == weight.shape[1],
        "its input has shape {}; it needs {} features along the last axis",
        x.shape,
        weight.shape[1],
    )
    return _finished((*x.shape[:-1], weight.shape[0]), types, x.dtype)


def _rest(node: Node, y: np.ndarray, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    residual = arrays[3] if len(arrays) > 3 else None
    if residual is not None:
        y = y + residual
    return [programs.evaluate(node.attributes.get("finish", ()), y, ())]


def _evaluate_conv(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    a = node.attributes
    x, weight, bias, *_ = (*arrays, None)
    assert x is not None
    assert weight is not None
    shared: dict[str, Any] = {key: a[key] for key in ("stride", "padding", "dilation", "groups") if key in a}
    kind = "conv"
    if a.get("transposed"):
        kind, shared["output_padding"] = "conv_transpose", a.get("output_padding", 0)
    found = _rest(node, getattr(F, f"{kind}{weight.ndim - 2}d")(x, weight, bias, **shared), arrays)
    return [F.max_pool2d(y, 2) for y in found] if "pooled" in a else found


def _evaluate_linear(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x, weight, bias, *_ = (*arrays, None)
    assert x is not None
    assert weight is not None
    return _rest(node, F.linear(x, weight, bias), arrays)


def _lower_conv(to: Listing, node: Node) -> None:
    x, weight = to.view(node.inputs[0]), to.type(node.inputs[1])
    y = to.result(node)
    _lower(to, node, x, weight.shape, geometry(node, x.shape, weight.shape), y, y)


def _lower_linear(to: Listing, node: Node) -> None:
    """Rows of features as pixels of one image."""
    x, y = to.view(node.inputs[0]), to.result(node)
    weight = (*to.type(node.inputs[1]).shape, 1, 1)
    rows = reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1], 1, 1))
    written = reshaped(y, (math.prod(y.shape[:-1]), y.shape[-1], 1, 1))
    whole = y
    if rows is None:
        rows = reshaped(to.without_gaps(node, x), (math.prod(x.shape[:-1]), x.shape[-1], 1, 1))
    if written is None:
        whole = to.scratch(y.type, dense(y.shape), node.name)
        written = reshaped(whole, (math.prod(y.shape[:-1]), y.shape[-1], 1, 1))
    assert rows is not None
    assert written is not None
    geometric = geometry(Node("linear", node.name, []), rows.shape, weight)
    if _lower(to, node, rows, weight, geometric, written, whole) and whole is not y:
        to.elementwise(node, (), whole, (), y)


def _lower(to: Listing, node: Node, x: View, weight: tuple[int, ...], g: _args.Geometry, y: View, whole: View) -> bool:
    """``y`` is the result as the convolution has it, ``whole`` as the node does, with which the residual broadcasts.

    False if it became a step in Python, which fills the node's result.
    """
    constant = node.inputs[1].constant if node.inputs[1] is not None else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    residual = to.view(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    if constant is None or (bias is not None and bias.constant is None) or x.dtype not in to.floats:
        to.foreign(node, _evaluate(node))
        return False
    finish = node.attributes.get("finish", ())
    added = residual
    if residual is not None and residual.shape != y.shape:
        added = reshaped(residual, y.shape) if math.prod(residual.shape) == math.prod(y.shape) else None
    if added is not None and added.strides != y.strides:
        added = None
    takes = residual is None or added is not None
    fused = programs.activation(finish[:1]) if takes else None
    if y.shape != result_of(node, g):
        to.foreign(node, _evaluate(node))  # a sum that broadcasts beyond the convolution
        return False
    fields = fields_of(node, g, x.dtype, x.strides, weight, y.strides, programs.NOTHING if fused is None else fused)
    plan = to.convolution(fields, x, weight, y)
    packed = to.packed(plan, constant, weight, None if bias is None else bias.constant)
    to.step(node, plan, src=x, wei=packed, residual=added if takes else None, dst=y, in_place=added if takes else None)
    rest = finish[fused is not None :] if takes else (("add", 1), *finish)
    if rest:
        to.elementwise(node, rest, whole, () if takes or residual is None else (residual,), whole)
    return True


def _evaluate(node: Node) -> Any:
    return _evaluate_linear if node.op == "linear" else _evaluate_conv


OPERATORS = (
    Operator("conv", _infer_conv, _evaluate_conv, _lower_conv, order="free", by_image=True),
    Operator("linear", _infer_linear, _evaluate_linear, _lower_linear, order="first"),
)
