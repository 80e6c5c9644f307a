# SPDX-License-Identifier: BSD-3-Clause
"""Five layers in turn, as a network goes through them: on a quiet machine, after a rest, and beside busy processes.

    python benchmarks/busy.py --json busy.json

How long OpenMP's threads wait for each other by spinning is GOMP_SPINCOUNT, which the runtime reads as it is loaded: so
each number gets processes of its own, taking turns. Everything runs on as many CPUs as there are threads at most, busy
processes included, of which there are as many. Figures are milliseconds from the first layer to the end of the last:
median / 90th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import quantiles

import numpy as np

#: Channels in and out, kernel, pixels along an axis: a tenth of a millisecond each, so that waiting shows.
LAYERS = ((64, 64, 3, 28), (64, 64, 1, 28), (128, 128, 3, 14), (32, 32, 3, 28), (64, 32, 3, 14))
OURS, INFINITE = "fastconv's", "infinity"
#: 300,000 is GNU's own number.
SPINS = (OURS, "0", "1000", "10000", "300000", INFINITE)


#: Seconds without a call, in which everybody falls asleep.
REST = 0.03


def turns(threads: int, seconds: float, rest: float) -> list[float]:
    """How long each turn through the layers took, and before each so long a rest."""
    import fastconv as fc

    rng = np.random.default_rng(0)
    calls = []
    for channels, out_channels, kernel, size in LAYERS:
        x = rng.standard_normal((1, channels, size, size), np.float32)
        weight = rng.standard_normal((out_channels, channels, kernel, kernel), np.float32)
        plan = fc.ConvPlan(x.shape, weight, padding=kernel // 2)
        calls.append((plan, x, np.empty(plan.output_shape, np.float32)))
    found: list[float] = []
    with fc.threads(threads):
        for plan, x, out in calls:
            plan(x, out=out)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if rest:
                time.sleep(rest)
            start = time.perf_counter()
            for plan, x, out in calls:
                plan(x, out=out)
            found.append(1e3 * (time.perf_counter() - start))
    return found


def in_a_process(spins: str, threads: int, seconds: float, rest: float) -> list[float]:
    """The same with so many spins."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    if spins != OURS:
        environment["GOMP_SPINCOUNT"] = spins
    command = [sys.executable, __file__, "--child", str(threads), "--seconds", str(seconds), "--rest", str(rest)]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="beside one thread (2)")
    parser.add_argument("--spins", nargs="+", default=SPINS, metavar="N", help=", ".join(SPINS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (1)")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rest", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(turns(args.child, args.seconds, args.rest)))
        return
    cpus = sorted(os.sched_getaffinity(0))[: args.threads]
    os.sched_setaffinity(0, cpus)
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    beside = f"beside {args.threads}"
    for _ in range(args.rounds):
        for where in ("quiet", "rested", beside):
            rest = REST if where == "rested" else 0
            busy = [sys.executable, "-c", "while True: pass"]
            neighbours = [subprocess.Popen(busy) for _ in range(args.threads if where == beside else 0)]
            try:
                for spins in args.spins:
                    for threads in (1, args.threads):
                        found[where, spins, threads] += in_a_process(spins, threads, args.seconds, rest)
            finally:
                for process in neighbours:
                    process.kill()
                    process.wait()
    heads = [(where, threads) for where in ("quiet", "rested", beside) for threads in (1, args.threads)]
    print(f"{len(cpus)} CPUs, load {os.getloadavg()[0]:.1f} at the end")
    print(f"{'spins':<11}" + "".join(f"{f'{where}, {threads} thr.':>20}" for where, threads in heads))
    rows = {}
    for spins in args.spins:
        cuts = [quantiles(found[where, spins, threads], n=10) for where, threads in heads]
        rows[spins] = {f"{where}, {threads}": [c[4], c[8]] for (where, threads), c in zip(heads, cuts, strict=True)}
        print(f"{spins:<11}" + "".join(f"{f'{c[4]:.2f} / {c[8]:.2f}':>20}" for c in cuts))
    if args.json:
        Path(args.json).write_text(json.dumps({"threads": args.threads, "cpus": cpus, "milliseconds": rows}, indent=1))


if __name__ == "__main__":
    main()
