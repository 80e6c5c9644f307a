# SPDX-License-Identifier: BSD-3-Clause
"""Activations, softmax and dropout: against the reference and torch, gradients by differences."""

import numpy as np
import pytest

import fastconv as fc
from fastconv.ops import activation as A
from fastconv.ops import dropout as D
from fastconv.ops import softmax as S
from support import max_error, numerical_gradient, same_values, tolerance

# name, further arguments, whether the gradient takes the result instead of the input
ELEMENTWISE = [
    ("relu", (), True),
    ("relu6", (), True),
    ("leaky_relu", (0.2,), False),
    ("sigmoid", (), True),
    ("tanh", (), True),
    ("silu", (), False),
    ("hardswish", (), False),
]
IN_PLACE = ("relu", "relu6", "leaky_relu", "silu", "hardswish")
elementwise = pytest.mark.parametrize(("name", "args", "from_output"), ELEMENTWISE)
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, 1e-30, -1e-30, 88.0, -88.0, 800.0, -800.0, 3.0, -3.0, 6.0]


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def off_the_kinks(rng, shape):
    """Values well away from -3, 0, 3 and 6, where some derivatives jump."""
    x = rng.uniform(-8, 8, shape)
    for kink in (-3, 0, 3, 6):
        x[np.abs(x - kink) < 1e-2] += 0.1
    return x


@elementwise
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_are_torchs(torch, rng, name, args, from_output, dtype):
    x = np.concatenate([rng.normal(0, 4, 1000), SPECIAL]).astype(np.float32).astype(dtype)
    y = getattr(A, name)(x, *args)
    assert y.dtype == dtype
    wide = torch.from_numpy(x.astype(np.float64))
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    expected = function(wide, *args).numpy()
    # Each value is within a few roundings of its own size: exp, a sum, a quotient, a product.
    same = np.isclose(y.astype(np.float64), expected, rtol=8 * np.finfo(dtype).eps, atol=1e-37)
    same |= np.isnan(expected) & np.isnan(y)
    finite = np.isfinite(expected)  # the smallest numbers of a dtype are spaced absolutely
    distance = np.abs(np.subtract(y, expected, where=finite, out=np.full(len(y), np.inf)))
    same |= distance <= 2 * np.finfo(dtype).smallest_subnormal
    assert same.all(), (x[~same], y[~same], expected[~same])


@elementwise
def test_gradient_is_the_derivative(rng, name, args, from_output):
    x = off_the_kinks(rng, (3, 4, 5))
    g = rng.standard_normal(x.shape)
    function, gradient = getattr(A, name), getattr(A, f"{name}_grad")
    d = gradient(g, function(x, *args) if from_output else x, *args)
    assert max_error(d, numerical_gradient(lambda v: function(v, *args), x, g)) < 1e-8


@elementwise
def test_gradient_is_torchs_in_float32(torch, rng, name, args, from_output):
    x = off_the_kinks(rng, (50,)).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    t = torch.from_numpy(x.copy()).requires_grad_()
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    function(t, *args).backward(torch.from_numpy(g))
    kept = getattr(A, name)(x, *args) if from_output else x
    d = getattr(A, f"{name}_grad")(g, kept, *args)
    assert d.dtype == np.float32
    assert max_error(d, t.grad.numpy()) < tolerance(np.float32, 4)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_in_place_overwrites_the_input(rng, name, dtype):
    x = rng.normal(0, 4, (3, 5)).astype(dtype)
    expected = getattr(A, name)(x)
    strided = np.zeros((3, 10), dtype)[:, ::2]
    strided[...] = x
    assert getattr(A, name)(strided, inplace=True) is strided
    np.testing.assert_array_equal(strided, expected)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_needs_a_writable_array(name):
    x = np.ones(3)
    x.flags.writeable = False
    with pytest.raises(TypeError, match="input is a read-only array"):
        getattr(A, name)(x, inplace=True)
    with pytest.raises(TypeError, match="input is list"):
        getattr(A, name)([1.0], inplace=True)


@elementwise
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_any_shape(name, args, from_output, shape):
    x = np.full(shape, 0.5, np.float32)
    y = getattr(A, name)(x, *args)
    assert (np.shape(y), y.dtype) == (shape, np.float32)
    assert np.shape(getattr(A, f"{name}_grad")(y, y, *args)) == shape


@elementwise
@pytest.mark.parametrize("wrong", [np.arange(3), np.ones(2, np.complex64), ["a"]])
def test_wrong_dtype(name, args, from_output, wrong):
    with pytest.raises(TypeError, match=r"input has dtype .*float32"):
        getattr(A, name)(wrong, *args)


def test_gradient_must_match():
    with pytest.raises(ValueError, match=r"grad_output has shape \(2,\).*\(3,\)"):
        A.relu_grad(np.ones(2), np.ones(3))
    with pytest.raises(TypeError, match=r"grad_output has dtype float64.*float32"):
        A.relu_grad(np.ones(3), np.ones(3, np.float32))


def test_relu_gradient_does_not_multiply_by_zero():
    np.testing.assert_array_equal(A.relu_grad(np.array([np.inf, np.nan]), np.zeros(2)), 0)


