# SPDX-License-Identifier: BSD-3-Clause
"""Fully connected layers: convolutions of images of one pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _core
from fastconv._names import only
from fastconv.ops._convolution import Asked, back
from fastconv.ops.activation import UNBOUNDED
from fastconv.ops.conv import conv2d

__all__ = ["linear", "linear_grad"]
__dir__ = only(__all__)


#: Of a convolution, as its gradients have them.
_PARAMETERS = (1, 0, 0, 1, 1, "NCHW", "auto", "default")


def _rows(value: Any, name: str, features: int) -> np.ndarray:
    """An array of any rank as images (rows, features, 1, 1)."""
    array = _args.as_operand(value, name)
    if array.ndim < 1 or array.shape[-1] != features:
        raise ValueError(f"{name} has shape {array.shape}; it needs {features} elements along its last axis")
    return array.reshape(-1, features, 1, 1) if features else array


def _kernels(value: Any) -> np.ndarray:
    weight = _args.as_operand(value, "weight")
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {weight.shape}; it needs two axes, (out_features, in_features)")
    return weight[:, :, None, None]


def linear(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, activation: str | None = None
) -> np.ndarray:
    """Apply ``y = x W^T + b`` to the last axis.

    Parameters
    ----------
    input : array_like, shape (..., in_features)
        float32, float64, or float16 (computed in float32).
    weight : array_like, shape (out_features, in_features)
    bias : array_like, shape (out_features,), optional
    activation : {None, "relu", "relu6", "silu", "hardswish", "sigmoid"}

    Returns
    -------
    numpy.ndarray, shape (..., out_features)

    Raises
    ------
    TypeError
        If a dtype is not supported, or the arrays differ in it.
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.linear(np.array([1.0, 2.0]), np.array([[1.0, 1.0], [3.0, -1.0]]), np.array([0.0, 0.5]))
    array([3. , 1.5])
    """
    kernels = _kernels(weight)
    rows = _rows(input, "input", kernels.shape[1])
    result = conv2d(rows, kernels, bias, activation=activation)
    return result.reshape(*np.shape(input)[:-1], kernels.shape[0])


def linear_grad(
    input: ArrayLike, weight: ArrayLike, grad_output: ArrayLike, bias: bool = True, need_input: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Gradients of :func:`fastconv.linear`.

    Parameters
    ----------
    input : array_like, shape (..., in_features)
    weight : array_like, shape (out_features, in_features)
    grad_output : array_like, shape (..., out_features)
    bias, need_input : bool
        Whether to compute those two; otherwise None is returned in their place.

    Returns
    -------
    d_input, d_weight, d_bias : numpy.ndarray
        Of the shapes of input, weight and bias; the last two are summed over all rows.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.linear`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x, w = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    >>> fc.grad.linear(x, w, np.array([[10.0]]))
    (array([[30., 40.]]), array([[10., 20.]]), array([10.]))
    """
    return gradients(input, weight, grad_output, bias, need_input)


def gradients(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    bias: bool,
    need_input: bool,
    output: np.ndarray | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """The same below a clamp by `bounds` of which `output` is the result."""
    kernels = _kernels(weight)
    rows = _rows(input, "input", kernels.shape[1])
    grad = _rows(grad_output, "grad_output", kernels.shape[0])
    result = None if output is None else _rows(output, "output", kernels.shape[0])
    d_weight = _core.new_array(kernels.shape[:2], rows.dtype)
    outs = {"input": None, "weight": d_weight[:, :, None, None], "bias": None}
    wanted = [*(["input"] if need_input else []), "weight", *(["bias"] if bias else [])]
    d_input, _, d_bias = back(2, False, rows, kernels, _PARAMETERS, Asked(grad, wanted, result, bounds, outs))
    return None if d_input is None else d_input.reshape(np.shape(input)), d_weight, d_bias
