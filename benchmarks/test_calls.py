# SPDX-License-Identifier: BSD-3-Clause
"""Calls whose work takes a fraction of a microsecond: what remains is the price of a call."""

import numpy as np
import pytest

import fastconv as fc

IMAGE, KERNEL, BIAS = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 3, 3), np.float32), np.ones(1, np.float32)
PLAN = fc.ConvPlan(IMAGE.shape, KERNEL, BIAS)
OUT = PLAN(IMAGE)
CALLS = {
    "conv2d": lambda: fc.conv2d(IMAGE, KERNEL),
    "conv2d with bias and padding": lambda: fc.conv2d(IMAGE, KERNEL, BIAS, padding=1),
    "conv2d with out": lambda: fc.conv2d(IMAGE, KERNEL, BIAS, out=OUT),
    "plan": lambda: PLAN(IMAGE),
    "plan with out": lambda: PLAN(IMAGE, out=OUT),
    "max_pool2d": lambda: fc.max_pool2d(IMAGE, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(benchmark, name):
    benchmark(CALLS[name])
