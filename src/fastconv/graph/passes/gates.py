# SPDX-License-Identifier: BSD-3-Clause
"""Gates that are spelled out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastconv._names import only
from fastconv.graph.ir import Graph, Value
from fastconv.graph.passes.cleanup import remove_dead_nodes
from fastconv.graph.programs import Program, clamp, joined

__all__ = ["find_gates"]
__dir__ = only(__all__)

_RAMP: Program = (("affine", 1.0, 3.0), clamp(0, 6))  # min(max(x + 3, 0), 6)
_BELL: Program = (("affine", math.sqrt(0.5), 0.0), ("erf",), ("affine", 1.0, 1.0))  # 1 + erf(x / sqrt(2))
#: What x is multiplied by, and what that is of x.
_GATES: dict[Program, Program] = {
    (("sigmoid",),): (("silu",),),
    (("affine", 1 / 6, 0.5), clamp(0, 1)): (("hardswish",),),
    (*_RAMP, ("affine", 1 / 6, 0.0)): (("hardswish",),),
    _RAMP: (("hardswish",), ("affine", 6.0, 0.0)),
    (*_BELL, ("affine", 0.5, 0.0)): (("gelu",),),
    (*_BELL[:-1], ("affine", 0.5, 0.5)): (("gelu",),),
    _BELL: (("gelu",), ("affine", 2.0, 0.0)),
}
_LONGEST = max(map(len, _GATES))


def find_gates(graph: Graph) -> int:
    """x sigmoid(x) = silu(x), x min(max(x + 3, 0), 6) / 6 = hardswish(x), x (1 + erf(x / sqrt(2))) / 2 = gelu(x)."""
    found = 0
    for node in graph.nodes:
        if node.op != "map" or len(node.inputs) != 2 or node.attributes["program"][:1] != (("mul", 1),):
            continue
        for factor, gate in (node.inputs, node.inputs[::-1]):
            product = _product(factor, gate)
            if product is not None:
                x, program = product
                node.inputs, rest = [x], node.attributes["program"][1:]
                node.attributes["program"] = joined(program, rest)
                found += 1
                break
    if found:
        remove_dead_nodes(graph)  # the gates, or x would have more readers than there are
    return found


def _product(factor: Value | None, gate: Value | None) -> tuple[Value, Program] | None:
    """What the product of a multiple of x and a gate of x is of x."""
    for x, scale in _multiples(factor):
        program = _program_of(gate, x)
        for pattern, function in _GATES.items():
            if _alike(program, pattern):
                return x, joined(function, (("affine", scale, 0.0),))
    return None


def _multiples(value: Value | None) -> Iterator[tuple[Value, float]]:
    """What this value is a multiple of, and how much of it: of itself once."""
    if value is None:
        return
    yield value, 1.0
    node = value.producer
    if node is None or node.op != "map" or len(node.inputs) != 1 or len(node.attributes["program"]) != 1:
        return
    ((name, *numbers),) = node.attributes["program"]
    if name == "affine" and numbers[1] == 0 and node.inputs[0] is not None:
        yield node.inputs[0], numbers[0]


def _program_of(value: Value | None, x: Value) -> Program:
    """The program by which a value comes from x, through nodes that read nothing else; empty if it does not."""
    program: Program = ()
    while value is not None and value is not x and len(program) <= _LONGEST:
        node = value.producer
        if node is None or node.op != "map" or len(node.inputs) != 1:
            return ()
        program = joined(node.attributes["program"], program)
        value = node.inputs[0]
    return program


def _alike(program: Program, pattern: Program) -> bool:
    """Whether they are the same but for the rounding of numbers to float32."""
    return len(program) == len(pattern) and all(
        name == other and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(numbers, others, strict=True))
        for (name, *numbers), (other, *others) in zip(program, pattern, strict=True)
    )
