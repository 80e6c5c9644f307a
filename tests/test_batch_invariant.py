# SPDX-License-Identifier: BSD-3-Clause
"""batch_invariant=True: the bits of an image alone and in a batch of any size."""

from itertools import product

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from problems import Problem, in_layout
from support import MANY_THREADS, every_thread, to_layout

BATCH = 8
LAYOUTS = ("NCHW", "NHWC")
FLOATS = ("float16", "float32", "float64")


def seeded(seed):
    """Problems of every kind, small, with images down to a pixel."""
    rng = np.random.default_rng(seed)

    def one(*choices):
        return choices[int(rng.integers(len(choices)))]

    kernel = one((1, 1), (1, 1), (3, 3), (3, 3), (2, 2), (5, 5), (1, 3), (3, 1))
    channels = one(1, 3, 8, 17, 40, 130)
    groups = one(1, 1, 1, channels)
    return Problem(
        (one(1, 1, 4, 7, 14), one(1, 2, 7, 15)),
        channels,
        channels if groups > 1 else one(1, 5, 16, 33),
        kernel,
        BATCH,
        stride=one((1, 1), (1, 1), (2, 2), (2, 1)),
        padding=tuple((k // 2, k // 2) for k in kernel),
        groups=groups,
        bias=one(True, False),
        activation=one(None, "relu"),
        residual=one(True, False),
    )


PROBLEMS = [p for p in map(seeded, range(24)) if min(p.out_size) > 0]


def numbers(problem, layout, dtype):
    """Input, weight, bias and residual, of both signs."""
    rng = np.random.default_rng(0)
    shapes = (problem.input_shape, problem.weight_shape, (problem.out_channels,), problem.output_shape)
    x, w, b, r = (rng.standard_normal(shape, dtype=np.float32).astype(dtype) for shape in shapes)
    return (
        to_layout(x, layout),
        w,
        b if problem.bias else None,
        to_layout(r, layout) if problem.residual else None,
    )


def differing(problem, layout, dtype, algorithm, **options):
    """How many images have other bits alone than in some batch."""
    x, w, b, r = numbers(problem, layout, dtype)
    options |= {**problem.geometry, "layout": layout, "activation": problem.activation, "algorithm": algorithm}

    def run(images):
        residual = None if r is None else r[images]
        return fc.conv2d(x[images], w, b, residual=residual, **options)

    alone = [run(slice(i, i + 1))[0] for i in range(problem.batch)]
    found = 0
    for batch, step in ((2, 1), (3, 1), (5, 1), (8, 1), (4, 2)):  # by steps of 2 with gaps
        images = slice(0, batch * step, step)
        for i, image in zip(range(problem.batch)[images], run(images), strict=True):
            found += not np.array_equal(image, alone[i])
    return found


def algorithms(problem, layout, dtype):
    # As the core takes it: float16 in float32.
    wide = "float32" if dtype == "float16" else dtype
    shapes = in_layout((1, *problem.input_shape[1:]), layout), problem.weight_shape
    served = fc.algorithms(*shapes, **problem.geometry, layout=layout, dtype=wide)
    return ["auto", *(name for name in served if name != "reference")]  # which is slow, and sums one by one


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_alone_and_in_any_batch(layout, dtype):
    for problem in PROBLEMS:
        for algorithm in algorithms(problem, layout, dtype):
            found = differing(problem, layout, dtype, algorithm, batch_invariant=True)
            assert found == 0, (str(problem), algorithm)


def test_without_it_they_differ():
    """Else the tests here could not fail."""
    assert sum(differing(p, layout, "float32", "auto") for p in PROBLEMS for layout in LAYOUTS) > 0


@pytest.mark.parametrize("threads", MANY_THREADS)
def test_threads_change_no_bit(threads):
    for problem, layout in product(PROBLEMS[:12], LAYOUTS):
        x, w, b, r = numbers(problem, layout, "float32")
        options = {**problem.geometry, "layout": layout, "residual": r, "batch_invariant": True}
        with fc.threads(1):
            expected = fc.conv2d(x, w, b, **options)
        with every_thread(), fc.threads(threads):
            np.testing.assert_array_equal(fc.conv2d(x, w, b, **options), expected, err_msg=str(problem))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plans(layout, dtype):
    for problem in PROBLEMS:
        x, w, b, r = numbers(problem, layout, dtype)
        options = {**problem.geometry, "layout": layout, "activation": problem.activation, "batch_invariant": True}
        one = fc.ConvPlan(x[:1].shape, w, b, **options)
        all = fc.ConvPlan(x.shape, w, b, **options)
        assert all.algorithm == one.algorithm
        result = all(x, r)
        np.testing.assert_array_equal(result[3], one(x[3:4], None if r is None else r[3:4])[0], err_msg=str(problem))
        again = fc.ConvPlan.__reduce__(all)
        np.testing.assert_array_equal(again[0](*again[1])(x, r), result)


def turned(problem):
    """Whether a transposed convolution of its outputs leaves anything."""
    axes = zip(problem.out_size, problem.kernel, problem.stride, problem.padding, strict=True)
    return all((n - 1) * s + k > sum(pad) for n, k, s, pad in axes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_transposed_and_input_gradients(layout, dtype):
    for problem in filter(turned, PROBLEMS):
        _, w, _, _ = numbers(problem, layout, dtype)
        y = np.random.default_rng(1).standard_normal(problem.output_shape, dtype=np.float32).astype(dtype)
        y = to_layout(y, layout)
        shape = in_layout(problem.input_shape, layout)
        options = {**problem.geometry, "layout": layout, "batch_invariant": True}
        for function in (
            lambda y, shape=shape, w=w, options=options: fc.grad.conv2d_input((len(y), *shape[1:]), w, y, **options),
            lambda y, w=w, options=options: fc.conv_transpose2d(y, w, **options),
        ):
            for batch in (2, 5, 8):
                result = function(y[:batch])
                for i in (0, batch - 1):
                    np.testing.assert_array_equal(result[i], function(y[i : i + 1])[0], err_msg=str(problem))


def test_gradients_of_transposed_convolutions():
    for problem in filter(turned, PROBLEMS[:12]):
        _, w, _, _ = numbers(problem, "NCHW", "float32")
        options = {**problem.geometry, "batch_invariant": True}
        w = np.ascontiguousarray(w)
        y = np.random.default_rng(1).standard_normal(problem.output_shape, dtype=np.float32)
        up = fc.conv_transpose2d(y, w, **options)
        result = fc.grad.conv_transpose2d_input(y.shape, w, up, **options)
        alone = fc.grad.conv_transpose2d_input(y[:1].shape, w, up[:1], **options)
        np.testing.assert_array_equal(result[0], alone[0], err_msg=str(problem))


def test_other_ranks():
    rng = np.random.default_rng(2)
    for rank, size in ((1, (3,)), (1, (29,)), (3, (3, 5, 4)), (3, (1, 1, 1))):
        convolve = {1: fc.conv1d, 3: fc.conv3d}[rank]
        transposed = {1: fc.conv_transpose1d, 3: fc.conv_transpose3d}[rank]
        x = rng.standard_normal((6, 20, *size), dtype=np.float32)
        w = rng.standard_normal((20, 20, *(3,) * rank), dtype=np.float32)
        for function, options in ((convolve, {}), (transposed, {"stride": 2})):
            result = function(x, w, padding=1, batch_invariant=True, **options)
            for i in range(6):
                alone = function(x[i : i + 1], w, padding=1, batch_invariant=True, **options)
                np.testing.assert_array_equal(alone[0], result[i])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_layers(kind, training):
    x = np.random.default_rng(3).standard_normal((8, 24, 7, 7), dtype=np.float32)
    for kernel in (1, 3):
        layer = kind(24, 24, kernel, padding=kernel // 2, batch_invariant=True, rng=0).train(training)
        assert "batch_invariant=True" in repr(layer)
        result = layer(x)
        d_x = layer.backward(result) if training else None
        for i in range(8):
            np.testing.assert_array_equal(layer(x[i : i + 1])[0], result[i])
            if training:
                np.testing.assert_array_equal(layer.backward(result[i : i + 1])[0], d_x[i])


def test_no_images():
    w = np.ones((4, 3, 3, 3), np.float32)
    assert fc.conv2d(np.ones((0, 3, 8, 8), np.float32), w, batch_invariant=True).shape == (0, 4, 6, 6)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_it_is_true_or_false(value):
    x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    for call in (
        lambda: fc.conv2d(x, w, batch_invariant=value),
        lambda: fc.conv_transpose2d(x, w.swapaxes(0, 1), batch_invariant=value),
        lambda: fc.ConvPlan(x.shape, w, batch_invariant=value),
        lambda: fc.grad.conv2d_input(x.shape, w, np.ones((2, 4, 6, 6), np.float32), batch_invariant=value),
        lambda: nn.Conv2d(3, 4, 3, batch_invariant=value),
    ):
        with pytest.raises(TypeError, match="batch_invariant"):
            call()
