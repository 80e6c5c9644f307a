# SPDX-License-Identifier: BSD-3-Clause
"""Everything that fastconv stands in for, beside what it replaces: one table.

    python benchmarks/integrations.py --json integrations.json

Operators beside torch, ONNX Runtime and OpenVINO; networks under PyTorch; image filters beside SciPy and OpenCV; and an
image larger than the memory that dask filters it in. Each part runs in a process of its own, which says what is not
installed: `python -m pip install "fastconv[bench,torch,scipy,dask]"`. Takes five minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

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


def measured(script: str, arguments: list[str]) -> dict[str, Any] | None:
    """What a script of this folder finds; None where a library that it is about is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / script), *arguments, "--json", str(result)]
        print(f"{script} ...", file=sys.stderr, flush=True)
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(ended.stdout, file=sys.stderr, flush=True)
        if ended.returncode == 0:
            return json.loads(result.read_text())["milliseconds"]
    print(f"{script}: left out, see above", file=sys.stderr)
    return None


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


PARTS = {
    "operators.py": beside_the_best,
    "torch_models.py": under_torch,
    "scipy_filters.py": beside_each,
}


def huge_image(size: int) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(EXAMPLE), "--size", str(size), "--output", str(Path(folder) / "filtered.npy")]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return ended.stdout.splitlines()[-2] if ended.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn each, a smaller image")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    quick = {
        "operators.py": ["--rounds", "1"],
        "torch_models.py": ["--rounds", "1", "--calls", "3"],
        "scipy_filters.py": ["--budget", "0.1"],
    }
    rows: list[Row] = []
    for script, rows_of in PARTS.items():
        found = measured(script, quick[script] if args.quick else [])
        rows += rows_of(found) if found else []
    image = huge_image(2_000 if args.quick else 20_000)

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
