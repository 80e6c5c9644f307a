# SPDX-License-Identifier: BSD-3-Clause
"""Transposed convolutions whose stride is what is large: phases that share plans, and outputs that see no tap."""

import sys

import numpy as np
import pytest

import fastconv as fc
from support import limited, max_error, poison, to_layout, tolerance

rng = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def transposed(x, weight, bias, stride, padding, dilation, groups=1):
    """The definition: each input element adds its multiple of the kernel to the output."""
    n, channels, *size = x.shape
    _, per_group, *kernel = weight.shape
    axes = zip(size, kernel, stride, dilation, strict=True)
    y = np.zeros((n, per_group * groups, *((i - 1) * s + (k - 1) * d + 1 for i, k, s, d in axes)))
    for group in range(groups):
        inside = slice(group * channels // groups, (group + 1) * channels // groups)
        to = slice(group * per_group, (group + 1) * per_group)
        for i in np.ndindex(*size):
            for k in np.ndindex(*kernel):
                h, w = (a * s + b * d for a, s, b, d in zip(i, stride, k, dilation, strict=True))
                y[:, to, h, w] += x[(slice(None), inside, *i)] @ weight[(inside, slice(None), *k)]
    (top, left), (rows, columns) = padding, y.shape[2:]
    return y[:, :, top : rows - top, left : columns - left] + bias[:, None, None]


# stride, dilation, padding, kernel, input: taps that are fewer than phases, or more; that share phases, or skip some.
AXES = [
    (5, 1, 0, 2, 4),
    (7, 3, 4, 3, 5),
    (4, 6, 2, 5, 3),
    (6, 4, 5, 4, 4),
    (3, 1, 1, 8, 5),
    (9, 2, 3, 1, 2),
    (2, 7, 3, 4, 6),
    (17, 1, 0, 17, 2),
]


# Groups, channels of a group, outputs of a group, kernel, stride, padding, dilation, input: columns two, four or
# another number apart, kernels that reach over several strides or leave outputs without a tap, more channels than are
# written at once, rows of more than one segment.
PRODUCTS = [
    (1, 3, 5, (3, 3), (2, 2), (1, 1), (1, 1), (5, 18)),
    (4, 2, 5, (5, 6), (2, 4), (2, 1), (1, 1), (3, 9)),
    (1, 4, 17, (4, 4), (3, 3), (0, 2), (1, 1), (4, 7)),
    (20, 1, 1, (3, 5), (4, 2), (0, 0), (2, 3), (2, 20)),
    (2, 3, 2, (2, 3), (1, 2), (1, 1), (1, 1), (3, 300)),
    (1, 2, 3, (2, 7), (2, 5), (0, 3), (1, 2), (2, 260)),
]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", PRODUCTS)
def test_as_one_product(case, dtype, layout):
    """By a 1x1 layer: the only way by `pointwise` in NCHW; in NHWC `im2col` takes it where that pays."""
    groups, channels, outputs, kernel, stride, padding, dilation, size = case
    shapes = ((2, groups * channels, *size), (groups * channels, outputs, *kernel), (groups * outputs,))
    x, weight, bias = (normal(*shape).astype(dtype) for shape in shapes)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    plain = transposed(*(a.astype(float) for a in (x, weight, bias)), **geometry)
    residual = normal(*plain.shape).astype(dtype)
    finished = {
        None: (lambda v: v, plain, None),
        "relu6": (lambda v: np.clip(v, 0, 6), plain + residual, residual),
        "silu": (lambda v: v / (1 + np.exp(-v)), plain + residual, residual),
    }
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    options = {**geometry, "layout": layout, "algorithm": "pointwise" if layout == "NCHW" else "im2col"}
    for activation, (function, sums, added) in finished.items():
        expected = function(sums)
        if layout == "NHWC":
            expected = np.ascontiguousarray(expected.transpose(0, 2, 3, 1))
            added = None if added is None else np.ascontiguousarray(added.transpose(0, 2, 3, 1))
        for threads in (1, 3):
            with fc.threads(threads):
                # Every second column, so that what lies between shows.
                out = poison((*expected.shape[:2], 2 * expected.shape[2], expected.shape[3]), dtype)[:, :, ::2]
                fc.conv_transpose2d(x, weight, bias, residual=added, out=out, activation=activation, **options)
                assert max_error(out, expected) <= tolerance(dtype, 2 * weight[:channels, 0].size + 2)
                assert np.isnan(out.base.reshape(*out.shape[:2], -1, 2, out.shape[3])[:, :, :, 1]).all()
                shared = np.zeros_like(expected, dtype) if added is None else added.copy()
                with_shared = None if added is None else shared
                fc.conv_transpose2d(x, weight, bias, residual=with_shared, out=shared, activation=activation, **options)
                np.testing.assert_array_equal(shared, out)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", range(len(AXES)))
def test_agrees_with_the_reference(case, dtype, layout):
    h, w = AXES[case], AXES[(case + 3) % len(AXES)]
    stride, dilation, padding, kernel, size = zip(h, w, strict=True)
    x, weight, bias = (a.astype(dtype) for a in (normal(2, 4, *size), normal(4, 3, *kernel), normal(6)))
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 2}
    plain = transposed(*(a.astype(float) for a in (x, weight, bias)), **geometry)
    residual = normal(*plain.shape).astype(dtype)
    expected = np.clip(plain + residual, 0, 6)
    terms = 2 * kernel[0] * kernel[1]
    if layout == "NHWC":
        x, residual, expected = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, residual, expected))
    options = {**geometry, "activation": "relu6", "layout": layout}
    for threads in (1, 3):
        with fc.threads(threads):
            out = poison(expected.shape, dtype)
            fc.conv_transpose2d(x, weight, bias, residual=residual, out=out, **options)
            assert max_error(out, expected) <= tolerance(dtype, terms)
            shared = residual.copy()
            fc.conv_transpose2d(x, weight, bias, residual=shared, out=shared, **options)
            np.testing.assert_array_equal(shared, out)
            plan = fc.ConvPlan(x.shape, weight, bias, transposed=True, **options)
            assert max_error(plan(x, residual=residual), expected) <= tolerance(dtype, terms)


