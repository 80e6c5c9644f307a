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


def regions(net, *args):
    """What compiled networks compute of a model that has been called like this, and what torch does, by names."""
    compiled = net.compiled(args, {})
    found = [m for m in compiled.children() if type(m).__name__ == "Region"]
    others = [n.name for n in compiled.graph.nodes if n.op.startswith("call") and "_region" not in str(n.target)]
    return found, [name for name in others if "getitem" not in name]


def steps(region):
    """The nodes of a region's network, with what is finished as results are stored."""
    (graph,) = region.graphs.values()
    names = {"clamp": "relu"}
    said = []
    for node in graph.nodes:
        finish = [names.get(part[0], part[0]) for part in node.attributes.get("finish", ())]
        said.append(" ".join([node.op, *(["add"] if len(node.inputs) > 3 else []), *finish]))
    return said


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
    ((region,), others) = regions(ours, x)
    assert steps(region) == [
        *("conv relu", "max_pool", "conv relu", "conv add relu", "conv", "avg_pool", "adaptive_avg_pool"),
        *("flatten", "linear"),
    ]
    assert others == []
    assert not any(p.requires_grad for p in ours.parameters())
    assert ours.state_dict().keys() == before.keys()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])  # the original is as it was
        assert torch.equal(value, ours.state_dict()[key])


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
    assert sum(ft.report()["served"].values()) >= 2 or any(type(m).__name__ == "PackedConv" for m in ours.modules())
    assert torch.equal(ours(x), ours(x))


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
        (lambda h: None, lambda y, h: op.iadd(h, y), True),
        (lambda h: h.add_(1), lambda y, h: y + h, True),
        (lambda h: op.imul(h, 2), lambda y, h: y + h, True),
        (lambda h: F.relu(h, True), lambda y, h: y + h, True),
        (lambda h: torch.neg(h, out=h), lambda y, h: y + h, False),
        (lambda h: op.setitem(h, 0, 1), lambda y, h: y + h, False),
        (lambda h: h * 2, lambda y, h: y + h, True),
    ],
)
def test_residuals_are_fused_whatever_is_written_in_between(between, add, fused):
    net, x = Residual(between, add).eval().requires_grad_(False), images()
    expected, ours = net(x.clone()), ft.convert(net)
    close(ours(x.clone()), expected)
    found, others = regions(ours, x)
    assert any("conv add relu" in step for region in found for step in steps(region)) is fused
    assert (others == []) is fused


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
    ((region,), _) = regions(ours, x, other)
    assert steps(region) == ["conv add relu"]


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
        close(ours(x, other), net(x, other))
        ((region,), others) = regions(ours, x, other)
        assert steps(region) == [f"conv add {kind.rstrip('6')}"]
        assert others == []
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
    ((region,), _) = regions(ours, x)
    assert steps(region) == ["conv relu", "conv relu"]
    layer = ft.convert(nn.ConvTranspose2d(3, 4, 3, 2))
    close(layer(x, output_size=(11, 14)), layer.layer(x, output_size=(11, 14)))


# --- promises ---------------------------------------------------------------------------------------------------------


def served():
    return sum(ft.report(reset=True)["served"].values())


def test_results_are_channels_last_where_the_input_is():
    net, x = Net().eval().requires_grad_(False), images()
    body = ft.convert(nn.Sequential(net.first, net.pool, net.one))
    for last in (False, True, False):
        y = body(laid_out(x, last))
        assert y.is_contiguous(memory_format=torch.channels_last) is last
        assert y.is_contiguous() is not last
        close(y, net.one(net.pool(net.first(x))))


def test_gradients_go_by_the_models_own_layers():
    net, x = Net().eval(), images()
    ours = ft.convert(net)
    ours(x)
    assert served() > 0
    x.requires_grad_()
    expected = torch.autograd.grad(net(x).square().sum(), x)[0]
    close(torch.autograd.grad(ours(x).square().sum(), x)[0], expected)
    ours.first[0].weight.requires_grad_()
    ours(x.detach()).sum().backward()
    assert ours.first[0].weight.grad is not None
    with torch.no_grad():
        assert served() == 0
        close(ours(x), net(x))
    assert served() > 0


def test_training_mode_is_the_models_own():
    net, x = Net().eval(), images()
    ours = ft.convert(net).train()
    net.train()
    close(ours(x), net(x))
    assert torch.equal(ours.norm.running_mean, net.norm.running_mean)
    ours.eval()
    close(ours(x), net.eval()(x))
    ours.norm.train()
    assert served() > 0
    ours(x)
    assert served() == 0


