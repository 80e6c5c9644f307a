# SPDX-License-Identifier: BSD-3-Clause
"""Which other libraries there are, and which of them are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module, metadata

from fastconv.bench.contenders.base import Contender

__all__ = ["PEERS", "find_peers", "versions"]

Makers = Callable[[], list[Contender]]


def _torch() -> list[Contender]:
    peer = import_module("fastconv.bench.contenders.torch").Torch
    return [peer("NCHW"), peer("NHWC")]


def _onnxruntime() -> list[Contender]:
    return [import_module("fastconv.bench.contenders.onnxruntime").OnnxRuntime()]


def _openvino() -> list[Contender]:
    return [import_module("fastconv.bench.contenders.openvino").OpenVino()]


def _ncnn() -> list[Contender]:
    return [import_module("fastconv.bench.contenders.ncnn").Ncnn()]


def _numpy() -> list[Contender]:
    return [import_module("fastconv.bench.contenders.plain_numpy").NumpyIm2col()]


#: By the name of the package that has to be there.
PEERS: dict[str, Makers] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "ncnn": _ncnn,
    "numpy": _numpy,
}


def find_peers(names: Iterable[str]) -> tuple[list[Contender], dict[str, str]]:
    """Contenders of those peers that can be imported, and for each of the others the reason.

    Parameters
    ----------
    names : iterable of str
        Keys of :data:`PEERS`.
    """
    found, missing = [], {}
    for name in names:
        try:
            found += PEERS[name]()
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def versions(contenders: Iterable[Contender]) -> dict[str, str]:
    """Versions of the packages behind contenders."""
    packages = dict.fromkeys(contender.package for contender in contenders if contender.package)
    return {package: metadata.version(package) for package in packages}
