# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions along one, two and three axes, transposed ones, and their gradients.

All of them are one problem to the C core: an axis that is missing has one element, and a transposed convolution is the
input gradient of a convolution. So each function here only says which.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _args, _config, _core
from fastconv.plan import (
    check_bias,
    check_residual,
    core_plan,
    dense_strides,
    geometry_of,
    handed_over,
    laid_out,
    target,
)

__all__ = [
    "conv1d",
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]

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


def _convolve(
    rank: int,
    transposed: bool,
    arrays: tuple[Any, ...],
    parameters: tuple[Any, ...],
) -> np.ndarray:
    """Any convolution. ``arrays`` are input, weight, bias, residual and out, ``parameters`` as ConvPlan has them."""
    threads, call = _config.get_num_threads(), (rank, int(transposed), *parameters)
    result = _CALLS.repeat(arrays, call, threads)
    if result is not None:
        return result
    input, weight, bias, residual, out = arrays
    stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision = parameters
    x, w = _args.as_operand(input, "input"), _args.as_operand(weight, "weight")
    _args.same_dtype(x, "input", w, "weight")
    g = geometry_of(
        rank, transposed, x.shape, w.shape, stride, padding, output_padding, dilation, groups, layout, "input"
    )
    shape, channels = (g.input_result_shape, g.in_channels) if transposed else (g.result_shape, g.out_channels)
    b = check_bias(bias, channels, w)
    r = None if residual is None else check_residual(residual, shape, x.dtype)
    bounds, strict = _args.activation_bounds(activation), _args.is_strict(precision)
    if out is not None:
        _args.check_out(out, shape, x.dtype, {"input": x, "weight": w, "bias": b})
    if transposed and x.dtype == _args.HALF:  # the core reads float16 forward only
        wide = (None if a is None else a.astype(np.float32) for a in (x, w, b, r))
        y = _convolve(rank, True, (*wide, None), parameters).astype(x.dtype)
        return handed_over(y, out)
    x, w = _args.stored(x), _args.stored(w)
    # The core writes any strides; only a residual has to be laid out like the result, and float16 has no gaps.
    y = target(out, r is not None or x.dtype == _args.HALF, shape, x.dtype)
    order = (y, w, x) if transposed else (x, w, y)
    plan = _plan(g, "input" if transposed else "forward", *order, algorithm, strict, bounds)
    plan.execute(x, None, w, b, laid_out(r, out), y, threads)
    _CALLS.remember(arrays, call, plan)
    return handed_over(y, out)


def _operand_of_grad(value: Any, shape: tuple[int, ...], other: np.ndarray, name: str) -> np.ndarray:
    grad = _args.as_operand(value, "grad_output")
    if grad.shape != shape:
        raise ValueError(f"grad_output has shape {grad.shape}; it needs the forward result's shape {shape}")
    _args.same_dtype(grad, "grad_output", other, name)
    return grad


def _input_grad(
    rank: int,
    input_size: Any,
    weight: Any,
    grad_output: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    algorithm: str,
    precision: str,
) -> np.ndarray:
    w = _args.as_operand(weight, "weight")
    shape = _args.sizes(input_size, "input_size", 0)
    g = _args.geometry(rank, shape, w.shape, stride, padding, dilation, groups, layout, "input_size")
    grad = _operand_of_grad(grad_output, g.result_shape, w, "weight")
    dtype, grad, w = w.dtype, _args.computed(grad), _args.computed(w)
    result = np.empty(shape, w.dtype)
    plan = _plan(g, "input", result, w, grad, algorithm, _args.is_strict(precision))
    plan.execute(grad, None, w, None, None, result, _config.get_num_threads())
    return result.astype(dtype, copy=False)


def _weight_grad(
    g: _args.Geometry, x: np.ndarray, grad: np.ndarray, size: tuple[int, ...], algorithm: str, precision: str
) -> np.ndarray:
    """The weight gradient of the convolution that ``g`` describes, which read ``x`` and wrote what ``grad`` is of."""
    dtype, x, grad = x.dtype, _args.computed(x), _args.computed(grad)
    x, grad = (a if g.batched else a[None] for a in (x, grad))
    result = np.empty(size, x.dtype)
    plan = _plan(g, "weight", x, result, grad, algorithm, _args.is_strict(precision))
    plan.execute(x, None, grad, None, None, result, _config.get_num_threads())
    return result.astype(dtype, copy=False)


