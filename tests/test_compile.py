# SPDX-License-Identifier: BSD-3-Clause
"""Compiled networks compute what their graph means, whatever has been fused, moved or left out."""

import pickle
import threading
from itertools import product

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.graph import PASSES, CompiledNet, Graph, run_passes
from fastconv.graph.listing import Options
from fastconv.graph.programs import clamp
from graphs import Random, interpret
from support import max_error, tolerance

SEEDS = range(24)


def compiled(graph, **options) -> CompiledNet:
    return CompiledNet(graph, Options(**options), None, False, 8)


def results(net: CompiledNet, inputs) -> list[np.ndarray]:
    y = net(*inputs)
    return list(y) if isinstance(y, tuple) else [y]


# --- the meaning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_keep_their_meaning(seed):
    """After all passes, before any, and without each of them."""
    for without in ([], list(PASSES), *([name] for name in PASSES)):
        made = Random(seed)
        expected = interpret(made.graph, made.inputs)
        run_passes(made.graph, without)
        for after in interpret(made.graph, made.inputs), results(compiled(made.graph), made.inputs):
            for y, right in zip(after, expected, strict=True):
                assert max_error(y, right) < 1e-11, (without, str(made.graph))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_in_float32(seed):
    """Also with channels last outside, and the same bits on one thread and on three."""
    made, wide = Random(seed, np.float32), Random(seed)
    expected = interpret(wide.graph, [x.astype(np.float64) for x in made.inputs])
    run_passes(made.graph)
    found = results(compiled(made.graph), made.inputs)
    for y, right in zip(found, expected, strict=True):
        assert max_error(y, right) < 2e-4
    last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in made.inputs]
    for y, right in zip(results(compiled(made.graph, last=True), last), expected, strict=True):
        assert max_error(y, right if right.ndim < 3 else right.transpose(0, 2, 3, 1)) < 2e-4
    net = compiled(made.graph)
    for threads in (1, 3):
        with fc.threads(threads):
            assert all(map(np.array_equal, results(net, made.inputs), found))


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_is_never_read_before_it_is_written(seed, monkeypatch):
    """The arena is full of NaN, and no buffer that is still needed is written over."""
    made = Random(seed)
    run_passes(made.graph)
    net = compiled(made.graph)
    expected = interpret(made.graph, made.inputs)
    take = net._arena

    def poisoned(nbytes):
        arena = take(nbytes)
        arena[...] = 0xFF
        return arena

    monkeypatch.setattr(net, "_arena", poisoned)
    for _ in range(2):
        for y, right in zip(results(net, made.inputs), expected, strict=True):
            assert max_error(y, right) < 1e-11
    m = net.memory
    assert m.least <= m.arena


# --- modules --------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block, with a sum and a product that are no layers."""

    def __init__(self, channels: int, rng: int) -> None:
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, rng=rng)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, rng=rng + 1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + x) * 0.5


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, rng=0), Block(8, 1), nn.MaxPool2d(2), Block(8, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5, rng=9),
    )  # fmt: skip
    rng = np.random.default_rng(5)
    for buffer in model.buffers():
        if buffer.dtype == np.float32:
            buffer.data = rng.random(buffer.shape, np.float32) + 0.5
    return model.eval()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, 3, 16, 16), dtype=np.float32)


def test_a_module_is_fused(images):
    model = network()
    net = fc.compile(model, images.shape)
    assert max_error(net(images), model(images)) < 1e-5
    operators = [step.operator for step in net.summary()]
    assert operators.count("conv") == 5 + 2  # and the products, behind two of them
    assert "batch_norm" not in operators
    assert "map" not in operators


