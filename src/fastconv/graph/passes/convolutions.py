# SPDX-License-Identifier: BSD-3-Clause
"""What passes ask of convolutions and linear layers, and do to their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Constant, Graph, Node, Readers, Value

__all__ = [
    "bias_of",
    "groups_of",
    "is_open",
    "out_channels",
    "pairs_of",
    "replace_weights",
    "rounded",
    "scale_outputs",
    "weight_of",
]
__dir__ = only(__all__)


def is_open(value: Value | None, graph: Graph, readers: Readers) -> bool:
    """Whether a convolution computes the value, with nothing behind it yet, and for one reader alone."""
    node = value.producer if value is not None else None
    if node is None or node.op not in ("conv", "linear") or len(node.inputs) > 3:
        return False
    if node.attributes.get("finish") or node.attributes.get("pooled"):
        return False
    if len(readers[node.output]) != 1 or node.output in graph.outputs:
        return False
    return all(v is None or v.constant is not None for v in node.inputs[1:3])


def pairs_of(padding: Any, rank: int) -> list[tuple[int, int]] | None:
    """Padding before and after each axis, if it is given in numbers."""
    if isinstance(padding, str):
        return [(0, 0)] * rank if padding == "valid" else None
    sizes = [padding] * rank if isinstance(padding, int) else list(padding)
    return [(p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in sizes]


def weight_of(node: Node) -> Constant:
    value = node.inputs[1]
    assert value is not None
    assert value.constant is not None
    return value.constant


def bias_of(node: Node) -> Constant | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return None if value is None else value.constant


def groups_of(node: Node) -> int:
    return int(node.attributes.get("groups", 1))


def out_channels(node: Node) -> int:
    weight = weight_of(node).shape
    return weight[1] * groups_of(node) if node.attributes.get("transposed") else weight[0]


def replace_weights(graph: Graph, node: Node, weight: Constant, bias: Constant) -> None:
    node.inputs = [
        node.inputs[0],
        graph.constant(weight, f"{node.name}.weight"),
        graph.constant(bias, f"{node.name}.bias"),
    ]


def rounded(weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The product in float64, rounded once, without an array of float64."""
    return np.multiply(weight, factor, out=np.empty_like(weight), dtype=np.float64, casting="unsafe")


def scale_outputs(graph: Graph, node: Node, scale: Constant, shift: Constant) -> None:
    """``scale * f(x) + shift``, per output channel, by other weights and another bias."""
    weight, bias, groups = weight_of(node), bias_of(node), groups_of(node)
    transposed = bool(node.attributes.get("transposed"))

    def scaled(w: np.ndarray, s: np.ndarray) -> np.ndarray:
        if transposed:  # (inputs, outputs of a group, *kernel)
            inner = w.reshape(groups, -1, *w.shape[1:])
            return rounded(inner, s.reshape(groups, 1, w.shape[1], *(1,) * (w.ndim - 2))).reshape(w.shape)
        return rounded(w, s.reshape(-1, *(1,) * (w.ndim - 1)))

    def shifted(s: np.ndarray, t: np.ndarray, *b: np.ndarray) -> np.ndarray:
        return (t + s * b[0] if b else t).astype(weight.dtype)

    made = Constant.derived(scaled, (weight, scale), weight.shape, weight.dtype)
    parts = (scale, shift) if bias is None else (scale, shift, bias)
    replace_weights(graph, node, made, Constant.derived(shifted, parts, shift.shape, weight.dtype))
