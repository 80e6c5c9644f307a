# SPDX-License-Identifier: BSD-3-Clause
"""float16: computed in float32 and rounded once, whatever the blocks in which that is done."""

import sys

import numpy as np
import pytest

import fastconv as fc
from problems import LAYOUTS, Problem, in_layout, operands
from support import MANY_THREADS, Fenced, every_thread, poison, spoil_scratch

SAME = ((1, 1), (1, 1))
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
#: Whole images, several images to a block, parts of the groups, and bands of rows of all kinds.
PROBLEMS = {
    "small": Problem((13, 17), 5, 7, (3, 3), 3, padding=SAME, bias=True, activation="relu", residual=True),
    "groups": Problem((12, 15), 6, 4, (3, 2), 2, (2, 1), ((0, 1), (2, 0)), (1, 2), 2, bias=True),
    "one pixel": Problem((1, 1), 600, 70, batch=9, bias=True),
    "many images": Problem((21, 20), 8, 8, (3, 3), 48, padding=SAME, bias=True, residual=True),
    "a prime of images": Problem((21, 20), 8, 8, (3, 3), 31, padding=SAME, bias=True),
    "depthwise": Problem((57, 59), 66, 66, (3, 3), 2, padding=SAME, groups=66, bias=True, residual=True),
    "depthwise of one image": Problem((57, 59), 66, 66, (3, 3), padding=SAME, groups=66, bias=True),
    "multiplier": Problem((57, 59), 30, 60, (5, 5), 1, (2, 2), ((2, 2), (2, 2)), groups=30, bias=True),
    "bands": Problem((57, 59), 33, 35, (3, 3), padding=SAME, bias=True, activation="relu", residual=True),
    "bands of two images": Problem((57, 59), 33, 35, (3, 3), 2, padding=SAME, residual=True),
    "bands of pixels": Problem((56, 56), 130, 34, bias=True),
    "bands with strides": Problem((111, 67), 7, 33, (5, 5), 1, (2, 2), ((2, 2), (2, 1)), bias=True),
    "bands with gaps": Problem((61, 67), 20, 33, (1, 3), 1, (3, 1), ((0, 0), (1, 1)), bias=True),
    "bands that dilate": Problem((90, 67), 20, 33, (3, 3), 1, (1, 1), ((5, 0), (1, 7)), (4, 2), residual=True),
    "padding of many rows": Problem((60, 70), 20, 20, (3, 3), padding=((50, 33), (0, 0)), bias=True),
    "taller than the image": Problem((9, 900), 20, 33, (3, 3), padding=((40, 40), (1, 1)), bias=True),
}
#: The blocks are the same around every algorithm: long loops show no more of them.
LOOPS = 12_000_000
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def run(problem, arrays, layout, algorithm, **options):
    x, w, b, r = arrays
    options = {**problem.geometry, "activation": problem.activation, "residual": r, "layout": layout, **options}
    return fc.conv2d(x, w, b, algorithm=algorithm, **options)


def through(x, weight):
    """Images with one row of pixels, through one kernel of 1x1, by each algorithm that serves them."""
    w = np.array(weight, np.float16).reshape(1, -1, 1, 1)
    for algorithm in fc.algorithms(x.shape, w.shape):
        for threads in (1, 2):
            with fc.threads(threads):
                yield fc.conv2d(x, w, algorithm=algorithm)


@pytest.mark.parametrize(
    "name", ["groups", "a prime of images", "depthwise of one image", "bands", "bands that dilate"]
)
@each_layout
def test_threads_do_not_change_a_bit(layout, name):
    problem = PROBLEMS[name]
    arrays = operands(problem, np.float16).to(layout)
    with fc.threads(1):
        expected = run(problem, arrays, layout, "auto")
    for threads in MANY_THREADS:
        with every_thread(), fc.threads(threads):
            result = run(problem, arrays, layout, "auto")
        np.testing.assert_array_equal(result, expected, err_msg=f"{threads} threads")


