# SPDX-License-Identifier: BSD-3-Clause
"""Convolution and its gradients, all four from one picture: the patches the kernel sees.

With the kernel at output pixel (i, j), tap (u, v) meets the padded image at row
``i * stride + u * dilation`` and column ``j * stride + v * dilation``. :func:`_patches` is a view
of the padded image with one axis for each of these four letters, and then, per group,

    forward             output  = filters @ patches
    gradient of input   patches = filters.T @ grad_output,  added where the patches came from
    gradient of weight  filters = grad_output @ patches.T,  summed over the images

Arguments are checked no further than keeps a wrong result from passing for a right one; the full
checks are the public functions' work.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike

from ._axes import Pair, channels_as, channels_first, channels_first_shape, pair
from .layers import hardswish, relu, relu6, sigmoid, silu

__all__ = ["conv2d", "conv2d_bias", "conv2d_im2col", "conv2d_input", "conv2d_weight"]
__dir__ = __all__.copy


Padding = int | str | Sequence[int | tuple[int, int]]

ACTIVATIONS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda x: x,
    "relu": relu,
    "relu6": relu6,
    "silu": silu,
    "hardswish": hardswish,
    "sigmoid": sigmoid,
}


# --- forward --------------------------------------------------------------------------------------


def conv2d(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: np.ndarray | None = None,
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """Convolve as the textbook does: one output pixel at a time.

    Each output pixel is the sum, over channels and taps, of the patch under the kernel times the
    kernel (which is not flipped: this is cross-correlation, as everywhere in deep learning).

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        One batch or one image, float32 or float64; with ``layout="NHWC"`` the channels come last.
    weight : ndarray, shape (O, C / groups, KH, KW)
        The kernels, in this order for either layout.
    bias : ndarray, shape (O,), optional
        Added to every pixel of its output channel.
    stride, dilation : int or pair of int
        Step between output pixels, and between the taps of the kernel.
    padding : int, pair of int, pair of (before, after), "valid", "same" or "same_lower"
        Zeros around the image. The two "same" forms give ``ceil(size / stride)`` pixels; when the
        total is odd, "same" puts the extra zero after the image and "same_lower" before it.
    groups : int
        Channels are split into this many groups that do not see each other.
    layout : {"NCHW", "NHWC"}
        Order of the axes of `input`, of `residual` and of the result.
    activation : {None, "relu", "relu6", "silu", "hardswish", "sigmoid"}
        Applied last.
    residual : ndarray, optional
        Of the result's shape, added before the activation.
    dtype : dtype, optional
        As in :func:`numpy.sum`, the type of the accumulator and of the result. The default is the
        operands' own.

    Returns
    -------
    ndarray, shape (N, O, OH, OW) or (O, OH, OW)
        With the channels last for ``layout="NHWC"``.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or an option has a value not listed here.

    See Also
    --------
    conv2d_im2col : the same result from one matrix product.

    References
    ----------
    Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE, 1998.

    Examples
    --------
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> conv2d(image, np.ones((1, 1, 2, 2)))
    array([[[ 8., 12.],
            [20., 24.]]])
    """
    patches = _unfold(input, weight.shape, stride, padding, dilation, groups, layout=layout, dtype=dtype)
    kernels = _kernels(np.asarray(weight, dtype), groups)
    batch, height, width = patches.shape[0], *patches.shape[-2:]
    output = np.empty((batch, *kernels.shape[:2], height, width), np.result_type(patches, kernels))
    for i in range(height):
        for j in range(width):
            output[..., i, j] = np.einsum("ngcuv,gocuv->ngo", patches[..., i, j], kernels)
    return _epilogue(output, input, bias, residual, activation, layout=layout, dtype=dtype)


def conv2d_im2col(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: np.ndarray | None = None,
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """Convolve as NumPy does best: copy all patches into the columns of a matrix, and multiply.

    Parameters, result and errors are those of :func:`conv2d`. The matrix holds KH * KW copies of
    the image, which is the price of the speed of one BLAS call.

    References
    ----------
    K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for
    document processing", IWFHR, 2006.

    Examples
    --------
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> conv2d_im2col(image, np.ones((1, 1, 2, 2)), padding="same", stride=2)
    array([[[ 8.,  7.],
            [13.,  8.]]])
    """
    patches = _unfold(input, weight.shape, stride, padding, dilation, groups, layout=layout, dtype=dtype)
    filters = _filters(np.asarray(weight, dtype), groups)
    output = filters @ _columns(patches)
    output = output.reshape(*output.shape[:-1], *patches.shape[-2:])
    return _epilogue(output, input, bias, residual, activation, layout=layout, dtype=dtype)


# --- gradients ------------------------------------------------------------------------------------


def conv2d_input(
    input_size: Sequence[int],
    weight: np.ndarray,
    grad_output: np.ndarray,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """Gradient of :func:`conv2d` with respect to its input.

    Every output pixel hands its gradient, times the kernel, back to the patch it came from.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input, four numbers or three, in the order of `layout`.
    weight : ndarray, shape (O, C / groups, KH, KW)
    grad_output : ndarray
        Gradient of the loss with respect to the output, of the output's shape.
    stride, padding, dilation, groups, layout, dtype
        As given to :func:`conv2d`.

    Returns
    -------
    ndarray, shape `input_size`

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> conv2d_input((1, 3, 3), np.ones((1, 1, 2, 2)), np.ones((1, 2, 2)))
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    weight = np.asarray(weight, dtype)
    grad = _grouped(_images(np.asarray(grad_output, dtype), layout), groups)
    *batch, channels, height, width = channels_first_shape(input_size, layout)
    (top, bottom), (left, right) = _padding(padding, (height, width), weight.shape[2:], stride, dilation)

    padded = np.zeros(
        (*(batch or (1,)), channels, top + height + bottom, left + width + right),
        np.result_type(weight, grad),
    )
    patches = _patches(padded, weight.shape[2:], stride, dilation, groups)
    columns = _filters(weight, groups).swapaxes(-1, -2) @ _pixels(grad)
    columns = columns.reshape(patches.shape)
    for u, v in np.ndindex(*weight.shape[2:]):  # for one tap, no two output pixels share a place
        patches[:, :, :, u, v] += columns[:, :, :, u, v]

    grad_input = padded[:, :, top : top + height, left : left + width]
    return channels_as(grad_input if batch else grad_input[0], layout)


