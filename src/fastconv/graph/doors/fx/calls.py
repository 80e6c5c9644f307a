# SPDX-License-Identifier: BSD-3-Clause
"""What torch's functions and methods mean in a graph: one translation for each, with torch's own arguments.

A translation takes the reader and the arguments of a call, tensors among them as values of the graph, and returns what
the call does: a value, a size, parts. It raises `Unknown` with the reason where the graph has no words for the call.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from fastconv._names import only
from fastconv.graph.ir import Value
from fastconv.graph.programs import Program, clamp

if TYPE_CHECKING:
    from fastconv.graph.doors.fx.reader import Reader

__all__ = ["CALLS", "FRESH", "SAME", "VIEW", "Parts", "Shape", "Size", "Unknown", "identity", "needs"]
__dir__ = only(__all__)


class Unknown(Exception):
    """Why a call has no meaning in a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """A number that depends on shapes: ``("size", value, axis)``, or a sum, product, ... of two such or of numbers."""

    entry: tuple[Any, Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """All sizes of a value."""

    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A tuple of tensors, each of which is made when it is asked for."""

    take: Callable[[int], Value]


#: What the memory of a result is: new, that of the first argument, or the first argument itself.
FRESH, VIEW, SAME = "fresh", "view", "same"

Call = Callable[..., Any]
#: By torch's function, or the name of a method: the translation, and what its result's memory is.
CALLS: dict[Any, tuple[Call, str]] = {}


def _means(*targets: Any, memory: str = FRESH) -> Callable[[Call], Call]:
    def register(call: Call) -> Call:
        for target in targets:
            CALLS[target] = (call, memory)
        return call

    return register


def needs(condition: Any, reason: str) -> None:
    if not condition:
        raise Unknown(reason)


def _value(x: Any) -> Value:
    needs(isinstance(x, Value), "an argument that is no tensor")
    return x


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _each(sizes: Any, rank: int) -> tuple[Any, ...]:
    """One size for each axis."""
    sizes = (sizes,) if isinstance(sizes, int) or sizes is None else tuple(sizes)
    needs(len(sizes) in (1, rank), f"{len(sizes)} sizes for {rank} axes")
    needs(all(n is None or isinstance(n, int) for n in sizes), "sizes that are not known")
    return sizes * rank if len(sizes) == 1 else sizes


def _axis(r: Reader, x: Value, axis: Any) -> int:
    """An axis counted from the front."""
    needs(isinstance(axis, int), "an axis that is not known")
    if axis >= 0:
        return int(axis)
    return int(axis) + _rank(r, x)


def _rank(r: Reader, x: Value) -> int:
    rank = r.rank(x)
    needs(rank is not None, "a tensor of unknown rank")
    assert rank is not None
    return rank


# --- layers with weights ----------------------------------------------------------------------------------------------


def _weights(*values: Any) -> list[Value | None]:
    for value in values:
        needs(value is None or _value(value).constant is not None, "weights that are computed")
    return list(values)


def _conv(rank: int) -> Call:
    def conv(
        r: Reader,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Value:
        padding = padding if isinstance(padding, str) else _each(padding, rank)
        attributes = {"stride": _each(stride, rank), "dilation": _each(dilation, rank), "groups": groups}
        weights = _weights(weight, bias)
        needs(len(weight.constant.shape) == rank + 2, "a weight of another rank")
        return r.emit("conv", [_value(input), *weights], rank + 2, padding=padding, **attributes)

    return conv


def _conv_transpose(rank: int) -> Call:
    def conv_transpose(
        r: Reader,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Value:
        attributes = {"stride": _each(stride, rank), "dilation": _each(dilation, rank), "groups": groups}
        attributes |= {"padding": _each(padding, rank), "output_padding": _each(output_padding, rank)}
        weights = _weights(weight, bias)
        needs(len(weight.constant.shape) == rank + 2, "a weight of another rank")
        return r.emit("conv", [_value(input), *weights], rank + 2, transposed=True, **attributes)

    return conv_transpose


@_means(F.linear)
def _linear(r: Reader, input: Any, weight: Any, bias: Any = None) -> Value:
    needs(isinstance(weight, Value) and weight.constant is not None and len(weight.constant.shape) == 2, "weights")
    return r.emit("linear", [_value(input), *_weights(weight, bias)], r.rank(input))


@_means(F.batch_norm)
def _batch_norm(
    r: Reader,
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
    needs(_is_number(eps), "an eps that is not known")
    parameters = _weights(weight, bias, running_mean, running_var)
    return r.emit("batch_norm", [_value(input), *parameters], r.rank(input), eps=float(eps))


@_means(F.layer_norm)
def _layer_norm(
    r: Reader, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> Value:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    needs(all(isinstance(n, int) for n in shape), "sizes that are not known")
    return r.emit("layer_norm", [_value(input), *_weights(weight, bias)], r.rank(input), shape=shape, eps=float(eps))


@_means(F.group_norm)
def _group_norm(
    r: Reader, input: Any, num_groups: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5, rank: Any = None
) -> Value:
    needs(isinstance(num_groups, int), "a number of groups that is not known")
    needs(rank is None or r.rank(_value(input)) == rank, "images without a batch, perhaps")
    weights = _weights(weight, bias)
    return r.emit("group_norm", [_value(input), *weights], r.rank(input), groups=num_groups, eps=float(eps))


@_means(F.interpolate, F.upsample)
def _interpolate(
    r: Reader,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    wanted = [n for given in (size, scale_factor) for n in (given if isinstance(given, (tuple, list)) else (given,))]
    needs(all(n is None or _is_number(n) for n in wanted), "sizes that are not known")
    needs(not antialias, "smoothing before images shrink")
    sizes = {"size": size, "scale_factor": scale_factor}
    sizes = {name: tuple(n) if isinstance(n, (tuple, list)) else n for name, n in sizes.items()}
    corners = {"align_corners": align_corners, "recompute_scale_factor": recompute_scale_factor}
    return r.emit("resize", [_value(input)], r.rank(input), **sizes, mode=mode, **corners)


# --- pooling ----------------------------------------------------------------------------------------------------------


def _max_pool(rank: int) -> Call:
    def max_pool(
        r: Reader,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Value:
        needs(not return_indices, "indices of maxima")
        window: dict[str, Any] = {"kernel_size": _each(kernel_size, rank), "stride": _steps(stride, rank)}
        window |= {"padding": _each(padding, rank), "dilation": _each(dilation, rank), "ceil_mode": bool(ceil_mode)}
        return r.emit("max_pool", [_value(input)], rank + 2, **window)

    return max_pool


def _steps(stride: Any, rank: int) -> tuple[Any, ...] | None:
    return None if stride is None or (not isinstance(stride, int) and len(stride) == 0) else _each(stride, rank)


def _avg_pool(rank: int) -> Call:
    def avg_pool(
        r: Reader,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Value:
        window: dict[str, Any] = {"kernel_size": _each(kernel_size, rank), "stride": _steps(stride, rank)}
        window |= {"padding": _each(padding, rank), "ceil_mode": bool(ceil_mode)}
        window |= {"count_include_pad": bool(count_include_pad), "divisor_override": divisor_override}
        return r.emit("avg_pool", [_value(input)], rank + 2, **window)

    return avg_pool


def _adaptive(op: str, rank: int) -> Call:
    def pool(r: Reader, input: Any, output_size: Any, return_indices: bool = False) -> Value:
        needs(not return_indices, "indices of maxima")
        return r.emit(op, [_value(input)], rank + 2, output_size=_each(output_size, rank))

    return pool


for _n in (1, 2, 3):
    _means(getattr(torch, f"conv{_n}d"))(_conv(_n))
    _means(getattr(torch, f"conv_transpose{_n}d"))(_conv_transpose(_n))
    _means(getattr(F, f"max_pool{_n}d"), getattr(torch, f"max_pool{_n}d"))(_max_pool(_n))
    _means(getattr(F, f"avg_pool{_n}d"))(_avg_pool(_n))
    _means(getattr(F, f"adaptive_avg_pool{_n}d"), getattr(torch, f"adaptive_avg_pool{_n}d", None))(
        _adaptive("adaptive_avg_pool", _n)
    )
    _means(getattr(F, f"adaptive_max_pool{_n}d"))(_adaptive("adaptive_max_pool", _n))
CALLS.pop(None, None)


def _reduced(kind: str) -> Call:
    def reduce(r: Reader, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
        x, rank = _value(input), r.rank(input)
        axes = (dim,) if isinstance(dim, int) else tuple(dim or ()) or None
        needs(dtype is None, "another dtype of the result")
        needs(axes is None or all(isinstance(axis, int) for axis in axes), "axes that are not known")
        if rank is not None and not keepdim:
            rank = 0 if axes is None else rank - len(axes)
        return r.emit("reduce", [x], rank, kind=kind, axes=axes, keep=bool(keepdim))

    return reduce


for _name, _kind in {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min"}.items():
    _means(getattr(torch, _name), _name)(_reduced(_kind))


# --- number by number -------------------------------------------------------------------------------------------------


def _mapped(r: Reader, x: Any, program: Program) -> Value:
    return r.emit("map", [_value(x)], r.rank(x), program=program)


def _function(program: Program) -> Call:
    def call(r: Reader, input: Any, inplace: bool = False) -> Value:
        return _mapped(r, input, program)

    return call


for _names, _program in {
    ("relu",): (clamp(0),),
    ("relu6",): (clamp(0, 6),),
    ("silu",): (("silu",),),
    ("sigmoid",): (("sigmoid",),),
    ("hardsigmoid",): (("affine", 1 / 6, 0.5), clamp(0, 1)),
    ("hardswish",): (("hardswish",),),
    ("tanh",): (("tanh",),),
    ("mish",): (("mish",),),
    ("exp",): (("exp",),),
    ("log",): (("log",),),
    ("sqrt",): (("sqrt",),),
    ("rsqrt",): (("rsqrt",),),
    ("reciprocal",): (("reciprocal",),),
    ("abs", "absolute"): (("abs",),),
    ("neg", "negative"): (("neg",),),
    ("square",): (("square",),),
    ("erf",): (("erf",),),
    ("floor",): (("floor",),),
    ("ceil",): (("ceil",),),
    ("round",): (("round",),),
    ("sign",): (("sign",),),
}.items():
    for _name in _names:
        _targets = [getattr(home, n) for home in (F, torch) for n in (_name, f"{_name}_") if hasattr(home, n)]
        _means(_name, f"{_name}_", *_targets)(_function(_program))
CALLS[operator.neg] = CALLS["neg"]
CALLS[builtins.abs] = CALLS[operator.abs] = CALLS["abs"]


@_means(F.hardtanh, F.hardtanh_)
def _hardtanh(r: Reader, input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Value:
    return _clamp(r, input, min_val, max_val)


@_means(torch.clamp, torch.clamp_, torch.clip, torch.clip_, "clamp", "clamp_", "clip", "clip_")
def _clamp(r: Reader, input: Any, min: Any = None, max: Any = None) -> Value:
    low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
    needs(_is_number(low) and _is_number(high) and low <= high, "bounds that are no numbers")
    return _mapped(r, input, (clamp(low, high),))


@_means(F.leaky_relu, F.leaky_relu_)
def _leaky_relu(r: Reader, input: Any, negative_slope: Any = 0.01, inplace: bool = False) -> Value:
    needs(_is_number(negative_slope), "a slope that is no number")
    return _mapped(r, input, (("leaky_relu", float(negative_slope)),))


@_means(F.elu, F.elu_)
def _elu(r: Reader, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    needs(_is_number(alpha), "an alpha that is no number")
    return _mapped(r, input, (("elu", float(alpha)),))


@_means(F.gelu)
def _gelu(r: Reader, input: Any, approximate: str = "none") -> Value:
    return _mapped(r, input, (("gelu_tanh" if approximate == "tanh" else "gelu",),))


@_means(F.softplus)
def _softplus(r: Reader, input: Any, beta: Any = 1, threshold: Any = 20) -> Value:
    needs(beta == 1 and threshold == 20, "a softplus of other steepness")
    return _mapped(r, input, (("softplus",),))


@_means(F.prelu, torch.prelu, "prelu")
def _prelu(r: Reader, input: Any, weight: Any) -> Value:
    (slope,) = _weights(weight)
    assert slope is not None
    assert slope.constant is not None
    x = _value(input)
    if slope.constant.shape != (1,):
        rank = _rank(r, x)
        needs(len(slope.constant.shape) == 1 and rank >= 2, "slopes of another shape")
        slope = r.emit("reshape", [slope], rank - 1, shape=(-1, *(1,) * (rank - 2)))
    return r.emit("map", [x, slope], r.rank(x), program=(("prelu", 1),))


def _combine(r: Reader, name: str, first: Any, second: Any) -> Any:
    """Of two tensors, a tensor and a number, or two sizes."""
    operands = (first, second)
    if all(isinstance(x, (int, Size)) for x in operands):
        needs(name in ("add", "sub", "mul", "floordiv"), f"{name} of sizes")
        if not any(isinstance(x, Size) for x in operands):
            return getattr(operator, name)(*operands)
        left, right = (x.entry if isinstance(x, Size) else x for x in operands)
        return Size((name, left, right))
    if all(isinstance(x, Value) for x in operands):
        needs(name != "floordiv", "whole parts of quotients")
        if first.constant is not None and name in ("add", "mul", "max", "min"):
            first, second = second, first
        ranks = [rank for x in operands if (rank := r.rank(x)) is not None]
        return r.emit("map", [first, second], max(ranks) if len(ranks) == 2 else None, program=((name, 1),))
    x, n = (first, second) if isinstance(first, Value) else (second, first)
    needs(isinstance(x, Value) and _is_number(n), "an operand of another kind")
    n, turned = float(n), x is second
    programs: dict[str, Callable[[], Program]] = {
        "add": lambda: (("affine", 1.0, n),),
        "sub": lambda: (("affine", -1.0, n),) if turned else (("affine", 1.0, -n),),
        "mul": lambda: (("affine", n, 0.0),),
        "div": lambda: (("reciprocal",), ("affine", n, 0.0)) if turned else (("affine", 1 / n, 0.0),),
        "max": lambda: (clamp(n, math.inf),),
        "min": lambda: (clamp(-math.inf, n),),
    }
    needs(name in programs and math.isfinite(n) and (name != "div" or n != 0), f"{name} by {n}")
    return _mapped(r, x, programs[name]())


def _binary(name: str) -> Call:
    def call(r: Reader, input: Any, other: Any, *, alpha: Any = 1) -> Any:
        needs(alpha == 1, "a factor of the second operand")
        return _combine(r, name, input, other)

    return call


def _reversed(name: str) -> Call:
    def call(r: Reader, input: Any, other: Any) -> Any:
        return _combine(r, name, other, input)

    return call


for _name, _aliases in {
    "add": (operator.add, operator.iadd, torch.add, "add", "add_"),
    "sub": (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_"),
    "mul": (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"),
    "max": (torch.maximum, "maximum"),
    "min": (torch.minimum, "minimum"),
    "floordiv": (operator.floordiv,),
}.items():
    _means(*_aliases)(_binary(_name))
_means(torch.rsub)(_reversed("sub"))


@_means(operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_")
def _div(r: Reader, input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    needs(rounding_mode is None, "whole parts of quotients")
    return _combine(r, "div", input, other)


@_means(operator.pow, operator.ipow, torch.pow, "pow", "pow_")
def _pow(r: Reader, input: Any, exponent: Any) -> Value:
    programs: dict[Any, Program] = {2: (("square",),), 0.5: (("sqrt",),), -1: (("reciprocal",),), 1: ()}
    needs(isinstance(exponent, (int, float)) and exponent in programs, "a power of that kind")
    return _mapped(r, input, programs[exponent])


# --- axes and shapes --------------------------------------------------------------------------------------------------


@_means(torch.cat, torch.concat, torch.concatenate)
def _cat(r: Reader, tensors: Any, dim: Any = 0) -> Value:
    needs(isinstance(tensors, (tuple, list)) and tensors, "tensors that are not listed")
    needs(isinstance(dim, int), "an axis that is not known")
    ranks = [r.rank(_value(x)) for x in tensors]
    return r.emit("concat", list(tensors), next((n for n in ranks if n is not None), None), axis=dim)


@_means(torch.flatten, "flatten", memory=VIEW)
def _flatten(r: Reader, input: Any, start_dim: Any = 0, end_dim: Any = -1) -> Value:
    x, rank = _value(input), r.rank(input)
    needs(isinstance(start_dim, int) and isinstance(end_dim, int), "axes that are not known")
    known = rank if rank is None else rank - (end_dim % rank - start_dim % rank) if rank else 1
    return r.emit("flatten", [x], known, start=start_dim, stop=end_dim)


def _listed(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes that are given one by one, or in a list."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list, torch.Size)):
        return tuple(sizes[0])
    return sizes


@_means(torch.reshape, "reshape", "view", memory=VIEW)
def _reshape(r: Reader, input: Any, *shape: Any) -> Value:
    x, wanted = _value(input), _listed(shape)
    needs(all(isinstance(n, Size) or (isinstance(n, int) and n != 0) for n in wanted), "sizes that are not known")
    wanted = tuple(0 if r.is_size_of(n, x, i) else n for i, n in enumerate(wanted))
    sizes, others = r.entries(x, wanted)
    return r.emit("reshape", [x, *others], len(wanted), shape=sizes)


@_means(torch.permute, "permute", memory=VIEW)
def _permute(r: Reader, input: Any, *dims: Any) -> Value:
    wanted = _listed(dims)
    needs(all(isinstance(n, int) for n in wanted), "axes that are not known")
    return r.emit("transpose", [_value(input)], len(wanted), order=tuple(n % len(wanted) for n in wanted))


@_means(torch.transpose, torch.swapaxes, "transpose", "swapaxes", memory=VIEW)
def _transpose(r: Reader, input: Any, dim0: Any, dim1: Any) -> Value:
    x, order = _value(input), list(range(_rank(r, input)))
    first, second = _axis(r, x, dim0), _axis(r, x, dim1)
    needs(max(first, second) < len(order), "axes that are not there")
    order[first], order[second] = order[second], order[first]
    return r.emit("transpose", [x], len(order), order=tuple(order))


@_means(torch.unsqueeze, "unsqueeze", memory=VIEW)
def _unsqueeze(r: Reader, input: Any, dim: Any) -> Value:
    x, rank = _value(input), _rank(r, input)
    needs(isinstance(dim, int), "an axis that is not known")
    shape: list[Any] = [("size", 0, axis) for axis in range(rank)]
    shape.insert(dim % (rank + 1), 1)
    return r.emit("reshape", [x], rank + 1, shape=tuple(shape))


@_means(torch.squeeze, "squeeze", memory=VIEW)
def _squeeze(r: Reader, input: Any, dim: Any = None) -> Value:
    x, rank, shape = _value(input), _rank(r, input), r.shape(input)
    needs(shape is not None, "sizes that are not known")
    assert shape is not None
    axes = range(rank) if dim is None else [_axis(r, x, axis) for axis in ((dim,) if isinstance(dim, int) else dim)]
    kept = tuple(("size", 0, axis) for axis in range(rank) if axis not in axes or shape[axis] != 1)
    return r.emit("reshape", [x], len(kept), shape=kept)


def _sliced(r: Reader, x: Value, axis: int, start: Any, stop: Any) -> Value:
    sizes, others = r.entries(x, (start, stop))
    return r.emit("slice", [x, *others], r.rank(x), axis=axis, start=sizes[0], stop=sizes[1])


@_means(torch.chunk, "chunk", memory=VIEW)
def _chunk(r: Reader, input: Any, chunks: Any, dim: Any = 0) -> Parts:
    x = _value(input)
    needs(isinstance(chunks, int) and chunks > 0, "a number of parts that is not known")
    axis = _axis(r, x, dim)
    length = ("floordiv", ("add", ("size", 0, axis), chunks - 1), chunks)
    return Parts(lambda i: _sliced(r, x, axis, _raw("mul", length, i), _raw("mul", length, i + 1)))


def _raw(name: str, first: Any, second: Any) -> Size:
    return Size((name, first, second))


@_means(torch.split, "split", memory=VIEW)
def _split(r: Reader, input: Any, split_size: Any, dim: Any = 0) -> Parts:
    x = _value(input)
    axis = _axis(r, x, dim)
    if isinstance(split_size, int):
        return Parts(lambda i: _sliced(r, x, axis, i * split_size, (i + 1) * split_size))
    needs(isinstance(split_size, (tuple, list)), "parts that are not known")
    needs(all(isinstance(n, int) for n in split_size), "parts that are not known")
    starts = [0]
    for n in split_size:
        starts.append(starts[-1] + n)
    return Parts(lambda i: _sliced(r, x, axis, starts[i], starts[i + 1]))


@_means(operator.getitem, memory=VIEW)
def _getitem(r: Reader, input: Any, index: Any) -> Any:
    if isinstance(input, (tuple, list)) and isinstance(index, (int, slice)):
        return input[index]
    if isinstance(input, Shape):
        if isinstance(index, slice):
            return tuple(r.size(input.value, axis) for axis in range(_rank(r, input.value))[index])
        return r.size(input.value, _axis(r, input.value, index))
    if isinstance(input, Parts):
        needs(isinstance(index, int) and index >= 0, "parts that are counted from behind")
        return input.take(index)
    return _indexed(r, _value(input), index if isinstance(index, tuple) else (index,))


def _indexed(r: Reader, x: Value, index: tuple[Any, ...]) -> Value:
    """``x[index]``, of slices and numbers."""
    dropped: list[int] = []
    axis = 0
    for i, entry in enumerate(index):
        if entry is Ellipsis:
            axis = _rank(r, x) - (len(index) - i - 1)
            continue
        if isinstance(entry, slice):
            needs(entry.step in (None, 1), "slices with steps")
            bounds = (entry.start, entry.stop)
            needs(all(n is None or isinstance(n, (int, Size)) for n in bounds), "bounds that are not known")
            if bounds not in ((None, None), (0, None)):
                x = _sliced(r, x, axis, *bounds)
        else:
            needs(isinstance(entry, int) and not isinstance(entry, bool), "an index of that kind")
            x = _sliced(r, x, axis, entry, None if entry == -1 else entry + 1)
            dropped.append(axis)
        axis += 1
    if not dropped:
        return x
    rank = _rank(r, x)
    kept = tuple(("size", 0, axis) for axis in range(rank) if axis not in dropped)
    return r.emit("reshape", [x], len(kept), shape=kept)


@_means("size")
def _size(r: Reader, input: Any, dim: Any = None) -> Any:
    x = _value(input)
    if dim is not None:
        return r.size(x, _axis(r, x, dim))
    return r.shape(x) or Shape(x)


@_means(builtins.getattr)
def _attribute(r: Reader, input: Any, name: str) -> Any:
    needs(name in ("shape", "ndim"), f"an attribute {name}")
    return _size(r, input) if name == "shape" else _rank(r, _value(input))


@_means("dim")
def _dim(r: Reader, input: Any) -> int:
    return _rank(r, _value(input))


# --- the rest ---------------------------------------------------------------------------------------------------------


@_means(F.softmax, torch.softmax, "softmax")
def _softmax(r: Reader, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None, **more: Any) -> Value:
    needs(isinstance(dim, int) and dtype is None and not more, "an axis that is not known")
    return r.emit("softmax", [_value(input)], r.rank(input), axis=dim)


@_means(F.log_softmax, torch.log_softmax, "log_softmax")
def _log_softmax(r: Reader, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None, **more: Any) -> Value:
    needs(isinstance(dim, int) and dtype is None and not more, "an axis that is not known")
    return r.emit("softmax", [_value(input)], r.rank(input), axis=dim, log=True)


@_means(F.local_response_norm)
def _response(r: Reader, input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Value:
    attributes = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    return r.emit("local_response_norm", [_value(input)], r.rank(input), **attributes)


@_means(F.pad)
def _pad(r: Reader, input: Any, pad: Any, mode: str = "constant", value: Any = None, rank: int | None = None) -> Value:
    x = _value(input)
    needs(mode == "constant" and (value is None or _is_number(value)), f"a border of kind {mode}")
    needs(all(isinstance(n, int) for n in pad) and len(pad) % 2 == 0, "borders that are not known")
    axes = rank or _rank(r, x)
    inner = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]
    needs(len(inner) <= axes, "more borders than axes")
    pairs = (*((0, 0),) * (axes - len(inner)), *inner)
    return r.emit("pad", [x], axes, pairs=pairs, value=float(value or 0))


@_means(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, memory=SAME)
def _dropout(r: Reader, input: Any, p: float = 0.5, training: Any = True, inplace: bool = False) -> Value:
    needs(training is False, "chance")
    return _value(input)


@_means("detach", memory=SAME)
def _same(r: Reader, input: Any) -> Value:
    return _value(input)


@_means("contiguous", memory=VIEW)
def _contiguous(r: Reader, input: Any, memory_format: Any = None) -> Value:
    return _value(input)


@_means("clone", torch.clone)
def _clone(r: Reader, input: Any, *, memory_format: Any = None) -> Value:
    return _value(input)


def identity(r: Reader, input: Any, *_: Any) -> Value:
    return _value(input)


CALLS[identity] = (identity, SAME)
