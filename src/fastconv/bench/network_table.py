# SPDX-License-Identifier: BSD-3-Clause
"""Tables of whole networks: milliseconds of everybody, and what share of the best peer's time fastconv takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fastconv._names import only
from fastconv.bench.contenders import OURS, Compiled
from fastconv.bench.layers import Refusal, Row
from fastconv.bench.report import geometric_mean, heading, title
from fastconv.bench.terminal import Column, Table, figure
from fastconv.bench.versus import Duel, by_group, column, duels, memory_table, names_in, remarks_on, share

__all__ = ["ratio", "tables"]
__dir__ = only(__all__)

NOTE = (
    "All models are translated from one graph. torch has its batch norms folded beforehand; ONNX Runtime, OpenVINO and "
    "ncnn fold and fuse by themselves. ÷ best: below 1 fastconv is faster."
)


def compiled(duel: Duel) -> Row | None:
    """The row of the compiled network, if its answer is right."""
    return duel.right(Compiled.name)


def ratio(duel: Duel) -> float | None:
    """fastconv's time over the best peer's, if both have a right answer."""
    ours, theirs = compiled(duel), duel.best_peer
    return ours.milliseconds / theirs.milliseconds if ours and theirs else None


def tables(
    rows: Iterable[Row],
    refusals: Sequence[Refusal] = (),
    missing: dict[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> list[Table]:
    """For each batch a table of times, and one of memory if that was measured; as `fastconv.bench.versus.tables`."""
    shown = []
    for group in by_group(rows):
        shown.append(_times(group, [*remarks, *remarks_on(group, refusals, missing or {}), NOTE]))
        if any(row.peak_bytes is not None for row in group):
            shown.append(memory_table(group))
    return shown


def _times(rows: list[Row], notes: list[str]) -> Table:
    found = duels(rows)
    ours = [name for name in names_in(rows) if name in OURS]
    peers = [name for name in names_in(rows) if name not in OURS]
    columns: list[tuple[Column, Callable[[Duel], str]]] = [
        (Column("network", left=True), lambda duel: title(duel.layer.layer)),
        (Column("image", left=True, rank=6), lambda duel: duel.layer.shape),
        (Column("GFLOP", rank=5), lambda duel: figure(duel.layer.work)),
        *(column(name, rank=0) for name in ours),
        (Column("compiled\nGFLOP/s", rank=4), lambda duel: figure(row.rate) if (row := compiled(duel)) else ""),
        (Column("compiled\n÷ peak", rank=3), lambda duel: share(compiled(duel))),
        *(column(name, rank=1) for name in peers),
        (Column("best peer", left=True, rank=2), lambda duel: best.contender if (best := duel.best_peer) else ""),
        (Column("compiled\n÷ best"), lambda duel: _said(ratio(duel))),
        (Column("aim", rank=2), lambda duel: _said(duel.layer.aim) if peers else ""),
        (Column("error\ncompiled", rank=7), _error),
    ]
    heads = [head for head, _ in columns]
    known = [value for duel in found if (value := ratio(duel)) is not None]
    total = {"network": "geometric mean", "compiled\n÷ best": _said(geometric_mean(known))} if known else {}
    totals = [[total.get(head.head, "") for head in heads]] if total else []
    return Table(heading(rows[0]), heads, [[cell(duel) for _, cell in columns] for duel in found], totals, notes)


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _error(duel: Duel) -> str:
    row = duel.rows.get(Compiled.name)
    return f"{row.max_error:.0e}" if row else ""
