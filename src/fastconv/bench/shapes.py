# SPDX-License-Identifier: BSD-3-Clause
"""The layers of ``shapes.toml``, for benchmarks and tests alike."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, ClassVar

import numpy as np

from fastconv import _args
from fastconv._names import only

__all__ = ["LISTS", "NETWORKS", "ConvLayer", "Layer", "PoolLayer", "conv_layers", "layers", "pool_layers"]
__dir__ = only(__all__)

#: Lists of layers that make no network, and what they are for.
LISTS = {
    "table": "one layer of each sort that real networks have",
    "untuned": "layers of odd sizes, kernels, strides and groups, which libraries seldom tune for",
    "kinds": "layers of kinds that networks have here and there, each of which has a bottleneck of its own",
}
#: The names that :func:`layers` knows: six networks, and the lists.
NETWORKS = ("lenet5", "alexnet", "vgg16", "googlenet", "resnet50", "mobilenet_v1", *LISTS)

Pair = tuple[int, int]
Padding = Pair | tuple[Pair, Pair]


@dataclass(frozen=True)
class Layer:
    """What all layers have: a place in a network, an input, and windows that move over it.

    ``arithmetic`` says which ceiling a sort of layer has: multiply-adds, or else memory.

    Attributes
    ----------
    network, name : str
    in_channels, height, width : int
        Of the input.
    kernel, stride : pair of int
    padding : pair of int, or pair of pairs
        One number per axis, or before and after.
    count : int
        How often the network has this layer.
    """

    network: str
    name: str
    in_channels: int
    height: int
    width: int
    kernel: Pair
    stride: Pair
    padding: Padding
    count: int
    arithmetic: ClassVar[bool]

    def input_shape(self, batch: int = 1, layout: str = "NCHW") -> tuple[int, ...]:
        """Shape of the input, in the order of ``layout``."""
        return self._arranged((batch, self.in_channels, self.height, self.width), layout)

    def output_shape(self, batch: int = 1, layout: str = "NCHW") -> tuple[int, ...]:
        """Shape of the output, in the order of ``layout``."""
        g = self._geometry
        return self._arranged((batch, g.out_channels, *g.out_size), layout)

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Padding at the top, the bottom, the left and the right."""
        (top, bottom), (left, right) = (_pair(side) for side in self.padding)
        return top, bottom, left, right

    @property
    def symmetric_padding(self) -> Pair | None:
        """One number per axis, if before and after are equal."""
        top, bottom, left, right = self.sides
        return (top, left) if (top, left) == (bottom, right) else None

    @property
    def window(self) -> str:
        """Kernel and stride for a reader: ``3×3/2``."""
        kernel = "×".join(map(str, self.kernel))
        return kernel if self.stride == (1, 1) else f"{kernel}/{_short(self.stride)}"

    @property
    def size(self) -> str:
        """The input's height and width for a reader: ``224``, or ``480×640``."""
        return _short((self.height, self.width))

    @property
    def label(self) -> str:
        """What it is, for a reader."""
        raise NotImplementedError

    def traffic(self, itemsize: int, batch: int = 1) -> int:
        """Bytes that have to pass through memory at least."""
        raise NotImplementedError

    @property
    def _geometry(self) -> _args.Geometry:
        raise NotImplementedError

    @staticmethod
    def _arranged(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
        order = np.argsort(_args.layout_axes(layout, 2))
        return tuple(shape[axis] for axis in order)


@dataclass(frozen=True)
class ConvLayer(Layer):
    """A convolution; its bias has ``out_channels`` elements.

    ``aim`` is the share of the multiply-add peak that fastconv is to reach, where one has been set.

    Examples
    --------
    >>> from fastconv.bench.shapes import conv_layers
    >>> layer = conv_layers("vgg16")[0]
    >>> layer.name, layer.input_shape(), layer.weight_shape, layer.output_shape(layout="NHWC")
    ('conv1_1', (1, 3, 224, 224), (64, 3, 3, 3), (1, 224, 224, 64))
    >>> layer.label, layer.flops()
    ('3→64 3×3 @224', 173408256)
    """

    out_channels: int
    dilation: Pair
    groups: int
    aim: float | None = None
    arithmetic: ClassVar[bool] = True

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, C / groups, KH, KW)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def terms(self) -> int:
        """Products that one output element sums."""
        return math.prod(self.weight_shape[1:])

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :func:`fastconv.conv2d`."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @property
    def label(self) -> str:
        """Channels, window and image size for a reader."""
        dilation = f" dilation {_short(self.dilation)}" if self.dilation != (1, 1) else ""
        groups = f" {self.groups} groups" if self.groups > 1 else ""
        sides = "" if self.symmetric_padding else " padding {}+{} {}+{}".format(*self.sides)
        return f"{self.in_channels}→{self.out_channels} {self.window} @{self.size}{dilation}{groups}{sides}"

    def flops(self, batch: int = 1) -> int:
        """Floating-point operations of the direct sum, a multiply-add counting two."""
        return 2 * self.terms * math.prod(self.output_shape(batch))

    def traffic(self, itemsize: int, batch: int = 1) -> int:
        """Bytes of input, weights and output together."""
        shapes = (self.input_shape(batch), self.weight_shape, self.output_shape(batch))
        return itemsize * sum(map(math.prod, shapes))

    @cached_property
    def _geometry(self) -> _args.Geometry:
        return _args.geometry(2, self.input_shape(), self.weight_shape, **self.arguments, layout="NCHW")


