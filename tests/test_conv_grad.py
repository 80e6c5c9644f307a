# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of convolution against the reference in float64, and against differences."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import fastconv as fc
from families import FAMILIES, family
from fastconv import reference
from problems import DTYPES, LAYOUTS, Problem, existing, in_layout, operands, spell
from support import (
    MANY_THREADS,
    every_thread,
    from_layout,
    max_error,
    numerical_gradient,
    spoil_scratch,
    to_layout,
    tolerance,
)

#: What the grid of forward problems has little of: steps that share a divisor with the dilation,
#: kernels smaller than the stride (inputs that no tap sees), images that end before the last step.
PHASES = tuple(
    Problem((size, size + 2), 3, 4, kernel, 2, stride, padding, dilation)
    for size in (5, 8, 13)
    for kernel in ((1, 1), (2, 2), (3, 3), (1, 4), (5, 2))
    for stride in ((2, 2), (3, 3), (4, 2), (1, 6))
    for dilation in ((1, 1), (2, 2), (3, 1), (2, 3))
    for padding in (((0, 0), (0, 0)), ((1, 2), (3, 0)), ((4, 4), (4, 4)))
)

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_function = pytest.mark.parametrize("function", ["conv2d_input", "conv2d_weight"])


def grad_output(problem, dtype):
    return np.random.default_rng(7).standard_normal(problem.output_shape).astype(dtype)


def terms(problem, function):
    """Products in one sum, at most."""
    if function == "conv2d_weight":
        return problem.batch * int(np.prod(problem.out_size))
    return problem.out_channels // problem.groups * int(np.prod(problem.kernel))


def gradient(module, function, problem, x, w, y, layout, **options):
    """One of the two functions, of fastconv or of the reference, on arrays that lie in `layout`."""
    call = getattr(module, function)
    options = {**problem.geometry, "layout": layout, **options}
    if function == "conv2d_input":
        return call(x.shape, w, y, **options)
    return call(x, w.shape, y, **options)


def sums(problem, dtype, function):
    """What a gradient is computed from, channels first, and what it is in float64."""
    x, w, _, _ = operands(problem, dtype)
    y = grad_output(problem, dtype)
    truth = gradient(reference, function, problem, x, w, y, "NCHW", dtype=np.float64)
    return x, w, y, truth


def fault(problem, layout, dtype, function, x, w, y, truth, **options):
    """The error of a gradient if it is too large, else None."""
    # A small gradient may be a small sum of large products: measured by the largest of many such sums.
    size = terms(problem, function)
    spread = np.sqrt(size / (2 if function == "conv2d_weight" else problem.terms / 2))
    spoil_scratch(dtype)
    result = gradient(fc.grad, function, problem, to_layout(x, layout), w, to_layout(y, layout), layout, **options)
    if function == "conv2d_input":
        result = from_layout(result, layout)
    if result.dtype != dtype:
        return f"dtype {result.dtype}"
    error = max_error(result, truth, max(np.abs(truth).max(), 5 * spread))
    # Winograd serves some gradients, by its own bound.
    winograd = 5e-6 if dtype == "float32" else 0
    bound = max(winograd, tolerance(dtype, size))
    return None if error <= bound else f"error {error:.3g} > {bound:.3g}"


def agree(problems, dtype, function, **options):
    """In both layouts."""
    found = []
    with fc.threads(1):
        for problem in problems:
            given = sums(problem, dtype, function)
            for layout in LAYOUTS:
                wrong = fault(problem, layout, dtype, function, *given, **options)
                if wrong:
                    found.append(spell(problem, layout, dtype, f"{function}: {wrong}"))
    assert not found, "\n".join([f"{len(found)} faults:", *found[:20]])


@each_function
@pytest.mark.parametrize("name", FAMILIES)
def test_the_grid(name, function):
    agree(family(name)[::2], "float32", function)
    agree(family(name)[1::6], "float64", function)


@each_function
@each_dtype
def test_phases_of_the_stride(dtype, function):
    problems = existing(PHASES)
    assert len(problems) > 500
    agree(problems[:: 2 if dtype == "float32" else 3], dtype, function)


