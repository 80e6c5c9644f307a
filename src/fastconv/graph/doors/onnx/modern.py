# SPDX-License-Identifier: BSD-3-Clause
"""Nodes of older opsets as later ones have them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from fastconv._names import only

__all__ = ["modern"]
__dir__ = only(__all__)


def modern(
    node: NodeProto, opsets: dict[str, int], constant: Callable[[np.ndarray], str]
) -> tuple[NodeProto, dict[str, int]]:
    """Upsample, and Resize as it was at first, as today's Resize; Scatter by its later name; every other node as it is.

    Both resizings had scales alone, coordinates without an offset, and the element below.
    """
    opset = opsets.get("", 0)
    if not node.domain and node.op_type == "BatchNormalization" and opset < 14 and len(node.output) == 1:
        return node, {**opsets, "": 15}
    if not node.domain and node.op_type == "Scatter" and opset < 11:
        new = NodeProto()
        new.CopyFrom(node)
        new.op_type = "ScatterElements"
        return new, {**opsets, "": 11}
    is_old = node.op_type == "Upsample" or (node.op_type == "Resize" and opset < 11)
    if node.domain or not is_old:
        return node, opsets
    old = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    mode = old.get("mode", b"nearest").decode()
    # Scales were an attribute until opset 8.
    scales = constant(np.asarray(old["scales"], np.float32)) if "scales" in old else node.input[1]
    new = helper.make_node(
        "Resize",
        [node.input[0], "", scales],
        list(node.output),
        node.name,
        mode="linear" if mode in ("linear", "bilinear") else mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return new, {**opsets, "": 13}
