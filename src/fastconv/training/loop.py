# SPDX-License-Identifier: BSD-3-Clause
"""The loop: batches forward and back, updates, a look at what is held out, checkpoints."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import _args, nn, optim
from fastconv._names import only
from fastconv.models import Preprocessing
from fastconv.training.checkpoint import load_checkpoint, save_checkpoint, sweep
from fastconv.training.loader import Batch, Loader
from fastconv.training.settings import Settings
from fastconv.training.sources import Data

__all__ = ["Epoch", "Settings", "Trainer", "Watch", "preprocessing_for"]
__dir__ = only(__all__)

CHECKPOINT = "checkpoint.npz"
HEADS = 0.3  # weight of the loss of a network's auxiliary heads beside that of its scores, as in GoogLeNet's paper
NAMED = 3  # images of a batch that an error names
MOST_SKIPPED = 10  # batches in a row that may have no finite loss


@dataclass
class Epoch:
    """What came of seeing every image once.

    Attributes
    ----------
    number : int
        From 1.
    loss, accuracy : float
        Of the training images, as they were when they were seen: mean cross-entropy with their labels, and the share
        whose label had the highest score.
    held_out_loss, held_out_accuracy : float
        Of the images held out, after the epoch.
    lr : float
        Learning rate of the last update.
    seconds : float
        Of training; looking at what is held out does not count.
    images_per_second : float
    waiting : float
        Share of that time in which the loader's next batch was not ready.
    skipped : int
        Images that could not be read, or whose loss was not finite.
    """

    number: int
    loss: float = 0.0
    accuracy: float = 0.0
    held_out_loss: float = 0.0
    held_out_accuracy: float = 0.0
    lr: float = 0.0
    seconds: float = 0.0
    images_per_second: float = 0.0
    waiting: float = 0.0
    skipped: int = 0

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Watch:
    """Is told of what happens; for subclasses, which do something with it."""

    def began(self, trainer: Trainer) -> None:
        """Training begins, or goes on."""

    def stepped(self, trainer: Trainer, loss: float, accuracy: float) -> None:
        """Some more images have been learnt from; the figures are those of the epoch so far."""

    def ended(self, epoch: Epoch) -> None:
        """An epoch is over."""

    def said(self, text: str) -> None:
        """Something that went wrong, and was passed over."""


@dataclass
class _Sums:
    """Of an epoch that is not over."""

    loss: float = 0.0
    right: int = 0
    seen: int = 0
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0


class Trainer:
    """Trains a network.

    Parameters
    ----------
    model : Module
        From images to scores, one for each class; or to a named tuple of these and of auxiliary heads' scores, as
        GoogLeNet.
    data : Data
    settings : Settings
    preprocessing : Preprocessing, optional
        How the network is to see images; `preprocessing_for` the model and the data by default.
    folder : path, optional
        Where checkpoints go, made if there is none; without it there are none.
    title : str
        Whose checkpoints are taken to be one's own: name and form of the network.
    workers : int
        Threads that prepare images.
    skip : bool
        Pass over images that cannot be read, and batches whose loss is not finite; they are errors otherwise.
    save_seconds : float
        Between checkpoints, at least.
    watch : Watch

    Attributes
    ----------
    history : list of Epoch
    predictions : numpy.ndarray
        Of the images held out, after the last epoch; -1 for those that could not be read.
    finished : bool
        Whether all epochs are over.

    Raises
    ------
    ValueError
        The model's scores are not one for each class, which the first step shows.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, training
    >>> data = training.split(training.Arrays(np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2), 0.25)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, rng=0))
    >>> trainer = training.Trainer(net, data, training.Settings(epochs=2, batch=4))
    >>> [epoch.number for epoch in trainer.run()]
    [1, 2]
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        settings: Settings | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        folder: str | Path | None = None,
        title: str | None = None,
        workers: int = 1,
        skip: bool = False,
        save_seconds: float = 60.0,
        watch: Watch | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is {_args.said(model)}; it needs to be a Module")
        self.model, self.data, self.settings = model, data, settings or Settings()
        self.watch = watch or Watch()
        self.title = type(model).__name__ if title is None else title
        self.checkpoint = None if folder is None else Path(folder) / CHECKPOINT
        self.save_seconds = save_seconds
        self.skip = skip
        preprocessing = preprocessing or preprocessing_for(model, data)
        self.preprocessing = preprocessing
        seed, batch = self.settings.seed, self.settings.batch
        passed_over = self._passed_over if skip else None
        self.loader = Loader(
            data.learn,
            preprocessing,
            batch,
            augmentation=self.settings.augmentation,
            seed=seed,
            workers=workers,
            skipped=passed_over,
        )
        self.judge = Loader(data.held_out, preprocessing, batch, workers=workers, skipped=passed_over)
        self.updates = -(-self.loader.batches // self.settings.accumulate)  # of an epoch
        self.optimizer = self.settings.make_optimizer(model)
        self.schedule = self.settings.make_schedule(self.optimizer, self.updates)
        self.ema = optim.EMA(model, self.settings.ema, warm_up=True) if self.settings.ema else None
        self.history: list[Epoch] = []
        self.predictions = np.empty(0, np.int64)
        self.epoch = self.batch = 0  # where training is: the batch is the next one of its epoch
        self._sums = _Sums()
        self._losses: list[nn.CrossEntropyLoss] = []
        self._stop = False
        self._in_vain = 0  # batches in a row
        self._saved_at, self._saving = time.monotonic(), 0.0
        self._weights = _class_weights(data) if self.settings.balance else None

    @property
    def finished(self) -> bool:
        return self.epoch >= self.settings.epochs

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> list[Epoch]:
        """Train to the end of the last epoch, or until Ctrl-C: a checkpoint is written then, and `finished` is False.

        Returns
        -------
        list of Epoch

        Raises
        ------
        ValueError, OSError
            An image cannot be read, or a loss is not finite, and `skip` is False; the images are named.
        """
        if self.checkpoint is not None:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.checkpoint)
        self.model.needs_input_grad = False
        self.watch.began(self)
        with self._interruptible():
            while not (self.finished or self._stop):
                self._one_epoch()
        if not self._stop and not len(self.predictions):  # a checkpoint of the end was all that was left to do
            self._look()
        if self.checkpoint is not None:
            self.save()
        self.model.eval()
        return self.history

    def _one_epoch(self) -> None:
        self.model.train()
        batches = self.loader.epoch(self.epoch, self.batch)
        start, self.loader.waited = time.perf_counter(), 0.0
        before = self._sums.seconds, self._sums.waited
        try:
            while self.batch < self.loader.batches:
                group = list(islice(batches, self.settings.accumulate))
                self._update(group)
                self.batch += len(group)
                self._sums.seconds = before[0] + time.perf_counter() - start
                self._sums.waited = before[1] + self.loader.waited
                seen = max(1, self._sums.seen)
                self.watch.stepped(self, self._sums.loss / seen, self._sums.right / seen)
                if self._stop or self._due():
                    if self.batch < self.loader.batches:
                        self._save_if_there_is_a_place()
                    if self._stop:
                        break
        finally:
            batches.close()  # type: ignore[attr-defined]
        if self.batch < self.loader.batches:
            return
        epoch = self._summary()
        self.epoch, self.batch, self._sums = self.epoch + 1, 0, _Sums()
        epoch.held_out_loss, epoch.held_out_accuracy = self._look()
        self.history.append(epoch)
        self.watch.ended(epoch)
        if self._due():
            self._save_if_there_is_a_place()

    def _summary(self) -> Epoch:
        sums, seen = self._sums, max(1, self._sums.seen)
        return Epoch(
            self.epoch + 1,
            loss=sums.loss / seen if sums.seen else math.nan,
            accuracy=sums.right / seen,
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=sums.seconds,
            images_per_second=sums.seen / sums.seconds if sums.seconds else 0.0,
            waiting=sums.waited / sums.seconds if sums.seconds else 0.0,
            skipped=sums.skipped,
        )

    # --- a step -------------------------------------------------------------------------------------------------------

    def _update(self, group: Sequence[Batch]) -> None:
        """One step of the optimiser, from the mean gradient of all images of these batches."""
        total = sum(map(len, group))
        self._sums.skipped += self._expected(len(group)) - total
        if total:
            before = [buffer.data.copy() for buffer in self.model.buffers()] if self.skip else []
            self.model.zero_grad()
            done = [self._learn(batch, len(batch) / total) for batch in group if len(batch)]
            if all(done):
                self._in_vain = 0
                self._move()
            else:
                self._abandon(group, before)
        self.schedule.step()

    def _expected(self, batches: int) -> int:
        """Images that so many batches from here on have, if all can be read."""
        short, longer = divmod(len(self.data.learn), self.loader.batches)
        return sum(short + (i < longer) for i in range(self.batch, self.batch + batches))

    def _learn(self, batch: Batch, share: float) -> bool:
        """Forward and back; the gradients, times a share, add up in the parameters. False if the loss is not finite."""
        outputs: Any = self.model(batch.images)
        heads = outputs if isinstance(outputs, tuple) else (outputs,)
        while len(self._losses) < len(heads):
            self._losses.append(nn.CrossEntropyLoss(self._weights, label_smoothing=self.settings.smoothing))
        shares = [1.0] + [HEADS] * (len(heads) - 1)
        losses = [float(loss(y, batch.targets)) for loss, y in zip(self._losses, heads, strict=False)]
        each = np.asarray(fc.cross_entropy(heads[0], batch.labels, reduction="none"))
        if not (np.isfinite(losses).all() and np.isfinite(each).all()):
            self._not_finite(batch, each)
            return False
        gradients = [loss.backward(share * part) for loss, part in zip(self._losses, shares, strict=False)]
        self.model.backward(gradients[0] if heads is not outputs else type(outputs)(*gradients))
        self._sums.loss += float(each.sum(dtype=np.float64))
        self._sums.right += int(np.sum(heads[0].argmax(axis=1) == batch.labels))
        self._sums.seen += len(batch)
        return True

    def _move(self) -> None:
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()

    def _abandon(self, group: Sequence[Batch], before: list[np.ndarray]) -> None:
        """Take back what batches without a finite loss have done."""
        self.model.zero_grad()
        for buffer, values in zip(self.model.buffers(), before, strict=True):
            buffer.data[...] = values
        self._in_vain += 1
        if self._in_vain >= MOST_SKIPPED:
            raise ValueError(
                f"{self._in_vain} batches in a row had no finite loss; the learning rate "
                f"({self.settings.lr:g} at most) may be too high"
            )

    def _not_finite(self, batch: Batch, each: np.ndarray) -> None:
        """Name the images of a loss that is not finite: an error, or what is said and passed over."""
        wrong = np.flatnonzero(~np.isfinite(each))
        wrong = wrong if wrong.size else np.arange(len(batch))
        names = [self.data.learn.name(int(batch.numbers[i])) for i in wrong[:NAMED]]
        more = f" and {wrong.size - NAMED} more" if wrong.size > NAMED else ""
        where = f"epoch {self.epoch + 1}, batch {self.batch + 1} of {self.loader.batches}"
        text = f"the loss is {each[wrong[0]]} for {', '.join(names)}{more} ({where})"
        if not self.skip:
            hint = f"; the learning rate ({self.settings.lr:g} at most) may be too high" if wrong.size > 1 else ""
            raise ValueError(text + hint)
        self._sums.skipped += len(batch)
        self.watch.said(text)

    def _passed_over(self, text: str) -> None:
        self.watch.said(text)

    # --- what is held out ---------------------------------------------------------------------------------------------

    def _look(self) -> tuple[float, float]:
        """Loss and accuracy of the images held out, and the predictions."""
        self.predictions = np.full(len(self.data.held_out), -1, np.int64)
        total, right, seen = 0.0, 0, 0
        with self.ema.applied() if self.ema is not None else nullcontext():
            self.model.eval()
            for batch in self.judge.epoch(0):
                if not len(batch):
                    continue
                scores = self.model(batch.images)
                if scores.ndim != 2 or scores.shape[1] != len(self.data.learn.classes):
                    raise ValueError(
                        f"the model's scores have shape {scores.shape}; {len(batch)} images of "
                        f"{len(self.data.learn.classes)} classes need ({len(batch)}, {len(self.data.learn.classes)})"
                    )
                found = scores.argmax(axis=1)
                self.predictions[batch.numbers] = found
                total += float(np.sum(fc.cross_entropy(scores, batch.labels, reduction="sum")))
                right += int(np.sum(found == batch.labels))
                seen += len(batch)
        return (total / seen, right / seen) if seen else (math.nan, math.nan)

    def best_state(self) -> dict[str, np.ndarray]:
        """The weights that were judged: the averaged ones if there are such. Copies."""
        source = self.model.state_dict() if self.ema is None else self.ema.average
        return {key: np.array(value) for key, value in source.items()}

    # --- going on -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that training depends on from here on."""
        return {
            "title": self.title,
            "images": len(self.data.learn),
            "settings": self.settings.record(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "generators": [generator.bit_generator.state for generator in _generators(self.model)],
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": asdict(self._sums),
            "history": [epoch.record() for epoch in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another trainer of the same network, data and settings was.

        Raises
        ------
        ValueError
            If it is of others, which are named; nothing has changed then.
        """
        self._check(state)
        before = copy.deepcopy(self.state_dict())
        try:
            self._take(state)
        except Exception:
            self._take(before)
            raise

    def _check(self, state: dict[str, Any]) -> None:
        if state.get("title") != self.title:
            raise ValueError(f"the checkpoint is of {state.get('title')!r}; this is {self.title!r}")
        own, given = self.settings.record(), state["settings"]
        # As text has them, where a tuple is a list.
        same = Settings.from_record(given).record() if own.keys() == given.keys() else given
        different = [name for name in own if own[name] != same.get(name)]
        if different:
            name = different[0]
            raise ValueError(
                f"the checkpoint was made with {name} {same.get(name)!r}; here it is {own[name]!r}"
                + (f" (and {', '.join(different[1:])} differ)" if len(different) > 1 else "")
            )
        if state["images"] != len(self.data.learn):
            raise ValueError(f"the checkpoint is of {state['images']} images; here are {len(self.data.learn)}")

    def _take(self, state: dict[str, Any]) -> None:
        generators = _generators(self.model)
        if len(state["generators"]) != len(generators):
            raise ValueError(
                f"the checkpoint has {len(state['generators'])} random generators; the model has {len(generators)}"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        for generator, given in zip(generators, state["generators"], strict=True):
            generator.bit_generator.state = given
        self.epoch, self.batch, self._sums = state["epoch"], state["batch"], _Sums(**state["sums"])
        self.history = [Epoch(**record) for record in state["history"]]

    def resume(self) -> bool:
        """Go on from the checkpoint in the folder; False if there is none.

        Raises
        ------
        ValueError, OSError
            If it cannot be read, or does not fit, with its path; nothing has changed then.
        """
        if self.checkpoint is None or not self.checkpoint.exists():
            return False
        state = load_checkpoint(self.checkpoint)
        try:
            self.load_state_dict(state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.checkpoint}: {error}") from error
        return True

    def save(self) -> None:
        """Write a checkpoint."""
        if self.checkpoint is None:
            raise ValueError("folder is None; a checkpoint needs one")
        start = time.monotonic()
        save_checkpoint(self.checkpoint, self.state_dict())
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - start

    def _save_if_there_is_a_place(self) -> None:
        if self.checkpoint is not None:
            self.save()

    def _due(self) -> bool:
        """Whether a checkpoint is due: not so often that it takes more than a twentieth of the time."""
        pause = max(self.save_seconds, 20 * self._saving) if self.save_seconds else 0.0
        return time.monotonic() - self._saved_at >= pause

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C, or request to end, lets the step be finished and saved; the second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: Any) -> None:
            self._stop = True
            signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)


def preprocessing_for(model: nn.Module, data: Data, size: int | None = None) -> Preprocessing:
    """How a network is to see images: as its class says, but of this size, or of that which the images have themselves.

    Images of one size are seen whole; of others the square in the middle is seen.
    """
    own = data.learn.size()
    seen = getattr(model, "preprocessing", None) or Preprocessing(own or 0, own or 0, (0.0,), (1.0,))
    crop = size or own or seen.crop
    if not crop:
        raise ValueError("the images have no common size and the model has none; say the size")
    resize = crop if own else max(crop, crop * seen.resize // seen.crop)
    channels = data.learn.channels
    mean, std = (_for_channels(values, channels) for values in (seen.mean, seen.std))
    return Preprocessing(resize, crop, mean, std)


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _generators(model: nn.Module) -> list[np.random.Generator]:
    """The random generators of a network's layers, such as those of dropout, each once."""
    found: dict[int, np.random.Generator] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, np.random.Generator):
                found.setdefault(id(value), value)
    return list(found.values())


def _class_weights(data: Data) -> np.ndarray:
    """Of mean 1 over the images."""
    counts = np.bincount(data.learn.labels, minlength=len(data.learn.classes))
    present = int(np.count_nonzero(counts))
    return (len(data.learn) / (np.maximum(counts, 1) * max(1, present))).astype(np.float32)