def test_a_linear_layer_along_an_axis_that_is_not_the_last_in_memory():
    """Its input and its result are put into order by copies, not in Python."""
    model = nn.Sequential(nn.Linear(6, 8, rng=0), nn.ReLU()).eval()
    x = np.random.default_rng(2).standard_normal((2, 4, 5, 6), dtype=np.float32)
    net = fc.compile(model, (2, 5, 6, 4), layout="NHWC")
    y = net(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    assert max_error(y.transpose(0, 3, 1, 2), model(x)) < 1e-6
    assert [step.algorithm for step in net.summary()] == ["copy", "pointwise", "copy"]


#: Weight and attributes of a convolution of 16 channels.
CONVOLUTIONS = {
    "3x3": ((40, 16, 3, 3), {"padding": 1}),
    "1x1": ((70, 16, 1, 1), {}),
    "strided": ((24, 16, 3, 3), {"stride": 2}),
    "depthwise": ((16, 1, 3, 3), {"padding": 1, "groups": 16}),
    "one output": ((1, 16, 5, 5), {}),
    "transposed": ((16, 12, 2, 2), {"stride": 2, "transposed": True}),
    "phases": ((16, 12, 3, 3), {"stride": 2, "transposed": True}),
}
FUNCTIONS = (
    ("elu", 0.7), ("gelu",), ("gelu_tanh",), ("hardswish",), ("leaky_relu", 0.1), ("mish",), ("sigmoid",), ("silu",),
    ("softplus",), ("tanh",),
)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_activations_are_applied_where_the_layer_stores(name, layout, dtype):
    shape, attributes = CONVOLUTIONS[name]
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((2, 16, 11, 9)).astype(dtype), rng.standard_normal(shape).astype(dtype) / 4
    for function in FUNCTIONS:
        graph = Graph("activated")
        value = graph.add("conv", [graph.input("x", x.shape, dtype), graph.constant(weight)], **attributes)
        graph.outputs = [graph.add("map", [value], program=(function,)), value]
        expected, sums = interpret(graph, [x])
        del graph.outputs[1]
        run_passes(graph)
        net = CompiledNet(graph, Options(last=layout == "NHWC"), None, False, 1)
        assert len(list(net.summary())) == 1, function
        y = net(x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        y = y if layout == "NCHW" else y.transpose(0, 3, 1, 2)
        bound = 2 * tolerance(dtype, 16 * weight[0, 0].size)  # slopes are below 1.2
        assert max_error(y, expected, np.abs(sums).max()) < bound, function


def test_sizes_that_vary(images):
    model = network()
    for shape in (None, (None, 3, None, None), (None, 3, 16, 16)):
        net = fc.compile(model, shape)
        for n in (1, 2, 0):
            y = net(images[:n])
            assert y.shape == (n, 5)
            assert n == 0 or max_error(y, model(images[:n])) < 1e-5
    net = fc.compile(model, (None, 3, None, None), cache_size=3)
    for size in range(8, 20):
        wide = np.ones((1, 3, size, 16), np.float32)
        assert max_error(net(wide), model(wide)) < 1e-5
    assert net.memory.programs == 3
    assert net.memory.packed == fc.compile(model, (1, 3, 19, 16)).memory.packed or net.memory.packed > 0


def test_the_batch_does_not_matter(images):
    net = fc.compile(network(), (None, 3, 16, 16), batch_invariant=True)
    both = net(images)
    assert np.array_equal(net(images[:1]), both[:1])
    assert np.array_equal(net(images[1:]), both[1:])


def test_many_threads_call_one_net(images):
    net = fc.compile(network(), (None, 3, 16, 16))
    expected = [net(images), net(images[:1])]
    wrong = []

    def call():
        for _ in range(20):
            for x, right in zip((images, images[:1]), expected, strict=True):
                if not np.array_equal(net(x), right):
                    wrong.append(x.shape)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_channels_last_outside(images):
    model = network()
    net = fc.compile(model, (2, 16, 16, 3), layout="NHWC")
    assert net.inputs[0].shape == (2, 16, 16, 3)
    assert max_error(net(images.transpose(0, 2, 3, 1)), model(images)) < 1e-5


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("op", ["conv", "map"])
def test_a_reshape_at_the_end(op, layout):
    """Its result has its channels last in memory, and what it reads has not."""
    rng, graph = np.random.default_rng(0), Graph()
    x = graph.input("x", None, np.float32)
    if op == "conv":
        y = graph.add("conv", [x, graph.constant(rng.standard_normal((4, 4, 1, 1), np.float32))])
    else:
        y = graph.add("map", [graph.add("flatten", [x])], program=(("affine", 2.0, 0.0),))
    graph.outputs = [graph.add("reshape", [y], shape=(0, 4, 6, 6))]
    image = rng.standard_normal((2, 4, 6, 6), np.float32)
    (right,) = interpret(graph, [image])
    net = CompiledNet(graph, Options(last=layout == "NHWC"), None, False, 1)
    if layout == "NHWC":
        image, right = image.transpose(0, 2, 3, 1), right.transpose(0, 2, 3, 1)
    assert max_error(net(image), right) < 1e-5


class Median(nn.Module):
    """A layer that no graph knows."""

    def forward(self, x):
        return np.sort(x, axis=1)[:, ::2]


def test_what_only_python_knows_is_a_step(images, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0), Median(), nn.ReLU(), nn.Conv2d(4, 2, 1, rng=1)).eval()
    net = fc.compile(model, images.shape)
    assert max_error(net(images), model(images)) < 1e-5
    assert [step.operator for step in net.summary()].count("python") == 1
    with pytest.raises(ValueError, match="node '1' calls Python"):
        net.save(tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_dtypes(images, dtype):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, dtype=dtype, rng=0), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = images.astype(dtype)
    net = fc.compile(model, x.shape)
    assert net(x).dtype == dtype
    assert max_error(net(x), model(x)) < (1e-12 if dtype == np.float64 else 2e-3)


def test_an_input_can_be_an_output(images):
    class Same(nn.Module):
        def forward(self, x):
            return x, x

    a, b = fc.compile(Same().eval(), images.shape)(images)
    assert np.array_equal(a, images)
    assert np.array_equal(b, images)
    assert a is not b
    assert not np.shares_memory(a, images)


class Two(nn.Module):
    def __init__(self) -> None:
        self.left, self.right = nn.Conv2d(3, 4, 1, rng=0), nn.Conv2d(3, 4, 1, rng=1)

    def forward(self, image, mask):
        return self.left(image) + self.right(mask)


def test_several_inputs(images):
    net = fc.compile(Two().eval(), {"image": images.shape, "mask": images.shape})
    assert [t.name for t in net.inputs] == ["image", "mask"]
    y = net(images, images * 2)
    assert np.array_equal(net(mask=images * 2, image=images), y)
    assert np.array_equal(net(images, mask=images * 2), y)
    with pytest.raises(TypeError, match="'mask' is missing"):
        net(image=images)
    with pytest.raises(TypeError, match="'other' is unknown; the inputs are image, mask"):
        net(images, images, other=images)
    with pytest.raises(ValueError, match="1 inputs are given; the network needs 2"):
        net(images)


LAYERS = {
    "softmax": ("softmax", {"axis": 1}),
    "softmax of rows": ("softmax", {"axis": -1}),
    "log softmax": ("softmax", {"axis": 2, "log": True}),
    "layer norm": ("layer_norm", {"shape": (9, 7), "eps": 1e-5}),
    "group norm": ("group_norm", {"groups": 3, "eps": 1e-5}),
    "instance norm": ("group_norm", {"groups": 6, "eps": 1e-5}),
    "response norm": ("local_response_norm", {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0}),
    "mean of pixels": ("reduce", {"kind": "mean", "axes": (2, 3)}),
    "mean, kept": ("reduce", {"kind": "mean", "axes": (-1, -2), "keep": True}),
    "maxima": ("reduce", {"kind": "max", "axes": (1,)}),
    "sum of all": ("reduce", {"kind": "sum", "axes": None}),
    "nearest": ("resize", {"scale_factor": 2, "mode": "nearest"}),
    "bilinear": ("resize", {"size": (5, 16), "mode": "bilinear", "align_corners": True}),
}


def test_a_column_is_added_to_the_rows_of_a_linear_layer():
    """It broadcasts with the layer's result, not with the image that the convolution sees in it."""
    rng = np.random.default_rng(0)
    graph = Graph("rows")
    x = graph.input("x", (3, 5), np.float32)
    y = graph.add("linear", [x, graph.constant(rng.standard_normal((4, 5), np.float32))])
    column = graph.constant(rng.standard_normal((3, 1), np.float32))
    graph.outputs = [graph.add("map", [y, column], program=(("add", 1), clamp(0)))]
    rows = rng.standard_normal((3, 5), np.float32)
    right = interpret(graph, [rows])[0]
    run_passes(graph)
    assert [node.op for node in graph.nodes] == ["linear"]
    assert max_error(compiled(graph)(rows), right) < 1e-5


@pytest.mark.parametrize("padding", [((2, 0), (0, 1)), ((0, 2), (1, 0))])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_pooling_with_another_padding_on_each_side(op, ceil, padding):
    """As of an image with that border, of windows that begin before what lies behind it."""
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 9)).astype(np.float32)
    kernel, stride = (3, 2), (2, 3)
    graph = Graph("pool")
    more = {"count_include_pad": False} if op == "avg_pool" else {}
    given = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil, **more}
    graph.outputs = [graph.add(op, [graph.input("x", x.shape, x.dtype)], **given)]
    net = compiled(graph)
    y = net(x)
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *((b, a + 9) for b, a in padding)), constant_values=np.nan)
    starts = []
    for n, k, s, (before, after) in zip(x.shape[2:], kernel, stride, padding, strict=True):
        last = n + before - 1 if ceil else n + before + after - k
        starts.append([i for i in range(0, last + 1, s) if not ceil or i < n + before + after - k + s])
    assert y.shape[2:] == tuple(map(len, starts))
    fold = np.nanmax if op == "max_pool" else np.nanmean
    for (i, h), (j, w) in product(enumerate(starts[0]), enumerate(starts[1])):
        window = wide[:, :, h : h + kernel[0], w : w + kernel[1]]
        if not np.isnan(window).all():
            assert max_error(y[:, :, i, j], fold(window, axis=(2, 3))) < 1e-6
    assert np.array_equal(interpret(graph, [x])[0], y)
    assert "python" not in [step.algorithm for step in net.summary()]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_fold_axes(name, last, behind):
    """Behind a convolution, and on the input itself."""
    op, attributes = LAYERS[name]
    rng = np.random.default_rng(0)
    graph = Graph("layers")
    x = graph.input("x", (2, 6, 9, 7), np.float32)
    y = graph.add("conv", [x, graph.constant(rng.standard_normal((6, 6, 1, 1), np.float32))]) if behind else x
    given = []
    if op in ("layer_norm", "group_norm"):
        shape = attributes.get("shape", (6,))
        given = [graph.constant(rng.standard_normal(shape, np.float32)), None]
    y = graph.add(op, [y, *given], **attributes)
    graph.outputs = [graph.add("map", [y], program=(("affine", 2.0, 0.0),))]
    image = rng.standard_normal((2, 6, 9, 7), np.float32)
    net = compiled(graph, last=last)
    found = net(np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if last else image)
    right = interpret(graph, [image])[0]
    assert max_error(found, right.transpose(0, *range(2, right.ndim), 1) if last and right.ndim > 2 else right) < 1e-5
    assert "python" not in [step.algorithm for step in net.summary()]


