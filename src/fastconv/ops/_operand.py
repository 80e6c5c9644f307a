# SPDX-License-Identifier: BSD-3-Clause
"""What the NumPy operators share: how an argument becomes an array, and a result an answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _args
from fastconv.ops import _folds


def widened(array: np.ndarray) -> np.ndarray:
    """The array to compute with: float16 as a copy in float32, anything else as it is."""
    return array.astype(np.float32) if array.dtype == _args.HALF else array


def operand(value: Any, name: str = "input") -> np.ndarray:
    """`value` as an array to compute with: float32 and float64 as they are, float16 as float32.

    Nothing is copied except a float16 argument.
    """
    return widened(_args.as_operand(value, name))


def like(array: np.ndarray, original: Any) -> np.ndarray:
    """`array` in the dtype of the argument it was computed from."""
    return array.astype(np.asarray(original).dtype, copy=False)


def matching(value: Any, name: str, reference: np.ndarray, reference_name: str) -> np.ndarray:
    """`value` as an operand of exactly the shape and dtype of `reference`, and of its order of axes in memory."""
    array = operand(value, name)
    if array.shape != reference.shape:
        raise ValueError(f"{name} has shape {array.shape}; it needs {reference_name}'s {reference.shape}")
    if array.dtype != reference.dtype:
        raise TypeError(f"{name} has dtype {array.dtype}; it needs {reference_name}'s {reference.dtype}")
    return array if array.strides == reference.strides else _args.ordered_as(array, reference)


def pair(grad_output: Any, kept: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Operands of one shape and dtype: the gradient of a result, and what the forward pass kept."""
    kept = operand(kept, name)
    return matching(grad_output, "grad_output", kept, name), kept


def source(input: Any, inplace: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The operand, and where a ufunc should write: over it, or (None) into a new array."""
    if inplace and not (isinstance(input, np.ndarray) and input.flags.writeable):
        kind = "a read-only array" if isinstance(input, np.ndarray) else type(input).__name__
        raise TypeError(f"input is {kind}; with inplace=True it needs to be a writable NumPy array")
    x = operand(input)
    return x, (x if inplace else None)


def finish(result: np.ndarray, input: Any, inplace: bool) -> np.ndarray:
    """The result in the dtype of `input`, or written over it."""
    if not inplace:
        return like(result, input)
    if result is not input:
        input[...] = result
    return input


def channel_axis(layout: str, ndim: int) -> int:
    """The channel axis of a batched array: 1, or the last one for a channels-last `layout`.

    The name tells only where the channels are, so that the default serves every rank.
    """
    if layout in ("NC", "NCW", "NCHW", "NCDHW"):
        return 1
    if layout in ("NWC", "NHWC", "NDHWC"):
        return ndim - 1
    raise ValueError(f"layout is {layout!r}; it needs to be 'NCW', 'NCHW', 'NCDHW', 'NWC', 'NHWC' or 'NDHWC'")


def per_channel(vector: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """A vector with one entry per channel, shaped to broadcast along `axis`."""
    return vector.reshape([-1 if i == axis else 1 for i in range(ndim)])


def channel_sum(array: np.ndarray, axis: int) -> np.ndarray:
    """Sum over everything but `axis`, in float64 from pieces in the dtype of `array`.

    >>> import numpy as np
    >>> from fastconv.ops._operand import channel_sum
    >>> channel_sum(np.ones((2, 3, 4, 5), np.float32), 1)
    array([40., 40., 40.])
    """
    return _folds.total(widened(array), [i for i in range(array.ndim) if i != axis]).ravel().astype(np.float64)


def axis_index(dim: int, ndim: int, name: str = "dim") -> int:
    """`dim` as a non-negative axis of an array of rank `ndim`."""
    rank = max(ndim, 1)
    if not isinstance(dim, (int, np.integer)) or not -rank <= dim < rank:
        raise ValueError(f"{name} is {dim!r}; it needs to be an integer from {-rank} to {rank - 1}")
    return int(dim) % rank
