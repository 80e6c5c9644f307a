# SPDX-License-Identifier: BSD-3-Clause
"""``torch.ops.fastconv.*``: convolution and pooling, with fake kernels and gradients that are operators themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv import _args
from fastconv import grad as G
from fastconv.ops import _convolution, avg_pool, max_pool

_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}

_library = torch.library.Library("fastconv", "DEF")
_CONV = "int[] stride, SymInt[] padding, int[] dilation, bool transposed, int[] output_padding, int groups"
_AVG = "int[] kernel_size, int[] stride, int[] padding, bool ceil_mode, bool count_include_pad, int? divisor_override"
for _schema in (
    f"conv(Tensor input, Tensor weight, Tensor? bias, {_CONV}) -> Tensor",
    f"conv_backward(Tensor grad, Tensor input, Tensor weight, {_CONV}, bool[3] mask) -> (Tensor, Tensor, Tensor)",
    "max_pool(Tensor input, int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode) "
    "-> (Tensor, Tensor)",
    "max_pool_backward(Tensor grad, Tensor indices, Tensor input) -> Tensor",
    f"avg_pool(Tensor input, {_AVG}) -> Tensor",
    f"avg_pool_backward(Tensor grad, Tensor input, {_AVG}) -> Tensor",
    "adaptive_avg_pool(Tensor input, SymInt[] output_size) -> Tensor",
    "adaptive_avg_pool_backward(Tensor grad, Tensor input) -> Tensor",
):
    _library.define(_schema)


# ------------------------------------------------------------------------------------------------ tensors and arrays


def is_last(x: Tensor) -> bool:
    """Whether a tensor's channels are neighbours in memory, and not just because its planes have one pixel."""
    form = _FORMATS.get(x.ndim)
    return form is not None and x.is_contiguous(memory_format=form) and not x.is_contiguous()


def array(x: Tensor, last: bool = False) -> np.ndarray:
    """The tensor's own memory; with `last`, channels behind the spatial axes."""
    x = x.detach()
    return (x.movedim(1, -1) if last else x).numpy()


def tensor(x: np.ndarray, last: bool = False) -> Tensor:
    """An array as a tensor of torch's order of axes."""
    result = torch.from_numpy(x)
    return result.movedim(-1, 1) if last else result


def _format(x: Tensor) -> torch.memory_format:
    return _FORMATS[x.ndim] if is_last(x) else torch.contiguous_format


def _names(rank: int, last: bool) -> str:
    return _LAST[rank] if last else _args.channels_first(rank)


# ------------------------------------------------------------------------------------------------------- convolution


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    rank, last = weight.ndim - 2, is_last(input)
    arrays = (array(input, last), array(weight), None if bias is None else array(bias), None, None)
    sizes = (tuple(stride), tuple(padding), tuple(output_padding) if transposed else 0, tuple(dilation), groups)
    result = _convolution.convolve(rank, transposed, arrays, (*sizes, _names(rank, last), None, "auto", "default"))
    return tensor(result, last)