# --- weights --------------------------------------------------------------------------------------


def test_a_network_is_a_snapshot(images):
    model = network()
    before = model(images)
    fixed, kept = fc.compile(model, images.shape), fc.compile(model, None, keep_weights=True)
    open_, later = fc.compile(model, (None, 3, None, None)), fc.compile(model)
    open_(images)
    next(iter(model.parameters())).data[...] += 1
    assert max_error(fixed(images), before) < 1e-5
    assert max_error(kept(images), before) < 1e-5
    assert max_error(open_(images), before) < 1e-5
    with pytest.raises(RuntimeError, match="have changed since it was compiled"):
        later(images)
    with pytest.raises(RuntimeError, match="keep_weights=True"):
        pickle.dumps(fixed)
    assert max_error(pickle.loads(pickle.dumps(kept))(images), before) < 1e-5


def test_packed_weights_are_shared_between_shapes():
    model = nn.Sequential(nn.Conv2d(32, 64, 1, rng=0), nn.ReLU(), nn.Conv2d(64, 32, 1, rng=1)).eval()
    net = fc.compile(model, (None, 32, 16, None))
    net(np.ones((1, 32, 16, 16), np.float32))
    one = net.memory.packed
    assert one >= 2 * 4 * 32 * 64
    for n in (2, 3, 4):
        net(np.ones((n, 32, 16, 16 + n), np.float32))
    assert net.memory.programs == 4
    assert net.memory.packed == one


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_files(images, tmp_path, ending):
    net = fc.compile(network(), (None, 3, 16, 16))
    net.save(tmp_path / f"net{ending}")
    loaded = fc.load_net(tmp_path / f"net{ending}")
    assert np.array_equal(loaded(images), net(images))
    assert loaded.inputs == net.inputs
    assert str(loaded.graph) == str(net.graph)


