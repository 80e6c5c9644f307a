# SPDX-License-Identifier: BSD-3-Clause
"""Images of another size: against torch, tables of any kind against NumPy, gradients as adjoints."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core
from fastconv.ops import interpolate as I
from support import embedded, max_error, poison, tolerance

MODES = [("nearest", 1), ("nearest-exact", 1), ("linear", 1), ("nearest", 2), ("nearest-exact", 2), ("bilinear", 2)]
MODES += [("area", 1), ("area", 2), ("area", 3), ("bicubic", 2), ("nearest", 3), ("nearest-exact", 3), ("trilinear", 3)]
modes = pytest.mark.parametrize(("mode", "rank"), MODES, ids=[f"{mode}{rank}d" for mode, rank in MODES])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = {1: [((7,), (15,)), ((33,), (70,)), ((9,), (4,)), ((1,), (5,)), ((6,), (6,))]}
SIZES[2] = [
    ((5, 7), (11, 13)),
    ((17, 9), (8, 20)),
    ((1, 4), (3, 1)),
    ((6, 6), (6, 6)),
    ((3, 18), (6, 36)),
    ((4, 2), (40, 3)),
]
SIZES[3] = [((3, 4, 5), (5, 9, 17)), ((5, 3, 2), (2, 6, 3)), ((2, 1, 3), (4, 2, 6))]


@pytest.fixture
def rng():
    return np.random.default_rng(41)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def corners(mode):
    return (None,) if mode.startswith("nearest") or mode == "area" else (None, False, True)


@modes
@dtypes
def test_sizes_are_torchs(torch, rng, mode, rank, dtype):
    for channels in (1, 3, 19):
        for size, out in SIZES[rank]:
            x = rng.standard_normal((2, channels, *size)).astype(dtype)
            wide = torch.from_numpy(x.astype(np.float64))
            for aligned in corners(mode):
                options = {"size": out, "mode": mode, "align_corners": aligned}
                expected = torch.nn.functional.interpolate(wide, **options).numpy()
                y = fc.interpolate(x, **options)
                assert y.dtype == dtype
                # Places are rounded as far as the last one is from zero, weights once.
                bound = tolerance(dtype, 4**rank) + 4 * max(size) * np.finfo(np.float64).eps
                assert max_error(y, expected) < bound, (size, out, aligned)
                y = fc.interpolate(last(x), **options, layout="NHWC")
                assert max_error(y, last(expected)) < bound, (size, out, aligned)


@modes
@pytest.mark.parametrize("recompute", [None, False, True])
def test_scale_factors_are_torchs(torch, rng, mode, rank, recompute):
    for factor in (2, 2.0, 0.5, 1.7, 0.6, (1.5, 0.7, 2.5)[:rank]):
        x = rng.standard_normal((1, 2, 9, 6, 5)[: rank + 2])
        options = {"scale_factor": factor, "mode": mode, "recompute_scale_factor": recompute}
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), **options).numpy()
        assert max_error(fc.interpolate(x, **options), expected) < 1e-12, factor


@dtypes
def test_tables_of_any_kind(rng, dtype):
    """Taps, indices and weights at random, in every way that images can lie."""
    for channels, size, out, taps in [(5, (4, 6, 7), (3, 5, 18), (2, 3, 2)), (20, (1, 5, 3), (1, 7, 33), (1, 1, 5))]:
        tables, right = [], rng.standard_normal((2, channels, *size)).astype(dtype)
        x = right.copy()
        for axis, (n, m, t) in enumerate(zip(size, out, taps, strict=True), 2):
            index, weight = rng.integers(0, n, (t, m), dtype=np.int32), rng.standard_normal((t, m))
            weight[rng.random((t, m)) < 0.2] = 0
            tables.append((n, m, index, weight))
            dense = np.zeros((m, n))
            np.add.at(dense, (np.arange(m), index), weight.astype(dtype))
            right = np.moveaxis(np.tensordot(dense, right, (1, axis)), 0, axis)
        scale = np.prod([np.abs(w).max() * t for (_, _, _, w), t in zip(tables, taps, strict=True)]) * np.abs(x).max()
        for order in ((0, 1, 2, 3, 4), (0, 2, 3, 4, 1), (4, 2, 1, 3, 0)):
            whole, dst = embedded(np.full([right.shape[i] for i in order], np.nan, dtype), dense=False)
            dst, back = dst.transpose(np.argsort(order)), np.argsort(order)
            for src in (x, np.ascontiguousarray(x.transpose(order)).transpose(back), embedded(x, dense=False)[1]):
                dst[...] = np.nan
                _core.resize(src, dst, tuple(tables), _config.ISA, _config.get_num_threads())
                assert max_error(dst, right, scale) < tolerance(dtype, 30)
            dst[...] = np.nan
            assert np.isnan(whole).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@dtypes
def test_bits_do_not_depend_on_threads_or_the_batch(rng, layout, dtype):
    x = rng.standard_normal((3, 40, 50, 24)).astype(dtype)
    for mode in ("nearest", "bilinear", "bicubic"):
        results = []
        for threads in (1, 2, 5):
            with fc.threads(threads):
                results.append(fc.interpolate(x, (90, 70), mode=mode, layout=layout))
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])
        np.testing.assert_array_equal(results[0][1:2], fc.interpolate(x[1:2], (90, 70), mode=mode, layout=layout))


@modes
def test_the_gradient_is_the_adjoint(rng, mode, rank):
    for size, out in [*SIZES[rank], ((1,) * rank, (9,) * rank), ((12,) * rank, (2,) * rank)]:
        for aligned in corners(mode):
            options = {"size": out, "mode": mode, "align_corners": aligned}
            x, g = rng.standard_normal((2, 3, *size)), rng.standard_normal((2, 3, *out))
            for a, b, layout in ((x, g, "NCHW"), (last(x), last(g), "NHWC")):
                d = fc.grad.interpolate(b, a.shape, **options, layout=layout)
                y = fc.interpolate(a, **options, layout=layout)
                np.testing.assert_allclose(np.sum(d * a), np.sum(y * b), rtol=1e-11, atol=1e-11)


def test_a_gradient_from_many_pixels_to_one(rng):
    """So many taps that one axis goes after the other."""
    g = rng.standard_normal((1, 2, 300, 200)).astype(np.float32)
    d = fc.grad.interpolate(g, (1, 2, 1, 1), size=(300, 200), mode="bilinear")
    right = g.astype(np.float64).sum((2, 3), keepdims=True)
    assert max_error(d, right, np.abs(g).sum((2, 3), dtype=np.float64)) < tolerance(np.float32, 60_000)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_what_is_not_finite_stays_where_it_is(layout):
    x = np.zeros((1, 6, 6, 6), np.float32)
    x[0, 2, 2, 2], x[0, 4, 4, 4] = np.nan, np.inf
    for mode in ("nearest", "bilinear"):
        y = fc.interpolate(x, (11, 11) if layout == "NCHW" else 11, mode=mode, layout=layout, align_corners=None)
        assert np.isnan(y).any()
        assert np.isposinf(y).any()
        assert np.isfinite(y).sum() > 0.9 * y.size
        aligned = fc.interpolate(x, 11, mode="bilinear", align_corners=True, layout=layout)
        even = (slice(None), slice(None), slice(None, None, 2), slice(None, None, 2))
        if layout == "NHWC":
            even = (slice(None), slice(None, None, 2), slice(None, None, 2))
        np.testing.assert_array_equal(aligned[even], x)  # a weight of zero leaves out its term


def test_the_smallest_numbers_are_copied():
    x = np.full((1, 1, 2, 2), np.finfo(np.float32).smallest_subnormal)
    assert (fc.interpolate(x, 5) == x[0, 0, 0, 0]).all()
    assert (fc.interpolate(np.full((1, 1, 2), -0.0), 5) == 0).all()
    assert np.signbit(fc.interpolate(np.full((1, 1, 2), -0.0), 5)).all()


def test_float16_and_empty_batches(rng):
    x = rng.standard_normal((2, 3, 5, 4)).astype(np.float16)
    y = fc.interpolate(x, 9, mode="bilinear")
    assert y.dtype == np.float16
    assert max_error(y, fc.interpolate(x.astype(np.float64), 9, mode="bilinear")) < tolerance(np.float16)
    assert fc.interpolate(x[:0], 9).shape == (0, 3, 9, 9)
    assert fc.grad.interpolate(poison((0, 3, 9, 9)), (0, 3, 5, 4), 9).shape == (0, 3, 5, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": np.ones((2, 3))}, r"input is of shape \(2, 3\); it needs 3 to 5 axes"),
        ({"input": np.ones((1, 2, 0, 3))}, "only the batch may be empty"),
        ({"mode": "linear"}, r"mode is 'linear'; input of shape \(1, 2, 4, 3\) needs .*'bilinear', 'bicubic'"),
        ({"mode": "cubic"}, "mode is 'cubic'"),
        ({"align_corners": True}, "align_corners is True; mode 'nearest' needs None"),
        ({"size": None}, "neither is given"),
        ({"scale_factor": 2}, "both are given"),
        ({"size": (4, 5, 6)}, r"size is \(4, 5, 6\); it needs a number or 2 of them"),
        ({"size": 0}, "size is 0"),
        ({"size": 1 << 40}, "at most"),
        ({"size": (1 << 32, 1)}, "below 2147483648"),
        ({"size": None, "scale_factor": -1}, "scale_factor is -1; it needs to be positive"),
        ({"size": None, "scale_factor": np.nan}, "needs to be positive and finite"),
        ({"size": None, "scale_factor": 0.1}, r"it leaves \(0, 0\)"),
        ({"recompute_scale_factor": True}, "needs a scale_factor"),
        ({"layout": "HWC"}, "layout is 'HWC'"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        fc.interpolate(**({"input": np.ones((1, 2, 4, 3)), "size": 8} | change))


def test_errors_of_types_and_of_the_gradient():
    x = np.ones((1, 2, 4, 3))
    with pytest.raises(TypeError, match=r"size is 2\.5"):
        fc.interpolate(x, 2.5)
    with pytest.raises(TypeError, match="input has dtype int64"):
        fc.interpolate(np.ones((1, 2, 4, 3), np.int64), 2)
    with pytest.raises(ValueError, match=r"grad_output has shape .*it needs the output's \(1, 2, 5, 5\)"):
        fc.grad.interpolate(x, x.shape, 5)


def test_tables_that_lead_astray_are_refused():
    x, y, isa = np.ones((1, 1, 4)), np.ones((1, 1, 2)), _config.ISA
    good = np.zeros((1, 2), np.int32)
    for index, weight, message in [
        (np.array([[0, 4]], np.int32), None, "index 4 of 4"),
        (np.array([[-1, 0]], np.int32), None, "index -1 of 4"),
        (np.zeros((2, 2), np.int32), None, "2 taps without weights"),
        (good, np.array([[0, np.nan]]), "a weight is NaN"),
        (good, np.ones((2, 2)), "does not have an index"),
        (good.astype(np.int64), None, "does not have an index"),
        (np.zeros(3, np.int32), None, "does not have an index"),
    ]:
        with pytest.raises(ValueError, match=message):
            _core.resize(x, y, ((4, 2, index, weight),), isa, 1)
    with pytest.raises(ValueError, match="do not fit"):
        _core.resize(x, np.ones((1, 1, 3)), ((4, 2, good, None),), isa, 1)
    plan = _core.resize_plan(1, 2, (8, 4, 0, 0, 1), (4, 2, 0, 0, 1), ((4, 2, good, None),), 0, isa)
    assert plan.seconds > 0


def test_transposed_tables():
    table = (3, 4, np.array([[0, 0, 2, 2], [1, 0, 0, 2]], np.int32), np.array([[1.0, 2, 3, 4], [5, 0, 6, 7]]))
    dense = np.zeros((4, 3))
    np.add.at(dense, (np.arange(4), table[2]), table[3])
    size, out, index, weight = I._transposed(table)
    back = np.zeros((out, size))
    np.add.at(back, (np.arange(out), index), weight)
    np.testing.assert_array_equal(back, dense.T)
