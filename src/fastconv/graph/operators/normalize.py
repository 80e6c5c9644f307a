# SPDX-License-Identifier: BSD-3-Clause
"""Axes that are folded: softmax, norms of layers and of groups of channels, local response norm, sums and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fastconv import _args, _config, _core
from fastconv import functional as F
from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, first, needs
from fastconv.graph.views import Type, View, dense
from fastconv.ops import _folds, norm

__all__ = ["OPERATORS", "REDUCTIONS"]
__dir__ = only(__all__)

_STANDARD = _folds.STANDARD


def _log_sum_exp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    most = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    finite = np.where(np.isfinite(most), most, 0)
    total = np.log(np.sum(np.exp(x - finite), axis=axis, keepdims=True)) + finite
    return total if keepdims else total.squeeze(axis)


#: Reductions by name, in the order of the core's numbers, and what they mean.
REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "squares": lambda x, **axes: np.sum(np.square(x), **axes),
    "l1": lambda x, **axes: np.sum(np.abs(x), **axes),
    "l2": lambda x, **axes: np.sqrt(np.sum(np.square(x), **axes)),
    "log_sum_exp": _log_sum_exp,
}


def _axes(
    x: View, y: View, folded: Sequence[int], weights: Sequence[int] = ()
) -> tuple[tuple[int, int, int, int, bool], ...]:
    """Axes as the core wants them: (count, strides of x, of y and of the weights, whether folded)."""
    steps = weights or (0,) * len(x.shape)
    return tuple(
        (n, s, t, w, i in folded)
        for i, (n, s, t, w) in enumerate(zip(x.shape, x.strides, y.strides, steps, strict=True))
    )


# --- softmax ----------------------------------------------------------------------------------------------------------


def _infer_softmax(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, axis = first(types), node.attributes["axis"]
    needs(-len(x.shape) <= axis < len(x.shape), "its input has shape {}; it has no axis {}", x.shape, axis)
    return [x]


def _evaluate_softmax(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    function = F.log_softmax if node.attributes.get("log") else F.softmax
    return [np.asarray(function(first(arrays), node.attributes["axis"]))]


def _lower_softmax(to: Listing, node: Node) -> None:
    x = to.view(node.inputs[0])
    if x.dtype not in to.floats:
        to.foreign(node, _evaluate_softmax)
        return
    y, kind = to.result(node), _folds.LOG_SOFTMAX if node.attributes.get("log") else _folds.SOFTMAX
    axes = _axes(x, y, (node.attributes["axis"] % len(x.shape),))
    to.step(node, _core.norm_plan(axes, kind, 0.0, _args.FLOATS[x.dtype], _config.ISA), src=x, dst=y)


# --- norms ------------------------------------------------------------------------------------------------------------


def _infer_norm(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    if node.op == "layer_norm":
        shape = tuple(node.attributes["shape"])
        needs(x.shape[len(x.shape) - len(shape) :] == shape, "its input has shape {}; it needs {} last", x.shape, shape)
    else:
        groups = node.attributes["groups"]
        fits = len(x.shape) >= 2 and x.shape[1] % groups == 0
        needs(fits, "its input has shape {}; it needs a multiple of {} channels", x.shape, groups)
    return [x]


def _evaluate_norm(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x, weight, bias, *_ = (*arrays, None, None)
    assert x is not None
    if node.op == "layer_norm":
        return [F.layer_norm(x, node.attributes["shape"], weight, bias, node.attributes["eps"])]
    return [F.group_norm(x, node.attributes["groups"], weight, bias, node.attributes["eps"])]


def _in_groups(view: View, groups: int) -> View:
    """The channels as two axes: groups, and those of a group."""
    n, c, *rest = view.shape
    image, channel, *steps = view.strides
    inner = c // groups
    return view._replace(shape=(n, groups, inner, *rest), strides=(image, inner * channel, channel, *steps))


def _lower_norm(to: Listing, node: Node) -> None:
    x, constants = to.view(node.inputs[0]), [None if v is None else v.constant for v in node.inputs[1:]]
    known = all(v is None or v.constant is not None for v in node.inputs[1:])
    if x.dtype not in to.floats or not known or len(x.shape) > 7:
        to.foreign(node, _evaluate_norm)
        return
    y = to.result(node)
    read, written = x, y
    if node.op == "layer_norm":
        shape = tuple(node.attributes["shape"])
        folded = range(len(x.shape) - len(shape), len(x.shape))
        steps = (0,) * (len(x.shape) - len(shape)) + dense(shape)
    else:
        groups = node.attributes["groups"]
        shape, read, written = (x.shape[1],), _in_groups(x, groups), _in_groups(y, groups)
        folded = range(2, len(read.shape))
        steps = (0, x.shape[1] // groups, 1) + (0,) * (len(read.shape) - 3)
    others = []
    if any(c is not None for c in constants):
        for constant, neutral in zip((*constants, None)[:2], (np.ones, np.zeros), strict=True):
            array = neutral(shape, x.dtype) if constant is None else constant.array().astype(x.dtype)
            others.append(to.array(array, node.name))
    plan = _core.norm_plan(
        _axes(read, written, folded, steps), _STANDARD, node.attributes["eps"], _args.FLOATS[x.dtype], _config.ISA
    )
    to.step(node, plan, src=x, dst=y, others=others)


# --- local response norm ----------------------------------------------------------------------------------------------


def _infer_response(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    needs(len(x.shape) >= 3, "its input has shape {}; it needs 3 axes or more", x.shape)
    return [x]


def _response_window(node: Node) -> tuple[int, int, float, float, float]:
    """As `norm.lrn_window`; ``before`` says how far a window reaches down, where that is not torch's half."""
    a = node.attributes
    before, after, *numbers = norm.lrn_window(a["size"], a["alpha"], a["beta"], a["k"])
    down = a.get("before", before)
    return (down, before + after - down, *numbers)


