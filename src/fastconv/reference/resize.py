# SPDX-License-Identifier: BSD-3-Clause
"""Images of another size."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["interpolate"]
__dir__ = __all__.copy


def interpolate(
    input: np.ndarray,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> np.ndarray:
    """Give images another size, one axis after the other.

    Output i lies at ``(i + 0.5) * in / out - 0.5`` of the input, so that the edges of the image stay where they are;
    with `align_corners` at ``i * (in - 1) / (out - 1)``, so that the middles of its corner pixels do. "linear" draws a
    line between the two pixels around that place, "bicubic" a curve through four; "nearest" takes the pixel at
    ``floor(i * in / out)``. Beyond the border lies the border.

    Parameters
    ----------
    input : ndarray, shape (N, C, ...)
    size : int or one per spatial axis, optional
    scale_factor : float or one per spatial axis, optional
        Instead of `size`: which is then ``floor(in * scale_factor)``, and ``1 / scale_factor`` takes the place of
        ``in / out``.
    mode : {"nearest", "linear", "bilinear", "trilinear", "bicubic"}
    align_corners : bool

    Returns
    -------
    ndarray, shape (N, C, ...)

    References
    ----------
    R. Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics, Speech, and
    Signal Processing, 1981, for the curve; its parameter is -0.75.

    Examples
    --------
    >>> interpolate(np.array([[[1.0, 2.0]]]), 4)
    array([[[1., 1., 2., 2.]]])
    >>> interpolate(np.array([[[1.0, 2.0]]]), 4, mode="linear")
    array([[[1.  , 1.25, 1.75, 2.  ]]])
    >>> interpolate(np.array([[[1.0, 2.0]]]), 3, mode="linear", align_corners=True)
    array([[[1. , 1.5, 2. ]]])
    """
    if (size is None) == (scale_factor is None):
        raise ValueError(f"size, scale_factor: got {size!r} and {scale_factor!r}, needs one of them")
    axes = range(2, input.ndim)
    lengths = input.shape[2:]
    if size is not None:
        counts = _per_axis(size, len(axes))
        steps = [n / count for n, count in zip(lengths, counts, strict=True)]
    else:
        factors = _per_axis(scale_factor, len(axes))
        counts = tuple(math.floor(n * factor) for n, factor in zip(lengths, factors, strict=True))
        steps = [1 / factor for factor in factors]
    output = input
    for axis, count, step in zip(axes, counts, steps, strict=True):
        output = _along(output, axis, count, step, mode, align_corners)
    return output


def _per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * axes


def _along(array: np.ndarray, axis: int, count: int, step: float, mode: str, align_corners: bool) -> np.ndarray:
    length = array.shape[axis]
    if mode == "nearest":
        return array.take(np.minimum(np.floor(np.arange(count) * step).astype(int), length - 1), axis)
    if align_corners:
        at = np.arange(count) * ((length - 1) / max(count - 1, 1))
    else:
        at = (np.arange(count) + 0.5) * step - 0.5
    if mode != "bicubic":
        at = at.clip(0, length - 1)
    taps = range(-1, 3) if mode == "bicubic" else range(2)
    output = np.zeros(())
    for tap in taps:
        distance = np.abs(at - np.floor(at) - tap)
        weight = _cubic(distance) if mode == "bicubic" else 1 - distance
        pixels = array.take((np.floor(at).astype(int) + tap).clip(0, length - 1), axis)
        output = output + pixels * weight.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return output


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, far)
