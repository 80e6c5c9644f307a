# SPDX-License-Identifier: BSD-3-Clause
"""Layers with the class names, constructor arguments and state-dict keys of `torch.nn`.

Every layer computes its result with `fastconv.functional` and its gradient with `fastconv.grad`;
`Module` explains the two methods it takes to write another.

Examples
--------
One step of training:

>>> import numpy as np, fastconv.nn as nn
>>> from fastconv.optim import SGD
>>> rng = np.random.default_rng(0)
>>> net = nn.Sequential(
...     nn.Conv2d(1, 4, 3, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2, rng=rng)
... )
>>> net.needs_input_grad = False
>>> loss, optimizer = nn.CrossEntropyLoss(), SGD(net.parameters(), lr=0.01)
>>> x, target = np.ones((5, 1, 8, 8), np.float32), np.array([0, 1, 1, 1, 0])
>>> before = loss(net(x), target)
>>> net.zero_grad()
>>> net.backward(loss.backward())
>>> optimizer.step()
>>> bool(loss(net(x), target) < before)
True
"""

from fastconv._names import only
from fastconv.nn import init, utils
from fastconv.nn.activation import Dropout, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Softmax, Tanh
from fastconv.nn.container import Add, Concat, Sequential
from fastconv.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from fastconv.nn.layer_norm import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, LayerNorm
from fastconv.nn.linear import Flatten, Identity, Linear
from fastconv.nn.loss import CrossEntropyLoss, MSELoss
from fastconv.nn.lp_pool import LPPool1d, LPPool2d, LPPool3d
from fastconv.nn.max_unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
from fastconv.nn.module import LoadResult, Module, StateDictError
from fastconv.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, LocalResponseNorm
from fastconv.nn.parameter import Buffer, Parameter
from fastconv.nn.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from fastconv.nn.upsample import Upsample

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Buffer",
    "Concat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GroupNorm",
    "Hardswish",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LoadResult",
    "LocalResponseNorm",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Module",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "StateDictError",
    "Tanh",
    "Upsample",
    "init",
    "utils",
]
__dir__ = only(__all__)
