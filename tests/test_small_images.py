# SPDX-License-Identifier: BSD-3-Clause
"""Batches of small images: one position of many images at a time, without taps that see nothing but padding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args, _config, _core, _costs, _plans, reference
from fastconv.ops import _convolution
from problems import DTYPES, LAYOUTS, Problem, in_layout, operands
from support import MANY_THREADS, every_thread, from_layout, max_error, poison, spoil_scratch, to_layout, tolerance

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

OVER_IMAGES, TAP_BY_TAP = "over images, weights in place", "tap by tap"
CACHES = (32 << 10, 8, 1 << 20, 16 << 20)

#: What the others spend time on, and these kernels do not.
OTHERS = ("copied_run", "tile", "transform", "depthwise", "reference")


@contextmanager
def preferred() -> Iterator[None]:
    """Let everything that another algorithm would do take a second."""
    costs, calls = _costs.COSTS, _convolution._CALLS
    seconds = zip(_core.COST_NAMES, costs.seconds, strict=True)
    _costs.COSTS = replace(costs, seconds=tuple(1.0 if name in OTHERS else value for name, value in seconds))
    _convolution._CALLS = _core.Calls(128)
    _plans.kept_plan.cache_clear()
    try:
        yield
    finally:
        _costs.COSTS, _convolution._CALLS = costs, calls
        _plans.kept_plan.cache_clear()


def choice(problem, direction, layout="NCHW"):
    """The algorithm of `auto` and its form, in a single call, by the nominal constants of this instruction set."""
    sizes = in_layout(problem.input_shape, layout), problem.weight_shape
    g = _args.geometry(2, *sizes, problem.stride, problem.padding, problem.dilation, problem.groups, layout)
    strides = (_args.dense_strides(shape, 4) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    fields = g.fields(direction, np.dtype(np.float32), *strides)
    number, form, _ = _core.choice(fields, _config.ISA, CACHES, _costs.COSTS.seconds, once=True)
    return _args.ALGORITHMS[number], form


def grad_output(problem, dtype):
    return np.random.default_rng(7).standard_normal(problem.output_shape).astype(dtype)


SQUARE = ((1, 1), (1, 1))

#: Tiles of images around 4, 6, 8 and 14 rows; channels around one vector, two vectors and chunks of 128; images of a
#: pixel, of less than the kernel, of a dilation; strides that leave out the last pixels; taps that see no pixel at all.
SHAPES = (
    ((2, 2), 33, 17, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    ((1, 1), 9, 31, (3, 3), (1, 1), SQUARE, (1, 1), 1),
    ((2, 2), 129, 33, (3, 3), (1, 1), SQUARE, (1, 1), 1),
    ((2, 3), 7, 64, (3, 3), (1, 1), SQUARE, (1, 1), 1),
    ((4, 4), 16, 15, (3, 3), (2, 2), SQUARE, (1, 1), 1),
    ((5, 4), 257, 5, (3, 3), (2, 2), SQUARE, (1, 1), 1),
    ((4, 5), 12, 65, (2, 3), (2, 1), ((0, 1), (2, 0)), (1, 1), 1),
    ((6, 6), 3, 4, (5, 5), (3, 3), ((2, 2), (2, 2)), (1, 1), 1),
    ((3, 3), 10, 14, (3, 3), (1, 1), ((5, 5), (5, 5)), (5, 5), 1),
    ((3, 4), 8, 12, (3, 3), (1, 2), ((2, 2), (2, 2)), (2, 3), 1),
    ((3, 3), 24, 36, (3, 3), (1, 1), SQUARE, (1, 1), 3),
    ((7, 7), 2, 3, (7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1), 1),
)  # fmt: skip
BATCHES = (4, 5, 6, 7, 13, 14, 15, 16, 28, 29)

PROBLEMS = tuple(
    Problem(size, ins, outs, kernel, batch, stride, padding, dilation, groups)
    for i, (size, ins, outs, kernel, stride, padding, dilation, groups) in enumerate(SHAPES)
    for batch in (BATCHES[i % 10], BATCHES[(3 * i + 5) % 10], BATCHES[(7 * i + 2) % 10])
    if batch * size[0] * size[1] <= 1024
)


@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
def test_forward(dtype, layout):
    for problem in PROBLEMS:
        for activation, residual in ((None, False), ("relu", True), ("sigmoid", False)):
            finished = replace(problem, bias=activation is not None, activation=activation, residual=residual)
            x, w, b, r = operands(finished, dtype)
            truth = reference.conv2d(x, w, b, **problem.geometry, activation=activation, residual=r, dtype=np.float64)
            xs, rs = (None if a is None else to_layout(a, layout) for a in (x, r))
            out = poison(in_layout(problem.output_shape, layout), dtype)
            spoil_scratch(dtype)
            options = {**problem.geometry, "activation": activation, "residual": rs, "layout": layout, "out": out}
            with preferred():
                assert choice(problem, "forward", layout)[1] == OVER_IMAGES, problem
                fc.conv2d(xs, w, b, **options)
            bound = tolerance(dtype, problem.terms + 2)
            assert max_error(from_layout(out, layout), truth, max(1.0, np.abs(truth).max())) <= bound, finished


@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
def test_input_gradient(dtype, layout):
    checked = 0
    for problem in PROBLEMS:
        x, w, _, _ = operands(problem, dtype)
        y = grad_output(problem, dtype)
        truth = reference.conv2d_input(x.shape, w, y, **problem.geometry, dtype=np.float64)
        out = poison(in_layout(x.shape, layout), dtype)
        spoil_scratch(dtype)
        options = {**problem.geometry, "layout": layout, "needs": ("input",), "out": (out, None, None)}
        with preferred():
            checked += choice(problem, "input", layout)[1] == OVER_IMAGES
            fc.grad.conv2d(to_layout(x, layout), w, to_layout(y, layout), **options)
        bound = tolerance(dtype, w[:, 0].size)
        assert max_error(from_layout(out, layout), truth, max(1.0, np.abs(truth).max())) <= bound, problem
    assert checked > len(PROBLEMS) / 2  # the others have pixels that no output sees


@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
def test_weight_gradient(dtype, layout):
    for problem in PROBLEMS:
        x, w, _, _ = operands(problem, dtype)
        y, out = grad_output(problem, dtype), poison(w.shape, dtype)
        truth = reference.conv2d_weight(x, w.shape, y, **problem.geometry, dtype=np.float64)
        spoil_scratch(dtype)
        options = {**problem.geometry, "layout": layout, "needs": ("weight",), "out": (None, out, None)}
        with preferred():
            assert choice(problem, "weight", layout)[1] == TAP_BY_TAP, problem
            fc.grad.conv2d(to_layout(x, layout), w, to_layout(y, layout), **options)
        terms = y.size // problem.out_channels
        assert max_error(out, truth, max(np.sqrt(terms), np.abs(truth).max())) <= tolerance(dtype, terms), problem


@each_dtype
def test_finished_as_transposed_convolutions(dtype):
    """A bias, a residual and an activation of inputs, by several taps and by one."""
    rng = np.random.default_rng(2)
    for kernel, stride, padding, size in ((3, 2, 1, (3, 4)), (3, 1, 1, (2, 2)), (2, 2, 0, (4, 3)), (5, 2, 2, (3, 3))):
        x = rng.standard_normal((13, 40, *size)).astype(dtype)
        w = rng.standard_normal((40, 33, kernel, kernel)).astype(dtype)
        b = rng.standard_normal(33).astype(dtype)
        options = {"stride": stride, "padding": padding}
        truth = fc.conv_transpose2d(*(a.astype(np.float64) for a in (x, w, b)), **options, algorithm="reference")
        r = rng.standard_normal(truth.shape).astype(dtype)
        out = poison(truth.shape, dtype)
        spoil_scratch(dtype)
        with preferred():
            fc.conv_transpose2d(x, w, b, **options, activation="relu", residual=r, out=out)
        expected = np.maximum(truth + r, 0)
        assert max_error(out, expected) <= tolerance(dtype, 40 * kernel**2 + 2)


def test_one_and_three_axes():
    rng = np.random.default_rng(3)
    for rank, size, stride in ((1, (5,), 1), (1, (8,), 2), (3, (2, 3, 2), 1), (3, (2, 4, 4), (1, 2, 2))):
        w = rng.standard_normal((17, 9, *(3,) * rank))
        x = rng.standard_normal((15, 9, *size))
        options = {"stride": stride, "padding": 1}
        conv, by_input, by_weight = (
            getattr(module, name.format(rank))
            for module, name in ((fc, "conv{}d"), (fc.grad, "conv{}d_input"), (fc.grad, "conv{}d_weight"))
        )
        y = rng.standard_normal(conv(x, w, **options).shape)
        for call in (
            lambda **named: conv(x, w, **options, **named),  # noqa: B023
            lambda **named: by_input(x.shape, w, y, **options, **named),  # noqa: B023
            lambda **named: by_weight(x, w.shape, y, **options, **named),  # noqa: B023
        ):
            expected = call(algorithm="reference")
            with preferred():
                found = call()
            assert max_error(found, expected) <= tolerance("float64", 15 * 9 * 3**rank)


@each_dtype
def test_threads_do_not_change_a_bit(dtype):
    for problem in (
        Problem((2, 2), 130, 100, (3, 3), 15, (1, 1), SQUARE),
        Problem((4, 4), 20, 12, (3, 3), 29, (2, 2), SQUARE, groups=4),
        Problem((3, 3), 300, 3, (3, 3), 6, (1, 1), SQUARE),
    ):
        x, w, _, _ = operands(problem, dtype)
        y = grad_output(problem, dtype)

        def all_three(x=x, w=w, y=y, options=problem.geometry):
            with preferred():
                return fc.conv2d(x, w, **options), *fc.grad.conv2d(x, w, y, **options)[:2]

        with fc.threads(1):
            expected = all_three()
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                found = all_three()
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{problem}, {count} threads")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_go_where_they_should(value):
    problem = Problem((3, 2), 33, 40, (3, 3), 14, (1, 1), SQUARE)
    rng = np.random.default_rng(5)
    w = rng.uniform(1, 2, problem.weight_shape).astype(np.float32)
    x = rng.uniform(1, 2, problem.input_shape).astype(np.float32)
    x[5, 7, 0, 1] = value
    y, z = (rng.uniform(1, 2, problem.output_shape).astype(np.float32) for _ in range(2))
    z[3, 11, 2, 0] = value
    with np.errstate(invalid="ignore"):
        truths = (
            reference.conv2d(x, w, **problem.geometry, dtype=np.float64),
            reference.conv2d_input(x.shape, w, z, **problem.geometry, dtype=np.float64),
            reference.conv2d_weight(x, w.shape, y, **problem.geometry, dtype=np.float64),
        )
    with preferred():
        found = (
            fc.conv2d(x, w, **problem.geometry),
            fc.grad.conv2d_input(x.shape, w, z, **problem.geometry),
            fc.grad.conv2d_weight(x, w.shape, y, **problem.geometry),
        )
    for result, truth in zip(found, truths, strict=True):
        assert max_error(result, truth, 2000.0) <= tolerance("float32", 500)
        assert np.unique(result[np.isnan(result)].view(np.uint32)).size <= 1


@pytest.mark.skipif(fc.isa() == "scalar", reason="of scalars a product has no lanes to fill")
def test_what_is_computed_so():
    """The last layers of ResNet-18 at 64 pixels, in both layouts; neither few images, nor large ones, nor by name."""
    deep = Problem((2, 2), 512, 512, (3, 3), 16, (1, 1), SQUARE)
    down = Problem((4, 4), 256, 512, (3, 3), 16, (2, 2), SQUARE)
    for problem in (deep, down):
        for layout in LAYOUTS:
            assert choice(problem, "forward", layout) == ("direct", OVER_IMAGES)
            assert choice(problem, "input", layout) == ("direct", OVER_IMAGES)
            assert choice(problem, "weight", layout) == ("direct", TAP_BY_TAP)
    for other in (replace(deep, batch=3), replace(deep, size=(14, 14)), replace(deep, batch=600)):
        for direction in ("forward", "input", "weight"):
            assert choice(other, direction)[1] not in (OVER_IMAGES, TAP_BY_TAP)


def test_an_image_that_is_to_keep_its_bits_is_summed_as_one():
    x, w, _, _ = operands(Problem((2, 2), 130, 40, (3, 3), 16, (1, 1), SQUARE), "float32")
    with preferred():
        many = fc.conv2d(x, w, padding=1, batch_invariant=True)
        for image in (0, 7, 15):
            one = fc.conv2d(x[image : image + 1], w, padding=1, batch_invariant=True)
            np.testing.assert_array_equal(many[image : image + 1], one)
