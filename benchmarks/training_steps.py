# SPDX-License-Identifier: BSD-3-Clause
"""Steps of training beside torch: forward, cross-entropy, backward, SGD with momentum.

    python benchmarks/training_steps.py --threads 2 --json steps.json
    python benchmarks/training_steps.py --alone --formats
    python benchmarks/training_steps.py --accelerate
    python benchmarks/training_steps.py --memory
    python benchmarks/training_steps.py --networks resnet18 --profile

The networks of fastconv.models and the same in torch, of the same weights. The contenders take turns, torch in both of
its layouts, and the figures are medians. With ``--formats`` ours is there in channels_last, too: told so, or given
images that lie so. With ``--accelerate`` fastconv is torch's network under fastconv.torch.accelerate(). ``--memory``
tells by how much steps make a process grow that has network and batch, each in one of its own. ``--profile`` tells
where ours spends its time, by kinds of layers.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import _core, models, nn, optim
from fastconv.models._parts import Branched

# Network, batch, channels, side, classes.
CASES = {
    "lenet5": (64, 1, 32, 10),
    "vgg11": (16, 3, 64, 1000),
    "resnet18": (16, 3, 64, 1000),
    "mobilenet_v1": (16, 3, 128, 1000),
    "resnet18_224": (16, 3, 224, 1000),
}
RATE, MOMENTUM = 1e-3, 0.9


def twin(module: nn.Module) -> Any:
    """The same in torch, with the same weights."""
    import torch
    from torch import nn as tn

    class Blocks(tn.Module):
        def __init__(self, block: Branched) -> None:
            super().__init__()
            chains = (block.before(), *block.branches(), block.after())
            self.chains = tn.ModuleList(tn.Sequential(*map(twin, chain)) for chain in chains)

        def forward(self, x: Any) -> Any:
            before, *branches, after = self.chains
            x = before(x)
            y = branches[0](x)
            for branch in branches[1:]:
                y = y + branch(x)
            return after(y)

    m: Any = module
    match type(module).__name__:
        case "Conv2d":
            sizes = m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.dilation, m.groups
            made = tn.Conv2d(*sizes, bias=m.bias is not None)
        case "BatchNorm2d":
            made = tn.BatchNorm2d(m.num_features, m.eps, m.momentum)
        case "Linear":
            made = tn.Linear(m.in_features, m.out_features)
        case "MaxPool2d" | "AvgPool2d":
            made = getattr(tn, type(module).__name__)(m.kernel_size, m.stride, m.padding)
        case "AdaptiveAvgPool2d":
            return tn.AdaptiveAvgPool2d(m.output_size)
        case "ReLU" | "ReLU6":
            return getattr(tn, type(module).__name__)(inplace=True)
        case "Tanh" | "Sigmoid" | "Flatten" | "Identity":
            return getattr(tn, type(module).__name__)()
        case "Dropout":
            return tn.Dropout(m.p)
        case _ if isinstance(module, Branched):
            return Blocks(module)
        case _ if isinstance(module, nn.Sequential):
            return tn.Sequential(*map(twin, module))
        case name:
            raise SystemExit(f"{name} has no twin in torch here")
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            made.get_parameter(key).copy_(torch.from_numpy(parameter.value.copy()))
    return made


def our_step(net: Any, x: np.ndarray, target: np.ndarray) -> Callable[[], float]:
    loss, sgd = nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    net.train().needs_input_grad = False

    def step() -> float:
        sgd.zero_grad()
        value = float(loss(net(x), target))
        net.backward(loss.backward())
        sgd.step()
        return value

    return step


def their_step(net: Any, x: Any, target: Any) -> Callable[[], float]:
    import torch

    sgd = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    net.train()

    def step() -> float:
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), target)
        loss.backward()
        sgd.step()
        return loss.item()

    return step


def accelerated(step: Callable[[], float]) -> Callable[[], float]:
    import fastconv.torch

    def inside() -> float:
        with fastconv.torch.accelerate():
            return step()

    return inside


def in_formats(make: Callable[[], Any], x: np.ndarray, target: np.ndarray) -> dict[str, Callable[[], float]]:
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    told, given = make().to(memory_format="channels_last"), make()
    return {"fastconv told": our_step(told, x, target), "fastconv given": our_step(given, last, target)}


def contenders(
    name: str, peers: bool, accelerate: bool = False, formats: bool = False
) -> dict[str, Callable[[], float]]:
    batch, channels, side, classes = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, side, side), dtype=np.float32)
    target = rng.integers(0, classes, batch)
    make = getattr(models, name.removesuffix("_224"))

    def ours() -> Any:
        return make(num_classes=classes, in_channels=channels, rng=0)

    net, steps = ours(), in_formats(ours, x, target) if formats else {}
    if peers:
        import torch

        last = torch.channels_last
        tensor, labels, plain, other = torch.from_numpy(x), torch.from_numpy(target), twin(net), twin(net)
        expected, found = plain.eval()(tensor).detach().numpy(), net.eval()(x)
        error = float(np.abs(expected - found).max() / np.abs(expected).max())
        if error > 1e-3:
            raise SystemExit(f"{name}: the twin differs by {error:.1e}")
        steps["torch NCHW"] = their_step(plain, tensor, labels)
        steps["torch channels_last"] = their_step(other.to(memory_format=last), tensor.to(memory_format=last), labels)
        if accelerate:
            twins = twin(net), twin(net).to(memory_format=last)
            both = their_step(twins[0], tensor, labels), their_step(twins[1], tensor.to(memory_format=last), labels)
            return {f"fastconv {k}": accelerated(step) for k, step in zip(("NCHW", "NHWC"), both, strict=True)} | steps
    return {"fastconv": our_step(net, x, target), **steps}


def measured(steps: dict[str, Callable[[], float]], rounds: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of each, in turns of so many seconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            time.sleep(0.05)
            step()
            end = time.perf_counter() + seconds
            while True:
                start = time.perf_counter()
                step()
                now = time.perf_counter()
                times[name].append(now - start)
                if now > end:
                    break
    return {name: 1e3 * median(found) for name, found in times.items()}


def kibibytes(name: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(f"{name}:"))


def growth(name: str, which: str) -> float:
    """Mebibytes by which three steps of one contender make this process grow, which does nothing else."""
    everyone = contenders(name, which != "fastconv")
    step = everyone.pop(which)
    everyone.clear()
    gc.collect()
    _core.forget_memory()
    ctypes.CDLL(None).malloc_trim(0)  # what comparing the networks took
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    before = kibibytes("VmRSS")
    for _ in range(3):
        step()
    return (kibibytes("VmHWM") - before) / 1024


def memory(name: str, args: argparse.Namespace) -> dict[str, float]:
    """The same of each, in processes of their own."""
    command = [sys.executable, __file__, "--networks", name, "--threads", str(args.threads), "--growth"]
    names = ["fastconv"] if args.alone else ["fastconv", "torch NCHW", "torch channels_last"]
    return {which: float(subprocess.check_output([*command, which], text=True)) for which in names}


def profile(name: str, calls: int) -> None:
    """Milliseconds of a step by kinds of layers and directions."""
    spent: dict[str, float] = defaultdict(float)
    inner = [0.0]

    def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            outside, inner[0], start = inner[0], 0.0, time.perf_counter()
            result = function(*args, **named)
            passed = time.perf_counter() - start
            spent[what] += passed - inner[0]
            inner[0] = outside + passed
            return result

        return run

    for kind in {cls for cls in vars(nn).values() if isinstance(cls, type) and issubclass(cls, nn.Module)}:
        for method in ("forward", "_clamped", "backward"):  # _clamped: forward, and the clamp behind it
            direction = "backward" if method == "backward" else "forward"
            setattr(kind, method, timed(f"{kind.__name__} {direction}", getattr(kind, method)))
    optim.SGD.step = timed("SGD step", optim.SGD.step)
    step = contenders(name, peers=False)["fastconv"]
    step()
    spent.clear()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    total = time.perf_counter() - start
    spent["between layers"] = total - sum(spent.values())
    for what, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        if seconds / total > 0.002:
            print(f"{what:<28}{1e3 * seconds / calls:9.3f} ms {100 * seconds / total:6.1f}%")
    print(f"{'a step':<28}{1e3 * total / calls:9.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn")
    parser.add_argument("--alone", action="store_true", help="without torch")
    parser.add_argument("--formats", action="store_true", help="fastconv's in channels_last, too")
    parser.add_argument("--accelerate", action="store_true", help="torch's networks under accelerate()")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--growth", help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    fc.set_num_threads(args.threads)
    if args.profile:
        for name in args.networks:
            print(name)
            profile(name, 5)
        return
    if not args.alone and args.growth != "fastconv":
        import torch

        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
    if args.growth:
        print(growth(args.networks[0], args.growth))
        return
    unit, rows = "MiB" if args.memory else "ms", {}
    for name in args.networks:
        if args.memory:
            row = memory(name, args)
        else:
            row = measured(contenders(name, not args.alone, args.accelerate, args.formats), args.rounds, args.seconds)
        rows[name] = row
        ours = min(value for key, value in row.items() if key.startswith("fastconv"))
        best = min((value for key, value in row.items() if not key.startswith("fastconv")), default=float("nan"))
        print(
            f"{name:<14}" + "  ".join(f"{key} {value:.2f} {unit}" for key, value in row.items()),
            f" {best / ours:.2f}x",
            flush=True,
        )
    if args.json:
        about = {"isa": fc.isa(), "threads": args.threads, "cpu": fc.config()["cpu"]}
        figures = "mebibytes" if args.memory else "milliseconds"
        Path(args.json).write_text(json.dumps({**about, figures: rows}, indent=1))


if __name__ == "__main__":
    main()
