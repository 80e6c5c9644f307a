# SPDX-License-Identifier: BSD-3-Clause
"""Pooling forward, against the bandwidth of memory and against the floor of its own footprint.

The floor of a pooling is the time to read as many bytes as its input and its output have together,
over and over: from the caches if they fit. One thread or all, whichever is quicker. Positions of
maxima, eight bytes each, are not counted.
"""

import time

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench.cases import PoolCase
from fastconv.bench.contenders import FastConv
from fastconv.bench.peak import Memory


def floor_seconds(nbytes: float, repeats: int = 20) -> float:
    """Read so many bytes with NumPy's maximum, by one thread and by all of them."""
    source = np.ones(int(nbytes) // 4, np.float32)
    best = nbytes / Memory(fc.get_num_threads(), int(nbytes)).bandwidth(repeats) / 1e9
    for _ in range(repeats):
        start = time.perf_counter()
        np.maximum.reduce(source)
        best = min(best, time.perf_counter() - start)
    return best


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pooling(against_memory, benchmark, pool_layer, batch, dtype, layout):
    case = PoolCase(pool_layer, batch, dtype)
    ready = FastConv(layout).prepare(case)
    group = f"{pool_layer.network} {pool_layer.name}: {pool_layer.label}"
    nbytes = pool_layer.traffic(case.dtype.itemsize, batch)
    floor = floor_seconds(nbytes)
    result = against_memory(group, ready.run, nbytes)
    if benchmark.stats is not None:  # it is with --benchmark-disable
        benchmark.extra_info["times_of_floor"] = benchmark.stats.stats.median / floor
    assert case.error(result, layout) < 1e-6
