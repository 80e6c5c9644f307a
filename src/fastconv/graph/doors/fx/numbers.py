# SPDX-License-Identifier: BSD-3-Clause
"""Functions of each number, and sums, products, ... of tensors and numbers."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fastconv._names import only
from fastconv.graph.doors.fx.growing import Growing, Size
from fastconv.graph.doors.fx.table import (
    CALLS,
    Call,
    is_number,
    means,
    needs,
    rank_of,
    value_of,
    weights_of,
)
from fastconv.graph.ir import Value
from fastconv.graph.programs import Program, clamp

__all__: list[str] = []
__dir__ = only(__all__)


def _mapped(r: Growing, x: Any, program: Program) -> Value:
    return r.emit("map", [value_of(x)], r.rank(x), program=program)


def _function(program: Program) -> Call:
    def call(r: Growing, input: Any, inplace: bool = False) -> Value:
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
        means(_name, f"{_name}_", *_targets)(_function(_program))
CALLS[operator.neg] = CALLS["neg"]
CALLS[builtins.abs] = CALLS[operator.abs] = CALLS["abs"]


@means(F.hardtanh, F.hardtanh_)
def _hardtanh(r: Growing, input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Value:
    return _clamp(r, input, min_val, max_val)


@means(torch.clamp, torch.clamp_, torch.clip, torch.clip_, "clamp", "clamp_", "clip", "clip_")
def _clamp(r: Growing, input: Any, min: Any = None, max: Any = None) -> Value:
    low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
    needs(is_number(low) and is_number(high) and low <= high, "bounds that are no numbers")
    return _mapped(r, input, (clamp(low, high),))


@means(F.leaky_relu, F.leaky_relu_)
def _leaky_relu(r: Growing, input: Any, negative_slope: Any = 0.01, inplace: bool = False) -> Value:
    needs(is_number(negative_slope), "a slope that is no number")
    return _mapped(r, input, (("leaky_relu", float(negative_slope)),))


@means(F.elu, F.elu_)
def _elu(r: Growing, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    needs(is_number(alpha), "an alpha that is no number")
    return _mapped(r, input, (("elu", float(alpha)),))


@means(F.gelu)
def _gelu(r: Growing, input: Any, approximate: str = "none") -> Value:
    return _mapped(r, input, (("gelu_tanh" if approximate == "tanh" else "gelu",),))


@means(F.softplus)
def _softplus(r: Growing, input: Any, beta: Any = 1, threshold: Any = 20) -> Value:
    needs(beta == 1 and threshold == 20, "a softplus of other steepness")
    return _mapped(r, input, (("softplus",),))


@means(F.prelu, torch.prelu, "prelu")
def _prelu(r: Growing, input: Any, weight: Any) -> Value:
    (slope,) = weights_of(weight)
    assert slope is not None
    assert slope.constant is not None
    x = value_of(input)
    if slope.constant.shape != (1,):
        rank = rank_of(r, x)
        needs(len(slope.constant.shape) == 1 and rank >= 2, "slopes of another shape")
        slope = r.emit("reshape", [slope], rank - 1, shape=(-1, *(1,) * (rank - 2)))
    return r.emit("map", [x, slope], r.rank(x), program=(("prelu", 1),))


def _combine(r: Growing, name: str, first: Any, second: Any) -> Any:
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
    needs(isinstance(x, Value) and is_number(n), "an operand of another kind")
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
    def call(r: Growing, input: Any, other: Any, *, alpha: Any = 1) -> Any:
        needs(alpha == 1, "a factor of the second operand")
        return _combine(r, name, input, other)

    return call


def _reversed(name: str) -> Call:
    def call(r: Growing, input: Any, other: Any) -> Any:
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
    means(*_aliases)(_binary(_name))
means(torch.rsub)(_reversed("sub"))


@means(operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_")
def _div(r: Growing, input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    needs(rounding_mode is None, "whole parts of quotients")
    return _combine(r, "div", input, other)


@means(operator.pow, operator.ipow, torch.pow, "pow", "pow_")
def _pow(r: Growing, input: Any, exponent: Any) -> Value:
    programs: dict[Any, Program] = {2: (("square",),), 0.5: (("sqrt",),), -1: (("reciprocal",),), 1: ()}
    needs(isinstance(exponent, (int, float)) and exponent in programs, "a power of that kind")
    return _mapped(r, input, programs[exponent])
