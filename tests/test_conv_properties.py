# SPDX-License-Identifier: BSD-3-Clause
"""What holds for every convolution, whatever its numbers: no oracle needed."""

import array
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core, _costs, reference
from problems import DTYPES, LAYOUTS, Problem, in_layout, operands
from support import (
    MANY_THREADS,
    embedded,
    every_thread,
    from_layout,
    max_error,
    poison,
    same_values,
    to_layout,
    tolerance,
    whole,
)

SAME = ((1, 1), (1, 1))
#: Small, and served by every algorithm between them.
SMALL = {
    "3x3": Problem((13, 17), 5, 7, (3, 3), 3, padding=SAME, bias=True, activation="relu", residual=True),
    "strided": Problem((12, 15), 6, 4, (3, 2), 2, (2, 1), ((0, 1), (2, 0)), (1, 2), 2, bias=True),
    "1x1": Problem((7, 9), 12, 18, batch=3, bias=True, activation="relu6"),
    "depthwise": Problem((11, 19), 18, 18, (3, 3), 2, padding=SAME, groups=18, bias=True, residual=True),
    "multiplier": Problem((11, 19), 3, 6, (5, 3), 2, (2, 1), ((2, 2), (1, 1)), groups=3, activation="relu"),
}
#: Enough tasks for several threads.
LARGE = {
    "3x3": Problem((35, 33), 24, 40, (3, 3), 2, padding=SAME, bias=True, activation="relu", residual=True),
    "deep": Problem((9, 9), 130, 129, (3, 3), padding=SAME, bias=True),
    "wide": Problem((75, 70), 3, 20, (3, 3), padding=SAME, activation="relu"),
    "groups": Problem((28, 29), 24, 48, (3, 3), 3, padding=SAME, groups=3, residual=True),
    "strided": Problem((61, 67), 7, 33, (5, 5), stride=(2, 2), padding=((2, 2), (2, 1)), bias=True),
    "1x1": Problem((29, 31), 300, 66, bias=True, activation="relu6"),
    "one pixel": Problem((1, 1), 1025, 700, batch=3, bias=True),
    "tall": Problem((1200, 3), 4, 9, (3, 3), padding=SAME, bias=True),
    "depthwise": Problem((57, 59), 67, 67, (3, 3), 2, padding=SAME, groups=67, bias=True, residual=True),
    "multiplier": Problem((57, 59), 30, 60, (5, 5), 1, (2, 2), ((2, 2), (2, 2)), groups=30, bias=True),
    "many taps": Problem((57, 59), 3, 3, (11, 9), padding=((5, 5), (4, 4)), groups=3),
}
EXACT = tuple(a for a in fc.ALGORITHMS if not a.startswith("winograd"))
TILE = {"winograd_f2": 2, "winograd_f3": 3, "winograd_f4": 4, "winograd_f6": 6}

