# SPDX-License-Identifier: BSD-3-Clause
"""What this build is and what it runs on, for people and for reports."""

from __future__ import annotations

import sys
from typing import Any

from fastconv import _config, _core
from fastconv._costs import COSTS
from fastconv._runtime import WAITING
from fastconv._version import __version__

__all__ = ["config", "show_config"]


def config() -> dict[str, Any]:
    """Version, compiler, instruction sets, OpenMP, threads and processor, as a dictionary."""
    sets = _core.isas()
    return {
        "fastconv": __version__,
        "python": sys.version.split()[0],
        "compiler": _core.compiler(),
        "openmp": _core.openmp() or None,
        "isas_built": [name for name, built, _ in sets if built],
        "isas_usable": [name for name, _, usable in sets if usable],
        "isa": _config.isa(),
        "costs": str(COSTS.source) if COSTS.tuned else "nominal",
        "threads": _config.get_num_threads(),
        "waiting": WAITING,
        "cpus_available": _config.available_cpus(),
        "cpu": _config.cpu_name(),
        "caches": dict(zip(_core.CACHE_NAMES, _core.caches(), strict=True)),
    }


def show_config() -> None:
    """Print the version, the compiler, the instruction sets built and in use, OpenMP and the number of threads.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.show_config()  # doctest: +ELLIPSIS
    fastconv ...
    """
    shown = config()
    width = max(map(len, shown))
    for key, value in shown.items():
        text = ", ".join(value) if isinstance(value, list) else value
        if isinstance(value, dict):
            text = ", ".join(f"{name} {size}" for name, size in value.items())
        print(f"{key:<{width}}  {text}")
