# SPDX-License-Identifier: BSD-3-Clause
"""A graph whose shapes ONNX may infer: it makes as many axes as a shape that is computed has elements, were it 2^62."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import GraphProto, NodeProto

from fastconv._names import only
from fastconv.graph.doors.onnx.tensors import graphs_in

__all__ = ["AXES", "bound_shapes", "shape_input"]
__dir__ = only(__all__)

AXES = 64  # that an array of NumPy's may have
#: Which input is the shape of what comes out.
_SHAPES = {"ConstantOfShape": 0, "Expand": 1, "MaxUnpool": 2, "Reshape": 1}
#: Of no more elements than the longest of what is read.
_ELEMENTWISE = {
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Pow", "Round", "Sqrt", "Sub", "Where",
}  # fmt: skip
_FIRST = {"Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}  # or than the first


def shape_input(node: NodeProto) -> str:
    """The name of the shape that a node makes an array of, if it does."""
    which = _SHAPES.get(node.op_type, len(node.input))
    return node.input[which] if which < len(node.input) else ""


def bound_shapes(graph: GraphProto) -> None:
    """Puts an input of which nothing is known in place of shapes that may have more elements than arrays have axes.

    Nodes that have such in graphs of theirs are left out.
    """
    most = {tensor.name: float(math.prod(tensor.dims)) for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if any(most.get(name, math.inf) > AXES for name in _inner(node)):
            continue
        name = shape_input(node)
        if name and most.get(name, math.inf) > AXES:
            node.input[_SHAPES[node.op_type]] = unknown = f"any shape in place of {name}"
            if all(value.name != unknown for value in graph.input):
                graph.input.add(name=unknown)
        most.update(dict.fromkeys(node.output, _elements(node, most)))
        kept.append(node)
    if len(kept) < len(graph.node):
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)


def _inner(node: NodeProto) -> Iterator[str]:
    """Shapes that are read within graphs of a node."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for body, _ in graphs_in(graph):
                yield from filter(None, map(shape_input, body.node))


def _elements(node: NodeProto, most: dict[str, float]) -> float:
    """The most that a result of a node has; infinite if nobody knows."""
    reads = [most.get(name, math.inf) for name in node.input if name]
    if node.op_type in ("Shape", "Size"):
        return AXES
    if node.op_type == "Constant":
        sizes = (math.prod(a.t.dims) if a.HasField("t") else max(len(a.ints), 1) for a in node.attribute)
        return float(max(sizes, default=1))
    if node.op_type == "Concat":
        return sum(reads)
    if node.op_type in _ELEMENTWISE:
        return max(reads, default=math.inf)
    if node.op_type in _FIRST and reads:
        return reads[0]
    return reads[1] if node.op_type == "Gather" and len(reads) == 2 and reads[0] <= AXES else math.inf
