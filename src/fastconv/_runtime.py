# SPDX-License-Identifier: BSD-3-Clause
"""Loads the core, and with it the OpenMP runtime, which reads its environment in that moment and never again.

GNU's runtime lets threads that wait for each other spin for milliseconds. Beside other busy processes the one that is
waited for may not be running at all: then a call of a fifth of a millisecond takes sixteen. So the spinning is bounded,
unless the user has said how to wait or somebody else has loaded the runtime already.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["WAITING"]

#: A quarter of a millisecond on Zen 4, which pauses for 25 ns: longer than from one stage of a call to the next or from
#: one layer of a network to the next, and short beside a time slice.
_SPINS = 10_000
_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def _loaded_before() -> bool:
    try:
        return "libgomp" in Path("/proc/self/maps").read_text()
    except OSError:
        return False


def _load() -> str:
    asked = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    before = _loaded_before()
    if not asked and not before:
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)
    try:
        from fastconv import _core
    finally:
        if not asked and not before:
            del os.environ["GOMP_SPINCOUNT"]
    if not _core.openmp():
        return "no threads"
    if before:
        return "as the OpenMP runtime was told that was loaded before fastconv"
    return ", ".join(asked) or f"{_SPINS} spins at most"


#: How threads wait for each other, in words.
WAITING: str = _load()
