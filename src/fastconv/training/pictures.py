# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of a training: curves by epoch, and which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastconv._names import only
from fastconv._theme import LIGHT, Theme
from fastconv._theme import figure as figure_of
from fastconv.training.loop import Epoch

__all__ = ["confusion", "confusion_counts", "curves", "write"]
__dir__ = only(__all__)

NAMED = 40  # classes whose names there is room for
COUNTED = 20  # classes whose counts there is room for
SEEN = 0.1  # share of a class from which on its colour is told from none


def write(
    folder: Path, history: Sequence[Epoch], labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]
) -> list[Path]:
    """Draw ``curves.png`` and ``confusion.png``."""
    paths = [folder / f"{name}.png" for name in ("curves", "confusion")]
    with matplotlib.rc_context(LIGHT.settings):
        curves(LIGHT, history).savefig(paths[0])
        confusion(LIGHT, labels, predictions, classes).savefig(paths[1])
    return paths


def curves(theme: Theme, history: Sequence[Epoch]) -> Figure:
    """Loss, accuracy and learning rate by epoch."""
    figure = figure_of(3.8)
    numbers = [epoch.number for epoch in history]
    panels = (
        ("cross-entropy", [("training", [e.loss for e in history]), ("held out", [e.held_out_loss for e in history])]),
        (
            "accuracy in %",
            [
                ("training", [100 * e.accuracy for e in history]),
                ("held out", [100 * e.held_out_accuracy for e in history]),
            ],
        ),
        ("learning rate", [("", [e.lr for e in history])]),
    )
    styles = ((theme.rivals[1], (0, (5, 2))), (theme.accent, "-"))
    for axes, (title, lines) in zip(figure.subplots(1, 3), panels, strict=True):
        for (label, values), (colour, style) in zip(lines, styles if len(lines) > 1 else styles[1:], strict=False):
            marker = "o" if len(numbers) == 1 else None
            axes.plot(numbers, values, color=colour, linestyle=style, linewidth=2, label=label, marker=marker)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        if len(lines) > 1:
            axes.legend(frameon=False)
    return figure


def confusion_counts(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes): how often the class of the row was taken for that of the column.

    >>> import numpy as np
    >>> from fastconv.training.pictures import confusion_counts
    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, -1]), 2)  # the last one could not be read
    array([[1, 1],
           [0, 0]])
    """
    counts = np.zeros((classes, classes), int)
    known = predictions >= 0
    np.add.at(counts, (labels[known], predictions[known]), 1)
    return counts


def confusion(theme: Theme, labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> Figure:
    """How often each class was taken for which: shares of a row by colour, counts where there is room."""
    counts = confusion_counts(labels, predictions, len(classes))
    figure = figure_of(8.5)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(classes), dtype=bool)
    hits = LinearSegmentedColormap.from_list("hits", [theme.surface, theme.rivals[0]])
    misses = LinearSegmentedColormap.from_list("misses", [theme.surface, theme.accent])
    axes.imshow(np.ma.array(shares, mask=~right), cmap=hits, vmin=0, vmax=1)
    axes.imshow(np.ma.array(np.maximum(shares, SEEN), mask=right | (counts == 0)), cmap=misses, vmin=0, vmax=0.5)
    if len(classes) <= COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                axes.text(column, row, count, ha="center", va="center", color=theme.ink, fontsize=9)
    axes.set(xlabel="taken for", ylabel="is")
    if len(classes) <= NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=0 if max(map(len, classes)) <= 3 else 90)
        axes.set_yticks(range(len(classes)), classes)
    axes.spines[:].set_visible(False)
    seen = int(counts.sum())
    axes.set_title(f"{int(np.trace(counts))} of {seen} images held out are taken for what they are")
    return figure
