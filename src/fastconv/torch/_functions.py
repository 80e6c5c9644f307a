# SPDX-License-Identifier: BSD-3-Clause
"""torch's functions in terms of fastconv's operators, with torch's own arguments.

Each either computes or raises :class:`Left` with the reason why the call is torch's to serve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.torch import _ops  # noqa: F401 (registers the operators)

DTYPES = (torch.float32, torch.float64)


class Left(Exception):
    """Why a call is left to torch."""


def _served(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors, in float32 where autocast would have lowered them."""
    autocast = torch.is_autocast_enabled("cpu")
    result = []
    for x in tensors:
        if x is None:
            result.append(None)
            continue
        if not isinstance(x, Tensor) or (type(x) is not Tensor and type(x) is not torch.nn.Parameter):
            raise Left(f"a {type(x).__name__}")
        if x.device.type != "cpu" or x.layout is not torch.strided or x.is_quantized:
            raise Left(f"{x.device.type}, {x.layout}")
        if autocast and x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()
        if x.dtype not in DTYPES:
            raise Left(str(x.dtype).removeprefix("torch."))
        if x.is_neg() or x.is_conj():
            raise Left("a lazy view")
        result.append(x)
    if len({x.dtype for x in result if x is not None}) > 1:
        raise Left("dtypes that differ")
    return tuple(result)


def _batched(x: Tensor, rank: int) -> tuple[Tensor, bool]:
    if x.ndim == rank + 2 and 0 not in x.shape:
        return x, True
    if x.ndim == rank + 1 and 0 not in x.shape:
        return x.unsqueeze(0), False
    raise Left(f"a tensor of shape {tuple(x.shape)}")


def _each(value: Any, rank: int) -> list[int]:
    if isinstance(value, int):
        return [value] * rank
    if isinstance(value, Sequence) and len(value) in (1, rank) and all(isinstance(n, int) for n in value):
        return list(value) * (rank if len(value) == 1 else 1)
    raise Left(f"an argument {value!r}")


def _convolution(rank: int) -> Callable[..., Tensor]:
    def conv(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        x, w, b = _served(input, weight, bias)
        x, batched = _batched(x, rank)
        steps, holes = _each(stride, rank), _each(dilation, rank)
        if padding == "valid":
            padding = 0
        elif padding == "same":
            if set(steps) != {1} or any(d * (k - 1) % 2 for d, k in zip(holes, w.shape[2:], strict=True)):
                raise Left("padding='same' that is not symmetric")
            padding = [d * (k - 1) // 2 for d, k in zip(holes, w.shape[2:], strict=True)]
        y = torch.ops.fastconv.conv(x, w, b, steps, _each(padding, rank), holes, False, [0] * rank, groups)
        return y if batched else y.squeeze(0)

    return conv


def _transposed(rank: int) -> Callable[..., Tensor]:
    def conv(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        x, w, b = _served(input, weight, bias)
        x, batched = _batched(x, rank)
        steps, pads, holes, extra = (_each(v, rank) for v in (stride, padding, dilation, output_padding))
        y = torch.ops.fastconv.conv(x, w, b, steps, pads, holes, True, extra, groups)
        return y if batched else y.squeeze(0)

    return conv


def _maximum(rank: int, both: bool) -> Callable[..., Any]:
    def pool(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        kernel = _each(kernel_size, rank)
        steps = kernel if stride is None or stride == [] else _each(stride, rank)
        pads, holes = _each(padding, rank), _each(dilation, rank)
        y, where = torch.ops.fastconv.max_pool(x, kernel, steps, pads, holes, ceil_mode)
        if not batched:
            y, where = y.squeeze(0), where.squeeze(0)
        return (y, where) if both or return_indices else y

    return pool


def _mean(rank: int) -> Callable[..., Tensor]:
    def pool(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        kernel = _each(kernel_size, rank)
        steps = kernel if stride is None or stride == [] else _each(stride, rank)
        window = (kernel, steps, _each(padding, rank), ceil_mode, count_include_pad, divisor_override)
        y = torch.ops.fastconv.avg_pool(x, *window)
        return y if batched else y.squeeze(0)

    return pool


def _adaptive_mean(rank: int) -> Callable[..., Tensor]:
    def pool(input: Tensor, output_size: Any) -> Tensor:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        wanted = [output_size] * rank if isinstance(output_size, int) or output_size is None else list(output_size)
        if len(wanted) != rank:
            raise Left(f"an argument {output_size!r}")
        size = [n if m is None else m for n, m in zip(x.shape[2:], wanted, strict=True)]
        y = torch.ops.fastconv.adaptive_avg_pool(x, size)
        return y if batched else y.squeeze(0)

    return pool


def _table() -> dict[Any, Callable[..., Any]]:
    found: dict[Any, Callable[..., Any]] = {}
    for rank in (1, 2, 3):
        served = {
            f"conv{rank}d": _convolution(rank),
            f"conv_transpose{rank}d": _transposed(rank),
            f"max_pool{rank}d": _maximum(rank, False),
            f"max_pool{rank}d_with_indices": _maximum(rank, True),
            f"avg_pool{rank}d": _mean(rank),
            f"adaptive_avg_pool{rank}d": _adaptive_mean(rank),
        }
        for name, function in served.items():
            function.__name__ = name
            for home in (F, torch, torch._C._nn):
                if callable(original := getattr(home, name, None)):
                    found[original] = function
    return found


#: What is served: torch's function, and ours.
FUNCTIONS = _table()
