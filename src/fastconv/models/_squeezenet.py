# SPDX-License-Identifier: BSD-3-Clause
"""SqueezeNet."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Branched, Layers, normal
from fastconv.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["Fire", "SqueezeNet", "squeezenet"]

# The first convolution (channels, kernel), then the fire modules in order: channels of the squeezing layer and of
# each of the two expanding ones; "M" is max pooling.
_VERSIONS: dict[str, tuple[tuple[int, int], tuple[tuple[int, int] | str, ...]]] = {
    "1_0": (
        (96, 7),
        ("M", (16, 64), (16, 64), (32, 128), "M", (32, 128), (48, 192), (48, 192), (64, 256), "M", (64, 256)),
    ),
    "1_1": (
        (64, 3),
        ("M", (16, 64), (16, 64), "M", (32, 128), (32, 128), "M", (48, 192), (48, 192), (64, 256), (64, 256)),
    ),
}


class SqueezeNet(nn.Sequential):
    """See `squeezenet`."""

    preprocessing: Preprocessing = IMAGENET


class Fire(Branched):
    """A 1×1 convolution to few channels, then 1×1 and 3×3 convolutions of these side by side."""

    def __init__(self, layers: Layers, inputs: int, squeezed: int, expanded: int) -> None:
        self.squeeze = layers.conv(inputs, squeezed, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = layers.conv(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = layers.conv(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)
        self.join = nn.Concat()

    def before(self) -> tuple[nn.Module, ...]:
        return self.squeeze, self.squeeze_activation

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (self.expand1x1, self.expand1x1_activation), (self.expand3x3, self.expand3x3_activation)


def _he_uniform(weight: nn.Parameter, rng: np.random.Generator) -> None:
    nn.init.kaiming_uniform_(weight, rng=rng)


def squeezenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    version: str = "1_0",
    dropout: float = 0.5,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> SqueezeNet:
    """SqueezeNet: eight fire modules, and a 1×1 convolution for classifier.

    Parameters
    ----------
    num_classes, in_channels : int
    version : "1_0" or "1_1", keyword only
        The paper's network, or its authors' later one of the same accuracy and 2.4 times fewer operations.
    dropout : float, keyword only
        Probability of clearing an activation before the last convolution.
    dtype, rng
        See `fastconv.models`. As in torchvision, convolutions start from He's uniform distribution.

    Raises
    ------
    ValueError
        Another version.

    Returns
    -------
    SqueezeNet
        For inputs (N, in_channels, H, W), made for 224×224; at least 21×21, version 1_1 at least 17×17.
        1,248,424 parameters, version 1_1 1,235,496.

    Notes
    -----
    Source: Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer (2016), "SqueezeNet: AlexNet-level accuracy
    with 50x fewer parameters and <0.5MB model size", arXiv:1602.07360. The state dict is torchvision's
    of ``squeezenet1_0`` and ``squeezenet1_1``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> net = models.squeezenet(num_classes=10, rng=0).eval()
    >>> net.features(np.zeros((1, 3, 224, 224), np.float32)).shape
    (1, 512, 13, 13)
    """
    if version not in _VERSIONS:
        raise ValueError(f"version is {version!r}; it needs one of {', '.join(map(repr, _VERSIONS))}")
    layers = Layers(dtype, rng, conv_weights=_he_uniform)
    (channels, kernel), modules = _VERSIONS[version]
    features = nn.Sequential(layers.conv(in_channels, channels, kernel, 2), nn.ReLU(inplace=True))
    for module in modules:
        if isinstance(module, str):
            features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        else:
            features.append(Fire(layers, channels, *module))
            channels = 2 * module[1]
    last = Layers(dtype, layers.rng, conv_weights=normal).conv(channels, num_classes, 1)
    classifier = nn.Sequential(layers.dropout(dropout), last, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)))
    return SqueezeNet({"features": features, "classifier": classifier, "flatten": nn.Flatten()})