def _conv_weight(
    rank: int,
    input: Any,
    weight_size: Any,
    grad_output: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    algorithm: str,
    precision: str,
) -> np.ndarray:
    x = _args.as_operand(input, "input")
    size = _args.sizes(weight_size, "weight_size", 1)
    g = _args.geometry(rank, x.shape, size, stride, padding, dilation, groups, layout)
    grad = _operand_of_grad(grad_output, g.result_shape, x, "input")
    return _weight_grad(g, x, grad, size, algorithm, precision)


def _transpose_input(
    rank: int,
    input_size: Any,
    weight: Any,
    grad_output: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    layout: str,
    algorithm: str,
    precision: str,
) -> np.ndarray:
    w = _args.as_operand(weight, "weight")
    shape = _args.sizes(input_size, "input_size", 0)
    g = _args.transposed_geometry(
        rank, shape, w.shape, stride, padding, output_padding, dilation, groups, layout, "input_size"
    )
    grad = _operand_of_grad(grad_output, g.input_result_shape, w, "weight")
    dtype, grad, w = w.dtype, _args.computed(grad), _args.computed(w)
    result = np.empty(shape, w.dtype)
    plan = _plan(g, "forward", grad, w, result, algorithm, _args.is_strict(precision))
    plan.execute(grad, None, w, None, None, result, _config.get_num_threads())
    return result.astype(dtype, copy=False)


def _transpose_weight(
    rank: int,
    input: Any,
    weight_size: Any,
    grad_output: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    layout: str,
    algorithm: str,
    precision: str,
) -> np.ndarray:
    x = _args.as_operand(input, "input")
    size = _args.sizes(weight_size, "weight_size", 1)
    g = _args.transposed_geometry(rank, x.shape, size, stride, padding, output_padding, dilation, groups, layout)
    grad = _operand_of_grad(grad_output, g.input_result_shape, x, "input")
    return _weight_grad(g, grad, x, size, algorithm, precision)


# ------------------------------------------------------------------------------------------------- convolution


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCW",
    activation: str | None = None,
    residual: Any = None,
    algorithm: str = "auto",
    precision: str = "default",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve signals with a set of kernels: :func:`fastconv.conv2d` along one axis.

    Parameters
    ----------
    input : array_like, shape (N, C, W) or (C, W); with ``layout="NWC"`` (N, W, C) or (W, C)
    weight : array_like, shape (O, C / groups, KW)
    bias, stride, padding, dilation, groups, layout, activation, residual, algorithm, precision, out
        As for :func:`fastconv.conv2d`, with one number or pair where that has two.

    Returns
    -------
    numpy.ndarray, shape (N, O, OW), or as ``layout`` and the input's rank say

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> signal = np.array([[0, 3, 6, 9, 3]], np.float32)
    >>> fc.conv1d(signal, np.array([[[-1, 0, 1]]], np.float32))
    array([[ 6.,  6., -3.]], dtype=float32)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, activation, algorithm, precision)
    return _convolve(1, False, (input, weight, bias, residual, out), parameters)


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
    parameters = (stride, padding, 0, dilation, groups, layout, activation, algorithm, precision)
    return _convolve(2, False, (input, weight, bias, residual, out), parameters)


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    activation: str | None = None,
    residual: Any = None,
    algorithm: str = "auto",
    precision: str = "default",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve volumes with a set of kernels: :func:`fastconv.conv2d` along three axes.

    Parameters
    ----------
    input : array_like, shape (N, C, D, H, W) or (C, D, H, W); with ``layout="NDHWC"`` the channels come last
    weight : array_like, shape (O, C / groups, KD, KH, KW)
    bias, stride, padding, dilation, groups, layout, activation, residual, algorithm, precision, out
        As for :func:`fastconv.conv2d`, with three numbers or pairs where that has two.

    Returns
    -------
    numpy.ndarray, shape (N, O, OD, OH, OW), or as ``layout`` and the input's rank say

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> volume = np.ones((1, 4, 4, 4), np.float32)
    >>> fc.conv3d(volume, np.ones((2, 1, 3, 3, 3), np.float32), padding=(0, 1, 1)).shape
    (2, 2, 4, 4)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, activation, algorithm, precision)
    return _convolve(3, False, (input, weight, bias, residual, out), parameters)


