# SPDX-License-Identifier: BSD-3-Clause
"""Blocks against one piece: borders, worker processes, and workers that die."""

import os
import pickle
import signal
import time

import numpy as np
import pytest

import fastconv as fc

da = pytest.importorskip("dask.array")
from fastconv import dask as fd  # noqa: E402

PADS = {"constant": "constant", "reflect": "symmetric", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}


def whole(x, weight, bias, stride, pads, dilation, groups, mode, cval):
    """The same in one piece: padded by NumPy, (N, C, *spatial)."""
    extra = {"constant_values": cval} if mode == "constant" else {}
    padded = np.pad(x, ((0, 0), (0, 0), *pads), PADS[mode], **extra)
    convolve = {2: fc.conv2d, 3: fc.conv3d}[weight.ndim - 2]
    return convolve(padded, weight, bias, stride, 0, dilation, groups, precision="strict")


def problem(seed, rank=2):
    """A random convolution, and blocks that do not care for it."""
    rng = np.random.default_rng(seed)
    most = 40 if rank == 2 else 16
    groups = int(rng.choice([1, 1, 2]))
    channels, outputs = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    size, kernel, dilation = rng.integers(12, most, rank), rng.integers(1, 6, rank), rng.integers(1, 3, rank)
    stride, pads = rng.integers(1, 4, rank), rng.integers(0, 5, (rank, 2))
    x = rng.standard_normal((int(rng.integers(1, 4)), channels, *size), np.float32)
    weight = rng.standard_normal((outputs, channels // groups, *kernel), np.float32)
    bias = rng.standard_normal(outputs, np.float32) if rng.random() < 0.5 else None
    chunks = tuple(int(min(n, c)) for n, c in zip(x.shape, rng.integers(2, 20, rank + 2), strict=True))
    geometry = (tuple(map(int, stride)), tuple((int(a), int(b)) for a, b in pads), tuple(map(int, dilation)), groups)
    return x, weight, bias, geometry, chunks


@pytest.mark.parametrize("mode", PADS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("seed", range(8))
def test_blocks_make_what_one_piece_makes(seed, layout, mode):
    x, weight, bias, (stride, pads, dilation, groups), chunks = problem(seed)
    cval = 0.0 if seed % 2 else 1.5
    expected = whole(x, weight, bias, stride, pads, dilation, groups, mode, cval)
    if layout == "NHWC":
        x, expected = np.moveaxis(x, 1, -1), np.moveaxis(expected, 1, -1)
        chunks = (chunks[0], *chunks[2:], chunks[1])
    lazy = fd.conv2d(
        da.from_array(x, chunks=chunks),
        weight,
        bias,
        stride,
        pads,
        dilation,
        groups,
        layout=layout,
        mode=mode,
        cval=cval,
    )
    assert lazy.shape == expected.shape
    assert lazy.dtype == np.float32
    result = lazy.compute(scheduler="synchronous")
    assert all(sum(sizes) == length for sizes, length in zip(lazy.chunks, result.shape, strict=True))
    # Sums of the same terms, in an order that may differ; the terms are products of normal numbers.
    terms = weight[0].size
    np.testing.assert_allclose(result, expected, rtol=0, atol=8 * np.sqrt(terms) * terms**0.5 * 2**-23)


def any_problem(seed):
    """Images down to one element under kernels and paddings far larger, and chunks down to one element."""
    rng = np.random.default_rng(seed)
    rank, mode = 2 + seed % 2, list(PADS)[seed // 2 % 5]
    size, kernel, dilation = (
        rng.integers(1, (14, 8)[rank - 2], rank),
        rng.integers(1, 6, rank),
        rng.integers(1, 4, rank),
    )
    reach = (kernel - 1) * dilation + 1
    pads = rng.integers(0, 2 + rng.choice([3, 30]) // rank, (rank, 2))
    pads[:, 1] += np.maximum(0, reach - size - pads.sum(axis=1))
    shape = (int(rng.integers(0, 3)), 2, *map(int, size))
    chunks = [tuple(cut(rng, n, int(rng.choice([1, 2, 5, 20])))) for n in shape]
    weight = rng.standard_normal((3, 2, *kernel), np.float32)
    geometry = rng.integers(1, 5, rank).tolist(), pads.tolist(), dilation.tolist(), 1
    return rng.standard_normal(shape, np.float32), weight, geometry, mode, chunks


def cut(rng, n, most):
    """Pieces of any size up to `most`, and empty ones among them."""
    pieces = []
    while n:
        pieces.append(min(n, int(rng.integers(0, most + 1))))
        n -= pieces[-1]
    return pieces or [0]


@pytest.mark.parametrize("first", range(0, 320, 40))
def test_small_images_under_large_windows(first):
    for seed in range(first, first + 40):
        x, weight, geometry, mode, chunks = any_problem(seed)
        bias = np.array([0.5, -1, 2], np.float32)
        expected = whole(x, weight, bias, *geometry, mode, 1.5)
        convolve = fd.conv2d if x.ndim == 4 else fd.conv3d
        lazy = convolve(da.from_array(x, chunks=chunks), weight, bias, *geometry, mode=mode, cval=1.5)
        assert lazy.shape == expected.shape, seed
        result = lazy.compute(scheduler="synchronous")
        assert result.shape == expected.shape, seed
        bound = 8 * 2**-23 * weight[0].size * float(np.abs(weight).max()) * (float(np.abs(x).max(initial=0)) + 1.5)
        assert np.abs(result - expected).max(initial=0) <= bound, seed


def test_wrapping_does_not_gather_what_blocks_can_do():
    """Padding that fits takes the other end; the graph does not grow with padding that does not."""
    x, weight = da.ones((1, 1, 90, 100), chunks=(1, 1, 30, 25), dtype=np.float32), np.ones((1, 1, 3, 3), np.float32)
    assert max(fd.conv2d(x, weight, padding=30, mode="wrap").chunks[2]) <= 60
    assert len(fd.conv2d(x[:, :, :2], weight, padding=((0, 10**6), (0, 0)), mode="wrap").dask) < 100


def test_an_image_without_a_batch():
    x = np.random.default_rng(0).random((3, 30, 30), np.float32)
    weight = np.random.default_rng(1).random((2, 3, 3, 3), np.float32)
    lazy = fd.conv2d(da.from_array(x, chunks=(1, 7, 11)), weight, padding="same", activation="relu")
    np.testing.assert_allclose(lazy.compute(), fc.conv2d(x, weight, padding="same", activation="relu"), rtol=1e-5)


SMALL = da.ones((1, 3, 8, 8), dtype=np.float32)
UNKNOWN = SMALL[..., SMALL[0, 0, 0] > 0.5]
MASKED = da.ma.masked_greater(SMALL, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((1, 3, 8, 8), np.float32)}, TypeError, r"x is a ndarray; it needs to be a dask\.array\.Array"),
        ({"weight": np.ones((2, 3, 3, 3))}, TypeError, "x has dtype float32 and weight float64"),
        ({"weight": np.ones((2, 4, 3, 3), np.float32)}, ValueError, "weight has shape"),
        ({"bias": np.ones(3, np.float32)}, ValueError, "bias has shape"),
        ({"mode": "symmetric"}, ValueError, "mode is 'symmetric'"),
        ({"mode": ["wrap"]}, ValueError, r"mode is \['wrap'\]"),
        ({"cval": "a"}, TypeError, "cval is 'a'; it needs a real number"),
        ({"cval": None}, TypeError, "cval is None; it needs a real number"),
        ({"x": UNKNOWN}, ValueError, r"x has shape \(1, 3, 8, nan\), with chunks of unknown sizes"),
        ({"x": MASKED}, TypeError, "x has blocks of type MaskedArray; it needs numpy.ndarray; fill it first"),
        ({"x": da.ones((1, 3, 0, 8), dtype=np.float32), "padding": 2, "mode": "wrap"}, ValueError, "x has shape"),
        ({"activation": "tanhh"}, ValueError, "activation is 'tanhh'"),
        ({"precision": "low"}, ValueError, "precision is 'low'"),
        ({"num_threads": 0}, ValueError, "num_threads is 0"),
        ({"stride": 0}, ValueError, "stride is 0"),
        ({"layout": "CHWN"}, ValueError, "layout is 'CHWN'"),
    ],
)
def test_errors_come_at_once(change, error, message):
    arguments = {"x": da.ones((1, 3, 8, 8), dtype=np.float32), "weight": np.ones((2, 3, 3, 3), np.float32), **change}
    with pytest.raises(error, match=message):
        fd.conv2d(arguments.pop("x"), arguments.pop("weight"), **arguments)


@pytest.mark.parametrize("mode", PADS)
@pytest.mark.parametrize("seed", range(4))
def test_volumes(seed, mode):
    x, weight, bias, geometry, chunks = problem(seed, 3)
    expected = whole(x, weight, bias, *geometry, mode, 0.5)
    lazy = fd.conv3d(da.from_array(x, chunks=chunks), weight, bias, *geometry, mode=mode, cval=0.5)
    np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), expected, rtol=0, atol=3e-6 * weight[0].size)


