# SPDX-License-Identifier: BSD-3-Clause
"""Number by number: programs of functions and operands that broadcast, and batch norm, which is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv._names import only
from fastconv.graph import programs
from fastconv.graph.ir import Constant, Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, needs
from fastconv.graph.views import Type

__all__ = ["OPERATORS", "scale_and_shift"]
__dir__ = only(__all__)


def _infer_map(node: Node, types: Sequence[Type | None]) -> list[Type]:
    known = [t for t in types if t is not None]
    for t in known[1:]:
        if t.dtype != known[0].dtype:
            raise TypeError(f"its inputs have dtypes {known[0].dtype} and {t.dtype}; they need to be the same")
    return [Type(np.broadcast_shapes(*(t.shape for t in known)), known[0].dtype)]


def _evaluate_map(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x, *others = (a for a in arrays if a is not None)
    result = programs.evaluate(node.attributes["program"], x, others)
    shape = np.broadcast_shapes(x.shape, *(a.shape for a in others))
    return [result if result.shape == shape else np.broadcast_to(result, shape)]


def _lower_map(to: Listing, node: Node) -> None:
    x, *others = (to.view(value) for value in node.given())
    to.elementwise(node, node.attributes["program"], x, others, to.result(node))


# --- batch norm, with the statistics of training ----------------------------------------------------------------------


def _infer_norm(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = types[0]
    assert x is not None
    channels = next(t.shape[0] for t in types[3:] if t is not None)
    needs(
        len(x.shape) >= 2 and x.shape[1] == channels,
        "its input has shape {}; it needs {} channels along axis 1",
        x.shape,
        channels,
    )
    return [x]


def _per_channel(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape(-1, *(1,) * (rank - 2))


def _factors(
    eps: float, weight: np.ndarray | None, bias: np.ndarray | None, mean: np.ndarray, var: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm as ``x * scale + shift``, in float64."""
    with np.errstate(all="ignore"):
        scale = 1 / np.sqrt(var.astype(np.float64) + eps)
        if weight is not None:
            scale = scale * weight
        shift = -mean.astype(np.float64) * scale
        return scale, shift if bias is None else shift + bias


def scale_and_shift(node: Node) -> tuple[Constant, Constant]:
    """Of a batch norm: both per channel, in float64."""
    parts = [None if value is None else value.constant for value in node.inputs[1:]]
    present = [part for part in parts if part is not None]
    where = [i for i, part in enumerate(parts) if part is not None]
    eps = node.attributes["eps"]

    def factor(which: int) -> Constant:
        def make(*arrays: np.ndarray) -> np.ndarray:
            filled: list[np.ndarray | None] = [None] * 4
            for i, array in zip(where, arrays, strict=True):
                filled[i] = array
            weight, bias, mean, var = filled
            assert mean is not None
            assert var is not None
            return _factors(eps, weight, bias, mean, var)[which]

        return Constant.derived(make, present, present[-1].shape, np.float64)

    return factor(0), factor(1)


def _evaluate_norm(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x, weight, bias, mean, var = arrays
    assert x is not None
    assert mean is not None
    assert var is not None
    scale, shift = (_per_channel(f, x.ndim) for f in _factors(node.attributes["eps"], weight, bias, mean, var))
    return [programs.evaluate(node.attributes.get("finish", ()), (x * scale + shift).astype(x.dtype), ())]


def _lower_norm(to: Listing, node: Node) -> None:
    x = to.view(node.inputs[0])
    if any(value is not None and value.constant is None for value in node.inputs[1:]):
        to.foreign(node, _evaluate_norm)
        return
    others = []
    for factor in scale_and_shift(node):
        array = _per_channel(factor.array().astype(x.dtype), len(x.shape))
        others.append(to.array(array, node.name))
    to.elementwise(node, (("fma", 1, 2), *node.attributes.get("finish", ())), x, others, to.result(node))


OPERATORS = (
    Operator("map", _infer_map, _evaluate_map, _lower_map, by_image=True),
    Operator("batch_norm", _infer_norm, _evaluate_norm, _lower_norm, by_image=True),
)