@each_function
@pytest.mark.parametrize("algorithm", ["direct", "im2col", "reference"])
def test_algorithms_asked_for(algorithm, function):
    """Those that take any convolution. (The others may serve one phase and refuse the next.)"""
    agree(existing(PHASES)[::9], "float32", function, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ["winograd", "winograd_f2", "winograd_f3", "winograd_f4"])
@each_function
def test_winograd_serves_the_gradient_of_3x3(function, algorithm):
    problems = [p for p in family("winograd_tiles") if p.kernel == (3, 3) and p.products < 200_000][::3]
    agree(problems, "float32", function, algorithm=algorithm)
    x, w, y, _ = sums(problems[0], "float32", function)
    for layout in LAYOUTS:
        lying = to_layout(x, layout), w, to_layout(y, layout), layout
        with pytest.raises(NotImplementedError, match=r"strict"):
            gradient(fc.grad, function, problems[0], *lying, algorithm=algorithm, precision="strict")


@each_layout
def test_strict_precision(layout):
    problems = [p for p in family("winograd_tiles") if terms(p, "conv2d_input") <= 300][::4]
    for problem in problems:
        x, w, _, _ = operands(problem, "float32")
        y = grad_output(problem, "float32")
        truth = reference.conv2d_input(x.shape, w, y, **problem.geometry, dtype=np.float64)
        result = fc.grad.conv2d_input(
            in_layout(x.shape, layout), w, to_layout(y, layout), **problem.geometry, layout=layout, precision="strict"
        )
        spread = np.sqrt(terms(problem, "conv2d_input") * 2 / problem.terms)
        assert max_error(from_layout(result, layout), truth, max(np.abs(truth).max(), 5 * spread)) < 5e-7, problem


# --- differences ----------------------------------------------------------------------------------

DIFFERENTIATED = (
    Problem((5, 4), 2, 3, (3, 3), 2, padding=((1, 1), (1, 1))),
    Problem((6, 5), 4, 4, (3, 2), stride=(2, 1), padding=((0, 1), (2, 0)), dilation=(1, 2), groups=2),
    Problem((7, 6), 2, 2, (2, 2), stride=(4, 2), dilation=(2, 2)),
    Problem((5, 5), 3, 6, (3, 3), stride=(2, 2), padding=((1, 0), (1, 1)), groups=3),
    Problem((4, 4), 3, 2),
    Problem((5, 5), 2, 1, (1, 1), stride=(3, 3)),
)


@each_layout
@pytest.mark.parametrize("problem", DIFFERENTIATED, ids=str)
def test_differences(problem, layout):
    """Convolution is linear in either argument: central differences are exact but for rounding."""
    x, w, _, _ = operands(problem, np.float64).to(layout)
    y = to_layout(grad_output(problem, np.float64), layout)
    options = {**problem.geometry, "layout": layout}
    difference = partial(numerical_gradient, grad_output=y, step=0.25)
    expected = difference(lambda image: fc.conv2d(image, w, **options), x)
    assert max_error(fc.grad.conv2d_input(x.shape, w, y, **options), expected) < 1e-13
    expected = difference(lambda kernels: fc.conv2d(x, kernels, **options), w)
    assert max_error(fc.grad.conv2d_weight(x, w.shape, y, **options), expected) < 1e-13


# --- the rest of the contract ---------------------------------------------------------------------

SOME = Problem((9, 11), 4, 6, (3, 3), 3, (2, 1), ((1, 1), (0, 2)), (1, 2), 2)


@each_layout
@each_dtype
def test_no_images(layout, dtype):
    """No images: no gradient of the input, and one of zeros for the weight."""
    for problem in (SOME, Problem((8, 8), 3, 5, (3, 3)), Problem((1, 1), 3, 5)):
        empty = replace(problem, batch=0)
        x = np.empty(in_layout(empty.input_shape, layout), dtype)
        y = np.empty(in_layout(empty.output_shape, layout), dtype)
        w = np.ones(problem.weight_shape, dtype)
        options = {**problem.geometry, "layout": layout}
        assert fc.grad.conv2d_input(x.shape, w, y, **options).shape == x.shape
        d_w = fc.grad.conv2d_weight(x, w.shape, y, **options)
        np.testing.assert_array_equal(d_w, np.zeros_like(w))
        assert d_w.dtype == dtype


