# SPDX-License-Identifier: BSD-3-Clause
"""Activations behind convolutions, linear layers and norms."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph
from fastconv.graph.programs import COMBINING, LONGEST, joined

__all__ = ["fuse_activations"]
__dir__ = only(__all__)


def fuse_activations(graph: Graph) -> int:
    """f(conv(x)), applied as the convolution stores its result or while that is still in the cache."""
    fused = 0
    readers = graph.readers()
    for node in list(graph.nodes):
        if node.op not in ("conv", "linear", "batch_norm") or node.attributes.get("pooled"):
            continue
        while node.output not in graph.outputs and len(readers.get(node.output, ())) == 1:
            (reader,) = readers[node.output]
            finish = node.attributes.get("finish", ())
            if reader.op != "map" or len(reader.inputs) != 1:
                break
            if any(step[0] in COMBINING for step in reader.attributes["program"]):
                break
            program = joined(finish, reader.attributes["program"])
            if len(program) > LONGEST - 2:
                break
            node.attributes["finish"] = program
            graph.remove(reader, node.output, readers)
            fused += 1
    return fused