def test_every_number_comes_through():
    x = HALVES.reshape(1, 1, 1, -1)
    for y in through(x, [1]):
        np.testing.assert_array_equal(y, x)
        solid = (x != 0) & ~np.isnan(x)
        np.testing.assert_array_equal(y.view(np.uint16)[solid], x.view(np.uint16)[solid])


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 1.5, 3])
def test_products_are_rounded_to_even(factor):
    """Half of them are ties, also among the subnormal numbers; the largest become infinite."""
    x = HALVES.reshape(1, 1, 1, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (x.astype(np.float32) * np.float32(factor)).astype(np.float16)
    for y in through(x, [factor]):
        np.testing.assert_array_equal(y, expected)


def test_sums_are_rounded_to_even():
    """Each finite number and half the distance to the next, a little more, and a little less."""
    finite = HALVES[np.isfinite(HALVES)]
    ulp = np.ldexp(1.0, np.maximum(np.frexp(finite.astype(float))[1] - 11, -24))
    halves = np.concatenate([np.copysign(ulp * share, finite) for share in (0.5, 0.501, 0.499)])
    x = np.stack([np.tile(finite, 3), halves.astype(np.float16)])[None, :, None]
    with np.errstate(over="ignore"):
        expected = x.astype(np.float32).sum(axis=1, keepdims=True).astype(np.float16)
    assert np.isinf(expected).any()
    for y in through(x, [1, 1]):
        np.testing.assert_array_equal(y, expected)


@each_layout
@pytest.mark.parametrize("name", PROBLEMS)
def test_as_float32_rounded(name, layout):
    problem = PROBLEMS[name]
    half = operands(problem, np.float16).to(layout)
    whole = [None if a is None else a.astype(np.float32) for a in half]
    out = poison(in_layout(problem.output_shape, layout), np.float16)
    shapes = half.input.shape, half.weight.shape
    for algorithm in fc.algorithms(*shapes, **problem.geometry, layout=layout):
        if algorithm == "reference" and problem.products > LOOPS:
            continue
        expected = run(problem, whole, layout, algorithm).astype(np.float16)
        for threads in (1, 2, 5):
            spoil_scratch("float32")
            out[...] = np.nan
            with fc.threads(threads):
                assert run(problem, half, layout, algorithm, out=out) is out
            np.testing.assert_array_equal(out, expected, algorithm)
        result = run(problem, half, layout, algorithm)
        assert result.dtype == np.float16
        np.testing.assert_array_equal(result, expected, algorithm)


@each_layout
@pytest.mark.parametrize("name", ["small", "bands", "many images", "depthwise"])
def test_plans_and_arrays_of_any_kind(name, layout):
    problem = PROBLEMS[name]
    x, w, b, r = operands(problem, np.float16).to(layout)
    expected = run(problem, (x, w, b, r), layout, "auto")
    plan = fc.ConvPlan(x.shape, w, b, **problem.geometry, layout=layout, activation=problem.activation)
    np.testing.assert_array_equal(plan(x, r), expected)
    np.testing.assert_array_equal(plan(np.asfortranarray(x), np.asfortranarray(r)), expected)
    out = r.copy()
    assert plan(x, out, out) is out  # the residual in place
    np.testing.assert_array_equal(out, expected)
    out = poison((*expected.shape[:-1], 2 * expected.shape[-1]), np.float16)[..., ::2]
    assert plan(x, r, out) is out
    np.testing.assert_array_equal(out, expected)
    flipped = np.asfortranarray(w)
    np.testing.assert_array_equal(run(problem, (x[::-1][::-1], flipped, b, r), layout, "auto", out=out), expected)
    single = run(problem, (x[0], w, b, r[0]), layout, plan.algorithm)
    np.testing.assert_array_equal(single, expected[0])


@each_layout
def test_float32_takes_the_memory_of_a_few_blocks(layout):
    for shape, kernels, options in (
        ((64, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
        ((1, 64, 560, 560), (64, 64, 1, 1), {}),
        ((1, 512, 224, 224), (512, 1, 3, 3), {"padding": 1, "groups": 512}),
    ):
        plan = fc.ConvPlan(in_layout(shape, layout), np.ones(kernels, np.float16), layout=layout, **options)
        assert plan.workspace_bytes < 8 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
@pytest.mark.parametrize("at_end", [True, False], ids=["at the end", "at the beginning"])
@each_layout
@pytest.mark.parametrize("name", PROBLEMS)
def test_no_element_too_far(name, layout, at_end):
    problem = PROBLEMS[name]
    places = [Fenced(1 << 23) for _ in range(5)]
    arrays = operands(problem, np.float16).to(layout)
    x, w, b, r = (None if a is None else p.place(a, at_end) for a, p in zip(arrays, places[1:], strict=True))
    out = places[0].place(poison(in_layout(problem.output_shape, layout), np.float16), at_end)
    run(problem, (x, w, b, r), layout, "auto", out=out)
    assert np.isfinite(out).all()
    for place in places:
        place.open()
