# SPDX-License-Identifier: BSD-3-Clause
"""Softmax and norms along axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv import functional as F
from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, needs
from fastconv.graph.views import Type

__all__ = ["OPERATORS"]
__dir__ = only(__all__)


def _given(things: Sequence[Type | None]) -> Type:
    x = things[0]
    assert x is not None
    return x


def _infer_softmax(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, axis = _given(types), node.attributes["axis"]
    needs(-len(x.shape) <= axis < len(x.shape), "its input has shape {}; it has no axis {}", x.shape, axis)
    return [x]


def _evaluate_softmax(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    function = F.log_softmax if node.attributes.get("log") else F.softmax
    assert arrays[0] is not None
    return [np.asarray(function(arrays[0], node.attributes["axis"]))]


def _lower_softmax(to: Listing, node: Node) -> None:
    to.foreign(node, _evaluate_softmax)


def _infer_response(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = _given(types)
    needs(len(x.shape) >= 3, "its input has shape {}; it needs 3 axes or more", x.shape)
    return [x]


def _evaluate_response(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    a = node.attributes
    assert arrays[0] is not None
    return [np.asarray(F.local_response_norm(arrays[0], a["size"], a["alpha"], a["beta"], a["k"]))]


def _lower_response(to: Listing, node: Node) -> None:
    to.foreign(node, _evaluate_response)


OPERATORS = (
    Operator("softmax", _infer_softmax, _evaluate_softmax, _lower_softmax),
    Operator("local_response_norm", _infer_response, _evaluate_response, _lower_response),
)
