# SPDX-License-Identifier: BSD-3-Clause
"""The names by which the command line knows contenders, which it describes without loading them."""

from fastconv._names import only

__all__ = ["MODELS", "PEERS", "REFERENCES", "TRAINERS"]
__dir__ = only(__all__)

#: By the name of the package that has to be there, the module in ``contenders`` whose ``contenders`` makes them.
PEERS = {
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "numpy": "plain_numpy",
}

#: Peers that have gradients.
TRAINERS = ("torch",)

#: Forms of the NumPy reference, and their classes in ``contenders.plain_numpy``.
REFERENCES = {"loops": "NumpyLoops", "im2col": "NumpyIm2col"}

#: Whole networks, in the order of tables.
MODELS = (
    *("vgg16", "resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "googlenet"),
    *("squeezenet", "densenet121", "alexnet", "unet", "lenet5"),
)
