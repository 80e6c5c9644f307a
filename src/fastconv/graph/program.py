# SPDX-License-Identifier: BSD-3-Clause
"""A graph for inputs of given shapes, ready to run: steps, an arena, and the order in which they go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._names import only
from fastconv.graph import memory
from fastconv.graph.ir import Graph
from fastconv.graph.later import split
from fastconv.graph.listing import Options, Step
from fastconv.graph.lowering import infer, lower, specialise
from fastconv.graph.passes import run_passes
from fastconv.graph.views import Buffer, Type, View

__all__ = ["Program"]
__dir__ = only(__all__)


class _Native:
    """Steps in a row that the core runs in one call."""

    def __init__(self, steps: Sequence[Step], arena: int, outside: tuple[int, ...], threads: int) -> None:
        fixed: dict[int, int] = {}
        arrays: list[Any] = []
        for step in steps:
            for buffer in _buffers(step):
                if buffer.array is not None and id(buffer.array) not in fixed:
                    fixed[id(buffer.array)] = len(arrays)
                    arrays.append(buffer.array)

        def place(operand: View | Buffer | None, part: int) -> tuple[int, int] | None:
            if operand is None:
                return None
            buffer, offset = (operand, 0) if isinstance(operand, Buffer) else (operand.buffer, operand.byte_offset)
            offset += part * buffer.apart
            if buffer.array is not None:
                return fixed[id(buffer.array)], offset
            if buffer.place is not None:
                return len(arrays) + 1 + buffer.place, offset
            return len(arrays), buffer.root().offset + offset

        listed = []
        # Of the steps as they run: those that take parts, for one part after the other.
        self.order: list[int] = []
        front = [i for i, step in enumerate(steps) if step.times > 1]
        parts = [(i, part) for part in range(steps[0].times) for i in front]
        for i, part in [*parts, *((i, 0) for i in range(len(front), len(steps)))]:
            o = steps[i].operands
            others = tuple(place(view, part) for view in o["others"])
            where = (place(o[name], part) for name in ("src", "wei", "residual", "dst"))
            listed.append((steps[i].plan, *where, None, others))
            self.order.append(i)
        self.net = _core.Net(listed, tuple(arrays), (arena, *outside), threads)

    def run(self, arrays: tuple[np.ndarray, ...], timed: bool) -> list[float] | None:
        if not timed:
            return self.net.run(arrays)
        seconds: list[float] = np.bincount(self.order, self.net.run(arrays, True)).tolist()
        return seconds


class _Called:
    """A step in Python."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def run(self, arrays: tuple[np.ndarray, ...], timed: bool) -> list[float] | None:
        started = time.perf_counter()
        step = self.step
        assert step.call is not None
        reads, targets = ([self._array(view, arrays) for view in views] for views in (step.reads, step.writes))
        try:
            results = step.call(*reads, *targets) if step.fills else step.call(*reads)
        except Exception as error:
            error.add_note(f"in node {step.name!r} ({step.op}) of a compiled network")
            raise
        for target, result in zip(targets, [] if step.fills else results, strict=not step.fills):
            if result.shape != target.shape:
                raise ValueError(
                    f"node {step.name!r} ({step.op}) returned an array of shape {result.shape}; on zeros it had been "
                    f"{target.shape}"
                )
            target[...] = result
        step.seconds = time.perf_counter() - started
        return [step.seconds] if timed else None

    @staticmethod
    def _array(view: View, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        buffer = view.buffer
        if buffer.array is not None:
            return view.on(buffer.array)
        if buffer.place is not None:
            return view.on(arrays[1 + buffer.place])
        return view._replace(offset=view.offset + buffer.root().offset // view.dtype.itemsize).on(arrays[0])


def _buffers(step: Step) -> list[Buffer]:
    views = [v.buffer for v in (*step.reads, *step.writes)]
    weights = step.operands.get("wei")
    return views if weights is None else [*views, weights]


def outward(shape: Any, last: bool) -> Any:
    """A shape in the order that callers see, from that of the graph; ``last``: channels last."""
    if not last or shape is None or len(shape) < 3:
        return shape
    return (shape[0], *shape[2:], shape[1])


def _fits(x: Any, given: tuple[Any, np.dtype]) -> bool:
    shape, dtype = given
    if type(x) is not np.ndarray or x.shape != shape or x.dtype != dtype:
        return False
    flags = x.flags
    return flags.c_contiguous and flags.aligned


class Program:
    """What a compiled network does with inputs of these types.

    Attributes
    ----------
    steps : list of Step
    inputs, outputs : list of Type
    given, returned : list of (shape, dtype)
        Inputs and outputs as callers have them, channels last if that was asked for.
    graph : Graph
        What the steps compute.
    later : Later or None
        What comes after them, where that depends on their results; the outputs are what it needs.
    arena_bytes, least_bytes : int
        Memory of a call for what is computed between inputs and outputs, and the most that lives at one moment.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Type], options: Options, pack: Any) -> None:
        self.inputs = list(inputs)
        special = specialise(graph, inputs)
        if special is not graph:  # nodes that have waited for the sizes want to be fused, too
            run_passes(special, options.without)
        graph, types = special, infer(special, inputs)
        graph, self.later = split(graph, types)
        if self.later is not None and options.last:
            name = self.later.name
            raise NotImplementedError(
                f"the shape of what node {name!r} returns depends on numbers; such a network has its channels first"
            )
        self.graph = graph
        self.steps = lower(graph, types, options, pack)
        self.arena_bytes, self.least_bytes = memory.arrange(self.steps)
        self.outputs = [types[value] for value in graph.outputs]
        self.given = [(outward(t.shape, options.last), t.dtype) for t in self.inputs]
        self.returned = [(outward(t.shape, options.last), t.dtype) for t in self.outputs]
        self._outside = tuple(t.nbytes for t in (*inputs, *self.outputs))
        self._parts: dict[int, list[_Native | _Called]] = {}
        self._lock = threading.Lock()
        self._check()

    def _check(self) -> None:
        """Last line of defence: every operand lies within its buffer, and every buffer within the arena."""
        for step in self.steps:
            for view in (*step.reads, *step.writes):
                root = view.buffer.root()
                within = view.begins() >= 0 and view.reaches() <= view.buffer.nbytes
                if not within or not (root.is_external or root.offset + root.nbytes <= self.arena_bytes):
                    raise RuntimeError(f"node {step.name!r} ({step.op}) would reach beyond its memory: {view}")

    def takes(self, arrays: Sequence[Any]) -> bool:
        """Whether these are arrays of its inputs' types that the core reads as they stand."""
        return len(arrays) == len(self.given) and all(map(_fits, arrays, self.given))

    def parts(self, threads: int) -> list[_Native | _Called]:
        """The steps as they are run by so many threads."""
        parts = self._parts.get(threads)
        if parts is not None:
            return parts
        with self._lock:
            if threads not in self._parts:
                self._parts[threads] = self._made(threads)
            return self._parts[threads]

    def _made(self, threads: int) -> list[_Native | _Called]:
        parts: list[_Native | _Called] = []
        row: list[Step] = []
        for step in self.steps:
            if step.plan is not None:
                row.append(step)
                continue
            if row:
                parts.append(_Native(row, self.arena_bytes, self._outside, threads))
                row = []
            parts.append(_Called(step))
        if row:
            parts.append(_Native(row, self.arena_bytes, self._outside, threads))
        return parts

    def run(self, arrays: tuple[np.ndarray, ...], threads: int) -> None:
        """``arrays``: the arena, inputs and outputs."""
        for part in self.parts(threads):
            part.run(arrays, False)

    def timed(self, arrays: tuple[np.ndarray, ...], threads: int) -> list[float]:
        """The seconds of each step."""
        seconds: list[float] = []
        for part in self.parts(threads):
            seconds += part.run(arrays, True) or []
        return seconds

    def scratch_bytes(self, threads: int) -> int:
        """Of a call, for the kernels' own use."""
        return max((part.net.scratch_bytes for part in self.parts(threads) if isinstance(part, _Native)), default=0)
