# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv classify``: what a network sees in images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv import _images, io, models, nn
from fastconv._names import only
from fastconv.bench import terminal
from fastconv.bench.terminal import Column, Table
from fastconv.graph import CompiledNet

__all__ = ["main"]
__dir__ = only(__all__)

NAMED = 6  # tensors that do not fit and are named, of each kind


class Guess(NamedTuple):
    """A class of an image."""

    number: int
    probability: float


def main(args: argparse.Namespace) -> int:
    """Run ``fastconv classify``.

    Images that cannot be read are told one by one on stderr; the others are classified.

    Returns
    -------
    int
        The exit status: 1 if an image could not be read.
    """
    found: list[tuple[str, list[Guess] | str]] = []
    with (
        fc.threads(fc.get_num_threads() if args.threads is None else args.threads),
        terminal.stages(lasting=False) as stage,
    ):
        tick = stage(f"{args.model} gets its weights", 1)
        model = _model(args.model, args.weights)
        classes = _classes(model)
        labels = None if args.labels is None else _labels(args.labels, classes)
        seen = model.preprocessing
        net = fc.compile(model, (1, len(seen.mean), seen.crop, seen.crop))
        tick()
        tick = stage("images", len(args.images))
        for path in args.images:
            found.append((path, _seen(path, seen, net, args.top)))
            tick()
    _tell(found, args, labels)
    failures = [error for _, error in found if isinstance(error, str)]
    for error in failures:
        print(f"fastconv: {error}", file=sys.stderr)
    return 1 if failures else 0


def _seen(path: str, seen: models.Preprocessing, net: CompiledNet, top: int) -> list[Guess] | str:
    """The likeliest classes of an image, or why it cannot be read."""
    try:
        image = _images.cut(_images.read(path, len(seen.mean)), seen)
    except (OSError, ValueError) as error:
        return str(error)
    scores = net(_images.pixels(image, seen))[0].astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"the scores of {path} are not finite; the weights may be damaged")
    probabilities = fc.softmax(scores, 0)
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Guess(int(i), float(probabilities[i])) for i in order]


# --- the network ------------------------------------------------------------------------------------------------------


def _model(name: str, path: str) -> Any:
    """The model with the weights of a file, which also say how many classes it has, and for GoogLeNet, whether it has
    the heads that only training needs."""
    if name not in models.names():
        raise ValueError(f"--model is {name!r}; it needs one of {', '.join(models.names())}")
    given = io.load(path)
    build = models.get(name)
    model = build(rng=0)
    last = next(reversed(model.state_dict()))  # the bias of what gives the scores
    options: dict[str, Any] = {}
    if last in given and given[last].ndim == 1 and len(given[last]) not in (0, _classes(model)):
        options["num_classes"] = len(given[last])
    if name == "googlenet" and not any(key.startswith("aux") for key in given):
        options["aux_logits"] = False
    if options:
        model = build(rng=0, **options)
    try:
        model.load_state_dict(given)
    except nn.StateDictError as error:
        raise ValueError(f"{path} does not fit {name}: {_misfits(error)}") from error
    except TypeError as error:
        raise ValueError(f"{path} does not fit {name}: {error}") from error
    return model.eval()


def _classes(model: Any) -> int:
    *_, last = model.state_dict().values()
    return len(last)


def _misfits(error: nn.StateDictError) -> str:
    shapes = [f"{key} ({given} given, {needed} needed)" for key, (given, needed) in error.misshapen.items()]
    kinds = {"missing": error.missing, "extra": error.unexpected, "misshapen": shapes}
    return "; ".join(f"{kind} {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _labels(path: str, classes: int) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    labels = [line.strip() for line in text.rstrip().split("\n")]
    if len(labels) != classes:
        raise ValueError(f"{path} has {len(labels)} lines; the weights are for {classes} classes, a line for each")
    return labels


# --- what it says -----------------------------------------------------------------------------------------------------


def _tell(found: list[tuple[str, list[Guess] | str]], args: argparse.Namespace, labels: list[str] | None) -> None:
    if args.json:
        images = [
            {"image": path, "error": guesses}
            if isinstance(guesses, str)
            else {"image": path, "top": [_entry(guess, labels) for guess in guesses]}
            for path, guesses in found
        ]
        print(json.dumps({"model": args.model, "weights": args.weights, "images": images}, indent=1))
        return
    rows = [
        ["" if place else path, "" if labels is None else labels[i], str(i), f"{probability:.1%}"]
        for path, guesses in found
        if not isinstance(guesses, str)
        for place, (i, probability) in enumerate(guesses)
    ]
    heads = [Column("image", left=True), Column("label", left=True), Column("class"), Column("probability")]
    if rows:
        terminal.show(Table(f"What {args.model} sees", heads, rows))


def _entry(guess: Guess, labels: list[str] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"class": guess.number, "probability": guess.probability}
    return entry if labels is None else {**entry, "label": labels[guess.number]}
