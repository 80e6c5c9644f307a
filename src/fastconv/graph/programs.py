# SPDX-License-Identifier: BSD-3-Clause
"""Elementwise programs: a tuple of ``(function, *numbers)`` or ``(function, *operands)``, applied one after the other.

Each function takes what the one before has computed and returns what the next one takes; operands are counted from 1,
as the inputs of the node that has the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from fastconv import _args, _core
from fastconv._names import only

__all__ = [
    "COMBINING",
    "LONGEST",
    "NOTHING",
    "OPERANDS",
    "Program",
    "activation",
    "clamp",
    "evaluate",
    "joined",
    "operands_of",
    "operations",
    "reading",
    "renumbered",
]
__dir__ = only(__all__)

Program = tuple[tuple[Any, ...], ...]

LONGEST = 8  # functions of a program that the core runs at once
OPERANDS = 3  # that it takes besides the first
_ROUNDED = 1e-7  # how far a product of two numbers of float32 may be from 1 if it is meant to be that

#: What the core's convolutions do with a result if nothing is asked for.
NOTHING = _args.ACTIVATIONS[None]


def clamp(low: float = -math.inf, high: float = math.inf) -> tuple[Any, ...]:
    """ReLU is ``clamp(0)``."""
    return "clamp", float(low), float(high)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x > 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


#: Of one number, and constants.
_SINGLE: dict[str, Callable[..., np.ndarray]] = {
    "clamp": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "affine": lambda x, scale, shift: x * scale + shift,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "tanh": np.tanh,
    "leaky_relu": lambda x, slope: np.where(x > 0, x, slope * x),
    "elu": _elu,
    "gelu": lambda x: 0.5 * x * (1 + _erf(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "abs": np.abs,
    "neg": np.negative,
    "square": np.square,
    "erf": _erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
}

#: Of one number and others.
COMBINING: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "rsub": lambda x, y: y - x,
    "mul": np.multiply,
    "div": np.divide,
    "rdiv": lambda x, y: y / x,
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "fma": lambda x, scale, shift: x * scale + shift,
}


def evaluate(program: Program, x: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """What a program means; ``others`` are operands 1, 2, ..."""
    for name, *rest in program:
        with np.errstate(all="ignore"):
            if name in COMBINING:
                x = COMBINING[name](x, *(others[i - 1] for i in rest)).astype(x.dtype, copy=False)
            else:
                x = _SINGLE[name](x, *rest).astype(x.dtype, copy=False)
    return x


def joined(*parts: Program) -> Program:
    """One program after the other; a scale is multiplied into one that follows, and left out where that makes 1."""
    made: list[tuple[Any, ...]] = []
    for step in chain.from_iterable(parts):
        if step[0] == "affine":
            if made and made[-1][0] == "affine" and made[-1][2] == 0:
                step = ("affine", made.pop()[1] * step[1], step[2])
            if step[2] == 0 and abs(step[1] - 1) < _ROUNDED:
                continue
        made.append(step)
    return tuple(made)


def renumbered(program: Program, first: int) -> Program:
    """The same with operands counted from ``first`` instead of 1."""
    return tuple(
        (name, *(i + first - 1 for i in rest)) if name in COMBINING else (name, *rest) for name, *rest in program
    )


def operands_of(program: Program) -> set[int]:
    """The numbers of the operands that a program reads."""
    return {operand for name, *rest in program if name in COMBINING for operand in rest}


def reading(program: Program, kept: Sequence[int]) -> Program:
    """The same where only these operands are left, in this order."""
    return tuple(
        (name, *(1 + kept.index(i) for i in rest)) if name in COMBINING else (name, *rest) for name, *rest in program
    )


def operations(program: Program) -> tuple[tuple[Any, ...], ...] | None:
    """How the core's maps know a program, if they do: (name, numbers of two operands, two constants) of each."""
    if len(program) > LONGEST or any(name not in _core.MAP_NAMES for name, *_ in program):
        return None
    return tuple(
        (name, *(*(i - 1 for i in rest), 0, 0)[:2], 0.0, 0.0)
        if name in COMBINING
        else (name, 0, 0, *(*rest, 0.0, 0.0)[:2])
        for name, *rest in program
    )


def activation(program: Program) -> _args.Activation | None:
    """How the core's convolutions know a program of one function or none, if they do."""
    if not program:
        return NOTHING
    name, *numbers = program[0]
    if name == "clamp":
        return _args.clamp_of(*numbers)
    return _args.activation_of(name, *numbers) if name in _core.ACTIVATION_NAMES else None
