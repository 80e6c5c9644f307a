# SPDX-License-Identifier: BSD-3-Clause
"""The fully connected layer, and the layers that only rearrange."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _core
from fastconv import functional as F
from fastconv._names import only
from fastconv.nn import init
from fastconv.nn._packed import PackedPlan
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.ops._operand import axis_index
from fastconv.ops.activation import UNBOUNDED, activation_of
from fastconv.ops.linear import gradients
from fastconv.plan import ConvPlan

__all__ = ["Flatten", "Identity", "Linear"]
__dir__ = only(__all__)


class Linear(Module):
    """Fully connected layer ``x @ weight.T + bias``, as `torch.nn.Linear`.

    Parameters
    ----------
    in_features, out_features : int
        Length of the last axis of the input and of the output.
    bias : bool
    dtype : dtype, keyword only
        Of the parameters: float32 (the default), float64 or float16.
    rng : numpy.random.Generator or int, keyword only
        Source of the initial values, see `fastconv.nn.init`.

    Attributes
    ----------
    weight : Parameter (out_features, in_features)
    bias : Parameter (out_features,) or None

    Notes
    -----
    In eval mode the layer packs its weights once, as `Conv2d` does.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Linear(3, 2, rng=0)(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    """

    _takes_bounds = True
    _owns_gradients = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.in_features = _args.integer(in_features, "in_features", 1)
        self.out_features = _args.integer(out_features, "out_features", 1)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter.empty(shape, dtype or np.float32)
        self.bias = Parameter.empty(shape[:1], dtype or np.float32) if bias else None
        self._packed = PackedPlan()
        self.reset_parameters(rng)

    def reset_parameters(self, rng: np.random.Generator | int | None = None) -> None:
        """Draw new initial values, as torch's default."""
        init.default_(self.weight, self.bias, rng=rng)

    def forward(self, input: ArrayLike) -> np.ndarray:
        return self._clamped(UNBOUNDED, input)

    def _clamped(self, bounds: tuple[float, float], *inputs: Any) -> np.ndarray:
        input = _args.as_array(inputs[0], "input")
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        if not self.training and input.shape[-1:] == (self.in_features,):
            # The rows as images of one pixel.
            images = (math.prod(input.shape[:-1]), self.in_features, 1, 1)
            plan = self._packed.get(
                images,
                (self.weight, self.bias),
                lambda: ConvPlan(images, weight[:, :, None, None], bias),
            )
            if plan is not None:
                return plan(input.reshape(images)).reshape(*input.shape[:-1], self.out_features)
        y = F.linear(input, weight, bias, activation=activation_of(bounds))
        self.save_for_backward(input, bounds, None if bounds == UNBOUNDED else y)
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        x, bounds, y = self.saved()
        d_input, d_weight, d_bias = gradients(
            x, self.weight.value, grad_output, self.bias is not None, self.needs_input_grad, y, bounds
        )
        self.weight.accumulate(d_weight)
        if self.bias is not None and d_bias is not None:
            self.bias.accumulate(d_bias)
        return d_input

    def _release(self) -> None:
        self._packed.clear()

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """Merge the axes from `start_dim` to `end_dim` into one, as `torch.nn.Flatten`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Flatten()(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: ArrayLike) -> np.ndarray:
        input = np.asarray(input)
        first = axis_index(self.start_dim, input.ndim, "start_dim")
        last = axis_index(self.end_dim, input.ndim, "end_dim")
        if first > last:
            raise ValueError(
                f"start_dim is {self.start_dim} and end_dim {self.end_dim}; for an input {input.shape} "
                "start_dim must not come after end_dim"
            )
        self.save_for_backward(input.shape, _core.axes_in_memory(input))
        # The length is spelt out because -1 is ambiguous for empty batches.
        merged = math.prod(input.shape[first : last + 1])
        return input.reshape(*input.shape[:first], merged, *input.shape[last + 1 :])

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        shape, order = self.saved()
        return _args.dense(grad_output.reshape(shape), order)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Returns its input; takes and ignores any arguments, as `torch.nn.Identity`.

    >>> import fastconv.nn as nn
    >>> nn.Identity()(3)
    3
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, input: Any) -> Any:
        self.save_for_backward()
        return input

    def backward(self, grad_output: Any) -> Any:
        self.saved()
        return grad_output
