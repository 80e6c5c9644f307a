# SPDX-License-Identifier: BSD-3-Clause
"""What is done to images at random, so that a network does not learn them by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastconv import _args
from fastconv._names import only

__all__ = ["Augmentation"]
__dir__ = only(__all__)

_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)  # shares of grey, as in ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """Changes of images in training, drawn anew for each image and each time that it is seen.

    Attributes
    ----------
    flip : bool
        Mirror every second image, left to right.
    crop : float
        The least share of its area that is cut from an image, at a random place and with sides of up to 4:3, and made
        as large as the network takes it; 1 takes all of it.
    shift : int
        Move images by up to so many pixels down or up, and right or left; what is uncovered is black.
    colour : float
        Change brightness, contrast and (of images in colour) saturation by factors of up to 1 ± this.
    mixup : float
        Mix each image, and its label, with another one; shares are of a beta distribution with both parameters of this
        value, and 0 mixes nothing.

    Raises
    ------
    ValueError, TypeError
        A number is out of range.

    Notes
    -----
    Sources: crops, Szegedy et al. (2014), arXiv:1409.4842; mixup, Zhang et al. (2017), arXiv:1710.09412.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.training import Augmentation
    >>> images = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2) / 4
    >>> Augmentation(shift=1).changed(images, np.random.default_rng(1)).shape
    (1, 1, 2, 2)
    """

    flip: bool = False
    crop: float = 1.0
    shift: int = 0
    colour: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < _args.real(self.crop, "crop") <= 1:
            raise ValueError(f"crop is {_args.said(self.crop)}; it needs to be above 0 and at most 1")
        _args.integer(self.shift, "shift", 0)
        if not 0 <= _args.real(self.colour, "colour") < 1:
            raise ValueError(f"colour is {_args.said(self.colour)}; it needs to be from 0 to below 1")
        if not 0 <= _args.real(self.mixup, "mixup") < math.inf:
            raise ValueError(f"mixup is {_args.said(self.mixup)}; it needs to be at least 0")

    def crops(self, count: int, rng: np.random.Generator) -> np.ndarray | None:
        """For each of `count` images how to cut it, as `box` takes it; None where nothing is cut."""
        return None if self.crop == 1 else rng.random((count, 4))

    def box(self, drawn: np.ndarray, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is cut from an image of this size."""
        area, shape, across, down = drawn
        share = self.crop + (1 - self.crop) * area
        ratio = math.exp((2 * shape - 1) * math.log(4 / 3))
        cut_width = min(math.sqrt(share * width * height * ratio), width)
        cut_height = min(share * width * height / cut_width, height)
        left, top = across * (width - cut_width), down * (height - cut_height)
        return left, top, left + cut_width, top + cut_height

    def changed(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Images (N, C, H, W) from 0 to 1, flipped, moved and in other colours."""
        count = len(images)
        if self.flip:
            mirrored = rng.random(count) < 0.5
            images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
        if self.shift:
            images = _moved(images, rng.integers(-self.shift, self.shift + 1, (2, count)), self.shift)
        if self.colour:
            factors = (1 + self.colour * rng.uniform(-1, 1, (3, count))).astype(np.float32)
            images = _coloured(images, factors[..., None, None, None])
        return images

    def shares(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """What part of each image stays, at least half, and which other one fills the rest; None mixes nothing."""
        if not self.mixup:
            return None
        part = rng.beta(self.mixup, self.mixup, count).astype(np.float32)
        return np.maximum(part, 1 - part), rng.permutation(count)


def _moved(images: np.ndarray, moves: np.ndarray, most: int) -> np.ndarray:
    """Each image moved by so many pixels down and to the right."""
    height, width = images.shape[2:]
    room = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    rows = (most - moves[0])[:, None] + np.arange(height)
    columns = (most - moves[1])[:, None] + np.arange(width)
    numbers, channels = np.arange(len(images)), np.arange(images.shape[1])
    return room[
        numbers[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]


def _coloured(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    brightness, contrast, saturation = factors
    images = images * brightness
    images = _grey(images).mean(axis=(1, 2, 3), keepdims=True) * (1 - contrast) + images * contrast
    if images.shape[1] == 3:
        images = _grey(images) * (1 - saturation) + images * saturation
    return np.clip(images, 0, 1, out=images)


def _grey(images: np.ndarray) -> np.ndarray:
    """(N, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    return _RED * images[:, :1] + _GREEN * images[:, 1:2] + _BLUE * images[:, 2:]
