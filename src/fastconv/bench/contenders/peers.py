# SPDX-License-Identifier: BSD-3-Clause
"""Which other libraries there are, and which of them are installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, metadata

from fastconv._names import only
from fastconv.bench.contenders.base import Contender
from fastconv.bench.names import PEERS

__all__ = ["find_peers", "versions"]
__dir__ = only(__all__)


def find_peers(names: Iterable[str]) -> tuple[list[Contender], dict[str, str]]:
    """Contenders of those peers that can be imported, and for each of the others the reason.

    Parameters
    ----------
    names : iterable of str
        Keys of :data:`~fastconv.bench.names.PEERS`.
    """
    found, missing = [], {}
    for name in names:
        try:
            found += import_module(f"fastconv.bench.contenders.{PEERS[name]}").contenders()
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def versions(contenders: Iterable[Contender]) -> dict[str, str]:
    """Versions of the packages behind contenders."""
    packages = dict.fromkeys(contender.package for contender in contenders if contender.package)
    return {package: metadata.version(package) for package in packages}
