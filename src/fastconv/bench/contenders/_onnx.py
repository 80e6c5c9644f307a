# SPDX-License-Identifier: BSD-3-Clause
"""A layer as an ONNX model of one node, or a whole network as one of many, for those who read such models."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from fastconv.bench.cases import Case, ConvCase, NetworkCase, PoolCase
from fastconv.bench.contenders._onnx_graph import OPSET, onnx_graph
from fastconv.bench.networks import Network

__all__ = ["model_for", "model_of"]


def model_of(case: Case) -> bytes:
    """The model, serialised: input ``x``, output ``y``, weights as initialisers. It is made once for each case."""
    if __name__ not in case.models:
        case.models[__name__] = model_for(case, case.batch)
    return case.models[__name__]


def model_for(case: Case, batch: int) -> bytes:
    """The model for another number of images."""
    graph = (
        onnx_graph(case.graph, case.types(case.graph, batch)) if isinstance(case, NetworkCase) else _layer(case, batch)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _layer(case: Case, batch: int) -> onnx.GraphProto:
    layer = case.layer
    assert not isinstance(layer, Network)
    constants: list[Any] = []
    top, bottom, left, right = layer.sides
    attributes: dict[str, Any] = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": [top, left, bottom, right],
    }
    if isinstance(case, ConvCase):
        operator = "Conv"
        attributes |= {"dilations": case.layer.dilation, "group": case.layer.groups}
        constants = [numpy_helper.from_array(array, name) for name, array in (("w", case.weight), ("b", case.bias))]
    elif isinstance(case, PoolCase) and case.layer.kind == "max":
        operator = "MaxPool"
    else:
        operator = "AveragePool"
        attributes["count_include_pad"] = 1
    kind = TensorProto.FLOAT if case.dtype.name == "float32" else TensorProto.DOUBLE
    node = helper.make_node(operator, ["x", *(constant.name for constant in constants)], ["y"], **attributes)
    return helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", kind, layer.input_shape(batch))],
        [helper.make_tensor_value_info("y", kind, layer.output_shape(batch))],
        constants,
    )
