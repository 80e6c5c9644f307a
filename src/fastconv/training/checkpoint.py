# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: nested states of arrays, numbers and text in one file, which is whole or is not there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import io
from fastconv._names import only
from fastconv._version import __version__

__all__ = ["load_checkpoint", "save_checkpoint", "sweep"]
__dir__ = only(__all__)

FORMAT = 1
_TREE = "checkpoint"  # the name of the array that holds, as text, all that is no array
_ARRAY = "array:"  # what stands there for an array, before its name


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a nested state to a file.

    The file appears complete or not at all, as with :func:`fastconv.save`: whoever is killed while writing leaves the
    checkpoint that was there before.

    Parameters
    ----------
    path : path
        Its suffix decides the format: ``.npz`` or ``.safetensors``.
    state : mapping
        Of mappings, lists, arrays, numbers, text and None; for example of the ``state_dict()`` of a network, of an
        optimiser and of a schedule. Keys become text and tuples lists.

    Raises
    ------
    TypeError
        If there is anything else in it.
    OSError, ValueError
        As :func:`fastconv.save`.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn, optim, training
    >>> net = nn.Linear(2, 1, rng=0)
    >>> sgd = optim.SGD(net.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     state = {"net": net.state_dict(), "sgd": sgd.state_dict(), "epoch": 3}
    ...     training.save_checkpoint(folder + "/last.npz", state)
    ...     state = training.load_checkpoint(folder + "/last.npz")
    >>> net.load_state_dict(state["net"])
    LoadResult(missing_keys=[], unexpected_keys=[])
    >>> sgd.load_state_dict(state["sgd"])
    >>> state["epoch"]
    3
    """
    arrays: dict[str, np.ndarray] = {}
    tree = {"format": FORMAT, "fastconv": __version__, "state": _without_arrays(state, "state", arrays)}
    arrays[_TREE] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    io.save(arrays, path)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is damaged, or is no checkpoint, or is one of a later version.
    OSError
        If it cannot be read; FileNotFoundError if there is none.
    """
    arrays = io.load(path)
    if _TREE not in arrays:
        raise ValueError(f"{os.fspath(path)} is no checkpoint: it holds no array {_TREE!r}")
    try:
        tree = json.loads(arrays[_TREE].tobytes())
        found = tree["format"]
        if found != FORMAT:
            raise ValueError(f"it is of format {found}, by fastconv {tree['fastconv']}; this version reads {FORMAT}")
        return _with_arrays(tree["state"], arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is no checkpoint that can be read: {error}") from error


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote this file have left beside it."""
    path = Path(path)
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}\.tmp")
    for file in path.parent.iterdir():
        if left.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON has it; its arrays go into `arrays`."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return _ARRAY + name
    if isinstance(value, Mapping):
        return {str(key): _without_arrays(entry, f"{name}/{key}", arrays) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(entry, f"{name}/{i}", arrays) for i, entry in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str) and value.startswith(_ARRAY):
        raise TypeError(f"{name} is {value!r}; a checkpoint holds no text that begins with {_ARRAY!r}")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; a checkpoint holds arrays, numbers, text, mappings and lists")


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return {key: _with_arrays(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_arrays(entry, arrays) for entry in value]
    if isinstance(value, str) and value.startswith(_ARRAY):
        return arrays[value.removeprefix(_ARRAY)]
    return value
