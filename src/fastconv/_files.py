# SPDX-License-Identifier: BSD-3-Clause
"""Files of whole networks, as the command line is given them."""

from __future__ import annotations

from pathlib import Path

import fastconv as fc
from fastconv.graph import CompiledNet

__all__ = ["NETWORKS", "is_network", "network_of"]

#: Endings of what `CompiledNet.save` wrote, and of ONNX models.
NETWORKS = (".npz", ".safetensors", ".onnx")


def is_network(name: str) -> bool:
    """Whether it names a file rather than a network of `fastconv.models`."""
    return Path(name).suffix in NETWORKS


def network_of(path: str, layout: str | None = None) -> CompiledNet:
    """The network of a file, for images in this order of axes, or as the file has it.

    Raises
    ------
    ValueError
        If it holds none, one that cannot be run, or one that was compiled for its own order.
    """
    if Path(path).suffix != ".onnx":
        if layout is not None:
            raise ValueError(f"--layout is {layout}; {path} has been compiled for its own")
        return fc.load_net(path)
    try:
        return fc.compile(path, layout=layout)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"{path}: {error}") from error
