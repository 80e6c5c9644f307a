# SPDX-License-Identifier: BSD-3-Clause
"""What runs the kernels: the instruction set and the number of threads.

``FASTCONV_ISA`` caps the instruction set. The number of threads is, in this order, what
:func:`set_num_threads` or :func:`threads` asked for, ``FASTCONV_NUM_THREADS``, ``OMP_NUM_THREADS``,
and the CPUs that affinity and cgroup quota leave to this process. Of a forked worker, which is one
of many, that is one thread if it imports fastconv itself; of a build without OpenMP it always is.
"""

from __future__ import annotations

import contextvars
import math
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastconv import _args, _core

# Each cap admits the instruction sets below it on its own architecture.
_FAMILIES = (("scalar", "avx2", "avx512"), ("scalar", "neon"))
_MAX_THREADS = 256


def _isa_number(cap: str | None) -> int:
    """The best instruction set here that does not exceed the cap."""
    known = {name: (number, usable) for number, (name, _, usable) in enumerate(_core.isas())}
    if cap is None or cap == "":
        return _core.best_isa()
    usable = [name for name, (_, here) in known.items() if here]
    if cap not in usable:
        raise ImportError(f"FASTCONV_ISA is {cap!r}; this machine and build offer: {', '.join(usable)}")
    family = next(f for f in _FAMILIES if cap in f)
    return known[[name for name in family[: family.index(cap) + 1] if name in usable][-1]][0]


def _quota() -> float:
    """CPUs that the cgroup grants, infinite where there is no limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    quota = math.inf
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        folder = Path("/sys/fs/cgroup") if not controllers else Path("/sys/fs/cgroup/cpu")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # The limit may stand at any level above; inside a container the path may not exist.
        for level in [folder / path.lstrip("/"), *(folder / path.lstrip("/")).parents]:
            if not level.is_relative_to(folder):
                break
            quota = min(quota, _read_quota(level))
    return quota


def _read_quota(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return math.inf if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def available_cpus() -> int:
    """CPUs that affinity and cgroup quota leave to this process, at least one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _quota())))


def _with_openmp(n: int) -> int:
    """The number of threads that this build can use of those that are wanted."""
    return n if _core.openmp() else 1


def _asked_threads() -> int | None:
    """The number of threads that the environment asks for."""
    for variable in ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if not text:
            continue
        digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""  # "²" is a digit, but no number
        if digits:
            return _with_openmp(min(int(digits[:9]), _MAX_THREADS))
        if variable.startswith("FASTCONV"):
            raise ImportError(f"{variable} is {text!r}; it needs a positive number")
    return None


def _most_threads() -> int:
    """How many threads to use unless asked for others; affinity, which may change, is looked at as it is needed."""
    if _is_worker():
        return 1
    cpus = _MAX_THREADS if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _with_openmp(max(1, math.ceil(min(cpus, _quota(), _MAX_THREADS))))


def _is_worker() -> bool:
    """Whether this process was forked to be one of many, and imports us on its own.

    So was who has a parent of :mod:`multiprocessing`, and who left the threads of torch or the like behind.
    """
    forked, orphaned = _core.process()
    pools = sys.modules.get("multiprocessing.process")
    return orphaned or (forked and pools is not None and pools.parent_process() is not None)


ISA: int = _isa_number(os.environ.get("FASTCONV_ISA"))
_threads: int | None = _asked_threads()
_most: int = _most_threads()
_scoped: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastconv_threads", default=None)


def isa() -> str:
    """Name of the instruction set in use: ``scalar``, ``avx2``, ``avx512`` or ``neon``.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.isa() in ("scalar", "avx2", "avx512", "neon")
    True
    """
    return _core.isas()[ISA][0]


def get_num_threads() -> int:
    """Number of threads that a call may use.

    Examples
    --------
    >>> import fastconv as fc
    >>> with fc.threads(1):
    ...     fc.get_num_threads()
    1
    """
    return _scoped.get() or _threads or _core.cpus(_most)


def _checked(n: int) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n is {n!r}; it needs an integer")
    if not 1 <= n <= _MAX_THREADS:
        raise ValueError(f"n is {n}; it needs a number of threads from 1 to {_MAX_THREADS}")
    if _with_openmp(n) < n:
        warnings.warn(
            f"fastconv was built without OpenMP: it computes in one thread, not in {n}", RuntimeWarning, stacklevel=3
        )
    return _with_openmp(int(n))


def set_num_threads(n: int) -> None:
    """Set the number of threads for the whole process.

    Parameters
    ----------
    n : int
        From 1 to 256. More threads than CPUs only slow each other down.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is no such number.

    Warns
    -----
    RuntimeWarning
        If ``n`` is more than 1 and fastconv was built without OpenMP: one thread computes.

    Examples
    --------
    >>> import fastconv as fc
    >>> before = fc.get_num_threads()
    >>> fc.set_num_threads(1)
    >>> fc.set_num_threads(before)
    """
    global _threads
    _threads = _checked(n)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Set the number of threads for a block of code, in this thread or task only.

    Parameters
    ----------
    n : int
        From 1 to 256.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image, kernels = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    >>> with fc.threads(1):
    ...     fc.conv2d(image, kernels).shape
    (1, 4, 6, 6)
    """
    token = _scoped.set(_checked(n))
    try:
        yield
    finally:
        _scoped.reset(token)


def fma_peak(dtype: str = "float32", num_threads: int | None = None, *, seconds: float = 0.05) -> float:
    """Measure the floating-point ceiling of this machine: independent multiply-adds in registers.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    num_threads : int, optional
        The current number of threads by default.
    seconds : float
        Time to spend, up to a minute; the best of five slices counts, so that a disturbed one does not.

    Returns
    -------
    float
        GFLOP/s, a multiply-add counting two, with the instruction set in use.
    """
    kinds = {"float32": 0, "float64": 1}
    if dtype not in kinds:
        raise ValueError(f"dtype is {dtype!r}; it needs 'float32' or 'float64'")
    if not 0 <= _args.real(seconds, "seconds") <= 60:
        raise ValueError(f"seconds is {seconds!r}; it needs to be from 0 to 60")
    count = get_num_threads() if num_threads is None else _checked(num_threads)
    rounds, best = 100_000, 0.0
    # On a busy machine threads that have to be woken take far longer than these rounds: one alone sets the length.
    alone = min(_core.fma_burn(ISA, kinds[dtype], 1, rounds)[0] for _ in range(2))
    rounds = max(rounds, int(rounds * seconds / 5 / max(alone, 1e-6)))
    _core.fma_burn(ISA, kinds[dtype], count, rounds)  # wakes threads and clock
    for _ in range(5):
        elapsed, flops = _core.fma_burn(ISA, kinds[dtype], count, rounds)
        best = max(best, flops / elapsed)
    return best / 1e9


def cpu_name() -> str:
    """The processor's own name for itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
