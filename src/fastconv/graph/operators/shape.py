# SPDX-License-Identifier: BSD-3-Clause
"""Operators that only move numbers: most of them are another view of the same memory, and no step.

Where an attribute is a size or an index, it may be an expression in sizes instead, which are known when the network is
lowered: ``("size", i, axis)`` is that of input i, and ``("add", a, b)``, likewise sub, mul and floordiv, are of two
such or numbers. Inputs behind the first are there for their sizes alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, first, needs
from fastconv.graph.views import Type, broadcast, dense, reshaped

__all__ = ["OPERATORS", "sizes"]
__dir__ = only(__all__)


_ARITHMETIC = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv}
Shapes = Sequence[tuple[int, ...]]


def _shapes(things: Sequence[Any]) -> Shapes:
    return [() if thing is None else thing.shape for thing in things]


def _known_shapes(to: Listing, node: Node) -> Shapes:
    return [() if value is None else to.type(value).shape for value in node.inputs]


def _number(entry: Any, shapes: Shapes) -> Any:
    """A size or an index that may be an expression in the sizes of inputs."""
    if not isinstance(entry, tuple):
        return entry
    name, first, second = entry
    if name == "size":
        return shapes[first][second]
    return _ARITHMETIC[name](_number(first, shapes), _number(second, shapes))


# --- shapes -----------------------------------------------------------------------------------------------------------


def _flat_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(shape)
    start, stop = (i + rank if i < 0 else i for i in (node.attributes.get("start", 1), node.attributes.get("stop", -1)))
    if rank == 0:
        return (1,)
    needs(0 <= start <= stop < rank, "its input has shape {}, which has no axes {} to {}", shape, start, stop)
    return (*shape[:start], math.prod(shape[start : stop + 1]), *shape[stop + 1 :])


def _squeezed_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of one element: those that are named, or all."""
    axes, rank = node.attributes["axes"], len(shape)
    chosen = [i for i, n in enumerate(shape) if n == 1] if axes is None else [a + rank if a < 0 else a for a in axes]
    ones = all(0 <= a < rank and shape[a] == 1 for a in chosen)
    needs(ones, "its input has shape {}; axes {} of it need one element each", shape, axes)
    return tuple(n for i, n in enumerate(shape) if i not in chosen)


def _unsqueezed_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """With axes of one element, counted in the result."""
    axes = node.attributes["axes"]
    rank = len(shape) + len(axes)
    chosen = {a + rank if a < 0 else a for a in axes}
    fits = len(chosen) == len(axes) and all(0 <= a < rank for a in chosen)
    needs(fits, "its input has shape {}; it cannot get axes {}", shape, axes)
    left = iter(shape)
    return tuple(1 if i in chosen else next(left) for i in range(rank))


_SHAPES = {"flatten": _flat_shape, "squeeze": _squeezed_shape, "unsqueeze": _unsqueezed_shape}


def _wanted_shape(node: Node, shapes: Shapes) -> tuple[int, ...]:
    """What is asked for; 0 is the input's own size, -1 whatever is left."""
    shape = shapes[0]
    if node.op != "reshape":
        return _SHAPES[node.op](node, shape)
    entries = node.attributes["shape"]
    needs(
        all(n != 0 or i < len(shape) for i, n in enumerate(entries)),
        "its input has shape {}, which is no {}",
        shape,
        entries,
    )
    wanted = [shape[i] if n == 0 else _number(n, shapes) for i, n in enumerate(entries)]
    if -1 in wanted:
        rest = math.prod(n for n in wanted if n != -1)
        needs(rest != 0 and math.prod(shape) % rest == 0, "its input has shape {}, which is no {}", shape, wanted)
        wanted[wanted.index(-1)] = math.prod(shape) // rest
    needs(math.prod(wanted) == math.prod(shape), "its input has shape {}; it cannot be {}", shape, tuple(wanted))
    return tuple(wanted)


def _infer_reshape(node: Node, types: Sequence[Type | None]) -> list[Type]:
    return [Type(_wanted_shape(node, _shapes(types)), first(types).dtype)]


