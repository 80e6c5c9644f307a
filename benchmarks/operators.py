# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions along one and three axes, and transposed ones, beside torch, ONNX Runtime and OpenVINO.

    python benchmarks/operators.py --threads 2 --json operators.json

Weights are constant, arrays random, batch 1, float32. Contenders take turns, and the figures are medians. A peer that
is not installed is named; one whose answer is wrong ends the run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.bench.timing import SETTLE, median_seconds


@dataclass(frozen=True)
class Case:
    """A layer; sizes are those of `torch.nn.functional`."""

    name: str
    shape: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    groups: int = 1
    transposed: bool = False

    @property
    def rank(self) -> int:
        return len(self.weight) - 2


CASES = (
    Case("1-D 64-64 k9 @16000", (1, 64, 16000), (64, 64, 9), padding=4),
    Case("3-D 16-32 3x3x3 @32x56x56", (1, 16, 32, 56, 56), (32, 16, 3, 3, 3), padding=1),
    Case("transposed 64-64 4x4/2 @56", (1, 64, 56, 56), (64, 64, 4, 4), 2, 1, transposed=True),
    Case("transposed 256-128 2x2/2 @28", (1, 256, 28, 28), (256, 128, 2, 2), 2, transposed=True),
    Case("transposed depthwise 64 4x4/2 @56", (1, 64, 56, 56), (64, 1, 4, 4), 2, 1, 64, True),
)

Calls = dict[str, Callable[[], Any]]


def ours(case: Case, x: np.ndarray, weight: np.ndarray) -> Calls:
    calls: Calls = {}
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups, "transposed": case.transposed}
    for layout in {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}[case.rank]:
        last = layout.endswith("C")
        image = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
        plan = fc.ConvPlan(image.shape, weight, **options, layout=layout)
        out = np.empty(plan.output_shape, np.float32)
        calls[f"fastconv {layout}"] = lambda plan=plan, image=image, out=out: plan(image, out=out)
    return calls


def torchs(case: Case, x: np.ndarray, weight: np.ndarray, threads: int) -> Calls:
    import torch

    torch.set_num_threads(threads)
    function = getattr(torch.nn.functional, f"conv{'_transpose' if case.transposed else ''}{case.rank}d")
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    image, kernel = torch.from_numpy(x), torch.from_numpy(weight)

    def call(image: Any, kernel: Any) -> Callable[[], Any]:
        def run() -> np.ndarray:
            with torch.inference_mode():
                return function(image, kernel, **options).numpy()

        return run

    calls = {"torch": call(image, kernel)}
    form = {2: torch.channels_last, 3: torch.channels_last_3d}.get(case.rank)
    if form is not None:
        calls["torch channels_last"] = call(image.to(memory_format=form), kernel.to(memory_format=form))
    return calls


def model(case: Case, weight: np.ndarray) -> bytes:
    """The layer as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(
        "ConvTranspose" if case.transposed else "Conv",
        ["x", "w"],
        ["y"],
        kernel_shape=weight.shape[2:],
        strides=[case.stride] * case.rank,
        pads=[case.padding] * 2 * case.rank,
        group=case.groups,
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, case.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def onnx_runtime(case: Case, x: np.ndarray, weight: np.ndarray, threads: int) -> Calls:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model(case, weight), options, providers=["CPUExecutionProvider"])
    return {"ONNX Runtime": lambda: session.run(None, {"x": x})[0]}


def openvino(case: Case, x: np.ndarray, weight: np.ndarray, threads: int) -> Calls:
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model(case, weight)), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))

    def run() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return {"OpenVINO": run}


PEERS = {"torch": torchs, "onnxruntime": onnx_runtime, "openvino": openvino}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=0.05, help="seconds of a turn")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if missing:
        print("not installed:", ", ".join(missing))
    rng, rows = np.random.default_rng(0), {}
    with fc.threads(args.threads):
        for case in CASES:
            x = np.maximum(rng.standard_normal(case.shape, np.float32), 0)
            weight = rng.standard_normal(case.weight, np.float32) / np.float32(np.sqrt(np.prod(case.weight[1:])))
            calls = ours(case, x, weight)
            for name, contenders in PEERS.items():
                if name not in missing:
                    calls |= contenders(case, x, weight, args.threads)
            expected = next(iter(calls.values()))().copy()
            for name, call in calls.items():
                found = call()
                found = np.moveaxis(found, -1, 1) if name.endswith("C") and name.startswith("fastconv") else found
                if np.abs(found - expected).max() > 2e-5 * np.abs(expected).max():
                    raise SystemExit(f"{case.name}: {name} makes something else")
            turns: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(args.rounds):
                for name, call in calls.items():
                    time.sleep(SETTLE)
                    turns[name].append(median_seconds(call, min_time=args.slice, min_runs=3))
            row = {name: 1e3 * median(found) for name, found in turns.items()}
            mine = min(value for name, value in row.items() if name.startswith("fastconv"))
            others = [value for name, value in row.items() if not name.startswith("fastconv")]
            ratio = min(others) / mine if others else None
            rows[case.name] = row
            print(f"{case.name:<34}" + "  ".join(f"{name} {value:.3f}" for name, value in row.items()), end="")
            print(f"  best peer ÷ fastconv {ratio:.2f}" if ratio else "", flush=True)
    if args.json:
        about = {"isa": fc.isa(), "threads": args.threads, "cpu": fc.config()["cpu"]}
        Path(args.json).write_text(json.dumps({**about, "milliseconds": rows}, indent=1))


if __name__ == "__main__":
    main()
