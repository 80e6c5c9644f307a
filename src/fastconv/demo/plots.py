# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of the demo, each in one function, for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fastconv._names import only
from fastconv._theme import DARK, LIGHT, Theme
from fastconv._theme import figure as figure_of
from fastconv.bench import terminal
from fastconv.bench.report import OURS
from fastconv.demo.digits import Training
from fastconv.demo.vgg import Run

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "confusion",
    "feature_maps",
    "filters",
    "training",
    "vgg_layers",
    "vgg_maps",
    "write",
]
__dir__ = only(__all__)

SHOWN_ERRORS = 9  # misread digits that there is room for


def write(pictures: Mapping[str, Callable[[Theme], Figure]], folder: Path, after_picture: Callable[[], Any]) -> None:
    """Draw each picture as NAME.png for light pages, and once more under dark/ for dark ones."""
    for theme, place in ((LIGHT, folder), (DARK, folder / "dark")):
        place.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(theme.settings):
            for name, draw in pictures.items():
                draw(theme).savefig(place / f"{name}.png")
                after_picture()


def _bare(axes: Axes) -> None:
    """No ticks; a thin frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=0.6)


def _digit(axes: Axes, image: np.ndarray, theme: Theme) -> None:
    axes.imshow(image, cmap=theme.paper, vmin=0, vmax=1, interpolation="nearest")
    _bare(axes)


def _mosaic(axes: Axes, maps: np.ndarray, columns: int, cmap: Colormap, theme: Theme, low: float = 0.0) -> None:
    """Maps (N, H, W) of values from `low` to 1 side by side in rows, with faint lines between them."""
    fine = -(-64 // maps.shape[2])  # so that a line may be thinner than a pixel
    maps = maps.repeat(fine, axis=1).repeat(fine, axis=2)
    count, height, width = maps.shape
    gap = width // 12
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + gap) + gap, columns * (width + gap) + gap), np.float32)
    for i, one in enumerate(maps):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height + 2 * gap, left : left + width + 2 * gap] = np.nan
        canvas[top + gap : top + gap + height, left + gap : left + gap + width] = one
    axes.imshow(canvas, cmap=cmap.with_extremes(bad=theme.faint), vmin=low, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _by_largest(maps: np.ndarray) -> np.ndarray:
    """Each map (H, W) divided by its largest absolute value, so that weak ones can be seen too."""
    return maps / np.maximum(np.abs(maps).max(axis=(1, 2), keepdims=True), 1e-12)


def _unlike(maps: np.ndarray, count: int) -> list[int]:
    """Numbers of some of the liveliest maps (N, H, W), each as unlike those before it as can be."""
    lively = np.argsort(maps.std(axis=(1, 2)))[::-1][: 6 * count]
    with np.errstate(invalid="ignore", divide="ignore"):  # a map that is zero everywhere
        alike = np.abs(np.nan_to_num(np.corrcoef(maps[lively].reshape(len(lively), -1))))
    chosen = [0]
    while len(chosen) < min(count, len(lively)):
        chosen.append(int(np.argmin(alike[chosen].max(axis=0) + np.isin(np.arange(len(lively)), chosen))))
    return [int(lively[i]) for i in chosen]


# ------------------------------------------------------------------------------------------- digits


def filters(theme: Theme, before: np.ndarray, after: np.ndarray) -> Figure:
    """The first layer's kernels (N, H, W) before and after training, side by side."""
    figure = figure_of(4.9)
    columns = math.ceil(math.sqrt(len(after)))
    titles = ("before training: random numbers", "after training")
    for axes, kernels, title in zip(figure.subplots(1, 2), (before, after), titles, strict=True):
        _mosaic(axes, _by_largest(kernels), columns, theme.signs, theme, low=-1)
        axes.set_title(title)
    scale = figure.colorbar(axes.images[0], ax=figure.axes, shrink=0.4, aspect=16, ticks=[-1, 0, 1])
    scale.ax.set_yticklabels(["negative", "zero", "positive"])
    scale.outline.set_visible(False)
    return figure