def conv2d_weight(
    input: np.ndarray,
    weight_size: Sequence[int],
    grad_output: np.ndarray,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """Gradient of :func:`conv2d` with respect to its weight.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
    weight_size : sequence of four int
        Shape of the weight, (O, C / groups, KH, KW).
    grad_output : ndarray
        Gradient of the loss with respect to the output, of the output's shape.
    stride, padding, dilation, groups, layout, dtype
        As given to :func:`conv2d`.

    Returns
    -------
    ndarray, shape `weight_size`

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> conv2d_weight(image, (1, 1, 2, 2), np.ones((1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    patches = _unfold(input, weight_size, stride, padding, dilation, groups, layout=layout, dtype=dtype)
    grad = _grouped(_images(np.asarray(grad_output, dtype), layout), groups)
    per_image = _pixels(grad) @ _columns(patches).swapaxes(-1, -2)
    return per_image.sum(axis=0).reshape(weight_size)


def conv2d_bias(grad_output: np.ndarray, *, layout: str = "NCHW", dtype: DTypeLike | None = None) -> np.ndarray:
    """Gradient of :func:`conv2d` with respect to its bias: the sum over images and pixels.

    Parameters
    ----------
    grad_output : ndarray, shape (N, O, OH, OW) or (O, OH, OW)
    layout, dtype
        As given to :func:`conv2d`.

    Returns
    -------
    ndarray, shape (O,)

    Examples
    --------
    >>> conv2d_bias(np.ones((2, 3, 4, 5)))
    array([40., 40., 40.])
    """
    return _images(grad_output, layout).sum(axis=(0, 2, 3), dtype=dtype)


# --- the parts ------------------------------------------------------------------------------------


def _images(array: np.ndarray, layout: str) -> np.ndarray:
    """Any input or output as (N, C, H, W), a single image as a batch of one."""
    array = channels_first(array, layout)
    return array if array.ndim == 4 else array[np.newaxis]


def _grouped(images: np.ndarray, groups: int) -> np.ndarray:
    """(N, C, H, W) as (N, groups, C / groups, H, W)."""
    batch, channels, height, width = images.shape
    if channels % groups:
        raise ValueError(f"groups: got {groups}, needs a divisor of the {channels} channels")
    return images.reshape(batch, groups, channels // groups, height, width)


def _kernels(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weight as (groups, O / groups, C / groups, KH, KW)."""
    outputs, *kernel = weight.shape
    if outputs % groups:
        raise ValueError(f"groups: got {groups}, needs a divisor of the {outputs} kernels")
    return weight.reshape(groups, outputs // groups, *kernel)


def _filters(weight: np.ndarray, groups: int) -> np.ndarray:
    """The kernels as rows of a matrix: (groups, O / groups, C / groups * KH * KW)."""
    return weight.reshape(*_kernels(weight, groups).shape[:2], np.prod(weight.shape[1:]))


def _patches(padded: np.ndarray, kernel: Sequence[int], stride: Pair, dilation: Pair, groups: int) -> np.ndarray:
    """All patches of (N, C, H, W), as a view: (N, groups, C / groups, KH, KW, OH, OW)."""
    (sh, sw), (dh, dw) = pair(stride, "stride"), pair(dilation, "dilation")
    extent = _extents(kernel, (dh, dw))
    windows = sliding_window_view(_grouped(padded, groups), extent, axis=(-2, -1), writeable=True)
    return np.moveaxis(windows[..., ::sh, ::sw, ::dh, ::dw], (-2, -1), (-4, -3))


def _columns(patches: np.ndarray) -> np.ndarray:
    """One column per output pixel: (N, groups, C / groups * KH * KW, OH * OW). A copy."""
    batch, groups, depth, kh, kw, oh, ow = patches.shape
    return patches.reshape(batch, groups, depth * kh * kw, oh * ow)


def _pixels(grouped: np.ndarray) -> np.ndarray:
    """(N, groups, C / groups, H, W) as (N, groups, C / groups, H * W)."""
    return grouped.reshape(*grouped.shape[:3], grouped.shape[3] * grouped.shape[4])


def _extents(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Pixels from the first to the last tap, along each axis."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def _padding(
    padding: Padding, size: Sequence[int], kernel: Sequence[int], stride: Pair, dilation: Pair
) -> tuple[tuple[int, int], ...]:
    """((top, bottom), (left, right)) from any form that :func:`conv2d` takes."""
    if padding == "valid":
        padding = 0
    if not isinstance(padding, str):
        return tuple(pair(sides, "padding") for sides in pair(padding, "padding"))
    if padding not in ("same", "same_lower"):
        raise ValueError(f"padding: got {padding!r}, needs ints, 'valid', 'same' or 'same_lower'")
    sides = []
    extents = _extents(kernel, pair(dilation, "dilation"))
    for length, extent, step in zip(size, extents, pair(stride, "stride"), strict=True):
        steps = -(-length // step) - 1
        total = max(steps * step + extent - length, 0)
        smaller, larger = total // 2, total - total // 2
        sides.append((smaller, larger) if padding == "same" else (larger, smaller))
    return tuple(sides)


def _unfold(
    input: np.ndarray,
    weight_size: Sequence[int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    layout: str,
    dtype: DTypeLike | None,
) -> np.ndarray:
    """The patches of the input as the caller gave it, padded."""
    images = _images(np.asarray(input, dtype), layout)
    depth, *kernel = weight_size[1:]
    if images.shape[1] != groups * depth:
        raise ValueError(f"weight: got {depth} channels in {groups} groups, needs {images.shape[1]} in all")
    sides = _padding(padding, images.shape[2:], kernel, stride, dilation)
    return _patches(np.pad(images, ((0, 0), (0, 0), *sides)), kernel, stride, dilation, groups)


def _epilogue(
    output: np.ndarray,
    input: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    activation: str | None,
    *,
    layout: str,
    dtype: DTypeLike | None,
) -> np.ndarray:
    """Bias, residual and activation on (N, groups, O / groups, OH, OW); then the caller's shape."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}, needs one of {list(ACTIVATIONS)}")
    batch, groups, depth, oh, ow = output.shape
    output = output.reshape(batch, groups * depth, oh, ow)
    if bias is not None:
        output += np.reshape(np.asarray(bias, dtype), (groups * depth, 1, 1))
    if residual is not None:
        output += _images(np.asarray(residual, dtype), layout).reshape(output.shape)
    output = ACTIVATIONS[activation](output)
    return channels_as(output if input.ndim == 4 else output[0], layout)
