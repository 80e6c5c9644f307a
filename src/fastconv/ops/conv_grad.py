# SPDX-License-Identifier: BSD-3-Clause
"""All gradients of a convolution, transposed or not, from one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.ops import _convolution
from fastconv.ops._convolution import Gradients

__all__ = [
    "conv1d_grad",
    "conv2d_grad",
    "conv3d_grad",
    "conv_transpose1d_grad",
    "conv_transpose2d_grad",
    "conv_transpose3d_grad",
]
__dir__ = only(__all__)


def conv2d_grad(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    needs: Sequence[str] = ("input", "weight", "bias"),
    mask: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: Sequence[np.ndarray | None] | None = None,
) -> Gradients:
    """Gradients of :func:`fastconv.conv2d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or as ``layout`` says
    weight : array_like, shape (O, C / groups, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, dilation, groups, layout, algorithm, precision, batch_invariant
        Those of the forward call.
    needs : sequence of {"input", "weight", "bias"}
        What is asked for. Nothing is computed of the others: the first layer of a network needs no gradient of its
        input.
    mask : array_like, of the result's shape, optional
        The forward result, if its activation was ``"relu"``: where it is not above 0, ``grad_output`` counts as 0.
    out : (array or None, array or None, array or None), optional
        Where the gradients of input, weight and bias go; None for a new array. They must not overlap each other nor
        what is read.

    Returns
    -------
    tuple of three numpy.ndarray
        The gradients of input, weight and bias, of their shapes; None for what is not needed. The bias' is the sum of
        ``grad_output`` over images and pixels. The input's lies in memory as the input.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv2d`.

    See Also
    --------
    fastconv.grad.conv2d_input, fastconv.grad.conv2d_weight : one of them alone, without the array itself.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> weight = np.ones((1, 1, 2, 2), np.float32)
    >>> grad = np.ones((1, 1, 2, 2), np.float32)
    >>> d_input, d_weight, d_bias = fc.grad.conv2d(image, weight, grad, needs=("weight", "bias"))
    >>> d_input, d_weight[0, 0].tolist(), d_bias.tolist()
    (None, [[8.0, 12.0], [20.0, 24.0]], [4.0])
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.gradients(2, False, input, weight, grad_output, parameters, needs, mask, batch_invariant, out)


@of_rank(1, conv2d_grad)
def conv1d_grad(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCW",
    needs: Sequence[str] = ("input", "weight", "bias"),
    mask: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: Sequence[np.ndarray | None] | None = None,
) -> Gradients:
    """Gradients of :func:`fastconv.conv1d` with respect to its input, its weight and its bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> [gradient.shape for gradient in fc.grad.conv1d(ones, ones, fc.conv1d(ones, ones))]
    [(1, 1, 3), (1, 1, 3), (1,)]
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.gradients(1, False, input, weight, grad_output, parameters, needs, mask, batch_invariant, out)


@of_rank(3, conv2d_grad)
def conv3d_grad(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    needs: Sequence[str] = ("input", "weight", "bias"),
    mask: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: Sequence[np.ndarray | None] | None = None,
) -> Gradients:
    """Gradients of :func:`fastconv.conv3d` with respect to its input, its weight and its bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 3, 3, 3), np.float32)
    >>> [gradient.shape for gradient in fc.grad.conv3d(ones, ones, fc.conv3d(ones, ones))]
    [(1, 1, 3, 3, 3), (1, 1, 3, 3, 3), (1,)]
    """
    parameters = (stride, padding, 0, dilation, groups, layout, algorithm, precision)
    return _convolution.gradients(3, False, input, weight, grad_output, parameters, needs, mask, batch_invariant, out)


def conv_transpose2d_grad(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
    needs: Sequence[str] = ("input", "weight", "bias"),
    mask: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: Sequence[np.ndarray | None] | None = None,
) -> Gradients:
    """Gradients of :func:`fastconv.conv_transpose2d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or as ``layout`` says
    weight : array_like, shape (C, O / groups, KH, KW)
    grad_output : array_like
        Gradient with respect to the result, of the result's shape.
    stride, padding, output_padding, groups, dilation, layout, algorithm, precision, batch_invariant
        Those of the forward call.
    needs, mask, out
        As for :func:`fastconv.grad.conv2d`.

    Returns
    -------
    tuple of three numpy.ndarray
        As from :func:`fastconv.grad.conv2d`.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As :func:`fastconv.conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 2, 2), np.float32)
    >>> [gradient.shape for gradient in fc.grad.conv_transpose2d(ones, ones, fc.conv_transpose2d(ones, ones))]
    [(1, 1, 2, 2), (1, 1, 2, 2), (1,)]
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.gradients(2, True, input, weight, grad_output, parameters, needs, mask, batch_invariant, out)


@of_rank(1, conv_transpose2d_grad)
def conv_transpose1d_grad(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCW",
    needs: Sequence[str] = ("input", "weight", "bias"),
    mask: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: Sequence[np.ndarray | None] | None = None,
) -> Gradients:
    """Gradients of :func:`fastconv.conv_transpose1d` with respect to its input, its weight and its bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 2), np.float32)
    >>> [gradient.shape for gradient in fc.grad.conv_transpose1d(ones, ones, fc.conv_transpose1d(ones, ones))]
    [(1, 1, 2), (1, 1, 2), (1,)]
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.gradients(1, True, input, weight, grad_output, parameters, needs, mask, batch_invariant, out)


@of_rank(3, conv_transpose2d_grad)
def conv_transpose3d_grad(
    input: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCDHW",
    needs: Sequence[str] = ("input", "weight", "bias"),
    mask: ArrayLike | None = None,
    algorithm: str = "auto",
    precision: str = "default",
    batch_invariant: bool = False,
    out: Sequence[np.ndarray | None] | None = None,
) -> Gradients:
    """Gradients of :func:`fastconv.conv_transpose3d` with respect to its input, its weight and its bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> ones = np.ones((1, 1, 2, 2, 2), np.float32)
    >>> [gradient.shape for gradient in fc.grad.conv_transpose3d(ones, ones, fc.conv_transpose3d(ones, ones))]
    [(1, 1, 2, 2, 2), (1, 1, 2, 2, 2), (1,)]
    """
    parameters = (stride, padding, output_padding, dilation, groups, layout, algorithm, precision)
    return _convolution.gradients(3, True, input, weight, grad_output, parameters, needs, mask, batch_invariant, out)
