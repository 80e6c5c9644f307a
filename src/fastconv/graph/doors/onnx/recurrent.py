# SPDX-License-Identifier: BSD-3-Clause
"""LSTM and GRU: the products with the inputs of all steps at once, and what goes from step to step."""

from __future__ import annotations

import numpy as np

from fastconv._names import only
from fastconv.graph.doors.onnx.site import Site, Translated, translates
from fastconv.graph.ir import Value
from fastconv.graph.operators.product import GATES

__all__: list[str] = []
__dir__ = only(__all__)

_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}
_BACKWARD = {"forward": 0b0, "reverse": 0b1, "bidirectional": 0b10}


def _is_plain(site: Site, directions: int) -> bool:
    """Whether the layer has only what the core's has."""
    kind = site.node.op_type
    usual = _ACTIVATIONS[kind] * directions
    named = tuple(name.lower() for name in _texts(site, "activations")) or usual
    odd = ("activation_alpha", "activation_beta", "clip", "input_forget", "layout")
    if named != usual or any(site.attribute(name) for name in odd):
        return False
    if kind == "GRU" and not site.attribute("linear_before_reset", 0):
        return False  # a product of what the product before it decides
    return site.input(4) is None and site.input(7) is None  # lengths, and peepholes


def _texts(site: Site, name: str) -> tuple[str, ...]:
    return tuple(text.decode() if isinstance(text, bytes) else text for text in site.attribute(name) or ())


@translates("LSTM", "GRU")
def _recurrent(site: Site) -> Translated:
    kind, direction = site.node.op_type.lower(), str(site.attribute("direction", "forward")).lower()
    if direction not in _BACKWARD:
        raise ValueError(f"direction is {direction!r}; it needs one of {', '.join(_BACKWARD)}")
    directions = 2 if direction == "bidirectional" else 1
    weights, inner, biases, shape = site.array(1), site.array(2), site.array(3), site.shape(0)
    known = weights is not None and inner is not None and (site.input(3) is None or biases is not None)
    if not known or shape is None or not site.is_float(0, 1, 2, 3, 5, 6) or not _is_plain(site, directions):
        return None
    assert weights is not None
    assert inner is not None
    hidden = inner.shape[-1]
    rows = GATES[kind] * hidden
    sizes = [(weights.ndim, *weights.shape[:2]), inner.shape, None if biases is None else biases.shape]
    if sizes != [(3, directions, rows), (directions, rows, hidden), None if biases is None else (directions, 2 * rows)]:
        raise ValueError(
            f"its weights have shapes {weights.shape} and {inner.shape}, its biases {sizes[2]}; it needs "
            f"({directions}, {rows}, ...), ({directions}, {rows}, {hidden}) and ({directions}, {2 * rows})"
        )
    outside, inside = (None, None) if biases is None else np.split(biases, 2, axis=1)
    if kind == "lstm" and outside is not None:
        outside, inside = outside + inside, None
    states = []
    for i in range(5, 7 if kind == "lstm" else 6):
        given = site.input(i)
        if given is None:
            if shape[1] is None:
                return None
            given = site.graph.constant(np.zeros((directions, shape[1], hidden), weights.dtype), f"{site.name}.zeros")
        states.append(given)
    parts: list[Value | None] = []
    for d in range(directions):
        weight = site.graph.constant(np.ascontiguousarray(weights[d]), f"{site.name}.W{d}")
        bias = None if outside is None else site.graph.constant(np.ascontiguousarray(outside[d]), f"{site.name}.B{d}")
        parts.append(site.add("linear", [site.input(0), weight, bias], f"input{d}"))
    gates = parts[0] if directions == 1 else site.add("concat", parts, "inputs", axis=0)
    bias = None if inside is None else site.graph.constant(np.ascontiguousarray(inside), f"{site.name}.R")
    run = site.add(
        "recurrent", [gates, site.input(2), bias, *states], "steps", kind=kind, backward=_BACKWARD[direction]
    )
    return _outputs(site, run, kind == "lstm", _BACKWARD[direction], directions)


def _outputs(site: Site, run: Value, is_lstm: bool, backward: int, directions: int) -> list[Value | None]:
    """h of all steps, the last h of each direction, and the last c."""

    def part(name: str, start: int, stop: int | None, axis: int = 0, of: Value = run) -> Value:
        return site.add("slice", [of], name, axis=axis, start=start, stop=stop)

    end = -1 if is_lstm else None
    made: list[Value | None] = [part("all", 0, end) if is_lstm else run, None, None]
    if site.writes(1):
        lasts: list[Value | None] = []
        for d in range(directions):
            back = backward >> d & 1
            step = part(f"step{d}", 0, 1) if back else part(f"step{d}", -2 if is_lstm else -1, end)
            one = part(f"last{d}", d, d + 1, 1, step)
            lasts.append(site.add("squeeze", [one], f"h{d}", axes=(0,)))
        made[1] = lasts[0] if directions == 1 else site.add("concat", lasts, "h", axis=0)
    if site.writes(2):
        made[2] = site.add("squeeze", [part("memory", -1, None)], "c", axes=(0,))
    return made