def test_a_file_of_weights_is_no_network(tmp_path):
    fc.save(network().state_dict(), tmp_path / "weights.npz")
    with pytest.raises(ValueError, match=r"weights.npz holds no network: .* fastconv.load reads weights"):
        fc.load_net(tmp_path / "weights.npz")


def test_damaged_files_are_errors(images, tmp_path):
    """Whatever has happened to the description."""
    import json

    net = fc.compile(network(), images.shape)
    net.save(tmp_path / "net.npz")
    arrays = fc.load(tmp_path / "net.npz")
    text = bytearray(arrays["fastconv.graph"].tobytes())
    described = json.loads(text.decode())
    rng = np.random.default_rng(0)
    changed = []
    for key in ("version", "inputs", "constants", "nodes", "outputs", "settings"):
        changed.append({k: v for k, v in described.items() if k != key})
    for i in range(len(described["nodes"])):
        for damage in ({"op": "unknown"}, {"op": "python"}, {"inputs": [10_000]}, {"inputs": [-1]}, {"attributes": {}}):
            nodes = [dict(node) for node in described["nodes"]]
            nodes[i].update(damage)
            changed.append({**described, "nodes": nodes})
    texts = [json.dumps(d).encode() for d in changed]
    for _ in range(60):
        spoilt = bytearray(text)
        for at in rng.integers(len(text), size=3):
            spoilt[at] = int(rng.integers(32, 127))
        texts.append(bytes(spoilt))
    for spoilt in texts:
        arrays["fastconv.graph"] = np.frombuffer(spoilt, np.uint8)
        fc.save(arrays, tmp_path / "spoilt.npz")
        try:
            fc.load_net(tmp_path / "spoilt.npz")
        except ValueError as error:
            assert "spoilt.npz holds no network" in str(error)  # noqa: PT017


