# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv demo``: two networks learn to read real handwriting, and VGG-16 runs on real photographs.

:mod:`~fastconv.demo.digits` trains, :mod:`~fastconv.demo.vgg` measures layers and :mod:`~fastconv.demo.compiled` the
whole network, :mod:`~fastconv.demo.results` judges and tabulates, :mod:`~fastconv.demo.plots` draws and
:mod:`~fastconv.demo.page` writes the page.
"""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from fastconv import _args, models, nn
from fastconv._names import only
from fastconv.bench import terminal
from fastconv.bench.report import machine
from fastconv.bench.timing import Effort
from fastconv.demo import compiled, digits, page, plots, vgg
from fastconv.demo.results import BAR, Results

__all__ = ["Settings", "main"]
__dir__ = only(__all__)


@dataclass(frozen=True)
class Settings:
    """What a test may make smaller.

    Attributes
    ----------
    epochs : int
        Times that the networks see each digit.
    network : callable
        Makes the network for photographs; takes ``rng``.
    name : str
        That network's name.
    size : int
        Height and width of the photographs.
    effort : Effort
        How long each layer is measured.
    """

    epochs: int = 60
    network: Callable[..., nn.Module] = models.vgg16
    name: str = "VGG-16"
    size: int = 224
    effort: Effort = field(default_factory=lambda: Effort(rounds=3, slice_time=0.03))


def main(
    output: str | Path = "fastconv-demo", seed: int = 0, json: bool = False, settings: Settings | None = None
) -> int:
    """Run the demo.

    Parameters
    ----------
    output : str or Path
        Folder for ``index.html``, its pictures and ``results.json``; made if there is none.
    seed : int
        Of initial weights, of the order of the training images and of the weights of VGG-16. Which digits are held
        out does not depend on it.
    json : bool
        Print the figures as JSON, and nothing else.
    settings : Settings, optional

    Returns
    -------
    int
        0, or 1 if a promise was not kept; which one is said on stderr.

    Raises
    ------
    OSError
        If the folder cannot be written.
    TypeError, ValueError
        If the seed is not an integer of at least 0.
    """
    seed = _args.integer(seed, "seed", 0)
    settings, output = settings or Settings(), Path(output)
    output.mkdir(parents=True, exist_ok=True)  # complains before the time is spent
    start = time.perf_counter()
    with terminal.stages() as stage:
        data = digits.load()
        convnet, dense = digits.convnet(seed), digits.dense_net(seed)
        before = digits.first_filters(convnet)
        ours, other = (
            digits.train(name, net, data, settings.epochs, seed, stage(f"{name} network learns", settings.epochs))
            for name, net in (("convolutional", convnet), ("fully connected", dense))
        )
        tick = stage(f"{settings.name} gets its weights", 1)
        network = settings.network(rng=seed)
        tick()
        photographs = {name: vgg.photograph(name, settings.size) for name in vgg.PHOTOGRAPHS}
        layers = sum(bool(step.name) for step in vgg.steps(network))
        tick = stage(f"{settings.name} runs, in NumPy and in fastconv", layers)
        run = vgg.run(network, photographs, network=settings.name, effort=settings.effort, after_layer=tick)
        tick = stage(f"{settings.name} as one program", 3)
        whole = compiled.run(network, photographs, network=settings.name, effort=settings.effort, after_part=tick)
        del network
        date = datetime.now(UTC).isoformat(timespec="seconds")
        results = Results(seed, date, machine(), ours, other, len(data.held_out_labels), run, whole)
        results.seconds = time.perf_counter() - start
        _write(results, settings, output, data, before, convnet, stage)
    _tell(results, output, json)
    return 0 if results.passed else 1


def _write(
    results: Results,
    settings: Settings,
    output: Path,
    data: digits.Digits,
    before: np.ndarray,
    convnet: nn.Sequential,
    stage: Callable[[str, int], terminal.Tick],
) -> None:
    ours = results.convnet
    example = int(np.flatnonzero(data.held_out_labels == ours.predictions)[0])
    label = int(data.held_out_labels[example])
    after, maps = digits.first_filters(convnet), digits.stages(convnet, data.held_out_images[example])
    pictures = {
        "filters": partial(plots.filters, before=before, after=after),
        "feature_maps": partial(plots.feature_maps, stages=maps, label=label),
        "confusion": partial(
            plots.confusion, images=data.held_out_images, labels=data.held_out_labels, predictions=ours.predictions
        ),
        "training": partial(plots.training, trainings=(ours, results.dense), bar=BAR),
        "vgg_layers": partial(plots.vgg_layers, run=results.vgg),
        "vgg_maps": partial(plots.vgg_maps, run=results.vgg),
    }
    plots.write(pictures, output, stage("pictures", 2 * len(pictures)))
    (output / page.GRAPH).write_text(results.compiled.profile.to_svg(), encoding="utf-8")
    text = page.html(results, settings.epochs, len(data.images))
    (output / "index.html").write_text(text, encoding="utf-8")
    (output / "results.json").write_text(_json(results), encoding="utf-8")


def _json(results: Results) -> str:
    return json_format.dumps(results.record(), indent=1) + "\n"


def _tell(results: Results, output: Path, json: bool) -> None:
    if json:
        sys.stdout.write(_json(results))
    else:
        terminal.show(results.digits_table(), results.vgg_table(), results.compiled_table())
        print()
        for check in results.checks:
            print(f"{'kept' if check.kept else 'BROKEN'}: {check.promise}; {check.finding}")
        print(f"\nwrote {output / 'index.html'}, to be opened in a browser")
    for check in results.checks:
        if not check.kept:
            print(f"fastconv: the demo failed: {check.promise}; {check.finding}", file=sys.stderr)
