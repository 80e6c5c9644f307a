# SPDX-License-Identifier: BSD-3-Clause
"""Convolution and its neighbours in plain NumPy: to read, to test against, and to be faster than.

Every function has the name, the arguments and the meaning of its namesake in fastconv (and in
``torch.nn.functional``), on NumPy arrays of float32 or float64, and needs NumPy alone. There are
two convolutions: :func:`conv2d` takes one output pixel at a time, as textbooks do, and
:func:`conv2d_im2col` copies all patches into a matrix, which is the fastest that NumPy can do.
A gradient is called after the function and the argument it is taken by: :func:`conv2d_weight`.

The first textbook picture
--------------------------
An image of 5 x 5 pixels and one channel, and a kernel of 3 x 3:

>>> import numpy as np
>>> from fastconv import reference
>>> image = np.array([[1.0, 1.0, 1.0, 0.0, 0.0],
...                   [0.0, 1.0, 1.0, 1.0, 0.0],
...                   [0.0, 0.0, 1.0, 1.0, 1.0],
...                   [0.0, 0.0, 1.0, 1.0, 0.0],
...                   [0.0, 1.0, 1.0, 0.0, 0.0]])
>>> kernel = np.array([[1.0, 0.0, 1.0],
...                    [0.0, 1.0, 0.0],
...                    [1.0, 0.0, 1.0]])

The kernel is laid on the top left corner of the image; what lies on top of each other is
multiplied, and the nine products are summed. That is the first pixel of the result:

>>> image[0:3, 0:3] * kernel
array([[1., 0., 1.],
       [0., 1., 0.],
       [0., 0., 1.]])
>>> np.sum(image[0:3, 0:3] * kernel).item()
4.0

One step to the right gives the second pixel, one step down the first of the second row:

>>> np.sum(image[0:3, 1:4] * kernel).item()
3.0
>>> np.sum(image[1:4, 0:3] * kernel).item()
2.0

The kernel fits in three places along either axis, so the result has 3 x 3 pixels. An image is
(channels, height, width) and a set of kernels is (kernels, channels, height, width):

>>> reference.conv2d(image.reshape(1, 5, 5), kernel.reshape(1, 1, 3, 3))
array([[[4., 3., 4.],
        [2., 4., 3.],
        [2., 3., 4.]]])

The second textbook picture
---------------------------
An image of M x N pixels and three channels, red, green and blue; here M = 4 and N = 5:

>>> red = [[156, 155, 156, 158, 158],
...        [153, 154, 157, 159, 159],
...        [149, 151, 155, 158, 159],
...        [146, 146, 149, 153, 158]]
>>> green = [[167, 166, 167, 169, 169],
...          [164, 165, 168, 170, 170],
...          [160, 162, 166, 169, 170],
...          [156, 156, 159, 163, 168]]
>>> blue = [[163, 162, 163, 165, 165],
...         [160, 161, 164, 166, 166],
...         [156, 158, 162, 165, 166],
...         [155, 155, 158, 162, 167]]
>>> image = np.array([red, green, blue], dtype=float)

The kernel has three channels too, 3 x 3 x 3, and there is one number more, the bias:

>>> kernel = np.array([[[-1, -1, 1], [0, 1, -1], [0, 1, 1]],
...                    [[1, 0, 0], [1, -1, -1], [1, 0, -1]],
...                    [[0, 1, 1], [0, 1, 0], [1, -1, 1]]], dtype=float)
>>> bias = np.array([1.0])

A border of zeros, the padding, lets the middle of the kernel stand on every pixel. In the top left
corner each channel of the kernel meets its own channel of the image, and gives one number:

>>> padded = np.pad(image, [(0, 0), (1, 1), (1, 1)])
>>> per_channel = (padded[:, 0:3, 0:3] * kernel).sum(axis=(1, 2))
>>> per_channel
array([ 308., -498.,  164.])

The three channels are summed, the bias is added, and three channels have become one:

>>> per_channel.sum() + bias
array([-25.])
>>> output = reference.conv2d(image, kernel[np.newaxis], bias, padding=1)
>>> output.shape
(1, 4, 5)
>>> output
array([[[-25., 466., 466., 475., 653.],
        [295., 787., 798., 812., 671.],
        [291., 776., 784., 800., 659.],
        [160., 329., 330., 329., 339.]]])

A second kernel would give a second channel, and so on: a layer of 64 kernels makes an image with 64
channels out of one with three.
"""

from .conv import conv2d, conv2d_bias, conv2d_im2col, conv2d_input, conv2d_weight
from .layers import (
    batch_norm,
    cross_entropy,
    group_norm,
    hardswish,
    instance_norm,
    layer_norm,
    linear,
    local_response_norm,
    log_softmax,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
)
from .pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_input,
    adaptive_max_pool2d,
    avg_pool2d,
    avg_pool2d_input,
    global_avg_pool,
    global_max_pool,
    max_pool2d,
    max_pool2d_input,
)
from .resize import interpolate

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_input",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "avg_pool2d_input",
    "batch_norm",
    "conv2d",
    "conv2d_bias",
    "conv2d_im2col",
    "conv2d_input",
    "conv2d_weight",
    "cross_entropy",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "hardswish",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "max_pool2d_input",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
]
__dir__ = __all__.copy
