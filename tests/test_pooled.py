# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions that store the maxima of 2 x 2 of their outputs: the bits of pooling what they would have stored."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args, _config, _core, _costs, _plans, nn
from support import max_error

POOLING = ("winograd_f2", "winograd_f4", "winograd_f6")
F32 = np.dtype(np.float32)
RELU = _args.clamp_of(0.0, np.inf)


def fields_of(x, w, y, activation=_args.ACTIVATIONS[None], pooled=True, **options):
    """The core's problem over arrays whose axes are in the order NCHW, whatever their strides."""
    given = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **options}
    g = _args.geometry(2, x.shape, w.shape, *given.values(), "NCHW")
    if pooled:
        g = replace(g, out_size=tuple(n - n % 2 for n in g.out_size))
    return g.fields("forward", x.dtype, x.strides, w.strides, y.strides, activation)._replace(pooled=pooled)


def run(algorithm, x, w, b, y, threads=1, **options):
    fields, (src, wei, dst) = fields_of(x, w, y, **options), ((a.shape, a.strides) for a in (x, w, y))
    plan = _plans.core_plan(fields, algorithm, False, False, False, src, wei, dst, x.dtype)
    plan.execute(x, plan.pack(w, b, 1), None, None, None, y, threads)
    return y


def guarded(shape, last):
    """An array of NaN, channels last or first, as a part of one that is full of sevens; and that one."""
    n, c, h, w = shape
    around = np.full((n, h + 2, w + 2, c + 3) if last else (n, c + 3, h + 2, w + 2), 7, np.float32)
    inner = around.transpose(0, 3, 1, 2) if last else around
    inner = inner[:, 1 : c + 1, 1:-1, 1:-1]
    inner[...] = np.nan
    return inner, around


def check(algorithm, x, w, b, layouts, **options):
    """The same bits as of two steps, on one thread and on three, and nothing around them."""
    read, written = layouts
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if read else x
    settings = {key: options[key] for key in ("stride", "padding", "groups") if key in options}
    shape = fc.conv2d(x, w, **{"padding": 1, **settings}).shape
    whole, _ = guarded(shape, written)
    expected = fc.max_pool2d(run(algorithm, x, w, b, whole, pooled=False, **options), 2)
    for threads in (1, 3):
        y, around = guarded(expected.shape, written)
        run(algorithm, x, w, b, y, threads, **options)
        np.testing.assert_array_equal(y, expected)
        y[...] = 7
        assert (around == 7).all()
    return expected


def arrays(size, inputs=5, outputs=7, kernel=(3, 3), groups=1, batch=2):
    rng = np.random.default_rng(sum(size) + inputs + outputs)
    x = rng.standard_normal((batch, inputs, *size), np.float32)
    w = rng.standard_normal((outputs, inputs // groups, *kernel), np.float32)
    return x, w, rng.standard_normal(outputs, np.float32)


each_algorithm = pytest.mark.parametrize("algorithm", POOLING)
each_layout = pytest.mark.parametrize("layouts", list(product((False, True), (False, True))))


@each_algorithm
@each_layout
@pytest.mark.parametrize("outputs", [1, 8, 16, 33, 64])
def test_sizes_around_tiles(algorithm, layouts, outputs):
    """Odd numbers of rows and columns lose the last one, as pooling has it."""
    for size in ((2, 2), (3, 5), (4, 4), (5, 9), (6, 7), (8, 6), (9, 13), (12, 12), (4, 71), (3, 147)):
        check(algorithm, *arrays(size, outputs=outputs), layouts)


@each_algorithm
@each_layout
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((5, 5), {"padding": 2}),
        ((2, 2), {}),
        ((4, 4), {"padding": ((2, 1), (0, 3))}),
        ((7, 6), {"padding": 3}),
        ((3, 3), {"stride": 2}),
        ((3, 3), {"groups": 3}),
        ((3, 3), {"activation": RELU}),
        ((3, 3), {"activation": _args.clamp_of(-0.5, 0.25)}),
    ],
)
def test_forms(algorithm, layouts, kernel, options):
    check(algorithm, *arrays((13, 18), 6, 21, kernel, options.get("groups", 1)), layouts, **options)


