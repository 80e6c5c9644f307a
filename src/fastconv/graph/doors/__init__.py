# SPDX-License-Identifier: BSD-3-Clause
"""Ways into the graph: one file for each kind of model, which translates names and nothing else."""

from __future__ import annotations

import os
import sys
from typing import Any

from fastconv import _args
from fastconv._names import only
from fastconv.graph.doors.module import read_module
from fastconv.graph.ir import Graph
from fastconv.nn.module import Module

__all__ = ["read"]
__dir__ = only(__all__)


def read(model: Any, shapes: Any) -> Graph:
    """The graph of a model; ``shapes`` as for `fastconv.compile`, channels first."""
    if isinstance(model, Module):
        return read_module(model, shapes)
    torch = sys.modules.get("torch")  # nobody has one of its modules without it
    if torch is not None and isinstance(model, torch.nn.Module):
        from fastconv.graph.doors.fx import read_torch

        return read_torch(model, shapes)
    if isinstance(model, (str, os.PathLike)) or type(model).__name__ == "ModelProto":
        try:
            from fastconv.graph.doors.onnx.reading import read_onnx
        except ModuleNotFoundError as error:
            if error.name != "onnx":
                raise
            raise ModuleNotFoundError(
                "ONNX models are read with the package onnx: pip install onnx", name="onnx"
            ) from error

        return read_onnx(model, shapes)
    raise TypeError(
        f"model is {_args.said(model)}; it needs to be a fastconv.nn.Module, a torch.nn.Module, an onnx.ModelProto, or "
        "the path of an ONNX file"
    )
