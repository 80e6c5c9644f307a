# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions most of whose taps see nothing but padding: kernels beyond the image, and padding beyond the kernel."""

import numpy as np
import pytest

import fastconv as fc
from support import limited, max_error, poison, tolerance

rng = np.random.default_rng(12)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


# size, kernel, stride, dilation, padding
AXES = [
    (3, 40, 1, 1, 39),
    (2, 33, 1, 2, 66),
    (5, 64, 3, 1, 63),
    (4, 3, 1, 1, 30),
    (7, 50, 2, 3, 150),
    (1, 3, 1, 1, 1),
    (6, 4, 5, 9, 27),
    # taps far apart
    (20, 3, 1, 13, 13),
    (11, 3, 2, 8, 9),
    (9, 5, 1, 6, 12),
    (5, 3, 1, 7, 9),
]


def convolved(x, weight, stride, dilation, padding):
    """The definition, along two axes."""
    (sh, sw), (dh, dw), (ph, pw) = stride, dilation, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    kh, kw = weight.shape[2:]
    axes = zip(padded.shape[2:], dilation, (kh, kw), stride, strict=True)
    oh, ow = ((n - d * (k - 1) - 1) // s + 1 for n, d, k, s in axes)
    y = np.zeros((len(x), len(weight), oh, ow))
    for i in range(kh):
        for j in range(kw):
            seen = padded[:, :, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
            y += np.einsum("nchw,oc->nohw", seen, weight[:, :, i, j])
    return y


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(len(AXES)))
def test_agrees_with_the_definition(case, dtype, layout):
    size, kernel, stride, dilation, padding = zip(AXES[case], AXES[(case + 3) % len(AXES)], strict=True)
    x, weight, bias = (a.astype(dtype) for a in (normal(2, 3, *size), normal(4, 3, *kernel), normal(4)))
    plain = convolved(x, weight, stride, dilation, padding) + bias.astype(float)[:, None, None]
    residual = normal(*plain.shape).astype(dtype)
    expected, terms = np.maximum(plain + residual, 0), 3 * size[0] * size[1]
    if layout == "NHWC":
        x, residual, expected = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, residual, expected))
    options = {"stride": stride, "dilation": dilation, "padding": padding, "layout": layout, "activation": "relu"}
    for algorithm in ("auto", "im2col", "direct"):
        if algorithm not in ("auto", *fc.algorithms(x.shape, weight.shape, stride, padding, dilation, layout=layout)):
            continue
        out = poison(expected.shape, dtype)
        fc.conv2d(x, weight, bias, residual=residual, out=out, algorithm=algorithm, **options)
        assert max_error(out, expected) <= tolerance(dtype, terms)
        with fc.threads(3):
            again = fc.conv2d(x, weight, bias, residual=residual, algorithm=algorithm, **options)
            np.testing.assert_array_equal(again, out)


def test_long_kernels_of_float16_and_in_groups():
    x, weight = normal(2, 4, 6).astype(np.float16), normal(6, 2, 300).astype(np.float16)
    options = {"groups": 2, "padding": 299}
    expected = fc.conv1d(x.astype(float), weight.astype(float), algorithm="reference", **options)
    assert max_error(fc.conv1d(x, weight, **options), expected) <= tolerance(np.float16, 12)


@pytest.mark.parametrize("stride", [1, 3])
def test_transposed_and_all_gradients_of_a_long_kernel(stride):
    """Against each other, by the adjoint: <conv x, g> = <x, gradient of the input> = <w, gradient of the weight>."""
    x, weight = normal(2, 3, 5), normal(3, 2, 400)
    y = fc.conv_transpose1d(x, weight, stride=stride)
    expected = np.zeros_like(y)
    for i in range(5):
        expected[:, :, i * stride : i * stride + 400] += np.einsum("nc,cok->nok", x[:, :, i], weight)
    assert max_error(y, expected) <= tolerance(y.dtype, 15)
    g = normal(*y.shape)
    inner = np.vdot(y, g)
    d_x = fc.grad.conv_transpose1d_input(x.shape, weight, g, stride=stride)
    d_weight = fc.grad.conv_transpose1d_weight(x, weight.shape, g, stride=stride)
    np.testing.assert_allclose([np.vdot(d_x, x), np.vdot(d_weight, weight)], inner, rtol=1e-9)

    mirror = weight[:, :2]
    x = normal(2, 2, 5)
    y = fc.conv1d(x, mirror, padding=399, stride=stride)
    g = normal(*y.shape)
    d_x = fc.grad.conv1d_input(x.shape, mirror, g, padding=399, stride=stride)
    d_weight = fc.grad.conv1d_weight(x, mirror.shape, g, padding=399, stride=stride)
    np.testing.assert_allclose([np.vdot(d_x, x), np.vdot(d_weight, mirror)], np.vdot(y, g), rtol=1e-9)


@pytest.mark.parametrize("shape", [((5, 2, 8), (3, 2, 500)), ((9, 3, 4), (16, 3, 129)), ((33, 1, 2), (1, 1, 64))])
def test_bands_do_not_depend_on_the_batch(shape):
    x, weight = (normal(*s).astype("float32") for s in shape)
    for function, options in ((fc.conv1d, {"padding": shape[1][-1] - 1}), (fc.conv_transpose1d, {"stride": 2})):
        w = weight if function is fc.conv1d else weight.transpose(1, 0, 2)
        together = function(x, w, batch_invariant=True, **options)
        alone = [function(image[None], w, batch_invariant=True, **options) for image in x]
        np.testing.assert_array_equal(together, np.concatenate(alone))


def test_packed_weights_follow_the_weights():
    weight = normal(2, 3, 4096).astype("float32")
    plan = fc.ConvPlan((1, 3, 8), weight, padding=4095)
    assert plan.packed_bytes <= 4 * weight.nbytes
    x = normal(1, 3, 8).astype("float32")
    expected = fc.conv1d(x.astype(float), weight.astype(float), padding=4095, algorithm="reference")
    assert max_error(plan(x), expected) <= tolerance("float32", 24)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_taps_that_see_padding_alone_are_left_out(layout):
    """Of 3 x 3 taps 27 apart on 40 pixels 30 % see the image; those 2 apart nearly all do."""

    def predicted(dilation):
        weight = np.zeros((64, 64, 3, 3), "f4")
        shape = (1, 64, 40, 40) if layout == "NCHW" else (1, 40, 40, 64)
        plan = fc.ConvPlan(shape, weight, padding=dilation, dilation=dilation, layout=layout)
        return next(row.predicted for row in plan.explain() if row.algorithm == "direct")

    assert predicted(27) < 0.8 * predicted(2)


def test_time_follows_the_products_that_are_not_zero():
    """2^40 products of which 2^23 have a factor from the input."""
    limited(
        """
        size, long = 8, 2**20
        x, w = np.ones((1, 1, size), "f4"), np.ones((1, 1, long), "f4")
        y = fc.conv_transpose1d(x, w)
        assert y[0, 0, long // 2] == size and y[0, 0, -1] == 1
        assert fc.conv1d(x, w, padding=long - 1)[0, 0, long // 2] == size
        assert fc.grad.conv1d_weight(x, w.shape, y, padding=long - 1)[0, 0, long // 2] > 0
        fc.grad.conv1d_input(x.shape, w, y, padding=long - 1)
        """
    )