@pytest.mark.parametrize("name", ["sigmoid", "silu", "hardswish"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neither_order_nor_threads_change_a_bit(rng, name, dtype):
    function = getattr(A, name)
    for shape in ((3, 5, 7), (1, 4097), (75, 4096)):
        x = rng.normal(0, 4, shape).astype(dtype)
        with fc.threads(1):
            expected = function(x)
        for kind, same in same_values(x):
            for threads in (1, 2, 3):
                with fc.threads(threads):
                    y = function(same)
                assert y.flags.writeable
                np.testing.assert_array_equal(y, expected, err_msg=f"{kind}, {threads} threads")
        if name != "sigmoid":
            fortran = np.asfortranarray(x)
            assert function(fortran, inplace=True) is fortran
            np.testing.assert_array_equal(fortran, expected)


def test_the_smallest_results_are_kept():
    x = np.linspace(-104, -87, 1000, dtype=np.float32)  # the sigmoid is below the normal numbers
    wide = x.astype(np.float64)
    spacing = float(np.finfo(np.float32).smallest_subnormal)
    for function in (A.sigmoid, A.silu):
        np.testing.assert_allclose(function(x), function(wide), rtol=1e-6, atol=spacing)


# --- softmax --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "dim"), [((5,), 0), ((4, 7), 1), ((4, 7), 0), ((2, 3, 4, 5), -3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_softmax_is_torchs(torch, rng, name, shape, dim, dtype):
    x = (100 * rng.standard_normal(shape)).astype(dtype)
    expected = getattr(torch, name)(torch.from_numpy(x.astype(np.float64)), dim).numpy()
    y = getattr(S, name)(x, dim)
    assert y.dtype == dtype
    assert max_error(y, expected) < tolerance(dtype, x.shape[dim])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_softmax_gradient(rng, name, dim):
    x, g = rng.standard_normal((2, 3, 4, 5))
    function, gradient = getattr(S, name), getattr(S, f"{name}_grad")
    d = gradient(g, function(x, dim), dim)
    assert max_error(d, numerical_gradient(lambda v: function(v, dim), x, g)) < 1e-8


def test_softmax_of_infinities():
    inf = np.inf
    x = np.array([[0.0, -inf, 0.0], [-inf, -inf, -inf], [inf, 0.0, 0.0], [np.nan, 0.0, 0.0]])
    y = S.softmax(x, 1)
    np.testing.assert_array_equal(y[0], [0.5, 0, 0.5])
    assert np.isnan(y[1:]).any(axis=1).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_arguments(name):
    function = getattr(S, name)
    with pytest.raises(ValueError, match="dim is 2; it needs to be an integer from -2 to 1"):
        function(np.ones((2, 2)), 2)
    with pytest.warns(UserWarning, match="pass dim"):
        np.testing.assert_allclose(np.exp(S.log_softmax(np.zeros((1, 4)))), 0.25)
    assert function(np.arange(3), 0, dtype=np.float32).dtype == np.float32
    assert function(np.zeros((3, 0, 2)), 1).shape == (3, 0, 2)
    assert np.shape(function(np.float32(2.0), 0)) == ()


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_clears_and_scales():
    x = np.random.default_rng(1).uniform(1, 2, (100, 100))
    y = D.dropout(x, 0.25, rng=3)
    cleared = y == 0
    # A binomial count: six standard deviations around its mean.
    assert abs(cleared.sum() - 2500) < 6 * np.sqrt(10_000 * 0.25 * 0.75)
    np.testing.assert_allclose(y[~cleared], x[~cleared] / 0.75, rtol=1e-15)


def test_dropout_randomness():
    x = np.ones(200, np.float32)
    np.testing.assert_array_equal(D.dropout(x, rng=5), D.dropout(x, rng=5))
    rng = np.random.default_rng(5)
    first, second = D.dropout(x, rng=rng), D.dropout(x, rng=rng)
    np.testing.assert_array_equal(first, D.dropout(x, rng=5))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first != 0, D.dropout_mask(x.shape, 0.5, rng=5))


def test_dropout_ends_of_the_range(rng):
    x = rng.standard_normal((4, 4)).astype(np.float32)
    np.testing.assert_array_equal(D.dropout(x, 0.0), x)
    np.testing.assert_array_equal(D.dropout(x, 1.0), np.zeros_like(x))
    assert D.dropout(x, 0.9, training=False) is x
    for p in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="p is"):
            D.dropout(x, p)


def test_dropout_gradient(rng):
    x, g = rng.standard_normal((2, 6, 6))
    mask = D.dropout_mask(x.shape, 0.3, rng=9)
    d = D.dropout_grad(g, mask, 0.3)
    assert max_error(d, numerical_gradient(lambda v: D.dropout(v, 0.3, rng=9), x, g)) < 1e-8
    with pytest.raises(ValueError, match="mask has shape"):
        D.dropout_grad(g, mask[:3], 0.3)


def test_dropout_in_place(rng):
    x = rng.standard_normal((4, 4)).astype(np.float32)
    expected = D.dropout(x, rng=2)
    assert D.dropout(x, inplace=True, rng=2) is x
    np.testing.assert_array_equal(x, expected)
