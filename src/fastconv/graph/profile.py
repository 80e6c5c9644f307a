# SPDX-License-Identifier: BSD-3-Clause
"""What a compiled network consists of, and where its time goes: rows, and how they look."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from fastconv import _config
from fastconv._names import only
from fastconv.graph.program import Program

__all__ = ["Profile", "Row", "Summary", "profile_of", "summary_of"]
__dir__ = only(__all__)

BETWEEN = "(between steps)"


@dataclass(frozen=True, slots=True)
class Row:
    """A step: what it is called in the model, and what carries it out."""

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


class _Table:
    """Rows that print as a table."""

    rows: tuple[Row, ...]
    columns: tuple[tuple[str, str, str], ...]  # heading, attribute, format

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def _cells(self) -> list[list[str]]:
        return [[_cell(getattr(row, attribute), form) for _, attribute, form in self.columns] for row in self.rows]

    def _foot(self) -> str:
        return ""

    def __str__(self) -> str:
        head = [heading for heading, _, _ in self.columns]
        table = [head, *self._cells()]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        right = [form != "s" for _, _, form in self.columns]
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([*lines, self._foot()]).rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading, _, _ in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._cells()
        )
        return f"<table><tr>{head}</tr>{body}</table><p>{html.escape(self._foot())}</p>"

    def to_json(self) -> str:
        """The rows as JSON."""
        return json.dumps([asdict(row) for row in self.rows])


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return format(value, form)


class Summary(_Table):
    """The steps of a network."""

    columns = (
        ("step", "name", "s"),
        ("operator", "operator", "s"),
        ("algorithm", "algorithm", "s"),
        ("layout", "layout", "s"),
        ("result", "shape", "s"),
        ("GFLOP", "gflop", ".3f"),
    )

    def __init__(self, title: str, rows: Sequence[Row], memory: Any) -> None:
        self.title, self.rows, self.memory = title, tuple(rows), memory

    def _foot(self) -> str:
        m, total = self.memory, sum(row.gflop for row in self.rows)
        return (
            f"{len(self.rows)} steps, {total:.2f} GFLOP; weights {_mib(m.weights)}, packed {_mib(m.packed)}, "
            f"arena {_mib(m.arena)} (at least {_mib(m.least)})"
        )

    def __str__(self) -> str:
        return f"{self.title}\n{super().__str__()}"

    __repr__ = __str__


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"


class Profile(_Table):
    """Where the time of a call goes.

    Attributes
    ----------
    rows : tuple of Row
        One for each step, and a last one for what lies between them: Python, and the start of the threads.
    milliseconds : float
        Of a whole call.
    peak_gflops : float
        Multiply-adds that this machine reached just now, with as many threads.
    threads : int
    """

    columns = (
        ("step", "name", "s"),
        ("operator", "operator", "s"),
        ("algorithm", "algorithm", "s"),
        ("layout", "layout", "s"),
        ("result", "shape", "s"),
        ("ms", "milliseconds", ".3f"),
        ("GFLOP/s", "gflops", ".0f"),
        ("of peak", "of_peak", ".2f"),
        ("of time", "of_time", ".1%"),
    )

    def __init__(self, rows: Sequence[Row], milliseconds: float, peak: float, threads: int) -> None:
        self.rows, self.milliseconds, self.peak_gflops, self.threads = tuple(rows), milliseconds, peak, threads

    def _foot(self) -> str:
        flop = sum(row.gflop for row in self.rows)
        reached = flop / self.milliseconds * 1e3 if self.milliseconds else 0.0
        return (
            f"{self.milliseconds:.3f} ms a call, {reached:.0f} GFLOP/s of {self.peak_gflops:.0f} "
            f"({self.threads} threads); FLOPs are those of direct convolution"
        )

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(
            {
                "milliseconds": self.milliseconds,
                "peak_gflops": self.peak_gflops,
                "threads": self.threads,
                "steps": [asdict(row) for row in self.rows],
            }
        )


def _row(step: Any) -> Row:
    return Row(step.name, step.op, step.algorithm, step.layout, step.writes[0].shape, step.flops / 1e9)


def summary_of(title: str, program: Program, memory: Any) -> Summary:
    return Summary(title, [_row(step) for step in program.steps], memory)


def profile_of(program: Program, arrays: tuple[np.ndarray, ...], threads: int, repeats: int) -> Profile:
    peak = _config.fma_peak(num_threads=threads)
    program.run(arrays, threads)
    totals, steps = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        steps.append(program.timed(arrays, threads))
        totals.append(time.perf_counter() - started)
    total = median(totals)
    rows = []
    for step, seconds in zip(program.steps, map(median, zip(*steps, strict=True)), strict=True):
        speed = step.flops / seconds / 1e9 if seconds > 0 and step.flops else None
        plain = _row(step)
        rows.append(
            Row(
                plain.name,
                plain.operator,
                plain.algorithm,
                plain.layout,
                plain.shape,
                plain.gflop,
                seconds * 1e3,
                speed,
                None if speed is None or not peak else speed / peak,
                seconds / total,
            )
        )
    rest = max(total - sum(row.milliseconds or 0 for row in rows) / 1e3, 0.0)
    rows.append(Row(BETWEEN, "", "", "", (), 0.0, rest * 1e3, None, None, rest / total))
    return Profile(rows, total * 1e3, peak, threads)
