# SPDX-License-Identifier: BSD-3-Clause
"""Shapes, parts, sums along axes, and constants."""

from __future__ import annotations

import numpy as np

from fastconv._names import only
from fastconv.graph.doors.onnx.site import Site, Translated, is_plain, translates
from fastconv.graph.ir import Value

__all__: list[str] = []
__dir__ = only(__all__)


@translates("Constant")
def _constant(site: Site) -> Translated:
    ((name, value),) = site.node.attributes.items()
    if name in ("value_float", "value_floats"):
        value = np.asarray(value, np.float32)
    elif name in ("value_int", "value_ints"):
        value = np.asarray(value, np.int64)
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"its {name} is no array of numbers")
    return site.graph.constant(value, site.node.output[0])


@translates("Shape")
def _shape(site: Site) -> Translated:
    return site.add("shape", [site.input(0)], start=site.attribute("start", 0), stop=site.attribute("end"))


@translates("Size")
def _size(site: Site) -> Translated:
    return None if site.input(0) is None else site.add("shape", [site.input(0)], product=True)


@translates("Reshape")
def _reshape(site: Site) -> Translated:
    wanted = site.ints(1)
    if wanted is None or (site.attribute("allowzero", 0) and 0 in wanted):
        return None
    if any(n < -1 for n in wanted) or wanted.count(-1) > 1:
        raise ValueError(f"its shape is {wanted}; it needs sizes, 0 and at most one -1")
    return site.add("reshape", [site.input(0)], shape=wanted)


@translates("Flatten")
def _flatten(site: Site) -> Translated:
    axis, rank = site.attribute("axis", 1), site.rank(0)
    if rank is None:
        return None
    if not -rank <= axis <= rank:
        raise ValueError(f"axis is {axis}; its input has {rank} axes")
    axis = axis + rank if axis < 0 else axis
    if axis == 0:
        return site.add("reshape", [site.input(0)], shape=(1, -1))
    if axis == rank:
        return site.add("reshape", [site.input(0)], shape=(-1, 1))
    if axis == 1:
        return site.add("flatten", [site.input(0)], start=1, stop=-1)
    tail = site.add("flatten", [site.input(0)], "tail", start=axis, stop=-1)
    return site.add("flatten", [tail], start=0, stop=axis - 1)


def _axes(site: Site, changed: int, which: int = 1) -> tuple[bool, tuple[int, ...] | None]:
    """Whether they are known, and which they are: an attribute before the opset in which they became an input."""
    if site.opset < changed:
        return True, site.attribute("axes")
    if site.input(which) is None:
        return True, None
    axes = site.ints(which)
    return axes is not None, axes


@translates("Squeeze", "Unsqueeze")
def _squeeze(site: Site) -> Translated:
    is_known, axes = _axes(site, 13)
    if not is_known:
        return None
    return site.add(site.node.op_type.lower(), [site.input(0)], axes=axes)


@translates("Transpose")
def _transpose(site: Site) -> Translated:
    order, rank = site.attribute("perm"), site.rank(0)
    if order is None:
        if rank is None:
            return None
        order = tuple(reversed(range(rank)))
    return site.add("transpose", [site.input(0)], order=order)


@translates("Concat")
def _concat(site: Site) -> Translated:
    dtypes = {site.dtype(i) for i in range(len(site.inputs))}
    if len(dtypes) != 1 or not is_plain(next(iter(dtypes))):
        return None
    return site.add("concat", list(site.inputs), axis=site.attribute("axis"))


@translates("Expand")
def _expand(site: Site) -> Translated:
    shape = site.ints(1)
    return None if shape is None or site.rank(0) is None else site.add("expand", [site.input(0)], shape=shape)


@translates("Split")
def _split(site: Site) -> Translated:
    axis, shape, count = site.attribute("axis", 0), site.shape(0), len(site.node.output)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    length = shape[axis]
    lengths = site.attribute("split") if site.opset < 13 else site.ints(1)
    if lengths is None:
        if length is None or (site.opset >= 13 and site.input(1) is not None):
            return None
        each = -(-length // count)
        lengths = [max(min(each, length - i * each), 0) for i in range(count)]
    if len(lengths) != count or (length is not None and sum(lengths) != length):
        raise ValueError(f"it cannot split {length} elements into {tuple(lengths)}, for {count} outputs")
    made: list[Value | None] = []
    start = 0
    for i, n in enumerate(lengths):
        made.append(site.add("slice", [site.input(0)], str(i), axis=axis, start=start, stop=start + n))
        start += n
    return made


@translates("Slice")
def _slice(site: Site) -> Translated:
    rank, steps = site.rank(0), None
    if site.opset < 10:
        starts, ends, axes = (site.attribute(name) for name in ("starts", "ends", "axes"))
    else:
        starts, ends, axes, steps = (site.ints(i) for i in range(1, 5))
        given = [site.input(i) is not None for i in range(1, 5)]
        if any(there and v is None for there, v in zip(given, (starts, ends, axes, steps), strict=True)):
            return None
    if starts is None or ends is None or len(starts) != len(ends) or rank is None:
        return None
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(axes) == len(starts) == len(steps) or not axes:
        return None
    if 0 in steps:
        raise ValueError(f"its steps are {steps}; none of them can be 0")
    y = site.input(0)
    for i, (axis, start, stop, step) in enumerate(zip(axes, starts, ends, steps, strict=True)):
        more = {} if step == 1 else {"step": step}
        y = site.add("slice", [y], "" if i == len(axes) - 1 else str(i), axis=axis, start=start, stop=stop, **more)
    return y


@translates("Pad")
def _pad(site: Site) -> Translated:
    rank, value, mode = site.rank(0), 0.0, site.attribute("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap") or rank is None or not site.is_float(0):
        return None
    if site.opset < 11:
        pads, value = site.attribute("pads"), float(site.attribute("value", 0.0))
    else:
        pads = site.ints(1)
        if site.input(2) is not None:
            given = site.array(2)
            if given is None or given.size != 1:
                return None
            value = float(given.reshape(()))
    is_known, axes = _axes(site, 1, 3) if site.opset >= 18 else (True, None)
    if pads is None or not is_known:
        return None
    axes = tuple(range(rank)) if axes is None else axes
    if len(pads) != 2 * len(axes) or any(not -rank <= a < rank for a in axes):
        raise ValueError(f"pads is {pads}; it needs two numbers for each of the axes {axes}, of {rank}")
    pairs = [(0, 0)] * rank
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        pairs[axis] = (before, after)
    if mode != "constant":
        return site.add("pad", [site.input(0)], pairs=tuple(pairs), mode=mode)
    return site.add("pad", [site.input(0)], pairs=tuple(pairs), value=value)


_REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSumSquare": "squares",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSumExp": "log_sum_exp",
}


@translates(*_REDUCTIONS)
def _reduce(site: Site) -> Translated:
    name = site.node.op_type
    is_known, axes = _axes(site, 13 if name == "ReduceSum" else 18)
    if not is_known or not site.is_float(0):
        return None
    if not axes:
        if site.attribute("noop_with_empty_axes", 0):
            return site.add("identity", [site.input(0)])
        axes = None
    keep = bool(site.attribute("keepdims", 1))
    return site.add("reduce", [site.input(0)], kind=_REDUCTIONS[name], axes=axes, keep=keep)
