# SPDX-License-Identifier: BSD-3-Clause
"""What remains of boxes that overlap: how many is known when their numbers are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.foreign import DependsOnNumbers
from fastconv.graph.operators.record import Operator
from fastconv.graph.views import Type

__all__ = ["OPERATORS"]
__dir__ = only(__all__)


def _infer(node: Node, types: Sequence[Type | None]) -> list[Type]:
    raise DependsOnNumbers("how many boxes remain depends on numbers")


def _corners(boxes: np.ndarray, centred: bool) -> np.ndarray:
    """Lower and upper ends along both axes, (boxes, 2, 2)."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centred:
        first, second = first - second / 2, first + second / 2
    return np.stack([np.minimum(first, second), np.maximum(first, second)], 1)


def _remaining(boxes: np.ndarray, scores: np.ndarray, most: int, limit: float) -> list[int]:
    """Numbers of the best boxes, each of which shares at most ``limit`` of the union with a better one that remains."""
    areas = (boxes[:, 1] - boxes[:, 0]).prod(axis=1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < most:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        sides = np.minimum(boxes[order, 1], boxes[best, 1]) - np.maximum(boxes[order, 0], boxes[best, 0])
        shared = np.maximum(sides, 0).prod(axis=1)
        union = areas[order] + areas[best] - shared
        order = order[~((union > 0) & (shared > limit * union) & (areas[order] > 0) & (areas[best] > 0))]
    return kept


def _evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Boxes (images, boxes, 4), scores (images, classes, boxes), and as ONNX has them: the most boxes of a class, the
    share of their union that two may have in common, and the score that all exceed. Rows of (image, class, box).
    """
    boxes, scores, *limits = (*arrays, None, None, None)[:5]
    assert boxes is not None
    assert scores is not None
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or scores.ndim != 3 or scores.shape[::2] != boxes.shape[:2]:
        raise ValueError(f"its boxes have shape {boxes.shape} and its scores {scores.shape}, which do not fit")
    most, share, least = (None if limit is None else limit.reshape(-1)[0] for limit in limits)
    rows = []
    for image, (own, by_class) in enumerate(zip(boxes, scores, strict=True)):
        corners = _corners(own, bool(node.attributes.get("centred")))
        for number, all_scores in enumerate(by_class):
            chosen = np.arange(len(own)) if least is None else np.flatnonzero(all_scores > least)
            kept = _remaining(corners[chosen], all_scores[chosen], int(most or 0), float(share or 0))
            rows += [(image, number, int(chosen[i])) for i in kept]
    return [np.array(rows, np.int64).reshape(-1, 3)]


def _lower(to: Listing, node: Node) -> None:
    raise NotImplementedError("what depends on numbers is called before the rest is lowered")


OPERATORS = (Operator("non_max_suppression", _infer, _evaluate, _lower, order="first"),)