def _conv_size(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> list[Any]:
    sizes = zip(input.shape[2:], weight.shape[2:], stride, padding, dilation, output_padding, strict=True)
    if transposed:
        spatial = [(n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in sizes]
        return [input.shape[0], weight.shape[1] * groups, *spatial]
    return [input.shape[0], weight.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in sizes)]


def _conv_fake(input: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    return torch.empty(
        _conv_size(input, weight, *geometry), dtype=input.dtype, device=input.device, memory_format=_format(input)
    )


def _conv_backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    rank, last = weight.ndim - 2, is_last(input)
    name, options = f"conv{rank}d", {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    if transposed:
        name, options["output_padding"] = f"conv_transpose{rank}d", tuple(output_padding)
    options |= {"groups": groups, "layout": _names(rank, last)}
    g = array(grad, last)
    none = grad.new_empty(0)
    d_input = d_weight = d_bias = none
    if mask[0]:
        shape = array(input, last).shape
        d_input = tensor(getattr(G, name + "_input")(shape, array(weight), g, **options), last)
    if mask[1]:
        d_weight = tensor(getattr(G, name + "_weight")(array(input, last), tuple(weight.shape), g, **options))
    if mask[2]:
        d_bias = grad.sum((0, *range(2, grad.ndim)))
    return d_input, d_weight, d_bias


def _conv_backward_fake(grad: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    mask, channels = rest[-1], grad.shape[1]
    none = grad.new_empty(0)
    return (
        torch.empty(input.shape, dtype=grad.dtype, device=grad.device, memory_format=_format(input))
        if mask[0]
        else none,
        torch.empty(weight.shape, dtype=grad.dtype, device=grad.device) if mask[1] else none,
        grad.new_empty(channels) if mask[2] else none,
    )


def _conv_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.has_bias, ctx.geometry = inputs[2] is not None, inputs[3:]


def _conv_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has_bias and ctx.needs_input_grad[2]]
    found = torch.ops.fastconv.conv_backward(grad, input, weight, *ctx.geometry, mask)
    return (*(g if wanted else None for g, wanted in zip(found, mask, strict=True)), *([None] * len(ctx.geometry)))


# ------------------------------------------------------------------------------------------------------------ pooling


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
    y, where = max_pool._max_pool(rank, array(input, last), *window, True, _names(rank, last), None)
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


def _like(input: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or input.dtype, device=input.device, memory_format=_format(input))


def _max_pool_fake(input: Tensor, *window: Any) -> tuple[Tensor, Tensor]:
    shape = _pooled(input, *window)
    return _like(input, shape), _like(input, shape, torch.int64)


def _max_pool_backward(grad: Tensor, indices: Tensor, input: Tensor) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    name = getattr(G, f"max_pool{rank}d")
    arrays = (array(grad, last), array(indices, last), array(input, last).shape)
    return tensor(name(*arrays, layout=_names(rank, last)), last)


def _max_pool_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], inputs[0])


def _max_pool_gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    indices, input = ctx.saved_tensors
    return (torch.ops.fastconv.max_pool_backward(grad, indices, input), None, None, None, None, None)


def _avg_window(rank: int, window: Sequence[Any]) -> tuple[Any, ...]:
    kernel, stride, padding, ceil_mode, include, divisor = window
    return (tuple(kernel), tuple(stride), tuple(padding), ceil_mode, include, divisor)


def _avg_pool(input: Tensor, *window: Any) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    arguments = _avg_window(rank, window)
    return tensor(avg_pool._avg_pool(rank, array(input, last), *arguments, _names(rank, last), None), last)


def _avg_pool_fake(input: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, *rest: Any) -> Tensor:
    return _like(input, _pooled(input, kernel, stride, padding, (1,) * len(kernel), ceil_mode))


def _avg_pool_backward(grad: Tensor, input: Tensor, *window: Any) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    shape = array(input, last).shape
    arguments = _avg_window(rank, window)
    return tensor(avg_pool._avg_pool_grad(rank, array(grad, last), shape, *arguments, _names(rank, last)), last)


def _avg_pool_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.window = inputs[1:]


def _avg_pool_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = torch.ops.fastconv.avg_pool_backward(grad, ctx.saved_tensors[0], *ctx.window)
    return (found, *([None] * len(ctx.window)))


def _adaptive_avg_pool(input: Tensor, output_size: Sequence[int]) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    names = _names(rank, last)
    return tensor(avg_pool._adaptive_avg_pool(rank, array(input, last), tuple(output_size), names, None), last)


def _adaptive_avg_pool_backward(grad: Tensor, input: Tensor) -> Tensor:
    rank, last = input.ndim - 2, is_last(input)
    shape = array(input, last).shape
    return tensor(avg_pool._adaptive_avg_pool_grad(rank, array(grad, last), shape, _names(rank, last)), last)


def _adaptive_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _adaptive_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.fastconv.adaptive_avg_pool_backward(grad, ctx.saved_tensors[0]), None


# ------------------------------------------------------------------------------------------------------- registration


def _register(name: str, kernel: Any, fake: Any, gradients: Any = None, context: Any = None) -> None:
    _library.impl(name, kernel, "CPU")
    torch.library.register_fake(f"fastconv::{name}", fake, lib=_library)
    if gradients is not None:
        torch.library.register_autograd(f"fastconv::{name}", gradients, setup_context=context, lib=_library)


def _as_input(grad: Tensor, *rest: Any) -> Tensor:
    """The fake gradient of a pooling: `input` is the last tensor among its arguments."""
    input = [a for a in rest if isinstance(a, Tensor)][-1]
    return _like(input, input.shape)


_register("conv", _conv, _conv_fake, _conv_gradients, _conv_context)
_register("conv_backward", _conv_backward, _conv_backward_fake)
_register("max_pool", _max_pool, _max_pool_fake, _max_pool_gradients, _max_pool_context)
_register("max_pool_backward", _max_pool_backward, _as_input)
_register("avg_pool", _avg_pool, _avg_pool_fake, _avg_pool_gradients, _avg_pool_context)
_register("avg_pool_backward", _avg_pool_backward, _as_input)
_register(
    "adaptive_avg_pool",
    _adaptive_avg_pool,
    lambda input, output_size: _like(input, [*input.shape[:2], *output_size]),
    _adaptive_gradients,
    _adaptive_context,
)
_register("adaptive_avg_pool_backward", _adaptive_avg_pool_backward, _as_input)