def _evaluate_response(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x = first(arrays)
    before, after, share, beta, k = _response_window(node)
    squares = np.pad(np.square(x, dtype=np.float64), [(0, 0), (before, after), *((0, 0),) * (x.ndim - 2)])
    energy = sum(squares[:, i : i + x.shape[1]] for i in range(before + after + 1))
    return [(x / (k + share * energy) ** beta).astype(x.dtype)]


def _lower_response(to: Listing, node: Node) -> None:
    x = to.view(node.inputs[0])
    if x.dtype not in to.floats:
        to.foreign(node, _evaluate_response)
        return
    y, window = to.result(node), _response_window(node)
    plan = _core.lrn_plan(_axes(x, y, (1,)), *window, _args.FLOATS[x.dtype], _config.ISA)
    to.step(node, plan, src=x, dst=y)


# --- sums and extremes ------------------------------------------------------------------------------------------------


def _folded(node: Node, rank: int) -> tuple[int, ...]:
    axes = node.attributes["axes"]
    axes = range(rank) if axes is None else axes
    needs(all(-rank <= a < rank for a in axes), "its input has {} axes; there are no axes {}", rank, axes)
    return tuple(sorted({a % rank for a in axes}))


def _infer_reduce(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    folded, keep = _folded(node, len(x.shape)), node.attributes.get("keep", False)
    sizes = [1 if i in folded else n for i, n in enumerate(x.shape) if keep or i not in folded]
    empty = math.prod(x.shape[i] for i in folded) == 0
    needs(
        not (empty and node.attributes["kind"] in ("max", "min")),
        "its input has shape {}; there is no extreme of nothing",
        x.shape,
    )
    return [Type(tuple(sizes), x.dtype)]


def _evaluate_reduce(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x = first(arrays)
    function, keep = REDUCTIONS[node.attributes["kind"]], node.attributes.get("keep", False)
    with np.errstate(all="ignore"):
        result = function(x, axis=_folded(node, x.ndim), keepdims=keep)
    return [np.asarray(result, x.dtype)]


def _lower_reduce(to: Listing, node: Node) -> None:
    x = to.view(node.inputs[0])
    folded = _folded(node, len(x.shape))
    if x.dtype not in to.floats or 0 in x.shape or len(x.shape) > 8:
        to.foreign(node, _evaluate_reduce)
        return
    y, kind = to.result(node), list(REDUCTIONS).index(node.attributes["kind"])
    left = iter(y.strides)
    keep = node.attributes.get("keep", False)
    steps = [next(left) if keep or i not in folded else 0 for i in range(len(x.shape))]
    wide = y._replace(shape=x.shape, strides=tuple(0 if i in folded else s for i, s in enumerate(steps)))
    plan = _core.reduce_plan(_axes(x, wide, folded), kind, 0, _args.FLOATS[x.dtype], _config.ISA)
    to.step(node, plan, src=x, dst=y)


OPERATORS = (
    Operator("softmax", _infer_softmax, _evaluate_softmax, _lower_softmax),
    Operator("layer_norm", _infer_norm, _evaluate_norm, _lower_norm),
    Operator("group_norm", _infer_norm, _evaluate_norm, _lower_norm),
    Operator("local_response_norm", _infer_response, _evaluate_response, _lower_response, by_image=True),
    Operator("reduce", _infer_reduce, _evaluate_reduce, _lower_reduce),
)
