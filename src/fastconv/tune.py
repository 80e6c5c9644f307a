# SPDX-License-Identifier: BSD-3-Clause
"""Measure what the cost model of this machine rests on, so that ``algorithm="auto"`` chooses better.

Convolutions of many kinds, drawn at random, are run on one thread by every algorithm that serves them. The constants
of the model are then moved until its predictions agree with the clock. A part of the convolutions is kept out of that
and decides whether the new constants choose better than those of the nominal machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import _args, _costs
from fastconv._names import only
from fastconv.plan import ConvPlan

__all__ = ["Outcome", "Sample", "fit", "problems", "run"]
__dir__ = only(__all__)

SEED = 20261125
HELD_OUT = 3  # every third sample
MULTIPLY_ADDS = (3e5, 2.5e8)  # of a problem: several per millisecond at the least
TOLERANCE = 1.1  # a choice within a tenth of the fastest is right
ENOUGH = 10  # held-out samples, of which fewer prove nothing


@dataclass(frozen=True)
class Sample:
    """A convolution, and what every algorithm took for it.

    Attributes
    ----------
    predict : callable
        Seconds that given costs predict, by algorithm.
    measured : dict of str to float
        Seconds of one thread, by algorithm.
    """

    predict: Callable[[tuple[float, ...]], dict[str, float]]
    measured: dict[str, float]

    def loss(self, costs: tuple[float, ...]) -> float:
        """How many times as long the algorithm that these costs choose takes as the fastest."""
        predicted = self.predict(costs)
        return self.measured[min(self.measured, key=predicted.__getitem__)] / min(self.measured.values())


@dataclass(frozen=True)
class Outcome:
    """What a tuning found, on the samples that had no part in the fit.

    Attributes
    ----------
    samples : int
        Convolutions measured, the held-out ones included.
    loss, tuned_loss : float
        Geometric mean of chosen / fastest, by the nominal and the tuned constants.
    right, tuned_right : float
        Share of choices within a tenth of the fastest.
    error, tuned_error : float
        Typical factor between prediction and clock.
    better : bool
        Whether the tuned constants are kept: enough samples say that they choose better and predict no worse.
    """

    samples: int
    loss: float
    tuned_loss: float
    right: float
    tuned_right: float
    error: float
    tuned_error: float

    @property
    def better(self) -> bool:
        return self.objection is None

    @property
    def objection(self) -> str | None:
        """Why the nominal constants are kept, if they are: whoever asks for a change has to show that it pays."""
        held_out = math.ceil(self.samples / HELD_OUT)
        if held_out < ENOUGH:
            return f"{held_out} held-out convolutions prove nothing, it takes {ENOUGH}: measure for longer"
        if self.tuned_loss > self.loss:
            return "they choose better"
        if self.tuned_loss == self.loss:
            return "they choose as well"
        if self.tuned_error > self.error:
            return "they predict better"
        return None


# ------------------------------------------------------------------------------------------------------ measuring


def problems(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Arguments of convolutions of every kind, without end: shape, weight_shape, and ConvPlan's options."""
    kinds = ("pointwise", "3x3", "3x3", "3x3", "5x5", "large", "strided", "depthwise", "depthwise", "grouped")
    while True:
        for kind in kinds:
            problem = _problem(kind, rng)
            if MULTIPLY_ADDS[0] <= _multiply_adds(problem) <= MULTIPLY_ADDS[1]:
                yield problem


