# SPDX-License-Identifier: BSD-3-Clause
"""Cliffs: steps from a layer to one that is almost the same at which the time per multiply-add jumps.

    python benchmarks/neighbours.py --network table kinds --threads 1 --json neighbours.json

From each layer a step leads to one channel, row, column or tap more or fewer, to another stride, dilation, number of
groups, layout or batch, and to the image on its side. A step by which a multiply-add takes more than `--factor` times
as long, or as much less, is named, in the direction in which it is slower. Layers run hot, by plans, and take turns
with their neighbours; the least time counts.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.bench.cases import ConvCase
from fastconv.bench.shapes import NETWORKS, ConvLayer, conv_layers

FACTOR = 1.6
#: Multiply-adds of a layer below which a call's own cost would be measured.
FEWEST = 2e6


@dataclass(frozen=True)
class Spot:
    """A layer with what its shape does not say."""

    layer: ConvLayer
    layout: str = "NCHW"
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.layer.label} {self.layout}" + (f" batch {self.batch}" if self.batch > 1 else "")

    @property
    def multiply_adds(self) -> float:
        return self.layer.flops(self.batch) / 2


def is_depthwise(layer: ConvLayer) -> bool:
    return layer.groups == layer.in_channels > 1


def resized(layer: ConvLayer, **changes: Any) -> ConvLayer:
    """With another kernel or dilation, and padded for an output of the same size."""
    changed = replace(layer, **changes)

    def reach(of: ConvLayer) -> list[int]:
        return [d * (k - 1) for d, k in zip(of.dilation, of.kernel, strict=True)]

    top, bottom, left, right = layer.sides
    dy, dx = (new - old for new, old in zip(reach(changed), reach(layer), strict=True))
    return replace(changed, padding=((top + dy // 2, bottom + dy - dy // 2), (left + dx // 2, right + dx - dx // 2)))


def plus(pair: tuple[int, int], by: int) -> tuple[int, int]:
    return pair[0] + by, pair[1] + by


def steps(spot: Spot) -> Iterator[tuple[str, Spot]]:
    """Every neighbour, and what leads there."""
    layer = spot.layer

    def to(**changes: Any) -> Spot:
        return replace(spot, layer=replace(layer, **changes))

    for by in (-1, 1):
        more = "more" if by > 0 else "fewer"
        if is_depthwise(layer):
            channels = layer.in_channels + by
            outs = layer.out_channels // layer.groups * channels
            yield f"a channel {more}", to(in_channels=channels, out_channels=outs, groups=channels)
        else:
            unit = by * layer.groups
            yield f"an input {more}", to(in_channels=layer.in_channels + unit)
            yield f"an output {more}", to(out_channels=layer.out_channels + unit)
        yield f"a row {more}", to(height=layer.height + by)
        yield f"a column {more}", to(width=layer.width + by)
        yield f"a tap {more}", replace(spot, layer=resized(layer, kernel=plus(layer.kernel, by)))
    yield "the stride", to(stride=plus(layer.stride, 1))
    if layer.kernel != (1, 1):
        yield "the dilation", replace(spot, layer=resized(layer, dilation=plus(layer.dilation, 1)))
    if (
        not is_depthwise(layer)
        and layer.in_channels % (2 * layer.groups) == layer.out_channels % (2 * layer.groups) == 0
    ):
        yield "the groups", to(groups=2 * layer.groups)
    yield "the layout", replace(spot, layout="NHWC" if spot.layout == "NCHW" else "NCHW")
    yield "the batch", replace(spot, batch=spot.batch + 1)
    top, bottom, left, right = layer.sides
    sides = ((left, right), (top, bottom))
    turned = {name: getattr(layer, name)[::-1] for name in ("kernel", "stride", "dilation")}
    yield "the sides", to(height=layer.width, width=layer.height, padding=sides, **turned)


def possible(spot: Spot) -> bool:
    """Whether there is such a layer, and its work shows beside the call."""
    layer = spot.layer
    if min(layer.in_channels, layer.out_channels, *layer.kernel) < 1 or min(layer.sides) < 0:
        return False
    try:
        return spot.multiply_adds >= FEWEST
    except ValueError:
        return False


def call_of(spot: Spot) -> Callable[[], Any]:
    case = ConvCase(spot.layer, spot.batch)
    x = case.input(spot.layout)
    plan = fc.ConvPlan(x.shape, case.weight, case.bias, **spot.layer.arguments, layout=spot.layout)
    out = np.empty(plan.output_shape, case.dtype)
    return lambda: plan(x, out=out)


def seconds(calls: list[Callable[[], Any]], rounds: int, slice_time: float) -> list[float]:
    """The least time of each, in turns."""
    least = [math.inf] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            call()
            end = time.perf_counter() + slice_time
            start = 0.0
            while start < end:
                start = time.perf_counter()
                call()
                least[i] = min(least[i], time.perf_counter() - start)
    return least


def cliffs(spot: Spot, factor: float, rounds: int, slice_time: float) -> tuple[int, list[dict[str, Any]]]:
    """How many steps lead from here, and those that are cliffs."""
    found = [("", spot), *(step for step in steps(spot) if possible(step[1]))]
    times = seconds([call_of(there) for _, there in found], rounds, slice_time)
    rates = [1e9 * t / there.multiply_adds for t, (_, there) in zip(times, found, strict=True)]
    rows = []
    for rate, (step, there) in zip(rates[1:], found[1:], strict=True):
        jump = rate / rates[0]
        if max(jump, 1 / jump) > factor:
            slow = {"fast": str(spot), "slow": str(there)} if jump > 1 else {"fast": str(there), "slow": str(spot)}
            rows.append({"step": step, **slow, "jump": max(jump, 1 / jump)})
    return len(found) - 1, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=["table"])
    parser.add_argument("--layout", nargs="+", choices=("NCHW", "NHWC"), default=["NCHW", "NHWC"])
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--factor", type=float, default=FACTOR)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slice", type=float, default=0.005, help="seconds of a turn")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    taken, rows = 0, []
    with fc.threads(args.threads):
        spots = [
            Spot(layer, layout) for network in args.network for layer in conv_layers(network) for layout in args.layout
        ]
        for spot in filter(possible, spots):
            count, found = cliffs(spot, args.factor, args.rounds, args.slice)
            taken += count
            rows += found
            for row in found:
                print(f"{row['jump']:5.2f}x  {row['step']:18s} {row['fast']}  ->  {row['slow']}", flush=True)
    print(f"{len(rows)} of {taken} steps are cliffs of more than {args.factor}x")
    if args.json:
        Path(args.json).write_text(json.dumps({"isa": fc.isa(), "threads": args.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
