# SPDX-License-Identifier: BSD-3-Clause
"""The names by which the command line knows contenders, which it describes without loading them."""

from fastconv._names import only

__all__ = ["PEERS", "REFERENCES"]
__dir__ = only(__all__)

#: By the name of the package that has to be there, the module in ``contenders`` whose ``contenders`` makes them.
PEERS = {
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "numpy": "plain_numpy",
}

#: Forms of the NumPy reference, and their classes in ``contenders.plain_numpy``.
REFERENCES = {"loops": "NumpyLoops", "im2col": "NumpyIm2col"}
