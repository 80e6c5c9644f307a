# SPDX-License-Identifier: BSD-3-Clause
"""SciPy's functions and what stands in for them: the hand-over to SciPy, and the switch for unchanged code."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from inspect import isbuiltin, isfunction
from types import ModuleType
from typing import Any, TypeVar, cast

from fastconv.scipy._numbers import Unserved, log

__all__ = ["accelerate", "report"]

Function = TypeVar("Function", bound=Callable[..., Any])

_REASONS = 256  # that are counted one by one: some name a shape
_lock = threading.RLock()
_served: Counter[str] = Counter()
_left: Counter[tuple[str, str]] = Counter()
#: How many switches the running code is inside of.
_depth: ContextVar[int] = ContextVar("fastconv.scipy.accelerate", default=0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def in_place_of(module: ModuleType) -> Callable[[Function], Function]:
    """The decorated function takes the place of the one of its name in this module of SciPy, and leaves to that what it
    does not serve, and all errors.

    SciPy's function is held from now on: whoever puts ours into its place later does not come back here.
    """

    def decorate(ours: Function) -> Function:
        name = f"{module.__name__.removeprefix('scipy.')}.{ours.__name__}"
        definitions = _definitions(module, ours.__name__)
        theirs = definitions[0]

        @functools.wraps(ours)
        def served(*args: Any, **kwargs: Any) -> Any:
            try:
                result = ours(*args, **kwargs)
            except (Unserved, TypeError, ValueError, OverflowError) as error:  # what is wrong is SciPy's to say
                reason = str(error)
            else:
                with _lock:
                    _served[name] += 1
                return result
            log.debug("%s: handed over to SciPy: %s", name, reason)
            with _lock:
                _left[(name, reason) if len(_left) < _REASONS or (name, reason) in _left else (name, "others")] += 1
            with _at_depth(0):  # all of it is SciPy's
                return theirs(*args, **kwargs)

        for definition in definitions:
            _SWITCHES[id(definition)] = _switch(served, definition)
        return cast(Function, served)  # it takes what ours takes: whatever else is SciPy's to refuse

    return decorate


def _definitions(module: ModuleType, name: str) -> list[Callable[..., Any]]:
    """The function of that name as SciPy has it, first the public one; they differ where SciPy wraps what it exports.

    If somebody has put something else there before us, it is no more than what SciPy's private modules define.
    """
    private = [m for key, m in sys.modules.items() if key.startswith(f"{module.__name__}._") and _is_module(m)]
    public, *others = getattr(module, name), *(vars(m)[name] for m in private if name in vars(m))
    # A private module of SciPy in C may have a function of that name which does something else.
    found: list[Any] = [public] if isbuiltin(public) else [f for f in (public, *others) if isfunction(f)]
    found = [f for f in found if _home(f).startswith(f"{module.__name__}.")]
    return list({id(f): f for f in found or (public,)}.values())


def _home(function: Any) -> str:
    """The module whose code it is; one that wraps another says that it is from the other's."""
    return str(function.__globals__.get("__name__") if isfunction(function) else function.__module__)


# -------------------------------------------------------------------------------------------------------- the switch


def _switch(ours: Callable[..., Any], theirs: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """SciPy's function, and what stands in its place while anybody's switch is on."""

    @functools.wraps(theirs)
    def switched(*args: Any, **kwargs: Any) -> Any:
        return (ours if _depth.get() else theirs)(*args, **kwargs)

    return theirs, switched


#: By the identity of SciPy's functions, which these pairs keep alive.
_SWITCHES: dict[int, tuple[Callable[..., Any], Callable[..., Any]]] = {}


@contextlib.contextmanager
def _at_depth(depth: int) -> Iterator[None]:
    before = _depth.get()
    _depth.set(depth)
    try:
        yield
    finally:
        _depth.set(before)


class _Names:
    """The global names of all modules that mean SciPy's functions, redirected while there are users."""

    def __init__(self) -> None:
        self.users = 0
        self.seen: tuple[int, int] = (0, 0)
        self.places: list[tuple[dict[str, Any], str]] = []
        self.redirected: list[tuple[dict[str, Any], str, int]] = []

    def acquire(self) -> None:
        self.users += 1
        if self.users > 1:
            return
        namespaces = [ModuleType.__getattribute__(m, "__dict__") for m in [*sys.modules.values()] if _is_module(m)]
        now = len(namespaces), sum(map(len, namespaces))
        if now != self.seen:  # looking at every name takes milliseconds
            self.seen, self.places = now, []
            for namespace in namespaces:
                names = namespace.copy()
                if not _SWITCHES.keys().isdisjoint(map(id, names.values())):
                    self.places += [(namespace, name) for name, value in names.items() if id(value) in _SWITCHES]
        for namespace, name in self.places:
            number = id(namespace.get(name))
            if number in _SWITCHES:
                namespace[name] = _SWITCHES[number][1]
                self.redirected.append((namespace, name, number))

    def release(self) -> None:
        self.users -= 1
        if self.users:
            return
        for namespace, name, number in self.redirected:
            theirs, switched = _SWITCHES[number]
            if namespace.get(name) is switched:  # or somebody has put there something else
                namespace[name] = theirs
        self.redirected = []


def _is_module(module: Any) -> bool:
    """Whether it is a module; others that stand among them may do anything when looked at."""
    return issubclass(type(module), ModuleType)


_names = _Names()


class accelerate(contextlib.ContextDecorator):
    """Redirect the filters of ``scipy.ndimage`` and ``scipy.signal`` that are here to fastconv.

    A context manager, and a decorator. The code inside stays as it is: ``scipy.ndimage.convolve(...)``, names that
    modules imported from SciPy (``from scipy.ndimage import convolve``), and SciPy's own code, such as
    ``gaussian_laplace``, which calls ``gaussian_filter``. What fastconv does not serve is left to SciPy;
    :func:`fastconv.scipy.report` lists it.

    Notes
    -----
    The switch is the calling thread's (or asyncio task's) own; others go on with SciPy's functions. While it is on, the
    global names of modules that mean these functions lead here; they are looked for at the entrance, so that a name
    inside a class, a function or a :func:`functools.partial` keeps its meaning. It may be entered again inside, and by
    several threads; the names mean what they did when the last has left.

    Examples
    --------
    >>> import numpy as np, scipy.ndimage, fastconv.scipy
    >>> with fastconv.scipy.accelerate():
    ...     scipy.ndimage.convolve(np.eye(3), [[1.0, 2.0]] * 2)[0]
    array([3., 2., 0.])
    >>> edges = fastconv.scipy.accelerate()(scipy.ndimage.gaussian_gradient_magnitude)
    >>> edges(np.eye(3), 1).shape
    (3, 3)
    """

    def __enter__(self) -> accelerate:
        with _lock:
            _names.acquire()
        _depth.set(_depth.get() + 1)
        return self

    def __exit__(self, *error: Any) -> None:
        _depth.set(_depth.get() - 1)
        with _lock:
            _names.release()


def report(reset: bool = False) -> dict[str, Any]:
    """What has been served since the start, and what was left to SciPy, by ``fastconv.scipy`` and under its switch.

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
    >>> import numpy as np, scipy.signal, fastconv.scipy as fs
    >>> _ = fs.report(reset=True)
    >>> with fs.accelerate():
    ...     _ = scipy.signal.convolve(np.ones(9), np.ones(3))
    ...     _ = scipy.signal.convolve(np.ones(9, bool), np.ones(3, bool))
    >>> fs.report()
    {'served': {'signal.convolve': 1}, 'left': {'signal.convolve': {'numbers of dtype bool': 1}}}
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