# --------------------------------------------------------------------------------------- transposed convolution


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCW",
    activation: str | None = None,
    residual: Any = None,
    algorithm: str = "auto",
    precision: str = "default",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve the other way round along one axis: as :func:`fastconv.conv_transpose2d`.

    Parameters
    ----------
    input : array_like, shape (N, C, W) or (C, W); with ``layout="NWC"`` (N, W, C) or (W, C)
    weight : array_like, shape (C, O / groups, KW)
    bias, stride, padding, output_padding, groups, dilation, layout, activation, residual, algorithm, precision, out
        As for :func:`fastconv.conv_transpose2d`.

    Returns
    -------
    numpy.ndarray, shape (N, O, OW), or as ``layout`` and the input's rank say

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.conv_transpose1d(np.array([[1, 2]], np.float32), np.array([[[1, 10, 100]]], np.float32), stride=2)
    array([[  1.,  10., 102.,  20., 200.]], dtype=float32)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision)
    return _convolve(1, True, (input, weight, bias, residual, out), parameters)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: Any = None,
    algorithm: str = "auto",
    precision: str = "default",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve the other way round: what :func:`fastconv.conv2d`'s input gradient does with ``input``.

    Every input element adds its multiple of the kernel to the output, ``stride`` elements apart: a learnt enlargement.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W); with ``layout="NHWC"`` (N, H, W, C) or (H, W, C)
    weight : array_like, shape (C, O / groups, KH, KW)
        Of the same dtype, in this order for either layout.
    bias : array_like, shape (O,), optional
    stride : int or (int, int)
        Distance of neighbouring input elements in the output.
    padding : int, (int, int), ((top, bottom), (left, right)) or "valid"
        Rows and columns of the output that are left out at its borders.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and the right, fewer than ``stride`` or ``dilation``: of several sizes that
        a convolution makes the same of, this tells which it was.
    groups : int
    dilation : int or (int, int)
    layout, activation, residual, algorithm, precision, out
        As for :func:`fastconv.conv2d`; the algorithm serves the convolutions that the result falls apart into.

    Returns
    -------
    numpy.ndarray, shape (N, O, OH, OW), or as ``layout`` and the input's rank say
        OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) + output_padding + 1.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Notes
    -----
    Outputs that share a remainder modulo the stride see the same taps, so each such phase is a convolution of stride
    one, and no zeros are inserted between the elements of ``input``.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, chapter 4.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.array([[[1, 2], [3, 4]]], np.float32)
    >>> fc.conv_transpose2d(image, np.ones((1, 1, 2, 2), np.float32), stride=2)[0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]], dtype=float32)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision)
    return _convolve(2, True, (input, weight, bias, residual, out), parameters)


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCDHW",
    activation: str | None = None,
    residual: Any = None,
    algorithm: str = "auto",
    precision: str = "default",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve the other way round along three axes: as :func:`fastconv.conv_transpose2d`.

    Parameters
    ----------
    input : array_like, shape (N, C, D, H, W) or (C, D, H, W); with ``layout="NDHWC"`` the channels come last
    weight : array_like, shape (C, O / groups, KD, KH, KW)
    bias, stride, padding, output_padding, groups, dilation, layout, activation, residual, algorithm, precision, out
        As for :func:`fastconv.conv_transpose2d`.

    Returns
    -------
    numpy.ndarray, shape (N, O, OD, OH, OW), or as ``layout`` and the input's rank say

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> volume = np.ones((4, 5, 6, 7), np.float32)
    >>> fc.conv_transpose3d(volume, np.ones((4, 2, 2, 2, 2), np.float32), stride=2).shape
    (2, 10, 12, 14)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision)
    return _convolve(3, True, (input, weight, bias, residual, out), parameters)


# ---------------------------------------------------------------------------------------------------- gradients


