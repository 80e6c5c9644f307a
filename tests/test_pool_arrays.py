# SPDX-License-Identifier: BSD-3-Clause
"""Pooling and its gradients on all kinds of arrays: where they lie, in which order, and what lies around them."""

import array
import mmap
import sys

import numpy as np
import pytest

import fastconv as fc
from support import MANY_THREADS, Fenced, poison, same_values, to_layout, whole

both_layouts = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def identical(actual, expected):
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == expected.dtype


# --- what must not matter -------------------------------------------------------------------------


def all_results(x: np.ndarray, layout: str) -> list[np.ndarray]:
    """Results of every function and gradient on the same images."""
    results = []
    for window in ((2, 2), (3, 2, 1), (3, 1, 1), (4, 3)):
        results += fc.max_pool2d(x, *window, return_indices=True, layout=layout)
        results.append(fc.max_pool2d(x, *window, layout=layout))
        results.append(fc.grad.max_pool2d(*results[-3:-1], x.shape, layout=layout))
        results.append(fc.avg_pool2d(x, *window, layout=layout))
        results.append(fc.grad.avg_pool2d(results[-1], x.shape, *window, layout=layout))
    results += fc.adaptive_max_pool2d(x, (5, 3), return_indices=True, layout=layout)
    results.append(fc.adaptive_avg_pool2d(x, (5, 3), layout=layout))
    results.append(fc.grad.adaptive_avg_pool2d(results[-1], x.shape, layout=layout))
    results.append(fc.global_avg_pool(x, layout=layout))
    return results


@both_layouts
@both_dtypes
def test_neither_threads_nor_batch_position_matter(layout, dtype, rng):
    """Bit by bit, on images large enough for several threads."""
    x = to_layout(rng.standard_normal((3, 37, 41, 67)).astype(dtype), layout)
    with fc.threads(1):
        alone = all_results(x, layout)
        single = all_results(x[1:2], layout)
    for one, middle in zip(alone, single, strict=True):
        assert one[1:2].tobytes() == middle.tobytes()
    for threads in (2, *MANY_THREADS):
        with fc.threads(threads):
            together = all_results(x, layout)
        for one, other in zip(alone, together, strict=True):
            assert one.tobytes() == other.tobytes(), f"{threads} threads"


@both_layouts
def test_memory_order_does_not_matter(layout, rng):
    x = to_layout(whole(rng, (2, 5, 7, 18)), layout)
    expected = all_results(x, layout)
    for name, same in same_values(x):
        for actual, wanted in zip(all_results(same, layout), expected, strict=True):
            np.testing.assert_array_equal(actual, wanted, err_msg=name)


@both_layouts
def test_memory_order_of_gradients_does_not_matter(layout, rng):
    x = to_layout(whole(rng, (2, 5, 7, 18)), layout)
    output, indices = fc.max_pool2d(x, 2, return_indices=True, layout=layout)
    grad = whole(rng, output.shape)
    by_maximum = fc.grad.max_pool2d(grad, indices, x.shape, layout=layout)
    by_average = fc.grad.avg_pool2d(grad, x.shape, 2, layout=layout)
    for (name, g), (_, i) in zip(same_values(grad), same_values(indices), strict=True):
        np.testing.assert_array_equal(fc.grad.max_pool2d(g, i, x.shape, layout=layout), by_maximum, err_msg=name)
        np.testing.assert_array_equal(fc.grad.avg_pool2d(g, x.shape, 2, layout=layout), by_average, err_msg=name)


@both_layouts
def test_images_without_a_batch(layout, rng):
    x = to_layout(whole(rng, (1, 5, 6, 8)), layout)
    for batched, unbatched in zip(all_results(x, layout), all_results(x[0], layout), strict=True):
        identical(unbatched, batched[0])


@both_layouts
def test_empty_batches(layout):
    x = to_layout(np.empty((0, 3, 6, 8), np.float32), layout)
    pooled, indices = fc.max_pool2d(x, 2, return_indices=True, layout=layout)
    assert pooled.shape == indices.shape == to_layout(np.empty((0, 3, 3, 4)), layout).shape
    for result in all_results(x, layout):
        assert result.shape[0] == 0
    assert fc.grad.max_pool2d(pooled, indices, x.shape, layout=layout).shape == x.shape


