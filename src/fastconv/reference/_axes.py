# SPDX-License-Identifier: BSD-3-Clause
"""What every operator of the reference shares: one value per axis, and where the channels are."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Pair = int | Sequence[int]
T = TypeVar("T")


def pair(value: int | Sequence[T], name: str) -> tuple[int | T, int | T]:
    """One int per spatial axis, (height, width), from an int or from two of them."""
    if isinstance(value, (int, np.integer)):
        return value, value
    values = tuple(value)
    if len(values) != 2:
        raise ValueError(f"{name}: got {value!r}, needs an int or one int per axis (two)")
    return values[0], values[1]


def channels_first(array: np.ndarray, layout: str) -> np.ndarray:
    """The array with its axes in the order (..., C, H, W), as a view."""
    if layout == "NCHW":
        return array
    if layout == "NHWC":
        return np.moveaxis(array, -1, -3)
    raise ValueError(f"layout: got {layout!r}, needs 'NCHW' or 'NHWC'")


def channels_as(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of :func:`channels_first`: axes in the order of `layout`, memory contiguous."""
    return np.ascontiguousarray(array if layout == "NCHW" else np.moveaxis(array, -3, -1))


def channels_first_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """A shape given in `layout`, reordered to (..., C, H, W)."""
    return channels_first(np.broadcast_to(0, shape), layout).shape