@each_function
@each_layout
def test_an_image_without_a_batch(function, layout):
    one = replace(SOME, batch=1)
    x, w, _, _ = operands(one, "float32").to(layout)
    y = to_layout(grad_output(one, "float32"), layout)
    batched = gradient(fc.grad, function, one, x, w, y, layout)
    single = gradient(fc.grad, function, one, x[0], w, y[0], layout)
    np.testing.assert_array_equal(single, batched[0] if function == "conv2d_input" else batched)


@each_function
@each_layout
@each_dtype
def test_threads_do_not_change_a_bit(function, layout, dtype):
    problem = Problem((29, 31), 33, 34, (3, 3), 3, padding=((1, 1), (1, 1)))
    for p in (problem, replace(problem, stride=(2, 2)), replace(problem, in_channels=34, groups=2)):
        x, w, _, _ = operands(p, dtype).to(layout)
        y = to_layout(grad_output(p, dtype), layout)
        with fc.threads(1):
            expected = gradient(fc.grad, function, p, x, w, y, layout)
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                result = gradient(fc.grad, function, p, x, w, y, layout)
            np.testing.assert_array_equal(result, expected, err_msg=f"{p}, {count} threads")


@each_function
def test_operands_wherever_they_lie(function):
    x, w, _, _ = operands(SOME, "float32")
    y = grad_output(SOME, "float32")
    expected = gradient(fc.grad, function, SOME, x, w, y, "NCHW")
    for axis in range(4):
        flipped = [np.flip(np.flip(a, axis).copy(), axis) for a in (x, w, y)]
        result = gradient(fc.grad, function, SOME, *flipped, "NCHW")
        assert max_error(result, expected) < tolerance("float32", terms(SOME, function))
    spread = [np.repeat(a, 2, axis=-1)[..., ::2] for a in (x, w, y)]
    result = gradient(fc.grad, function, SOME, *spread, "NCHW")
    assert max_error(result, expected) < tolerance("float32", terms(SOME, function))


@each_function
def test_float16_is_computed_in_float32(function):
    x, w, _, _ = operands(SOME, "float16")
    y = grad_output(SOME, "float16")
    result = gradient(fc.grad, function, SOME, x, w, y, "NCHW")
    wide = gradient(fc.grad, function, SOME, *(a.astype(np.float32) for a in (x, w, y)), "NCHW")
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, wide.astype(np.float16))


@each_function
def test_agrees_with_torch(function):
    torch = pytest.importorskip("torch")
    problem = replace(SOME, padding=((1, 1), (2, 2)))
    x, w, _, _ = operands(problem, "float64")
    y = grad_output(problem, "float64")
    options = {**problem.geometry, "padding": (1, 2)}
    t = [torch.from_numpy(a) for a in (x, w, y)]
    if function == "conv2d_input":
        expected = torch.nn.grad.conv2d_input(x.shape, t[1], t[2], **options).numpy()
    else:
        expected = torch.nn.grad.conv2d_weight(t[0], w.shape, t[2], **options).numpy()
    assert max_error(gradient(fc.grad, function, problem, x, w, y, "NCHW"), expected) < 1e-14


def test_the_phases_are_what_they_say():
    """Inputs without taps, shared divisors: the problems above do have them."""
    seen = Counter()
    for p in existing(PHASES):
        seen["smaller kernel"] += p.kernel[0] < p.stride[0]
        seen["shared divisor"] += np.gcd(p.stride[0], p.dilation[0]) > 1
        seen["coprime"] += p.stride[0] > 1 < p.dilation[0] and np.gcd(p.stride[0], p.dilation[0]) == 1
    assert min(seen.values()) > 50, seen
