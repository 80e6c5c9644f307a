# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions of arrays wherever they lie, and whatever holds them."""

import array
from itertools import product

import numpy as np
import pytest

import fastconv as fc
from cases import SAME, SMALL, each_algorithm, each_algorithm_and_dtype, each_layout, rounding, run, served
from fastconv import _config, _core, _costs
from problems import LAYOUTS, Problem, in_layout, operands
from support import embedded, max_error, poison, same_values, tolerance


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