@each_algorithm
@each_layout
@pytest.mark.parametrize("activation", [_args.ACTIVATIONS[None], RELU])
def test_numbers_that_are_not_finite(algorithm, layouts, activation):
    """NaN is a maximum, as it is of a pooling; a bias that is infinite meets the other infinity before the maximum."""
    x, w, b = arrays((14, 15), outputs=20)
    places = (0, 1, 2, 3), (0, 3, 9, 9), (1, 0, 0, 14), (1, 4, 13, 0)
    for place, value in zip(places, (np.nan, np.inf, -np.inf, 3e38), strict=True):
        x[place] = value
    b[[1, 18]] = np.inf, np.nan
    y = check(algorithm, x, w, b, layouts, activation=activation)
    assert np.isnan(y).any()
    assert np.isfinite(y).any()


@each_algorithm
def test_images_of_nothing_but_infinity_and_zeros_of_both_signs(algorithm):
    for value in (-np.inf, -0.0):
        x, w = np.full((1, 3, 9, 9), value, np.float32), np.ones((18, 3, 3, 3), np.float32)
        for b, layouts in product((None, np.full(18, -0.0, np.float32)), product((False, True), (False, True))):
            check(algorithm, x, w, b, layouts)


def verdicts(fields, strict=False):
    said = _core.explain(fields, _config.ISA, strict, False, _costs.nominal().seconds)
    return {name: refusal for name, refusal, _ in said}


def test_who_serves():
    """All others refuse, and say why; and so do those where a window would lie in two tiles."""
    x, w, _ = arrays((8, 8))
    y = np.empty((2, 7, 4, 4), np.float32)
    said = verdicts(fields_of(x, w, y))
    assert {name for name, refusal in said.items() if refusal is None} == set(POOLING)
    assert all("pooled" in refusal for refusal in said.values() if refusal)
    assert all(verdicts(fields_of(x, w, y), strict=True).values())
    assert all(verdicts(fields_of(x.astype(float), w.astype(float), y.astype(float))).values())
    row = verdicts(fields_of(x, w[:, :, :1], y, padding=(0, 1)))
    assert all("pooled" in refusal for refusal in row.values())
    with pytest.raises(NotImplementedError, match="pooled"):
        run("direct", x, w, None, y)


def test_what_cannot_be_asked_for():
    x, w, _ = arrays((8, 8))
    fields = fields_of(x, w, np.empty((2, 7, 4, 4), np.float32))
    sizes = [(a[0], a[1] - 1, *a[2:]) if i == 2 else a for i, a in enumerate(fields.axis)]
    for wrong in (
        {"axis": tuple(sizes)},
        {"direction": 1},
        {"activation": _args.activation_of("tanh")[0]},
        {"types": (2, 2, 0, 2)},
    ):
        with pytest.raises(ValueError, match=r"pooled|paired"):
            verdicts(fields._replace(**wrong))


# --- networks -------------------------------------------------------------------------------------


def network(channels: int, seed: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, rng=seed), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, channels, 3, padding=1, rng=seed + 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, rng=seed + 2), nn.MaxPool2d(2), nn.SiLU(), nn.BatchNorm2d(2 * channels),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(("channels", "size"), list(product((4, 32, 48), (29, 64))))
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_networks(channels, size, layout):
    """With and without the pass; the same bits where both take the same algorithms, and on any number of threads."""
    model = network(channels, channels + size)
    shape = (3, 3, size, size) if layout == "NCHW" else (3, size, size, 3)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    for options in ({}, {"batch_invariant": True}, {"precision": "strict"}):
        open_shape = (None, *x.shape[1:])
        joined = fc.compile(model, open_shape, layout=layout, **options)
        apart = fc.compile(model, open_shape, layout=layout, without=["fuse_pooling"], **options)
        assert sum(node.op == "max_pool" for node in joined.graph.nodes) == 0
        expected, y = apart(x), joined(x)
        assert max_error(y, expected) < 1e-4
        algorithms = [
            [row.algorithm for row in net.summary() if row.operator.startswith("conv")] for net in (joined, apart)
        ]
        if algorithms[0] == algorithms[1]:
            np.testing.assert_array_equal(y, expected)
        with fc.threads(1):
            np.testing.assert_array_equal(joined(x), y)
        if "batch_invariant" in options:
            assert all(np.array_equal(joined(x[i : i + 1])[0], y[i]) for i in range(len(x)))


