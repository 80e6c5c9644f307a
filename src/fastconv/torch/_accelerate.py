# SPDX-License-Identifier: BSD-3-Clause
"""The switch: convolutions and poolings of unchanged code go through fastconv."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from fastconv.torch._functions import FUNCTIONS, Left

__all__ = ["accelerate", "report"]

_lock = threading.Lock()
_served: Counter[str] = Counter()
_left: Counter[tuple[str, str]] = Counter()


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ours = FUNCTIONS.get(function)
        kwargs = kwargs or {}
        return function(*args, **kwargs) if ours is None else serve(ours, function, args, kwargs)


def serve(ours: Callable[..., Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of `ours`, or of torch's own `function` where the call is left to it; either is counted."""
    try:
        result = ours(*args, **kwargs)
    except (Left, TypeError, ValueError) as reason:  # what is wrong is torch's to say, too
        with _lock:
            _left[ours.__name__, str(reason)] += 1
        return function(*args, **kwargs)
    with _lock:
        _served[ours.__name__] += 1
    return result


class Served:
    """torch's function by ours, as the target of a node of `torch.fx`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.ours = function, FUNCTIONS[function]
        self.__name__ = self.__qualname__ = f"fastconv_{self.ours.__name__}"
        self.__module__ = __name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return serve(self.ours, self.function, args, kwargs)


class accelerate:
    """Redirect convolutions, transposed convolutions and poolings on the CPU to fastconv.

    A context manager, and a decorator. The code inside stays as it is: modules, functions, training with autograd. What
    fastconv does not serve (other devices and dtypes, sparse and quantized tensors) is left to torch;
    :func:`fastconv.torch.report` lists it.

    Notes
    -----
    Under ``torch.autocast`` these functions compute in float32. Weights are packed in every call:
    :func:`fastconv.torch.convert` packs them once.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> model, images = torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 32, 32)
    >>> with fastconv.torch.accelerate():
    ...     model(images).shape
    torch.Size([1, 8, 30, 30])
    """

    def __init__(self) -> None:
        self._modes: list[_Mode] = []

    def __enter__(self) -> accelerate:
        mode = _Mode()
        mode.__enter__()
        self._modes.append(mode)
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.pop().__exit__(*error)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def accelerated(*args: Any, **kwargs: Any) -> Any:
            with _Mode():
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
    with _lock:
        left: dict[str, dict[str, int]] = {}
        for (name, reason), count in _left.items():
            left.setdefault(name, {})[reason] = count
        result = {"served": dict(_served), "left": left}
        if reset:
            _served.clear()
            _left.clear()
    return result
