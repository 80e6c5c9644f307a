# SPDX-License-Identifier: BSD-3-Clause
"""Weight gradients by kinds of their own: products over pixels, of 1x1 kernels as well, and transposed Winograd."""

from dataclasses import dataclass

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args
from fastconv.ops import _convolution
from support import MANY_THREADS, every_thread, max_error, poison, spoil_scratch, tolerance

WINOGRAD = {"winograd_f2": 1e-6, "winograd_f3": 5e-6, "winograd_f4": 5e-6, "winograd_f6": 3e-5}
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
CONV = {1: fc.conv1d, 2: fc.conv2d, 3: fc.conv3d}
GRAD = {1: fc.grad.conv1d_weight, 2: fc.grad.conv2d_weight, 3: fc.grad.conv3d_weight}


@dataclass(frozen=True)
class Form:
    """A convolution whose weight is asked for; sizes are those of the input."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    in_channels: int = 3
    out_channels: int = 5
    batch: int = 2
    stride: tuple[int, ...] | int = 1
    padding: tuple[int, ...] | int = 1
    dilation: tuple[int, ...] | int = 1
    groups: int = 1

    @property
    def rank(self):
        return len(self.size)

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def weight_shape(self):
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    def arrays(self, dtype="float32", seed=0):
        """An input as a ReLU leaves it, and a gradient of the output."""
        rng = np.random.default_rng(seed)
        x = np.maximum(rng.standard_normal((self.batch, self.in_channels, *self.size)), 0).astype(dtype)
        y = CONV[self.rank](x, np.ones(self.weight_shape, dtype), **self.options)
        return x, rng.standard_normal(y.shape).astype(dtype)

    def truth(self, x, grad):
        """The definition in float64, tap by tap: pixels of the input against those of the gradient."""
        stride, padding, dilation = (
            (n,) * self.rank if isinstance(n, int) else n for n in (self.stride, self.padding, self.dilation)
        )
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *((p, p) for p in padding)))
        out, result = grad.shape[2:], np.empty(self.weight_shape)
        images = np.split(grad.astype(np.float64), self.groups, axis=1)
        pixels = (0, *range(2, 2 + self.rank))
        for tap in np.ndindex(*self.kernel):
            starts = [t * d for t, d in zip(tap, dilation, strict=True)]
            where = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, out, stride, strict=True)]
            seen = np.split(padded[:, :, *where], self.groups, axis=1)
            of_groups = [np.tensordot(g, v, (pixels, pixels)) for g, v in zip(images, seen, strict=True)]
            result[:, :, *tap] = np.concatenate(of_groups)
        return result

    def gradient(self, x, grad, layout, algorithm, **options):
        spoil_scratch(x.dtype.name)
        x, grad = (at_last(a, layout) for a in (x, grad))
        call = GRAD[self.rank]
        return call(x, self.weight_shape, grad, **self.options, layout=layout, algorithm=algorithm, **options)


def at_last(array, layout):
    """Channels first as the layout has it."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if layout[-1] == "C" else array


def spread(form, grad):
    """A gradient may be a small sum of large products: what errors are measured by."""
    terms = grad.size // form.out_channels
    return 5 * np.sqrt(terms / 2)


