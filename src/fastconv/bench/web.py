# SPDX-License-Identifier: BSD-3-Clause
"""What pages have in common: a style, and tables. They refer to nothing elsewhere."""

from __future__ import annotations

from html import escape

from fastconv._names import only
from fastconv.bench.terminal import Table

__all__ = ["page", "table"]
__dir__ = only(__all__)

STYLE = """
:root {
  color-scheme: light dark;
  --surface: #ffffff; --raised: #f6f7f9; --ink: #1f2937; --muted: #5b6472; --line: #e5e7eb; --accent: #c2410c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --surface: #14181f; --raised: #1c222b; --ink: #e8eaed; --muted: #a3acb9; --line: #2b323d; --accent: #fb923c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3rem 1.25rem 4rem; max-width: WIDTH; background: var(--surface); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { margin: 0; font-size: 2.25rem; line-height: 1.2; letter-spacing: -0.02em; }
h2 { margin: 4rem 0 0; padding-top: 1.5rem; border-top: 1px solid var(--line); font-size: 1.6rem; line-height: 1.3; }
h3 { margin: 2.75rem 0 0; font-size: 1.15rem; }
p { max-width: 42rem; margin: 0.75rem 0; }
.lead { font-size: 1.2rem; color: var(--muted); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; margin: 2rem 0 0; }
.figures div { padding: 1.1rem 1.25rem; border-radius: 0.6rem; background: var(--raised); }
.figures strong { display: block; font-size: 1.9rem; line-height: 1.25; color: var(--accent); letter-spacing: -0.01em; }
.figures span { font-size: 0.92rem; line-height: 1.4; color: var(--muted); display: block; }
figure { margin: 1.25rem 0 0; }
figure img { display: block; width: 100%; height: auto; }
figure img.graph { width: auto; max-width: 100%; }
figcaption, .notes { max-width: 46rem; margin: 0.5rem 0 0; font-size: 0.92rem; line-height: 1.5; color: var(--muted); }
.scroll { overflow-x: auto; margin: 1.25rem 0 0; }
table { border-collapse: collapse; font-size: 0.82rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.5rem; text-align: right; white-space: nowrap; }
th { vertical-align: bottom; font-weight: 600; color: var(--muted); white-space: pre; }
th:first-child, td:first-child { padding-left: 0; }
.left { text-align: left; }
thead tr, tbody tr:last-child { border-bottom: 1px solid var(--line); }
tfoot td { font-weight: 600; }
tbody tr:hover { background: var(--raised); }
.kept::before, .broken::before { display: inline-block; width: 1.6rem; font-weight: 700; color: var(--accent); }
.kept::before { content: "✓"; }
.broken::before { content: "✗"; }
ul.checks { list-style: none; padding: 0; }
.broken { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.5rem; font-size: 0.92rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 0.92em ui-monospace, "DejaVu Sans Mono", monospace; }
a { color: var(--accent); }
"""


def page(title: str, *parts: str, width: str = "66rem") -> str:
    """A whole page, at most so wide."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE.replace("WIDTH", width)}</style>
</head>
<body>
{"".join(parts)}
</body>
</html>
"""


def table(table: Table) -> str:
    """A table in a box that scrolls, and its notes."""

    def row(cells: list[str], tag: str = "td") -> str:
        marks = [' class="left"' if column.left else "" for column in table.columns]
        inside = (f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    heads = row([column.head for column in table.columns], "th")
    body = "\n".join(map(row, table.rows))
    foot = f"<tfoot>{''.join(map(row, table.totals))}</tfoot>" if table.totals else ""
    notes = f'<p class="notes">{"<br>".join(map(escape, table.notes))}</p>' if table.notes else ""
    return f"""<div class="scroll"><table>
<thead>{heads}</thead>
<tbody>{body}</tbody>
{foot}</table></div>
{notes}"""
