# SPDX-License-Identifier: BSD-3-Clause
"""Why a plan has the algorithm it has: rows to go through, which print as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Verdict:
    """What is known of one algorithm.

    Attributes
    ----------
    algorithm : str
    predicted : float or None
        Seconds of one thread; None if it is refused.
    measured : float or None
        Seconds of one thread, where it was run.
    refusal : str or None
        Why it cannot serve.
    chosen : bool
    """

    algorithm: str
    predicted: float | None
    measured: float | None
    refusal: str | None
    chosen: bool

    @property
    def note(self) -> str:
        return f"refused: {self.refusal}" if self.refusal is not None else "chosen" if self.chosen else ""


@dataclass(frozen=True, repr=False)
class Explanation:
    """A row for each algorithm, in the order of :data:`fastconv.ALGORITHMS`.

    It prints as a table, in a notebook as HTML.

    Attributes
    ----------
    rows : tuple of Verdict
    source : str
        What the predictions rest on.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> why = fc.ConvPlan((1, 8, 14, 14), np.ones((16, 8, 1, 1), np.float32)).explain(measure=False)
    >>> [row.algorithm for row in why if row.refusal is None]
    ['direct', 'im2col', 'pointwise', 'reference']
    >>> why["winograd_f2"].refusal
    'only kernels of two columns or more'
    """

    rows: tuple[Verdict, ...]
    source: str

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, algorithm: str | int) -> Verdict:
        """The row of an algorithm, by its name or its place."""
        if isinstance(algorithm, str):
            found = [row for row in self.rows if row.algorithm == algorithm]
            if not found:
                raise KeyError(
                    f"algorithm is {algorithm!r}; it needs one of {', '.join(r.algorithm for r in self.rows)}"
                )
            return found[0]
        return self.rows[algorithm]

    def __str__(self) -> str:
        lines = []
        for name, *numbers, note in (self._head, *self._cells):
            lines.append(f"{name:<14}{''.join(f'{number:>13}' for number in numbers)}  {note}".rstrip())
        return "\n".join([*lines, f"({self.source})"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for a notebook."""

        def line(cells: list[str], tag: str) -> str:
            sides = ["left", *["right"] * (len(cells) - 2), "left"]
            inner = (
                f'<{tag} style="text-align: {side}">{escape(c)}</{tag}>' for side, c in zip(sides, cells, strict=True)
            )
            return f"<tr>{''.join(inner)}</tr>"

        body = "".join(line(cells, "td") for cells in self._cells)
        head = line(self._head, "th")
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table><p>{escape(self.source)}</p>"

    @property
    def _timed(self) -> bool:
        return any(row.measured is not None for row in self.rows)

    @property
    def _head(self) -> list[str]:
        return ["algorithm", "predicted ms", *(["measured ms"] if self._timed else []), ""]

    @property
    def _cells(self) -> list[list[str]]:
        return [
            [
                row.algorithm,
                _milliseconds(row.predicted),
                *([_milliseconds(row.measured)] if self._timed else []),
                row.note,
            ]
            for row in self.rows
        ]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"
