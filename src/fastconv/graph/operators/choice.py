# SPDX-License-Identifier: BSD-3-Clause
"""One of two graphs: which of them is known when the condition is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Graph, Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.foreign import DependsOnNumbers
from fastconv.graph.operators.record import Operator
from fastconv.graph.views import Type

__all__ = ["OPERATORS", "branch_of"]
__dir__ = only(__all__)


def branch_of(node: Node, condition: np.ndarray) -> Graph:
    """``branches`` are the graphs for true and for false. Both have inputs for all that the node reads behind its
    condition, and as many outputs as the node.
    """
    if condition.size != 1:
        raise ValueError(f"its condition has shape {condition.shape}; it needs one truth value")
    return node.attributes["branches"][0 if condition.reshape(()) else 1]


def _infer(node: Node, types: Sequence[Type | None]) -> list[Type]:
    raise DependsOnNumbers("what is computed depends on a condition")


def _evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    raise NotImplementedError("a choice is made before its graph is run")


def _lower(to: Listing, node: Node) -> None:
    raise NotImplementedError("a choice is made before its graph is lowered")


OPERATORS = (Operator("choice", _infer, _evaluate, _lower, order="first"),)
