# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models, from files or in memory.

`reading` goes through the nodes, after `limits`; `layers`, `functions`, `numeric`, `recurrent` and `shapes` translate
those that the graph has operators for, `sizes` computes what depends on sizes alone, `reference` makes a step in Python
of every other. What `step` imports does without the package onnx, as a network from a file has to.
"""

from __future__ import annotations

from fastconv._names import only

__all__: list[str] = []
__dir__ = only(__all__)
