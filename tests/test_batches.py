# SPDX-License-Identifier: BSD-3-Clause
"""Networks whose front runs for one part of the batch after the other: the same results, less memory."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.graph import Graph, batches
from fastconv.graph.passes import run_passes
from graphs import Random, interpret
from support import max_error
from test_compile import compiled, results


@pytest.fixture
def cut(monkeypatch):
    """Has networks cut behind so many nodes, into as many parts as there are images, whether that pays or not."""
    asked, fronts, leaving, front = [], [], batches._leaving, batches.front

    def only_there(graph, count, readers):
        return leaving(graph, count, readers) if asked[-1] in (None, count) else None

    def noted(*given):
        fronts.append(front(*given))
        return fronts[-1]

    def at(count=None):
        """None: as far behind as can be."""
        asked.append(count)
        monkeypatch.setattr(batches, "_STEP", -1.0)
        monkeypatch.setattr(batches, "_GAIN", 0.0)
        monkeypatch.setattr(batches, "_leaving", only_there)
        monkeypatch.setattr(batches, "front", noted)
        return fronts

    return at


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_random_graphs_cut_anywhere(first, cut):
    """Values that leave are read once, twice, returned, and parts of concatenations; outputs may be all that leaves."""
    found = 0
    for seed in range(first, first + 6):
        made = Random(seed, batch=3)
        run_passes(made.graph)
        expected = interpret(made.graph, made.inputs)
        for count in range(1, len(made.graph.nodes) + 1):
            fronts = cut(count)
            net = compiled(made.graph)
            found += fronts[-1] is not None
            for y, right in zip(results(net, made.inputs), expected, strict=True):
                assert max_error(y, right) < 1e-11, (seed, count, str(made.graph))
    assert found > 3


@pytest.mark.parametrize("last", [False, True])
def test_a_cut_network_has_the_bits_of_its_images(cut, last):
    """Each image is what it is alone, on any number of threads, whatever lies in the arena before."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()
    )
    shape = (6, 12, 12, 3) if last else (6, 3, 12, 12)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    options = {"layout": "NHWC"} if last else {}
    fronts = cut()
    net = fc.compile(model.eval(), shape, **options)
    assert fronts[-1] is not None
    assert fronts[-1].parts == 6
    alone = fc.compile(model, (1, *shape[1:]), **options)
    right = np.concatenate([alone(x[i : i + 1]) for i in range(6)])
    for threads in (1, 2, 3):
        with fc.threads(threads):
            np.testing.assert_array_equal(net(x), right)


def test_what_is_cut_needs_less_memory_and_says_what_it_did(cut):
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 49, 5)
    ).eval()
    x = np.random.default_rng(2).standard_normal((8, 3, 16, 16)).astype(np.float32)
    whole = fc.compile(model, x.shape)
    fronts = cut()
    net = fc.compile(model, x.shape)
    assert fronts[-1] is not None
    assert fronts[-1].nodes < 4
    assert max_error(net(x), whole(x)) < 1e-6
    assert net.memory.arena < whole.memory.arena / 2
    ours, theirs = (list(n.profile(x, repeats=2).rows) for n in (net, whole))
    assert [(r.name, r.shape, r.gflop, r.reads) for r in ours] == [(r.name, r.shape, r.gflop, r.reads) for r in theirs]
    assert all(r.milliseconds is not None and r.milliseconds >= 0 for r in ours)


def test_steps_in_python_take_the_batch_as_it_is(cut):
    """Those of layers that no graph knows end the front; numbers that no kernel takes leave none."""

    class Sorted(nn.Module):
        def forward(self, x):
            return np.sort(x, axis=1)

    def made(dtype):
        first, last = (nn.Conv2d(*channels, 3, dtype=dtype, rng=0) for channels in ((2, 3), (3, 2)))
        return nn.Sequential(first, nn.ReLU(), Sorted(), last).eval()

    x = np.random.default_rng(3).standard_normal((4, 2, 8, 8))
    fronts = cut()
    for dtype, there in ((np.float32, True), (np.float16, False)):
        given = x.astype(dtype)
        model = made(dtype)
        net = fc.compile(model, x.shape)
        assert any(step.times == 4 for step in net._any_program().steps) == there
        np.testing.assert_allclose(net(given), model(given), rtol=0, atol=1e-5 if there else 2e-2)
    assert fronts[-1] is not None


def test_axes_that_only_look_like_images_stay_whole(cut):
    """Eight rows of eight are added to each of eight images: one of them would fit, too."""
    graph = Graph("rows")
    image, rows = graph.input("image", (8, 3, 8, 8), np.float64), graph.input("rows", (8, 8), np.float64)
    graph.outputs = [graph.add("map", [image, rows], program=(("add", 1),))]
    rng = np.random.default_rng(4)
    given = [rng.standard_normal(value.shape) for value in graph.inputs]
    fronts = cut()
    (y,) = results(compiled(graph), given)
    assert fronts[-1] is None
    np.testing.assert_array_equal(y, given[0] + given[1])


def test_where_a_batch_is_cut():
    """Wide activations go part by part; what weighs more than they do, and what any cache holds, stays whole."""
    times = {}
    for size in (8, 128):
        model = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(256, 8192), nn.Linear(8192, 4),
        )  # fmt: skip
        net = fc.compile(model.eval(), (16, 64, size, size))
        times[size] = [step.times for step in net._any_program().steps]
    assert set(times[8]) == {1}
    assert times[128][0] == times[128][1] > 1
    assert times[128][-2:] == [1, 1]
