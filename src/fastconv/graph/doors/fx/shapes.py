# SPDX-License-Identifier: BSD-3-Clause
"""Axes and sizes, and parts of tensors."""

from __future__ import annotations

import builtins
import operator
from typing import Any

import torch

from fastconv._names import only
from fastconv.graph.doors.fx.growing import Growing, Size
from fastconv.graph.doors.fx.table import (
    VIEW,
    Parts,
    Shape,
    axis_of,
    means,
    needs,
    rank_of,
    value_of,
)
from fastconv.graph.ir import Value

__all__: list[str] = []
__dir__ = only(__all__)


@means(torch.cat, torch.concat, torch.concatenate)
def _cat(r: Growing, tensors: Any, dim: Any = 0) -> Value:
    needs(isinstance(tensors, (tuple, list)) and tensors, "tensors that are not listed")
    needs(isinstance(dim, int), "an axis that is not known")
    ranks = [r.rank(value_of(x)) for x in tensors]
    return r.emit("concat", list(tensors), next((n for n in ranks if n is not None), None), axis=dim)


@means(torch.flatten, "flatten", memory=VIEW)
def _flatten(r: Growing, input: Any, start_dim: Any = 0, end_dim: Any = -1) -> Value:
    x, rank = value_of(input), r.rank(input)
    needs(isinstance(start_dim, int) and isinstance(end_dim, int), "axes that are not known")
    known = rank if rank is None else rank - (end_dim % rank - start_dim % rank) if rank else 1
    return r.emit("flatten", [x], known, start=start_dim, stop=end_dim)


