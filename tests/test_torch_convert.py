# SPDX-License-Identifier: BSD-3-Clause
"""Converted models: what is fused, what is kept, and when weights are packed anew."""

import copy
import operator as op
import pickle

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv.torch as ft  # noqa: E402
from torch_nets import Net, close, images, laid_out, seeded  # noqa: E402, F401


@pytest.mark.parametrize("depthwise", [False, True])
def test_convert_fuses_and_keeps_the_result(depthwise):
    net, x = Net(depthwise), images()
    with torch.no_grad():
        for _ in range(3):
            net(images(4))  # so that batch norm has something to fold in
    net.eval()
    before = copy.deepcopy(net.state_dict())
    ours = ft.convert(net)
    with torch.inference_mode():
        close(ours(x), net(x))
        close(ours(laid_out(x, True)), net(x))
    names = [type(m).__name__ for m in ours.modules()]
    assert "BatchNorm2d" not in names
    assert "ReLU" not in names
    packed = [m for m in ours.modules() if type(m).__name__ == "PackedConv"]
    assert [m.activation for m in packed] == ["relu", "relu", "relu", None]
    assert not any(p.requires_grad for p in ours.parameters())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])  # the original is as it was


def test_convert_copes_with_what_fx_cannot_trace():
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    net, x = Untraceable().eval(), torch.ones(1, 1, 6, 6)
    with torch.no_grad():
        close(ft.convert(net)(x), net(x))
    assert type(ft.convert(net).conv).__name__ == "PackedConv"
    assert type(ft.convert(nn.Conv2d(1, 2, 3))).__name__ == "PackedConv"
    with pytest.raises(TypeError, match=r"it needs to be a torch\.nn\.Module"):
        ft.convert(len)


def packed_layers(net):
    return [m for m in net.modules() if type(m).__name__ == "PackedConv"]


def test_converted_models_are_pickled_and_keep_few_plans():
    layer = ft.convert(nn.Conv2d(3, 4, 3))
    for size in range(5, 75):
        layer(torch.ones(1, 3, size, 5))
    [kept] = layer.packed.packings.values()
    assert len(kept.plans) == 64
    assert 1 <= len(kept.forms) <= 4
    assert not copy.deepcopy(layer).packed.packings
    net, x = ft.convert(Net()), images()
    close(pickle.loads(pickle.dumps(net))(x), net(x))  # torch.nn.Linear rounds by where its weights lie


def test_changed_weights_of_a_converted_model_are_packed_anew():
    layer, other, x = ft.convert(nn.Conv2d(3, 4, 3)), nn.Conv2d(3, 4, 3).requires_grad_(False), images()
    assert not torch.allclose(layer(x), other(x))
    layer.layer.load_state_dict(other.state_dict())
    close(layer(x), other(x))
    [kept] = layer.packed.packings.values()
    assert len(kept.plans) == 1


def test_a_converted_model_that_needs_gradients_goes_by_torch():
    layer, x = ft.convert(nn.Conv2d(3, 4, 3)), images().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu, self.pool = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())

    def forward(self, x):
        return self.inner(self.pool(self.relu(self.norm(self.conv(x)))))


@pytest.mark.parametrize("name", ["conv", "norm", "relu", "pool", "inner"])
def test_hooks_of_a_converted_model_are_called(name):
    net, x, seen = Hooked().eval().requires_grad_(False), images(), []
    net.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(1) or output + 1)
    expected, ours = net(x), ft.convert(net)
    seen.clear()
    close(ours(x), expected)
    close(ours(x), expected)
    assert len(seen) == 2
    assert packed_layers(ours)


class Residual(nn.Module):
    """A convolution, something that happens, and a sum."""

    def __init__(self, between, add):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.between, self.add = between, add

    def forward(self, x):
        h = self.other(x)
        y = self.conv(h)
        self.between(h)
        return F.relu(self.add(y, h)) * 1


@pytest.mark.parametrize(
    ("between", "add", "fused"),
    [
        (lambda h: None, lambda y, h: y + h, True),
        (lambda h: None, lambda y, h: h + y, True),
        (lambda h: None, lambda y, h: y.add_(h), True),
        (lambda h: None, lambda y, h: op.iadd(h, y), False),
        (lambda h: h.add_(1), lambda y, h: y + h, False),
        (lambda h: op.imul(h, 2), lambda y, h: y + h, False),
        (lambda h: F.relu(h, True), lambda y, h: y + h, False),
        (lambda h: torch.neg(h, out=h), lambda y, h: y + h, False),
        (lambda h: op.setitem(h, 0, 1), lambda y, h: y + h, False),
        (lambda h: h * 2, lambda y, h: y + h, True),
    ],
)
def test_residuals_are_fused_where_nothing_changes_in_between(between, add, fused):
    net, x = Residual(between, add).eval().requires_grad_(False), images()
    expected, ours = net(x.clone()), ft.convert(net)
    close(ours(x.clone()), expected)
    assert any(node.kwargs.get("residual") is not None for node in ours.graph.nodes) is fused


@pytest.mark.parametrize("shape", [(2, 4, 6, 6), (1, 4, 6, 6), (4, 1, 1), (3, 2, 4, 6, 6), (), (2, 4, 1, 6)])
def test_sums_that_broadcast(shape):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x, other):
            return F.relu(self.conv(x) + other)

    net, x, other = Sum().eval().requires_grad_(False), torch.randn(2, 3, 8, 8), torch.randn(shape)
    ours = ft.convert(net)
    close(ours(x, other), net(x, other))
    assert packed_layers(ours)[0].activation == "relu"


@pytest.mark.filterwarnings("ignore:.*TorchScript type system|.*torch.jit.script")
@pytest.mark.parametrize(
    ("kind", "forms"),
    [
        ("relu", (nn.ReLU(), F.relu, torch.relu, lambda x: x.relu())),
        ("relu6", (nn.ReLU6(inplace=True), F.relu6)),
        ("silu", (nn.SiLU(), nn.SiLU(inplace=True), F.silu)),
        ("hardswish", (nn.Hardswish(), F.hardswish)),
        ("sigmoid", (nn.Sigmoid(), F.sigmoid, torch.sigmoid, lambda x: x.sigmoid(), lambda x: x.sigmoid_())),
    ],
)
def test_activations_are_part_of_the_convolution(kind, forms):
    class Finished(nn.Module):
        def __init__(self, finish):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.finish = finish

        def forward(self, x, other):
            return self.finish(self.conv(x) + other)

    x, other = 2 * torch.randn(2, 3, 8, 8), torch.randn(2, 4, 6, 6)
    for finish in forms:
        net = Finished(finish).eval().requires_grad_(False)
        ours = ft.convert(net)
        assert packed_layers(ours)[0].activation == kind
        assert len(list(ours.graph.nodes)) == 4  # two tensors, the convolution, the result
        close(ours(x, other), net(x, other))
        close(torch.jit.script(ours)(x, other), net(x, other))  # in torch's own operators


def test_transposed_convolutions_are_packed():
    net = nn.Sequential(
        *(nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.ConvTranspose2d(4, 4, 2, 2, groups=2, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
    )
    net(torch.randn(8, 3, 5, 5))
    net, x = net.eval().requires_grad_(False), torch.randn(2, 3, 5, 6)
    ours = ft.convert(net)
    close(ours(x), net(x))
    assert [m.activation for m in packed_layers(ours)] == ["relu", None]  # norms of groups are torch's to fold
    layer = ft.convert(nn.ConvTranspose2d(3, 4, 3, 2))
    close(layer(x, output_size=(11, 14)), layer.layer(x, output_size=(11, 14)))
