# SPDX-License-Identifier: BSD-3-Clause
"""Boxes in layers, from top to bottom, and the lines between them.

Each box is one layer below the lowest of those that it reads. A line that passes layers by has a narrow lane of its own
in each of them; all lines that leave a box share its lanes, so that a result that many read is one line with branches.
The order within a layer is that of the mean place of the neighbours, the best of several sweeps up and down; then
all layers are centred, and places are moved, without overlaps, until lines are about as straight as they get. (Sweeps
that look up or down alone drift to one side.)
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fastconv._names import only

__all__ = ["Item", "layered"]
__dir__ = only(__all__)

LANE = 10.0  # width of a lane
GAP = 16.0  # between two boxes; half of it beside a lane
SWEEPS = 12  # for the order
SETTLING = 40  # for the places


@dataclass(eq=False, slots=True)
class Item:
    """A box, or the lane of a line where it passes a layer by (``box`` is None).

    ``x`` is the middle, ``above`` and ``below`` are what lines lead from and to, in the next layers.
    """

    layer: int
    width: float
    box: int | None = None
    x: float = 0.0
    above: list[Item] = field(default_factory=list, repr=False)
    below: list[Item] = field(default_factory=list, repr=False)

    def join(self, other: Item) -> None:
        self.below.append(other)
        other.above.append(self)


def layered(widths: Sequence[float], reads: Sequence[Sequence[int]]) -> list[list[Item]]:
    """Layers of items, from left to right, the leftmost edge at 0.

    Parameters
    ----------
    widths : sequence of float
        Of the boxes, in an order in which each reads only those before it.
    reads : sequence of sequence of int
        Numbers of the boxes that each reads.

    Examples
    --------
    A branch beside which a line passes:

    >>> from fastconv.graph.layered import layered
    >>> layers = layered([100, 100, 100], [[], [0], [0, 1]])
    >>> [[item.box for item in layer] for layer in layers]
    [[0], [1, None], [2]]
    """
    boxes: list[Item] = []
    for box, (width, read) in enumerate(zip(widths, reads, strict=True)):
        boxes.append(Item(1 + max((boxes[i].layer for i in read), default=-1), width, box))
    layers: list[list[Item]] = [[] for _ in range(1 + max((item.layer for item in boxes), default=-1))]
    for item in boxes:
        layers[item.layer].append(item)
    readers: list[list[Item]] = [[] for _ in boxes]
    for item, read in zip(boxes, reads, strict=True):
        for i in sorted(set(read)):
            readers[i].append(item)
    for source, targets in zip(boxes, readers, strict=True):
        _join(source, targets, layers)
    _order(layers)
    _place(layers)
    return layers


def _join(source: Item, targets: list[Item], layers: list[list[Item]]) -> None:
    """One line from a box to all that read it."""
    lane = source
    for layer in range(source.layer + 1, 1 + max((target.layer for target in targets), default=0)):
        for target in targets:
            if target.layer == layer:
                lane.join(target)
        if any(target.layer > layer for target in targets):
            further = Item(layer, LANE)
            lane.join(further)
            layers[layer].append(further)
            lane = further


# --- the order within a layer -----------------------------------------------------------------------------------------


def _order(layers: list[list[Item]]) -> None:
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for number in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            beside = layers[number - 1 if down else number + 1]
            place = {item: i for i, item in enumerate(beside)}
            own = {item: i for i, item in enumerate(layers[number])}
            layers[number].sort(key=_mean_of(place, own, down))
        count = _crossings(layers)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    layers[:] = best


def _mean_of(place: dict[Item, int], own: dict[Item, int], down: bool) -> Callable[[Item], float]:
    def mean(item: Item) -> float:
        neighbours = item.above if down else item.below
        if not neighbours:
            return own[item] * len(place) / len(own)
        return sum(place[other] for other in neighbours) / len(neighbours)

    return mean


def _crossings(layers: Sequence[Sequence[Item]]) -> int:
    """Pairs of lines that cross."""
    count = 0
    for upper, lower in pairwise(layers):
        place = {item: i for i, item in enumerate(lower)}
        seen: list[int] = []
        for item in upper:
            ends = sorted(place[other] for other in item.below)
            count += sum(len(seen) - bisect(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


# --- places -----------------------------------------------------------------------------------------------------------


def _place(layers: list[list[Item]]) -> None:
    for layer in layers:
        _settle(layer, [0.0] * len(layer))
    for sweep in range(SETTLING):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _settle(layer, [_wanted(item) for item in layer])
    left = min((layer[0].x - layer[0].width / 2 for layer in layers), default=0.0)
    for layer in layers:
        for item in layer:
            item.x -= left


def _weight(a: Item, b: Item) -> float:
    """How much a line wants to be straight: most where it only passes. (Were it more than others at a box, too, a box
    with one lane beside it would pull all that follows to that side.)"""
    return 8.0 if a.box is b.box is None else 1.0


def _wanted(item: Item) -> float:
    neighbours = [*item.above, *item.below]
    if not neighbours:
        return item.x
    weights = [_weight(item, other) for other in neighbours]
    return sum(w * other.x for w, other in zip(weights, neighbours, strict=True)) / sum(weights)


def _settle(layer: list[Item], wanted: Sequence[float]) -> None:
    """As near to where they want to be, in the sense of least squares, as their order and widths let them.

    With the least distances taken off that is a regression to numbers that do not fall: neighbours that would overlap
    are pooled at their common mean.
    """
    offsets, at = [], 0.0
    for before, item in zip([None, *layer], layer, strict=False):
        if before is not None:
            gap = GAP / 2 if None in (before.box, item.box) else GAP
            at += before.width / 2 + gap + item.width / 2
        offsets.append(at)
    pools: list[tuple[float, float, int]] = []  # mean, weight, items
    for item, target, offset in zip(layer, wanted, offsets, strict=True):
        mean, weight, count = target - offset, sum(_weight(item, o) for o in (*item.above, *item.below)) or 1.0, 1
        while pools and pools[-1][0] > mean:
            other, others, more = pools.pop()
            mean, weight, count = (mean * weight + other * others) / (weight + others), weight + others, count + more
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    for item, mean, offset in zip(layer, means, offsets, strict=True):
        item.x = mean + offset
