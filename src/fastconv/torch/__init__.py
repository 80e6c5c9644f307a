# SPDX-License-Identifier: BSD-3-Clause
"""fastconv under PyTorch: operators, a switch for unchanged code, converted models, and a compiler backend.

Importing it registers ``torch.ops.fastconv.*``. Tensors on the CPU are read and written where they lie; channels_last
tensors go through the NHWC kernels and stay channels_last.
"""

from __future__ import annotations

from fastconv._names import only
from fastconv.torch import _conv, _pool  # noqa: F401 (they register the operators)
from fastconv.torch._accelerate import accelerate, report
from fastconv.torch._backend import backend
from fastconv.torch._convert import convert

__all__ = ["accelerate", "backend", "convert", "report"]
__dir__ = only(__all__)
