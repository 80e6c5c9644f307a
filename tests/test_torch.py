# SPDX-License-Identifier: BSD-3-Clause
"""fastconv under PyTorch: operators, the switch, converted and compiled models, and the company that they keep."""

import copy
import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv.torch as ft  # noqa: E402

O = torch.ops.fastconv  # noqa: E741
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    ft.report(reset=True)


def close(a, b, terms=600):
    a, b = a.detach(), b.detach()
    scale = max(1.0, float(b.abs().max()))
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= 2**-22 * terms**0.5 * 4 * scale


# ------------------------------------------------------------------------------------------------------- operators

CONVS = [
    ((2, 4, 11), (6, 2, 3), ([2], [1], [1], False, [0], 2)),
    ((2, 6, 9, 8), (4, 3, 3, 3), ([1, 2], [1, 0], [1, 1], False, [0, 0], 2)),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 1), ([1, 1, 2], [0, 1, 0], [2, 1, 1], False, [0, 0, 0], 1)),
    ((2, 4, 7), (4, 3, 4), ([2], [1], [1], True, [1], 1)),
    ((2, 4, 5, 6), (4, 3, 3, 3), ([2, 2], [1, 1], [1, 1], True, [1, 0], 2)),
    ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), ([2, 2, 2], [0, 0, 0], [1, 1, 1], True, [0, 0, 0], 1)),
]


def laid_out(x, last):
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.to(memory_format=forms[x.ndim]) if last and x.ndim in forms else x


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "geometry"), CONVS)
def test_conv(shape, kernel, geometry, last):
    x = laid_out(torch.randn(shape), last).requires_grad_()
    weight = torch.randn(kernel, requires_grad=True)
    bias = torch.randn(kernel[1] * geometry[-1] if geometry[3] else kernel[0], requires_grad=True)
    result, expected = O.conv(x, weight, bias, *geometry), torch.convolution(x, weight, bias, *geometry)
    close(result, expected)
    if x.ndim < 5:
        assert result.stride() == expected.stride()
    grad = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(result, (x, weight, bias), grad),
        torch.autograd.grad(expected, (x, weight, bias), grad),
        strict=True,
    ):
        close(ours, theirs)
    torch.library.opcheck(O.conv.default, (x, weight, bias, *geometry))
    torch.library.opcheck(O.conv.default, (x, weight, None, *geometry))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling(rank, last):
    x = laid_out(torch.randn(2, 3, *(9, 8, 7)[:rank]), last).requires_grad_()
    three, two, one = [3] * rank, [2] * rank, [1] * rank
    for operator, arguments, theirs in (
        (O.max_pool, (three, two, one, one, True), getattr(F, f"max_pool{rank}d")),
        (O.avg_pool, (three, two, one, True, False, None), getattr(F, f"avg_pool{rank}d")),
        (O.adaptive_avg_pool, (two,), getattr(F, f"adaptive_avg_pool{rank}d")),
    ):
        wanted = arguments[:-1] if theirs is F.avg_pool1d else arguments
        result, expected = operator(x, *arguments), theirs(x, *wanted)
        result = result[0] if isinstance(result, tuple) else result
        close(result, expected)
        grad = torch.randn_like(expected)
        close(torch.autograd.grad(result, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])
        torch.library.opcheck(operator.default, (x, *arguments))


# ------------------------------------------------------------------------------------------------------ the switch


class Net(nn.Module):
    """Convolutions of several kinds with batch norm, a residual, pooling and a classifier."""

    def __init__(self, depthwise=True):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.one, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1, groups=8 if depthwise else 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.pool(self.first(x))
        x = F.relu(self.two(F.relu(self.norm(self.one(x)))) + x)
        x = F.avg_pool2d(self.up(x), 2)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def images(n=2):
    return torch.randn(n, 3, 32, 32)


def test_unchanged_code_is_redirected():
    net, x = Net().eval(), images()
    with torch.no_grad():
        expected = net(x)
        with ft.accelerate():
            close(net(x), expected)
    assert ft.report() == {
        "served": {"conv2d": 3, "max_pool2d": 1, "conv_transpose2d": 1, "avg_pool2d": 1, "adaptive_avg_pool2d": 1},
        "left": {},
    }
    with torch.no_grad():
        close(ft.accelerate()(net)(x), expected)  # as a decorator
        net(x)  # outside of it nothing is counted
    assert sum(ft.report()["served"].values()) == 14


