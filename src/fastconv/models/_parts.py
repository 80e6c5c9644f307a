# SPDX-License-Identifier: BSD-3-Clause
"""What the networks share: how their layers are made, and blocks that branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.nn.container import back_through, summed, through

__all__ = ["Branched", "Layers", "he_normal", "normal", "whole_channels"]

Initialiser = Callable[[nn.Parameter, np.random.Generator], Any]


def he_normal(weight: nn.Parameter, rng: np.random.Generator) -> None:
    """Keeps the variance of gradients through a convolution and a ReLU."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", rng=rng)


def normal(weight: nn.Parameter, rng: np.random.Generator) -> None:
    """The standard deviation that many papers name for linear layers."""
    nn.init.normal_(weight, 0.0, 0.01, rng=rng)


class Layers:
    """Makes the layers of one network: one dtype, one source of initial values.

    `conv_weights` and `linear_weights` draw the initial weights, and biases then start from zero; None
    leaves the layer's own.
    """

    def __init__(
        self,
        dtype: Any,
        rng: np.random.Generator | int | None,
        *,
        conv_weights: Initialiser | None = None,
        linear_weights: Initialiser | None = None,
        eps: float = 1e-5,
    ) -> None:
        self.dtype = dtype
        self.rng = np.random.default_rng(rng)
        self.conv_weights, self.linear_weights = conv_weights, linear_weights
        self.eps = eps

    def _drawn(self, layer: Any, weights: Initialiser | None) -> Any:
        if weights is not None:
            weights(layer.weight, self.rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return layer

    def conv(self, *args: Any, **kwargs: Any) -> nn.Conv2d:
        return self._drawn(nn.Conv2d(*args, **kwargs, dtype=self.dtype, rng=self.rng), self.conv_weights)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        return self._drawn(nn.Linear(inputs, outputs, dtype=self.dtype, rng=self.rng), self.linear_weights)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=self.eps, dtype=self.dtype)

    def dropout(self, p: float) -> nn.Dropout:
        return nn.Dropout(p, rng=self.rng)

    def conv_norm(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *activation: nn.Module,
        stride: int = 1,
        groups: int = 1,
    ) -> nn.Sequential:
        """A convolution that keeps the size but for its stride, batch norm in place of its bias, an activation."""
        conv = self.conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, self.norm(outputs), *activation)


def whole_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to a scaled number of channels, but no less than nine tenths of it."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class Branched(nn.Module):
    """Chains of modules: `before`, then side by side `branches`, joined by `join`, then `after`.

    A subclass creates its modules under the names that the state dict shall have, and says which of them
    stand where. An empty branch passes its input on; one branch alone needs no `join`.
    """

    join: nn.Module

    def before(self) -> tuple[nn.Module, ...]:
        return ()

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        raise NotImplementedError(f"{type(self).__name__} does not say what its branches are")

    def after(self) -> tuple[nn.Module, ...]:
        return ()

    def forward(self, input: Any) -> Any:
        input = through(self.before(), input)
        results = [through(branch, input) for branch in self.branches()]
        return through((self.join, *self.after()) if len(results) > 1 else self.after(), *results)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        """The branches' gradients add up, since all of them read the same input."""
        before, branches = self.before(), self.branches()
        grad_output = back_through(self.after(), grad_output)
        gradients = self.join.backward(grad_output) if len(branches) > 1 else (grad_output,)
        learns_before = any(True for module in before for _ in module.parameters())
        needed = self.needs_input_grad or learns_before
        below = [back_through(branch, g, needed) for branch, g in zip(branches, gradients, strict=True)]
        return back_through(before, summed(below), self.needs_input_grad) if needed else None