@dataclass(frozen=True)
class PoolLayer(Layer):
    """A pooling layer; ``kind`` is ``"max"`` or ``"avg"``.

    Examples
    --------
    >>> from fastconv.bench.shapes import pool_layers
    >>> layer = pool_layers("vgg16")[0]
    >>> layer.label, layer.output_shape(), layer.traffic(itemsize=4)
    ('max 2×2/2 64 @224', (1, 64, 112, 112), 16056320)
    """

    kind: str
    arithmetic: ClassVar[bool] = False

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :func:`fastconv.max_pool2d` or :func:`fastconv.avg_pool2d`."""
        return {"kernel_size": self.kernel, "stride": self.stride, "padding": self.padding}

    @property
    def label(self) -> str:
        """Kind, window, channels and image size for a reader."""
        return f"{self.kind} {self.window} {self.in_channels} @{self.size}"

    def traffic(self, itemsize: int, batch: int = 1) -> int:
        """Bytes of input and output together: what has to pass through memory at least."""
        return itemsize * sum(math.prod(shape) for shape in (self.input_shape(batch), self.output_shape(batch)))

    @cached_property
    def _geometry(self) -> _args.Geometry:
        # The windows are those of a depthwise convolution.
        channels = self.in_channels
        weight = (channels, 1, *self.kernel)
        return _args.geometry(2, self.input_shape(), weight, self.stride, self.padding, 1, channels, "NCHW")


def conv_layers(network: str) -> tuple[ConvLayer, ...]:
    """The distinct convolutions of a network, in its order.

    Parameters
    ----------
    network : str
        One of :data:`NETWORKS`.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    return tuple(layer for layer in layers(network) if isinstance(layer, ConvLayer))


def pool_layers(network: str) -> tuple[PoolLayer, ...]:
    """The distinct pooling layers of a network, in its order; otherwise as :func:`conv_layers`."""
    return tuple(layer for layer in layers(network) if isinstance(layer, PoolLayer))


def layers(network: str) -> tuple[Layer, ...]:
    """Convolutions and pooling layers of a network; otherwise as :func:`conv_layers`."""
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}; it needs one of {', '.join(map(repr, NETWORKS))}")
    return _read()[network]


@lru_cache(maxsize=1)
def _read() -> dict[str, tuple[Layer, ...]]:
    text = resources.files(__package__).joinpath("shapes.toml").read_text(encoding="utf-8")
    return {
        network: (
            *(_conv(network, **entry) for entry in tables["conv"]),
            *(_pool(network, **entry) for entry in tables["pool"]),
        )
        for network, tables in tomllib.loads(text).items()
    }


def _common(network: str, entry: dict[str, Any]) -> dict[str, Any]:
    channels, height, width = entry.pop("in")
    kernel = _pair(entry.pop("kernel"))
    return {
        "network": network,
        "name": entry.pop("name"),
        "in_channels": channels,
        "height": height,
        "width": width,
        "kernel": kernel,
        "stride": _pair(entry.pop("stride", 1)),
        "padding": _padding(entry.pop("padding", 0)),
        "count": entry.pop("count", 1),
    }


def _conv(network: str, **entry: Any) -> ConvLayer:
    return ConvLayer(
        **_common(network, entry),
        out_channels=entry.pop("out"),
        dilation=_pair(entry.pop("dilation", 1)),
        groups=entry.pop("groups", 1),
        **entry,  # a misspelled key is refused
    )


def _pool(network: str, **entry: Any) -> PoolLayer:
    return PoolLayer(**_common(network, entry), **entry)


def _pair(value: int | Sequence[int]) -> Pair:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def _padding(value: int | list[int] | list[list[int]]) -> Padding:
    if isinstance(value, int) or isinstance(value[0], int):
        return _pair(value)
    rows, columns = map(_pair, value)
    return rows, columns


def _short(pair: Pair) -> str:
    first, second = pair
    return str(first) if first == second else f"{first}×{second}"
