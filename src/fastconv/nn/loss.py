# SPDX-License-Identifier: BSD-3-Clause
"""Losses as modules: called with scores and targets; `backward` gives the first gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only
from fastconv.nn.module import Module
from fastconv.nn.parameter import Buffer
from fastconv.ops import loss as L

__all__ = ["CrossEntropyLoss", "MSELoss"]
__dir__ = only(__all__)


class CrossEntropyLoss(Module):
    """Softmax cross-entropy, as `torch.nn.CrossEntropyLoss`.

    Parameters
    ----------
    weight : array (C,), optional
        Weight of each class; a buffer, and so part of the state dict.
    ignore_index, reduction, label_smoothing
        See `fastconv.cross_entropy`; keyword only.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> loss = nn.CrossEntropyLoss()
    >>> float(loss(np.zeros((1, 2)), np.array([0])).round(4))
    0.6931
    >>> loss.backward()
    array([[-0.5,  0.5]])
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = None if weight is None else Buffer(weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def _options(self) -> dict[str, Any]:
        return {
            "weight": None if self.weight is None else self.weight.value,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
        }

    def forward(self, input: ArrayLike, target: ArrayLike) -> Any:
        self.save_for_backward(input, target)
        return L.cross_entropy(input, target, **self._options())

    def backward(self, grad_output: ArrayLike = 1.0) -> np.ndarray:
        input, target = self.saved()
        return L.cross_entropy_grad(grad_output, input, target, **self._options())

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class MSELoss(Module):
    """Mean squared error, as `torch.nn.MSELoss`; see `fastconv.functional.mse_loss`.

    >>> import numpy as np, fastconv.nn as nn
    >>> loss = nn.MSELoss()
    >>> float(loss(np.array([3.0]), np.array([1.0])))
    4.0
    >>> loss.backward()
    array([4.])
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: ArrayLike, target: ArrayLike) -> Any:
        self.save_for_backward(input, target)
        return L.mse_loss(input, target, reduction=self.reduction)

    def backward(self, grad_output: ArrayLike = 1.0) -> np.ndarray:
        input, target = self.saved()
        return L.mse_loss_grad(grad_output, input, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
