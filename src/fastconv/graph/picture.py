# SPDX-License-Identifier: BSD-3-Clause
"""The steps of a network as a picture: a box each, coloured by its share of the time, and what reads what.

SVG without anything from elsewhere, for light and for dark pages. Letters are of one width, so that boxes are as wide
as what stands in them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from fastconv._names import only
from fastconv.graph.layered import Item, layered

__all__ = ["Box", "svg"]
__dir__ = only(__all__)

LETTER = 7.3  # at 12 pixels; the usual fonts of one width have 6.6 to 7.23
LINE = 16.0
INSET = 10.0
BAR = 4.0  # height of the bar that shows the share
BETWEEN = 30.0  # layers
MARGIN = 16.0
NAME = 26  # letters of a name that are shown, the last ones

STYLE = """
.fc-graph { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; }
.fc-graph text { fill: #1f2937; white-space: pre; }
.fc-graph .more { fill: #5b6472; }
.fc-graph .name, .fc-graph .title { font-weight: 600; }
.fc-graph .page { fill: #ffffff; }
.fc-graph .box { fill: #f6f7f9; stroke: #cbd5e1; }
.fc-graph .end { fill: #ffffff; stroke: #64748b; }
.fc-graph .share { fill: #ea580c; }
.fc-graph .line { fill: none; stroke: #8694a8; stroke-width: 1.2; }
.fc-graph .tip { fill: #8694a8; }
@media (prefers-color-scheme: dark) {
  .fc-graph text { fill: #e8eaed; }
  .fc-graph .more { fill: #a3acb9; }
  .fc-graph .page { fill: #14181f; }
  .fc-graph .box { fill: #1c222b; stroke: #465162; }
  .fc-graph .end { fill: #14181f; stroke: #8694a8; }
}
"""


@dataclass(frozen=True, slots=True)
class Box:
    """What stands in a box.

    Attributes
    ----------
    reads : tuple of int
        Numbers of the boxes, all before this one, from which lines come.
    name : str
    lines : tuple of str
        Below the name.
    figures : tuple of str
        At the right, from the first line on.
    share : float or None
        Of the time, where that is known.
    full : str
        Everything, for who points at it.
    end : bool
        Whether it is an input or an output.
    """

    reads: tuple[int, ...]
    name: str
    lines: tuple[str, ...]
    figures: tuple[str, ...] = ()
    share: float | None = None
    full: str = ""
    end: bool = False

    @property
    def columns(self) -> int:
        """Letters of the widest line."""
        left, right = (_short(self.name), *self.lines), self.figures
        return max(
            _letters(a) + (1 + _letters(b) if b else 0)
            for a, b in zip(left, (*right, *[""] * (len(left) - len(right))), strict=True)
        )

    @property
    def height(self) -> float:
        return LINE * (1 + len(self.lines)) + INSET


def svg(title: str, head: Sequence[str], boxes: Sequence[Box]) -> str:
    """A picture.

    Parameters
    ----------
    title : str
        What it is called.
    head : sequence of str
        What stands above the boxes, wrapped, the first as a heading.
    boxes : sequence of Box

    Returns
    -------
    str
        A whole SVG document, which may also stand in a page.
    """
    width = max((box.columns for box in boxes), default=0) * LETTER + 2 * INSET
    layers = layered([width] * len(boxes), [box.reads for box in boxes])
    right = max((layer[-1].x + layer[-1].width / 2 for layer in layers), default=0.0)
    inside = max(right, 60 * LETTER)
    wrapped = [
        (line, "more" if number else "title")
        for number, text in enumerate(head)
        for line in _wrapped(text, int(inside / LETTER))
    ]
    tops, y = [], MARGIN + (LINE * len(wrapped) + BETWEEN / 2 if wrapped else 0)
    for layer in layers:
        tops.append(y)
        y += _height(layer, boxes) + BETWEEN
    total = (inside + 2 * MARGIN, y - BETWEEN + MARGIN)
    most = max((box.share or 0.0 for box in boxes), default=0.0)
    parts = [f'<rect class="page" width="{total[0]:.0f}" height="{total[1]:.0f}"/>']
    parts += (_text(line, MARGIN, MARGIN + LINE * i + 12, kind) for i, (line, kind) in enumerate(wrapped))
    parts.append(f'<g transform="translate({MARGIN + (inside - right) / 2:.1f} 0)">')
    for layer, top in zip(layers, tops, strict=True):
        parts += (part for item in layer for part in _lines(item, top, tops, layers, boxes))
    for layer, top in zip(layers, tops, strict=True):
        parts += (_drawn(boxes[item.box], item, top, most) for item in layer if item.box is not None)
    body = "\n".join([*parts, "</g>"])
    size = f'width="{total[0]:.0f}" height="{total[1]:.0f}" viewBox="0 0 {total[0]:.0f} {total[1]:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fc-graph" role="img" {size}>\n'
        f"<title>{_safe(title)}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _height(layer: Sequence[Item], boxes: Sequence[Box]) -> float:
    return max((boxes[item.box].height for item in layer if item.box is not None), default=0.0)


def _lines(
    item: Item, top: float, tops: Sequence[float], layers: Sequence[list[Item]], boxes: Sequence[Box]
) -> Iterator[str]:
    """The lines that leave an item for the next layer, and through which a lane goes."""
    if not item.below:
        return
    start = top if item.box is None else top + boxes[item.box].height
    bottom, end = top + _height(layers[item.layer], boxes), tops[item.layer + 1]
    path, middle = f"M{item.x:.1f} {start:.1f}V{bottom:.1f}", (bottom + end) / 2
    curves = []
    for other in item.below:
        x = other.x
        if other.box is not None:
            x += _entry(item, other)
            yield f'<path class="tip" d="M{x:.1f} {end:.1f}l-3.5 -7h7z"/>'
        stop = end if other.box is None else end - 6
        curves.append(f"M{item.x:.1f} {bottom:.1f}C{item.x:.1f} {middle:.1f} {x:.1f} {middle:.1f} {x:.1f} {stop:.1f}")
    yield f'<path class="line" d="{path}{"".join(curves)}"/>'


def _entry(item: Item, box: Item) -> float:
    """How far from the middle a line enters a box: lines from the left to the left of others."""
    order = sorted(box.above, key=lambda other: other.x)
    step = min(16.0, (box.width - 2 * INSET) / len(order))
    return (order.index(item) - (len(order) - 1) / 2) * step


def _drawn(box: Box, item: Item, top: float, most: float) -> str:
    left, width, height = item.x - item.width / 2, item.width, box.height
    place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
    parts = [f"<title>{_safe(box.full or box.name)}</title>"]
    kind, round_ = ("end", height / 2) if box.end else ("box", 4.0)
    parts.append(f'<rect class="{kind}" {place} rx="{round_:.0f}"/>')
    if box.share and most > 0:
        strength = box.share / most
        parts.append(f'<rect class="share" {place} rx="4" opacity="{0.45 * strength:.3f}"/>')
        bar = f'x="{left:.1f}" y="{top + height - BAR:.1f}" width="{width * strength:.1f}" height="{BAR:.1f}"'
        parts.append(f'<rect class="share" {bar}/>')
    for number, line in enumerate((_short(box.name), *box.lines)):
        y = top + LINE * number + 16
        parts.append(_text(line, left + INSET, y, "more" if number else "name"))
        if number < len(box.figures):
            right = left + width - INSET
            parts.append(_text(box.figures[number], right, y, "" if number else "name", ' text-anchor="end"'))
    return f"<g>{''.join(parts)}</g>"


def _text(text: str, x: float, y: float, kind: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{more}>{_safe(text)}</text>'


# --- letters ----------------------------------------------------------------------------------------------------------

#: Characters that XML has not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _safe(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _letters(text: str) -> int:
    """How many letters wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _short(name: str) -> str:
    """The end of a name, which differs more than its beginning."""
    if _letters(name) <= NAME:
        return name
    while _letters(name) >= NAME:
        name = name[1:]
    return f"…{name}"


def _wrapped(text: str, most: int) -> list[str]:
    """Lines of at most so many letters; what is longer than a line is broken anywhere."""
    lines = [""]
    for word in text.split():
        while word:
            longer = f"{lines[-1]} {word}".strip()
            if _letters(longer) <= most:
                lines[-1], word = longer, ""
            elif lines[-1]:
                lines.append("")
            else:
                cut = next(i for i in range(len(word), 0, -1) if _letters(word[:i]) <= most or i == 1)
                lines[-1], word = word[:cut], word[cut:]
    return lines
