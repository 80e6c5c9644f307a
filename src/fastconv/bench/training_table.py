# SPDX-License-Identifier: BSD-3-Clause
"""Tables of gradients: milliseconds of everybody, and how many times as fast as the best peer fastconv is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fastconv._names import only
from fastconv.bench.contenders import FastConv
from fastconv.bench.layers import Refusal, Row
from fastconv.bench.report import geometric_mean, heading
from fastconv.bench.terminal import Column, Table, figure
from fastconv.bench.versus import Duel, Ratio, by_group, column, duels, memory_table, names_in, remarks_on, share

__all__ = ["tables"]
__dir__ = only(__all__)

RATIO = Ratio("best peer ÷\nfastconv", lambda duel: duel.best_peer, lambda duel: duel.plan)
NOTE = "All three gradients are one call of everybody's. Above 1 it is faster, in the faster of its layouts."


def tables(
    rows: Iterable[Row],
    refusals: Sequence[Refusal] = (),
    missing: dict[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> list[Table]:
    """For each network a table of times, and one of memory if that was measured; as `fastconv.bench.versus.tables`."""
    shown = []
    for group in by_group(rows):
        shown.append(_times(group, [*remarks, *remarks_on(group, refusals, missing or {}), NOTE]))
        if any(row.peak_bytes is not None for row in group):
            shown.append(memory_table(group))
    return shown


def _times(rows: list[Row], notes: list[str]) -> Table:
    found, names = duels(rows), names_in(rows)
    ours = [name for name in names if name.startswith(FastConv.name)]
    columns: list[tuple[Column, Callable[[Duel], str]]] = [
        (Column("layer", left=True), lambda duel: duel.layer.layer),
        (Column("shape", left=True, rank=5), lambda duel: duel.layer.shape),
        (Column("GFLOP", rank=4), lambda duel: figure(duel.layer.work)),
        *(column(name, rank=0) for name in ours),
        (Column("fastconv\n÷ peak", rank=2), lambda duel: share(duel.plan)),
        *(column(name, rank=1) for name in names if name not in ours),
        (Column(RATIO.head), lambda duel: figure(RATIO.of(duel), "×")),
        (Column("error\nfastconv", rank=3), lambda duel: f"{duel.plan.max_error:.0e}" if duel.plan else ""),
    ]
    heads = [head for head, _ in columns]
    known = [value for duel in found if (value := RATIO.of(duel)) is not None]
    total = {"layer": "geometric mean", RATIO.head: figure(geometric_mean(known), "×")} if known else {}
    totals = [[total.get(head.head, "") for head in heads]] if total else []
    return Table(heading(rows[0]), heads, [[cell(duel) for _, cell in columns] for duel in found], totals, notes)
