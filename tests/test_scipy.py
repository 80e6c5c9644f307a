# SPDX-License-Identifier: BSD-3-Clause
"""fastconv.scipy against SciPy: thousands of seeded calls, valid and invalid, each result and each error compared."""

import logging
import platform
import warnings

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core
from support import MANY_THREADS, Fenced, tolerance

pytest.importorskip("scipy")
import scipy.ndimage
import scipy.signal

from fastconv.scipy import _engine, ndimage, signal
from fastconv.scipy._engine import Problem

PAIRS = {ndimage: scipy.ndimage, signal: scipy.signal}
ND_MODES = ("reflect", "constant", "nearest", "mirror", "wrap", "grid-mirror", "grid-constant", "grid-wrap")
FLOATS = ("f4", "f8", "c8", "c16")
INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8")


class Comparison:
    """Calls a function of both libraries; ``terms`` is the number of products in a sum, ``scale`` their size."""

    def __init__(self, caplog):
        caplog.set_level(logging.DEBUG, "fastconv.scipy")
        self.caplog, self.calls = caplog, 0

    def engines(self) -> dict[str, int]:
        names = [message.rpartition(": ")[2] for message in self.caplog.messages]
        known = {name: names.count(name) for name in _engine.ENGINES}
        return known | {"SciPy": sum("handed over" in message for message in self.caplog.messages)}

    def served(self, share: float) -> bool:
        """Whether that share of the calls at least was computed here."""
        return self.engines()["SciPy"] <= (1 - share) * self.calls

    def __call__(self, module, name, terms, scale, *args, **kwargs):
        self.calls += 1
        theirs = getattr(PAIRS[module], name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = theirs(*args, **kwargs)
            except Exception as error:
                with pytest.raises(type(error)):
                    getattr(module, name)(*args, **kwargs)
                return
            actual = getattr(module, name)(*args, **kwargs)
        what = f"{name}, {[getattr(a, 'shape', a) for a in args]}, {[getattr(a, 'dtype', '') for a in args]}, {kwargs}"
        assert actual.dtype == expected.dtype, what
        assert actual.shape == expected.shape, what
        if actual.dtype.kind in "iubO":
            np.testing.assert_array_equal(actual, expected, what)
            return
        single = module is signal and any(getattr(a, "dtype", None) in (np.float32, np.complex64) for a in args)
        # SciPy transforms float32 in float32, whatever it is multiplied by.
        bound = 4 * tolerance(np.float32 if single else np.finfo(actual.dtype).dtype, terms) * scale
        assert actual.size == 0 or np.abs(actual - expected).max() <= bound, what


@pytest.fixture
def compare(caplog, monkeypatch):
    monkeypatch.setattr(_engine, "_SMALL", 0.0)  # small arrays go through every engine too
    return Comparison(caplog)


def array(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(max(info.min, -200), min(info.max, 200), shape, endpoint=True).astype(dtype)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


def size(a, w):
    """No product is larger, nor is the root of the sum of their squares."""
    return float(np.abs(a).max(initial=0)) * float(np.sqrt((np.abs(w).astype(float) ** 2).sum())) + 1e-30


@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_signal(compare, name):
    rng = np.random.default_rng(1)
    for i in range(1500):
        rank = int(rng.integers(1, 5))
        shape, kernel = (tuple(rng.integers(1, (60, 24, 12, 6)[rank - 1], rank)) for _ in "ab")
        if i % 3:
            kernel = tuple(min(n, k) for n, k in zip(shape, kernel, strict=True))
        a = array(rng, shape, rng.choice(FLOATS + INTEGERS))
        b = array(rng, kernel, rng.choice(FLOATS) if i % 2 else rng.choice(INTEGERS))
        mode, method = rng.choice(("full", "same", "valid")), ("auto", "direct", "fft")[i % 7 % 3]
        terms = min(a.size, b.size) * (10 if method != "direct" else 1)
        scale = size(a, b) * (1 if method == "direct" else np.sqrt(a.size + b.size))
        compare(signal, name, terms, scale, a, b, str(mode), method)
    assert compare.served(0.4), compare.engines()


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
def test_signal_2d(compare, name):
    rng = np.random.default_rng(2)
    for i in range(1500):
        shape, kernel = (tuple(rng.integers(1, 40, 2)) for _ in "ab")
        if i % 3:
            kernel = tuple(int(rng.integers(1, min(n, 9) + 1)) for n in shape)
        a = array(rng, shape, rng.choice(FLOATS + INTEGERS))
        b = array(rng, kernel, rng.choice(FLOATS) if i % 2 else rng.choice(INTEGERS))
        mode, boundary = str(rng.choice(("full", "same", "valid"))), ("fill", "wrap", "symm")[i % 3]
        fill = (0, 2, 1.5)[i % 5 % 3]
        terms = b.size * (1 if i % 3 else 10)
        compare(signal, name, terms, size(np.append(a, fill), b) * np.sqrt(min(b.size, 40)), a, b, mode, boundary, fill)
    assert compare.served(0.4), compare.engines()


def test_sepfir2d(compare):
    """Of filters that the image holds: SciPy reads outside of the image for others, and may crash."""
    rng = np.random.default_rng(3)
    for i in range(500):
        a = array(rng, rng.integers(10, 40, 2), rng.choice(("f4", "f8", "c8", "i2", "i4", "u1")))
        dtype = "f4" if i % 2 else "f8"
        row, column = (rng.standard_normal(int(rng.integers(1, 6)) * 2 - 1).astype(dtype) for _ in "ab")
        compare(signal, "sepfir2d", 20, size(a, row) * size(1, column), a, row, column)
    compare(signal, "sepfir2d", 4, 4, np.eye(9), np.ones(4), np.ones(3))
    assert compare.served(0.4), compare.engines()


@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_ndimage(compare, name):
    rng = np.random.default_rng(4)
    for i in range(1500):
        rank = int(rng.integers(1, 5))
        shape = tuple(rng.integers(1, (60, 40, 12, 6)[rank - 1], rank))
        axes = (
            None if i % 4 else tuple(sorted(rng.choice(rank, int(rng.integers(1, rank + 1)), replace=False).tolist()))
        )
        kernel = tuple(rng.integers(1, (12, 8, 5, 4)[rank - 1], rank if axes is None else len(axes)))
        x, w = array(rng, shape, rng.choice(FLOATS + INTEGERS)), array(rng, kernel, "f8" if i % 9 else "c16")
        if i % 5 == 0:  # of rank one
            w = np.einsum(
                *(v for d, k in enumerate(kernel) for v in (array(rng, k, "f8"), [d])), list(range(len(kernel)))
            )
        origin = 0 if i % 3 else [int(rng.integers(-(k // 2) - (i % 30 == 0), (k - 1) // 2 + 1)) for k in kernel]
        output = (None, None, "f4", "f8", "i2", "array")[i % 6]
        if output == "array":
            output = np.empty(x.shape[::-1], x.dtype if x.dtype.kind == w.dtype.kind else "f8").T
        elif output:
            output = np.dtype(output)
        cval = float(rng.integers(-2, 3))
        kwargs = {"axes": axes, "mode": ND_MODES[i % 8], "cval": cval, "origin": origin, "output": output}
        compare(ndimage, name, w.size, size(np.append(x, cval), w), x, w, **kwargs)
    assert compare.served(0.4), compare.engines()
    assert compare.engines()["separable"] > 10


@pytest.mark.parametrize("name", ["convolve1d", "correlate1d"])
def test_ndimage_1d(compare, name):
    rng = np.random.default_rng(5)
    for i in range(1500):
        rank = int(rng.integers(1, 5))
        x = array(rng, rng.integers(1, 20, rank), rng.choice(FLOATS + INTEGERS))
        k = int(rng.integers(1, 12))
        w = array(rng, k, ("f8", "i2", "f4", "c16")[i % 4])
        axis, origin = int(rng.integers(-rank - (i % 20 == 0), rank)), int(rng.integers(-(k // 2), (k - 1) // 2 + 1))
        output = (None, np.float64, np.float32)[i % 7 % 3]
        compare(ndimage, name, k, size(x, w), x, w, axis, output, ND_MODES[i % 8], 1.5 if i % 2 else 2.0, origin)
    assert compare.served(0.5), compare.engines()


def test_gaussian_filter(compare):
    rng = np.random.default_rng(6)
    for i in range(1500):
        rank = int(rng.integers(1, 5))
        x = array(rng, rng.integers(1, (80, 40, 16, 7)[rank - 1], rank), rng.choice((*FLOATS, "u1", "i4")))
        axes = None if i % 4 else tuple(rng.choice(rank, int(rng.integers(1, rank + 1)), replace=False).tolist())
        count = rank if axes is None else len(axes)
        kwargs = {
            "sigma": float(rng.uniform(0.3, 3)) if i % 3 else rng.uniform(0, 3, count).tolist(),
            "order": (0, 0, 1, 2, 3)[i % 5],
            "mode": ND_MODES[i % 8] if i % 6 else [str(m) for m in rng.choice(ND_MODES, count)],
            "cval": (0.0, 1.0)[i % 2],
            "truncate": float(rng.uniform(1, 5)),
            "radius": None if i % 7 else int(rng.integers(0, 9)),
            "output": None if x.dtype.kind in "fc" or i % 11 == 0 else np.float64,
            "axes": axes,
        }
        # What an axis multiplies by at most: the sum of its weights' magnitudes.
        gains = [_gain(s, kwargs) for s in np.broadcast_to(kwargs["sigma"], count)]
        compare(ndimage, "gaussian_filter", 80, np.prod(gains) * (float(np.abs(x).max()) + 1), x, **kwargs)
    assert compare.served(0.5), compare.engines()


def _gain(sigma, kwargs):
    names = "order", "truncate", "radius"
    impulse = np.eye(1, 101, 50)
    if sigma > 1e-15:
        impulse = scipy.ndimage.gaussian_filter1d(impulse, sigma, **{name: kwargs[name] for name in names})
    return max(1.0, np.abs(impulse).sum())


def test_uniform_filter(compare):
    rng = np.random.default_rng(7)
    for i in range(1500):
        rank = int(rng.integers(1, 5))
        x = array(rng, rng.integers(1, (80, 40, 16, 7)[rank - 1], rank), rng.choice(FLOATS + INTEGERS))
        size_ = int(rng.integers(0, 9)) if i % 3 else rng.integers(1, 9, rank).tolist()
        origin = 0 if i % 4 else int(rng.integers(-1, 2))
        cval = 1.5 if x.dtype.kind == "f" else 2
        compare(
            ndimage,
            "uniform_filter",
            80,
            10 * float(np.abs(x).max()) + 20,
            x,
            size_,
            None,
            ND_MODES[i % 8],
            cval,
            origin,
        )


# --- what random calls do not show --------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("engine", ["direct", "separable", "fft"])
def test_engines_at_tile_edges(engine, dtype, threads):
    """Every engine on sizes around vectors, tiles of six rows and bands, against SciPy's sum in double."""
    rng = np.random.default_rng(8)
    for k in (2, 3, 5, 6, 7, 12, 13, 31) if engine == "separable" else (1, 2, 3, 5, 6, 7, 12, 13, 31):
        for n in (1, 5, 6, 7, 15, 16, 17, 63, 64, 65, 127, 130):
            kernel = np.outer(rng.uniform(0.5, 1, k), rng.uniform(0.5, 1, k))
            x = rng.standard_normal((n, n + 3)).astype(dtype)
            offset, border = (-(k // 2),) * 2, _borders(k + n)
            problem = Problem(x, kernel.astype(dtype), x.shape, offset, border, 1.0)
            with fc.threads(threads):
                y = _engine.correlate(problem, (engine,))
            expected = scipy.ndimage.correlate(x.astype("f8"), kernel, mode=border, cval=1.0)
            bound = 4 * tolerance(dtype, k * k) * (np.abs(x).max() + 1) * k * (4 if engine == "fft" else 1)
            assert np.abs(y - expected).max() <= bound, (k, n, border)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("at_end", [False, True])
def test_nothing_outside_the_arrays_is_touched(dtype, at_end):
    """Input and output lie between pages that nobody may touch."""
    rng = np.random.default_rng(17)
    fences = [Fenced(200 * 200 * 8) for _ in "xy"]
    try:
        for i, k in enumerate((1, 2, 3, 6, 7, 17)):
            for n in (1, 6, 7, 15, 16, 17, 63, 64, 65, 130):
                x = fences[0].place(rng.standard_normal((n, n + 1)).astype(dtype), at_end)
                y = fences[1].place(np.full((n, n + 1), np.nan, dtype), at_end)
                axes = tuple((m, m, k, -(k // 2), i % 5) for m in x.shape)
                for separable in (False, True):
                    weights = np.full(2 * k if separable else k * k, 0.5, dtype)
                    stencil = _core.Stencil(_config.ISA, int(dtype == "f8"), separable, False, (1.0, 1.0), axes)
                    stencil.run(x, weights, y, 1)
                    assert np.isfinite(y).all()
    finally:
        for fence in fences:
            fence.open()


def _borders(i):
    return list(_engine.BORDERS)[i % len(_engine.BORDERS)]


SIGNAL = ("direct", "separable", "fft")  # as signal.convolve and correlate may choose


def chosen(x, kernel, engines):
    problem = Problem(x, kernel, x.shape, tuple(-(k // 2) for k in kernel.shape), "constant")
    return _engine.choose(problem, engines)[0]


def test_choice():
    """Small kernels are summed directly, outer products by axes, and large kernels without structure by FFT if need be
    of sums that are whole numbers."""
    rng = np.random.default_rng(9)
    x, dense = rng.random((1024, 1024), np.float32), rng.standard_normal((301, 301)).astype("f4")
    for engines in (SIGNAL, _engine.SUMS):
        assert chosen(x, dense[:7, :7], engines) == "direct"
        assert chosen(x, np.ones((15, 15), np.float32), engines) == "separable"
    assert chosen(x, dense, SIGNAL) == "fft"
    assert chosen(x, dense, _engine.SUMS) == "direct"
    counts, disk = np.rint(x * 9), np.rint(dense)
    assert chosen(counts, disk, _engine.SUMS) == "rounded"
    assert chosen(counts, dense, _engine.SUMS) == "direct"
    counts[0, 0] = 2.0**40
    assert chosen(counts, disk, _engine.SUMS) == "direct"  # more digits than an FFT keeps
    counts[0, 0] = np.nan
    assert chosen(counts, disk, _engine.SUMS) == "direct"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_fft_needs_even_data(dtype):
    """One element may not make all others noise; zeros, however many, do not count."""
    x, kernel = np.random.default_rng(18).random((900, 900)).astype(dtype), np.random.default_rng(19).random((201, 201))
    kernel = kernel.astype(dtype)
    sparse = np.where(x < 0.01, x, 0)
    assert chosen(x, kernel, SIGNAL) == chosen(sparse, kernel, SIGNAL) == chosen(x * 0, kernel, SIGNAL) == "fft"
    for outlier in (1e20, -1e38):
        x[3, 4] = outlier
        assert chosen(x, kernel, SIGNAL) == "direct"
        assert chosen(x, kernel, ("fft",)) == "fft"


PADS = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "wrap": "wrap"}


def padded(x, kernel, border, cval):
    """A centred correlation of what NumPy extends: SciPy 1.17 reflects short axes under long kernels wrongly."""
    extra = {"constant_values": cval} if border == "constant" else {}
    x = np.pad(x, [(k // 2, k - 1 - k // 2) for k in kernel.shape], PADS[border], **extra)
    return scipy.signal.correlate(x, kernel, "valid", "direct")


def disk(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (y**2 + x**2 <= radius**2).astype(float)


SUMMED = [
    (ndimage, "convolve", {"mode": "constant"}),
    (ndimage, "correlate", {"mode": "constant"}),
    (signal, "convolve2d", {"mode": "same"}),
    (signal, "correlate2d", {"mode": "same"}),
]


@pytest.mark.parametrize(("module", "name", "mode"), SUMMED)
@pytest.mark.parametrize("outlier", [1e20, 9.969209968386869e36])
def test_an_outlier_reaches_as_far_as_the_kernel(module, name, mode, outlier):
    """What a fill value's windows do not see is what it was without it, bit for bit."""
    x, kernel = np.random.default_rng(20).random((150, 140)), disk(25)
    clean = getattr(module, name)(x, kernel, **mode)
    x[3, 4] = outlier
    filled = getattr(module, name)(x, kernel, **mode)
    assert filled[:20, :20].max() > 1e19
    np.testing.assert_array_equal(filled[29:], clean[29:])
    np.testing.assert_array_equal(filled[:, 30:], clean[:, 30:])
    np.testing.assert_allclose(filled[29:40], getattr(PAIRS[module], name)(x, kernel, **mode)[29:40], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("module", "name", "mode"), SUMMED)
def test_zeros_stay_zeros(module, name, mode, dtype):
    """Counts and weighted means over masks: what sees nothing is zero, and nothing is negative."""
    rng = np.random.default_rng(21)
    mask = np.zeros((300, 250), dtype)
    mask[:60] = 1
    for kernel, x in ((disk(40), mask), (disk(40) * rng.random((81, 81)), mask * rng.random(mask.shape))):
        y = getattr(module, name)(x.astype(dtype), kernel.astype(dtype), **mode)
        assert y.min() == 0
        assert not y[101:].any()
        assert (y[:99] > 0).all()


def test_whole_numbers_are_exact(caplog):
    """An FFT of whole numbers, rounded, is what direct sums are: exact, in every rank and border."""
    caplog.set_level(logging.DEBUG, "fastconv.scipy")
    rng = np.random.default_rng(22)
    for i in range(60):
        rank = 1 + i % 3
        n, k = rng.integers(1, (1500, 50, 12)[rank - 1], rank), rng.integers(1, (900, 40, 9)[rank - 1], rank)
        x = rng.integers(-9, 9, n, endpoint=True).astype(("f4", "f8")[i % 2])
        w = rng.integers(-9, 9, k, endpoint=True).astype(x.dtype)
        border, offset = _borders(i), tuple(-(int(k) // 2) for k in w.shape)
        problem = Problem(x, w, x.shape, offset, border, 2.0)
        y = _engine.correlate(problem, ("rounded",))
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, padded(x, w, border, 2.0))
    assert sum("rounded" in message for message in caplog.messages) == 60


def test_factors_of_whole_numbers_are_whole():
    """So that sums along axes that cancel give zero, as the direct ones do."""
    third = np.array([1.0, -3.0, 3.0, -1.0])
    for kernel in (np.outer(third, [3, 6, 7]), np.outer([6, 10], third) / 4, np.einsum("i,j,k", third, third, third)):
        factors = _engine.factorised(kernel)
        assert all((4 * f == np.rint(4 * f)).all() for f in factors)
        np.testing.assert_array_equal(np.einsum("i,j", *factors[:2]) if kernel.ndim == 2 else kernel, kernel)
        x = np.full((20,) * kernel.ndim, 0.1 * 2**50 // 1)
        problem = Problem(x, kernel, x.shape, (-1,) * kernel.ndim, "nearest")
        assert not _engine.correlate(problem, ("separable",)).any()


def test_rank_one_is_recognised_by_every_element():
    kernel = np.outer([1.0, 2.0, 1.0], [1e-8, 1.0, 1e-8])
    assert _engine.factorised(kernel) is not None
    kernel[0, 0] *= 1 + 1e-14
    assert _engine.factorised(kernel) is None
    assert _engine.factorised(np.eye(3)) is None
    assert _engine.factorised(np.zeros((3, 3))) is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="SciPy's compiler may fuse what it adds up")
def test_integer_images_are_scipys_bit_for_bit():
    """A mean of equal pixels is a whole number or just below it: which, only the same roundings tell."""
    rng = np.random.default_rng(10)
    for dtype in ("u1", "i2", "u2"):
        x = rng.integers(0, 256, (150, 130)).astype(dtype)
        for w in (np.full((3, 3), 1 / 9), np.full((5, 4), 0.05), rng.random((7, 7)) / 25):
            np.testing.assert_array_equal(ndimage.correlate(x, w), scipy.ndimage.correlate(x, w))


@pytest.mark.parametrize("dtype", ["?", "f2", "g", "O", "i8"])
def test_other_numbers_are_scipys(compare, dtype):
    rng = np.random.default_rng(11)
    x = rng.integers(0, 2, (9, 9)) if dtype != "i8" else rng.integers(2**40, 2**61, (9, 9))
    x, w = x.astype(dtype), x[:3, :3].astype(dtype)
    for module, name in (
        (signal, "convolve"),
        (signal, "convolve2d"),
        (ndimage, "correlate"),
        (ndimage, "uniform_filter"),
    ):
        if name == "uniform_filter":
            compare(module, name, 9, 9, x)
        else:
            compare(module, name, 9, 9, x, w)
    assert compare.engines()["SciPy"] > 0


def test_nan_stays_where_scipy_has_it():
    x = np.ones((40, 50))
    x[10, 20], x[30, 5] = np.nan, np.inf
    for w in ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.outer([1, 2, 1], [1, 0, -1]), np.ones((31, 31))):
        np.testing.assert_allclose(ndimage.correlate(x, w), scipy.ndimage.correlate(x, w), atol=1e-9)
    w = np.random.default_rng(12).standard_normal((29, 29))
    np.testing.assert_allclose(signal.convolve2d(x, w), scipy.signal.convolve2d(x, w), atol=1e-9)


def test_output_may_be_the_input():
    x = np.random.default_rng(13).standard_normal((30, 40)).astype(np.float32)
    for filtered in (
        lambda x, o: ndimage.gaussian_filter(x, 2, output=o),
        lambda x, o: ndimage.correlate(x, np.ones((3, 3)), output=o),
        lambda x, o: ndimage.uniform_filter(x, 5, output=o),
    ):
        expected, own = filtered(x, None), x.copy()
        assert filtered(own, own) is own
        np.testing.assert_array_equal(own, expected)


def test_threads_do_not_change_a_bit():
    x = np.random.default_rng(14).standard_normal((300, 301)).astype(np.float32)
    w = np.random.default_rng(15).standard_normal((9, 9)).astype(np.float32)
    results = []
    for threads in (1, 2, *MANY_THREADS):
        with fc.threads(threads):
            results.append((ndimage.correlate(x, w), ndimage.gaussian_filter(x, 4)))
    for other in results[1:]:
        np.testing.assert_array_equal(other[0], results[0][0])
        np.testing.assert_array_equal(other[1], results[0][1])


def test_memory_in_any_order(compare):
    x = np.random.default_rng(16).standard_normal((20, 30, 8))
    for view in (x[::-1, ::2], x.T, x[..., ::-3], np.broadcast_to(x[:1], x.shape), x[:, :, 3:4]):
        compare(ndimage, "correlate", 27, 9, view, np.ones((3, 3, 3)))
        compare(ndimage, "gaussian_filter", 60, 9, view, 1.0)
        compare(signal, "convolve", 27, 30, view, np.ones((3, 2, 1)))


def test_scipy_is_not_imported_with_fastconv():
    import subprocess
    import sys

    code = "import fastconv, sys; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
