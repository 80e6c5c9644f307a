# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions along one, two and three axes, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.ops import _convolution

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
]
__dir__ = only(__all__)


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
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
    activation : {None, "relu", "relu6", "silu", "hardswish", "sigmoid"}
    residual : array_like, of the result's shape, optional
        Added before the activation.
    algorithm : {"auto", "direct", "im2col", "winograd", "winograd_f2", "winograd_f3", "winograd_f4", "winograd_f6", \
"pointwise", "depthwise", "reference"}
        ``"auto"`` takes the one predicted to be fastest, but never ``"winograd_f6"``, whose error is six times that of
        F(4). Winograd's algorithms take kernels of two columns or more whose stride and dilation along rows are 1.
    precision : {"default", "strict"}
        ``"strict"`` keeps the error within the bound of direct summation: no Winograd.
    batch_invariant : bool
        Whether each result is to be the same, bit for bit, in a batch of any size: algorithm and order of sums are then
        chosen for a batch of one.
    out : numpy.ndarray, optional
        Takes the result. It must not overlap the inputs, but may be ``residual`` itself.

    Returns
    -------
    numpy.ndarray, shape (N, O, OH, OW), or as ``layout`` and the input's rank say
        ``out``, if given. OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1. Its axes lie in
        memory as the input's: channels last, if they do so under ``layout="NCHW"``.

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
    return _convolution.convolve(2, False, (input, weight, bias, residual, out), parameters, batch_invariant)


@of_rank(1, conv2d)
def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve signals with a set of kernels: :func:`fastconv.conv2d` along one axis.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> signal = np.array([[0, 3, 6, 9, 3]], np.float32)
    >>> fc.conv1d(signal, np.array([[[-1, 0, 1]]], np.float32))
    array([[ 6.,  6., -3.]], dtype=float32)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, activation, algorithm, precision)
    return _convolution.convolve(1, False, (input, weight, bias, residual, out), parameters, batch_invariant)


@of_rank(3, conv2d)
def conv3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve volumes with a set of kernels: :func:`fastconv.conv2d` along three axes.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> volume = np.ones((1, 4, 4, 4), np.float32)
    >>> fc.conv3d(volume, np.ones((2, 1, 3, 3, 3), np.float32), padding=(0, 1, 1)).shape
    (2, 2, 4, 4)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, activation, algorithm, precision)
    return _convolution.convolve(3, False, (input, weight, bias, residual, out), parameters, batch_invariant)


def conv2d_input(
    input_size: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (O, C / groups, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, dilation, groups, layout, algorithm, precision, batch_invariant
        Those of the forward call; the algorithm serves the convolutions that the gradient falls apart into.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``
        Its axes lie in memory as those of ``grad_output``.

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
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.input_grad(2, False, input_size, weight, grad_output, parameters, batch_invariant)


def conv2d_weight(
    input: ArrayLike,
    weight_size: tuple[int, ...],
    grad_output: ArrayLike,
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
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.weight_grad(2, False, input, weight_size, grad_output, parameters)


@of_rank(1, conv2d_input)
def conv1d_input(
    input_size: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCW",
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv1d` with respect to its input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv1d_input(ones.shape, ones, fc.conv1d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.input_grad(1, False, input_size, weight, grad_output, parameters, batch_invariant)


@of_rank(1, conv2d_weight)
def conv1d_weight(
    input: ArrayLike,
    weight_size: tuple[int, ...],
    grad_output: ArrayLike,
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

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv1d_weight(ones, ones.shape, fc.conv1d(ones, ones)).shape
    (1, 1, 3)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.weight_grad(1, False, input, weight_size, grad_output, parameters)


@of_rank(3, conv2d_input)
def conv3d_input(
    input_size: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv3d` with respect to its input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv3d_input(ones.shape, ones, fc.conv3d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3, 3, 3)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.input_grad(3, False, input_size, weight, grad_output, parameters, batch_invariant)


@of_rank(3, conv2d_weight)
def conv3d_weight(
    input: ArrayLike,
    weight_size: tuple[int, ...],
    grad_output: ArrayLike,
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

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv3d_weight(ones, ones.shape, fc.conv3d(ones, ones)).shape
    (1, 1, 3, 3, 3)
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.weight_grad(3, False, input, weight_size, grad_output, parameters)
