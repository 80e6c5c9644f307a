# SPDX-License-Identifier: BSD-3-Clause
"""One layer or network, all contenders, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple

import fastconv as fc
from fastconv._names import only
from fastconv.bench import peak, timing
from fastconv.bench.cases import Case, case_of
from fastconv.bench.contenders import Contender, FastConv
from fastconv.bench.shapes import Layer
from fastconv.bench.timing import Effort, Slice

__all__ = ["Outcome", "Refusal", "Row", "measure", "measure_case"]
__dir__ = only(__all__)

#: An error above this is no rounding.
WRONG = 1e-3

SPARE_CORES = 0.5  # what other threads of the process may take


@dataclass(frozen=True)
class Row:
    """What one contender did on one layer, or on a network, which counts as one.

    Attributes
    ----------
    network, layer, shape : str
        Names as in the shapes file, and the layer's label.
    kind : {"conv", "gradients", "pool", "network"}
    count : int
        How often the network has the layer.
    contender, layout, variant : str
        Who; of fastconv the variant is the algorithm asked for.
    algorithm : str
        How, where that is known.
    dtype : str
    batch, threads : int
        Threads are those asked for.
    threads_seen : int or None
        Threads by the contender's own account.
    cores : float
        Processor time over time, the median over the turns.
    milliseconds : float
        Median of a call.
    cold_milliseconds : float or None
        Median of a call that found the caches flushed.
    work : float
        GFLOP of the direct sum for a convolution and a network; GB of input and output for pooling.
    traffic : float
        GB of input, weights and output.
    ceiling : float
        GFLOP/s of multiply-adds or GB/s of memory, measured in turns with the contenders.
    share : float
        Of the ceiling: the median over the turns, each with the ceiling of its moment. Winograd's
        algorithm multiplies less than the direct sum and may exceed 1, as may caches.
    aim : float or None
        Share of the ceiling that fastconv is to reach; of a network the share of the best peer's time.
    packed_bytes, workspace_bytes : int or None
        Memory beside input, output and the weights as given.
    peak_bytes : int or None
        By how much preparing and running made a process grow, the output included.
    max_error : float
        max|y - y64| / max|y64| against the float64 reference.
    """

    network: str
    layer: str
    shape: str
    kind: str
    count: int
    contender: str
    layout: str
    variant: str
    algorithm: str
    dtype: str
    batch: int
    threads: int
    threads_seen: int | None
    cores: float
    milliseconds: float
    cold_milliseconds: float | None
    work: float
    traffic: float
    ceiling: float
    share: float
    aim: float | None
    packed_bytes: int | None
    workspace_bytes: int | None
    peak_bytes: int | None
    max_error: float

    @property
    def rate(self) -> float:
        """GFLOP/s of a convolution, GB/s of pooling."""
        return self.work / self.milliseconds * 1e3

    @property
    def gflops(self) -> float:
        """:attr:`rate` of a convolution."""
        return self.rate

    @property
    def extra_bytes(self) -> int | None:
        """Packed weights and workspace together."""
        known = [b for b in (self.packed_bytes, self.workspace_bytes) if b is not None]
        return sum(known) if known else None

    @property
    def right(self) -> bool:
        """Whether the error is one of rounding."""
        return self.max_error <= WRONG  # not so for NaN

    @property
    def fair(self) -> bool:
        """Whether the threads were those asked for, as far as is known."""
        return self.threads_seen in (None, self.threads) and self.cores <= self.threads + SPARE_CORES

    def record(self) -> dict[str, Any]:
        """The row for JSON."""
        return {**asdict(self), "rate": self.rate}


@dataclass(frozen=True)
class Refusal:
    """Why a contender has no row."""

    network: str
    layer: str
    batch: int
    dtype: str
    contender: str
    layout: str
    variant: str
    reason: str


class Outcome(NamedTuple):
    """Rows and refusals of one layer, in the order of the contenders."""

    rows: list[Row]
    refusals: list[Refusal]


def measure(
    layer: Layer,
    layout: str = "NCHW",
    batch: int = 1,
    *,
    dtype: str = "float32",
    algorithm: str = "auto",
    ceiling: Callable[[], float] | None = None,
    effort: Effort | None = None,
) -> Row:
    """Measure fastconv on one layer, with the current number of threads.

    Parameters
    ----------
    layer : Layer
    layout : {"NCHW", "NHWC"}
    batch : int
    dtype : {"float32", "float64"}
    algorithm : str
        As :class:`fastconv.ConvPlan` takes it.
    ceiling, effort
        As for :func:`measure_case`.

    Raises
    ------
    NotImplementedError
        If the algorithm cannot serve the layer.

    Examples
    --------
    >>> from fastconv.bench.layers import Effort, measure
    >>> from fastconv.bench.shapes import conv_layers
    >>> row = measure(conv_layers("lenet5")[0], "NHWC", effort=Effort(1, 0.001))
    >>> row.shape, row.max_error < 1e-6, row.milliseconds > 0
    ('1→6 5×5 @32', True, True)
    """
    case, contender = case_of(layer, batch, dtype), FastConv(layout, algorithm)
    contender.prepare(case)  # a refusal is the caller's to hear
    [row] = measure_case(case, [contender], ceiling=ceiling, effort=effort).rows
    return row


def measure_case(
    case: Case,
    contenders: Sequence[Contender],
    *,
    ceiling: Callable[[], float] | None = None,
    effort: Effort | None = None,
    flush: Callable[[], object] | None = None,
    peak_bytes: Callable[[Contender, Case], int | None] | None = None,
) -> Outcome:
    """Measure all contenders on one layer, in turns.

    Parameters
    ----------
    case : Case
    contenders : sequence of Contender
    ceiling : callable, optional
        Measures the ceiling; by default arithmetic for a convolution and memory for pooling.
    effort : Effort, optional
    flush : callable, optional
        As for :func:`~fastconv.bench.timing.interleaved`; without it no call is cold.
    peak_bytes : callable, optional
        Measures the memory of a contender.

    Returns
    -------
    Outcome
    """
    ceiling = ceiling or _ceiling(case)
    prepared, refusals = [], []
    for contender in contenders:
        try:
            prepared.append((contender, contender.prepare(case)))
        except NotImplementedError as error:
            refusals.append(_refusal(case, contender, str(error)))
    errors, slices = {}, {}
    for contender, ready in prepared:
        if contender.slow:
            result, only = timing.once(ready.run, ceiling)
            slices[contender] = [only]
        else:
            result = ready.run()
        errors[contender] = case.judge(result, contender.array, contender.layout)
    quick = [(contender, ready) for contender, ready in prepared if not contender.slow]
    turns = timing.interleaved([ready.run for _, ready in quick], ceiling, effort or Effort(), flush)
    slices.update(zip((contender for contender, _ in quick), turns, strict=True))
    rows = [
        Row(
            **_identity(case),
            contender=contender.name,
            layout=contender.layout,
            variant=contender.variant,
            algorithm=ready.algorithm,
            threads_seen=ready.threads() if ready.threads else None,
            **_figures(case.work, slices[contender]),
            packed_bytes=ready.packed_bytes,
            workspace_bytes=ready.workspace_bytes,
            peak_bytes=peak_bytes(contender, case) if peak_bytes else None,
            max_error=errors[contender],
        )
        for contender, ready in prepared
    ]
    return Outcome(rows, refusals)


def _refusal(case: Case, contender: Contender, reason: str) -> Refusal:
    layer = case.layer
    who = contender.name, contender.layout, contender.variant
    return Refusal(layer.network, layer.name, case.batch, case.dtype.name, *who, reason)


def _ceiling(case: Case) -> Callable[[], float]:
    if case.layer.arithmetic:
        return lambda: peak.fma_peak(case.dtype.name)
    return peak.Memory().bandwidth


def _identity(case: Case) -> dict[str, Any]:
    layer = case.layer
    return {
        "network": layer.network,
        "layer": layer.name,
        "shape": layer.label,
        "kind": case.kind,
        "count": layer.count,
        "dtype": case.dtype.name,
        "batch": case.batch,
        "threads": fc.get_num_threads(),
        "traffic": case.traffic,
        "aim": case.aim,
    }


def _figures(work: float, slices: Sequence[Slice]) -> dict[str, Any]:
    cold = [s.cold for s in slices if s.cold is not None]
    return {
        "milliseconds": 1e3 * median(s.seconds for s in slices),
        "cold_milliseconds": 1e3 * median(cold) if cold else None,
        "cores": median(s.cores for s in slices),
        "work": work,
        "ceiling": median(s.ceiling for s in slices),
        "share": median(work / s.seconds / s.ceiling for s in slices),
    }
