# SPDX-License-Identifier: BSD-3-Clause
"""Padding and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv.ops._operand import widened

__all__ = ["pad", "pad_grad"]
__dir__ = only(__all__)

_MODES = ("constant", "reflect", "replicate", "circular")


def _per_axis(pad: Sequence[int], shape: tuple[int, ...], mode: str) -> dict[int, tuple[int, int]]:
    """{axis: (before, after)} from torch's flat list, which starts at the last axis."""
    pad = _args.sizes(pad, "pad", -_args.LIMIT)
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}; it needs one of {', '.join(map(repr, _MODES))}")
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise ValueError(
            f"pad is {pad}; it needs to hold two integers per padded axis, last axis first, "
            f"for at most the {len(shape)} axes of an input {shape}"
        )
    widths = {}
    for i in range(len(pad) // 2):
        axis, before, after = len(shape) - 1 - i, pad[2 * i], pad[2 * i + 1]
        length = shape[axis]
        if length + before + after < 0:
            raise ValueError(f"pad removes {-before - after} from axis {axis} of length {length}")
        kept = length + min(before, 0) + min(after, 0)
        limit = {"reflect": length - 1, "circular": max(kept, 0)}.get(mode)
        if limit is not None and max(before, after) > limit:
            left = "" if kept == length else f", of which {kept} are left"
            raise ValueError(
                f"pad asks for {max(before, after)} on axis {axis} of length {length}{left}; "
                f"with mode={mode!r} it needs to be at most {limit}"
            )
        if mode == "replicate" and length == 0 and max(before, after) > 0:
            raise ValueError(f"pad with mode='replicate' has nothing to repeat on axis {axis}")
        widths[axis] = (before, after)
    return widths


def _source_index(length: int, before: int, after: int, mode: str) -> np.ndarray:
    """For every place of the padded axis, the place of the input it repeats."""
    if mode == "circular":  # what is cut off is no part of the circle
        start, stop = max(-before, 0), length + min(after, 0)
        around = np.arange(-max(before, 0), stop - start + max(after, 0))
        return start + around % max(stop - start, 1)
    index = np.arange(-before, length + after)
    if mode == "replicate":
        return np.clip(index, 0, length - 1)
    index = np.abs(index)
    return np.where(index >= length, 2 * (length - 1) - index, index)


def _filling(value: float | None, dtype: np.dtype) -> np.ndarray:
    try:
        return np.array(0 if value is None else value, dtype)
    except (OverflowError, ValueError):
        raise ValueError(f"value is {_args.said(value)}; it needs to be one that input's {dtype} has") from None


def _overlap(length: int, before: int, after: int) -> tuple[slice, slice]:
    """Where the input lies in the padded axis, and which part of the input that is."""
    size = length + before + after
    low, high = min(max(before, 0), size), max(min(before + length, size), 0)
    high = max(low, high)
    return slice(low, high), slice(low - before, high - before)


def _add_back(d: np.ndarray, g: np.ndarray, index: np.ndarray, before: int, after: int, same: bool) -> None:
    """Add every row of g to the row of d that it repeats; those of a border are all the `same`, or no two are."""
    first = min(max(before, 0), len(g))
    last = max(first, len(g) - max(after, 0))
    d[index[first:last]] = g[first:last]
    for border in (slice(0, first), slice(last, len(g))):
        if not same:
            d[index[border]] += g[border]
        elif border.start < border.stop:
            wide = np.result_type(g, np.float64) if g.dtype.kind in "fc" else None
            place = index[border.start]
            d[place] = d[place] + g[border].sum(axis=0, dtype=wide)


def pad(
    input: ArrayLike,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> np.ndarray:
    """Extend an array at its ends, as `torch.nn.functional.pad`; negative amounts cut off.

    Parameters
    ----------
    input : array of any dtype
    pad : sequence of int
        ``(before, after)`` of the last axis, then of the one before it, and so on.
    mode : {"constant", "reflect", "replicate", "circular"}
        Fill with `value`; mirror without repeating the edge; repeat the edge; wrap around.
    value : float, optional
        The filling of ``mode="constant"``; 0 if not given.

    Returns
    -------
    numpy.ndarray
        A new array of `input`'s dtype, its axes in the same order in memory.

    Raises
    ------
    ValueError
        An odd number of amounts or too many, an amount larger than the mode allows for the axis,
        more cut off than there is, or an unknown mode.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.pad(np.array([[1, 2, 3]]), (1, 2))
    array([[0, 1, 2, 3, 0, 0]])
    >>> fc.pad(np.array([1, 2, 3]), (2, 1), mode="reflect")
    array([3, 2, 1, 2, 3, 2])
    """
    x = _args.as_array(input, "input")
    widths = _per_axis(pad, x.shape, mode)
    if mode == "constant":
        shape = [n + sum(widths.get(axis, (0, 0))) for axis, n in enumerate(x.shape)]
        out = np.full_like(x, _filling(value, x.dtype), subok=False, shape=shape)
        spots = [_overlap(n, *widths.get(axis, (0, 0))) for axis, n in enumerate(x.shape)]
        out[tuple(spot for spot, _ in spots)] = x[tuple(part for _, part in spots)]
        return out
    if value is not None:
        raise ValueError(f"value is {value!r}; it belongs to mode='constant', not {mode!r}")
    x = x.copy("K")
    order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    x = _args.turned(x, order)  # what is taken lies in C's order
    for axis, (before, after) in widths.items():
        x = np.take(x, _source_index(x.shape[order.index(axis)], before, after, mode), order.index(axis))
    return _args.turned_back(x, order)


def pad_grad(
    grad_output: ArrayLike,
    input_size: Sequence[int],
    pad: Sequence[int],
    mode: str = "constant",
) -> np.ndarray:
    """Gradient of `pad`: every value goes back to the place it was copied from.

    Parameters
    ----------
    grad_output : array of the shape of the padded result
    input_size : sequence of int
        Shape of the array that was padded.
    pad, mode
        As they were given to `pad`.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.pad`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.pad(np.ones(6), (3,), (2, 1), mode="reflect")
    array([1., 3., 2.])
    """
    given, shape = _args.as_array(grad_output, "grad_output"), _args.sizes(input_size, "input_size", 0)
    g = widened(given)
    widths = _per_axis(pad, shape, mode)
    padded = tuple(n + sum(widths.get(axis, (0, 0))) for axis, n in enumerate(shape))
    if g.shape != padded:
        raise ValueError(f"grad_output has shape {g.shape}; padding {shape} by {tuple(pad)} gives {padded}")
    for axis, (before, after) in widths.items():
        g = np.moveaxis(g, axis, 0)
        d = np.zeros_like(g, subok=False, shape=(shape[axis], *g.shape[1:]))
        if mode == "constant":
            spot, part = _overlap(shape[axis], before, after)
            d[part] = g[spot]
        else:
            _add_back(d, g, _source_index(shape[axis], before, after, mode), before, after, mode == "replicate")
        g = np.moveaxis(d, 0, axis)
    return np.array(g, given.dtype, order="K")
