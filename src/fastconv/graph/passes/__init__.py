# SPDX-License-Identifier: BSD-3-Clause
"""What is done to a graph before it is lowered, in this order. Each pass keeps the meaning, whatever the shapes.

A pass is a function that changes a graph and returns how many times it did; its formula stands in its docstring. Each
can be left out by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from fastconv._names import only
from fastconv.graph.ir import Graph
from fastconv.graph.passes.activation import fuse_activations
from fastconv.graph.passes.batch_norm import fold_batch_norms
from fastconv.graph.passes.chains import merge_chains
from fastconv.graph.passes.cleanup import fold_constants, remove_dead_nodes, remove_identities
from fastconv.graph.passes.gates import find_gates
from fastconv.graph.passes.numbers import fold_numbers
from fastconv.graph.passes.pad import fold_pads
from fastconv.graph.passes.pooling import fuse_pooling
from fastconv.graph.passes.residual import fuse_residuals
from fastconv.graph.passes.scales import fold_scales
from fastconv.graph.passes.shapes import merge_shapes
from fastconv.graph.passes.transposes import sink_transposes

__all__ = ["PASSES", "run_passes"]
__dir__ = only(__all__)

#: In the order in which they run.
PASSES: dict[str, Callable[[Graph], int]] = {
    "fold_constants": fold_constants,
    "remove_identities": remove_identities,
    "merge_shapes": merge_shapes,
    "fold_numbers": fold_numbers,
    "find_gates": find_gates,
    "fold_pads": fold_pads,
    "fold_batch_norms": fold_batch_norms,
    "sink_transposes": sink_transposes,
    "fold_scales": fold_scales,
    "fuse_residuals": fuse_residuals,
    "fuse_activations": fuse_activations,
    "fuse_pooling": fuse_pooling,
    "merge_chains": merge_chains,
    "remove_dead_nodes": remove_dead_nodes,
}


def run_passes(graph: Graph, without: Collection[str] = ()) -> dict[str, int]:
    """Runs all passes but those named; the graph is verified after each. Returns how often each has changed something.

    Raises
    ------
    ValueError
        If a name is that of no pass.
    """
    unknown = sorted(set(without) - set(PASSES))
    if unknown:
        raise ValueError(f"without is {unknown}; the passes are {', '.join(PASSES)}")
    changes = {}
    for name, change in PASSES.items():
        if name not in without:
            changes[name] = change(graph)
            graph.verify()
    return changes
