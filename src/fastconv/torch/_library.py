# SPDX-License-Identifier: BSD-3-Clause
"""What the operators ``torch.ops.fastconv.*`` share: their registration, and tensors as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv import _args

_library = torch.library.Library("fastconv", "DEF")
_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
#: Of tensors with so many axes: the format in which channels come last.
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def define(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    gradients: Callable[..., Any],
    context: Callable[..., None],
) -> None:
    """Register an operator with its kernel on the CPU, and with what is known of it without computing."""
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, kernel, "CPU")
    torch.library.register_fake(f"fastconv::{name}", fake, lib=_library)
    torch.library.register_autograd(f"fastconv::{name}", gradients, setup_context=context, lib=_library)


def is_last(x: Tensor) -> bool:
    """Whether a tensor's channels are neighbours in memory, and not just because its planes have one pixel."""
    form = FORMATS.get(x.ndim)
    return form is not None and x.is_contiguous(memory_format=form) and not x.is_contiguous()


def array(x: Tensor, last: bool = False) -> np.ndarray:
    """The tensor's own memory; with `last`, channels behind the spatial axes."""
    x = x.detach()
    return (x.movedim(1, -1) if last else x).numpy()


def tensor(x: np.ndarray, last: bool = False) -> Tensor:
    """An array as a tensor of torch's order of axes, which to torch is no view: it may be changed in place."""
    return torch.from_numpy(x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)) if last else x)


def layout(rank: int, last: bool) -> str:
    """The order of the axes of such an array."""
    return _LAST[rank] if last else _args.channels_first(rank)


def like(input: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor whose axes lie in memory as those of `input`."""
    form = FORMATS[input.ndim] if is_last(input) else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or input.dtype, device=input.device, memory_format=form)
