# SPDX-License-Identifier: BSD-3-Clause
"""Fully connected layers and their gradients."""

from functools import partial

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from support import max_error, numerical_gradient, poison, tolerance, whole

DTYPES = ("float32", "float64")
SIZES = (1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 120, 255, 256, 257, 700)

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def layer(rng, rows, inputs, outputs, dtype):
    """Input, weight, bias and the output's gradient. Sums are of variance 1."""
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    w = (rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(dtype)
    return x, w, rng.standard_normal(outputs).astype(dtype), rng.standard_normal((rows, outputs)).astype(dtype)


@each_dtype
def test_agrees_with_the_reference(dtype):
    rng = np.random.default_rng(0)
    for inputs in SIZES:
        for outputs in rng.choice(SIZES, 5):
            rows = int(rng.choice((1, 1, 2, 3, 13, 14, 15, 64)))
            x, w, b, _ = layer(rng, rows, inputs, outputs, dtype)
            truth = x.astype(np.float64) @ w.T.astype(np.float64) + b
            for activation, expected in ((None, truth), ("relu", reference.relu(truth))):
                result = fc.linear(x, w, b, activation=activation)
                assert result.dtype == dtype
                bound = tolerance(dtype, inputs)
                assert max_error(result, expected, 5) < bound, (rows, inputs, outputs, activation)


@each_dtype
def test_gradients_agree_with_the_reference(dtype):
    rng = np.random.default_rng(1)
    for inputs in SIZES:
        for outputs in rng.choice(SIZES, 3):
            rows = int(rng.choice((1, 2, 3, 13, 14, 15, 64, 257)))
            x, w, _, y = layer(rng, rows, inputs, outputs, dtype)
            wide = [a.astype(np.float64) for a in (x, w, y)]
            expected = wide[2] @ wide[1], wide[2].T @ wide[0], wide[2].sum(axis=0)
            for result, truth, terms in zip(fc.grad.linear(x, w, y), expected, (outputs, rows, rows), strict=True):
                assert result.dtype == dtype
                scale = max(np.abs(truth).max(), np.sqrt(terms))
                assert max_error(result, truth, scale) < tolerance(dtype, terms), (rows, inputs, outputs)


def test_differences():
    x, w, b, y = layer(np.random.default_rng(2), 4, 6, 3, np.float64)
    d_x, d_w, d_b = fc.grad.linear(x, w, y)
    difference = partial(numerical_gradient, grad_output=y, step=0.25)
    assert max_error(d_x, difference(lambda a: fc.linear(a, w, b), x)) < 1e-13
    assert max_error(d_w, difference(lambda a: fc.linear(x, a, b), w)) < 1e-13
    assert max_error(d_b, difference(lambda a: fc.linear(x, w, a), b)) < 1e-13


def test_only_what_is_asked_for():
    x, w, _, y = layer(np.random.default_rng(3), 4, 6, 3, np.float32)
    d_x, d_w, d_b = fc.grad.linear(x, w, y, bias=False, need_input=False)
    assert d_x is None
    assert d_b is None
    np.testing.assert_array_equal(d_w, fc.grad.linear(x, w, y)[1])


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,), (2, 0, 3)])
def test_any_leading_axes(shape):
    rng = np.random.default_rng(4)
    x, w, b = whole(rng, (*shape, 8)), whole(rng, (6, 8)), whole(rng, 6)
    result = fc.linear(x, w, b)
    assert result.shape == (*shape, 6)
    np.testing.assert_array_equal(result, x @ w.T + b)
    y = whole(rng, (*shape, 6))
    d_x, d_w, d_b = fc.grad.linear(x, w, y)
    assert d_x.shape == x.shape
    np.testing.assert_array_equal(d_x, y @ w)
    np.testing.assert_array_equal(d_w, y.reshape(-1, 6).T @ x.reshape(-1, 8))
    np.testing.assert_array_equal(d_b, y.reshape(-1, 6).sum(axis=0))


def test_rows_wherever_they_lie():
    rng = np.random.default_rng(5)
    x, w, b = whole(rng, (7, 33)), whole(rng, (17, 33)), whole(rng, 17)
    expected = x @ w.T + b
    spread = poison((7, 66))
    spread[:, ::2] = x
    for rows in (np.asfortranarray(x), x[::-1].copy()[::-1], spread[:, ::2], np.array(x, order="F").T.T):
        np.testing.assert_array_equal(fc.linear(rows, np.asfortranarray(w), b), expected)
    np.testing.assert_array_equal(
        fc.linear(np.broadcast_to(x[0], (5, 33)), w, b), np.broadcast_to(expected[0], (5, 17))
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_place_among_the_rows_and_threads_do_not_change_a_bit(threads):
    x, w, b, y = layer(np.random.default_rng(6), 130, 513, 300, np.float32)
    with fc.threads(1):
        expected, gradients = fc.linear(x, w, b), fc.grad.linear(x, w, y)
    with fc.threads(threads):
        np.testing.assert_array_equal(fc.linear(x, w, b), expected)
        np.testing.assert_array_equal(fc.linear(x[::-1], w, b), expected[::-1])
        np.testing.assert_array_equal(fc.linear(np.roll(x, 17, axis=0), w, b), np.roll(expected, 17, axis=0))
        for result, right in zip(fc.grad.linear(x, w, y), gradients, strict=True):
            np.testing.assert_array_equal(result, right)


def test_float16_is_computed_in_float32():
    x, w, b, _ = layer(np.random.default_rng(7), 5, 9, 4, np.float16)
    wide = fc.linear(*(a.astype(np.float32) for a in (x, w, b)))
    result = fc.linear(x, w, b)
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, wide.astype(np.float16))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 64])
def test_few_rows_read_the_weights_where_they_lie(rows, dtype, order):
    """Around the ends of vectors and of blocks, in groups, with everything that an output is finished by."""
    rng = np.random.default_rng(rows)
    for features, outputs, groups in (
        (1, 1, 1),
        (7, 3, 2),
        (16, 4, 1),
        (33, 65, 1),
        (256 * 16 + 5, 6, 2),
        (300, 70, 1),
    ):
        x = rng.standard_normal((rows, groups * features, 1, 1)).astype(dtype)
        weight = np.asarray(rng.standard_normal((groups * outputs, features, 1, 1)).astype(dtype), order=order)
        bias = rng.standard_normal(groups * outputs).astype(dtype)
        residual = rng.standard_normal((rows, groups * outputs, 1, 1)).astype(dtype)
        sums = np.einsum("ngk,gok->ngo", *(a.reshape(*s).astype(float) for a, s in (
            (x, (rows, groups, features)), (weight, (groups, outputs, features)))))  # fmt: skip
        plain = sums.reshape(residual.shape) + bias.astype(float)[:, None, None] + residual
        for activation, expected in (("relu", np.maximum(plain, 0)), ("silu", plain / (1 + np.exp(-plain)))):
            results = []
            for threads in (1, 3):
                out = poison(residual.shape, dtype)
                with fc.threads(threads):
                    fc.conv2d(x, weight, bias, groups=groups, residual=residual, activation=activation, out=out)
                results.append(out)
            assert max_error(results[0], expected) <= tolerance(dtype, features)
            np.testing.assert_array_equal(*results)


def test_what_one_weight_spoils_and_what_it_does_not():
    weight = np.ones((5, 40), np.float32)
    weight[2, 39] = np.nan
    y = fc.linear(np.ones((3, 40), np.float32), weight)
    np.testing.assert_array_equal(np.isnan(y), np.tile([False, False, True, False, False], (3, 1)))