def _between(rng: np.random.Generator, low: float, high: float) -> int:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def _problem(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    size, channels, out = _between(rng, 6, 240), _between(rng, 8, 1000), _between(rng, 8, 1000)
    kernel, stride, groups = {"pointwise": 1, "5x5": 5}.get(kind, 3), 1, 1
    if kind == "large":
        kernel, stride, channels, out = int(rng.choice([3, 7, 11])), int(rng.integers(1, 5)), 3, _between(rng, 16, 96)
    elif kind == "strided":
        kernel, stride = int(rng.choice([1, 3, 5])), 2
    elif kind == "depthwise":
        groups = out = channels
        kernel, stride = int(rng.choice([3, 5])), int(rng.integers(1, 3))
    elif kind == "grouped":
        groups = int(rng.choice([2, 4, 8, 32]))
        channels, out = (groups * max(1, c // groups) for c in (channels, out))
    layout = str(rng.choice(["NCHW", "NHWC"]))
    return {
        "input_shape": (1, channels, size, size) if layout == "NCHW" else (1, size, size, channels),
        "weight_shape": (out, channels // groups, kernel, kernel),
        "stride": stride,
        "padding": kernel // 2,
        "groups": groups,
        "layout": layout,
        "dtype": "float64" if rng.random() < 0.1 else "float32",
    }


def _multiply_adds(problem: dict[str, Any]) -> float:
    size = problem["input_shape"][2] / problem["stride"]
    return math.prod(problem["weight_shape"]) * size * size


def _sample(problem: dict[str, Any], rng: np.random.Generator) -> Sample:
    options = dict(problem)
    weight = rng.standard_normal(options.pop("weight_shape"), np.float32).astype(options.pop("dtype"))
    plan = ConvPlan(options.pop("input_shape"), weight, **options)
    times = plan.measured(seconds=0.002, within=10.0)
    for name in _args.BY_NAME:
        times.pop(name, None)
    fields = plan.verdicts

    def predict(costs: tuple[float, ...]) -> dict[str, float]:
        return {name: seconds for name, _, seconds in fields(costs)}

    return Sample(predict, times)


# -------------------------------------------------------------------------------------------------------- fitting


def _misfit(samples: Sequence[Sample], costs: tuple[float, ...]) -> float:
    """Squared logarithms of prediction / clock; what is far from the fastest hardly counts.

    The error of an algorithm weighs less than its difference from the error of the fastest: only that can lead to a
    wrong choice.
    """
    total = 0.0
    for sample in samples:
        predicted, fastest = sample.predict(costs), min(sample.measured.values())
        weights = np.array([fastest / seconds for seconds in sample.measured.values()])
        errors = np.array([math.log(predicted[name] / seconds) for name, seconds in sample.measured.items()])
        apart = errors - errors[weights.argmax()]
        total += float(weights @ (0.3 * errors**2 + apart**2))
    return total / len(samples)


def fit(samples: Sequence[Sample], start: tuple[float, ...], rounds: int = 6) -> tuple[float, ...]:
    """Costs near ``start`` whose predictions agree best with the clock.

    Each constant in turn is multiplied or divided by a factor for as long as that helps; the factor shrinks from round
    to round. A weak pull towards the start holds those that the samples say nothing about.
    """
    costs, factor = list(start), 2.0

    def objective(candidate: list[float]) -> float:
        pull = sum(math.log(c / s) ** 2 for c, s in zip(candidate, start, strict=True))
        return _misfit(samples, tuple(candidate)) + 2e-3 * pull

    best = objective(costs)
    for _ in range(rounds):
        for i in range(len(costs)):
            for step in (factor, 1 / factor):
                while True:
                    candidate = [*costs[:i], costs[i] * step, *costs[i + 1 :]]
                    value = objective(candidate)
                    if value >= best:
                        break
                    costs, best = candidate, value
        factor = math.sqrt(factor)
    return tuple(costs)


def _verdict(held_out: Sequence[Sample], count: int, nominal: tuple[float, ...], tuned: tuple[float, ...]) -> Outcome:
    def loss(costs: tuple[float, ...]) -> float:
        return math.exp(float(np.mean([math.log(s.loss(costs)) for s in held_out])))

    def right(costs: tuple[float, ...]) -> float:
        return float(np.mean([s.loss(costs) <= TOLERANCE for s in held_out]))

    def error(costs: tuple[float, ...]) -> float:
        logs = [abs(math.log(s.predict(costs)[name] / t)) for s in held_out for name, t in s.measured.items()]
        return math.exp(float(np.median(logs)))

    pairs = [(measure(nominal), measure(tuned)) for measure in (loss, right, error)]
    return Outcome(count, *(figure for pair in pairs for figure in pair))


def run(
    seconds: float = 15.0, progress: Callable[[Sequence[int]], Iterable[int]] = iter
) -> tuple[tuple[float, ...], Outcome]:
    """Measure for so many seconds, then fit; the costs are those to use from now on, whichever of the two they are.

    ``progress`` shows how the hundredths of the time pass.
    """
    rng, start = np.random.default_rng(SEED), time.perf_counter()
    samples: list[Sample] = []
    drawn = problems(rng)
    for percent in progress(range(1, 101)):
        while len(samples) < 2 * HELD_OUT or time.perf_counter() < start + seconds * percent / 100:
            samples.append(_sample(next(drawn), rng))
    nominal = _costs.nominal().seconds
    tuned = fit([s for i, s in enumerate(samples) if i % HELD_OUT], nominal)
    outcome = _verdict(samples[::HELD_OUT], len(samples), nominal, tuned)
    return (tuned if outcome.better else nominal), outcome