def _listed(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes that are given one by one, or in a list."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list, torch.Size)):
        return tuple(sizes[0])
    return sizes


@means(torch.reshape, "reshape", "view", memory=VIEW)
def _reshape(r: Growing, input: Any, *shape: Any) -> Value:
    x, wanted = value_of(input), _listed(shape)
    needs(all(isinstance(n, Size) or (isinstance(n, int) and n != 0) for n in wanted), "sizes that are not known")
    wanted = tuple(0 if r.is_size_of(n, x, i) else n for i, n in enumerate(wanted))
    sizes, others = r.entries(x, wanted)
    return r.emit("reshape", [x, *others], len(wanted), shape=sizes)


@means(torch.permute, "permute", memory=VIEW)
def _permute(r: Growing, input: Any, *dims: Any) -> Value:
    wanted = _listed(dims)
    needs(all(isinstance(n, int) for n in wanted), "axes that are not known")
    return r.emit("transpose", [value_of(input)], len(wanted), order=tuple(n % len(wanted) for n in wanted))


@means(torch.transpose, torch.swapaxes, "transpose", "swapaxes", memory=VIEW)
def _transpose(r: Growing, input: Any, dim0: Any, dim1: Any) -> Value:
    x, order = value_of(input), list(range(rank_of(r, input)))
    first, second = axis_of(r, x, dim0), axis_of(r, x, dim1)
    needs(max(first, second) < len(order), "axes that are not there")
    order[first], order[second] = order[second], order[first]
    return r.emit("transpose", [x], len(order), order=tuple(order))


@means(torch.unsqueeze, "unsqueeze", memory=VIEW)
def _unsqueeze(r: Growing, input: Any, dim: Any) -> Value:
    x, rank = value_of(input), rank_of(r, input)
    needs(isinstance(dim, int), "an axis that is not known")
    shape: list[Any] = [("size", 0, axis) for axis in range(rank)]
    shape.insert(dim % (rank + 1), 1)
    return r.emit("reshape", [x], rank + 1, shape=tuple(shape))


@means(torch.squeeze, "squeeze", memory=VIEW)
def _squeeze(r: Growing, input: Any, dim: Any = None) -> Value:
    x, rank, shape = value_of(input), rank_of(r, input), r.shape(input)
    needs(shape is not None, "sizes that are not known")
    assert shape is not None
    axes = range(rank) if dim is None else [axis_of(r, x, axis) for axis in ((dim,) if isinstance(dim, int) else dim)]
    kept = tuple(("size", 0, axis) for axis in range(rank) if axis not in axes or shape[axis] != 1)
    return r.emit("reshape", [x], len(kept), shape=kept)


def _sliced(r: Growing, x: Value, axis: int, start: Any, stop: Any) -> Value:
    sizes, others = r.entries(x, (start, stop))
    return r.emit("slice", [x, *others], r.rank(x), axis=axis, start=sizes[0], stop=sizes[1])


@means(torch.chunk, "chunk", memory=VIEW)
def _chunk(r: Growing, input: Any, chunks: Any, dim: Any = 0) -> Parts:
    x = value_of(input)
    needs(isinstance(chunks, int) and chunks > 0, "a number of parts that is not known")
    axis = axis_of(r, x, dim)
    length = ("floordiv", ("add", ("size", 0, axis), chunks - 1), chunks)
    return Parts(lambda i: _sliced(r, x, axis, _raw("mul", length, i), _raw("mul", length, i + 1)))


def _raw(name: str, first: Any, second: Any) -> Size:
    return Size((name, first, second))


@means(torch.split, "split", memory=VIEW)
def _split(r: Growing, input: Any, split_size: Any, dim: Any = 0) -> Parts:
    x = value_of(input)
    axis = axis_of(r, x, dim)
    if isinstance(split_size, int):
        return Parts(lambda i: _sliced(r, x, axis, i * split_size, (i + 1) * split_size))
    needs(isinstance(split_size, (tuple, list)), "parts that are not known")
    needs(all(isinstance(n, int) for n in split_size), "parts that are not known")
    starts = [0]
    for n in split_size:
        starts.append(starts[-1] + n)
    return Parts(lambda i: _sliced(r, x, axis, starts[i], starts[i + 1]))


@means(operator.getitem, memory=VIEW)
def _getitem(r: Growing, input: Any, index: Any) -> Any:
    if isinstance(input, (tuple, list)) and isinstance(index, (int, slice)):
        return input[index]
    if isinstance(input, Shape):
        if isinstance(index, slice):
            return tuple(r.size(input.value, axis) for axis in range(rank_of(r, input.value))[index])
        return r.size(input.value, axis_of(r, input.value, index))
    if isinstance(input, Parts):
        needs(isinstance(index, int) and index >= 0, "parts that are counted from behind")
        return input.take(index)
    return _indexed(r, value_of(input), index if isinstance(index, tuple) else (index,))


def _indexed(r: Growing, x: Value, index: tuple[Any, ...]) -> Value:
    """``x[index]``, of slices and numbers."""
    dropped: list[int] = []
    axis = 0
    for i, entry in enumerate(index):
        if entry is Ellipsis:
            axis = rank_of(r, x) - (len(index) - i - 1)
            continue
        if isinstance(entry, slice):
            needs(entry.step in (None, 1), "slices with steps")
            bounds = (entry.start, entry.stop)
            needs(all(n is None or isinstance(n, (int, Size)) for n in bounds), "bounds that are not known")
            if bounds not in ((None, None), (0, None)):
                x = _sliced(r, x, axis, *bounds)
        else:
            needs(isinstance(entry, int) and not isinstance(entry, bool), "an index of that kind")
            x = _sliced(r, x, axis, entry, None if entry == -1 else entry + 1)
            dropped.append(axis)
        axis += 1
    if not dropped:
        return x
    rank = rank_of(r, x)
    kept = tuple(("size", 0, axis) for axis in range(rank) if axis not in dropped)
    return r.emit("reshape", [x], len(kept), shape=kept)


@means("size")
def _size(r: Growing, input: Any, dim: Any = None) -> Any:
    x = value_of(input)
    if dim is not None:
        return r.size(x, axis_of(r, x, dim))
    return r.shape(x) or Shape(x)


@means(builtins.getattr)
def _attribute(r: Growing, input: Any, name: str) -> Any:
    needs(name in ("shape", "ndim"), f"an attribute {name}")
    return _size(r, input) if name == "shape" else rank_of(r, value_of(input))


@means("dim")
def _dim(r: Growing, input: Any) -> int:
    return rank_of(r, value_of(input))
