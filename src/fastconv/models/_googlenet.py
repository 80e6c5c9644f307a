# SPDX-License-Identifier: BSD-3-Clause
"""GoogLeNet."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv import _args, nn
from fastconv.models._parts import Branched, Layers, normal
from fastconv.models._preprocessing import Preprocessing
from fastconv.nn.container import back_through, summed, through

__all__ = ["GoogLeNet", "GoogLeNetOutputs", "Inception", "googlenet"]

# Input channels, then those of 1×1, 3×3 reduced, 3×3, 5×5 reduced, 5×5, and of the pooling's projection: the
# paper's table 1.
_INCEPTIONS = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """What `googlenet` returns in training mode, and the form of the gradients that go back into it.

    Attributes
    ----------
    logits : numpy.ndarray (N, num_classes)
    aux_logits2, aux_logits1 : numpy.ndarray (N, num_classes)
        Of the heads behind inception 4d and 4a. A gradient that is None counts as zero.
    """

    logits: Any
    aux_logits2: Any
    aux_logits1: Any


def _conv(layers: Layers, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, batch norm and ReLU, by torchvision's names."""
    conv = layers.conv(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential({"conv": conv, "bn": layers.norm(outputs), "relu": nn.ReLU(inplace=True)})


class Inception(Branched):
    """1×1, 3×3 and (see `googlenet`) 5×5 convolutions and max pooling side by side: figure 2b of the paper."""

    def __init__(
        self, layers: Layers, inputs: int, one: int, reduced3: int, three: int, reduced5: int, five: int, pool: int
    ) -> None:
        self.branch1 = _conv(layers, inputs, one, 1)
        self.branch2 = nn.Sequential(_conv(layers, inputs, reduced3, 1), _conv(layers, reduced3, three, 3))
        self.branch3 = nn.Sequential(_conv(layers, inputs, reduced5, 1), _conv(layers, reduced5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), _conv(layers, inputs, pool, 1))
        self.join = nn.Concat()

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (self.branch1,), (self.branch2,), (self.branch3,), (self.branch4,)


def _auxiliary(layers: Layers, inputs: int, num_classes: int, dropout: float) -> nn.Sequential:
    """A classifier of its own for what comes out half-way, so that gradients reach the layers before it."""
    return nn.Sequential(
        {
            "avgpool": nn.AdaptiveAvgPool2d((4, 4)),
            "conv": _conv(layers, inputs, 128, 1),
            "flatten": nn.Flatten(),
            "fc1": layers.linear(128 * 4 * 4, 1024),
            "relu": nn.ReLU(inplace=True),
            "dropout": layers.dropout(dropout),
            "fc2": layers.linear(1024, num_classes),
        }
    )


class GoogLeNet(nn.Module):
    """See `googlenet`."""

    #: torchvision's weights come from TensorFlow, where pixels were scaled to the range from -1 to 1; its
    #: ``transform_input`` amounts to this.
    preprocessing: Preprocessing = Preprocessing(256, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(
        self,
        layers: Layers,
        num_classes: int,
        in_channels: int,
        aux_logits: bool,
        dropout: float,
        dropout_aux: float,
    ) -> None:
        def inception(name: str) -> Inception:
            return Inception(layers, *_INCEPTIONS[name])

        def pool(size: int) -> nn.MaxPool2d:
            return nn.MaxPool2d(size, 2, ceil_mode=True)

        self.conv1 = _conv(layers, in_channels, 64, 7, 2)
        self.maxpool1 = pool(3)
        self.conv2 = _conv(layers, 64, 64, 1)
        self.conv3 = _conv(layers, 64, 192, 3)
        self.maxpool2 = pool(3)
        self.inception3a = inception("inception3a")
        self.inception3b = inception("inception3b")
        self.maxpool3 = pool(3)
        self.inception4a = inception("inception4a")
        self.inception4b = inception("inception4b")
        self.inception4c = inception("inception4c")
        self.inception4d = inception("inception4d")
        self.inception4e = inception("inception4e")
        self.maxpool4 = pool(2)
        self.inception5a = inception("inception5a")
        self.inception5b = inception("inception5b")
        self.aux1 = _auxiliary(layers, 512, num_classes, dropout_aux) if aux_logits else None
        self.aux2 = _auxiliary(layers, 528, num_classes, dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.flatten = nn.Flatten()
        self.dropout = layers.dropout(dropout)
        self.fc = layers.linear(1024, num_classes)

    def _to_first(self) -> tuple[nn.Module, ...]:
        """The modules before the place of the first auxiliary head."""
        stem = (self.conv1, self.maxpool1, self.conv2, self.conv3, self.maxpool2)
        return *stem, self.inception3a, self.inception3b, self.maxpool3, self.inception4a

    def _to_second(self) -> tuple[nn.Module, ...]:
        return self.inception4b, self.inception4c, self.inception4d

    def _to_end(self) -> tuple[nn.Module, ...]:
        blocks = (self.inception4e, self.maxpool4, self.inception5a, self.inception5b)
        return *blocks, self.avgpool, self.flatten, self.dropout, self.fc

    def forward(self, input: Any) -> Any:
        """The logits; in training mode with auxiliary heads, `GoogLeNetOutputs`."""
        first = through(self._to_first(), input)
        second = through(self._to_second(), first)
        logits = through(self._to_end(), second)
        if not self.training or self.aux1 is None or self.aux2 is None:
            return logits
        return GoogLeNetOutputs(logits, self.aux2(second), self.aux1(first))

    def backward(self, grad_output: Any) -> np.ndarray | Any:
        """The gradient of the input, from that of the logits or, with auxiliary heads, from `GoogLeNetOutputs`."""
        gradients = self._gradients(grad_output)
        below_end = back_through(self._to_end(), gradients.logits)
        below_second = _joined(below_end, self.aux2, gradients.aux_logits2)
        below_second = back_through(self._to_second(), below_second)
        below_first = _joined(below_second, self.aux1, gradients.aux_logits1)
        return back_through(self._to_first(), below_first, self.needs_input_grad)

    def _gradients(self, grad_output: Any) -> GoogLeNetOutputs:
        if self.aux1 is None:
            return GoogLeNetOutputs(grad_output, None, None)
        if not isinstance(grad_output, (tuple, list)) or len(grad_output) != 3:
            raise TypeError(
                f"grad_output is {_args.said(grad_output)}; with auxiliary heads it needs the gradients of "
                "logits, aux_logits2 and aux_logits1, as a GoogLeNetOutputs"
            )
        return GoogLeNetOutputs(*grad_output)


def _joined(gradient: np.ndarray, head: nn.Module | None, of_head: np.ndarray | None) -> np.ndarray:
    """The gradient of what the trunk and an auxiliary head both read."""
    if head is None or of_head is None:
        return gradient
    return summed((gradient, back_through((head,), of_head)))


def googlenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    aux_logits: bool = True,
    dropout: float = 0.2,
    dropout_aux: float = 0.7,
    dtype: Any = None,
    rng: np.random.Generator | int | None = None,
) -> GoogLeNet:
    """GoogLeNet: nine inception modules, each four branches side by side, and two auxiliary heads for training.

    Parameters
    ----------
    num_classes, in_channels : int
    aux_logits : bool, keyword only
        Whether to have the auxiliary heads. They work in training mode alone: the network then returns
        `GoogLeNetOutputs`, and its `backward` takes gradients in that form.
    dropout, dropout_aux : float, keyword only
        Probability of clearing an activation before the classifier, and within the auxiliary heads.
    dtype, rng
        See `fastconv.models`. As in torchvision, weights start from a normal distribution of standard
        deviation 0.01.

    Returns
    -------
    GoogLeNet
        For inputs (N, in_channels, H, W), made for 224×224: feature maps of 112, 56, 28, 14 and 7, as in
        table 1 of the paper; at least 15×15. 13,004,888 parameters, 6,624,904 without auxiliary heads.

    Notes
    -----
    Source: Szegedy et al. (2014), "Going deeper with convolutions", arXiv:1409.4842. The state dict and the form
    are torchvision's: batch norm after each convolution (with 0.001 for its eps) in place of response
    normalisation, and 3×3 kernels where the paper has 5×5.

    Examples
    --------
    One step of training; the paper gives the auxiliary heads' losses a weight of 0.3:

    >>> import numpy as np
    >>> from fastconv import models, nn
    >>> net = models.googlenet(num_classes=4, rng=0)
    >>> x, target = np.ones((2, 3, 32, 32), np.float32), np.array([0, 3])
    >>> losses, weights = [nn.CrossEntropyLoss() for _ in range(3)], (1.0, 0.3, 0.3)
    >>> outputs = net(x)
    >>> error = sum(w * loss(y, target) for w, loss, y in zip(weights, losses, outputs))
    >>> net.backward([loss.backward(w) for w, loss in zip(weights, losses)]).shape
    (2, 3, 32, 32)
    >>> net.eval()(x).shape
    (2, 4)
    """
    layers = Layers(dtype, rng, conv_weights=normal, linear_weights=normal, eps=0.001)
    return GoogLeNet(layers, num_classes, in_channels, aux_logits, dropout, dropout_aux)
