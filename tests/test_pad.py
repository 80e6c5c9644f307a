# SPDX-License-Identifier: BSD-3-Clause
"""Padding: against torch, gradients by differences."""

import numpy as np
import pytest

from fastconv.ops.pad import pad, pad_grad
from support import max_error, numerical_gradient

# shape, amounts, mode, value
CASES = [
    ((3, 4), (1, 2), "constant", 5.0),
    ((2, 3, 4), (0, 1, 2, 0, 1, 1), "constant", None),
    ((3, 4), (-1, 2, 1, -2), "constant", 1.0),
    ((2, 3), (), "constant", 1.0),
    ((0, 3), (1, 1), "constant", 1.0),
    ((1, 2, 4, 5), (3, 4, 2, 3), "reflect", None),
    ((1, 2, 4, 5), (-1, 4, 3, -2), "reflect", None),
    ((1, 2, 4, 5), (7, 4, 2, 3), "replicate", None),
    ((1, 2, 4, 5), (3, 5, 4, 0), "circular", None),
    ((1, 2, 4), (0, 4), "circular", None),
    ((1, 2, 4), (-1, 3), "circular", None),
    ((1, 2, 4), (1, -3), "circular", None),
    ((1, 2, 5, 4), (-1, 1, 2, -1), "circular", None),
    ((1, 2, 4), (-1, -2), "circular", None),
    ((1, 2, 3, 4, 5), (1, 2, 3, 0, 2, 1), "replicate", None),
]
BEYOND_TORCH = [((3,), (5, -5), "constant", 1.0), ((3,), (-5, 5), "constant", 1.0)]
cases = pytest.mark.parametrize(("shape", "amounts", "mode", "value"), CASES)


@cases
def test_pad_is_torchs(shape, amounts, mode, value):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = torch.nn.functional.pad(torch.from_numpy(x), amounts, mode, value).numpy()
    np.testing.assert_array_equal(pad(x, amounts, mode, value), expected)


@pytest.mark.parametrize(("shape", "amounts", "mode", "value"), CASES + BEYOND_TORCH)
def test_pad_gradient(shape, amounts, mode, value):
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape)
    g = rng.standard_normal(pad(x, amounts, mode, value).shape)
    d = pad_grad(g, shape, amounts, mode)
    numerical = numerical_gradient(lambda v: pad(v, amounts, mode, value), x, g)
    assert max_error(d, numerical) < 1e-8


@cases
def test_results_share_no_memory(shape, amounts, mode, value):
    x = np.ones(shape)
    y = pad(x, amounts, mode, value)
    assert not np.shares_memory(x, y)
    assert not np.shares_memory(y, pad_grad(y, shape, amounts, mode))


@pytest.mark.parametrize(
    ("amounts", "mode", "message"),
    [
        ((1,), "constant", "two integers per padded axis"),
        ((1, 1) * 3, "constant", "at most the 2 axes"),
        ((-2, -3), "constant", "pad removes 5 from axis 1 of length 4"),
        ((3, -2), "circular", "asks for 3 on axis 1 of length 4, of which 2 are left; .* at most 2"),
        ((4, 0), "reflect", "asks for 4 on axis 1 of length 4; .* at most 3"),
        ((0, 5), "circular", "at most 4"),
        ((1, 1), "mirror", "mode is 'mirror'"),
    ],
)
def test_errors(amounts, mode, message):
    with pytest.raises(ValueError, match=message):
        pad(np.ones((3, 4)), amounts, mode)


def test_an_input_moved_out_of_sight():
    np.testing.assert_array_equal(pad(np.arange(3), (5, -5), value=7), [7, 7, 7])
    np.testing.assert_array_equal(pad(np.arange(3), (-5, 5), value=7), [7, 7, 7])


def test_value_belongs_to_constant():
    with pytest.raises(ValueError, match=r"value is 1.0; it belongs to mode='constant'"):
        pad(np.ones(4), (1, 1), "reflect", 1.0)


def test_gradient_of_another_shape():
    with pytest.raises(ValueError, match=r"grad_output has shape \(5,\); padding \(3,\) .*\(6,\)"):
        pad_grad(np.ones(5), (3,), (1, 2))


def test_amounts_are_integers():
    for amounts in ((0.5, 1), (True, 1), ("1", 1), 1):
        with pytest.raises(TypeError, match=r"pad is .*; it needs"):
            pad(np.ones(3), amounts)
