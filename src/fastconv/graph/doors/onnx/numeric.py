# SPDX-License-Identifier: BSD-3-Clause
"""Integers, truth values and what is chosen by them, types, and quantized numbers."""

from __future__ import annotations

import math

import numpy as np

from fastconv._names import only
from fastconv.graph.doors.onnx.layers import window_of
from fastconv.graph.doors.onnx.site import TRANSLATORS, Site, Translated, dtype_of, is_plain, translates
from fastconv.graph.ir import Value

__all__: list[str] = []
__dir__ = only(__all__)

#: Whatever the types are, but for strings and those that NumPy does not have.
_ANY = {
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "Not": "not",
    "Where": "where",
}


@translates(*_ANY)
def _chosen(site: Site) -> Translated:
    if not all(is_plain(site.dtype(i)) for i in range(len(site.inputs))):
        return None
    return site.add("numpy", list(site.inputs), function=_ANY[site.node.op_type])


@translates("Cast")
def _cast(site: Site) -> Translated:
    target, own = dtype_of(site.attribute("to"), "to"), site.dtype(0)
    if own == target:
        return site.add("identity", [site.input(0)])
    if not is_plain(own) or not is_plain(target):
        return None
    return site.add("numpy", [site.input(0)], function="cast", to=str(target))


@translates("Gather")
def _gather(site: Site) -> Translated:
    """A single element or a row of neighbours is a part of what is there."""
    axis, rank, indices = site.attribute("axis", 0), site.rank(0), site.array(1)
    own, x = site.dtype(0), site.input(0)
    if rank is None or not is_plain(own) or site.dtype(1) is None:
        return None
    if not -rank <= axis < rank:
        raise ValueError(f"axis is {axis}; its input has {rank} axes")
    if indices is not None and indices.ndim == 0:
        at, size = int(indices), (site.shape(0) or (None,) * rank)[axis]
        if size is not None and not -size <= at < size:
            raise ValueError(f"it takes element {at} of {size}")
        if size is not None or at in (0, -1):
            part = site.add("slice", [x], "part", axis=axis, start=at, stop=at + 1 if at != -1 else None)
            return site.add("squeeze", [part], axes=(axis,))
    return site.add("numpy", [x, site.input(1)], function="take", axis=axis)


@translates("NonMaxSuppression")
def _remaining_boxes(site: Site) -> Translated:
    if not site.is_float(0, 1):
        return None
    return site.add("non_max_suppression", list(site.inputs), centred=bool(site.attribute("center_point_box", 0)))


# --- quantized numbers ------------------------------------------------------------------------------------------------


def _zero_point(site: Site, which: int, dtype: np.dtype) -> Value:
    given = site.input(which)
    return site.graph.constant(np.zeros((), dtype), f"{site.name}.zero") if given is None else given


def _is_byte(site: Site, *which: int) -> bool:
    return all(site.dtype(i) in (np.int8, np.uint8) for i in which if site.input(i) is not None)


@translates("QuantizeLinear")
def _quantize(site: Site) -> Translated:
    dtype = site.dtype(2)
    if dtype is None:
        wanted = site.attribute("output_dtype", 0)
        dtype = dtype_of(wanted, "output_dtype") if wanted else np.dtype(np.uint8)
    small = dtype.kind in "iu" and dtype.isbuiltin == 1 and dtype.itemsize <= 2
    if not small or site.attribute("block_size", 0) or not site.is_float(0, 1):
        return None
    inputs = [site.input(0), site.input(1), _zero_point(site, 2, dtype)]
    return site.add("numpy", inputs, function="quantize", axis=site.attribute("axis", 1))


@translates("DequantizeLinear")
def _dequantize(site: Site) -> Translated:
    own = site.dtype(0)
    plain = own is not None and own.kind in "iu" and own.isbuiltin == 1 and own.itemsize <= 4
    if not plain or site.attribute("block_size", 0) or not site.is_float(1):
        return None
    inputs: list[Value | None] = [value for value in site.inputs if value is not None]
    return site.add("numpy", inputs, function="dequantize", axis=site.attribute("axis", 1))


def _centred(site: Site, which: int, zero: int, dtype: np.dtype, part: str, along: int | None = None) -> Value | None:
    """The integers less their zero point, in numbers that are exact; of several one for each element of an axis."""
    x, offset = site.input(which), site.array(zero)
    rank = site.rank(which)
    if x is None or rank is None or (site.input(zero) is not None and offset is None):
        return None
    if offset is not None and offset.size > 1:
        if along is None:
            return None
        offset = offset.reshape(-1, *(1,) * (rank - 1 - along)) if offset.ndim == 1 else offset
    known = None if x.constant is None else x.constant.array()
    if known is not None:  # weights
        less = known.astype(dtype) - (0 if offset is None else offset.astype(dtype))
        return site.graph.constant(less, f"{site.name}.{part}")
    wide = site.add("numpy", [x], f"{part}.wide", function="cast", to=str(dtype))
    if offset is None or not offset.any():
        return wide
    return site.add("map", [wide, site.graph.constant(offset.astype(dtype))], part, program=(("sub", 1),))