def feature_maps(theme: Theme, stages: Sequence[tuple[str, np.ndarray]], label: int) -> Figure:
    """What the network makes of one digit, from the image to the probabilities of the ten labels."""
    *before, (_, probabilities) = stages
    columns = 4
    rows = -(-(len(before) + 2) // columns)
    figure = figure_of(2.75 * rows)
    grid = figure.add_gridspec(rows, columns)
    for i, (name, values) in enumerate(before):
        axes = figure.add_subplot(grid[divmod(i, columns)])
        if i == 0:
            _digit(axes, values[0], theme)
            shape = "{} × {} pixels".format(*values.shape[1:])
        elif values.ndim == 3:
            _mosaic(axes, _by_largest(values), math.ceil(math.sqrt(len(values))), theme.activity, theme)
            shape = "{} maps of {} × {}".format(*values.shape)
        else:
            numbers = values[:, None, None] / max(values.max(), 1e-12)
            _mosaic(axes, numbers, math.ceil(math.sqrt(len(values))), theme.activity, theme)
            shape = f"{len(values)} numbers"
        axes.set_title(f"{name}\n", fontsize=10, fontweight="bold")
        axes.text(0, 1.03, shape, transform=axes.transAxes, color=theme.muted, fontsize=9)
    first = len(before) % columns
    axes = figure.add_subplot(grid[rows - 1, first:])
    colours = [theme.accent if i == label else theme.rivals[1] for i in range(len(probabilities))]
    axes.bar(range(len(probabilities)), 100 * probabilities, 0.7, color=colours)
    axes.set_title("fully connected\n", fontsize=10, fontweight="bold")
    axes.text(0, 1.03, "10 scores, as probabilities in %", transform=axes.transAxes, color=theme.muted, fontsize=9)
    axes.set(xticks=range(len(probabilities)), yticks=(0, 50, 100), ylim=(0, 105))
    axes.spines[:].set_visible(False)
    axes.grid(axis="y")
    return figure


def confusion(theme: Theme, images: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> Figure:
    """How often each digit was read as which, and the images (N, 1, H, W) that were misread."""
    figure = figure_of(5.4)
    ((left, right),) = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.25, 1))
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predictions), 1)
    axes = left.subplots()
    right_ones = np.where(np.eye(10, dtype=bool), counts, 0)
    axes.imshow(right_ones, cmap=LinearSegmentedColormap.from_list("", [theme.surface, theme.rivals[0]]), vmin=0)
    for (row, column), count in np.ndenumerate(counts):
        wrong = row != column
        if count and wrong:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=theme.accent, linewidth=0))
        if count:
            colour = theme.surface if wrong else theme.ink
            axes.text(column, row, count, ha="center", va="center", color=colour, fontweight="bold" if wrong else None)
    axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="written")
    axes.set_xticks(np.arange(11) - 0.5, minor=True)
    axes.set_yticks(np.arange(11) - 0.5, minor=True)
    axes.grid(which="minor")
    axes.spines[:].set_visible(False)
    misread = np.flatnonzero(labels != predictions)
    axes.set_title(f"{len(labels) - len(misread)} of {len(labels)} held-out digits read correctly")

    title = f"the {len(misread)} misread" if len(misread) else "none misread"
    if len(misread) > SHOWN_ERRORS:
        title = f"{SHOWN_ERRORS} of {title}"
    right.suptitle(title, x=0.04, ha="left", fontsize=11)
    shown = misread[:SHOWN_ERRORS]
    side = max(1, math.ceil(math.sqrt(len(shown))))
    panels = right.subplots(side, side, squeeze=False)
    for axes, number in zip_longest(panels.flat, shown):
        if number is None:
            axes.set_axis_off()
            continue
        _digit(axes, images[number, 0], theme)
        axes.set_title(f"{labels[number]} read as {predictions[number]}", fontsize=9, pad=4)
    return figure