# What is cut: blocks of 256 pixels in rows, in several rows, in several images and within a row; slices of several
# blocks; parts of the input channels; runs of columns, gathered or not; tiles of output channels.
PRODUCTS = {
    "one pixel": Form((1, 1), (1, 1), 5, 7, batch=1, padding=0),
    "a kernel as large as the image": Form((7, 7), (7, 7), 5, 9, batch=3, padding=0),
    "many images of one pixel": Form((1, 1), (1, 1), 33, 65, batch=300, padding=0),
    "small images": Form((7, 7), (3, 3), 31, 29, batch=13),
    "255 columns": Form((5, 255), (3, 3), 3, 14, batch=1),
    "256 columns": Form((5, 256), (3, 3), 3, 15, batch=1),
    "257 columns": Form((5, 257), (3, 3), 3, 16, batch=1),
    "slices": Form((67, 61), (3, 3), 5, 17, batch=2),
    "slices of a 1x1 kernel": Form((59, 53), (1, 1), 33, 43, batch=2, padding=0),
    "three channels": Form((33, 37), (7, 7), 3, 32, stride=2, padding=3),
    "one channel": Form((19, 23), (3, 3), 1, 1),
    "parts of the channels": Form((13, 64), (3, 3), 700, 3, batch=1),
    "parts that end early": Form((9, 126), (3, 3), 269, 15, batch=1),
    "one output channel": Form((11, 11), (3, 3), 17, 1),
    "groups": Form((15, 16), (3, 3), 12, 8, groups=4),
    "depthwise": Form((15, 16), (3, 3), 6, 6, groups=6),
    "strides": Form((23, 26), (3, 3), 7, 6, stride=(3, 2), padding=(2, 0)),
    "strides beyond the kernel": Form((23, 27), (1, 2), 7, 6, stride=(5, 4), padding=0),
    "a strided 1x1 kernel": Form((16, 17), (1, 1), 20, 18, stride=2, padding=0),
    "a padded 1x1 kernel": Form((6, 7), (1, 1), 20, 18, stride=2, padding=1),
    "dilation": Form((17, 19), (3, 3), 6, 7, padding=(3, 2), dilation=(3, 2)),
    "padding without image": Form((2, 3), (3, 3), 3, 4, padding=(4, 5)),
    "one axis": Form((1001,), (5,), 4, 9, padding=2),
    "a long kernel": Form((900,), (301,), 2, 3, padding=17),
    "three axes": Form((5, 9, 11), (3, 2, 3), 5, 6, stride=(2, 1, 1), padding=(1, 0, 1)),
    "taps too far apart": Form((40101,), (3,), 32, 2, batch=1, padding=0, dilation=20000),  # by views
}
# 1x1 kernels: whole, narrow and overlapping tiles of either side; blocks of runs, and runs of blocks; rows 4 KiB apart.
POINTWISE = {
    **{name: PRODUCTS[name] for name in ("one pixel", "slices of a 1x1 kernel", "a strided 1x1 kernel")},
    "few channels": Form((9, 7), (1, 1), 3, 5, padding=0),
    "a vector and some": Form((9, 7), (1, 1), 20, 24, padding=0),
    "a tile and some": Form((9, 7), (1, 1), 70, 35, padding=0),
    "a tile and a vector and some": Form((9, 7), (1, 1), 13, 50, padding=0),
    "many small images": Form((3, 3), (1, 1), 33, 17, batch=61, padding=0),
    "images of many blocks": Form((59, 53), (1, 1), 14, 9, batch=3, padding=0),
    "parts of many channels": Form((13, 20), (1, 1), 1000, 5, padding=0),
    "as many outputs": Form((13, 20), (1, 1), 5, 1000, padding=0),
    "rows that share sets": Form((32, 64), (1, 1), 17, 33, padding=0),
    "and are strided": Form((64, 64), (1, 1), 17, 33, stride=2, padding=0),
    "in groups": Form((11, 12), (1, 1), 60, 90, groups=3, padding=0),
    "strided by three": Form((40, 41), (1, 1), 20, 18, stride=3, padding=0),
    "along one axis": Form((700,), (1,), 19, 21, padding=0),
    "along three axes": Form((3, 9, 11), (1, 1, 1), 19, 21, stride=(1, 2, 2), padding=0),
}
BY_PIXELS = [(form, "direct") for form in PRODUCTS.values()] + [(form, "pointwise") for form in POINTWISE.values()]
each_product = pytest.mark.parametrize(
    ("form", "algorithm"), BY_PIXELS, ids=[*PRODUCTS, *(f"pointwise, {name}" for name in POINTWISE)]
)


