# SPDX-License-Identifier: BSD-3-Clause
"""What a compiled network consists of, and where its time goes: rows, and how they look."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from fastconv import _config
from fastconv._names import only
from fastconv.bench import web
from fastconv.bench.quiet import Range
from fastconv.bench.terminal import Column, Table, figure
from fastconv.graph import picture
from fastconv.graph.program import Program
from fastconv.graph.views import View, overlap

__all__ = ["End", "Profile", "Row", "Summary", "Timed", "profile_of", "summary_of"]
__dir__ = only(__all__)

#: A program that has run, and the seconds of its steps and of the nodes that were called behind them.
Timed = tuple[Program, list[float]]

BETWEEN = "(between steps)"
PEAK_SECONDS = 0.02  # before each turn, so that peak and calls are measured on the same machine
WATCHED_SECONDS = 0.002  # calls in turn at least: one of a large network, very many of a small one


@dataclass(frozen=True, slots=True)
class Row:
    """A step: what it is called in the model, and what carries it out.

    ``gflop`` is what direct summation computes, a multiply-add as two; Winograd's algorithms undercut it, so that
    ``of_peak`` may exceed 1. ``reads`` has the numbers of the rows whose results it reads, and -1 - i for input i.
    """

    name: str
    operator: str
    algorithm: str
    layout: str
    shape: tuple[int, ...]
    gflop: float
    milliseconds: float | None = None
    gflops: float | None = None
    of_peak: float | None = None
    of_time: float | None = None
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """An input or an output of the network; an output reads rows as a `Row` does."""

    name: str
    shape: tuple[int, ...]
    reads: tuple[int, ...] = ()


class _Rows:
    """Steps that print as a table and are drawn as a picture.

    Attributes
    ----------
    title : str
    rows : tuple of Row
    inputs, outputs : tuple of End
    """

    #: Heading, attribute, format, rank (see `fastconv.bench.terminal.Column`).
    columns: tuple[tuple[str, str, str, int], ...]

    def __init__(self, title: str, rows: Sequence[Row], inputs: Sequence[End], outputs: Sequence[End]) -> None:
        self.title, self.rows, self.inputs, self.outputs = title, tuple(rows), tuple(inputs), tuple(outputs)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def _notes(self) -> list[str]:
        raise NotImplementedError

    def table(self) -> Table:
        """As a table."""
        columns = [Column(heading, form == "s", rank) for heading, _, form, rank in self.columns]
        rows = [[_cell(getattr(row, attribute), form) for _, attribute, form, _ in self.columns] for row in self.rows]
        return Table(self.title, columns, rows, notes=self._notes())

    def __str__(self) -> str:
        return self.table().plain()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return web.table(self.table())

    def to_svg(self) -> str:
        """As a picture, from the inputs at the top to the outputs: a box for each step, and what reads what.

        Where times are known, boxes are coloured by their share of them.

        Returns
        -------
        str
            An SVG document, for light and dark pages.
        """
        return self._drawn([self.title, *self._notes()])

    def to_html(self) -> str:
        """As a page, with the picture and the table; it refers to nothing elsewhere.

        Returns
        -------
        str
        """
        head = f"<h1>{html.escape(self.title)}</h1>"
        drawn = f'<div class="scroll">{self._drawn([])}</div>'
        return web.page(self.title, head, drawn, web.table(self.table()), width="78rem")

    def _drawn(self, head: Sequence[str]) -> str:
        offset = len(self.inputs)
        boxes = [picture.Box((), end.name, (_cell(end.shape, "s"),), end=True) for end in self.inputs]
        steps = [row for row in self.rows if row.name != BETWEEN]
        boxes += [_box(row, offset) for row in steps]
        boxes += [
            picture.Box(_places(end.reads, offset), end.name, (_cell(end.shape, "s"),), end=True)
            for end in self.outputs
        ]
        return picture.svg(self.title, head, boxes)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    return format(value, form)


def _places(reads: Sequence[int], inputs: int) -> tuple[int, ...]:
    """The numbers of boxes: those of the inputs come first."""
    return tuple(inputs + i if i >= 0 else -1 - i for i in reads)


def _box(row: Row, inputs: int) -> picture.Box:
    shape, work = _cell(row.shape, "s"), " ".join(dict.fromkeys((row.operator, row.algorithm)))
    lines = (work, shape if row.layout == "-" else f"{shape} {row.layout}")
    figures: tuple[str, ...] = ()
    full = [f"{row.name}: {work}", lines[1]]
    if row.gflop:
        full.append(f"{figure(row.gflop)} GFLOP")
    if row.milliseconds is not None:
        spent, share = f"{row.milliseconds:.3f} ms", _cell(row.of_time, ".1%")
        figures = (share, spent) if share else (spent,)
        full.append(f"{spent}, {share} of the time" if share else spent)
    if row.gflops is not None:
        full.append(f"{row.gflops:.0f} GFLOP/s, {_cell(row.of_peak, '.2f')} of the peak")
    return picture.Box(_places(row.reads, inputs), row.name, lines, figures, row.of_time, "\n".join(full))


class Summary(_Rows):
    """The steps of a network. Those in Python have the ``milliseconds`` that they took in the last call.

    Attributes
    ----------
    memory : Memory
    later : str or None
        The node behind which more follows than was known: nothing is, before the first call.
    """

    columns = (
        ("step", "name", "s", 0),
        ("operator", "operator", "s", 0),
        ("algorithm", "algorithm", "s", 0),
        ("layout", "layout", "s", 2),
        ("result", "shape", "s", 1),
        ("GFLOP", "gflop", ".3f", 0),
    )

    def __init__(self, *parts: Any, memory: Any, later: str | None) -> None:
        super().__init__(*parts)
        self.memory, self.later = memory, later

    def _notes(self) -> list[str]:
        m, total = self.memory, sum(row.gflop for row in self.rows)
        notes = [
            f"{len(self.rows)} steps, {figure(total)} GFLOP; weights {_mib(m.weights)}, packed {_mib(m.packed)}, "
            f"arena {_mib(m.arena)} (at least {_mib(m.least)})"
        ]
        called = [row for row in self.rows if row.algorithm == "python"]
        if called:
            spent = ", ".join(
                row.name if row.milliseconds is None else f"{row.name} {row.milliseconds:.3f} ms" for row in called
            )
            notes.append(f"in Python: {spent}")
        if self.later is not None:
            notes.append(f"what follows from {self.later} on depends on numbers, and is listed after a call")
        return notes

    def to_json(self) -> str:
        """The rows as JSON."""
        return json.dumps([asdict(row) for row in self.rows])


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"


class Profile(_Rows):
    """Where the time of a call goes.

    Attributes
    ----------
    title : str
    rows : tuple of Row
        One for each step, and a last one for what lies between them: Python, and the start of the threads.
    inputs, outputs : tuple of End
    milliseconds : float
        Of a whole call.
    peaks : tuple of float
        GFLOP/s of multiply-adds that this machine reached before each call, with as many threads.
    threads : int
    """

    columns = (
        ("step", "name", "s", 0),
        ("operator", "operator", "s", 3),
        ("algorithm", "algorithm", "s", 0),
        ("layout", "layout", "s", 5),
        ("result", "shape", "s", 4),
        ("ms", "milliseconds", ".3f", 0),
        ("GFLOP/s", "gflops", ".0f", 2),
        ("of peak", "of_peak", ".2f", 1),
        ("of time", "of_time", ".1%", 0),
    )

    def __init__(self, *parts: Any, milliseconds: float, peaks: Sequence[float], threads: int) -> None:
        super().__init__(*parts)
        self.milliseconds, self.peaks, self.threads = milliseconds, tuple(peaks), threads

    @property
    def peak_gflops(self) -> float:
        """The highest of the peaks."""
        return max(self.peaks)

    @property
    def range(self) -> Range:
        """Between what the peaks varied; it says whether the machine was quiet."""
        return Range(min(self.peaks), max(self.peaks), "GFLOP/s")

    def _notes(self) -> list[str]:
        flop = sum(row.gflop for row in self.rows)
        reached = flop / self.milliseconds * 1e3 if self.milliseconds else 0.0
        return [
            f"{self.milliseconds:.3f} ms a call: {figure(flop)} GFLOP at {figure(reached)} GFLOP/s, of "
            f"{figure(self.peak_gflops)} that multiply-adds reach on {self.threads} "
            f"{'thread' if self.threads == 1 else 'threads'}.",
            "GFLOP count the direct sum of convolutions and linear layers; Winograd's algorithms multiply less, and so "
            "may exceed the peak.",
            *([] if self.range.quiet else [self.range.warning]),
        ]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "milliseconds": self.milliseconds,
            "peak_gflops": self.peak_gflops,
            "quiet": self.range.quiet,
            "threads": self.threads,
            "inputs": [asdict(end) for end in self.inputs],
            "outputs": [asdict(end) for end in self.outputs],
            "steps": [asdict(row) for row in self.rows],
        }

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(self.record())


# --- making them ------------------------------------------------------------------------------------------------------


def _parts(programs: Sequence[Program]) -> tuple[list[Row], list[End], list[End]]:
    """Rows of programs that follow each other, inputs and outputs; times are those of Python in the last call alone."""
    rows, inputs, outputs = _own_parts(programs[0])
    for program, following in zip(programs, [*programs[1:], None], strict=True):
        if program.later is None:
            break
        given = [end.reads for end in outputs]  # rows, by the number of what the nodes that are called read, ...
        sources = list(given)  # ... and by that of the following inputs
        for call in program.later.calls:
            node = call.node
            read = {i for v in node.given() if v.constant is None for i in given[program.later.given[v]]}
            sources += [(len(rows),)] * len(node.outputs)
            spent = None if call.seconds is None else call.seconds * 1e3
            rows.append(Row(node.name, node.op, "python", "-", call.shape, 0.0, spent, reads=tuple(sorted(read))))
        if following is not None:
            more, _, ends = _own_parts(following)
            first = len(rows)
            rows += [replace(row, reads=_moved(row.reads, first, sources)) for row in more]
            outputs = [replace(end, reads=_moved(end.reads, first, sources)) for end in ends]
    return rows, inputs, outputs


def _moved(reads: Sequence[int], first: int, sources: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The same behind ``first`` other rows, of which ``sources`` are in place of the inputs."""
    return tuple(sorted({j for i in reads for j in ((first + i,) if i >= 0 else sources[-1 - i])}))


