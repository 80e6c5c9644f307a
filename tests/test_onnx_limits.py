# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models that make no sense, are too large, or point elsewhere: an error that names the node or the tensor."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from onnx_models import X, array, ints, model_of, node, single  # noqa: E402

TOOL = Path(__file__).parent.parent / "tools" / "fuzz_onnx.py"


def convolution():
    return model_of([node("Conv", "x,w")], {"x": X[:, :3]}, {"w": array(4, 3, 3, 3)})


# --- files ------------------------------------------------------------------------------------------------------------


def external(folder, location, size=None, **entries):
    """A model in that folder, whose weights are said to be in another file; ``size`` bytes of it are there."""
    model = convolution()
    (tensor,) = model.graph.initializer
    weights = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    if size != 0:
        (folder / "weights").write_bytes(weights[:size])
    return path


def test_weights_beside_the_model(tmp_path):
    right = fc.compile(convolution())(X[:, :3])
    inner = tmp_path / "inner"
    inner.mkdir()
    for location in ("weights", "./weights", "inner/weights"):
        path = external(tmp_path, location)
        (inner / "weights").write_bytes((tmp_path / "weights").read_bytes())
        assert np.array_equal(fc.compile(path)(X[:, :3]), right)
    (tmp_path / "link").symlink_to(inner / "weights")
    assert np.array_equal(fc.compile(external(tmp_path, "link"))(X[:, :3]), right)
    (tmp_path / "weights").write_bytes(b"head" + (tmp_path / "weights").read_bytes() + b"tail")
    assert np.array_equal(fc.compile(external(tmp_path, "weights", 0, offset=4))(X[:, :3]), right)
    bare = onnx.load(external(tmp_path, "weights"), load_external_data=False)
    with pytest.raises(ValueError, match="tensor 'w' is in a file of its own"):
        fc.compile(bare)


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    external(tmp_path, "weights")
    (inner / "link").symlink_to(tmp_path / "weights")
    (inner / "folder").symlink_to(tmp_path)
    outside = (
        "../weights",
        "link",
        "folder/weights",
        str(tmp_path / "weights"),
        "x/../../weights",
        "",
        "/dev/zero",
        ".",
    )
    for location in outside:
        with pytest.raises(ValueError, match=r"tensor 'w' is in .*, which is outside of the model's folder"):
            fc.compile(external(inner, location))


