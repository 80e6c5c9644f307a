# SPDX-License-Identifier: BSD-3-Clause
"""Convolution and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _args, _config, _core
from fastconv.plan import check_bias, check_residual, core_plan, dense_strides, handed_over, laid_out, target

__all__ = ["conv2d", "conv2d_input", "conv2d_weight"]

_CALLS = _core.Calls(128)


def _plan(
    geometry: _args.Geometry,
    direction: str,
    src: np.ndarray,
    wei: np.ndarray,
    dst: np.ndarray,
    algorithm: str = "auto",
    strict: bool = False,
    bounds: tuple[float, float] = _args.ACTIVATIONS[None],
) -> Any:
    """The plan for these arrays. Forward order: input, weight, output, whichever of them is the result."""
    views = [(a.shape, a.strides if a.size else dense_strides(a.shape, a.itemsize)) for a in (src, wei, dst)]
    fields = geometry.fields(direction, src.dtype, *(strides for _, strides in views), bounds)
    # What is read, what is packed, and what is written.
    order = {"forward": (0, 1, 2), "input": (2, 1, 0), "weight": (0, 2, 1)}[direction]
    layouts = (views[i] for i in order)
    return core_plan(fields, algorithm, strict, *layouts, src.dtype)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: Any = None,
    algorithm: str = "auto",
    precision: str = "default",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve images with a set of kernels (a cross-correlation, as in all of deep learning).

    ``out[n, o] = activation(bias[o] + residual[n, o] + sum over c of weight[o, c] * input[n, c])``

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W); with ``layout="NHWC"`` (N, H, W, C) or (H, W, C)
        float32, float64, or float16 (computed in float32). Any strides; only float16 with gaps is copied.
    weight : array_like, shape (O, C / groups, KH, KW)
        Of the same dtype, in this order for either layout.
    bias : array_like, shape (O,), optional
    stride : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
        Zeros around the image. ``"same"`` gives ceil(size / stride) outputs, an odd zero going to the high side;
        with ``"same_lower"`` it goes to the low side.
    dilation : int or (int, int)
        Distance of neighbouring kernel elements.
    groups : int
        Channels are split into so many groups that do not see each other; ``groups=C`` is a depthwise convolution.
    layout : {"NCHW", "NHWC"}
        Order of the axes of input, residual and result.
    activation : {None, "relu", "relu6"}
    residual : array_like, of the result's shape, optional
        Added before the activation.
    algorithm : {"auto", "direct", "im2col", "winograd", "winograd_f2", "winograd_f3", "winograd_f4", "winograd_f6", \
"pointwise", "depthwise", "reference"}
        ``"auto"`` takes the one predicted to be fastest, but never ``"winograd_f6"``, whose error is six times that of
        F(4).
    precision : {"default", "strict"}
        ``"strict"`` keeps the error within the bound of direct summation: no Winograd.
    out : numpy.ndarray, optional
        Takes the result. It must not overlap the inputs, but may be ``residual`` itself.

    Returns
    -------
    numpy.ndarray, shape (N, O, OH, OW), or as ``layout`` and the input's rank say
        ``out``, if given. OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1.

    Raises
    ------
    TypeError
        If a dtype is not supported, or input, weight and bias differ in it.
    ValueError
        If shapes or parameters are impossible.
    NotImplementedError
        If the algorithm asked for cannot serve the problem.

    See Also
    --------
    fastconv.ConvPlan : the same with the weights packed once, for calls in a loop.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.

    Examples
    --------
    Three neighbouring pixels averaged:

    >>> import numpy as np, fastconv as fc
    >>> image = np.array([[[0, 3, 6, 9, 3]]], np.float32)
    >>> kernel = np.full((1, 1, 1, 3), 1 / 3, np.float32)
    >>> fc.conv2d(image, kernel, padding="same").round()
    array([[[1., 3., 6., 6., 4.]]], dtype=float32)
    """
    arrays = (input, weight, bias, residual, out)
    parameters = (stride, padding, dilation, groups, layout, activation, algorithm, precision)
    threads = _config.get_num_threads()
    result = _CALLS.repeat(arrays, parameters, threads)
    if result is not None:
        return result
    x, w = _args.as_operand(input, "input"), _args.as_operand(weight, "weight")
    _args.same_dtype(x, "input", w, "weight")
    g = _args.geometry(2, x.shape, w.shape, stride, padding, dilation, groups, layout)
    b = check_bias(bias, g, w)
    r = None if residual is None else check_residual(residual, g.result_shape, x.dtype)
    bounds, strict = _args.activation_bounds(activation), _args.is_strict(precision)
    if out is not None:
        _args.check_out(out, g.result_shape, x.dtype, {"input": x, "weight": w, "bias": b})
    x, w = _args.stored(x), _args.stored(w)
    # The core writes any strides; only a residual has to be laid out like the result, and float16 has no gaps.
    y = target(out, r is not None or x.dtype == _args.HALF, g.result_shape, x.dtype)
    plan = _plan(g, "forward", x, w, y, algorithm, strict, bounds)
    plan.execute(x, None, w, b, laid_out(r, out), y, threads)
    _CALLS.remember(arrays, parameters, plan)
    return handed_over(y, out)


