# SPDX-License-Identifier: BSD-3-Clause
"""What is asked of all gradients of a convolution at once, and where each of them goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv._args.arrays import as_operand, check_out, same_dtype
from fastconv._args.words import said

GRADIENTS = ("input", "weight", "bias")  # in the order of results


def needed(needs: Any) -> tuple[str, ...]:
    """The gradients that are asked for, in the order of results."""
    names = (needs,) if isinstance(needs, str) else needs
    try:
        wanted = set(names)
    except TypeError:
        raise TypeError(f"needs is {said(needs)}; it needs a tuple of names, such as {GRADIENTS}") from None
    if not wanted <= set(GRADIENTS):
        raise ValueError(f"needs is {said(needs)}; it needs to name some of {', '.join(map(repr, GRADIENTS))}")
    return tuple(name for name in GRADIENTS if name in wanted)


def check_mask(mask: Any, grad: np.ndarray) -> np.ndarray:
    """The forward result of a ReLU, of the shape and dtype of its gradient."""
    array = as_operand(mask, "mask")
    if array.shape != grad.shape:
        raise ValueError(f"mask has shape {array.shape}; it needs the forward result's shape {grad.shape}")
    same_dtype(array, "mask", grad, "grad_output")
    return array


def check_outs(
    out: Any, shapes: Mapping[str, tuple[int, ...]], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray | None]:
    """Where each gradient goes, None for a new array; ``shapes`` are those of the gradients that are asked for.

    They overlap neither the inputs nor each other.
    """
    if out is None:
        return dict.fromkeys(GRADIENTS)
    if not isinstance(out, (tuple, list)) or len(out) != len(GRADIENTS):
        raise TypeError(
            f"out is {said(out)}; it needs a tuple of three: an array or None for the gradient of each of "
            f"{', '.join(GRADIENTS)}"
        )
    occupied = dict(inputs)
    for name, array in zip(GRADIENTS, out, strict=True):
        if array is None:
            continue
        if name not in shapes:
            raise ValueError(f"out has an array for the gradient of {name}; it needs None there, or {name!r} in needs")
        occupied[f"out's array for {name}"] = check_out(array, shapes[name], inputs["input"].dtype, occupied)
    return dict(zip(GRADIENTS, out, strict=True))
