# SPDX-License-Identifier: BSD-3-Clause
"""The environment in which other libraries are at their best, or held to fastconv's instruction set.

They read it only when they are loaded, so a command that finds another one has to be run again.
"""

from __future__ import annotations

import os

import fastconv as fc
from fastconv._names import only

__all__ = ["CAPS", "HANDICAPS", "fair_environment", "unheld"]
__dir__ = only(__all__)

#: Settings of OpenBLAS that make it slower than it is where nobody interferes.
HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

#: By ``FASTCONV_ISA``, what holds torch, OpenVINO and OpenBLAS to it.
CAPS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
}
#: Those who take what the processor has, whatever the environment says.
UNHELD = ("ONNX Runtime", "ncnn")


def fair_environment(threads: int, *, peers: bool) -> dict[str, str] | None:
    """The environment that the others need; None if it is this one.

    Parameters
    ----------
    threads : int
        Of NumPy's BLAS.
    peers : bool
        Whether more than NumPy is to be held to ``FASTCONV_ISA``.
    """
    now = os.environ
    caps = CAPS.get(now.get("FASTCONV_ISA", ""), {}) if peers else {}
    asked = now.get("OPENBLAS_NUM_THREADS") or now.get("OMP_NUM_THREADS")
    if asked is None and hasattr(os, "sched_getaffinity"):
        asked = str(len(os.sched_getaffinity(0)))
    handicaps = [name for name in HANDICAPS if name in now and name not in caps]
    if asked == str(threads) and not handicaps and all(now.get(name) == value for name, value in caps.items()):
        return None
    kept = {name: value for name, value in now.items() if name not in handicaps}
    return kept | caps | dict.fromkeys(BLAS_THREADS, str(threads))


def unheld() -> list[str]:
    """What a reader has to know where fastconv does not use all that the processor has."""
    isa = fc.isa()
    if isa == fc.config()["isas_usable"][-1]:
        return []
    who = " and ".join(UNHELD) if isa in CAPS else "all peers"
    return [f"NOT HELD to {isa}, as fastconv is: {who}."]
