# SPDX-License-Identifier: BSD-3-Clause
"""MobileNet, the first."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Layers, he_normal, normal, whole_channels
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["MobileNetV1", "mobilenet_v1"]

# Output channels and stride of the thirteen pairs of a depthwise and a pointwise convolution: the paper's table 1.
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Sequential):
    """See `mobilenet_v1`."""

    preprocessing: Preprocessing = IMAGENET


def mobilenet_v1(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    width_mult: float = 1.0,
    dropout: float = 0.001,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> MobileNetV1:
    """MobileNet v1: thirteen pairs of a depthwise 3×3 and a pointwise convolution.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float, keyword only
        The paper's α: what the number of channels of every layer is multiplied by, then rounded to a
        multiple of 8.
    dropout : float, keyword only
        Probability of clearing an activation before the classifier.
    dtype, rng
        See `fastconv.models`. Convolutions start from He's normal distribution.

    Returns
    -------
    MobileNetV1
        For inputs (N, in_channels, H, W) of any size from 1×1 on, made for 224×224: feature maps of 112, 56,
        28, 14 and 7, as in table 1 of the paper. 4,231,976 parameters. ``features.0`` is the first
        convolution; of pair n, ``features.n.0`` is depthwise and ``features.n.1`` pointwise; each of these has
        the convolution under ``0`` and its batch norm under ``1``.

    Notes
    -----
    Source: Howard et al. (2017), "MobileNets: efficient convolutional neural networks for mobile vision
    applications", arXiv:1704.04861. In table 1 the last depthwise convolution has stride 2 and an output
    of the size of its input, which cannot both be; as everywhere, its stride is 1.

    Examples
    --------
    >>> from fastconv import models
    >>> models.mobilenet_v1(width_mult=0.25).features[1][0][0]
    Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=8, bias=False)
    """
    layers = Layers(dtype, rng, conv_weights=he_normal, linear_weights=normal)
    channels = whole_channels(32 * width_mult)
    features = nn.Sequential(layers.conv_norm(in_channels, channels, 3, nn.ReLU(inplace=True), stride=2))
    for width, stride in _PAIRS:
        outputs = whole_channels(width * width_mult)
        depthwise = layers.conv_norm(channels, channels, 3, nn.ReLU(inplace=True), stride=stride, groups=channels)
        features.append(nn.Sequential(depthwise, layers.conv_norm(channels, outputs, 1, nn.ReLU(inplace=True))))
        channels = outputs
    return MobileNetV1(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((1, 1)),
            "flatten": nn.Flatten(),
            "classifier": nn.Sequential(layers.dropout(dropout), layers.linear(channels, num_classes)),
        }
    )
