# SPDX-License-Identifier: BSD-3-Clause
"""What is computed of sizes, besides what the graph has operators for.

These are carried out where all that they read is constant, as it is as soon as the sizes of the inputs are known, and
so without onnx. Elsewhere they are left to `onnx.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv import _args
from fastconv._names import only
from fastconv.graph.doors.onnx.site import Site

__all__ = ["computed", "has_meaning"]
__dir__ = only(__all__)

_LARGEST = 1 << 22  # elements of what is read, and of what is computed


def computed(site: Site) -> np.ndarray | None:
    """The result of a node whose inputs are constant, if it is one of these and they are small.

    Raises
    ------
    ValueError
        If the inputs do not fit.
    """
    arrays = site.arrays()
    if arrays is None or site.node.domain or sum(a.size for a in arrays if a is not None) > _LARGEST:
        return None
    try:
        with np.errstate(all="ignore"):
            found = _MEANINGS[site.node.op_type](site, arrays)
    except (IndexError, OverflowError) as error:
        raise ValueError(str(error)) from error
    return None if found is None else np.asarray(found)


def has_meaning(op_type: str, domain: str) -> bool:
    return not domain and op_type in _MEANINGS


Given = Sequence[Any]


def _filled(site: Site, given: Given) -> np.ndarray | None:
    value = np.asarray(site.attribute("value", np.zeros(1, np.float32))).reshape(())
    shape = tuple(int(n) for n in given[0].reshape(-1))
    return np.full(shape, value) if _is_small(shape) else None


def _tiled(site: Site, given: Given) -> np.ndarray | None:
    repeats = tuple(int(n) for n in given[1].reshape(-1))
    if len(repeats) != given[0].ndim:
        raise ValueError(f"its repeats are {repeats}; its input has {given[0].ndim} axes")
    return np.tile(given[0], repeats) if _is_small((given[0].size, *repeats)) else None


def _counted(site: Site, given: Given) -> np.ndarray | None:
    start, stop, step = (a.reshape(()) for a in given)
    if step == 0:
        raise ValueError("its delta is 0")
    count = (float(stop) - float(start)) / float(step)
    return np.arange(start, stop, step, dtype=start.dtype) if math.isfinite(count) and count < _LARGEST else None


def _is_small(shape: tuple[int, ...]) -> bool:
    if min(shape, default=0) < 0:
        raise ValueError(f"it would return an array of shape {shape}")
    if math.prod(shape) > _args.LIMIT:
        raise ValueError(f"it would return an array of shape {shape}, of more than {_args.LIMIT} elements")
    return math.prod(shape) <= _LARGEST


def _reduced(site: Site, given: Given) -> np.ndarray:
    x = given[0]
    axes = site.attribute("axes") if len(given) < 2 or given[1] is None else tuple(given[1].reshape(-1).tolist())
    if not axes and site.attribute("noop_with_empty_axes", 0):
        return x
    reduction: dict[str, Callable[..., Any]] = {
        "ReduceProd": np.prod,
        "ReduceSum": np.sum,
        "ReduceMax": np.max,
        "ReduceMin": np.min,
    }
    found = reduction[site.node.op_type](x, axis=axes or None, keepdims=bool(site.attribute("keepdims", 1)))
    return np.asarray(found).astype(x.dtype)


_MEANINGS: dict[str, Callable[[Site, Given], Any]] = {
    "Mod": lambda site, given: (np.fmod if site.attribute("fmod", 0) else np.mod)(*given),
    "Range": _counted,
    "ConstantOfShape": _filled,
    "Tile": _tiled,
    **dict.fromkeys(("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"), _reduced),
}
