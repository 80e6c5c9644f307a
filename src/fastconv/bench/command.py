# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv bench``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import fastconv as fc
from fastconv.bench import peak, report, terminal
from fastconv.bench.cases import case_of
from fastconv.bench.contenders import Contender, FastConv, NumpyIm2col, NumpyLoops
from fastconv.bench.layers import Row, measure_case
from fastconv.bench.shapes import NETWORKS, ConvLayer, Layer, layers
from fastconv.bench.timing import Effort

__all__ = ["add_arguments", "main"]

QUICK = Effort(rounds=2, slice_time=0.01)
REFERENCES = {"loops": NumpyLoops, "im2col": NumpyIm2col}

#: Settings of OpenBLAS that make it slower than it is where nobody interferes.
HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``fastconv bench``."""
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--network",
        nargs="+",
        choices=(*NETWORKS, "all"),
        default=["vgg16"],
        help="networks whose layers to run (vgg16)",
    )
    what.add_argument("--layers", nargs="+", metavar="GLOB", default=["*"], help="only layers of such names")
    what.add_argument("--layout", nargs="+", choices=("NCHW", "NHWC"), default=["NCHW", "NHWC"], help="both")
    what.add_argument("--batch", type=_positive, default=1, metavar="N", help="images at a time (1)")
    what.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    what.add_argument(
        "--algorithm",
        nargs="+",
        choices=("auto", "winograd", *fc.ALGORITHMS, "all"),
        default=["auto"],
        help="convolution algorithms; all: auto and, beside it, all but the reference (auto)",
    )
    what.add_argument(
        "--reference",
        nargs="+",
        choices=(*REFERENCES, "none"),
        default=list(REFERENCES),
        help="forms of the NumPy reference to compare with (both)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--threads",
        type=_positive,
        default=fc.get_num_threads(),
        metavar="N",
        help="threads of fastconv and of NumPy's BLAS (%(default)s)",
    )
    how.add_argument("--quick", action="store_true", help="short and rough")
    show = parser.add_argument_group("what to do with the result")
    for name, text in (("json", "keep as JSON"), ("markdown", "write as Markdown")):
        show.add_argument(f"--{name}", nargs="?", const="-", metavar="FILE", help=f"{text} (standard output)")
    show.add_argument("--plot", metavar="FILE", help="draw bars (png, svg or pdf; one per network)")
    show.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="measure nothing, but set two JSON files side by side",
    )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a number from 1 to 256")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Run ``fastconv bench``; ``args.argv`` is the command line it came from.

    Returns
    -------
    int
        The exit status.
    """
    if args.compare:
        one, two = map(report.load, args.compare)
        table = report.comparison(one, two)
        print(table.markdown()) if args.markdown else terminal.show(table)
        return 0
    if args.json == args.markdown == "-":
        raise ValueError("--json and --markdown cannot both go to standard output")
    chosen = _chosen_layers(args)
    if not chosen:
        raise ValueError(f"no layer is called {' or '.join(args.layers)}")
    if args.plot:
        from fastconv.bench import plot  # says what is missing before the time is spent
    contenders = _contenders(args)
    if any(type(c) in REFERENCES.values() for c in contenders):
        environment = _fair_environment(args.threads)
        if environment is not None:
            command = [sys.executable, "-m", "fastconv", *args.argv]
            return subprocess.run(command, env=environment).returncode
    with fc.threads(args.threads):
        run, rows = _measure(args, chosen, contenders)
    _write(args.json, json.dumps(run, indent=1) + "\n")
    if args.markdown:
        target = Path(args.markdown)
        before = target.read_text(encoding="utf-8") if target.is_file() else ""
        _write(args.markdown, report.markdown(run, rows, before))
    if args.plot:
        for path in plot.bars(run, rows, args.plot):
            print(f"wrote {path}", file=sys.stderr)
    return 0


def _measure(
    args: argparse.Namespace, chosen: dict[str, list[Layer]], contenders: Sequence[Contender]
) -> tuple[dict[str, Any], list[Row]]:
    """All rows; tables are shown as they are finished, unless standard output is spoken for."""
    tables = "-" not in (args.json, args.markdown)
    limits = peak.ceilings(args.dtype)
    command = shlex.join(["fastconv", *args.argv])
    if tables:
        print(report.summary(report.document([], limits, command)))
    memory = peak.Memory()
    rows: list[Row] = []
    for network, members in chosen.items():
        start = len(rows)
        for layer in terminal.track(members, report.title(network)):
            arithmetic = isinstance(layer, ConvLayer)
            rows += measure_case(
                case_of(layer, args.batch, args.dtype),
                contenders,
                ceiling=(lambda: peak.fma_peak(args.dtype)) if arithmetic else memory.bandwidth,
                effort=QUICK if args.quick else Effort(),
            )
        if tables:
            terminal.show(*report.tables(rows[start:]))
    for kind, name in (("conv", "fma"), ("pool", "bandwidth")):
        limits = limits.joined(name, [row.ceiling for row in rows if row.kind == kind])
    return report.document(rows, limits, command), rows


def _chosen_layers(args: argparse.Namespace) -> dict[str, list[Layer]]:
    networks = NETWORKS if "all" in args.network else args.network
    chosen = {
        network: [layer for layer in layers(network) if any(fnmatchcase(layer.name, glob) for glob in args.layers)]
        for network in networks
    }
    return {network: members for network, members in chosen.items() if members}


def _contenders(args: argparse.Namespace) -> list[Contender]:
    algorithms = list(args.algorithm)
    if "all" in algorithms:
        algorithms = ["auto", *(name for name in fc.ALGORITHMS if name != "reference")]
    return [
        *(form() for name, form in REFERENCES.items() if name in args.reference),
        *(FastConv(layout, name) for name in dict.fromkeys(algorithms) for layout in args.layout),
    ]


def _fair_environment(threads: int) -> dict[str, str] | None:
    """The environment in which NumPy's BLAS is at its best with so many threads; None if it is.

    A BLAS library reads it only when it is loaded, so the command has to be run again.
    """
    now = os.environ
    asked = now.get("OPENBLAS_NUM_THREADS") or now.get("OMP_NUM_THREADS")
    if asked is None and hasattr(os, "sched_getaffinity"):
        asked = str(len(os.sched_getaffinity(0)))
    if asked == str(threads) and not any(name in now for name in HANDICAPS):
        return None
    kept = {name: value for name, value in now.items() if name not in HANDICAPS}
    return kept | dict.fromkeys(BLAS_THREADS, str(threads))


def _write(target: str | None, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
    elif target:
        Path(target).write_text(text, encoding="utf-8")
        print(f"wrote {target}", file=sys.stderr)