def _grad_output(value: Any, geometry: _args.Geometry, other: np.ndarray, name: str) -> np.ndarray:
    grad = _args.as_operand(value, "grad_output")
    if grad.shape != geometry.result_shape:
        raise ValueError(
            f"grad_output has shape {grad.shape}; it needs the forward result's shape {geometry.result_shape}"
        )
    _args.same_dtype(grad, "grad_output", other, name)
    return grad if geometry.batched else grad[None]


def conv2d_input(
    input_size: tuple[int, ...],
    weight: Any,
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (O, C / groups, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, dilation, groups, layout, algorithm, precision
        Those of the forward call; the algorithm serves the convolutions that the gradient falls apart into.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Notes
    -----
    Inputs that share a remainder modulo the stride see the same taps: each such phase is a convolution of stride one
    with the reversed taps. No zeros are inserted between the elements of ``grad_output``.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3), np.float32)
    >>> fc.grad.conv2d_input((1, 1, 3, 3), ones, ones, padding=1)[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    w = _args.as_operand(weight, "weight")
    shape = _args.sizes(input_size, "input_size", 0)
    g = _args.geometry(2, shape, w.shape, stride, padding, dilation, groups, layout, "input_size")
    grad = _grad_output(grad_output, g, w, "weight")
    dtype, grad, w = w.dtype, _args.computed(grad), _args.computed(w)
    result = np.empty(g.input_shape, w.dtype)
    plan = _plan(g, "input", result, w, grad, algorithm, _args.is_strict(precision))
    plan.execute(grad, None, w, None, None, result, _config.get_num_threads())
    return g.public(result).astype(dtype, copy=False)


def conv2d_weight(
    input: Any,
    weight_size: tuple[int, ...],
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv2d` with respect to its weight, summed over the batch.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or as ``layout`` says
    weight_size : tuple of int
        Shape of the weight, (O, C / groups, KH, KW).
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, dilation, groups, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``weight_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> fc.grad.conv2d_weight(image, (1, 1, 2, 2), np.ones((1, 1, 2, 2), np.float32))[0, 0]
    array([[ 8., 12.],
           [20., 24.]], dtype=float32)
    """
    x = _args.as_operand(input, "input")
    size = _args.sizes(weight_size, "weight_size", 1)
    g = _args.geometry(2, x.shape, size, stride, padding, dilation, groups, layout)
    grad = _grad_output(grad_output, g, x, "input")
    dtype, x, grad = x.dtype, _args.computed(x), _args.computed(grad)
    x = x if g.batched else x[None]
    result = np.empty(size, x.dtype)
    plan = _plan(g, "weight", x, result, grad, algorithm, _args.is_strict(precision))
    plan.execute(x, None, grad, None, None, result, _config.get_num_threads())
    return result.astype(dtype, copy=False)
