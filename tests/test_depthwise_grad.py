# SPDX-License-Identifier: BSD-3-Clause
"""The weight gradient between single channels: of depthwise and grouped convolutions, by sums in registers."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from families import family
from fastconv import _args, reference
from fastconv.ops import _convolution
from problems import DTYPES, LAYOUTS, Problem, existing, in_layout, operands
from support import MANY_THREADS, every_thread, lanes, max_error, poison, spoil_scratch, to_layout, tolerance, whole

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)

PADDINGS = (((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 1), (3, 5)))

#: Rows and channels around the vectors of all instruction sets, and around the four pixels of a block; kernels that are
#: unrolled, with as many rows of taps or not, and others.
EDGES = tuple(
    Problem(size, channels, channels, kernel, 2, (stride, stride), padding, groups=channels)
    for kernel in ((3, 3), (5, 5), (4, 3), (2, 5), (1, 1), (2, 4), (7, 7))
    for stride in (1, 2, 3)
    for (size, channels), padding in zip(
        (
            ((1, 1), 1), ((2, 3), 3), ((3, 4), 4), ((4, 5), 5), ((5, 7), 7), ((6, 8), 8), ((7, 9), 9), ((8, 15), 15),
            ((9, 16), 16), ((10, 17), 17), ((11, 31), 2), ((12, 33), 31), ((5, 47), 33), ((4, 66), 2),
        ),
        PADDINGS * 5,
        strict=False,
    )
)  # fmt: skip


#: Groups of several channels, whole vectors and what is left of one; windows that never see all of their outputs.
GROUPS = tuple(
    Problem(size, each * groups, each * groups, (3, 3), 2, (stride, stride), padding, groups=groups)
    for each in (2, 4, 8)
    for stride in (1, 2)
    for (size, groups), padding in zip(
        (((1, 1), 8), ((3, 2), 9), ((4, 5), 4), ((6, 9), 3), ((7, 18), 8), ((5, 33), 6)), PADDINGS * 2, strict=True
    )
)


def weight_gradient(problem, x, w, y, layout, algorithm="depthwise", **options):
    """Into poison, with NaN in the scratch memory; operands come channels first."""
    spoil_scratch(x.dtype.name)
    out = poison(w.shape, w.dtype)
    arrays = to_layout(x, layout), w, to_layout(y, layout)
    options = {**problem.geometry, "layout": layout, "algorithm": algorithm, **options}
    found = fc.grad.conv2d(*arrays, **options, needs=("weight",), out=(None, out, None))
    assert found[1] is out
    return out


def grad_output(problem, dtype):
    return np.random.default_rng(11).standard_normal(problem.output_shape).astype(dtype)


def agree(problems, layout, dtype):
    problems = existing(problems)
    for problem in problems:
        x, w, _, _ = operands(problem, dtype)
        y = grad_output(problem, dtype)
        truth = reference.conv2d_weight(x, w.shape, y, **problem.geometry, dtype=np.float64)
        terms = problem.batch * int(np.prod(problem.out_size))
        scale = max(np.abs(truth).max(), 5 * np.sqrt(terms / 2))
        error = max_error(weight_gradient(problem, x, w, y, layout), truth, scale)
        assert error <= tolerance(dtype, terms), f"{problem}, {layout}, {dtype}"
    assert len(problems) > 10


@each_layout
@each_dtype
def test_edges(layout, dtype):
    agree(EDGES if dtype == "float32" else EDGES[::2], layout, dtype)


@each_dtype
def test_edges_of_groups(dtype):
    small = [p for p in GROUPS if p.in_channels // p.groups <= lanes(dtype)]
    agree(small or EDGES, "NHWC", dtype)


@each_layout
@each_dtype
@pytest.mark.parametrize("name", ["depthwise", "few_channels", "grouped", "kernel_rows", "pointwise"])
def test_the_grid(name, layout, dtype):
    agree(family(name)[:: 4 if dtype == "float32" else 9], layout, dtype)


@each_layout
def test_channels_of_wider_pixels_and_every_second_column(layout):
    """Views whose steps no vector takes."""
    problem = Problem((9, 20), 6, 6, (3, 3), 2, padding=((1, 1), (1, 1)), groups=6)
    x, w, _, _ = operands(problem, "float32")
    y = grad_output(problem, "float32")
    expected = weight_gradient(problem, x, w, y, layout)
    options = {**problem.geometry, "layout": layout, "algorithm": "depthwise"}
    bound = tolerance("float32", problem.batch * int(np.prod(problem.out_size)))
    for step in (2, 3, -1):
        views = []
        for array in (to_layout(x, layout), to_layout(y, layout)):
            wide = np.repeat(array, abs(step), axis=-1)
            views.append(wide[..., ::step] if step > 0 else np.ascontiguousarray(wide[..., ::-1])[..., ::-1])
        found = fc.grad.conv2d_weight(views[0], w.shape, views[1], **options)
        assert max_error(found, expected) <= bound, step


@each_layout
def test_whole_numbers_are_exact(layout):
    """In any order of sums, and with several parts of the rows."""
    rng = np.random.default_rng(5)
    for problem in (
        Problem((70, 65), 2, 2, (3, 3), 3, padding=((1, 1), (1, 1)), groups=2),
        Problem((61, 50), 32, 32, (5, 5), 2, (2, 2), ((2, 2), (2, 2)), groups=32),
        Problem((64, 50), 24, 24, (3, 3), 2, padding=((1, 1), (1, 1)), groups=6),
        Problem((40, 50), 4, 8, (3, 3), 2, padding=((1, 1), (1, 1)), groups=4),
    ):
        x, y = whole(rng, problem.input_shape), whole(rng, problem.output_shape)
        w = np.empty(problem.weight_shape, np.float32)
        expected = reference.conv2d_weight(x, w.shape, y, **problem.geometry, dtype=np.float64)
        np.testing.assert_array_equal(weight_gradient(problem, x, w, y, layout), expected)


@each_layout
@each_dtype
def test_threads_do_not_change_a_bit(layout, dtype):
    for problem in (
        Problem((90, 70), 1, 1, (3, 3), 3, padding=((1, 1), (1, 1))),
        Problem((30, 33), 40, 40, (3, 3), 5, (2, 2), ((1, 1), (1, 1)), groups=40),
        Problem((14, 14), 200, 200, (5, 5), 3, padding=((2, 2), (2, 2)), groups=200),
        Problem((28, 28), 32, 32, (3, 3), 4, padding=((1, 1), (1, 1)), groups=8),
    ):
        x, w, _, _ = operands(problem, dtype)
        y = grad_output(problem, dtype)
        with fc.threads(1):
            expected = weight_gradient(problem, x, w, y, layout)
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                result = weight_gradient(problem, x, w, y, layout)
            np.testing.assert_array_equal(result, expected, err_msg=f"{problem}, {count} threads")


@each_layout
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 4)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_go_where_they_should(layout, kernel, stride, value):
    """Into the taps that see them: an input at an edge that few taps reach, and a gradient inside."""
    problem = Problem((10, 37), 18, 18, kernel, 2, (stride, stride), groups=18)
    rng = np.random.default_rng(3)
    for place in ((0, 0), (9, 36), (0, 17), (9, 16), (4, 20)):
        x, y = (rng.uniform(1, 2, shape).astype(np.float32) for shape in (problem.input_shape, problem.output_shape))
        w = np.empty(problem.weight_shape, np.float32)
        x[1, 2, place[0], place[1]] = value
        y[0, 17, 0, 1] = value
        truth = reference.conv2d_weight(x, w.shape, y, **problem.geometry, dtype=np.float64)
        found = weight_gradient(problem, x, w, y, layout)
        assert max_error(found, truth, 400.0) <= tolerance("float32", 700), place
        signs = np.unique(found[np.isnan(found)].view(np.uint32))
        assert signs.size <= 1


@each_layout
def test_any_number_of_axes(layout):
    rng = np.random.default_rng(8)
    last = layout == "NHWC"
    for rank, size, stride in ((1, (65,), 1), (1, (40,), 2), (3, (5, 6, 18), 1), (3, (6, 7, 9), 2)):
        shape = (2, *size, 9) if last else (2, 9, *size)
        w = rng.standard_normal((9, 1, *(3,) * rank))
        x = rng.standard_normal(shape)
        options = {"stride": stride, "padding": 1, "groups": 9}
        options["layout"] = {1: "NWC", 3: "NDHWC"}[rank] if last else {1: "NCW", 3: "NCDHW"}[rank]
        y = rng.standard_normal(getattr(fc, f"conv{rank}d")(x, w, **options).shape)
        gradient = getattr(fc.grad, f"conv{rank}d_weight")
        expected, found = (gradient(x, w.shape, y, **options, algorithm=name) for name in ("reference", "depthwise"))
        assert max_error(found, expected) <= tolerance("float64", y.size // 9)


@each_layout
def test_agrees_with_torch(layout):
    torch = pytest.importorskip("torch")
    for channels, outs, groups, stride in ((40, 40, 40, 1), (24, 24, 24, 2), (12, 24, 12, 1), (32, 32, 8, 1)):
        problem = Problem((15, 17), channels, outs, (3, 3), 3, (stride, stride), ((1, 1), (1, 1)), groups=groups)
        x, w, _, _ = operands(problem, "float64")
        y = grad_output(problem, "float64")
        options = {"stride": stride, "padding": 1, "groups": groups}
        expected = torch.nn.grad.conv2d_weight(torch.from_numpy(x), w.shape, torch.from_numpy(y), **options).numpy()
        assert max_error(weight_gradient(problem, x, w, y, layout), expected) < 1e-14


# What a network trains: each with the batch of a step.
LAYERS = (
    Problem((112, 112), 64, 64, (3, 3), 8, (2, 2), ((1, 1), (1, 1)), groups=64),
    Problem((56, 56), 128, 128, (3, 3), 8, padding=((1, 1), (1, 1)), groups=128),
    Problem((14, 14), 512, 512, (3, 3), 8, padding=((1, 1), (1, 1)), groups=512),
    Problem((7, 7), 960, 960, (5, 5), 8, padding=((2, 2), (2, 2)), groups=960),
)


def chosen(problem, layout, direction):
    """The algorithm of `auto`."""
    sizes = in_layout(problem.input_shape, layout), problem.weight_shape
    steps = problem.stride, problem.padding, problem.dilation
    g = _args.geometry(2, *sizes, *steps, problem.groups, layout)
    arrays = (np.empty(shape, np.float32) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    return _args.ALGORITHMS[_convolution._plan(g, direction, *arrays).algorithm]


@each_layout
@pytest.mark.parametrize("problem", LAYERS, ids=str)
def test_chosen_for_depthwise_layers(problem, layout):
    """Their input gradients, too, whose forward kernels are depthwise ones; dense layers have better."""
    small = replace(problem, batch=2)
    assert chosen(small, layout, "weight") == "depthwise"
    assert chosen(small, layout, "input") == "depthwise"
    dense = replace(small, groups=1, in_channels=64, out_channels=64)
    assert fc.isa() == "scalar" or chosen(dense, layout, "weight") != "depthwise"


def test_kernels_of_too_many_taps_are_refused():
    x, y = np.ones((2, 1, 1100, 1100), np.float32), np.ones((2, 1, 1, 1), np.float32)
    with pytest.raises(NotImplementedError, match="sums of all taps exceed 4 MiB"):
        fc.grad.conv2d_weight(x, (1, 1, 1100, 1100), y, algorithm="depthwise")


def test_layouts_agree():
    problem = Problem((21, 22), 33, 33, (3, 3), 3, (2, 2), ((1, 1), (1, 1)), groups=33)
    x, w, _, _ = operands(problem, "float32")
    y = grad_output(problem, "float32")
    first, last = (weight_gradient(problem, x, w, y, layout) for layout in LAYOUTS)
    assert max_error(first, last) <= tolerance("float32", 3 * 11 * 11)
