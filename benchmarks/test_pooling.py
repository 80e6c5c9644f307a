# SPDX-License-Identifier: BSD-3-Clause
"""Pooling forward, against the bandwidth of memory."""

import pytest

from fastconv.bench.cases import PoolCase
from fastconv.bench.contenders import FastConv


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pooling(against_memory, pool_layer, batch, dtype, layout):
    case = PoolCase(pool_layer, batch, dtype)
    ready = FastConv(layout).prepare(case)
    group = f"{pool_layer.network} {pool_layer.name}: {pool_layer.label}"
    result = against_memory(group, ready.run, pool_layer.traffic(case.dtype.itemsize, batch))
    assert case.error(result, layout) < 1e-6
