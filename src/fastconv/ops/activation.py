# SPDX-License-Identifier: BSD-3-Clause
"""Activations, softmax and dropout, each with its gradient beside it.

The functions have `torch.nn.functional`'s names, argument order, defaults and results, on NumPy
arrays of float32 or float64 (float16 is computed in float32 and returned as float16). With
``inplace=True`` the result overwrites `input`, which must then be a writable array.

A gradient takes the gradient of the result first, then what the forward pass kept: `input` where
the derivative needs the argument, `output` where it is simplest in terms of the result.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv.ops._operand import axis_index, like, matching, operand

__all__ = [
    "dropout",
    "dropout_grad",
    "dropout_mask",
    "hardswish",
    "hardswish_grad",
    "leaky_relu",
    "leaky_relu_grad",
    "log_softmax",
    "log_softmax_grad",
    "relu",
    "relu6",
    "relu6_grad",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "silu",
    "silu_grad",
    "softmax",
    "softmax_grad",
    "tanh",
    "tanh_grad",
]
__dir__ = only(__all__)


def _source(input: Any, inplace: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The operand, and where a ufunc should write: over it, or (None) into a new array."""
    if inplace and not (isinstance(input, np.ndarray) and input.flags.writeable):
        kind = "a read-only array" if isinstance(input, np.ndarray) else type(input).__name__
        raise TypeError(f"input is {kind}; with inplace=True it needs to be a writable NumPy array")
    x = operand(input)
    return x, (x if inplace else None)


def _finish(result: np.ndarray, input: Any, inplace: bool) -> np.ndarray:
    if not inplace:
        return like(result, input)
    if result is not input:
        input[...] = result
    return input


