# SPDX-License-Identifier: BSD-3-Clause
"""From rows to tables, and a run as a document that can be kept and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastconv as fc
from fastconv._names import only
from fastconv.bench.layers import Refusal, Row
from fastconv.bench.peak import Ceilings
from fastconv.bench.quiet import Range
from fastconv.bench.shapes import LISTS
from fastconv.bench.terminal import Column, Table, figure

__all__ = [
    "comparison",
    "document",
    "geometric_mean",
    "heading",
    "load",
    "machine",
    "markdown",
    "marks",
    "peak_note",
    "summary",
    "tables",
    "title",
]
__dir__ = only(__all__)

SCHEMA = 2
OURS = "fastconv"
SECTION = "fastconv bench"

_TITLES = {
    "lenet5": "LeNet-5",
    "alexnet": "AlexNet",
    "vgg16": "VGG-16",
    "googlenet": "GoogLeNet",
    "resnet50": "ResNet-50",
    "mobilenet_v1": "MobileNet v1",
    "table": "Layers of many networks",
    "untuned": "Layers that nobody tunes for",
    "kinds": "Layers with bottlenecks of their own",
    "networks": "Whole networks",
    "resnet18": "ResNet-18",
    "mobilenet_v2": "MobileNet v2",
    "squeezenet": "SqueezeNet",
    "densenet121": "DenseNet-121",
    "unet": "U-Net, 32 to 512 channels",
}
_KINDS = {
    "conv": "convolutions",
    "gradients": "gradients by input, weight and bias",
    "pool": "pooling",
    "network": "inference",
}
_ARITHMETIC = ("GFLOP", "GFLOP/s", "÷ peak")
_UNITS = {"conv": _ARITHMETIC, "gradients": _ARITHMETIC, "pool": ("MB", "GB/s", "÷ memory"), "network": _ARITHMETIC}
_NOTES = {
    "conv": (
        "GFLOP: of the direct sum, which Winograd's algorithms undercut. ÷ peak: share of the "
        "machine's multiply-adds per second ({} GFLOP/s)."
    ),
    "pool": (
        "MB: input and output. ÷ memory: share of the bandwidth of main memory ({} GB/s), which "
        "what fits into caches may exceed."
    ),
}
_NOTES["network"] = _NOTES["gradients"] = _NOTES["conv"]


# ------------------------------------------------------------------------------------------ tables


def title(network: str) -> str:
    """A network's name for a reader."""
    return _TITLES.get(network, network)


def tables(rows: Iterable[Row]) -> list[Table]:
    """One table for each network and kind of layer, a line for each layer and algorithm asked for."""

    def group(row: Row) -> tuple[Any, ...]:
        return row.network, row.kind, row.batch, row.dtype

    return [_table(list(members)) for _, members in groupby(rows, key=group)]


def heading(row: Row) -> str:
    """The title of the table that a row belongs to."""
    return f"{title(row.network)}: {_KINDS[row.kind]}, batch {row.batch}, {row.dtype}"


def peak_note(rows: Sequence[Row]) -> list[str]:
    """What the ceiling was, and whether it stayed there."""
    kind, limits = rows[0].kind, sorted(row.ceiling for row in rows)
    notes = [_NOTES[kind].format(figure(float(np.median(limits))))]
    seen = Range(limits[0], limits[-1], _UNITS[kind][1])
    return notes if seen.quiet else [*notes, seen.warning]