def training(theme: Theme, trainings: Sequence[Training], bar: float) -> Figure:
    """Loss and held-out accuracy of the networks by epoch."""
    figure = figure_of(4.2)
    losses, accuracies = figure.subplots(1, 2)
    styles = ((theme.accent, "-"), (theme.rivals[1], (0, (5, 2))))
    for one, (colour, style) in zip(trainings, styles, strict=True):
        epochs = np.arange(1, len(one.losses) + 1)
        line = {"color": colour, "linestyle": style, "linewidth": 2, "label": one.name}
        losses.plot(epochs, one.losses, **line)
        accuracies.plot(epochs, 100 * np.array(one.accuracies), **line)
    losses.set(title="cross-entropy of the training images", yscale="log", xlabel="epoch")
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    losses.yaxis.set_minor_formatter(NullFormatter())
    lowest = min(min(one.accuracies[len(one.accuracies) // 4 :]) for one in trainings)
    bottom = min(95, math.floor(100 * lowest))
    accuracies.set(title="held-out digits read correctly, in %", xlabel="epoch", ylim=(bottom, 100))
    accuracies.axhline(100 * bar, color=theme.muted, linewidth=1, linestyle=":")
    beside = {"transform": accuracies.get_yaxis_transform(), "va": "center", "color": theme.muted, "fontsize": 9}
    accuracies.text(1.01, 100 * bar, f"{100 * bar:g}\nasked for", **beside)
    accuracies.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (losses, accuracies):
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    losses.legend(frameon=False, loc="upper right")
    return figure


# -------------------------------------------------------------------------------------------- VGG-16


def vgg_layers(theme: Theme, run: Run) -> Figure:
    """Milliseconds of every layer in NumPy's two forms and in fastconv."""
    figure = figure_of(1.4 + 0.42 * len(run.layers))
    axes = figure.subplots()
    series = (
        ("NumPy, loops over pixels", "loops_milliseconds", theme.rivals[0]),
        ("NumPy, matrix product (BLAS)", "blas_milliseconds", theme.rivals[1]),
        (OURS, "milliseconds", theme.accent),
    )
    values = [getattr(layer, what) for layer in run.layers for _, what, _ in series]
    left = 10 ** math.floor(math.log10(min(filter(None, values)) / 1.5))
    height = 0.27
    for place, layer in enumerate(run.layers):
        present = [(name, getattr(layer, what), colour) for name, what, colour in series if getattr(layer, what)]
        for i, (name, value, colour) in enumerate(present):
            y = place + (i - (len(present) - 1) / 2) * height
            axes.barh(y, value - left, height * 0.92, left=left, color=colour, label=name)
            note, ink = times(value / layer.milliseconds), theme.muted
            if name == OURS:
                note, ink = f"{terminal.figure(value)} ms", theme.accent
            axes.text(value * 1.06, y, note, va="center", color=ink, fontsize=8)
    right = 2 * max(filter(None, values))  # leaves room for the last note
    axes.set(xscale="log", xlim=(left, right), ylim=(len(run.layers) - 0.4, -0.6), xlabel="milliseconds, log scale")
    axes.set_yticks(range(len(run.layers)), [layer.name for layer in run.layers])
    axes.tick_params(axis="y", labelsize=10, labelcolor=theme.ink)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [name for name, *_ in series if name in handles]
    figure.legend([handles[name] for name in names], names, loc="outside upper left", ncols=3, frameon=False)
    return figure


def vgg_maps(theme: Theme, run: Run) -> Figure:
    """The photographs, and four maps each of the first layer and after every pooling."""
    layers = list(next(iter(run.maps.values())))
    figure = figure_of(1.45 * len(run.photographs) + 0.55)
    grid = figure.subplots(len(run.photographs), 1 + len(layers), squeeze=False)
    first = next(iter(run.photographs))
    for row, (name, photograph) in zip(grid, run.photographs.items(), strict=True):
        row[0].imshow(photograph)
        _bare(row[0])
        row[0].set_ylabel(name)
        for axes, layer in zip(row[1:], layers, strict=True):
            chosen = _unlike(run.maps[first][layer], 4)
            _mosaic(axes, _by_largest(run.maps[name][layer][chosen]), 2, theme.paper, theme)
    channels = {layer: len(maps) for layer, maps in run.maps[first].items()}
    grid[0][0].set_title(f"photograph\n3 × {run.size} × {run.size}", fontsize=9)
    for axes, layer in zip(grid[0][1:], layers, strict=True):
        height, width = run.maps[first][layer].shape[1:]
        axes.set_title(f"{layer}\n{channels[layer]} × {height} × {width}", fontsize=9)
    return figure


def times(ratio: float) -> str:
    """A ratio of speeds: two digits below ten, whole from there on.

    >>> from fastconv.demo.plots import times
    >>> times(3.456), times(34.56)
    ('3.5×', '35×')
    """
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×"
