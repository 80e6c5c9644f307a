# SPDX-License-Identifier: BSD-3-Clause
"""Tables for people: with rich where it is installed, as plain text without, or as Markdown."""

from __future__ import annotations

import codecs
import importlib.util
import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from fastconv._names import only

__all__ = ["Column", "Table", "Tick", "figure", "say", "show", "spelled", "stages", "track"]
__dir__ = only(__all__)

T = TypeVar("T")

GAP = 2  # blanks between columns


@dataclass(frozen=True)
class Column:
    """The head of a column, which may take several lines.

    Attributes
    ----------
    head : str
    left : bool
        Align to the left.
    rank : int
        On a narrow terminal columns of the highest rank go first, those of rank 0 stay.
    """

    head: str
    left: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """Cells that are text already.

    Attributes
    ----------
    title : str
    columns : list of Column
    rows, totals : list of list of str
        Totals stand below a line.
    notes : list of str
    """

    title: str
    columns: list[Column]
    rows: list[list[str]]
    totals: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fitted(self, width: int) -> Table:
        """The same without the columns that there is no room for, and without empty ones."""
        table = self._only([i for i in range(len(self.columns)) if self._filled(i)])
        while table._width() > width and (worst := max(c.rank for c in table.columns)):
            last = max(i for i, c in enumerate(table.columns) if c.rank == worst)
            table = table._only([i for i in range(len(table.columns)) if i != last])
        return table

    def plain(self, width: int = sys.maxsize) -> str:
        """As text with blanks between the columns; title and notes are wrapped to the width."""
        widths = self._widths()

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if column.left else cell.rjust(width)
                for cell, width, column in zip(cells, widths, self.columns, strict=True)
            )
            return (" " * GAP).join(padded).rstrip()

        heads = [column.head.split("\n") for column in self.columns]
        stacked = itertools.zip_longest(*(reversed(head) for head in heads), fillvalue="")
        rule = "-" * self._width()
        lines = [_wrapped(self.title, width), *map(line, reversed(list(stacked))), rule, *map(line, self.rows)]
        if self.totals:
            lines += [rule, *map(line, self.totals)]
        return "\n".join([*lines, *(_wrapped(note, width) for note in self.notes)])

    def markdown(self) -> str:
        """As a Markdown table under a heading of the third level."""

        def line(cells: Iterable[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        lines = [
            f"### {self.title}",
            "",
            line(" ".join(column.head.split("\n")) for column in self.columns),
            line(":--" if column.left else "--:" for column in self.columns),
            *map(line, self.rows),
            *(line(f"**{cell}**" if cell else "" for cell in cells) for cells in self.totals),
        ]
        return "\n".join([*lines, "", *self.notes]).rstrip()

    def rich(self) -> Any:
        """As a :class:`rich.table.Table`, without title and notes."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.padding = (0, GAP - 1, 0, 0)  # the divider between two columns is a blank too
        for column in self.columns:
            justify: Literal["left", "right"] = "left" if column.left else "right"
            table.add_column(Text(column.head), justify=justify, vertical="bottom", no_wrap=True)
        for cells in self.rows:
            table.add_row(*map(Text, cells), end_section=cells is self.rows[-1])
        for cells in self.totals:
            table.add_row(*map(Text, cells), style="bold")
        return table

    def _widths(self) -> list[int]:
        heads = [column.head.split("\n") for column in self.columns]
        body = zip(*self.rows, *self.totals, strict=True) if self.rows else [()] * len(heads)
        return [max(len(text) for text in (*head, *cells)) for head, cells in zip(heads, body, strict=True)]

    def _width(self) -> int:
        return sum(self._widths()) + GAP * (len(self.columns) - 1)

    def _filled(self, column: int) -> bool:
        return any(cells[column] for cells in self.rows)

    def _only(self, keep: list[int]) -> Table:
        return replace(
            self,
            columns=[self.columns[i] for i in keep],
            rows=[[cells[i] for i in keep] for cells in self.rows],
            totals=[[cells[i] for i in keep] for cells in self.totals],
        )


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False) if len(text) > width else text


def figure(value: float | None, unit: str = "") -> str:
    """A number with three digits that count, or nothing for None.

    Examples
    --------
    >>> from fastconv.bench.terminal import figure
    >>> [figure(value) for value in (1234.5, 12.345, 0.012345, 0, None)]
    ['1234', '12.3', '0.0123', '0', '']
    """
    if value is None:
        return ""
    if value == 0:
        return "0" + unit
    decimals = next((d for d in range(4) if abs(value) * 10**d >= 100), 4)
    return f"{value:.{decimals}f}{unit}"


def show(*tables: Table) -> None:
    """Print tables: as wide as ``COLUMNS`` says or the terminal is, elsewhere as plain text with all columns."""
    width = _width()
    for table in tables:
        fitted = table.fitted(width)
        if not (sys.stdout.isatty() and _rich()):
            print("\n" + fitted.plain(width))
            continue
        from rich.console import Console
        from rich.text import Text

        console, notes = Console(width=width), Text("\n".join(table.notes), "dim")
        console.print(Text("\n" + table.title, "bold"), fitted.rich(), *([notes] if table.notes else []), sep="\n")


def say(text: str) -> None:
    """Print a line, wrapped as tables are fitted."""
    print(_wrapped(text, _width()))


def _width() -> int:
    text = os.environ.get("COLUMNS", "")
    if text.isascii() and text.isdigit() and int(text):
        return int(text)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


# ---------------------------------------------------------------------------------------- progress

Tick = Callable[[], None]


@contextmanager
def stages(*, lasting: bool = True) -> Iterator[Callable[[str, int], Tick]]:
    """A function that begins a stage of so many steps and returns what to call after each of them.

    Progress goes to stderr: bars where rich is installed and a counter where it is not, on a terminal; elsewhere a
    line for each stage.

    Parameters
    ----------
    lasting : bool
        Leave what was shown on the terminal, and show it elsewhere at all.
    """
    if not sys.stderr.isatty():
        yield _Lines().begin if lasting else lambda label, steps: lambda: None
    elif not _rich():
        with _Counter(lasting) as counter:
            yield counter.begin
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=not lasting) as progress:
            yield lambda label, steps: partial(progress.advance, progress.add_task(label, total=steps))


def track(items: Sequence[T], label: str) -> Iterator[T]:
    """The items, with progress on stderr while it is a terminal."""
    with stages(lasting=False) as begin:
        tick = begin(label, len(items))
        for item in items:
            yield item
            tick()


class _Lines:
    """A line for each stage."""

    def begin(self, label: str, steps: int) -> Tick:
        print(label, file=sys.stderr, flush=True)
        return lambda: None


class _Counter:
    """One line for each stage, written over and over: ``label 3/10``."""

    def __init__(self, lasting: bool) -> None:
        self._lasting, self._shown = lasting, ""

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *failure: object) -> None:
        self._end()

    def begin(self, label: str, steps: int) -> Tick:
        self._end()
        done = itertools.count()

        def tick() -> None:
            self._shown = f"{label} {next(done)}/{steps}"
            print(f"\r{self._shown}", end="", file=sys.stderr, flush=True)

        tick()
        return tick

    def _end(self) -> None:
        if self._shown:
            blank = "\n" if self._lasting else "\r" + " " * len(self._shown) + "\r"
            print(end=blank, file=sys.stderr, flush=True)
        self._shown = ""


# ------------------------------------------------------------------------------ poorer alphabets

_SPELLED = {"÷": "/", "×": "x", "→": ">", "·": "|", "—": "-", "–": "-", "…": "~", "³": "3", "²": "2", "µ": "u"}


def _spell(error: UnicodeError) -> tuple[str, int]:
    """In place of what an encoding has not, one character each, so that columns stay columns."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_SPELLED.get(letter, "?") for letter in missing), error.end


codecs.register_error("fastconv.spell", _spell)


@contextmanager
def spelled() -> Iterator[None]:
    """Standard output and error take every text, whatever their encoding has."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="fastconv.spell")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)


def _rich() -> bool:
    return importlib.util.find_spec("rich") is not None
