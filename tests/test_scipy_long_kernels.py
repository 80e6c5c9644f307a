# SPDX-License-Identifier: BSD-3-Clause
"""fastconv.scipy under kernels longer than the array: what they sum, and the memory that they take."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")
import scipy.ndimage

import fastconv as fc
from fastconv.scipy import _engine, _gaussian, ndimage, report
from fastconv.scipy._engine import Pass, Problem
from fastconv.scipy._fold import Fold

pytestmark = pytest.mark.usefixtures("one_thread")
BORDERS = list(_engine.BORDERS)
MODES = ("reflect", "constant", "nearest", "mirror", "wrap")


@pytest.fixture
def one_thread():
    """Arrays are small, calls many."""
    with fc.threads(1):
        yield


def extended(x, axis, offset, count, border, fill):
    """`count` elements of the extended axis from `offset` on, one by one as the borders are defined."""
    n = x.shape[axis]
    at = np.arange(offset, offset + count)
    if border == "reflect":
        source = np.where(at % (2 * n) < n, at % (2 * n), 2 * n - 1 - at % (2 * n))
    elif border == "mirror":
        period = max(1, 2 * n - 2)
        source = np.minimum(at % period, (period - at % period) % period) if n > 1 else at * 0
    else:
        source = at % n if border == "wrap" else at.clip(0, n - 1)
    y = x.take(source, axis)
    if border == "constant":
        y[(slice(None),) * axis + ((at < 0) | (at >= n),)] = fill
    return y


def summed(x, axis, weights, out, offset, border, fill):
    y = extended(x, axis, offset, out + len(weights) - 1, border, fill)
    windows = np.lib.stride_tricks.sliding_window_view(y, len(weights), axis)
    return windows @ weights


@pytest.mark.parametrize("border", BORDERS)
def test_folded_kernels_sum_the_same(border):
    """Of whole numbers, so exactly; from kernels that see nothing but one side to such as see both many times over."""
    rng = np.random.default_rng(1)
    folded = 0
    for i in range(300):
        shape = tuple(rng.integers(1, 9, 1 + i % 3))
        axis, k = int(rng.integers(len(shape))), int(rng.integers(1, (5, 30, 200)[i % 3]))
        x = rng.integers(-9, 9, shape).astype(("f4", "f8")[i % 2])
        out, fill = int(rng.integers(1, 12)), float(rng.integers(-3, 4))
        offset = int(rng.integers(-k - shape[axis] - 30, 30))
        weights = rng.integers(-9, 9, k).astype(float)
        one = Pass(axis, weights, out, offset, border, fill)
        left = one.folded(x).weights
        folded += len(left) < k
        assert len(left) <= max(2 * shape[axis], shape[axis] + out + 1)
        y = _engine.run_passes(x, [one])
        np.testing.assert_array_equal(y, summed(x, axis, weights, out, offset, border, fill), f"{one} on {shape}")
    assert folded > 80


@pytest.mark.parametrize("border", BORDERS)
def test_equal_weights_are_counted(border):
    rng = np.random.default_rng(2)
    for _ in range(200):
        k, n, out = (int(rng.integers(1, most)) for most in (99, 12, 12))
        fold = Fold(k, n, out, int(rng.integers(-k - 9, 9)), border)
        if fold.needed:
            np.testing.assert_array_equal(fold.counts(), fold.sums(np.ones(k)))


@pytest.mark.parametrize("engine", ["direct", "rounded"])
def test_folded_kernels_of_any_rank(engine):
    rng = np.random.default_rng(3)
    for i in range(60):
        rank = 1 + i % 3
        shape, kernel = tuple(rng.integers(1, 6, rank)), tuple(rng.integers(1, (90, 40, 15)[rank - 1], rank))
        x, w = rng.integers(-9, 9, shape).astype("f8"), rng.integers(-9, 9, kernel).astype("f8")
        offset, border = tuple(-int(rng.integers(0, k)) for k in kernel), BORDERS[i % 5]
        expected = x
        for axis, (k, n, o) in enumerate(zip(kernel, shape, offset, strict=True)):
            expected = extended(expected, axis, o, n + k - 1, border, 2.0)
        expected = np.lib.stride_tricks.sliding_window_view(expected, kernel)
        expected = np.einsum(expected, list(range(2 * rank)), w, list(range(rank, 2 * rank)), list(range(rank)))
        y = _engine.correlate(Problem(x, w, shape, offset, border, 2.0), (engine,))
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_wide_gaussians_are_scipys(mode, dtype):
    rng = np.random.default_rng(4)
    report(reset=True)
    for i, shape in enumerate([(30,), (1, 25), (25, 1), (20, 30), (7, 8, 9), (3, 1, 4)]):
        for order in (0, 1, 2):
            x = rng.random(shape).astype(dtype)
            options = {"sigma": (40.0, 700.0)[i % 2], "order": order, "mode": mode, "cval": 0.5}
            y, expected = ndimage.gaussian_filter(x, **options), scipy.ndimage.gaussian_filter(x, **options)
            # The weights' magnitudes sum to one, or for derivatives to less.
            assert np.abs(y - expected).max() <= 16 * len(shape) * 60 * np.finfo(dtype).eps
    assert not report()["left"]


@pytest.mark.parametrize("border", BORDERS)
def test_very_wide_gaussians_are_summed_by_formula(border):
    """As exactly as tap by tap: relative to the sum of the weights' magnitudes."""
    for n in (1, 2, 7, 50):
        for sigma, truncate in ((900, 4), (1000.5, 1), (813, 0.3), (1500, 8)):
            radius = int(truncate * sigma + 0.5)
            fold = Fold(2 * radius + 1, n, n, -radius, border)
            for order in range(4):
                weights = _gaussian.gaussian(sigma, order, radius)
                error = np.abs(_gaussian._folded(sigma, order, fold) - fold.sums(weights[::-1])).max()
                assert error <= 16 * np.finfo(float).eps * np.abs(weights).sum(), (n, sigma, truncate, order)