# stride, padding, kernel, input, groups, channels per group: around the vectors and the tiles of all instruction sets.
PLANES = [
    (2, 1, 3, (5, 20), 2, 16),
    (2, 0, 2, (3, 15), 1, 17),
    (2, 1, 4, (4, 9), 2, 8),
    (2, 0, 3, (2, 1), 1, 33),
    (3, 1, 5, (3, 13), 2, 9),
    (2, 2, 5, (6, 31), 1, 31),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", PLANES, ids=str)
def test_phases_of_planes_with_many_channels(case, dtype):
    """Stored between those of their neighbours, a vector at a time; NaN are all the same, wherever they come from."""
    stride, padding, kernel, size, groups, channels = case
    x = normal(2, groups * 6, *size).astype(dtype)
    weight = normal(groups * 6, channels, kernel, kernel).astype(dtype)
    bias = normal(groups * channels).astype(dtype)
    pairs = [(number,) * 2 for number in (stride, padding, 1)]
    plain = transposed(*(a.astype(float) for a in (x, weight, bias)), *pairs, groups)
    terms, options = 6 * kernel * kernel, {"stride": stride, "padding": padding, "groups": groups}
    for algorithm in ("direct", "im2col"):
        out = poison(plain.shape, dtype)
        fc.conv_transpose2d(x, weight, bias, **options, algorithm=algorithm, out=out)
        assert max_error(out, plain) <= tolerance(dtype, terms)
        residual = normal(*plain.shape).astype(dtype)
        out = residual.copy()
        fc.conv_transpose2d(x, weight, bias, **options, algorithm=algorithm, activation="relu", residual=out, out=out)
        assert max_error(out, np.maximum(plain + residual, 0)) <= tolerance(dtype, terms)
        spoilt = x.copy()
        spoilt[0, 0, 0, 0] = -np.float64("nan")
        out = fc.conv_transpose2d(spoilt, weight, bias, **options, algorithm=algorithm)
        seen = out[np.isnan(out)]
        assert 0 < seen.size < out.size
        assert set(seen.view(f"u{seen.itemsize}")) == {np.array(np.nan, dtype).view(f"u{seen.itemsize}")[()]}


def test_what_no_tap_reaches_is_bias_and_residual():
    x, weight = np.full((1, 2, 2, 2), np.nan, np.float32), np.ones((2, 3, 1, 1), np.float32)
    bias = np.array([1, np.nan, -2], np.float32)
    y = fc.conv_transpose2d(x, weight, bias, stride=3, activation="relu")
    touched = np.zeros((4, 4), bool)
    touched[::3, ::3] = True
    assert np.isnan(y[0, :, touched]).all()
    for channel, value in enumerate((1, np.nan, 0)):
        np.testing.assert_array_equal(y[0, channel, ~touched], np.float32(value))


def test_gradients_of_a_stride_beyond_the_kernel():
    x, weight = normal(2, 3, 11, 12), normal(4, 3, 2, 1)
    grad = normal(*fc.conv2d(x, weight, stride=(5, 4)).shape)
    found = fc.grad.conv2d_input(x.shape, weight, grad, stride=(5, 4))
    expected = fc.reference.conv2d_input(x.shape, weight, grad, stride=(5, 4))
    assert max_error(found, expected) <= tolerance(found.dtype, 8)


def test_phases_of_a_kind_share_a_plan():
    """64 x 64 phases of one tap each, and on several threads a share of them each."""
    x, weight = normal(1, 1, 2, 2), normal(1, 1, 64, 64)
    for threads in (1, 3):
        with fc.threads(threads):
            y = fc.conv_transpose2d(x, weight, stride=64)
            np.testing.assert_allclose(y[0, 0], np.kron(x[0, 0], weight[0, 0]), rtol=1e-12)


def test_explaining_takes_no_time_with_the_stride():
    limited(
        """
        huge = 2**20
        fc.algorithms((1, 1, 2, 2), (1, 1, 1, 1), stride=huge, transposed=True)
        fc.algorithms((1, 1, 2), (1, 1, huge), stride=huge + 1, transposed=True)
        fc.algorithms((1, 1, 2), (1, 1, huge), stride=huge + 1, dilation=huge, transposed=True)
        fc.algorithms((1, 1, 2), (1, 1, 5), stride=3, dilation=2**40 + 1, transposed=True)
        fc.algorithms((1, 1, 2, 2, 2), (1, 1, 99, 99, 99), stride=1001, dilation=100, transposed=True)
        """
    )


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_memory_follows_the_result():
    limited(
        """
        x, w = np.ones((1, 1, 2, 2), "f4"), np.ones((1, 1, 1, 1), "f4")
        def resident():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
        fc.conv_transpose2d(x, w, stride=400)
        before = resident()
        for stride in range(500, 512):
            y = fc.conv_transpose2d(x, w, stride=stride)
            assert y.sum() == 4 and y[0, 0, -1, -1] == 1
        assert resident() - before < 16 << 10, resident() - before
        """
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_sums_of_infinities_are_one_nan(stride, layout):
    x = np.ones((1, 4, 6, 6), np.float32)
    x[0, 0, 2, 2:4] = np.inf, -np.inf
    x[0, 1:3, 4, 4] = np.inf, -np.inf
    x, w = to_layout(x, layout), np.ones((4, 3, 4, 4), np.float32)
    y = fc.conv_transpose2d(x, w, stride=stride, layout=layout)
    found = y[np.isnan(y)]
    assert found.size > 0
    assert (found.view(np.uint32) == np.float32(np.nan).view(np.uint32)).all()