def _table(rows: list[Row]) -> Table:
    first = rows[0]
    ours = [row for row in rows if row.contender == OURS]
    layouts = _unique(row.layout for row in ours)
    others = _unique((row.contender, row.layout) for row in rows if row.contender != OURS)
    found = {(row.layer, row.contender, row.layout, row.variant): row for row in rows}
    by_layer = {row.layer: row for row in rows}

    lines, alone = [], len(_unique(row.variant for row in ours)) < 2
    for layer, any_row in by_layer.items():
        rivals = [found.get((layer, name, layout, "")) for name, layout in others]
        variants = _unique(row.variant for row in ours if row.layer == layer) or [""]
        for variant in variants:
            mine = [found.get((layer, OURS, layout, variant)) for layout in layouts]
            lines.append(_Line(any_row, variant, mine, rivals, first=variant == variants[0], alone=alone))

    several = len(_unique(name for name, _ in others)) < len(others)
    names = [f"{name} {layout}" if several else name for name, layout in others]
    columns = _columns(first.kind, names, layouts)
    notes = peak_note(rows)
    if names and layouts:
        notes.append(f"Speed-up: of {layouts[0]}; NumPy is given NCHW, which suits it best.")
    if first.kind == "conv":
        notes.append("MiB: packed weights and workspace. Error: max|y - y64| ÷ max|y64|.")
    return Table(
        heading(first),
        [column for column, _ in columns],
        [[cell(line) for _, cell in columns] for line in lines],
        _totals(columns, lines, len(by_layer)) if first.network not in LISTS else [],  # no network has this sum
        notes,
    )


class _Line:
    """A layer, or all of them, in one algorithm: our rows by layout, and the others' rows.

    Only the first line of a layer shows what does not depend on the algorithm; one that is not
    alone says which algorithm was asked for.
    """

    def __init__(
        self,
        layer: Row,
        variant: str,
        mine: Sequence[Row | None],
        rivals: Sequence[Row | None],
        *,
        first: bool = True,
        alone: bool = True,
    ) -> None:
        self.layer, self.variant, self.mine, self.rivals = layer, variant, mine, rivals
        self.first, self.alone = first, alone
        self.name = layer.layer + (f" ×{layer.count}" if layer.count > 1 else "")

    def algorithm(self) -> str:
        names = " / ".join(_unique(row.algorithm for row in self.mine if row and row.algorithm))
        if self.alone:
            return names
        return f"auto: {names}".rstrip(": ") if self.variant == "auto" else names or self.variant

    def speedup(self, rival: int) -> float | None:
        other, own = self.rivals[rival], self.mine[0] if self.mine else None
        return other.milliseconds / own.milliseconds if other and own else None


Cell = Callable[[_Line], str]


def _columns(kind: str, names: list[str], layouts: list[str]) -> list[tuple[Column, Cell]]:
    amount, rate, share = _UNITS[kind]
    scale = 1e3 if kind == "pool" else 1
    columns: list[tuple[Column, Cell]] = [
        (Column("layer", left=True), _first(lambda line: line.name)),
        (Column("shape", left=True, rank=5), _first(lambda line: line.layer.shape)),
        (Column(amount, rank=2), _first(lambda line: figure(line.layer.work * scale))),
    ]
    for i, name in enumerate(names):
        head = name.replace(" ", "\n")
        columns += [
            (Column(f"{head}\nms"), _first(_theirs(i, _ms))),
            (Column(f"{head}\nMiB", rank=6), _first(_theirs(i, lambda row: _mib([row])))),
        ]
    for i, layout in enumerate(layouts):
        columns += [
            (Column(f"{layout}\nms"), _ours(i, _ms)),
            (Column(f"{layout}\n{rate}", rank=3), _ours(i, _rate)),
            (Column(f"{layout}\n{share}"), _ours(i, _share)),
        ]
    columns.append((Column("algorithm", left=True), _Line.algorithm))
    for i, name in enumerate(names):
        head = f"speed-up\nto {name}".replace("NumPy ", "")
        columns.append((Column(head, rank=1), _speedup(i)))
    return [
        *columns,
        (Column("MiB", rank=3), lambda line: _mib(line.mine)),
        (Column("error", rank=4), lambda line: _worst_error(line.mine)),
    ]


def _theirs(i: int, show: Callable[[Row | None], str]) -> Cell:
    return lambda line: show(line.rivals[i])


def _ours(i: int, show: Callable[[Row | None], str]) -> Cell:
    return lambda line: show(line.mine[i])


def _speedup(i: int) -> Cell:
    return lambda line: figure(line.speedup(i), "×")


