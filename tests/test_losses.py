# SPDX-License-Identifier: BSD-3-Clause
"""Losses: against torch, gradients by differences."""

from itertools import product

import numpy as np
import pytest

import fastconv as fc
from fastconv.ops import loss as L
from support import max_error, numerical_gradient, tolerance

REDUCTIONS = ("mean", "sum", "none")
OPTIONS = list(product(REDUCTIONS, (False, True), (0.0, 0.1, 1.0)))
options = pytest.mark.parametrize(("reduction", "weighted", "smoothing"), OPTIONS)


@pytest.fixture
def rng():
    return np.random.default_rng(22)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def indices(rng, shape):
    """Class indices, a few of which are to be ignored."""
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    target[0] = 2
    return target


def probabilities(rng, shape):
    p = rng.random(shape)
    return p / p.sum(axis=1, keepdims=True)


@options
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 2, 3)])
@pytest.mark.parametrize("kind", [indices, probabilities])
def test_cross_entropy_and_gradient_are_torchs(torch, rng, kind, shape, reduction, weighted, smoothing):
    x = rng.standard_normal(shape)
    target = kind(rng, shape)
    weight = rng.uniform(0.5, 2, shape[1]) if weighted else None
    own = {"ignore_index": 2, "reduction": reduction, "label_smoothing": smoothing}
    theirs = dict(own)
    if kind is probabilities:
        del theirs["ignore_index"]
    t = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        t, torch.from_numpy(target), torch.from_numpy(weight) if weighted else None, **theirs
    )
    g = rng.standard_normal(tuple(expected.shape))
    expected.backward(torch.as_tensor(g))
    y = L.cross_entropy(x, target, weight, **own)
    assert max_error(y, expected.detach().numpy()) < tolerance(np.float64, x.size)
    d = L.cross_entropy_grad(g, x, target, weight, **own)
    assert max_error(d, t.grad.numpy()) < tolerance(np.float64, x.size)


@options
def test_cross_entropy_gradient_by_differences(rng, reduction, weighted, smoothing):
    x = rng.standard_normal((4, 3, 2))
    target = indices(rng, x.shape)
    weight = rng.uniform(0.5, 2, 3) if weighted else None
    settings = {"ignore_index": 2, "reduction": reduction, "label_smoothing": smoothing}

    def forward(v):
        return L.cross_entropy(v, target, weight, **settings)

    g = rng.standard_normal(np.shape(forward(x)))
    d = L.cross_entropy_grad(g, x, target, weight, **settings)
    assert max_error(d, numerical_gradient(forward, x, g)) < 1e-7


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_cross_entropy_dtypes(rng, dtype):
    x, target = (10 * rng.standard_normal((8, 10))).astype(dtype), rng.integers(0, 10, 8)
    loss = L.cross_entropy(x, target)
    assert loss.dtype == dtype
    assert np.shape(loss) == ()
    wide = x.astype(np.float64)
    exact = np.mean(np.log(np.exp(wide).sum(1)) - wide[np.arange(8), target])
    assert abs(loss - exact) < tolerance(dtype, 10) * exact
    assert L.cross_entropy_grad(1.0, x, target).dtype == dtype
    assert L.cross_entropy(x, target, reduction="none").dtype == dtype


def test_cross_entropy_of_one_sample(rng):
    x = rng.standard_normal(5)
    assert L.cross_entropy(x, 3) == pytest.approx(L.cross_entropy(x[None], [3]), rel=1e-14)
    np.testing.assert_allclose(L.cross_entropy_grad(1.0, x, 3), L.cross_entropy_grad(1.0, x[None], [3])[0], rtol=1e-14)


