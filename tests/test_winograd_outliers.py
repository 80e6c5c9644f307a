# SPDX-License-Identifier: BSD-3-Clause
"""What one number that is not finite, or far larger than the rest, does to the outputs of its Winograd tile."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

import fastconv as fc

WINOGRAD = ("winograd_f2", "winograd_f3", "winograd_f4", "winograd_f6")
TILE = dict(zip(WINOGRAD, (2, 3, 4, 6), strict=True))
CONV = {1: fc.conv1d, 2: fc.conv2d, 3: fc.conv3d}
TRANSPOSED = {1: fc.conv_transpose1d, 2: fc.conv_transpose2d, 3: fc.conv_transpose3d}
INPUT_GRAD = {1: fc.grad.conv1d_input, 2: fc.grad.conv2d_input, 3: fc.grad.conv3d_input}
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
VALUES = (np.nan, np.inf, -np.inf, 1e38, -3e38)


@dataclass(frozen=True)
class Form:
    """A shape of kernel that Winograd's algorithms treat in a way of its own."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    in_channels: int = 3
    out_channels: int = 5
    stride: tuple[int, ...] | int = 1
    padding: int = 1
    groups: int = 1
    batch: int = 2

    @property
    def rank(self):
        return len(self.size)

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}

    def arrays(self, seed=0):
        """Input and weight; a few weights are zero, which times infinity is NaN."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((self.batch, self.in_channels, *self.size), dtype=np.float32)
        w = rng.standard_normal((self.out_channels, self.in_channels // self.groups, *self.kernel), dtype=np.float32)
        w[rng.random(w.shape) < 0.1] = 0
        return x, w


FORMS = {
    "3x3": Form((13, 17), (3, 3)),
    "channels": Form((9, 10), (3, 3), in_channels=20, out_channels=37),
    "in passing": Form((9, 10), (3, 3), in_channels=96, out_channels=200),
    "wide": Form((7, 95), (3, 3)),
    "groups": Form((11, 12), (3, 3), in_channels=6, out_channels=9, groups=3),
    "5x5": Form((13, 14), (5, 5), padding=2),
    "2x2": Form((12, 13), (2, 2)),
    "4x4": Form((12, 13), (4, 4)),
    "7x6": Form((15, 16), (7, 6), padding=3),
    "a row": Form((8, 19), (1, 3)),
    "two apart": Form((14, 15), (3, 3), stride=2),
    "5x5, two apart": Form((15, 16), (5, 5), stride=2, padding=2),
    "a row, two apart": Form((8, 19), (1, 3), stride=2),
    "rows": Form((14, 15), (3, 3), stride=(2, 1)),
    "one axis": Form((40,), (3,)),
    "one axis, five taps": Form((40,), (5,), padding=2),
    "three axes": Form((5, 7, 9), (3, 3, 3)),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
each_winograd = pytest.mark.parametrize("algorithm", WINOGRAD)


def at_last(array, layout):
    """Channels first as the layout has it."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if layout[-1] == "C" else array


def at_first(array, layout):
    return np.moveaxis(array, -1, 1) if layout[-1] == "C" else array


