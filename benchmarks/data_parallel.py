# SPDX-License-Identifier: BSD-3-Clause
"""Training steps of torch's DistributedDataParallel over gloo: one process of many threads, and many processes of one.

    python benchmarks/data_parallel.py --processes 2 --batch 32

The batch is shared by all processes. Contenders take turns; the figures are the best steps of all rounds.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

STEPS, ROUNDS = 6, 3


def network():
    from torch import nn

    layers, channels = [], 3
    for width in (64, 64, 128, 128, 256, 256):
        stride = 2 if width > channels > 3 else 1
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 100))


def work(threads: int, batch: int, size: int, accelerated: bool) -> None:
    """One process of several, of which the first prints the seconds of its best step."""
    import torch
    import torch.distributed as dist

    import fastconv as fc
    import fastconv.torch

    dist.init_process_group("gloo")
    torch.set_num_threads(threads)
    fc.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(network())
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    own = batch // dist.get_world_size()
    images, labels = torch.randn(own, 3, size, size), torch.arange(own) % 100
    best = float("inf")
    with fastconv.torch.accelerate() if accelerated else nullcontext():
        for _ in range(STEPS):
            start = time.perf_counter()
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            sgd.step()
            best = min(best, time.perf_counter() - start)
    if dist.get_rank() == 0:
        print(best, flush=True)
    dist.destroy_process_group()


def seconds(processes: int, threads: int, args: argparse.Namespace, accelerated: bool) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--work", str(threads), "--batch", str(args.batch), "--size", str(args.size)]
    command += ["--accelerated"] if accelerated else []
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **world, "RANK": str(rank)})
        for rank in range(processes)
    ]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(1)
    return float(printed[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="images of all processes together")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="their height and width")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--accelerated", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.batch, args.size, args.accelerated)
        return
    forms = {(1, 1): "one process, one thread", (1, args.processes): f"one process, {args.processes} threads"}
    forms[args.processes, 1] = f"{args.processes} processes, one thread each"
    contenders = [(form, accelerated) for form in forms for accelerated in (False, True)]
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(ROUNDS):
        for form, accelerated in contenders:
            best[form, accelerated] = min(best[form, accelerated], seconds(*form, args, accelerated))
    print(f"{'images/s':32}{'torch':>10}{'accelerate()':>14}")
    for form, text in forms.items():
        rates = [args.batch / best[form, accelerated] for accelerated in (False, True)]
        print(f"{text:32}{rates[0]:10.1f}{rates[1]:14.1f}")


if __name__ == "__main__":
    main()
