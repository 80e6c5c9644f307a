# SPDX-License-Identifier: BSD-3-Clause
"""What else of a step of training the switch serves: operators that take torch several times as long as fastconv.

That is, forward, batch norm where a channel's numbers are neighbours, which torch sums one at a time, and tanh.
Their gradients are torch's own operators, and so are those of any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.ops import activation
from fastconv.ops.norm import batch_norm_training
from fastconv.torch._functions import Left
from fastconv.torch._library import array, direct, is_direct, is_last, tensor

__all__ = ["BESIDES", "Own"]

_MANY, _FEW = 1 << 17, 1 << 15  # elements from which on batch norm and tanh gain what calling them costs


class Own(Left):
    """A call that torch computes as well, which is not worth counting."""


def _suit(x: Any, least: int) -> bool:
    """Whether a tensor is dense, of a dtype that is computed natively, and large."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64) or x.numel() < least:
        return False
    return x.is_contiguous() or is_last(x)


# --- batch normalisation ----------------------------------------------------------------------------------------------


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and what torch's gradient reads: the mean, and one by the deviation."""
    mean, var, scale, shift = (None if a is None else array(a) for a in (running_mean, running_var, weight, bias))
    y, kept = batch_norm_training(array(input), mean, var, scale, shift, momentum, eps, "NCHW")
    return tensor(y), torch.from_numpy(kept.vectors[0]), torch.from_numpy(kept.rsigma).to(input.dtype)


def _batch_norm_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    input, running_mean, running_var, weight, _, _, ctx.eps = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, running_mean, running_var, *output[1:])


def _batch_norm_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad
    mask = [needed[0], needed[3], needed[4]]
    found = torch.ops.aten.native_batch_norm_backward(grad, *ctx.saved_tensors, True, ctx.eps, mask)
    d_input, d_weight, d_bias = (g if wanted else None for g, wanted in zip(found, mask, strict=True))
    return d_input, None, None, d_weight, d_bias, None, None


_normalise = direct("batch_norm", _batch_norm, _batch_norm_gradients, _batch_norm_context)


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
    if not (training and _suit(input, _MANY) and input.ndim > 2 and input.is_contiguous()):
        raise Own
    channels, given = input.shape[1], [v for v in vectors if v is not None]
    if input.numel() == input.shape[0] * channels or (running_mean is None) != (running_var is None):
        raise Own
    if any(v.dtype is not input.dtype or v.shape != (channels,) or not v.is_contiguous() for v in given):
        raise Own
    if any(v is not None and v.requires_grad for v in vectors[:2]) or not is_direct((input, *given)):
        raise Own
    result: Tensor = _normalise(input, *vectors, momentum, eps)[0]
    return result


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


#: torch's function, and ours.
BESIDES: dict[Any, Callable[..., Any]] = {F.batch_norm: batch_norm, torch.tanh: tanh, Tensor.tanh: tanh}
