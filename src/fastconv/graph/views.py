# SPDX-License-Identifier: BSD-3-Clause
"""Where the numbers of a value lie: in which buffer, from which element on, in which strides."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastconv._names import only

__all__ = ["Buffer", "Type", "View", "broadcast", "dense", "overlap", "reshaped", "spread"]
__dir__ = only(__all__)


_ALIASING, _LINE = 2048, 64  # bytes


class Type(NamedTuple):
    """What is known of a value before anything has run."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory of a call: a part of the arena, or an array that comes from outside.

    ``array`` is one that is there before the call, ``place`` the number of one that the caller hands over. Where the
    batch goes part by part, those of a whole batch lie ``apart`` bytes from each other.
    """

    nbytes: int
    name: str
    array: Any = None
    place: int | None = None
    offset: int = -1  # in the arena
    apart: int = 0
    shares: Buffer | None = field(default=None, repr=False)

    @property
    def is_external(self) -> bool:
        return self.array is not None or self.place is not None

    def root(self) -> Buffer:
        """The buffer whose memory this one is."""
        buffer = self
        while buffer.shares is not None:
            buffer = buffer.shares
        return buffer


class View(NamedTuple):
    """A tensor in a buffer; offset and strides in elements."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @property
    def type(self) -> Type:
        return Type(self.shape, self.dtype)

    @property
    def byte_offset(self) -> int:
        return self.offset * self.dtype.itemsize

    @property
    def byte_strides(self) -> tuple[int, ...]:
        return tuple(stride * self.dtype.itemsize for stride in self.strides)

    def sliced(self, axis: int, start: int, stop: int) -> View:
        """Elements start to stop of an axis."""
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        return self._replace(offset=self.offset + start * self.strides[axis], shape=shape)

    def stepped(self, axis: int, part: range) -> View:
        """These elements of an axis."""
        shape = (*self.shape[:axis], len(part), *self.shape[axis + 1 :])
        strides = (*self.strides[:axis], part.step * self.strides[axis], *self.strides[axis + 1 :])
        start = part.start * self.strides[axis] if len(part) else 0
        return self._replace(offset=self.offset + start, shape=shape, strides=strides)

    def transposed(self, order: tuple[int, ...]) -> View:
        return self._replace(shape=tuple(self.shape[i] for i in order), strides=tuple(self.strides[i] for i in order))

    def is_dense(self) -> bool:
        """Whether its elements lie in the order of its axes, without gaps."""
        return all(n == 1 or s == d for n, s, d in zip(self.shape, self.strides, dense(self.shape), strict=True))

    def reaches(self) -> int:
        """Bytes from the buffer's start to behind the last element."""
        if 0 in self.shape:
            return 0
        last = self.offset + sum((n - 1) * max(s, 0) for n, s in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.dtype.itemsize

    def begins(self) -> int:
        """Bytes from the buffer's start to the first element in memory."""
        if 0 in self.shape:
            return self.byte_offset
        first = self.offset + sum((n - 1) * min(s, 0) for n, s in zip(self.shape, self.strides, strict=True))
        return first * self.dtype.itemsize

    def on(self, memory: Any) -> np.ndarray:
        """As an array over the memory of its buffer."""
        return np.ndarray(self.shape, self.dtype, memory, self.byte_offset, self.byte_strides)


def dense(shape: tuple[int, ...], last: bool = False) -> tuple[int, ...]:
    """Strides without gaps in the order of the axes; ``last``: with the channels, axis 1, as the innermost."""
    order = [0, *range(2, len(shape)), 1] if last and len(shape) > 2 else list(range(len(shape)))
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def spread(shape: tuple[int, ...], itemsize: int, last: bool) -> tuple[int, ...]:
    """Strides of memory of our own: as `dense`, but for pixels whose channels take a multiple of 2 KiB.

    Those are a cache line more apart. Otherwise the same channel of pixel after pixel falls into one or two sets of the
    first-level cache, which hold 8 or 12 lines each, and a tile of a matrix product reads 14 pixels at once.
    """
    strides = dense(shape, last)
    pixels = math.prod(shape[2:])
    if not last or len(shape) < 3 or pixels == 1 or shape[1] * itemsize % _ALIASING:
        return strides
    return dense((shape[0], shape[1] + _LINE // itemsize, *shape[2:]), last)


def reshaped(view: View, shape: tuple[int, ...]) -> View | None:
    """The same elements in another shape, if that takes no copy."""
    if 0 in shape:
        return view._replace(shape=shape, strides=dense(shape))
    old = [(n, s) for n, s in zip(view.shape, view.strides, strict=True) if n != 1]
    strides: list[int] = []
    for length in reversed(shape):
        if length == 1:
            strides.append(0)
            continue
        if not old:
            return None
        inner, step = old.pop()
        strides.append(step)
        while inner < length and old and old[-1][1] == inner * step:
            inner *= old.pop()[0]
        if inner % length:
            return None
        if inner > length:
            old.append((inner // length, step * length))
    strides.reverse()
    for axis in range(len(shape) - 1, -1, -1):  # an axis of one element goes on where the next one ends
        if shape[axis] == 1:
            strides[axis] = shape[axis + 1] * strides[axis + 1] if axis + 1 < len(shape) else 1
    return view._replace(shape=shape, strides=tuple(strides))


def broadcast(view: View, shape: tuple[int, ...]) -> View:
    """The view as an array of this shape, as NumPy broadcasts."""
    missing = len(shape) - len(view.shape)
    strides = (0,) * missing + tuple(
        0 if n == 1 and wanted != 1 else stride
        for n, wanted, stride in zip(view.shape, shape[missing:], view.strides, strict=True)
    )
    return view._replace(shape=shape, strides=strides)


def overlap(a: View, b: View) -> bool:
    """Whether two views of one buffer have elements in common; views in other strides are taken to have."""
    if a.type.nbytes == 0 or b.type.nbytes == 0:
        return False
    if a.strides != b.strides or min(a.strides, default=0) <= 0:
        first, last = (a, b) if a.begins() <= b.begins() else (b, a)
        return first.reaches() > last.begins()
    left, right = a.offset, b.offset  # parts of one whole: each axis has its share of the offset
    for stride, n, m in sorted(zip(a.strides, a.shape, b.shape, strict=True), reverse=True):
        i, left = divmod(left, stride)
        j, right = divmod(right, stride)
        if i + n <= j or j + m <= i:
            return False
    return True
