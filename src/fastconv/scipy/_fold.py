# SPDX-License-Identifier: BSD-3-Clause
"""Kernels that are longer than the axis they lie on, as short ones.

Beyond its borders an axis has nothing new: it repeats itself, or its end, or the fill. So taps that see the same
element from every output are one tap of their sum, and what is left of any kernel is no longer than twice the axis, or
than input and output together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Fold:
    """The taps of a kernel along an axis of `size` elements, under which `out` windows begin at `offset` and on."""

    length: int
    size: int
    out: int
    offset: int
    border: str

    @cached_property
    def period(self) -> int:
        """After how many elements the axis repeats itself; 0 if it does not."""
        n = self.size
        return {"wrap": n, "reflect": 2 * n, "mirror": max(1, 2 * (n - 1))}.get(self.border, 0)

    @cached_property
    def before(self) -> int:
        """How many taps see what lies before the axis from every output; without a period."""
        return 0 if self.period else min(self.length, max(0, 1 - self.offset - self.out))

    @cached_property
    def after(self) -> int:
        return 0 if self.period else min(self.length, max(0, self.length - self.size + self.offset))

    @property
    def needed(self) -> bool:
        return self.length > self.period if self.period else self.before > 1 or self.after > 1

    @property
    def start(self) -> int:
        """The offset of the taps that are left."""
        return self.offset % self.period if self.period else self.offset + max(0, self.before - 1)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """The taps that are left, along the first axis."""
        if self.period:
            whole = self.length // self.period * self.period
            sums = weights[:whole].reshape(-1, self.period, *weights.shape[1:]).sum(axis=0)
            sums[: self.length - whole] += weights[whole:]
            return sums
        stop = self.length - self.after
        ends = weights[: self.before], weights[stop:]
        first, last = (end.sum(axis=0, keepdims=True) if len(end) else end for end in ends)
        return np.concatenate((first, weights[self.before : stop], last))

    def counts(self) -> np.ndarray:
        """How many taps each of those is, for kernels whose weights are equal."""
        if self.period:
            times, rest = divmod(self.length, self.period)
            counts = np.full(self.period, float(times))
            counts[:rest] += 1
            return counts
        ends = [n for n in (self.before, self.after) if n]
        counts = np.ones(self.length - sum(ends) + len(ends))
        if self.before:
            counts[0] = self.before
        if self.after:
            counts[-1] = self.after
        return counts
