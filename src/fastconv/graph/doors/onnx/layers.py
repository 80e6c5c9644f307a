# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions, pooling, norms, matrix products, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.doors.onnx.site import Site, Translated, translates
from fastconv.graph.ir import Value
from fastconv.graph.operators.record import needs

__all__ = ["window_of"]
__dir__ = only(__all__)

Pairs = tuple[tuple[int, int], ...]


def _spatial(site: Site) -> int | None:
    """How many axes of pixels there are, if they are as many as the core takes."""
    rank = site.rank(0)
    return rank - 2 if rank is not None and 3 <= rank <= 5 else None


def _per_axis(site: Site, name: str, rank: int) -> tuple[int, ...]:
    value = site.attribute(name) or (1,) * rank
    if len(value) != rank:
        raise ValueError(f"{name} is {value}; it needs {rank} numbers")
    return value


def _pairs(site: Site, rank: int) -> Pairs:
    pads = site.attribute("pads") or (0,) * (2 * rank)
    if len(pads) != 2 * rank:
        raise ValueError(f"pads is {pads}; it needs {2 * rank} numbers")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def _shared(total: int, mode: str) -> tuple[int, int]:
    """Padding before and after; of an odd number SAME_UPPER has more behind."""
    less = total // 2
    return (less, total - less) if mode == "SAME_UPPER" else (total - less, less)


def _padding(site: Site, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Pairs | None:
    """Padding of windows; None where it depends on a size that is open."""
    rank, mode = len(kernel), site.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return _pairs(site, rank)
    if mode == "VALID":
        return ((0, 0),) * rank
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad is {mode!r}; it needs NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    sizes = (site.shape(0) or (None,) * (rank + 2))[2:]
    found = []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        if s == 1:
            found.append(_shared(d * (k - 1), mode))
        elif n is None:
            return None
        else:
            found.append(_shared(max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0), mode))
    return tuple(found)


# --- convolutions -----------------------------------------------------------------------------------------------------


def window_of(site: Site, which: int) -> dict[str, Any] | None:
    """Attributes of a convolution whose weights are the input of that number."""
    rank, weight = _spatial(site), site.shape(which)
    if rank is None or weight is None or len(weight) != rank + 2 or None in weight[2:]:
        return None
    strides, dilations = _per_axis(site, "strides", rank), _per_axis(site, "dilations", rank)
    padding = _padding(site, weight[2:], strides, dilations)  # type: ignore[arg-type]
    if padding is None or min(min(pair) for pair in padding) < 0:
        return None
    return {"stride": strides, "padding": padding, "dilation": dilations, "groups": site.attribute("group", 1)}


@translates("Conv")
def _conv(site: Site) -> Translated:
    window = window_of(site, 1)
    if window is None or not site.is_float(0, 1, 2):
        return None
    return site.add("conv", [site.input(0), site.input(1), site.input(2)], **window)


