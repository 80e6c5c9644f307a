# SPDX-License-Identifier: BSD-3-Clause
"""How pictures look: colours, sizes and type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 10.0  # inches of every picture; at 150 dots per inch it is sharp on a page of 1000 pixels
DPI = 150


@dataclass(frozen=True)
class Theme:
    """Colours: orange for what is ours, purple for its opposite, greys for all else.

    The two hues differ in lightness and in blue against yellow, which no common colour blindness confuses.
    """

    surface: str
    ink: str
    muted: str
    faint: str
    accent: str
    opposite: str
    rivals: tuple[str, str]

    @property
    def settings(self) -> dict[Any, Any]:
        """For matplotlib."""
        return {
            "figure.facecolor": self.surface,
            "savefig.facecolor": self.surface,
            "axes.facecolor": self.surface,
            "axes.edgecolor": self.muted,
            "axes.labelcolor": self.muted,
            "axes.titlecolor": self.ink,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titlepad": 8,
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "axes.axisbelow": True,
            "grid.color": self.faint,
            "grid.linewidth": 0.8,
            "text.color": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "xtick.minor.size": 0,
            "ytick.minor.size": 0,
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "lines.solid_capstyle": "round",
        }

    @property
    def paper(self) -> Colormap:
        """From an empty page to ink."""
        return LinearSegmentedColormap.from_list("paper", [self.surface, self.ink])

    @property
    def activity(self) -> Colormap:
        """From silent to active."""
        return LinearSegmentedColormap.from_list("activity", [self.surface, self.accent, self.ink])

    @property
    def signs(self) -> Colormap:
        """From negative over nothing to positive."""
        return LinearSegmentedColormap.from_list("signs", [self.opposite, self.surface, self.accent])


LIGHT = Theme("#ffffff", "#1f2937", "#5b6472", "#e5e7eb", "#c2410c", "#5b3f9c", ("#cbd5e1", "#64748b"))
DARK = Theme("#14181f", "#e8eaed", "#a3acb9", "#2b323d", "#fb923c", "#a78bfa", ("#465162", "#8694a8"))


def figure(height: float) -> Figure:
    """An empty one of common width, whose parts keep out of each other's way."""
    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.02, hspace=0.02)
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=engine)