def _own_parts(program: Program) -> tuple[list[Row], list[End], list[End]]:
    """The same of one program.

    Who reads what is seen from where it lies: parts of one buffer that were written before, where they overlap with
    what is read.
    """
    graph = program.graph
    written: dict[Hashable, list[tuple[int, View]]] = {}
    rows = []

    def place(view: View) -> Hashable:
        return view.buffer if view.buffer.place is None else view.buffer.place

    for number, step in enumerate(program.steps):
        reads = set()
        for view in step.reads:
            where = view.buffer.place
            if where is not None and where < len(graph.inputs):
                reads.add(-1 - where)
            reads.update(i for i, other in written.get(place(view), ()) if overlap(view, other))
        for view in step.writes:
            before = [entry for entry in written.get(place(view), ()) if entry[1] != view]  # or it is written over
            written[place(view)] = [*before, (number, view)]
        row = Row(step.name, step.op, step.algorithm, step.layout, step.shape, step.flops / 1e9)
        spent = None if step.seconds is None else step.seconds * 1e3
        rows.append(replace(row, reads=tuple(sorted(reads)), milliseconds=spent))
    inputs = [End(value.name, t.shape) for value, t in zip(graph.inputs, program.inputs, strict=True)]
    outputs = [
        End(value.name, t.shape, tuple(i for i, _ in written.get(len(inputs) + n, ())))
        for n, (value, t) in enumerate(zip(graph.outputs, program.outputs, strict=True))
    ]
    return rows, inputs, outputs