def test_gaussians_of_any_width():
    x = np.random.default_rng(6).random((5, 6))
    report(reset=True)
    for mode in MODES:
        for order in (0, 1):
            options = {"sigma": 2e4, "order": order, "mode": mode, "cval": 0.5}
            expected = scipy.ndimage.gaussian_filter(x, **options)
            np.testing.assert_allclose(ndimage.gaussian_filter(x, **options), expected, rtol=0, atol=1e-13)
        options = {"mode": mode, "cval": 0.5}
        expected = scipy.ndimage.gaussian_filter(x, 3, truncate=40, **options)
        np.testing.assert_allclose(ndimage.gaussian_filter(x, 3, truncate=1e12, **options), expected, rtol=1e-13)
    for sigma in (1e9, 1e30, 1e300):
        np.testing.assert_allclose(ndimage.gaussian_filter(x, sigma, mode="wrap"), np.full(x.shape, x.mean()), 1e-12)
    assert not report()["left"]


def test_boxes_of_any_size():
    rng = np.random.default_rng(5)
    report(reset=True)
    for i in range(100):
        x = rng.integers(0, 200, rng.integers(1, 30, 2)).astype(("f8", "u1")[i % 2])
        size, mode = int(rng.integers(2, 900)), MODES[i % 5]
        origin = int(rng.integers(-(size // 2) + 1, size // 2))
        y = ndimage.uniform_filter(x, size, mode=mode, cval=3, origin=origin)
        expected = scipy.ndimage.uniform_filter(x, size, mode=mode, cval=3, origin=origin)
        np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)
    assert not report()["left"]
    assert ndimage.uniform_filter(np.array([1.0, 2, 6]), 10**30, mode="wrap") == pytest.approx([3, 3, 3])
    assert ndimage.uniform_filter(np.array([1.0, 2, 6]), 10**30, mode="nearest") == pytest.approx([3.5, 3.5, 3.5])


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
@pytest.mark.parametrize("mode", MODES)
def test_long_boxes_on_long_axes(mode, dtype):
    """By running sums, along either axis and beside a short one."""
    x = np.random.default_rng(7).integers(0, 200, (4, 700)).astype(dtype)
    report(reset=True)
    for k in (1500, 2000, 5001):
        for image, sizes, origin in ((x, (3, k), (0, -k // 3)), (x.T, (k, 2), (k // 4, 0)), (x, (k, k), 0)):
            y = ndimage.uniform_filter(image, sizes, mode=mode, cval=2, origin=origin)
            expected = scipy.ndimage.uniform_filter(image, sizes, mode=mode, cval=2, origin=origin)
            np.testing.assert_allclose(y, expected, rtol=1e-6 if dtype == "f4" else 1e-11)
    assert not report()["left"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("mode", MODES)
def test_infinity_under_long_kernels(mode, value):
    """A folded weight of 2 - 1 = 1 would hide that infinity less infinity is no number.

    SciPy's own sums of several axes read beyond arrays that are so much shorter than the kernel (1.17).
    """
    x = np.ones((6, 7))
    x[2, 3] = value
    mixed = np.array([2.0] * 40 + [-1.0] * 40)
    np.testing.assert_array_equal(
        ndimage.correlate1d(x, mixed, mode=mode), scipy.ndimage.correlate1d(x, mixed, mode=mode)
    )
    for kernel in (np.outer(mixed, [1.0, 2.0, 0.5]), np.outer([1.0, 2.0, 0.5], mixed)):
        expected = x
        for axis, k in enumerate(kernel.shape):
            expected = extended(expected, axis, -(k // 2), expected.shape[axis] + k - 1, mode, 0.0)
        windows = np.lib.stride_tricks.sliding_window_view(expected, kernel.shape)
        with np.errstate(invalid="ignore"):
            expected = (windows * kernel).sum(axis=(2, 3))
        np.testing.assert_array_equal(ndimage.correlate(x, kernel, mode=mode), expected)


MEMORY = """
import resource, numpy as np
from fastconv.scipy import ndimage, signal, report
rng = np.random.default_rng(0)
x, tall, wide, cube = rng.random((100, 100)), rng.random((3000, 1)), rng.random((1, 3000)), rng.random((10, 20, 30))
few = rng.random((3000, 3))
long, kernel = rng.random(1_000_001), {k: rng.random(k) for k in ((3001, 3), (3, 3001), (301, 301))}
ndimage.gaussian_filter(x, 2), ndimage.correlate(x, kernel[301, 301][:9, :9])
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + BUDGET,) * 2)
for mode in ("reflect", "constant", "nearest", "mirror", "wrap"):
    for image in (x, x.astype("f4"), tall, wide, cube, few):
        ndimage.gaussian_filter(image, 20000, mode=mode)
        ndimage.gaussian_filter(image, 1e12, mode=mode)
        ndimage.uniform_filter(image, 10**15, mode=mode, origin=10**14)
        ndimage.correlate1d(image, long, mode=mode, axis=0)
        ndimage.convolve1d(image, long, mode=mode)
    for w in kernel.values():
        ndimage.correlate(x, w, mode=mode)
        ndimage.convolve(x[:40, :40], w, mode=mode)
for boundary in ("wrap", "symm"):
    for w in kernel.values():
        signal.convolve2d(x[:40, :40], w, boundary=boundary)
    signal.sepfir2d(x, rng.random(20001), rng.random(20001))
assert not report()["left"], report()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_follows_the_arrays():
    """48 MiB beside the interpreter, of which the largest weights are 8; two copies of them, and scratch."""
    subprocess.run([sys.executable, "-c", MEMORY.replace("BUDGET", str(48 << 20))], check=True, timeout=120)
