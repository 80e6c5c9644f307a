# SPDX-License-Identifier: BSD-3-Clause
"""What else of a step of training the switch serves: operators that take torch longer than fastconv.

That is batch norm, with its gradient and that of a clamp in place behind it, which are one pass through memory, tanh,
whose gradient is torch's own, and linear layers of few rows. Gradients of gradients are of torch's own operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _any_requires_grad

from fastconv.ops import activation
from fastconv.ops.activation import RECTIFIED, UNBOUNDED
from fastconv.ops.linear import gradients as linear_back
from fastconv.ops.linear import linear as linear_forward
from fastconv.ops.norm import Normalised, batch_norm_back, batch_norm_training
from fastconv.torch._functions import Left
from fastconv.torch._library import (
    applied,
    array,
    direct,
    hooks_of_saving,
    is_direct,
    is_last,
    layout,
    recorder,
    tensor,
)

__all__ = ["BESIDES", "Own"]

_MANY, _FEW = 1 << 17, 1 << 15  # elements from which on batch norm and tanh gain what calling them costs
_WEIGHTS, _ROWS = 4_000_000, 64  # from so many weights on linear layers gain, up to so many rows


class Own(Left):
    """A call that torch computes as well, which is not worth counting."""


def _suit(x: Any, least: int) -> bool:
    """Whether a tensor is dense, of a dtype that is computed natively, and large; nobody records that this is asked."""
    if recorder() is not None or not isinstance(x, Tensor) or x.numel() < least:
        return False
    return x.dtype in (torch.float32, torch.float64) and (x.is_contiguous() or is_last(x))


# --- batch normalisation ----------------------------------------------------------------------------------------------


class _Normalise(torch.autograd.Function):
    """A batch norm in training. Its node keeps what is of channels alone, as `Normalised` has it."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, mean: Any, var: Any, weight: Any, bias: Any, momentum: float, eps: float
    ) -> Tensor:
        y, ctx.vectors = _normalised(input, mean, var, weight, bias, momentum, eps)
        ctx.save_for_backward(input, weight)
        ctx.set_materialize_grads(False)
        ctx.bias, ctx.eps = bias, eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        if grad is None:  # below a clamp, which has gone past it
            return (None,) * 7
        needed = ctx.needs_input_grad
        mask = needed[0], needed[3], needed[4]
        d_input, d_weight, d_bias = _gradients(ctx, grad, ctx.saved_tensors, UNBOUNDED, mask)
        return d_input, None, None, d_weight, d_bias, None, None


def _normalised(
    input: Tensor, mean: Any, var: Any, weight: Any, bias: Any, momentum: float, eps: float
) -> tuple[Tensor, np.ndarray]:
    last = is_last(input)
    mean, var, weight, bias = (None if a is None else array(a) for a in (mean, var, weight, bias))
    form = layout(input.ndim - 2, last)
    y, kept = batch_norm_training(array(input, last), mean, var, weight, bias, momentum, eps, form)
    return tensor(y, last), kept.vectors


def _gradients(
    ctx: Any, grad: Tensor, saved: Sequence[Any], bounds: tuple[float, float], mask: Sequence[bool]
) -> list[Tensor | None]:
    """Of a norm's input, weight and bias, of what a clamp makes of its result."""
    input, weight = saved
    with torch._C.DisableTorchFunction():
        last = is_last(input)
        x, gain = array(input, last), None if weight is None else array(weight)
        axis, values = (x.ndim - 1 if last else 1), input.numel() // input.shape[1]
        kept = Normalised(x, axis, values, ctx.vectors.copy(), gain, ctx.eps, bounds)
        if torch.is_grad_enabled() or not is_direct((grad,)):  # which is to be differentiated
            mean, inverse = (torch.from_numpy(v).to(input.dtype) for v in (kept.vectors[0], kept.inverse_deviation()))
            arguments = grad, input, weight, None, None, mean, inverse, True, ctx.eps, mask
            found = torch.ops.aten.native_batch_norm_backward(*arguments)
        else:
            d_input, *of_channels = batch_norm_back(array(grad, last), kept, mask[0])
            d_weight, d_bias = (torch.from_numpy(d.astype(x.dtype, copy=False)) for d in of_channels)
            found = None if d_input is None else tensor(d_input, last), d_weight, d_bias
    return [g if wanted else None for g, wanted in zip(found, mask, strict=True)]


_normalise = applied(_Normalise)
_NODE: Any = _Normalise._backward_cls


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    vectors = (running_mean, running_var, weight, bias)
    if not (training and _suit(input, _MANY) and input.ndim > 2):
        raise Own
    channels, given = input.shape[1], [v for v in vectors if v is not None]
    if input.numel() == input.shape[0] * channels or (running_mean is None) != (running_var is None):
        raise Own
    if any(v.dtype is not input.dtype or v.shape != (channels,) or not v.is_contiguous() for v in given):
        raise Own
    if any(v is not None and v.requires_grad for v in vectors[:2]) or not is_direct((input, *given)):
        raise Own
    with torch._C.DisableTorchFunction():
        if torch.is_grad_enabled() and _any_requires_grad(input, *given):
            result: Tensor = _normalise(input, *vectors, momentum, eps)
            return result
        return _normalised(input, *vectors, momentum, eps)[0]


