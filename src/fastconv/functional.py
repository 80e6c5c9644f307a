# SPDX-License-Identifier: BSD-3-Clause
"""The functional surface: names, argument order and meaning of ``torch.nn.functional``, on NumPy arrays."""

from fastconv.ops.activation import (
    dropout,
    hardswish,
    leaky_relu,
    log_softmax,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    tanh,
)
from fastconv.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from fastconv.ops.linear import linear
from fastconv.ops.loss import cross_entropy, mse_loss
from fastconv.ops.norm import batch_norm, local_response_norm
from fastconv.ops.pad import pad
from fastconv.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    global_avg_pool,
    global_max_pool,
    max_pool2d,
)

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
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
    "hardswish",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "pad",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]
