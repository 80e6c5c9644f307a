# SPDX-License-Identifier: BSD-3-Clause
"""Maxima of a convolution's outputs."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph, Node
from fastconv.graph.passes.convolutions import pairs_of, weight_of

__all__ = ["fuse_pooling"]
__dir__ = only(__all__)


def fuse_pooling(graph: Graph) -> int:
    """max_pool(clamp(conv(x))), windows of 2 x 2 that share nothing, as the convolution stores: where that pays."""
    fused = 0
    readers = graph.readers()
    for node in list(graph.nodes):
        if not _is_poolable(node) or node.output in graph.outputs or len(readers.get(node.output, ())) != 1:
            continue
        (reader,) = readers[node.output]
        if _is_pairs(reader):
            node.attributes["pooled"] = reader.name  # of the step where it does not pay
            graph.remove(reader, node.output, readers)
            fused += 1
    return fused


def _is_poolable(node: Node) -> bool:
    """Whether it is a convolution of images with nothing behind it but a clamp."""
    if node.op != "conv" or node.attributes.get("transposed") or node.attributes.get("pooled") or len(node.inputs) > 3:
        return False
    if any(value is not None and value.constant is None for value in node.inputs[1:]):
        return False
    finish = [name for name, *_ in node.attributes.get("finish", ())]
    return len(weight_of(node).shape) == 4 and finish in ([], ["clamp"])


def _is_pairs(node: Node) -> bool:
    a = node.attributes
    if node.op != "max_pool" or a.get("ceil_mode") or pairs_of(a.get("padding", 0), 2) != [(0, 0), (0, 0)]:
        return False
    sizes = a["kernel_size"], a.get("stride") or a["kernel_size"]
    return all(size in (2, (2, 2), [2, 2]) for size in sizes) and a.get("dilation", 1) in (1, (1, 1), [1, 1])
