# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files beside ONNX Runtime: trained models, as wheels and hubs have them.

    python benchmarks/onnx_models.py model.onnx other.onnx@1x3x320x320 wheel.whl --threads 2 --json models.json

Of a wheel, all the files in it. Sizes that a model leaves open are those behind the @, one for each input, or what
``SIZES`` says of a model of this name; else 1. Inputs are random; outputs are compared. Contenders take turns, and the
figures are medians of the fastest turns. Steps in Python are counted: each is a call of NumPy between two of the core.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import fastconv as fc
from fastconv.bench.timing import SETTLE, median_seconds

#: What open sizes are where nobody says, by the name of the file.
SIZES: dict[str, list[tuple[int, ...]]] = {
    "ch_PP-OCRv4_det_infer": [(1, 3, 640, 640)],
    "ch_PP-OCRv4_rec_infer": [(1, 3, 48, 320)],
    "ch_ppocr_mobile_v2.0_cls_infer": [(1, 3, 48, 192)],
    "320n": [(1, 3, 320, 320)],
    "common": [(1, 1, 64, 160)],
    "common_old": [(1, 1, 64, 160)],
    "nmp": [(1, 43844, 1)],
    "open-nsfw": [(1, 224, 224, 3)],
    "model": [(1, 2048), (1, 2048)],
    "silero_vad": [(1, 576), (2, 1, 128), ()],
    "silero_vad_16k_op15": [(1, 576), (2, 1, 128), ()],
    "silero_vad_16k_sequence": [(8, 576), (1, 1, 128), (1, 1, 128)],
    "silero_vad_half": [(1, 576), (2, 1, 128)],
    "silero_vad_op18_ifless": [(1, 576), (), (2, 1, 128)],
}
_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16,
}  # fmt: skip
RATE = 16000  # of sound: what an input of one integer, such as silero_vad's, is most likely to be


def files(given: list[str], folder: Path) -> Iterator[tuple[Path, list[tuple[int, ...]] | None]]:
    """Models, and the sizes that are said of them."""
    for entry in given:
        name, _, said = entry.partition("@")
        sizes = [tuple(int(n) for n in part.split("x") if n) for part in said.split(",")] if said else None
        if not name.endswith(".whl"):
            yield Path(name), sizes
            continue
        with zipfile.ZipFile(name) as wheel:
            for member in wheel.namelist():
                if member.endswith(".onnx"):
                    target = folder / Path(member).name
                    target.write_bytes(wheel.read(member))
                    yield target, sizes


def inputs_of(session: Any, sizes: list[tuple[int, ...]] | None, rng: np.random.Generator) -> dict[str, np.ndarray]:
    made = {}
    for i, info in enumerate(session.get_inputs()):
        shape = sizes[i] if sizes else tuple(n if isinstance(n, int) and n > 0 else 1 for n in info.shape)
        dtype = np.dtype(_TYPES[info.type])
        if dtype.kind == "f":
            made[info.name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            made[info.name] = np.ones(shape, bool)
        else:
            made[info.name] = np.asarray(rng.integers(0, 200, shape) if shape else RATE, dtype)
    return made


def difference(found: Any, expected: Any) -> float:
    """The largest, relative to the largest number."""
    largest = 0.0
    for y, right in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        if y.shape != right.shape:
            return math.inf
        if right.size:
            wrong = np.abs(y.astype(np.float64) - right.astype(np.float64)).max()
            largest = max(largest, float(wrong / max(np.abs(right).max(), 1e-30)))
    return largest


def compared(path: Path, sizes: list[tuple[int, ...]] | None, args: argparse.Namespace) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = args.threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = inputs_of(session, sizes or SIZES.get(path.stem), np.random.default_rng(0))
    started = time.perf_counter()
    net = fc.compile(path)
    prepared = time.perf_counter() - started
    calls = {"fastconv": lambda: net(**inputs), "ONNX Runtime": lambda: session.run(None, inputs)}
    error = difference(calls["fastconv"](), calls["ONNX Runtime"]())
    turns: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            time.sleep(SETTLE)
            turns[name].append(median_seconds(call, min_time=args.slice, min_runs=3))
    ours, theirs = (min(found) for found in turns.values())
    python = [step.name for step in net.summary() if step.algorithm == "python"]
    return {
        "milliseconds": {"fastconv": 1e3 * ours, "ONNX Runtime": 1e3 * theirs},
        "ratio": ours / theirs,
        "error": error,
        "python": python,
        "compile": prepared,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="PATH[@SIZES]")
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=0.05, help="seconds of a turn")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rows = {}
    print(f"{'model':<32}{'fastconv':>10}{'ONNX RT':>10}{'÷':>7}{'error':>9}{'Python':>8}{'compile':>9}")
    with fc.threads(args.threads), tempfile.TemporaryDirectory() as folder:
        for path, sizes in files(args.models, Path(folder)):
            try:
                row = compared(path, sizes, args)
            except (ValueError, NotImplementedError) as error:
                print(f"{path.stem:<32}{error}")
                continue
            rows[path.stem] = row
            ours, theirs = row["milliseconds"].values()
            print(
                f"{path.stem:<32}{ours:>10.3f}{theirs:>10.3f}{row['ratio']:>7.2f}{row['error']:>9.0e}"
                f"{len(row['python']):>8}{row['compile']:>8.2f}s",
                flush=True,
            )
    ratios = [row["ratio"] for row in rows.values()]
    if ratios:
        print(f"{'geometric mean':<52}{math.exp(sum(map(math.log, ratios)) / len(ratios)):>7.2f}")
    if args.json:
        about = {"isa": fc.isa(), "threads": args.threads, "cpu": fc.config()["cpu"]}
        Path(args.json).write_text(json.dumps({**about, "models": rows}, indent=1))


if __name__ == "__main__":
    main()
