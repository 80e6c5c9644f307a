# SPDX-License-Identifier: BSD-3-Clause
"""All gradients of a convolution from one call."""

import pickle

import numpy as np
import pytest

import fastconv as fc
from fastconv.ops import _convolution
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
    """Bit for bit, but for the weights of depthwise layers, whose sums are cut otherwise where all is asked for."""
    x, w, y = arrays(problem, dtype, layout)
    depthwise = problem.groups == problem.in_channels == problem.out_channels
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
            elif name == "weight" and "input" in needs and depthwise:
                assert max_error(gradient, truth) <= tolerance(dtype, y.size)
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
@each_dtype
def test_of_a_transposed_convolution(dtype, layout):
    problem = Problem((9, 11), 4, 6, (3, 3), 3, (2, 1), ((1, 1), (0, 2)), (1, 2), 2)
    y, w, x = arrays(problem, dtype, layout)  # what it makes of x is as large as the input of the convolution
    options = {**problem.geometry, "layout": layout}
    extra = [
        (n + before + after - d * (k - 1) - 1) % s
        for n, (before, after), d, k, s in zip(
            problem.size, problem.padding, problem.dilation, problem.kernel, problem.stride, strict=True
        )
    ]
    options["output_padding"] = tuple(extra)
    result = fc.conv_transpose2d(x, w, **options, activation="relu")
    assert result.shape == y.shape
    channel = -1 if layout == "NHWC" else -3
    axes = tuple(i for i in range(y.ndim) if i != y.ndim + channel)
    for mask, grad in ((None, y), (result, np.where(result > 0, y, 0).astype(dtype))):
        expected = (
            fc.grad.conv_transpose2d_input(x.shape, w, grad, **options),
            fc.grad.conv_transpose2d_weight(x, w.shape, grad, **options),
            grad.sum(axes, np.float64).astype(dtype),
        )
        for needs in (NAMES, ("weight", "bias"), ("input",)):
            found = fc.grad.conv_transpose2d(x, w, y, **options, needs=needs, mask=mask)
            for name, gradient, truth in zip(NAMES, found, expected, strict=True):
                if name not in needs:
                    assert gradient is None
                elif name == "bias":
                    assert max_error(gradient, truth, np.abs(y).sum()) <= tolerance(dtype, y.size)
                else:
                    np.testing.assert_array_equal(gradient, truth)
        out = tuple(poison(a.shape, dtype) for a in expected)
        found = fc.grad.conv_transpose2d(x, w, y, **options, mask=mask, out=out)
        for mine, given, truth in zip(found, out, expected, strict=True):
            assert mine is given
            assert max_error(mine, truth, None if mine.ndim > 1 else np.abs(y).sum()) <= tolerance(dtype, y.size)


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


def test_agrees_with_autograd_of_a_transposed_one():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for rank in (1, 2, 3):
        size = (6, 4, 5)[:rank]
        x, w = rng.standard_normal((2, 4, *size)), rng.standard_normal((4, 3, *(3,) * rank))
        leaves = [torch.from_numpy(a).requires_grad_() for a in (x, w, rng.standard_normal(6))]
        options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
        result = getattr(torch.nn.functional, f"conv_transpose{rank}d")(*leaves, **options).relu()
        y = rng.standard_normal(result.shape)
        result.backward(torch.from_numpy(y))
        found = getattr(fc.grad, f"conv_transpose{rank}d")(x, w, y, **options, mask=result.detach().numpy())
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


# --- of plans -------------------------------------------------------------------------------------


def plan_of(problem, dtype, layout, **options):
    x, w, y = arrays(problem, dtype, layout)
    plan = fc.ConvPlan(x.shape, w, **problem.geometry, layout=layout, **options)
    return plan, (x, w, y), {**problem.geometry, "layout": layout}


