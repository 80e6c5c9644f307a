# SPDX-License-Identifier: BSD-3-Clause
"""Losses, each with its gradient beside it."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv.ops._operand import like, matching, operand
from fastconv.ops.softmax import log_softmax

__all__ = ["cross_entropy", "cross_entropy_grad", "mse_loss", "mse_loss_grad"]
__dir__ = only(__all__)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; it needs to be 'mean', 'sum' or 'none'")


def _reduced(losses: np.ndarray, reduction: str, divisor: float, dtype: Any) -> Any:
    """The losses as they are, their sum, or their sum over `divisor` (NaN when that is 0)."""
    if reduction == "none":
        return losses.astype(dtype, copy=False)
    total = losses.sum(dtype=np.float64)
    if reduction == "mean":
        total = total / divisor if divisor else np.float64(np.nan)
    return total.astype(dtype)


def _spread_gradient(grad_output: Any, reduction: str, divisor: float, shape: tuple[int, ...]) -> Any:
    """What each single loss is worth: the transpose of `_reduced`."""
    given = _args.real(grad_output, "grad_output") if np.ndim(grad_output) == 0 else grad_output
    g = np.asarray(given, np.float64)
    wanted = shape if reduction == "none" else ()
    if g.shape != wanted:
        raise ValueError(f"grad_output has shape {g.shape}; with reduction={reduction!r} it needs {wanted}")
    if reduction == "mean":
        return g / divisor if divisor else np.zeros_like(g)  # a mean of nothing is NaN, and moves nothing
    return g


# --- cross-entropy --------------------------------------------------------------------------------


def _target_weights(
    x: np.ndarray,
    target: Any,
    weight: Any,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[np.ndarray, float]:
    """W with loss = −Σ_c W·log_softmax(x), of the shape of x, and the divisor of the mean.

    W is the target's distribution, smoothed, times the weight of each class; rows to be ignored
    are zero.
    """
    if x.ndim == 0:
        raise ValueError("input is a scalar; it needs shape (C,), (N, C) or (N, C, d1, ...)")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing!r}; it needs to be from 0 to 1")
    axis = min(1, x.ndim - 1)
    classes = x.shape[axis]
    if weight is not None:
        weight = operand(weight, "weight")
        if weight.shape != (classes,):
            raise ValueError(f"weight has shape {weight.shape}; it needs one entry per class, ({classes},)")
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    target = np.asarray(target)
    if np.issubdtype(target.dtype, np.floating):  # probabilities of every class
        if target.shape == rows and rows != x.shape:
            raise TypeError(
                f"target has dtype {target.dtype} and one number for each row, as class indices have, which need to be "
                "integers: target.astype(numpy.int64)"
            )
        target = matching(target, "target", x, "input")
        divisor = float(np.prod(rows))
        spread = target * (1 - label_smoothing) + label_smoothing / classes
    else:
        if not np.issubdtype(target.dtype, np.integer):
            raise TypeError(
                f"target has dtype {target.dtype}; it needs an integer dtype for class indices, or "
                f"input's {x.dtype} for the probabilities of the classes"
            )
        if target.shape != rows:
            hint = ""
            if target.shape == x.shape:
                hint = f": class indices are target.argmax({axis}), probabilities target.astype(numpy.{x.dtype})"
            raise ValueError(f"target has shape {target.shape}; it needs {rows} for an input {x.shape}{hint}")
        kept = target != ignore_index
        label = np.where(kept, target, 0)
        wrong = (label < 0) | (label >= classes)
        if wrong.any():
            raise ValueError(
                f"target holds {label[wrong][0]}; class indices go from 0 to {classes - 1} "
                f"(or ignore_index, {ignore_index})"
            )
        divisor = float(kept.sum() if weight is None else weight[label].sum(dtype=np.float64, where=kept))
        spread = np.full_like(x, label_smoothing / classes)
        chosen = np.expand_dims(label, axis)
        top = 1 - label_smoothing + label_smoothing / classes
        np.put_along_axis(spread, chosen, top, axis)
        spread *= np.expand_dims(kept, axis)
    if weight is not None:
        spread *= weight.reshape([classes] + [1] * (x.ndim - axis - 1))
    return spread, divisor


@overload
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
) -> np.floating: ...
@overload
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    reduction: Literal["none"],
    label_smoothing: float = 0.0,
) -> np.ndarray: ...
@overload
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any: ...
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Softmax cross-entropy between scores and classes.

    Parameters
    ----------
    input : array (C,), (N, C) or (N, C, d1, ...), float32, float64 or float16
        Unnormalised scores; C is the number of classes.
    target : array
        Class indices, of an integer dtype and `input`'s shape without C; or the probabilities of
        the classes, of `input`'s own shape and dtype.
    weight : array (C,), optional
        Weight of each class. The mean divides by the weights of the targets, as in torch.
    ignore_index : int, keyword only
        Rows whose class index is this count for nothing.
    reduction : {"mean", "sum", "none"}, keyword only
    label_smoothing : float, keyword only
        Share of the target that is spread evenly over all classes (Szegedy et al. 2015,
        arXiv:1512.00567).

    Returns
    -------
    numpy scalar or numpy.ndarray
        In `input`'s dtype: the loss, or with ``reduction="none"`` an array of one loss per row.
        The mean of no rows at all is NaN.

    Raises
    ------
    ValueError
        Shapes that do not fit, a class index out of range, an unknown `reduction`.
    TypeError
        `target` holds neither integers nor floating-point probabilities.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> float(fc.cross_entropy(np.zeros((2, 4)), np.array([0, 3])).round(4))
    1.3863
    """
    _check_reduction(reduction)
    x = operand(input)
    spread, divisor = _target_weights(x, target, weight, ignore_index, label_smoothing)
    axis = min(1, x.ndim - 1)
    losses = log_softmax(x, axis)
    # A class without weight counts for nothing, even with a score of −∞: 0·∞ is not wanted here.
    np.multiply(losses, spread, out=losses, where=spread != 0)
    losses[spread == 0] = 0
    np.negative(losses, out=losses)
    return _reduced(losses.sum(axis=axis), reduction, divisor, np.asarray(input).dtype)


