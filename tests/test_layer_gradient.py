# SPDX-License-Identifier: BSD-3-Clause
"""All gradients of depthwise layers in one pass through memory."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, reference
from fastconv.ops import _convolution
from problems import DTYPES, LAYOUTS, Problem, in_layout, operands
from support import MANY_THREADS, every_thread, max_error, poison, spoil_scratch, to_layout, tolerance, whole

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)

ONE, TWO, TWO_EACH = ((1, 1), (1, 1)), ((2, 1), (0, 2)), ((2, 2), (2, 2))


def depthwise(size, channels, kernel, batch=2, stride=1, padding=ONE, dilation=1):
    return Problem(size, channels, channels, kernel, batch, (stride,) * 2, padding, (dilation,) * 2, channels)


#: Channels and columns around the vectors of all instruction sets and the four pixels of a patch; odd and even rows;
#: strides that leave rows or columns over, and inputs that no window reaches.
PROBLEMS = (
    depthwise((1, 1), 2, (3, 3)),
    depthwise((5, 6), 3, (3, 3)),
    depthwise((6, 17), 16, (3, 3), 3),
    depthwise((9, 14), 17, (3, 3), padding=TWO),
    depthwise((8, 33), 33, (3, 3), padding=((0, 0), (0, 0))),
    depthwise((9, 15), 31, (3, 3), stride=2),
    depthwise((8, 40), 18, (3, 3), stride=2, padding=((0, 1), (0, 1))),
    depthwise((12, 11), 40, (5, 5), padding=TWO_EACH),
    depthwise((7, 37), 9, (2, 4)),
    depthwise((10, 20), 20, (3, 3), padding=TWO_EACH, dilation=2),
    depthwise((30, 31), 150, (3, 3)),
    # Rows of few outputs, of which none sees all of three columns, and rows longer than one chain of sums.
    depthwise((3, 2), 35, (3, 3)),
    depthwise((4, 3), 16, (3, 3), padding=((0, 1), (1, 0))),
    depthwise((3, 3), 18, (3, 3), padding=((0, 0), (0, 0))),
    depthwise((2, 5), 17, (3, 3), stride=2, padding=((0, 1), (1, 1))),
    depthwise((3, 514), 17, (3, 3)),
    depthwise((5, 2070), 16, (3, 3), 1, stride=2),
    # Kernels of more taps than registers: rows that no window sees whole, long ones, and few of them.
    depthwise((1, 1), 33, (5, 5), padding=TWO_EACH),
    depthwise((3, 4), 17, (5, 5), padding=((1, 2), (2, 1))),
    depthwise((6, 7), 16, (5, 5), padding=((0, 0), (0, 0))),
    depthwise((9, 14), 40, (5, 5), 3, padding=TWO_EACH),
    depthwise((4, 1030), 16, (5, 5), 1, padding=TWO_EACH),
    depthwise((4, 5), 19, (7, 7), padding=((3, 3), (3, 3))),
    depthwise((9, 16), 40, (7, 7), padding=((3, 3), (2, 3))),
    # Small planes, interleaved: channels that are no whole vectors, and images that are no whole tasks.
    depthwise((4, 4), 37, (3, 3), 5),
    depthwise((7, 7), 40, (3, 3), 9, padding=TWO),
    depthwise((8, 8), 48, (3, 3), 3, stride=2),
    depthwise((5, 4), 19, (2, 3), 3, stride=2),
    depthwise((3, 3), 330, (3, 3), 9),
)
CHANNELS_LAST = (
    depthwise((11, 13), 34, (5, 5), stride=2, padding=TWO_EACH),
    depthwise((5, 5), 24, (5, 5), stride=2, padding=TWO_EACH),
    depthwise((10, 15), 37, (5, 5), 3, stride=2, padding=((1, 2), (2, 2))),
    depthwise((7, 2070), 17, (5, 5), 1, stride=2, padding=((1, 2), (1, 2))),
    depthwise((11, 13), 34, (4, 3), stride=3),
    depthwise((10, 9), 16, (2, 2), stride=2, padding=((0, 0), (0, 0))),
)


def arrays(problem, dtype, layout, seed=9):
    x, w, _, _ = operands(problem, dtype).to(layout)
    y = np.random.default_rng(seed).standard_normal(problem.output_shape).astype(dtype)
    return x, w, to_layout(y, layout)


def one_pass_only(patch):
    """One gradient after the other is an error."""

    def refuse(*_, **__):
        raise AssertionError("not in one pass")

    for name in ("input_grad", "weight_grad"):
        patch.setattr(_convolution, name, refuse)
    patch.setattr(_convolution._folds, "total", refuse)


@pytest.fixture
def at_once(monkeypatch):
    one_pass_only(monkeypatch)


def truth(problem, x, w, y, layout):
    options = {**problem.geometry, "layout": layout, "dtype": np.float64}
    axes = (0, 1, 2) if layout == "NHWC" else (0, 2, 3)
    return (
        reference.conv2d_input(x.shape, w, y, **options),
        reference.conv2d_weight(x, w.shape, y, **options),
        y.sum(axes, dtype=np.float64),
    )


@each_layout
@each_dtype
def test_against_the_reference(at_once, layout, dtype):
    for problem in PROBLEMS + (CHANNELS_LAST if layout == "NHWC" else ()):
        x, w, y = arrays(problem, dtype, layout)
        spoil_scratch(dtype)
        out = tuple(poison(a.shape, dtype) for a in (x, w, w[:, 0, 0, 0]))
        options = {**problem.geometry, "layout": layout, "algorithm": "depthwise"}
        found = fc.grad.conv2d(x, w, y, **options, out=out)
        terms = problem.batch * int(np.prod(problem.out_size))
        for mine, given, expected in zip(found, out, truth(problem, x, w, y, layout), strict=True):
            assert mine is given
            scale = max(np.abs(expected).max(), 5 * np.sqrt(terms / 2))
            assert max_error(mine, expected, scale) <= tolerance(dtype, max(terms, 25)), problem


@each_layout
def test_whole_numbers_are_exact(at_once, layout):
    """In any order of sums, so that no row is left out or counted twice where the work is cut."""
    rng = np.random.default_rng(5)
    strided = depthwise((34, 33), 24, (5, 5), 3, stride=2, padding=TWO_EACH)
    for problem in (
        *(() if layout == "NCHW" else (strided,)),
        depthwise((61, 50), 32, (3, 3), 3),
        depthwise((64, 71), 24, (3, 3), 2, stride=2),
        depthwise((34, 50), 40, (5, 5), 3, padding=TWO_EACH),
        depthwise((20, 33), 24, (7, 7), padding=((3, 3), (3, 3))),
    ):
        x, y = (to_layout(whole(rng, shape), layout) for shape in (problem.input_shape, problem.output_shape))
        w = whole(rng, problem.weight_shape)
        options = {**problem.geometry, "layout": layout, "algorithm": "depthwise"}
        found = fc.grad.conv2d(x, w, y, **options)
        for gradient, expected in zip(found, truth(problem, x, w, y, layout), strict=True):
            np.testing.assert_array_equal(gradient, expected)


@each_layout
@each_dtype
def test_threads_do_not_change_a_bit(at_once, layout, dtype):
    for problem in (
        depthwise((40, 33), 40, (3, 3), 5, stride=2),
        depthwise((14, 14), 130, (3, 3), 3),
        depthwise((14, 15), 130, (5, 5), 3, padding=TWO_EACH),
    ):
        x, w, y = arrays(problem, dtype, layout)
        options = {**problem.geometry, "layout": layout, "algorithm": "depthwise"}
        with fc.threads(1):
            expected = fc.grad.conv2d(x, w, y, **options)
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                found = fc.grad.conv2d(x, w, y, **options)
            for mine, one in zip(found, expected, strict=True):
                np.testing.assert_array_equal(mine, one, err_msg=f"{problem}, {count} threads")


@each_layout
def test_chosen_where_memory_is_what_takes_time(at_once, layout):
    """By the layer of a network, too, whose gradients add up from call to call."""
    problem = depthwise((112, 112), 32, (3, 3), 4)
    x, _, y = arrays(problem, "float32", layout)
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=32, layout=layout, rng=1)
    w = layer.weight.value
    expected = truth(problem, x, w, y, layout)
    for calls in (1, 2):
        layer(x)
        found = layer.backward(y), layer.weight.grad, layer.bias.grad
        for gradient, one, times in zip(found, expected, (1, calls, calls), strict=True):
            assert max_error(gradient, times * one) <= tolerance("float32", 4 * 112 * 112)


@each_layout
def test_not_where_an_image_must_be_as_if_alone(layout):
    """The gradient of the input then has the bits that the call for it alone has."""
    problem = depthwise((56, 56), 32, (3, 3), 3)
    x, w, y = arrays(problem, "float32", layout)
    options = {**problem.geometry, "layout": layout, "batch_invariant": True}
    found = fc.grad.conv2d(x, w, y, **options)[0]
    np.testing.assert_array_equal(found[1:2], fc.grad.conv2d(x[1:2], w, y[1:2], **options)[0])


@pytest.mark.parametrize(
    "problem",
    [
        depthwise((20, 21), 8, (3, 3), stride=3),  # over pixels three columns apart
        depthwise((20, 21), 8, (3, 3), stride=2, dilation=2),
        depthwise((20, 21), 8, (1, 1), stride=2, padding=((0, 0), (0, 0))),  # inputs without taps
        Problem((20, 21), 8, 16, (3, 3), 2, padding=ONE, groups=8),
    ],
    ids=str,
)
def test_others_are_served_one_after_the_other(problem):
    for _ in range(2):  # the second time it is known
        x, w, y = arrays(problem, "float64", "NCHW")
        found = fc.grad.conv2d(x, w, y, **problem.geometry)
        for gradient, expected in zip(found, truth(problem, x, w, y, "NCHW"), strict=True):
            assert max_error(gradient, expected) <= tolerance("float64", y.size)


@each_layout
def test_a_call_like_an_earlier_one_makes_arrays_of_its_own(layout):
    problem = depthwise((9, 12), 20, (3, 3))
    options = {**problem.geometry, "layout": layout, "algorithm": "depthwise"}
    results = []
    for seed in range(3):
        x, w, y = arrays(problem, "float32", layout, seed)
        results.append((fc.grad.conv2d(x, w, y, **options), truth(problem, x, w, y, layout)))
    for found, expected in results:
        for gradient, one in zip(found, expected, strict=True):
            assert max_error(gradient, one) <= tolerance("float32", y.size)


@each_layout
def test_behind_a_clamp_and_without_a_bias(at_once, layout):
    problem = depthwise((9, 12), 20, (3, 3))
    x, w, y = arrays(problem, "float32", layout)
    options = {**problem.geometry, "layout": layout, "algorithm": "depthwise"}
    mask = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    expected = truth(problem, x, w, np.where(mask > 0, y, 0), layout)
    for gradient, one in zip(fc.grad.conv2d(x, w, y, **options, mask=mask), expected, strict=True):
        assert max_error(gradient, one) <= tolerance("float32", y.size)
    found = fc.grad.conv2d(x, w, y, **options, needs=("input", "weight"))
    assert found[2] is None
    assert max_error(found[1], truth(problem, x, w, y, layout)[1]) <= tolerance("float32", y.size)


@each_layout
def test_no_images(layout):
    problem = depthwise((9, 12), 20, (3, 3))
    x, w, y = (a[:0] if i != 1 else a for i, a in enumerate(arrays(problem, "float32", layout)))
    found = fc.grad.conv2d(x, w, y, **problem.geometry, layout=layout)
    assert found[0].shape == in_layout((0, 20, 9, 12), layout)
    assert not found[1].any()
    assert not found[2].any()


@each_layout
def test_any_number_of_axes(layout):
    rng = np.random.default_rng(8)
    last = layout == "NHWC"
    for rank, size, stride in ((1, (65,), 1), (1, (40,), 2), (3, (5, 6, 18), 1), (3, (6, 7, 9), 2)):
        x = rng.standard_normal((2, *size, 9) if last else (2, 9, *size))
        w = rng.standard_normal((9, 1, *(3,) * rank))
        options = {"stride": stride, "padding": 1, "groups": 9}
        options["layout"] = {1: "NWC", 3: "NDHWC"}[rank] if last else {1: "NCW", 3: "NCDHW"}[rank]
        y = rng.standard_normal(getattr(fc, f"conv{rank}d")(x, w, **options).shape)
        gradients = getattr(fc.grad, f"conv{rank}d")
        expected = gradients(x, w, y, **options, algorithm="reference")
        with pytest.MonkeyPatch.context() as patch:
            one_pass_only(patch)
            found = gradients(x, w, y, **options, algorithm="depthwise")
        for gradient, one in zip(found, expected, strict=True):
            assert max_error(gradient, one) <= tolerance("float64", y.size)


def test_no_call_reads_or_writes_other_sizes():
    """The last line of defence, below every check of Python's."""
    problem = depthwise((9, 12), 20, (3, 3))
    x, w, y = arrays(problem, "float32", "NCHW")
    kept = {}
    original = _convolution._plans.layer_gradient_plan

    def keep(*arguments):
        kept["plan"] = original(*arguments)
        return kept["plan"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_convolution._plans, "layer_gradient_plan", keep)
        patch.setattr(_convolution, "_CALLS", type(_convolution._CALLS)(8))
        fc.grad.conv2d(x, w, y, **problem.geometry, algorithm="depthwise")
    out = np.empty_like(x)
    for place, bad in enumerate((x[:1], y[:1], w[:4], out[:1])):
        given = [x, y, w, out]
        given[place] = bad
        with pytest.raises(ValueError, match="does not have the shape"):
            kept["plan"].execute(*given, 1)


