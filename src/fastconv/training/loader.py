# SPDX-License-Identifier: BSD-3-Clause
"""Batches, made ahead by threads: each of them from its own random numbers, so that it is the same whoever makes it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from fastconv import _args
from fastconv._names import only
from fastconv.models import Preprocessing
from fastconv.training.augment import Augmentation
from fastconv.training.sources import Source

__all__ = ["Batch", "Loader"]
__dir__ = only(__all__)


class Batch(NamedTuple):
    """What a network takes at a time.

    Attributes
    ----------
    images : numpy.ndarray (N, C, H, W) of float32
        Normalised.
    targets : numpy.ndarray
        The labels (N,), or, where images were mixed, the probabilities (N, classes) of float32.
    labels : numpy.ndarray (N,) of int64
        Of a mixed image that of the larger share.
    numbers : numpy.ndarray (N,)
        Of the images in their source.
    """

    images: np.ndarray
    targets: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class Loader:
    """The images of a source in batches.

    An epoch is cut into ``ceil(N / batch)`` batches whose sizes differ by one at most, so that none is as small as to
    have no statistics. What is drawn at random for a batch depends on the seed, the epoch and the batch's number, and
    on nothing else.

    Parameters
    ----------
    source : Source
    preprocessing : Preprocessing
    batch : int
        The most images at a time.
    augmentation : Augmentation, optional
        Without one images come as they are, in their order.
    seed : int
    workers : int
        Threads that read, decode and change images ahead of the caller; 0 leaves that to the caller.
    skipped : callable, optional
        Takes what to say of an image that cannot be read, which is then left out; without it that is an error.

    Attributes
    ----------
    waited : float
        Seconds that the caller has waited for batches.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models, training
    >>> source = training.Arrays(np.zeros((10, 32, 32), np.uint8), np.arange(10))
    >>> loader = training.Loader(source, models.LeNet5.preprocessing, 4)
    >>> [batch.images.shape for batch in loader.epoch(0)]
    [(4, 1, 32, 32), (3, 1, 32, 32), (3, 1, 32, 32)]
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        batch: int,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int = 1,
        skipped: Callable[[str], object] | None = None,
    ) -> None:
        self.source, self.preprocessing = source, preprocessing
        self.augmentation, self.seed = augmentation, _args.integer(seed, "seed", 0)
        self.batches = -(-len(source) // _args.integer(batch, "batch", 1))
        self.workers = _args.integer(workers, "workers", 0)
        self.waited = 0.0
        self._skipped, self._told = skipped, set[int]()
        self._mean, self._std = (
            np.asarray(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
        )

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the one numbered `start` on."""
        order = np.arange(len(self.source))
        if self.augmentation is not None:
            order = np.random.default_rng([self.seed, number, 0]).permutation(order)
        parts = np.array_split(order, self.batches)
        jobs = iter([partial(self._made, number, i, parts[i]) for i in range(start, self.batches)])
        if not self.workers:
            for job in jobs:
                yield self._timed(job)
            return
        pool = ThreadPoolExecutor(self.workers, "fastconv-loader")
        ahead: deque[Future[Batch]] = deque()
        try:
            for job in jobs:
                ahead.append(pool.submit(job))
                if len(ahead) > self.workers + 1:
                    yield self._timed(ahead.popleft().result)
            while ahead:
                yield self._timed(ahead.popleft().result)
        finally:
            pool.shutdown(cancel_futures=True)

    def _timed(self, get: Callable[[], Batch]) -> Batch:
        start = time.perf_counter()
        try:
            return get()
        finally:
            self.waited += time.perf_counter() - start

    def _made(self, epoch: int, number: int, chosen: np.ndarray) -> Batch:
        rng = np.random.default_rng([self.seed, epoch, 1 + number])
        change, seen = self.augmentation, self.preprocessing
        crops = None if change is None else change.crops(len(chosen), rng)
        images, kept = [], []
        for i, index in enumerate(chosen.tolist()):
            box = None if crops is None or change is None else partial(change.box, crops[i])
            try:
                images.append(self.source.pixels(index, seen.crop, seen.resize, box))
                kept.append(i)
            except (OSError, ValueError) as error:
                if self._skipped is None:
                    raise
                if index not in self._told:
                    self._told.add(index)
                    self._skipped(str(error))
        labels, numbers = self.source.labels[chosen[kept]], chosen[kept]
        if not images:
            empty = np.zeros((0, self.source.channels, seen.crop, seen.crop), np.float32)
            return Batch(empty, labels, labels, numbers)
        x = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), np.float32)
        if images[0].dtype == np.uint8:
            x /= 255
        if change is not None:
            x = change.changed(x, rng)
        x = x - self._mean
        x /= self._std
        mixed = None if change is None else change.shares(len(x), rng)
        if mixed is None:
            return Batch(x, labels, labels, numbers)
        share, other = mixed
        x = x * share[:, None, None, None] + x[other] * (1 - share)[:, None, None, None]
        classes = np.eye(len(self.source.classes), dtype=np.float32)
        targets = classes[labels] * share[:, None] + classes[labels[other]] * (1 - share)[:, None]
        return Batch(x, targets, labels, numbers)
