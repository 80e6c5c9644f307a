# SPDX-License-Identifier: BSD-3-Clause
"""Single numbers among the operands of elementwise functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.listing import FLOATS
from fastconv.graph.programs import Program, clamp, operands_of, reading

__all__ = ["fold_numbers"]
__dir__ = only(__all__)

#: What a function of two numbers is of x where the other is the number c.
_SINGLE: dict[str, Callable[[float], Program]] = {
    "add": lambda c: (("affine", 1.0, c),),
    "sub": lambda c: (("affine", 1.0, -c),),
    "rsub": lambda c: (("affine", -1.0, c),),
    "mul": lambda c: (("affine", c, 0.0),),
    "div": lambda c: (("affine", 1 / c, 0.0),),
    "rdiv": lambda c: (("reciprocal",), ("affine", c, 0.0)),
    "min": lambda c: (clamp(high=c),),
    "max": lambda c: (clamp(low=c),),
}
#: The same function with its operands exchanged.
_TURNED = {"add": "add", "mul": "mul", "min": "min", "max": "max", "sub": "rsub", "div": "rdiv"}
_SMALLEST = 1e-30  # that a number may be divided by: the reciprocal of less may not be one of float32


def fold_numbers(graph: Graph) -> int:
    """f(x, c) for a constant c of one element is a function of x, and f(c, x) likewise."""
    return sum(_turn(node) + _fold(node) for node in graph.nodes if node.op == "map")


def _turn(node: Node) -> bool:
    """Constants behind what they are combined with."""
    program: Program = node.attributes["program"]
    if len(node.inputs) != 2 or not program or program[0][0] not in _TURNED or operands_of(program[1:]):
        return False
    x, other = node.inputs
    if x is None or other is None or x.constant is None or other.constant is not None:
        return False
    node.inputs = [other, x]
    node.attributes["program"] = ((_TURNED[program[0][0]], 1), *program[1:])
    return True


def _fold(node: Node) -> bool:
    made: list[tuple[Any, ...]] = []
    numbers = [_number(value) for value in node.inputs]
    for name, *rest in node.attributes["program"]:
        c = numbers[rest[0]] if name in _SINGLE else None
        if c is None or (name == "div" and abs(c) < _SMALLEST):
            made.append((name, *rest))
        else:
            made.extend(_SINGLE[name](c))
    left = operands_of(tuple(made))
    kept = [i for i in range(1, len(node.inputs)) if i in left or numbers[i] is None]
    if len(kept) == len(node.inputs) - 1:
        return False
    node.inputs = [node.inputs[0], *(node.inputs[i] for i in kept)]
    node.attributes["program"] = reading(tuple(made), kept)
    return True


def _number(value: Value | None) -> float | None:
    """A number that nobody can change, and that makes no axis."""
    constant = value.constant if value is not None else None
    if constant is None or constant.shape != () or constant.dtype not in FLOATS or constant.is_shared:
        return None
    number = float(np.asarray(constant.array()))
    return number if math.isfinite(number) else None
