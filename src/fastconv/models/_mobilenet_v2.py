# SPDX-License-Identifier: BSD-3-Clause
"""MobileNet v2."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Branched, Layers, he_normal, normal, whole_channels
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["InvertedResidual", "MobileNetV2", "mobilenet_v2"]

# Expansion, output channels, number of blocks, stride of the first: the paper's table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Sequential):
    """See `mobilenet_v2`."""

    preprocessing: Preprocessing = IMAGENET


class InvertedResidual(Branched):
    """1×1 to `expansion` times the channels, depthwise 3×3, 1×1 without activation; the input is added if it fits."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        hidden = inputs * expansion
        self.conv = nn.Sequential()
        if expansion != 1:
            self.conv.append(layers.conv_norm(inputs, hidden, 1, nn.ReLU6(inplace=True)))
        self.conv.append(layers.conv_norm(hidden, hidden, 3, nn.ReLU6(inplace=True), stride=stride, groups=hidden))
        self.conv.append(layers.conv(hidden, outputs, 1, bias=False))
        self.conv.append(layers.norm(outputs))
        self._adds_input = stride == 1 and inputs == outputs
        if self._adds_input:
            self.join = nn.Add()

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return ((self.conv,), ()) if self._adds_input else ((self.conv,),)


def mobilenet_v2(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> MobileNetV2:
    """MobileNet v2: seventeen blocks that widen, convolve depthwise, and narrow again.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float, keyword only
        What the number of channels of every layer is multiplied by, then rounded to a multiple of 8; the last
        layer keeps at least its 1280.
    dropout : float, keyword only
        Probability of clearing an activation before the classifier.
    dtype, rng
        See `fastconv.models`. As in torchvision, convolutions start from He's normal distribution.

    Returns
    -------
    MobileNetV2
        For inputs (N, in_channels, H, W) of any size from 1×1 on, made for 224×224: feature maps of 112, 56,
        28, 14 and 7, as in table 2 of the paper. 3,504,872 parameters.

    Notes
    -----
    Source: Sandler, Howard, Zhu, Zhmoginov and Chen (2018), "MobileNetV2: inverted residuals and linear
    bottlenecks", arXiv:1801.04381. The state dict is torchvision's.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> net = models.mobilenet_v2(num_classes=10, rng=0).eval()
    >>> net.features(np.zeros((1, 3, 96, 96), np.float32)).shape
    (1, 1280, 3, 3)
    """
    layers = Layers(dtype, rng, conv_weights=he_normal, linear_weights=normal)
    channels = whole_channels(32 * width_mult)
    features = nn.Sequential(layers.conv_norm(in_channels, channels, 3, nn.ReLU6(inplace=True), stride=2))
    for expansion, width, depth, stride in _STAGES:
        outputs = whole_channels(width * width_mult)
        for i in range(depth):
            features.append(InvertedResidual(layers, channels, outputs, stride if i == 0 else 1, expansion))
            channels = outputs
    last = whole_channels(1280 * max(1.0, width_mult))
    features.append(layers.conv_norm(channels, last, 1, nn.ReLU6(inplace=True)))
    return MobileNetV2(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d((1, 1)),
            "flatten": nn.Flatten(),
            "classifier": nn.Sequential(layers.dropout(dropout), layers.linear(last, num_classes)),
        }
    )