@each_product
def test_products(form, algorithm):
    for dtype in ("float32", "float64"):
        x, grad = form.arrays(dtype)
        truth = form.truth(x, grad)
        scale = max(np.abs(truth).max(), spread(form, grad))
        for layout in LAYOUTS[form.rank]:
            result = form.gradient(x, grad, layout, algorithm)
            assert result.dtype == dtype
            assert max_error(result, truth, scale) < tolerance(dtype, grad.size // form.out_channels), layout


@each_product
def test_it_is_the_adjoint(form, algorithm):
    """<d_wei, w> = <grad, conv(x, w)>, of whole numbers, and so exactly."""
    rng = np.random.default_rng(3)
    x, grad = (np.round(2 * a) for a in form.arrays("float64"))
    w = rng.integers(-3, 4, form.weight_shape).astype(np.float64)
    y = CONV[form.rank](x, w, **form.options)
    for layout in LAYOUTS[form.rank]:
        assert np.vdot(form.gradient(x, grad, layout, algorithm), w) == np.vdot(grad, y)


# Tiles of 2, 3, 4 and 6 outputs with a rest; several chunks of tiles; blocks of taps.
TRANSFORMED = {
    "3x3": Form((13, 17), (3, 3)),
    "one tile": Form((3, 3), (3, 3), 2, 3, batch=1),
    "one pixel": Form((1, 1), (3, 3), 2, 3, batch=1),
    "channels": Form((9, 10), (3, 3), 20, 37),
    "more channels": Form((7, 8), (3, 3), 65, 43, batch=3),
    "wide": Form((7, 95), (3, 3)),
    "many tiles": Form((65, 67), (3, 3), 8, 9, batch=2),
    "groups": Form((11, 12), (3, 3), 6, 9, groups=3),
    "slices": Form((97, 99), (3, 3), 32, 33, batch=2),  # tiles exceed the share of 32 MiB of L3
    "blocks": Form((5, 6), (3, 3), 300, 320),  # sums exceed it
    "blocks of groups": Form((4, 5), (3, 3), 600, 640, batch=1, groups=2),
    "5x5": Form((13, 14), (5, 5), padding=2),
    "2x2": Form((12, 13), (2, 2)),
    "4x4": Form((12, 13), (4, 4)),
    "7x6": Form((15, 16), (7, 6), padding=3),
    "a row": Form((8, 19), (1, 3)),
    "rows": Form((14, 15), (3, 3), stride=(2, 1)),
    "one axis": Form((40,), (3,)),
    "a long axis": Form((300,), (3,)),
    "one axis, five taps": Form((40,), (5,), padding=2),
    "three axes": Form((5, 7, 9), (3, 3, 3)),
}
each_transformed = pytest.mark.parametrize("form", TRANSFORMED.values(), ids=TRANSFORMED)
each_winograd = pytest.mark.parametrize("algorithm", WINOGRAD)


@each_winograd
@each_transformed
def test_winograd(form, algorithm):
    x, grad = form.arrays()
    truth = form.truth(x, grad)
    scale = max(np.abs(truth).max(), spread(form, grad))
    bound = 5e-6 if form.kernel == (5, 5) and algorithm == "winograd_f2" else WINOGRAD[algorithm]
    for layout in LAYOUTS[form.rank]:
        assert max_error(form.gradient(x, grad, layout, algorithm), truth, scale) < bound, layout


@pytest.mark.parametrize("form", [POINTWISE["as many outputs"], POINTWISE["parts of many channels"]])
def test_views_of_images(form):
    """Rows of pixels with gaps between them, of NaN, and channels that are not neighbours."""
    x, grad = form.arrays()
    for layout in LAYOUTS[2]:
        views = []
        for array in (x, grad):
            array = at_last(array, layout)
            whole = np.full([n + 3 for n in array.shape], np.nan, np.float32)
            view = whole[tuple(slice(1, n + 1) for n in array.shape)]
            view[...] = array
            views.append(view)
        result = GRAD[2](views[0], form.weight_shape, views[1], layout=layout)
        assert max_error(result, form.truth(x, grad), spread(form, grad)) < 5e-6


def test_pointwise_says_why_not():
    x, grad = Form((9, 9), (1, 1), padding=1).arrays()
    with pytest.raises(NotImplementedError, match="without padding"):
        Form((9, 9), (1, 1), padding=1).gradient(x, grad, "NCHW", "pointwise")


def test_winograd_says_why_not():
    x, grad = Form((9, 9), (3, 3)).arrays()
    for algorithm in WINOGRAD:
        with pytest.raises(NotImplementedError, match="strict"):
            Form((9, 9), (3, 3)).gradient(x, grad, "NCHW", algorithm, precision="strict")
        for form, reason in (
            (Form((9, 9), (3, 3), stride=(1, 2)), "stride 1"),
            (Form((9, 9), (3, 3), dilation=(1, 2)), "dilation 1"),
            (Form((9, 9), (3, 1)), "two columns"),
        ):
            with pytest.raises(NotImplementedError, match=reason):
                form.gradient(*form.arrays(), "NCHW", algorithm)
        with pytest.raises(NotImplementedError, match="float64"):
            Form((9, 9), (3, 3)).gradient(x.astype(np.float64), grad.astype(np.float64), "NCHW", algorithm)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 1e30])
