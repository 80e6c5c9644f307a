# SPDX-License-Identifier: BSD-3-Clause
"""The dynamo backend, and random programs of torch's behind each door that runs networks."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv as fc  # noqa: E402
import fastconv.torch as ft  # noqa: E402
from torch_nets import Net, close, images, laid_out, seeded  # noqa: E402, F401


class Backend:
    """Ours, and what it made."""

    def __init__(self):
        torch._dynamo.reset()
        self.made = []

    def __call__(self, graph, inputs):
        run = ft.backend(graph, inputs)
        self.made.append(run.__self__)
        return run

    def regions(self):
        return [m for made in self.made for m in made.children() if type(m).__name__ == "Region"]


def steps(region):
    (graph,) = region.graphs.values()
    return [node.op for node in graph.nodes]


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_inference_is_run_by_a_network(last):
    net, backend = Net().eval(), Backend()
    compiled = torch.compile(net, backend=backend)
    with torch.no_grad():
        for n in (2, 2, 3, 5):  # from the second size on for all of them
            x = laid_out(images(n), last)
            close(compiled(x), net(x))
        assert [steps(region)[:4] for region in backend.regions()] == [["conv", "max_pool", "conv", "conv"]] * 2
        assert all(region.nets.keys() == {(np.dtype(np.float32), last)} for region in backend.regions())
        before = compiled(x)
        net.load_state_dict(Net().state_dict())
        close(compiled(x), net(x))
        assert not torch.allclose(compiled(x), before)
        net.one.weight.data = -net.one.weight.data
        close(compiled(x), net(x))
        net.one.weight = nn.Parameter(net.one.weight * 2)
        close(compiled(x), net(x))


@pytest.mark.slow
def test_gradients_and_training_go_through_our_operators():
    net, twin, x = Net(), Net(), images()
    twin.load_state_dict(net.state_dict())
    compiled = torch.compile(net, backend=Backend())
    for _ in range(2):
        compiled(x).square().sum().backward()
        twin(x).square().sum().backward()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        close(ours.grad, theirs.grad, terms=10**5)
    close(net.norm.running_mean, twin.norm.running_mean)
    assert ft.report()["served"]["conv2d"] == 6
    net.eval(), twin.eval()
    with torch.no_grad():
        close(compiled(x), twin(x))


@pytest.mark.slow
def test_what_is_written_in_place_is_seen():
    layer, backend = nn.Conv2d(3, 4, 3).eval(), Backend()

    def call(x):
        x += 1
        y = layer(x)
        F.relu_(y)
        z = y[:, :2]
        z *= 2
        return y, layer(x)

    compiled, x = torch.compile(call, backend=backend), images()
    with torch.no_grad():
        ours, theirs = x.clone(), x.clone()
        for a, b in zip(compiled(ours), call(theirs), strict=True):
            close(a, b)
        assert torch.equal(ours, theirs)
    assert ft.report()["served"]["conv2d"] >= 2


# --- random programs --------------------------------------------------------------------------------------------------


class Program(nn.Module):
    """Lines of which each makes or changes a tensor, of those before."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        self.conv, self.wide = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.relu, self.drop = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout()
        self.hooked, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1)
        if rng.random() < 0.3:
            self.hooked.register_forward_hook(lambda module, args, y: y * 2)
        self.lines = [(rng.choice(LINES), rng.randrange(100), rng.randrange(100)) for _ in range(12)]
        self.results = [rng.randrange(100) for _ in range(2)]

    def forward(self, x):
        values = [self.conv(x)]
        for line, i, j in self.lines:
            # One of the last three more often than not, so that chains are long.
            a, b = (values[-1 - k % min(len(values), 3 if k % 2 else 100)] for k in (i, j))
            values.append(line(self, a, b))
        return [values[-1], *(values[k % len(values)] for k in self.results)]


LINES = [
    *(lambda m, a, b: m.conv(a), lambda m, a, b: m.norm(m.wide(a)), lambda m, a, b: m.hooked(a)),
    *(lambda m, a, b: m.relu(a), lambda m, a, b: m.pool(a), lambda m, a, b: F.avg_pool2d(a, 3, 1, 1)),
    *(lambda m, a, b: a + b, lambda m, a, b: a * b.sigmoid(), lambda m, a, b: F.silu(a), lambda m, a, b: m.drop(a)),
    *(lambda m, a, b: a.add_(0.5), lambda m, a, b: a.mul_(b.tanh()), lambda m, a, b: F.relu(a, True)),
    *(lambda m, a, b: a.view(a.size(0), 4, 6, 6), lambda m, a, b: a.contiguous(), lambda m, a, b: a.clone()),
    *(lambda m, a, b: torch.cat([a[:, :2], b[:, 2:]], 1), lambda m, a, b: torch.cat(a.split(2, 1)[::-1], 1)
      if not isinstance(a, torch.fx.Proxy) else torch.cat([a[:, 2:], a[:, :2]], 1)),
    *(lambda m, a, b: (a[:, 1:3].mul_(0.5), a)[1], lambda m, a, b: torch.flip(a, (3,)), lambda m, a, b: torch.tanh(a)),
    *(lambda m, a, b: a.cumsum_(2).mul_(0.1), lambda m, a, b: a * a.mean((2, 3), keepdim=True)),
]  # fmt: skip


def program(seed):
    torch.manual_seed(seed)
    net = Program(seed).eval().requires_grad_(False)
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.double(), torch.randn(2, 4, 6, 6, dtype=torch.float64)


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), b, rtol=1e-9, atol=1e-9, check_stride=False)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("seed", range(80))
def test_random_programs_converted(seed, last):
    net, x = program(seed)
    x = laid_out(x, last)  # `contiguous` copies or not by how a tensor lies
    expected = net(x.clone(memory_format=torch.preserve_format))
    agree(ft.convert(net)(x), expected)
    assert ft.report()["served"]["conv2d"] >= 1


@pytest.mark.parametrize("seed", range(80))
def test_random_programs_compiled(seed):
    net, x = program(seed)
    expected = net(x.clone())
    try:
        compiled = fc.compile(net, (None, 4, 6, 6))
    except TypeError as error:
        if "it writes to a" not in str(error):
            raise
    else:
        agree(compiled(x.numpy()), expected)
