# SPDX-License-Identifier: BSD-3-Clause
"""The input gradient of groups of few channels whose outputs lie two columns apart; transposed convolutions by it."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args, _core, reference
from problems import DTYPES, Problem, existing, in_layout, operands
from support import MANY_THREADS, every_thread, max_error, poison, tolerance

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

SCALAR, CACHES = 0, (32 << 10, 8, 512 << 10, 4 << 20)

PADDINGS = (((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 1), (3, 5)), ((0, 1), (2, 0)))

#: Rows around one and two vectors of all instruction sets; kernels of every height, of one tap and of more than the
#: image has; outputs as far apart down the rows, nearer, further; one output per channel, several, and several inputs.
EDGES = tuple(
    Problem(size, ins * groups, outs * groups, kernel, 2, (stride, 2), padding, groups=groups)
    for kernel in ((3, 3), (1, 3), (2, 3), (4, 3), (5, 3), (7, 3))
    for stride in (1, 2, 3)
    for (size, ins, outs, groups), padding in zip(
        (
            ((1, 1), 1, 1, 2), ((2, 3), 1, 1, 3), ((3, 4), 1, 2, 3), ((5, 7), 1, 1, 4), ((4, 8), 2, 1, 2),
            ((6, 15), 1, 1, 3), ((7, 16), 1, 1, 5), ((8, 17), 2, 3, 2), ((9, 31), 1, 1, 2), ((5, 32), 1, 1, 3),
            ((6, 33), 1, 1, 2), ((4, 47), 1, 2, 1), ((3, 66), 1, 1, 3),
        ),
        PADDINGS * 4,
        strict=False,
    )
)  # fmt: skip


def grad_output(problem, dtype):
    return np.random.default_rng(11).standard_normal(problem.output_shape).astype(dtype)


def form(problem, layout="NCHW"):
    """The algorithm of `auto` and its form, by the nominal constants of an instruction set that every build has."""
    sizes = in_layout(problem.input_shape, layout), problem.weight_shape
    steps = problem.stride, problem.padding, problem.dilation
    g = _args.geometry(2, *sizes, *steps, problem.groups, layout)
    strides = (_args.dense_strides(shape, 4) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    fields = g.fields("input", np.dtype(np.float32), *strides)
    number, form, _ = _core.choice(fields, SCALAR, CACHES, _core.default_costs(SCALAR))
    return f"{_args.ALGORITHMS[number]}, {form}"


@each_dtype
def test_edges(dtype):
    problems = existing(EDGES)
    for problem in problems:
        x, w, _, _ = operands(problem, dtype)
        y, out = grad_output(problem, dtype), poison(problem.input_shape, dtype)
        truth = reference.conv2d_input(out.shape, w, y, **problem.geometry, dtype=np.float64)
        options = {**problem.geometry, "algorithm": "depthwise"}
        fc.grad.conv2d(x, w, y, **options, needs=("input",), out=(out, None, None))
        terms = w[0, 0].size * (w.shape[0] // problem.groups)
        assert max_error(out, truth, max(1.0, np.abs(truth).max())) <= tolerance(dtype, terms), problem
    assert len(problems) > 150


@each_dtype
def test_finished_as_transposed_convolutions(dtype):
    """A bias, a residual and an activation, of one tap at the edge of the result and of none."""
    rng = np.random.default_rng(2)
    for kernel, padding, extra, size in ((3, 1, 0, (5, 9)), (3, 1, 1, (7, 17)), (3, 0, 1, (3, 4)), (3, 0, 0, (4, 16))):
        x = rng.standard_normal((2, 6, *size)).astype(dtype)
        w = rng.standard_normal((6, 1, kernel, kernel)).astype(dtype)
        b = rng.standard_normal(6).astype(dtype)
        options = {"stride": 2, "padding": padding, "output_padding": extra, "groups": 6}
        plain = fc.conv_transpose2d(*(a.astype(np.float64) for a in (x, w, b)), **options, algorithm="reference")
        r = rng.standard_normal(plain.shape).astype(dtype)
        for activation, finish in (
            (None, lambda v: v),
            ("relu", lambda v: np.maximum(v, 0)),
            ("sigmoid", lambda v: 1 / (1 + np.exp(-v))),
        ):
            out = poison(plain.shape, dtype)
            more = {"activation": activation, "algorithm": "depthwise", "residual": r}
            fc.conv_transpose2d(x, w, b, **options, **more, out=out)
            expected = finish(plain + r)
            assert max_error(out, expected, max(1.0, np.abs(expected).max())) <= tolerance(dtype, kernel**2 + 2)


@each_dtype
def test_threads_do_not_change_a_bit(dtype):
    for problem in (
        Problem((90, 350), 1, 1, (3, 3), 1, (2, 2), ((1, 1), (1, 1))),
        Problem((30, 33), 40, 40, (5, 5), 5, (2, 2), ((2, 2), (2, 2)), groups=40),
        Problem((28, 28), 32, 64, (3, 3), 4, (2, 2), ((1, 1), (1, 1)), groups=16),
    ):
        _, w, _, _ = operands(problem, dtype)
        y = grad_output(problem, dtype)
        options = {**problem.geometry, "algorithm": "depthwise"}
        with fc.threads(1):
            expected = fc.grad.conv2d_input(problem.input_shape, w, y, **options)
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                found = fc.grad.conv2d_input(problem.input_shape, w, y, **options)
            np.testing.assert_array_equal(found, expected, err_msg=f"{problem}, {count} threads")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_go_where_they_should(value):
    problem = Problem((10, 37), 18, 18, (3, 3), 2, (2, 2), ((1, 1), (1, 1)), groups=18)
    rng = np.random.default_rng(3)
    w = rng.uniform(1, 2, problem.weight_shape).astype(np.float32)
    height, width = problem.out_size
    for place in ((0, 0), (height - 1, width - 1), (2, 8)):
        y = rng.uniform(1, 2, problem.output_shape).astype(np.float32)
        y[1, 2, place[0], place[1]] = value
        truth = reference.conv2d_input(problem.input_shape, w, y, **problem.geometry, dtype=np.float64)
        found = fc.grad.conv2d_input(problem.input_shape, w, y, **problem.geometry, algorithm="depthwise")
        assert max_error(found, truth, 20.0) <= tolerance("float32", 9), place
        assert np.unique(found[np.isnan(found)].view(np.uint32)).size <= 1


def test_one_and_three_axes():
    rng = np.random.default_rng(8)
    for rank, size, stride in ((1, (40,), 2), (1, (67,), 2), (3, (6, 7, 9), 2), (3, (5, 6, 18), (1, 3, 2))):
        w = rng.standard_normal((9, 1, *(3,) * rank))
        shape = (2, 9, *size)
        options = {"stride": stride, "padding": 1, "groups": 9}
        y = rng.standard_normal(getattr(fc, f"conv{rank}d")(np.zeros(shape), w, **options).shape)
        gradient = getattr(fc.grad, f"conv{rank}d_input")
        expected, found = (gradient(shape, w, y, **options, algorithm=name) for name in ("reference", "depthwise"))
        assert max_error(found, expected) <= tolerance("float64", 3**rank)


def test_what_is_computed_so():
    """Layers of networks; neither channels-last ones, nor dilated ones, nor those whose outputs are further apart."""
    expected = "depthwise, over pixels, two columns apart"
    layer = Problem((56, 56), 128, 128, (3, 3), 2, (2, 2), ((1, 1), (1, 1)), groups=128)
    assert form(layer) == expected
    assert form(layer, "NHWC") != expected
    assert form(replace(layer, stride=(3, 3))) != expected
    assert form(replace(layer, dilation=(2, 2))) != expected
