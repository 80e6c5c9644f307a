# SPDX-License-Identifier: BSD-3-Clause
"""torch's functions in terms of fastconv's operators, with torch's own arguments.

Each either computes or raises :class:`Left` with the reason why the call is torch's to serve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.torch import _conv, _pool  # noqa: F401 (they register the operators)
from fastconv.torch._library import TENSORS, ops, recorder

DTYPES = (torch.float32, torch.float64, torch.float16)


class Left(Exception):
    """Why a call is left to torch."""


def _served(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The tensors, in float32 where autocast would have lowered them; None for each that is None."""
    if (reason := recorder()) is not None:
        raise Left(reason)
    autocast = torch.is_autocast_enabled("cpu")
    result: list[Tensor | None] = []
    for x in tensors:
        if x is None:
            result.append(None)
            continue
        if type(x) not in TENSORS:
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
    if x.ndim not in (rank + 1, rank + 2) or any(n == 0 for n in x.shape if isinstance(n, int)):
        raise Left(f"a tensor of shape {tuple(x.shape)}")
    return (x, True) if x.ndim == rank + 2 else (x.unsqueeze(0), False)


def _kernel(weight: Tensor, rank: int) -> Tensor:
    if weight.ndim != rank + 2:
        raise Left(f"a weight of shape {tuple(weight.shape)}")
    return weight


def _each(value: Any, rank: int) -> list[int]:
    if isinstance(value, int):
        return [value] * rank
    if isinstance(value, Sequence) and len(value) in (1, rank) and all(isinstance(n, int) for n in value):
        return list(value) * (rank if len(value) == 1 else 1)
    raise Left(f"an argument {value!r}")


def _steps(stride: Any, kernel: list[int]) -> list[int]:
    return kernel if stride is None or stride in ([], ()) else _each(stride, len(kernel))


def _convolution(rank: int, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
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
        (x, batched), w = _batched(x, rank), _kernel(w, rank)
        steps, holes = _each(stride, rank), _each(dilation, rank)
        if padding == "valid":
            padding = 0
        elif padding == "same":
            if set(steps) != {1} or any(d * (k - 1) % 2 for d, k in zip(holes, w.shape[2:], strict=True)):
                raise Left("padding='same' that is not symmetric")
            padding = [d * (k - 1) // 2 for d, k in zip(holes, w.shape[2:], strict=True)]
        y = run(x, w, b, steps, _each(padding, rank), holes, False, [0] * rank, groups)
        return y if batched else y.squeeze(0)

    return conv


def _transposed(rank: int, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
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
        (x, batched), w = _batched(x, rank), _kernel(w, rank)
        steps, pads, holes, extra = (_each(v, rank) for v in (stride, padding, dilation, output_padding))
        y = run(x, w, b, steps, pads, holes, True, extra, groups)
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
        steps = _steps(stride, kernel)
        pads, holes = _each(padding, rank), _each(dilation, rank)
        y, where = ops.max_pool(x, kernel, steps, pads, holes, ceil_mode)
        if not batched:
            y, where = y.squeeze(0), where.squeeze(0)
        return (y, where) if both or return_indices else y

    return pool


def _unpooled(rank: int) -> Callable[..., Tensor]:
    def unpool(
        input: Tensor,
        indices: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        output_size: Any = None,
    ) -> Tensor:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        if type(indices) not in TENSORS or indices.shape != input.shape or indices.dtype is not torch.int64:
            raise Left("indices of another kind")
        kernel = _each(kernel_size, rank)
        steps, pads = _steps(stride, kernel), _each(padding, rank)
        size = F._unpool_output_size(x, kernel, steps, pads, output_size)  # type: ignore[attr-defined]  # not public
        y = ops.max_unpool(x, indices if batched else indices.unsqueeze(0), size)
        return y if batched else y.squeeze(0)

    return unpool


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
        steps = _steps(stride, kernel)
        window = (kernel, steps, _each(padding, rank), ceil_mode, count_include_pad, divisor_override)
        y = ops.avg_pool(x, *window)
        return y if batched else y.squeeze(0)

    return pool


def _power_mean(rank: int) -> Callable[..., Tensor]:
    def pool(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        kernel = _each(kernel_size, rank)
        window = (kernel, _steps(stride, kernel), [0] * rank, ceil_mode, True, None)
        mean = ops.avg_pool(x.pow(norm_type), *window)
        y = (mean.sign() * mean.abs().relu()).mul(math.prod(kernel)).pow(1.0 / norm_type)  # as torch has it
        return y if batched else y.squeeze(0)

    return pool


def _size(x: Tensor, output_size: Any) -> list[int]:
    rank = x.ndim - 2
    wanted = [output_size] * rank if isinstance(output_size, int) or output_size is None else list(output_size)
    if len(wanted) != rank or not all(n is None or (isinstance(n, int) and n > 0) for n in wanted):
        raise Left(f"an argument {output_size!r}")
    return [n if m is None else m for n, m in zip(x.shape[2:], wanted, strict=True)]


def _adaptive_mean(rank: int) -> Callable[..., Tensor]:
    def pool(input: Tensor, output_size: Any) -> Tensor:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        y = ops.adaptive_avg_pool(x, _size(x, output_size))
        return y if batched else y.squeeze(0)

    return pool


def _adaptive_maximum(rank: int, both: bool) -> Callable[..., Any]:
    def pool(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        (x,) = _served(input)
        x, batched = _batched(x, rank)
        y, where = ops.adaptive_max_pool(x, _size(x, output_size))
        if not batched:
            y, where = y.squeeze(0), where.squeeze(0)
        return (y, where) if both or return_indices else y

    return pool


def table(run: Callable[..., Tensor]) -> dict[Any, Callable[..., Any]]:
    """What is served: torch's function, and ours, whose convolutions are those of `run`."""
    found: dict[Any, Callable[..., Any]] = {}
    for rank in (1, 2, 3):
        anywhere = {
            f"conv{rank}d": _convolution(rank, run),
            f"conv_transpose{rank}d": _transposed(rank, run),
            f"max_pool{rank}d": _maximum(rank, False),
            f"max_pool{rank}d_with_indices": _maximum(rank, True),
            f"avg_pool{rank}d": _mean(rank),
            f"adaptive_avg_pool{rank}d": _adaptive_mean(rank),
        }
        # torch.nn.functional has switches and defaults where the functions behind it have none.
        both = _adaptive_maximum(rank, True)
        in_front = {
            f"adaptive_max_pool{rank}d": _adaptive_maximum(rank, False),
            f"adaptive_max_pool{rank}d_with_indices": both,
            f"max_unpool{rank}d": _unpooled(rank),
            f"lp_pool{rank}d": _power_mean(rank),
        }
        behind = {f"adaptive_max_pool{rank}d": both}
        for homes, served in (((F, torch, torch._C._nn), anywhere), ((torch, torch._C._nn), behind), ((F,), in_front)):
            for name, function in served.items():
                function.__name__ = name
                for home in homes:
                    if callable(original := getattr(home, name, None)):
                        found[original] = function
    return found


FUNCTIONS = table(ops.conv)
