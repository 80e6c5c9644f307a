# SPDX-License-Identifier: BSD-3-Clause
"""What stands around the convolutions of a network: linear, activations, norms and the loss."""

from collections.abc import Sequence

import numpy as np

__all__ = [
    "batch_norm",
    "cross_entropy",
    "group_norm",
    "hardswish",
    "instance_norm",
    "layer_norm",
    "linear",
    "local_response_norm",
    "log_softmax",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
]
__dir__ = __all__.copy


# --- linear and activations -----------------------------------------------------------------------


def linear(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Multiply by the transposed weight and add the bias.

    Parameters
    ----------
    input : ndarray, shape (..., I)
    weight : ndarray, shape (O, I)
    bias : ndarray, shape (O,), optional

    Returns
    -------
    ndarray, shape (..., O)

    Examples
    --------
    >>> linear(np.array([1.0, 2.0]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.0, 1.0]))
    array([11., 18.])
    """
    output = input @ weight.T
    return output if bias is None else output + bias


def relu(input: np.ndarray) -> np.ndarray:
    """The larger of x and 0; NaN stays NaN.

    Parameters
    ----------
    input : ndarray

    Returns
    -------
    ndarray, shape of `input`

    Examples
    --------
    >>> relu(np.array([-1.0, 2.0, np.nan]))
    array([ 0.,  2., nan])
    """
    return np.maximum(input, 0)


def relu6(input: np.ndarray) -> np.ndarray:
    """x clipped to the interval from 0 to 6; NaN stays NaN.

    Parameters
    ----------
    input : ndarray

    Returns
    -------
    ndarray, shape of `input`

    Examples
    --------
    >>> relu6(np.array([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """
    return np.clip(input, 0, 6)


def sigmoid(input: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), the logistic function.

    Parameters
    ----------
    input : ndarray

    Returns
    -------
    ndarray, shape of `input`

    Examples
    --------
    >>> sigmoid(np.array([-np.inf, 0.0, np.inf]))
    array([0. , 0.5, 1. ])
    """
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-input))


def silu(input: np.ndarray) -> np.ndarray:
    """x * sigmoid(x); NaN at minus infinity, where that is minus infinity times zero.

    Parameters
    ----------
    input : ndarray

    Returns
    -------
    ndarray, shape of `input`

    References
    ----------
    S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-weighted linear units for neural network function approximation in
    reinforcement learning", Neural Networks, 2018.

    Examples
    --------
    >>> silu(np.array([0.0, np.log(3)])).round(4)
    array([0.   , 0.824])
    """
    with np.errstate(invalid="ignore"):
        return input * sigmoid(input)


def hardswish(input: np.ndarray) -> np.ndarray:
    """x * relu6(x + 3) / 6; NaN at minus infinity, as `silu`.

    Parameters
    ----------
    input : ndarray

    Returns
    -------
    ndarray, shape of `input`

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV, 2019.

    Examples
    --------
    >>> hardswish(np.array([-4.0, 0.0, 1.5, 4.0]))
    array([-0.   ,  0.   ,  1.125,  4.   ])
    """
    with np.errstate(invalid="ignore"):
        return input * (relu6(input + 3) / 6)


def softmax(input: np.ndarray, dim: int | None = None) -> np.ndarray:
    """exp(x), divided by its sum along `dim`.

    Parameters
    ----------
    input : ndarray
    dim : int, optional
        As in torch, the default is axis 0 of an array with 0, 1 or 3 axes, and axis 1 of others.

    Returns
    -------
    ndarray, shape of `input`

    Examples
    --------
    >>> softmax(np.log([1.0, 3.0]))
    array([0.25, 0.75])
    """
    return np.exp(log_softmax(input, dim))


def log_softmax(input: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Logarithm of :func:`softmax`, which does not overflow: the largest x is subtracted first.

    Parameters
    ----------
    input : ndarray
    dim : int, optional
        As for :func:`softmax`.

    Returns
    -------
    ndarray, shape of `input`

    Examples
    --------
    >>> log_softmax(np.array([1000.0, 1000.0])).round(4)
    array([-0.6931, -0.6931])
    """
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
    shifted = input - input.max(axis=dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


# --- normalisation --------------------------------------------------------------------------------


def batch_norm(
    input: np.ndarray,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Bring every channel to mean 0 and variance 1, then scale and shift it.

    Parameters
    ----------
    input : ndarray, shape (N, C) or (N, C, ...)
        With the channels last for ``layout="NHWC"``.
    running_mean, running_var : ndarray, shape (C,), or None
        The statistics used when not training. In training those of the batch are used, and these
        move towards them *in place* by `momentum`; the variance that goes in is the unbiased one.
    weight, bias : ndarray, shape (C,), optional
        Scale and shift.
    training : bool
    momentum, eps : float
        `eps` is added to the variance.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape of `input`

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization", ICML, 2015.

    Examples
    --------
    >>> batch = np.array([[1.0], [3.0]])
    >>> mean, var = np.zeros(1), np.ones(1)
    >>> batch_norm(batch, mean, var, training=True, eps=0.0)
    array([[-1.],
           [ 1.]])
    >>> mean.round(3), var.round(3)
    (array([0.2]), array([1.1]))
    """
    rows = np.moveaxis(input, _channel_axis(layout), -1)  # (..., C): channels last broadcasts
    if training:
        others = tuple(range(rows.ndim - 1))
        mean, var = rows.mean(axis=others), rows.var(axis=others)
        if running_mean is not None:
            running_mean += momentum * (mean - running_mean)
        if running_var is not None:
            running_var += momentum * (rows.var(axis=others, ddof=1) - running_var)
    elif running_mean is None or running_var is None:
        raise ValueError("running_mean, running_var: got None, needs both if not training")
    else:
        mean, var = running_mean, running_var
    output = (rows - mean) / np.sqrt(var + eps)
    if weight is not None:
        output = output * weight
    if bias is not None:
        output = output + bias
    return np.ascontiguousarray(np.moveaxis(output, -1, _channel_axis(layout)))


def layer_norm(
    input: np.ndarray,
    normalized_shape: Sequence[int],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
) -> np.ndarray:
    """Bring the elements of the last axes to mean 0 and variance 1, then scale and shift each.

    Parameters
    ----------
    input : ndarray, shape (..., *normalized_shape)
    normalized_shape : sequence of int
    weight, bias : ndarray, shape `normalized_shape`, optional
        Scale and shift.
    eps : float
        Added to the variance.

    Returns
    -------
    ndarray, shape of `input`

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), (2,), eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    axes = tuple(range(-len(normalized_shape), 0))
    output = (input - input.mean(axis=axes, keepdims=True)) / np.sqrt(input.var(axis=axes, keepdims=True) + eps)
    if weight is not None:
        output = output * weight
    return output if bias is None else output + bias


def group_norm(
    input: np.ndarray,
    num_groups: int,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Bring every group of channels of an image to mean 0 and variance 1, then scale and shift each channel.

    Parameters
    ----------
    input : ndarray, shape (N, C, ...)
        With the channels last for ``layout="NHWC"``.
    num_groups : int
        C is a multiple of it.
    weight, bias : ndarray, shape (C,), optional
        Scale and shift.
    eps : float
        Added to the variance.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape of `input`

    References
    ----------
    Y. Wu, K. He, "Group normalization", ECCV, 2018.

    Examples
    --------
    >>> group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    first = np.moveaxis(input, _channel_axis(layout), 1)
    groups = first.reshape(len(first), num_groups, -1)
    output = np.moveaxis(layer_norm(groups, groups.shape[-1:], eps=eps).reshape(first.shape), 1, -1)
    if weight is not None:
        output = output * weight
    if bias is not None:
        output = output + bias
    return np.ascontiguousarray(np.moveaxis(output, -1, _channel_axis(layout)))


def instance_norm(
    input: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Bring every channel of an image to mean 0 and variance 1: :func:`group_norm` with groups of one channel.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization", 2016.

    Examples
    --------
    >>> instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    return group_norm(input, input.shape[_channel_axis(layout)], weight, bias, eps, layout=layout)


def local_response_norm(
    input: np.ndarray,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Divide every pixel by a power of the mean square over `size` neighbouring channels.

    ``x / (k + alpha * mean(x ** 2)) ** beta``; the channels from ``c - size // 2`` to
    ``c + (size - 1) // 2`` take part, with zeros beyond the first and the last.

    Parameters
    ----------
    input : ndarray, shape (N, C, ...)
        With the channels last for ``layout="NHWC"``.
    size : int
    alpha, beta, k : float
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray, shape of `input`

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural
    networks", NIPS, 2012. Their alpha is torch's alpha divided by `size`.

    Examples
    --------
    >>> local_response_norm(np.array([[[3.0], [4.0]]]), 2, alpha=2.0, beta=1.0)
    array([[[0.3       ],
            [0.15384615]]])
    """
    square = np.moveaxis(input * input, _channel_axis(layout), 0)
    total = np.zeros_like(square)
    for channel in range(len(square)):
        first = max(channel - size // 2, 0)
        total[channel] = square[first : channel + (size - 1) // 2 + 1].sum(axis=0)
    total = np.moveaxis(total, 0, _channel_axis(layout))
    return input / (k + alpha / size * total) ** beta


def _channel_axis(layout: str) -> int:
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout: got {layout!r}, needs 'NCHW' or 'NHWC'")
    return 1 if layout == "NCHW" else -1


# --- loss -----------------------------------------------------------------------------------------


def cross_entropy(
    input: np.ndarray,
    target: np.ndarray | Sequence[int] | int,
    weight: np.ndarray | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> np.ndarray:
    """Negative log-likelihood of the target classes under the softmax of the scores.

    Parameters
    ----------
    input : ndarray, shape (C,), (N, C) or (N, C, ...)
        Scores, not yet normalised.
    target : integers, shape (), (N,) or (N, ...)
        The right class of each sample.
    weight : ndarray, shape (C,), optional
        Weight of each class.
    ignore_index : int
        Samples with this target do not count.
    reduction : {"mean", "sum", "none"}
        The mean is weighted by the weights of the targets.
    label_smoothing : float
        This part of each target is spread evenly over all classes.

    Returns
    -------
    ndarray
        A scalar, or an array of the shape of `target` if `reduction` is "none".

    References
    ----------
    C. Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR, 2016, for
    label smoothing.

    Examples
    --------
    >>> scores = np.log([[1.0, 3.0], [1.0, 1.0]])
    >>> cross_entropy(scores, [1, 0], reduction="none").round(4)
    array([0.2877, 0.6931])
    """
    target = np.asarray(target)
    scores = np.moveaxis(input, 0 if input.ndim == 1 else 1, -1)  # (..., C)
    classes = scores.shape[-1]
    weight = np.ones(classes, input.dtype) if weight is None else weight

    counts = target != ignore_index
    label = np.where(counts, target, 0)
    weighted = -log_softmax(scores, -1) * weight
    loss = np.take_along_axis(weighted, label[..., np.newaxis], axis=-1)[..., 0]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * weighted.mean(axis=-1)
    loss = np.where(counts, loss, 0)

    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / np.where(counts, weight[label], 0).sum()
    raise ValueError(f"reduction: got {reduction!r}, needs 'mean', 'sum' or 'none'")