def _evaluate_reshape(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [first(arrays).reshape(_wanted_shape(node, _shapes(arrays)))]


def _lower_reshape(to: Listing, node: Node) -> None:
    x, shape = to.view(node.inputs[0]), to.type(node.output).shape
    y = reshaped(x, shape)
    if y is None:
        packed = to.scratch(x.type, dense(x.shape), node.name)
        to.elementwise(node, (), x, (), packed)
        y = packed._replace(shape=shape, strides=dense(shape))
    to.alias(node, y)


# --- sizes as numbers -------------------------------------------------------------------------------------------------


def sizes(node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """Those of the axes from start to stop, or the product of all."""
    if node.attributes.get("product"):
        return np.asarray(math.prod(shape), np.int64)
    return np.asarray(shape[node.attributes.get("start", 0) : node.attributes.get("stop")], np.int64)


def _infer_sizes(node: Node, types: Sequence[Type | None]) -> list[Type]:
    return [Type(sizes(node, first(types).shape).shape, np.dtype(np.int64))]


def _evaluate_sizes(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [sizes(node, first(arrays).shape)]


def _lower_sizes(to: Listing, node: Node) -> None:
    to.foreign(node, _evaluate_sizes)


# --- order of axes ----------------------------------------------------------------------------------------------------


def _infer_transpose(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, order = first(types), node.attributes["order"]
    needs(sorted(order) == list(range(len(x.shape))), "its input has shape {}; it has no axes {}", x.shape, order)
    return [Type(tuple(x.shape[i] for i in order), x.dtype)]


def _evaluate_transpose(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [first(arrays).transpose(node.attributes["order"])]


def _lower_transpose(to: Listing, node: Node) -> None:
    to.alias(node, to.view(node.inputs[0]).transposed(tuple(node.attributes["order"])))


# --- parts ------------------------------------------------------------------------------------------------------------


def _axis(node: Node, rank: int) -> int:
    axis = node.attributes["axis"]
    needs(-rank <= axis < rank, "its input has {} axes; there is no axis {}", rank, axis)
    return axis % rank


def _part(node: Node, shapes: Shapes) -> tuple[int, range]:
    """The axis, and which elements along it."""
    axis = _axis(node, len(shapes[0]))
    start, stop = (_number(node.attributes[which], shapes) for which in ("start", "stop"))
    bounds = slice(start, stop, node.attributes.get("step", 1))
    return axis, range(*bounds.indices(shapes[0][axis]))


def _infer_slice(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    axis, part = _part(node, _shapes(types))
    return [Type((*x.shape[:axis], len(part), *x.shape[axis + 1 :]), x.dtype)]


def _evaluate_slice(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    axis, part = _part(node, _shapes(arrays))
    end = part.stop if part.stop >= 0 else None  # backwards beyond the first
    return [first(arrays)[(slice(None),) * axis + (slice(part.start, end, part.step),)]]


def _lower_slice(to: Listing, node: Node) -> None:
    """A part that goes backwards is copied: nobody else takes such a view."""
    axis, part = _part(node, _known_shapes(to, node))
    view = to.view(node.inputs[0]).stepped(axis, part)
    if part.step > 0:
        to.alias(node, view)
    else:
        to.elementwise(node, (), view, (), to.result(node))


def _infer_expand(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x = first(types)
    return [Type(np.broadcast_shapes(x.shape, node.attributes["shape"]), x.dtype)]


def _evaluate_expand(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x = first(arrays)
    return [np.broadcast_to(x, np.broadcast_shapes(x.shape, node.attributes["shape"]))]


def _lower_expand(to: Listing, node: Node) -> None:
    """Repeated elements are not copied: they have strides of 0."""
    to.alias(node, broadcast(to.view(node.inputs[0]), to.type(node.output).shape))


def _infer_concat(node: Node, types: Sequence[Type | None]) -> list[Type]:
    first, *others = (t for t in types if t is not None)
    axis = _axis(node, len(first.shape))
    for other in others:
        same = len(other.shape) == len(first.shape) and all(
            a == b for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if i != axis
        )
        needs(
            same,
            "its inputs have shapes {} and {}; they need to agree in all axes but {}",
            first.shape,
            other.shape,
            axis,
        )
        if other.dtype != first.dtype:
            raise TypeError(f"its inputs have dtypes {first.dtype} and {other.dtype}; they need to be the same")
    length = first.shape[axis] + sum(other.shape[axis] for other in others)
    return [Type((*first.shape[:axis], length, *first.shape[axis + 1 :]), first.dtype)]


def _evaluate_concat(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    given = [a for a in arrays if a is not None]
    return [np.concatenate(given, _axis(node, given[0].ndim))]


def _lower_concat(to: Listing, node: Node) -> None:
    """Whatever could be written into its place has been (`memory.Places`); the rest is copied."""
    y, axis, start = to.result(node), _axis(node, len(to.type(node.output).shape)), 0
    for value in node.given():
        x = to.view(value)
        stop = start + x.shape[axis]
        part = y.sliced(axis, start, stop)
        if not (x.buffer is part.buffer and x.offset == part.offset and x.strides == part.strides):
            to.elementwise(node, (), x, (), part)
        start = stop


# --- borders ----------------------------------------------------------------------------------------------------------


def _infer_pad(node: Node, types: Sequence[Type | None]) -> list[Type]:
    x, pairs = first(types), node.attributes["pairs"]
    needs(len(pairs) == len(x.shape), "its input has shape {}; it needs {} axes", x.shape, len(pairs))
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pairs, strict=True))
    needs(min(shape, default=0) >= 0, "its input has shape {}; {} leaves nothing of it", x.shape, pairs)
    return [Type(shape, x.dtype)]


def _evaluate_pad(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x, pairs = first(arrays), node.attributes["pairs"]
    kept = tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, pairs, strict=True))
    added = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if node.attributes.get("mode", "constant") != "constant":
        return [np.pad(x[kept], added, mode=node.attributes["mode"])]
    return [np.pad(x[kept], added, constant_values=node.attributes.get("value", 0))]


def _mirrored(mode: str, length: int, before: int, after: int) -> tuple[range, range] | None:
    """Which elements of an axis stand before and behind it; None where some would be there twice."""
    if mode == "reflect" and max(before, after) < length:
        return range(before, 0, -1), range(length - 2, length - 2 - after, -1)
    if mode == "wrap" and max(before, after) <= length:
        return range(length - before, length), range(after)
    return None


def _lower_continued(to: Listing, node: Node) -> None:
    """Borders that the image continues into: axis by axis, each of what the ones before have made."""
    x, pairs, mode = to.view(node.inputs[0]), node.attributes["pairs"], node.attributes["mode"]
    sides = []
    for axis, (before, after) in enumerate(pairs):
        x = x.sliced(axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        n = x.shape[axis]
        sides.append((range(0), range(0)) if mode == "edge" else _mirrored(mode, n, max(before, 0), max(after, 0)))
    if 0 in x.shape or None in sides:
        to.foreign(node, _evaluate_pad)
        return
    y = to.result(node)
    inner = y
    for axis, (before, after) in enumerate(pairs):
        inner = inner.sliced(axis, max(before, 0), inner.shape[axis] - max(after, 0))
    to.elementwise(node, (), x, (), inner)
    for axis, (pair, side) in enumerate(zip(pairs, sides, strict=True)):
        assert side is not None
        before, after = (max(n, 0) for n in pair)
        n, step = inner.shape[axis], inner.strides[axis]
        whole = inner._replace(
            offset=inner.offset - before * step,
            shape=(*inner.shape[:axis], before + n + after, *inner.shape[axis + 1 :]),
        )
        for count, start, edge, part in ((before, 0, 0, side[0]), (after, before + n, n - 1, side[1])):
            if count:
                source = inner.sliced(axis, edge, edge + 1) if mode == "edge" else inner.stepped(axis, part)
                to.elementwise(node, (), source, (), whole.sliced(axis, start, start + count))
        inner = whole


def _lower_pad(to: Listing, node: Node) -> None:
    if node.attributes.get("mode", "constant") != "constant":
        _lower_continued(to, node)
        return
    x, y, pairs = to.view(node.inputs[0]), to.result(node), node.attributes["pairs"]
    value = np.full((1,) * len(x.shape), node.attributes.get("value", 0), x.dtype)
    rest = y
    for axis, (before, after) in enumerate(pairs):  # the borders of an axis, and what is left for the others
        length = rest.shape[axis]
        for start, stop in ((0, max(before, 0)), (length - max(after, 0), length)):
            if stop > start:
                border = rest.sliced(axis, start, stop)
                fill = to.array(value, node.name)._replace(shape=border.shape, strides=(0,) * len(border.shape))
                to.elementwise(node, (), fill, (), border)
        rest = rest.sliced(axis, max(before, 0), length - max(after, 0))
        x = x.sliced(axis, max(-before, 0), x.shape[axis] - max(-after, 0))
    to.elementwise(node, (), x, (), rest)


# --- nothing ----------------------------------------------------------------------------------------------------------


def _infer_identity(node: Node, types: Sequence[Type | None]) -> list[Type]:
    return [first(types)]


def _evaluate_identity(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [first(arrays)]


def _lower_identity(to: Listing, node: Node) -> None:
    to.alias(node, to.view(node.inputs[0]))


OPERATORS = (
    Operator("flatten", _infer_reshape, _evaluate_reshape, _lower_reshape, order="first", is_view=True),
    Operator("reshape", _infer_reshape, _evaluate_reshape, _lower_reshape, order="first", is_view=True),
    Operator("squeeze", _infer_reshape, _evaluate_reshape, _lower_reshape, order="first", is_view=True),
    Operator("unsqueeze", _infer_reshape, _evaluate_reshape, _lower_reshape, order="first", is_view=True),
    Operator("shape", _infer_sizes, _evaluate_sizes, _lower_sizes),
    Operator("transpose", _infer_transpose, _evaluate_transpose, _lower_transpose, order="first", is_view=True),
    Operator("slice", _infer_slice, _evaluate_slice, _lower_slice, is_view=True),
    Operator("expand", _infer_expand, _evaluate_expand, _lower_expand, is_view=True),
    Operator("concat", _infer_concat, _evaluate_concat, _lower_concat, by_image=True),
    Operator("pad", _infer_pad, _evaluate_pad, _lower_pad, by_image=True),
    Operator("identity", _infer_identity, _evaluate_identity, _lower_identity, is_view=True),
)