def conv1d_input(
    input_size: tuple[int, ...],
    weight: Any,
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv1d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (O, C / groups, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, dilation, groups, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv1d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv1d_input(ones.shape, ones, fc.conv1d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3)
    """
    arguments = (input_size, weight, grad_output, stride, padding, dilation, groups, layout, algorithm, precision)
    return _input_grad(1, *arguments)


def conv1d_weight(
    input: Any,
    weight_size: tuple[int, ...],
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv1d` with respect to its weight, summed over the batch.

    Parameters
    ----------
    input : array_like, shape (N, C, W) or as ``layout`` says
    weight_size : tuple of int
        Shape of the weight, (O, C / groups, KW).
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
        As :func:`fastconv.conv1d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv1d_weight(ones, ones.shape, fc.conv1d(ones, ones)).shape
    (1, 1, 3)
    """
    arguments = (input, weight_size, grad_output, stride, padding, dilation, groups, layout, algorithm, precision)
    return _conv_weight(1, *arguments)


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
    arguments = (input_size, weight, grad_output, stride, padding, dilation, groups, layout, algorithm, precision)
    return _input_grad(2, *arguments)


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
    arguments = (input, weight_size, grad_output, stride, padding, dilation, groups, layout, algorithm, precision)
    return _conv_weight(2, *arguments)


def conv3d_input(
    input_size: tuple[int, ...],
    weight: Any,
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv3d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (O, C / groups, KD, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, dilation, groups, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv3d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv3d_input(ones.shape, ones, fc.conv3d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3, 3, 3)
    """
    arguments = (input_size, weight, grad_output, stride, padding, dilation, groups, layout, algorithm, precision)
    return _input_grad(3, *arguments)


def conv3d_weight(
    input: Any,
    weight_size: tuple[int, ...],
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv3d` with respect to its weight, summed over the batch.

    Parameters
    ----------
    input : array_like, shape (N, C, D, H, W) or as ``layout`` says
    weight_size : tuple of int
        Shape of the weight, (O, C / groups, KD, KH, KW).
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
        As :func:`fastconv.conv3d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv3d_weight(ones, ones.shape, fc.conv3d(ones, ones)).shape
    (1, 1, 3, 3, 3)
    """
    arguments = (input, weight_size, grad_output, stride, padding, dilation, groups, layout, algorithm, precision)
    return _conv_weight(3, *arguments)


def conv_transpose1d_input(
    input_size: tuple[int, ...],
    weight: Any,
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose1d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (C, O / groups, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose1d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv_transpose1d_input(ones.shape, ones, fc.conv_transpose1d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3)
    """
    arguments = (
        input_size,
        weight,
        grad_output,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout,
        algorithm,
        precision,
    )
    return _transpose_input(1, *arguments)


def conv_transpose1d_weight(
    input: Any,
    weight_size: tuple[int, ...],
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose1d` with respect to its weight, summed over the batch.

    Parameters
    ----------
    input : array_like, shape (N, C, W) or as ``layout`` says
    weight_size : tuple of int
        Shape of the weight, (C, O / groups, KW).
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``weight_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose1d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv_transpose1d_weight(ones, ones.shape, fc.conv_transpose1d(ones, ones)).shape
    (1, 1, 3)
    """
    arguments = (
        input,
        weight_size,
        grad_output,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout,
        algorithm,
        precision,
    )
    return _transpose_weight(1, *arguments)


def conv_transpose2d_input(
    input_size: tuple[int, ...],
    weight: Any,
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (C, O / groups, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3), np.float32)
    >>> fc.grad.conv_transpose2d_input(ones.shape, ones, fc.conv_transpose2d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3, 3)
    """
    arguments = (
        input_size,
        weight,
        grad_output,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout,
        algorithm,
        precision,
    )
    return _transpose_input(2, *arguments)


def conv_transpose2d_weight(
    input: Any,
    weight_size: tuple[int, ...],
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose2d` with respect to its weight, summed over the batch.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or as ``layout`` says
    weight_size : tuple of int
        Shape of the weight, (C, O / groups, KH, KW).
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``weight_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3), np.float32)
    >>> fc.grad.conv_transpose2d_weight(ones, ones.shape, fc.conv_transpose2d(ones, ones)).shape
    (1, 1, 3, 3)
    """
    arguments = (
        input,
        weight_size,
        grad_output,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout,
        algorithm,
        precision,
    )
    return _transpose_weight(2, *arguments)


def conv_transpose3d_input(
    input_size: tuple[int, ...],
    weight: Any,
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose3d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (C, O / groups, KD, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose3d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv_transpose3d_input(ones.shape, ones, fc.conv_transpose3d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3, 3, 3)
    """
    arguments = (
        input_size,
        weight,
        grad_output,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout,
        algorithm,
        precision,
    )
    return _transpose_input(3, *arguments)


def conv_transpose3d_weight(
    input: Any,
    weight_size: tuple[int, ...],
    grad_output: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    precision: str = "default",
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose3d` with respect to its weight, summed over the batch.

    Parameters
    ----------
    input : array_like, shape (N, C, D, H, W) or as ``layout`` says
    weight_size : tuple of int
        Shape of the weight, (C, O / groups, KD, KH, KW).
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``weight_size``

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose3d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv_transpose3d_weight(ones, ones.shape, fc.conv_transpose3d(ones, ones)).shape
    (1, 1, 3, 3, 3)
    """
    arguments = (
        input,
        weight_size,
        grad_output,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        layout,
        algorithm,
        precision,
    )
    return _transpose_weight(3, *arguments)