each_algorithm = pytest.mark.parametrize("algorithm", fc.ALGORITHMS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_exact_algorithm = pytest.mark.parametrize("algorithm", EXACT)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_algorithm_and_dtype = pytest.mark.parametrize(
    ("algorithm", "dtype"), [(a, d) for d in DTYPES for a in fc.ALGORITHMS if a in EXACT or d == "float32"]
)


def tile(problem, algorithm):
    """Rows and columns of outputs that are computed together."""
    side = TILE.get(algorithm, 1)
    both = problem.kernel[0] > 1 and problem.stride[0] == problem.dilation[0] == 1
    return side if both else 1, side


def rounding(algorithm, dtype, terms):
    """What two ways to the same result may differ by, as a share of the largest."""
    return {"winograd_f2": 2, "winograd_f3": 10, "winograd_f4": 10, "winograd_f6": 60}.get(algorithm, 1) * tolerance(
        dtype, terms
    )


def served(problems, algorithm, layout, dtype="float32"):
    """(name, problem) of those that the algorithm takes. There is at least one."""
    found = [
        (name, p)
        for name, p in problems.items()
        if algorithm
        in fc.algorithms(in_layout(p.input_shape, layout), p.weight_shape, **p.geometry, layout=layout, dtype=dtype)
    ]
    assert found
    return found


def run(problem, arrays, layout, algorithm, **options):
    """conv2d with everything that the problem has, on arrays that lie in `layout`."""
    x, w, b, r = arrays
    return fc.conv2d(
        x,
        w,
        b,
        **problem.geometry,
        layout=layout,
        activation=problem.activation,
        residual=r,
        algorithm=algorithm,
        **options,
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
        problem = replace(small, size=(51, 53))
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


# --- memory ---------------------------------------------------------------------------------------


def test_inputs_wherever_they_lie():
    """Each operand in turn, in every order and direction; read, not changed, and not kept."""
    for name, layout in product(SMALL, LAYOUTS):
        problem = SMALL[name]
        arrays = operands(problem, "float32").to(layout)
        expected = run(problem, arrays, layout, "auto")
        for place, operand in enumerate(arrays):
            for how, same in same_values(operand) if operand is not None else ():
                result = run(problem, [*arrays[:place], same, *arrays[place + 1 :]], layout, "auto")
                # Another order in memory may be served by another algorithm.
                bound = 10 * tolerance(np.float32, problem.terms)
                assert max_error(result, expected, 5) < bound, (name, layout, place, how)
                np.testing.assert_array_equal(same, operand)


@each_algorithm
def test_inputs_upside_down(algorithm):
    """Negative strides along every axis, for each algorithm that takes them."""
    for name, problem in served(SMALL, algorithm, "NCHW"):
        x, w, b, r = operands(problem, "float32")
        expected = run(problem, (x, w, b, r), "NCHW", algorithm)
        for axis in range(3):  # along rows, the elements have to be neighbours for some
            flipped = np.flip(np.flip(x, axis).copy(), axis)
            result = run(problem, (flipped, w, b, r), "NCHW", algorithm)
            np.testing.assert_array_equal(result, expected, err_msg=name)
        for axis in range(4):
            flipped = np.flip(np.flip(w, axis).copy(), axis)
            np.testing.assert_array_equal(run(problem, (x, flipped, b, r), "NCHW", algorithm), expected, err_msg=name)


def test_outputs_wherever_they_lie():
    for (name, problem), layout in product(SMALL.items(), LAYOUTS):
        arrays = operands(problem, "float32").to(layout)
        expected = run(problem, arrays, layout, "auto")
        for how, out in same_values(poison(expected.shape)):
            if out.flags.writeable:
                assert run(problem, arrays, layout, "auto", out=out) is out
                bound = 10 * tolerance(np.float32, problem.terms)
                assert max_error(out, expected, 5) < bound, (name, layout, how)


def test_residual_may_be_the_output():
    for (name, problem), layout, dense in product(SMALL.items(), LAYOUTS, (True, False)):
        x, w, b, r = operands(problem, "float32").to(layout)
        if r is None:
            r = np.ones(in_layout(problem.output_shape, layout), np.float32)
        expected = run(problem, (x, w, b, r), layout, "auto")
        around, out = embedded(r, dense)
        assert run(problem, (x, w, b, out), layout, "auto", out=out) is out
        assert max_error(out, expected, 5) < 10 * tolerance(np.float32, problem.terms), name
        assert np.count_nonzero(~np.isnan(around)) == out.size


@pytest.mark.parametrize("stride", [0, 4, 20, -4, 1 << 40, 1 << 62], ids=hex)
@each_layout
def test_the_stride_of_an_axis_of_one_element_says_nothing(layout, stride):
    """Neither about which algorithm serves, nor as a number to compute with."""

    def odd(array):
        strides = [stride if length == 1 else step for length, step in zip(array.shape, array.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(array, array.shape, strides)

    problems = [
        Problem((6, 5), 1, 8, batch=2),
        Problem((6, 5), 8, 1, batch=2, residual=True),
        Problem((6, 5), 1, 1, (3, 3), padding=SAME),
        Problem((1, 7), 5, 20, (1, 3), padding=((0, 0), (1, 1)), bias=True),
        Problem((7, 1), 20, 5, (3, 1), padding=((1, 1), (0, 0))),
        Problem((1, 1), 33, 17),
        Problem((5, 7), 1, 3, (3, 3), 2, padding=SAME),
    ]
    for problem in problems:
        x, w, b, r = operands(problem, "float32").to(layout)
        options = {**problem.geometry, "layout": layout}
        for algorithm in fc.algorithms(x.shape, w.shape, **options):
            expected = run(problem, (x, w, b, r), layout, algorithm)
            arrays = (odd(x), odd(w), b, None if r is None else odd(r))
            np.testing.assert_array_equal(run(problem, arrays, layout, algorithm), expected, err_msg=algorithm)
            out = odd(poison(expected.shape))
            run(problem, arrays, layout, algorithm, out=out)
            np.testing.assert_array_equal(out, expected, err_msg=algorithm)
        plan = fc.ConvPlan(x.shape, odd(w), b, activation=problem.activation, **options)
        np.testing.assert_array_equal(
            plan(odd(x), arrays[3]), fc.ConvPlan(x.shape, w, b, activation=problem.activation, **options)(x, r)
        )
        y = poison(expected.shape)
        y[...] = 1
        d_x = fc.grad.conv2d_input(x.shape, w, y, **options)
        np.testing.assert_array_equal(fc.grad.conv2d_input(x.shape, odd(w), odd(y), **options), d_x)
        d_w = fc.grad.conv2d_weight(x, w.shape, y, **options)
        np.testing.assert_array_equal(fc.grad.conv2d_weight(odd(x), w.shape, odd(y), **options), d_w)


def test_no_array_has_strides_that_overflow():
    """The last line of defence, for those who call the core itself."""
    plan = fc.ConvPlan((1, 3, 8, 8), np.ones((4, 3, 3, 3), np.float32))
    verdicts = _core.explain(plan._fields, _config.ISA, False, False, _costs.COSTS.seconds)
    assert len(verdicts) == len(fc.ALGORITHMS)
    for name in ("src", "wei", "dst"):
        view = getattr(plan._fields, name)
        fields = plan._fields._replace(**{name: ((1 << 62), *view[1:])})
        with pytest.raises(ValueError, match="stride"):
            _core.explain(fields, _config.ISA, False, False, _costs.COSTS.seconds)


def test_broadcast_inputs():
    x = np.broadcast_to(np.float32(3), (2, 5, 9, 9))
    w = np.broadcast_to(np.float32(2), (6, 5, 3, 3))
    expected = np.full((2, 6, 7, 7), 3 * 2 * 45, np.float32)
    for algorithm in fc.algorithms(x.shape, w.shape):
        result = fc.conv2d(x, w, algorithm=algorithm)
        assert max_error(result, expected) < rounding(algorithm, "float32", 45), algorithm


def test_an_input_on_disk(tmp_path):
    problem = SMALL["3x3"]
    x, w, b, r = operands(problem, "float32")
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    result = run(problem, (mapped, w, b, r), "NCHW", "auto")
    np.testing.assert_array_equal(result, run(problem, (x, w, b, r), "NCHW", "auto"))
    assert type(result) is np.ndarray


def test_buffers_of_other_libraries():
    problem = SMALL["3x3"]
    x, w, b, r = operands(problem, "float32")
    expected = run(problem, (x, w, b, r), "NCHW", "auto")
    view = memoryview(x.tobytes()).cast("f", x.shape)
    result = run(problem, (view, w, array.array("f", b), memoryview(r)), "NCHW", "auto")
    np.testing.assert_array_equal(result, expected)


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    problem = SMALL["3x3"]
    arrays = operands(problem, "float32")
    expected = run(problem, arrays, "NCHW", "auto")
    tensors = [torch.from_numpy(a.copy()) for a in arrays]
    np.testing.assert_array_equal(run(problem, tensors, "NCHW", "auto"), expected)
    last = tensors[0].to(memory_format=torch.channels_last)
    result = run(problem, [last, *tensors[1:]], "NCHW", "auto")
    assert max_error(result, expected) < 10 * tolerance(np.float32, problem.terms)


def test_objects_that_only_speak_dlpack():
    class Tensor:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    problem = SMALL["3x3"]
    arrays = operands(problem, "float32")
    expected = run(problem, arrays, "NCHW", "auto")
    np.testing.assert_array_equal(run(problem, [Tensor(a) for a in arrays], "NCHW", "auto"), expected)


@each_algorithm_and_dtype
@each_layout
def test_no_images(algorithm, layout, dtype):
    for name, problem in served(SMALL, algorithm, layout, dtype):
        x, w, b, r = operands(problem, dtype).to(layout)
        expected = (0, *in_layout(problem.output_shape, layout)[1:])
        result = run(problem, (x[:0], w, b, None if r is None else r[:0]), layout, algorithm)
        assert result.shape == expected, name
        assert result.dtype == dtype


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
