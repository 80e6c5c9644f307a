# SPDX-License-Identifier: BSD-3-Clause
"""Batch norm, folded into the weights of a convolution or a linear layer.

Behind it:  scale * (W x + b) + shift  =  (scale * W) x + (scale * b + shift), the scale per output channel.
Before it:  W (scale * x + shift) + b  =  (W * scale) x + (W shift + b), the scale per input channel; only where no
border of zeros is added in between. A norm of a concatenation of such layers is one norm for each. All of it is
computed in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Constant, Graph, Node, Readers
from fastconv.graph.operators.elementwise import scale_and_shift
from fastconv.graph.passes.convolutions import (
    bias_of,
    groups_of,
    is_open,
    out_channels,
    pairs_of,
    replace_weights,
    rounded,
    scale_outputs,
    weight_of,
)

__all__ = ["fold_batch_norms"]
__dir__ = only(__all__)


def fold_batch_norms(graph: Graph) -> int:
    """Weights that have the scale of a batch norm in them, instead of the norm."""
    folded, readers = 0, graph.readers()
    for node in list(graph.nodes):
        if node.op != "batch_norm" or any(v is not None and v.constant is None for v in node.inputs[1:]):
            continue
        folded += any(fold(graph, node, readers) for fold in (_fold_behind, _fold_into_parts, _fold_before))
    return folded


def _fold_behind(graph: Graph, norm: Node, readers: Readers) -> bool:
    source = norm.inputs[0]
    if not is_open(source, graph, readers):
        return False
    assert source is not None
    assert source.producer is not None
    scale_outputs(graph, source.producer, *scale_and_shift(norm))
    _hand_on(norm, source.producer)
    graph.remove(norm, source, readers)
    return True


def _fold_into_parts(graph: Graph, norm: Node, readers: Readers) -> bool:
    """Behind a concatenation of channels."""
    source = norm.inputs[0]
    concat = source.producer if source is not None else None
    if concat is None or concat.op != "concat" or concat.attributes["axis"] != 1 or len(readers[concat.output]) != 1:
        return False
    parts = list(concat.given())
    if concat.output in graph.outputs or not all(is_open(part, graph, readers) for part in parts):
        return False
    scale, shift = scale_and_shift(norm)
    start = 0
    for part in parts:
        assert part.producer is not None
        stop = start + out_channels(part.producer)
        scale_outputs(graph, part.producer, _part(scale, start, stop), _part(shift, start, stop))
        _hand_on(norm, part.producer)
        start = stop
    graph.remove(norm, concat.output, readers)
    return True


def _hand_on(norm: Node, node: Node) -> None:
    """An activation that has been fused with the norm."""
    if norm.attributes.get("finish"):
        node.attributes["finish"] = norm.attributes["finish"]


def _part(factor: Constant, start: int, stop: int) -> Constant:
    return Constant.derived(lambda array: array[start:stop], [factor], (stop - start,), factor.dtype)


def _fold_before(graph: Graph, norm: Node, readers: Readers) -> bool:
    behind, source = readers.get(norm.output, []), norm.inputs[0]
    if len(behind) != 1 or norm.output in graph.outputs or norm.attributes.get("finish") or source is None:
        return False
    (node,) = behind
    if node.op not in ("conv", "linear") or node.inputs[0] is not norm.output or node.attributes.get("transposed"):
        return False
    if any(v is not None and v.constant is None for v in node.inputs[1:3]):
        return False
    weight, bias, groups = weight_of(node), bias_of(node), groups_of(node)
    scale, shift = scale_and_shift(norm)
    if node.op == "conv":
        pairs = pairs_of(node.attributes.get("padding", 0), len(weight.shape) - 2)
        if pairs is None or any(any(pair) for pair in pairs):
            return False
    elif scale.shape[0] != weight.shape[1]:
        return False  # a norm of rows along another axis than the layer's features

    def per_input(w: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both with an axis of groups in front."""
        return w.reshape(groups, -1, *w.shape[1:]), factor.reshape(groups, 1, -1, *(1,) * (w.ndim - 2))

    def scaled(w: np.ndarray, s: np.ndarray) -> np.ndarray:
        return rounded(*per_input(w, s)).reshape(w.shape)

    def shifted(w: np.ndarray, t: np.ndarray, *b: np.ndarray) -> np.ndarray:
        inner, factor = per_input(w, t)
        total = (inner.astype(np.float64) * factor).sum(axis=tuple(range(2, inner.ndim))).reshape(-1)
        return (total + b[0] if b else total).astype(w.dtype)

    made = Constant.derived(scaled, (weight, scale), weight.shape, weight.dtype)
    parts = (weight, shift) if bias is None else (weight, shift, bias)
    extra = node.inputs[3:]
    replace_weights(graph, node, made, Constant.derived(shifted, parts, (weight.shape[0],), weight.dtype))
    node.inputs = [norm.output, *node.inputs[1:], *extra]
    graph.remove(norm, source, readers)
    return True