def _first(cell: Cell) -> Cell:
    return lambda line: cell(line) if line.first else ""


def _totals(columns: list[tuple[Column, Cell]], lines: list[_Line], layers: int) -> list[list[str]]:
    """A line for every algorithm that has served all layers."""
    totals: list[list[str]] = []
    for variant in _unique(line.variant for line in lines):
        mine = [line for line in lines if line.variant == variant]
        if len(mine) < layers:
            continue
        whole = _Line(
            replace(_whole([line.layer for line in mine]), layer="total", shape=""),
            variant,
            [_sum(rows) for rows in zip(*(line.mine for line in mine), strict=True)],
            [_sum(rows) for rows in zip(*(line.rivals for line in mine), strict=True)],
            first=not totals,
            alone=mine[0].alone,
        )
        totals.append([cell(whole) for _, cell in columns])
    return totals


def _sum(rows: Sequence[Row | None]) -> Row | None:
    """The layers of a network as one row; None if one is missing."""
    present = [row for row in rows if row is not None]
    return _whole(present) if len(present) == len(rows) else None


def _whole(rows: Sequence[Row]) -> Row:
    time = sum(row.count * row.milliseconds for row in rows)
    return replace(
        rows[0],
        count=1,
        algorithm="",
        milliseconds=time,
        work=sum(row.count * row.work for row in rows),
        share=sum(row.count * row.milliseconds * row.share for row in rows) / time,
        packed_bytes=_known(sum, [row.packed_bytes for row in rows for _ in range(row.count)]),
        workspace_bytes=_known(max, [row.workspace_bytes for row in rows]),
        max_error=max(row.max_error for row in rows),
    )