@both_layouts
def test_float16_by_way_of_float32(layout, rng):
    x = to_layout(rng.standard_normal((2, 3, 9, 11)).astype(np.float16), layout)
    pooled, indices = fc.max_pool2d(x, 3, return_indices=True, layout=layout)
    identical(pooled, fc.max_pool2d(x.astype(np.float32), 3, layout=layout).astype(np.float16))
    average = fc.avg_pool2d(x, 3, layout=layout)
    identical(average, fc.avg_pool2d(x.astype(np.float32), 3, layout=layout).astype(np.float16))
    out = poison(pooled.shape, np.float16)
    assert fc.max_pool2d(x, 3, layout=layout, out=out) is out
    identical(out, pooled)
    assert fc.grad.max_pool2d(pooled, indices, x.shape, layout=layout).dtype == np.float16
    assert fc.grad.avg_pool2d(average, x.shape, 3, layout=layout).dtype == np.float16


def test_whatever_offers_memory_is_an_array():
    values = np.arange(8.0).reshape(2, 2, 2)

    class Interface:
        __array_interface__ = values.__array_interface__

    class Exchange:
        def __dlpack__(self, **options):
            return values.__dlpack__(**options)

        def __dlpack_device__(self):
            return values.__dlpack_device__()

    buffer = memoryview(array.array("d", range(8))).cast("B").cast("d", (2, 2, 2))
    for images in (buffer, Interface(), Exchange(), values.tolist()):
        np.testing.assert_array_equal(fc.max_pool2d(images, 2).ravel(), [3, 7])


@both_layouts
def test_out_in_any_order_of_memory(layout, rng):
    x = to_layout(whole(rng, (2, 19, 6, 40)), layout)
    expected = fc.max_pool2d(x, 2, layout=layout)
    for name, out in same_values(poison(expected.shape)):
        if name == "read-only":
            continue
        assert fc.max_pool2d(x, 2, layout=layout, out=out) is out
        np.testing.assert_array_equal(out, expected, err_msg=name)
        fc.avg_pool2d(x, 2, layout=layout, out=out)
        np.testing.assert_array_equal(out, fc.avg_pool2d(x, 2, layout=layout), err_msg=name)


# --- nothing is read outside ----------------------------------------------------------------------


@pytest.fixture
def fenced():
    """A function that gives an array which begins or ends where memory may not be touched."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs mprotect")
    fences = []

    def make(values: np.ndarray, at_end: bool) -> np.ndarray:
        fences.append(Fenced(64 * mmap.PAGESIZE))
        return fences[-1].place(values, at_end)

    yield make
    for fence in fences:
        fence.open()


@both_layouts
@pytest.mark.parametrize("at_end", [False, True])
def test_not_an_element_is_touched_outside(fenced, layout, at_end, rng):
    for shape in ((1, 2, 7, 5), (1, 3, 3, 13), (1, 2, 4, 25), (2, 3, 6, 33), (1, 17, 4, 66), (2, 35, 3, 16)):
        x = fenced(to_layout(whole(rng, shape), layout), at_end)
        for window in ((2, 2), (3, 2, 1), (3, 1, 1), ((1, 5), 3, (0, 2))):
            expected, positions = fc.max_pool2d(np.array(x), *window, return_indices=True, layout=layout)
            out = fenced(poison(expected.shape), at_end)
            fc.max_pool2d(x, *window, layout=layout, out=out)
            identical(out, expected)
            out[...] = np.nan
            identical(fc.max_pool2d(x, *window, layout=layout, return_indices=True, out=out)[1], positions)
            identical(out, expected)
            indices = fenced(positions, at_end)
            wanted = fc.grad.max_pool2d(expected, positions, x.shape, layout=layout)
            identical(fc.grad.max_pool2d(out, indices, x.shape, layout=layout), wanted)
            wanted = fc.avg_pool2d(np.array(x), *window, layout=layout)
            identical(fc.avg_pool2d(x, *window, layout=layout, out=out), wanted)
            wanted = fc.grad.avg_pool2d(np.array(out), x.shape, *window, layout=layout)
            identical(fc.grad.avg_pool2d(out, x.shape, *window, layout=layout), wanted)
