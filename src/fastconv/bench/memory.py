# SPDX-License-Identifier: BSD-3-Clause
"""How much memory a contender takes, whoever it is: the growth of a process that does nothing else.

Linux keeps the highest size that a process has had and lets it be reset. Each measurement has a
process of its own, since freed memory stays with a process and would hide the next one's. They are
forked from one that has the libraries loaded but has not yet started their threads.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import Case, case_of
from fastconv.bench.contenders import Contender
from fastconv.bench.networks import Network, network
from fastconv.bench.shapes import Layer, conv_layers, pool_layers

__all__ = ["PeakMemory"]
__dir__ = only(__all__)

_SELF = Path("/proc/self")


class PeakMemory:
    """Measures contenders; to be used in a ``with`` statement.

    Parameters
    ----------
    contenders : iterable of Contender
        Whose modules to load once.

    Raises
    ------
    OSError
        If the system does not tell.
    """

    def __init__(self, contenders: Iterable[Contender]) -> None:
        if not (_SELF / "clear_refs").exists():
            raise OSError("peak memory needs Linux: there is no /proc/self/clear_refs")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *sorted({type(c).__module__ for c in contenders})])
        self._pool = ProcessPoolExecutor(1, context, max_tasks_per_child=1)

    def __call__(self, contender: Contender, case: Case) -> int:
        """Bytes by which preparing and running grows a process beyond input and weights.

        The process has run a tiny layer before: what the library takes for itself is not the layer's.
        """
        task = contender, case.layer, case.batch, case.dtype.name, fc.get_num_threads(), case.kind == "gradients"
        return self._pool.submit(_growth, *task).result()

    def __enter__(self) -> PeakMemory:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()


def _growth(contender: Contender, layer: Layer | Network, batch: int, dtype: str, threads: int, training: bool) -> int:
    with fc.threads(threads):
        contender.prepare(case_of(_tiny(layer), 1, dtype, training=training)).run()
        case = case_of(layer, batch, dtype, training=training)
        case.input("NCHW" if isinstance(layer, Network) else contender.layout)
        contender.translate(case)
        (_SELF / "clear_refs").write_text("5")  # resets VmHWM to VmRSS
        before = _kibibytes("VmRSS")
        ready = contender.prepare(case)
        for _ in range(2):
            ready.run()
        return 1024 * max(0, _kibibytes("VmHWM") - before)


def _tiny(layer: Layer | Network) -> Layer | Network:
    """A small one of the same sort."""
    if isinstance(layer, Network):
        return network("lenet5")
    return (conv_layers if layer.arithmetic else pool_layers)("lenet5")[0]


def _kibibytes(name: str) -> int:
    for line in (_SELF / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")
