# SPDX-License-Identifier: BSD-3-Clause
"""Layer, group and instance normalisation, each with its gradient beside it.

All three bring groups of elements to mean 0 and variance 1, then scale and shift them; they differ by what a group is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _core
from fastconv._names import only
from fastconv.ops import _folds
from fastconv.ops._operand import channel_axis, like, matching, operand
from fastconv.ops.norm import SCALE_AND_SHIFT, batch_norm, blend, check_updatable

__all__ = ["group_norm", "group_norm_grad", "instance_norm", "instance_norm_grad", "layer_norm", "layer_norm_grad"]
__dir__ = only(__all__)

Gradients = tuple[np.ndarray | None, np.ndarray, np.ndarray]


def _parameter(value: Any, name: str, shape: tuple[int, ...], seen: tuple[int, ...]) -> np.ndarray | None:
    """A weight or a bias of this shape, if there is one, in the shape in which it meets the input."""
    if value is None:
        return None
    array = operand(value, name)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it needs {shape}")
    return array.reshape(seen)


def _backward(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray | None, seen: tuple[int, ...], axes: tuple[int, ...], eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d_input, d_weight and d_bias, the last two of the shape `seen`.

    With h = (x − mean)/σ and u = g·weight: d_input = (u − mean(u) − h·mean(u·h))/σ, d_weight = Σg·h, d_bias = Σg.
    """
    count = max(math.prod(x.shape[i] for i in axes), 1)
    others = tuple(i for i, n in enumerate(seen) if n == 1)
    h = _folds.standardised(x, axes, eps)
    rsigma = 1 / np.sqrt(_folds.moments(x, axes)[1] + x.dtype.type(eps))
    d_weight, d_bias = _folds.total(g * h, others), _folds.total(g, others)
    u = g if weight is None else np.multiply(g, weight, out=_core.new_like(g), casting="same_kind")
    share = rsigma / x.dtype.type(-count)
    h = SCALE_AND_SHIFT(h, _folds.total(u * h, axes) * share, _folds.total(u, axes) * share)
    return SCALE_AND_SHIFT(u, rsigma, h), d_weight, d_bias


def _results(
    d: tuple[np.ndarray, np.ndarray, np.ndarray],
    grad_output: Any,
    weight: Any,
    shape: tuple[int, ...],
    parameter_shape: tuple[int, ...],
    need_input: bool,
) -> Gradients:
    parameter = grad_output if weight is None else weight
    d_input = like(d[0].reshape(shape), grad_output) if need_input else None
    d_weight, d_bias = (like(a.reshape(parameter_shape), parameter) for a in d[1:])
    return d_input, d_weight, d_bias


# --- layer normalisation --------------------------------------------------------------------------


def _layer_view(
    x: np.ndarray, normalized_shape: Any
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The normalised shape; shapes in which input and parameters meet, as rows of elements if that is no copy; what is
    folded.
    """
    single = isinstance(normalized_shape, (int, np.integer))
    shape = _args.sizes((normalized_shape,) if single else normalized_shape, "normalized_shape", 1)
    if not shape:
        raise ValueError("normalized_shape is (); it needs at least one axis")
    if x.shape[-len(shape) :] != shape or x.ndim < len(shape):
        raise ValueError(f"input has shape {x.shape}; with normalized_shape {shape} it needs (..., {str(shape)[1:]}")
    if not x.flags.c_contiguous and x.ndim <= 8:
        before = x.ndim - len(shape)
        return shape, x.shape, (1,) * before + shape, tuple(range(before, x.ndim))
    elements = math.prod(shape)
    return shape, (x.size // elements, elements), (1, elements), (1,)


def layer_norm(
    input: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> np.ndarray:
    """Normalise over the last axes: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    input : array, float32, float64 or float16
        Its last axes have `normalized_shape`.
    normalized_shape : int or sequence of int
        Over how many of the last axes, and their lengths.
    weight, bias : array of shape `normalized_shape`, optional
        Scale and shift of each element.
    eps : float
        Added to the variance.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    ValueError
        Shapes do not fit each other.
    TypeError
        A dtype that is not floating point.

    Notes
    -----
    Source: Ba, Kiros and Hinton (2016), "Layer normalization", arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), 2, eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    x = operand(input)
    shape, flat, seen, axes = _layer_view(x, normalized_shape)
    eps = _args.real(eps, "eps")
    scale, shift = _parameter(weight, "weight", shape, seen), _parameter(bias, "bias", shape, seen)
    return like(_folds.standardised(x.reshape(flat), axes, eps, scale, shift).reshape(x.shape), input)