# --- errors ---------------------------------------------------------------------------------------


def test_errors_name_the_node(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0), nn.Conv2d(4, 2, 1, rng=1)).eval()
    with pytest.raises(ValueError, match=r"node '1' \(conv\): .*4 input channels"):
        fc.compile(model, images.shape)
    with pytest.raises(TypeError, match=r"model is .*; it needs to be a fastconv.nn.Module"):
        fc.compile(lambda x: x, images.shape)
    with pytest.raises(ValueError, match="in training mode"):
        fc.compile(network().train(), images.shape)
    with pytest.raises(ValueError, match=r"without is \['magic'\]; the passes are fold_constants"):
        fc.compile(network(), images.shape, without=["magic"])
    with pytest.raises(TypeError, match="input_shape is 3"):
        fc.compile(network(), 3)
    with pytest.raises(ValueError, match="input_shape names 'y'; the inputs are input"):
        fc.compile(network(), {"y": (1, 3, 8, 8)})
    with pytest.raises(ValueError, match="input_shape is -1"):
        fc.compile(network(), (1, 3, -1, 8))


def test_errors_of_calls(images):
    net = fc.compile(network(), (None, 3, 16, 16))
    with pytest.raises(ValueError, match=r"input has shape \(2, 3, 16, 15\); the network needs \(any, 3, 16, 16\)"):
        net(images[..., :15])
    with pytest.raises(TypeError, match="input has dtype float64; the network needs float32"):
        net(images.astype(np.float64))
    with pytest.raises(ValueError, match="no shape of inputs is known yet"):
        net.summary()


def test_memory_that_cannot_be_had():
    with pytest.raises((MemoryError, ValueError)):
        fc.compile(network(), (1 << 30, 3, 1 << 10, 1 << 10))(np.ones((1, 3, 16, 16), np.float32))


# --- looks ----------------------------------------------------------------------------------------


def test_summary_and_profile(images):
    import json

    net = fc.compile(network(), images.shape)
    summary = net.summary()
    assert [row.name for row in summary][:2] == ["0", "1.conv1"]
    assert "GFLOP" in str(summary)
    assert "<table>" in summary._repr_html_()
    profile = net.profile(images, repeats=3)
    assert len(profile) == len(summary) + 1
    assert sum(row.of_time for row in profile) == pytest.approx(1, abs=0.2)
    assert json.loads(profile.to_json())["steps"][0]["name"] == "0"
    assert all(row.milliseconds >= 0 for row in profile)
    m = net.memory
    assert m.weights > 0
    assert m.peak == m.packed + m.arena + m.scratch


def test_networks_go_through_dask(images):
    dask = pytest.importorskip("dask.array")
    import fastconv.dask

    net = fc.compile(network(), (None, 3, 16, 16))
    many = np.concatenate([images] * 3)
    found = fastconv.dask.map_model(net, dask.from_array(many, chunks=(2, 3, 16, 16)))
    assert max_error(np.asarray(found), net(many)) < 1e-5
