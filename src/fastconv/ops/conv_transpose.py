# SPDX-License-Identifier: BSD-3-Clause
"""Transposed convolutions along one, two and three axes, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.ops import _convolution

__all__ = [
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
__dir__ = only(__all__)


def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
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
        Elements of the output that are left out at its borders.
    output_padding : int or (int, int)
        Elements added at the end of each axis, fewer than ``stride`` or ``dilation``: of several sizes that a
        convolution makes the same of, this tells which it was.
    groups : int
    dilation : int or (int, int)
    layout, activation, residual, algorithm, precision, batch_invariant, out
        As for :func:`fastconv.conv2d`; the algorithm serves the convolutions that the result falls apart into.

    Returns
    -------
    numpy.ndarray, shape (N, O, OH, OW), or as ``layout`` and the input's rank say
        OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) + output_padding + 1. Its axes lie in memory as the
        input's.

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
    return _convolution.convolve(2, True, (input, weight, bias, residual, out), parameters, batch_invariant)


@of_rank(1, conv_transpose2d)
def conv_transpose1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve the other way round along one axis: as :func:`fastconv.conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.conv_transpose1d(np.array([[1, 2]], np.float32), np.array([[[1, 10, 100]]], np.float32), stride=2)
    array([[  1.,  10., 102.,  20., 200.]], dtype=float32)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision)
    return _convolution.convolve(1, True, (input, weight, bias, residual, out), parameters, batch_invariant)


@of_rank(3, conv_transpose2d)
def conv_transpose3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCDHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve the other way round along three axes: as :func:`fastconv.conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> volume = np.ones((4, 5, 6, 7), np.float32)
    >>> fc.conv_transpose3d(volume, np.ones((4, 2, 2, 2, 2), np.float32), stride=2).shape
    (2, 10, 12, 14)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision)
    return _convolution.convolve(3, True, (input, weight, bias, residual, out), parameters, batch_invariant)


def conv_transpose2d_input(
    input_size: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, in the order of ``layout``.
    weight : array_like, shape (C, O / groups, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision, batch_invariant
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape ``input_size``
        Its axes lie in memory as those of ``grad_output``.

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
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.input_grad(2, True, input_size, weight, grad_output, parameters, batch_invariant)


def conv_transpose2d_weight(
    input: ArrayLike,
    weight_size: tuple[int, ...],
    grad_output: ArrayLike,
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
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.weight_grad(2, True, input, weight_size, grad_output, parameters)


@of_rank(1, conv_transpose2d_input)
def conv_transpose1d_input(
    input_size: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCW",
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose1d` with respect to its input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv_transpose1d_input(ones.shape, ones, fc.conv_transpose1d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.input_grad(1, True, input_size, weight, grad_output, parameters, batch_invariant)


@of_rank(1, conv_transpose2d_weight)
def conv_transpose1d_weight(
    input: ArrayLike,
    weight_size: tuple[int, ...],
    grad_output: ArrayLike,
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

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> fc.grad.conv_transpose1d_weight(ones, ones.shape, fc.conv_transpose1d(ones, ones)).shape
    (1, 1, 3)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.weight_grad(1, True, input, weight_size, grad_output, parameters)


@of_rank(3, conv_transpose2d_input)
def conv_transpose3d_input(
    input_size: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
) -> np.ndarray:
    """Gradient of :func:`fastconv.conv_transpose3d` with respect to its input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv_transpose3d_input(ones.shape, ones, fc.conv_transpose3d(ones, ones, padding=1), padding=1).shape
    (1, 1, 3, 3, 3)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.input_grad(3, True, input_size, weight, grad_output, parameters, batch_invariant)


@of_rank(3, conv_transpose2d_weight)
def conv_transpose3d_weight(
    input: ArrayLike,
    weight_size: tuple[int, ...],
    grad_output: ArrayLike,
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

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> fc.grad.conv_transpose3d_weight(ones, ones.shape, fc.conv_transpose3d(ones, ones)).shape
    (1, 1, 3, 3, 3)
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.weight_grad(3, True, input, weight_size, grad_output, parameters)