@each_winograd
def test_what_is_not_finite_harms_what_it_should(algorithm, value):
    """In a corner, which four of nine taps see; the other channels do not see it at all."""
    form = Form((11, 12), (3, 3), 6, 9)
    for outlier in range(2):
        x, grad = form.arrays()
        (x, grad)[outlier][1, 2, 0, 0] = value
        with np.errstate(all="ignore"):
            truth = form.truth(x, grad)
            direct = form.gradient(x, grad, "NCHW", "direct")
        for layout in LAYOUTS[2]:
            result = form.gradient(x, grad, layout, algorithm)
            np.testing.assert_array_equal(np.isnan(result), np.isnan(direct))
            np.testing.assert_array_equal(np.isinf(result), np.isinf(direct))
            unseen = np.abs(truth) < 1e20  # nor NaN
            assert np.abs(result[unseen] - truth[unseen]).max() < 1e-4


def chosen(form, precision="default"):
    """The algorithm that serves when none is asked for."""
    x, grad = (np.empty(a.shape, np.float32) for a in form.arrays())
    g = _args.geometry(2, x.shape, form.weight_shape, **form.options, layout="NCHW")
    wei = np.empty(form.weight_shape, np.float32)
    plan = _convolution._plan(g, "weight", x, wei, grad, "auto", _args.is_strict(precision))
    return fc.ALGORITHMS[plan.algorithm]


def test_the_choice():
    """Winograd where many channels meet many tiles; products where it does not serve."""
    deep = Form((28, 28), (3, 3), 64, 64, batch=2)
    assert chosen(deep).startswith("winograd")
    assert chosen(deep, "strict") == "direct"
    pointwise = chosen(Form((28, 28), (1, 1), 64, 64, batch=2, padding=0))
    assert pointwise == "pointwise" or fc.isa() == "scalar"
    assert chosen(Form((28, 28), (3, 3), 64, 64, batch=2, stride=2)) == "direct"


def test_precision_strict_keeps_to_direct_sums():
    form = Form((28, 28), (3, 3), 64, 64, batch=4)
    x, grad = form.arrays()
    strict = form.gradient(x, grad, "NHWC", "auto", precision="strict")
    assert max_error(strict, form.truth(x, grad), spread(form, grad)) < 5e-7


@pytest.mark.parametrize(
    ("form", "algorithm"),
    [
        (PRODUCTS["slices"], "direct"),
        (PRODUCTS["parts of the channels"], "direct"),
        (PRODUCTS["groups"], "direct"),
        (PRODUCTS["small images"], "direct"),
        (POINTWISE["slices of a 1x1 kernel"], "pointwise"),
        (POINTWISE["parts of many channels"], "pointwise"),
        (POINTWISE["as many outputs"], "pointwise"),
        (POINTWISE["in groups"], "pointwise"),
        (TRANSFORMED["more channels"], "winograd_f4"),
        (TRANSFORMED["many tiles"], "winograd_f2"),
        (TRANSFORMED["groups"], "winograd_f3"),
        (TRANSFORMED["slices"], "winograd_f4"),
        (TRANSFORMED["blocks of groups"], "winograd_f4"),
    ],
)
def test_threads_do_not_change_a_bit(form, algorithm):
    x, grad = form.arrays()
    with fc.threads(1):
        expected = form.gradient(x, grad, "NHWC", algorithm)
    for count in MANY_THREADS:
        with every_thread(), fc.threads(count):
            np.testing.assert_array_equal(form.gradient(x, grad, "NHWC", algorithm), expected)


@pytest.mark.parametrize("algorithm", ["direct", "winograd_f4"])
def test_weights_as_they_lie(algorithm):
    """Gradients of transposed convolutions are written with the channels exchanged."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 6, 9, 11), np.float32)
    grad = rng.standard_normal((2, 5, 11, 13), np.float32)
    result = fc.grad.conv_transpose2d_weight(x, (6, 5, 3, 3), grad, algorithm=algorithm)
    form = Form((11, 13), (3, 3), 5, 6, padding=0)  # the convolution whose input gradient it is
    assert max_error(result, form.truth(grad, x)) < 5e-6


def test_all_nan_are_one():
    """Of whatever sign and payload they came in."""
    form = PRODUCTS["slices"]
    x, grad = form.arrays()
    x[:, 1] = poison(x[:, 1].shape)
    x[:, 2] = -x[:, 1]
    for algorithm in ("direct", "winograd_f4"):
        bits = form.gradient(x, grad, "NCHW", algorithm)[:, 1:3].view(np.uint32)
        assert np.unique(bits).tolist() == [np.float32(np.nan).view(np.uint32)]
