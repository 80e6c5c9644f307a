# SPDX-License-Identifier: BSD-3-Clause
"""fastconv against other libraries: who is best, by how much, and tables that show it.

A ratio is a peer's time over fastconv's: above 1, fastconv is faster. A wrong answer competes with nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from fastconv._names import only
from fastconv.bench.contenders import OURS, FastConv, FastConvCall
from fastconv.bench.layers import Refusal, Row
from fastconv.bench.report import geometric_mean, heading, peak_note
from fastconv.bench.terminal import Column, Table, figure

__all__ = [
    "Duel",
    "Ratio",
    "by_group",
    "column",
    "duels",
    "memory_table",
    "name_of",
    "names_in",
    "remarks_on",
    "share",
    "tables",
]
__dir__ = only(__all__)

PLAN, CALL = FastConv.name, FastConvCall.name


def name_of(row: Row | Refusal) -> str:
    """A contender's name for a reader; of fastconv it says the layout, and the algorithm if one was asked for."""
    if row.contender not in (PLAN, CALL):
        return row.contender
    return f"{row.contender} {row.layout} {row.variant}".removesuffix(" auto").rstrip()


@dataclass(frozen=True)
class Duel:
    """All rows of one layer.

    Attributes
    ----------
    rows : dict
        By the contender's name as :func:`name_of` gives it.
    """

    rows: dict[str, Row]

    @property
    def layer(self) -> Row:
        """Any of the rows, for what they have in common."""
        return next(iter(self.rows.values()))

    @property
    def best_peer(self) -> Row | None:
        """The fastest other library whose answer is right."""
        return self._fastest(row for row in self.rows.values() if row.contender not in OURS)

    @property
    def plan(self) -> Row | None:
        """fastconv's plan in its fastest layout, and algorithm if several were asked for."""
        return self._fastest(row for row in self.rows.values() if row.contender == PLAN)

    @property
    def call(self) -> Row | None:
        """fastconv's function in the faster layout."""
        return self._fastest(row for row in self.rows.values() if row.contender == CALL)

    @staticmethod
    def _fastest(rows: Iterable[Row]) -> Row | None:
        return min((row for row in rows if row.right), key=lambda row: row.milliseconds, default=None)

    def right(self, name: str) -> Row | None:
        """The row of that name, if there is one and its answer is right."""
        row = self.rows.get(name)
        return row if row and row.right else None


@dataclass(frozen=True)
class Ratio:
    """A comparison that every layer can be asked for."""

    head: str
    theirs: Callable[[Duel], Row | None]
    ours: Callable[[Duel], Row | None]

    def of(self, duel: Duel) -> float | None:
        """Their time over ours, if both have a right answer."""
        theirs, ours = self.theirs(duel), self.ours(duel)
        return theirs.milliseconds / ours.milliseconds if theirs and ours else None


RATIOS = (
    Ratio("best ÷\nplan", lambda duel: duel.best_peer, lambda duel: duel.plan),
    Ratio("best ÷\nplan NCHW", lambda duel: duel.best_peer, lambda duel: duel.right(f"{PLAN} NCHW")),
    Ratio("torch c_l ÷\ncall", lambda duel: duel.right("torch channels_last"), lambda duel: duel.call),
)


def duels(rows: Iterable[Row]) -> list[Duel]:
    """The rows of each layer together, in the order of the layers."""
    layers: dict[str, dict[str, Row]] = {}
    for row in rows:
        layers.setdefault(row.layer, {})[name_of(row)] = row
    return [Duel(members) for members in layers.values()]