def _known(combine: Callable[[list[int]], int], values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return combine(known) if len(known) == len(values) else None


def _ms(row: Row | None) -> str:
    return "" if row is None else figure(row.milliseconds)


def _rate(row: Row | None) -> str:
    return "" if row is None else figure(row.rate)


def _share(row: Row | None) -> str:
    return "" if row is None else f"{row.share:.2f}"


def _mib(rows: Iterable[Row | None]) -> str:
    known = [row.extra_bytes for row in rows if row and row.extra_bytes is not None]
    return figure(max(known) / 2**20) if known else ""


def _worst_error(rows: Iterable[Row | None]) -> str:
    errors = [row.max_error for row in rows if row]
    return f"{np.max(errors):.1e}" if errors else ""


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


# --------------------------------------------------------------------------------------- documents


def machine() -> dict[str, Any]:
    """:func:`fastconv.config`, and what NumPy computes with."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        **fc.config(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
    }


def document(
    rows: Sequence[Row],
    limits: Ceilings,
    command: str,
    *,
    peers: dict[str, str] | None = None,
    missing: dict[str, str] | None = None,
    refusals: Sequence[Refusal] = (),
) -> dict[str, Any]:
    """A run for JSON: the machine, its ceilings, the date, the command and all rows.

    ``peers`` has the versions of other libraries, and ``missing`` why others are not there.
    """
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine(),
        "ceilings": {
            "fma_gflops": limits.fma,
            "bandwidth_gb_per_second": limits.bandwidth,
            "dtype": limits.dtype,
            "threads": limits.threads,
            "handover_nanoseconds": sorted(limits.handover),
        },
        "peers": peers or {},
        "missing": missing or {},
        "refusals": [asdict(refusal) for refusal in refusals],
        "rows": [row.record() for row in rows],
    }


def load(path: str | Path) -> tuple[dict[str, Any], list[Row]]:
    """A document from a file, and its rows.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not such a document.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        if run["schema"] != SCHEMA:
            raise ValueError(f"{path} has schema {run['schema']}; this version needs {SCHEMA}")
        return run, [_row(record) for record in run["rows"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what fastconv bench --json writes: {error!r}") from None


def _row(record: dict[str, Any]) -> Row:
    return Row(**{field.name: record[field.name] for field in fields(Row)})


def summary(run: dict[str, Any]) -> str:
    """The machine of a document in one line."""
    what, limits = run["machine"], run["ceilings"]
    return " · ".join(
        (
            f"fastconv {what['fastconv']}",
            what["cpu"],
            what["isa"],
            f"threads: {limits['threads']}",
            f"FMA peak {limits['fma_gflops']:.0f} GFLOP/s {limits['dtype']}",
            f"memory {limits['bandwidth_gb_per_second']:.0f} GB/s",
            *_apart(limits.get("handover_nanoseconds", ())),
            f"NumPy {what['numpy']} with {what['blas']}",
            *(f"{name} {version}" for name, version in run["peers"].items() if name != "numpy"),
            what["compiler"],
        )
    )


def _apart(nanoseconds: Sequence[float]) -> list[str]:
    """How far two threads were from each other: where most of the run, and at worst."""
    if not nanoseconds:
        return []
    most, worst = median(nanoseconds), max(nanoseconds)
    return [f"threads {most:.0f} ns apart" + (f", at times {worst:.0f}" if worst > 1.5 * most else "")]


def marks(section: str = SECTION) -> tuple[str, str]:
    """What stands before and after a section of a page: comments that Markdown does not show."""
    return f"<!-- {section}: begin -->", f"<!-- {section}: end -->"


def markdown(run: dict[str, Any], shown: Iterable[Table], before: str = "", section: str = SECTION) -> str:
    """A run and its tables, put in place of what stands between the two marks of a section in the text ``before``.

    A text without them is left out.
    """
    first, last = marks(section)
    parts = [
        first,
        f"Measured on {run['date'][:10]} by",
        f"```sh\n{run['command']}\n```",
        f"{summary(run)}.",
        *(table.fitted(10**6).markdown() for table in shown),
        last,
    ]
    text = "\n\n".join(parts)
    head, begin, rest = before.partition(first)
    _, end, tail = rest.partition(last)
    return head + text + tail if begin and end else text + "\n"


# -------------------------------------------------------------------------------------- comparison


def comparison(one: tuple[dict[str, Any], list[Row]], two: tuple[dict[str, Any], list[Row]]) -> Table:
    """How a second run compares with a first, for the rows that both have.

    Raises
    ------
    ValueError
        If they have none in common.
    """
    (run_a, rows_a), (run_b, rows_b) = one, two
    others = {_key(row): row for row in rows_b}
    pairs = [(row, others[_key(row)]) for row in rows_a if _key(row) in others]
    if not pairs:
        raise ValueError("the two runs have no row in common")
    cells = [
        [
            a.network,
            a.layer,
            " ".join(filter(None, (a.contender, a.variant, a.layout))),
            figure(a.milliseconds),
            figure(b.milliseconds),
            f"{a.milliseconds / b.milliseconds:.2f}",
            f"{a.share:.2f}",
            f"{b.share:.2f}",
            f"{b.share / a.share:.2f}",
            " → ".join(_unique((a.algorithm, b.algorithm))),
        ]
        for a, b in pairs
    ]
    time = geometric_mean([a.milliseconds / b.milliseconds for a, b in pairs])
    share = geometric_mean([b.share / a.share for a, b in pairs])
    total = ["geometric mean", "", "", "", "", f"{time:.2f}", "", "", f"{share:.2f}", ""]
    notes = [f"A: {run_a['date']}, {summary(run_a)}", f"B: {run_b['date']}, {summary(run_b)}"]
    notes.append("Ratios above 1: B is faster. Shares are of each run's own ceiling.")
    left = {"network", "layer", "contender", "algorithm"}
    heads: tuple[str, ...] = ("network", "layer", "contender", "A\nms", "B\nms", "ms\nA ÷ B")
    heads += ("A\nshare", "B\nshare", "share\nB ÷ A", "algorithm")
    return Table("B against A", [Column(head, head in left) for head in heads], cells, [total], notes)


def _key(row: Row) -> tuple[Any, ...]:
    return (
        *(row.network, row.layer, row.kind, row.contender, row.layout, row.variant),
        *(row.dtype, row.batch, row.threads),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))