def test_what_is_not_served_is_torchs_and_listed():
    x, w = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    with ft.accelerate():
        assert F.conv2d(x.bfloat16(), w.bfloat16()).dtype is torch.bfloat16
        assert F.conv2d(x.to("meta"), w.to("meta")).device.type == "meta"
        with pytest.raises(RuntimeError, match="expected scalar type"):
            F.conv2d(x, w.double())
        with pytest.raises(RuntimeError):
            F.conv2d(x, torch.ones(1, 2, 3, 3))  # the error is torch's own
    left = ft.report()["left"]["conv2d"]
    assert "bfloat16" in left
    assert any("meta" in reason for reason in left)
    assert "dtypes that differ" in left
    assert any("channels per group" in reason for reason in left)
    assert ft.report()["served"] == {}


def train(net, accelerated, steps=6):
    net = copy.deepcopy(net)
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 3, 32, 32, generator=rng), torch.randint(5, (8,), generator=rng)
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), []

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    run = ft.accelerate()(step) if accelerated else step
    for _ in range(steps):
        run()
    return losses


def test_training_gives_the_same_losses():
    net = Net()
    ours, theirs = train(net, True), train(net, False)
    assert ours[-1] < ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)
    assert ft.report()["left"] == {}


def test_inference_mode_and_autocast():
    net, x = Net().eval(), images()
    with torch.inference_mode():
        expected = net(x)
        with ft.accelerate():
            close(net(x), expected)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), ft.accelerate():
        result = net(x)
    assert float((result.float() - expected).abs().max()) < 0.1
    assert ft.report()["left"] == {}


# --------------------------------------------------------------------------------------------- converted and compiled


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
    assert [m.activation for m in packed] == ["relu", "relu", "relu"]
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


def test_converted_models_are_pickled_and_keep_few_plans():
    layer = ft.convert(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        for size in range(5, 20):
            layer(torch.ones(1, 3, size, size))
        assert len(layer.plans) == 8
        again = copy.deepcopy(layer)
        assert len(again.plans) == 0
    x = images()
    with torch.no_grad():
        assert torch.equal(again(x), layer(x))


def test_a_converted_model_that_needs_gradients_goes_by_torch():
    layer, x = ft.convert(nn.Conv2d(3, 4, 3)), images().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None


@pytest.mark.slow
def test_compile():
    net, x = Net().eval(), images()
    compiled = torch.compile(net, backend=ft.backend)
    with torch.no_grad():
        close(compiled(x), net(x))
    assert ft.report()["served"]["conv2d"] == 3
    net.train()
    loss = torch.compile(net, backend=ft.backend)(x).square().mean()
    loss.backward()
    assert net.first[0].weight.grad is not None


def test_export():
    class Direct(nn.Module):
        def forward(self, x, w):
            return O.conv(x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)

    x, w = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    program = torch.export.export(Direct(), (x, w))
    close(program.module()(x, w), F.conv2d(x, w, padding=1))
    assert any("fastconv.conv" in str(node.target) for node in program.graph.nodes)


# ------------------------------------------------------------------------------------------------------- other company


class Filtered(torch.utils.data.Dataset):
    """Images that the workers convolve."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        with ft.accelerate(), torch.no_grad():
            return F.conv2d(torch.full((1, 1, 64, 64), float(i)), torch.ones(1, 1, 3, 3))[0]


@pytest.mark.slow
def test_workers_of_a_data_loader():
    Filtered()[0]  # threads are there before the fork
    loader = torch.utils.data.DataLoader(Filtered(), batch_size=2, num_workers=2, timeout=60)
    assert [float(batch[1, 0, 0, 0]) for batch in loader] == [9.0, 27.0, 45.0]


DISTRIBUTED = """
    import os, sys, torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    import fastconv.torch as ft
    rank = int(sys.argv[1])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2)]
    net = DistributedDataParallel(torch.nn.Sequential(*layers))
    torch.manual_seed(1 + rank)
    with ft.accelerate():
        net(torch.randn(4, 1, 8, 8)).square().mean().backward()
    grad = net.module[0].weight.grad
    other = [torch.empty_like(grad) for _ in range(2)]
    dist.all_gather(other, grad)
    assert torch.equal(*other) and grad.abs().sum() > 0
    assert ft.report()["served"] == {"conv2d": 1}
    dist.barrier()
    dist.destroy_process_group()
    print("done", flush=True)
    os._exit(0)  # on a busy machine torch's threads may abort the interpreter's end ("terminate called without ...")
"""


@pytest.mark.slow
def test_two_processes_of_distributed_data_parallel():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-c", textwrap.dedent(DISTRIBUTED)]
    both = [
        subprocess.Popen(
            [*command, str(rank), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FASTCONV_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        results = [(*process.communicate(timeout=120), process.returncode) for process in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    for out, errors, status in results:
        assert status == 0, errors
        assert out.strip() == "done"


def test_fastconv_itself_does_not_import_torch():
    code = "import sys, fastconv; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
