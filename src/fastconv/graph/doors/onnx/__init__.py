# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models, from files or in memory.

`reading` goes through the nodes; `layers`, `functions` and `shapes` translate those that the graph has operators for,
`reference` makes a step in Python of every other.
"""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.doors.onnx import functions, layers, shapes  # noqa: F401 (they fill the table of translators)
from fastconv.graph.doors.onnx.reading import read_onnx

__all__ = ["read_onnx"]
__dir__ = only(__all__)
