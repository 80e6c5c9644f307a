# SPDX-License-Identifier: BSD-3-Clause
"""Steps: plans, and where their operands lie; and the list of them while a graph is lowered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastconv import _args, _config, _core, _plans
from fastconv._names import only
from fastconv.graph import programs
from fastconv.graph.ir import Constant, Graph, Node, Value
from fastconv.graph.views import Buffer, Type, View, broadcast, dense, spread

__all__ = ["FLOATS", "Evaluate", "Front", "Listing", "Options", "Step"]
__dir__ = only(__all__)

#: What an operator means: from a node and its inputs to its outputs.
Evaluate = Callable[[Node, Sequence[np.ndarray | None]], Sequence[np.ndarray]]

_RANK = 8  # axes that the core's maps have
FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


@dataclass(frozen=True, slots=True)
class Options:
    """How a network is to compute."""

    strict: bool = False
    batch_invariant: bool = False
    last: bool = False  # whether inputs and outputs have their channels last
    without: tuple[str, ...] = ()  # passes to leave out


class Front(NamedTuple):
    """The first nodes of a graph, and what they compute for one part of the images.

    ``leaving`` are the values that nodes behind the cut, or the caller, take.
    """

    nodes: int
    parts: int
    types: dict[Value, Type]
    leaving: tuple[Value, ...]


@dataclass(eq=False, slots=True)
class Step:
    """A plan, or a function of Python, over views.

    ``operands`` has, by the name that the core's ``fc_places`` gives it, where each operand of a plan lies; a function
    reads ``reads`` and fills ``writes``.
    """

    name: str
    op: str
    plan: _core.Planned | None
    reads: list[View]
    writes: list[View]
    operands: dict[str, Any] = field(default_factory=dict)
    call: Callable[..., Any] | None = None
    in_place: tuple[View, View] | None = None  # what may lie in the memory of what, if nobody else wants that
    flops: float = 0.0
    shape: tuple[int, ...] = ()  # of what it computes, as the node has it
    times: int = 1  # that it runs, once for each part of the batch
    fills: bool = False  # whether the function is handed where it writes, behind what it reads, and returns nothing
    seconds: float | None = None  # that a function has taken last

    @property
    def algorithm(self) -> str:
        """What carries it out."""
        if self.plan is None:
            return "python"
        return _args.ALGORITHMS[self.plan.algorithm] if isinstance(self.plan, _core.Plan) else self.op

    @property
    def layout(self) -> str:
        """The order of axes of what it writes."""
        view = self.writes[0]
        if len(view.shape) < 3:
            return "-"
        return "channels last" if view.strides[1] < view.strides[-1] else "channels first"


class Listing:
    """Steps while they are listed, by the records of operators.

    Parameters
    ----------
    graph : Graph
    types : dict
        Of all values.
    front : Front or None
        The nodes that run for one part of the batch after the other, until `join` is called.
    last : dict
        Whether a value of three axes and more has its channels last in memory.
    places : dict
        For values that are parts of others: (the whole, axis, start).
    pack : callable
        From a plan, its weights and its bias to packed weights.
    """

    floats = FLOATS

    def __init__(
        self,
        graph: Graph,
        types: dict[Value, Type],
        front: Front | None,
        last: dict[Value, bool],
        places: dict[Value, tuple[Value, int, int]],
        options: Options,
        pack: Callable[[_core.Plan | _core.Recurrent, Constant, tuple[int, ...], Constant | None], _core.Packed],
    ) -> None:
        self.graph, self.types, self.options = graph, types if front is None else types | front.types, options
        self._whole, self._front = types, front
        self._parts = 1 if front is None else front.parts
        self.steps: list[Step] = []
        self._last, self._places, self._pack = last, places, pack
        self._views: dict[Value, View] = {}
        self._homes: dict[Value, View] = {}
        for number, value in enumerate(graph.inputs):
            self._views[value] = self._outside(value, number)
        for number, value in enumerate(graph.outputs, len(graph.inputs)):
            if value not in self._homes and value.producer is not None and value not in places:
                self._homes[value] = self._outside(value, number)
                self._hand_back(value)

    def _outside(self, value: Value, number: int) -> View:
        """An array that a call hands over."""
        t = self.types[value]
        apart = t.nbytes if self._in_parts(value) else 0
        buffer = Buffer(apart or t.nbytes, value.name, place=number, apart=apart)
        return View(buffer, 0, t.shape, dense(t.shape, self.options.last), t.dtype)

    def _in_parts(self, value: Value) -> bool:
        """Whether what is known of it is one part of the batch."""
        return self._front is not None and value in self._front.types and self._parts > 1

    def join(self) -> None:
        """From here on the batch is whole again."""
        assert self._front is not None
        self._parts = 1
        for value in self._front.leaving:
            self.types[value] = t = self._whole[value]
            self._views[value] = self._homes[value] = self._views[value]._replace(shape=t.shape)
            self._views[value].buffer.nbytes = self._views[value].reaches()
        for value in self.graph.inputs:
            self.types[value] = self._whole[value]

    def _hand_back(self, value: Value) -> None:
        """Lets what a reshape at the end of the graph reads be computed where its result is wanted."""
        node = value.producer
        source = node.inputs[0] if node is not None and node.op in ("flatten", "reshape") else None
        if source is None or source.producer is None or source in self._places or source in self._homes:
            return
        if self._in_parts(source):
            return
        t, outside = self.types[source], self._homes[value]
        if outside.strides != dense(outside.shape):
            return  # its channels come last
        if not self._last.get(source, False) or math.prod(t.shape[2:]) == 1:
            self._homes[source] = outside._replace(shape=t.shape, strides=dense(t.shape))
            self._hand_back(source)

    def finish(self) -> list[Step]:
        """All steps, behind them those that bring outputs to where the caller wants them."""
        for number, value in enumerate(self.graph.outputs, len(self.graph.inputs)):
            home, view = self._homes.get(value), self.view(value)
            if home is None or home.buffer.place != number:
                home = self._outside(value, number)
            if view != home:
                self.elementwise(Node("copy", value.name, []), (), view, (), home)
        return self.steps

    # --- where values are -------------------------------------------------------------------------

    def type(self, value: Value | None) -> Type:
        assert value is not None
        return self.types[value]

    def view(self, value: Value | None) -> View:
        """Where a value lies that has been computed, or is known."""
        assert value is not None
        if value.constant is not None and value not in self._views:
            self._views[value] = self.array(value.constant.array(), value.name)
        return self._views[value]

    def array(self, array: np.ndarray, name: str) -> View:
        """An array that is there before the call."""
        array = np.ascontiguousarray(array).reshape(array.shape)  # NumPy gives what has no axes one
        return View(Buffer(array.nbytes, name, array=array), 0, array.shape, dense(array.shape), array.dtype)

    def scratch(self, t: Type, strides: tuple[int, ...], name: str) -> View:
        """New memory, with strides of this kind."""
        view = View(Buffer(0, name), 0, t.shape, strides, t.dtype)
        view.buffer.nbytes = view.reaches()
        return view

    def _home(self, value: Value) -> View:
        if value not in self._homes:
            t = self.types[value]
            if value in self._places:
                whole, axis, start = self._places[value]
                self._homes[value] = self._home(whole).sliced(axis, start, start + t.shape[axis])
            else:
                strides = spread(t.shape, t.dtype.itemsize, self._last.get(value, False))
                self._homes[value] = self.scratch(t, strides, value.name)
                if self._front is not None and value in self._front.leaving:
                    self._homes[value].buffer.apart = t.shape[0] * strides[0] * t.dtype.itemsize
        return self._homes[value]

    def result(self, node: Node, which: int = 0) -> View:
        """Where an output of a node is to be written."""
        value = node.outputs[which]
        self._views[value] = self._home(value)
        return self._views[value]

    def alias(self, node: Node, view: View) -> None:
        """The output is a view of what is there."""
        self._views[node.output] = view

    # --- steps ------------------------------------------------------------------------------------

    def step(
        self,
        node: Node,
        plan: _core.Planned,
        src: View,
        dst: View,
        wei: Buffer | None = None,
        residual: View | None = None,
        others: Sequence[View] = (),
        in_place: View | None = None,
    ) -> None:
        """A plan that the core runs. ``in_place``: an operand that ``dst`` may be written over."""
        reads = [src, *([] if residual is None else [residual]), *others]
        operands = {"src": src, "wei": wei, "residual": residual, "dst": dst, "others": tuple(others)}
        over = None if in_place is None else (in_place, dst)
        op = f"{node.op}+max_pool" if "pooled" in node.attributes else node.op
        self._append(Step(node.name, op, plan, reads, [dst], operands, None, over, plan.flops), node)

    def _append(self, step: Step, node: Node) -> None:
        """A step that computes a node, or a part of it."""
        step.times, step.flops = self._parts, self._parts * step.flops
        step.shape = written = step.writes[0].shape
        if node.outputs and math.prod(self.types[node.outputs[0]].shape) == math.prod(written):
            step.shape = self._whole[node.outputs[0]].shape  # rather than that in which a plan sees it
        self.steps.append(step)

    def convolution(self, fields: _args.Fields, x: View, weight: tuple[int, ...], y: View) -> _core.Plan:
        """A plan for packed weights."""
        o, item = self.options, x.dtype.itemsize
        steps = _args.dense_strides(weight, item)
        read, written = (x.shape, x.byte_strides), (y.shape, y.byte_strides)
        return _plans.core_plan(
            fields, "auto", o.strict, False, o.batch_invariant, read, (weight, steps), written, x.dtype
        )

    def without_gaps(self, node: Node, view: View) -> View:
        """The view, or a copy of it, without gaps."""
        if view.is_dense():
            return view
        copy = self.scratch(view.type, dense(view.shape), node.name)
        self.elementwise(node, (), view, (), copy)
        return copy

    def packed(
        self, plan: _core.Plan | _core.Recurrent, weight: Constant, shape: tuple[int, ...], bias: Constant | None
    ) -> Buffer:
        packed = self._pack(plan, weight, shape, bias)
        return Buffer(packed.nbytes, "weights", array=packed)

    def elementwise(self, node: Node, program: programs.Program, src: View, others: Sequence[View], dst: View) -> None:
        """``dst = program(src, others)``, all of them broadcast to ``dst``; without a program a copy."""
        if 0 in dst.shape:
            return
        src, *wide = (broadcast(view, dst.shape) for view in (src, *others))
        op, operations = node.op if program else "copy", programs.operations(program)
        if (
            operations is not None
            and src.dtype in FLOATS
            and len(dst.shape) <= _RANK
            and len(wide) <= programs.OPERANDS
        ):
            strides = (src.strides, dst.strides, *(view.strides for view in wide))
            axes = tuple(zip(dst.shape, *strides, strict=True))
            plan = _core.map_plan(_args.FLOATS[src.dtype], axes, operations, len(wide), _config.ISA)
            operands = {"src": src, "wei": None, "residual": None, "dst": dst, "others": tuple(wide)}
            self._append(Step(node.name, op, plan, [src, *wide], [dst], operands, None, (src, dst)), node)
            return

        def call(x: np.ndarray, *rest: np.ndarray) -> list[np.ndarray]:
            return [programs.evaluate(program, x, rest)]

        self._append(Step(node.name, op, None, [src, *wide], [dst], call=call), node)

    def filling(self, node: Node, fill: Callable[..., None]) -> None:
        """A step in Python, by a function that is handed all inputs and the array that it is to fill."""
        reads = [self.view(value) for value in node.given()]
        self._append(Step(node.name, node.op, None, reads, [self.result(node)], call=fill, fills=True), node)

    def foreign(self, node: Node, evaluate: Evaluate) -> None:
        """A step in Python, by what the operator means."""
        reads = [self.view(value) for value in node.given()]
        writes = [self.result(node, i) for i in range(len(node.outputs))]
        present = [i for i, value in enumerate(node.inputs) if value is not None]

        def call(*arrays: np.ndarray) -> Sequence[np.ndarray]:
            given: list[np.ndarray | None] = [None] * len(node.inputs)
            for i, array in zip(present, arrays, strict=True):
                given[i] = array
            return evaluate(node, given)

        self._append(Step(node.name, node.op, None, reads, writes, call=call), node)
