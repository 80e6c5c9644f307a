# SPDX-License-Identifier: BSD-3-Clause
"""The same network whole: compiled, beside its layers one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import fastconv as fc
from fastconv import nn
from fastconv._names import only
from fastconv.bench import peak, timing
from fastconv.bench.timing import Effort
from fastconv.demo.vgg import Array, difference, pixels
from fastconv.graph import Profile

__all__ = ["Compiled", "run"]
__dir__ = only(__all__)

REPEATS = 3  # calls of which the profile shows medians


@dataclass(frozen=True)
class Compiled:
    """How a network ran in both forms.

    Attributes
    ----------
    photograph : str
        The one that was measured.
    compile_seconds : float
    milliseconds, layers_milliseconds : float
        Medians of the compiled network, and of its layers called one after the other.
    difference : float
        Largest difference between the scores of both, over all photographs, relative to the largest score.
    profile : Profile
        Of the compiled network.
    """

    photograph: str
    compile_seconds: float
    milliseconds: float
    layers_milliseconds: float
    difference: float
    profile: Profile = field(repr=False)

    @property
    def speedup(self) -> float:
        return self.layers_milliseconds / self.milliseconds

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photograph": self.photograph,
            "compile_seconds": self.compile_seconds,
            "milliseconds": self.milliseconds,
            "layers_milliseconds": self.layers_milliseconds,
            "difference": self.difference,
            "profile": self.profile.record(),
        }


def run(
    net: nn.Module,
    photographs: dict[str, Array],
    *,
    network: str = "VGG-16",
    effort: Effort | None = None,
    after_part: Callable[[], Any] = lambda: None,
) -> Compiled:
    """Compile a network, and take photographs through it in both forms.

    Parameters
    ----------
    net : Module
        Of photographs to scores.
    photographs : dict of str to numpy.ndarray
        (size, size, 3) of uint8. The first is measured, all are compared.
    network : str
        Its name.
    effort : Effort, optional
        How long to measure.
    after_part : callable
        Called three times: when it is compiled, compared and measured.

    Returns
    -------
    Compiled
    """
    net.eval()
    inputs = {name: pixels(image) for name, image in photographs.items()}
    shown, x = next(iter(inputs.items()))
    start = time.perf_counter()
    whole = fc.compile(net, x.shape)
    seconds = time.perf_counter() - start
    after_part()
    differences = [difference(whole(image), net(image)) for image in inputs.values()]
    after_part()
    effort = effort or Effort(rounds=3, slice_time=0.03)
    slices = timing.interleaved([partial(whole, x), partial(net, x)], peak.fma_peak, effort)
    ours, layers = (1e3 * median(turn.seconds for turn in turns) for turns in slices)
    profile = whole.profile(x, repeats=REPEATS)
    profile.title = f"{network} on {shown}, compiled"
    after_part()
    return Compiled(shown, seconds, ours, layers, max(differences), profile)
