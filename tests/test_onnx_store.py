# SPDX-License-Identifier: BSD-3-Clause
"""Networks from ONNX models in files: whatever their sizes, they run where onnx is not installed."""

import json
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from support import max_error

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from onnx_models import X, array, ints, model_of, node  # noqa: E402

OPEN = (np.float32, ("n", 3, "h", "w"))
ALONE = """
import sys
sys.modules["onnx"] = None
import numpy as np
import fastconv as fc
net = fc.load_net("net.npz")
np.savez("y.npz", *(net(x) for x in np.load("x.npz").values()))
net.save("again.npz")
"""


def flat():
    """As exporters write x.reshape(x.shape[0], -1)."""
    nodes = [
        node("Shape", "x", "sizes"), node("Gather", "sizes,zero", "batch"), node("Unsqueeze", "batch,axis", "first"),
        node("Concat", "first,rest", "shape", axis=0), node("Reshape", "x,shape"),
    ]  # fmt: skip
    return nodes, {"zero": np.int64(0), "axis": ints([0]), "rest": ints([-1])}


def enlarged():
    """To the size of another value."""
    nodes = [
        node("MaxPool", "x", "small", kernel_shape=[2, 2], strides=[2, 2]), node("Shape", "x", "sizes"),
        node("Slice", "sizes,b,c", "pixels"), node("Shape", "small", "own"), node("Slice", "own,a,b", "channels"),
        node("Concat", "channels,pixels", "wanted", axis=0), node("Resize", "small,,,wanted", mode="linear"),
    ]  # fmt: skip
    return nodes, {"a": ints([0]), "b": ints([2]), "c": ints([4])}


def same():
    """Borders that depend on the size, and what is to be fused behind them."""
    nodes = [
        node("Conv", "x,w", "c", auto_pad="SAME_UPPER", strides=[2, 2]),
        node("BatchNormalization", "c,s,b,m,v", "d"), node("Relu", "d"),
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    return nodes, {"w": array(8, 3, 3, 3), **{name: rng.random(8, np.float32) + 0.5 for name in "sbmv"}}


def arithmetic():
    """Numbers of all kinds of operators between the sizes and where they are wanted."""
    nodes = [
        node("Shape", "x", "sizes"), node("Split", "sizes,ones", "n,c,h,w"), node("Mul", "c,h", "ch"),
        node("Div", "ch,minus", "less"), node("Neg", "less", "rows"), node("Mod", "w,two", "odd"),
        node("Equal", "odd,zero", "even"), node("Where", "even,w,w", "width"), node("Sub", "w,two", "short"),
        node("Cast", "w", "real", to=TensorProto.FLOAT), node("Sqrt", "real", "root"), node("Floor", "root", "floor"),
        node("Cast", "floor", "side", to=TensorProto.INT64), node("Max", "side,two", "kept"),
        node("Min", "kept,short", "stop"), node("Abs", "stop", "end"), node("Slice", "x,zero,end,three", "part"),
        node("Shape", "part", "partial"), node("ConstantOfShape", "partial", "nothing"),
        node("Add", "part,nothing", "same"), node("Expand", "half,partial", "halves"), node("Mul", "same,halves", "m"),
        node("ReduceProd", "partial", "count", keepdims=1), node("Less", "count,zero", "no"), node("Not", "no", "yes"),
        node("And", "yes,yes", "both"), node("Or", "both,no", "any"), node("Where", "any,all,zero", "shape"),
        node("Squeeze", "short", "number"), node("Range", "none,number,step", "range"),
        node("ReduceMax", "range", "most", keepdims=1), node("Tile", "most,two", "twice"),
        node("Slice", "twice,zero,one,zero", "once"), node("GreaterOrEqual", "once,zero", "sure"),
        node("Where", "sure,shape,zero", "final"), node("Reshape", "m,final"),
    ]  # fmt: skip
    numbers = {"ones": [1] * 4, "zero": [0], "one": [1], "two": [2], "three": [3], "minus": [-1], "all": [-1]}
    constants = {name: ints(value) for name, value in numbers.items()}
    return nodes, {**constants, "half": np.float32(0.5), "none": np.int64(0), "step": np.int64(1)}


@pytest.mark.parametrize("model", [flat, enlarged, same, arithmetic])
def test_open_sizes_without_onnx(model, tmp_path):
    """The same bits as before, for one size after the other, and through a second file."""
    nodes, constants = model()
    net = fc.compile(model_of(nodes, {"x": OPEN}, constants))
    net.save(tmp_path / "net.npz")
    inputs = [array(*shape, seed=i) for i, shape in enumerate([(1, 3, 12, 16), (2, 3, 9, 14), (1, 3, 12, 16)])]
    if model is enlarged:
        inputs[1] = array(2, 3, 10, 14)
    np.savez(tmp_path / "x.npz", *inputs)
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True)
    for x, found in zip(inputs, np.load(tmp_path / "y.npz").values(), strict=True):
        right = fc.compile(model_of(nodes, {"x": x}, constants))(x)
        assert np.array_equal(found, net(x))
        assert found.shape == right.shape
        assert max_error(found, right) < 1e-6
    assert np.array_equal(fc.load_net(tmp_path / "again.npz")(inputs[0]), net(inputs[0]))


