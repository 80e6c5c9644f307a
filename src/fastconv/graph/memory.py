# SPDX-License-Identifier: BSD-3-Clause
"""Where values lie: parts of a concatenation in its memory, and everything in one arena.

The arena: buffers whose lifetimes overlap must not overlap in memory. The largest is placed first, each about the
middle of an earlier one where that is free, else as low as it goes; most bytes that live at one moment are the bound
below which no order can come. About the middle, because every thread takes the same part of each step: the first half
of a value is written and read by the first half of the threads, and so is the first half of what lies there after it.
Where the cores of a machine have several caches of the third level between them, half of the lines would else have to
come from the other one, to be written over.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv._names import only
from fastconv.graph.ir import Graph, Value
from fastconv.graph.listing import Step
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Buffer, Type

__all__ = ["arrange", "places"]
__dir__ = only(__all__)

ALIGN = 64


def _can_move(value: Value, graph: Graph) -> bool:
    """Whether its producer writes it where it is told to, and nobody else says where."""
    return value.producer is not None and not OPERATORS[value.producer.op].is_view and value not in graph.outputs


def places(graph: Graph, types: dict[Value, Type]) -> dict[Value, tuple[Value, int, int]]:
    """For values that can be computed where a concatenation wants them: (the whole, axis, start).

    From the last concatenation to the first, so that one that continues another shares its memory: the inputs of each
    layer of a DenseNet are the first channels of the next one's.
    """
    found: dict[Value, tuple[Value, int, int]] = {}
    for node in reversed(graph.nodes):
        if node.op != "concat":
            continue
        parts, whole = list(node.given()), node.output
        axis = node.attributes["axis"] % len(types[whole].shape)
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + types[part].shape[axis])
        homes = [found.get(part) for part in parts]
        first = homes[0]
        if whole not in found and whole not in graph.outputs and first is not None:
            wanted = [(first[0], axis, first[2] + start) for start in starts[:-1]]
            if homes == wanted:
                found[whole] = first
                continue
        for part, start in zip(parts, starts, strict=False):
            if part not in found and parts.count(part) == 1 and _can_move(part, graph):
                found[part] = (whole, axis, start)
    return found


def arrange(steps: Sequence[Step]) -> tuple[int, int]:
    """Gives every buffer of the arena its offset; returns the bytes of the arena and the bound below."""
    life = _lives(steps)
    for i, step in enumerate(steps):
        if step.in_place is not None:
            _join(life, i, step)
    alive: list[list[Buffer]] = [[] for _ in steps]  # of those that are placed, at each step
    middles: list[int] = []  # about which buffers lie
    size = 0
    for buffer in sorted(life, key=lambda b: (-b.nbytes, life[b])):
        first, last = life[buffer]
        beside = sorted({other for i in range(first, last + 1) for other in alive[i]}, key=lambda b: b.offset)
        buffer.offset = _place(buffer, beside, middles)
        for i in range(first, last + 1):
            alive[i].append(buffer)
        size = max(size, _end(buffer))
    return size, max((sum(_rounded(b.nbytes) for b in living) for living in alive), default=0)


def _place(buffer: Buffer, beside: Sequence[Buffer], middles: list[int]) -> int:
    """The offset of a buffer that lives beside others, which are sorted by theirs; a new middle joins the others."""
    nbytes = _rounded(buffer.nbytes)
    for middle in middles:  # of buffers that are no smaller
        offset = (middle - nbytes // 2) // ALIGN * ALIGN
        if all(offset + nbytes <= b.offset or _end(b) <= offset for b in beside):
            return offset
    offset = 0
    for other in beside:
        if offset + nbytes <= other.offset:
            break
        offset = max(offset, _end(other))
    middles.append(offset + nbytes // 2)
    return offset


def _end(buffer: Buffer) -> int:
    return buffer.offset + _rounded(buffer.nbytes)


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def _lives(steps: Sequence[Step]) -> dict[Buffer, tuple[int, int]]:
    """The first and the last step that touch each buffer of the arena.

    What a part of the batch leaves is there while the other parts run.
    """
    life: dict[Buffer, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        for view in (*step.reads, *step.writes):
            if not view.buffer.is_external:
                first = 0 if view.buffer.apart else i
                life[view.buffer] = (life.get(view.buffer, (first, first))[0], i)
    return life


def _join(life: dict[Buffer, tuple[int, int]], i: int, step: Step) -> None:
    """Lets a step write over what nobody reads after it."""
    assert step.in_place is not None
    over, written = step.in_place
    old, new = over.buffer.root(), written.buffer.root()
    if old is new or old not in life or new not in life or life[old][1] != i or life[new][0] != i:
        return
    if sum(view.buffer.root() is old for view in step.reads) > 1:
        return  # another operand lies there
    same = over.offset == written.offset and over.strides == written.strides and over.dtype == written.dtype
    if same and over.shape == written.shape and old.nbytes == new.nbytes:
        new.shares = old
        life[old] = (life[old][0], life.pop(new)[1])
