# SPDX-License-Identifier: BSD-3-Clause
"""Whether the machine had nothing else to do while it was measured."""

from __future__ import annotations

from dataclasses import dataclass

from fastconv._names import only
from fastconv.bench.terminal import figure

__all__ = ["QUIET", "Range"]
__dir__ = only(__all__)

#: A ceiling that falls below this share of its highest has been disturbed.
QUIET = 0.7


@dataclass(frozen=True)
class Range:
    """The lowest and the highest of several measurements of one ceiling.

    Attributes
    ----------
    low, high : float
    unit : str
    could : float
        What the machine is known to be capable of, if that is more than ``high``.
    """

    low: float
    high: float
    unit: str
    could: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether the machine had nothing else to do, as far as this tells."""
        return self.low >= QUIET * max(self.high, self.could)

    @property
    def warning(self) -> str:
        """What a reader has to know of a machine that was not quiet."""
        span = f"{figure(self.low)} to {figure(max(self.high, self.could))} {self.unit}"
        return f"NOT A QUIET MACHINE: it varied from {span}, so none of these figures can be relied on."
