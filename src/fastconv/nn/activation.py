# SPDX-License-Identifier: BSD-3-Clause
"""Activation layers and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv.nn.module import Module
from fastconv.ops import activation as A
from fastconv.ops import dropout as D
from fastconv.ops import softmax as S

__all__ = ["Dropout", "Hardswish", "LeakyReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Tanh"]
__dir__ = only(__all__)


class _Activation(Module):
    """An elementwise function whose gradient is a function of its result."""

    _function: Callable[..., np.ndarray]
    _gradient: Callable[..., np.ndarray]

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = type(self)._function(input)
        self.save_for_backward(y)
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (y,) = self.saved()
        return type(self)._gradient(grad_output, y) if self.needs_input_grad else None


class _InplaceActivation(_Activation):
    """One that may overwrite its input: in eval mode only, where no layer needs it any more."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = bool(inplace)

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = type(self)._function(input, inplace=self.inplace and not self.training)
        self.save_for_backward(y)
        return y

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class _Clamp(_InplaceActivation):
    """One that the module before it can apply to its result, which then has no gradient of its own."""

    _bounds: tuple[float, float] | None = None

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (y,) = self.saved()
        if y is None:
            return grad_output
        return type(self)._gradient(grad_output, y) if self.needs_input_grad else None


class ReLU(_Clamp):
    """``max(x, 0)``, as `torch.nn.ReLU`; ``inplace=True`` overwrites the input in eval mode.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    _function, _gradient = A.relu, A.relu_grad
    _bounds = (0.0, np.inf)


class ReLU6(_Clamp):
    """``min(max(x, 0), 6)``, as `torch.nn.ReLU6`; `inplace` as for `ReLU`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReLU6()(np.array([-1.0, 9.0]))
    array([0., 6.])
    """

    _function, _gradient = A.relu6, A.relu6_grad
    _bounds = (0.0, 6.0)


class _OfInput(_InplaceActivation):
    """One whose gradient is simplest in terms of the input."""

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = super().forward(input)
        self.save_for_backward(input)
        return y


class SiLU(_OfInput):
    """``x * sigmoid(x)``, as `torch.nn.SiLU`; `inplace` as for `ReLU`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.SiLU()(np.zeros(1))
    array([0.])
    """

    _function, _gradient = A.silu, A.silu_grad


class Hardswish(_OfInput):
    """``x * relu6(x + 3) / 6``, as `torch.nn.Hardswish`; `inplace` as for `ReLU`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Hardswish()(np.array([1.5, 4.0]))
    array([1.125, 4.   ])
    """

    _function, _gradient = A.hardswish, A.hardswish_grad


class LeakyReLU(_InplaceActivation):
    """``x`` where positive, ``negative_slope * x`` elsewhere, as `torch.nn.LeakyReLU`; `inplace` as for `ReLU`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LeakyReLU(0.1)(np.array([-2.0, 3.0]))
    array([-0.2,  3. ])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = _args.real(negative_slope, "negative_slope")

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = A.leaky_relu(input, self.negative_slope, inplace=self.inplace and not self.training)
        self.save_for_backward(input)
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (x,) = self.saved()
        return A.leaky_relu_grad(grad_output, x, self.negative_slope) if self.needs_input_grad else None

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``, as `torch.nn.Sigmoid`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Sigmoid()(np.zeros(1))
    array([0.5])
    """

    _function, _gradient = A.sigmoid, A.sigmoid_grad


class Tanh(_Activation):
    """Hyperbolic tangent, as `torch.nn.Tanh`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Tanh()(np.zeros(1))
    array([0.])
    """

    _function, _gradient = A.tanh, A.tanh_grad


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along `dim`, as `torch.nn.Softmax`.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softmax(dim=1)(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = S.softmax(input, self.dim)
        self.save_for_backward(y)
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (y,) = self.saved()
        if not self.needs_input_grad:
            return None
        return S.softmax_grad(grad_output, y, S.softmax_axis(self.dim, y.ndim))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Dropout(Module):
    """Clears elements at random in training, as `torch.nn.Dropout`.

    Parameters
    ----------
    p : float
        Probability of clearing an element; the others are scaled by ``1 / (1 - p)``.
    inplace : bool
        Accepted for torch's sake. In eval mode there is nothing to do, and in training mode the
        input may still be needed.
    rng : numpy.random.Generator or int, keyword only
        Source of the masks; a seed makes the sequence of masks reproducible.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Dropout(0.5).eval()(np.ones(3))
    array([1., 1., 1.])
    """

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.p = D.probability(p)
        self.inplace = bool(inplace)
        self._rng = np.random.default_rng(rng)

    def forward(self, input: ArrayLike) -> np.ndarray:
        if not self.training:
            self.save_for_backward()
            return _args.as_array(input, "input")
        mask = D.dropout_mask(np.shape(input), self.p, rng=self._rng)
        self.save_for_backward(mask)
        return D.dropout_grad(input, mask, self.p)  # dropout is linear: its own gradient

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (mask,) = self.saved()
        return D.dropout_grad(grad_output, mask, self.p) if self.needs_input_grad else None

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
