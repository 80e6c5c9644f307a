# SPDX-License-Identifier: BSD-3-Clause
"""Pooling, against the reference, against torch, and by the properties they have.

Most inputs are whole numbers, whose sums are exact in any order: results are compared with ``==``,
and there are many ties. NaN lies around all arrays, and outputs are full of it before a call.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from pools import EDGES, LAYOUTS, LONG, both_dtypes, both_layouts, identical, random_problem, random_window, sprinkled
from support import embedded, max_error, poison, to_layout, tolerance, whole


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def intact(whole_array, part):
    """Whether what lies around a part that was written to is still poison."""
    before = part.copy()
    part[...] = np.nan
    untouched = np.isnan(whole_array).all()
    part[...] = before
    return untouched


# --- forward, against the reference ---------------------------------------------------------------


def check_maximum(x: np.ndarray, layout: str, fast: Any, plain: Any) -> None:
    expected, positions = plain(x, return_indices=True, layout=layout)
    around, out = embedded(poison(expected.shape, x.dtype))
    values, indices = fast(x, return_indices=True, layout=layout, out=out)
    assert values is out
    assert intact(around, out)
    identical(values, expected)
    identical(indices, positions)
    identical(fast(x, layout=layout), expected)


def check_average(x: np.ndarray, layout: str, fast: Any, plain: Any) -> None:
    expected = plain(x, layout=layout)
    around, out = embedded(poison(expected.shape, x.dtype))
    assert fast(x, layout=layout, out=out) is out
    assert intact(around, out)
    identical(out, expected)


@pytest.mark.parametrize("seed", range(12))
def test_random_problems(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        x, layout = random_problem(rng)
        size = x.shape[2:] if layout == "NCHW" else x.shape[1:3]

        window = random_window(rng, size, dilated=False)
        window["count_include_pad"] = bool(rng.integers(2))
        window["divisor_override"] = (None, None, 3, -2)[rng.integers(4)]
        check_average(x, layout, partial(fc.avg_pool2d, **window), partial(reference.avg_pool2d, **window))

        grid = {"output_size": tuple(int(rng.integers(1, n + 3)) for n in size)}
        check_average(
            x, layout, partial(fc.adaptive_avg_pool2d, **grid), partial(reference.adaptive_avg_pool2d, **grid)
        )

        sprinkled(rng, x)
        window = random_window(rng, size, dilated=True)
        check_maximum(x, layout, partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
        check_maximum(
            x, layout, partial(fc.adaptive_max_pool2d, **grid), partial(reference.adaptive_max_pool2d, **grid)
        )


@both_dtypes
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 1), (5, 3, 2)])
def test_every_width_of_rows(kernel, stride, padding, dtype, rng):
    for width in EDGES[EDGES.index(kernel) :]:
        x = embedded(whole(rng, (2, 5, width), dtype))[1]
        window = {"kernel_size": kernel, "stride": stride, "padding": padding}
        check_maximum(x, "NCHW", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
        check_average(x, "NCHW", partial(fc.avg_pool2d, **window), partial(reference.avg_pool2d, **window))


def check_both(x: np.ndarray, layout: str, **window: Any) -> None:
    check_maximum(x, layout, partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
    if "dilation" not in window:
        check_average(x, layout, partial(fc.avg_pool2d, **window), partial(reference.avg_pool2d, **window))


@both_layouts
@both_dtypes
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 3), (2, 2)])
def test_heights_around_bands(kernel, stride, layout, dtype, rng):
    """A band of the core holds 32 rows, or 8 outputs that share none; with ties, NaN and infinities."""
    for height in (8, 15, 16, 17, 18, 31, 32, 33, 34, 63, 64, 65, 67, 100):
        x = to_layout(whole(rng, (2, height, 37), dtype), layout)
        check_both(x, layout, kernel_size=kernel, stride=stride, padding=1)
        x = sprinkled(rng, x)
        check_maximum(
            x,
            layout,
            partial(fc.max_pool2d, kernel_size=kernel, stride=stride, padding=1),
            partial(reference.max_pool2d, kernel_size=kernel, stride=stride, padding=1),
        )


@both_layouts
@both_dtypes
@pytest.mark.parametrize("kernel", [(31, 2), (32, 3), (33, 3), (3, 31), (2, 32), (3, 33), (33, 34)])
def test_windows_around_the_widest_of_bands(kernel, layout, dtype, rng):
    x = to_layout(whole(rng, (3, 70, 101), dtype), layout)
    for stride in (1, 2, 3, 33):
        check_both(x, layout, kernel_size=kernel, stride=stride, padding=1)
    check_both(x, layout, kernel_size=kernel, stride=(1, 2), dilation=(2, 1))
    check_both(x, layout, kernel_size=kernel, stride=2, dilation=(1, 2))


@both_dtypes
def test_planes_in_one_piece(dtype, rng):
    """Vectors of planes and of elements, one more and one less; NaN and ties among them."""
    for planes in (1, 7, 8, 9, 15, 16, 17, 33):
        for size in ((1, 1), (1, 15), (4, 4), (1, 17), (7, 7), (8, 8), (1, 65), (33, 32)):
            x = embedded(whole(rng, (planes, *size), dtype), dense=True)[1]
            check_average(x, "NCHW", fc.global_avg_pool, reference.global_avg_pool)
            x = sprinkled(rng, x)
            plain = partial(reference.adaptive_max_pool2d, output_size=1)
            check_maximum(x, "NCHW", fc.global_max_pool, plain)


@both_dtypes
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 1), (3, 3, 1), (3, 2, 0), (5, 1, 2), (2, 3, 0)])
def test_planes_that_are_interleaved(kernel, stride, padding, dtype, rng):
    """Strips of planes and what is left of them, several to a task, in rows and not; NaN and ties."""
    window = {"kernel_size": kernel, "stride": stride, "padding": padding}
    for shape in ((1, 9, 5, 5), (2, 15, 7, 6), (1, 33, 5, 11), (1, 65, 8, 8), (3, 130, 6, 5)):
        x = embedded(whole(rng, shape, dtype), dense=bool(shape[0] == 1))[1]
        check_both(x, "NCHW", **window)
        x = sprinkled(rng, x)
        check_maximum(x, "NCHW", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))


@both_dtypes
def test_interleaved_rows_of_large_planes(dtype, rng):
    """Some rows of planes at a time, by any number of threads to the same bits; those that are deep whole."""
    x = rng.standard_normal((1, 66, 75, 67)).astype(dtype)
    window = {"kernel_size": (4, 3), "stride": (2, 3), "padding": (2, 1)}
    check_maximum(x, "NCHW", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
    dilated = {"kernel_size": 3, "stride": 3, "padding": 1, "dilation": (5, 2)}
    check_maximum(x, "NCHW", partial(fc.max_pool2d, **dilated), partial(reference.max_pool2d, **dilated))
    grid = {"output_size": (31, 17)}
    check_maximum(x, "NCHW", partial(fc.adaptive_max_pool2d, **grid), partial(reference.adaptive_max_pool2d, **grid))
    for pool, parameters in ((fc.avg_pool2d, window), (fc.adaptive_avg_pool2d, grid)):
        with fc.threads(1):
            alone = pool(x, **parameters)
        for threads in 2, 3, 5:
            with fc.threads(threads):
                identical(pool(x, **parameters), alone)
        identical(pool(np.concatenate([x, x]), **parameters)[1:], alone)
        assert max_error(alone, getattr(reference, pool.__name__)(x, **parameters)) < tolerance(dtype, 12)
    x = whole(rng, (1, 34, 4, 6, 7), dtype)
    window = {"kernel_size": (2, 3, 2), "stride": (1, 2, 3), "padding": (1, 0, 1)}
    beside, last = np.moveaxis(x, 1, -1).copy(), {**window, "layout": "NDHWC"}
    for a, b in zip(
        fc.max_pool3d(x, return_indices=True, **window), fc.max_pool3d(beside, return_indices=True, **last), strict=True
    ):
        identical(a, np.moveaxis(b, -1, 1))
    identical(fc.avg_pool3d(x, **window), np.moveaxis(fc.avg_pool3d(beside, **last), -1, 1))


@both_dtypes
def test_large_windows_of_many_channels(dtype, rng):
    """Run by run, in each of which channels fill vectors, strips and blocks, or one more or less; NaN and ties."""
    for channels in (65, 79, 128, 257, 511, 513, 1023, 1030, 2049):
        for size, kernel, stride in (((7, 7), 7, 1), ((6, 19), (5, 9), (5, 10)), ((11, 8), 5, 6)):
            x = to_layout(whole(rng, (2, channels, *size), dtype), "NHWC")
            x = embedded(x, dense=bool(channels % 2))[1]
            check_both(x, "NHWC", kernel_size=kernel, stride=stride, padding=int(size == (11, 8)))
            x = sprinkled(rng, x)
            window = {"kernel_size": kernel, "stride": stride}
            check_maximum(x, "NHWC", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
    x = to_layout(whole(rng, (1, 130, 17, 19), dtype), "NHWC")
    for fast, plain in (
        (fc.adaptive_avg_pool2d, reference.adaptive_avg_pool2d),
        (fc.adaptive_max_pool2d, reference.adaptive_max_pool2d),
    ):
        check = check_average if fast is fc.adaptive_avg_pool2d else check_maximum
        check(x, "NHWC", partial(fast, output_size=3), partial(plain, output_size=3))


@both_dtypes
def test_every_number_of_contiguous_channels(dtype, rng):
    for channels in EDGES:
        x = embedded(whole(rng, (5, 4, channels), dtype))[1]
        window = {"kernel_size": 3, "stride": 2, "padding": 1}
        check_maximum(x, "NHWC", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
        check_average(x, "NHWC", partial(fc.avg_pool2d, **window), partial(reference.avg_pool2d, **window))


@both_dtypes
@pytest.mark.parametrize("width", LONG)
def test_lines_longer_than_the_cores_own(width, dtype, rng):
    x = whole(rng, (2, 3, width), dtype)
    for kernel, stride in ((2, 2), (3, 1), (5, 4), (700, 300), (width, 1)):
        window = {"kernel_size": (2, kernel), "stride": stride, "padding": (0, min(kernel // 2, 3))}
        check_maximum(x, "NCHW", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
        check_average(x, "NCHW", partial(fc.avg_pool2d, **window), partial(reference.avg_pool2d, **window))
    for columns in (1, 3, 7):
        grid = {"output_size": (2, columns)}
        check_maximum(
            x, "NCHW", partial(fc.adaptive_max_pool2d, **grid), partial(reference.adaptive_max_pool2d, **grid)
        )
        check_average(
            x, "NCHW", partial(fc.adaptive_avg_pool2d, **grid), partial(reference.adaptive_avg_pool2d, **grid)
        )


@both_dtypes
def test_dilation_wider_than_a_line(dtype, rng):
    x = whole(rng, (1, 2, 2300), dtype)
    window = {"kernel_size": (1, 3), "stride": (1, 7), "dilation": (1, 1100)}
    check_maximum(x, "NCHW", partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))


@pytest.mark.parametrize("form", ["NCHW", "NHWC", "turned"])
def test_rows_that_are_cut(form, rng):
    """A row of windows this large is pooled, and its gradient spread, some columns at a time."""
    size, kernel = (2, 22400), (1, 20001)
    layout = "NHWC" if form == "NHWC" else "NCHW"
    x = whole(rng, (1, 2, *size), largest=9999)
    images = np.asfortranarray(x) if form == "turned" else to_layout(x, layout)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel[1], -1)
    columns = np.arange(windows.shape[-2])
    expected = np.argmax(windows, -1) + columns + size[1] * np.arange(2)[:, None]
    values, indices = fc.max_pool2d(images, kernel, 1, layout=layout, return_indices=True)
    identical(indices, to_layout(expected, layout))
    identical(values, to_layout(windows.max(-1), layout))
    identical(fc.max_pool2d(images, kernel, 1, layout=layout), values)

    x = whole(rng, x.shape, largest=1)
    images = np.asfortranarray(x) if form == "turned" else to_layout(x, layout)
    sums = np.cumsum(np.pad(x, [(0, 0)] * 3 + [(1, 0)]), -1)
    sums = sums[..., kernel[1] :] - sums[..., : -kernel[1]]
    window = {"kernel_size": kernel, "stride": 1, "divisor_override": 1, "layout": layout}
    identical(fc.avg_pool2d(images, **window), to_layout(sums, layout))
    g = whole(rng, sums.shape, largest=1)
    edges = np.pad(g, [(0, 0)] * 3 + [(0, kernel[1])]) - np.pad(g, [(0, 0)] * 3 + [(kernel[1], 0)])
    back = np.cumsum(edges, -1)[..., :-1]
    identical(fc.grad.avg_pool2d(to_layout(g, layout), images.shape, **window), to_layout(back, layout))


def test_offsets_that_float32_cannot_hold():
    """In a window from the first row to the last, offsets exceed 2**24 and come out odd."""
    rows, columns = 4100, 4100
    for layout, shape in (("NCHW", (2, rows, columns)), ("NHWC", (rows, columns, 2))):
        x = np.zeros(shape, np.float32)  # of which only the first and the last row ever get memory
        planes = x if layout == "NCHW" else np.moveaxis(x, -1, 0)
        planes[:, -1] = np.arange(columns)
        _, indices = fc.max_pool2d(x, 2, 1, 0, (rows - 1, 1), return_indices=True, layout=layout)
        last_row = np.arange((rows - 1) * columns + 1, rows * columns)
        expected = to_layout(np.broadcast_to(last_row, (2, 1, columns - 1)), layout)
        np.testing.assert_array_equal(indices, expected)


@both_dtypes
def test_global_pooling(dtype, rng):
    for layout in LAYOUTS:
        x = to_layout(whole(rng, (2, 21, 7, 9), dtype), layout)
        check_average(x, layout, fc.global_avg_pool, reference.global_avg_pool)
        identical(fc.global_max_pool(x, layout=layout), reference.global_max_pool(x, layout=layout))
        plain = partial(reference.adaptive_max_pool2d, output_size=1)
        check_maximum(x, layout, fc.global_max_pool, plain)


@both_layouts
@both_dtypes
def test_error_of_averages(layout, dtype, rng):
    """A sum down and across, or by rows, errs less than its number of terms allows."""
    x = to_layout(rng.random((3, 40, 41)).astype(dtype), layout)
    for average, terms in (
        (partial(fc.avg_pool2d, kernel_size=3), 9),
        (partial(fc.avg_pool2d, kernel_size=(29, 31), stride=2), 29 * 31),
        (fc.global_avg_pool, 40 * 41),
    ):
        plain = getattr(reference, getattr(average, "func", average).__name__)
        keywords = getattr(average, "keywords", {})
        expected = plain(x.astype(np.float64), **keywords, layout=layout)
        assert max_error(average(x, layout=layout), expected) <= tolerance(dtype, terms)


# --- maxima that are not numbers ------------------------------------------------------------------


@both_layouts
@both_dtypes
def test_nan_wins_and_the_last_one_counts(layout, dtype):
    nan = np.nan
    x = np.array([[[nan, 9, 1, 2], [3, nan, 5, np.inf]]], dtype)
    values, indices = fc.max_pool2d(to_layout(x, layout), 2, return_indices=True, layout=layout)
    np.testing.assert_array_equal(values.ravel(), [nan, np.inf])
    np.testing.assert_array_equal(indices.ravel(), [5, 7])
    np.testing.assert_array_equal(fc.max_pool2d(to_layout(x, layout), 2, layout=layout).ravel(), [nan, np.inf])


@both_layouts
def test_planes_of_minus_infinity(layout):
    x = to_layout(np.full((20, 3, 40), -np.inf, np.float32), layout)
    check_maximum(
        x,
        layout,
        partial(fc.max_pool2d, kernel_size=3, padding=1),
        partial(reference.max_pool2d, kernel_size=3, padding=1),
    )


#: (size, arguments): windows some or all of which step over the whole input, from padding to padding.
VOID = {
    "all of them": ((3, 3), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 4}),
    "across": ((4, 3), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": (2, 4)}),
    "down": ((3, 40), {"kernel_size": (2, 3), "stride": 1, "padding": 1, "dilation": (4, 1)}),
    "the first": ((4, 9), {"kernel_size": 2, "stride": 3, "padding": 1, "dilation": (7, 1), "ceil_mode": True}),
}


@pytest.mark.parametrize("name", VOID)
@both_layouts
@both_dtypes
def test_windows_that_hold_nothing(name, layout, dtype, rng):
    """Minus infinity, at -1, whose gradient goes nowhere."""
    size, window = VOID[name]
    for channels in (1, 2, 19):
        x = to_layout(whole(rng, (2, channels, *size), dtype), layout)
        check_maximum(x, layout, partial(fc.max_pool2d, **window), partial(reference.max_pool2d, **window))
        values, indices = fc.max_pool2d(x, **window, return_indices=True, layout=layout)
        assert (indices == -1).any()
        np.testing.assert_array_equal(np.isneginf(values), indices == -1)
        g = np.ones_like(values)
        identical(
            fc.grad.max_pool2d(g, indices, x.shape, layout=layout),
            reference.max_pool2d_input(g, indices, x.shape, layout=layout),
        )


def test_windows_of_one_and_three_axes_that_hold_nothing():
    values, indices = fc.max_pool1d(np.ones((2, 3), np.float32), 2, 1, 1, 4, return_indices=True)
    assert values.tolist() == [[-np.inf]] * 2
    assert indices.tolist() == [[-1]] * 2
    values, indices = fc.max_pool3d(np.ones((1, 4, 4, 3), np.float16), 2, 1, 1, (1, 1, 4), return_indices=True)
    assert np.isneginf(values).all()
    assert (indices == -1).all()


@both_layouts
def test_first_among_equals(layout):
    x = to_layout(np.ones((17, 6, 38), np.float32), layout)
    _, indices = fc.max_pool2d(x, 2, return_indices=True, layout=layout)
    first = np.arange(6 * 38).reshape(6, 38)[::2, ::2]
    identical(indices, to_layout(np.broadcast_to(first, (17, 3, 19)), layout))


@both_layouts
@both_dtypes
def test_the_smallest_numbers_are_kept(layout, dtype):
    """Maxima are copies: what is below the normal range neither vanishes nor ties with zero."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = to_layout((np.arange(40).reshape(1, 2, 20) % 7).astype(dtype) * tiny, layout)
    check_maximum(x, layout, partial(fc.max_pool2d, kernel_size=2), partial(reference.max_pool2d, kernel_size=2))