CHANGES = {
    "load_state_dict": lambda net, other: net.load_state_dict(other.state_dict()),
    "copy_": lambda net, other: [a.copy_(b) for a, b in zip(net.parameters(), other.parameters(), strict=True)],
    "buffers": lambda net, other: net.norm.running_mean.add_(1),
    "other data": lambda net, other: setattr(net.one.weight, "data", -net.one.weight.data),
    "another parameter": lambda net, other: setattr(net.one, "weight", other.one.weight),
    "another layer": lambda net, other: setattr(net, "two", other.two),
    "double": lambda net, other: net.double(),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_no_change_goes_unnoticed(name, last):
    net, other, x = Net().eval().requires_grad_(False), Net().eval().requires_grad_(False), laid_out(images(), last)
    ours = ft.convert(net)
    before = ours(x)
    with torch.no_grad():
        for model in (ours, net):
            CHANGES[name](model, other)
    x = x.double() if name == "double" else x
    assert name == "double" or not torch.allclose(net(x), before)
    served()
    close(ours(x), net(x))
    assert served() > 0


def test_hooks_that_come_later_are_called():
    ours, seen, x = ft.convert(Hooked()), [], images()
    expected = ours(x)
    handle = ours.relu.register_forward_hook(lambda *_: seen.append(1))
    close(ours(x), expected)
    assert seen == [1]
    handle.remove()
    handle = ours.inner.register_forward_hook(lambda *_: seen.append(2))
    close(ours(x), expected)
    assert seen == [1, 2]
    handle.remove()
    ours.register_forward_hook(lambda *_: seen.append(3))
    close(copy.deepcopy(ours)(x), expected)
    assert seen == [1, 2, 3]


def test_copies_have_weights_of_their_own():
    ours, x = ft.convert(Net()), images()
    expected = ours(x)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin.state_dict().keys() == ours.state_dict().keys()
        close(twin(x), expected)
        with torch.no_grad():
            twin.one.weight.mul_(2)
        assert not torch.allclose(twin(x), expected)
    assert torch.equal(ours(x), expected)


def test_memory_is_flat_after_many_sizes():
    net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)).eval()
    ours = ft.convert(net)
    kept = []
    with torch.no_grad():
        for i in range(60):
            x = torch.randn(1 + i % 7, 3, 6 + i, 8)
            close(ours(x), net(x))
            ((region,), _) = regions(ours, x)
            (compiled,) = region.nets.values()
            kept.append(compiled.memory)
    assert max(memory.programs for memory in kept) == 16
    assert max(memory.packed for memory in kept) <= 12 * sum(p.nbytes for p in net.parameters())


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x, other=None, double=False):
        y = self.conv(x)
        y = y if other is None else y + other
        return y * 2 if double else y


def test_arguments_that_are_left_out():
    net, x, other = Optional().eval().requires_grad_(False), images(), torch.randn(4, 1, 1)
    ours = ft.convert(net)
    for call in (lambda m: m(x), lambda m: m(x, other), lambda m: m(other=other, x=x), lambda m: m(x)):
        close(call(ours), call(net))
    assert served() == 4
    close(ours(x, double=True), net(x, double=True))  # which decides over the graph
    with pytest.raises(TypeError):
        ours()


def test_several_results_and_other_dtypes():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x, index):
            y = self.conv(x)
            return {"y": y, "picked": (y.relu_() * 2)[index], "size": y.shape[2]}

    net, x, index = Several().eval().requires_grad_(False), images(4), torch.tensor([2, 0])
    expected, found = net(x, index), ft.convert(net)(x, index)
    assert found["size"] == expected["size"]
    close(found["y"], expected["y"])
    close(found["picked"], expected["picked"])


def test_writes_that_others_see():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)

        def forward(self, x):
            x.add_(1)
            y = self.conv(x)
            part = y[:, :2]
            part.mul_(3)
            flat = y.view(y.size(0), -1)
            flat.cumsum_(1)
            return self.pool(y), part, flat

    net, x = Writes().eval().requires_grad_(False), images()
    ours, theirs = x.clone(), x.clone()
    for a, b in zip(ft.convert(net)(ours), net(theirs), strict=True):
        close(a, b, terms=10**5)
    assert torch.equal(ours, theirs)  # the caller sees it, too


def test_models_that_fit_no_network_raise_torchs_errors():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    for x in (torch.ones(1, 2, 8, 8), torch.ones(1, 3, 2, 2), torch.ones(1, 3, 8, 8).long()):
        with pytest.raises(RuntimeError) as theirs:
            net(x)
        with pytest.raises(RuntimeError) as ours:
            ft.convert(net)(x)
        assert str(ours.value) == str(theirs.value)
    close(ft.convert(net)(torch.ones(3, 8, 8)), net(torch.ones(3, 8, 8)))  # without a batch
    assert ft.convert(net)(torch.ones(0, 3, 8, 8)).shape == (0, 4, 6, 6)
