# SPDX-License-Identifier: BSD-3-Clause
"""How well ``auto`` chooses: every algorithm that serves a layer is timed, and the one chosen set against the fastest.

    python benchmarks/choice.py --network table untuned kinds --threads 2 --json choice.json
    python benchmarks/choice.py --network table resnet50 --of input weight --batch 8
    python benchmarks/choice.py --network table mobilenet_v1 --of all --batch 8

A choice within a tenth of the fastest counts as right. Layers run hot, algorithms take turns: forward by plans,
gradients by single calls, whose weights are packed each time. ``--of all`` is one call for the gradients of input,
weight and bias; beside it are those of the three one after the other (apart).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import _args
from fastconv.bench.cases import ConvCase, GradientCase
from fastconv.bench.shapes import NETWORKS, ConvLayer, conv_layers
from fastconv.bench.timing import median_seconds

RIGHT = 1.1
#: Not in the running: loops to compare with, and what is taken by name only.
OUTSIDE = ("reference", "winograd_f6")
#: Nor what takes so many times as long as another in its first call.
FAR = 5


def forward(case: ConvCase, layout: str) -> tuple[str, dict[str, Callable[[], Any]]]:
    """What ``auto`` takes, and a call of each algorithm that serves."""
    x, arguments = case.input(layout), case.layer.arguments
    names = fc.algorithms(x.shape, case.weight.shape, **arguments, layout=layout, dtype=case.dtype)
    calls = {}
    for name in names:
        if name in OUTSIDE:
            continue
        plan = fc.ConvPlan(x.shape, case.weight, case.bias, **arguments, layout=layout, algorithm=name)
        out = np.empty(plan.output_shape, case.dtype)
        calls[name] = lambda plan=plan, out=out: plan(x, out=out)
    return names[0], calls


def gradient(case: GradientCase, layout: str, of: str) -> tuple[str, dict[str, Callable[[], Any]]]:
    """The same of gradients. ``auto`` is in the running itself: its parts may have algorithms of their own."""
    x, grad = case.input(layout), case.grad_output(layout)
    call: Callable[..., Any]
    match of:
        case "input":
            call = partial(fc.grad.conv2d_input, x.shape, case.weight, grad)
        case "weight":
            call = partial(fc.grad.conv2d_weight, x, case.weight.shape, grad)
        case _:
            call = partial(fc.grad.conv2d, x, case.weight, grad)
    runs: dict[str, Callable[[], Any]] = {
        name: partial(call, **case.layer.arguments, layout=layout, algorithm=name)
        for name in ("auto", *(name for name in _args.ALGORITHMS if name not in (*OUTSIDE, "auto")))
    }
    if of == "all":
        runs["apart"] = partial(one_by_one, runs["auto"])
    calls: dict[str, Callable[[], Any]] = {}
    first: dict[str, float] = {}
    for name, run in runs.items():
        start = time.perf_counter()
        try:
            run()
        except NotImplementedError:
            continue
        calls[name], first[name] = run, time.perf_counter() - start
    return "auto", {
        name: run for name, run in calls.items() if name == "auto" or first[name] < FAR * min(first.values())
    }


def one_by_one(call: Callable[..., Any]) -> None:
    """The gradients of a call for all of them, which shares nothing among them."""
    for name in _args.GRADIENTS:
        call(needs=(name,))


def measure(layer: ConvLayer, layout: str, of: str, batch: int, rounds: int, slice_time: float) -> dict[str, Any]:
    """Milliseconds of every algorithm on one layer, and the factor that the choice loses."""
    chosen, calls = (
        forward(ConvCase(layer, batch), layout) if of == "forward" else gradient(GradientCase(layer, batch), layout, of)
    )
    turns = [
        {name: median_seconds(call, min_time=slice_time, min_runs=3) for name, call in calls.items()}
        for _ in range(rounds)
    ]
    times = {name: 1e3 * median(turn[name] for turn in turns) for name in calls}
    return {
        "network": layer.network,
        "layer": layer.name,
        "shape": layer.label,
        "layout": layout,
        "of": of,
        "batch": batch,
        "chosen": chosen,
        "milliseconds": times,
        "loss": times[chosen] / min(times.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=["table", "untuned", "kinds"])
    parser.add_argument("--layout", nargs="+", choices=("NCHW", "NHWC"), default=["NCHW", "NHWC"])
    parser.add_argument("--of", nargs="+", choices=("forward", "input", "weight", "all"), default=["forward"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slice", type=float, default=0.01, help="seconds of a turn")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    found = []
    with fc.threads(args.threads):
        for network in args.network:
            for layer, layout, of in product(conv_layers(network), args.layout, args.of):
                row = measure(layer, layout, of, args.batch, args.rounds, args.slice)
                found.append(row)
                if row["loss"] > RIGHT:
                    times = ", ".join(f"{n} {t:.3f}" for n, t in sorted(row["milliseconds"].items()))
                    what = f"{layer.label} {layout} {of}"
                    print(f"{what}: {row['chosen']} loses {row['loss']:.2f}x ({times} ms)", flush=True)
    right = sum(row["loss"] <= RIGHT for row in found)
    loss = math.exp(sum(math.log(row["loss"]) for row in found) / len(found))
    print(f"{right} of {len(found)} within a tenth of the fastest ({right / len(found):.1%}); mean loss {loss:.3f}x")
    if args.json:
        Path(args.json).write_text(json.dumps({"isa": fc.isa(), "threads": args.threads, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
