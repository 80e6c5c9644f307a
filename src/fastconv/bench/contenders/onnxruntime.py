# SPDX-License-Identifier: BSD-3-Clause
"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

import onnxruntime

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import Case
from fastconv.bench.contenders._onnx import model_of
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["OnnxRuntime", "contenders"]
__dir__ = only(__all__)


class OnnxRuntime(Contender):
    """A session for each layer or network, arrays in and out; its threads wait busily, as by default."""

    name = "ONNX Runtime"
    package = "onnxruntime"
    networks = True

    def translate(self, case: Case) -> None:
        model_of(case)

    def prepare(self, case: Case) -> Prepared:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = fc.get_num_threads()
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model_of(case), options, providers=["CPUExecutionProvider"])
        x = case.input("NCHW")
        return Prepared(
            lambda: session.run(None, {"x": x})[0],
            threads=lambda: session.get_session_options().intra_op_num_threads,
        )


def contenders() -> list[Contender]:
    """The one there is."""
    return [OnnxRuntime()]
