# SPDX-License-Identifier: BSD-3-Clause
"""Dropout, its mask, and its gradient; conventions as in `activation.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _core
from fastconv._names import only
from fastconv.ops._operand import finish, like, operand, source

__all__ = ["dropout", "dropout_grad", "dropout_mask"]
__dir__ = only(__all__)


def probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p!r}; it needs to be a probability from 0 to 1")
    return float(p)


def _masked(x: np.ndarray, mask: np.ndarray, p: float, out: np.ndarray | None = None) -> np.ndarray:
    """x where `mask` holds, scaled so that the expectation stays the same."""
    y = np.multiply(x, mask, out=_core.new_like(x) if out is None else out)
    y *= 1 / (1 - p) if p < 1 else 0.0
    return y


def dropout_mask(shape: tuple[int, ...], p: float = 0.5, *, rng: np.random.Generator | int | None = None) -> np.ndarray:
    """A random boolean array that is False, with probability `p`, where dropout clears.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.dropout`.

    Examples
    --------
    >>> from fastconv.ops.dropout import dropout_mask
    >>> bool(dropout_mask((4, 4), p=0.0).all())
    True
    """
    return np.random.default_rng(rng).random(shape, dtype=np.float32) >= np.float32(probability(p))


def dropout(
    input: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: np.random.Generator | int | None = None,
) -> np.ndarray:
    """Clear each element with probability `p` and scale the others by ``1 / (1 - p)``.

    Parameters
    ----------
    input : array of any shape, float32, float64 or float16
    p : float
        Probability of clearing an element.
    training : bool
        False returns `input` as it is.
    inplace : bool
        Overwrite `input` with the result.
    rng : numpy.random.Generator or int, optional
        Where the randomness comes from: a generator, which is advanced, or a seed. Without it the
        result differs from call to call. `dropout_mask` draws the same mask from the same `rng`.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    ValueError
        `p` is not a probability.

    Notes
    -----
    Source: Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> y = fc.dropout(np.ones(1000), p=0.25, rng=0)
    >>> bool(np.isin(y, [0, 1 / 0.75]).all())
    True
    """
    p = probability(p)
    x, out = source(input, inplace)
    if not training:
        return finish(x, input, inplace)
    return finish(_masked(x, dropout_mask(x.shape, p, rng=rng), p, out), input, inplace)


def dropout_grad(grad_output: ArrayLike, mask: np.ndarray, p: float = 0.5) -> np.ndarray:
    """Gradient of `dropout`, and equally dropout itself with a given `mask`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.dropout`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.dropout(np.ones(2), np.array([True, False]), 0.5)
    array([2., 0.])
    """
    g = operand(grad_output, "grad_output")
    if np.shape(mask) != g.shape:
        raise ValueError(f"mask has shape {np.shape(mask)}; it needs grad_output's {g.shape}")
    return like(_masked(g, mask, probability(p)), grad_output)
