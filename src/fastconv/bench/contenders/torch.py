# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch in eager mode, as in ``model.eval()`` under ``inference_mode``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import fastconv as fc
from fastconv.bench.cases import Case, ConvCase, PoolCase
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["Torch"]


class Torch(Contender):
    """Tensors in, tensors out.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        With ``"NHWC"`` input, weights and output are ``torch.channels_last``.
    """

    name = "torch"
    package = "torch"

    def __init__(self, layout: str = "NCHW") -> None:
        self.layout = layout

    def conv(self, case: ConvCase) -> Prepared:
        layer, x = case.layer, self._tensor(case)
        weight, bias = self._ordered(torch.from_numpy(case.weight)), torch.from_numpy(case.bias)
        arguments = (weight, bias, layer.stride, layer.symmetric_padding or 0, layer.dilation, layer.groups)
        if layer.symmetric_padding is not None:
            return self._prepared(lambda: F.conv2d(x, *arguments))
        top, bottom, left, right = layer.sides
        return self._prepared(lambda: F.conv2d(F.pad(x, (left, right, top, bottom)), *arguments), "pad + conv2d")

    def pool(self, case: PoolCase) -> Prepared:
        x, arguments = self._tensor(case), case.layer.arguments
        function = {"max": F.max_pool2d, "avg": F.avg_pool2d}[case.layer.kind]
        return self._prepared(partial(function, x, **arguments))

    def array(self, result: Any) -> np.ndarray:
        return (result.permute(0, 2, 3, 1) if self.layout == "NHWC" else result).numpy()

    def _tensor(self, case: Case) -> torch.Tensor:
        return self._ordered(torch.from_numpy(case.input("NCHW")))

    def _ordered(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=torch.channels_last) if self.layout == "NHWC" else tensor

    def _prepared(self, function: Any, algorithm: str = "") -> Prepared:
        torch.set_num_threads(fc.get_num_threads())
        return Prepared(torch.inference_mode()(function), algorithm, threads=torch.get_num_threads)
