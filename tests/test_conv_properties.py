# SPDX-License-Identifier: BSD-3-Clause
"""What holds for every convolution, whatever its numbers: no oracle needed."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import fastconv as fc
from cases import (
    EXACT,
    LARGE,
    SMALL,
    each_algorithm,
    each_algorithm_and_dtype,
    each_dtype,
    each_exact_algorithm,
    each_layout,
    rounding,
    run,
    served,
)
from fastconv import reference
from problems import Problem, in_layout, operands
from support import MANY_THREADS, every_thread, from_layout, max_error, poison, to_layout, tolerance, whole

TILE = {"winograd_f2": 2, "winograd_f3": 3, "winograd_f4": 4, "winograd_f6": 6}


def tile(problem, algorithm):
    """Rows and columns of outputs after which tiles repeat; those of a dilated convolution are tiles of its phases."""
    side = TILE.get(algorithm, 1)
    return tuple(
        side * (d if side > 1 and s == 1 else 1) for d, s in zip(problem.dilation, problem.stride, strict=True)
    )


def plain(problem, x, w, layout, algorithm):
    """The linear part alone."""
    return fc.conv2d(x, w, **problem.geometry, layout=layout, algorithm=algorithm)


# --- algebra --------------------------------------------------------------------------------------


@each_algorithm
@each_layout
def test_linear_in_the_input(algorithm, layout):
    for name, problem in served(SMALL, algorithm, layout):
        x, w, _, _ = operands(problem, "float32").to(layout)
        other = np.random.default_rng(1).standard_normal(x.shape, dtype=np.float32)
        left = plain(problem, 2 * x - 3 * other, w, layout, algorithm)
        right = 2 * plain(problem, x, w, layout, algorithm) - 3 * plain(problem, other, w, layout, algorithm)
        # Two sums cancel, each rounded by itself.
        assert max_error(left, right) < 4 * rounding(algorithm, "float32", problem.terms), name


@each_algorithm
@each_layout
def test_linear_in_the_weight(algorithm, layout):
    for name, problem in served(SMALL, algorithm, layout):
        x, w, _, _ = operands(problem, "float32").to(layout)
        other = np.random.default_rng(2).standard_normal(w.shape, dtype=np.float32)
        left = plain(problem, x, 2 * w - other, layout, algorithm)
        right = 2 * plain(problem, x, w, layout, algorithm) - plain(problem, x, other, layout, algorithm)
        assert max_error(left, right) < 4 * rounding(algorithm, "float32", problem.terms), name


@each_algorithm
@each_layout
def test_an_impulse_gives_the_kernel(algorithm, layout):
    """A single one at (y, x) under stride 1: the kernel, both axes reversed, around that place."""
    for name, problem in served(SMALL, algorithm, layout):
        if problem.stride != (1, 1):
            continue
        w = operands(problem, "float32").weight
        y, x = problem.size[0] // 2, problem.size[1] // 2
        image = np.zeros(problem.input_shape, np.float32)
        image[0, 0, y, x] = 1
        result = from_layout(plain(problem, to_layout(image, layout), w, layout, algorithm), layout)
        (top, _), (left, _) = problem.padding
        kh, kw = problem.kernel
        expected = np.zeros_like(result)
        first = problem.out_channels // problem.groups  # the outputs that see channel 0
        expected[0, :first, y + top - kh + 1 : y + top + 1, x + left - kw + 1 : x + left + 1] = w[:first, 0, ::-1, ::-1]
        if algorithm in EXACT:
            np.testing.assert_array_equal(result, expected, err_msg=name)
        else:
            assert max_error(result, expected) < rounding(algorithm, "float32", 1), name


@each_algorithm
@each_layout
def test_shifted_in_shifted_out(algorithm, layout):
    """The pixels that see no border move along with the image. By a whole tile, to the last bit."""
    for name, small in served(SMALL, algorithm, layout):
        problem = replace(small, size=(99, 101))
        rows, columns = tile(problem, algorithm)
        sh, sw = rows * problem.stride[0], columns * problem.stride[1]
        x, w, _, _ = operands(problem, "float32")
        moved = np.zeros_like(x)
        moved[:, :, sh:, sw:] = x[:, :, :-sh, :-sw]
        before, after = (
            from_layout(plain(problem, to_layout(image, layout), w, layout, algorithm), layout) for image in (x, moved)
        )
        # Outputs whose windows, or whose Winograd tiles' windows, see no border before or after.
        (y0, y1), (x0, x1) = (
            (-(-n // 3 // steps) * steps, n // 2 // steps * steps)
            for n, steps in zip(problem.out_size, (rows, columns), strict=True)
        )
        assert y1 > y0, name
        assert x1 > x0, name
        np.testing.assert_array_equal(
            after[:, :, y0 + rows : y1 + rows, x0 + columns : x1 + columns],
            before[:, :, y0:y1, x0:x1],
            err_msg=name,
        )


@each_layout
@each_dtype
def test_gradients_are_adjoint(layout, dtype):
    """<conv(x, w), y> = <x, conv_input(y, w)> = <w, conv_weight(x, y)>."""
    for name, problem in SMALL.items():
        x, w, _, _ = operands(problem, dtype).to(layout)
        out = plain(problem, x, w, layout, "auto")
        y = np.random.default_rng(3).standard_normal(out.shape).astype(dtype)
        options = {**problem.geometry, "layout": layout}
        d_x = fc.grad.conv2d_input(x.shape, w, y, **options)
        d_w = fc.grad.conv2d_weight(x, w.shape, y, **options)
        products = [np.vdot(a.astype(np.float64), b) for a, b in ((out, y), (x, d_x), (w, d_w))]
        # The first stands for products that all have a rounding error of their own.
        scale = np.linalg.norm(out) * np.linalg.norm(y)
        bound = 10 * tolerance(dtype, max(problem.terms, problem.batch * np.prod(problem.out_size)))
        assert max_error(np.array(products[1:]), np.full(2, products[0]), scale) < bound, name


@each_exact_algorithm
@each_layout
@each_dtype
def test_whole_numbers_are_exact(algorithm, layout, dtype):
    """Sums of small integers have no rounding, in whatever order. (Winograd's transforms leave the integers.)"""
    rng = np.random.default_rng(4)
    for name, problem in served(SMALL, algorithm, layout, dtype):
        x, w, b = whole(rng, problem.input_shape, dtype), whole(rng, problem.weight_shape, dtype), None
        if problem.bias:
            b = whole(rng, problem.out_channels, dtype)
        r = whole(rng, problem.output_shape, dtype) if problem.residual else None
        options = {**problem.geometry, "activation": problem.activation, "residual": r}
        expected = reference.conv2d_im2col(x, w, b, **options)
        arrays = [to_layout(x, layout), w, b, None if r is None else to_layout(r, layout)]
        result = run(problem, arrays, layout, algorithm)
        np.testing.assert_array_equal(from_layout(result, layout), expected, err_msg=name)


# --- to the last bit ------------------------------------------------------------------------------


@each_algorithm_and_dtype
@each_layout
def test_threads_do_not_change_a_bit(algorithm, layout, dtype):
    for name, problem in served(LARGE, algorithm, layout, dtype):
        arrays = operands(problem, dtype).to(layout)
        with fc.threads(1):
            expected = run(problem, arrays, layout, algorithm)
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                result = run(problem, arrays, layout, algorithm)
            np.testing.assert_array_equal(result, expected, err_msg=f"{name}, {count} threads")


@each_algorithm_and_dtype
@each_layout
def test_place_in_the_batch_does_not_change_a_bit(algorithm, layout, dtype):
    """Nor does what else is in the batch."""
    for name, problem in served({**SMALL, "groups": LARGE["groups"]}, algorithm, layout, dtype):
        if problem.batch == 1:
            continue
        x, w, b, r = operands(problem, dtype).to(layout)
        expected = run(problem, (x, w, b, r), layout, algorithm)
        for image in range(problem.batch):
            others = np.full_like(x, 7)
            others[image] = x[image]
            result = run(problem, (others, w, b, r), layout, algorithm)
            np.testing.assert_array_equal(result[image], expected[image], err_msg=name)
            residual = None if r is None else r[image : image + 1]
            alone = run(problem, (x[image : image + 1], w, b, residual), layout, algorithm)
            np.testing.assert_array_equal(alone[0], expected[image], err_msg=name)


@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 33])
@each_dtype
def test_where_an_array_begins_does_not_change_a_bit(outputs, dtype):
    """Tiles of pixels begin at cache lines. More than one block of channels, and planes of whole lines or not."""
    for size in ((16, 32), (19, 64), (1, 600), (17, 31)):
        problem = Problem(size, 300, outputs, batch=2, bias=True, residual=True)
        x, w, b, r = operands(problem, dtype)
        memory = np.full(x.size + 64 // x.itemsize, np.nan, dtype)
        lead = -memory.ctypes.data % 64 // x.itemsize
        expected = None
        for start in (0, 4, 5, 64 // x.itemsize - 1):
            placed = memory[(lead + start) % (64 // x.itemsize) :][: x.size].reshape(x.shape)
            placed[...] = x
            for threads in (1, 3):
                with every_thread(), fc.threads(threads):
                    result = run(problem, (placed, w, b, r), "NCHW", "pointwise")
                expected = result if expected is None else expected
                np.testing.assert_array_equal(result, expected, err_msg=f"{size} from {start} on")
        exact = reference.conv2d(*(a.astype(np.float64) for a in (x, w, b))) + r
        assert max_error(expected, exact) < tolerance(dtype, 300)


@each_algorithm_and_dtype
@each_layout
def test_nor_the_sign_of_a_nan(algorithm, layout, dtype):
    """Sums of several NaN of both signs, and of infinities, which make NaN of their own."""
    rng = np.random.default_rng(7)
    values = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype)
    for name, problem in served({**SMALL, "groups": LARGE["groups"]}, algorithm, layout, dtype):
        x, w, b, r = (None if a is None else a.copy() for a in operands(problem, dtype).to(layout))
        for operand in (a for a in (x, b, r) if a is not None):
            operand[rng.random(operand.shape) < 0.05] = rng.choice(values)
        x[rng.random(x.shape) < 0.05] = -np.nan
        bits = np.dtype(dtype).str.replace("f", "u")
        expected = run(problem, (x, w, b, r), layout, algorithm)
        signs = np.unique(expected[np.isnan(expected)].view(bits))
        np.testing.assert_array_equal(signs, values[:1].view(bits), err_msg=name)
        for image in range(problem.batch):
            residual = None if r is None else r[image : image + 1]
            alone = run(problem, (x[image : image + 1], w, b, residual), layout, algorithm)
            np.testing.assert_array_equal(alone[0].view(bits), expected[image].view(bits), err_msg=name)


@each_layout
@each_dtype
def test_rolled_batch_gives_the_rolled_result(layout, dtype):
    for name, problem in SMALL.items():
        arrays = operands(problem, dtype).to(layout)
        expected = run(problem, arrays, layout, "auto")
        x, w, b, r = arrays
        residual = None if r is None else np.roll(r, 1, axis=0)
        result = run(problem, (np.roll(x, 1, axis=0), w, b, residual), layout, "auto")
        np.testing.assert_array_equal(result, np.roll(expected, 1, axis=0), err_msg=name)


@each_algorithm
@each_layout
def test_a_plan_does_what_the_function_does(algorithm, layout):
    for name, problem in served(SMALL, algorithm, layout):
        x, w, b, r = operands(problem, "float32").to(layout)
        plan = fc.ConvPlan(
            x.shape, w, b, **problem.geometry, layout=layout, activation=problem.activation, algorithm=algorithm
        )
        expected = run(problem, (x, w, b, r), layout, algorithm)
        np.testing.assert_array_equal(plan(x, r), expected, err_msg=name)
        np.testing.assert_array_equal(plan(x, r), expected, err_msg=f"{name}, again")


# --- spellings ------------------------------------------------------------------------------------


@each_algorithm_and_dtype
def test_layouts_agree(algorithm, dtype):
    both = dict(served(SMALL, algorithm, "NCHW", dtype)).items() & dict(served(SMALL, algorithm, "NHWC", dtype)).items()
    for name, problem in both:
        arrays = operands(problem, dtype)
        first = run(problem, arrays, "NCHW", algorithm)
        last = from_layout(run(problem, arrays.to("NHWC"), "NHWC", algorithm), "NHWC")
        assert max_error(last, first) < rounding(algorithm, dtype, problem.terms), name


@each_layout
def test_an_image_without_a_batch(layout):
    for name, problem in SMALL.items():
        x, w, b, r = operands(problem, "float32").to(layout)
        residual = None if r is None else r[:1]
        expected = run(problem, (x[:1], w, b, residual), layout, "auto")[0]
        residual = None if r is None else r[0]
        out = poison(expected.shape)
        assert run(problem, (x[0], w, b, residual), layout, "auto", out=out) is out
        np.testing.assert_array_equal(out, expected, err_msg=name)
        result = run(problem, (x[0], w, b, residual), layout, "auto")
        np.testing.assert_array_equal(result, expected, err_msg=name)


@pytest.mark.parametrize(
    ("spelling", "pairs"),
    [
        ("valid", ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        ([3], ((3, 3), (3, 3))),
        (np.array([[0, 1], [2, 3]]), ((0, 1), (2, 3))),
        (np.int32(1), ((1, 1), (1, 1))),
    ],
    ids=str,
)
def test_spellings_of_padding(spelling, pairs):
    x, w, _, _ = operands(SMALL["3x3"], "float32")
    np.testing.assert_array_equal(fc.conv2d(x, w, padding=spelling), fc.conv2d(x, w, padding=pairs))


@pytest.mark.parametrize("padding", ["same", "same_lower"])
def test_same_padding(padding):
    for size, kernel, stride, dilation in product((1, 4, 7, 8), (1, 2, 3, 4), (1, 2, 3), (1, 2)):
        problem = Problem((size, 5), 2, 3, (kernel, 2), stride=(stride, 1), dilation=(dilation, 1))
        x, w, _, _ = operands(problem, "float32")
        options = {"stride": problem.stride, "dilation": problem.dilation, "padding": padding}
        result = fc.conv2d(x, w, **options)
        assert result.shape == (1, 3, -(-size // stride), 5)
        expected = reference.conv2d(x, w, **options, dtype=np.float64)
        assert max_error(result, expected, 5) < tolerance(np.float32, problem.terms)


@pytest.mark.parametrize("one", [2, (2,), [2], (2, 2), np.array([2, 2]), np.int64(2)], ids=repr)
def test_spellings_of_stride_and_dilation(one):
    x, w, _, _ = operands(SMALL["3x3"], "float32")
    expected = fc.conv2d(x, w, stride=(2, 2), dilation=(2, 2))
    np.testing.assert_array_equal(fc.conv2d(x, w, stride=one, dilation=one), expected)


def test_arguments_in_the_order_of_torch():
    problem = SMALL["strided"]
    x, w, b, _ = operands(problem, "float32")
    by_place = fc.conv2d(x, w, b, problem.stride, problem.padding, problem.dilation, problem.groups)
    np.testing.assert_array_equal(by_place, fc.conv2d(x, w, b, **problem.geometry))


def test_float16_is_computed_in_float32():
    problem = SMALL["3x3"]
    half = [a.astype(np.float16) for a in operands(problem, "float32")]
    result = run(problem, half, "NCHW", "auto")
    assert result.dtype == np.float16
    expected = run(problem, [a.astype(np.float32) for a in half], "NCHW", "auto")
    np.testing.assert_array_equal(result, expected.astype(np.float16))
    out = poison(result.shape, np.float16)
    assert run(problem, half, "NCHW", "auto", out=out) is out
    np.testing.assert_array_equal(out, result)


def test_strict_precision_has_no_winograd():
    problem = LARGE["3x3"]
    x, w, _, _ = operands(problem, "float32")
    options = {**problem.geometry, "precision": "strict"}
    assert not TILE.keys() & set(fc.algorithms(x.shape, w.shape, **options))
    truth = reference.conv2d_im2col(x, w, **problem.geometry, dtype=np.float64)
    assert max_error(fc.conv2d(x, w, **options), truth) < 5e-7


# --- numbers that are none ------------------------------------------------------------------------


@each_algorithm
@each_layout
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_where_they_should(algorithm, layout, value):
    """Into every window that holds them, and no other."""
    for name, problem in served(SMALL, algorithm, layout):
        x, w, b, r = operands(problem, "float32")
        spoilt = x.copy()
        spoilt[1, 1, 6, 8] = value
        with np.errstate(invalid="ignore"):
            expected = reference.conv2d(
                spoilt, w, b, **problem.geometry, activation=problem.activation, residual=r, dtype=np.float64
            )
        result = from_layout(run(problem, Operands_to(layout, spoilt, w, b, r), layout, algorithm), layout)
        assert max_error(result, expected, 5) < rounding(algorithm, "float32", problem.terms), name


def Operands_to(layout, x, w, b, r):
    return to_layout(x, layout), w, b, None if r is None else to_layout(r, layout)


@each_algorithm
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu", "hardswish", "sigmoid"])
def test_activations_pass_nan_and_clamp_infinity(algorithm, activation):
    clamped = {None: [np.inf, -np.inf], "relu": [np.inf, 0], "relu6": [6, 0], "sigmoid": [1, 0]}
    expected = clamped.get(activation, [np.inf, np.nan])  # minus infinity times zero
    for name, problem in served(SMALL, algorithm, "NHWC"):
        x, w, _, _ = operands(problem, "float32").to("NHWC")
        r = np.zeros(in_layout(problem.output_shape, "NHWC"), np.float32)
        r[..., 0], r[..., 1], r[..., 2] = np.nan, np.inf, -np.inf
        result = fc.conv2d(
            x, w, **problem.geometry, residual=r, activation=activation, layout="NHWC", algorithm=algorithm
        )
        assert np.isnan(result[..., 0]).all(), name
        for channel, value in enumerate(expected, 1):
            np.testing.assert_array_equal(result[..., channel], np.float32(value), err_msg=name)
        assert np.isfinite(result[..., 3:]).all(), name


@each_algorithm
def test_weights_that_are_not_finite(algorithm):
    """A NaN in one kernel spoils the channel of that kernel, and no other."""
    for name, problem in served(SMALL, algorithm, "NCHW"):
        x, w, _, _ = operands(problem, "float32")
        inside = {**problem.geometry, "padding": 0}
        clean = fc.conv2d(x, w, **inside, algorithm=algorithm)
        w[1, 0, 0, 0] = np.nan
        result = fc.conv2d(x, w, **inside, algorithm=algorithm)
        assert np.isnan(result[:, 1]).all(), name
        others = [c for c in range(problem.out_channels) if c != 1]
        np.testing.assert_array_equal(result[:, others], clean[:, others], err_msg=name)


@each_algorithm
@pytest.mark.parametrize("threads", [1, 2])
def test_the_callers_floating_point_mode_is_kept(algorithm, threads):
    """Denormals may count as zero inside a call, but not behind it."""
    tiny = np.full(64, 1e-40, np.float32)
    for name, problem in served(LARGE, algorithm, "NCHW"):
        x, w, b, r = operands(problem, "float32")
        with fc.threads(threads):
            result = run(problem, (x * np.float32(1e-42), w, b, r), "NCHW", algorithm)
        assert np.isfinite(result).all(), name
        assert (tiny * np.float32(0.5) > 0).all(), name
