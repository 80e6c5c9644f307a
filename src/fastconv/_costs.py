# SPDX-License-Identifier: BSD-3-Clause
"""The constants behind ``algorithm="auto"``: a nominal machine's, or those that ``fastconv tune`` measured on this one.

``FASTCONV_TUNE`` names the file that holds them, or says ``off``. By default it is one file for each version,
instruction set and processor in ``$XDG_CACHE_HOME/fastconv`` (``~/.cache/fastconv``).
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv import _config, _core
from fastconv._version import __version__

__all__ = ["COSTS", "Costs", "load", "path", "save"]

_LONGEST = 1 << 20  # characters of a file; what `save` writes has some two thousand


@dataclass(frozen=True)
class Costs:
    """Seconds of one thread, in the order of ``_core.COST_NAMES``.

    Attributes
    ----------
    seconds : tuple of float
    source : pathlib.Path, optional
        The file that they come from; None for the nominal machine's.
    """

    seconds: tuple[float, ...]
    source: Path | None = None

    @property
    def tuned(self) -> bool:
        """Whether they were measured here: a file may also say that the nominal ones are as good."""
        return self.source is not None and self.seconds != nominal().seconds


def nominal() -> Costs:
    return Costs(_core.default_costs(_config.ISA))


def path() -> Path | None:
    """The file of this machine, or None when ``FASTCONV_TUNE`` is ``off``."""
    named = os.environ.get("FASTCONV_TUNE", "")
    if named:
        return None if named == "off" else Path(named)
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return None
    processor = zlib.crc32(_config.cpu_name().encode())
    return folder / "fastconv" / f"costs-{__version__}-{_config.isa()}-{processor:08x}.json"


def _origin() -> dict[str, str]:
    """What the constants are true for."""
    return {"fastconv": __version__, "isa": _config.isa(), "cpu": _config.cpu_name()}


def save(file: Path, seconds: tuple[float, ...], about: dict[str, Any]) -> None:
    """Write constants, and what else is known ``about`` them, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    costs = dict(zip(_core.COST_NAMES, seconds, strict=True))
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps({**_origin(), "costs": costs, **about}, indent=1) + "\n", encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load() -> Costs:
    """The constants of this machine's file, or else of the nominal machine; a file that is of no use is warned of."""
    file = path()
    if file is None:
        return nominal()
    try:
        with file.open(encoding="utf-8") as lines:
            text = lines.read(_LONGEST)
    except FileNotFoundError:
        if os.environ.get("FASTCONV_TUNE"):
            _warn(file, "does not exist; `fastconv tune` makes it")
        return nominal()
    except (OSError, UnicodeDecodeError) as error:
        _warn(file, f"cannot be read ({error})")
        return nominal()
    try:
        return Costs(_checked(json.loads(text)), file)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        _warn(file, f"is of no use here ({error}); `fastconv tune` makes a new one")
        return nominal()


def _checked(found: Any) -> tuple[float, ...]:
    for key, wanted in _origin().items():
        if found[key] != wanted:
            raise ValueError(f"it was made for {key} {reprlib.repr(found[key])}, this is {wanted!r}")
    seconds = tuple(float(found["costs"][name]) for name in _core.COST_NAMES)
    if not all(math.isfinite(s) and s > 0 for s in seconds):
        raise ValueError("its costs are not positive numbers")
    return seconds


def origin() -> str:
    """Where the constants in use come from, for a reader."""
    if COSTS.tuned:
        return f"From {COSTS.source}."
    if COSTS.source:
        return f"A nominal machine's: what {COSTS.source} knows of this one is no better."
    return "A nominal machine's: `fastconv tune` measures this one's."


def _warn(file: Path, reason: str) -> None:
    warnings.warn(f"{file} {reason}: the constants of a nominal machine are used", RuntimeWarning, stacklevel=4)


COSTS: Costs = load()
