# SPDX-License-Identifier: BSD-3-Clause
"""Pooling layers of p-norms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.nn.pool import Size, _Pool

__all__ = ["LPPool1d", "LPPool2d", "LPPool3d"]
__dir__ = only(__all__)


class _LPPool(_Pool):
    function = "lp_pool"

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        layout: str | None = None,
    ) -> None:
        self.norm_type, self.ceil_mode = norm_type, ceil_mode
        self.kernel_size = self._checked(kernel_size, "kernel_size")
        self.stride = None if stride is None else self._checked_stride(stride)
        self._set_layout(layout)

    def _window(self) -> tuple[Any, ...]:
        return (self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def forward(self, input: ArrayLike) -> np.ndarray:
        self.save_for_backward(input)
        return self._forward()(input, *self._window(), layout=self.layout)

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        (x,) = self.saved()
        if not self.needs_input_grad:
            return None
        return self._gradient(self._seen(x)[1], grad_output, x, *self._window())

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool2d(_LPPool):
    """The p-norm of each window, but for the signs, as `torch.nn.LPPool2d`.

    Parameters
    ----------
    norm_type : float
        p, not 0; infinite for the largest magnitude.
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if not given.
    ceil_mode : bool
        Keep the last, incomplete window.
    layout : {"NCHW", "NHWC"}, keyword only

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LPPool2d(2, 2)(np.ones((1, 1, 4, 4))).shape
    (1, 1, 2, 2)
    """

    rank = 2


@of_rank(1, LPPool2d)
class LPPool1d(_LPPool):
    """The p-norm of each window, but for the signs, as `torch.nn.LPPool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LPPool1d(2, 2)(np.ones((1, 1, 4))).shape
    (1, 1, 2)
    """

    rank = 1


@of_rank(3, LPPool2d)
class LPPool3d(_LPPool):
    """The p-norm of each window, but for the signs, as `torch.nn.LPPool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LPPool3d(2, 2)(np.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 2, 2, 2)
    """

    rank = 3
