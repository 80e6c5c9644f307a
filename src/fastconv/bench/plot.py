# SPDX-License-Identifier: BSD-3-Clause
"""A run as pictures: milliseconds and shares as bars, and layers below the roofs of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from fastconv._names import only
from fastconv.bench.layers import Row
from fastconv.bench.report import OURS, title
from fastconv.bench.versus import CALL, duels, name_of

__all__ = ["bars", "roofline", "shares"]
__dir__ = only(__all__)

#: Ours in two shades of one strong colour, all others in quiet ones.
COLOURS = {"NCHW": "#c2410c", "NHWC": "#fb923c"}
PEERS = {
    "torch NCHW": "#bfdbfe",
    "torch channels_last": "#60a5fa",
    "ONNX Runtime": "#a78bfa",
    "OpenVINO": "#6ee7b7",
    "ncnn": "#fcd34d",
}
QUIET = ("#cbd5e1", "#64748b", "#94a3b8", "#475569")
INK, GRID = "#1f2937", "#e5e7eb"
SHARES = {"conv": "share of FMA peak", "pool": "share of bandwidth"}


def bars(run: dict[str, Any], rows: Sequence[Row], path: str | Path) -> list[Path]:
    """Draw one picture for each network.

    Parameters
    ----------
    run : dict
        The document that the rows belong to.
    rows : sequence of Row
        Of several algorithms the one asked for first is drawn.
    path : str or Path
        Where to; its suffix is the format. With several networks the network's name is put before
        the suffix.

    Returns
    -------
    list of Path
        The files written.
    """
    path = Path(path)
    networks = list(dict.fromkeys(row.network for row in rows))
    written = []
    for network in networks:
        mine = [row for row in rows if row.network == network]
        target = path.with_stem(f"{path.stem}-{network}") if len(networks) > 1 else path
        _figure(run, mine, network).savefig(target, dpi=150)
        written.append(target)
    return written


def _figure(run: dict[str, Any], rows: list[Row], network: str) -> Figure:
    kinds = {kind: list(members) for kind, members in groupby(rows, key=lambda row: row.kind)}
    counts = [len({row.layer for row in members}) for members in kinds.values()]
    engine = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.03)
    figure = Figure(figsize=(max(8.0, 3.2 + 0.55 * sum(counts)), 7.6), layout=engine)
    (head,), (body,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.11, 0.89))
    grid = body.subplots(2, len(kinds), squeeze=False, sharex="col", width_ratios=counts, height_ratios=(3, 2))
    for column, (kind, members) in enumerate(kinds.items()):
        _draw(grid[0][column], grid[1][column], kind, members)
    handles: dict[str, Any] = {}
    for axes in grid[0]:
        handles.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    batch = rows[0].batch
    images = "one image" if batch == 1 else f"{batch} images"
    name = f"{title(network)}, {images}, {rows[0].dtype}"
    head.text(0.01, 0.9, name, va="top", fontsize=15, fontweight="bold", color=INK)
    head.legend(
        handles.values(),
        handles.keys(),
        loc="lower left",
        bbox_to_anchor=(0.0, -0.1),
        ncols=len(handles),
        frameon=False,
    )
    what, limits = run["machine"], run["ceilings"]
    body.supxlabel(
        f"{what['cpu']}, {what['isa']}, threads: {limits['threads']}; FMA peak "
        f"{limits['fma_gflops']:.0f} GFLOP/s, memory {limits['bandwidth_gb_per_second']:.0f} GB/s; "
        f"NumPy {what['numpy']} with {what['blas']}; {run['date'][:10]}",
        x=0.01,
        ha="left",
        fontsize=8,
        color="#6b7280",
    )
    return figure


def _draw(times: Axes, shares: Axes, kind: str, rows: list[Row]) -> None:
    layers = list(dict.fromkeys(row.layer for row in rows))
    series: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.contender != CALL:
            series.setdefault(name_of(row), {}).setdefault(row.layer, row)
    ours = {name: by_layer for name, by_layer in series.items() if name.startswith(OURS)}
    _grouped(times, layers, series, "milliseconds")
    _grouped(shares, layers, ours, "share")

    times.set_yscale("log")
    fastest = min(row.milliseconds for row in rows)
    times.set_ylim(bottom=fastest / 3)  # so that the shortest bar is one
    times.yaxis.set_minor_locator(NullLocator())
    times.set_title({"conv": "convolutions", "pool": "pooling"}[kind], loc="left", fontsize=11)
    times.set_ylabel("milliseconds (log scale)")
    times.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    shares.set_ylabel(SHARES[kind])
    shares.axhline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    shares.set_ylim(0, _top(ours))
    shares.set_xticks(range(len(layers)), layers)
    shares.tick_params(axis="x", labelrotation=45)
    for label in shares.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    for axes in (times, shares):
        _plain(axes)


def _top(series: dict[str, dict[str, Row]]) -> float:
    """Of an axis of shares: a disturbed measurement of a ceiling must not flatten all other bars."""
    highest = max((row.share for by_layer in series.values() for row in by_layer.values()), default=1)
    return max(1.15, min(1.1 * highest, 4))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.margins(x=0.02)


def _grouped(axes: Axes, layers: list[str], series: dict[str, dict[str, Row]], what: str) -> None:
    """Bars side by side, a group for each layer."""
    quiet = iter(QUIET * len(series))
    width = 0.82 / max(len(series), 1)
    for i, (name, by_layer) in enumerate(series.items()):
        ours = name.startswith(OURS)
        colour = COLOURS[name.split()[-1]] if ours else PEERS.get(name) or next(quiet)
        places = [j for j, layer in enumerate(layers) if layer in by_layer]
        axes.bar(
            [j + (i - (len(series) - 1) / 2) * width for j in places],
            [getattr(by_layer[layers[j]], what) for j in places],
            width,
            label=name,
            color=colour,
        )


# ----------------------------------------------------------------------------------- against peers

PANEL = 13  # layers side by side


def shares(rows: Sequence[Row]) -> Figure:
    """Each contender's share of the ceiling, layer by layer; a line marks the aim of a layer that has one.

    Wrong answers are left out.
    """
    found = duels(rows)
    series: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.contender != CALL and row.right:
            series.setdefault(name_of(row), {})[row.layer] = row
    panels = [found[i : i + PANEL] for i in range(0, len(found), PANEL)]
    figure = Figure(figsize=(13, 0.5 + 2.9 * len(panels)), layout="constrained")
    every_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, members in zip(every_axes, panels, strict=True):
        layers = [duel.layer.layer for duel in members]
        _grouped(axes, layers, series, "share")
        for i, duel in enumerate(members):
            if duel.layer.aim:
                axes.hlines(duel.layer.aim, i - 0.45, i + 0.45, color=INK, linewidth=1.5, label="aim")
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
        axes.set_ylabel(SHARES[rows[0].kind])
        axes.set_ylim(0, max([_top(series), *(1.05 * duel.layer.aim for duel in found if duel.layer.aim)]))
        axes.set_xlim(-0.6, PANEL - 0.4)
        axes.set_xticks(range(len(layers)), [label.replace(" ", "\n") for label in layers], fontsize=8)
        _plain(axes)
    labels = dict(zip(*reversed(every_axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=5, fontsize=9, frameon=False)
    return figure


def roofline(run: dict[str, Any], rows: Sequence[Row]) -> Figure:
    """Layers by operations per byte: fastconv's plan, the best peer, and the roofs of the run."""
    limits = run["ceilings"]
    peak, bandwidth = limits["fma_gflops"], limits["bandwidth_gb_per_second"]
    found = [(duel.layer.work / duel.layer.traffic, duel.plan, duel.best_peer) for duel in duels(rows) if duel.plan]
    places = [place for place, _, _ in found]
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    axes = figure.subplots()
    low, high = min(places) / 1.6, max(max(places), peak / bandwidth) * 1.6
    bend = peak / bandwidth
    axes.plot([low, bend, high], [low * bandwidth, peak, peak], color=INK, linewidth=1.5)
    axes.annotate(f"{peak:.0f} GFLOP/s", (high, peak), (-4, 4), textcoords="offset points", ha="right", color=INK)
    axes.annotate(f"{bandwidth:.0f} GB/s", (low, low * bandwidth), (6, 0), textcoords="offset points", color=INK)
    for place, plan, peer in found:
        if peer:
            axes.plot([place] * 2, [peer.rate, plan.rate], color="#cbd5e1", linewidth=1, zorder=1)
    theirs = [(place, peer.rate) for place, _, peer in found if peer]
    if theirs:
        at, rates = zip(*theirs, strict=True)
        axes.scatter(at, rates, s=26, color="white", edgecolor="#2563eb", label="best peer", zorder=2)
    axes.scatter(places, [plan.rate for _, plan, _ in found], s=30, color=COLOURS["NCHW"], label="fastconv", zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", xlim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="lower right", frameon=False)
    _plain(axes)
    axes.set_xlim(low, high)
    return figure
