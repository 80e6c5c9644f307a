# SPDX-License-Identifier: BSD-3-Clause
"""The moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastconv import _args
from fastconv._maps import Map, op
from fastconv._names import only
from fastconv.nn.module import Module

__all__ = ["EMA"]
__dir__ = only(__all__)


class EMA:
    """Exponential moving average of all floating-point numbers in a network's state dict.

    After each update of the network, ``average = decay * average + (1 - decay) * weights``; what is counted in
    integers is copied. So that the first weights do not stay for long, the n-th update takes
    ``min(decay, n / (n + 9))`` if `warm_up`.

    Parameters
    ----------
    module : Module
    decay : float
        From 0 to below 1.
    warm_up : bool, keyword only

    Raises
    ------
    ValueError, TypeError
        `decay` is out of range, or `module` is no Module.

    Notes
    -----
    As torch's ``AveragedModel`` with ``get_ema_multi_avg_fn``, but for the running statistics of batch norm, which are
    averaged too: those of the averaged weights are nearer to their average than to the last.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> layer.weight.data[...] = 0.0
    >>> ema = optim.EMA(layer, decay=0.75)
    >>> layer.weight.data[...] = 1.0
    >>> ema.update()
    >>> with ema.applied():
    ...     float(layer.weight.value[0, 0])
    0.25
    >>> float(layer.weight.value[0, 0])
    1.0
    """

    def __init__(self, module: Module, decay: float = 0.999, *, warm_up: bool = False) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module is {_args.said(module)}; it needs to be a Module")
        if not 0 <= _args.real(decay, "decay") < 1:
            raise ValueError(f"decay is {_args.said(decay)}; it needs to be from 0 to below 1")
        self.module, self.decay, self.warm_up = module, decay, warm_up
        self.updates = 0
        self.average = {key: np.array(value) for key, value in module.state_dict().items()}
        self._mix, self._mixes = _mixture(decay), decay

    def update(self) -> None:
        """Take in what the weights are now."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9)) if self.warm_up else self.decay
        if decay != self._mixes:
            self._mix, self._mixes = _mixture(decay), decay
        for key, value in self.module.state_dict().items():
            average = self.average[key]
            if average.dtype in _args.FLOATS:
                self._mix(average, value, average, out=average)
            elif average.dtype == _args.HALF:
                wide = average.astype(np.float32)
                average[...] = self._mix(wide, value.astype(np.float32), wide)
            else:
                average[...] = value

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averaged weights inside of the block, and its own again after it."""
        own = {key: value.copy() for key, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average)
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The average by the names of the network's state, and the number of updates."""
        return {"average": dict(self.average), "updates": self.updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over (as copies) the average of a network of the same shape.

        Raises
        ------
        ValueError
            If it is of another network; nothing has changed then.
        """
        given = state_dict["average"]
        if given.keys() != self.average.keys():
            different = sorted(given.keys() ^ self.average.keys())
            raise ValueError(f"state_dict does not fit: {different[0]!r} and {len(different) - 1} more are not in both")
        for key, own in self.average.items():
            if np.shape(given[key]) != own.shape:
                raise ValueError(f"state_dict has {key} of shape {np.shape(given[key])}; it needs {own.shape}")
        for key, own in self.average.items():
            own[...] = given[key]
        self.updates = int(state_dict["updates"])


def _mixture(decay: float) -> Map:
    """average + (1 - decay) * (weights - average), of the average, the weights, and the average once more."""
    return Map(op("rsub", 0), op("affine", a=1 - decay), op("add", 1), others=2)
