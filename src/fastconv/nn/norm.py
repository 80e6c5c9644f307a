# SPDX-License-Identifier: BSD-3-Clause
"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv.nn import init
from fastconv.nn.module import Module
from fastconv.nn.parameter import Buffer, Parameter
from fastconv.ops import norm as N
from fastconv.ops._operand import channel_axis
from fastconv.ops.activation import UNBOUNDED

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LocalResponseNorm"]
__dir__ = only(__all__)


class _BatchNorm(Module):
    """Batch normalisation for the ranks that a subclass names.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of a new batch in the running statistics; None averages over all batches seen.
    affine : bool
        Whether to learn a scale and a shift per channel.
    track_running_stats : bool
        False keeps no statistics: every batch is normalised by its own, in eval mode too.
    bias : bool, keyword only
        Whether, if `affine`, to learn a shift.
    dtype : dtype, keyword only
        Of parameters and statistics: float32 (the default) or float64.
    layout : str, keyword only
        Channels-first or channels-last, see `fastconv.batch_norm`.

    Attributes
    ----------
    weight, bias : Parameter (num_features,) or None
    running_mean, running_var : Buffer (num_features,) or None
    num_batches_tracked : Buffer () of int64, or None
    """

    _takes_bounds = True
    _owns_gradients = True
    _ranks: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = None,
        layout: str = "NCHW",
    ) -> None:
        self.num_features = _args.integer(num_features, "num_features", 1)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.layout = layout
        channel_axis(layout, 4)
        shape, dtype = (self.num_features,), dtype or np.float32
        self.weight = init.ones_(Parameter.empty(shape, dtype)) if affine else None
        self.bias = init.zeros_(Parameter.empty(shape, dtype)) if affine and bias else None
        tracked = track_running_stats
        self.running_mean = Buffer(np.zeros(shape, dtype)) if tracked else None
        self.running_var = Buffer(np.ones(shape, dtype)) if tracked else None
        self.num_batches_tracked = Buffer(np.zeros((), np.int64), optional=True) if tracked else None

    def _affine(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        weight, bias = self.weight, self.bias
        return (None if weight is None else weight.value, None if bias is None else bias.value)

    def forward(self, input: ArrayLike) -> np.ndarray:
        return self._clamped(UNBOUNDED, input)

    def _clamped(self, bounds: tuple[float, float], *inputs: Any) -> np.ndarray:
        (input,) = inputs
        if np.ndim(input) not in self._ranks:
            ranks = " or ".join(map(str, self._ranks))
            raise ValueError(f"input has shape {np.shape(input)}; it needs {ranks} axes")
        tracked, count = self.track_running_stats, self.num_batches_tracked
        mean = self.running_mean.data if self.running_mean is not None and tracked else None
        var = self.running_var.data if self.running_var is not None and tracked else None
        if not self.training and tracked:
            self.save_for_backward()
            return N.batch_norm(input, mean, var, *self._affine(), eps=self.eps, layout=self.layout)
        momentum = 0.0
        if not self.training:
            mean = var = None
        elif tracked and count is not None:
            momentum = 1 / (int(count.data) + 1) if self.momentum is None else self.momentum
        y, kept = N.batch_norm_training(input, mean, var, *self._affine(), momentum, self.eps, self.layout, bounds)
        if self.training and tracked and count is not None:
            count.data += 1  # the batch counts once it has gone through
        self.save_for_backward(kept)
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (kept,) = self.saved()
        d_input, d_weight, d_bias = N.batch_norm_back(grad_output, kept, self.needs_input_grad, self._overwrites())
        for parameter, gradient in ((self.weight, d_weight), (self.bias, d_bias)):
            if parameter is not None:
                parameter.accumulate(gradient)
        return d_input

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace(
        "Batch normalisation for the ranks that a subclass names.",
        "Batch normalisation of inputs (N, C) or (N, C, L), as `torch.nn.BatchNorm1d`.",
    )

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace(
        "Batch normalisation for the ranks that a subclass names.",
        "Batch normalisation of inputs (N, C, H, W), as `torch.nn.BatchNorm2d`.",
    )

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace(
        "Batch normalisation for the ranks that a subclass names.",
        "Batch normalisation of inputs (N, C, D, H, W), as `torch.nn.BatchNorm3d`.",
    )

    _ranks = (5,)


class LocalResponseNorm(Module):
    """Normalisation by the neighbouring channels, as `torch.nn.LocalResponseNorm`.

    Parameters
    ----------
    size : int
        Number of channels in the window.
    alpha, beta, k : float
        Constants, see `fastconv.local_response_norm`.
    layout : str, keyword only
        Channels-first or channels-last.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LocalResponseNorm(5)(np.zeros((1, 8, 4, 4))).shape
    (1, 8, 4, 4)
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.size = _args.integer(size, "size", 1)
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.layout = layout
        channel_axis(layout, 4)

    def _arguments(self) -> tuple[int, float, float, float]:
        return self.size, self.alpha, self.beta, self.k

    def forward(self, input: ArrayLike) -> np.ndarray:
        self.save_for_backward(input)
        return N.local_response_norm(input, *self._arguments(), layout=self.layout)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (x,) = self.saved()
        if not self.needs_input_grad:
            return None
        return N.local_response_norm_grad(grad_output, x, *self._arguments(), layout=self.layout)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