# --- a clamp in place behind it ---------------------------------------------------------------------------------------
#
# Its gradient and that of the norm take one pass through memory, which finds from the norm's input what the clamp let
# through.  The result is one of norm and clamp together from then on.  What the norm alone had as its result is nowhere
# any more, so that nobody can ask for its gradient.


class _Clamp(torch.autograd.Function):
    """The result of a batch norm, clamped in place, as one of what the norm was given."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, input: Tensor, weight: Any, bias: Any, norm: Any, bounds: tuple[float, float]
    ) -> Tensor:
        y.clamp_(*(None if math.isinf(bound) else bound for bound in bounds))
        ctx.mark_dirty(y)
        ctx.save_for_backward(input, weight, y)
        ctx.vectors, ctx.eps, ctx.bounds = norm.vectors, norm.eps, bounds
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        *saved, y = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_direct((grad,)):
            with torch._C.DisableTorchFunction():
                grad = _through(grad, y, *ctx.bounds)
        return None, *_gradients(ctx, grad, saved, ctx.bounds, ctx.needs_input_grad[1:4]), None, None


def _through(grad: Tensor, y: Tensor, low: float, high: float) -> Tensor:
    result: Tensor = (
        torch.ops.aten.threshold_backward(grad, y, low)
        if math.isinf(high)
        else torch.ops.aten.hardtanh_backward(grad, y, low, high)
    )
    return result


_clamp = applied(_Clamp)


def _clamped(bounds: tuple[float, float], y: Any) -> Tensor:
    node: Any = y.grad_fn if type(y) is Tensor else None
    if type(node) is not _NODE or not torch.is_grad_enabled() or not is_direct((y,)):
        raise Own
    # Somebody may look at what goes through, or has changed the result, or keeps tensors elsewhere.
    if y._backward_hooks or y.retains_grad or y._version != 0 or y._is_view() or hooks_of_saving(False):
        raise Own
    input, weight = node.saved_tensors
    with torch._C.DisableTorchFunction():
        result: Tensor = _clamp(y, input, weight, node.bias, node, bounds)
    return result


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    if not inplace:
        raise Own
    return _clamped(RECTIFIED, input)


def relu_(input: Tensor) -> Tensor:
    return _clamped(RECTIFIED, input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    if not inplace or not min_val < max_val:
        raise Own
    return _clamped((float(min_val), float(max_val)), input)


# --- hyperbolic tangent -----------------------------------------------------------------------------------------------


def _tanh(input: Tensor) -> Tensor:
    last = is_last(input)
    return tensor(activation.tanh(array(input, last)), last)


def _tanh_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _tanh_gradients(ctx: Any, grad: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.tanh_backward(grad, *ctx.saved_tensors)
    return result


_bend = direct("tanh", _tanh, _tanh_gradients, _tanh_context)


def tanh(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    if out is not None or not _suit(input, _FEW) or not is_direct((input,)):
        raise Own
    result: Tensor = _bend(input)
    return result


# --- linear layers ----------------------------------------------------------------------------------------------------
#
# What takes time where rows are few is reading weights and writing their gradient. That goes to the last step's memory;
# torch's is fresh, and the system clears each of its pages. One or two million weights, which caches hold from one use
# to the next, torch multiplies as fast for 16 rows, and up to 1.8 times as fast for 64.


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.from_numpy(linear_forward(array(input), array(weight), None if bias is None else array(bias)))


def _linear_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _linear_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    of_input, of_weight, of_bias = ctx.needs_input_grad
    with torch._C.DisableTorchFunction():
        if of_weight and not torch.is_grad_enabled() and is_direct((grad,)):
            found = linear_back(array(input), array(weight), array(grad), of_bias, of_input)
            d_input, d_weight, d_bias = (None if d is None else torch.from_numpy(d) for d in found)
            return d_input, d_weight, d_bias
        rows = grad.flatten(0, -2)
        return (
            grad @ weight if of_input else None,
            rows.t() @ input.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


_connect = direct("linear", _linear, _linear_gradients, _linear_context)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (torch.is_grad_enabled() and _suit(weight, _WEIGHTS) and weight.requires_grad and weight.ndim == 2):
        raise Own
    given = (input, weight) if bias is None else (input, weight, bias)
    outputs, features = weight.shape
    if not (_suit(input, 1) and input.ndim > 1 and input.is_contiguous() and input.numel() <= _ROWS * features):
        raise Own
    if input.shape[-1] != features or (bias is not None and bias.shape != (outputs,)):
        raise Own
    if any(x.dtype is not input.dtype for x in given) or torch.is_autocast_enabled("cpu") or not is_direct(given):
        raise Own
    result: Tensor = _connect(input, weight, bias)
    return result


#: torch's function, and ours.
BESIDES: dict[Any, Callable[..., Any]] = {
    F.batch_norm: batch_norm,
    F.relu: relu,
    torch.relu_: relu_,
    Tensor.relu_: relu_,
    F.relu6: relu6,
    F.hardtanh: hardtanh,
    F.linear: linear,
    torch.tanh: tanh,
    Tensor.tanh: tanh,
}
