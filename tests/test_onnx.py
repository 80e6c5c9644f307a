# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models compute what `onnx.reference` says, and ONNX Runtime, through steps of the core or of Python."""

import pickle
import re

import numpy as np
import pytest

import fastconv as fc
from support import max_error

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import fastconv.onnx  # noqa: E402
from onnx_models import NEWEST, X, algorithms, array, ints, model_of, node  # noqa: E402

# --- shapes that are computed -----------------------------------------------------------------------


def flattening():
    """As exporters write x.reshape(x.shape[0], -1)."""
    return [
        node("Shape", "x", "sizes"),
        node("Gather", "sizes,zero", "batch"),
        node("Unsqueeze", "batch,axis", "first"),
        node("Concat", "first,rest", "shape", axis=0),
        node("Reshape", "x,shape", "y"),
    ]


SIZES = {"zero": np.int64(0), "axis": ints([0]), "rest": ints([-1])}


@pytest.mark.parametrize("shape", [(2, 3, 4), ("n", 3, 4), ("n", 3, "w"), None])
def test_shapes_that_are_computed(shape):
    x = array(2, 3, 4)
    net = fc.compile(model_of(flattening(), {"x": (np.float32, shape)}, SIZES))
    for n in (2, 2) if shape == (2, 3, 4) else (2, 5, 1):
        x = array(n, 3, 4)
        assert np.array_equal(net(x), x.reshape(n, -1))
        assert "python" not in algorithms(net)


