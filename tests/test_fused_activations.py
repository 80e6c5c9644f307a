# SPDX-License-Identifier: BSD-3-Clause
"""SiLU, hardswish and the sigmoid as the end of a convolution: what they make of every number, wherever it is stored.

A convolution without an activation gives the sums to the last bit, so that what the activation makes of them is known
to a few units in the last place.
"""

import numpy as np
import pytest

import fastconv as fc
from problems import DTYPES, LAYOUTS, Problem, in_layout, operands
from support import embedded, from_layout, poison, to_layout

ACTIVATIONS = ("silu", "hardswish", "sigmoid")
#: exp by less than two, a sum, a quotient, and a product.
PLACES = 4
SAME = ((1, 1), (1, 1))
PROBLEMS = {
    "3x3": Problem((13, 37), 5, 37, (3, 3), 2, padding=SAME, bias=True, residual=True),
    "stride": Problem((15, 18), 3, 35, (3, 3), 2, (2, 2), ((0, 1), (1, 0)), residual=True),
    "1x1": Problem((7, 9), 300, 18, batch=3, bias=True),
    "one pixel": Problem((1, 1), 30, 70, batch=9, bias=True),
    "depthwise": Problem((13, 37), 37, 37, (3, 3), 2, padding=SAME, groups=37, bias=True, residual=True),
    "depthwise, any taps": Problem((16, 35), 19, 19, (4, 3), 2, (1, 2), groups=19, bias=True),
    "multiplier": Problem((11, 19), 3, 6, (5, 3), 2, (2, 1), ((2, 2), (1, 1)), groups=3, residual=True),
    "groups": Problem((12, 15), 8, 12, (3, 3), 2, padding=SAME, groups=4, bias=True),
    "two rows": Problem((9, 70), 4, 40, (2, 4), padding=SAME, bias=True, residual=True),
}
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_algorithm = pytest.mark.parametrize("algorithm", fc.ALGORITHMS)


def exactly(activation, x):
    x = np.asarray(x, np.longdouble)
    with np.errstate(over="ignore", invalid="ignore"):
        if activation == "hardswish":
            return x * (np.clip(x + 3, 0, 6) / 6)
        return (x if activation == "silu" else 1) / (1 + np.exp(-x))


def places(actual, expected):
    """The largest error in units of the last place; below the normal numbers, which may be zero, in units of those."""
    dtype = actual.dtype
    assert np.isfinite(actual).all()
    unit = np.spacing(np.maximum(np.abs(expected), np.finfo(dtype).tiny).astype(dtype))
    error = np.abs(actual.astype(np.longdouble) - expected)
    error[np.abs(expected) < 2 * np.finfo(dtype).tiny] *= np.finfo(dtype).eps / 2
    return float((error / unit).max(initial=0))


def served(algorithm, layout, dtype="float32"):
    """At least one of the problems, if the algorithm is for this dtype."""
    for name, p in PROBLEMS.items():
        shape = in_layout(p.input_shape, layout)
        if algorithm in fc.algorithms(shape, p.weight_shape, **p.geometry, layout=layout, dtype=dtype):
            yield name, p


def summing(*shapes, **options):
    """Algorithms that round a sum before its activation: all but the reference."""
    return [name for name in fc.algorithms(*shapes, **options) if name != "reference"]


def run(problem, arrays, layout, algorithm, activation, **options):
    x, w, b, r = arrays
    options = {**problem.geometry, "layout": layout, "residual": r, **options}
    return fc.conv2d(x, w, b, algorithm=algorithm, activation=activation, **options)


# ------------------------------------------------------------------------------------------------------------- numbers


def through(x, activation, algorithm):
    """Numbers as pixels through one weight of one."""
    return fc.conv2d(x.reshape(1, 1, 1, -1), np.ones((1, 1, 1, 1), x.dtype), activation=activation, algorithm=algorithm)


