# SPDX-License-Identifier: BSD-3-Clause
"""Batch and local response normalisation: against torch, gradients by differences."""

import functools
import itertools

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from fastconv.ops import norm as N
from support import max_error, numerical_gradient, same_values, tolerance

SHAPES = [(7, 4), (6, 4, 5), (3, 4, 5, 6), (2, 4, 3, 2, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"rank{len(shape)}")
both_modes = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])


@pytest.fixture
def rng():
    return np.random.default_rng(21)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def statistics(rng, channels, dtype=np.float64):
    """running_mean, running_var, weight, bias."""
    return (
        rng.standard_normal(channels).astype(dtype),
        rng.uniform(0.5, 2, channels).astype(dtype),
        rng.standard_normal(channels).astype(dtype),
        rng.standard_normal(channels).astype(dtype),
    )


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@shapes
@both_modes
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_is_torchs(torch, rng, shape, training, dtype):
    x = (3 + 2 * rng.standard_normal(shape)).astype(dtype)
    arrays = statistics(rng, shape[1], dtype)
    tensors = [torch.from_numpy(a.copy()) for a in (x, *arrays)]
    expected = torch.nn.functional.batch_norm(*tensors, training, 0.3, 1e-3).numpy()
    y = N.batch_norm(x, *arrays, training, 0.3, 1e-3)
    bound = tolerance(dtype, x.size // shape[1])
    assert y.dtype == dtype
    assert max_error(y, expected) < bound
    for ours, theirs in zip(arrays, tensors[1:], strict=True):  # the running statistics moved
        assert max_error(ours, theirs.numpy()) < bound


@shapes
@both_modes
def test_batch_norm_channels_last(rng, shape, training):
    x, g = rng.standard_normal((2, *shape))
    arrays = statistics(rng, shape[1])
    moved = [a.copy() for a in arrays]
    expected = N.batch_norm(x, *arrays, training)
    y = N.batch_norm(channels_last(x), *moved, training, layout="NHWC")
    assert max_error(y, channels_last(expected)) < tolerance(np.float64, x.size)
    for a, b in zip(arrays, moved, strict=True):
        assert max_error(a, b) < tolerance(np.float64, x.size)
    mean, var, weight, _ = arrays
    expected = N.batch_norm_grad(g, x, weight, mean, var, training)
    actual = N.batch_norm_grad(channels_last(g), channels_last(x), weight, mean, var, training, layout="NHWC")
    assert max_error(actual[0], channels_last(expected[0])) < tolerance(np.float64, x.size)
    for a, b in zip(actual[1:], expected[1:], strict=True):
        assert max_error(a, b) < tolerance(np.float64, x.size)


@shapes
@both_modes
def test_batch_norm_gradient(rng, shape, training):
    x, g = rng.standard_normal((2, *shape))
    mean, var, weight, bias = statistics(rng, shape[1])

    def forward(x, weight, bias):
        return N.batch_norm(x, mean.copy(), var.copy(), weight, bias, training)

    d_input, d_weight, d_bias = N.batch_norm_grad(g, x, weight, mean, var, training)
    numerical = numerical_gradient(lambda v: forward(v, weight, bias), x, g)
    assert max_error(d_input, numerical) < 1e-7
    assert max_error(d_weight, numerical_gradient(lambda v: forward(x, v, bias), weight, g)) < 1e-7
    assert max_error(d_bias, numerical_gradient(lambda v: forward(x, weight, v), bias, g)) < 1e-7
    skipped = N.batch_norm_grad(g, x, weight, mean, var, training, need_input=False)
    assert skipped[0] is None
    np.testing.assert_array_equal(skipped[1], d_weight)


def test_batch_norm_without_scale_or_statistics(rng):
    x, g = rng.standard_normal((2, 5, 3, 4)).astype(np.float32)
    y = N.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(y.mean(axis=(0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=(0, 2)), 1, rtol=1e-4)
    d_input, d_weight, d_bias = N.batch_norm_grad(g, x, training=True)
    assert (d_input.dtype, d_weight.dtype, d_bias.dtype) == (np.float32,) * 3


def test_batch_norm_of_a_large_mean(rng):
    """The variance comes from centred values: a mean a thousand deviations away does not hurt."""
    x = 1000 + rng.standard_normal((64, 2, 9)).astype(np.float32)
    y = N.batch_norm(x, None, None, training=True, eps=0.0)
    wide = x.astype(np.float64)
    exact = (wide - wide.mean((0, 2), keepdims=True)) / wide.std((0, 2), keepdims=True)
    # float32 resolves the mean of 1000 to 6e-5 of a deviation; nothing else may show.
    assert np.abs(y - exact).max() < 1e-4


def test_batch_norm_in_float16(rng):
    x = rng.standard_normal((4, 3, 5)).astype(np.float16)
    y = N.batch_norm(x, None, None, training=True)
    assert y.dtype == np.float16
    expected = N.batch_norm(x.astype(np.float64), None, None, training=True)
    assert max_error(y, expected) < tolerance(np.float16)


# Around vectors, pairs of them, chunks and blocks: few channels of many numbers, and the other way round.
LARGE = [(5, 3, 31, 33), (2, 3, 130, 140), (3, 70, 9, 9), (40, 129, 2, 3), (17, 1025), (3, 33, 1, 700), (2, 1, 40000)]
BOUNDS = [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0)]


def placed(rng, shape, last, dtype):
    """Numbers with channels behind or before the rest, axes in torch's order."""
    x = (5 + 2 * rng.standard_normal(shape)).astype(dtype)
    return np.moveaxis(channels_last(x), -1, 1) if last else x


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("last", [(False, False), (True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_with_a_clamp_behind_it(rng, shape, bounds, last, dtype):
    """Against the formulas in float64, the clamp's own gradient taken from the result."""
    x, g = (placed(rng, shape, behind, dtype) for behind in last)
    _, _, weight, bias = statistics(rng, shape[1], dtype)
    y, kept = N.batch_norm_training(x, None, None, weight, bias, 0.1, 1e-5, "NCHW", bounds)
    assert y.dtype == dtype
    wide, axes, to = x.astype(np.float64), (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    rsigma = 1 / np.sqrt(wide.var(axes) + 1e-5)
    h = (wide - wide.mean(axes, keepdims=True)) * rsigma.reshape(to)
    plain = h * weight.reshape(to) + bias.reshape(to)
    count = x.size // shape[1]
    bound = tolerance(dtype, 4 * count + 20)  # of numbers up to five deviations from zero
    assert max_error(y, np.clip(plain, *bounds)) < bound
    through = g * ((y > bounds[0]) & (y < bounds[1]))  # rounding may have moved a number to the bound
    d_bias, d_weight = through.sum(axes, dtype=np.float64), (through * h).sum(axes)
    share = (d_bias.reshape(to) + h * d_weight.reshape(to)) / count
    d_input = (weight * rsigma).reshape(to) * (through - share)
    actual = N.batch_norm_back(g, kept)
    scale = np.abs(g * h).sum(axes, dtype=np.float64)
    assert max_error(actual[0], d_input) < bound
    assert max_error(actual[1], d_weight, scale) < bound
    assert max_error(actual[2], d_bias, scale) < bound


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_the_bits_of_batch_norm_do_not_depend_on_threads(rng, shape, last):
    x, g = (placed(rng, shape, last, np.float32) for _ in range(2))
    results = []
    for threads in (1, 2, 3):
        with fc.threads(threads):
            y, kept = N.batch_norm_training(x, None, None, None, None, 0.1, 1e-5, "NCHW", (0.0, np.inf))
            results.append((y, *N.batch_norm_back(g, kept)))
    for others in results[1:]:
        for ours, theirs in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_moments_do_not_cancel(rng, last, dtype):
    """Where deviations are a millionth of the mean, sums of squares have lost all digits that tell of them."""
    deviation = 1e2 * np.finfo(dtype).eps
    x = placed(rng, (3, 5, 90, 95), last, np.float64)
    x = (1 + deviation * (x - 5)).astype(dtype)
    mean, var = N._statistics(x, 1, x.size // 5)
    wide = x.astype(np.float64).transpose(1, 0, 2, 3).reshape(5, -1)
    np.testing.assert_allclose(mean, wide.mean(1), rtol=4 * np.finfo(dtype).eps)
    exact = (wide - wide.mean(1, keepdims=True)) ** 2
    np.testing.assert_allclose(var, exact.mean(1), rtol=1e-3)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0)])
def test_batch_norm_of_nothing(rng, shape, training):
    mean, var, weight, bias = statistics(rng, 3)
    kept = mean.copy(), var.copy()
    x = np.zeros(shape)
    assert N.batch_norm(x, mean, var, weight, bias, training).shape == shape
    np.testing.assert_array_equal((mean, var), kept)
    d_input, d_weight, d_bias = N.batch_norm_grad(x, x, weight, mean, var, training)
    assert d_input.shape == shape
    np.testing.assert_array_equal((d_weight, d_bias), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": np.ones(3)}, r"input has shape \(3,\); it needs 2 to 5 axes"),
        ({"input": np.ones((1, 3)), "training": True}, "each channel needs at least two values"),
        ({"running_mean": None}, "running_mean is None"),
        ({"running_var": np.ones(4)}, r"running_var has shape \(4,\).*\(3,\)"),
        ({"weight": np.ones((3, 1))}, r"weight has shape \(3, 1\)"),
        ({"bias": np.ones(1)}, r"bias has shape \(1,\)"),
        ({"layout": "HWC"}, "layout is 'HWC'"),
    ],
)
def test_batch_norm_errors(change, message):
    arguments = {
        "input": np.ones((2, 3)),
        "running_mean": np.zeros(3),
        "running_var": np.ones(3),
        "weight": np.ones(3),
        "bias": np.ones(3),
    }
    with pytest.raises(ValueError, match=message):
        N.batch_norm(**(arguments | change))


def test_batch_norm_updates_both_statistics_or_none():
    mean, frozen = np.zeros(3), np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match="running_var must be a writable"):
        N.batch_norm(np.random.default_rng(0).random((4, 3)), mean, frozen, training=True)
    np.testing.assert_array_equal(mean, 0)


# --- local response normalisation -----------------------------------------------------------------

LRN = [
    (1, 1e-4, 0.75, 1.0),
    (2, 0.1, 0.75, 1.0),
    (5, 0.5, 0.5, 2.0),
    (4, 1.0, 1.0, 0.5),
    (11, 1, 2, 1),
]


@pytest.mark.parametrize("arguments", LRN, ids=lambda a: f"size{a[0]}")
@pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: f"rank{len(shape)}")
def test_lrn_is_torchs(torch, rng, arguments, shape):
    x = rng.standard_normal((shape[0], 6, *shape[2:])).astype(np.float32)
    wide = torch.from_numpy(x.astype(np.float64))
    expected = torch.nn.functional.local_response_norm(wide, *arguments).numpy()
    y = N.local_response_norm(x, *arguments)
    assert y.dtype == np.float32
    assert max_error(y, expected) < tolerance(np.float32, arguments[0] + 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("arguments", LRN, ids=lambda a: f"size{a[0]}")
def test_lrn_around_every_vector(rng, arguments, dtype):
    """Against the reference: channels and pixels around tails, in any layout, strided views, what is not finite."""
    for channels, pixels in [(1, 3), (3, 1), (7, 19), (16, 64), (17, 70), (96, 33), (300, 5)]:
        x = rng.standard_normal((2, channels, 1, pixels)).astype(dtype)
        right = reference.local_response_norm(x.astype(np.float64), *arguments)
        bound = tolerance(dtype, arguments[0] + 8)
        for way, array in same_values(x):
            assert max_error(N.local_response_norm(array, *arguments), right) < bound, way
        last = N.local_response_norm(channels_last(x), *arguments, layout="NHWC")
        assert max_error(last, channels_last(right)) < bound
        spread = np.zeros((2, 1, pixels, 2 * channels), dtype)[..., ::2]
        spread[...] = channels_last(x)
        assert max_error(N.local_response_norm(spread, *arguments, layout="NHWC"), channels_last(right)) < bound
        with fc.threads(3):
            np.testing.assert_array_equal(N.local_response_norm(channels_last(x), *arguments, layout="NHWC"), last)
        x[0, 0, 0, 0], x[1, -1, 0, -1] = np.nan, np.inf
        with np.errstate(all="ignore"):
            right = reference.local_response_norm(x.astype(np.float64), *arguments)
        for y in (
            N.local_response_norm(x, *arguments),
            N.local_response_norm(channels_last(x), *arguments, layout="NHWC"),
        ):
            y = y if y.shape == x.shape else np.moveaxis(y, -1, 1)
            np.testing.assert_array_equal(np.isnan(y), np.isnan(right))


@pytest.mark.parametrize("arguments", LRN, ids=lambda a: f"size{a[0]}")
def test_lrn_gradient(rng, arguments):
    x, g = rng.standard_normal((2, 2, 6, 3))
    d = N.local_response_norm_grad(g, x, *arguments)
    numerical = numerical_gradient(lambda v: N.local_response_norm(v, *arguments), x, g)
    assert max_error(d, numerical) < 1e-7


def lrn_gradient(g, x, size, alpha, beta, k):
    """Of (n, channels, ...), in float64: the formula of the docstring, by a matrix of who is in whose window."""
    g, x, channels = g.astype(np.float64), x.astype(np.float64), np.arange(x.shape[1])
    ahead = channels[None, :] - channels[:, None]
    window = ((-(size // 2) <= ahead) & (ahead <= (size - 1) // 2)).astype(np.float64)
    s = k + alpha / size * np.einsum("cj,nj...->nc...", window, x * x)
    sums = np.einsum("cj,nc...->nj...", window, g * x * s ** (-beta - 1))
    return g * s**-beta - 2 * alpha * beta / size * x * sums


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("arguments", LRN, ids=lambda a: f"size{a[0]}")
def test_lrn_gradient_around_every_vector(rng, arguments, dtype):
    for channels, pixels in [(1, 3), (3, 1), (7, 19), (16, 64), (17, 70), (96, 33), (300, 5)]:
        x, g = rng.standard_normal((2, 2, channels, 1, pixels)).astype(dtype)
        right = lrn_gradient(g, x, *arguments)
        bound = tolerance(dtype, 2 * arguments[0] + 12)
        for (way, array), (_, grad) in itertools.product(same_values(x), same_values(g)):
            assert max_error(N.local_response_norm_grad(grad, array, *arguments), right) < bound, way
        last = N.local_response_norm_grad(channels_last(g), channels_last(x), *arguments, layout="NHWC")
        assert max_error(last, channels_last(right)) < bound
        first = N.local_response_norm_grad(g, x, *arguments)
        with fc.threads(3):
            np.testing.assert_array_equal(N.local_response_norm_grad(g, x, *arguments), first)
            again = N.local_response_norm_grad(channels_last(g), channels_last(x), *arguments, layout="NHWC")
            np.testing.assert_array_equal(again, last)


def test_lrn_gradient_of_what_is_not_finite(rng):
    """Reaches as far as its window does."""
    for layout in ("NCHW", "NHWC"):
        x, g = rng.standard_normal((2, 1, 20, 1, 9))
        g[0, 10, 0, 4] = np.nan
        turned = (lambda a: a) if layout == "NCHW" else channels_last
        d = N.local_response_norm_grad(turned(g), turned(x), 5, layout=layout)
        expected = np.zeros(x.shape, bool)
        expected[0, 8:13, 0, 4] = True
        np.testing.assert_array_equal(np.isnan(d), turned(expected))


def test_lrn_channels_last(rng):
    x, g = rng.standard_normal((2, 2, 6, 3, 4))
    y = N.local_response_norm(channels_last(x), 4, layout="NHWC")
    np.testing.assert_array_equal(y, channels_last(N.local_response_norm(x, 4)))
    d = N.local_response_norm_grad(channels_last(g), channels_last(x), 4, layout="NHWC")
    np.testing.assert_array_equal(d, channels_last(N.local_response_norm_grad(g, x, 4)))


def test_lrn_errors():
    with pytest.raises(ValueError, match="size is 0"):
        N.local_response_norm(np.ones((1, 2, 3)), 0)
    with pytest.raises(ValueError, match="at least 3 axes"):
        N.local_response_norm(np.ones((2, 3)), 2)


# --- layer, group and instance normalisation ------------------------------------------------------


def affine(rng, shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "over"), [((5,), 5), ((3, 70), 70), ((2, 3, 4, 5), (4, 5)), ((2, 1, 6), (2, 1, 6))])
def test_layer_norm_is_torchs(torch, rng, shape, over, dtype):
    x = (3 + 2 * rng.standard_normal(shape)).astype(dtype)
    own = (over,) if isinstance(over, int) else over
    weight, bias = affine(rng, own, dtype)
    for parameters in ((None, None), (weight, None), (None, bias), (weight, bias)):
        tensors = [None if a is None else torch.from_numpy(a) for a in parameters]
        expected = torch.nn.functional.layer_norm(torch.from_numpy(x), own, *tensors, 1e-3).numpy()
        y = fc.layer_norm(x, over, *parameters, 1e-3)
        assert y.dtype == dtype
        assert max_error(y, expected) < tolerance(dtype, x.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 2, 4])
@shapes
def test_group_norm_is_torchs(torch, rng, shape, groups, dtype):
    channels = 4 if len(shape) > 2 else 40  # two numbers that are nearly the same would make much of rounding errors
    x = (3 + 2 * rng.standard_normal((shape[0], channels, *shape[2:]))).astype(dtype)
    weight, bias = affine(rng, channels, dtype)
    tensors = [torch.from_numpy(a) for a in (x, weight, bias)]
    expected = torch.nn.functional.group_norm(tensors[0], groups, *tensors[1:], 1e-3).numpy()
    bound = tolerance(dtype, x.size)
    assert max_error(fc.group_norm(x, groups, weight, bias, 1e-3), expected) < bound
    last = fc.group_norm(channels_last(x), groups, weight, bias, 1e-3, layout="NHWC")
    assert max_error(last, channels_last(expected)) < bound
    plain = torch.nn.functional.group_norm(tensors[0], groups).numpy()
    assert max_error(fc.group_norm(x, groups), plain) < bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: f"rank{len(shape)}")
def test_instance_norm_is_torchs(torch, rng, shape, of_input, dtype):
    x = (3 + 2 * rng.standard_normal(shape)).astype(dtype)
    arrays = statistics(rng, shape[1], dtype)
    last = [a.copy() for a in arrays]
    tensors = [torch.from_numpy(a.copy()) for a in (x, *arrays)]
    expected = torch.nn.functional.instance_norm(*tensors, of_input, 0.3, 1e-3).numpy()
    bound = tolerance(dtype, x.size)
    assert max_error(fc.instance_norm(x, *arrays, of_input, 0.3, 1e-3), expected) < bound
    y = fc.instance_norm(channels_last(x), *last, of_input, 0.3, 1e-3, layout="NHWC")
    assert max_error(y, channels_last(expected)) < bound
    for ours, theirs, other in zip(arrays, tensors[1:], last, strict=True):
        assert max_error(ours, theirs.numpy()) < bound
        assert max_error(other, theirs.numpy()) < bound


FORMS = {
    "layer": (
        lambda x, w, b: fc.layer_norm(x, (4, 3), w, b),
        lambda g, x, w: fc.grad.layer_norm(g, x, (4, 3), w),
        (4, 3),
    ),
    "group": (lambda x, w, b: fc.group_norm(x, 2, w, b), lambda g, x, w: fc.grad.group_norm(g, x, 2, w), (4,)),
    "groups last": (
        lambda x, w, b: fc.group_norm(x, 3, w, b, layout="NWC"),
        lambda g, x, w: fc.grad.group_norm(g, x, 3, w, layout="NWC"),
        (3,),
    ),
    "instance": (lambda x, w, b: fc.instance_norm(x, None, None, w, b), fc.grad.instance_norm, (4,)),
}


@pytest.mark.parametrize(("forward", "backward", "own"), FORMS.values(), ids=FORMS)
def test_gradients_of_layer_group_and_instance_norm(rng, forward, backward, own):
    x, g = rng.standard_normal((2, 2, 4, 3)) * 2
    weight, bias = affine(rng, own)
    if forward is FORMS["groups last"][0]:
        x, g = np.concatenate([x, x[:, :, ::-1]], 2)[..., :6], np.concatenate([g, g], 2)
        weight, bias = affine(rng, 6)
    d_input, d_weight, d_bias = backward(g, x, weight)
    assert max_error(d_input, numerical_gradient(lambda v: forward(v, weight, bias), x, g)) < 1e-7
    assert max_error(d_weight, numerical_gradient(lambda v: forward(x, v, bias), weight, g)) < 1e-7
    assert max_error(d_bias, numerical_gradient(lambda v: forward(x, weight, v), bias, g)) < 1e-7
    plain = backward(g, x, None)[0]
    assert max_error(plain, numerical_gradient(lambda v: forward(v, None, None), x, g)) < 1e-7


def test_layer_group_and_instance_norm_of_nothing():
    assert fc.layer_norm(np.zeros((0, 4)), 4).shape == (0, 4)
    assert fc.group_norm(np.zeros((0, 4, 3)), 2).shape == (0, 4, 3)
    assert fc.group_norm(np.zeros((2, 4, 0)), 2).shape == (2, 4, 0)
    assert fc.instance_norm(np.zeros((0, 4, 3)), np.zeros(4), np.ones(4)).shape == (0, 4, 3)
    d_input, d_weight, _ = fc.grad.group_norm(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)), 2)
    assert d_input.shape == (0, 4, 3)
    np.testing.assert_array_equal(d_weight, np.zeros(4))


