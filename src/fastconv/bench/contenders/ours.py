# SPDX-License-Identifier: BSD-3-Clause
"""fastconv itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import ConvCase, GradientCase, NetworkCase, PoolCase
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["OURS", "Compiled", "CompiledStrictly", "FastConv", "FastConvCall", "LayerByLayer"]
__dir__ = only(__all__)


class FastConv(Contender):
    """Convolutions through a :class:`fastconv.ConvPlan`; output arrays are used again.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
    algorithm : str
        As :class:`fastconv.ConvPlan` takes it.
    """

    name = "fastconv"
    trains = True

    def __init__(self, layout: str = "NCHW", algorithm: str = "auto") -> None:
        self.layout, self.variant = layout, algorithm

    def conv(self, case: ConvCase) -> Prepared:
        x, layer = case.input(self.layout), case.layer
        plan = fc.ConvPlan(
            x.shape,
            case.weight,
            case.bias,
            **layer.arguments,
            layout=self.layout,
            algorithm=self.variant,
        )
        out = np.empty(plan.output_shape, case.dtype)
        return Prepared(
            lambda: plan(x, out=out),
            plan.algorithm,
            plan.packed_bytes,
            plan.workspace_bytes,
            threads=fc.get_num_threads,
        )

    def gradients(self, case: GradientCase) -> Prepared:
        x, grad = case.input(self.layout), case.grad_output(self.layout)
        options = {**case.layer.arguments, "layout": self.layout, "algorithm": self.variant}
        return Prepared(lambda: fc.grad.conv2d(x, case.weight, grad, **options), threads=fc.get_num_threads)

    def pool(self, case: PoolCase) -> Prepared:
        if self.variant != "auto":
            raise NotImplementedError("pooling has one algorithm")
        x, arguments = case.input(self.layout), case.layer.arguments
        pool: Callable[..., np.ndarray] = fc.max_pool2d if case.layer.kind == "max" else fc.avg_pool2d
        out = np.empty(case.layer.output_shape(case.batch, self.layout), case.dtype)
        return Prepared(lambda: pool(x, **arguments, layout=self.layout, out=out), threads=fc.get_num_threads)


class FastConvCall(Contender):
    """Convolutions through :func:`fastconv.conv2d`: every call packs the weights and makes an array.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
    """

    name = "fastconv call"

    def __init__(self, layout: str = "NCHW") -> None:
        self.layout = layout

    def conv(self, case: ConvCase) -> Prepared:
        x, arguments = case.input(self.layout), case.layer.arguments
        return Prepared(
            lambda: fc.conv2d(x, case.weight, case.bias, **arguments, layout=self.layout),
            threads=fc.get_num_threads,
        )


class Compiled(Contender):
    """Networks through :func:`fastconv.compile`."""

    name, precision = "fastconv compiled", "default"
    networks = True

    def network(self, case: NetworkCase) -> Prepared:
        x = case.input(self.layout)
        net = fc.compile(case.model, x.shape, precision=self.precision)
        memory = net.memory
        return Prepared(
            lambda: net(x),
            packed_bytes=memory.packed,
            workspace_bytes=memory.arena + memory.scratch,
            threads=fc.get_num_threads,
        )


class CompiledStrictly(Compiled):
    """Without Winograd's algorithms, whose packed weights take several times the bytes."""

    name, precision = "fastconv strict", "strict"


class LayerByLayer(Contender):
    """Networks as modules: every layer packs its weights once and returns an array."""

    name = "fastconv layers"
    networks = True

    def network(self, case: NetworkCase) -> Prepared:
        x = case.input(self.layout)
        return Prepared(lambda: case.model(x), threads=fc.get_num_threads)


#: The names of all of these.
OURS = tuple(contender.name for contender in (FastConv, FastConvCall, Compiled, CompiledStrictly, LayerByLayer))