def test_where_it_pays():
    """Wide layers are joined; where precision or the algorithm leave Winograd no place, both steps are there."""
    model, shape = network(64, 1), (1, 3, 64, 64)
    pools = [
        row.name for row in fc.compile(model, shape, without=["fuse_pooling"]).summary() if row.operator == "max_pool"
    ]
    assert len(pools) == 3
    rows = list(fc.compile(model, shape, precision="strict").summary())
    assert [row.name for row in rows if row.operator == "max_pool"] == pools
    net = fc.compile(model, shape)
    rows = list(net.summary())
    assert not any(row.operator == "max_pool" for row in rows)
    assert [row.algorithm for row in rows if row.operator == "conv+max_pool"] == ["winograd_f4"] * 3
    assert "64×16×16" in str(net.summary())
    profile = net.profile(np.zeros(shape, np.float32))
    assert [row.name for row in profile][:-1] == [row.name for row in rows]
    assert "<svg" in profile.to_svg()


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_files(tmp_path, ending):
    model, x = network(32, 3), np.random.default_rng(1).standard_normal((2, 3, 40, 40), np.float32)
    net = fc.compile(model, x.shape)
    net.save(tmp_path / f"net{ending}")
    again = fc.load_net(tmp_path / f"net{ending}")
    np.testing.assert_array_equal(again(x), net(x))
    assert [row.name for row in again.summary()] == [row.name for row in net.summary()]


def test_an_image_that_is_too_small():
    model = nn.Sequential(nn.Conv2d(3, 32, 3, rng=0), nn.MaxPool2d(2)).eval()
    with pytest.raises(ValueError, match=r"pool|window|kernel"):
        fc.compile(model, (1, 3, 3, 3))
    assert fc.compile(model, (None, 3, None, None))(np.zeros((0, 3, 8, 8), np.float32)).shape == (0, 32, 3, 3)


class Branches(nn.Module):
    """Results that go into parts of a concatenation, and one that others read before it is pooled."""

    def __init__(self, channels: int) -> None:
        self.relu, self.pool, self.join, self.ends = nn.ReLU(), nn.MaxPool2d(2), nn.Concat(), nn.Concat()
        self.stem = nn.Conv2d(3, channels, 3, padding=1, rng=0)
        self.left = nn.Conv2d(channels, channels, 3, padding=1, rng=1)
        self.right = nn.Conv2d(channels, channels + 3, 3, padding=1, rng=2)
        self.last = nn.Conv2d(2 * channels + 3, channels, 3, padding=1, rng=3)

    def forward(self, x):
        x = self.relu(self.stem(x))
        y = self.join(self.pool(self.relu(self.left(x))), self.pool(self.right(x)))
        return self.ends(self.pool(self.pool(x)), self.pool(self.last(y)))


@pytest.mark.parametrize("size", [16, 33, 50])
def test_branches(size):
    model = Branches(29).eval()
    x = np.random.default_rng(2).standard_normal((2, 3, size, size + 3), np.float32)
    joined, apart = fc.compile(model, x.shape), fc.compile(model, x.shape, without=["fuse_pooling"])
    assert sum(node.op == "max_pool" for node in joined.graph.nodes) == 2
    assert max_error(joined(x), apart(x)) < 1e-4
