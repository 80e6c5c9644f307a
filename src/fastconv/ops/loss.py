# SPDX-License-Identifier: BSD-3-Clause
"""Losses, each with its gradient beside it."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _config, _core
from fastconv._maps import Map, op
from fastconv._names import only
from fastconv.ops._operand import channel_sum, like, matching, operand
from fastconv.ops.softmax import log_softmax

__all__ = ["cross_entropy", "cross_entropy_grad", "mse_loss", "mse_loss_grad"]
__dir__ = only(__all__)


_SQUARES = Map(op("sub", 0), op("square"), others=1)
_DIFFERENCE_TIMES = Map(op("sub", 0), op("mul", 1), others=2)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; it needs to be 'mean', 'sum' or 'none'")


def _reduced(losses: np.ndarray, total: float, reduction: str, divisor: float, dtype: np.dtype) -> Any:
    """The losses as they are, their sum, or their sum over `divisor` (NaN when that is 0)."""
    if reduction == "none":
        return losses.astype(dtype, copy=False)
    if reduction == "mean":
        total = total / divisor if divisor else math.nan
    return np.float64(total).astype(dtype)


def _spread_gradient(grad_output: Any, reduction: str, divisor: float, shape: tuple[int, ...]) -> np.ndarray:
    """What each single loss is worth: the transpose of `_reduced`."""
    given = _args.real(grad_output, "grad_output") if np.ndim(grad_output) == 0 else grad_output
    g = np.asarray(given, np.float64)
    wanted = shape if reduction == "none" else ()
    if g.shape != wanted:
        raise ValueError(f"grad_output has shape {g.shape}; with reduction={reduction!r} it needs {wanted}")
    if reduction == "mean":
        return np.asarray(g / divisor) if divisor else np.zeros_like(g)  # a mean of nothing is NaN, and moves nothing
    return g


# --- cross-entropy --------------------------------------------------------------------------------


def _checked(x: np.ndarray, weight: Any, label_smoothing: float) -> tuple[int, np.ndarray | None]:
    """The axis of the classes, and the weight of each."""
    if x.ndim == 0:
        raise ValueError("input is a scalar; it needs shape (C,), (N, C) or (N, C, d1, ...)")
    if not 0 <= _args.real(label_smoothing, "label_smoothing") <= 1:
        raise ValueError(f"label_smoothing is {_args.said(label_smoothing)}; it needs to be from 0 to 1")
    axis = min(1, x.ndim - 1)
    if weight is not None:
        weight = operand(weight, "weight")
        if weight.shape != (x.shape[axis],):
            raise ValueError(f"weight has shape {weight.shape}; it needs one entry per class, ({x.shape[axis]},)")
        weight = np.ascontiguousarray(weight, x.dtype)
    return axis, weight


def _rows_of(x: np.ndarray, axis: int) -> tuple[int, ...]:
    return x.shape[:axis] + x.shape[axis + 1 :]


def _are_probabilities(x: np.ndarray, target: np.ndarray, axis: int) -> bool:
    """Whether the target is not of class indices; that it is one of both."""
    rows = _rows_of(x, axis)
    if np.issubdtype(target.dtype, np.floating):
        if target.shape == rows and rows != x.shape:
            raise TypeError(
                f"target has dtype {target.dtype} and one number for each row, as class indices have, which need to be "
                "integers: target.astype(numpy.int64)"
            )
        return True
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
    return False


def _of_indices(
    x: np.ndarray,
    target: np.ndarray,
    axis: int,
    weight: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
    *,
    losses: np.ndarray | None = None,
    d: np.ndarray | None = None,
    g: np.ndarray | None = None,
    mean: bool = False,
) -> tuple[float, float]:
    """Fills `losses` or `d`; the sum of losses, and that of the weights of the classes."""
    shape = x.shape[0] if axis else 1, x.shape[axis], math.prod(x.shape[2:])
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    ignored = _args.integer(ignore_index, "ignore_index", least, most)
    labels = np.ascontiguousarray(target, np.int64).reshape(shape[0], shape[2])
    if labels.size and not np.can_cast(target.dtype, np.int64) and labels.min() < 0:  # of uint64, and beyond int64
        raise _outside(target, int(labels.argmin()), shape[1], ignored)
    total, divisor, wrong = _core.cross_entropy(
        _args.addressable(x).reshape(shape),
        labels,
        weight,
        ignored,
        label_smoothing,
        losses,
        d,
        g,
        mean,
        _config.ISA,
        _config.get_num_threads(),
    )
    if wrong >= 0:
        raise _outside(target, wrong, shape[1], ignored)
    return total, divisor


def _outside(target: np.ndarray, row: int, classes: int, ignored: int) -> ValueError:
    return ValueError(
        f"target holds {target.ravel()[row]}; class indices go from 0 to {classes - 1} (or ignore_index, {ignored})"
    )


def _spread(
    x: np.ndarray, target: np.ndarray, axis: int, weight: np.ndarray | None, label_smoothing: float
) -> np.ndarray:
    """W with loss = −Σ_c W·log_softmax(x): the target's distribution, smoothed, times the weight of each class."""
    target = matching(target, "target", x, "input")
    spread = target * (1 - label_smoothing) + label_smoothing / x.shape[axis]
    if weight is not None:
        spread *= weight.reshape([-1] + [1] * (x.ndim - axis - 1))
    return spread


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
        Rows whose class index is this count for nothing; an int64.
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
        Shapes that do not fit, a class index or a number out of range, an unknown `reduction`.
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
    axis, weight = _checked(x, weight, label_smoothing)
    target, rows, dtype = np.asarray(target), _rows_of(x, axis), np.asarray(input).dtype
    if _are_probabilities(x, target, axis):
        spread = _spread(x, target, axis, weight, label_smoothing)
        losses = log_softmax(x, axis)
        # A class without weight counts for nothing, even with a score of −∞: 0·∞ is not wanted here.
        np.multiply(losses, spread, out=losses, where=spread != 0)
        losses[spread == 0] = 0
        np.negative(losses, out=losses)
        losses = losses.sum(axis=axis)
        return _reduced(losses, losses.sum(dtype=np.float64), reduction, math.prod(rows), dtype)
    losses = np.empty(rows)
    total, divisor = _of_indices(x, target, axis, weight, ignore_index, label_smoothing, losses=losses)
    return _reduced(losses, total, reduction, divisor, dtype)


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
    axis, weight = _checked(x, weight, label_smoothing)
    target, rows = np.asarray(target), _rows_of(x, axis)
    if not _are_probabilities(x, target, axis):
        d, g = np.empty(x.shape, x.dtype), _spread_gradient(grad_output, reduction, 1, rows)
        mean = reduction == "mean"
        _of_indices(x, target, axis, weight, ignore_index, label_smoothing, d=d, g=g, mean=mean)
        return like(d, input)
    spread = _spread(x, target, axis, weight, label_smoothing)
    g = _spread_gradient(grad_output, reduction, math.prod(rows), rows).astype(x.dtype)
    d = log_softmax(x, axis)
    np.exp(d, out=d)
    d *= spread.sum(axis=axis, keepdims=True)
    d -= spread
    counts = np.asarray(spread.any(axis=axis, keepdims=True))
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
    squares = _SQUARES(x, matching(target, "target", x, "input"))
    total = 0.0 if reduction == "none" else float(channel_sum(squares.reshape(1, -1), 0)[0])
    return _reduced(squares, total, reduction, x.size, np.asarray(input).dtype)


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
    g = _spread_gradient(grad_output, reduction, x.size, x.shape).astype(x.dtype)
    return like(_DIFFERENCE_TIMES(x, matching(target, "target", x, "input"), 2 * g), input)
