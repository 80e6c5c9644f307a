# SPDX-License-Identifier: BSD-3-Clause
"""Whole networks under PyTorch: as they are, under ``fastconv.torch.accelerate()``, and converted.

    python benchmarks/torch_models.py --threads 2 --json torch_models.json

Random weights, batch 1, 224 x 224, evaluation mode. The contenders take turns, and the figures are medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import fastconv as fc
import fastconv.torch as ft


def vgg16() -> nn.Module:
    layers, channels = [], 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(4096, 1000))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and around them the identity or a 1x1."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        self.relu, self.around = nn.ReLU(inplace=True), None
        if stride != 1 or channels != out:
            self.around = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.around is None else self.around(x)
        y = self.body(x)
        y += identity
        return self.relu(y)


def resnet50() -> nn.Module:
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            layers.append(Bottleneck(channels, width, stride if i == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def mobilenet_v1() -> nn.Module:
    def block(channels: int, out: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, out, 1, bias=False)
        first = [depthwise, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        return [*first, pointwise, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

    layers, channels = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)], 32
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for out, stride in plan:
        layers += block(channels, out, stride)
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


def prepared(net: nn.Module) -> nn.Module:
    """With statistics that keep activations near one."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return net.eval()


def contenders(net: nn.Module, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    last, converted = copy.deepcopy(net).to(memory_format=torch.channels_last), ft.convert(net)
    x_last = x.to(memory_format=torch.channels_last)
    accelerated, frozen = ft.accelerate()(net), ft.accelerate(frozen=True)(net)
    return {
        "torch NCHW": lambda: net(x),
        "torch channels_last": lambda: last(x_last),
        "accelerate NCHW": lambda: accelerated(x),
        "frozen NCHW": lambda: frozen(x),
        "convert": lambda: converted(x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=8, help="of a turn")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fc.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = {}
    for make in (vgg16, resnet50, mobilenet_v1):
        net, x = prepared(make()), torch.randn(1, 3, 224, 224)
        calls = contenders(net, x)
        times: dict[str, list[float]] = {name: [] for name in calls}
        with torch.inference_mode():
            expected = calls["torch NCHW"]()
            for name, call in calls.items():
                error = float((call() - expected).abs().max() / expected.abs().max())
                if error > 1e-3:
                    raise SystemExit(f"{make.__name__}, {name}: differs by {error:.1e}")
            for _ in range(args.rounds):
                for name, call in calls.items():
                    time.sleep(0.05)
                    call()
                    for _ in range(args.calls):
                        start = time.perf_counter()
                        call()
                        times[name].append(time.perf_counter() - start)
        row = {name: 1e3 * median(found) for name, found in times.items()}
        rows[make.__name__] = row
        print(f"{make.__name__:<14}" + "  ".join(f"{name} {value:.2f} ms" for name, value in row.items()))
        print(
            f"{'':<14}channels_last ÷ convert {row['torch channels_last'] / row['convert']:.2f}, "
            f"NCHW ÷ accelerate {row['torch NCHW'] / row['accelerate NCHW']:.2f}, "
            f"÷ frozen {row['torch NCHW'] / row['frozen NCHW']:.2f}",
            flush=True,
        )
    if args.json:
        about = {"isa": fc.isa(), "threads": args.threads, "torch": torch.__version__, "cpu": fc.config()["cpu"]}
        Path(args.json).write_text(json.dumps({**about, "milliseconds": rows}, indent=1))


if __name__ == "__main__":
    main()
