# SPDX-License-Identifier: BSD-3-Clause
"""What a step of training under the switch consists of: operators past torch's dispatcher, and others."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv.torch as ft  # noqa: E402
from fastconv.torch import _training  # noqa: E402
from torch_nets import close, laid_out, seeded  # noqa: E402, F401

O = torch.ops.fastconv  # noqa: E741


@pytest.fixture
def any_size(monkeypatch):
    """Small tensors are served, too."""
    monkeypatch.setattr(_training, "_MANY", 1)
    monkeypatch.setattr(_training, "_FEW", 1)
    monkeypatch.setattr(_training, "_WEIGHTS", 1)


def name_of(y):
    return type(y.grad_fn).__name__


# ------------------------------------------------------------------------------------- operators past the dispatcher


@pytest.mark.parametrize("kernel", [3, 1])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", [2, 3])
def test_gradients_of_weights_lie_as_the_weights_do(rank, groups, kernel):
    """Or else autograd copies each into the order of its weight's axes."""
    form = {2: torch.channels_last, 3: torch.channels_last_3d}[rank]
    layer = getattr(nn, f"Conv{rank}d")(4, 6, kernel, groups=groups).to(memory_format=form)
    x = laid_out(torch.randn(2, 4, *[5] * rank), True)
    y = layer(x)
    grad, geometry = torch.randn_like(y), ([1] * rank, [0] * rank, [1] * rank, False, [0] * rank, groups)
    _, found, _ = O.conv_backward(grad, x, layer.weight, *geometry, [False, True, False])
    close(found, torch.autograd.grad(y, layer.weight, grad)[0])
    assert found.is_contiguous(memory_format=form)
    torch.library.opcheck(O.conv_backward.default, (grad, x, layer.weight, *geometry, [True, True, False]))
    with ft.accelerate():
        layer(x).backward(grad)
    assert layer.weight.grad.is_contiguous(memory_format=form)  # strides of axes of one element do not count
    close(layer.weight.grad, found)


def test_gradients_go_past_the_dispatcher_only_where_it_has_nothing_to_do():
    class Marked(torch.Tensor):
        pass

    x, layer = torch.randn(2, 3, 6, 6), nn.Conv2d(3, 4, 3)
    with ft.accelerate():
        y = layer(x)
    assert name_of(y) == "fastconv_convBackward"
    theirs = layer(x)
    pairs = torch.randn(*y.shape, 2)
    lazy = torch.view_as_complex(pairs).conj().imag  # its sign has yet to be changed
    assert lazy.is_neg()
    for grad in (lazy, torch.ones(()).expand_as(y), torch.randn(y.shape).as_subclass(Marked)):
        (ours,) = torch.autograd.grad(y, layer.weight, grad, retain_graph=True)
        close(ours, torch.autograd.grad(theirs, layer.weight, grad, retain_graph=True)[0])


def test_nothing_is_differentiated_below_autograd(any_size):
    """As in the kernels of operators, whose tensors may want gradients."""
    layers = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.Tanh()
    x = torch.randn(4, 3, 6, 6, requires_grad=True)
    with ft.accelerate():
        assert all(layer(x).grad_fn is not None for layer in layers)
        with torch._C._AutoDispatchBelowAutograd():
            assert all(layer(x).grad_fn is None for layer in layers)


def test_a_graph_of_a_backward_pass_has_operators_and_no_constants():
    from torch.fx.experimental.proxy_tensor import make_fx

    layer, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    with ft.accelerate():
        y = layer(x)

    def gradient(g):
        return torch.autograd.grad(y, layer.weight, g, retain_graph=True)[0]

    graph = make_fx(gradient)(torch.randn_like(y))
    assert "conv_backward" in graph.code
    other = torch.randn_like(y)
    close(graph(other), gradient(other))


# ------------------------------------------------------------------------------------------------------- batch norm