def _pair(grad_output: Any, kept: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    kept = operand(kept, name)
    return matching(grad_output, "grad_output", kept, name), kept


# --- rectifiers -----------------------------------------------------------------------------------


def relu(input: ArrayLike, inplace: bool = False) -> np.ndarray:
    """Rectified linear unit, ``max(x, 0)``; NaN stays NaN.

    Parameters
    ----------
    input : array of any shape, float32, float64 or float16
    inplace : bool
        Overwrite `input` with the result.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    TypeError
        `input` is not floating point, or cannot be overwritten when that was asked for.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.relu(np.array([-1.0, 0.5], np.float32))
    array([0. , 0.5], dtype=float32)
    """
    x, out = _source(input, inplace)
    return _finish(np.maximum(x, 0, out=out), input, inplace)


def relu_grad(grad_output: ArrayLike, output: ArrayLike) -> np.ndarray:
    """Gradient of `relu`: `grad_output` where `output` (or the input: same sign) is above 0.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.relu(np.ones(3), np.array([0.0, 2.0, 0.0]))
    array([0., 1., 0.])
    """
    g, y = _pair(grad_output, output, "output")
    return like(np.where(y <= 0, 0, g), grad_output)


def relu6(input: ArrayLike, inplace: bool = False) -> np.ndarray:
    """``min(max(x, 0), 6)``; see `relu` for the arguments. Source: Krizhevsky (2010).

    Raises
    ------
    TypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.relu6(np.array([-1.0, 5.0, 7.0]))
    array([0., 5., 6.])
    """
    x, out = _source(input, inplace)
    return _finish(np.clip(x, 0, 6, out=out), input, inplace)


def relu6_grad(grad_output: ArrayLike, output: ArrayLike) -> np.ndarray:
    """Gradient of `relu6`: `grad_output` where ``0 < output < 6`` (input or result).

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.relu6(np.ones(3), np.array([0.0, 2.0, 6.0]))
    array([0., 1., 0.])
    """
    g, y = _pair(grad_output, output, "output")
    return like(np.where((y <= 0) | (y >= 6), 0, g), grad_output)


def leaky_relu(input: ArrayLike, negative_slope: float = 0.01, inplace: bool = False) -> np.ndarray:
    """``x`` where positive, ``negative_slope * x`` elsewhere; see `relu` for the other arguments.

    Source: Maas, Hannun and Ng (2013), "Rectifier nonlinearities improve neural network acoustic
    models".

    Raises
    ------
    TypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.leaky_relu(np.array([-2.0, 3.0]))
    array([-0.02,  3.  ])
    """
    negative_slope = _args.real(negative_slope, "negative_slope")
    x, out = _source(input, inplace)
    out = x.copy() if out is None else out
    return _finish(np.multiply(x, negative_slope, out=out, where=x < 0), input, inplace)


def leaky_relu_grad(grad_output: ArrayLike, input: ArrayLike, negative_slope: float = 0.01) -> np.ndarray:
    """Gradient of `leaky_relu`, from its `input` (its result serves too if the slope is above 0).

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.leaky_relu(np.ones(2), np.array([-2.0, 3.0]), 0.5)
    array([0.5, 1. ])
    """
    negative_slope = _args.real(negative_slope, "negative_slope")
    g, x = _pair(grad_output, input, "input")
    out = g.copy()
    return like(np.multiply(g, negative_slope, out=out, where=x <= 0), grad_output)


# --- smooth activations ---------------------------------------------------------------------------


def _logistic(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """1 / (1 + exp(−x)); exp overflows to infinity for very negative x, and 1/∞ is the limit."""
    out = np.negative(x, out=np.empty_like(x) if out is None else out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
        out += 1
    return np.reciprocal(out, out=out)


def sigmoid(input: ArrayLike) -> np.ndarray:
    """Logistic function ``1 / (1 + exp(-x))``, element by element; see `relu` for `input` and the result.

    Raises
    ------
    TypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.sigmoid(np.array([-np.inf, 0.0, np.inf]))
    array([0. , 0.5, 1. ])
    """
    return like(_logistic(operand(input)), input)


def sigmoid_grad(grad_output: ArrayLike, output: ArrayLike) -> np.ndarray:
    """Gradient of `sigmoid` from its result y: ``g·y·(1 − y)``.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.sigmoid(np.ones(1), np.array([0.5]))
    array([0.25])
    """
    g, y = _pair(grad_output, output, "output")
    d = 1 - y
    d *= y
    d *= g
    return like(d, grad_output)


def tanh(input: ArrayLike) -> np.ndarray:
    """Hyperbolic tangent, element by element; see `relu` for `input` and the result.

    Raises
    ------
    TypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.tanh(np.array([0.0, np.inf]))
    array([0., 1.])
    """
    return like(np.tanh(operand(input)), input)


def tanh_grad(grad_output: ArrayLike, output: ArrayLike) -> np.ndarray:
    """Gradient of `tanh` from its result y: ``g·(1 − y²)``.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.tanh(np.ones(1), np.array([0.5]))
    array([0.75])
    """
    g, y = _pair(grad_output, output, "output")
    d = np.multiply(y, y, out=np.empty_like(y))
    np.subtract(1, d, out=d)
    d *= g
    return like(d, grad_output)


def silu(input: ArrayLike, inplace: bool = False) -> np.ndarray:
    """``x * sigmoid(x)``, also called swish; see `relu` for the arguments.

    Source: Elfwing, Uchibe and Doya (2017), arXiv:1702.03118.

    Raises
    ------
    TypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.silu(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.7311])
    """
    x, out = _source(input, inplace)
    s = _logistic(x)
    with np.errstate(invalid="ignore"):  # −∞·0 is NaN, as arithmetic says
        return _finish(np.multiply(x, s, out=s if out is None else out), input, inplace)


def silu_grad(grad_output: ArrayLike, input: ArrayLike) -> np.ndarray:
    """Gradient of `silu` from its input: ``g·s·(1 + x·(1 − s))`` with s = sigmoid(x).

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.silu(np.ones(1), np.zeros(1))
    array([0.5])
    """
    g, x = _pair(grad_output, input, "input")
    s = _logistic(x)
    with np.errstate(invalid="ignore"):
        d = 1 - s
        d *= x
        d += 1
        d *= s
        d *= g
    return like(d, grad_output)


def hardswish(input: ArrayLike, inplace: bool = False) -> np.ndarray:
    """``x * relu6(x + 3) / 6``; see `relu` for the arguments.

    Source: Howard et al. (2019), "Searching for MobileNetV3", arXiv:1905.02244.

    Raises
    ------
    TypeError
        If the dtype is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.hardswish(np.array([-4.0, 0.0, 1.5, 4.0]))
    array([-0.   ,  0.   ,  1.125,  4.   ])
    """
    x, out = _source(input, inplace)
    gate = np.add(x, 3, out=np.empty_like(x))
    np.clip(gate, 0, 6, out=gate)
    gate /= 6
    with np.errstate(invalid="ignore"):
        return _finish(np.multiply(x, gate, out=gate if out is None else out), input, inplace)


def hardswish_grad(grad_output: ArrayLike, input: ArrayLike) -> np.ndarray:
    """Gradient of `hardswish` from its input: 0 below −3, g above 3, ``g·(x/3 + ½)`` between.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or the arrays differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.hardswish(np.ones(3), np.array([-4.0, 0.0, 4.0]))
    array([0. , 0.5, 1. ])
    """
    g, x = _pair(grad_output, input, "input")
    slope = np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5))
    return like(slope * g, grad_output)


# --- softmax --------------------------------------------------------------------------------------


def softmax_axis(dim: int | None, ndim: int) -> int:
    if dim is not None:
        return axis_index(dim, ndim)
    warnings.warn("softmax without dim guesses the axis, as torch does; pass dim explicitly", stacklevel=3)
    return 0 if ndim in (0, 1, 3) else 1


def _shifted(x: np.ndarray, axis: int) -> np.ndarray:
    """x minus its largest entry along `axis`: exp of it cannot overflow."""
    largest = x.max(axis=axis, keepdims=True, initial=-np.inf)
    return np.subtract(x, largest, out=np.empty_like(x))


def softmax(input: ArrayLike, dim: int | None = None, *, dtype: Any = None) -> np.ndarray:
    """``exp(x) / sum(exp(x))`` along `dim`, computed without overflow.

    Parameters
    ----------
    input : array of any shape, float32, float64 or float16
    dim : int
        The axis that sums to one. Leaving it out is allowed as in torch (axis 0 for ranks 0, 1
        and 3, else axis 1), with a warning.
    dtype : dtype, optional
        Convert `input` to this dtype first.

    Returns
    -------
    numpy.ndarray
        The shape of `input`. A slice that is −∞ throughout, or holds +∞ or NaN, gives NaN.

    Raises
    ------
    ValueError
        `dim` is not an axis of `input`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.softmax(np.array([[1.0, 1.0], [1000.0, 0.0]]), dim=1)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    if dtype is not None:
        input = np.asarray(input).astype(dtype)
    x = operand(input)
    axis = softmax_axis(dim, x.ndim)
    with np.errstate(invalid="ignore"):
        y = _shifted(x, axis)
        np.exp(y, out=y)
        y /= y.sum(axis=axis, keepdims=True)
    return like(y, input)


def softmax_grad(grad_output: ArrayLike, output: ArrayLike, dim: int) -> np.ndarray:
    """Gradient of `softmax` from its result y: ``y·(g − Σ g·y)`` along `dim`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.softmax(np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0)
    array([ 0.25, -0.25])
    """
    g, y = _pair(grad_output, output, "output")
    axis = axis_index(dim, y.ndim)
    d = np.multiply(g, y, out=np.empty_like(y))
    d -= y * d.sum(axis=axis, keepdims=True)
    return like(d, grad_output)


def log_softmax(input: ArrayLike, dim: int | None = None, *, dtype: Any = None) -> np.ndarray:
    """``log(softmax(x))`` along `dim`, accurate where the softmax itself would round to 0 or 1.

    The arguments are those of `softmax`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.log_softmax(np.array([[0.0, 1000.0]]), dim=1)
    array([[-1000.,     0.]])
    """
    if dtype is not None:
        input = np.asarray(input).astype(dtype)
    x = operand(input)
    axis = softmax_axis(dim, x.ndim)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = _shifted(x, axis)
        y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return like(y, input)


def log_softmax_grad(grad_output: ArrayLike, output: ArrayLike, dim: int) -> np.ndarray:
    """Gradient of `log_softmax` from its result y: ``g − exp(y)·Σ g`` along `dim`.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.log_softmax(np.array([1.0, 0.0]), np.log([0.5, 0.5]), 0)
    array([ 0.5, -0.5])
    """
    g, y = _pair(grad_output, output, "output")
    axis = axis_index(dim, y.ndim)
    d = np.exp(y, out=np.empty_like(y))
    d *= g.sum(axis=axis, keepdims=True)
    return like(np.subtract(g, d, out=d), grad_output)


# --- dropout --------------------------------------------------------------------------------------


def probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p!r}; it needs to be a probability from 0 to 1")
    return float(p)


def _masked(x: np.ndarray, mask: np.ndarray, p: float, out: np.ndarray | None = None) -> np.ndarray:
    """x where `mask` holds, scaled so that the expectation stays the same."""
    y = np.multiply(x, mask, out=np.empty_like(x) if out is None else out)
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
    >>> from fastconv.ops.activation import dropout_mask
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
    x, out = _source(input, inplace)
    if not training:
        return _finish(x, input, inplace)
    return _finish(_masked(x, dropout_mask(x.shape, p, rng=rng), p, out), input, inplace)


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
