# SPDX-License-Identifier: BSD-3-Clause
"""What came out of the demo: whether it kept its promises, as tables and for JSON."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from fastconv._names import only
from fastconv.bench.environment import HANDICAPS
from fastconv.bench.terminal import Column, Table, figure
from fastconv.demo.compiled import Compiled
from fastconv.demo.digits import Training
from fastconv.demo.vgg import Layer, Run

__all__ = ["BAR", "WHOLE_DIFFERENCE", "Check", "Results", "percent"]
__dir__ = only(__all__)

#: Share of the held-out digits that the convolutional network must read.
BAR = 0.985

#: So far may results in float32 differ from NumPy's, relative to the largest: Winograd's algorithms err by up to
#: 5e-6, the direct sum and NumPy by up to 5e-7 each.
DIFFERENCE = 1e-5

#: So far may the scores of a compiled network differ from those of its layers one by one: of such errors, those of some
#: twenty layers add up.
WHOLE_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Check:
    """A promise of the demo, and whether it was kept."""

    promise: str
    finding: str
    kept: bool


@dataclass
class Results:
    """All that the demo found out.

    Attributes
    ----------
    seed : int
    date : str
        ISO 8601.
    machine : dict
        As :func:`fastconv.bench.report.machine` describes it.
    convnet, dense : Training
    held_out : int
        Number of digits held out.
    vgg : Run
    compiled : Compiled
    seconds : float
        Of the whole demo up to the pictures.
    """

    seed: int
    date: str
    machine: dict[str, Any]
    convnet: Training
    dense: Training
    held_out: int
    vgg: Run
    compiled: Compiled
    seconds: float = 0.0

    @property
    def checks(self) -> list[Check]:
        """The promises."""
        ours, other = self.convnet.accuracy, self.dense.accuracy
        name = self.convnet.name
        return [
            Check(f"the {name} network reads at least {percent(BAR)}", f"it reads {percent(ours)}", ours >= BAR),
            Check(
                f"it reads more than the {self.dense.name} one",
                f"{percent(ours)} against {percent(other)}",
                ours > other,
            ),
            Check(
                f"fastconv and NumPy differ by at most {DIFFERENCE:.0e} on every layer of {self.vgg.network}",
                f"they differ by {self.vgg.difference:.1e}",
                self.vgg.difference <= DIFFERENCE,
            ),
            Check(
                f"compiled and layer by layer, {self.vgg.network} gives scores that differ by at most "
                f"{WHOLE_DIFFERENCE:.0e}",
                f"they differ by {self.compiled.difference:.1e}",
                self.compiled.difference <= WHOLE_DIFFERENCE,
            ),
        ]

    @property
    def passed(self) -> bool:
        """Whether all promises were kept."""
        return all(check.kept for check in self.checks)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "seed": self.seed,
            "date": self.date,
            "seconds": self.seconds,
            "machine": self.machine,
            "digits": {
                "held_out": self.held_out,
                "convolutional": self.convnet.record(),
                "fully_connected": self.dense.record(),
            },
            "vgg": self.vgg.record(),
            "compiled": self.compiled.record(),
        }

    def digits_table(self) -> Table:
        """The two networks side by side."""
        columns = [
            Column("network", left=True),
            Column("parameters"),
            Column("held-out\ndigits read"),
            Column(f"misread\nof {self.held_out}"),
            Column("images/s\nin training"),
            Column("seconds"),
        ]
        rows = [
            [
                one.name,
                f"{one.parameters:,}",
                percent(one.accuracy),
                str(round((1 - one.accuracy) * self.held_out)),
                f"{one.images_per_second:,.0f}",
                f"{one.seconds:.1f}",
            ]
            for one in (self.convnet, self.dense)
        ]
        return Table("Handwritten digits", columns, rows)

    def vgg_table(self) -> Table:
        """A line for every layer, and the sums."""
        columns = [
            Column("layer", left=True),
            Column("output", rank=5),
            Column("algorithm", left=True, rank=3),
            Column("GFLOP", rank=4),
            Column("NumPy\nloops\nms"),
            Column("NumPy\nBLAS\nms"),
            Column("fastconv\nms"),
            Column("GFLOP/s", rank=2),
            Column("share\nof peak"),
            Column("speed-up\nto loops"),
            Column("speed-up\nto BLAS"),
            Column("largest\ndifference", rank=1),
        ]
        run = self.vgg
        rows = [self._cells(layer.name, [layer]) for layer in run.layers]
        convolutions = [layer for layer in run.layers if layer.kind == "convolution"]
        totals = [self._cells("convolutions", convolutions), self._cells("all layers", run.layers)]
        first, *others = run.milliseconds.items()
        further = "".join(f"; {name}, through the same layers: {figure(ms)} ms" for name, ms in others)
        notes = [
            f"Medians of {first[0]}{further}. GFLOP count the direct sum, which Winograd's algorithms undercut.",
            f"Share of peak: of {figure(run.peak)} GFLOP/s of multiply-adds, measured in turns with the layers.",
            "NumPy BLAS: a matrix of patches times the kernels, or activations times weights. In the sum of all layers "
            "each NumPy column takes from the other what it has not.",
            "Difference: max|y - NumPy's y| ÷ max|NumPy's y|, the largest of both forms and all photographs.",
        ]
        if not run.ceilings.quiet:
            notes.append(run.ceilings.warning)
        slowed = [name for name in HANDICAPS if name in os.environ]
        if slowed:
            notes.append(f"{' and '.join(slowed)} set: NumPy's BLAS may be slower than it could be.")
        title = f"{run.network}, {run.size}×{run.size} pixels, batch 1, float32"
        return Table(title, columns, rows, totals, notes)

    def compiled_table(self) -> Table:
        """Both forms of the whole network."""
        columns = [Column("", left=True), Column("ms"), Column("GFLOP/s"), Column("speed-up"), Column("difference")]
        one, profile = self.compiled, self.compiled.profile
        gflop = sum(row.gflop for row in profile)
        rows = [
            ["layer by layer", figure(one.layers_milliseconds), figure(gflop / one.layers_milliseconds * 1e3), "", ""],
            [
                "compiled",
                figure(one.milliseconds),
                figure(gflop / one.milliseconds * 1e3),
                figure(one.speedup, "×"),
                f"{one.difference:.1e}" if one.difference else "0",
            ],
        ]
        notes = [
            f"Medians of {one.photograph}; {figure(gflop)} GFLOP, of the direct sum. It was compiled in "
            f"{one.compile_seconds:.1f} seconds, to {len(profile) - 1} steps.",
            "Difference: max|y - z| ÷ max|z| of the scores, the largest of all photographs.",
        ]
        return Table(f"{self.vgg.network} as a whole", columns, rows, notes=notes)

    def convolution_speedups(self) -> tuple[float, float]:
        """How many times faster than NumPy's loops and than its BLAS all convolutions together are."""
        layers = [layer for layer in self.vgg.layers if layer.kind == "convolution"]
        ours = sum(layer.milliseconds for layer in layers)
        loops = self._sum(layers, "loops_milliseconds", "blas_milliseconds")
        blas = self._sum(layers, "blas_milliseconds", "loops_milliseconds")
        assert loops is not None  # as of every convolution
        assert blas is not None
        return loops / ours, blas / ours

    def _cells(self, name: str, layers: list[Layer]) -> list[str]:
        """A line for one layer, or for the sum of several."""
        ours = sum(layer.milliseconds for layer in layers)
        loops = self._sum(layers, "loops_milliseconds", "blas_milliseconds")
        blas = self._sum(layers, "blas_milliseconds", "loops_milliseconds")
        gflop = sum(layer.gflop for layer in layers)
        rate = gflop / ours * 1e3 if gflop else None
        difference = max(layer.difference for layer in layers)
        one = layers[0] if len(layers) == 1 else None
        return [
            name,
            "×".join(map(str, one.output_shape)) if one else "",
            one.algorithm if one else "",
            figure(gflop or None),
            figure(loops),
            figure(blas),
            figure(ours),
            figure(rate),
            f"{rate / self.vgg.peak:.2f}" if rate else "",
            figure(loops and loops / ours, "×"),
            figure(blas and blas / ours, "×"),
            f"{difference:.1e}" if difference else "0",
        ]

    @staticmethod
    def _sum(layers: list[Layer], what: str, instead: str) -> float | None:
        """Sum of one NumPy form; of several layers, those without it count with the other."""
        if len(layers) == 1:
            return getattr(layers[0], what)
        return sum(getattr(layer, what) or getattr(layer, instead) for layer in layers)


def percent(share: float) -> str:
    """A share with one digit after the point.

    >>> from fastconv.demo.results import percent
    >>> percent(0.985)
    '98.5%'
    """
    return f"{100 * share:.1f}%"
