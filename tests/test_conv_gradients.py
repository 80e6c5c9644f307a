# SPDX-License-Identifier: BSD-3-Clause
"""All gradients of a convolution from one call."""

import numpy as np
import pytest

import fastconv as fc
from problems import DTYPES, LAYOUTS, Problem, in_layout, operands
from support import max_error, poison, to_layout, tolerance

NAMES = ("input", "weight", "bias")
PROBLEMS = (
    Problem((9, 11), 4, 6, (3, 3), 3, (2, 1), ((1, 1), (0, 2)), (1, 2), 2),
    Problem((12, 10), 8, 8, (3, 3), 2, padding=((1, 1), (1, 1)), groups=8),
    Problem((6, 7), 3, 5, batch=2, stride=(2, 2)),
)

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_dtype = pytest.mark.parametrize("dtype", [*DTYPES, "float16"])
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


def arrays(problem, dtype, layout="NCHW"):
    """Input, weight and the result's gradient."""
    x, w, _, _ = operands(problem, dtype).to(layout)
    y = np.random.default_rng(9).standard_normal(problem.output_shape).astype(dtype)
    return x, w, to_layout(y, layout)


def one_by_one(x, w, y, **options):
    channel = -1 if options["layout"] == "NHWC" else -3
    axes = tuple(i for i in range(y.ndim) if i != y.ndim + channel)
    return (
        fc.grad.conv2d_input(x.shape, w, y, **options),
        fc.grad.conv2d_weight(x, w.shape, y, **options),
        y.sum(axes, np.float64).astype(y.dtype),
    )


@each_layout
@each_dtype
@each_problem
def test_as_one_by_one(problem, dtype, layout):
    x, w, y = arrays(problem, dtype, layout)
    options = {**problem.geometry, "layout": layout}
    expected = one_by_one(x, w, y, **options)
    for needs in (NAMES, ("weight", "bias"), ("input",), ["bias"], {"weight"}, "weight", ()):
        found = fc.grad.conv2d(x, w, y, **options, needs=needs)
        assert isinstance(found, tuple)
        for name, gradient, truth in zip(NAMES, found, expected, strict=True):
            if name not in needs:
                assert gradient is None
                continue
            assert gradient.dtype == dtype
            if name == "bias":
                assert max_error(gradient, truth, np.abs(y).sum()) <= tolerance(dtype, y.size)
            else:
                np.testing.assert_array_equal(gradient, truth)


@each_layout
@each_dtype
@each_problem
def test_into_arrays_of_the_caller(problem, dtype, layout):
    """Wherever they lie: contiguous, and with gaps."""
    x, w, y = arrays(problem, dtype, layout)
    options = {**problem.geometry, "layout": layout}
    expected = fc.grad.conv2d(x, w, y, **options)
    for step in (1, 2):
        out = tuple(poison((*a.shape[:-1], step * a.shape[-1]), dtype)[..., ::step] for a in expected)
        found = fc.grad.conv2d(x, w, y, **options, out=out)
        for mine, given, truth in zip(found, out, expected, strict=True):
            assert mine is given
            if step == 1:
                np.testing.assert_array_equal(mine, truth)
            else:  # perhaps by another algorithm
                assert max_error(mine, truth) <= tolerance(dtype, y.size)
        d_weight = poison(w.shape, dtype)
        found = fc.grad.conv2d(x, w, y, **options, out=[None, d_weight, None])
        assert found[1] is d_weight
        for mine, truth in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, truth)


@each_layout
@each_dtype
def test_the_mask_of_a_relu(dtype, layout):
    problem = PROBLEMS[0]
    x, w, y = arrays(problem, dtype, layout)
    options = {**problem.geometry, "layout": layout}
    result = fc.conv2d(x, w, **options, activation="relu")
    assert 0.2 < (result > 0).mean() < 0.8
    expected = fc.grad.conv2d(x, w, np.where(result > 0, y, 0).astype(dtype), **options)
    for mine, truth in zip(fc.grad.conv2d(x, w, y, **options, mask=result), expected, strict=True):
        np.testing.assert_array_equal(mine, truth)


