# SPDX-License-Identifier: BSD-3-Clause
"""Elementwise functions that follow each other."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph
from fastconv.graph.programs import LONGEST, OPERANDS, joined, renumbered

__all__ = ["merge_chains"]
__dir__ = only(__all__)


def merge_chains(graph: Graph) -> int:
    """g(f(x, a), b) in one program, which goes through memory once; where nobody else reads f(x, a)."""
    merged = 0
    readers = graph.readers()
    for node in list(graph.nodes):
        source = node.inputs[0] if node.op == "map" else None
        before = source.producer if source is not None else None
        if before is None or before.op != "map" or source in graph.outputs or len(readers[before.output]) != 1:
            continue
        program = joined(before.attributes["program"], renumbered(node.attributes["program"], len(before.inputs)))
        inputs = [*before.inputs, *node.inputs[1:]]
        if len(program) > LONGEST or len(inputs) > OPERANDS + 1:
            continue
        node.attributes["program"], node.inputs = program, inputs
        graph.nodes.remove(before)
        merged += 1
    return merged
