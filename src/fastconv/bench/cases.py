# SPDX-License-Identifier: BSD-3-Clause
"""A layer or a network with data to run it on, and what should come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import numpy as np

from fastconv import nn, reference
from fastconv._names import only
from fastconv.bench.networks import Network, build
from fastconv.bench.shapes import ConvLayer, Layer, PoolLayer
from fastconv.graph import Graph, Value
from fastconv.graph.doors import read
from fastconv.graph.lowering import infer
from fastconv.graph.operators import OPERATORS
from fastconv.graph.operators.conv import geometry
from fastconv.graph.passes import PASSES
from fastconv.graph.views import Type

__all__ = ["Case", "ConvCase", "GradientCase", "NetworkCase", "PoolCase", "case_of"]
__dir__ = only(__all__)


def _at_a_line(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy that begins at a cache line, as what layers hand on to each other does in any library.

    NumPy's arrays begin 16 bytes behind one, and then every vector of 64 bytes lies in two.
    """
    memory = np.empty(array.nbytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    placed = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


class Case:
    """What all contenders of one layer are given.

    Parameters
    ----------
    layer : Layer or Network
    batch : int
    dtype : {"float32", "float64"}
    seed : int

    Notes
    -----
    Inputs are as a ReLU leaves them: half zeros, the rest half of a normal distribution.
    """

    kind: str

    def __init__(self, layer: Layer | Network, batch: int = 1, dtype: str = "float32", seed: int = 0) -> None:
        self.layer, self.batch, self.dtype, self.seed = layer, batch, np.dtype(dtype), seed
        self.rng = np.random.default_rng(seed)
        self.models: dict[Hashable, Any] = {}  # what contenders translate it to, by keys of theirs
        shape = layer.input_shape(batch)
        images = np.maximum(self.rng.standard_normal(shape, np.float32), 0).astype(dtype)
        self._inputs = {"NCHW": _at_a_line(images)}

    def input(self, layout: str) -> np.ndarray:
        """The images, C-contiguous in the layout."""
        if layout not in self._inputs:
            images = self._inputs["NCHW"]
            self._inputs[layout] = _at_a_line(np.moveaxis(images, 1, -1))
        return self._inputs[layout]

    def judge(self, result: Any, array: Callable[[Any], np.ndarray], layout: str) -> float:
        """:meth:`error` of what a contender returned; ``array`` makes an array of it."""
        return self.error(array(result), layout)

    def error(self, result: np.ndarray, layout: str) -> float:
        """max|result - expected| / max|expected|, expected being the float64 reference."""
        images = np.moveaxis(result, -1, 1) if layout == "NHWC" else result
        expected = self.expected
        if images.shape != expected.shape:
            return np.inf
        pairs = zip(images, expected, strict=True)
        worst = np.max([np.abs(got - wanted).max() for got, wanted in pairs])
        return float(worst / np.abs(expected).max())

    @property
    def expected(self) -> np.ndarray:
        """The result in float64, NCHW."""
        raise NotImplementedError

    @property
    def work(self) -> float:
        """GFLOP of the direct sum, or GB of input and output where nothing is multiplied."""
        raise NotImplementedError

    @property
    def traffic(self) -> float:
        """GB that have to pass through memory at least."""
        raise NotImplementedError

    @property
    def aim(self) -> float | None:
        """What fastconv is to reach, if that is said: see `fastconv.bench.layers.Row`."""
        return None


class ConvCase(Case):
    """A convolution with He's weights: normal, of variance 2 / terms."""

    layer: ConvLayer
    kind = "conv"

    def __init__(self, layer: ConvLayer, batch: int = 1, dtype: str = "float32", seed: int = 0) -> None:
        super().__init__(layer, batch, dtype, seed)
        weight = self.rng.standard_normal(layer.weight_shape, np.float32)
        self.weight = (weight * np.sqrt(2 / layer.terms)).astype(dtype)
        self.bias = self.rng.standard_normal(layer.out_channels, np.float32).astype(dtype)

    @cached_property
    def expected(self) -> np.ndarray:
        # One image at a time: the matrix of all patches takes kernel-size times the memory.
        images = [
            reference.conv2d_im2col(image, self.weight, self.bias, **self.layer.arguments, dtype=np.float64)
            for image in self.input("NCHW")
        ]
        return np.stack(images)

    @property
    def work(self) -> float:
        return self.layer.flops(self.batch) / 1e9

    @property
    def traffic(self) -> float:
        return self.layer.traffic(self.dtype.itemsize, self.batch) / 1e9

    @property
    def aim(self) -> float | None:
        return self.layer.aim


class GradientCase(ConvCase):
    """The gradients of a convolution by input, weight and bias, from a normal gradient of its output."""

    kind = "gradients"

    def __init__(self, layer: ConvLayer, batch: int = 1, dtype: str = "float32", seed: int = 0) -> None:
        super().__init__(layer, batch, dtype, seed)
        grad = self.rng.standard_normal(layer.output_shape(batch), np.float32).astype(dtype)
        self._grads = {"NCHW": _at_a_line(grad), "NHWC": _at_a_line(np.moveaxis(grad, 1, -1))}

    def grad_output(self, layout: str) -> np.ndarray:
        """The gradient of the output, C-contiguous in the layout."""
        return self._grads[layout]

    @cached_property
    def gradients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By input, weight and bias, in float64, NCHW."""
        x, grad, arguments = self.input("NCHW"), self.grad_output("NCHW"), self.layer.arguments
        by_input, by_weight = [], np.zeros(self.weight.shape)
        for image, of_image in zip(x, grad, strict=True):
            by_input.append(reference.conv2d_input(image.shape, self.weight, of_image, **arguments, dtype=np.float64))
            by_weight += reference.conv2d_weight(image, self.weight.shape, of_image, **arguments, dtype=np.float64)
        return np.stack(by_input), by_weight, grad.sum((0, 2, 3), dtype=np.float64)

    def judge(self, result: Any, array: Callable[[Any], np.ndarray], layout: str) -> float:
        """The largest error of the three, which is NaN if any is."""
        by_input, by_weight, by_bias = result
        images, weights = array(by_input), np.asarray(by_weight)
        if layout == "NHWC":
            images = np.moveaxis(images, -1, 1)
        pairs = zip((images, weights, np.asarray(by_bias)), self.gradients, strict=True)
        return float(np.max([np.abs(got - wanted).max() / np.abs(wanted).max() for got, wanted in pairs]))

    @property
    def work(self) -> float:
        """GFLOP of the direct sums of the gradients by input and by weight."""
        return 2 * super().work

    @property
    def aim(self) -> None:
        return None


class PoolCase(Case):
    """A pooling layer."""

    layer: PoolLayer
    kind = "pool"

    @cached_property
    def expected(self) -> np.ndarray:
        pool: Callable[..., np.ndarray] = reference.max_pool2d if self.layer.kind == "max" else reference.avg_pool2d
        return pool(self.input("NCHW").astype(np.float64), **self.layer.arguments)

    @property
    def work(self) -> float:
        return self.traffic

    @property
    def traffic(self) -> float:
        return self.layer.traffic(self.dtype.itemsize, self.batch) / 1e9


class NetworkCase(Case):
    """A whole network, as a module and as the graph that everybody's model is translated from.

    Attributes
    ----------
    model : fastconv.nn.Module
        In evaluation mode, with the weights of `fastconv.bench.networks.build`.
    graph : Graph
        The module as it was read: no pass has changed it.
    """

    layer: Network
    kind = "network"

    def __init__(self, layer: Network, batch: int = 1, dtype: str = "float32", seed: int = 0) -> None:
        if dtype != "float32":
            raise NotImplementedError(f"networks are measured in float32; dtype is {dtype!r}")
        super().__init__(layer, batch, dtype, seed)
        self.model: nn.Module = build(layer.name, seed)
        self.graph: Graph = read(self.model, layer.input_shape(batch))

    def folded(self) -> Graph:
        """The graph with batch norms folded into weights, for libraries that do not fold them by themselves."""
        graph = read(self.model, self.layer.input_shape(self.batch))
        PASSES["fold_batch_norms"](graph)
        return graph

    def types(self, graph: Graph, batch: int | None = None) -> dict[Value, Type]:
        """Of all values of a graph of the network, for another number of images if one is given."""
        return infer(graph, [Type(self.layer.input_shape(batch or self.batch), self.dtype)])

    @cached_property
    def expected(self) -> np.ndarray:
        """By what each node means, one after the other, in float64."""
        readers = {value: len(nodes) for value, nodes in self.graph.readers().items()}
        known = {self.graph.inputs[0]: self.input("NCHW").astype(np.float64)}
        for node in self.graph.nodes:
            arrays = [
                None
                if value is None
                else known[value]
                if value.constant is None
                else value.constant.array().astype(np.float64)
                for value in node.inputs
            ]
            known.update(zip(node.outputs, OPERATORS[node.op].evaluate(node, arrays), strict=True))
            for value in node.given():
                readers[value] -= 1
                if not readers[value]:
                    known.pop(value, None)
        (output,) = self.graph.outputs
        return known[output]

    @cached_property
    def work(self) -> float:
        types, terms = self.types(self.graph), 0
        for node in self.graph.nodes:
            if node.op not in ("conv", "linear"):
                continue
            x, weight = (types[value].shape for value in node.inputs[:2])  # type: ignore[index]
            y = types[node.output].shape
            if node.op == "linear":
                terms += math.prod(y) * weight[1]
            else:  # of a transposed convolution every number of the input meets the weights, else of the output
                swept = geometry(node, x, weight).output_shape
                terms += math.prod(swept) * math.prod(weight[1:])
        return 2 * terms / 1e9

    @property
    def traffic(self) -> float:
        """Input, weights and output: what lies between may stay in caches."""
        (output,) = self.graph.outputs
        weights = sum(value.constant.nbytes for value in self.graph.constants() if value.constant is not None)
        return (self.input("NCHW").nbytes + weights + self.types(self.graph)[output].nbytes) / 1e9

    @property
    def aim(self) -> float | None:
        return self.layer.aims.get(self.batch)


def case_of(
    layer: Layer | Network, batch: int = 1, dtype: str = "float32", seed: int = 0, *, training: bool = False
) -> Case:
    """The case of a layer of either kind, or of a network; with ``training`` of a convolution's gradients."""
    if isinstance(layer, Network):
        return NetworkCase(layer, batch, dtype, seed)
    if isinstance(layer, ConvLayer):
        return (GradientCase if training else ConvCase)(layer, batch, dtype, seed)
    return PoolCase(layer, batch, dtype, seed)
