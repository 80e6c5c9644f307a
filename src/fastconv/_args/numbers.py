# SPDX-License-Identifier: BSD-3-Clause
"""Numbers: integers within limits, one per axis, and the paddings by their names."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv._args.words import said

LIMIT = 1 << 48  # elements of one tensor; the core's own limit


def integer(value: Any, name: str, minimum: int, maximum: int = LIMIT) -> int:
    """A Python integer from ``minimum`` to ``maximum``."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {said(value)}; it needs an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {said(value)}; it needs an integer") from None
    if number < minimum:
        raise ValueError(f"{name} is {said(number)}; it needs to be at least {minimum}")
    if number > maximum:
        raise ValueError(f"{name} is {said(number)}; it needs to be at most {maximum}")
    return number


def real(value: Any, name: str) -> float:
    """A Python float, from anything that is one number; infinity and NaN are."""
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is {said(value)}; it needs to be within a float's range") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {said(value)}; it needs a number") from None


def sizes(value: Any, name: str, minimum: int) -> tuple[int, ...]:
    """The integers of a shape."""
    if getattr(value, "ndim", 1) != 1:
        raise TypeError(f"{name} is {said(value)}; it needs a tuple of integers, such as an array's .shape")
    try:
        numbers = tuple(value)
    except TypeError:
        raise TypeError(f"{name} is {said(value)}; it needs a tuple of integers") from None
    return tuple(integer(number, name, minimum) for number in numbers)


def _is_sequence(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def per_axis(value: Any, rank: int, name: str, minimum: int) -> tuple[int, ...]:
    """One integer per spatial axis, from one for all or from a sequence."""
    if not _is_sequence(value):
        return (integer(value, name, minimum),) * rank
    if len(value) not in (1, rank):
        raise ValueError(f"{name} is {said(value)}; it needs an integer or {rank} of them")
    numbers = sizes(value, name, minimum)
    return numbers * rank if len(numbers) == 1 else numbers


def paddings(
    padding: Any,
    in_size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """A (before, after) pair per axis from an int, ints, pairs, or the names ``valid``, ``same``, ``same_lower``.

    ``same`` gives ceil(in / stride) outputs, with the odd element of padding on the high side;
    ``same_lower`` has it on the low side.
    """
    rank = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * rank
        if padding not in ("same", "same_lower"):
            raise ValueError(
                f"padding is {said(padding)}; it needs 'valid', 'same', 'same_lower', an integer, {rank} of them, or "
                f"{rank} pairs (before, after)"
            )
        pairs = []
        for size, k, s, d in zip(in_size, kernel, stride, dilation, strict=True):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if padding == "same" else (large, small))
        return tuple(pairs)
    if _is_sequence(padding) and len(padding) and all(map(_is_sequence, padding)):
        if len(padding) != rank or any(len(pair) != 2 for pair in padding):
            raise ValueError(f"padding is {said(padding)}; it needs {rank} pairs (before, after)")
        return tuple((integer(b, "padding", 0), integer(a, "padding", 0)) for b, a in padding)
    return tuple((p, p) for p in per_axis(padding, rank, "padding", 0))
