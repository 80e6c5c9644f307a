# SPDX-License-Identifier: BSD-3-Clause
"""The clock: medians after a warm-up, contenders taking turns beside the machine's ceiling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, NamedTuple

from fastconv._names import only

__all__ = ["Effort", "Slice", "interleaved", "median_seconds", "once"]
__dir__ = only(__all__)

#: OpenBLAS's threads wait busily for up to 2^28 cycles after a call, and would slow the next contender
#: down fourfold; this many seconds let them fall asleep (measured: 0.03 are too few, 0.1 just enough).
SETTLE = 0.12

APART = 1.25  # the upper quartile of turns over the lower one, above which there are more

CHEAP = 0.1  # seconds
COLD_CALLS = 3  # of a turn
RESOLUTION = 1e-9  # seconds


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    rounds : int
        Turns that each contender gets.
    slice_time : float
        Seconds of a turn, exceeded where a single call takes longer.
    patience : int
        How many times as many turns there may be, while those of some contender are apart by more than a quarter,
        quartile from quartile.
    """

    rounds: int = 5
    slice_time: float = 0.05
    patience: int = 1


class Slice(NamedTuple):
    """One turn.

    Attributes
    ----------
    seconds : float
        Median of its calls.
    ceiling : float
        That of the moment: the higher of two, measured before and after. A disturbance can only
        lower it, and a ceiling that is too low flatters.
    cores : float
        Processor time of the whole process over the time that passed; busy waiting counts.
    cold : float, optional
        Median seconds of the calls that found the caches flushed.
    """

    seconds: float
    ceiling: float
    cores: float
    cold: float | None = None


def median_seconds(fn: Callable[[], Any], *, min_time: float = 0.2, min_runs: int = 5, warm_up: int = 1) -> float:
    """Median duration of a call.

    Parameters
    ----------
    fn : callable
        Called without arguments.
    min_time : float
        Seconds to go on for.
    min_runs : int
        Timed calls to make even when they take longer than that.
    warm_up : int
        Untimed calls to begin with.

    Returns
    -------
    float
        Seconds.

    Examples
    --------
    >>> from fastconv.bench.timing import median_seconds
    >>> 0 < median_seconds(lambda: sum(range(100)), min_time=0.001) < 1
    True
    """
    for _ in range(warm_up):
        fn()
    seconds: list[float] = []
    end = time.perf_counter() + min_time
    while len(seconds) < min_runs or time.perf_counter() < end:
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def once(fn: Callable[[], Any], ceiling: Callable[[], float]) -> tuple[Any, Slice]:
    """Result and duration of a single call, for what is too slow to be repeated.

    Where it turns out to be cheap a second call is made, and that one counts.
    """
    time.sleep(SETTLE)
    limit, seconds, cores = ceiling(), 0.0, 0.0
    for _ in range(2):
        start, busy = time.perf_counter(), time.process_time()
        result = fn()
        seconds = time.perf_counter() - start
        cores = (time.process_time() - busy) / max(seconds, RESOLUTION)
        if seconds > CHEAP:
            break
    return result, Slice(seconds, max(limit, ceiling()), cores)


def interleaved(
    fns: Sequence[Callable[[], Any]],
    ceiling: Callable[[], float],
    effort: Effort,
    flush: Callable[[], object] | None = None,
) -> list[list[Slice]]:
    """Let functions take turns, so that a drift of the machine meets all of them alike.

    Parameters
    ----------
    fns : sequence of callables
    ceiling : callable
        Measures what the machine can do at this moment; called at both ends of a round.
    effort : Effort
    flush : callable, optional
        Empties the caches; each turn then ends with calls that follow it.

    Returns
    -------
    list of list of Slice
        For each function its turns.
    """
    slices: list[list[Slice]] = [[] for _ in fns]
    for done in range(effort.patience * effort.rounds):
        if done and done % effort.rounds == 0 and not any(_apart(turns) for turns in slices):
            break
        time.sleep(SETTLE)
        limit, turns = ceiling(), []
        for fn in fns:
            time.sleep(SETTLE)
            start, busy = time.perf_counter(), time.process_time()
            seconds = median_seconds(fn, min_time=effort.slice_time, min_runs=1)
            cores = (time.process_time() - busy) / max(time.perf_counter() - start, RESOLUTION)
            turns.append(Slice(seconds, limit, cores, _cold_seconds(fn, flush) if flush else None))
        time.sleep(SETTLE)
        limit = max(limit, ceiling())
        for turn, mine in zip(turns, slices, strict=True):
            mine.append(turn._replace(ceiling=limit))
    return slices


def _apart(turns: Sequence[Slice]) -> bool:
    if len(turns) < 2:
        return False
    lower, _, upper = quantiles((turn.seconds for turn in turns), n=4, method="inclusive")
    return upper > APART * max(lower, RESOLUTION)


def _cold_seconds(fn: Callable[[], Any], flush: Callable[[], object]) -> float:
    seconds = []
    for _ in range(COLD_CALLS):
        flush()
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    return median(seconds)