def _exact(terms: int) -> np.dtype:
    """What sums of so many products of two bytes are exact in."""
    return np.dtype(np.float32 if terms * 255 * 255 < 1 << 24 else np.float64)


def _convolved(site: Site, x: tuple[int, int], w: tuple[int, int], bias: int | None) -> Value | None:
    """Sums of a convolution of bytes, the numbers of inputs and zero points given."""
    shape = site.shape(w[0])
    window = window_of(site, w[0])
    if shape is None or None in shape or window is None or not _is_byte(site, x[0], w[0]):
        return None
    dtype = _exact(math.prod(shape[1:]) + 1)  # type: ignore[arg-type]
    if bias is not None and site.input(bias) is not None:
        dtype = np.dtype(np.float64)
    image = _centred(site, *x, dtype, "input")
    weight = _centred(site, *w, dtype, "weight", along=0)
    if image is None or weight is None:
        return None
    given: list[Value | None] = [image, weight]
    if bias is not None and site.input(bias) is not None:
        known = site.array(bias)
        if known is None:
            return None
        given.append(site.graph.constant(known.astype(dtype), f"{site.name}.bias"))
    return site.add("conv", given, "sums", **window)


@translates("ConvInteger")
def _conv_integer(site: Site) -> Translated:
    sums = _convolved(site, (0, 2), (1, 3), None)
    return None if sums is None else site.add("numpy", [sums], function="cast", to="int32")


def _multiplied(site: Site, a: tuple[int, int], b: tuple[int, int]) -> Value | None:
    depth = (site.shape(a[0]) or (None,))[-1]
    if depth is None or not _is_byte(site, a[0], b[0]):
        return None
    dtype = _exact(depth)
    left, right = _centred(site, *a, dtype, "left"), _centred(site, *b, dtype, "right")
    return None if left is None or right is None else site.add("matmul", [left, right], "sums")


@translates("MatMulInteger")
def _matmul_integer(site: Site) -> Translated:
    sums = _multiplied(site, (0, 2), (1, 3))
    return None if sums is None else site.add("numpy", [sums], function="cast", to="int32")


def _requantized(site: Site, sums: Value, scales: tuple[int, int, int], zero: int, axis: int) -> Translated:
    """sums * (scale of x * scale of w / scale of y) + zero point, the second scale perhaps one for each channel."""
    arrays = [site.array(i) for i in scales]
    if any(array is None for array in arrays):
        return None
    x, w, y = (np.asarray(array, np.float32) for array in arrays)
    factor = x.reshape(-1)[0] * w.reshape(-1, *(1,) * axis) / y.reshape(-1)[0]
    wide = site.add("numpy", [sums], "rounded", function="cast", to="float32")
    scaled = site.add("map", [wide, site.graph.constant(factor.astype(np.float32))], "scaled", program=(("mul", 1),))
    one = site.graph.constant(np.ones((), np.float32), f"{site.name}.one")
    return site.add("numpy", [scaled, one, site.input(zero)], function="quantize", axis=1)


@translates("QLinearConv")
def _quantized_conv(site: Site) -> Translated:
    rank = site.rank(0)
    if rank is None or any(site.array(i) is None for i in (1, 4, 6)):
        return None
    sums = _convolved(site, (0, 2), (3, 5), 8)
    return None if sums is None else _requantized(site, sums, (1, 4, 6), 7, rank - 2)


@translates("QLinearMatMul")
def _quantized_matmul(site: Site) -> Translated:
    scales = [site.array(i) for i in (1, 4, 6)]
    if any(scale is None or scale.size != 1 or scale.dtype != np.float32 for scale in scales):
        return None
    sums = _multiplied(site, (0, 2), (3, 5))
    return None if sums is None else _requantized(site, sums, (1, 4, 6), 7, 0)


#: Operators that the core has for floats, and NumPy for integers.
_INTEGERS = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Min": "min", "Max": "max", "Abs": "abs",
    "Neg": "neg", "Sign": "sign",
}  # fmt: skip


def _or_integers(name: str) -> None:
    floats = TRANSLATORS["", name]

    def translated(site: Site) -> Translated:
        dtypes = {site.dtype(i) for i in range(len(site.inputs))}
        dtype = next(iter(dtypes))
        if len(dtypes) > 1 or not is_plain(dtype) or dtype is None or dtype.kind not in "iu":
            return floats(site)
        total, *others = site.inputs
        if not others:
            single = name in ("Abs", "Neg", "Sign")
            return site.add("numpy", [total], function=_INTEGERS[name]) if single else site.add("identity", [total])
        for i, value in enumerate(others):
            part = "" if i == len(others) - 1 else str(i)
            total = site.add("numpy", [total, value], part, function=_INTEGERS[name])
        return total

    TRANSLATORS["", name] = translated


for _name in _INTEGERS:
    _or_integers(_name)
