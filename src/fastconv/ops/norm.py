# SPDX-License-Identifier: BSD-3-Clause
"""Batch normalisation and local response normalisation, each with its gradient beside it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _config, _core
from fastconv._maps import Map, op
from fastconv._names import only
from fastconv.ops._operand import channel_axis, like, matching, operand, per_channel
from fastconv.ops.activation import UNBOUNDED

__all__ = ["batch_norm", "batch_norm_grad", "local_response_norm", "local_response_norm_grad"]
__dir__ = only(__all__)


SCALE_AND_SHIFT = Map(op("fma", 0, 1), others=2)


# --- batch normalisation --------------------------------------------------------------------------


def _channels_of(x: np.ndarray, layout: str) -> tuple[int, int]:
    """The channel axis, and the number of values each channel has."""
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"input has shape {x.shape}; it needs 2 to 5 axes, batch included")
    axis = channel_axis(layout, x.ndim)
    values = math.prod(n for i, n in enumerate(x.shape) if i != axis)
    return axis, values


def _vector(value: Any, name: str, channels: int) -> np.ndarray:
    array = operand(value, name)
    if array.shape != (channels,):
        raise ValueError(f"{name} has shape {array.shape}; it needs one entry per channel, ({channels},)")
    return array


def _affine(weight: Any, bias: Any, channels: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    return (
        None if weight is None else _vector(weight, "weight", channels),
        None if bias is None else _vector(bias, "bias", channels),
    )


def _statistic(value: Any, name: str, channels: int) -> np.ndarray:
    if value is None:
        raise ValueError(f"{name} is None; training=False needs an array ({channels},)")
    return _vector(value, name, channels)


def _statistics(x: np.ndarray, axis: int, values: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the biased variance of each channel, in float64."""
    if values == 1:
        raise ValueError(f"input has shape {x.shape}; with training=True each channel needs at least two values")
    if values == 0:  # there is nothing to centre
        return np.zeros(x.shape[axis]), np.zeros(x.shape[axis])
    mean, var = _found(_MOMENTS, x, None, None, axis)
    return mean, var


#: What the core does to large arrays, `fc_batch_kind`; `_TRAIN` and `_GRADIENT` go through them twice in one call, and
#: find in between, in float64, what is of channels alone.
_MOMENTS, _FORWARD, _SUMS, _BACKWARD, _TRAIN, _GRADIENT = range(6)
#: Rows of vectors: what `_TRAIN` reads or leaves there, and what `_GRADIENT` does.
_MEAN, _SCALE, _SHIFT, _VARIANCE, _OF_BIAS, _OF_WEIGHT, _ROWS = 0, 1, 2, 6, 7, 8, 9

Bounds = tuple[float, float]


def _found(
    kind: int, x: np.ndarray, g: np.ndarray | None, vectors: np.ndarray | None, axis: int, bounds: Bounds = UNBOUNDED
) -> np.ndarray:
    """Two numbers of each channel, in float64."""
    found = np.empty((2, x.shape[axis]), x.dtype)
    _core.batch_norm(x, g, vectors, None, found, axis, kind, *bounds, 0.0, _config.ISA, _config.get_num_threads())
    return found.astype(np.float64)