def test_a_task_travels_without_its_plans():
    geometry = fc._args.geometry(2, (1, 1, 9, 9), (1, 1, 3, 3), 1, 0, 1, 1, "NCHW")
    options = {"activation": None, "precision": "default", "mode": "constant", "cval": 0.0, "num_threads": 1}
    sides = {axis: fd._Side((9,), geometry, axis - 2) for axis in (2, 3)}
    task = fd._Convolution(np.ones((1, 1, 3, 3), np.float32), None, geometry, options, sides)
    block = np.ones((1, 1, 9, 9), np.float32)
    assert task(block, (0, 0, 0, 0)).max() == 9
    assert len(task.plans) == 1
    copy = pickle.loads(pickle.dumps(task))
    assert len(copy.plans) == 0
    assert np.array_equal(copy(block, (0, 0, 0, 0)), task(block, (0, 0, 0, 0)))


def test_a_task_runs_on_the_threads_it_is_given():
    seen = []

    def model(x):
        seen.append(fc.get_num_threads())
        return x

    x = da.ones((4, 3), chunks=(2, 3), dtype=np.float32)
    fd.map_model(model, x, num_threads=3).compute(scheduler="synchronous")
    threads = 3 if fc.config()["openmp"] else 1
    assert seen == [threads] * 3  # two blocks, and the sample that tells the shape of a result
    assert fc.get_num_threads() != 3 or fc.config()["cpus_available"] == 3


