# SPDX-License-Identifier: BSD-3-Clause
"""The switch, where no gradients are wanted: weights are packed once, and anew when they change."""

import gc

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import fastconv.torch as ft  # noqa: E402
from fastconv.plan import ConvPlan  # noqa: E402
from torch_nets import Net, close, images, laid_out, seeded  # noqa: E402, F401


@pytest.fixture
def packed(monkeypatch):
    """Grows by one with each plan."""
    plans, plan = [], ft._packed._plan
    monkeypatch.setattr(ft._packed, "_plan", lambda *args, **kwargs: plans.append(1) or plan(*args, **kwargs))
    return plans


@pytest.fixture
def copies(monkeypatch):
    """Grows by one with each packed copy of weights."""
    made, pack = [], ConvPlan._pack
    monkeypatch.setattr(ConvPlan, "_pack", lambda *args: made.append(1) or pack(*args))
    return made


def test_frozen_weights_are_packed_once_and_anew_when_they_change(packed):
    net, x = Net().eval(), images()
    fast = ft.accelerate(frozen=True)(net)
    with torch.no_grad():
        for image in (x, x, laid_out(x, True)):
            close(fast(image), net(image))
        assert len(packed) == 4 + 4  # in each layout
        net.one.weight.mul_(2)
        net.load_state_dict({**net.state_dict(), "two.bias": torch.ones(8)})
        close(fast(x), net(x))
    assert ft.report()["left"] == {}
    before = len(packed)
    x.requires_grad_()
    with ft.accelerate(frozen=True):
        (ours,) = torch.autograd.grad(net(x).sum(), x)
    close(ours, torch.autograd.grad(net(x).sum(), x)[0])
    assert len(packed) == before  # what wants gradients is not packed


def test_weights_that_rest_are_packed_the_second_time(packed):
    net, x = Net().eval(), images()
    fast = ft.accelerate()(net)
    with torch.no_grad():
        for calls, image in ((0, x), (4, x), (4, x), (4, laid_out(x, True)), (8, laid_out(x, True))):
            close(fast(image), net(image))
            assert len(packed) == calls
        with ft.accelerate():  # each is the same switch
            net(laid_out(x, True))
        assert len(packed) == 8
    assert ft.report()["left"] == {}


def behind_torchs_back(weight):
    weight.detach().numpy()[...] *= -1


def in_inference_mode(weight):
    with torch.inference_mode():
        weight.mul_(-1)


def one_sign(weight):
    weight.data.view(-1)[-1].neg_()


def two_signs(weight):
    weight.data.view(-1)[1:4:2].neg_()


def other_data(weight):
    weight.data = -weight.data


def swapped(weight):
    weight.data = weight.data.flip(0)


@pytest.mark.parametrize(
    "change",
    [behind_torchs_back, in_inference_mode, one_sign, two_signs, other_data, swapped],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_no_change_of_weights_goes_unnoticed(change, name, packed):
    layer, x = nn.Conv2d(16, 16, 3), torch.randn(1, 16, 12, 12)
    with torch.no_grad(), ft.accelerate():
        before = [layer(x) for _ in range(3)][-1]
        assert len(packed) == 1
        change(getattr(layer, name))
        after = [layer(x) for _ in range(3)]
        assert len(packed) == 2
    with torch.no_grad():
        expected = layer(x)
    assert not torch.allclose(before, expected)
    for result in after:
        close(result, expected)


def test_what_is_packed_lives_as_long_as_its_weight():
    layer, x = nn.Conv2d(3, 4, 3), images()
    gc.collect()
    seen = ft._accelerate.CHECKED.seen
    others = len(seen)
    with torch.no_grad(), ft.accelerate():
        layer(x)
        layer(x)
        nn.functional.conv2d(x, layer.weight * 2)
        assert len(seen) == others + 1
    del layer
    gc.collect()
    assert len(seen) == others


def test_weights_with_gaps_and_those_that_learn_are_not_packed(packed):
    wide, x = torch.randn(4, 3, 3, 6), images()
    with torch.no_grad(), ft.accelerate():
        for _ in range(3):
            ours = nn.functional.conv2d(x, wide[..., ::2])
    close(ours, nn.functional.conv2d(x, wide[..., ::2].contiguous()))
    layer = nn.Conv2d(3, 4, 3)
    with ft.accelerate():
        for _ in range(3):
            layer(x).sum().backward()
    assert packed == []


@pytest.mark.parametrize("door", ["frozen", "convert"])
@pytest.mark.parametrize("last", [False, True])
def test_sizes_of_images_share_packed_weights(door, last, copies):
    layer = nn.Conv2d(32, 48, 3, padding=1).eval()
    switch = ft.accelerate(frozen=True)
    fast = switch(layer) if door == "frozen" else ft.convert(layer)
    packings = switch._weights.packings if door == "frozen" else fast.packed.packings
    with torch.no_grad():
        for i in range(100):
            x = laid_out(torch.randn(1 + i % 2, 32, 4 + i, 7 + i // 2), last)
            close(fast(x), layer(x))
            (weights,) = packings.values()
            assert len(weights.forms) <= ft._packed._FORMS
            assert len(weights.plans) <= ft._packed._PLANS
            assert {id(plan._packed) for plan in weights.plans.values()} <= {id(f) for f in weights.forms.values()}
    assert len(copies) < 20


def test_frozen_weights_that_come_once_are_forgotten(packed):
    layer, x = nn.Conv2d(3, 4, 3), images()
    switch = ft.accelerate(frozen=True)
    packings = switch._weights.packings
    with torch.no_grad(), switch:
        for i in range(5):
            weight = layer.weight * (i + 1)
            close(nn.functional.conv2d(x, weight), torch.convolution(x, weight, None, *GEOMETRY))
        assert len(packings) == 1
        before = len(packed)
        for i in range(1, 4):  # views
            close(nn.functional.conv2d(x, layer.weight[:i]), torch.convolution(x, layer.weight[:i], None, *GEOMETRY))
        assert len(packed) == before
    del weight
    gc.collect()
    assert len(packings) == 0


GEOMETRY = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
