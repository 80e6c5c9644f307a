# SPDX-License-Identifier: BSD-3-Clause
"""Everything that fastconv stands in for, beside what it replaces: one table.

    python benchmarks/integrations.py --json integrations.json

Operators beside torch, ONNX Runtime and OpenVINO; networks under PyTorch; image filters beside SciPy and OpenCV; and an
image larger than the memory that dask filters it in. Each part runs in a process of its own; one whose library is not
installed is left out by name (`python -m pip install ".[bench,torch,scipy,dask]"`), one that fails ends the run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import fastconv as fc

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "filter_huge_image.py"


class Row(NamedTuple):
    """A comparison, in milliseconds."""

    case: str
    ours: str
    milliseconds: float
    peer: str
    peer_milliseconds: float

    @property
    def ratio(self) -> float:
        return self.peer_milliseconds / self.milliseconds


def installed(*libraries: str) -> bool:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        print("not installed:", ", ".join(missing), file=sys.stderr)
    return not missing


def output(script: Path, *arguments: str) -> str:
    """What a script prints, shown as it ends."""
    print(f"{script.name} ...", file=sys.stderr, flush=True)
    printed = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout
    print(printed, file=sys.stderr, flush=True)
    return printed


def measured(script: str, arguments: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds by case and contender."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        output(HERE / script, *arguments, "--json", str(result))
        return json.loads(result.read_text())["milliseconds"]


def beside_the_best(found: dict[str, dict[str, float]]) -> Iterator[Row]:
    """Our faster layout beside the fastest of the others."""
    for case, times in found.items():
        ours = {name: value for name, value in times.items() if name.startswith("fastconv")}
        others = {name: value for name, value in times.items() if name not in ours}
        if others:
            mine, peer = min(ours, key=ours.__getitem__), min(others, key=others.__getitem__)
            yield Row(case, mine.removeprefix("fastconv "), ours[mine], peer, others[peer])


def under_torch(found: dict[str, dict[str, float]]) -> Iterator[Row]:
    pairs = (
        ("convert", "torch channels_last"),
        ("accelerate NCHW", "torch NCHW"),
        ("frozen NCHW", "torch NCHW"),
    )
    for network, times in found.items():
        for ours, peer in pairs:
            yield Row(network, ours, times[ours], peer, times[peer])


def beside_each(found: dict[str, dict[str, float]]) -> Iterator[Row]:
    for case, times in found.items():
        for peer in times:
            if not peer.startswith("fastconv"):
                yield Row(case, "ndimage", times["fastconv ndimage"], peer, times[peer])


class Part(NamedTuple):
    """A script of this folder: the libraries it cannot do without, its rows, and its arguments when in a hurry."""

    script: str
    needs: tuple[str, ...]
    rows: Callable[[dict[str, dict[str, float]]], Iterator[Row]]
    quick: list[str]


PARTS = (
    Part("operators.py", (), beside_the_best, ["--rounds", "1"]),
    Part("torch_models.py", ("torch",), under_torch, ["--rounds", "1", "--calls", "3"]),
    Part("scipy_filters.py", ("scipy",), beside_each, ["--budget", "0.1"]),
)


def huge_image(size: int) -> str:
    """What the example says of its time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        printed = output(EXAMPLE, "--size", str(size), "--output", str(Path(folder) / "filtered.npy"))
    return next(line for line in printed.splitlines() if "peak memory" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn each, a smaller image")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rows: list[Row] = []
    for part in PARTS:
        if installed(*part.needs):
            rows += part.rows(measured(part.script, part.quick if args.quick else []))
    image = huge_image(2_000 if args.quick else 20_000) if installed("dask") else None

    machine = f"{fc.config()['cpu']}, {fc.isa()}, {fc.get_num_threads()} threads, {date.today()}"
    print(f"{machine}; milliseconds\n")
    print("| | fastconv | | beside | | ratio |")
    print("| :-- | :-- | --: | :-- | --: | --: |")
    for row in rows:
        print(
            f"| {row.case} | {row.ours} | {row.milliseconds:.3g} | {row.peer} | {row.peer_milliseconds:.3g} "
            f"| {row.ratio:.2f}× |"
        )
    if image:
        print(f"\ndask: {image}")
    if args.json:
        table = [{**row._asdict(), "ratio": row.ratio} for row in rows]
        Path(args.json).write_text(json.dumps({"machine": machine, "rows": table, "dask": image}, indent=1))


if __name__ == "__main__":
    main()
