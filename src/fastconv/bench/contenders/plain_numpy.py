# SPDX-License-Identifier: BSD-3-Clause
"""NumPy alone: :mod:`fastconv.reference`, in the layout that suits it best."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable

import numpy as np

from fastconv import reference
from fastconv._names import only
from fastconv.bench.cases import ConvCase, PoolCase
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["NumpyIm2col", "NumpyLoops", "contenders"]
__dir__ = only(__all__)


class NumpyLoops(Contender):
    """One output pixel at a time, as in a textbook."""

    name = "NumPy loops"
    slow = True

    def conv(self, case: ConvCase) -> Prepared:
        x, arguments = case.input(self.layout), case.layer.arguments
        return Prepared(lambda: reference.conv2d(x, case.weight, case.bias, **arguments))

    def pool(self, case: PoolCase) -> Prepared:
        x, arguments = case.input(self.layout), case.layer.arguments
        pool: Callable[..., np.ndarray] = reference.max_pool2d if case.layer.kind == "max" else reference.avg_pool2d
        return Prepared(lambda: pool(x, **arguments))


class NumpyIm2col(Contender):
    """All patches in one matrix, multiplied by NumPy's BLAS (OpenBLAS, as a rule)."""

    name = "NumPy im2col"

    def conv(self, case: ConvCase) -> Prepared:
        x, arguments = case.input(self.layout), case.layer.arguments

        def run() -> np.ndarray:
            return reference.conv2d_im2col(x, case.weight, case.bias, **arguments)

        return Prepared(run, workspace_bytes=_extra_bytes(run), threads=_blas_threads())


def contenders() -> list[Contender]:
    """The form that is a peer."""
    return [NumpyIm2col()]


def _blas_threads() -> Callable[[], int] | None:
    """Asks NumPy's BLAS, where threadpoolctl is installed."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import ThreadpoolController

    # Of several libraries of that kind, SciPy's and others', NumPy's is not told apart.
    pools = ThreadpoolController().select(user_api="blas").lib_controllers
    return (lambda: max(pool.num_threads for pool in pools)) if pools else None


def _extra_bytes(run: Callable[[], np.ndarray]) -> int:
    """Memory of NumPy that a call takes beyond its result."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = run()
        return max(0, tracemalloc.get_traced_memory()[1] - before - result.nbytes)
    finally:
        tracemalloc.stop()
