# SPDX-License-Identifier: BSD-3-Clause
"""From what callers give to one normalised problem: the only home of argument errors of convolutions.

Arrays pass through :func:`as_array`; numbers through :func:`per_axis` and :func:`paddings`; and
:class:`Geometry` holds the sizes of a convolution, however it was spelled. Its :meth:`~Geometry.fields`
are the C core's ``fc_problem``.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

FLOATS = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # the core's number of each dtype
HALF = np.dtype(np.float16)
_WORK: Any = 100_000  # steps of a search for a shared element; NumPy's stubs know only 0 and -1
LIMIT = 1 << 48  # elements of one tensor; the core's own limit

# Axis positions of a batched array: batch, channel, and the spatial axes.
_LAYOUTS: dict[int, dict[str, tuple[int, ...]]] = {
    1: {"NCW": (0, 1, 2), "NWC": (0, 2, 1)},
    2: {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)},
    3: {"NCDHW": (0, 1, 2, 3, 4), "NDHWC": (0, 4, 1, 2, 3)},
}
ACTIVATIONS: dict[str | None, tuple[float, float]] = {
    None: (-math.inf, math.inf),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
}
#: Algorithms of convolution, as numbered by the C core.
ALGORITHMS = (
    "direct",
    "im2col",
    "winograd_f2",
    "winograd_f3",
    "winograd_f4",
    "winograd_f6",
    "pointwise",
    "depthwise",
    "reference",
)
DIRECTIONS = {"forward": 0, "input": 1, "weight": 2}


# ------------------------------------------------------------------------------------------- arrays


def as_array(value: Any, name: str) -> np.ndarray:
    """An array over the caller's memory, where it offers any: NumPy, buffer protocol, or DLPack on the CPU."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
        return _exchanged(value, name)
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} is {said(value)}, of which NumPy makes no array ({error})") from None


