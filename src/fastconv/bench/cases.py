# SPDX-License-Identifier: BSD-3-Clause
"""A layer with data to run it on, and what should come out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from fastconv import reference
from fastconv._names import only
from fastconv.bench.shapes import ConvLayer, Layer, PoolLayer

__all__ = ["Case", "ConvCase", "PoolCase", "case_of"]
__dir__ = only(__all__)


class Case:
    """What all contenders of one layer are given.

    Parameters
    ----------
    layer : Layer
    batch : int
    dtype : {"float32", "float64"}
    seed : int

    Notes
    -----
    Inputs are as a ReLU leaves them: half zeros, the rest half of a normal distribution.
    """

    def __init__(self, layer: Layer, batch: int = 1, dtype: str = "float32", seed: int = 0) -> None:
        self.layer, self.batch, self.dtype = layer, batch, np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        shape = layer.input_shape(batch)
        images = np.maximum(self.rng.standard_normal(shape, np.float32), 0).astype(dtype)
        self._inputs = {"NCHW": images}

    def input(self, layout: str) -> np.ndarray:
        """The images, C-contiguous in the layout."""
        if layout not in self._inputs:
            images = self._inputs["NCHW"]
            self._inputs[layout] = np.ascontiguousarray(np.moveaxis(images, 1, -1))
        return self._inputs[layout]

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


class ConvCase(Case):
    """A convolution with He's weights: normal, of variance 2 / terms."""

    layer: ConvLayer

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


class PoolCase(Case):
    """A pooling layer."""

    layer: PoolLayer

    @cached_property
    def expected(self) -> np.ndarray:
        pool: Callable[..., np.ndarray] = reference.max_pool2d if self.layer.kind == "max" else reference.avg_pool2d
        return pool(self.input("NCHW").astype(np.float64), **self.layer.arguments)


def case_of(layer: Layer, batch: int = 1, dtype: str = "float32", seed: int = 0) -> Case:
    """The case of a layer of either kind."""
    if isinstance(layer, ConvLayer):
        return ConvCase(layer, batch, dtype, seed)
    return PoolCase(layer, batch, dtype, seed)
