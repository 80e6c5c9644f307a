# SPDX-License-Identifier: BSD-3-Clause
"""How a network was trained to see images."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["IMAGENET", "Preprocessing"]


class Preprocessing(NamedTuple):
    """What is done to an image before a network sees it, in this order.

    Attributes
    ----------
    resize : int
        The shorter side of the image becomes this long, the other in proportion (bilinear).
    crop : int
        Side of the square that is then cut from the middle: height and width of the input.
    mean, std : tuple of float, one per channel
        ``(pixel - mean) / std`` with pixels from 0 to 1, channel by channel in the order red, green, blue.

    Examples
    --------
    >>> from fastconv import models
    >>> models.ResNet.preprocessing.crop, models.ResNet.preprocessing.mean
    (224, (0.485, 0.456, 0.406))
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


#: Mean and deviation of ImageNet's training images, as torchvision's weights expect them.
IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
