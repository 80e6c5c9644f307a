# SPDX-License-Identifier: BSD-3-Clause
"""What torch's functions and methods mean in a graph: one translation for each, with torch's own arguments.

A translation takes the reader and the arguments of a call, tensors among them as values of the graph, and returns what
the call does: a value, a size, parts. It raises `Unknown` with the reason where the graph has no words for the call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fastconv._names import only
from fastconv.graph.doors.fx import numbers, shapes  # noqa: F401 (they fill the table, too)
from fastconv.graph.doors.fx.growing import Growing, Size, Unknown
from fastconv.graph.doors.fx.table import (
    CALLS,
    FRESH,
    SAME,
    VIEW,
    Call,
    Parts,
    Shape,
    each,
    is_number,
    means,
    needs,
    rank_of,
    value_of,
    weights_of,
)
from fastconv.graph.ir import Value

__all__ = ["CALLS", "FRESH", "SAME", "VIEW", "Parts", "Shape", "Size", "Unknown", "identity", "needs"]
__dir__ = only(__all__)


# --- layers with weights ----------------------------------------------------------------------------------------------


def _conv(rank: int) -> Call:
    def conv(
        r: Growing,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Value:
        padding = padding if isinstance(padding, str) else each(padding, rank)
        attributes = {"stride": each(stride, rank), "dilation": each(dilation, rank), "groups": groups}
        weights = weights_of(weight, bias)
        needs(len(weight.constant.shape) == rank + 2, "a weight of another rank")
        return r.emit("conv", [value_of(input), *weights], rank + 2, padding=padding, **attributes)

    return conv


def _conv_transpose(rank: int) -> Call:
    def conv_transpose(
        r: Growing,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Value:
        attributes = {"stride": each(stride, rank), "dilation": each(dilation, rank), "groups": groups}
        attributes |= {"padding": each(padding, rank), "output_padding": each(output_padding, rank)}
        weights = weights_of(weight, bias)
        needs(len(weight.constant.shape) == rank + 2, "a weight of another rank")
        return r.emit("conv", [value_of(input), *weights], rank + 2, transposed=True, **attributes)

    return conv_transpose


@means(F.linear)
def _linear(r: Growing, input: Any, weight: Any, bias: Any = None) -> Value:
    needs(isinstance(weight, Value) and weight.constant is not None and len(weight.constant.shape) == 2, "weights")
    return r.emit("linear", [value_of(input), *weights_of(weight, bias)], r.rank(input))


@means(F.batch_norm)
def _batch_norm(
    r: Growing,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
) -> Value:
    needs(training is False and None not in (running_mean, running_var), "statistics of the batch")
    needs(is_number(eps), "an eps that is not known")
    parameters = weights_of(weight, bias, running_mean, running_var)
    return r.emit("batch_norm", [value_of(input), *parameters], r.rank(input), eps=float(eps))


@means(F.layer_norm)
def _layer_norm(
    r: Growing, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> Value:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    needs(all(isinstance(n, int) for n in shape), "sizes that are not known")
    return r.emit(
        "layer_norm", [value_of(input), *weights_of(weight, bias)], r.rank(input), shape=shape, eps=float(eps)
    )


@means(F.group_norm)
def _group_norm(
    r: Growing, input: Any, num_groups: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5, rank: Any = None
) -> Value:
    needs(isinstance(num_groups, int), "a number of groups that is not known")
    needs(rank is None or r.rank(value_of(input)) == rank, "images without a batch, perhaps")
    weights = weights_of(weight, bias)
    return r.emit("group_norm", [value_of(input), *weights], r.rank(input), groups=num_groups, eps=float(eps))


@means(F.interpolate, F.upsample)
def _interpolate(
    r: Growing,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    wanted = [n for given in (size, scale_factor) for n in (given if isinstance(given, (tuple, list)) else (given,))]
    needs(all(n is None or is_number(n) for n in wanted), "sizes that are not known")
    needs(not antialias, "smoothing before images shrink")
    sizes = {"size": size, "scale_factor": scale_factor}
    sizes = {name: tuple(n) if isinstance(n, (tuple, list)) else n for name, n in sizes.items()}
    corners = {"align_corners": align_corners, "recompute_scale_factor": recompute_scale_factor}
    return r.emit("resize", [value_of(input)], r.rank(input), **sizes, mode=mode, **corners)


# --- pooling ----------------------------------------------------------------------------------------------------------


def _max_pool(rank: int) -> Call:
    def max_pool(
        r: Growing,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Value:
        needs(not return_indices, "indices of maxima")
        window: dict[str, Any] = {"kernel_size": each(kernel_size, rank), "stride": _steps(stride, rank)}
        window |= {"padding": each(padding, rank), "dilation": each(dilation, rank), "ceil_mode": bool(ceil_mode)}
        return r.emit("max_pool", [value_of(input)], rank + 2, **window)

    return max_pool


def _steps(stride: Any, rank: int) -> tuple[Any, ...] | None:
    return None if stride is None or (not isinstance(stride, int) and len(stride) == 0) else each(stride, rank)


def _avg_pool(rank: int) -> Call:
    def avg_pool(
        r: Growing,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Value:
        window: dict[str, Any] = {"kernel_size": each(kernel_size, rank), "stride": _steps(stride, rank)}
        window |= {"padding": each(padding, rank), "ceil_mode": bool(ceil_mode)}
        window |= {"count_include_pad": bool(count_include_pad), "divisor_override": divisor_override}
        return r.emit("avg_pool", [value_of(input)], rank + 2, **window)

    return avg_pool


def _adaptive(op: str, rank: int) -> Call:
    def pool(r: Growing, input: Any, output_size: Any, return_indices: bool = False) -> Value:
        needs(not return_indices, "indices of maxima")
        return r.emit(op, [value_of(input)], rank + 2, output_size=each(output_size, rank))

    return pool


for _n in (1, 2, 3):
    means(getattr(torch, f"conv{_n}d"))(_conv(_n))
    means(getattr(torch, f"conv_transpose{_n}d"))(_conv_transpose(_n))
    means(getattr(F, f"max_pool{_n}d"), getattr(torch, f"max_pool{_n}d"))(_max_pool(_n))
    means(getattr(F, f"avg_pool{_n}d"))(_avg_pool(_n))
    means(getattr(F, f"adaptive_avg_pool{_n}d"), getattr(torch, f"adaptive_avg_pool{_n}d", None))(
        _adaptive("adaptive_avg_pool", _n)
    )
    means(getattr(F, f"adaptive_max_pool{_n}d"))(_adaptive("adaptive_max_pool", _n))
CALLS.pop(None, None)


def _reduced(kind: str) -> Call:
    def reduce(r: Growing, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
        x, rank = value_of(input), r.rank(input)
        axes = (dim,) if isinstance(dim, int) else tuple(dim or ()) or None
        needs(dtype is None, "another dtype of the result")
        needs(axes is None or all(isinstance(axis, int) for axis in axes), "axes that are not known")
        if rank is not None and not keepdim:
            rank = 0 if axes is None else rank - len(axes)
        return r.emit("reduce", [x], rank, kind=kind, axes=axes, keep=bool(keepdim))

    return reduce


for _name, _kind in {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min"}.items():
    means(getattr(torch, _name), _name)(_reduced(_kind))


# --- the rest ---------------------------------------------------------------------------------------------------------


@means(F.softmax, torch.softmax, "softmax")
def _softmax(r: Growing, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None, **more: Any) -> Value:
    needs(isinstance(dim, int) and dtype is None and not more, "an axis that is not known")
    return r.emit("softmax", [value_of(input)], r.rank(input), axis=dim)


@means(F.log_softmax, torch.log_softmax, "log_softmax")
def _log_softmax(
    r: Growing, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None, **more: Any
) -> Value:
    needs(isinstance(dim, int) and dtype is None and not more, "an axis that is not known")
    return r.emit("softmax", [value_of(input)], r.rank(input), axis=dim, log=True)


@means(F.local_response_norm)
def _response(r: Growing, input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Value:
    attributes = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    return r.emit("local_response_norm", [value_of(input)], r.rank(input), **attributes)


@means(F.pad)
def _pad(r: Growing, input: Any, pad: Any, mode: str = "constant", value: Any = None, rank: int | None = None) -> Value:
    x = value_of(input)
    needs(mode == "constant" and (value is None or is_number(value)), f"a border of kind {mode}")
    needs(all(isinstance(n, int) for n in pad) and len(pad) % 2 == 0, "borders that are not known")
    axes = rank or rank_of(r, x)
    inner = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]
    needs(len(inner) <= axes, "more borders than axes")
    pairs = (*((0, 0),) * (axes - len(inner)), *inner)
    return r.emit("pad", [x], axes, pairs=pairs, value=float(value or 0))


@means(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, memory=SAME)
def _dropout(r: Growing, input: Any, p: float = 0.5, training: Any = True, inplace: bool = False) -> Value:
    needs(training is False, "chance")
    return value_of(input)


@means("detach", memory=SAME)
def _same(r: Growing, input: Any) -> Value:
    return value_of(input)


@means("contiguous", memory=VIEW)
def _contiguous(r: Growing, input: Any, memory_format: Any = None) -> Value:
    return value_of(input)


@means("clone", torch.clone)
def _clone(r: Growing, input: Any, *, memory_format: Any = None) -> Value:
    return value_of(input)


def identity(r: Growing, input: Any, *_: Any) -> Value:
    return value_of(input)


CALLS[identity] = (identity, SAME)