def middle(form):
    return (1, 1, *(n // 2 for n in form.size))


def check(result, direct, clean, seen, value):
    """Finite where the direct sums are; those that do not see the outlier as near to the truth as ever.

    Unless the outlier is finite and has not overflowed on its way: then they are as near as it allows.
    """
    np.testing.assert_array_equal(np.isnan(result), np.isnan(direct))
    infinite = np.isinf(direct)
    np.testing.assert_array_equal(result[infinite], direct[infinite])
    scale = np.abs(clean).max()
    allowed = 3e-5 * (scale if not np.isfinite(value) else 10 * abs(value))
    assert np.abs(result[~seen].astype(np.float64) - clean[~seen]).max() < allowed
    finite = seen & np.isfinite(direct)
    largest = np.abs(direct[finite]).max(initial=scale)
    assert np.abs(result[finite].astype(np.float64) - direct[finite]).max(initial=0) < 3e-5 * largest


def windows(form, place):
    """Outputs whose windows hold the place, whatever is there."""
    x, w = np.zeros_like(form.arrays()[0]), np.ones_like(form.arrays()[1])
    x[place] = 1
    return CONV[form.rank](x, w, **form.options, algorithm="reference") != 0


@each_winograd
@each_form
def test_what_does_not_see_it_is_right(form, algorithm):
    x, w = form.arrays()
    convolve, place = CONV[form.rank], middle(form)
    clean = convolve(x, w, **form.options, algorithm="reference")
    seen = windows(form, place)
    for value, layout in product(VALUES, LAYOUTS[form.rank]):
        x[place] = value
        direct = convolve(x, w, **form.options, algorithm="im2col")
        result = convolve(at_last(x, layout), w, **form.options, layout=layout, algorithm=algorithm)
        check(at_first(result, layout), direct, clean, seen, value)


@each_winograd
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_before_residual_and_activation(algorithm, activation):
    """Which hide NaN and infinity; and the residual may be the output itself."""
    form = FORMS["channels"]
    x, w = form.arrays()
    x[middle(form)] = np.inf
    b = np.linspace(-1, 1, form.out_channels, dtype=np.float32)
    r = np.random.default_rng(1).standard_normal((2, 37, 9, 10), dtype=np.float32)
    options = {**form.options, "activation": activation}
    direct = fc.conv2d(x, w, b, **options, residual=r, algorithm="im2col")
    for layout in LAYOUTS[2]:
        out = at_last(r, layout).copy()
        fc.conv2d(at_last(x, layout), w, b, **options, layout=layout, residual=out, out=out, algorithm=algorithm)
        np.testing.assert_allclose(at_first(out, layout), direct, rtol=0, atol=1e-3)


@each_winograd
@pytest.mark.parametrize("layout", LAYOUTS[2])
def test_outputs_beyond_the_tile_keep_their_bits(algorithm, layout):
    """Only what is not finite is summed again."""
    form = FORMS["wide"]
    x, w = form.arrays()
    clean = fc.conv2d(at_last(x, layout), w, **form.options, layout=layout, algorithm=algorithm)
    x[middle(form)] = np.nan
    result = fc.conv2d(at_last(x, layout), w, **form.options, layout=layout, algorithm=algorithm)
    reach = TILE[algorithm] + 1
    y, x = middle(form)[2:]
    far = np.ones(at_first(clean, layout).shape, bool)
    far[1, :, max(0, y - reach) : y + reach + 1, x - reach : x + reach + 1] = False
    np.testing.assert_array_equal(at_first(result, layout)[far], at_first(clean, layout)[far])


@each_winograd
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_no_matter_how_many_threads_or_where_in_the_batch(algorithm, value):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 20, 37, 41), dtype=np.float32)
    x[rng.random(x.shape) < 1e-3] = value
    w = rng.standard_normal((40, 20, 3, 3), dtype=np.float32)
    for layout in LAYOUTS[2]:
        images = at_last(x, layout)
        with fc.threads(1):
            expected = fc.conv2d(images, w, padding=1, layout=layout, algorithm=algorithm).view("u4")
        for threads in (2, 3):
            with fc.threads(threads):
                result = fc.conv2d(images, w, padding=1, layout=layout, algorithm=algorithm)
            np.testing.assert_array_equal(result.view("u4"), expected)
        for i in range(4):
            alone = fc.conv2d(images[i : i + 1], w, padding=1, layout=layout, algorithm=algorithm)
            np.testing.assert_array_equal(alone.view("u4")[0], expected[i])


@each_winograd
@pytest.mark.parametrize("form", [FORMS[name] for name in ("3x3", "groups", "one axis", "three axes")], ids=str)
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_transposed_and_gradients(form, algorithm, value):
    x, w = form.arrays()
    y = CONV[form.rank](x, w, **form.options, algorithm="reference")
    clean = INPUT_GRAD[form.rank](x.shape, w, y, **form.options, algorithm="reference")
    place = middle(form)
    for function in (
        lambda y, w, algorithm: INPUT_GRAD[form.rank](x.shape, w, y, **form.options, algorithm=algorithm),
        lambda y, w, algorithm: TRANSPOSED[form.rank](y, w, **form.options, algorithm=algorithm),
    ):
        mark = np.zeros_like(y)
        mark[place] = 1
        seen = function(mark, np.ones_like(w), "reference") != 0
        spoilt = y.copy()
        spoilt[place] = value
        check(function(spoilt, w, algorithm), function(spoilt, w, "im2col"), clean, seen, value)