@pytest.mark.parametrize("model", [enlarged, arithmetic, same])
def test_sizes_are_computed_as_onnx_says(model):
    nodes, constants = model()
    x = array(2, 3, 10, 14)
    found = fc.compile(model_of(nodes, {"x": OPEN}, constants))(x)
    runtime = pytest.importorskip("onnxruntime")
    model = model_of(nodes, {"x": OPEN}, constants)
    for i, made in enumerate(model.graph.node):
        made.name = f"node {i}"  # ONNX Runtime wants each to be another
    text = model.SerializeToString()
    (right,) = runtime.InferenceSession(text, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert found.shape == right.shape
    assert max_error(found, right) < 1e-5


def test_what_has_waited_for_sizes_is_fused():
    nodes, constants = same()
    for shape in (None, (1, 3, 8, 8)):
        net = fc.compile(model_of(nodes, {"x": OPEN}, constants), shape)
        net(array(1, 3, 8, 8))
        assert [row.operator for row in net.summary()] == ["conv"]
    net = fc.compile(model_of(nodes, {"x": OPEN}, constants), without=["fold_batch_norms"])
    net(array(1, 3, 8, 8))
    assert [row.operator for row in net.summary()] == ["conv", "batch_norm"]


def test_nodes_that_cannot_be_saved_are_named(tmp_path):
    """They call onnx.reference whatever the sizes; what waits for those is none of them."""
    branch, other = body(node("Neg", "s", "r")), body(node("CumSum", "s,one", "r"))
    nodes = [
        *flat()[0][:-1], node("Reshape", "x,shape", "f"), node("CumSum", "f,one", "s"),
        helper.make_node("If", ["yes"], ["t"], "the choice", then_branch=branch, else_branch=branch),
        node("Det", "x", "det"),
    ]  # fmt: skip
    constants = {**flat()[1], "one": np.int64(1), "yes": np.array(True)}
    net = fc.compile(model_of(nodes, {"x": OPEN}, constants, ("t", "det")))
    with pytest.raises(ValueError, match=r"^nodes 'the CumSum', 'the Det' call Python, which cannot be"):
        net.save(tmp_path / "net.npz")
    assert not (tmp_path / "net.npz").exists()
    made = helper.make_node("If", ["yes"], ["t"], "the choice", then_branch=branch, else_branch=other)
    inputs = {"x": OPEN, "yes": np.array(True)}
    choosing = fc.compile(model_of([node("Neg", "x", "s"), made], inputs, {"one": np.int64(1)}, ("t",)))
    with pytest.raises(ValueError, match=r"^node 'the CumSum' calls Python, which cannot be saved"):
        choosing.save(tmp_path / "net.npz")
    known = fc.compile(model_of([node("CumSum", "x,one")], {"x": X}, {"one": np.int64(1)}))
    with pytest.raises(ValueError, match=r"^node 'the CumSum' calls Python"):
        known.save(tmp_path / "net.npz")


def body(*nodes, out="r"):
    return helper.make_graph(list(nodes), "body", [], [helper.make_empty_tensor_value_info(out)])


def choosing():
    """Between graphs that share weights with what lies around them, wait for sizes, and choose once more."""
    inner = helper.make_node(
        "If", ["high"], ["q"], "inner",
        then_branch=body(node("Exp", "a", "p"), node("Conv", "p,w", "r", auto_pad="SAME_LOWER")),
        else_branch=body(node("Shape", "a", "s"), node("Expand", "b,s", "e"), node("Mul", "a,e", "r")),
    )  # fmt: skip
    nodes = [
        node("Conv", "x,w", "c", auto_pad="SAME_UPPER"), node("Relu", "c", "a"),
        node("ReduceMax", "x", "most", keepdims=0), node("Less", "most,one", "low"),
        node("Greater", "most,two", "high"),
        helper.make_node(
            "If", ["low"], ["z"], "outer",
            then_branch=body(node("Conv", "a,w,v", "r", pads=[1] * 4)), else_branch=body(inner, node("Neg", "q", "r")),
        ),
        node("Shape", "z", "sizes"), node("Gather", "sizes,first", "n"), node("Concat", "n,rest", "shape", axis=0),
        node("Reshape", "z,shape", "flat"), node("Softmax", "flat", axis=1),
    ]  # fmt: skip
    numbers = {"one": np.float32(1), "two": np.float32(2), "first": ints([0]), "rest": ints([-1])}
    return nodes, {**numbers, "w": array(3, 3, 3, 3) / 9, "v": array(3), "b": np.float32([[[[1]], [[2]], [[3]]]])}


@pytest.mark.parametrize("shape", [None, (2, 3, 8, 8)])
def test_choices_without_onnx(shape, tmp_path):
    """Both graphs are in the file, and a weight that several read once."""
    nodes, constants = choosing()
    net = fc.compile(model_of(nodes, {"x": OPEN}, constants), shape, keep_weights=True)
    net.save(tmp_path / "net.npz")
    stored = fc.load(tmp_path / "net.npz")
    assert sum(a.shape == (3, 3, 3, 3) for a in stored.values()) == 1
    inputs = []
    for most, size in ((0.5, 8), (1.5, 8), (3, 8), (0.5, 7), (1.5, 9), (3, 7)):
        x = np.minimum(array(2, 3, 8, 8 if shape else size, seed=size), most / 2)
        x[0, 1, 2, 3] = most
        inputs.append(x)
    np.savez(tmp_path / "x.npz", *inputs)
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True)
    runtime = pytest.importorskip("onnxruntime")
    model = model_of(nodes, {"x": OPEN}, constants)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for x, found in zip(inputs, np.load(tmp_path / "y.npz").values(), strict=True):
        assert np.array_equal(found, net(x))
        assert max_error(found, session.run(None, {"x": x})[0]) < 1e-5
    again = fc.load_net(tmp_path / "again.npz")
    assert again.memory.weights == net.memory.weights >= 4 * (81 + 3 + 3)
    assert np.array_equal(again(inputs[0]), net(inputs[0]))


