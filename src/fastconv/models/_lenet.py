# SPDX-License-Identifier: BSD-3-Clause
"""LeNet-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.models._parts import Layers
from fastconv.models._preprocessing import Preprocessing

__all__ = ["LeNet5", "lenet5"]


class LeNet5(nn.Sequential):
    """See `lenet5`."""

    #: White, 0, becomes -0.1 and ink, 1, becomes 1.175, as in the paper.
    preprocessing: Preprocessing = Preprocessing(32, 32, (0.1 / 1.275,), (1 / 1.275,))


def lenet5(
    num_classes: int = 10,
    in_channels: int = 1,
    *,
    image_size: int = 32,
    channels: tuple[int, int] = (6, 16),
    activation: Callable[[], nn.Module] = nn.Tanh,
    pool: Callable[[int], nn.Module] = nn.AvgPool2d,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> LeNet5:
    """LeNet-5: two convolutions, each followed by pooling, and three fully connected layers.

    Parameters
    ----------
    num_classes, in_channels : int
    image_size : int, keyword only
        Height and width of the input. From 28 on the kernels are the paper's 5×5 (images of 28 are
        padded to the paper's 32); smaller images, from 4 on, get 3×3 kernels that keep the size.
    channels : pair of int, keyword only
        Output channels of the two convolutions.
    activation : callable, keyword only
        Makes a new activation; `fastconv.nn.ReLU` is today's choice.
    pool : callable, keyword only
        Makes a new pooling layer of window 2; `fastconv.nn.MaxPool2d` is today's choice.
    dtype, rng
        See `fastconv.models`.

    Raises
    ------
    ValueError
        An image smaller than 4.

    Returns
    -------
    LeNet5
        For inputs (N, in_channels, 32, 32).

    Notes
    -----
    Source: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document
    recognition". As is usual today every second-layer map sees all six first-layer maps, pooling
    has no parameters, and the output layer is linear.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> models.lenet5(image_size=8)(np.zeros((1, 1, 8, 8), np.float32)).shape
    (1, 10)
    """
    if image_size < 4:
        raise ValueError(f"image_size is {image_size}; it needs to be at least 4")
    layers = Layers(dtype, rng)
    first, second = channels
    if image_size >= 28:
        kernel, border, side = 5, (2 if image_size == 28 else 0, 0), image_size
        for padding in border:
            side = (side + 2 * padding - kernel + 1) // 2
    else:
        kernel, border, side = 3, (1, 1), image_size // 4

    def conv(inputs: int, outputs: int, padding: int) -> nn.Conv2d:
        return layers.conv(inputs, outputs, kernel, padding=padding)

    features = nn.Sequential(
        conv(in_channels, first, border[0]),
        activation(),
        pool(2),
        conv(first, second, border[1]),
        activation(),
        pool(2),
    )
    classifier = nn.Sequential(
        layers.linear(second * side * side, 120),
        activation(),
        layers.linear(120, 84),
        activation(),
        layers.linear(84, num_classes),
    )
    net = LeNet5({"features": features, "flatten": nn.Flatten(), "classifier": classifier})
    net.preprocessing = net.preprocessing._replace(resize=image_size, crop=image_size)
    return net
