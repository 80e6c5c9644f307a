# SPDX-License-Identifier: BSD-3-Clause
"""The table of translations, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastconv._names import only
from fastconv.graph.doors.fx.growing import Growing, Unknown
from fastconv.graph.ir import Value

__all__ = [
    "CALLS",
    "FRESH",
    "SAME",
    "VIEW",
    "Call",
    "Parts",
    "Shape",
    "axis_of",
    "each",
    "is_number",
    "means",
    "needs",
    "rank_of",
    "value_of",
]
__dir__ = only(__all__)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """All sizes of a value."""

    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A tuple of tensors, each of which is made when it is asked for."""

    take: Callable[[int], Value]


#: What the memory of a result is: new, that of the first argument, or the first argument itself.
FRESH, VIEW, SAME = "fresh", "view", "same"

Call = Callable[..., Any]
#: By torch's function, or the name of a method: the translation, and what its result's memory is.
CALLS: dict[Any, tuple[Call, str]] = {}


def means(*targets: Any, memory: str = FRESH) -> Callable[[Call], Call]:
    def register(call: Call) -> Call:
        for target in targets:
            CALLS[target] = (call, memory)
        return call

    return register


def needs(condition: Any, reason: str) -> None:
    if not condition:
        raise Unknown(reason)


def value_of(x: Any) -> Value:
    needs(isinstance(x, Value), "an argument that is no tensor")
    return x


def is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def each(sizes: Any, rank: int) -> tuple[Any, ...]:
    """One size for each axis."""
    sizes = (sizes,) if isinstance(sizes, int) or sizes is None else tuple(sizes)
    needs(len(sizes) in (1, rank), f"{len(sizes)} sizes for {rank} axes")
    needs(all(n is None or isinstance(n, int) for n in sizes), "sizes that are not known")
    return sizes * rank if len(sizes) == 1 else sizes


def axis_of(r: Growing, x: Value, axis: Any) -> int:
    """An axis counted from the front."""
    needs(isinstance(axis, int), "an axis that is not known")
    if axis >= 0:
        return int(axis)
    return int(axis) + rank_of(r, x)


def rank_of(r: Growing, x: Value) -> int:
    rank = r.rank(x)
    needs(rank is not None, "a tensor of unknown rank")
    assert rank is not None
    return rank


def weights_of(*values: Any) -> list[Value | None]:
    for value in values:
        needs(value is None or value_of(value).constant is not None, "weights that are computed")
    return list(values)
