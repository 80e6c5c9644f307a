# SPDX-License-Identifier: BSD-3-Clause
"""Images of another size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _core
from fastconv._names import only
from fastconv.nn.module import Module
from fastconv.ops import interpolate as I
from fastconv.ops._operand import channel_axis

__all__ = ["Upsample"]
__dir__ = only(__all__)


class Upsample(Module):
    """Gives images another size, as `torch.nn.Upsample`.

    Parameters
    ----------
    size, scale_factor, mode, align_corners, recompute_scale_factor
        As for :func:`fastconv.interpolate`.
    layout : str, keyword only
        Channels-first or channels-last, see `fastconv.batch_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Upsample(scale_factor=2)(np.zeros((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.size = size
        several = isinstance(scale_factor, (list, tuple))
        factors = tuple(
            _args.real(f, "scale_factor") for f in (scale_factor if several else (scale_factor,)) if f is not None
        )
        self.scale_factor = None if scale_factor is None else factors if several else factors[0]
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor
        self.layout = layout
        channel_axis(layout, 4)

    def _arguments(self) -> tuple[Any, ...]:
        return self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor

    def forward(self, input: ArrayLike) -> np.ndarray:
        y = I.interpolate(input, *self._arguments(), layout=self.layout)
        self.save_for_backward(np.shape(input), _core.axes_in_memory(_args.as_array(input, "input")))
        return y

    def backward(self, grad_output: np.ndarray) -> np.ndarray | Any:
        shape, order = self.saved()
        if not self.needs_input_grad:
            return None
        return _args.dense(I.interpolate_grad(grad_output, shape, *self._arguments(), layout=self.layout), order)

    def extra_repr(self) -> str:
        what = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}"
