# SPDX-License-Identifier: BSD-3-Clause
"""What records or repeats operators sees torch's own: tracers, exporters, transforms, activation checkpoints."""

import contextlib
import io
import os
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fastconv.torch as ft  # noqa: E402
from torch_nets import Net, close, images, seeded  # noqa: E402, F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


# ---------------------------------------------------------------------------------------------------------- recorders


def door(name, net):
    """The network and the context of a door, called often enough that weights are packed."""
    context = ft.accelerate(frozen=name == "frozen") if name in ("accelerate", "frozen") else contextlib.nullcontext()
    hook = net.register_forward_hook(lambda *_: None) if name == "layers" else None  # so that fx does not trace it
    net = net if name in ("accelerate", "frozen") else ft.convert(net)
    if hook is not None:
        net._forward_hooks.clear()
    with context:
        for _ in range(2):
            net(images())
    assert sum(ft.report(reset=True)["served"].values()) >= 2
    return net, context


class Compiled:
    """What dynamo makes of a call: its graph, and the call."""

    def __init__(self, call):
        torch._dynamo.reset()
        self.call = torch.compile(call, backend=self.backend, fullgraph=True)
        self.call(images())

    def backend(self, graph, _):
        self.graph = graph.graph
        return graph.forward

    def __call__(self, x):
        return self.call(x)


RECORDERS = {
    "jit.trace": lambda call: torch.jit.trace(call, images()),
    "jit.script": torch.jit.script,
    "make_fx": lambda call: make_fx(call)(images()),
    "make_fx before dispatch": lambda call: make_fx(call, pre_dispatch=True)(images()),
    "make_fx of symbols": lambda call: make_fx(call, tracing_mode="symbolic", _allow_non_fake_inputs=True)(images()),
    "symbolic_trace": lambda call: torch.fx.symbolic_trace(call),
    "export": lambda call: torch.export.export(call, (images(),), strict=False).module(),
    "strict export": lambda call: torch.export.export(call, (images(),), strict=True).module(),
    "compile": Compiled,
}


def operators(recorded):
    """Everything that a graph calls, of whatever kind it is."""
    if isinstance(recorded, torch.jit.ScriptModule):
        return " ".join(node.kind() for node in recorded.inlined_graph.nodes())
    nodes = (node for node in recorded.graph.nodes if node.op not in ("placeholder", "get_attr", "call_module"))
    return " ".join(f"{getattr(node.target, '__module__', '')}.{node.target}" for node in nodes)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ["accelerate", "frozen", "convert", "layers"])
