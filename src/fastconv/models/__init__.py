# SPDX-License-Identifier: BSD-3-Clause
"""Networks, as functions that build them: ``model(num_classes=..., in_channels=...)``.

Each is a chain of `fastconv.nn` modules (a `fastconv.nn.Sequential`, but for GoogLeNet, whose auxiliary heads
branch off), with gradients. Where torchvision has the model, the keys and shapes of the state dict are
torchvision's, so its weights load as they are. Every function takes ``rng`` (a `numpy.random.Generator` or a seed)
for the initial weights and dropout, and ``dtype`` for the parameters. What a network returns are logits.

``model.preprocessing`` says how it was trained to see images; `names` and `get` find a model by its name.

>>> from fastconv import models
>>> net = models.lenet5(rng=0)
>>> sum(p.size for p in net.parameters())
61706
>>> net.preprocessing.crop
32
"""

from fastconv._names import only
from fastconv.models._alexnet import AlexNet, alexnet
from fastconv.models._densenet import DenseNet, densenet121
from fastconv.models._googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from fastconv.models._lenet import LeNet5, lenet5
from fastconv.models._mobilenet_v1 import MobileNetV1, mobilenet_v1
from fastconv.models._mobilenet_v2 import MobileNetV2, mobilenet_v2
from fastconv.models._preprocessing import Preprocessing
from fastconv.models._registry import get, names
from fastconv.models._resnet import ResNet, resnet18, resnet34, resnet50
from fastconv.models._squeezenet import SqueezeNet, squeezenet
from fastconv.models._vgg import VGG, vgg11, vgg13, vgg16, vgg19
from fastconv.models._zfnet import ZFNet, zfnet

__all__ = [
    "VGG",
    "AlexNet",
    "DenseNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "LeNet5",
    "MobileNetV1",
    "MobileNetV2",
    "Preprocessing",
    "ResNet",
    "SqueezeNet",
    "ZFNet",
    "alexnet",
    "densenet121",
    "get",
    "googlenet",
    "lenet5",
    "mobilenet_v1",
    "mobilenet_v2",
    "names",
    "resnet18",
    "resnet34",
    "resnet50",
    "squeezenet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "zfnet",
]
__dir__ = only(__all__)
