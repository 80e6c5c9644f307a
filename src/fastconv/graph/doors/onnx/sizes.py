# SPDX-License-Identifier: BSD-3-Clause
"""What is computed of sizes: operators that models put between the shape of one value and that of another.

They are carried out where all that they read is constant, as it is as soon as the sizes of the inputs are known, and
so without onnx. Elsewhere they are left to `onnx.reference`, as are the operators that are not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv import _args
from fastconv._names import only
from fastconv.graph.doors.onnx.site import Site, dtype_of

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


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers are cut off towards zero."""
    if a.dtype.kind not in "iu":
        return a / b
    return (np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)).astype(a.dtype)


def _cast(site: Site, given: Given) -> np.ndarray:
    return given[0].astype(dtype_of(site.attribute("to"), "to"))


def _filled(site: Site, given: Given) -> np.ndarray | None:
    value = np.asarray(site.attribute("value", np.zeros(1, np.float32))).reshape(())
    shape = tuple(int(n) for n in given[0].reshape(-1))
    return np.full(shape, value) if _is_small(shape) else None


def _expanded(site: Site, given: Given) -> np.ndarray | None:
    shape = np.broadcast_shapes(given[0].shape, tuple(int(n) for n in given[1].reshape(-1)))
    return np.array(np.broadcast_to(given[0], shape)) if _is_small(shape) else None


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


def _sliced(site: Site, given: Given) -> np.ndarray | None:
    """In any steps; as an operator of the graph where they are one."""
    if site.opset < 10:
        return None
    x, starts, ends, axes, steps = (*given, None, None)[:5]
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    index: list[Any] = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


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


def _of_two(function: Callable[..., Any]) -> Callable[[Site, Given], np.ndarray]:
    def meaning(site: Site, given: Given) -> np.ndarray:
        total = given[0]
        for other in given[1:]:
            total = function(total, other)
        return total

    return meaning


_MEANINGS: dict[str, Callable[[Site, Given], Any]] = {
    "Add": _of_two(np.add),
    "Sub": _of_two(np.subtract),
    "Mul": _of_two(np.multiply),
    "Div": _of_two(_divided),
    "Mod": lambda site, given: (np.fmod if site.attribute("fmod", 0) else np.mod)(*given),
    "Min": _of_two(np.minimum),
    "Max": _of_two(np.maximum),
    "Neg": lambda site, given: -given[0],
    "Abs": lambda site, given: np.abs(given[0]),
    "Equal": _of_two(np.equal),
    "Less": _of_two(np.less),
    "LessOrEqual": _of_two(np.less_equal),
    "Greater": _of_two(np.greater),
    "GreaterOrEqual": _of_two(np.greater_equal),
    "And": _of_two(np.logical_and),
    "Or": _of_two(np.logical_or),
    "Not": lambda site, given: ~given[0],
    "Where": lambda site, given: np.where(*given),
    "Cast": _cast,
    "Gather": lambda site, given: np.take(given[0], given[1], site.attribute("axis", 0)),
    "Concat": lambda site, given: np.concatenate(given, site.attribute("axis")),
    "Slice": _sliced,
    "Range": _counted,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Tile": _tiled,
    **dict.fromkeys(("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"), _reduced),
}
