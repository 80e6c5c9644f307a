# SPDX-License-Identifier: BSD-3-Clause
"""AlexNet and its successor ZFNet."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn

__all__ = ["AlexNet", "ZFNet", "alexnet", "zfnet"]


class AlexNet(nn.Sequential):
    """See `alexnet`."""


class ZFNet(nn.Sequential):
    """See `zfnet`."""


def _classifier(num_classes: int, dropout: float, dtype: Any, rng: np.random.Generator) -> nn.Sequential:
    def linear(inputs: int, outputs: int) -> nn.Linear:
        return nn.Linear(inputs, outputs, dtype=dtype, rng=rng)

    return nn.Sequential(
        nn.Dropout(dropout, rng=rng),
        linear(256 * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout, rng=rng),
        linear(4096, 4096),
        nn.ReLU(inplace=True),
        linear(4096, num_classes),
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
    rng = np.random.default_rng(rng)

    def conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
        return nn.Conv2d(*args, **kwargs, dtype=dtype, rng=rng)

    features = nn.Sequential(
        conv(in_channels, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        conv(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        conv(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        conv(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        conv(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
    )
    return AlexNet(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((6, 6)),
            "flatten": nn.Flatten(),
            "classifier": _classifier(num_classes, dropout, dtype, rng),
        }
    )


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
        For inputs (N, in_channels, H, W), made for 224×224 (feature maps of 110, 55, 26, 13 and 6,
        as in figure 3 of the paper).

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
    rng = np.random.default_rng(rng)

    def conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
        return nn.Conv2d(*args, **kwargs, dtype=dtype, rng=rng)

    def contrast() -> nn.LocalResponseNorm:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        conv(in_channels, 96, 7, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        contrast(),
        conv(96, 256, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        contrast(),
        conv(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        conv(384, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        conv(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
    )
    return ZFNet(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((6, 6)),
            "flatten": nn.Flatten(),
            "classifier": _classifier(num_classes, dropout, dtype, rng),
        }
    )
