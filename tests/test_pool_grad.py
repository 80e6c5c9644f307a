# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of pooling, against the reference and by the properties they have; beside torch's in test_pool.py."""

import math
from functools import partial

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from pools import EDGES, LONG, both_dtypes, both_layouts, identical, random_problem, random_window
from support import embedded, max_error, numerical_gradient, to_layout, tolerance, whole


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("seed", range(8))
def test_gradients_of_random_problems(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        x, layout = random_problem(rng)
        size = x.shape[2:] if layout == "NCHW" else x.shape[1:3]

        window = random_window(rng, size, dilated=True)
        output, indices = fc.max_pool2d(x, **window, return_indices=True, layout=layout)
        grad = embedded(whole(rng, output.shape, x.dtype), dense=bool(rng.integers(2)))[1]
        identical(
            fc.grad.max_pool2d(grad, indices, x.shape, layout=layout),
            reference.max_pool2d_input(grad, indices, x.shape, layout=layout),
        )

        window = random_window(rng, size, dilated=False)
        window["count_include_pad"] = bool(rng.integers(2))
        window["divisor_override"] = (None, None, 4, -2)[rng.integers(4)]
        output = fc.avg_pool2d(x, **window, layout=layout)
        grad = embedded(whole(rng, output.shape, x.dtype), dense=bool(rng.integers(2)))[1]
        actual = fc.grad.avg_pool2d(grad, x.shape, **window, layout=layout)
        expected = reference.avg_pool2d_input(grad, x.shape, **window, layout=layout)
        assert max_error(actual, expected, scale=np.abs(grad).max()) <= tolerance(x.dtype, 36)

        grid = tuple(int(rng.integers(1, n + 3)) for n in size)
        output = fc.adaptive_avg_pool2d(x, grid, layout=layout)
        grad = whole(rng, output.shape, x.dtype)
        actual = fc.grad.adaptive_avg_pool2d(grad, x.shape, layout=layout)
        expected = reference.adaptive_avg_pool2d_input(grad, x.shape, layout=layout)
        assert max_error(actual, expected, scale=np.abs(grad).sum()) <= tolerance(x.dtype, 36)


@pytest.mark.parametrize("width", LONG)
def test_gradients_of_long_lines(width, rng):
    for kernel, stride in ((2, 2), (700, 300), (width, 1)):
        window = ((1, kernel), stride)
        grad = whole(rng, fc.avg_pool2d(np.zeros((2, 2, width)), *window).shape, np.float64)
        actual = fc.grad.avg_pool2d(grad, (2, 2, width), *window)
        expected = reference.avg_pool2d_input(grad, (2, 2, width), *window)
        assert max_error(actual, expected, scale=np.abs(grad).max()) <= tolerance(np.float64, kernel)


@both_layouts
@both_dtypes
@pytest.mark.parametrize("stray", ["none", "first", "last", "many", "all"])
def test_gradients_of_indices_from_anywhere(stray, layout, dtype, rng):
    """Any position of a plane is a maximum's, whatever windows the sizes suggest, and -1 is none's."""
    for channels in (3, 8, 17, 66):
        for size in ((8, 6), (4, 33)):
            x = whole(rng, (2, channels, *size), dtype)
            _, indices = reference.max_pool2d(x, (2, size[1] // 2), return_indices=True)
            strays = {"none": slice(0), "first": slice(1), "last": slice(-1, None), "many": slice(None, None, 7)}
            flat = indices.reshape(-1)[strays.get(stray, slice(None))]
            flat[...] = rng.integers(-1, math.prod(size), flat.shape)
            g = to_layout(whole(rng, indices.shape, dtype), layout)
            i, shape = to_layout(indices, layout), to_layout(x, layout).shape
            expected = reference.max_pool2d_input(g, i, shape, layout=layout)
            identical(fc.grad.max_pool2d(g, i, shape, layout=layout), expected)


@both_dtypes
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (5, 2, 2), (9, 1, 4)]
)
def test_gradients_of_every_number_of_contiguous_channels(kernel, stride, padding, dtype, rng):
    """Bit for bit as one output after the other is spread, in one image and in enough to be shared out."""
    for channels in (*range(2, 20), 31, 33, 63, 64, 65, 79, 131):
        x = whole(rng, (2, 9, 10, channels), dtype)
        window = {"kernel_size": kernel, "stride": stride, "padding": padding}
        pooled, indices = fc.max_pool2d(x, **window, return_indices=True, layout="NHWC")
        g = rng.standard_normal(pooled.shape).astype(dtype)
        identical(
            fc.grad.max_pool2d(g, indices, x.shape, layout="NHWC"),
            reference.max_pool2d_input(g, indices, x.shape, layout="NHWC"),
        )
        actual = fc.grad.avg_pool2d(g, x.shape, **window, layout="NHWC")
        spread = np.zeros((2, 9 + 2 * padding, 10 + 2 * padding, channels), dtype)
        for h, w in np.ndindex(*pooled.shape[1:3]):
            rows, columns = slice(h * stride, h * stride + kernel), slice(w * stride, w * stride + kernel)
            spread[:, rows, columns] += (g[:, h, w] / np.dtype(dtype).type(kernel**2))[:, None, None]
        identical(actual, spread[:, padding : padding + 9, padding : padding + 10])


@both_dtypes
def test_gradients_of_windows_side_by_side(dtype, rng):
    """Each input of a plane is written once, or has no window."""
    for width in EDGES:
        for kernel, stride, padding, ceil_mode in (
            (2, 2, 0, False),
            (2, 2, 1, True),
            (3, 3, 1, True),
            (2, 3, 0, False),
        ):
            size, window = (7, max(width, kernel)), (kernel, stride, padding, ceil_mode)
            if width < kernel - 2 * padding:
                continue
            g = rng.standard_normal(fc.avg_pool2d(np.zeros((40, *size), dtype), *window, False).shape).astype(dtype)
            actual = fc.grad.avg_pool2d(g, (40, *size), *window, False)
            expected = np.zeros_like(actual)
            for i, j in np.ndindex(*g.shape[1:]):
                part = [slice(max(0, o * stride - padding), o * stride - padding + kernel) for o in (i, j)]
                held = expected[:, part[0], part[1]]
                held += (g[:, i, j] / np.dtype(dtype).type(math.prod(held.shape[1:])))[:, None, None]
            identical(actual, expected)
    for planes in (1, 7, 33):
        for size in ((1, 1), (4, 4), (7, 7), (3, 43), (40, 41)):
            g = rng.standard_normal((planes, 1, 1)).astype(dtype)
            expected = np.broadcast_to(g / np.dtype(dtype).type(math.prod(size)), (planes, *size))
            identical(fc.grad.global_avg_pool(g, (planes, *size)), expected)


@both_layouts
def test_gradients_are_the_functions_slopes(layout, rng):
    """Finite differences of float64; distinct numbers, so that no maximum changes on the way."""
    shape = (2, 3, 5, 6)
    x = to_layout(rng.permutation(math.prod(shape)).reshape(shape).astype(np.float64), layout)
    difference = partial(numerical_gradient, step=0.25)

    def agree(function, gradient):
        grad = rng.standard_normal(function(x).shape)
        # The differences are small ones of values as large as x.
        scale = np.abs(x).max() * np.abs(grad).max()
        assert max_error(gradient(grad), difference(function, x, grad), scale) <= tolerance(np.float64, 36)

    for kernel, stride, padding in ((2, 2, 0), (3, 1, 1), ((2, 3), (3, 2), (1, 0))):
        window = (kernel, stride, padding)
        _, indices = fc.max_pool2d(x, *window, return_indices=True, layout=layout)
        agree(
            lambda a, w=window: fc.max_pool2d(a, *w, layout=layout),
            lambda g, i=indices: fc.grad.max_pool2d(g, i, x.shape, layout=layout),
        )
        for extra in ((), (True, False), (True, True, 7)):
            agree(
                lambda a, w=window, e=extra: fc.avg_pool2d(a, *w, *e, layout=layout),
                lambda g, w=window, e=extra: fc.grad.avg_pool2d(g, x.shape, *w, *e, layout=layout),
            )
    _, indices = fc.adaptive_max_pool2d(x, (3, 4), return_indices=True, layout=layout)
    agree(
        lambda a: fc.adaptive_max_pool2d(a, (3, 4), layout=layout),
        lambda g: fc.grad.adaptive_max_pool2d(g, indices, x.shape, layout=layout),
    )
    agree(
        lambda a: fc.adaptive_avg_pool2d(a, (3, 4), layout=layout),
        lambda g: fc.grad.adaptive_avg_pool2d(g, x.shape, layout=layout),
    )
    _, found = fc.global_max_pool(x, return_indices=True, layout=layout)
    agree(
        lambda a: fc.global_max_pool(a, layout=layout),
        lambda g: fc.grad.global_max_pool(g, found, x.shape, layout=layout),
    )
    agree(
        lambda a: fc.global_avg_pool(a, layout=layout),
        lambda g: fc.grad.global_avg_pool(g, x.shape, layout=layout),
    )


@both_layouts
@both_dtypes
def test_gradient_of_the_average_is_its_adjoint(layout, dtype, rng):
    """<pool x, y> = <x, grad y>, both sides summed in float64."""
    x = to_layout(rng.standard_normal((2, 19, 13, 35)).astype(dtype), layout)
    for window in ((2,), (3, 2, 1), (4, 3, 2, True, False), (5, 1, 2, False, True, 6)):
        pooled = fc.avg_pool2d(x, *window, layout=layout)
        y = rng.standard_normal(pooled.shape).astype(dtype)
        back = fc.grad.avg_pool2d(y, x.shape, *window, layout=layout)
        left, right = (np.multiply(a, b, dtype=np.float64) for a, b in ((pooled, y), (x, back)))
        size = np.sqrt((left**2).sum() + (right**2).sum())
        assert abs(left.sum() - right.sum()) <= tolerance(dtype, 25) * size
