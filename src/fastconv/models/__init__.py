# SPDX-License-Identifier: BSD-3-Clause
"""Networks, as functions that build them: ``model(num_classes=..., in_channels=...)``.

Each is a `fastconv.nn.Sequential` whose parts are called ``features`` and ``classifier``, with
``avgpool`` and ``flatten`` between them. Where torchvision has the model, the keys and shapes of
the state dict are torchvision's, so its weights load as they are. Every function takes ``rng`` (a
`numpy.random.Generator` or a seed) for the initial weights and dropout, and ``dtype`` for the
parameters.

>>> from fastconv import models
>>> net = models.lenet5(rng=0)
>>> sum(p.size for p in net.parameters())
61706
"""

from fastconv._names import only
from fastconv.models._alexnet import AlexNet, ZFNet, alexnet, zfnet
from fastconv.models._lenet import LeNet5, lenet5
from fastconv.models._vgg import VGG, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "VGG",
    "AlexNet",
    "LeNet5",
    "ZFNet",
    "alexnet",
    "lenet5",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "zfnet",
]
__dir__ = only(__all__)
