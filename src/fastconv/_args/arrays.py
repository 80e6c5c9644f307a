# SPDX-License-Identifier: BSD-3-Clause
"""Arrays: what callers give, what the core takes of it, and where results go.

Arguments pass through :func:`as_array`, and those that are computed with through :func:`as_operand`.

An order of axes in memory is a tuple of them, the outermost first, or None for C's order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _core
from fastconv._args.names import channels_first
from fastconv._args.words import said

FLOATS = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # the core's number of each dtype
HALF = np.dtype(np.float16)
Order = tuple[int, ...] | None
_WORK: Any = 100_000  # steps of a search for a shared element; NumPy's stubs know only 0 and -1


def as_array(value: Any, name: str) -> np.ndarray:
    """An array over the caller's memory, where it offers any: NumPy, buffer protocol, or DLPack on the CPU."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; it needs a value wherever it is masked: {name}.filled(0), say")
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
        return _exchanged(value, name)
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} is {said(value)}, of which NumPy makes no array ({error})") from None


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


def types_of(dtype: np.dtype) -> tuple[int, int, int, int]:
    """The core's ``fc_types`` where all tensors have this dtype: those of input, weight, sums and output."""
    tensor, accumulator = (2, 0) if dtype == HALF else (FLOATS[dtype], FLOATS[dtype])
    return tensor, tensor, accumulator, tensor


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


def check_bias(bias: ArrayLike | None, channels: int, weight: np.ndarray) -> np.ndarray | None:
    """The bias as a contiguous array, or None."""
    if bias is None:
        return None
    bias = as_operand(bias, "bias")
    if bias.shape != (channels,):
        raise ValueError(f"bias has shape {bias.shape}; it needs ({channels},)")
    same_dtype(bias, "bias", weight, "weight")
    return addressable(np.ascontiguousarray(bias))


def check_residual(residual: ArrayLike, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    residual = as_operand(residual, "residual")
    if residual.shape != shape:
        raise ValueError(f"residual has shape {residual.shape}; it needs the output's shape {shape}")
    if residual.dtype != dtype:
        raise TypeError(f"residual has dtype {residual.dtype}; it needs {dtype}")
    return residual


def addressable(array: np.ndarray) -> np.ndarray:
    """The array itself if its strides are whole elements of native byte order, else a copy."""
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        return array.copy()
    return array


def stored(array: np.ndarray, order: Order = None) -> np.ndarray:
    """The array as the core takes it forward: strides in whole elements, float16 without gaps in this order."""
    return addressable(dense(array, order) if array.dtype == HALF else array)


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


def dense_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Byte strides of a C-contiguous array."""
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def order_of(images: np.ndarray, rank: int, layout: str) -> Order:
    """The order in memory of what is computed of images: that of their own axes, if they have channels first.

    This is the one rule of what counts as channels last in memory: ``layout`` has channels first, and by strides, with
    or without gaps, they lie last. Images that could be called either way count as channels first, as does all that is
    C-contiguous: those of one channel or of one pixel, and none at all. With channels last in ``layout`` results are
    C-contiguous.
    """
    channel = images.ndim - rank - 1
    if images.flags.c_contiguous or layout != channels_first(rank) or images.shape[channel] == 1:
        return None
    order, step, pixels = last_order(images.ndim, rank), 1, 1
    for axis in reversed(order):
        length, stride = images.shape[axis], abs(images.strides[axis])
        if length > 1:
            if stride < step:
                return None
            step = stride * length
            pixels *= length if axis > channel else 1
    return order if pixels > 1 else None


def last_order(axes: int, rank: int) -> tuple[int, ...]:
    """That of an array with channels behind its last axes, of which there are `rank` spatial ones."""
    channel = axes - rank - 1
    return (*range(channel), *range(channel + 1, axes), channel)


def turned(array: np.ndarray, order: Order) -> np.ndarray:
    """A view of the array with its axes in this order."""
    return array if order is None else array.transpose(order)


def turned_back(array: np.ndarray, order: Order) -> np.ndarray:
    """A view of such a view as the array it is of."""
    return array if order is None else array.transpose([order.index(axis) for axis in range(array.ndim)])


def dense(array: np.ndarray, order: Order) -> np.ndarray:
    """The array without gaps, its axes in this order in memory: a copy, if it does not lie so."""
    view = turned(array, order)
    return array if view.flags.c_contiguous else turned_back(view.copy(), order)


def ordered_as(array: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The array, of the other's shape and dtype: a copy, if its axes lie in another order in memory."""
    if _core.axes_in_memory(array) == _core.axes_in_memory(other):
        return array
    copy = _core.new_like(other)
    copy[...] = array
    return copy


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, inputs: Mapping[str, np.ndarray | None]) -> np.ndarray:
    """``out`` if a result of this shape and dtype can be written to it while the inputs are read."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; it needs to be a numpy.ndarray")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; it needs {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; it needs {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; it needs to be writeable")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError("out is a masked array; it needs to be a plain one, out.data, say")
    if not _is_spread(out):
        raise ValueError(f"out has strides {out.strides} for shape {shape}; its elements need memory of their own")
    for name, array in inputs.items():
        if array is not None and overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; it needs memory of its own")
    return out


def _is_spread(array: np.ndarray) -> bool:
    """Whether no two elements share memory: each axis steps over all that the narrower ones span."""
    span = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < span and array.size:
            return False
        span += stride * (length - 1)
    return True


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share an element; in doubt, they do."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=_WORK)
    except np.exceptions.TooHardError:
        return True


def same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same elements in the same order."""
    return a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides


def target(
    out: np.ndarray | None, without_gaps: bool, shape: tuple[int, ...], dtype: np.dtype, order: Order = None
) -> np.ndarray:
    """``out`` if the core can write to it as it lies, else a new array in this order."""
    if out is not None and addressable(out) is out and (turned(out, order).flags.c_contiguous or not without_gaps):
        return out
    return _core.new_array(shape, dtype, order)


def laid_out(residual: np.ndarray | None, out: np.ndarray | None, order: Order = None) -> np.ndarray | None:
    """The residual without gaps in this order; it may only overlap ``out`` by being the same memory."""
    if residual is None:
        return None
    if out is not None and not same_memory(residual, out) and overlap(out, residual):
        raise ValueError("out overlaps residual in memory; it needs to be residual itself or memory of its own")
    return addressable(dense(residual, order))


def handed_over(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """``out`` with the result in it, if given."""
    if out is None:
        return result
    if result is not out:
        out[...] = result
    return out