def layer_norm_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    need_input: bool = True,
) -> Gradients:
    """Gradient of `layer_norm`; the arguments are its own, after the gradient of its result.

    Parameters
    ----------
    grad_output : array of the shape and dtype of `input`
    input, normalized_shape, weight, eps
        As they were given to :func:`fastconv.layer_norm`.
    need_input : bool, keyword only
        False returns None in place of d_input.

    Returns
    -------
    d_input, d_weight, d_bias : numpy.ndarray
        The last two of shape `normalized_shape`, in the dtype of `weight`, if there is one.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.layer_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> d_input, d_weight, d_bias = fc.grad.layer_norm(np.ones((4, 3)), np.arange(12.0).reshape(4, 3), 3)
    >>> d_bias
    array([4., 4., 4.])
    """
    x = operand(input)
    g = matching(grad_output, "grad_output", x, "input")
    shape, flat, seen, axes = _layer_view(x, normalized_shape)
    scale = _parameter(weight, "weight", shape, seen)
    d = _backward(g.reshape(flat), x.reshape(flat), scale, seen, axes, _args.real(eps, "eps"))
    return _results(d, grad_output, weight, x.shape, shape, need_input)


# --- group normalisation --------------------------------------------------------------------------


def _group_view(
    x: np.ndarray, num_groups: Any, layout: str
) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Channels; shapes in which input and parameters meet, channels as (groups, channels of one); what is folded."""
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"input has shape {x.shape}; it needs 2 to 5 axes, batch included")
    axis, groups = channel_axis(layout, x.ndim), _args.integer(num_groups, "num_groups", 1)
    channels = x.shape[axis]
    if channels % groups:
        raise ValueError(f"num_groups is {groups}; it needs to divide the {channels} channels of input")
    parts = (groups, channels // groups)
    split = (*x.shape[:axis], *parts, *x.shape[axis + 1 :])
    seen = tuple(n if i in (axis, axis + 1) else 1 for i, n in enumerate(split))
    return channels, split, seen, tuple(i for i in range(1, len(split)) if i != axis)


def group_norm(
    input: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Normalise groups of channels of each image: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    input : array of 2 to 5 axes, float32, float64 or float16
        ``(N, C, ...)``, or ``(N, ..., C)`` with a channels-last `layout`.
    num_groups : int
        Number of groups, which share the channels evenly.
    weight, bias : array (C,), optional
        Scale and shift of each channel.
    eps : float
        Added to the variance.
    layout : str, keyword only
        As in :func:`fastconv.batch_norm`.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    ValueError
        Wrong rank, channels that cannot be shared evenly, or an array without one entry per channel.
    TypeError
        A dtype that is not floating point.

    Notes
    -----
    Source: Wu and He (2018), "Group normalization", arXiv:1803.08494.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    x = operand(input)
    channels, split, seen, axes = _group_view(x, num_groups, layout)
    eps = _args.real(eps, "eps")
    scale, shift = (_parameter(a, name, (channels,), seen) for a, name in ((weight, "weight"), (bias, "bias")))
    return like(_folds.standardised(x.reshape(split), axes, eps, scale, shift).reshape(x.shape), input)


def group_norm_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
    need_input: bool = True,
) -> Gradients:
    """Gradient of `group_norm`; the arguments are its own, after the gradient of its result.

    Parameters
    ----------
    grad_output : array of the shape and dtype of `input`
    input, num_groups, weight, eps, layout
        As they were given to :func:`fastconv.group_norm`.
    need_input : bool, keyword only
        False returns None in place of d_input.

    Returns
    -------
    d_input, d_weight, d_bias : numpy.ndarray
        The last two of shape (C,), in the dtype of `weight`, if there is one.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.group_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> g, x = np.ones((2, 4, 3)), np.arange(24.0).reshape(2, 4, 3)
    >>> fc.grad.group_norm(g, x, 2)[2]
    array([6., 6., 6., 6.])
    """
    x = operand(input)
    g = matching(grad_output, "grad_output", x, "input")
    channels, split, seen, axes = _group_view(x, num_groups, layout)
    scale = _parameter(weight, "weight", (channels,), seen)
    d = _backward(g.reshape(split), x.reshape(split), scale, seen, axes, _args.real(eps, "eps"))
    return _results(d, grad_output, weight, x.shape, (channels,), need_input)


# --- instance normalisation -----------------------------------------------------------------------


def _check_instances(x: np.ndarray, layout: str) -> tuple[int, int]:
    """Channels, and values of one in one image."""
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"input has shape {x.shape}; it needs 3 to 5 axes, batch included")
    axis = channel_axis(layout, x.ndim)
    values = math.prod(n for i, n in enumerate(x.shape) if i not in (0, axis))
    return x.shape[axis], values


def instance_norm(
    input: ArrayLike,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Normalise every channel of each image: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    input : array of 3 to 5 axes, float32, float64 or float16
        ``(N, C, ...)``, or ``(N, ..., C)`` with a channels-last `layout`.
    running_mean, running_var : array (C,), optional
        Used when `use_input_stats` is false; otherwise moved, in place, by `momentum` towards the means of the images'
        means and unbiased variances.
    weight, bias : array (C,), optional
        Scale and shift of each channel.
    use_input_stats : bool
        Normalise with the statistics of each image.
    momentum, eps : float
        As in :func:`fastconv.batch_norm`.
    layout : str, keyword only
        As in :func:`fastconv.batch_norm`.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    ValueError
        Wrong rank, an array without one entry per channel, a single value per channel of an image, or no running
        statistics although `use_input_stats` is false.
    TypeError
        A dtype that is not floating point, or running statistics that cannot be updated.

    Notes
    -----
    Source: Ulyanov, Vedaldi and Lempitsky (2016), "Instance normalization", arXiv:1607.08022.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    x = operand(input)
    channels, values = _check_instances(x, layout)
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps, layout=layout)
    if values == 1:
        raise ValueError(f"input has shape {x.shape}; each channel of an image needs at least two values")
    check_updatable(running_mean, "running_mean", channels)
    check_updatable(running_var, "running_var", channels)
    momentum = _args.real(momentum, "momentum")
    y = group_norm(input, channels, weight, bias, eps, layout=layout) if channels else like(x.copy(), input)
    if (running_mean is not None or running_var is not None) and x.size:
        axis = channel_axis(layout, x.ndim)
        mean, var = _folds.moments(x, [i for i in range(1, x.ndim) if i != axis]).astype(np.float64)
        blend(running_mean, mean.mean(axis=0).ravel(), momentum)
        blend(running_var, var.mean(axis=0).ravel() * (values / (values - 1)), momentum)
    return y


def instance_norm_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
    need_input: bool = True,
) -> Gradients:
    """Gradient of `instance_norm` with the statistics of the input; all else as for :func:`group_norm_grad`.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.instance_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.instance_norm(np.ones((2, 3, 4)), np.arange(24.0).reshape(2, 3, 4))[2]
    array([8., 8., 8.])
    """
    channels, _ = _check_instances(operand(input), layout)
    return group_norm_grad(grad_output, input, max(channels, 1), weight, eps, layout=layout, need_input=need_input)
