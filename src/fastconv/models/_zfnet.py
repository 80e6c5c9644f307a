# SPDX-License-Identifier: BSD-3-Clause
"""ZFNet, AlexNet's successor."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._alexnet import classifier
from fastconv.models._parts import Layers
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["ZFNet", "zfnet"]


class ZFNet(nn.Sequential):
    """See `zfnet`."""

    preprocessing: Preprocessing = IMAGENET


def zfnet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> ZFNet:
    """ZFNet: AlexNet with a smaller, denser first layer, found by looking at its filters.

    Parameters
    ----------
    num_classes, in_channels, dropout, dtype, rng
        As for `alexnet`.

    Returns
    -------
    ZFNet
        For inputs (N, in_channels, H, W), made for 224×224: feature maps of 110, 55, 26, 13 and 6, as in
        figure 3 of the paper; at least 53×53.

    Notes
    -----
    Source: Zeiler and Fergus (2013), "Visualizing and understanding convolutional networks",
    arXiv:1311.2901. Contrast normalisation across maps uses the constants of Krizhevsky et al.
    (2012): k = 2, n = 5, α = 1e-4 (torch's alpha / size), β = 0.75.

    Examples
    --------
    >>> from fastconv import models
    >>> models.zfnet(num_classes=10).features[0]
    Conv2d(3, 96, kernel_size=(7, 7), stride=(2, 2), padding=(1, 1))
    """
    layers = Layers(dtype, rng)

    def contrast() -> nn.LocalResponseNorm:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        layers.conv(in_channels, 96, 7, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        contrast(),
        layers.conv(96, 256, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        contrast(),
        layers.conv(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        layers.conv(384, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        layers.conv(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
    )
    return ZFNet(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((6, 6)),
            "flatten": nn.Flatten(),
            "classifier": classifier(layers, num_classes, dropout),
        }
    )
