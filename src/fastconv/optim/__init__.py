# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers, learning-rate schedules, and means of weights, with the names and formulas of `torch.optim`.

>>> import numpy as np
>>> from fastconv import nn, optim
>>> p = nn.Parameter([1.0, 2.0])
>>> p.accumulate(np.array([1.0, -1.0]))
>>> optim.SGD([p], lr=0.5).step()
>>> p.value
array([0.5, 2.5])
"""

from fastconv._names import only
from fastconv.optim.average import EMA
from fastconv.optim.optimizer import SGD, Adam, AdamW, Optimizer
from fastconv.optim.schedule import CosineAnnealingLR, LinearLR, MultiStepLR, OneCycleLR, Schedule, SequentialLR, StepLR

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "Schedule",
    "SequentialLR",
    "StepLR",
]
__dir__ = only(__all__)
