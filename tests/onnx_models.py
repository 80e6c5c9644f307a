# SPDX-License-Identifier: BSD-3-Clause
"""Models of ONNX's to test with: how they are made and run."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402

NEWEST = onnx.defs.onnx_opset_version()


def array(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def model_of(nodes, inputs, constants=(), outputs=("y",), opset=17, name="test"):
    """A model from nodes; ``inputs`` by name: an array, or (dtype, shape)."""
    infos = []
    for key, value in dict(inputs).items():
        dtype, shape = value if isinstance(value, tuple) else (value.dtype, value.shape)
        infos.append(helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape))
    made = [numpy_helper.from_array(np.asarray(value), key) for key, value in dict(constants).items()]
    wanted = [helper.make_empty_tensor_value_info(key) for key in outputs]
    graph = helper.make_graph(list(nodes), name, infos, wanted, made)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(8, onnx.IR_VERSION))


def results(net, inputs):
    y = net(**inputs)
    return list(y) if isinstance(y, tuple) else [y]


def algorithms(net):
    return [row.algorithm for row in net.summary()]


def node(op, reads="x", writes="y", **attributes):
    return helper.make_node(op, reads.split(","), writes.split(","), f"the {op}", **attributes)


X = array(2, 6, 9, 7)
W = array(8, 3, 3, 3, seed=1) / 5
ints = np.asarray
#: Nodes with a step of their own: (operator, attributes, the input, constants, opset).
OWN = {
    "conv": ("Conv", {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}, X, [W, array(8, seed=2)], 17),
    "conv, same upper": ("Conv", {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, X, [W], 17),
    "conv, same lower": ("Conv", {"group": 2, "auto_pad": "SAME_LOWER", "dilations": [1, 2]}, X, [W], 17),
    "conv, valid": ("Conv", {"group": 2, "auto_pad": "VALID"}, X, [W], 7),
    "conv of lines": ("Conv", {"pads": [2, 0]}, array(2, 3, 9), [array(4, 3, 3)], 11),
    "conv of volumes": ("Conv", {}, array(1, 3, 5, 6, 4), [array(4, 3, 2, 3, 1)], 11),
    "transposed": (
        "ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2], "group": 2},
        X, [array(6, 4, 3, 3), array(8)], 17,
    ),
    "transposed, same": (
        "ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, X, [array(6, 4, 3, 3)], 17,
    ),
    "max pool": (
        "MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 1], "ceil_mode": 1}, X, [], 12,
    ),
    "max pool, dilated": ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 3]}, X, [], 12),
    "max pool, same": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, X, [], 12),
    "max pool, more before": ("MaxPool", {"kernel_shape": [3, 3], "pads": [2, 1, 0, 0]}, X, [], 8),
    "avg pool": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, X, [], 7),
    "avg pool, zeros count": (
        "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 0, 1], "count_include_pad": 1}, X, [], 11,
    ),
    "avg pool, uneven": ("AveragePool", {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER"}, X, [], 11),
    "avg pool, ceil": (
        "AveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 0, 2, 1], "ceil_mode": 1}, X, [], 19,
    ),
    "global means": ("GlobalAveragePool", {}, X, [], 7),
    "global maxima": ("GlobalMaxPool", {}, X, [], 7),
    "batch norm": (
        "BatchNormalization", {"epsilon": 1e-3}, X, [array(6), array(6, seed=1), array(6, seed=2), array(6) ** 2], 15,
    ),
    "instance norm": ("InstanceNormalization", {}, X, [array(6), array(6, seed=1)], 7),
    "response norm": ("LRN", {"size": 3, "alpha": 0.1, "bias": 2.0}, X, [], 13),
    "gemm": ("Gemm", {"alpha": 0.5, "beta": 2.0}, array(3, 5), [array(5, 4), array(4)], 13),
    "gemm, transposed": ("Gemm", {"transA": 1, "transB": 1}, array(5, 3), [array(4, 5), array(1, 4)], 7),
    "gemm, sums by row": ("Gemm", {}, array(3, 5), [array(5, 4), array(3, 1)], 13),
    "gemm, a number": ("Gemm", {}, array(3, 5), [array(5, 4), array()], 13),
    "matmul of constants before": ("MatMul", {}, array(2, 3, 5), [array(2, 5, 4)], 13),
    "matmul": ("MatMul", {}, array(2, 3, 5), [array(5, 4)], 13),
    "add": ("Add", {}, X, [array(6, 1, 1)], 7),
    "sub": ("Sub", {}, X, [array(7)], 14),
    "div": ("Div", {}, X, [np.float32(3)], 14),
    "pow": ("Pow", {}, np.abs(X), [np.float32(2)], 13),
    "third power": ("Pow", {}, X, [np.float32(3)], 13),
    "inverse root": ("Pow", {}, np.abs(X) + 1, [np.float32(-0.5)], 13),
    "min": ("Min", {}, X, [array(6, 1, 1), array(7)], 13),
    "max": ("Max", {}, X, [array(6, 1, 1)], 8),
    "sum": ("Sum", {}, X, [array(6, 1, 1), array(7)], 8),
    "clip": ("Clip", {}, X, [np.float32(-0.5), np.float32(1)], 13),
    "clip, old": ("Clip", {"max": 0.5}, X, [], 7),
    "prelu": ("PRelu", {}, X, [array(6, 1, 1)], 16),
    "leaky relu": ("LeakyRelu", {"alpha": 0.3}, X, [], 16),
    "hard sigmoid": ("HardSigmoid", {"alpha": 0.3}, X, [], 7),
    "elu": ("Elu", {"alpha": 0.7}, X, [], 7),
    "selu": ("Selu", {}, X, [], 7),
    "gelu": ("Gelu", {}, X, [], 20),
    "gelu, tanh": ("Gelu", {"approximate": "tanh"}, X, [], 20),
    "round": ("Round", {}, np.round(X * 4) / 2, [], 11),
    "softmax": ("Softmax", {"axis": 1}, X, [], 13),
    "softmax, old, of more": ("Softmax", {"axis": 2}, X, [], 11),
    "log softmax, old": ("LogSoftmax", {}, X, [], 7),
    "softmax, old": ("Softmax", {"axis": -1}, X, [], 11),
    "log softmax": ("LogSoftmax", {}, X, [], 13),
    "slice": ("Slice", {}, X, [ints([1, -4]), ints([4, 99]), ints([1, -1])], 13),
    "slice, old": ("Slice", {"starts": [1], "ends": [-1], "axes": [2]}, X, [], 9),
    "pad": ("Pad", {}, X, [ints([0, 0, 1, 0, 0, 1, 2, -1]), np.float32(1.5)], 13),
    "pad of axes": ("Pad", {}, X, [ints([1, 2]), np.float32(0), ints([-1])], 18),
    "pad, old": ("Pad", {"pads": [0, 0, 1, 0, 0, 0, 0, 3], "value": 2.0}, X, [], 7),
    "pad, reflections": ("Pad", {"mode": "reflect"}, X, [ints([0, 0, 1, 1, 0, 0, 1, 2])], 13),
    "pad, edges": ("Pad", {"mode": "edge"}, X, [ints([0, 1, 3, 0, 0, 0, 0, 9])], 13),
    "slice, steps": ("Slice", {}, X, [ints([0, 5]), ints([9, -99]), ints([2, 1]), ints([2, -1])], 13),
    "expand": ("Expand", {}, X[:, :1], [ints([6, 1, 1])], 13),
    "layer norm": ("LayerNormalization", {"axis": 2}, X, [array(9, 7), array(9, 7, seed=1)], 17),
    "gather": ("Gather", {"axis": 1}, X, [ints(-1)], 13),
    "avg pool, dilated": (
        "AveragePool", {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [2, 1, 1, 0], "strides": [1, 2]},
        X, [], 19,
    ),
    "sum of squares": ("ReduceSumSquare", {}, X, [ints([1, 3])], 18),
    "sum of sizes": ("ReduceL1", {}, X, [ints([2])], 18),
    "length": ("ReduceL2", {"keepdims": 0}, X, [ints([1])], 18),
    "log of sums": ("ReduceLogSumExp", {}, X, [ints([0, 2])], 18),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, X, [], 13),
    "transpose, all": ("Transpose", {}, X, [], 13),
    "reshape": ("Reshape", {}, X, [ints([0, -1, 7])], 13),
    "flatten": ("Flatten", {"axis": 2}, X, [], 13),
    "flatten all": ("Flatten", {"axis": 0}, X, [], 13),
    "flatten nothing": ("Flatten", {"axis": 4}, X, [], 13),
    "unsqueeze": ("Unsqueeze", {}, X, [ints([0, -1])], 13),
    "unsqueeze, old": ("Unsqueeze", {"axes": [1]}, X, [], 11),
    "squeeze": ("Squeeze", {}, X[:1, :, :1], [ints([0, -2])], 13),
    "squeeze all": ("Squeeze", {}, X[:1, :, :1], [], 13),
    "dropout": ("Dropout", {}, X, [], 13),
    "mean of axes": ("ReduceMean", {"axes": [2, 3], "keepdims": 0}, X, [], 13),
    "sum of axes": ("ReduceSum", {}, X, [ints([1])], 13),
    "maxima": ("ReduceMax", {}, X, [ints([-1, 1])], 18),
    "minimum of all": ("ReduceMin", {"keepdims": 0}, X, [], 18),
    "resize": ("Resize", {"mode": "linear"}, X, [np.zeros(0, np.float32), np.float32([1, 1, 2, 1.5])], 13),
    "resize, nearest": (
        "Resize", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        X, [np.zeros(0, np.float32), np.float32([1, 1, 7, 3])], 13,
    ),
}  # fmt: skip


def single(op, attributes, x, constants, opset):
    names = [f"c{i}" for i in range(len(constants))]
    made = node(op, ",".join(["x", *names]), **attributes)
    return model_of([made], {"x": x}, dict(zip(names, constants, strict=True)), opset=opset)