@each_winograd
@pytest.mark.parametrize("layout", LAYOUTS[2])
def test_float16(algorithm, layout):
    form = FORMS["3x3"]
    x, w = (a.astype(np.float16) for a in form.arrays())
    x[middle(form)] = np.inf
    direct = fc.conv2d(x, w, **form.options, algorithm="im2col")
    result = fc.conv2d(at_last(x, layout), w, **form.options, layout=layout, algorithm=algorithm)
    result = at_first(result, layout)
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(direct))
    np.testing.assert_allclose(result.astype("f4"), direct.astype("f4"), atol=1e-2, rtol=2e-3)


@each_winograd
def test_plans_and_layers(algorithm):
    form = FORMS["3x3"]
    x, w = form.arrays()
    x[middle(form)] = np.nan
    expected = fc.conv2d(x, w, **form.options, algorithm="im2col")
    plan = fc.ConvPlan(x.shape, w, **form.options, algorithm=algorithm)
    np.testing.assert_array_equal(np.isnan(plan(x)), np.isnan(expected))
    layer = fc.nn.Conv2d(3, 5, 3, padding=1, bias=False).eval()
    layer.load_state_dict({"weight": w})
    np.testing.assert_array_equal(np.isnan(layer(x)), np.isnan(expected))


@each_winograd
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(algorithm, value):
    """An infinite weight makes infinities, and NaN where it meets a zero: that of the padding, too."""
    for name in ("3x3", "5x5", "2x2", "7x6", "a row"):
        form = FORMS[name]
        x, w = form.arrays()
        w[2, 1, 0, 1] = value
        result = fc.conv2d(x, w, **form.options, algorithm=algorithm)
        np.testing.assert_array_equal(np.isnan(result), np.isnan(fc.conv2d(x, w, **form.options, algorithm="im2col")))
        others = [0, 1, 3, 4]
        clean = fc.conv2d(*form.arrays(), **form.options, algorithm=algorithm)
        np.testing.assert_array_equal(result[:, others], clean[:, others])


def test_an_image_of_nothing_else():
    x = np.full((1, 8, 40, 40), np.nan, np.float32)
    w = np.ones((8, 8, 3, 3), np.float32)
    for algorithm in WINOGRAD:
        assert np.isnan(fc.conv2d(x, w, padding=1, algorithm=algorithm)).all()


#: The error within a tile's reach as a share of the largest input there times the sum of |weights|, as in the README.
REACH = {"winograd_f2": 2.5e-7, "winograd_f3": 5e-7, "winograd_f4": 1e-6, "winograd_f6": 5e-6}


@each_winograd
@each_form
def test_the_bound_within_reach_of_a_large_number(form, algorithm):
    convolve, place = CONV[form.rank], middle(form)
    x, w = form.arrays(3)
    clean = convolve(x, w, **form.options, algorithm=algorithm).astype(np.float64)
    sums = np.abs(w).sum(axis=tuple(range(1, w.ndim))).reshape(1, -1, *(1,) * form.rank)
    # The tiles that read it, whole, and the blocks of taps, which zeros fill up.
    reach = TILE[algorithm] + max(form.kernel) + 4
    near = np.zeros(clean.shape, bool)
    strides = form.stride if isinstance(form.stride, tuple) else (form.stride,) * form.rank
    near[
        1, :, *(slice(max(0, n // s - reach), n // s + reach + 1) for n, s in zip(place[2:], strides, strict=True))
    ] = 1
    for value in (1e3, 1e6, -1e12, 1e20, 1e30):
        x[place] = value
        result = convolve(x, w, **form.options, algorithm=algorithm)
        assert np.isfinite(result).all()
        truth = convolve(x.astype(np.float64), w.astype(np.float64), **form.options, algorithm="reference")
        error = np.abs(result - truth) / sums
        assert error[near].max() < REACH[algorithm] * abs(value), value
        # Beyond, to the last bit as if there were none.
        np.testing.assert_array_equal(result[~near], clean[~near].astype(np.float32))
        strict = convolve(x, w, **form.options, precision="strict")
        unseen = ~windows(form, place)
        assert np.abs(strict - truth)[unseen].max() < 1e-6 * np.abs(clean).max()
