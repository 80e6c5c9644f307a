# SPDX-License-Identifier: BSD-3-Clause
"""What a benchmark asks of those it compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.bench.cases import Case, ConvCase, GradientCase, NetworkCase, PoolCase

__all__ = ["Contender", "Prepared"]
__dir__ = only(__all__)


@dataclass(frozen=True)
class Prepared:
    """A layer or a network ready to run.

    Attributes
    ----------
    run : callable
        Computes it once; :meth:`Contender.array` makes an array of what it returns.
    algorithm : str
        How, if that is known.
    packed_bytes : int, optional
        Memory that the prepared weights take.
    workspace_bytes : int, optional
        Memory that a call takes beyond input, weights and output.
    threads : callable, optional
        How many threads it runs with, asked of the library itself.
    """

    run: Callable[[], Any]
    algorithm: str = ""
    packed_bytes: int | None = None
    workspace_bytes: int | None = None
    threads: Callable[[], int] | None = None


class Contender:
    """Somebody who computes layers, or networks.

    A subclass overrides :meth:`conv`, :meth:`gradients`, :meth:`pool`, :meth:`network` or several of them. They do
    all that needs doing only once (weights are constant), take as many threads as :func:`fastconv.get_num_threads`
    says, and raise NotImplementedError for what they cannot serve; the layer then goes without them.

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
    networks, trains : bool
        Takes part where whole networks are measured, and where gradients are.
    package : str
        Whose version a report is to name, if it is not fastconv's or NumPy's.
    """

    name: str = ""
    layout: str = "NCHW"
    variant: str = ""
    slow: bool = False
    networks: bool = False
    trains: bool = False
    package: str = ""

    def prepare(self, case: Case) -> Prepared:
        """:meth:`conv`, :meth:`gradients`, :meth:`pool` or :meth:`network`, as the case may be."""
        if isinstance(case, GradientCase):
            return self.gradients(case)
        if isinstance(case, ConvCase):
            return self.conv(case)
        if isinstance(case, NetworkCase):
            return self.network(case)
        assert isinstance(case, PoolCase)
        return self.pool(case)

    def conv(self, case: ConvCase) -> Prepared:
        """Prepare a convolution."""
        raise NotImplementedError(f"{self.name} has no convolution")

    def gradients(self, case: GradientCase) -> Prepared:
        """Prepare the gradients of a convolution: a run returns those by input, weight and bias."""
        raise NotImplementedError(f"{self.name} has no gradients")

    def pool(self, case: PoolCase) -> Prepared:
        """Prepare a pooling layer."""
        raise NotImplementedError(f"{self.name} has no pooling")

    def network(self, case: NetworkCase) -> Prepared:
        """Prepare a whole network."""
        raise NotImplementedError(f"{self.name} runs no whole networks")

    def translate(self, case: Case) -> None:
        """Make, in ``case.models``, whatever a user would have as a file: that is no memory of the contender."""

    def array(self, result: Any) -> np.ndarray:
        """What a run returned, as an array in :attr:`layout`."""
        return np.asarray(result)
