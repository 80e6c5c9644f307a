# SPDX-License-Identifier: BSD-3-Clause
"""Layers that put maxima back to where pooling found them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only
from fastconv._ranks import of_rank
from fastconv.nn.pool import Size, _Pool

__all__ = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]
__dir__ = only(__all__)


class _MaxUnpool(_Pool):
    function = "max_unpool"

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, *, layout: str | None = None
    ) -> None:
        # torch shows one number per axis here.
        kernel = _args.per_axis(kernel_size, self.rank, "kernel_size", 1)
        steps = kernel if stride is None or stride in ([], ()) else _args.per_axis(stride, self.rank, "stride", 1)
        self._set_window(kernel, steps, _args.per_axis(padding, self.rank, "padding", 0))
        self._set_layout(layout)

    def forward(self, input: ArrayLike, indices: ArrayLike, output_size: tuple[int, ...] | None = None) -> np.ndarray:
        window = (self.kernel_size, self.stride, self.padding, output_size)
        y = self._forward()(input, indices, *window, layout=self.layout)
        self.save_for_backward(indices, self._seen(input)[1])
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        indices, order = self.saved()
        return self._gradient(order, grad_output, indices) if self.needs_input_grad else None

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool2d(_MaxUnpool):
    """Maxima back to where they were found, zeros elsewhere, as `torch.nn.MaxUnpool2d`.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if not given.
    padding : int or (int, int)
    layout : {"NCHW", "NHWC"}, keyword only

    It is called with the maxima and their indices, and perhaps the `output_size`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y, where = nn.MaxPool2d(2, return_indices=True)(np.ones((1, 1, 4, 4)))
    >>> nn.MaxUnpool2d(2)(y, where).shape
    (1, 1, 4, 4)
    """

    rank = 2


@of_rank(1, MaxUnpool2d)
class MaxUnpool1d(_MaxUnpool):
    """Maxima back to where they were found, zeros elsewhere, as `torch.nn.MaxUnpool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y, where = nn.MaxPool1d(2, return_indices=True)(np.ones((1, 1, 4)))
    >>> nn.MaxUnpool1d(2)(y, where).shape
    (1, 1, 4)
    """

    rank = 1


@of_rank(3, MaxUnpool2d)
class MaxUnpool3d(_MaxUnpool):
    """Maxima back to where they were found, zeros elsewhere, as `torch.nn.MaxUnpool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y, where = nn.MaxPool3d(2, return_indices=True)(np.ones((1, 1, 4, 4, 4)))
    >>> nn.MaxUnpool3d(2)(y, where).shape
    (1, 1, 4, 4, 4)
    """

    rank = 3
