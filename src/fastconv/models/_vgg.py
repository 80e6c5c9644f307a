# SPDX-License-Identifier: BSD-3-Clause
"""VGG with 11, 13, 16 and 19 layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Layers, he_normal, normal
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["VGG", "vgg11", "vgg13", "vgg16", "vgg19"]

_WIDTHS = (64, 128, 256, 512, 512)  # channels of the five stages; each ends in max pooling
_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Sequential):
    """See `vgg16`."""

    preprocessing: Preprocessing = IMAGENET


def _vgg(
    depth: int,
    num_classes: int,
    in_channels: int,
    batch_norm: bool,
    dropout: float,
    dtype: Any,
    rng: np.random.Generator | int | None,
) -> VGG:
    layers = Layers(dtype, rng, conv_weights=he_normal, linear_weights=normal)
    features = nn.Sequential()
    channels = in_channels
    for width, convolutions in zip(_WIDTHS, _DEPTHS[depth], strict=True):
        for _ in range(convolutions):
            features.append(layers.conv(channels, width, 3, padding=1))
            if batch_norm:
                features.append(layers.norm(width))
            features.append(nn.ReLU(inplace=True))
            channels = width
        features.append(nn.MaxPool2d(2, 2))
    classifier = nn.Sequential(
        layers.linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        layers.dropout(dropout),
        layers.linear(4096, 4096),
        nn.ReLU(inplace=True),
        layers.dropout(dropout),
        layers.linear(4096, num_classes),
    )
    return VGG(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((7, 7)),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
    )


def vgg16(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> VGG:
    """VGG-16 (configuration D): thirteen 3×3 convolutions in five stages, three linear layers.

    Parameters
    ----------
    num_classes, in_channels : int
    batch_norm : bool, keyword only
        Normalise after every convolution: torchvision's ``vgg16_bn``.
    dropout : float, keyword only
        Probability of clearing an activation between the linear layers.
    dtype, rng
        See `fastconv.models`. As in torchvision, convolutions start from He's normal distribution
        and linear layers from a normal distribution of standard deviation 0.01.

    Returns
    -------
    VGG
        For inputs (N, in_channels, H, W), made for 224×224; at least 32×32.

    Notes
    -----
    Source: Simonyan and Zisserman (2014), arXiv:1409.1556. The state dict is torchvision's.

    Examples
    --------
    >>> from fastconv import models
    >>> models.vgg16(num_classes=10).classifier[6]
    Linear(in_features=4096, out_features=10, bias=True)
    """
    return _vgg(16, num_classes, in_channels, batch_norm, dropout, dtype, rng)


def vgg11(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> VGG:
    """VGG-11 (configuration A): eight convolutions; otherwise as `vgg16`."""
    return _vgg(11, num_classes, in_channels, batch_norm, dropout, dtype, rng)


def vgg13(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> VGG:
    """VGG-13 (configuration B): ten convolutions; otherwise as `vgg16`."""
    return _vgg(13, num_classes, in_channels, batch_norm, dropout, dtype, rng)


def vgg19(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> VGG:
    """VGG-19 (configuration E): sixteen convolutions; otherwise as `vgg16`."""
    return _vgg(19, num_classes, in_channels, batch_norm, dropout, dtype, rng)
