# SPDX-License-Identifier: BSD-3-Clause
"""DenseNet-121."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Branched, Layers
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["DenseLayer", "DenseNet", "densenet121"]

_GROWTH = 32  # channels that a layer adds
_NARROW = 4 * _GROWTH  # channels between the two convolutions of a layer
_DEPTHS = (6, 12, 24, 16)  # layers of the four blocks


class DenseNet(nn.Sequential):
    """See `densenet121`."""

    preprocessing: Preprocessing = IMAGENET


class DenseLayer(Branched):
    """Appends to the channels of its input those that a 1×1 and a 3×3 convolution make of all of them."""

    def __init__(self, layers: Layers, inputs: int) -> None:
        self.norm1 = layers.norm(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = layers.conv(inputs, _NARROW, 1, bias=False)
        self.norm2 = layers.norm(_NARROW)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = layers.conv(_NARROW, _GROWTH, 3, padding=1, bias=False)
        self.join = nn.Concat()

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (), (self.norm1, self.relu1, self.conv1, self.norm2, self.relu2, self.conv2)


def _he_normal_of_inputs(weight: nn.Parameter, rng: np.random.Generator) -> None:
    nn.init.kaiming_normal_(weight, rng=rng)


def densenet121(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> DenseNet:
    """DenseNet-121: four blocks in which each layer sees the results of all before it.

    Parameters
    ----------
    num_classes, in_channels : int
    dtype, rng
        See `fastconv.models`. As in torchvision, convolutions start from He's normal distribution.

    Returns
    -------
    DenseNet
        For inputs (N, in_channels, H, W), made for 224×224: feature maps of 112, 56, 28, 14 and 7, as in
        table 1 of the paper; at least 29×29. 7,978,856 parameters.

    Notes
    -----
    Source: Huang, Liu, van der Maaten and Weinberger (2016), "Densely connected convolutional networks",
    arXiv:1608.06993. The state dict is torchvision's.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> net = models.densenet121(num_classes=10, rng=0).eval()
    >>> net.features(np.zeros((1, 3, 64, 64), np.float32)).shape
    (1, 1024, 2, 2)
    """
    layers = Layers(dtype, rng, conv_weights=_he_normal_of_inputs)
    channels = 2 * _GROWTH
    features = nn.Sequential(
        {
            "conv0": layers.conv(in_channels, channels, 7, 2, 3, bias=False),
            "norm0": layers.norm(channels),
            "relu0": nn.ReLU(inplace=True),
            "pool0": nn.MaxPool2d(3, 2, 1),
        }
    )
    for i, depth in enumerate(_DEPTHS, 1):
        block = nn.Sequential()
        for j in range(1, depth + 1):
            block.add_module(f"denselayer{j}", DenseLayer(layers, channels))
            channels += _GROWTH
        features.add_module(f"denseblock{i}", block)
        if i < len(_DEPTHS):
            features.add_module(f"transition{i}", _transition(layers, channels))
            channels //= 2
    features.add_module("norm5", layers.norm(channels))
    classifier = layers.linear(channels, num_classes)
    assert classifier.bias is not None
    nn.init.zeros_(classifier.bias)
    return DenseNet(
        {
            "features": features,
            "relu": nn.ReLU(inplace=True),
            "avgpool": nn.AdaptiveAvgPool2d((1, 1)),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
    )


def _transition(layers: Layers, channels: int) -> nn.Sequential:
    """Half the channels, half the height and width."""
    return nn.Sequential(
        {
            "norm": layers.norm(channels),
            "relu": nn.ReLU(inplace=True),
            "conv": layers.conv(channels, channels // 2, 1, bias=False),
            "pool": nn.AvgPool2d(2, 2),
        }
    )
