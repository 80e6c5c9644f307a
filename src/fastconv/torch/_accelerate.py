# SPDX-License-Identifier: BSD-3-Clause
"""The switch: convolutions and poolings of unchanged code go through fastconv."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from fastconv.torch._functions import FUNCTIONS, Left, table
from fastconv.torch._library import hooks_of_saving
from fastconv.torch._lock import LOCK
from fastconv.torch._packed import CheckedWeights, PackedWeights
from fastconv.torch._training import BESIDES, Own

__all__ = ["accelerate", "report"]

CHECKED = CheckedWeights()
_FUNCTIONS = table(CHECKED.conv) | BESIDES
_served: Counter[str] = Counter()
_left: Counter[tuple[str, str]] = Counter()


def _checkpoint() -> Any:
    """The thread's innermost activation checkpoint: what it runs it will run again, outside of our mode perhaps."""
    hooks = None if is_dynamo_compiling() else hooks_of_saving(False)
    return hooks[0] if hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint" else None


class _Mode(TorchFunctionMode):
    def __init__(self, functions: dict[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.functions, self.checkpoint = functions, _checkpoint()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ours = self.functions.get(function)
        if ours is None:  # reading an attribute comes here, too
            return function(*args, **kwargs) if kwargs else function(*args)
        kwargs = kwargs or {}
        if is_dynamo_compiling():
            return function(*args, **kwargs)
        # The second run needs to save what the first one does. One that begins in the checkpoint begins anew in each.
        if _checkpoint() is not self.checkpoint:
            return leave(ours, "an activation checkpoint", function, args, kwargs)
        return serve(ours, function, args, kwargs)


def serve(ours: Callable[..., Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of `ours`, or of torch's own `function` where the call is left to it; either is counted."""
    if is_dynamo_compiling():  # in its graphs nothing is counted
        return function(*args, **kwargs)
    try:
        result = ours(*args, **kwargs)
    except Own:
        return function(*args, **kwargs)
    except (Left, TypeError, ValueError) as error:  # what is wrong is torch's to say, too
        reason = str(error)
    else:
        with LOCK:
            _served[ours.__name__] += 1
        return result
    return leave(ours, reason, function, args, kwargs)


def count(names: Counter[str]) -> None:
    """Counts calls that have been served together, by function."""
    with LOCK:
        _served.update(names)


def leave(
    ours: Callable[..., Any], reason: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The result of torch's own `function`, counted with the reason."""
    with LOCK:
        _left[ours.__name__, reason] += 1
    return function(*args, **kwargs)


def _target(ours: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def served(*args: Any, **kwargs: Any) -> Any:
        return serve(ours, function, args, kwargs)

    served.__name__ = served.__qualname__ = f"served_{ours.__name__}"
    served.__module__ = __name__
    return globals().setdefault(served.__name__, served)


#: torch's functions, and what takes their place in graphs, whose code names its functions by their modules.
SERVED = {function: _target(ours, function) for function, ours in (FUNCTIONS | BESIDES).items()}
#: And back; of several that are served as one, the first.
ORIGINALS = {served: function for function, served in reversed(SERVED.items())}


class accelerate:
    """Redirect convolutions, transposed convolutions and poolings on the CPU to fastconv.

    A context manager, and a decorator. The code inside stays as it is: modules, functions, training with autograd,
    gradients of gradients. What fastconv does not serve (other devices and dtypes, sparse and quantized tensors) and
    what runs while operators are recorded (tracers, exporters, the transforms of `torch.func`) is left to torch;
    :func:`fastconv.torch.report` lists it. So is what `torch.utils.checkpoint` runs inside of the switch: accelerate
    the function that is checkpointed instead.

    Parameters
    ----------
    frozen : bool
        Trust that weights stay as they are, and do not look at them in every call (see Notes). Only where no gradients
        are wanted. Weights are packed at the first call, and kept so for as long as they and this object live: in one
        form for most sizes of images, in four at most.
        Changes that torch makes in place (an optimizer's step, ``load_state_dict``) are noticed; those that go past its
        version counter are not: through ``.data``, through a NumPy view, or inside ``torch.inference_mode()``.

    Notes
    -----
    The switch is the calling thread's own. Under ``torch.autocast`` these functions compute in float32.

    Large tensors' ``batch_norm`` in training and ``tanh`` are fastconv's, too, and so is the gradient of the former,
    together with that of a ReLU, ReLU6 or Hardtanh in place behind it, and linear layers of four million weights or
    more that learn from up to 64 rows. Running statistics and gradients, of any order, are as torch has them; a hook
    that was put on a norm's ``grad_fn`` before the clamp came sees no gradient of it.

    Where no gradients are wanted, weights that come unchanged for the second time in a row are packed and kept so, as
    long as they live. Every call compares a 64-bit fingerprint of all of their contents, so that no change goes
    unnoticed, however it was made; that takes as long as reading them, a fraction of packing them. Packed weights take
    as much memory as the weights, and more where Winograd's algorithm serves.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> model, images = torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 32, 32)
    >>> with fastconv.torch.accelerate():
    ...     model(images).shape
    torch.Size([1, 8, 30, 30])
    >>> fast = fastconv.torch.accelerate(frozen=True)(model)
    >>> with torch.no_grad():
    ...     fast(images).shape
    torch.Size([1, 8, 30, 30])
    """

    def __init__(self, *, frozen: bool = False) -> None:
        self._weights = PackedWeights() if frozen else CHECKED
        self._functions = table(self._weights.conv) | BESIDES if frozen else _FUNCTIONS
        self._modes: list[_Mode] = []

    def __enter__(self) -> accelerate:
        mode = _Mode(self._functions)
        mode.__enter__()
        self._modes.append(mode)
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.pop().__exit__(*error)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def accelerated(*args: Any, **kwargs: Any) -> Any:
            with _Mode(self._functions):
                return function(*args, **kwargs)

        return accelerated


def report(reset: bool = False) -> dict[str, Any]:
    """What has been served since the start, and what was left to torch.

    Parameters
    ----------
    reset : bool
        Begin to count anew.

    Returns
    -------
    dict
        ``served``: calls by function; ``left``: calls by function and reason.

    Examples
    --------
    >>> import torch, fastconv.torch as ft
    >>> _ = ft.report(reset=True)
    >>> with ft.accelerate():
    ...     _ = torch.nn.functional.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3))
    ...     _ = torch.nn.functional.conv2d(torch.ones(1, 1, 4, 4).int(), torch.ones(1, 1, 3, 3).int())
    >>> ft.report()
    {'served': {'conv2d': 1}, 'left': {'conv2d': {'int32': 1}}}
    """
    with LOCK:
        left: dict[str, dict[str, int]] = {}
        for (name, reason), count in _left.items():
            left.setdefault(name, {})[reason] = count
        result = {"served": dict(_served), "left": left}
        if reset:
            _served.clear()
            _left.clear()
    return result
