# SPDX-License-Identifier: BSD-3-Clause
"""Operators of ONNX's, each in a model of its own: beside ONNX's reference and ONNX Runtime."""

import pickle

import numpy as np
import pytest

import fastconv as fc
from support import max_error

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402
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
    "half precision": ("Relu", {}, X.astype(np.float16), [], 14),
    "greatest": ("TopK", {}, array(3, 8), [ints([2])], 11),
    "places": ("ArgMax", {"axis": 1}, X, [], 13),
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
    (row,) = net.summary()
    assert row.name == f"the {op}"
    assert row.milliseconds > 0
    assert f"in Python: the {op} {row.milliseconds:.3f} ms" in " ".join(str(net.summary()).split())
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(results(again, {"x": x})[0], results(net, {"x": x})[0])
    with pytest.raises(ValueError, match=f"node 'the {op}' calls Python"):
        net.save("nowhere.npz")


BYTES = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 9)).astype(np.uint8)
SIGNED = np.random.default_rng(1).integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
MANY = np.random.default_rng(2).integers(-128, 128, (4, 70, 3, 3)).astype(np.int8)
scales = np.float32
#: Nodes of which NumPy computes a part, or all: (operator, attributes, the input, constants, opset).
NUMBERS = {
    "integers": ("Add", {}, np.arange(6).reshape(2, 3), [np.int64(5)], 14),
    "quotients towards zero": ("Div", {}, np.arange(-9, 9, dtype=np.int32), [np.int32(4)], 14),
    "quotients by what is negative": ("Div", {}, np.arange(-9, 9), [np.int64(-4)], 14),
    "powers": ("Pow", {}, np.arange(6), [np.int64(3)], 15),
    "smaller": ("Min", {}, np.arange(6), [np.int64(3)], 13),
    "another type": ("Cast", {"to": TensorProto.INT32}, 9 * X, [], 13),
    "truth": ("Cast", {"to": TensorProto.BOOL}, np.arange(-2, 3), [], 13),
    "equal": ("Equal", {}, np.arange(6).reshape(2, 3), [ints([1, 4, 2])], 13),
    "less": ("Less", {}, X, [np.float32(0.2)], 13),
    "not": ("Not", {}, X > 0, [], 1),
    "and": ("And", {}, X > 0, [np.array([True] * 3 + [False] * 4)], 7),
    "where": ("Where", {}, X > 0, [array(6, 1, 1), array(7)], 16),
    "rows": ("Gather", {"axis": -2}, X, [ints([[3, -1], [0, 0]])], 13),
    "quantize": ("QuantizeLinear", {}, 300 * X, [scales(2.5), np.int8(3)], 13),
    "quantize by channel": (
        "QuantizeLinear", {}, 300 * X, [scales([1, 2, 3, 4, 5, 6]), np.uint8([0, 9, 8, 7, 6, 5])], 13,
    ),
    "quantize without zero": ("QuantizeLinear", {}, 300 * X, [scales(2.5)], 10),
    "dequantize": ("DequantizeLinear", {"axis": 0}, SIGNED, [scales([1, 2, 3, 4]), np.int8([0, 9, 8, 7])], 19),
    "dequantize without zero": ("DequantizeLinear", {}, BYTES, [scales(0.1)], 19),
    "convolution of bytes": ("ConvInteger", {"pads": [1, 0, 0, 1]}, BYTES, [SIGNED, np.uint8(7)], 10),
    "convolution of bytes, zeros": ("ConvInteger", {}, BYTES, [SIGNED, np.uint8(7), np.int8([1, 2, 3, 4])], 10),
    "convolution of many": (
        "ConvInteger", {"strides": [2, 2]}, BYTES.repeat(24, 1)[:, :70], [MANY, np.uint8(7)], 10,
    ),
    "quantized convolution": (
        "QLinearConv", {"pads": [1, 1, 1, 1]}, BYTES,
        [scales(0.1), np.uint8(9), SIGNED, scales([1, 2, 3, 4]), np.int8([0] * 4), scales(90), np.uint8(100),
         np.int32([900, -9000, 0, 5])], 10,
    ),
    "product of bytes": ("MatMulInteger", {}, BYTES, [SIGNED.reshape(9, -1), np.uint8(3), np.int8(2)], 10),
    "quantized product": (
        "QLinearMatMul", {}, BYTES,
        [scales(0.1), np.uint8(9), SIGNED.reshape(9, -1), scales(0.3), np.int8(2), scales(7), np.uint8(100)], 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_other_types(name):
    """No step is the reference's, so that the network can be saved; results are the reference's, and the runtime's."""
    op, attributes, x, constants, opset = NUMBERS[name]
    model = single(op, attributes, x, constants, opset)
    net = fc.compile(model)
    assert "python" not in [row.operator for row in net.summary()]
    found = net(x)
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    rights = ReferenceEvaluator(model).run(None, {"x": x})
    if name != "convolution of bytes, zeros":  # by channel, which the runtime does not have
        rights += session.run(None, {"x": x})
    for right in rights:
        assert found.dtype == right.dtype
        assert found.shape == right.shape
        assert np.array_equal(found, right) if right.dtype.kind != "f" else max_error(found, right) < 1e-6


def test_products_of_two_inputs():
    a, b, c = array(5, 3), array(4, 5, seed=1), array(4, seed=2)
    made = node("Gemm", "a,b,c", alpha=0.5, beta=2.0, transA=1, transB=1)
    net = fc.compile(model_of([made], {"a": a, "b": b, "c": c}))
    assert max_error(net(a, b, c), 0.5 * (a.T @ b.T) + 2 * c) < 1e-6
    assert "python" not in algorithms(net)
    net = fc.compile(model_of([node("MatMul", "b,a")], {"b": b, "a": a}))
    assert max_error(net(b, a), b @ a) < 1e-6
    with pytest.raises(ValueError, match=r"node 'the MatMul'.*\(5, 3\) and \(4, 5\)"):
        fc.compile(model_of([node("MatMul", "a,b")], {"a": a, "b": b}))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("batch", [1, 3])
def test_recurrent_layers(kind, direction, batch):
    runtime = pytest.importorskip("onnxruntime")
    gates, d, hidden = {"LSTM": 4, "GRU": 3}[kind], 1 + (direction == "bidirectional"), 20
    x = array(7, batch, 10)
    weights = {
        "w": array(d, gates * hidden, 10, seed=1) / 3,
        "r": array(d, gates * hidden, hidden, seed=2) / 4,
        "b": array(d, 2 * gates * hidden, seed=3),
    }
    states = {"h": array(d, batch, hidden, seed=4)}
    if kind == "LSTM":
        states["c"] = array(d, batch, hidden, seed=5)
    outputs = ("all", "last", "memory")[: 3 if kind == "LSTM" else 2]
    more = {} if kind == "LSTM" else {"linear_before_reset": 1}
    for given in (states, {}):
        reads = ["x", "w", "r", "b", "", *given]
        made = helper.make_node(kind, reads, list(outputs), "layer", hidden_size=hidden, direction=direction, **more)
        model = model_of([made], {"x": x, **given}, weights, outputs)
        session = runtime.InferenceSession(model.SerializeToString())
        net = fc.compile(model)
        for found, right in zip(net(x, *given.values()), session.run(None, {"x": x, **given}), strict=True):
            assert found.shape == right.shape
            assert max_error(found, right) < 2e-6
        assert "recurrent" in algorithms(net)
        assert "python" not in algorithms(net)


def test_recurrent_layers_of_the_reference():
    """Peepholes and lengths are nothing that the core has."""
    x, w, r = array(4, 1, 3), array(1, 8, 3), array(1, 8, 2)
    made = helper.make_node("LSTM", ["x", "w", "r", "", "", "", "", "p"], ["y"], "layer", hidden_size=2)
    model = model_of([made], {"x": x}, {"w": w, "r": r, "p": array(1, 6)})
    (right,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert max_error(fc.compile(model)(x), right) < 1e-6


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


PLACES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(
    "how",
    [
        *({"mode": "nearest", "nearest_mode": m} for m in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
        {"mode": "linear"},
        {"mode": "cubic"},
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    ],
    ids=lambda how: "-".join(map(str, how.values())),
)
def test_resizing(where, how):
    """By tables of the core, whatever the rules; beside ONNX Runtime, by sizes and by scales."""
    runtime = pytest.importorskip("onnxruntime")
    x = array(1, 2, 7, 6)
    for wanted in ({"sizes": ints([1, 2, 11, 4])}, {"scales": np.float32([1, 1, 0.7, 2.5])}):
        reads = "x,,,sizes" if "sizes" in wanted else "x,,scales"
        made = node("Resize", reads, coordinate_transformation_mode=where, **how)
        model = model_of([made], {"x": x}, wanted, opset=19)
        (right,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
        net = fc.compile(model)
        assert net(x).shape == right.shape
        assert max_error(net(x), right) < 2e-6
        assert "python" not in algorithms(net)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_boxes_that_overlap(centred, share):
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    boxes, scores = rng.random((2, 60, 4)).astype(np.float32), rng.random((2, 3, 60)).astype(np.float32)
    scores[:, :, ::7] = 0.5  # equals: the first one wins
    constants = {"most": ints([9]), "share": np.float32([share]), "least": np.float32([0.2])}
    for reads in ("b,s,most,share,least", "b,s,most,share", "b,s,most", "b,s"):
        made = node("NonMaxSuppression", reads, center_point_box=centred)
        model = model_of([made], {"b": boxes, "s": scores}, constants, opset=11)
        (right,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"b": boxes, "s": scores})
        net = fc.compile(model)
        assert np.array_equal(net(boxes, scores), right)
        net = fc.compile(model_of([made, node("Shape", "y", "z")], {"b": boxes, "s": scores}, constants, ("z",), 11))
        assert np.array_equal(net(boxes, scores), right.shape)


def test_split_and_concat():
    nodes = [node("Split", "x,n", "a,b,c", axis=1), node("Relu", "b", "d"), node("Concat", "c,d,a", axis=1)]
    model = model_of(nodes, {"x": X}, {"n": ints([1, 3, 2])})
    net = fc.compile(model)
    assert np.array_equal(net(X), np.concatenate([X[:, 4:], np.maximum(X[:, 1:4], 0), X[:, :1]], axis=1))
    assert "python" not in algorithms(net)
    halves = model_of([node("Split", "x", "y,z", axis=1)], {"x": X}, (), ("y", "z"))
    for found, right in zip(fc.compile(halves)(X), np.split(X, 2, axis=1), strict=True):
        assert np.array_equal(found, right)
