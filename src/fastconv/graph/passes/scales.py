# SPDX-License-Identifier: BSD-3-Clause
"""Constants by which the output channels of convolutions and linear layers are scaled, and that are added to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Constant, Graph, Node, Readers, Value
from fastconv.graph.passes.convolutions import is_open, out_channels, scale_outputs
from fastconv.graph.passes.ranks import ranks_of
from fastconv.graph.programs import COMBINING, Program, operands_of, reading

__all__ = ["fold_scales"]
__dir__ = only(__all__)

#: What functions of constants make of scale s and shift t.
_STEPS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "affine": lambda s, t, scale, shift: (s * scale, t * scale + shift),
    "add": lambda s, t, c: (s, t + c),
    "sub": lambda s, t, c: (s, t - c),
    "rsub": lambda s, t, c: (-s, c - t),
    "mul": lambda s, t, c: (s * c, t * c),
    "div": lambda s, t, c: (s / c, t / c),
}


def fold_scales(graph: Graph) -> int:
    """s * (W x + b) + t = (s W) x + (s b + t), for constants s and t of each output channel."""
    folded, readers, ranks = 0, graph.readers(), ranks_of(graph)
    for node in list(graph.nodes):
        if node.op == "map" and is_open(node.inputs[0], graph, readers):
            folded += _fold(graph, node, readers, ranks)
    return folded


def _fold(graph: Graph, node: Node, readers: Readers, ranks: dict[Value, int]) -> bool:
    source, program = node.inputs[0], node.attributes["program"]
    assert source is not None
    assert source.producer is not None
    layer = source.producer
    rank = ranks.get(source, 1)  # of a linear layer: one at least
    channels, axis = out_channels(layer), 1 if layer.op == "conv" else rank - 1
    taken: list[tuple[str, list[Constant | float]]] = []
    for name, *rest in program:
        given = [_constant(node.inputs[i]) for i in rest] if name in COMBINING else rest
        if name not in _STEPS or not all(_is_per_channel(c, rank, axis, channels) for c in given):
            break
        taken.append((name, given))  # type: ignore[arg-type]
    if not taken:
        return False
    scale_outputs(graph, layer, *_factors(taken, channels))
    left: Program = program[len(taken) :]
    used = operands_of(left)
    kept = [i for i in range(1, len(node.inputs)) if i in used or _constant(node.inputs[i]) is None]
    node.inputs = [source, *(node.inputs[i] for i in kept)]
    node.attributes["program"] = reading(left, kept)
    if not left:
        graph.remove(node, source, readers)
    return True


def _constant(value: Value | None) -> Constant | None:
    return value.constant if value is not None else None


def _is_per_channel(c: Constant | float | None, rank: int, axis: int, channels: int) -> bool:
    """Whether it is a number, or a constant of one number for each channel that makes no other axis."""
    if c is None or not isinstance(c, Constant):
        return c is not None
    shape = (1,) * (rank - len(c.shape)) + c.shape
    return len(shape) == rank and all(n == 1 or (i == axis and n == channels) for i, n in enumerate(shape))


def _factors(taken: list[tuple[str, list[Constant | float]]], channels: int) -> tuple[Constant, Constant]:
    """Scale and shift in float64."""
    parts = [c for _, given in taken for c in given if isinstance(c, Constant)]

    def factor(which: int) -> Constant:
        def make(*arrays: np.ndarray) -> np.ndarray:
            left = iter(arrays)
            factors: tuple[Any, Any] = (np.float64(1), np.float64(0))
            for name, given in taken:
                numbers = [next(left).astype(np.float64).reshape(-1) if isinstance(c, Constant) else c for c in given]
                factors = _STEPS[name](*factors, *numbers)
            return np.broadcast_to(factors[which], (channels,)).copy()

        return Constant.derived(make, parts, (channels,), np.float64)

    return factor(0), factor(1)
