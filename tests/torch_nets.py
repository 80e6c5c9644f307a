# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of fastconv.torch share: a network, its images, and how close is close."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastconv.torch as ft


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    ft.report(reset=True)


def close(a, b, terms=600):
    a, b = a.detach(), b.detach()
    scale = max(1.0, float(b.abs().max()))
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= 2**-22 * terms**0.5 * 4 * scale


def laid_out(x, last):
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.to(memory_format=forms[x.ndim]) if last and x.ndim in forms else x


class Net(nn.Module):
    """Convolutions of several kinds with batch norm, a residual, pooling and a classifier."""

    def __init__(self, depthwise=True):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.one, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1, groups=8 if depthwise else 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.pool(self.first(x))
        x = F.relu(self.two(F.relu(self.norm(self.one(x)))) + x)
        x = F.avg_pool2d(self.up(x), 2)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def images(n=2):
    return torch.randn(n, 3, 32, 32)