def test_what_comes_later_without_onnx(tmp_path):
    """Sizes are known, but those behind a node that has to run first."""
    nodes = [
        node("NonMaxSuppression", "boxes,scores,most,share", "chosen"), node("Slice", "chosen,two,three,one", "which"),
        node("Squeeze", "which,one", "flat"), node("Gather", "boxes,flat", "kept", axis=1),
        node("Shape", "kept", "sizes"), node("Gather", "sizes,one", "n"), node("Concat", "n,two", "shape", axis=0),
        node("Concat", "two,two", "four", axis=0), node("Concat", "n,four", "wanted", axis=0),
        node("Transpose", "kept", "turned", perm=[1, 0, 2]), node("Reshape", "turned,wanted"),
    ]  # fmt: skip
    constants = {"most": ints([5]), "share": np.float32([0.1]), "one": ints([1]), "two": ints([2]), "three": ints([3])}
    boxes, scores = np.random.default_rng(0).random((1, 20, 4), np.float32), array(1, 1, 20)
    net = fc.compile(model_of(nodes, {"boxes": boxes, "scores": scores}, constants))
    assert 1 < len(net(boxes, scores)) < 20
    net.save(tmp_path / "net.npz")
    assert np.array_equal(fc.load_net(tmp_path / "net.npz")(boxes, scores), net(boxes, scores))


