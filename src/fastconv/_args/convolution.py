# SPDX-License-Identifier: BSD-3-Clause
"""The sizes of a convolution, however they were spelled.

:class:`Geometry` holds them; its :meth:`~Geometry.fields` are the C core's ``fc_problem``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv._args.arrays import types_of
from fastconv._args.names import ACTIVATIONS, DIRECTIONS, LAYOUTS, Activation, layout_axes
from fastconv._args.numbers import LIMIT, integer, paddings, per_axis
from fastconv._args.words import said


class Fields(NamedTuple):
    """The core's ``fc_problem``, under its own names; views in elements, and of each axis ``fc_axis``."""

    direction: int
    types: tuple[int, int, int, int]
    batch: int
    groups: int
    in_channels: int
    out_channels: int
    axis: tuple[tuple[int, ...], ...]
    src: tuple[int, ...]
    wei: tuple[int, ...]
    dst: tuple[int, ...]
    activation: int
    low: float
    high: float
    alpha: float
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a convolution. Spatial tuples have one entry per axis; channels are totals over all groups."""

    layout: str
    batched: bool
    batch: int
    groups: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the batched input."""
        return self._arranged(self.in_channels, self.in_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the batched output."""
        return self._arranged(self.out_channels, self.out_size)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the output as the caller expects it: without the batch if the input had none."""
        return self.output_shape if self.batched else self.output_shape[1:]

    @property
    def input_result_shape(self) -> tuple[int, ...]:
        """Shape of the input as a caller expects it whose result it is: that of a transposed convolution."""
        return self.input_shape if self.batched else self.input_shape[1:]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    def public(self, array: np.ndarray) -> np.ndarray:
        """A batched result as the caller expects it."""
        return array if self.batched else array[0]

    def _arranged(self, channels: int, size: tuple[int, ...]) -> tuple[int, ...]:
        shape = [0] * (self.rank + 2)
        for axis, length in zip(layout_axes(self.layout, self.rank), (self.batch, channels, *size), strict=True):
            shape[axis] = length
        return tuple(shape)

    def _image_view(self, strides: tuple[int, ...], channels: int) -> tuple[int, ...]:
        """Strides of an image tensor in the core's order: group, image, channel, and three axes."""
        strides = strides if len(strides) == self.rank + 2 else (0, *strides)  # one image
        batch, channel, *spatial = (strides[axis] for axis in layout_axes(self.layout, self.rank))
        return (channel * (channels // self.groups), batch, channel, *(0,) * (3 - self.rank), *spatial)

    def fields(
        self,
        direction: str,
        dtype: np.dtype,
        src: tuple[int, ...],
        wei: tuple[int, ...],
        dst: tuple[int, ...],
        activation: Activation = ACTIVATIONS[None],
    ) -> Fields:
        """The core's ``fc_problem`` for arrays with these strides, given in bytes."""
        item = dtype.itemsize
        src, wei, dst = (tuple(s // item for s in strides) for strides in (src, wei, dst))
        per_group = self.out_channels // self.groups
        missing = ((1, 1, 1, 1, 1, 0),) * (3 - self.rank)
        before = tuple(pair[0] for pair in self.padding)
        axes = zip(self.in_size, self.out_size, self.kernel, self.stride, self.dilation, before, strict=True)
        return Fields(
            direction=DIRECTIONS[direction],
            types=types_of(dtype),
            batch=self.batch,
            groups=self.groups,
            in_channels=self.in_channels // self.groups,
            out_channels=per_group,
            axis=(*missing, *axes),
            src=self._image_view(src, self.in_channels),
            wei=(wei[0] * per_group, wei[0], wei[1], *(0,) * (3 - self.rank), *wei[2:]),
            dst=self._image_view(dst, self.out_channels),
            activation=activation[0],
            low=activation[1],
            high=activation[2],
            alpha=activation[3],
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """The arguments that any convolution has, checked one by one."""

    batched: bool
    batch: int
    channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


#: The first two axes of a weight, by which channels come first.
_CHANNELS = {"output": "out_channels, in_channels / groups", "input": "in_channels, out_channels / groups"}


def _sizes_of(
    rank: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    first: str,
    stride: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    input_name: str,
) -> Sizes:
    axes = layout_axes(layout, rank)
    if len(input_shape) not in (rank + 1, rank + 2):
        raise ValueError(
            f"{input_name} has shape {input_shape}; it needs {rank + 2} axes in the order {layout}, or {rank + 1} "
            "without the batch"
        )
    if len(weight_shape) != rank + 2:
        raise ValueError(
            f"weight has shape {weight_shape}; it needs {rank + 2} axes: {_CHANNELS[first]}, and the kernel's"
        )
    batched = len(input_shape) == rank + 2
    shape = input_shape if batched else (1, *input_shape)
    batch, channels, *size = (shape[axis] for axis in axes)
    stride = per_axis(stride, rank, "stride", 1)
    dilation = per_axis(dilation, rank, "dilation", 1)
    groups = integer(groups, "groups", 1)
    if min(weight_shape) < 1:
        raise ValueError(f"weight has shape {weight_shape}; it needs at least one element along each axis")
    if channels < 1 or min(size) < 1:
        raise ValueError(f"{input_name} has shape {input_shape}; only the batch may be empty")
    if weight_shape[0] % groups:
        raise ValueError(f"groups is {groups}; it needs to divide weight's {weight_shape[0]} {first} channels")
    if channels % groups:
        raise ValueError(f"groups is {groups}; it needs to divide {input_name}'s {channels} channels")
    kernel = tuple(weight_shape[2:])
    return Sizes(batched, batch, channels, tuple(size), kernel, stride, dilation, groups)


def _within_limit(batch: int, **tensors: tuple[int, ...]) -> None:
    for name, sizes_of_image in tensors.items():
        total = math.prod((max(batch, 1), *sizes_of_image))
        if total > LIMIT:
            raise ValueError(f"{name} would have {total} elements; the sizes need a product of at most {LIMIT}")


def geometry(
    rank: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    input_name: str = "input",
) -> Geometry:
    """Check and normalise the parameters of a convolution with ``rank`` spatial axes."""
    a = _sizes_of(
        rank,
        input_shape,
        weight_shape,
        "output",
        stride,
        dilation,
        groups,
        layout,
        input_name,
    )
    if a.channels != weight_shape[1] * a.groups:
        raise ValueError(
            f"weight has shape {weight_shape}, for {weight_shape[1] * a.groups} input channels in {a.groups} groups; "
            f"{input_name} of shape {input_shape} needs {a.channels // a.groups} channels per group"
            f"{_order_hint(rank, input_shape, weight_shape, a.groups, layout)}"
        )
    pairs = paddings(padding, a.size, a.kernel, a.stride, a.dilation)
    out_size = []
    for size, k, s, d, (before, after) in zip(a.size, a.kernel, a.stride, a.dilation, pairs, strict=True):
        span = size + before + after - d * (k - 1) - 1
        if span < 0:
            raise ValueError(
                f"weight's kernel {a.kernel} with dilation {a.dilation} is larger than {input_name}'s size "
                f"{a.size} with padding {pairs}"
            )
        out_size.append(span // s + 1)
    _within_limit(a.batch, **{input_name: (a.channels, *a.size), "the output": (weight_shape[0], *out_size)})
    return Geometry(
        layout,
        a.batched,
        a.batch,
        a.groups,
        a.channels,
        weight_shape[0],
        a.size,
        tuple(out_size),
        a.kernel,
        a.stride,
        a.dilation,
        pairs,
    )


def _order_hint(
    rank: int, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], groups: int, layout: str
) -> str:
    """What to say where the channels agree in another order of the axes."""
    wanted, batched = weight_shape[1] * groups, len(input_shape) == rank + 2
    for other, axes in LAYOUTS[rank].items():
        if other != layout and input_shape[axes[1] - (not batched)] == wanted:
            return f"; if the input's order is {other}, say layout={other!r}"
    if weight_shape[-2] * groups == input_shape[layout_axes(layout, rank)[1] - (not batched)]:
        order = (rank + 1, rank, *range(rank))
        return f"; if the kernel's axes come first in weight, give weight.transpose{order}"
    return ""


def transposed_geometry(
    rank: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    input_name: str = "input",
) -> Geometry:
    """Check and normalise the parameters of a transposed convolution.

    The result describes the convolution whose input gradient it is: what goes in here is that one's output.
    """
    a = _sizes_of(
        rank,
        input_shape,
        weight_shape,
        "input",
        stride,
        dilation,
        groups,
        layout,
        input_name,
    )
    if a.channels != weight_shape[0]:
        raise ValueError(
            f"weight has shape {weight_shape}, for {weight_shape[0]} input channels; {input_name} of shape "
            f"{input_shape} has {a.channels}"
            f"{_order_hint(rank, input_shape, (0, weight_shape[0], *weight_shape[2:]), 1, layout)}"
        )
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f"padding is {said(padding)}; a transposed convolution needs 'valid', integers or pairs")
    pairs = paddings(padding, a.size, a.kernel, a.stride, a.dilation)
    extra = per_axis(output_padding, rank, "output_padding", 0)
    for more, s, d in zip(extra, a.stride, a.dilation, strict=True):
        if more >= max(s, d):
            raise ValueError(
                f"output_padding is {said(output_padding)}; it needs to be smaller than stride {a.stride} or dilation "
                f"{a.dilation}"
            )
    sizes_out = []
    for size, k, s, d, more, (before, after) in zip(a.size, a.kernel, a.stride, a.dilation, extra, pairs, strict=True):
        length = (size - 1) * s + d * (k - 1) + 1 + more - before - after
        if length < 1:
            raise ValueError(
                f"padding is {said(padding)}; it leaves out all of the {length + before + after} elements of the "
                "output along an axis"
            )
        sizes_out.append(length)
    out_channels = weight_shape[1] * a.groups
    _within_limit(a.batch, **{input_name: (a.channels, *a.size), "the output": (out_channels, *sizes_out)})
    return Geometry(
        layout,
        a.batched,
        a.batch,
        a.groups,
        out_channels,
        a.channels,
        tuple(sizes_out),
        a.size,
        a.kernel,
        a.stride,
        a.dilation,
        pairs,
    )


def geometry_of(
    rank: int,
    transposed: bool,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    input_name: str,
) -> Geometry:
    """The convolution, or the one whose input gradient a transposed one is."""
    if not transposed:
        return geometry(rank, input_shape, weight_shape, stride, padding, dilation, groups, layout, input_name)
    return transposed_geometry(
        rank, input_shape, weight_shape, stride, padding, output_padding, dilation, groups, layout, input_name
    )
