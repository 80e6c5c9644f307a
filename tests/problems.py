# SPDX-License-Identifier: BSD-3-Clause
"""A seeded convolution, with its numbers, in each layout."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from support import to_layout

LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float64")

Pair = tuple[int, int]
Pairs = tuple[Pair, Pair]


@dataclass(frozen=True)
class Problem:
    """A convolution in full, but for layout, dtype and numbers."""

    size: Pair
    in_channels: int = 1
    out_channels: int = 1
    kernel: Pair = (1, 1)
    batch: int = 1
    stride: Pair = (1, 1)
    padding: Pairs = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    activation: str | None = None
    residual: bool = False

    def __str__(self) -> str:
        """What differs from the defaults: enough to type the problem in again."""
        named = ((f, getattr(self, f.name)) for f in fields(self))
        return ", ".join(f"{f.name}={value}" for f, value in named if value != f.default)

    @property
    def out_size(self) -> Pair:
        """May be negative: then there is no such convolution."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        h, w = ((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        return h, w

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels first."""
        return (self.batch, self.in_channels, *self.size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Channels first."""
        return (self.batch, self.out_channels, *self.out_size)

    @property
    def exists(self) -> bool:
        """Whether there are an image and an output."""
        return min(*self.size, *self.out_size) >= 1

    @property
    def terms(self) -> int:
        """Products in one sum."""
        return int(np.prod(self.weight_shape[1:]))

    @property
    def products(self) -> int:
        return int(np.prod(self.output_shape)) * self.terms

    @property
    def geometry(self) -> dict[str, object]:
        """The arguments that forward and gradients share."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }


def existing(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.exists]


class Operands(NamedTuple):
    """The arrays of a problem."""

    input: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    residual: np.ndarray | None

    def to(self, layout: str) -> "Operands":
        """From channels first to this layout."""
        residual = None if self.residual is None else to_layout(self.residual, layout)
        return Operands(to_layout(self.input, layout), self.weight, self.bias, residual)


def in_layout(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """A shape (N, C, H, W) in the order of axes that `layout` names."""
    return tuple(shape["NCHW".index(axis)] for axis in layout)


def operands(problem: Problem, dtype: DTypeLike) -> Operands:
    """Numbers like those inside a network, channels first: a ReLU's outputs, He et al.'s weights.

    Then sums have mean 0 and variance 1 whatever the problem.
    """
    rng = np.random.default_rng(zlib.crc32(str(problem).encode()))

    def normal(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(dtype)

    input = np.maximum(normal(problem.input_shape), 0)
    weight = normal(problem.weight_shape, np.sqrt(2 / problem.terms))
    bias = normal((problem.out_channels,), 0.5) if problem.bias else None
    residual = normal(problem.output_shape, 0.5) if problem.residual else None
    return Operands(input, weight, bias, residual)


def spell(problem: Problem, layout: str, dtype: DTypeLike, fault: str) -> str:
    """A line of a failure's message."""
    return f"{fault} ({problem}, layout={layout}, dtype={dtype})"