def said(value: Any) -> str:
    """What an argument is, in a few words: arrays by their shape, anything long without its middle."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, bytes, int, float, complex, type(None))):
        text = repr(value)
    elif hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", 0) != 0:
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    elif callable(value) and hasattr(value, "__name__"):
        return f"the {'class' if isinstance(value, type) else type(value).__name__} {value.__name__}"
    elif type(value).__module__.startswith("fastconv."):
        return f"a {type(value).__name__}"
    else:
        text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:50]}...{text[-20:]}"


def _exchanged(value: Any, name: str) -> np.ndarray:
    """An array over the memory of an object that speaks DLPack, which says in its own ways what it cannot lend."""
    if getattr(value, "requires_grad", False):
        raise TypeError(f"{name} requires grad; pass {name}.detach()")
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
    try:
        device = tuple(map(int, value.__dlpack_device__())) if hasattr(value, "__dlpack_device__") else (1, 0)
    except Exception as error:
        raise TypeError(f"{name} is a {kind} without memory on the CPU ({error}); move it to the CPU first") from None
    if device[0] != 1:
        raise TypeError(f"{name} is a {kind} on device {device}; move it to the CPU first")
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        dtype = getattr(value, "dtype", "unknown")
        raise TypeError(
            f"{name} is a {kind} of dtype {dtype}, which NumPy cannot read in place ({error}); it needs to be a dense "
            "array of float32, float64 or float16"
        ) from None


def as_operand(value: Any, name: str) -> np.ndarray:
    """An array of a dtype that is computed with: float32, float64, or float16 by way of float32."""
    array = as_array(value, name)
    if array.dtype not in FLOATS and array.dtype != HALF:
        raise TypeError(_no_operand(value, array, name))
    return array


def _no_operand(value: Any, array: np.ndarray, name: str) -> str:
    """What the argument is, what it needs to be, and how to make the one of the other."""
    needs, kind = "it needs float32, float64 or float16", array.dtype.kind
    if value is None or isinstance(value, (str, bytes, os.PathLike, dict, set)) or (kind in "OUSV" and array.ndim == 0):
        hint = ": a file has to be read first" if isinstance(value, (str, bytes, os.PathLike)) else ""
        return f"{name} is {said(value)}; it needs an array of float32, float64 or float16{hint}"
    if kind == "c":
        return f"{name} has dtype {array.dtype}; {needs}: give {name}.real and {name}.imag one by one"
    if kind in "OUSVMm":
        return f"{name} has dtype {array.dtype}; {needs}, and no numbers can be made of this by themselves"
    if not hasattr(value, "dtype"):  # a list, or nested lists
        return f"{name} is a {type(value).__name__} of {array.dtype}; {needs}: numpy.asarray({name}, numpy.float32)"
    scale = " (/ 255 for an image from 0 to 1)" if array.dtype == np.uint8 else ""
    return f"{name} has dtype {array.dtype}; {needs}: convert it with {name}.astype(numpy.float32){scale}"


def same_dtype(array: np.ndarray, name: str, other: np.ndarray, other_name: str) -> None:
    if array.dtype != other.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype} and {other_name} {other.dtype}; they need the same: "
            f"{agreement(array.dtype, name, other.dtype, other_name)}"
        )


def agreement(dtype: np.dtype, name: str, other: np.dtype, other_name: str) -> str:
    """How arrays of two dtypes come to agree: whichever is not float32 becomes it."""
    odd = [n for n, d in ((name, dtype), (other_name, other)) if d != np.float32]
    return " and ".join(f"numpy.asarray({n}, numpy.float32)" for n in odd)


def addressable(array: np.ndarray) -> np.ndarray:
    """The array itself if its strides are whole elements of native byte order, else a copy."""
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        return array.copy()
    return array


def stored(array: np.ndarray) -> np.ndarray:
    """The array as the core takes it forward: strides in whole elements, float16 without gaps."""
    return addressable(np.ascontiguousarray(array) if array.dtype == HALF else array)


def computed(array: np.ndarray) -> np.ndarray:
    """The array as pooling and the gradients take it: float16 in float32, strides in whole elements."""
    return array.astype(np.float32) if array.dtype == HALF else addressable(array)


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    """Byte strides in which only the elements have a say.

    The stride of an axis of one element, which NumPy leaves as it happens to be, is that of a C-contiguous array around
    the axes that follow; so are all of an empty array.
    """
    strides, step = [], array.itemsize
    for length, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        strides.append(step if length == 1 or not array.size else stride)
        step = strides[-1] * max(length, 1)
    return tuple(reversed(strides))


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, inputs: dict[str, np.ndarray | None]) -> np.ndarray:
    """``out`` if a result of this shape and dtype can be written to it while the inputs are read."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; it needs to be a numpy.ndarray")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; it needs {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; it needs {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; it needs to be writeable")
    for name, array in inputs.items():
        if array is not None and overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; it needs memory of its own")
    return out


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share an element; in doubt, they do."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=_WORK)
    except np.exceptions.TooHardError:
        return True


# ------------------------------------------------------------------------------------------ numbers


def integer(value: Any, name: str, minimum: int) -> int:
    """A Python integer of at least ``minimum``."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {said(value)}; it needs an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {said(value)}; it needs an integer") from None
    if number < minimum:
        raise ValueError(f"{name} is {said(number)}; it needs to be at least {minimum}")
    if number > LIMIT:
        raise ValueError(f"{name} is {said(number)}; it needs to be at most {LIMIT}")
    return number


def real(value: Any, name: str) -> float:
    """A Python float, from anything that is one number; infinity and NaN are."""
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is {said(value)}; it needs to be within a float's range") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {said(value)}; it needs a number") from None


def sizes(value: Any, name: str, minimum: int) -> tuple[int, ...]:
    """The integers of a shape."""
    if getattr(value, "ndim", 1) != 1:
        raise TypeError(f"{name} is {said(value)}; it needs a tuple of integers, such as an array's .shape")
    try:
        numbers = tuple(value)
    except TypeError:
        raise TypeError(f"{name} is {said(value)}; it needs a tuple of integers") from None
    return tuple(integer(number, name, minimum) for number in numbers)


def _is_sequence(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def per_axis(value: Any, rank: int, name: str, minimum: int) -> tuple[int, ...]:
    """One integer per spatial axis, from one for all or from a sequence."""
    if not _is_sequence(value):
        return (integer(value, name, minimum),) * rank
    if len(value) not in (1, rank):
        raise ValueError(f"{name} is {said(value)}; it needs an integer or {rank} of them")
    numbers = sizes(value, name, minimum)
    return numbers * rank if len(numbers) == 1 else numbers


def paddings(
    padding: Any,
    in_size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """A (before, after) pair per axis from an int, ints, pairs, or the names ``valid``, ``same``, ``same_lower``.

    ``same`` gives ceil(in / stride) outputs, with the odd element of padding on the high side;
    ``same_lower`` has it on the low side.
    """
    rank = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * rank
        if padding not in ("same", "same_lower"):
            raise ValueError(
                f"padding is {said(padding)}; it needs 'valid', 'same', 'same_lower', an integer, {rank} of them, or "
                f"{rank} pairs (before, after)"
            )
        pairs = []
        for size, k, s, d in zip(in_size, kernel, stride, dilation, strict=True):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if padding == "same" else (large, small))
        return tuple(pairs)
    if _is_sequence(padding) and len(padding) and all(map(_is_sequence, padding)):
        if len(padding) != rank or any(len(pair) != 2 for pair in padding):
            raise ValueError(f"padding is {said(padding)}; it needs {rank} pairs (before, after)")
        return tuple((integer(b, "padding", 0), integer(a, "padding", 0)) for b, a in padding)
    return tuple((p, p) for p in per_axis(padding, rank, "padding", 0))


def channels_first(rank: int) -> str:
    """The layout that every function of this rank has by default."""
    return next(iter(_LAYOUTS[rank]))


def rank_of(layout: str) -> int:
    """How many spatial axes a layout has."""
    for rank, names in _LAYOUTS.items():
        if isinstance(layout, str) and layout in names:
            return rank
    raise ValueError(f"layout is {layout!r}; it needs {', '.join(repr(n) for some in _LAYOUTS.values() for n in some)}")


def layout_axes(layout: str, rank: int) -> tuple[int, ...]:
    """Positions of batch, channel and spatial axes in a batched array."""
    axes = _LAYOUTS[rank].get(layout) if isinstance(layout, str) else None
    if axes is None:
        raise ValueError(f"layout is {layout!r}; it needs {' or '.join(map(repr, _LAYOUTS[rank]))}")
    return axes


def activation_bounds(activation: str | None) -> tuple[float, float]:
    """The clamp that an activation is."""
    if not isinstance(activation, (str, type(None))) or activation not in ACTIVATIONS:
        raise ValueError(f"activation is {said(activation)}; it needs {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS[activation]


def is_strict(precision: str) -> bool:
    if precision not in ("default", "strict"):
        raise ValueError(f"precision is {precision!r}; it needs 'default' or 'strict'")
    return precision == "strict"


def is_batch_invariant(batch_invariant: bool) -> bool:
    if not isinstance(batch_invariant, bool):
        raise TypeError(f"batch_invariant is {batch_invariant!r}; it needs to be True or False")
    return batch_invariant


# ----------------------------------------------------------------------------------------- geometry


class Fields(NamedTuple):
    """The core's ``fc_problem``, under its own names; views in elements, and of each axis ``fc_axis``."""

    direction: int
    dtype: int
    half: int
    batch: int
    groups: int
    in_channels: int
    out_channels: int
    axis: tuple[tuple[int, ...], ...]
    src: tuple[int, ...]
    wei: tuple[int, ...]
    dst: tuple[int, ...]
    low: float
    high: float


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
        bounds: tuple[float, float] = ACTIVATIONS[None],
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
            dtype=FLOATS[np.dtype(np.float32) if dtype == HALF else dtype],
            half=int(dtype == HALF),
            batch=self.batch,
            groups=self.groups,
            in_channels=self.in_channels // self.groups,
            out_channels=per_group,
            axis=(*missing, *axes),
            src=self._image_view(src, self.in_channels),
            wei=(wei[0] * per_group, wei[0], wei[1], *(0,) * (3 - self.rank), *wei[2:]),
            dst=self._image_view(dst, self.out_channels),
            low=bounds[0],
            high=bounds[1],
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
    for other, axes in _LAYOUTS[rank].items():
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