@each_activation
@each_dtype
@pytest.mark.parametrize("algorithm", ["im2col", "depthwise", "reference"])
def test_numbers_of_every_size(activation, dtype, algorithm):
    """The reference multiplies by the root of exp twice, lest that be too small a number: one place more."""
    rng, far = np.random.default_rng(0), {"float32": 120, "float64": 770}[dtype]
    steps = np.ldexp(rng.uniform(1, 2, 40_000), rng.integers(-100, 100, 40_000))
    x = [rng.uniform(-far, far, 100_000), rng.uniform(-20, 20, 100_000), rng.normal(0, 3, 100_000), steps, -steps]
    x = np.concatenate([*x, np.log(2) * np.arange(-far, far) / 2]).astype(dtype)
    result = through(x, activation, algorithm).ravel()
    assert places(result, exactly(activation, x)) < PLACES + (algorithm == "reference")


@each_activation
@each_dtype
@pytest.mark.parametrize("algorithm", ["im2col", "depthwise", "reference"])
def test_numbers_at_the_ends(activation, dtype, algorithm):
    """Minus infinity times zero is NaN, as in torch; the largest numbers overflow nowhere."""
    most = np.finfo(dtype).max
    x = np.array([np.nan, np.inf, -np.inf, most, -most, 1e30, -1e30, 0.0, -0.0], dtype)
    ends = {
        "silu": [np.nan, np.inf, np.nan, most, -0.0, 1e30, -0.0, 0.0, -0.0],
        "hardswish": [np.nan, np.inf, np.nan, most, -0.0, 1e30, -0.0, 0.0, -0.0],
        "sigmoid": [np.nan, 1, 0, 1, 0, 1, 0, 0.5, 0.5],
    }[activation]
    result = through(np.tile(x, 11), activation, algorithm).ravel()
    np.testing.assert_array_equal(result, np.tile(np.array(ends, dtype), 11))


# ----------------------------------------------------------------------------------------------------- wherever stored


@each_algorithm
@each_layout
@each_dtype
def test_sums_are_mapped_once(algorithm, layout, dtype):
    seen = 0
    for name, problem in served(algorithm, layout, dtype):
        arrays = operands(problem, dtype).to(layout)
        sums = run(problem, arrays, layout, algorithm, None)
        for activation in ACTIVATIONS:
            whole, out = embedded(poison(sums.shape, dtype))
            result = run(problem, arrays, layout, algorithm, activation, out=out)
            assert result is out
            assert np.count_nonzero(~np.isnan(whole)) == out.size, (name, activation)
            truth = exactly(activation, sums)
            if algorithm == "reference":  # whose sums are rounded behind the activation, not before
                np.testing.assert_allclose(result, truth, rtol=2e-6, atol=2e-6, err_msg=name)
            else:
                assert places(result, truth) < PLACES, (name, activation)
            seen += 1
    assert seen or (dtype == "float64" and algorithm.startswith("winograd"))


@each_algorithm
@each_layout
def test_plans_threads_and_places_in_the_batch_do_not_change_a_bit(algorithm, layout):
    for name, problem in served(algorithm, layout):
        x, w, b, r = operands(problem, "float32").to(layout)
        options = {**problem.geometry, "layout": layout, "algorithm": algorithm, "activation": "silu"}
        with fc.threads(1):
            expected = fc.conv2d(x, w, b, **options, residual=r)
        plan = fc.ConvPlan(x.shape, w, b, **options)
        for threads in (1, 2, 3):
            with fc.threads(threads):
                np.testing.assert_array_equal(fc.conv2d(x, w, b, **options, residual=r), expected, err_msg=name)
                np.testing.assert_array_equal(plan(x, r), expected, err_msg=name)
        alone = fc.conv2d(x[-1:], w, b, **options, residual=None if r is None else r[-1:])
        np.testing.assert_array_equal(alone[0], expected[-1], err_msg=name)
        if r is not None:
            plan(x, r, out=r)  # what is added may be where the result goes
            np.testing.assert_array_equal(r, expected, err_msg=name)


