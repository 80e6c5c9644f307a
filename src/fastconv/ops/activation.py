# SPDX-License-Identifier: BSD-3-Clause
"""Activations, each with its gradient beside it.

The functions have `torch.nn.functional`'s names, argument order, defaults and results, on NumPy
arrays of float32 or float64 (float16 is computed in float32 and returned as float16). With
``inplace=True`` the result overwrites `input`, which must then be a writable array.

A gradient takes the gradient of the result first, then what the forward pass kept: `input` where
the derivative needs the argument, `output` where it is simplest in terms of the result.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._maps import Map, op
from fastconv._names import only
from fastconv.ops._operand import finish, like, pair, source

__all__ = [
    "hardswish",
    "hardswish_grad",
    "leaky_relu",
    "leaky_relu_grad",
    "relu",
    "relu6",
    "relu6_grad",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "silu",
    "silu_grad",
    "tanh",
    "tanh_grad",
]
__dir__ = only(__all__)


_RELU, _RELU6 = Map(op("clamp", a=0.0, b=np.inf)), Map(op("clamp", a=0.0, b=6.0))
_RELU_GRAD = Map(op("where_above", 0, a=0.0), others=1)
_RELU6_GRAD = Map(op("where_above", 0, a=0.0), op("where_below", 0, a=6.0), others=1)
_SIGMOID, _TANH, _SILU, _HARDSWISH = (Map(op(name)) for name in ("sigmoid", "tanh", "silu", "hardswish"))
_SIGMOID_GRAD = Map(op("affine", a=-1.0, b=1.0), op("mul", 0), op("mul", 1), others=2)  # of y: others are y and g
_TANH_GRAD = Map(op("square"), op("affine", a=-1.0, b=1.0), op("mul", 0), others=1)  # of y
_SILU_GRAD = Map(op("silu_slope"), op("mul", 0), others=1)  # of x
_HARDSWISH_GRAD = Map(op("hardswish_slope"), op("mul", 0), others=1)


@lru_cache(maxsize=64)
def _leaky(slope: float) -> tuple[Map, Map]:
    """leaky_relu, and its gradient."""
    return Map(op("leaky_relu", a=slope)), Map(op("leaky_slope", 0, a=slope), others=1)


UNBOUNDED, RECTIFIED = (-np.inf, np.inf), (0.0, np.inf)


def activation_of(bounds: tuple[float, float]) -> str | None:
    """The name that convolutions have for a clamp."""
    return {UNBOUNDED: None, (0.0, np.inf): "relu", (0.0, 6.0): "relu6"}[bounds]


def clamp_grad(grad_output: np.ndarray, output: np.ndarray | None, bounds: tuple[float, float]) -> np.ndarray:
    """The gradient below a clamp by `bounds` of which `output` is the result; without one there is nothing to do."""
    name = activation_of(bounds)
    if name is None or output is None:
        return grad_output
    return relu_grad(grad_output, output) if name == "relu" else relu6_grad(grad_output, output)


def _applied(function: Map, input: ArrayLike, inplace: bool = False) -> np.ndarray:
    result = None if inplace else function.at_once(input)
    if result is not None:
        return result
    x, out = source(input, inplace)
    return finish(function(x, out=out), input, inplace)


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
    return _applied(_RELU, input, inplace)


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
    g, y = pair(grad_output, output, "output")
    return like(_RELU_GRAD(g, y), grad_output)


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
    return _applied(_RELU6, input, inplace)


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
    g, y = pair(grad_output, output, "output")
    return like(_RELU6_GRAD(g, y), grad_output)


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
    return _applied(_leaky(negative_slope)[0], input, inplace)


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
    g, x = pair(grad_output, input, "input")
    return like(_leaky(negative_slope)[1](g, x), grad_output)


# --- smooth activations ---------------------------------------------------------------------------


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
    return _applied(_SIGMOID, input)


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
    g, y = pair(grad_output, output, "output")
    return like(_SIGMOID_GRAD(y, y, g), grad_output)


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
    return _applied(_TANH, input)


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
    g, y = pair(grad_output, output, "output")
    return like(_TANH_GRAD(y, g), grad_output)


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
    return _applied(_SILU, input, inplace)  # −∞·0 is NaN, as arithmetic says


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
    g, x = pair(grad_output, input, "input")
    return like(_SILU_GRAD(x, g), grad_output)


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
    return _applied(_HARDSWISH, input, inplace)


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
    g, x = pair(grad_output, input, "input")
    return like(_HARDSWISH_GRAD(x, g), grad_output)
