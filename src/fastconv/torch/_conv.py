# SPDX-License-Identifier: BSD-3-Clause
"""``torch.ops.fastconv.conv``, and its gradients as operators of their own.

They have gradients of any order, in terms of the same operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv import _core
from fastconv._args import GRADIENTS, last_order
from fastconv.ops import _convolution
from fastconv.torch._library import array, define, is_last, layout, like, ops, tensor


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
    result = _convolution.convolve(rank, transposed, arrays, (*sizes, layout(rank, last), None, "auto", "default"))
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
    return like(input, _conv_size(input, weight, *geometry))


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
    sizes = (tuple(stride), tuple(padding), tuple(output_padding) if transposed else 0, tuple(dilation), groups)
    wanted = [name for name, needed in zip(GRADIENTS, mask, strict=True) if needed]
    outs: dict[str, np.ndarray | None] = dict.fromkeys(GRADIENTS)
    if mask[1] and is_last(weight):  # in the order of its axes, to which autograd would copy what has another
        kernels = array(weight)
        outs["weight"] = _core.new_array(kernels.shape, kernels.dtype, last_order(rank + 2, rank))
    found = _convolution.back(
        rank,
        transposed,
        array(input, last),
        array(weight),
        (*sizes, layout(rank, last), "auto", "default"),
        _convolution.Asked(array(grad, last), wanted, outs=outs),
    )
    d_input, d_weight, d_bias = (
        grad.new_empty(0) if a is None else tensor(a, last) if i == 0 else torch.from_numpy(a)
        for i, a in enumerate(found)
    )
    return d_input, d_weight, d_bias


def _conv_backward_fake(grad: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    mask, channels = rest[-1], grad.shape[1]
    return (
        like(input, input.shape) if mask[0] else grad.new_empty(0),
        like(weight, weight.shape) if mask[1] else grad.new_empty(0),
        grad.new_empty(channels) if mask[2] else grad.new_empty(0),
    )


def _conv_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.has_bias, ctx.geometry = inputs[2] is not None, inputs[3:]


def _conv_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has_bias and ctx.needs_input_grad[2]]
    found = ops.conv_backward(grad, input, weight, *ctx.geometry, mask)
    return (*(g if wanted else None for g, wanted in zip(found, mask, strict=True)), *([None] * len(ctx.geometry)))


def _conv_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.geometry, ctx.mask = inputs[3:-1], inputs[-1]


def _conv_second_gradients(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    """A convolution is linear in its input and in its weight, and so are its gradients."""
    grad, input, weight = ctx.saved_tensors
    of_input, of_weight, of_bias = (g if wanted else None for g, wanted in zip(grads, ctx.mask, strict=True))
    conv, backward = ops.conv, ops.conv_backward
    d_grad = d_input = d_weight = None
    if ctx.needs_input_grad[0]:
        terms = []
        if of_input is not None:
            terms.append(conv(of_input, weight, None, *ctx.geometry))
        if of_weight is not None:
            terms.append(conv(input, of_weight, None, *ctx.geometry))
        if of_bias is not None:
            terms.append(of_bias.reshape(-1, *[1] * (grad.ndim - 2)).expand_as(grad))
        d_grad = sum(terms) if terms else None
    if ctx.needs_input_grad[1] and of_weight is not None:
        d_input = backward(grad, input, of_weight, *ctx.geometry, [True, False, False])[0]
    if ctx.needs_input_grad[2] and of_input is not None:
        d_weight = backward(grad, of_input, weight, *ctx.geometry, [False, True, False])[1]
    return (d_grad, d_input, d_weight, *[None] * (len(ctx.geometry) + 1))


_GEOMETRY = "int[] stride, SymInt[] padding, int[] dilation, bool transposed, int[] output_padding, int groups"
define(
    f"conv(Tensor input, Tensor weight, Tensor? bias, {_GEOMETRY}) -> Tensor",
    _conv,
    _conv_fake,
    _conv_gradients,
    _conv_context,
)
define(
    f"conv_backward(Tensor grad, Tensor input, Tensor weight, {_GEOMETRY}, bool[3] mask) -> (Tensor, Tensor, Tensor)",
    _conv_backward,
    _conv_backward_fake,
    _conv_second_gradients,
    _conv_backward_context,
)
