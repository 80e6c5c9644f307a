# SPDX-License-Identifier: BSD-3-Clause
"""What the operators ``torch.ops.fastconv.*`` share: their registration, and tensors as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import (
    DispatchKey,
    _any_requires_grad,
    _dispatch_keys,
    _dispatch_tls_is_dispatch_key_excluded,
    _dispatch_tls_is_dispatch_key_included,
    _is_tracing,
    _len_torch_dispatch_stack,
)
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from fastconv import _args

_library = torch.library.Library("fastconv", "DEF")
_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
#: Of tensors with so many axes: the format in which channels come last.
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
TENSORS = (Tensor, torch.nn.Parameter)
_BEFORE_DISPATCH, _AUTOGRAD = DispatchKey.PreDispatch, DispatchKey.AutogradFunctionality


#: The hooks through which the thread's tensors are saved for a backward pass, from torch 2.8 on.
hooks_of_saving = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def recorder() -> str | None:
    """What looks at the operators that run, if anything does: those are to be torch's own then.

    A graph that is recorded is read by others and elsewhere, where no operator of fastconv's is known; what is computed
    past the recorder would be a constant in it.
    """
    if is_dynamo_compiling():  # dynamo, which takes this for True, follows no further
        return "torch.compile"
    if _is_tracing():
        return "torch.jit.trace"
    if _len_torch_dispatch_stack() or _dispatch_tls_is_dispatch_key_included(_BEFORE_DISPATCH):
        return "a dispatch mode"  # of make_fx, torch.export, fake tensors
    if peek_interpreter_stack() is not None:
        return "a transform of torch.func"
    return None if forward_ad._current_level < 0 else "derivatives in forward mode"


def _keys(x: Tensor) -> int:
    """What torch's dispatcher would do to a tensor, in bits: its device, its layout, a sign or a conjugate to come."""
    return _dispatch_keys(x).raw_repr()


with torch.inference_mode():
    _PLAIN = {_keys(torch.empty(0))}
_PLAIN.add(_keys(torch.empty(0)))


def is_direct(args: Sequence[Any]) -> bool:
    """Whether the dispatcher would do nothing but call our kernel."""
    for x in args:
        if type(x) in TENSORS:
            if _keys(x) not in _PLAIN:
                return False
        elif isinstance(x, Tensor):
            return False
    if recorder() is not None:
        return False
    # In the kernel of an operator nothing is differentiated, and yet gradients may be enabled.
    return not (torch.is_grad_enabled() and _dispatch_tls_is_dispatch_key_excluded(_AUTOGRAD))


#: The operators by their names: as ``torch.ops.fastconv``, but past the dispatcher, which takes a tenth of a
#: millisecond for a forward and a backward call, where it would do nothing else.
ops: Any = SimpleNamespace()


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
    setattr(ops, name, _past_the_dispatcher(name, direct(name, kernel, gradients, context)))


def direct(name: str, kernel: Callable[..., Any], gradients: Callable[..., Any], context: Callable[..., None]) -> Any:
    """A kernel with its gradients, for arguments of which `is_direct` holds."""

    def forward(ctx: Any, *args: Any) -> Any:
        result = kernel(*args)
        context(ctx, args, result)
        return result

    members = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
    apply = applied(type(f"fastconv_{name}", (torch.autograd.Function,), members))

    def run(*args: Any) -> Any:
        with torch._C.DisableTorchFunction():  # a backward pass runs inside of the switch
            if torch.is_grad_enabled() and _any_requires_grad(*args):
                return apply(*args)
            return kernel(*args)

    return run


def applied(function: Any) -> Callable[..., Any]:
    """An autograd function's `apply` for arguments of which `is_direct` holds: it looks for no transforms."""
    return super(torch.autograd.Function, function).apply


def _past_the_dispatcher(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    dispatched = getattr(torch.ops.fastconv, name)

    def operator(*args: Any) -> Any:
        return run(*args) if is_direct(args) else dispatched(*args)

    return operator


def is_last(x: Tensor) -> bool:
    """Whether a tensor's channels are neighbours in memory, and not just because its planes have one pixel."""
    form = FORMATS.get(x.ndim)
    return form is not None and x.is_contiguous(memory_format=form) and not x.is_contiguous()


def array(x: Tensor, last: bool = False) -> np.ndarray:
    """The tensor's own memory; with `last`, channels behind the spatial axes."""
    x = x.detach()
    return (x.movedim(1, -1) if last else x).numpy()


def tensor(x: np.ndarray, last: bool = False) -> Tensor:
    """A result as a tensor of torch's order of axes, which to torch is no view: it may be changed in place.

    Unless `last` it is contiguous, as `like` says; ours lies as the input also where that has gaps, or fewer axes.
    """
    return torch.from_numpy(x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)) if last else _args.dense(x, None))


def layout(rank: int, last: bool) -> str:
    """The order of the axes of such an array."""
    return _LAST[rank] if last else _args.channels_first(rank)


def like(input: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor whose axes lie in memory as those of `input`."""
    form = FORMATS[input.ndim] if is_last(input) else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or input.dtype, device=input.device, memory_format=form)