SHAPES = {1: (4, 5, 9), 2: (3, 5, 4, 7), 3: (2, 5, 3, 4, 2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}], ids=str)
@pytest.mark.parametrize(("rank", "last"), [(1, False), (2, False), (2, True), (3, False), (3, True)])
def test_batch_norm_is_torchs(rank, last, kind, dtype, any_size):
    layer = getattr(nn, f"BatchNorm{rank}d")(5, **kind).to(dtype)
    for p in layer.parameters():
        nn.init.uniform_(p, 0.5, 2)
    twin = copy.deepcopy(layer)
    for step in range(3):
        x = laid_out(3 * torch.randn(SHAPES[rank], dtype=dtype) + 20, last).requires_grad_(step > 0)
        g, results = laid_out(torch.randn(x.shape, dtype=dtype), last != (step == 2)), []
        for one in (layer, twin):
            with ft.accelerate() if one is layer else torch.enable_grad():
                y = one(x)
                operands = [x] if x.requires_grad else []
                wanted = [*operands, *one.parameters()]
                results.append([y, *(torch.autograd.grad(y, wanted, g) if wanted else ())])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4 if dtype is torch.float32 else 1e-11, atol=1e-5)
            assert ours.stride() == theirs.stride()
        for ours, theirs in zip(layer.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert ft.report() == {"served": {"batch_norm": 3}, "left": {}}


def test_gradients_of_gradients_of_batch_norm_and_tanh(any_size):
    x, scale, shift = torch.randn(3, 2, 2, 3), torch.rand(2) + 1, torch.randn(2)
    operands = tuple(t.double().requires_grad_() for t in (x, scale, shift))
    with ft.accelerate():
        assert torch.autograd.gradgradcheck(
            lambda x, scale, shift: F.batch_norm(x, None, None, scale, shift, True), operands
        )
        assert torch.autograd.gradgradcheck(torch.tanh, operands[:1])
        for clamp in (lambda y: F.relu(y, True), lambda y: F.hardtanh(y, -0.5, 0.75, True)):
            assert torch.autograd.gradgradcheck(
                lambda x, *affine: clamp(F.batch_norm(x, None, None, *affine, True)),  # noqa: B023
                operands,
            )
    assert set(ft.report()["served"]) == {"batch_norm", "tanh", "relu", "hardtanh"}


CLAMPS = {
    "F.relu": lambda y: F.relu(y, inplace=True),
    "torch.relu_": torch.relu_,
    "relu_": lambda y: y.relu_(),
    "ReLU6": nn.ReLU6(inplace=True),
    "F.relu6": lambda y: F.relu6(y, True),
    "F.hardtanh": lambda y: F.hardtanh(y, -0.5, 0.75, inplace=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("clamp", CLAMPS)
def test_a_clamp_in_place_behind_batch_norm_goes_back_with_it(clamp, last, dtype, any_size):
    layer = nn.BatchNorm2d(5).to(dtype)
    for p in layer.parameters():
        nn.init.uniform_(p, 0.5, 2)
    twin = copy.deepcopy(layer)
    start, g = (laid_out(torch.randn(3, 5, 4, 7, dtype=dtype), last) for _ in range(2))
    results = []
    for one in (layer, twin):
        x = start.detach().clone().requires_grad_()
        with ft.accelerate() if one is layer else torch.enable_grad():
            y = one(2 * x)
            z = CLAMPS[clamp](y)
            assert z is y
            assert (name_of(y) == "_ClampBackward") == (one is layer)
            results.append((y, *torch.autograd.grad(y, [x, *one.parameters()], g, retain_graph=True)))
            results[-1] += torch.autograd.grad(y, [x, *one.parameters()], 2 * g)  # once more
            with pytest.raises(RuntimeError, match="second time"):
                y.backward(g)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4 if dtype is torch.float32 else 1e-11, atol=1e-5)
        assert ours.stride() == theirs.stride()
    assert ft.report()["left"] == {}


def test_a_clamp_behind_batch_norm_lets_the_norms_other_uses_through(any_size):
    x, layer = torch.randn(3, 5, 4, 4), nn.BatchNorm2d(5)
    found = []
    for switch in (ft.accelerate(), torch.enable_grad()):
        a = x.clone().requires_grad_()
        with switch:
            y = layer(a)
            z = 3 * y + 1  # which keeps nothing of y
            y.relu_()
        found.append((y, *torch.autograd.grad((y * y).sum() + (z * x).sum(), [a, *layer.parameters()])))
    assert name_of(found[0][0]) == "_ClampBackward"
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_clamp_behind_batch_norm_is_torchs_where_somebody_looks_in_between(any_size):
    x, layer, seen = torch.randn(3, 5, 4, 4, requires_grad=True), nn.BatchNorm2d(5), []
    with ft.accelerate():
        hooked = layer(x)
        hooked.register_hook(seen.append)
        kept = layer(x)
        kept.retain_grad()
        changed = layer(x).mul_(2)
        new = F.relu(before := layer(x))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            elsewhere = layer(x).relu_()
        with torch.no_grad():
            plain = layer(x).relu_()
        for y in (hooked, kept, changed):
            y.relu_()
    for y in (hooked, kept, changed, new, elsewhere):
        assert name_of(y) == "ReluBackward0"
        y.sum().backward(retain_graph=True)
    assert plain.grad_fn is None
    assert len(seen) == 1
    assert torch.equal(torch.autograd.grad(new.sum(), before)[0], (before > 0).float())
    assert layer.weight.grad.isfinite().all()


def test_what_batch_norm_saved_may_not_change(any_size):
    x, layer = torch.randn(3, 5, 4, 4), nn.BatchNorm2d(5)
    with ft.accelerate():
        for clamp in (nn.Identity(), nn.ReLU(inplace=True)):
            y = clamp(layer(x))
            x.add_(1)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()


def test_a_step_that_nobody_differentiates(any_size):
    layer, x = nn.Sequential(nn.BatchNorm2d(3), nn.Tanh()), torch.randn(4, 3, 5, 5)
    twin = copy.deepcopy(layer)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            expected = twin(x)
            with ft.accelerate():
                y = layer(x)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer[0].running_var, twin[0].running_var)
    assert ft.report()["served"] == {"batch_norm": 2, "tanh": 2}


def test_what_torch_computes_as_well_is_torchs_and_not_counted(any_size):
    x, running = torch.randn(4, 3, 5, 5), (torch.zeros(3), torch.ones(3))
    half, low = x.half(), x.bfloat16()
    for call in (
        lambda: F.batch_norm(x, *running),
        lambda: F.relu(x),
        lambda: F.relu(x.clone(), inplace=True),
        lambda: F.hardtanh(x.clone(), inplace=True),
        lambda: x.clone().relu_(),
        lambda: F.batch_norm(x.mT, *running, training=True),
        lambda: F.batch_norm(x[:, :, 0, 0], *running, training=True),
        lambda: F.batch_norm(low, *running, training=True),
        lambda: torch.tanh(half),
        lambda: torch.tanh(x.mT),
        lambda: torch.tanh(torch.ones(2, dtype=torch.complex64)),
        lambda: torch.tanh(x, out=torch.empty(0)),
        lambda: torch.func.grad(lambda x: torch.tanh(x).sum())(x),
        lambda: torch.vmap(torch.tanh)(x),
    ):
        expected = call()
        running[0].zero_(), running[1].fill_(1)
        with ft.accelerate():
            ours = call()
        running[0].zero_(), running[1].fill_(1)
        assert torch.equal(ours, expected)
    for wrong in (
        lambda: F.batch_norm(torch.ones(1, 3, 1, 1), *running, training=True),
        lambda: F.batch_norm(x, running[0], None, training=True),
        lambda: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
        lambda: torch.tanh("x"),
    ):
        with pytest.raises((ValueError, RuntimeError, TypeError)) as theirs:
            wrong()
        with ft.accelerate(), pytest.raises(theirs.type) as ours:
            wrong()
        assert str(ours.value) == str(theirs.value)
    assert torch.equal(running[0], torch.zeros(3))
    assert ft.report() == {"served": {}, "left": {}}


@pytest.mark.parametrize("last", [False, True])
def test_tanh_is_torchs(last, any_size):
    x = laid_out(4 * torch.randn(2, 3, 5, 4), last)
    x[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    x.requires_grad_()
    expected = torch.tanh(x)
    with ft.accelerate():
        results = [torch.tanh(x), x.tanh(), nn.Tanh()(x)]
    for y in results:
        assert name_of(y) == "fastconv_tanhBackward"
        torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-7, equal_nan=True)
        assert y.stride() == expected.stride()
        g = torch.randn_like(y)
        ours, theirs = (torch.autograd.grad(r, x, g, retain_graph=True)[0] for r in (y, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert ft.report() == {"served": {"tanh": 3}, "left": {}}


# ---------------------------------------------------------------------------------------------------- linear layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 7), (5, 7), (2, 3, 7), (64, 7)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_torchs(bias, shape, dtype, any_size):
    layer = nn.Linear(7, 4, bias).to(dtype)
    for step in range(3):
        x = torch.randn(shape, dtype=dtype, requires_grad=step > 0)
        g = torch.randn(*shape[:-1], 4, dtype=dtype) if step < 2 else torch.ones((), dtype=dtype).expand(*shape[:-1], 4)
        expected, wanted = layer(x), [*([x] if x.requires_grad else []), *layer.parameters()]
        with ft.accelerate():
            y = layer(x)
            assert name_of(y) == "fastconv_linearBackward"
            close(y, expected)
            found = torch.autograd.grad(y, wanted, g)
        for ours, theirs in zip(found, torch.autograd.grad(expected, wanted, g), strict=True):
            close(ours, theirs)
            assert ours.stride() == theirs.stride()
    assert ft.report() == {"served": {"linear": 3}, "left": {}}


def test_gradients_of_gradients_of_linear(any_size):
    operands = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3), (4, 3), (4,)))
    with ft.accelerate():
        assert torch.autograd.gradcheck(F.linear, operands)
        assert torch.autograd.gradgradcheck(F.linear, operands)
        assert torch.autograd.gradgradcheck(F.linear, operands[:2])
    assert set(ft.report()["served"]) == {"linear"}


