# SPDX-License-Identifier: BSD-3-Clause
"""ResNet with 18, 34 and 50 layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Branched, Layers, he_normal
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "resnet18", "resnet34", "resnet50"]

_WIDTHS = (64, 128, 256, 512)  # of the four stages; each but the first halves height and width


class ResNet(nn.Sequential):
    """See `resnet50`."""

    preprocessing: Preprocessing = IMAGENET


class _Residual(Branched):
    """``relu(body(x) + shortcut(x))``: figure 2 of the paper."""

    expansion: int  # output channels for each of the width
    downsample: nn.Sequential | None

    def _add_shortcut(self, layers: Layers, inputs: int, outputs: int, stride: int) -> None:
        """The identity, or where the shape changes a projection (option B of the paper)."""
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = layers.conv_norm(inputs, outputs, 1, stride=stride)
        self.join = nn.Add()
        self.relu = nn.ReLU(inplace=True)

    def body(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError(f"{type(self).__name__} does not say what its body is")

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return self.body(), () if self.downsample is None else (self.downsample,)

    def after(self) -> tuple[nn.Module, ...]:
        return (self.relu,)


class BasicBlock(_Residual):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, layers: Layers, inputs: int, width: int, stride: int) -> None:
        self.conv1 = layers.conv(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = layers.norm(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = layers.conv(width, width, 3, 1, 1, bias=False)
        self.bn2 = layers.norm(width)
        self._add_shortcut(layers, inputs, width, stride)

    def body(self) -> tuple[nn.Module, ...]:
        return self.conv1, self.bn1, self.relu1, self.conv2, self.bn2


class Bottleneck(_Residual):
    """1×1 to fewer channels, 3×3, 1×1 to four times as many, beside a shortcut."""

    expansion = 4

    def __init__(self, layers: Layers, inputs: int, width: int, stride: int) -> None:
        outputs = self.expansion * width
        self.conv1 = layers.conv(inputs, width, 1, bias=False)
        self.bn1 = layers.norm(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = layers.conv(width, width, 3, stride, 1, bias=False)
        self.bn2 = layers.norm(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = layers.conv(width, outputs, 1, bias=False)
        self.bn3 = layers.norm(outputs)
        self._add_shortcut(layers, inputs, outputs, stride)

    def body(self) -> tuple[nn.Module, ...]:
        return self.conv1, self.bn1, self.relu1, self.conv2, self.bn2, self.relu2, self.conv3, self.bn3


def _resnet(
    block: type[BasicBlock] | type[Bottleneck],
    depths: tuple[int, ...],
    num_classes: int,
    in_channels: int,
    dtype: Any,
    rng: np.random.Generator | int | None,
) -> ResNet:
    layers = Layers(dtype, rng, conv_weights=he_normal)
    parts: dict[str, nn.Module] = {
        "conv1": layers.conv(in_channels, 64, 7, 2, 3, bias=False),
        "bn1": layers.norm(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    channels = 64
    for i, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True)):
        stage = nn.Sequential()
        for j in range(depth):
            stage.append(block(layers, channels, width, 2 if i > 0 and j == 0 else 1))
            channels = block.expansion * width
        parts[f"layer{i + 1}"] = stage
    parts |= {"avgpool": nn.AdaptiveAvgPool2d((1, 1)), "flatten": nn.Flatten()}
    return ResNet(parts | {"fc": layers.linear(channels, num_classes)})


def resnet50(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> ResNet:
    """ResNet-50: sixteen bottleneck blocks in four stages, each added to a shortcut past it.

    Parameters
    ----------
    num_classes, in_channels : int
    dtype, rng
        See `fastconv.models`. As in torchvision, convolutions start from He's normal distribution.

    Returns
    -------
    ResNet
        For inputs (N, in_channels, H, W) of any size from 1×1 on, made for 224×224: feature maps of 112, 56,
        28, 14 and 7, as in table 1 of the paper. 25,557,032 parameters.

    Notes
    -----
    Source: He, Zhang, Ren and Sun (2015), "Deep residual learning for image recognition",
    arXiv:1512.03385. The state dict is torchvision's, and so is the place of the stride: at the 3×3
    convolution of a bottleneck, where the paper has it at the 1×1 convolution before.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> net = models.resnet50(num_classes=10, rng=0).eval()
    >>> net(np.zeros((1, 3, 64, 64), np.float32)).shape
    (1, 10)
    >>> net.layer4[0].conv2
    Conv2d(512, 512, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
    """
    return _resnet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, dtype, rng)


def resnet18(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> ResNet:
    """ResNet-18: eight blocks of two 3×3 convolutions, 11,689,512 parameters; otherwise as for `resnet50`."""
    return _resnet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, dtype, rng)


def resnet34(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> ResNet:
    """ResNet-34: sixteen blocks of two 3×3 convolutions, 21,797,672 parameters; otherwise as for `resnet50`."""
    return _resnet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, dtype, rng)
