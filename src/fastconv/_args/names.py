# SPDX-License-Identifier: BSD-3-Clause
"""Names: layouts, activations, algorithms and precisions, and what the core calls them."""

from __future__ import annotations

import math

from fastconv import _core
from fastconv._args.words import said

# Axis positions of a batched array: batch, channel, and the spatial axes.
LAYOUTS: dict[int, dict[str, tuple[int, ...]]] = {
    1: {"NCW": (0, 1, 2), "NWC": (0, 2, 1)},
    2: {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)},
    3: {"NCDHW": (0, 1, 2, 3, 4), "NDHWC": (0, 4, 1, 2, 3)},
}
#: The core's number of the map that an activation is, the bounds of a clamp, and the number of another.
Activation = tuple[int, float, float, float]


def activation_of(name: str, alpha: float = 0.0) -> Activation:
    """An activation that is no clamp, by the name of its map."""
    return _core.MAP_NAMES.index(name), -math.inf, math.inf, alpha


def clamp_of(low: float, high: float) -> Activation:
    """The one that is a clamp."""
    return _core.MAP_NAMES.index("clamp"), low, high, 0.0


#: By their public names.
ACTIVATIONS: dict[str | None, Activation] = {
    None: clamp_of(-math.inf, math.inf),
    "relu": clamp_of(0.0, math.inf),
    "relu6": clamp_of(0.0, 6.0),
    "silu": activation_of("silu"),
    "hardswish": activation_of("hardswish"),
    "sigmoid": activation_of("sigmoid"),
}
#: Algorithms of convolution, as numbered by the C core.
ALGORITHMS = (
    "direct",
    "im2col",
    "winograd_f2",
    "winograd_f3",
    "winograd_f4",
    "winograd_f6",
    "pointwise",
    "depthwise",
    "reference",
)
#: Less accurate than the rest: taken by name only.
BY_NAME = ("winograd_f6",)
_AUTO = -1  # the core takes whichever is predicted to be fastest
DIRECTIONS = {"forward": 0, "input": 1, "weight": 2}


def channels_first(rank: int) -> str:
    """The layout that every function of this rank has by default."""
    return next(iter(LAYOUTS[rank]))


def channels_last(rank: int) -> str:
    """The other one."""
    return next(reversed(LAYOUTS[rank]))


def rank_of(layout: str) -> int:
    """How many spatial axes a layout has."""
    for rank, names in LAYOUTS.items():
        if isinstance(layout, str) and layout in names:
            return rank
    raise ValueError(f"layout is {layout!r}; it needs {', '.join(repr(n) for some in LAYOUTS.values() for n in some)}")


def layout_axes(layout: str, rank: int) -> tuple[int, ...]:
    """Positions of batch, channel and spatial axes in a batched array."""
    axes = LAYOUTS[rank].get(layout) if isinstance(layout, str) else None
    if axes is None:
        raise ValueError(f"layout is {layout!r}; it needs {' or '.join(map(repr, LAYOUTS[rank]))}")
    return axes


def activation_fields(activation: str | None) -> Activation:
    """How the core knows an activation."""
    if not isinstance(activation, (str, type(None))) or activation not in ACTIVATIONS:
        raise ValueError(f"activation is {said(activation)}; it needs {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS[activation]


def candidates(algorithm: str) -> tuple[int, ...]:
    """The core's numbers for a public algorithm name; of several the cheapest is meant."""
    if algorithm == "auto":
        return (_AUTO,)
    if algorithm == "winograd":
        return tuple(i for i, name in enumerate(ALGORITHMS) if name.startswith("winograd") and name not in BY_NAME)
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        names = ", ".join(map(repr, ("auto", "winograd", *ALGORITHMS)))
        raise ValueError(f"algorithm is {algorithm!r}; it needs one of {names}")
    return (ALGORITHMS.index(algorithm),)


def is_strict(precision: str) -> bool:
    if precision not in ("default", "strict"):
        raise ValueError(f"precision is {precision!r}; it needs 'default' or 'strict'")
    return precision == "strict"


def is_batch_invariant(batch_invariant: bool) -> bool:
    if not isinstance(batch_invariant, bool):
        raise TypeError(f"batch_invariant is {batch_invariant!r}; it needs to be True or False")
    return batch_invariant