@pytest.mark.parametrize("recorder", RECORDERS)
def test_a_recorder_sees_torchs_own_operators(recorder, name, gradients):
    net, other = Net().eval(), images()
    with contextlib.nullcontext() if gradients else torch.no_grad():
        expected = net(other)
        fast, context = door(name, net)
        with context:
            recorded = RECORDERS[recorder](fast)
        assert "fastconv" not in operators(recorded)
        one, two = recorded(other), recorded(images())
    one, two = (y[0] if isinstance(y, tuple) else y for y in (one, two))
    close(one, expected)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("name", ["accelerate", "frozen", "convert"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_traces_in_every_rank(rank, name):
    conv, up = getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d")
    layers = [conv(3, 4, 3), getattr(nn, f"MaxPool{rank}d")(2), up(4, 2, 2), getattr(nn, f"LPPool{rank}d")(2.0, 2)]
    net = nn.Sequential(*layers, getattr(nn, f"AdaptiveAvgPool{rank}d")(2)).eval()
    x, other = torch.randn(1, 3, *[10] * rank), torch.randn(1, 3, *[10] * rank)
    context = contextlib.nullcontext() if name == "convert" else ft.accelerate(frozen=name == "frozen")
    with torch.no_grad():
        with context:
            fast = ft.convert(net) if name == "convert" else net
            fast(x), fast(x)
            traced = torch.jit.trace(fast, x)
        assert "fastconv" not in operators(traced)
        close(traced(other), net(other))


@pytest.mark.parametrize("name", ["accelerate", "frozen", "convert"])
def test_the_older_onnx_exporter(name):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net, file, x = Net().eval(), io.BytesIO(), images()
    with torch.no_grad():
        fast, context = door(name, net)
        with context:
            torch.onnx.export(fast, (images(),), file, input_names=["x"], dynamo=False)
        session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": x.numpy()})
        close(torch.from_numpy(found), net(x))


def test_what_is_fake_stays_fake():
    from torch._subclasses.fake_tensor import FakeTensorMode

    net = Net().eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        fake = mode.from_tensor(images())
        for name in ("accelerate", "frozen"):
            assert tuple(ft.accelerate(frozen=name == "frozen")(net)(fake).shape) == (2, 5)
        with ft.accelerate():
            inside = F.max_pool2d(fake, 2)
    with ft.accelerate():  # and without the mode
        outside = F.max_pool2d(fake, 2)
    assert type(inside) is type(outside) is type(fake)
    assert ft.report()["served"] == {}


def test_counters_of_operators_count_torchs_own():
    from torch.utils.flop_counter import FlopCounterMode

    net, x = Net().eval(), images()
    counts = []
    for context in (contextlib.nullcontext(), ft.accelerate()):
        with context, FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_the_switch_inside_of_what_is_compiled():
    net, x = Net().eval(), images()

    def inside(x):
        with ft.accelerate():
            return net(x)

    with torch.no_grad():
        close(Compiled(inside)(x), net(x))
    assert ft.report()["served"] == {}


def test_a_script_leaves_the_converted_model_as_it_is():
    net, x = Net().eval(), images()
    with torch.no_grad():
        fast = ft.convert(net)
        torch.jit.script(fast)
        ft.report(reset=True)
        close(fast(x), net(x))
    assert ft.report()["served"] == {
        "conv2d": 3,
        "conv_transpose2d": 1,
        "max_pool2d": 1,
        "avg_pool2d": 1,
        "adaptive_avg_pool2d": 1,
    }


# -------------------------------------------------------------------------------------------- activation checkpoints

LAYERS = {
    **{f"conv{r}d": (getattr(nn, f"Conv{r}d")(3, 4, 3), r) for r in (1, 2, 3)},
    **{f"conv_transpose{r}d": (getattr(nn, f"ConvTranspose{r}d")(3, 4, 2), r) for r in (1, 2, 3)},
    **{f"max_pool{r}d": (getattr(nn, f"MaxPool{r}d")(2), r) for r in (1, 2, 3)},
    **{f"avg_pool{r}d": (getattr(nn, f"AvgPool{r}d")(2), r) for r in (1, 2, 3)},
    **{f"lp_pool{r}d": (getattr(nn, f"LPPool{r}d")(2.0, 2), r) for r in (1, 2, 3)},
    **{f"adaptive_avg_pool{r}d": (getattr(nn, f"AdaptiveAvgPool{r}d")(1), r) for r in (1, 2, 3)},
    **{f"adaptive_max_pool{r}d": (getattr(nn, f"AdaptiveMaxPool{r}d")(2), r) for r in (1, 2, 3)},
}
needs_hooks = pytest.mark.skipif(
    not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"), reason="torch cannot tell of its hooks"
)


def gradients(layer, x, context, inside, reentrant=False, run=checkpoint):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with context:
        y = run(nn.Sequential(layer, nn.Tanh()), x, use_reentrant=reentrant).sum()
        if inside:
            y.backward()
    if not inside:
        y.backward()
    return [x.grad, *(p.grad.clone() for p in layer.parameters())]


@needs_hooks
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_checkpoints_under_the_switch(name, inside, reentrant):
    layer, rank = LAYERS[name]
    x = torch.randn(2, 3, *[8] * rank)
    expected = gradients(layer, x, contextlib.nullcontext(), False)
    for ours, theirs in zip(gradients(layer, x, ft.accelerate(), inside, reentrant), expected, strict=True):
        close(ours, theirs)
    if not reentrant:
        assert ft.report()["served"] == {}
        assert ft.report()["left"][name] == {"an activation checkpoint": 1}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_the_switch_in_a_checkpoint_is_thrown_again_with_it(name, inside):
    layer, rank = LAYERS[name]
    x = torch.randn(2, 3, *[8] * rank)
    expected = gradients(layer, x, contextlib.nullcontext(), False)

    def run(block, x, use_reentrant):
        return checkpoint(ft.accelerate()(block), x, use_reentrant=use_reentrant)

    for ours, theirs in zip(gradients(layer, x, contextlib.nullcontext(), inside, run=run), expected, strict=True):
        close(ours, theirs)
    assert sum(ft.report()["served"].values()) == 2
    assert ft.report()["left"] == {}


@needs_hooks
def test_checkpoints_in_checkpoints():
    net, x = Net(), images()

    def inner(x):
        return checkpoint(net.first, x, use_reentrant=False)

    def outer(x):
        y = ft.accelerate()(inner)(x)  # begins in the outer one, and the inner one begins in it
        return F.adaptive_avg_pool2d(net.pool(y), 2)

    def gradient():
        net.zero_grad()
        checkpoint(outer, x, use_reentrant=False).square().sum().backward()
        return net.first[0].weight.grad.clone()

    with ft.accelerate():
        ours = gradient()
    ft.report(reset=True)
    inner = ft.accelerate()(inner)
    close(ours, gradient())


@needs_hooks
def test_other_hooks_on_what_is_saved_leave_the_switch_alone():
    layer, x = nn.Conv2d(3, 4, 3), images()
    expected = gradients(layer, x, contextlib.nullcontext(), False)
    with torch.autograd.graph.save_on_cpu():
        plain = gradients(layer, x, ft.accelerate(), True, run=lambda block, x, use_reentrant: block(x))
    for ours, theirs in zip(plain, expected, strict=True):
        close(ours, theirs)
    assert ft.report() == {"served": {"conv2d": 1}, "left": {}}


# -------------------------------------------------------------------------------------------------------------- forks

FORKS = """
    import os, sys, threading, time, torch, fastconv as fc, fastconv.torch as ft
    from fastconv.torch import _lock
    torch.set_num_threads(1)
    fc.set_num_threads(1)
    x, w = torch.ones(1, 2, 6, 6), torch.ones(2, 2, 3, 3)

    def call():
        with torch.no_grad(), ft.accelerate():
            return torch.nn.functional.conv2d(x, w)

    call()
    held, released = threading.Event(), threading.Event()

    def hold():
        with _lock.LOCK:
            held.set()
            released.wait(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        call()
        os._exit(0)
    holder.join()
    call()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_fork_while_another_thread_holds_the_lock():
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKS)]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(timeout=60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # the child too, if it hangs