def test_models_make_a_row_of_each_image():
    x = da.ones((4, 3), chunks=(2, 3), dtype=np.float32)
    assert fd.map_model(lambda a: a.sum(axis=1), x).compute(scheduler="synchronous").tolist() == [3.0] * 4
    with pytest.raises(ValueError, match="it needs one row per image"):
        fd.map_model(lambda a: np.zeros((2, 2)), x)
    with pytest.raises(TypeError, match="it needs to be callable"):
        fd.map_model(None, x)
    with pytest.raises(TypeError, match=r"it needs to be a dask\.array\.Array"):
        fd.map_model(len, np.ones(3))
    with pytest.raises(ValueError, match="unknown sizes"):
        fd.map_model(len, UNKNOWN)


# ---------------------------------------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def client():
    """Two worker processes of one thread each, for as long as these tests run."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def image(size=600, chunk=150):
    x = np.random.default_rng(5).random((1, 3, size, size), np.float32)
    return x, da.from_array(x, chunks=(1, 3, chunk, chunk))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Creating scratch directories")
class TestTwoProcesses:
    def test_they_make_what_one_makes(self, client):
        x, lazy = image()
        weight = np.random.default_rng(6).random((4, 3, 5, 5), np.float32)
        result = client.compute(fd.conv2d(lazy, weight, padding=2)).result(timeout=60)
        np.testing.assert_allclose(result, fc.conv2d(x, weight, padding=2, precision="strict"), rtol=1e-4)

    def test_models(self, client):
        model = fc.models.lenet5(num_classes=10).eval()
        digits = np.random.default_rng(7).random((40, 1, 32, 32), np.float32)
        lazy = fd.map_model(model, da.from_array(digits, chunks=(7, 1, 32, 32)))
        result = client.compute(lazy).result(timeout=60)
        np.testing.assert_allclose(result, model(digits), rtol=1e-4, atol=1e-6)

    def test_threads_do_not_oversubscribe(self, client):
        def threads_of(block):  # here, not in the module: workers cannot import the tests
            return np.full((len(block), 1), fc.get_num_threads(), np.float32)

        lazy = fd.map_model(threads_of, da.ones((8, 1), chunks=(1, 1), dtype=np.float32))
        assert client.compute(lazy).result(timeout=60).ravel().tolist() == [1.0] * 8

    def test_a_worker_that_dies_loses_nothing(self, client):
        def slowly(block):
            time.sleep(0.1)
            return block

        x, lazy = image()
        weight = np.ones((1, 3, 3, 3), np.float32)
        future = client.compute(fd.conv2d(lazy.map_blocks(slowly, dtype=lazy.dtype), weight))
        time.sleep(0.5)
        victim = next(iter(client.scheduler_info()["workers"]))
        pid = client.run(os.getpid, workers=[victim])[victim]
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_allclose(future.result(timeout=120), fc.conv2d(x, weight, precision="strict"), rtol=1e-4)