def test_a_spoilt_choice_of_a_file(tmp_path):
    """Graphs that do not fit, or lie too deep."""
    nodes, constants = choosing()
    fc.compile(model_of(nodes, {"x": OPEN}, constants)).save(tmp_path / "net.npz")
    arrays = fc.load(tmp_path / "net.npz")
    text = arrays["fastconv.graph"].tobytes()

    def refused(text, message):
        arrays["fastconv.graph"] = np.frombuffer(text, np.uint8)
        fc.save(arrays, tmp_path / "spoilt.npz")
        with pytest.raises(ValueError, match=f"holds no network that can be run: .*{message}"):
            fc.load_net(tmp_path / "spoilt.npz")

    def spoilt(change):
        described = json.loads(text)
        (entry,) = (entry for entry in described["nodes"] if entry["op"] == "choice")
        change(entry, entry["attributes"]["branches"])
        return json.dumps(described).encode()

    def deep(entry, branches):
        """Each branch of this entry is a graph of another like it."""
        for _ in range(17):
            branch = json.loads(json.dumps(branches[0]))
            branch["nodes"] = [{**entry, "inputs": [0] * len(entry["inputs"])}]
            branch["inputs"] = [branch["inputs"][0]] * (len(entry["inputs"]) - 1)
            branch["constants"] = []
            entry["attributes"] = {"branches": [branch, branches[0]]}
            branches = [branch, branch]

    unfit = "node 'outer' chooses between graphs that do not fit it"
    refused(spoilt(lambda entry, branches: branches.pop()), unfit)
    refused(spoilt(lambda entry, branches: branches.append(branches[0])), unfit)
    refused(spoilt(lambda entry, branches: entry["inputs"].pop()), unfit)
    refused(spoilt(lambda entry, branches: entry["outputs"].append("more")), unfit)
    refused(spoilt(lambda entry, branches: entry["inputs"].__setitem__(0, None)), unfit)
    refused(spoilt(lambda entry, branches: branches[0]["outputs"].append(0)), unfit)
    refused(spoilt(lambda entry, branches: entry.update(attributes={})), "there is no 'branches'")
    refused(spoilt(lambda entry, branches: branches[0]["constants"].append("none")), "there is no 'none'")
    refused(spoilt(lambda entry, branches: branches[1]["nodes"][0].update(op="python")), "unknown operator, 'python'")
    refused(spoilt(deep), "17 deep in others; 16 are read")
    refused(b"[" * 100_000, "recursion")


def test_a_node_that_has_waited_in_vain(tmp_path):
    """Its sizes turn out to be none that the core resizes to: the error names it, where onnx is not asked."""
    nodes, constants = enlarged()
    nodes[-1] = node("Resize", "small,roi,,wanted", mode="linear", coordinate_transformation_mode="tf_crop_and_resize")
    constants = {**constants, "roi": np.float32([0, 0, 0, 0, 1, 1, 1, 1])}
    net = fc.compile(model_of(nodes, {"x": OPEN}, constants))
    net.save(tmp_path / "net.npz")
    x = array(1, 3, 8, 8)
    net(x)
    with pytest.raises(NotImplementedError, match=r"node 'the Resize' .*Resize-17 is no operator of fastconv"):
        fc.load_net(tmp_path / "net.npz")(x)


def test_a_spoilt_node_of_a_file(tmp_path):
    nodes, constants = flat()
    fc.compile(model_of(nodes, {"x": OPEN}, constants)).save(tmp_path / "net.npz")
    arrays = fc.load(tmp_path / "net.npz")
    described = json.loads(arrays["fastconv.graph"].tobytes())
    waiting = [i for i, entry in enumerate(described["nodes"]) if entry["op"] == "onnx"]
    assert waiting
    x = array(2, 3, 4, 5)
    changes = (
        {},
        {"names": []},
        {"opset": "x"},
        {"input": ["no"]},
        {"attributes": 3},
        {"op_type": None},
        {"domain": "d"},
    )
    for change in changes:
        for i in waiting:
            spoilt = json.loads(json.dumps(described))
            entry = spoilt["nodes"][i]
            entry["attributes"] = {**entry["attributes"], **change} if change else {}
            arrays["fastconv.graph"] = np.frombuffer(json.dumps(spoilt).encode(), np.uint8)
            fc.save(arrays, tmp_path / "spoilt.npz")
            with pytest.raises((ValueError, NotImplementedError), match=r"holds no network|node '"):
                fc.load_net(tmp_path / "spoilt.npz")(x)
