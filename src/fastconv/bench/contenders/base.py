# SPDX-License-Identifier: BSD-3-Clause
"""What a benchmark asks of those it compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastconv.bench.cases import Case, ConvCase, PoolCase

__all__ = ["Contender", "Prepared"]


@dataclass(frozen=True)
class Prepared:
    """A layer ready to run.

    Attributes
    ----------
    run : callable
        Computes the layer once and returns the output in the contender's layout.
    algorithm : str
        How, if that is known.
    packed_bytes : int, optional
        Memory that the prepared weights take.
    workspace_bytes : int, optional
        Memory that a call takes beyond input, weights and output.
    """

    run: Callable[[], np.ndarray]
    algorithm: str = ""
    packed_bytes: int | None = None
    workspace_bytes: int | None = None


class Contender:
    """Somebody who computes layers.

    A subclass overrides :meth:`conv`, :meth:`pool` or both. They do all that needs doing only once
    (weights are constant) and raise NotImplementedError for what they cannot serve; the layer then
    goes without them.

    Attributes
    ----------
    name : str
        As tables and JSON call it.
    layout : {"NCHW", "NHWC"}
        Of input and output.
    variant : str
        Tells apart contenders of one name and layout.
    slow : bool
        One timed call has to do.
    """

    name: str = ""
    layout: str = "NCHW"
    variant: str = ""
    slow: bool = False

    def prepare(self, case: Case) -> Prepared:
        """:meth:`conv` or :meth:`pool`, as the case may be."""
        return self.conv(case) if isinstance(case, ConvCase) else self.pool(case)

    def conv(self, case: ConvCase) -> Prepared:
        """Prepare a convolution."""
        raise NotImplementedError(f"{self.name} has no convolution")

    def pool(self, case: PoolCase) -> Prepared:
        """Prepare a pooling layer."""
        raise NotImplementedError(f"{self.name} has no pooling")
