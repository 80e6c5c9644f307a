# SPDX-License-Identifier: BSD-3-Clause
"""What is known already: nodes that read nothing but constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Constant, Node, Value
from fastconv.graph.operators import OPERATORS
from fastconv.graph.operators.foreign import DependsOnNumbers
from fastconv.graph.views import Type

__all__ = ["derived", "folded"]
__dir__ = only(__all__)

_LARGEST = 1 << 28  # bytes of what is kept so
_FOLDED = 1 << 16  # bytes of constants that are computed with at once, as sizes are; weights wait until they are needed


def folded(node: Node, given: Sequence[Value | None]) -> Sequence[np.ndarray] | None:
    """What a node computes from these inputs, if they are constant and it is to be computed at once."""
    constants = [None if v is None else v.constant for v in given]
    reads = [constant for constant in constants if constant is not None]
    if not reads or len(reads) != sum(v is not None for v in given):
        return None
    call = node.attributes["call"] if node.op == "python" else None
    small = sum(constant.nbytes for constant in reads) <= _FOLDED
    if not (small if call is None else getattr(call, "is_pure", False)):
        return None
    try:
        made = OPERATORS[node.op].infer(node, [None if c is None else Type(c.shape, c.dtype) for c in constants])
    except DependsOnNumbers:
        made = []
    if sum(t.nbytes for t in made) > _LARGEST:
        return None
    return OPERATORS[node.op].evaluate(node, [None if c is None else c.array() for c in constants])


def derived(node: Node, given: Sequence[Value | None]) -> Constant | None:
    """What a node of one output computes from these inputs, if they are constant; only when somebody asks for it."""
    constants = [None if v is None else v.constant for v in given]
    reads = [constant for constant in constants if constant is not None]
    if node.op in ("python", "choice") or not reads or len(reads) != sum(v is not None for v in given):
        return None
    if len(node.outputs) != 1:
        return None

    def make(*arrays: np.ndarray) -> np.ndarray:
        left = iter(arrays)
        return OPERATORS[node.op].evaluate(node, [None if c is None else next(left) for c in constants])[0]

    (made,) = OPERATORS[node.op].infer(node, [None if c is None else Type(c.shape, c.dtype) for c in constants])
    return Constant.derived(make, reads, made.shape, made.dtype)
