# SPDX-License-Identifier: BSD-3-Clause
"""How many axes values have, as far as it can be known before their shapes are."""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.ir import Graph, Node, Value

__all__ = ["ranks_of"]
__dir__ = only(__all__)

#: What has as many axes as it reads.
_SAME = frozenset(
    (
        "batch_norm", "concat", "group_norm", "identity", "layer_norm", "linear", "local_response_norm", "pad",
        "softmax",
    )
)  # fmt: skip


def ranks_of(graph: Graph) -> dict[Value, int]:
    """Of those values for which it is known."""
    ranks = {value: len(value.shape) for value in graph.inputs if value.shape is not None}
    ranks |= {value: len(value.constant.shape) for value in graph.constants() if value.constant is not None}
    for node in graph.nodes:
        rank = _rank(node, ranks)
        if rank is not None:
            ranks.update(dict.fromkeys(node.outputs, rank))
    return ranks


def _rank(node: Node, ranks: dict[Value, int]) -> int | None:
    given = [ranks.get(value) for value in node.given()]
    if node.op == "conv":
        return given[1] if len(given) < 4 else None
    if node.op == "transpose":
        return len(node.attributes["order"])
    if node.op == "map":
        return None if None in given else max(rank for rank in given if rank is not None)
    return given[0] if node.op in _SAME else None