def test_cross_entropy_does_not_overflow():
    x = np.array([[1e4, 0.0, -1e4], [0.0, -np.inf, 0.0]], np.float32)
    np.testing.assert_allclose(L.cross_entropy(x, np.array([1, 0]), reduction="none"), [1e4, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(
        L.cross_entropy_grad(1.0, x, np.array([1, 0]), reduction="sum"),
        [[1, -1, 0], [-0.5, 0, 0.5]],
        rtol=1e-6,
    )


def test_a_mean_of_nothing_is_nan_and_moves_nothing(rng):
    x = rng.standard_normal((2, 3))
    none = np.array([-100, -100])
    assert np.isnan(L.cross_entropy(x, none))
    assert L.cross_entropy(x, none, reduction="sum") == 0
    np.testing.assert_array_equal(L.cross_entropy_grad(1.0, x, none), np.zeros_like(x))
    # The same where every label has weight 0; torch makes NaN of this.
    for smoothing in (0.0, 0.1):
        y, weight, x[0, 0] = np.array([1, 1]), np.array([1.0, 0.0, 2.0]), np.nan
        assert np.isnan(L.cross_entropy(x, y, weight, label_smoothing=smoothing))
        np.testing.assert_array_equal(
            L.cross_entropy_grad(1.0, x, y, weight, label_smoothing=smoothing), np.zeros_like(x)
        )


@options
@pytest.mark.parametrize("share", [0.3, 1.0], ids=["some", "all"])
@pytest.mark.parametrize("shape", [(9, 5), (4, 3, 2, 3), (2, 4, 1, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ignored_rows_count_for_nothing(torch, rng, dtype, shape, share, reduction, weighted, smoothing):
    """As torch where scores are finite; and scores of ignored rows may be anything, which in torch they may not."""
    x = rng.standard_normal(shape).astype(dtype)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    ignored = rng.random(target.shape) < share
    ignored.flat[0] = True
    target[ignored] = 255
    weight = rng.uniform(0.5, 2, shape[1]).astype(dtype) if weighted else None
    if weighted:
        weight[1] = 0
    settings = {"ignore_index": 255, "reduction": reduction, "label_smoothing": smoothing}
    wide = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        wide, torch.from_numpy(target), torch.from_numpy(weight.astype(np.float64)) if weighted else None, **settings
    )
    g = rng.standard_normal(tuple(expected.shape))
    expected.backward(torch.as_tensor(g))
    bound = tolerance(dtype, x.size)
    for poison in (None, np.nan, np.inf, -np.inf):
        if poison is not None:
            np.moveaxis(x, 1, -1)[ignored] = poison
        assert max_error(L.cross_entropy(x, target, weight, **settings), expected.detach().numpy()) < bound
        if reduction == "none":
            g[ignored] = np.nan
        d = L.cross_entropy_grad(g, x, target, weight, **settings)
        assert max_error(d, wide.grad.numpy()) < bound
        assert not np.moveaxis(d, 1, -1)[ignored].any()
    assert np.isnan(L.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": np.array([0, 3])}, ValueError, "target holds 3; class indices go from 0 to 2"),
        ({"target": np.array([-1, 0])}, ValueError, "target holds -1"),
        ({"target": np.array([0, 2**64 - 100], np.uint64)}, ValueError, "target holds 18446744073709551516"),
        ({"target": np.array([0])}, ValueError, r"target has shape \(1,\); it needs \(2,\)"),
        ({"target": np.array([True, False])}, TypeError, "target has dtype bool"),
        ({"target": np.ones((2, 2))}, ValueError, r"target has shape \(2, 2\)"),
        ({"target": np.ones((2, 3), np.float32)}, TypeError, "target has dtype float32"),
        ({"input": np.ones((2, 3), int)}, TypeError, "input has dtype int64"),
        ({"input": np.float64(1.0)}, ValueError, "input is a scalar"),
        ({"weight": np.ones(2)}, ValueError, r"weight has shape \(2,\).*\(3,\)"),
        ({"reduction": "avg"}, ValueError, "reduction is 'avg'"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing is '0.1'; it needs a number"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index is 1.0; it needs an integer"),
    ],
)
def test_cross_entropy_errors(change, error, message):
    arguments = {"input": np.zeros((2, 3)), "target": np.array([0, 2])} | change
    with pytest.raises(error, match=message):
        L.cross_entropy(**arguments)


@pytest.mark.parametrize("shape", [(130, 7), (65, 1000), (3, 5, 129), (2, 17, 8, 9), (70, 3, 1), (1, 4000)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_many(rng, shape, dtype, smoothing):
    """Around the rows of a task and vectors, of arrays in any order; and bits do not depend on threads."""
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    weight = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    wide = np.moveaxis(x.astype(np.float64), 1, -1)
    logarithms = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    spread = np.full(wide.shape, smoothing / shape[1])
    np.put_along_axis(spread, target[..., None], 1 - smoothing + smoothing / shape[1], -1)
    spread *= weight
    divisor = weight.astype(np.float64)[target].sum()
    expected = -(spread * logarithms).sum() / divisor
    d = np.moveaxis(np.exp(logarithms) * spread.sum(-1, keepdims=True) - spread, -1, 1) / divisor
    found = []
    for threads, array in ((1, x), (2, x), (3, x), (2, np.asfortranarray(x))):
        with fc.threads(threads):
            loss = L.cross_entropy(array, target, weight, label_smoothing=smoothing)
            found.append((loss, L.cross_entropy_grad(1.0, array, target, weight, label_smoothing=smoothing)))
    for loss, gradient in found:
        assert max_error(loss, expected) < tolerance(dtype, shape[1])
        assert max_error(gradient, d) < tolerance(dtype, shape[1])
    for others in found[1:3]:
        np.testing.assert_array_equal(others[0], found[0][0])
        np.testing.assert_array_equal(others[1], found[0][1])


def test_grad_output_must_fit_the_reduction():
    with pytest.raises(ValueError, match=r"grad_output has shape \(2,\); with reduction='mean'"):
        L.cross_entropy_grad(np.ones(2), np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"grad_output has shape \(\); with reduction='none'"):
        L.mse_loss_grad(1.0, np.zeros(2), np.zeros(2), reduction="none")


# --- mean squared error ---------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mse_and_gradient_are_torchs(torch, rng, reduction, dtype):
    x, target = rng.standard_normal((2, 4, 5)).astype(dtype)
    t = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.nn.functional.mse_loss(t, torch.from_numpy(target), reduction=reduction)
    g = rng.standard_normal(tuple(expected.shape)).astype(dtype)
    expected.backward(torch.as_tensor(g))
    y = L.mse_loss(x, target, reduction=reduction)
    assert y.dtype == dtype
    assert max_error(y, expected.detach().numpy()) < tolerance(dtype, x.size)
    d = L.mse_loss_grad(g, x, target, reduction=reduction)
    assert d.dtype == dtype
    assert max_error(d, t.grad.numpy()) < tolerance(dtype, 3)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_gradient_by_differences(rng, reduction):
    x, target = rng.standard_normal((2, 3, 4))
    g = rng.standard_normal(x.shape if reduction == "none" else ())
    d = L.mse_loss_grad(g, x, target, reduction=reduction)
    numerical = numerical_gradient(lambda v: L.mse_loss(v, target, reduction=reduction), x, g)
    assert max_error(d, numerical) < 1e-8


def test_mse_does_not_broadcast():
    with pytest.raises(ValueError, match=r"target has shape \(3,\); it needs input's \(3, 1\)"):
        L.mse_loss(np.zeros((3, 1)), np.zeros(3))
