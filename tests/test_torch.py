# SPDX-License-Identifier: BSD-3-Clause
"""fastconv under PyTorch: operators, the switch, compiled models, and the company that they keep."""

import copy
import os
import socket
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv.torch as ft  # noqa: E402
from torch_nets import Net, close, images, laid_out, seeded  # noqa: E402, F401

O = torch.ops.fastconv  # noqa: E741
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore::DeprecationWarning")


# ------------------------------------------------------------------------------------------------------- operators

CONVS = [
    ((2, 4, 11), (6, 2, 3), ([2], [1], [1], False, [0], 2)),
    ((2, 6, 9, 8), (4, 3, 3, 3), ([1, 2], [1, 0], [1, 1], False, [0, 0], 2)),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 1), ([1, 1, 2], [0, 1, 0], [2, 1, 1], False, [0, 0, 0], 1)),
    ((2, 4, 7), (4, 3, 4), ([2], [1], [1], True, [1], 1)),
    ((2, 4, 5, 6), (4, 3, 3, 3), ([2, 2], [1, 1], [1, 1], True, [1, 0], 2)),
    ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), ([2, 2, 2], [0, 0, 0], [1, 1, 1], True, [0, 0, 0], 1)),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "geometry"), CONVS)
def test_conv(shape, kernel, geometry, last):
    x = laid_out(torch.randn(shape), last).requires_grad_()
    weight = torch.randn(kernel, requires_grad=True)
    bias = torch.randn(kernel[1] * geometry[-1] if geometry[3] else kernel[0], requires_grad=True)
    result, expected = O.conv(x, weight, bias, *geometry), torch.convolution(x, weight, bias, *geometry)
    close(result, expected)
    wanted = expected.to(memory_format=torch.channels_last_3d) if last and x.ndim == 5 else expected
    assert result.stride() == wanted.stride()  # in three axes torch itself may forget channels_last
    grad = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(result, (x, weight, bias), grad),
        torch.autograd.grad(expected, (x, weight, bias), grad),
        strict=True,
    ):
        close(ours, theirs)
    torch.library.opcheck(O.conv.default, (x, weight, bias, *geometry))
    torch.library.opcheck(O.conv.default, (x, weight, None, *geometry))
    g = torch.randn_like(result).requires_grad_()
    for mask in ([True, True, True], [True, False, False], [False, True, False]):
        torch.library.opcheck(O.conv_backward.default, (g, x, weight, *geometry, mask))


@pytest.mark.parametrize(("shape", "kernel", "geometry"), CONVS)
def test_gradients_of_gradients(shape, kernel, geometry):
    channels = kernel[1] * geometry[-1] if geometry[3] else kernel[0]
    operands = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, kernel, (channels,))]
    assert torch.autograd.gradgradcheck(lambda x, w, b: O.conv(x, w, b, *geometry), operands)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling(rank, last):
    x = laid_out(torch.randn(2, 3, *(9, 8, 7)[:rank]), last).requires_grad_()
    three, two, one = [3] * rank, [2] * rank, [1] * rank
    for operator, arguments, theirs in (
        (O.max_pool, (three, two, one, one, True), getattr(F, f"max_pool{rank}d")),
        (O.avg_pool, (three, two, one, True, False, None), getattr(F, f"avg_pool{rank}d")),
        (O.adaptive_avg_pool, (two,), getattr(F, f"adaptive_avg_pool{rank}d")),
        (O.adaptive_max_pool, (two,), getattr(F, f"adaptive_max_pool{rank}d")),
    ):
        wanted = arguments[:-1] if theirs is F.avg_pool1d else arguments
        result, expected = operator(x, *arguments), theirs(x, *wanted)
        result = result[0] if isinstance(result, tuple) else result
        close(result, expected)
        grad = torch.randn_like(expected)
        close(torch.autograd.grad(result, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])
        torch.library.opcheck(operator.default, (x, *arguments))
    y, where = O.max_pool(x, two, two, [0] * rank, one, False)
    y, size = y.detach().requires_grad_(), list(x.shape[2:])
    close(O.max_unpool(y, where, size), getattr(F, f"max_unpool{rank}d")(y, where, two, output_size=size))
    for operator, arguments in (
        (O.max_unpool, (y, where, size)),
        (O.max_unpool_backward, (x, where)),
        (O.max_pool_backward, (y, where, x)),
        (O.avg_pool_backward, (y, x, two, two, [0] * rank, False, True, None)),
        (O.adaptive_avg_pool_backward, (y, x)),
    ):
        torch.library.opcheck(operator.default, arguments)


def test_gradients_of_gradients_of_pooling():
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    y, where = (t.detach() for t in O.max_pool(x, [2, 2], [2, 2], [0, 0], [1, 1], False))
    for function, operand in (
        (lambda x: O.max_pool(x, [3, 2], [2, 2], [1, 1], [1, 1], True)[0], x),
        (lambda x: O.avg_pool(x, [3, 2], [2, 2], [1, 1], True, False, None), x),
        (lambda x: O.adaptive_avg_pool(x, [2, 3]), x),
        (lambda x: O.adaptive_max_pool(x, [2, 3])[0], x),
        (lambda y: O.max_unpool(y, where, [6, 7]), y.requires_grad_()),
    ):
        assert torch.autograd.gradgradcheck(function, (operand,))


