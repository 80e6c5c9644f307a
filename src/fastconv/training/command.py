# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv train``."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from contextlib import ExitStack
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastconv as fc
from fastconv import models
from fastconv._names import only
from fastconv.bench import terminal
from fastconv.bench.terminal import Column, Table
from fastconv.models import Preprocessing
from fastconv.training.augment import Augmentation
from fastconv.training.formats import open_data
from fastconv.training.loop import Trainer, preprocessing_for
from fastconv.training.progress import TensorBoard, Terminal, Watches
from fastconv.training.settings import Settings
from fastconv.training.sources import Data, Drawings
from fastconv.training.trained import Trained, write_trained

__all__ = ["main"]
__dir__ = only(__all__)

INTERRUPTED = 130  # the exit status of programs that Ctrl-C has ended


def main(args: argparse.Namespace) -> int:
    """Run ``fastconv train``.

    Returns
    -------
    int
        The exit status: 130 if it was interrupted, with a checkpoint to go on from.
    """
    settings = _settings(args)
    folder = Path(args.output)
    data = open_data(
        args.data,
        share=args.held_out,
        channels=1 if args.drawings and args.channels is None else args.channels,
        skipped=_complain if args.on_bad == "skip" else None,
        seed=settings.seed,
    )
    trained, data = _begin(args, data, settings)
    with ExitStack() as stack:
        stack.enter_context(fc.threads(fc.get_num_threads() if args.threads is None else args.threads))
        folder.mkdir(parents=True, exist_ok=True)  # complains before the time is spent
        watches: list[Any] = [] if args.json and not sys.stderr.isatty() else [stack.enter_context(Terminal())]
        if args.log_dir is not None:
            watches.append(stack.enter_context(TensorBoard(args.log_dir)))
        trainer = Trainer(
            trained.model,
            data,
            settings,
            preprocessing=trained.preprocessing,
            folder=folder,
            title=f"{trained.name}({', '.join(f'{k}={v}' for k, v in trained.arguments.items())})",
            workers=args.workers,
            skip=args.on_bad == "skip",
            save_seconds=args.save_seconds,
            watch=Watches(*watches),
        )
        if args.resume and trainer.resume():
            trainer.watch.said(f"going on with epoch {trainer.epoch + 1}, batch {trainer.batch + 1}")
        elif trainer.checkpoint is not None and trainer.checkpoint.exists() and not args.resume:
            raise ValueError(
                f"{trainer.checkpoint} is there already: --resume goes on from it, --output names another folder"
            )
        trainer.run()
    if not trainer.finished:
        where = f"epoch {trainer.epoch + 1}, before batch {trainer.batch + 1} of {trainer.loader.batches}"
        print(f"fastconv: stopped in {where}; the same command with --resume goes on", file=sys.stderr)
        return INTERRUPTED
    written = _write(folder, trainer, trained)
    _tell(args, trainer, trained, written)
    return 0


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _settings(args: argparse.Namespace) -> Settings:
    given = vars(args)
    change = Augmentation(**{f.name: given[f.name] for f in fields(Augmentation) if f.name in given})
    named = {f.name: given[f.name] for f in fields(Settings) if f.name in given}
    if "milestones" in named:
        named["milestones"] = tuple(named["milestones"])
    return Settings(**named, augmentation=change)


def _begin(args: argparse.Namespace, data: Data, settings: Settings) -> tuple[Trained, Data]:
    """A new network for these data, and the data as it is to see them."""
    if args.model not in models.names():
        raise ValueError(f"--model is {args.model!r}; it needs one of {', '.join(models.names())}")
    build = models.get(args.model)
    classes = data.learn.classes
    if len(classes) < 2:
        raise ValueError(f"{args.data} has the class {classes[0]!r} alone; it needs two or more")
    channels = 1 if args.drawings else data.learn.channels
    arguments: dict[str, Any] = {"num_classes": len(classes), "in_channels": channels}
    makes_to_measure = "image_size" in inspect.signature(build).parameters
    size = args.size
    if args.drawings:
        size = size or build(rng=0).preprocessing.crop
        data = Data(*(Drawings(source, size) for source in data))
    if makes_to_measure:
        size = size or data.learn.size() or inspect.signature(build).parameters["image_size"].default
        arguments["image_size"] = size
    model = build(**arguments, rng=settings.seed)
    preprocessing: Preprocessing = preprocessing_for(model, data, size)
    return Trained(model, args.model, arguments, classes, preprocessing, args.drawings), data


def _write(folder: Path, trainer: Trainer, trained: Trained) -> list[Path]:
    """All that came of it."""
    written = [write_trained(folder, trained, trainer.best_state())]
    record = {
        "settings": trainer.settings.record(),
        "history": [epoch.record() for epoch in trainer.history],
        "predictions": trainer.predictions.tolist(),
    }
    (folder / "history.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    written.append(folder / "history.json")
    if find_spec("matplotlib"):
        from fastconv.training import pictures

        labels = trainer.data.held_out.labels
        written += pictures.write(folder, trainer.history, labels, trainer.predictions, trained.classes)
    return written


def _tell(args: argparse.Namespace, trainer: Trainer, trained: Trained, written: list[Path]) -> None:
    last = trainer.history[-1]
    if args.json:
        report = {
            "model": trained.name,
            "arguments": trained.arguments,
            "classes": trained.classes,
            "images": len(trainer.data.learn),
            "held_out": len(trainer.data.held_out),
            "settings": trainer.settings.record(),
            "history": [epoch.record() for epoch in trainer.history],
            "files": [str(path) for path in written],
        }
        print(json.dumps(report, indent=1))
        return
    seconds = sum(epoch.seconds for epoch in trainer.history)
    images = sum(epoch.images_per_second * epoch.seconds for epoch in trainer.history)
    waiting = sum(epoch.waiting * epoch.seconds for epoch in trainer.history) / max(seconds, 1e-9)
    columns = [
        Column("", left=True),
        Column("images"),
        Column("cross-\nentropy"),
        Column("accuracy"),
        Column("images/s"),
        Column("waiting\nfor images"),
    ]
    rows = [
        [
            "training",
            f"{len(trainer.data.learn):,}",
            f"{last.loss:.4f}",
            f"{last.accuracy:.2%}",
            f"{images / max(seconds, 1e-9):,.0f}",
            f"{waiting:.0%}",
        ],
        [
            "held out",
            f"{len(trainer.data.held_out):,}",
            f"{last.held_out_loss:.4f}",
            f"{last.held_out_accuracy:.2%}",
            "",
            "",
        ],
    ]
    parameters = sum(p.size for p in trained.model.parameters())
    notes = [
        f"{parameters:,} parameters, {len(trained.classes)} classes, {last.number} epochs in {seconds:.1f} seconds.",
        *(str(path) for path in written),
    ]
    terminal.show(Table(f"What {trained.name} has learnt", columns, rows, notes=notes))
    terminal.say(f"\nfastconv classify IMAGE --model {args.output}")
