# SPDX-License-Identifier: BSD-3-Clause
"""Who watches a training: the terminal, and TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from fastconv._names import only
from fastconv.training.loop import Epoch, Trainer, Watch

__all__ = ["TensorBoard", "Terminal", "Watches"]
__dir__ = only(__all__)


class Watches(Watch):
    """Several of them."""

    def __init__(self, *watches: Watch) -> None:
        self.watches: Sequence[Watch] = watches

    def began(self, trainer: Trainer) -> None:
        for one in self.watches:
            one.began(trainer)

    def stepped(self, trainer: Trainer, loss: float, accuracy: float) -> None:
        for one in self.watches:
            one.stepped(trainer, loss, accuracy)

    def ended(self, epoch: Epoch) -> None:
        for one in self.watches:
            one.ended(epoch)

    def said(self, text: str) -> None:
        for one in self.watches:
            one.said(text)


class Terminal(Watch):
    """Progress on stderr, for a ``with`` statement.

    On a terminal it is a bar where rich is installed and a line written over and over where it is not; elsewhere a line
    for each epoch.
    """

    def __init__(self) -> None:
        self._epochs = 0
        self._start, self._done = time.monotonic(), 0
        self._bar: Any = None
        self._shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._clear()

    def began(self, trainer: Trainer) -> None:
        self._epochs = trainer.settings.epochs
        self._start, self._done = time.monotonic(), _place(trainer)
        if sys.stderr.isatty() and find_spec("rich"):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=self._epochs * trainer.loader.batches)
            self._bar.start()

    def stepped(self, trainer: Trainer, loss: float, accuracy: float) -> None:
        if not sys.stderr.isatty():
            return
        place, total = _place(trainer), self._epochs * trainer.loader.batches
        spent = time.monotonic() - self._start
        left = spent / max(1, place - self._done) * (total - place)
        sums = trainer._sums
        rate = sums.seen / sums.seconds if sums.seconds else 0.0
        text = (
            f"epoch {trainer.epoch + 1}/{self._epochs}  loss {loss:.4f}  accuracy {accuracy:.1%}  "
            f"{rate:,.0f} images/s  {_clock(left)} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=place, description=text)
        else:
            print("\r" + text.ljust(len(self._shown)), end="", file=sys.stderr, flush=True)
            self._shown = text

    def ended(self, epoch: Epoch) -> None:
        self.said(
            f"epoch {epoch.number}/{self._epochs}: loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.1%}; "
            f"held out: loss {epoch.held_out_loss:.4f}, accuracy {epoch.held_out_accuracy:.1%}; "
            f"{epoch.images_per_second:,.0f} images/s, {epoch.waiting:.0%} of the time waiting for images"
        )

    def said(self, text: str) -> None:
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text(text))
            return
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._shown:
            print("\r" + " " * len(self._shown) + "\r", end="", file=sys.stderr, flush=True)
        self._shown = ""


class TensorBoard(Watch):
    """Losses, accuracies, learning rate and speed of every epoch, as events by tensorboard's own writer."""

    def __init__(self, folder: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(folder)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *failure: object) -> None:
        self._writer.close()

    def ended(self, epoch: Epoch) -> None:
        scalars = {
            "loss/training": epoch.loss,
            "loss/held out": epoch.held_out_loss,
            "accuracy/training": epoch.accuracy,
            "accuracy/held out": epoch.held_out_accuracy,
            "learning rate": epoch.lr,
            "images per second": epoch.images_per_second,
            "waiting for images": epoch.waiting,
        }
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = self._event(wall_time=time.time(), step=epoch.number, summary=self._summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()


def _place(trainer: Trainer) -> int:
    """Batches since the very beginning."""
    return trainer.epoch * trainer.loader.batches + trainer.batch


def _clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are some.

    >>> from fastconv.training.progress import _clock
    >>> _clock(75), _clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
