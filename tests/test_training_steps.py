# SPDX-License-Identifier: BSD-3-Clause
"""Steps of training as a whole: memory stays flat, bits do not depend on threads, and curves follow torch's."""

import copy

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core, _plans, nn, optim
from fastconv.ops import _convolution
from fastconv.ops import norm as N
from support import limited


def network():
    """One of each that a step of training goes through."""
    rng = np.random.default_rng(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False, rng=rng),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, rng=rng),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 1, rng=rng),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(16, 5, rng=rng),
    )


def batches(count):
    rng = np.random.default_rng(4)
    return [(rng.standard_normal((6, 3, 12, 12), np.float32), rng.integers(0, 5, 6)) for _ in range(count)]


def curve(net, optimiser, loss, data):
    losses = []
    for x, target in data:
        optimiser.zero_grad()
        losses.append(float(loss(net(x), target)))
        net.backward(loss.backward())
        optimiser.step()
    return losses


OPTIMISERS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_bits_do_not_depend_on_threads(name):
    results = []
    for threads in (1, 2, 3):
        net = network()
        with fc.threads(threads):
            losses = curve(
                net, getattr(optim, name)(net.parameters(), **OPTIMISERS[name]), nn.CrossEntropyLoss(), batches(5)
            )
        results.append((losses, net.state_dict()))
    for losses, state in results[1:]:
        assert losses == results[0][0]
        for key, value in results[0][1].items():
            np.testing.assert_array_equal(state[key], value)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_curve_is_torchs(name):
    """200 steps from the same weights: in float32 the networks part slowly."""
    torch = pytest.importorskip("torch")
    net = network()
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=8),
        torch.nn.ReLU6(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(8, 16, 1),
        torch.nn.BatchNorm2d(16),
        torch.nn.AdaptiveAvgPool2d((1, 1)),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(16, 5),
    )
    theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in net.state_dict().items()})
    data = batches(4) * 50
    options = OPTIMISERS[name]
    ours = curve(net, getattr(optim, name)(net.parameters(), **options), nn.CrossEntropyLoss(label_smoothing=0.1), data)
    optimiser, loss = (
        getattr(torch.optim, name)(theirs.parameters(), **options),
        torch.nn.CrossEntropyLoss(label_smoothing=0.1),
    )
    expected = []
    for x, target in data:
        optimiser.zero_grad()
        value = loss(theirs(torch.from_numpy(x)), torch.from_numpy(target))
        value.backward()
        optimiser.step()
        expected.append(value.item())
    np.testing.assert_allclose(ours[:10], expected[:10], rtol=1e-4)
    np.testing.assert_allclose(ours, expected, atol=0.02)


def test_ten_thousand_steps_leak_nothing():
    """The memory of the process after a thousand steps is that after ten thousand, but for a few pages."""
    limited(
        """
        from fastconv import _core, nn, optim
        rng = np.random.default_rng(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        )
        loss, sgd = nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
        x, target = rng.standard_normal((2, 1, 8, 8), np.float32), np.array([0, 2])

        def resident():
            return int(open("/proc/self/statm").read().split()[1])

        for step in range(10_001):
            sgd.zero_grad()
            loss(net(x), target)
            net.backward(loss.backward())
            sgd.step()
            if step == 1000:
                before = resident()
        assert resident() - before < 64, (before, resident())
        """
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: nn.Conv2d(64, 64, 3, rng=0), (2, 64, 5, 5)), (lambda: nn.Linear(300, 200, rng=0), (7, 300))],
    ids=["conv", "linear"],
)
def test_a_gradient_has_the_memory_of_the_last_one_unless_somebody_holds_it(make, shape):
    layer = make()
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    _core.forget_memory()  # beside which its memory could wait, and come back in other parts

    def gradient():
        layer.backward(layer(x))
        return layer.weight.grad

    expected = gradient().copy()
    last = layer.weight.grad.ctypes.data
    layer.weight.grad.fill(np.nan)
    layer.zero_grad()
    assert layer.weight.grad is None
    np.testing.assert_array_equal(gradient(), expected)
    assert layer.weight.grad.ctypes.data == last
    for hold in (lambda g: g, lambda g: g[:1], memoryview):
        held = hold(layer.weight.grad)
        before = np.array(held)
        layer.zero_grad()
        layer.backward(2 * layer(x))
        np.testing.assert_array_equal(held, before)
        np.testing.assert_array_equal(layer.weight.grad, 2 * expected)
        layer.weight.grad = expected.copy()
        del held
    layer.zero_grad()
    gradient()
    layer.backward(layer(x))  # accumulated
    np.testing.assert_array_equal(layer.weight.grad, 2 * expected)