def summary_of(title: str, programs: Sequence[Program], memory: Any) -> Summary:
    """Of programs that follow each other."""
    last = programs[-1].later
    return Summary(title, *_parts(programs), memory=memory, later=None if last is None else last.name)


def profile_of(
    title: str, run: Callable[[list[Timed] | None], None], program: Program, threads: int, repeats: int
) -> Profile:
    """Of calls, the first steps of which are a program's."""
    wide = program.inputs and program.inputs[0].dtype == np.float64
    run(None)
    calls, peaks = [], []
    for _ in range(repeats):
        peaks.append(_config.fma_peak("float64" if wide else "float32", threads, seconds=PEAK_SECONDS))
        run(None)  # what was measured in between is out of the caches again
        end = time.perf_counter() + WATCHED_SECONDS
        while True:
            watch: list[Timed] = []
            started = time.perf_counter()
            run(watch)
            finished = time.perf_counter()
            calls.append((finished - started, watch))
            if finished > end:
                break
    programs = [program for program, _ in calls[-1][1]]
    alike = [(total, watch) for total, watch in calls if [program for program, _ in watch] == programs]
    steps = [[second for _, seconds in watch for second in seconds] for _, watch in alike]
    total, peak = median(total for total, _ in alike), max(peaks)
    plain, inputs, outputs = _parts(programs)
    rows = []
    for row, seconds in zip(plain, map(median, zip(*steps, strict=True)), strict=True):
        speed = row.gflop / seconds if seconds > 0 and row.gflop else None
        share = None if speed is None or not peak else speed / peak
        rows.append(replace(row, milliseconds=seconds * 1e3, gflops=speed, of_peak=share, of_time=seconds / total))
    rest = max(total - sum(row.milliseconds or 0 for row in rows) / 1e3, 0.0)
    rows.append(Row(BETWEEN, "", "", "", (), 0.0, rest * 1e3, None, None, rest / total))
    return Profile(title, rows, inputs, outputs, milliseconds=total * 1e3, peaks=peaks, threads=threads)