def test_layer_group_and_instance_norm_in_float16(rng):
    x = rng.standard_normal((4, 6, 5)).astype(np.float16)
    for norm in (lambda x: fc.layer_norm(x, 5), lambda x: fc.group_norm(x, 3), fc.instance_norm):
        y = norm(x)
        assert y.dtype == np.float16
        assert max_error(y, norm(x.astype(np.float64))) < tolerance(np.float16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: fc.layer_norm(x, 5),
            r"input has shape \(2, 4, 3\); with normalized_shape \(5,\) it needs \(\.\.\., 5,\)",
        ),
        (lambda x: fc.layer_norm(x, (1, 2, 4, 3)), r"with normalized_shape \(1, 2, 4, 3\)"),
        (lambda x: fc.layer_norm(x, ()), r"normalized_shape is \(\)"),
        (lambda x: fc.layer_norm(x, 3, np.ones(4)), r"weight has shape \(4,\); it needs \(3,\)"),
        (lambda x: fc.group_norm(x, 3), "num_groups is 3; it needs to divide the 4 channels"),
        (lambda x: fc.group_norm(x, 2, None, np.ones(2)), r"bias has shape \(2,\); it needs \(4,\)"),
        (lambda x: fc.group_norm(x[0, 0], 1), "needs 2 to 5 axes"),
        (lambda x: fc.instance_norm(x[0]), "needs 3 to 5 axes"),
        (lambda x: fc.instance_norm(x[..., :1]), "each channel of an image needs at least two values"),
        (lambda x: fc.instance_norm(x, use_input_stats=False), "running_mean is None"),
        (lambda x: fc.instance_norm(x, np.zeros(3), np.ones(3)), r"running_mean has shape \(3,\)"),
        (lambda x: fc.grad.layer_norm(x[:1], x, 3), "grad_output has shape"),
        (lambda x: fc.grad.group_norm(x, x, 2, layout="HWC"), "layout is 'HWC'"),
    ],
)
def test_layer_group_and_instance_norm_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((2, 4, 3)))


@pytest.mark.parametrize(
    "wrong", [{"eps": 10**400}, {"momentum": 10**400}, {"weight": np.ones(3)}], ids=lambda wrong: next(iter(wrong))
)
@pytest.mark.parametrize("norm", [functools.partial(fc.batch_norm, training=True), fc.instance_norm])
def test_what_is_refused_moves_no_running_statistic(norm, wrong):
    mean, var = np.zeros(4), np.ones(4)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        norm(np.arange(24.0).reshape(2, 4, 3), mean, var, **wrong)
    assert not mean.any()
    assert (var == 1).all()
