# SPDX-License-Identifier: BSD-3-Clause
"""OpenVINO on its CPU plugin."""

from __future__ import annotations

from functools import cache

import numpy as np
import openvino

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import Case
from fastconv.bench.contenders._onnx import model_of
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["OpenVino", "contenders"]
__dir__ = only(__all__)


class OpenVino(Contender):
    """A model for each layer or network, compiled for latency; the output array is used again."""

    name = "OpenVINO"
    package = "openvino"
    networks = True

    def translate(self, case: Case) -> None:
        model_of(case)

    def prepare(self, case: Case) -> Prepared:
        if case.dtype != "float32":
            raise NotImplementedError(f"OpenVINO computes {case.dtype} in float32")
        compiled = _core().compile_model(
            _core().read_model(model_of(case)),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": fc.get_num_threads(),
                "INFERENCE_PRECISION_HINT": "f32",  # where the processor has bf16, that is the default
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(case.input("NCHW"), shared_memory=True))
        output = request.get_output_tensor()

        def run() -> openvino.Tensor:
            request.infer()
            return output

        return Prepared(run, threads=lambda: compiled.get_property("INFERENCE_NUM_THREADS"))

    def array(self, result: openvino.Tensor) -> np.ndarray:
        return result.data


def contenders() -> list[Contender]:
    """The one there is."""
    return [OpenVino()]


@cache
def _core() -> openvino.Core:
    return openvino.Core()
