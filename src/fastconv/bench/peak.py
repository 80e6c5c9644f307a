# SPDX-License-Identifier: BSD-3-Clause
"""What the machine can do at most, measured in the same run as what is compared with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import _core
from fastconv._names import only
from fastconv.bench.quiet import QUIET, Range

__all__ = ["Ceilings", "Memory", "Patient", "ceilings", "fma_peak", "handover", "readings"]
__dir__ = only(__all__)

#: Bytes of each of the two buffers of :class:`Memory`; several times the caches of most machines.
BUFFER = 1 << 27


@dataclass(frozen=True)
class Ceilings:
    """Attributes
    ----------
    fma : float
        GFLOP/s of multiply-adds in registers, each counting two.
    bandwidth : float
        GB/s of main memory.
    dtype : str
        That of the multiply-adds.
    threads : int
    handover : tuple of float
        Nanoseconds that a line of memory takes from one thread to another, each time that it was measured.
    """

    fma: float
    bandwidth: float
    dtype: str
    threads: int
    handover: tuple[float, ...] = ()

    def joined(self, kind: str, values: Iterable[float]) -> Ceilings:
        """The same with further measurements of ``fma`` or ``bandwidth``: the highest counts."""
        return replace(self, **{kind: max([getattr(self, kind), *values])})


class Memory:
    """Two buffers too large for the caches, and threads that read or copy them.

    Parameters
    ----------
    num_threads : int, optional
        The current number of threads by default.
    nbytes : int
        Size of each buffer.
    """

    def __init__(self, num_threads: int | None = None, nbytes: int = BUFFER) -> None:
        threads = fc.get_num_threads() if num_threads is None else num_threads
        source, target = np.ones(nbytes // 4, np.float32), np.ones(nbytes // 4, np.float32)
        self._nbytes = source.nbytes
        self._sources = np.array_split(source, threads)
        self._targets = np.array_split(target, threads)
        self._pool = ThreadPoolExecutor(threads)

    def bandwidth(self, repeats: int = 2) -> float:
        """GB/s: the best seen of reading (a maximum) and of copying (read plus written)."""
        read = min(self._seconds(np.maximum.reduce, self._sources) for _ in range(repeats))
        copy = min(self._seconds(np.copyto, self._targets, self._sources) for _ in range(repeats))
        return max(self._nbytes / read, 2 * self._nbytes / copy) / 1e9

    def flush(self) -> None:
        """Fill the caches of all threads' processors with the buffers.

        Worker threads fall asleep meanwhile, so that a call that follows has to wake them too.
        """
        self._seconds(np.copyto, self._targets, self._sources)

    def _seconds(self, function: Callable[..., Any], *parts: list[np.ndarray]) -> float:
        start = time.perf_counter()
        list(self._pool.map(function, *parts))  # NumPy lets other threads run meanwhile
        return time.perf_counter() - start


def readings(measures: dict[int, Callable[[], float]], unit: str, rounds: int = 6) -> dict[int, Range]:
    """Measure a ceiling for several numbers of threads, in turns.

    What few threads can do, more can do too: where they seem to do less, the machine is not quiet all the same.
    """
    found: dict[int, list[float]] = {threads: [] for threads in measures}
    for _ in range(rounds):
        for threads, measure in measures.items():
            found[threads].append(measure())
    ranges, high = {}, 0.0
    for threads in sorted(found):
        high = max(high, *found[threads])
        ranges[threads] = Range(min(found[threads]), max(found[threads]), unit, could=high)
    return ranges


class Patient:
    """A ceiling that waits for a disturbance to pass, but not for ever.

    Another program's thread on one of the cores delays those who divide work beforehand by whole
    slices of the scheduler, and others hardly at all: no fair figure comes from such a moment.

    Parameters
    ----------
    measure : callable
    tries : int
        Measurements, a second apart, after which the machine is taken as it is.
    """

    def __init__(self, measure: Callable[[], float], tries: int = 20) -> None:
        self._measure, self._tries, self._highest = measure, tries, 0.0

    def __call__(self) -> float:
        for _ in range(self._tries):
            found = self._measure()
            self._highest = max(self._highest, found)
            if found >= QUIET * self._highest:
                break
            time.sleep(1)
        return found


def fma_peak(dtype: str = "float32", num_threads: int | None = None) -> float:
    """A brief :func:`fastconv.fma_peak`, to call often."""
    return fc.fma_peak(dtype, num_threads, seconds=0.02)


def handover(tries: int = 5) -> tuple[float, ...]:
    """Nanoseconds that a line of memory takes from one thread to another: the least of several tries.

    On cores that share a third-level cache a third or a quarter of what it takes between others. Empty where the
    second thread never came, or there is none.

    Examples
    --------
    >>> from fastconv.bench.peak import handover
    >>> all(nanoseconds > 0 for nanoseconds in handover())
    True
    """
    if fc.get_num_threads() < 2:
        return ()
    found = [1e9 * seconds for _ in range(tries) if (seconds := _core.handover(500)) > 0]
    return (min(found),) if found else ()


def ceilings(dtype: str = "float32", num_threads: int | None = None) -> Ceilings:
    """Measure arithmetic and memory.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    num_threads : int, optional
        The current number of threads by default.

    Examples
    --------
    >>> from fastconv.bench.peak import ceilings
    >>> limits = ceilings(num_threads=1)
    >>> limits.fma > 0 and limits.bandwidth > 0
    True
    """
    threads = fc.get_num_threads() if num_threads is None else num_threads
    fma = fc.fma_peak(dtype, threads)
    return Ceilings(fma, Memory(threads).bandwidth(), dtype, threads, handover() if threads > 1 else ())
