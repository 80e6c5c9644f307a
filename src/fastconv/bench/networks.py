# SPDX-License-Identifier: BSD-3-Clause
"""Whole networks to measure: which, on what, and with which weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fastconv import models, nn
from fastconv._names import only
from fastconv.bench.names import MODELS

__all__ = ["Network", "UNet", "build", "network"]
__dir__ = only(__all__)

LIST = "networks"


@dataclass(frozen=True)
class Network:
    """A network, in the place of a layer that a benchmark measures.

    Attributes
    ----------
    name : str
        One of `fastconv.bench.names.MODELS`.
    image : tuple of int
        Channels, height and width.
    aims : dict of int to float
        By batch, the share of the best peer's time that fastconv is to take at most. Where nobody asks for
        batches, these are measured.
    """

    name: str
    image: tuple[int, int, int]
    aims: dict[int, float] = field(hash=False)
    network: ClassVar[str] = LIST
    count: ClassVar[int] = 1
    arithmetic: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """The image, for a reader."""
        channels, height, width = self.image
        return f"{channels}×{height}" if height == width else f"{channels}×{height}×{width}"

    def input_shape(self, batch: int = 1) -> tuple[int, ...]:
        """Channels first."""
        return (batch, *self.image)


_COLOUR, _DIGIT = (3, 224, 224), (1, 32, 32)
_AIMS = {
    "vgg16": {1: 0.8, 8: 0.5},
    "resnet18": {1: 0.75},
    "resnet50": {1: 0.85, 8: 0.7},
    "mobilenet_v1": {1: 0.9},
    "mobilenet_v2": {1: 0.9},
    "googlenet": {1: 0.85},
    "squeezenet": {1: 0.85},
    "densenet121": {1: 0.9},
    "alexnet": {1: 0.9},
    "unet": {1: 0.75},
    "lenet5": {1: 0.67},
}


def network(name: str) -> Network:
    """The network of this name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> from fastconv.bench.networks import network
    >>> network("lenet5").input_shape(8)
    (8, 1, 32, 32)
    """
    if name not in MODELS:
        raise ValueError(f"network is {name!r}; it needs one of {', '.join(MODELS)}")
    return Network(name, _DIGIT if name == "lenet5" else _COLOUR, _AIMS[name])


# ----------------------------------------------------------------------------------------- weights


class Repeating(np.random.Generator):
    """Draws a million numbers of each sort and repeats them, at the speed of copying.

    The numbers that a network of 138 million weights computes with take seconds to draw, and how they are
    distributed is no matter to a clock; that they are no zeros, no denormals and not all the same, is.
    """

    _PERIOD = 1_000_003  # a prime: no row of weights is like the one before

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self._drawn: dict[tuple[str, np.dtype], np.ndarray] = {}

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._repeated("standard_normal", size, dtype, out)

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._repeated("random", size, dtype, out)

    def _repeated(self, name: str, size: Any, dtype: Any, out: Any) -> Any:
        if out is None and size is None:
            return getattr(super(), name)(dtype=dtype)
        key = name, np.dtype(dtype)
        if key not in self._drawn:
            self._drawn[key] = getattr(super(), name)(self._PERIOD, dtype)
        numbers, target = self._drawn[key], np.empty(size, dtype) if out is None else out
        flat = target.reshape(-1)
        for start in range(0, flat.size, self._PERIOD):
            part = flat[start : start + self._PERIOD]
            part[:] = numbers[: part.size]
        return target


def build(name: str, seed: int = 0) -> nn.Module:
    """The network with weights that keep its numbers in range, whatever its depth, in evaluation mode.

    Weights are He's, biases and the statistics of batch norms are none that a translation could leave out
    unnoticed.
    """
    rng = Repeating(seed)
    make: Callable[..., nn.Module] = UNet if name == "unet" else models.get(name)
    model = make(rng=rng)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            state = {key: getattr(module, key).data for key in ("weight", "bias", "running_mean", "running_var")}
            nn.init.uniform_(state["weight"], 0.5, 1.0, rng=rng)
            nn.init.uniform_(state["running_var"], 0.5, 1.5, rng=rng)
            for shift in ("bias", "running_mean"):
                nn.init.normal_(state[shift], 0, 0.1, rng=rng)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", rng=rng)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1, rng=rng)
    return model.eval()


# ------------------------------------------------------------------------------------------- U-Net


class UNet(nn.Module):
    """U-Net: down by max pooling, up by transposed convolutions, and on each level what came down beside what comes up.

    Parameters
    ----------
    num_classes, in_channels : int
    channels : tuple of int
        Of the levels.
    rng
        For the initial weights.

    Notes
    -----
    Source: Ronneberger, Fischer and Brox (2015), "U-Net: convolutional networks for biomedical image
    segmentation", arXiv:1505.04597; with half the channels, and borders of zeros and batch norms, as is usual
    today. Height and width have to be multiples of 16.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.bench.networks import UNet
    >>> UNet(channels=(4, 8, 16), rng=0).eval()(np.zeros((1, 3, 16, 16), np.float32)).shape
    (1, 2, 16, 16)
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        *,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        rng: np.random.Generator | int | None = None,
    ) -> None:
        rng = np.random.default_rng(rng)
        self.pool, self.join = nn.MaxPool2d(2), nn.Concat()
        self.down, self.up, self.merge = nn.Sequential(), nn.Sequential(), nn.Sequential()
        inputs = in_channels
        for outputs in channels:
            self.down.append(_twice(inputs, outputs, rng))
            inputs = outputs
        for outputs in reversed(channels[:-1]):
            self.up.append(nn.ConvTranspose2d(inputs, outputs, 2, 2, rng=rng))
            self.merge.append(_twice(2 * outputs, outputs, rng))
            inputs = outputs
        self.head = nn.Conv2d(inputs, num_classes, 1, rng=rng)

    def forward(self, input: Any) -> Any:
        levels = []
        for i, down in enumerate(self.down):
            input = down(self.pool(input) if i else input)
            levels.append(input)
        levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            input = merge(self.join(levels.pop(), up(input)))
        return self.head(input)


def _twice(inputs: int, outputs: int, rng: np.random.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
