# SPDX-License-Identifier: BSD-3-Clause
"""``torch.ops.fastconv.max_pool`` and its kin, and their gradients as operators of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastconv import grad as G
from fastconv.ops import avg_pool, max_pool, max_unpool
from fastconv.torch._library import array, define, is_last, layout, like, ops, tensor


def _max_pool(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:
    rank, last = input.ndim - 2, is_last(input)
    window = (tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), ceil_mode)
    y, where = max_pool._max_pool(rank, array(input, last), *window, True, layout(rank, last), None)
    return tensor(y, last), tensor(where, last)


def _pooled(input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> list[Any]:
    sizes = []
    for n, k, s, p, d in zip(input.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + s - 1 if ceil_mode else room) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        sizes.append(count)
    return [*input.shape[:2], *sizes]


def _max_pool_fake(input: Tensor, *window: Any) -> tuple[Tensor, Tensor]:
    shape = _pooled(input, *window)
    return like(input, shape), like(input, shape, torch.int64)


def _max_pool_backward(grad: Tensor, indices: Tensor, input: Tensor) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    name = getattr(G, f"max_pool{rank}d")
    arrays = (array(grad, last), array(indices, last), array(input, last).shape)
    return tensor(name(*arrays, layout=layout(rank, last)), last)


def _max_pool_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], inputs[0])


def _max_pool_gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    indices, input = ctx.saved_tensors
    found = ops.max_pool_backward(grad, indices, input)
    return (found, *[None] * (len(ctx.needs_input_grad) - 1))


def _indices_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _max_pool_second_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.max_unpool_backward(grad, *ctx.saved_tensors), None, None


def _adaptive_max_pool(input: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    rank, last = input.ndim - 2, is_last(input)
    names = layout(rank, last)
    y, where = max_pool._adaptive_max_pool(rank, array(input, last), tuple(output_size), True, names, None)
    return tensor(y, last), tensor(where, last)


def _adaptive_max_pool_fake(input: Tensor, output_size: Sequence[Any]) -> tuple[Tensor, Tensor]:
    shape = [*input.shape[:2], *output_size]
    return like(input, shape), like(input, shape, torch.int64)


def _max_unpool(input: Tensor, indices: Tensor, output_size: Sequence[int]) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    arrays = (array(input, last), array(indices, last))
    return tensor(max_unpool._to_size(rank, *arrays, tuple(output_size), layout(rank, last)), last)


def _max_unpool_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.max_unpool_backward(grad, *ctx.saved_tensors), None, None


def _max_unpool_backward(grad: Tensor, indices: Tensor) -> Tensor:
    rank, last = grad.ndim - 2, is_last(indices)
    arrays = (array(grad, last), array(indices, last))
    return tensor(max_unpool._max_unpool_grad(rank, *arrays, layout(rank, last)), last)


def _max_unpool_second_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return ops.max_unpool(grad, indices, ctx.size), None


def _max_unpool_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.size = list(inputs[0].shape[2:])


def _avg_window(window: Sequence[Any]) -> tuple[Any, Any, Any, Any, Any, Any]:
    kernel, stride, padding, ceil_mode, include, divisor = window
    return (tuple(kernel), tuple(stride), tuple(padding), ceil_mode, include, divisor)


def _avg_pool(input: Tensor, *window: Any) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    arguments = _avg_window(window)
    return tensor(avg_pool._avg_pool(rank, array(input, last), *arguments, layout(rank, last), None), last)


def _avg_pool_fake(input: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, *rest: Any) -> Tensor:
    return like(input, _pooled(input, kernel, stride, padding, (1,) * len(kernel), ceil_mode))


def _avg_pool_backward(grad: Tensor, input: Tensor, *window: Any) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    shape = array(input, last).shape
    arguments = _avg_window(window)
    return tensor(avg_pool._avg_pool_grad(rank, array(grad, last), shape, *arguments, layout(rank, last)), last)


def _avg_pool_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.window = inputs[1:]


def _avg_pool_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = ops.avg_pool_backward(grad, ctx.saved_tensors[0], *ctx.window)
    return (found, *([None] * len(ctx.window)))


def _avg_pool_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.window = inputs[2:]


def _avg_pool_second_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (ops.avg_pool(grad, *ctx.window), *[None] * (1 + len(ctx.window)))


def _adaptive_avg_pool(input: Tensor, output_size: Sequence[int]) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    names = layout(rank, last)
    return tensor(avg_pool._adaptive_avg_pool(rank, array(input, last), tuple(output_size), names, None), last)


def _adaptive_avg_pool_backward(grad: Tensor, input: Tensor) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    shape = array(input, last).shape
    return tensor(avg_pool._adaptive_avg_pool_grad(rank, array(grad, last), shape, layout(rank, last)), last)


def _adaptive_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _adaptive_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.adaptive_avg_pool_backward(grad, ctx.saved_tensors[0]), None


def _adaptive_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.size = list(inputs[0].shape[2:])


def _adaptive_second_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.adaptive_avg_pool(grad, ctx.size), None


def _as_input(grad: Tensor, *rest: Any) -> Tensor:
    """The fake gradient of a pooling: `input` is the last tensor among its arguments."""
    input = [a for a in rest if isinstance(a, Tensor)][-1]
    return like(input, input.shape)


_AVG = "int[] kernel_size, int[] stride, int[] padding, bool ceil_mode, bool count_include_pad, int? divisor_override"
define(
    "max_pool(Tensor input, int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode) "
    "-> (Tensor, Tensor)",
    _max_pool,
    _max_pool_fake,
    _max_pool_gradients,
    _max_pool_context,
)
define(
    "adaptive_max_pool(Tensor input, SymInt[] output_size) -> (Tensor, Tensor)",
    _adaptive_max_pool,
    _adaptive_max_pool_fake,
    _max_pool_gradients,
    _max_pool_context,
)
define(
    "max_pool_backward(Tensor grad, Tensor indices, Tensor input) -> Tensor",
    _max_pool_backward,
    _as_input,
    _max_pool_second_gradients,
    _indices_context,
)
define(
    "max_unpool(Tensor input, Tensor indices, SymInt[] output_size) -> Tensor",
    _max_unpool,
    lambda input, indices, output_size: like(input, [*input.shape[:2], *output_size]),
    _max_unpool_gradients,
    _indices_context,
)
define(
    "max_unpool_backward(Tensor grad, Tensor indices) -> Tensor",
    _max_unpool_backward,
    lambda grad, indices: torch.empty_like(indices, dtype=grad.dtype),
    _max_unpool_second_gradients,
    _max_unpool_backward_context,
)
define(f"avg_pool(Tensor input, {_AVG}) -> Tensor", _avg_pool, _avg_pool_fake, _avg_pool_gradients, _avg_pool_context)
define(
    f"avg_pool_backward(Tensor grad, Tensor input, {_AVG}) -> Tensor",
    _avg_pool_backward,
    _as_input,
    _avg_pool_second_gradients,
    _avg_pool_backward_context,
)
define(
    "adaptive_avg_pool(Tensor input, SymInt[] output_size) -> Tensor",
    _adaptive_avg_pool,
    lambda input, output_size: like(input, [*input.shape[:2], *output_size]),
    _adaptive_gradients,
    _adaptive_context,
)
define(
    "adaptive_avg_pool_backward(Tensor grad, Tensor input) -> Tensor",
    _adaptive_avg_pool_backward,
    _as_input,
    _adaptive_second_gradients,
    _adaptive_backward_context,
)
