# SPDX-License-Identifier: BSD-3-Clause
"""Which convolutions store the maxima of their results: those for which that is predicted to take less.

The pass `fuse_pooling` joins them whatever the shapes; for the shapes of a call, before anything else is decided for
those, the others become two nodes again.
"""

from __future__ import annotations

from fastconv import _config
from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.listing import FLOATS, Options
from fastconv.graph.operators import conv
from fastconv.graph.operators.pool import pooling
from fastconv.graph.views import Type, dense

__all__ = ["settled"]
__dir__ = only(__all__)


def settled(graph: Graph, types: dict[Value, Type], options: Options) -> tuple[Graph, dict[Value, Type]]:
    """The graph, or another one in which convolutions and their pooling are two nodes where that is better."""
    apart = {id(node) for node in graph.nodes if "pooled" in node.attributes and not _pays(node, types, options)}
    if not apart:
        return graph, types
    made, values, found = Graph(graph.name), {value: value for value in graph.inputs}, dict(types)
    made.inputs, made.output_names, made.output_dtypes = graph.inputs, graph.output_names, graph.output_dtypes
    for node in graph.nodes:
        copy = made.adopt(node, [None if value is None else values.get(value, value) for value in node.inputs])
        results = copy.outputs
        if id(node) in apart:
            name = copy.attributes.pop("pooled")
            found[copy.output] = _whole(copy, found)
            results = [made.add("max_pool", [copy.output], name, **conv.POOL.attributes)]
        values.update(zip(node.outputs, results, strict=True))
        found.update(zip(results, (types[value] for value in node.outputs), strict=True))
    made.outputs = [values.get(value, value) for value in graph.outputs]
    made.verify()
    return made, found


def _whole(node: Node, types: dict[Value, Type]) -> Type:
    """What a convolution computes by itself."""
    x, weight = (types[value] for value in node.inputs[:2] if value is not None)
    return Type(conv.geometry(node, x.shape, weight.shape).output_shape, x.dtype)


def _pays(node: Node, types: dict[Value, Type], options: Options) -> bool:
    """With channels last, as such layers have them."""
    x, weight = (types[value] for value in node.inputs[:2] if value is not None)
    y = types[node.output].shape
    if x.dtype not in FLOATS or 0 in y:
        return False
    alone = Node("conv", node.name, node.inputs, attributes={**node.attributes})
    del alone.attributes["pooled"]
    whole = _whole(alone, types).shape
    core, strides = pooling(conv.POOL, whole).core, (dense(whole, last=True), dense(y, last=True))
    behind = core.plan(whole, strides[0], y, strides[1], x.dtype.itemsize, _config.ISA).seconds
    images = x.shape[0] if options.batch_invariant else 1  # of convolutions the seconds are then those of one
    one, two = (conv.predicted(n, x, weight, True, True, options) for n in (node, alone))
    return one < two + behind / images
