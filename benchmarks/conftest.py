# SPDX-License-Identifier: BSD-3-Clause
"""Options, and the one fixture that times a function beside the machine's ceiling."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from fastconv.bench import peak
from fastconv.bench.shapes import NETWORKS, conv_layers, pool_layers
from fastconv.bench.timing import SETTLE


def pytest_addoption(parser):
    group = parser.getgroup("fastconv")
    group.addoption("--network", action="append", choices=NETWORKS, help="whose layers to run; repeatable (table)")
    group.addoption("--batch", type=int, default=1, help="images at a time (1)")
    group.addoption("--dtype", choices=("float32", "float64"), default="float32")


def pytest_generate_tests(metafunc):
    """A test that takes ``conv_layer`` or ``pool_layer`` runs for every one of the networks chosen."""
    for name, layers in (("conv_layer", conv_layers), ("pool_layer", pool_layers)):
        if name in metafunc.fixturenames:
            networks = metafunc.config.getoption("network") or ["table"]
            chosen = [layer for network in networks for layer in layers(network)]
            metafunc.parametrize(name, chosen, ids=[f"{layer.network}-{layer.name}" for layer in chosen])


@pytest.fixture
def batch(request) -> int:
    return request.config.getoption("batch")


@pytest.fixture
def dtype(request) -> str:
    return request.config.getoption("dtype")


@pytest.fixture(scope="session")
def memory() -> peak.Memory:
    return peak.Memory()


@pytest.fixture
def against_peak(benchmark, dtype) -> Callable[..., Any]:
    """Time a function that does so many floating-point operations, within a group."""

    def run(group: str, function: Callable[[], Any], flops: float) -> Any:
        return _timed(benchmark, group, function, flops, lambda: peak.fma_peak(dtype), "gflops", "share_of_peak")

    return run


@pytest.fixture
def against_memory(benchmark, memory) -> Callable[..., Any]:
    """Time a function that has to move so many bytes at least, within a group."""

    def run(group: str, function: Callable[[], Any], nbytes: float) -> Any:
        names = "gb_per_second", "share_of_bandwidth"
        return _timed(benchmark, group, function, nbytes, memory.bandwidth, *names)

    return run


def _timed(
    benchmark: Any,
    group: str,
    function: Callable[[], Any],
    work: float,
    ceiling: Callable[[], float],
    rate_name: str,
    share_name: str,
) -> Any:
    benchmark.group = group
    time.sleep(SETTLE)
    before = ceiling()
    result = benchmark(function)
    if benchmark.stats is not None:  # it is with --benchmark-disable
        rate = work / benchmark.stats.stats.median / 1e9
        benchmark.extra_info |= {rate_name: rate, share_name: rate / max(before, ceiling())}
    return result