def test_sizes_of_a_resize_are_computed():
    """To the size of another value."""
    nodes = [
        node("MaxPool", "x", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "x", "sizes"), node("Shape", "small", "own"),
        node("Slice", "own,a,b", "channels"), node("Slice", "sizes,b,c", "pixels"),
        node("Concat", "channels,pixels", "wanted", axis=0),
        node("Resize", "small,,,wanted", mode="nearest", nearest_mode="floor",
             coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    constants = {"a": ints([0]), "b": ints([2]), "c": ints([4])}
    net = fc.compile(model_of(nodes, {"x": (np.float32, (1, 3, "h", "w"))}, constants))
    for size in (4, 8, 10):
        x = array(1, 3, size, 6)
        small = x.reshape(1, 3, size // 2, 2, 3, 2).max(axis=(3, 5))
        assert np.array_equal(net(x), small.repeat(2, axis=2).repeat(2, axis=3))
        assert "python" not in algorithms(net)


def test_a_shape_is_an_output():
    net = fc.compile(model_of([node("Shape")], {"x": (np.float32, (None, 3))}))
    assert np.array_equal(net(np.zeros((5, 3), np.float32)), [5, 3])


# --- shapes that depend on numbers ------------------------------------------------------------------


def came_from(rows, reads):
    """The rows behind others, from those that these numbers say."""
    seen, left = set(), [i for i in reads if i >= 0]
    while left:
        i = left.pop()
        if i not in seen:
            seen.add(i)
            assert all(j < i for j in rows[i].reads)
            left += [j for j in rows[i].reads if j >= 0]
    return [rows[i] for i in seen]


def test_shapes_that_depend_on_numbers():
    """Nodes run one after the other until they are known, with networks in between."""
    nodes = [
        node("Conv", "x,w", "features"), node("ReduceMax", "features", "peaks", axes=[1, 2, 3], keepdims=0),
        node("Greater", "peaks,least", "found"), node("Compress", "features,found", "kept", axis=0),
        node("Relu", "kept", "y"), node("NonZero", "found", "places"), node("GlobalAveragePool", "y", "means"),
        node("Compress", "means,high", "z", axis=1), node("Neg", "features", "all"),
    ]  # fmt: skip
    high = np.array([True, False, True, False])
    w = array(4, 3, 3, 3)
    constants = {"w": w, "least": np.float32(11), "high": high}
    outputs = ("y", "places", "z", "all", "x")
    model = model_of(nodes, {"x": (np.float32, ("n", 3, 8, 8))}, constants, outputs)
    early = fc.compile(model, (6, 3, 8, 8)).summary()
    assert early[0].operator == "conv"
    assert "what follows from the Compress on depends on numbers, and is listed after a call" in str(early)
    for net in (fc.compile(model), fc.compile(model, (6, 3, 8, 8))):
        for seed in range(4):
            x = array(6, 3, 8, 8, seed=seed)
            features = fc.conv2d(x, w)
            found = features.max(axis=(1, 2, 3)) > 11
            kept = np.maximum(features[found], 0)
            rights = [kept, np.stack(np.nonzero(found)), kept.mean(axis=(2, 3), keepdims=True)[:, high], -features, x]
            for y, right in zip(net(x), rights, strict=True):
                assert y.shape == right.shape
                assert max_error(y, right) < 1e-5
    assert [t.name for t in net.outputs] == list(outputs)
    assert [t.dtype for t in net.outputs] == [np.float32, np.int64, *[np.float32] * 3]
    summary, profile = net.summary(), net.profile(x, repeats=2)
    assert "listed after a call" not in str(summary)
    assert re.search(
        r"in Python: .*the Compress [\d.]+ ms, the NonZero [\d.]+ ms, .*the Compress [\d.]+ ms", str(summary)
    )
    assert [row.name for row in profile] == [*(row.name for row in summary), "(between steps)"]
    assert [row.operator for row in early] == [row.operator for row in summary][: len(early)]
    assert all(row.milliseconds is not None for row in profile)
    assert profile.milliseconds == pytest.approx(sum(row.milliseconds for row in profile))
    for rows in (summary, profile):
        assert [end.shape for end in rows.inputs] == [x.shape]
        assert [end.shape for end in rows.outputs] == [y.shape for y in net(x)]
        by_output = [{row.name for row in came_from(rows, end.reads)} for end in rows.outputs]
        assert by_output[0] >= {"the Conv", "the ReduceMax", "the Greater", "the Compress", "the Relu"}
        assert by_output[1] >= {"the Conv", "the Greater", "the NonZero"}
        assert "the NonZero" not in by_output[0] | by_output[2] | by_output[3]
        assert by_output[2] >= by_output[0] | {"the GlobalAveragePool"}
        assert by_output[3] >= {"the Conv", "the Neg"}
        assert "the Relu" not in by_output[1] | by_output[3]
        assert rows.to_svg().count("the Compress") >= 2
    first, *_, last = [row for row in summary if row.name == "the Compress"]
    assert (first.algorithm, first.shape, last.shape) == ("python", kept.shape, rights[2].shape)
    with pytest.raises(NotImplementedError, match="node 'the Compress' returns depends on numbers"):
        fc.compile(model, (6, 8, 8, 3), layout="NHWC")
    again = pickle.loads(pickle.dumps(net))
    assert all(map(np.array_equal, again(x), net(x)))


@pytest.mark.parametrize("n", [3, 4])
def test_a_shape_is_an_input(n):
    net = fc.compile(model_of([node("Reshape", "x,shape", "r"), node("Neg", "r")], {"x": X, "shape": ints([0] * n)}))
    for shape in [(2, 6, -1, 1), (2, 54, 7, 1), (-1, 1, 1, 1)]:
        wanted = shape[:n]
        if -1 in wanted or np.prod(wanted) == X.size:
            assert np.array_equal(net(X, ints(wanted)), -X.reshape(wanted))
    with pytest.raises(ValueError, match="reshape") as caught:
        net(X, ints([5] * n))
    assert "in node 'the Reshape' (python) of a compiled network" in str(caught.value.__notes__)


# --- values that are no arrays ----------------------------------------------------------------------


def test_nodes_that_hand_sequences_to_each_other():
    """They are one step, with what lies between them, whatever the others do."""
    nodes = [
        node("Relu", "x", "r"), node("SplitToSequence", "r,two", "s", axis=1), node("SequenceAt", "s,one", "a"),
        node("Conv", "a,w", "c"), node("Neg", "a", "b"), node("SequenceInsert", "s,b", "t"),
        node("ConcatFromSequence", "t", "u", axis=1), node("SequenceLength", "t", "n"), node("Abs", "u", "y"),
    ]  # fmt: skip
    constants = {"two": ints(2), "one": ints(1), "w": array(4, 2, 3, 3)}
    model = model_of(nodes, {"x": X}, constants, ("y", "c", "n"))
    rights = ReferenceEvaluator(model).run(None, {"x": X})
    net = fc.compile(model)
    for found in (net(X), pickle.loads(pickle.dumps(net))(X)):
        assert all(max_error(y, right) < 1e-5 for y, right in zip(found, rights, strict=True))
    with pytest.raises(ValueError, match="calls Python, which cannot be saved"):
        net.save("nowhere.npz")
    for wanted in ("s", "t"):
        with pytest.raises(NotImplementedError, match=f"the model returns '{wanted}', which is no array of numbers"):
            fc.compile(model_of(nodes, {"x": X}, constants, ("y", wanted)))
    with pytest.raises(ValueError, match=r"node 'the SequenceAt' \(SequenceAt\) reads 'z', which nothing before it"):
        fc.compile(model_of([*nodes, node("SequenceAt", "s,z", "v")], {"x": X}, constants, ("v",)))


def test_strings_within_a_model():
    texts = helper.make_tensor("texts", TensorProto.STRING, (3,), [b"cat", b"dog", b"cat"])
    same = [node("Equal", "texts,wanted", "e"), node("Cast", "e", "f", to=1), node("Mul", "x,f")]
    model = model_of(same, {"x": np.ones(3, np.float32)}, opset=19)
    wanted = helper.make_tensor("wanted", TensorProto.STRING, (1,), [b"cat"])
    model.graph.initializer.extend([texts, wanted])
    assert fc.compile(model)(np.full(3, 2, np.float32)).tolist() == [2, 0, 2]


# --- whole models -----------------------------------------------------------------------------------


def residual_network(batch=1, opset=13):
    """A stem, two residual blocks, and a classifier."""
    rng = np.random.default_rng(0)
    nodes, constants = [], {}

    def weights(name, *shape):
        constants[name] = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return name

    def conv_norm(x, y, channels, out, k, stride):
        pads = [k // 2] * 4
        nodes.append(helper.make_node(
            "Conv", [x, weights(f"{y}.w", out, channels, k, k)], [f"{y}.conv"], f"{y}.conv", pads=pads,
            strides=[stride] * 2,
        ))  # fmt: skip
        for part in ("scale", "bias", "mean", "var"):
            constants[f"{y}.{part}"] = rng.random(out).astype(np.float32) + 0.5
        reads = [f"{y}.{part}" for part in ("conv", "scale", "bias", "mean", "var")]
        nodes.append(helper.make_node("BatchNormalization", reads, [y], f"{y}.norm"))

    def block(x, y, channels, out, stride):
        conv_norm(x, f"{y}.1", channels, out, 3, stride)
        nodes.append(helper.make_node("Relu", [f"{y}.1"], [f"{y}.1r"]))
        conv_norm(f"{y}.1r", f"{y}.2", out, out, 3, 1)
        if stride != 1:
            conv_norm(x, f"{y}.s", channels, out, 1, stride)
        nodes.append(helper.make_node("Add", [f"{y}.2", f"{y}.s" if stride != 1 else x], [f"{y}.sum"]))
        nodes.append(helper.make_node("Relu", [f"{y}.sum"], [y]))

    conv_norm("image", "stem", 3, 16, 7, 2)
    nodes.append(helper.make_node("Relu", ["stem"], ["stem.r"]))
    nodes.append(helper.make_node("MaxPool", ["stem.r"], ["pool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4))
    block("pool", "one", 16, 16, 1)
    block("one", "two", 16, 32, 2)
    nodes.append(helper.make_node("GlobalAveragePool", ["two"], ["means"]))
    nodes.append(helper.make_node("Flatten", ["means"], ["flat"]))
    constants["fc.b"] = rng.random(10).astype(np.float32)
    reads = ["flat", weights("fc.w", 10, 32), "fc.b"]
    nodes.append(helper.make_node("Gemm", reads, ["scores"], "fc", transB=1))
    shape = (batch, 3, 64, 64)
    return model_of(nodes, {"image": (np.float32, shape)}, constants, ["scores"], opset, "residual")


@pytest.mark.parametrize("opset", [7, 13, NEWEST])
def test_a_residual_network(tmp_path, opset):
    """From a file, with all layers fused, into a file that is run without onnx."""
    onnx.save(residual_network("n", opset), tmp_path / "net.onnx")
    image = array(2, 3, 64, 64)
    (right,) = ReferenceEvaluator(residual_network("n", 17)).run(None, {"image": image})
    for path in (tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        net = fc.compile(path, (2, 3, 64, 64))
        assert max_error(net(image), right) < 1e-4
    operators = [row.operator for row in net.summary()]
    assert operators.count("conv") == 6
    assert "batch_norm" not in operators
    assert "map" not in operators
    assert "python" not in algorithms(net)
    net.save(tmp_path / "net.npz")
    loaded = fc.load_net(tmp_path / "net.npz")
    assert np.array_equal(loaded(image), net(image))
    assert loaded.inputs == net.inputs
    assert loaded.outputs == net.outputs


def test_sizes_that_the_model_leaves_open():
    model = residual_network("n")
    right = ReferenceEvaluator(residual_network("n", 17))
    net = fc.compile(model)
    assert net.inputs[0].shape == (None, 3, 64, 64)
    for n in (1, 3):
        image = array(n, 3, 64, 64)
        assert max_error(net(image=image), right.run(None, {"image": image})[0]) < 1e-4
    wide = fc.compile(model, {"image": (1, 3, 96, 64)})
    assert wide.inputs[0].shape == (1, 3, 96, 64)
    assert fc.compile(model, (None, 3, 96, None)).inputs[0].shape == (None, 3, 96, 64)


def test_control_flow_and_functions():
    """Graphs in attributes read what is around them; functions of the model are put in place."""
    branches = [
        helper.make_graph([node(op, "x,x", "r")], op, [], [helper.make_tensor_value_info("r", 1, X.shape)])
        for op in ("Add", "Mul")
    ]
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branches[0], else_branch=branches[1])
    net = fc.compile(model_of([node("Relu", "z", "x"), choice], {"z": X, "c": np.array(True)}))
    x = np.maximum(X, 0)
    assert np.array_equal(net(X, np.array(True)), x + x)
    assert np.array_equal(net(X, np.array(False)), x * x)
    opsets = [helper.make_opsetid("", 17)]
    swish = helper.make_function(
        "own", "Gate", ["a"], ["b"], [node("Sigmoid", "a", "s"), node("Mul", "a,s", "b")], opsets
    )
    model = model_of([helper.make_node("Gate", ["x"], ["y"], domain="own")], {"x": X})
    model.functions.append(swish)
    model.opset_import.append(helper.make_opsetid("own", 1))
    net = fc.compile(model)
    assert max_error(net(X), X / (1 + np.exp(-X))) < 1e-5
    assert "python" not in algorithms(net)


def body(*nodes, out="r"):
    return helper.make_graph(list(nodes), "body", [], [helper.make_empty_tensor_value_info(out)])


def test_a_choice_by_sizes_is_none():
    """What is chosen is fused; the other graph need not fit."""
    w = array(4, 3, 1, 1)
    fitting = body(node("Conv", "x,w", "c"), node("Relu", "c", "r"))
    other = body(node("Reshape", "x,five", "f"), node("Neg", "f", "r"))
    nodes = [
        node("Shape", "x", "sizes"), node("Gather", "sizes,one", "channels"), node("Equal", "channels,three", "fits"),
        helper.make_node("If", ["fits"], ["y"], "choice", then_branch=fitting, else_branch=other),
    ]  # fmt: skip
    constants = {"w": w, "one": np.int64(1), "three": np.int64(3), "five": ints([5, -1])}
    net = fc.compile(model_of(nodes, {"x": (np.float32, ("n", "c", 4, 5))}, constants))
    for n in (2, 1):
        x = array(n, 3, 4, 5)
        assert max_error(net(x), np.maximum(fc.conv2d(x, w), 0)) < 1e-5
        assert [row.operator for row in net.summary()] == ["conv"]
    x = array(1, 2, 4, 5)
    assert np.array_equal(net(x), -x.reshape(5, -1))


def test_results_of_a_choice_that_nobody_wants():
    graphs = [
        helper.make_graph([node(op, "x", "r"), node("Abs", "x", "q")], op, [], body(node(op), out="q").output[:])
        for op in ("Neg", "Exp")
    ]
    for graph in graphs:
        graph.output.insert(0, helper.make_empty_tensor_value_info("r"))
    choice = helper.make_node("If", ["c"], ["", "y"], "choice", then_branch=graphs[0], else_branch=graphs[1])
    net = fc.compile(model_of([choice], {"x": X, "c": np.array(True)}))
    assert np.array_equal(net(X, np.array(False)), np.abs(X))


def test_a_choice_that_returns_what_has_no_name():
    """ONNX's checker lets it pass; nothing around it has such a name."""
    graphs = [body(node(op, "x", "r"), out="r") for op in ("Neg", "Exp")]
    graphs[0].output[0].name = ""
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=graphs[0], else_branch=graphs[1])
    with pytest.raises(ValueError, match=r"'choice' .*returns ''"):
        fc.compile(model_of([choice], {"x": X, "c": np.array(True)}))


def test_choices_by_numbers():
    """Of a condition that is computed, and of one within one; each answer has a network of its own."""
    inner = helper.make_node(
        "If",
        ["high"],
        ["r"],
        "inner",
        then_branch=body(node("Exp", "y", "q"), out="q"),
        else_branch=body(node("Neg", "y", "q"), out="q"),
    )
    outer = helper.make_node(
        "If", ["low"], ["z"], "outer", then_branch=body(node("Abs", "x", "r")), else_branch=body(inner)
    )
    nodes = [
        node("Relu", "x", "y"), node("ReduceMax", "x", "most", keepdims=0),
        node("Less", "most,one", "low"), node("Greater", "most,two", "high"), outer, node("Add", "z,x", "sum"),
    ]  # fmt: skip
    net = fc.compile(
        model_of(nodes, {"x": (np.float32, (2, "n"))}, {"one": np.float32(1), "two": np.float32(2)}, ("sum", "y"))
    )
    again = pickle.loads(pickle.dumps(net))
    for most, function in ((0.5, np.abs), (3, lambda x: np.exp(np.maximum(x, 0))), (1.5, lambda x: -np.maximum(x, 0))):
        for n in (3, 5):
            x = np.minimum(array(2, n), 0)
            x[1, 2] = most
            for found in (net(x), again(x)):
                assert max_error(found[0], function(x) + x) < 1e-6
                assert np.array_equal(found[1], np.maximum(x, 0))
        summary = net.summary()
        assert any(row.name == "the Add" and row.shape == (2, 5) for row in summary)
        assert [end.shape for end in summary.outputs] == [(2, 5)] * 2
        assert net.profile(x, repeats=1).outputs == summary.outputs


def test_optional_results_that_nobody_wants():
    """They have names, but are not computed; an old BatchNormalization that has them is in training all the same."""
    nodes = [
        node("MaxPool", "x", "p,where", kernel_shape=[2, 2]), node("Dropout", "p", "d,mask"),
        helper.make_node("If", ["yes"], ["z"], "choice", then_branch=body(node("Dropout", "d", "r,m")),
                         else_branch=body(node("Identity", "where", "i"), node("Neg", "d", "r"))),
        node("Relu", "z"),
    ]  # fmt: skip
    rights = fc.max_pool2d(X, 2, stride=1)
    used = [*nodes[:2], node("Cast", "where", "places", to=TensorProto.FLOAT), node("Relu", "d")]
    for opset in (9, 17):
        net = fc.compile(model_of([*nodes[:2], node("Relu", "d")], {"x": X}, opset=opset))
        assert max_error(net(X), np.maximum(rights, 0)) == 0
        assert "python" not in algorithms(net)
        net = fc.compile(model_of(nodes, {"x": X, "yes": np.array(True)}, opset=opset))
        assert max_error(net(X, np.array(True)), np.maximum(rights, 0)) == 0
        assert max_error(net(X, np.array(False)), np.maximum(-rights, 0)) == 0
        net = fc.compile(model_of(used, {"x": X}, (), ("y", "places"), opset=opset))
        assert max_error(net(X)[0], np.maximum(rights, 0)) == 0
        assert np.array_equal(X.reshape(-1)[net(X)[1].astype(int)], rights)
    statistics = {name: np.random.default_rng(i).random(6, np.float32) + 0.5 for i, name in enumerate("sbmv")}
    training = node("BatchNormalization", "x,s,b,m,v", "y,mean,var,means,vars")
    with pytest.raises(ValueError, match="BatchNormalization-9 cannot be computed"):  # nobody here trains
        fc.compile(model_of([training], {"x": X}, statistics, opset=9))(X)


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 1], "pads": [1, 0, 1, 1]}, {"dilations": [2, 2]}, {"storage_order": 1},
    {"storage_order": 1, "strides": [1, 2]}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "ceil_mode": 1},
])  # fmt: skip
def test_places_of_maxima(attributes, tmp_path):
    """They are counted over the whole input, in either order of its pixels; where the core does it, in files, too."""
    made = node("MaxPool", "x", "y,places", kernel_shape=[2, 2], **attributes)
    net = fc.compile(model_of([made], {"x": X}, (), ("y", "places")))
    y, places = net(X)
    assert np.array_equal(y, fc.compile(model_of([made], {"x": X}))(X))
    flat = X.transpose(0, 1, 3, 2).reshape(-1) if "storage_order" in attributes else X.reshape(-1)
    assert places.dtype == np.int64
    assert np.array_equal(flat[places], y)
    assert np.unique(X).size == X.size  # so that the places are those and no others
    if "ceil_mode" not in attributes:
        net.save(tmp_path / "net.npz")
        assert np.array_equal(fc.load_net(tmp_path / "net.npz")(X)[1], places)


def test_memory_of_what_comes_later():
    """Weights behind a shape that depends on numbers are packed there, and the arena of what ran before is in use."""
    nodes = [node("NonZero", "x", "n"), node("Gather", "x,zero", "first", axis=0), node("Add", "first,first", "s"),
             node("Cast", "n", "real", to=TensorProto.FLOAT), node("Transpose", "real", "t", perm=[1, 0]),
             node("MatMul", "t,w", "h"), node("Relu", "h", "r"), node("MatMul", "r,v")]  # fmt: skip
    constants = {"zero": ints([0]), "w": array(2, 64), "v": array(64, 32)}
    net = fc.compile(model_of(nodes, {"x": (np.float32, (3, 5))}, constants))
    before = net.memory
    net(np.eye(3, 5, dtype=np.float32))
    assert net.memory.packed >= before.packed + 4 * (2 * 64 + 64 * 32)
    assert net.memory.arena >= before.arena + 4 * 3 * 64
    assert net.memory.weights == before.weights >= 4 * (2 * 64 + 64 * 32)


# --- errors -----------------------------------------------------------------------------------------


def test_errors_name_the_node():
    w = array(4, 5, 3, 3)
    with pytest.raises(ValueError, match=r"node 'the Conv' .*5 input channels"):
        fc.compile(model_of([node("Conv", "x,w")], {"x": X}, {"w": w}))
    with pytest.raises(ValueError, match=r"node 'the Relu' .*reads 'a', which nothing before it computes"):
        fc.compile(model_of([node("Relu", "a")], {"x": X}))
    with pytest.raises(NotImplementedError, match=r"node 'the Magic' .*neither an operator of fastconv nor"):
        fc.compile(model_of([node("Magic")], {"x": X}))
    with pytest.raises(ValueError, match=r"node 'the Relu' .*writes 'x', which is there already"):
        fc.compile(model_of([node("Relu", "x", "x")], {"x": X}))
    with pytest.raises(ValueError, match="returns 'z', which nothing computes"):
        fc.compile(model_of([node("Relu")], {"x": X}, (), ("z",)))
    with pytest.raises(
        NotImplementedError, match="node 'the PRelu' is PRelu of opset 6 with several slopes; it needs 7"
    ):
        fc.compile(model_of([node("PRelu", "x,s")], {"x": X}, {"s": array(6)}, opset=6))
    with pytest.raises(NotImplementedError, match=f"opset {NEWEST + 1}; it needs 1 to {NEWEST}"):
        fc.compile(model_of([node("Relu")], {"x": X}, opset=NEWEST + 1))
    with pytest.raises(ValueError, match="input_shape names 'z'; the inputs are x"):
        fc.compile(model_of([node("Relu")], {"x": X}), {"z": (1, 2)})
    with pytest.raises(ValueError, match=r"input_shape is \(1, 2\) for 'x'; the model says 4 axes"):
        fc.compile(model_of([node("Relu")], {"x": X}), (1, 2))


def test_nodes_that_lack_something():
    with pytest.raises(ValueError, match=r"node 'the MaxPool' .*kernel_shape"):
        fc.compile(model_of([node("MaxPool")], {"x": X}))
    with pytest.raises(ValueError, match=r"node 'the Add' .*1"):
        fc.compile(model_of([node("Add")], {"x": X}))
    with pytest.raises(ValueError, match=r"node 'the Add' .*input 1"):
        fc.compile(model_of([node("Add", "x,")], {"x": X}))
    with pytest.raises(ValueError, match=r"node 'the Reshape' .*its input has shape \(2, 6, 9, 7\); it cannot be"):
        fc.compile(model_of([node("Reshape", "x,s")], {"x": X}, {"s": ints([3, 5])}))
    with pytest.raises(ValueError, match=r"node 'the Max' \(Max\) lacks its input 1, 'data_0'"):
        fc.compile(model_of([node("Max", "x,")], {"x": X}))
    with pytest.raises(ValueError, match=r"node 'the Concat' \(Concat\) lacks its input 1, 'inputs'"):
        fc.compile(model_of([node("Concat", "x,,x", axis=0)], {"x": X}))
    kept = body(node("Neg", "x", "r"))
    both = {"then_branch": kept, "else_branch": kept}
    for inputs, outputs, attributes, message in (
        ("c", "y", {"then_branch": kept}, "lacks its attribute 'else_branch'"),
        ("c", "y", {**both, "else_branch": 1}, "has of another type its attribute 'else_branch'"),
        ("c,c", "y", both, "has 2 inputs, which are too few or too many"),
        ("", "y", both, "lacks its input 0, 'cond'"),
        ("c", "y,z", both, ".*its then_branch returns 1 values; it needs 2"),
    ):
        made = helper.make_node("If", inputs.split(","), outputs.split(","), "the If", **attributes)
        with pytest.raises(ValueError, match=rf"^node 'the If' \(If.*\)(:.*| ){message}"):
            fc.compile(model_of([made], {"x": X, "c": np.array(True)}))


def test_errors_of_calls():
    net = fc.compile(residual_network())
    with pytest.raises(ValueError, match=r"image has shape \(1, 3, 64, 63\); the network needs \(1, 3, 64, 64\)"):
        net(array(1, 3, 64, 63))
    with pytest.raises(TypeError, match="'picture' is unknown; the inputs are image"):
        net(picture=array(1, 3, 64, 64))


# --- the backend ------------------------------------------------------------------------------------


def test_backend():
    model, image = residual_network(), array(1, 3, 64, 64)
    right = fc.compile(model)(image)
    ready = fastconv.onnx.prepare(model)
    for inputs in ([image], {"image": image}, image):
        answer = ready.run(inputs)
        assert np.array_equal(answer[0], right)
        assert np.array_equal(answer["scores"], right)
    assert np.array_equal(fastconv.onnx.run_model(model, [image])[0], right)
    (y,) = fastconv.onnx.run_node(node("Softmax", axis=2), [X], opset_version=11)
    flat = np.exp(X.reshape(12, 63).astype(np.float64))
    assert max_error(y, (flat / flat.sum(axis=1, keepdims=True)).reshape(X.shape)) < 1e-6
    assert fastconv.onnx.supports_device("CPU")
    assert not fastconv.onnx.supports_device("CUDA:0")
    with pytest.raises(ValueError, match="device is 'CUDA'; it needs to be 'CPU'"):
        fastconv.onnx.prepare(model, "CUDA")
    ours = ReferenceEvaluator(residual_network(opset=17), new_ops=fastconv.onnx.ops())
    assert max_error(ours.run(None, {"image": image})[0], right) < 1e-5
    assert type(ours.rt_nodes_[0]).__module__.startswith("fastconv")
    assert fastconv.onnx.Backend.is_compatible(model)
    assert not fastconv.onnx.Backend.is_compatible(model_of([node("Magic")], {"x": X}))
