# SPDX-License-Identifier: BSD-3-Clause
"""Operators of ONNX's, each in a model of its own: beside ONNX's reference and ONNX Runtime."""

import pickle

import numpy as np
import pytest

import fastconv as fc
from support import max_error

onnx = pytest.importorskip("onnx")
from onnx import TensorProto  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import fastconv.onnx  # noqa: E402
from onnx_models import OWN, X, algorithms, array, ints, model_of, node, results, single  # noqa: E402

# --- operators ------------------------------------------------------------------------------------

#: What `onnx.reference` has otherwise than the standard, in some releases.
REFERENCE_IS_WRONG = {
    "conv, valid": "auto_pad of VALID",
    "resize": "an empty roi",
    "resize, nearest": "an empty roi",
    "transposed": "groups of ConvTranspose",
    "max pool, more before": "pads of MaxPool that differ between axes",
    "avg pool, ceil": "windows behind the image",
    "response norm": "LRN over the batch",
    "softmax, old, of more": "the meaning of opset 13",
    "log softmax, old": "the meaning of opset 13",
    "pad": "negative pads",
}
RUNTIME_REFUSES = {"conv, same lower": "dilations"}


@pytest.mark.parametrize("name", OWN)
def test_operators_of_the_core(name):
    """No step of these is Python."""
    op, attributes, x, constants, opset = OWN[name]
    model = single(op, attributes, x, constants, opset)
    net = fc.compile(model)
    found = net(x)
    if name not in REFERENCE_IS_WRONG:
        (right,) = ReferenceEvaluator(model).run(None, {"x": x})
        assert found.shape == right.shape
        assert max_error(found, right) < 1e-5
    assert "python" not in algorithms(net)
    assert [t.name for t in net.outputs] == ["y"]


@pytest.mark.parametrize("name", [name for name in OWN if name not in RUNTIME_REFUSES])
def test_operators_beside_onnx_runtime(name):
    runtime = pytest.importorskip("onnxruntime")
    op, attributes, x, constants, opset = OWN[name]
    model = single(op, attributes, x, constants, opset)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (right,) = session.run(None, {"x": x})
    found = fc.compile(model)(x)
    assert found.shape == right.shape
    assert max_error(found, right) < 1e-5


#: Nodes that the graph has no operator for.
FOREIGN = {
    "integers": ("Add", {}, np.arange(6).reshape(2, 3), [np.int64(5)], 14),
    "half precision": ("Relu", {}, X.astype(np.float16), [], 14),
    "steps of two": ("Slice", {}, X, [ints([0]), ints([9]), ints([2]), ints([2])], 13),
    "reflections": ("Pad", {"mode": "reflect"}, X, [ints([0, 0, 1, 1, 0, 0, 1, 1])], 13),
    "greatest": ("TopK", {}, array(3, 8), [ints([2])], 11),
    "places": ("ArgMax", {"axis": 1}, X, [], 13),
    "another type": ("Cast", {"to": TensorProto.INT32}, X, [], 13),
    "sines": ("Sin", {}, X, [], 7),
    "zero as size": ("Reshape", {"allowzero": 1}, X[:0], [ints([0, 3])], 14),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_operators_of_python(name):
    op, attributes, x, constants, opset = FOREIGN[name]
    writes = "y,z" if op == "TopK" else "y"
    names = [f"c{i}" for i in range(len(constants))]
    made = node(op, ",".join(["x", *names]), writes, **attributes)
    model = model_of([made], {"x": x}, dict(zip(names, constants, strict=True)), writes.split(","), opset)
    net = fc.compile(model)
    for found, right in zip(results(net, {"x": x}), ReferenceEvaluator(model).run(None, {"x": x}), strict=True):
        assert found.dtype == right.dtype
        assert np.array_equal(found, right) if right.dtype.kind != "f" else max_error(found, right) < 1e-5
    assert algorithms(net) == ["python"]
    assert f"the {op}" in [row.name for row in net.summary()]
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(results(again, {"x": x})[0], results(net, {"x": x})[0])
    with pytest.raises(ValueError, match=f"node 'the {op}' calls Python"):
        net.save("nowhere.npz")


@pytest.mark.parametrize("wanted", [(16, 18), (17, 21), (25, 27), (26, 30)])
@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER"])
def test_output_shape_of_transposed(wanted, mode):
    """Total padding may be negative; the equation of the standard, with zeros where nothing is added."""
    x, w = array(1, 2, 8, 9), array(2, 3, 3, 2)
    made = node("ConvTranspose", "x,w", strides=[3, 3], output_shape=wanted, auto_pad=mode)
    y = fc.compile(model_of([made], {"x": x}, {"w": w}, opset=11))(x)
    assert y.shape == (1, 3, *wanted)
    full = fc.conv_transpose2d(x, w, stride=3)
    right = np.zeros_like(y)
    places = []
    for n, m in zip(wanted, full.shape[2:], strict=True):
        total = m - n
        before = total // 2 if mode == "SAME_UPPER" else total - total // 2
        places.append((slice(max(-before, 0), min(m - before, n)), slice(max(before, 0), min(m, n + before))))
    right[:, :, places[0][0], places[1][0]] = full[:, :, places[0][1], places[1][1]]
    assert max_error(y, right) < 1e-5


def test_lrn_of_even_size_reaches_further_up():
    x = array(1, 7, 3, 3)
    model = single("LRN", {"size": 4, "alpha": 0.5, "bias": 1.0}, x, [], 13)
    energy = np.zeros_like(x)
    for c in range(7):
        energy[:, c] = (x[:, max(c - 1, 0) : c + 3] ** 2).sum(axis=1)
    assert max_error(fc.compile(model)(x), x / (1 + 0.5 / 4 * energy) ** 0.75) < 1e-6


@pytest.mark.parametrize("opset", [7, 9])
def test_upsample(opset):
    x = array(1, 2, 3, 4)
    if opset == 7:
        model = model_of([node("Upsample", scales=[1.0, 1.0, 2.0, 3.0])], {"x": x}, opset=7)
    else:
        model = model_of([node("Upsample", "x,s")], {"x": x}, {"s": np.float32([1, 1, 2, 3])}, opset=9)
    net = fc.compile(model)
    assert np.array_equal(net(x), x.repeat(2, axis=2).repeat(3, axis=3))
    assert "python" not in algorithms(net)


def test_split_and_concat():
    nodes = [node("Split", "x,n", "a,b,c", axis=1), node("Relu", "b", "d"), node("Concat", "c,d,a", axis=1)]
    model = model_of(nodes, {"x": X}, {"n": ints([1, 3, 2])})
    net = fc.compile(model)
    assert np.array_equal(net(X), np.concatenate([X[:, 4:], np.maximum(X[:, 1:4], 0), X[:, :1]], axis=1))
    assert "python" not in algorithms(net)
    halves = model_of([node("Split", "x", "y,z", axis=1)], {"x": X}, (), ("y", "z"))
    for found, right in zip(fc.compile(halves)(X), np.split(X, 2, axis=1), strict=True):
        assert np.array_equal(found, right)