@translates("ConvTranspose")
def _conv_transpose(site: Site) -> Translated:
    """Padding that is negative, or a border behind that is wider than the stride, are zeros around the input first."""
    rank, weight = _spatial(site), site.shape(1)
    if rank is None or weight is None or len(weight) != rank + 2 or None in weight or not site.is_float(0, 1, 2):
        return None
    kernel: tuple[int, ...] = weight[2:]  # type: ignore[assignment]
    strides, dilations = _per_axis(site, "strides", rank), _per_axis(site, "dilations", rank)
    more = site.attribute("output_padding") or (0,) * rank
    pads = _transposed_padding(site, kernel, strides, dilations, more)
    if pads is None:
        return None
    border, padding, extra = [], [], []
    for (before, after), s, d in zip(pads, strides, dilations, strict=True):
        first = max(-(before // s), 0) if before < 0 else 0
        last = -(after // s) if -after >= max(s, d) else 0
        before, after = before + first * s, after + last * s
        border.append((first, last))
        padding.append((before, max(after, 0)))
        extra.append(max(-after, 0))
    x = site.input(0)
    if any(any(pair) for pair in border):
        x = site.add("pad", [x], "border", pairs=((0, 0), (0, 0), *border))
    return site.add(
        "conv",
        [x, site.input(1), site.input(2)],
        transposed=True,
        stride=strides,
        padding=tuple(padding),
        output_padding=tuple(extra),
        dilation=dilations,
        groups=site.attribute("group", 1),
    )


def _transposed_padding(
    site: Site, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], more: tuple[int, ...]
) -> Pairs | None:
    """What is cut off each end of the full result, output_padding counted against the end; may be negative."""
    rank, mode = len(kernel), site.attribute("auto_pad", "NOTSET")
    wanted, sizes = site.attribute("output_shape"), (site.shape(0) or (None,) * (rank + 2))[2:]
    if not wanted and mode in ("NOTSET", "", "VALID"):
        pairs = _pairs(site, rank) if mode != "VALID" else ((0, 0),) * rank
        return tuple((before, after - o) for (before, after), o in zip(pairs, more, strict=True))
    if wanted and len(wanted) not in (rank, rank + 2):
        raise ValueError(f"output_shape is {wanted}; it needs {rank} numbers")
    found = []
    for i, (k, s, d, o) in enumerate(zip(kernel, strides, dilations, more, strict=True)):
        if wanted:
            n = sizes[i]
            if n is None:
                return None
            total = s * (n - 1) + o + d * (k - 1) + 1 - wanted[len(wanted) - rank + i]
        else:  # s times the input's size
            total = o + d * (k - 1) + 1 - s
        before, after = _shared(total, mode)
        found.append((before, after - o))
    return tuple(found)


# --- pooling ----------------------------------------------------------------------------------------------------------


@translates("MaxPool", "AveragePool")
def _pool(site: Site) -> Translated:
    rank, kernel = _spatial(site), site.attribute("kernel_shape")
    if rank is None or not site.is_float(0):
        return None
    if kernel is None or len(kernel) != rank:
        raise ValueError(f"kernel_shape is {kernel}; it needs {rank} numbers")
    strides, dilations = _per_axis(site, "strides", rank), _per_axis(site, "dilations", rank)
    pads = _padding(site, kernel, strides, dilations)
    if pads is None or min(map(min, pads)) < 0:
        return None
    attributes: dict[str, Any] = {"kernel_size": kernel, "stride": strides}
    ceil, is_max = bool(site.attribute("ceil_mode", 0)), site.node.op_type == "MaxPool"
    is_dilated = any(d != 1 for d in dilations)
    if is_max or is_dilated:
        attributes["dilation"] = dilations
    if not is_max:
        attributes["count_include_pad"] = bool(site.attribute("count_include_pad", 0))
    is_plain = all(before == after <= k // 2 for (before, after), k in zip(pads, kernel, strict=True))
    is_plain = is_plain and (is_max or not is_dilated)  # torch has no averages of windows with holes
    padding = tuple(before for before, _ in pads) if is_plain else pads
    op = "max_pool" if is_max else "avg_pool"
    column_major = bool(site.attribute("storage_order", 0))
    if site.writes(1) and ((ceil and max(strides) > 1) or (column_major and rank != 2)):
        return None
    pooled = site.add(op, [site.input(0)], padding=padding, ceil_mode=ceil, **attributes)
    if not site.writes(1):
        return pooled
    # onnx.reference counts places wrongly where all strides are 1.
    options = {"kernel": kernel, "stride": strides, "dilation": dilations, "pads": pads, "column_major": column_major}
    return [pooled, site.add("numpy", [site.input(0)], "places", function="largest", **options)]


@translates("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(site: Site) -> Translated:
    if _spatial(site) is None or not site.is_float(0):
        return None
    op = "adaptive_max_pool" if site.node.op_type == "GlobalMaxPool" else "adaptive_avg_pool"
    return site.add(op, [site.input(0)], output_size=1)


# --- norms ------------------------------------------------------------------------------------------------------------


@translates("BatchNormalization")
def _batch_norm(site: Site) -> Translated:
    """With the statistics of training; until opset 13 more outputs than one mean that they are to be updated."""
    training = site.attribute("training_mode", 0) or any(site.writes(i) for i in range(1, 5))
    rank = site.rank(0)
    if training or not site.attribute("spatial", 1) or rank is None or rank < 2 or not site.is_float(0, 1, 2, 3, 4):
        return None
    return site.add("batch_norm", list(site.inputs), eps=float(site.attribute("epsilon", 1e-5)))


@translates("InstanceNormalization")
def _instance_norm(site: Site) -> Translated:
    scale, rank = site.shape(1), site.rank(0)
    if scale is None or None in scale or rank is None or rank < 3 or not site.is_float(0, 1, 2):
        return None
    eps = float(site.attribute("epsilon", 1e-5))
    return site.add("group_norm", list(site.inputs), groups=scale[0], eps=eps)


@translates("LayerNormalization")
def _layer_norm(site: Site) -> Translated:
    shape, axis = site.shape(0), site.attribute("axis", -1)
    if shape is None or site.writes(1) or site.writes(2) or not site.is_float(0, 1, 2):
        return None
    needs(-len(shape) <= axis < len(shape), "axis is {}; its input has {} axes", axis, len(shape))
    own = shape[axis % len(shape) :]
    if None in own or any(site.input(i) is not None and site.shape(i) != own for i in (1, 2)):
        return None
    eps = float(site.attribute("epsilon", 1e-5))
    return site.add("layer_norm", [site.input(0), site.input(1), site.input(2)], shape=own, eps=eps)


@translates("LRN")
def _response_norm(site: Site) -> Translated:
    rank, size = site.rank(0), site.attribute("size")
    if rank is None or rank < 3 or not site.is_float(0):
        return None
    return site.add(
        "local_response_norm",
        [site.input(0)],
        size=size,
        alpha=float(site.attribute("alpha", 1e-4)),
        beta=float(site.attribute("beta", 0.75)),
        k=float(site.attribute("bias", 1.0)),
        before=(size - 1) // 2,
    )


@translates("Softmax", "LogSoftmax")
def _softmax(site: Site) -> Translated:
    """Until opset 12 of all axes from ``axis`` on together."""
    rank, old = site.rank(0), site.opset < 13
    axis = site.attribute("axis", 1 if old else -1)
    if rank is None or rank == 0 or not site.is_float(0):
        return None
    needs(-rank <= axis < rank, "axis is {}; its input has {} axes", axis, rank)
    more: dict[str, Any] = {"log": True} if site.node.op_type == "LogSoftmax" else {}
    axis, x = axis % rank, site.input(0)
    if not old or axis == rank - 1:
        return site.add("softmax", [x], axis=axis, **more)
    flat = site.add("flatten", [x], "flat", start=axis, stop=-1)
    shares = site.add("softmax", [flat], "flat softmax", axis=axis, **more)
    return site.add("reshape", [shares, x], shape=tuple(("size", 1, i) for i in range(rank)))


# --- matrices ---------------------------------------------------------------------------------------------------------


@translates("Gemm")
def _gemm(site: Site) -> Translated:
    """alpha A' B' + beta C."""
    weight, added = site.array(1), site.array(2)
    if site.rank(0) != 2 or site.rank(1) != 2 or not site.is_float(0, 1, 2):
        return None
    if weight is None or (site.input(2) is not None and added is None):
        return _computed_gemm(site)
    alpha, beta = site.attribute("alpha", 1.0), site.attribute("beta", 1.0)
    weight = weight if site.attribute("transB", 0) else weight.T
    if alpha != 1:
        weight = (weight * np.float64(alpha)).astype(weight.dtype)
    bias, rest = None, None
    if added is not None:
        if beta != 1:
            added = (added * np.float64(beta)).astype(added.dtype)
        if added.size == math.prod(added.shape[-1:]):  # the same for all rows
            bias = np.broadcast_to(added.reshape(-1), weight.shape[:1])
        else:
            rest = added
    x, graph = site.input(0), site.graph
    if site.attribute("transA", 0):
        x = site.add("transpose", [x], "transposed", order=(1, 0))
    given = [x, _constant(site, 1, weight), None if bias is None else _constant(site, 2, bias)]
    if rest is None:
        return site.add("linear", given)
    product = site.add("linear", given, "product")
    return site.add("map", [product, graph.constant(rest, f"{site.name}.C")], program=(("add", 1),))


def _computed_gemm(site: Site) -> Translated:
    """Where B or C depend on the input."""
    given = [site.input(0), site.input(1)]
    for i, name in enumerate(("transA", "transB")):
        if site.attribute(name, 0):
            given[i] = site.add("transpose", [given[i]], name, order=(1, 0))
    factors = [float(site.attribute(name, 1.0)) for name in ("alpha", "beta")]
    added, is_scaled = site.input(2), factors[0] != 1
    product = site.add("matmul", given, "product" if is_scaled or added is not None else "")
    if is_scaled:
        product = site.add(
            "map", [product], "scaled" if added is not None else "", program=(("affine", factors[0], 0.0),)
        )
    if added is None:
        return product
    if factors[1] != 1:
        added = site.add("map", [added], "beta C", program=(("affine", factors[1], 0.0),))
    return site.add("map", [product, added], program=(("add", 1),))


def _constant(site: Site, which: int, array: np.ndarray) -> Value:
    value = site.input(which)
    assert value is not None
    return site.graph.constant(array, value.name)


@translates("MatMul")
def _matmul(site: Site) -> Translated:
    weight, rank = site.array(1), site.rank(0)
    if not rank or not site.is_float(0, 1):
        return None
    if weight is None or weight.ndim != 2 or site.array(0) is not None:
        return site.add("matmul", [site.input(0), site.input(1)]) if site.rank(1) else None
    return site.add("linear", [site.input(0), _constant(site, 1, weight.T)])


# --- resizing ---------------------------------------------------------------------------------------------------------


_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@translates("Resize")
def _resize(site: Site) -> Translated:
    rank, floats = site.rank(0), site.is_float(0)
    plain = not site.attribute("antialias", 0)
    stretched = site.attribute("keep_aspect_ratio_policy", "stretch") == "stretch"
    scales, sizes = site.array(2), site.ints(3)
    if rank is None or not 3 <= rank <= 5 or not floats or not plain or not stretched:
        return None
    if site.attribute("axes") is not None:
        axes = [a % rank for a in site.attribute("axes")]
        if axes != list(range(2, rank)):
            return None
        before: tuple[Any, ...] = ()
    else:
        before = (1, 1)
    if site.input(3) is not None:
        shape = site.shape(0)
        if sizes is None or shape is None or len(sizes) != rank - 2 + len(before):
            return None
        if before and sizes[:2] != shape[:2]:
            return None
        known: dict[str, Any] = {"size": sizes[len(before) :]}
        ratios = [None if n is None else m / n for n, m in zip(shape[2:], known["size"], strict=True)]
    else:
        if scales is None or scales.size != rank - 2 + len(before):
            return None
        factors = tuple(float(f) for f in scales.reshape(-1))
        if before and factors[:2] != (1.0, 1.0):
            return None
        known = {"scale_factor": factors[len(before) :]}
        ratios = list(known["scale_factor"])
    mode = _mode(site, rank, ratios)
    if mode is not None:
        return site.add("resize", [site.input(0)], **known, **mode)
    images = (site.shape(0) or (None,))[2:]
    if not images or None in images:
        return None
    tables: list[Value | None] = []
    for i, n in enumerate(images):
        assert n is not None
        scale = np.float32(known["size"][i]) / np.float32(n) if "size" in known else known["scale_factor"][i]
        made = _table(site, n, known["size"][i] if "size" in known else int(n * scale), np.float32(scale))
        if made is None:
            return None
        tables += [site.graph.constant(array, f"{site.name}.{what}{i}") for array, what in zip(made, "iw", strict=True)]
    return site.add("resample", [site.input(0), *tables])


#: Where the middle of output x lies, in elements of the input: of x, both sizes and the scale.
_PLACES: dict[str, Callable[..., Any]] = {
    "half_pixel": lambda x, n, out, scale: (x + 0.5) / scale - 0.5,
    "half_pixel_symmetric": lambda x, n, out, scale: n / 2 * (1 - out / (scale * n)) + (x + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda x, n, out, scale: (x + 0.5) / scale - 0.5 if out > 1 else 0 * x,
    "align_corners": lambda x, n, out, scale: x * (n - 1) / (out - 1) if out > 1 else 0 * x,
    "asymmetric": lambda x, n, out, scale: x / scale,
    "tf_half_pixel_for_nn": lambda x, n, out, scale: (x + 0.5) / scale,
}
_NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _table(site: Site, n: int, out: int, scale: np.float32) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices and weights, (taps, out), of an axis."""
    mode = site.attribute("mode", "nearest")
    place = _PLACES.get(site.attribute("coordinate_transformation_mode", "half_pixel"))
    if place is None or n < 1 or out < 1:
        return None
    single = np.float32 if mode == "nearest" else np.float64  # as others round, who decide by single precision
    at = place(np.arange(out, dtype=single), single(n), single(out), single(scale))
    if mode == "nearest":
        index, weight = _NEAREST[site.attribute("nearest_mode", "round_prefer_floor")](at)[None], np.ones((1, out))
    elif mode == "linear":
        share = at - np.floor(at)
        index, weight = np.floor(at) + np.arange(2)[:, None], np.stack([1 - share, share])
    elif mode == "cubic":
        index = np.floor(at) + np.arange(-1, 3)[:, None]
        weight = _cubic(np.abs(at - index), float(site.attribute("cubic_coeff_a", -0.75)))
        if site.attribute("exclude_outside", 0):
            weight = np.where((index >= 0) & (index < n), weight, 0)
            weight = weight / weight.sum(axis=0)
    else:
        return None
    return np.clip(index, 0, n - 1).astype(np.int32), np.asarray(weight, np.float64)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """The weight of an element at this distance."""
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, far)


def _mode(site: Site, rank: int, ratios: list[float | None]) -> dict[str, Any] | None:
    """torch's name for what is asked for, if it has one."""
    mode = site.attribute("mode", "nearest")
    where = site.attribute("coordinate_transformation_mode", "half_pixel")
    enlarged = all(r is not None and r >= 1 and r == int(r) for r in ratios)
    if mode == "nearest":
        rounding = site.attribute("nearest_mode", "round_prefer_floor")
        # Where an image becomes larger by an integer, the middle of no element lies at an edge.
        below = where == "asymmetric" and rounding == "floor"
        nearest = where in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        return {"mode": "nearest-exact"} if enlarged and (below or nearest) else None
    sampled = {"half_pixel": False, "align_corners": True}.get(where)
    if where == "pytorch_half_pixel" and all(r is not None and r >= 1 for r in ratios):
        # It differs for a single element alone, which then is the input's only one.
        sampled = False
    if sampled is None or (sampled and "scales" in _given(site) and not enlarged):
        return None
    if mode == "linear":
        return {"mode": _LINEAR[rank], "align_corners": sampled}
    if site.attribute("exclude_outside", 0):
        return None
    if mode == "cubic" and rank == 4 and site.attribute("cubic_coeff_a", -0.75) == -0.75:
        return {"mode": "bicubic", "align_corners": sampled}
    return None


def _given(site: Site) -> list[str]:
    return [name for i, name in ((2, "scales"), (3, "sizes")) if site.input(i) is not None]