def cross_entropy_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> np.ndarray:
    """Gradient of `cross_entropy` with respect to `input`: ``softmax(x)·ΣW − W`` per row.

    `grad_output` is a number (1 for the plain gradient), or with ``reduction="none"`` one number
    per row; the other arguments are those of `cross_entropy`. A row that is ignored, or whose
    classes all have weight 0, gets zeros, whatever its scores and the other rows are; so does
    every row where the mean is one of nothing.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.cross_entropy`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.cross_entropy(1.0, np.zeros((1, 2)), np.array([0]))
    array([[-0.5,  0.5]])
    """
    _check_reduction(reduction)
    x = operand(input)
    spread, divisor = _target_weights(x, target, weight, ignore_index, label_smoothing)
    axis = min(1, x.ndim - 1)
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    g = np.asarray(_spread_gradient(grad_output, reduction, divisor, rows), x.dtype)
    d = log_softmax(x, axis)
    np.exp(d, out=d)
    d *= spread.sum(axis=axis, keepdims=True)
    d -= spread
    counts = np.asarray(spread.any(axis=axis, keepdims=True))
    if reduction == "mean" and not divisor:
        counts[...] = False
    np.multiply(d, np.expand_dims(g, axis) if g.ndim else g, out=d, where=counts)
    np.copyto(d, 0, where=~counts)
    return like(d, input)


# --- mean squared error ---------------------------------------------------------------------------


@overload
def mse_loss(input: ArrayLike, target: ArrayLike, *, reduction: Literal["mean", "sum"] = "mean") -> np.floating: ...
@overload
def mse_loss(input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"]) -> np.ndarray: ...
@overload
def mse_loss(input: ArrayLike, target: ArrayLike, *, reduction: str = "mean") -> Any: ...
def mse_loss(input: ArrayLike, target: ArrayLike, *, reduction: str = "mean") -> Any:
    """Mean of the squared differences between `input` and `target`.

    Parameters
    ----------
    input, target : arrays of one shape and dtype, float32, float64 or float16
    reduction : {"mean", "sum", "none"}, keyword only

    Returns
    -------
    numpy scalar or numpy.ndarray
        The loss in `input`'s dtype, or with ``reduction="none"`` every squared difference.

    Raises
    ------
    ValueError
        The shapes differ (torch would broadcast, with a warning that this is likely a mistake).

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> float(fc.mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0])))
    2.0
    """
    _check_reduction(reduction)
    x = operand(input)
    difference = x - matching(target, "target", x, "input")
    return _reduced(np.square(difference), reduction, x.size, np.asarray(input).dtype)


def mse_loss_grad(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, *, reduction: str = "mean"
) -> np.ndarray:
    """Gradient of `mse_loss` with respect to `input`: ``2·(input − target)·g``.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.mse_loss`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.mse_loss(1.0, np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array([0., 2.])
    """
    _check_reduction(reduction)
    x = operand(input)
    d = x - matching(target, "target", x, "input")
    g = np.asarray(_spread_gradient(grad_output, reduction, x.size, x.shape), x.dtype)
    d *= 2 * g
    return like(d, input)
