# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch in eager mode, on inference tensors.

Networks run in ``channels_last`` alone, where torch is fastest, with batch norms folded beforehand, as eager mode
folds none.

Entering ``inference_mode`` in every call would cost it 1.6 µs of some 4, which a user pays once per network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import ConvCase, GradientCase, NetworkCase, PoolCase
from fastconv.bench.contenders._torch_graph import torch_module
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["Torch", "contenders"]
__dir__ = only(__all__)


class Torch(Contender):
    """Tensors in, tensors out.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        With ``"NHWC"`` input, weights and output are ``torch.channels_last``.
    """

    package = "torch"
    trains = True

    def __init__(self, layout: str = "NCHW") -> None:
        self.name = {"NCHW": "torch NCHW", "NHWC": "torch channels_last"}[layout]
        self.layout = layout
        self.networks = layout == "NHWC"

    def conv(self, case: ConvCase) -> Prepared:
        layer, x, weight, bias = case.layer, *map(self._tensor, (case.input("NCHW"), case.weight, case.bias))
        arguments = (weight, bias, layer.stride, layer.symmetric_padding or 0, layer.dilation, layer.groups)
        if layer.symmetric_padding is not None:
            return self._prepared(lambda: F.conv2d(x, *arguments))
        top, bottom, left, right = layer.sides
        return self._prepared(lambda: F.conv2d(F.pad(x, (left, right, top, bottom)), *arguments), "pad + conv2d")

    def gradients(self, case: GradientCase) -> Prepared:
        layer, images = case.layer, (case.input("NCHW"), case.weight, case.grad_output("NCHW"))
        x, weight, grad = map(self._tensor, images)
        padding = layer.symmetric_padding
        if padding is None:
            raise NotImplementedError("padding differs before and after an axis")
        where = (layer.stride, padding, layer.dilation, False, [0, 0], layer.groups, [True, True, True])
        return self._prepared(
            lambda: torch.ops.aten.convolution_backward(grad, x, weight, [layer.out_channels], *where)
        )

    def pool(self, case: PoolCase) -> Prepared:
        x, arguments = self._tensor(case.input("NCHW")), case.layer.arguments
        functions: dict[str, Callable[..., torch.Tensor]] = {"max": F.max_pool2d, "avg": F.avg_pool2d}
        return self._prepared(partial(functions[case.layer.kind], x, **arguments))

    def network(self, case: NetworkCase) -> Prepared:
        with torch.inference_mode():
            graph = case.folded()
            module = torch_module(graph, case.types(graph))
        x = self._tensor(case.input("NCHW"))
        return self._prepared(torch.inference_mode()(lambda: module(x)))

    def array(self, result: torch.Tensor) -> np.ndarray:
        last = self.layout == "NHWC" and result.ndim == 4
        return (result.permute(0, 2, 3, 1) if last else result).numpy()

    @torch.inference_mode()
    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        ordered = self.layout == "NHWC" and array.ndim == 4
        return tensor.to(memory_format=torch.channels_last) if ordered else tensor

    @staticmethod
    def _prepared(function: Callable[[], torch.Tensor], algorithm: str = "") -> Prepared:
        torch.set_num_threads(fc.get_num_threads())
        return Prepared(function, algorithm, threads=torch.get_num_threads)


def contenders() -> list[Contender]:
    """Both memory formats."""
    return [Torch("NCHW"), Torch("NHWC")]
