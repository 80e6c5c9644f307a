# SPDX-License-Identifier: BSD-3-Clause
"""Pooling: windows of one size, or as many as are asked for (``adaptive``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _args, _config
from fastconv import functional as F
from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, first, needs
from fastconv.graph.views import Type
from fastconv.ops import _windows

__all__ = ["OPERATORS"]
__dir__ = only(__all__)


def pooling(node: Node, shape: tuple[int, ...]) -> _windows.Pooling:
    a, rank = node.attributes, len(shape) - 2
    needs(1 <= rank <= 3, "its input has shape {}; it needs 3 to 5 axes", shape)
    images = _windows.Images(shape, rank, _args.channels_first(rank), "its input")
    kind = _windows.MAX if node.op.endswith("max_pool") else _windows.AVG
    if node.op.startswith("adaptive"):
        return _windows.Pooling(_windows.adaptive(images, a["output_size"]), kind)
    windows = _strided(images, a)
    if kind == _windows.MAX:
        return _windows.Pooling(windows, kind)
    return _windows.Pooling(
        windows, kind, a.get("count_include_pad", True), _windows.divisor(a.get("divisor_override"))
    )


def _strided(images: _windows.Images, a: dict[str, Any]) -> _windows.Windows:
    """Windows that move; ``padding`` may be pairs, before and after each axis, of any width."""
    padding = a.get("padding", 0)
    if not isinstance(padding, tuple) or not any(isinstance(pair, tuple) for pair in padding):
        return _windows.strided(
            images, a["kernel_size"], a.get("stride"), padding, a.get("dilation", 1), a.get("ceil_mode", False)
        )
    rank = images.rank
    kernel = _args.per_axis(a["kernel_size"], rank, "kernel_size", 1)
    steps = _windows.steps_of(a.get("stride"), kernel)
    dilations = _args.per_axis(a.get("dilation", 1), rank, "dilation", 1)
    needs(len(padding) == rank, "padding is {}; it needs {} pairs", padding, rank)
    out = []
    for n, k, s, d, (before, after) in zip(images.size, kernel, steps, dilations, padding, strict=True):
        room = n + before + after - d * (k - 1) - 1
        count = (-(-room // s) if a.get("ceil_mode", False) else room // s) + 1
        if (count - 1) * s >= n + before:
            count -= 1 if a.get("ceil_mode", False) else 0  # it would see nothing but what lies behind
        needs(room >= 0 and count > 0, "its input has size {}; a window does not fit into {}", images.size, padding)
        out.append(count)
    before, after = zip(*padding, strict=True)
    return _windows.Windows(tuple(out), tuple(zip(kernel, steps, dilations, before, after, strict=True)))


def _infer(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    return [Type((*x.shape[:2], *pooling(node, x.shape).windows.out_size), x.dtype)]


def _evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x = first(arrays)
    arguments: dict[str, Any] = dict(node.attributes)
    if not isinstance(arguments.get("padding"), tuple) or isinstance(arguments["padding"][0], int):
        return [getattr(F, f"{node.op}{x.ndim - 2}d")(x, **arguments)]
    (t,) = _infer(node, [Type(x.shape, x.dtype)])
    src = _args.computed(x)
    y = np.empty(t.shape, src.dtype)
    if y.size:
        pooling(node, x.shape).core.forward(src, y, None, _config.ISA, _config.get_num_threads())
    return [y.astype(x.dtype, copy=False)]


def _lower(to: Listing, node: Node) -> None:
    x, y = to.view(node.inputs[0]), to.result(node)
    if x.dtype not in to.floats or 0 in y.shape:
        to.foreign(node, _evaluate)
        return
    core = pooling(node, x.shape).core
    plan = core.plan(x.shape, x.strides, y.shape, y.strides, x.dtype.itemsize, _config.ISA)
    to.step(node, plan, src=x, dst=y)


OPERATORS = tuple(
    Operator(name, _infer, _evaluate, _lower, by_image=True)
    for name in ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
)