def _spread(
    kind: int,
    x: np.ndarray,
    g: np.ndarray | None,
    vectors: np.ndarray,
    axis: int,
    bounds: Bounds,
    gain: np.ndarray | None = None,
    eps: float = 0.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    y = _core.new_like(x) if out is None else out
    _core.batch_norm(x, g, vectors, gain, y, axis, kind, *bounds, eps, _config.ISA, _config.get_num_threads())
    return y


class Normalised(NamedTuple):
    """What the gradient of a batch norm needs: `vectors` are the core's, and `gain` the weight, if there is one."""

    x: np.ndarray
    axis: int
    values: int
    vectors: np.ndarray
    gain: np.ndarray | None
    eps: float
    bounds: Bounds

    def inverse_deviation(self) -> np.ndarray:
        """Of each channel, in float64."""
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse: np.ndarray = 1 / np.sqrt(self.vectors[_VARIANCE].astype(np.float64) + self.eps)
        return inverse


def _normalised(
    x: np.ndarray,
    axis: int,
    values: int,
    moments: tuple[np.ndarray, np.ndarray],
    affine: tuple[np.ndarray | None, np.ndarray | None],
    eps: float,
    bounds: Bounds = UNBOUNDED,
) -> Normalised:
    kept = _to_normalise(x, axis, values, affine, eps, bounds)
    kept.vectors[_MEAN], kept.vectors[_VARIANCE] = moments
    with np.errstate(invalid="ignore"):  # a channel without variance
        kept.vectors[_SCALE] = kept.inverse_deviation() * (1.0 if kept.gain is None else kept.gain)
    return kept


def _to_normalise(
    x: np.ndarray,
    axis: int,
    values: int,
    affine: tuple[np.ndarray | None, np.ndarray | None],
    eps: float,
    bounds: Bounds,
) -> Normalised:
    """Without what depends on moments."""
    weight, bias = affine
    vectors = np.zeros((_ROWS, x.shape[axis]), x.dtype)
    gain = None if weight is None else np.ascontiguousarray(weight, x.dtype)
    if bias is not None:
        vectors[_SHIFT] = bias
    return Normalised(x, axis, values, vectors, gain, eps, bounds)


def batch_norm_training(
    input: ArrayLike,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    momentum: float,
    eps: float,
    layout: str,
    bounds: Bounds = UNBOUNDED,
) -> tuple[np.ndarray, Normalised]:
    """`batch_norm` in training, clamped to `bounds`, and what `batch_norm_back` needs."""
    momentum, eps = _args.real(momentum, "momentum"), _args.real(eps, "eps")
    x = _args.addressable(operand(input))
    axis, values = _channels_of(x, layout)
    channels = x.shape[axis]
    affine = _affine(weight, bias, channels)
    check_updatable(running_mean, "running_mean", channels)
    check_updatable(running_var, "running_var", channels)
    if values < 2:
        kept = _normalised(x, axis, values, _statistics(x, axis, values), affine, eps, bounds)
        return like(_core.new_like(x), input), kept
    kept = _to_normalise(x, axis, values, affine, eps, bounds)
    y = like(_spread(_TRAIN, x, None, kept.vectors, axis, bounds, kept.gain, eps), input)
    blend(running_mean, kept.vectors[_MEAN], momentum)
    blend(running_var, kept.vectors[_VARIANCE], momentum, values / (values - 1))
    return y, kept


def batch_norm_back(
    grad_output: ArrayLike, kept: Normalised, need_input: bool = True, overwrite: bool = False
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """The gradients of input, weight and bias; with `overwrite` the first in memory of `grad_output`, if that can be.

    Where the clamp changed a result, nothing of its gradient goes through.
    """
    x, axis, values, vectors, gain, eps, bounds = kept
    g = _args.addressable(matching(grad_output, "grad_output", x, "input"))
    if values == 0:
        return np.zeros_like(x), np.zeros(x.shape[axis]), np.zeros(x.shape[axis])
    if need_input:
        out = g if overwrite and g.flags.writeable and g.strides == x.strides else None
        d_input = like(_spread(_GRADIENT, x, g, vectors, axis, bounds, gain, eps, out), grad_output)
        d_bias, d_weight = vectors[_OF_BIAS:].copy()
        return d_input, d_weight, d_bias
    d_bias, products = _found(_SUMS, x, g, vectors, axis, bounds)
    with np.errstate(invalid="ignore"):
        return None, products * kept.inverse_deviation(), d_bias


def check_updatable(running: Any, name: str, channels: int) -> None:
    if running is None:
        return
    if not (isinstance(running, np.ndarray) and running.flags.writeable):
        raise TypeError(f"{name} must be a writable NumPy array; with training=True it is updated")
    _vector(running, name, channels)


def blend(running: np.ndarray | None, fresh: np.ndarray, momentum: float, factor: float = 1.0) -> None:
    """Move a running statistic towards `factor` times the batch's, in place."""
    if running is None:
        return
    if running.dtype == fresh.dtype and running.flags.c_contiguous:
        _core.blend(running, fresh, momentum, factor)
    else:
        running[...] = (1 - momentum) * running.astype(np.float64) + momentum * (fresh.astype(np.float64) * factor)


def batch_norm(
    input: ArrayLike,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Normalise every channel: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    input : array of 2 to 5 axes, float32, float64 or float16
        ``(N, C, ...)``, or ``(N, ..., C)`` with a channels-last `layout`.
    running_mean, running_var : array (C,) or None
        Used when `training` is false; otherwise moved, in place, by `momentum` towards the batch's
        mean and its unbiased variance.
    weight, bias : array (C,), optional
        Scale and shift of each channel.
    training : bool
        Normalise with the statistics of this batch.
    momentum : float
        Weight of the new batch in the running statistics.
    eps : float
        Added to the variance.
    layout : str, keyword only
        Any channels-first name ("NCHW", "NCW", ...) puts the channels on axis 1, any channels-last
        name ("NHWC", ...) on the last axis, whatever the rank.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    ValueError
        Wrong rank, an array without one entry per channel, no running statistics although
        `training` is false, or a single value per channel although it is true. Of an empty input the result is empty,
        and running statistics stay.
    TypeError
        A dtype that is not floating point, or running statistics that cannot be updated.

    Notes
    -----
    Source: Ioffe and Szegedy (2015), "Batch normalization", arXiv:1502.03167.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> fc.batch_norm(x, None, None, training=True, eps=0.0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    if training:
        return batch_norm_training(input, running_mean, running_var, weight, bias, momentum, eps, layout)[0]
    _, eps = _args.real(momentum, "momentum"), _args.real(eps, "eps")
    x = _args.addressable(operand(input))
    axis, values = _channels_of(x, layout)
    channels = x.shape[axis]
    affine = _affine(weight, bias, channels)
    mean = _statistic(running_mean, "running_mean", channels).astype(np.float64)
    var = _statistic(running_var, "running_var", channels).astype(np.float64)
    kept = _normalised(x, axis, values, (mean, var), affine, eps)
    return like(_spread(_FORWARD, x, None, kept.vectors, axis, UNBOUNDED), input)


def batch_norm_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike | None = None,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
    need_input: bool = True,
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Gradient of `batch_norm`; the arguments are its own, after the gradient of its result.

    With h = (x − mean)/σ: d_bias = Σg, d_weight = Σg·h, and
    d_input = (weight/σ)·(g − d_bias/m − h·d_weight/m) over the m values of a channel when
    `training`; without it mean and σ are constants and d_input = (weight/σ)·g.

    Parameters
    ----------
    grad_output : array of the shape and dtype of `input`
    input, weight, running_mean, running_var, training, eps, layout
        As they were given to `batch_norm`; the running statistics are not touched.
    need_input : bool, keyword only
        False skips d_input and returns None in its place.

    Returns
    -------
    d_input, d_weight, d_bias : numpy.ndarray
        Shapes ``input.shape``, ``(C,)`` and ``(C,)``; the last two in the dtype of `weight`, if
        there is one.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.batch_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> g, x = np.ones((4, 3)), np.arange(12.0).reshape(4, 3)
    >>> d_input, d_weight, d_bias = fc.grad.batch_norm(g, x, training=True)
    >>> d_bias
    array([4., 4., 4.])
    """
    x = _args.addressable(operand(input))
    g = matching(grad_output, "grad_output", x, "input")
    axis, values = _channels_of(x, layout)
    channels = x.shape[axis]
    eps = _args.real(eps, "eps")
    gain = None if weight is None else _vector(weight, "weight", channels)
    if training:
        kept = _normalised(x, axis, values, _statistics(x, axis, values), (gain, None), eps)
        d_input, d_weight, d_bias = batch_norm_back(g, kept, need_input)
    else:
        mean = _statistic(running_mean, "running_mean", channels).astype(np.float64)
        var = _statistic(running_var, "running_var", channels).astype(np.float64)
        kept = _normalised(x, axis, values, (mean, var), (gain, None), eps)
        _, d_weight, d_bias = batch_norm_back(g, kept, need_input=False)
        d_input = None
        if need_input:
            scale, none = per_channel(kept.vectors[_SCALE], axis, x.ndim), np.zeros((1,) * x.ndim, x.dtype)
            d_input = SCALE_AND_SHIFT(g, scale, none)
    d_input = None if d_input is None else like(d_input, grad_output)
    parameter = grad_output if weight is None else weight
    return d_input, like(d_weight, parameter), like(d_bias, parameter)


# --- local response normalisation -----------------------------------------------------------------


def lrn_window(size: int, alpha: float, beta: float, k: float) -> tuple[int, int, float, float, float]:
    """The window's reach before and after a channel, alpha / size, beta and k."""
    size = _args.integer(size, "size", 1)
    share = _args.real(alpha, "alpha") / size
    return size // 2, (size - 1) // 2, share, _args.real(beta, "beta"), _args.real(k, "k")


def _lrn_arguments(
    x: np.ndarray, size: int, alpha: float, beta: float, k: float, layout: str
) -> tuple[int, int, int, float, float, float]:
    """The channel axis, and the window."""
    if x.ndim < 3:
        raise ValueError(f"input has shape {x.shape}; it needs at least 3 axes, batch included")
    return channel_axis(layout, x.ndim), *lrn_window(size, alpha, beta, k)


def local_response_norm(
    input: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Divide by the energy of the neighbouring channels: ``x / (k + alpha/size * Σ x²) ** beta``.

    Parameters
    ----------
    input : array of at least 3 axes, float32, float64 or float16
        ``(N, C, ...)``, or ``(N, ..., C)`` with a channels-last `layout`.
    size : int
        Width of the window: channels ``c - size//2`` to ``c + (size-1)//2``. Channels that do not
        exist count as zeros and the divisor stays `size`, as in torch (Krizhevsky's alpha is
        torch's ``alpha / size``).
    alpha, beta, k : float
        Constants of the formula.
    layout : str, keyword only
        As in `batch_norm`.

    Returns
    -------
    numpy.ndarray
        The shape and dtype of `input`.

    Raises
    ------
    ValueError
        Fewer than 3 axes, or `size` below 1.

    Notes
    -----
    Source: Krizhevsky, Sutskever and Hinton (2012), "ImageNet classification with deep
    convolutional neural networks", section 3.3.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.full((1, 3, 1), 2.0)
    >>> fc.local_response_norm(x, size=3, alpha=3.0, beta=1.0, k=0.0).ravel()
    array([0.25      , 0.16666667, 0.25      ])
    """
    x = operand(input)
    axis, before, after, share, beta, k = _lrn_arguments(x, size, alpha, beta, k, layout)
    x = _args.addressable(x)
    y = _core.new_like(x)
    window = axis, before, after, share, beta, k
    _core.lrn(x, None, y, *window, _config.ISA, _config.get_num_threads())
    return like(y, input)


def local_response_norm_grad(
    grad_output: ArrayLike,
    input: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Gradient of `local_response_norm`; the arguments are its own, after the gradient.

    With s = k + (alpha/size)·Σx²:
    d_input = g·s^−β − (2·alpha·β/size)·x·Σ(g·x·s^(−β−1)), the last sum over the channels whose
    window holds this one.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not supported, or shapes and dtypes do not fit those of :func:`fastconv.local_response_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> g, x = np.ones((1, 3, 1)), np.zeros((1, 3, 1))
    >>> fc.grad.local_response_norm(g, x, size=3).ravel()
    array([1., 1., 1.])
    """
    x = operand(input)
    g = _args.addressable(matching(grad_output, "grad_output", x, "input"))
    window = _lrn_arguments(x, size, alpha, beta, k, layout)
    x = _args.addressable(x)
    d = _core.new_like(x)
    _core.lrn(x, g, d, *window, _config.ISA, _config.get_num_threads())
    return like(d, grad_output)