def test_linear_is_left_to_torch_where_that_is_as_fast(any_size):
    layer, x = nn.Linear(3, 4), torch.randn(2, 3)
    frozen = nn.Linear(3, 4).requires_grad_(False)
    with ft.accelerate():
        assert name_of(layer(torch.randn(65, 3))) == "AddmmBackward0"
        assert name_of(layer(torch.randn(3, 2).t())) == "AddmmBackward0"
        assert name_of(frozen(x.clone().requires_grad_())) == "AddmmBackward0"
        assert layer(x[0]).shape == (4,)
        assert layer(x[:0]).shape == (0, 4)
        with torch.no_grad():
            layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype is torch.bfloat16
        for wrong in (torch.randn(2, 4), x.double()):
            with pytest.raises(RuntimeError):
                layer(wrong)
        y = layer(x)
        with torch.no_grad():
            layer.weight.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    assert ft.report() == {"served": {"linear": 1}, "left": {}}


def test_small_tensors_are_left_where_they_are_as_fast():
    with ft.accelerate():
        assert name_of(torch.tanh(torch.ones(8, requires_grad=True))) == "TanhBackward0"
        assert name_of(nn.Linear(8, 8)(torch.ones(1, 8))) == "AddmmBackward0"
    assert ft.report() == {"served": {}, "left": {}}