@each_layout
def test_an_image_without_a_batch(layout):
    problem = Problem((9, 11), 4, 6, (3, 3), padding=((1, 1), (1, 1)))
    x, w, y = arrays(problem, "float32", layout)
    expected = fc.grad.conv2d(x, w, y, padding=1, layout=layout)
    found = fc.grad.conv2d(x[0], w, y[0], padding=1, layout=layout)
    np.testing.assert_array_equal(found[0], expected[0][0])
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[2], expected[2])


@each_layout
def test_no_images(layout):
    x = np.empty(in_layout((0, 4, 5, 5), layout), np.float32)
    y = np.empty(in_layout((0, 6, 3, 3), layout), np.float32)
    d_input, d_weight, d_bias = fc.grad.conv2d(x, np.ones((6, 4, 3, 3), np.float32), y, layout=layout)
    assert d_input.shape == x.shape
    np.testing.assert_array_equal(d_weight, np.zeros((6, 4, 3, 3)))
    np.testing.assert_array_equal(d_bias, np.zeros(6))


def test_agrees_with_autograd():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for rank in (1, 2, 3):
        size = (6, 7, 5)[:rank]
        x, w = rng.standard_normal((2, 4, *size)), rng.standard_normal((6, 2, *(3,) * rank))
        leaves = [torch.from_numpy(a).requires_grad_() for a in (x, w, rng.standard_normal(6))]
        options = {"stride": 2, "padding": 1, "groups": 2}
        result = getattr(torch.nn.functional, f"conv{rank}d")(*leaves, **options)
        y = rng.standard_normal(result.shape)
        result.backward(torch.from_numpy(y))
        found = getattr(fc.grad, f"conv{rank}d")(x, w, y, **options)
        for mine, leaf in zip(found, leaves, strict=True):
            assert max_error(mine, leaf.grad.numpy()) < 1e-14


X, W, Y = (np.ones(shape, np.float32) for shape in ((2, 4, 5, 5), (6, 4, 3, 3), (2, 6, 3, 3)))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"needs": ("input", "weights")}, ValueError, "'bias'"),
        ({"needs": 3}, TypeError, "needs is 3"),
        ({"needs": None}, TypeError, "needs is None"),
        ({"mask": Y[:1]}, ValueError, "mask has shape"),
        ({"mask": Y.astype(np.float64)}, TypeError, "mask has dtype float64"),
        ({"grad_output": Y[:, :5]}, ValueError, "grad_output has shape"),
        ({"grad_output": Y.astype(np.float64)}, TypeError, "grad_output has dtype float64"),
        ({"weight": W.astype(np.float64)}, TypeError, "float64"),
        ({"out": np.empty_like(X)}, TypeError, "out is"),
        ({"out": (np.empty_like(X), None)}, TypeError, "tuple of three"),
        ({"out": (np.empty((2, 4, 5, 6), np.float32), None, None)}, ValueError, "out has shape"),
        ({"out": (None, np.empty(W.shape), None)}, TypeError, "out has dtype float64"),
        ({"out": (X, None, None)}, ValueError, "overlaps input"),
        ({"out": (None, None, W.reshape(-1)[:6])}, ValueError, "overlaps weight"),
        ({"out": (None, None, np.empty(6, np.float32)), "needs": ("weight",)}, ValueError, "gradient of bias"),
        ({"algorithm": "fastest"}, ValueError, "algorithm"),
        ({"precision": "high"}, ValueError, "precision"),
        ({"batch_invariant": 2}, TypeError, "batch_invariant"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else getattr(value, "__name__", value),
)
def test_errors(change, error, words):
    arguments = {"input": X, "weight": W, "grad_output": Y, **change}
    with pytest.raises(error, match=words):
        fc.grad.conv2d(**arguments)


def test_outs_have_memory_of_their_own():
    shared = np.empty(X.size + W.size, np.float32)
    out = (shared[: X.size].reshape(X.shape), shared[X.size - 1 : -1].reshape(W.shape), None)
    with pytest.raises(ValueError, match="overlaps out's array for input"):
        fc.grad.conv2d(X, W, Y, out=out)
