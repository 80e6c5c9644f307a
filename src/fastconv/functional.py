# SPDX-License-Identifier: BSD-3-Clause
"""The functional surface: names, argument order and meaning of ``torch.nn.functional``, on NumPy arrays."""

from fastconv._names import only
from fastconv.ops.activation import hardswish, leaky_relu, relu, relu6, sigmoid, silu, tanh
from fastconv.ops.avg_pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    global_avg_pool,
)
from fastconv.ops.conv import conv1d, conv2d, conv3d
from fastconv.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from fastconv.ops.dropout import dropout
from fastconv.ops.interpolate import interpolate
from fastconv.ops.layer_norm import group_norm, instance_norm, layer_norm
from fastconv.ops.linear import linear
from fastconv.ops.loss import cross_entropy, mse_loss
from fastconv.ops.lp_pool import lp_pool1d, lp_pool2d, lp_pool3d
from fastconv.ops.max_pool import (
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    global_max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from fastconv.ops.max_unpool import max_unpool1d, max_unpool2d, max_unpool3d
from fastconv.ops.norm import batch_norm, local_response_norm
from fastconv.ops.pad import pad
from fastconv.ops.softmax import log_softmax, softmax

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "hardswish",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mse_loss",
    "pad",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]
__dir__ = only(__all__)
