# SPDX-License-Identifier: BSD-3-Clause
"""Reductions, norms and softmax of the core, over any axes of arrays that lie in any way: against NumPy in float64."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core
from support import embedded, max_error, poison, tolerance

SUM, MEAN, MAX, MIN, PRODUCT, SQUARES, L1, L2, LOG_SUM_EXP, MOMENTS = range(10)
STANDARD, RMS, SOFTMAX, LOG_SOFTMAX = range(4)
KINDS = ("sum", "mean", "max", "min", "product", "squares", "l1", "l2", "log_sum_exp", "moments")
FLOATS = [np.float32, np.float64]
dtypes = pytest.mark.parametrize("dtype", FLOATS)

#: Around one vector, four vectors, a chunk of rows; and what is longer than a chunk.
SHAPES = [(1,), (15,), (17,), (64,), (67,), (16385,), (3, 5), (40, 67), (700, 3), (9, 130), (2, 3, 35), (3, 2, 5, 33)]
SHAPES += [(2, 6, 7, 7), (530, 2, 17), (1, 4, 1, 9)]


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def axes_of(mask, ndim):
    return tuple(i for i in range(ndim) if mask >> i & 1)


def masks(ndim):
    return range(1, 1 << ndim)


def reduce(x, mask, kind, dst=None):
    shape = tuple(1 if mask >> i & 1 else n for i, n in enumerate(x.shape))
    if dst is None:
        dst = poison((2, *shape) if kind == MOMENTS else shape, x.dtype)
    _core.reduce(x, dst, mask, kind, _config.ISA, _config.get_num_threads())
    return dst


def expected(x, mask, kind):
    """In float64, and the sum of absolute terms that errors are relative to, or None for the result itself."""
    x, axis = x.astype(np.float64), axes_of(mask, x.ndim)
    over = {"axis": axis, "keepdims": True}
    with np.errstate(all="ignore"):
        if kind == LOG_SUM_EXP:
            largest = x.max(**over)
            largest[~np.isfinite(largest)] = 0
            return largest + np.log(np.exp(x - largest).sum(**over)), None
        if kind == MOMENTS:
            return np.stack([x.mean(**over), x.var(**over)]), np.stack([np.abs(x).mean(**over), x.var(**over)])
        functions = {
            SUM: (x.sum, np.abs(x).sum(**over)),
            MEAN: (x.mean, np.abs(x).mean(**over)),
            MAX: (x.max, None),
            MIN: (x.min, None),
            PRODUCT: (x.prod, None),
            SQUARES: (np.square(x).sum, None),
            L1: (np.abs(x).sum, None),
            L2: (lambda **o: np.sqrt(np.square(x).sum(**o)), None),
        }
        function, scale = functions[kind]
        return function(**over), scale


def check(x, mask, kind):
    right, scale = expected(x, mask, kind)
    terms = np.prod([x.shape[i] for i in axes_of(mask, x.ndim)])
    assert max_error(reduce(x, mask, kind), right, scale) < tolerance(x.dtype, terms), (KINDS[kind], mask)


@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", range(10), ids=KINDS)
def test_reductions_over_every_set_of_axes(rng, shape, kind, dtype):
    x = rng.uniform(0.9, 1.1, shape) if kind == PRODUCT else rng.standard_normal(shape)
    for mask in masks(len(shape)):
        check(x.astype(dtype), mask, kind)


def ways(x):
    """The same numbers, lying differently."""
    yield x
    yield np.asfortranarray(x)
    yield embedded(x, dense=False)[1]
    yield np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    spread = poison((*x.shape[:-1], 3 * x.shape[-1]), x.dtype)
    spread[..., ::3] = x
    yield spread[..., ::3]


@dtypes
@pytest.mark.parametrize("kind", [SUM, MIN, LOG_SUM_EXP, MOMENTS], ids=lambda kind: KINDS[kind])
def test_reductions_of_strided_arrays(rng, kind, dtype):
    for shape in [(3, 37), (5, 4, 19), (2, 3, 4, 21)]:
        for x in ways(rng.standard_normal(shape).astype(dtype)):
            for mask in masks(len(shape)):
                check(x, mask, kind)


def test_reductions_of_one_number_for_many(rng):
    """Axes of stride zero."""
    x = np.broadcast_to(rng.standard_normal((3, 1, 5)).astype(np.float32), (3, 40, 5))
    for mask, kind in itertools.product(masks(3), (SUM, MAX)):
        check(x, mask, kind)


@dtypes
@pytest.mark.parametrize("place", [0, 5, 20, 66])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", range(10), ids=KINDS)
def test_what_is_not_finite_is_as_numpy_has_it(rng, kind, value, place, dtype):
    for order in "CF":
        x = np.array(rng.uniform(0.5, 1.5, (67, 67)), dtype, order=order)
        x[place, place] = value
        for mask in masks(2):
            right, _ = expected(x, mask, kind)
            got = reduce(x, mask, kind)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(right))
            finite = np.isfinite(right)
            np.testing.assert_array_equal(got[~finite], right[~finite].astype(dtype))


@dtypes
def test_reductions_of_nothing(dtype):
    x = np.zeros((3, 0, 4), dtype)
    for mask in (2, 7):
        assert (reduce(x, mask, SUM) == 0).all()
        assert (reduce(x, mask, PRODUCT) == 1).all()
        assert np.isnan(reduce(x, mask, MEAN)).all()
        with pytest.raises(ValueError, match="no extreme"):
            reduce(x, mask, MAX)
    assert reduce(x, 1, MAX).shape == (1, 0, 4)


@pytest.mark.parametrize(
    "shape", [(4, 9), (200, 3, 1000), (70000,), (3, 70000), (5000, 64), (64, 5000), (2, 40, 56, 56)]
)
@dtypes
def test_bits_do_not_depend_on_threads(rng, shape, dtype):
    x = rng.standard_normal(shape).astype(dtype)
    for mask in masks(len(shape)):
        results = []
        for threads in (1, 2, 5):
            with fc.threads(threads):
                results.append([reduce(x, mask, kind) for kind in (SUM, MOMENTS, LOG_SUM_EXP)])
                results[-1] += [norm(x, mask, kind) for kind in range(4)]
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


# --- the gradient below a clamp -------------------------------------------------------------------

BOUNDS = [(0.0, np.inf), (0.0, 0.6), (-0.5, 0.25)]


def through(g, y, axis, bounds, dst=None):
    dst = poison(g.size + g.shape[axis], g.dtype) if dst is None else dst
    _core.through(g, y, dst, axis, *bounds, _config.ISA, _config.get_num_threads())
    return dst[: g.size].reshape(g.shape), dst[g.size :]


def check_through(g, y, axis, bounds):
    passed, sums = through(g, y, axis, bounds)
    low, high = bounds
    right = np.where(((y > low) & ((y < high) | (high == np.inf))) | np.isnan(y), g, g.dtype.type(0))
    np.testing.assert_array_equal(passed, right)
    others = tuple(i for i in range(g.ndim) if i != axis)
    terms = np.abs(g).astype(np.float64).sum(others)
    assert max_error(sums, right.sum(others, np.float64), terms) < tolerance(g.dtype, g.size // g.shape[axis])


@dtypes
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_goes_through_a_clamp_and_its_sums(rng, shape, bounds, dtype):
    g, y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    y[rng.random(shape) < 0.1] = bounds[0]
    y.flat[:: max(1, y.size // 3)] = np.nan
    y.flat[1 :: max(1, y.size // 3)] = bounds[1]
    for axis in range(len(shape)):
        check_through(g, y, axis, bounds)


@dtypes
def test_what_goes_through_a_clamp_of_strided_arrays(rng, dtype):
    for shape in [(3, 37), (2, 3, 4, 21)]:
        g, y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        for ours, other in itertools.product(ways(g), ways(y)):
            for axis in range(len(shape)):
                check_through(ours, other, axis, (0.0, np.inf))


@dtypes
@pytest.mark.parametrize("shape", [(8, 5, 4096), (8, 4096, 5), (70000, 3), (3, 70000), (1, 1, 50000)])
def test_sums_through_a_clamp_are_those_of_what_went_through(rng, shape, dtype):
    """To the bit, for any number of threads, and where the gradient lay."""
    g, y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    for axis in range(len(shape)):
        for threads in (1, 2, 5):
            with fc.threads(threads):
                passed, sums = through(g, y, axis, (0.0, np.inf))
                over = ((1 << len(shape)) - 1) ^ 1 << axis
                np.testing.assert_array_equal(sums, reduce(passed, over, SUM).ravel())
                room = np.concatenate([g.ravel(), np.zeros(shape[axis], dtype)])
                again = through(room[: g.size].reshape(shape), y, axis, (0.0, np.inf), room)
                np.testing.assert_array_equal(again[0], passed)
                np.testing.assert_array_equal(again[1], sums)


def test_nothing_goes_through_a_clamp():
    passed, sums = through(np.zeros((3, 0, 4)), np.zeros((3, 0, 4)), 2, (0.0, 6.0))
    assert passed.shape == (3, 0, 4)
    np.testing.assert_array_equal(sums, np.zeros(4))


@pytest.mark.parametrize("change", ["result", "dtype", "room", "axis", "bounds"])
def test_a_clamp_that_does_not_fit_is_refused(change):
    g = np.ones((3, 4), np.float32)
    arguments = {
        "result": g[:, :3] if change == "result" else g.astype(np.float64) if change == "dtype" else g,
        "dst": np.ones(15 if change == "room" else 16, np.float32),
        "axis": 2 if change == "axis" else 1,
        "bounds": (1.0, 0.0) if change == "bounds" else (0.0, 1.0),
    }
    with pytest.raises(ValueError, match=r"fit|room|ordered"):
        through(g, *(arguments[name] for name in ("result", "axis", "bounds", "dst")))


# --- norms ----------------------------------------------------------------------------------------


def norm(x, mask, kind, scale=None, shift=None, eps=1e-5, dst=None):
    dst = poison(x.shape, x.dtype) if dst is None else dst
    _core.norm(x, dst, scale, shift, mask, kind, eps, _config.ISA, _config.get_num_threads())
    return dst


def normalised(x, mask, kind, scale=1.0, shift=0.0, eps=1e-5):
    x, over = x.astype(np.float64), {"axis": axes_of(mask, x.ndim), "keepdims": True}
    with np.errstate(all="ignore"):
        if kind == STANDARD:
            return (x - x.mean(**over)) / np.sqrt(x.var(**over) + eps) * scale + shift
        if kind == RMS:
            return x / np.sqrt(np.square(x).mean(**over) + eps) * scale + shift
        centred = x - x.max(**over)
        total = np.exp(centred).sum(**over)
        return np.exp(centred) / total if kind == SOFTMAX else centred - np.log(total)


def amplified(x, mask, kind, right):
    """What errors are relative to: x that lies far from zero, in deviations, has been rounded before it is centred."""
    if kind != STANDARD:
        return right
    deviation = np.sqrt(x.astype(np.float64).var(axis=axes_of(mask, x.ndim), keepdims=True) + 1e-5)
    return np.abs(right) + np.abs(x) / deviation


@dtypes
@pytest.mark.parametrize("kind", range(4), ids=["standard", "rms", "softmax", "log_softmax"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norms_over_every_set_of_axes(rng, shape, kind, dtype):
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    for mask in masks(len(shape)):
        terms = np.prod([x.shape[i] for i in axes_of(mask, x.ndim)])
        right = normalised(x, mask, kind)
        error = max_error(norm(x, mask, kind), right, amplified(x, mask, kind, right))
        assert error < tolerance(dtype, terms + 4), mask


@dtypes
@pytest.mark.parametrize("kind", range(4), ids=["standard", "rms", "softmax", "log_softmax"])
def test_norms_of_strided_arrays(rng, kind, dtype):
    for shape in [(3, 37), (2, 3, 4, 21)]:
        for x in ways(rng.standard_normal(shape).astype(dtype)):
            for mask in masks(len(shape)):
                right, bound = normalised(x, mask, kind), tolerance(dtype, x.size + 4)
                scale = amplified(x, mask, kind, right)
                whole, part = embedded(x, dense=False)
                part[...] = np.nan
                assert max_error(norm(x, mask, kind, dst=part), right, scale) < bound
                part[...] = np.nan
                assert np.isnan(whole).all()  # and nothing else was touched
                turned = poison(x.shape[::-1], dtype).T
                assert max_error(norm(x, mask, kind, dst=turned), right, scale) < bound
                assert max_error(norm(x, mask, kind, dst=x), right, scale) < bound


@dtypes
@pytest.mark.parametrize("kind", [STANDARD, RMS])
@pytest.mark.parametrize("shape", [(3, 37), (2, 3, 5, 21), (2, 5, 3, 66)])
def test_norms_with_scale_and_shift(rng, shape, kind, dtype):
    for x in (rng.standard_normal(shape).astype(dtype), np.asfortranarray(rng.standard_normal(shape).astype(dtype))):
        for mask, along in itertools.product(masks(len(shape)), range(1 << len(shape))):
            given = tuple(n if along >> i & 1 else 1 for i, n in enumerate(shape))
            for order in "CF":
                scale, shift = (np.array(rng.standard_normal(given), dtype, order=order) for _ in range(2))
                right = normalised(x, mask, kind, scale, shift)
                error = max_error(norm(x, mask, kind, scale, shift), right, amplified(x, mask, kind, right))
                assert error < tolerance(dtype, x.size + 4)


@dtypes
def test_softmax_far_from_zero(dtype):
    x = np.array(
        [[-1e30, 0, 1e30], [-np.inf, 5, 5], [-100, 0, -2], [-np.inf] * 3, [np.inf, 0, 0], [np.nan, 0, 0]], dtype
    )
    for turned in (x, np.asfortranarray(x)):
        for kind in (SOFTMAX, LOG_SOFTMAX):
            right = normalised(x, 2, kind)
            ends = np.finfo(dtype)
            np.testing.assert_allclose(
                norm(turned, 2, kind), right.astype(dtype), 4 * ends.eps, 2 * ends.smallest_subnormal
            )


@dtypes
def test_exponentials_are_within_two_units(rng, dtype):
    """softmax of x and 0 with x far below: exp(x) itself, down to the smallest numbers."""
    low = np.log(np.finfo(dtype).smallest_subnormal)
    x = np.concatenate([rng.uniform(low + 1, -40, 1000), [low - 2, -np.inf]]).astype(dtype)
    y = norm(np.stack([x, np.zeros_like(x)]), 1, SOFTMAX)[0]
    right = np.exp(x.astype(np.longdouble))
    assert (np.abs(y - right) <= 2 * np.spacing(right.astype(dtype))).all()


@dtypes
def test_a_large_mean_does_not_hurt(rng, dtype):
    x = (1000 + rng.standard_normal((4, 900))).astype(dtype)
    wide = x.astype(np.longdouble)
    right = (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)
    for turned, mask, oracle in ((x, 2, right), (np.ascontiguousarray(x.T), 1, right.T)):
        # The mean is rounded once: to half a unit of 1000, in deviations of 1.
        assert np.abs(norm(turned, mask, STANDARD, eps=0.0) - oracle).max() < 1000 * np.finfo(dtype).eps


def test_arrays_that_do_not_fit_are_refused():
    x, one = np.ones((3, 4), np.float32), np.ones((1, 1), np.float32)
    isa = _config.ISA
    for dst in (np.ones((3, 4), np.float32), np.ones((3, 1)), np.ones(3, np.float32)):
        with pytest.raises(ValueError, match="do not fit"):
            _core.reduce(x, dst, 2, SUM, isa, 1)
    with pytest.raises(ValueError, match="room for the results"):
        _core.reduce(x, np.ones((3, 1), np.float32), 2, MOMENTS, isa, 1)
    for scale, shift in ((one, None), (one, np.ones((1, 4), np.float32)), (np.ones((3, 3), np.float32),) * 2):
        with pytest.raises(ValueError, match="do not fit"):
            _core.norm(x, np.empty_like(x), scale, shift, 2, STANDARD, 1e-5, isa, 1)
    for reduction in (lambda: reduce(x, 2, 10), lambda: _core.reduce_plan(((4, 1, 0, 0, True),), 10, 0, 0, isa)):
        with pytest.raises(ValueError, match="needs through"):
            reduction()
    with pytest.raises(ValueError, match="kind 11 is unknown"):
        reduce(x, 2, 11)
    with pytest.raises(ValueError, match="at most 8"):
        _core.reduce_plan(((1, 1, 1, 0, True),) * 9, SUM, 0, 0, isa)
    with pytest.raises(ValueError, match="exceeds"):
        _core.norm_plan(((1 << 40, 1, 1, 0, True),) * 2, STANDARD, 1e-5, 0, isa)


def test_plans_from_numbers_alone():
    """As networks make them: sizes and strides in elements."""
    plan = _core.norm_plan(
        ((2, 12, 12, 0, False), (3, 4, 4, 1, False), (4, 1, 1, 0, True)), STANDARD, 1e-5, 0, _config.ISA
    )
    assert plan.seconds > 0
    assert plan.workspace_bytes(1) > 0
    assert _core.reduce_plan(((4, 1, 0, 0, True),), SUM, 0, 1, _config.ISA).packed_bytes == 0
