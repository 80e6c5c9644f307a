# SPDX-License-Identifier: BSD-3-Clause
"""Tables for people: with rich where it is installed, as plain text without, or as Markdown."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, TypeVar

__all__ = ["Column", "Table", "figure", "show", "track"]

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

    def plain(self) -> str:
        """As text with blanks between the columns."""
        widths = self._widths()

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if column.left else cell.rjust(width)
                for cell, width, column in zip(cells, widths, self.columns, strict=True)
            )
            return (" " * GAP).join(padded).rstrip()

        heads = [column.head.split("\n") for column in self.columns]
        stacked = zip_longest(*(reversed(head) for head in heads), fillvalue="")
        rule = "-" * self._width()
        lines = [self.title, *map(line, reversed(list(stacked))), rule, *map(line, self.rows)]
        if self.totals:
            lines += [rule, *map(line, self.totals)]
        return "\n".join([*lines, *self.notes])

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
            justify = "left" if column.left else "right"
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
    """Print tables: into a terminal as wide as it is, elsewhere as plain text with all columns."""
    if not sys.stdout.isatty():
        print(*("\n" + table.fitted(sys.maxsize).plain() for table in tables), sep="\n")
        return
    width = shutil.get_terminal_size().columns
    for table in tables:
        fitted = table.fitted(width)
        if not _rich():
            print("\n" + fitted.plain())
            continue
        from rich.console import Console
        from rich.text import Text

        console, notes = Console(width=width), Text("\n".join(table.notes), "dim")
        console.print(Text("\n" + table.title, "bold"), fitted.rich(), *([notes] if table.notes else []), sep="\n")


def track(items: Sequence[T], label: str) -> Iterator[T]:
    """The items, with a progress bar on stderr if that is a terminal and rich is installed."""
    if not (_rich() and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, label, console=Console(stderr=True), transient=True)


def _rich() -> bool:
    return importlib.util.find_spec("rich") is not None