def test_external_data_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tensor 'w' is in a file that is not there: .*nowhere"):
        fc.compile(external(tmp_path, "nowhere", 0))
    needed = 4 * 3 * 9 * 4
    for size, entries in ((needed - 1, {}), (None, {"offset": 4}), (None, {"length": 10**15}), (None, {"offset": -4})):
        with pytest.raises(ValueError, match=r"tensor 'w' is \d+ bytes from byte -?\d+ on of .*weights, which has \d+"):
            fc.compile(external(tmp_path, "weights", size, **entries))
    with pytest.raises(ValueError, match=r"tensor 'w' of shape \(4, 3, 3, 3\) is damaged"):
        fc.compile(external(tmp_path, "weights", length=needed - 4))
    with pytest.raises(ValueError, match=r"tensor 'w' does not say where in .*weights it is: .*'much'"):
        fc.compile(external(tmp_path, "weights", offset="much"))
    with pytest.raises(ValueError, match=r"tensor 'w' is in 'a\\x00b': "):
        fc.compile(external(tmp_path, "a\0b"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"tensor 'w' is in 'pipe': it is no file"):
        fc.compile(external(tmp_path, "pipe"))


def test_damaged_files(tmp_path):
    text = convolution().SerializeToString()
    path = tmp_path / "net.onnx"
    for spoilt in (b"", b"nothing of the kind", text[:100], text[: len(text) // 2]):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"net\.onnx is no ONNX model"):
            fc.compile(path)
    with pytest.raises(FileNotFoundError):
        fc.compile(tmp_path / "other.onnx")
    with pytest.raises(IsADirectoryError):
        fc.compile(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    for endless in ("/dev/zero", tmp_path / "pipe.onnx"):
        with pytest.raises(ValueError, match="is no ONNX model that can be read: it is no file"):
            fc.compile(endless)


def test_tensors_that_declare_other_sizes():
    for dims in ([4, 3, 3, 1 << 40], [4, 3, 3, 4], [4, 3, 3, -3], [1 << 62] * 4):
        model = convolution()
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        with pytest.raises(ValueError, match=r"tensor 'w' of shape .* is damaged"):
            fc.compile(model)


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_million_nodes():
    model = model_of([node("Relu")], {"x": X})
    model.graph.node.extend([node("Relu", "y", "z")] * 1_000_000)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"node 'the Relu' is number 50001; models of up to 50000 nodes are read"):
        fc.compile(model)
    assert time.monotonic() - start < 20


def test_many_nodes_in_a_row():
    """The time grows with their number, not with its square."""
    n = 3000
    nodes = [node(("Sigmoid", "Identity", "Neg")[i % 3], f"v{i}", f"v{i + 1}") for i in range(n)]
    start = time.monotonic()
    net = fc.compile(model_of(nodes, {"v0": X}, (), (f"v{n}",)))
    assert time.monotonic() - start < 60
    assert np.isfinite(net(X)).all()


def nested(depth):
    inner = helper.make_graph([node("Neg", "x", "r")], "g", [], [helper.make_tensor_value_info("r", 1, None)])
    for i in range(depth):
        choice = helper.make_node("If", ["c"], ["r"], f"choice {i}", then_branch=inner, else_branch=inner)
        inner = helper.make_graph([choice], "g", [], [helper.make_tensor_value_info("r", 1, None)])
    return helper.make_node("If", ["c"], ["y"], "the first", then_branch=inner, else_branch=inner)


def test_graphs_within_graphs(tmp_path):
    """Both branches at each level, so that what is written once is there 2^n times; as a chain it goes deeper."""
    model = model_of([nested(2)], {"x": X, "c": np.array(True)})
    assert np.array_equal(fc.compile(model)(X, np.array(True)), -X)
    chain = helper.make_graph([node("Neg", "x", "r")], "g", [], [helper.make_tensor_value_info("r", 1, None)])
    leaf = helper.make_graph([node("Abs", "x", "r")], "g", [], [helper.make_tensor_value_info("r", 1, None)])
    for i in range(25):
        choice = helper.make_node("If", ["c"], ["r"], f"choice {i}", then_branch=chain, else_branch=leaf)
        chain = helper.make_graph([choice], "g", [], [helper.make_tensor_value_info("r", 1, None)])
    first = helper.make_node("If", ["c"], ["y"], "the first", then_branch=chain, else_branch=leaf)
    model = model_of([first], {"x": X, "c": np.array(True)})
    with pytest.raises(ValueError, match=r"node 'choice \d+' lies 17 graphs deep in others; 16 are read"):
        fc.compile(model)


def functions(bodies):
    model = model_of([helper.make_node("f0", ["x"], ["y"], "the call", domain="own")], {"x": X})
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for i, names in enumerate(bodies):
        inner = [f"v{k}" for k in range(1, len(names))]
        ends = ["a", *inner, "b"]
        made = [
            helper.make_node(op, [ends[k]], [ends[k + 1]], f"f{i} {k}", domain="" if op == "Neg" else "own")
            for k, op in enumerate(names)
        ]
        model.functions.append(helper.make_function("own", f"f{i}", ["a"], ["b"], made, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def test_functions_that_grow():
    assert np.array_equal(fc.compile(functions([["f1", "f1"], ["Neg", "Neg", "Neg"]]))(X), X)
    with pytest.raises(ValueError, match=r"functions of the model call themselves: f\d"):
        fc.compile(functions([["f1"], ["f0"]]))
    with pytest.raises(ValueError, match=r"functions of the model call themselves: f0"):
        fc.compile(functions([["f0"]]))
    doubling = [[f"f{i + 1}"] * 2 for i in range(60)]
    with pytest.raises(ValueError, match=r"node 'f\d+ \d' is number \d+, with functions put in place; models of up to"):
        fc.compile(functions([*doubling, ["Neg"]]))


def test_constants_that_grow():
    """Each makes one of 128 MiB of a shape."""
    nodes = [node("ConstantOfShape", "shape", f"c{i}") for i in range(64)]
    nodes.append(node("Add", "x,c0"))
    model = model_of(nodes, {"x": X}, {"shape": ints([2, 6, 9, 310_000])})
    with pytest.raises(ValueError, match=r"node 'the ConstantOfShape' .*of constants takes more than 1024 MiB"):
        fc.compile(model)


@pytest.mark.parametrize("within", [False, True])
def test_shapes_of_more_elements_than_arrays_have_axes(within):
    """ONNX would infer as many axes; in a graph of a node, too, and of a shape that is computed."""
    long = (np.int64, (1 << 40,))
    nodes = [node("Neg", "s", "t"), node("Expand", "x,t", "e"), node("Shape", "e")]
    if within:
        body = helper.make_graph(nodes[1:], "g", [], [helper.make_tensor_value_info("y", TensorProto.INT64, None)])
        nodes[1:] = [helper.make_node("If", ["c"], ["y"], "choice", then_branch=body, else_branch=body)]
    inputs = {"x": X, "s": long, **({"c": np.array(True)} if within else {})}
    text = model_of(nodes, inputs).SerializeToString()
    code = f"import onnx, fastconv as fc; fc.compile(onnx.ModelProto.FromString({text!r}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if result.returncode or not within:  # what is in a branch may never run
        assert re.search(r"ValueError: node 'the Expand' .*its shape has 1099511627776 elements", result.stderr)
    short = model_of(nodes, {**inputs, "s": (np.int64, (4,))})
    given = [X, -np.array(X.shape), *([np.array(True)] if within else [])]
    assert fc.compile(short)(*given).tolist() == list(X.shape)


def test_an_order_in_which_nothing_can_be_computed():
    circle = [node("Add", "x,b", "a"), node("Relu", "a", "b"), node("Neg", "b")]
    with pytest.raises(ValueError, match=r"node 'the Add' \(Add\) reads 'b', which nothing before it computes"):
        fc.compile(model_of(circle, {"x": X}))


def test_fields_that_make_no_sense():
    """Found by spoiling models: an element type that nobody knows, sizes beyond all arrays, bytes that are no text."""
    model = convolution()
    model.graph.node[0].op_type = "Cast"
    model.graph.node[0].input.pop()
    model.graph.node[0].attribute.append(helper.make_attribute("to", 255))
    with pytest.raises(ValueError, match=r"node 'the Conv' \(Cast-17\): to has elements of type 255, which"):
        fc.compile(model)
    for shape in ((0, (1 << 63) - 1), (1 << 40, 1 << 40)):
        with pytest.raises(ValueError, match=r"input 'x' would be an array of shape \(\d+, \d+\)"):
            fc.compile(model_of([node("Identity")], {"x": (np.float32, shape)}))
    for text in (b"the Conv", b"Conv", b"w"):
        spoilt = convolution().SerializeToString().replace(text, text[:-1] + b"\xff")
        with pytest.raises(ValueError, match=r"the model has the name b'.*\\xff', which is no text in UTF-8"):
            fc.compile(onnx.ModelProto.FromString(spoilt))
    spoilt = single("Conv", {"pads": [1] * 4}, X[:, :3], [array(4, 3, 3, 3)], 17).SerializeToString()
    with pytest.raises(ValueError, match=r"^node 'the Conv' \(Conv\): "):
        fc.compile(onnx.ModelProto.FromString(spoilt.replace(b"pads", b"pad\xff")))
    norm = single("BatchNormalization", {}, X, [*[array(6)] * 3, np.full(6, -2, np.float32)], 15)
    assert np.isnan(fc.compile(norm)(X)).all()  # and no warning
    huge = [np.full(6, value, np.float32) for value in (3e38, np.inf, -np.inf, 1e-30)]
    nodes = [node("Conv", "x,w", "c"), node("BatchNormalization", "c,a,b,m,v")]
    constants = {"w": array(6, 6, 1, 1) * np.float32(1e38), **dict(zip("abmv", huge, strict=True))}
    assert not np.isfinite(fc.compile(model_of(nodes, {"x": X}, constants))(X)).any()
    with pytest.raises(NotImplementedError, match="the model is of opset 6 and cannot be made one of 7"):
        fc.compile(model_of([helper.make_node("PRelu", ["x"], [])], {"x": X}, opset=6))


# --- anything ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzz():
    if not TOOL.exists():
        pytest.skip("runs from the source tree only")
    spec = importlib.util.spec_from_file_location("fuzz_onnx", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_spoilt_models_run_or_are_errors(fuzz, tmp_path):
    """Some of those that tools/fuzz_onnx.py tries by the ten thousand."""
    files = [path for path in fuzz.sources([]) if path.stat().st_size < 100_000]
    outcomes = {}
    for number in range(200):
        rng = np.random.default_rng([1, number])
        text = fuzz.spoilt(files[int(rng.integers(len(files)))].read_bytes(), rng)
        outcome = fuzz.tried(text, tmp_path / "spoilt.onnx" if number % 2 else None)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["ran"] > 20
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("compile: ValueError")) > 20