# ------------------------------------------------------------------------------------------------------ the switch


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
        for rank, call in ((1, F.conv1d), (2, F.conv2d), (1, F.conv_transpose1d), (3, F.conv3d)):
            with pytest.raises(RuntimeError, match="weight"):
                call(torch.ones(1, 1, *[4] * rank), torch.ones(1, 3))
    left = ft.report()["left"]["conv2d"]
    assert "bfloat16" in left
    assert any("meta" in reason for reason in left)
    assert "dtypes that differ" in left
    assert any("channels per group" in reason for reason in left)
    assert ft.report()["served"] == {}


def test_all_poolings_are_redirected():
    x, half = torch.randn(2, 3, 8, 8), torch.randn(1, 2, 8, 8).half()
    with ft.accelerate():
        y, where = F.max_pool2d(x, 2, return_indices=True)
        calls = {
            "max_unpool2d": lambda: F.max_unpool2d(y, where, 2),
            "adaptive_max_pool2d": lambda: nn.AdaptiveMaxPool2d((3, None))(x),
            "adaptive_max_pool2d_with_indices": lambda: F.adaptive_max_pool2d(x, 3, return_indices=True)[1],
            "adaptive_max_pool1d": lambda: F.adaptive_max_pool1d(x[0], 3),
            "lp_pool2d": lambda: F.lp_pool2d(x, 2.0, 2),
            "max_pool2d": lambda: F.max_pool2d(half, 3, [], 1),
            "conv2d": lambda: F.conv2d(half, torch.ones(2, 2, 3, 3).half()),
            "conv_transpose2d": lambda: F.conv_transpose2d(half, torch.ones(2, 1, 3, 3).half(), None, 2, groups=2),
        }
        ours = {name: call() for name, call in calls.items()}
    assert ft.report()["left"] == {}
    assert set(ft.report()["served"]) == {*calls, "max_pool2d_with_indices"}
    for name, call in calls.items():
        expected = call()
        assert ours[name].dtype is expected.dtype
        coarse = {"rtol": 2**-9, "atol": 2**-9} if expected.dtype is torch.float16 else {}
        torch.testing.assert_close(ours[name], expected, **coarse)


def test_a_gradient_penalty():
    net, x = (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.AvgPool2d(2)).double(),
        torch.randn(2, 1, 8, 8).double(),
    )

    def penalty():
        net.zero_grad()
        image = x.clone().requires_grad_()
        slope = torch.autograd.grad(net(image).sum(), image, create_graph=True)[0]
        slope.square().sum().backward()
        return net[0].weight.grad.clone()

    torch.testing.assert_close(ft.accelerate()(penalty)(), penalty())
    assert ft.report()["left"] == {}


def test_transforms_of_torch_func_are_torchs():
    x, w = torch.randn(1, 2, 6, 6).double(), torch.randn(3, 2, 3, 3).double()

    def f(x):
        return F.conv2d(x, w).square().sum()

    def forward_mode():
        with torch.autograd.forward_ad.dual_level():
            y = f(torch.autograd.forward_ad.make_dual(x, x))
            return torch.autograd.forward_ad.unpack_dual(y).tangent

    for call in (
        lambda: torch.func.grad(f)(x),
        lambda: torch.func.jvp(f, (x,), (x,))[1],
        lambda: torch.vmap(f)(torch.stack([x, 2 * x])),
        forward_mode,
    ):
        ours, theirs = ft.accelerate()(call)(), call()
        assert float(theirs.abs().max()) > 0
        torch.testing.assert_close(ours, theirs)
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


def installed():
    """Whether fastconv is installed with its entry points, and not just on the path."""
    return any(point.name == "fastconv" for point in entry_points(group="torch_dynamo_backends"))


@pytest.mark.slow
def test_compile():
    net, x = Net().eval(), images()
    compiled = torch.compile(net, backend="fastconv" if installed() else ft.backend)
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
            return F.conv2d(torch.full((1, 64, 56, 56), float(i)), torch.ones(64, 64, 3, 3))[0]


@pytest.mark.slow
def test_workers_of_a_data_loader():
    Filtered()[0]  # threads are there before the fork
    loader = torch.utils.data.DataLoader(Filtered(), batch_size=2, num_workers=2, timeout=60)
    values = [float(batch[1, 0, 0, 0]) for batch in loader]
    assert values == pytest.approx([64 * 9 * i for i in (1, 3, 5)], rel=1e-5)


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


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="libraries are listed in /proc")
@pytest.mark.parametrize("first", ["import torch", "import fastconv"])
def test_there_is_one_openmp_runtime(first):
    code = f"""{first}
import fastconv.torch, torch
with fastconv.torch.accelerate():
    torch.nn.functional.conv2d(torch.ones(1, 64, 56, 56), torch.ones(64, 64, 3, 3)).relu()
runtimes = {{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line or "libomp" in line}}
assert len(runtimes) <= 1, runtimes"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_fastconv_itself_does_not_import_torch():
    code = "import sys, fastconv; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_results_may_be_changed_in_place(form):
    """As torch's own, by the ReLU behind them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.ReLU(inplace=True),
        torch.nn.ConvTranspose2d(4, 3, 2, stride=2),
        torch.nn.ReLU(inplace=True),
        torch.nn.AvgPool2d(2),
        torch.nn.ReLU(inplace=True),
    ).to(memory_format=form)
    x = torch.randn(2, 3, 8, 8).to(memory_format=form)
    gradients = []
    for context in (nullcontext(), ft.accelerate()):
        model.zero_grad()
        with context:
            model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
