# SPDX-License-Identifier: BSD-3-Clause
"""How well ``auto`` chooses: every algorithm that serves a layer is timed, and the one chosen set against the fastest.

    python benchmarks/choice.py --network table untuned --threads 2 --json choice.json

A choice within a tenth of the fastest counts as right. Layers run hot, by plans; algorithms take turns.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.bench.cases import ConvCase
from fastconv.bench.shapes import NETWORKS, ConvLayer, conv_layers
from fastconv.bench.timing import median_seconds

RIGHT = 1.1
#: Not in the running: loops to compare with, and what is taken by name only.
OUTSIDE = ("reference", "winograd_f6")


def contenders(case: ConvCase, layout: str) -> tuple[str, dict[str, Callable[[], Any]]]:
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


def measure(layer: ConvLayer, layout: str, rounds: int, slice_time: float) -> dict[str, Any]:
    """Milliseconds of every algorithm on one layer, and the factor that the choice loses."""
    chosen, calls = contenders(ConvCase(layer), layout)
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
        "chosen": chosen,
        "milliseconds": times,
        "loss": times[chosen] / min(times.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=["table", "untuned"])
    parser.add_argument("--layout", nargs="+", choices=("NCHW", "NHWC"), default=["NCHW", "NHWC"])
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slice", type=float, default=0.01, help="seconds of a turn")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    found = []
    with fc.threads(args.threads):
        for network in args.network:
            for layer in conv_layers(network):
                for layout in args.layout:
                    row = measure(layer, layout, args.rounds, args.slice)
                    found.append(row)
                    if row["loss"] > RIGHT:
                        times = ", ".join(f"{n} {t:.3f}" for n, t in sorted(row["milliseconds"].items()))
                        print(
                            f"{layer.label} {layout}: {row['chosen']} loses {row['loss']:.2f}x ({times} ms)", flush=True
                        )
    right = sum(row["loss"] <= RIGHT for row in found)
    loss = math.exp(sum(math.log(row["loss"]) for row in found) / len(found))
    print(f"{right} of {len(found)} within a tenth of the fastest ({right / len(found):.1%}); mean loss {loss:.3f}x")
    if args.json:
        Path(args.json).write_text(json.dumps({"isa": fc.isa(), "threads": args.threads, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