@each_activation
@each_layout
def test_float16_is_rounded_once(activation, layout):
    for name, problem in PROBLEMS.items():
        arrays = [None if a is None else a.astype(np.float16) for a in operands(problem, "float32").to(layout)]
        wide = [None if a is None else a.astype(np.float32) for a in arrays]
        for algorithm in ("im2col", "direct"):
            result = run(problem, arrays, layout, algorithm, activation)
            expected = run(problem, wide, layout, algorithm, activation).astype(np.float16)
            np.testing.assert_array_equal(result, expected, err_msg=f"{name}, {algorithm}")


@each_activation
@each_dtype
@each_layout
def test_transposed_convolutions(activation, dtype, layout):
    """Phase by phase, in columns that are a stride apart; one of the phases of the last has no taps."""
    rng = np.random.default_rng(1)
    for channels, groups, kernel, stride in ((5, 1, 3, 2), (7, 7, 3, 2), (6, 2, 4, 3), (4, 1, 2, 3)):
        x = to_layout(rng.standard_normal((2, channels, 9, 21)).astype(dtype), layout)
        w = rng.standard_normal((channels, 5 if groups == 1 else 1, kernel, kernel)).astype(dtype)
        b = rng.standard_normal(w.shape[1] * groups).astype(dtype)
        options = {"stride": stride, "groups": groups, "layout": layout}
        r = rng.standard_normal(fc.conv_transpose2d(x, w, b, **options).shape).astype(dtype)
        for algorithm in summing(x.shape, w.shape, **options, dtype=dtype, transposed=True):
            sums = fc.conv_transpose2d(x, w, b, **options, algorithm=algorithm, residual=r)
            finished = {"algorithm": algorithm, "activation": activation}
            result = fc.conv_transpose2d(x, w, b, **options, **finished, residual=r)
            assert places(result, exactly(activation, sums)) < PLACES, (channels, groups, kernel, stride, algorithm)
            plan = fc.ConvPlan(x.shape, w, b, **options, **finished, transposed=True)
            np.testing.assert_array_equal(plan(x, r), result)


@each_activation
@pytest.mark.parametrize("rank", [1, 3])
def test_one_axis_and_three(activation, rank):
    rng = np.random.default_rng(2)
    conv = {1: fc.conv1d, 3: fc.conv3d}[rank]
    size, kernel = {1: ((70,), (3,)), 3: ((5, 6, 19), (2, 3, 3))}[rank]
    for layout in {1: ("NCW", "NWC"), 3: ("NCDHW", "NDHWC")}[rank]:
        for groups in (1, 6):
            shape = (2, 6, *size) if layout[1] == "C" else (2, *size, 6)
            x = rng.standard_normal(shape).astype(np.float32)
            w = rng.standard_normal((6, 6 // groups, *kernel)).astype(np.float32)
            for algorithm in summing(x.shape, w.shape, groups=groups, padding=1, layout=layout):
                options = {"padding": 1, "groups": groups, "layout": layout, "algorithm": algorithm}
                result = conv(x, w, **options, activation=activation)
                assert places(result, exactly(activation, conv(x, w, **options))) < PLACES, (layout, groups, algorithm)


@each_activation
@each_layout
def test_results_with_gaps(activation, layout):
    """Every second element of an array takes the result; what lies between is not touched."""
    for name, problem in PROBLEMS.items():
        arrays = operands(problem, "float32")._replace(residual=None).to(layout)
        expected = run(problem, arrays, layout, "im2col", activation)
        spread = poison((*expected.shape[:-1], 2 * expected.shape[-1]))
        result = run(problem, arrays, layout, "im2col", activation, out=spread[..., ::2])
        assert np.isnan(spread[..., 1::2]).all(), name
        difference = from_layout(result - expected, layout)
        np.testing.assert_allclose(difference, 0, atol=1e-5, err_msg=name)
    x, w = np.ones((1, 70), np.float32), np.ones((33, 70), np.float32) / 70
    np.testing.assert_allclose(fc.linear(x, w, activation=activation), exactly(activation, 1).astype(float), rtol=1e-5)
