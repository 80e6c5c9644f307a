# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of the functional surface, named after their operators; convolutions as in ``torch.nn.grad``."""

from fastconv._names import only
from fastconv.ops.activation import hardswish_grad as hardswish
from fastconv.ops.activation import leaky_relu_grad as leaky_relu
from fastconv.ops.activation import relu6_grad as relu6
from fastconv.ops.activation import relu_grad as relu
from fastconv.ops.activation import sigmoid_grad as sigmoid
from fastconv.ops.activation import silu_grad as silu
from fastconv.ops.activation import tanh_grad as tanh
from fastconv.ops.avg_pool import adaptive_avg_pool1d_grad as adaptive_avg_pool1d
from fastconv.ops.avg_pool import adaptive_avg_pool2d_grad as adaptive_avg_pool2d
from fastconv.ops.avg_pool import adaptive_avg_pool3d_grad as adaptive_avg_pool3d
from fastconv.ops.avg_pool import avg_pool1d_grad as avg_pool1d
from fastconv.ops.avg_pool import avg_pool2d_grad as avg_pool2d
from fastconv.ops.avg_pool import avg_pool3d_grad as avg_pool3d
from fastconv.ops.avg_pool import global_avg_pool_grad as global_avg_pool
from fastconv.ops.conv import (
    conv1d_input,
    conv1d_weight,
    conv2d_input,
    conv2d_weight,
    conv3d_input,
    conv3d_weight,
)
from fastconv.ops.conv_grad import conv1d_grad as conv1d
from fastconv.ops.conv_grad import conv2d_grad as conv2d
from fastconv.ops.conv_grad import conv3d_grad as conv3d
from fastconv.ops.conv_grad import conv_transpose1d_grad as conv_transpose1d
from fastconv.ops.conv_grad import conv_transpose2d_grad as conv_transpose2d
from fastconv.ops.conv_grad import conv_transpose3d_grad as conv_transpose3d
from fastconv.ops.conv_transpose import (
    conv_transpose1d_input,
    conv_transpose1d_weight,
    conv_transpose2d_input,
    conv_transpose2d_weight,
    conv_transpose3d_input,
    conv_transpose3d_weight,
)
from fastconv.ops.dropout import dropout_grad as dropout
from fastconv.ops.interpolate import interpolate_grad as interpolate
from fastconv.ops.layer_norm import group_norm_grad as group_norm
from fastconv.ops.layer_norm import instance_norm_grad as instance_norm
from fastconv.ops.layer_norm import layer_norm_grad as layer_norm
from fastconv.ops.linear import linear_grad as linear
from fastconv.ops.loss import cross_entropy_grad as cross_entropy
from fastconv.ops.loss import mse_loss_grad as mse_loss
from fastconv.ops.lp_pool import lp_pool1d_grad as lp_pool1d
from fastconv.ops.lp_pool import lp_pool2d_grad as lp_pool2d
from fastconv.ops.lp_pool import lp_pool3d_grad as lp_pool3d
from fastconv.ops.max_pool import adaptive_max_pool1d_grad as adaptive_max_pool1d
from fastconv.ops.max_pool import adaptive_max_pool2d_grad as adaptive_max_pool2d
from fastconv.ops.max_pool import adaptive_max_pool3d_grad as adaptive_max_pool3d
from fastconv.ops.max_pool import global_max_pool_grad as global_max_pool
from fastconv.ops.max_pool import max_pool1d_grad as max_pool1d
from fastconv.ops.max_pool import max_pool2d_grad as max_pool2d
from fastconv.ops.max_pool import max_pool3d_grad as max_pool3d
from fastconv.ops.max_unpool import max_unpool1d_grad as max_unpool1d
from fastconv.ops.max_unpool import max_unpool2d_grad as max_unpool2d
from fastconv.ops.max_unpool import max_unpool3d_grad as max_unpool3d
from fastconv.ops.norm import batch_norm_grad as batch_norm
from fastconv.ops.norm import local_response_norm_grad as local_response_norm
from fastconv.ops.pad import pad_grad as pad
from fastconv.ops.softmax import log_softmax_grad as log_softmax
from fastconv.ops.softmax import softmax_grad as softmax

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
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
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
