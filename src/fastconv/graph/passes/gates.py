# SPDX-License-Identifier: BSD-3-Clause
"""Gates that are spelled out."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Readers, Value
from fastconv.graph.programs import Program, clamp

__all__ = ["find_gates"]
__dir__ = only(__all__)

_SIXTH = 1 / 6
_RAMP: Program = (("affine", 1.0, 3.0), clamp(0, 6))  # min(max(x + 3, 0), 6)
#: What x is multiplied by, and what that is of x.
_GATES: dict[Program, Program] = {
    (("sigmoid",),): (("silu",),),
    (("affine", _SIXTH, 0.5), clamp(0, 1)): (("hardswish",),),
    (*_RAMP, ("affine", _SIXTH, 0.0)): (("hardswish",),),
    _RAMP: (("hardswish",), ("affine", 6.0, 0.0)),
}

_LONGEST = max(map(len, _GATES))


def find_gates(graph: Graph) -> int:
    """x * sigmoid(x) = silu(x), and x * min(max(x + 3, 0), 6) / 6 = hardswish(x)."""
    found = 0
    for node in graph.nodes:
        if node.op != "map" or len(node.inputs) != 2 or node.attributes["program"][:1] != (("mul", 1),):
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            program = _program_of(gate, x)
            if program in _GATES:
                node.inputs = [x]
                rest = node.attributes["program"][1:]
                node.attributes["program"] = _without_sixes((*_GATES[program], *rest))
                found += 1
                break
    readers = graph.readers()
    for node in list(graph.nodes):
        found += _divide(graph, node, readers)
    return found


def _program_of(value: Value | None, x: Value | None) -> Program:
    """The program by which a value comes from x, through nodes that read nothing else; empty if it does not."""
    program: Program = ()
    while value is not None and value is not x and len(program) <= _LONGEST:
        node = value.producer
        if node is None or node.op != "map" or len(node.inputs) != 1:
            return ()
        program = (*node.attributes["program"], *program)
        value = node.inputs[0]
    return program


def _divide(graph: Graph, node: Node, readers: Readers) -> bool:
    """hardswish(x) * 6 / 6: where the product is divided by six only afterwards."""
    source = node.inputs[0] if node.op == "map" and len(node.inputs) == 1 else None
    before = source.producer if source is not None else None
    if before is None or before.op != "map" or before.attributes["program"][-1:] != (("affine", 6.0, 0.0),):
        return False
    if len(readers[before.output]) != 1 or before.output in graph.outputs:
        return False
    program = _without_sixes((*before.attributes["program"], *node.attributes["program"]))
    if len(program) >= len(before.attributes["program"]) + len(node.attributes["program"]):
        return False
    node.attributes["program"], node.inputs = program, before.inputs
    graph.nodes.remove(before)
    return True


def _without_sixes(program: Program) -> Program:
    """Without a multiplication by six that a division by six follows."""
    for i in range(len(program) - 1):
        first, second = program[i], program[i + 1]
        divides = second[0] == "affine" and abs(second[1] - _SIXTH) < 1e-7 and second[2] == 0
        if first == ("affine", 6.0, 0.0) and divides:
            return (*program[:i], *program[i + 2 :])
    return program
