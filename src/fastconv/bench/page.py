# SPDX-License-Identifier: BSD-3-Clause
"""A run against peers as one page to read: tables and pictures, all in one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from fastconv._names import only
from fastconv.bench import plot, report, versus
from fastconv.bench.layers import Row
from fastconv.bench.terminal import Table, figure
from fastconv.bench.web import page, table

__all__ = ["html"]
__dir__ = only(__all__)


def html(run: dict[str, Any], rows: Sequence[Row], shown: Sequence[Table]) -> str:
    """The page.

    Parameters
    ----------
    run : dict
        The document that the rows belong to.
    rows : sequence of Row
    shown : sequence of Table
        Those of :func:`fastconv.bench.versus.tables`.

    Returns
    -------
    str
    """
    sections = []
    for group in versus.by_group(rows):
        heading = report.heading(group[0])
        mine = [t for t in shown if t.title == heading or t.title.startswith(f"{heading}, ")]
        sections.append(_section(run, heading, group, mine))
    return page("fastconv bench", _head(run, rows), *sections, width="100rem")


def _head(run: dict[str, Any], rows: Sequence[Row]) -> str:
    cards = []
    for group in versus.by_group(rows):
        result = versus.record(versus.RATIOS[0], versus.duels(group))
        if result:
            text = (
                f"the best peer's time over that of fastconv's plan, geometric mean of {result['layers']} layers: "
                f"{report.heading(group[0])}. Lowest: {figure(result['lowest'])}× on {result['lowest_layer']}"
            )
            cards.append((figure(result["geometric_mean"], "×"), text))
    what, limits = run["machine"], run["ceilings"]
    peers = [f"{name} {version}" for name, version in run["peers"].items()]
    facts = {
        "date": run["date"],
        "processor": f"{what['cpu']}, {limits['threads']} threads, fastconv on {what['isa']}",
        "ceilings": f"{limits['fma_gflops']:.0f} GFLOP/s {limits['dtype']}, "
        f"memory {limits['bandwidth_gb_per_second']:.0f} GB/s",
        "fastconv": f"{what['fastconv']}, {what['compiler']}",
        "peers": ", ".join([*peers, f"NumPy {what['numpy']} ({what['blas']})"]),
        "not installed": ", ".join(f"{name} ({reason})" for name, reason in run["missing"].items()) or "none",
        "command": run["command"],
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    boxes = "".join(f"<div><strong>{escape(big)}</strong><span>{escape(small)}</span></div>" for big, small in cards)
    return f"""
<header>
<h1>fastconv and its peers</h1>
<p class="lead">Layer by layer, in turns, in one process, on equal threads. Times are medians; ratios above 1 mean that
fastconv is faster.</p>
<div class="figures">{boxes}</div>
<dl style="margin-top: 2rem">{listed}</dl>
</header>
"""


def _section(run: dict[str, Any], heading: str, rows: Sequence[Row], shown: Sequence[Table]) -> str:
    pictures = [
        _picture(plot.shares(rows), f"Share of the ceiling by layer and contender. {heading}."),
    ]
    if rows[0].kind == "conv":
        pictures.append(
            _picture(
                plot.roofline(run, rows),
                "Roofline: what arithmetic and main memory allow, by operations of the direct sum per byte of input, "
                "weights and output. Layers run hot, so that caches, and Winograd's algorithms, may exceed it.",
            )
        )
    tables = "".join(f"<h3>{escape(t.title)}</h3>{table(t.fitted(10**6))}" for t in shown)
    return f"""
<section>
<h2>{escape(heading)}</h2>
{"".join(pictures)}
{tables}
</section>
"""


def _picture(drawn: Figure, caption: str) -> str:
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=130)
    data = b64encode(buffer.getvalue()).decode("ascii")
    return f"""<figure>
<img src="data:image/png;base64,{data}" alt="{escape(caption)}">
<figcaption>{escape(caption)}</figcaption>
</figure>"""