@each_dtype
def test_what_is_not_finite_stays_in_its_windows(at_once, dtype):
    """At the corner of the image, where some taps see no output: those have no part in it."""
    by_lines = fc.isa() in ("avx512", "neon") and dtype == "float32"  # others pad with zeros
    larger = ((5, 1), (5, 2), (7, 1)) if by_lines else ()
    for taps, stride in ((3, 1), (3, 2), *larger):
        middle = (taps // 2,) * 2
        problem = depthwise((9, 11), 32, (taps, taps), stride=stride, padding=(middle, middle))
        for which in range(3):
            given = arrays(problem, dtype, "NHWC")
            corner = (slice(None), 0, 0, 0) if which == 1 else (0, 0, 0)
            seen = [np.zeros_like(a) if i == which else np.ones_like(a) for i, a in enumerate(given)]
            given[which][corner], seen[which][corner] = np.inf, 1
            found = fc.grad.conv2d(*given, **problem.geometry, layout="NHWC", algorithm="depthwise")
            for i, (mine, parts) in enumerate(zip(found, truth(problem, *seen, "NHWC"), strict=True)):
                takes_part = (parts > 0) & (which in ((1, 2), (0, 2), (2,))[i])
                np.testing.assert_array_equal(~np.isfinite(mine), takes_part, err_msg=f"{i} of {which}, {problem}")


@pytest.mark.parametrize(
    "problem", [p for p in PROBLEMS + CHANNELS_LAST if p.kernel in ((3, 3), (5, 5), (7, 7))], ids=str
)
def test_inputs_have_the_bits_that_they_have_alone(problem):
    """Summed in the order of outputs, whatever is summed beside them, and with the same NaN."""
    x, w, y = arrays(problem, "float32", "NHWC")
    y[0, -1], w[0] = np.inf, np.nan
    options = {**problem.geometry, "layout": "NHWC", "algorithm": "depthwise"}
    alone = fc.grad.conv2d(x, w, y, **options, needs=("input",))[0]
    with pytest.MonkeyPatch.context() as patch:
        one_pass_only(patch)
        found = fc.grad.conv2d(x, w, y, **options)[0]
    np.testing.assert_array_equal(found.view(np.uint32), alone.view(np.uint32))