def test_gradients_are_overwritten_where_nobody_else_has_them(monkeypatch):
    """By a batch norm with a convolution behind it; not what the caller has, nor what another's module may keep."""
    back, overwritten = N.batch_norm_back, []
    monkeypatch.setattr(N, "batch_norm_back", lambda *args: overwritten.append(args[3]) or back(*args))

    class Kept(nn.Module):
        def forward(self, x):
            self.save_for_backward()
            return x

        def backward(self, grad_output):
            self.saved()
            self.grad, self.copy = grad_output, grad_output.copy()
            return grad_output

    class KeptNorm(nn.BatchNorm2d):
        def backward(self, grad_output):
            self.grad, self.copy = grad_output, grad_output.copy()
            return super().backward(grad_output)

    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((2, 8, 6, 6), np.float32) for _ in range(2))

    def modules():
        conv = [nn.Conv2d(8, 8, 3, padding=1, rng=i) for i in range(4)]
        inner = nn.Sequential(conv[1], nn.BatchNorm2d(8), nn.ReLU())
        return [conv[0], nn.BatchNorm2d(8), nn.ReLU(), inner, conv[2], KeptNorm(8), conv[3], nn.BatchNorm2d(8), Kept()]

    alone, chain = modules(), modules()
    y = x
    for module in alone:
        y = module(y)
    expected = g
    for module in reversed(alone):
        expected = module.backward(expected)
    assert not any(overwritten)
    overwritten.clear()
    net, before = nn.Sequential(*chain), g.copy()
    np.testing.assert_array_equal(net(x), y)
    np.testing.assert_array_equal(net.backward(g), expected)
    assert overwritten == [False, False, True, True]
    np.testing.assert_array_equal(g, before)
    for module in (chain[-1], chain[5]):
        np.testing.assert_array_equal(module.grad, module.copy)
    for ours, theirs in zip(net.parameters(), nn.Sequential(*alone).parameters(), strict=True):
        np.testing.assert_array_equal(ours.grad, theirs.grad)
    norm, given = chain[1], g.copy()  # which has had one that it could overwrite
    norm(x)
    assert norm.backward(given) is not given
    np.testing.assert_array_equal(given, g)


def test_what_training_kept_goes_back_in_eval_mode():
    layer = nn.Conv2d(8, 8, 3, padding=1, rng=0)
    x = np.ones((2, 8, 64, 64), np.float32)
    layer.backward(layer(x))
    layer.zero_grad()
    assert _core.results() >= 2 * x.nbytes
    layer.eval()
    assert _core.results() == 0


def test_an_optimiser_goes_on_where_a_copy_does():
    net = network()
    sgd = optim.SGD(net.parameters(), **OPTIMISERS["SGD"])
    curve(net, sgd, nn.CrossEntropyLoss(), batches(2))
    other = network()
    other.load_state_dict(net.state_dict())
    resumed = optim.SGD(other.parameters(), **OPTIMISERS["SGD"])
    resumed.load_state_dict(copy.deepcopy(sgd.state_dict()))
    for model, optimiser in ((net, sgd), (other, resumed)):
        curve(model, optimiser, nn.CrossEntropyLoss(), batches(3))
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value)


def test_the_plans_of_a_deep_network_are_kept(monkeypatch):
    """A second step understands no call anew: DenseNet-121 makes 363 of convolutions, of fewer problems."""
    layers = [nn.Conv2d(1 + i % 40, 1 + (i + 1) % 40, 1 + i // 40, padding="same", rng=0) for i in range(120)]
    net = nn.Sequential(*layers)
    x = np.ones((1, 1, 4, 4), np.float32)
    net.backward(net(x))
    misses = _plans.kept_plan.cache_info().misses
    monkeypatch.setattr(_convolution, "_plan", None)
    net.backward(net(x))
    assert _plans.kept_plan.cache_info().misses == misses
