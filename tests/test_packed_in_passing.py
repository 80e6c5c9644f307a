# SPDX-License-Identifier: BSD-3-Clause
"""Weights packed a tile at a time, by each task: one-shot products of few columns. Plans pack all of them before."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from support import max_error, poison, tolerance

# Batch, side, input and output channels, kernel, stride, groups: one strip and several, parts of the channels for each
# thread and more, whose sums leave no room otherwise; one block of k and several; last tiles of all kinds.
PROBLEMS = [
    (1, 7, 1, 1, 1, 1, 1),
    (2, 3, 255, 33, 1, 1, 1),
    (1, 5, 257, 31, 1, 1, 1),
    (3, 9, 300, 130, 1, 1, 1),
    (1, 16, 130, 1100, 1, 1, 1),
    (1, 16, 1100, 300, 1, 1, 1),
    (5, 14, 300, 70, 1, 2, 1),
    (4, 6, 70, 75, 1, 1, 5),
    (1, 17, 64, 64, 1, 1, 1),
    (2, 8, 30, 45, 3, 1, 1),
    (1, 6, 60, 34, 3, 2, 2),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: "x".join(map(str, p)))
def test_the_same_bits_as_packed_before(problem, layout, dtype):
    batch, side, ins, outs, kernel, stride, groups = problem
    rng = np.random.default_rng(0)
    shape = (batch, groups * ins, side, side) if layout == "NCHW" else (batch, side, side, groups * ins)
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal((groups * outs, ins, kernel, kernel)).astype(dtype)
    bias = rng.standard_normal(groups * outs).astype(dtype)
    options = {"stride": stride, "padding": kernel // 2, "groups": groups, "layout": layout, "activation": "relu"}
    served = 0
    for algorithm, threads in itertools.product(("direct", "im2col", "pointwise"), (1, 2, 7)):
        try:
            plan = fc.ConvPlan(shape, weight, bias, algorithm=algorithm, **options)
        except NotImplementedError:
            continue
        with fc.threads(threads):
            out = fc.conv2d(x, weight, bias, algorithm=algorithm, out=poison(plan.output_shape, dtype), **options)
            np.testing.assert_array_equal(out, plan(x))
        served += 1
    assert served >= 6


# Batch, height and width, input and output channels, kernel, groups: one block of input channels and several, last ones
# of all kinds; one tile and as many as there may be; rows that are transformed alone.
WINOGRAD = [
    (1, 2, 3, 300, 200, (3, 3), 1),
    (3, 9, 11, 130, 150, (3, 3), 1),
    (2, 14, 15, 150, 130, (3, 3), 1),
    (1, 6, 7, 100, 170, (3, 3), 2),
    (1, 3, 50, 420, 260, (1, 3), 1),
]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("algorithm", ["winograd_f2", "winograd_f3", "winograd_f4"])
@pytest.mark.parametrize("problem", WINOGRAD, ids=lambda p: "x".join(map(str, p)))
def test_winograd_transforms_weights_in_passing(problem, algorithm, layout):
    """What the plan computes, whose sums come in other blocks; the same bits by any number of threads."""
    batch, height, width, ins, outs, kernel, groups = problem
    rng = np.random.default_rng(2)
    sizes = (height, width, groups * ins)
    x = rng.standard_normal((batch, *sizes) if layout == "NHWC" else (batch, groups * ins, height, width), np.float32)
    weight = rng.standard_normal((groups * outs, ins, *kernel), dtype=np.float32)
    bias = rng.standard_normal(groups * outs, dtype=np.float32)
    options = {"padding": (kernel[0] // 2, 1), "groups": groups, "layout": layout, "algorithm": algorithm}
    plan = fc.ConvPlan(x.shape, weight, bias, activation="relu", **options)
    found = []
    for threads in (1, 2, 7):
        with fc.threads(threads):
            out = poison(plan.output_shape, np.float32)
            found.append(fc.conv2d(x, weight, bias, activation="relu", out=out, **options))
            np.testing.assert_array_equal(found[-1], found[0])
    exact = fc.conv2d(x.astype(float), weight.astype(float), bias.astype(float), activation="relu", algorithm="direct",
                      **{k: v for k, v in options.items() if k != "algorithm"})  # fmt: skip
    assert max_error(found[0], exact) <= max_error(plan(x), exact) * 1.5 + tolerance(np.float32)
    # Narrower tiles leave room for all of these channels at a time, whose bits are the plan's.
    several = algorithm == "winograd_f4" and kernel == (3, 3) and ins >= 130 and fc.isa() == "avx512"
    assert not several or not np.array_equal(found[0], plan(x))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_of_the_input_read_the_weights_across(layout):
    """Rows of the packed tile are columns of the weights, which may lie backwards; by any number of threads."""
    rng = np.random.default_rng(1)
    shape = (2, 300, 9, 9) if layout == "NCHW" else (2, 9, 9, 300)
    x = rng.standard_normal(shape, dtype=np.float32)
    weight = rng.standard_normal((520, 300, 1, 1), dtype=np.float32)[::-1, ::-1]
    grad = rng.standard_normal(fc.conv2d(x, weight, layout=layout).shape, dtype=np.float32)
    backwards = fc.conv2d(grad, np.ascontiguousarray(weight.swapaxes(0, 1)), layout=layout)
    found = []
    for threads in (1, 2, 7):
        with fc.threads(threads):
            found.append(fc.grad.conv2d(x, weight, grad, layout=layout, needs=("input",))[0])
            np.testing.assert_array_equal(found[-1], found[0])
    assert max_error(found[0], backwards) <= tolerance(np.float32, 520)