@each_layout
@each_dtype
@each_problem
def test_of_a_plan(problem, dtype, layout):
    """To the bit where the algorithm is the same; called again, from packed weights."""
    for algorithm in ("direct", "reference"):
        plan, (x, w, y), options = plan_of(problem, dtype, layout, algorithm=algorithm)
        expected = fc.grad.conv2d(x, w, y, **options, algorithm=algorithm)
        forward = plan.packed_bytes
        for _ in range(2):
            for mine, truth in zip(plan.gradients(x, y), expected, strict=True):
                np.testing.assert_array_equal(mine, truth)
        assert plan.packed_bytes >= forward
        for needs in (("weight", "bias"), ("input",), "bias"):
            for name, mine, truth in zip(NAMES, plan.gradients(x, y, needs=needs), expected, strict=True):
                if name in needs:
                    np.testing.assert_array_equal(mine, truth)
                else:
                    assert mine is None
        out = tuple(poison(a.shape, dtype) for a in expected)
        for mine, given, truth in zip(plan.gradients(x, y, out=out), out, expected, strict=True):
            assert mine is given
            np.testing.assert_array_equal(mine, truth)
    plan, (x, w, y), options = plan_of(problem, dtype, layout)
    expected = fc.grad.conv2d(x, w, y, **options)
    for mine, truth in zip(plan.gradients(x, y), expected, strict=True):
        assert mine.dtype == dtype
        assert max_error(mine, truth, np.abs(y).sum() if mine.ndim == 1 else None) <= tolerance(dtype, y.size)


@each_layout
@each_dtype
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_of_a_plan_behind_its_clamp(dtype, layout, activation):
    problem = PROBLEMS[0]
    plan, (x, w, y), options = plan_of(problem, dtype, layout, activation=activation, algorithm="direct")
    result = 4 * plan(x) if activation == "relu6" else plan(x)
    result = np.minimum(result, 6).astype(dtype) if activation == "relu6" else result
    inside = (result > 0) & (result < 6) if activation == "relu6" else result > 0
    assert 0.2 < inside.mean() < 0.8
    expected = fc.grad.conv2d(x, w, np.where(inside, y, 0).astype(dtype), **options, algorithm="direct")
    for mine, truth in zip(plan.gradients(x, y, mask=result), expected, strict=True):
        np.testing.assert_array_equal(mine, truth)


@each_layout
@each_dtype
def test_of_a_transposed_plan(dtype, layout):
    problem = Problem((10, 12), 4, 6, (3, 3), 2, (2, 1), ((1, 1), (0, 2)), (1, 2), 2)
    _, w, x = arrays(problem, dtype, layout)
    options = {**problem.geometry, "layout": layout, "output_padding": (1, 0), "algorithm": "direct"}
    plan = fc.ConvPlan(x.shape, w, **options, transposed=True)
    y = np.random.default_rng(3).standard_normal(plan.output_shape).astype(dtype)
    expected = fc.grad.conv_transpose2d(x, w, y, **options)
    for _ in range(2):
        for mine, truth in zip(plan.gradients(x, y), expected, strict=True):
            np.testing.assert_array_equal(mine, truth)


def test_a_plan_packs_once_for_the_gradient_of_its_input(monkeypatch):
    plan, (x, _, y), _ = plan_of(PROBLEMS[0], "float32", "NCHW")
    plan.gradients(x, y)
    packed = plan.packed_bytes
    monkeypatch.setattr(_convolution, "input_grad_plan", None)  # neither planned nor packed again
    expected = plan.gradients(x, y)
    assert plan.packed_bytes == packed
    for mine, truth in zip(plan.gradients(x, y), expected, strict=True):
        np.testing.assert_array_equal(mine, truth)


def test_a_copy_of_a_plan_has_its_gradients():
    plan, (x, _, y), _ = plan_of(PROBLEMS[0], "float32", "NCHW", algorithm="direct")
    expected = plan.gradients(x, y)
    for mine, truth in zip(pickle.loads(pickle.dumps(plan)).gradients(x, y), expected, strict=True):
        np.testing.assert_array_equal(mine, truth)


@pytest.mark.parametrize(
    ("options", "change", "error", "words"),
    [
        ({}, {"x": X[:1]}, ValueError, "x has shape"),
        ({}, {"x": X.astype(np.float64)}, TypeError, "x has dtype float64"),
        ({}, {"grad_output": Y[:1]}, ValueError, "grad_output has shape"),
        ({}, {"grad_output": Y.astype(np.float64)}, TypeError, "grad_output has dtype float64"),
        ({}, {"needs": "weights"}, ValueError, "'bias'"),
        ({}, {"mask": Y}, ValueError, "it needs none"),
        ({"activation": "relu"}, {}, ValueError, "it needs the forward result"),
        ({"activation": "relu"}, {"mask": Y[:1]}, ValueError, "mask has shape"),
        ({"activation": "silu"}, {}, NotImplementedError, "'silu'"),
        ({}, {"out": (X, None, None)}, ValueError, "overlaps input"),
    ],
    ids=str,
)
def test_errors_of_plans(options, change, error, words):
    plan = fc.ConvPlan(X.shape, W, **options)
    with pytest.raises(error, match=words):
        plan.gradients(**{"x": X, "grad_output": Y, **change})