def test_averages_of_infinities():
    x = np.array([[[np.inf, 1.0, -np.inf, 2.0, np.inf, -np.inf]]])
    np.testing.assert_array_equal(fc.avg_pool2d(x, (1, 2)).ravel(), [np.inf, -np.inf, np.nan])


# --- torch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_torch_agrees(seed, torch):
    rng = np.random.default_rng(seed)
    functional = torch.nn.functional
    for _ in range(25):
        x, layout = random_problem(rng)
        x = np.ascontiguousarray(x)
        if layout == "NHWC":
            x = np.ascontiguousarray(np.moveaxis(x, -1, -3))
        size = x.shape[2:]
        grid = tuple(int(rng.integers(1, n + 3)) for n in size)

        def images(array, layout=layout):
            return to_layout(array, layout)

        window = random_window(rng, size, dilated=False)
        extra = {"count_include_pad": bool(rng.integers(2)), "divisor_override": (None, 3, -2)[rng.integers(3)]}
        for ours, grad, theirs, arguments in (
            (fc.avg_pool2d, fc.grad.avg_pool2d, functional.avg_pool2d, window | extra),
            (
                fc.adaptive_avg_pool2d,
                fc.grad.adaptive_avg_pool2d,
                functional.adaptive_avg_pool2d,
                {"output_size": grid},
            ),
        ):
            exact = torch.from_numpy(x.astype(np.float64)).requires_grad_()
            expected = theirs(exact, **arguments)
            actual = ours(images(x), **arguments, layout=layout)
            assert max_error(actual, images(expected.detach().numpy()), scale=4) <= tolerance(x.dtype, 36)
            g = whole(rng, expected.shape, x.dtype)
            expected.backward(torch.from_numpy(g.astype(np.float64)))
            parameters = {} if "output_size" in arguments else arguments
            actual = grad(images(g), images(x).shape, **parameters, layout=layout)
            assert max_error(actual, images(exact.grad.numpy()), scale=np.abs(g).sum()) <= tolerance(x.dtype, 36)

        sprinkled(rng, x)
        window = random_window(rng, size, dilated=True)
        for ours, theirs, arguments in (
            (fc.max_pool2d, functional.max_pool2d, window),
            (fc.adaptive_max_pool2d, functional.adaptive_max_pool2d, {"output_size": grid}),
        ):
            values, indices = theirs(torch.from_numpy(x), **arguments, return_indices=True)
            held = theirs(torch.ones(x.shape), **arguments) > 0  # where nothing is, torch has a position all the same
            actual = ours(images(x), **arguments, return_indices=True, layout=layout)
            identical(actual[0], images(values.numpy()))
            identical(actual[1], images(torch.where(held, indices, -1).numpy()))
