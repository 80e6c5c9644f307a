# SPDX-License-Identifier: BSD-3-Clause
"""AlexNet."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Layers
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["AlexNet", "alexnet", "classifier"]


class AlexNet(nn.Sequential):
    """See `alexnet`."""

    preprocessing: Preprocessing = IMAGENET


def classifier(layers: Layers, num_classes: int, dropout: float) -> nn.Sequential:
    """The three linear layers, which ZFNet has in common."""
    return nn.Sequential(
        layers.dropout(dropout),
        layers.linear(256 * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        layers.dropout(dropout),
        layers.linear(4096, 4096),
        nn.ReLU(inplace=True),
        layers.linear(4096, num_classes),
    )


def alexnet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> AlexNet:
    """AlexNet in torchvision's form, on one device and without response normalisation.

    Parameters
    ----------
    num_classes, in_channels : int
    dropout : float, keyword only
        Probability of clearing an activation before the first two linear layers.
    dtype, rng
        See `fastconv.models`.

    Returns
    -------
    AlexNet
        For inputs (N, in_channels, H, W), made for 224×224; at least 63×63.

    Notes
    -----
    Source: Krizhevsky, Sutskever and Hinton (2012); the widths are those of Krizhevsky (2014),
    arXiv:1404.5997. The state dict is torchvision's.

    Examples
    --------
    >>> from fastconv import models
    >>> models.alexnet(num_classes=10).features[0]
    Conv2d(3, 64, kernel_size=(11, 11), stride=(4, 4), padding=(2, 2))
    """
    layers = Layers(dtype, rng)
    features = nn.Sequential(
        layers.conv(in_channels, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        layers.conv(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        layers.conv(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        layers.conv(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        layers.conv(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
    )
    return AlexNet(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((6, 6)),
            "flatten": nn.Flatten(),
            "classifier": classifier(layers, num_classes, dropout),
        }
    )