def by_group(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one network, kind, batch and dtype together."""
    return [
        list(members) for _, members in groupby(rows, key=lambda row: (row.network, row.kind, row.batch, row.dtype))
    ]


# ------------------------------------------------------------------------------------------ tables


def tables(
    rows: Iterable[Row],
    refusals: Sequence[Refusal] = (),
    missing: dict[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> list[Table]:
    """For each group of layers a table of times, one of times with cold caches and one of memory, as measured.

    ``remarks`` are notes below each table of times.
    """
    shown = []
    for group in by_group(rows):
        shown.append(_times(group, [*remarks, *remarks_on(group, refusals, missing or {})]))
        cold = [_cold(row, row.cold_milliseconds) for row in group if row.cold_milliseconds is not None]
        if len(cold) == len(group):
            shown.append(_times(cold, ["Caches flushed before each call."], "cold"))
        if any(row.peak_bytes is not None for row in group):
            shown.append(memory_table(group))
    return shown


def _cold(row: Row, milliseconds: float) -> Row:
    return replace(row, milliseconds=milliseconds, share=row.share * row.milliseconds / milliseconds)


def _times(rows: list[Row], notes: list[str], sort: str = "") -> Table:
    found, conv = duels(rows), rows[0].kind == "conv"
    columns: list[tuple[Column, Callable[[Duel], str]]] = [
        (Column("layer", left=True), _layer_name),
        (Column("shape", left=True, rank=7), lambda duel: duel.layer.shape),
        (Column("GFLOP" if conv else "GB", rank=6), lambda duel: figure(duel.layer.work)),
    ]
    ours = [name for name in names_in(rows) if name.startswith(PLAN)]
    peers = [name for name in names_in(rows) if name not in ours]
    rate, ceiling = ("GFLOP/s", "peak") if conv else ("GB/s", "memory")
    columns += [
        *(column(name, rank=3 if name.startswith(CALL) else 0) for name in ours),
        (Column("algorithm", left=True, rank=4), lambda duel: duel.plan.algorithm if duel.plan else ""),
        (Column(f"plan\n{rate}", rank=5), lambda duel: figure(duel.plan.rate) if duel.plan else ""),
        (Column(f"plan\n÷ {ceiling}"), lambda duel: share(duel.plan)),
        *((Column(ratio.head), lambda duel, ratio=ratio: figure(ratio.of(duel), "×")) for ratio in RATIOS),
        (Column("best peer", left=True), lambda duel: name_of(duel.best_peer) if duel.best_peer else ""),
        (Column(f"best peer\n÷ {ceiling}", rank=4), lambda duel: share(duel.best_peer)),
        *(column(name, rank=2) for name in peers),
    ]
    if not sort:
        columns += [
            (Column("aim ÷\npeak", rank=5), lambda duel: figure(duel.layer.aim)),
            (Column("of aim", rank=4), _reached),
            (Column("error\nplan", rank=6), lambda duel: f"{duel.plan.max_error:.0e}" if duel.plan else ""),
        ]
    lines = [[cell(duel) for _, cell in columns] for duel in found]
    heads = [column for column, _ in columns]
    return Table(_title(rows, sort), heads, lines, _totals(heads, found), [*notes, *_worst(found)])


def column(name: str, rank: int) -> tuple[Column, Callable[[Duel], str]]:
    """The milliseconds of one contender."""
    first, _, last = name.rpartition(" ")
    head = f"{first}\n{last} ms" if first else f"{name}\nms"
    return Column(head, rank=rank), lambda duel: _ms(duel.rows.get(name))


def memory_table(rows: list[Row]) -> Table:
    """How much memory each contender took."""
    names = names_in(rows)
    lines = [
        [_layer_name(duel), duel.layer.shape, *(mebibytes(duel.rows.get(name)) for name in names)]
        for duel in duels(rows)
    ]
    heads = [Column("layer", left=True), Column("shape", left=True, rank=1)]
    heads += [Column(f"{name}\nMiB") for name in names]
    note = "By how much preparing and running makes a process grow: packed weights, workspace and output."
    return Table(_title(rows, "peak memory"), heads, lines, [], [note])


def _title(rows: Sequence[Row], sort: str) -> str:
    return heading(rows[0]) + (f", {sort}" if sort else "")


def rows_of(rows: Iterable[Row], name: str) -> list[Row]:
    """Those of one contender."""
    return [row for row in rows if name_of(row) == name]


def names_in(rows: Iterable[Row]) -> list[str]:
    """Names of contenders, in their order."""
    return list(dict.fromkeys(name_of(row) for row in rows))


def _layer_name(duel: Duel) -> str:
    count = duel.layer.count
    return duel.layer.layer + (f" ×{count}" if count > 1 else "")


def _ms(row: Row | None) -> str:
    if row is None:
        return "–"
    return figure(row.milliseconds) + ("" if row.right else " WRONG") + ("" if row.fair else " !")


def share(row: Row | None) -> str:
    """Of the ceiling, for a reader."""
    return f"{row.share:.2f}" if row else ""


def mebibytes(row: Row | None) -> str:
    return figure(row.peak_bytes / 2**20) if row and row.peak_bytes is not None else "–"


def _reached(duel: Duel) -> str:
    return f"{duel.plan.share / duel.layer.aim:.0%}" if duel.layer.aim and duel.plan else ""


def _totals(columns: Sequence[Column], found: Sequence[Duel]) -> list[list[str]]:
    """The geometric mean and the lowest of each ratio."""
    total: list[list[str]] = []
    for name, combine in (("geometric mean", geometric_mean), ("lowest", min)):
        cells = {"layer": name}
        for ratio in RATIOS:
            known = [value for duel in found if (value := ratio.of(duel)) is not None]
            cells[ratio.head] = figure(combine(known), "×") if known else ""
        total.append([cells.get(column.head, "") for column in columns])
    return total


def _worst(found: Sequence[Duel]) -> list[str]:
    notes = []
    for ratio in RATIOS:
        known = [(value, duel.layer.layer) for duel in found if (value := ratio.of(duel)) is not None]
        if known:
            value, layer = min(known)
            faster = sum(value > 1 for value, _ in known)
            head = ratio.head.replace("\n", " ")
            notes.append(f"{head}: faster on {faster} of {len(known)} layers, lowest on {layer} ({figure(value)}×).")
    return notes


def remarks_on(rows: Sequence[Row], refusals: Iterable[Refusal], missing: dict[str, str]) -> list[str]:
    """What a reader has to know to believe the table."""
    first = rows[0]
    notes = [f"NOT INSTALLED: {name} ({reason})." for name, reason in missing.items()]
    reasons: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        here = (refusal.network, refusal.batch, refusal.dtype) == (first.network, first.batch, first.dtype)
        if here and refusal.contender not in OURS:
            reasons.setdefault((name_of(refusal), refusal.reason), []).append(refusal.layer)
    known = {row.layer for row in rows}
    for (name, reason), layers in reasons.items():
        mine = [layer for layer in layers if layer in known]
        if mine:
            which = "all layers" if len(mine) == len(known) else ", ".join(mine)
            notes.append(f"–: {name} does not serve {which}: {reason}.")
    for row in rows:
        if not row.right:
            notes.append(f"WRONG: {name_of(row)} on {row.layer}, error {row.max_error:.1e}; it competes with nobody.")
    for name in names_in(rows):
        unfair = [row for row in rows_of(rows, name) if not row.fair]
        if unfair:
            seen = ", ".join(sorted({_threads(row) for row in unfair}))
            notes.append(f"!: {name} had {seen} where {first.threads} threads were asked for.")
        if all(row.threads_seen is None for row in rows_of(rows, name)):
            notes.append(f"{name}: the number of threads could not be asked for; threadpoolctl would tell NumPy's.")
    return [*notes, *peak_note(rows)]


def _threads(row: Row) -> str:
    if row.threads_seen not in (None, row.threads):
        return f"{row.threads_seen} threads"
    return f"{row.cores:.1f} cores"


def record(ratio: Ratio, found: Sequence[Duel]) -> dict[str, Any]:
    """Mean and lowest of a ratio, for JSON."""
    known = [(value, duel.layer.layer) for duel in found if (value := ratio.of(duel)) is not None]
    if not known:
        return {}
    value, layer = min(known)
    mean = geometric_mean([value for value, _ in known])
    return {"geometric_mean": mean, "lowest": value, "lowest_layer": layer, "layers": len(known)}
