# SPDX-License-Identifier: BSD-3-Clause
"""Module: what every layer and network is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import update_wrapper
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from fastconv import _args, _core
from fastconv._names import only
from fastconv.nn.parameter import Buffer, Parameter, zero_gradients

__all__ = ["LoadResult", "Module", "StateDictError"]
__dir__ = only(__all__)


def call_by_own_name(cls: type) -> None:
    """Let Python's own errors about arguments name a public class, not the private one it has its methods from."""
    for name in ("__init__", "forward", "backward"):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        inherited = vars(owner)[name] if owner and owner is not cls and owner.__name__.startswith("_") else None
        if isinstance(inherited, FunctionType) and not cls.__name__.startswith("_"):
            own = FunctionType(
                inherited.__code__, inherited.__globals__, name, inherited.__defaults__, inherited.__closure__
            )
            own.__kwdefaults__ = inherited.__kwdefaults__
            setattr(cls, name, update_wrapper(own, inherited))
            own.__qualname__ = f"{cls.__qualname__}.{name}"


class Symbol:
    """What stands for an array while a network is read rather than run: a module that is called with one asks it."""

    __slots__ = ()

    def enter(self, module: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What the module makes of these inputs."""
        raise NotImplementedError


class StateDictError(ValueError, RuntimeError):
    """A state dict that does not fit the module.

    It is a ValueError, as everywhere in fastconv, and a RuntimeError, as torch raises here.

    Attributes
    ----------
    missing, unexpected : list of str
        Keys.
    misshapen : dict of str to (tuple of int, tuple of int)
        By key: the shape that is given and the one that is needed.
    """

    missing: list[str]
    unexpected: list[str]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def of(
        cls,
        name: str,
        missing: list[str],
        unexpected: list[str],
        misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]],
    ) -> StateDictError:
        """The error of a module of this name, with all that does not fit."""
        problems = [f"missing keys: {', '.join(missing)}"] if missing else []
        problems += [f"unexpected keys: {', '.join(unexpected)}"] if unexpected else []
        problems += [f"shape of {key}: {given} given, {needed} needed" for key, (given, needed) in misshapen.items()]
        error = cls(f"state_dict does not fit {name}:\n  " + "\n  ".join(problems))
        error.missing, error.unexpected, error.misshapen = missing, unexpected, misshapen
        return error


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` found lacking or left over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of layers and networks, with the manners of `torch.nn.Module`.

    There is no autograd: a module states its own gradient. A subclass writes

    * ``forward(x)``, which hands to ``self.save_for_backward(...)`` what the gradient will need,
    * ``backward(grad_output)``, which takes it back with ``self.saved()``, adds to the gradients of
      its parameters with ``parameter.accumulate(...)`` and returns the gradient of its input.

    Attributes that are a `Parameter`, a `Buffer` or a `Module` are found by themselves; their
    names make the keys of the state dict.

    Attributes
    ----------
    training : bool
        True after construction; `train` and `eval` switch it. In eval mode nothing is saved for
        `backward`, dropout passes, and layers may keep packed weights.
    needs_input_grad : bool
        True after construction. Where the gradient of the input serves nobody, as for the first
        layer of a network, set it to False: `backward` then skips that work and returns None.

    Notes
    -----
    `backward` uses up what `forward` saved, so each forward pass allows one backward pass. For the
    same reason an instance has one place in a network; give two places two instances.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> class Scale(nn.Module):
    ...     def __init__(self, factor):
    ...         self.factor = nn.Parameter([factor])
    ...     def forward(self, x):
    ...         self.save_for_backward(x)
    ...         return x * self.factor.value
    ...     def backward(self, grad_output):
    ...         (x,) = self.saved()
    ...         self.factor.accumulate(np.sum(grad_output * x, keepdims=True).reshape(1))
    ...         return grad_output * self.factor.value if self.needs_input_grad else None
    >>> layer = Scale(3.0)
    >>> layer(np.array([1.0, 2.0]))
    array([3., 6.])
    >>> layer.backward(np.array([1.0, 1.0]))
    array([3., 3.])
    >>> layer.factor.grad
    array([3.])
    """

    training: bool = True
    needs_input_grad: bool = True
    _saved: tuple[Any, ...] | None = None
    #: Of a clamp: what it clamps to. Of another: whether in training mode it can do so itself, by `_clamped`.
    _bounds: tuple[float, float] | None = None
    _takes_bounds: bool = False
    #: Whether `backward` gives away an array of its own, and minds that the one it gets may be overwritten for it.
    _owns_gradients: bool = False
    _may_overwrite: bool = False
    #: Of a convolution: whether its result has channels last in memory, however the input lies.
    _writes_last: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if {"forward", "backward"} & vars(cls).keys():  # whoever redefines them, does not have to know of this
            cls._bounds, cls._takes_bounds = vars(cls).get("_bounds"), vars(cls).get("_takes_bounds", False)
            cls._owns_gradients = vars(cls).get("_owns_gradients", False)
        call_by_own_name(cls)

    # --- computing --------------------------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """The module's result for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, grad_output: Any) -> Any:
        """The gradient of the input; the parameters' gradients are accumulated on the way.

        Without `needs_input_grad` it is None. The one who has set that knows, and so the annotations of layers say
        ``np.ndarray | Any``: the result of one goes into the next without a question.

        Raises
        ------
        RuntimeError
            There is nothing to go back from: no forward pass in training mode came before.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        for x in inputs:
            if isinstance(x, Symbol):
                return x.enter(self, inputs, named)
        return self._called(self.forward, *inputs, **named)

    def _called(self, function: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        try:
            return function(*inputs, **named)
        except (TypeError, ValueError, NotImplementedError) as error:
            self._say_where(error)
            raise

    def _clamped(self, bounds: tuple[float, float], *inputs: Any) -> Any:
        """What `forward` gives, clamped; `backward` then goes back through both."""
        raise NotImplementedError(f"{type(self).__name__} cannot clamp its result")

    def _say_where(self, error: Any) -> None:
        """Begin the message with the name that the layer has here in which the error arose.

        Every module on the way out calls this, so that the name is in the end the outermost one's.
        """
        if not hasattr(error, "_layer"):
            error._layer, error._text = self, str(error)
        elif name := next((name for name, module in self.named_modules() if module is error._layer), None):
            error.args = (f"layer {name!r} ({type(error._layer).__name__}): {error._text}",)

    def save_for_backward(self, *values: Any) -> None:
        """Keep `values` for `backward`, if in training mode."""
        self._saved = values if self.training else None

    def saved(self) -> tuple[Any, ...]:
        """Take back, once, what `save_for_backward` kept."""
        if self._saved is None:
            why = (
                "each forward pass in training mode allows one backward pass, and an instance used "
                "twice in a network keeps only its last input"
                if self.training
                else "the module is in eval mode; call train() before forward"
            )
            raise RuntimeError(f"{type(self).__name__}.backward has nothing saved: {why}")
        values, self._saved = self._saved, None
        return values

    def _overwrites(self) -> bool:
        """Whether nobody else has the gradient that `backward` has got now."""
        may, self._may_overwrite = self._may_overwrite, False
        return may

    # --- structure --------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one, with their names."""
        return ((n, v) for n, v in vars(self).items() if isinstance(v, Module))

    def children(self) -> Iterator[Module]:
        """The modules that are attributes of this one."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names."""
        seen: set[int] = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            below = [(_join(name, child), m) for child, m in module.named_children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _named(self, kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """The parameters of this module and all below it, each once, with dotted names."""
        return self._named(Parameter, prefix)

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this module and all below it, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """The buffers of this module and all below it, with dotted names."""
        return self._named(Buffer, prefix)

    def buffers(self) -> Iterator[Buffer]:
        """The buffers of this module and all below it."""
        return (buffer for _, buffer in self.named_buffers())

    # --- mode and gradients -----------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all below it to training mode; returns the module."""
        changed = [module for module in self.modules() if module.training != mode]
        for module in changed:
            module.training = mode
            module._saved = None
            module._release()
        if changed and not mode:
            _core.forget_memory()  # in which the next step would have put its results
        return self

    def eval(self) -> Module:
        """Switch this module and all below it to eval mode; returns the module."""
        return self.train(False)

    def _release(self) -> None:
        """Drop what a layer keeps for speed; called when the mode changes."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        zero_gradients(self.parameters(), set_to_none)

    def to(self, dtype: Any = None, *, memory_format: str | None = None) -> Module:
        """Convert all floating-point parameters and buffers to `dtype`, or choose how images lie in memory.

        With ``memory_format="channels_last"`` convolutions write channels last whatever they are given, and so every
        layer behind them, since results lie as inputs do; shapes, parameters and state dict stay as they are.
        ``"contiguous_format"`` takes that back: what a network is given decides. Returns the module.

        >>> import numpy as np, fastconv.nn as nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).to(memory_format="channels_last")
        >>> y = net(np.zeros((1, 3, 6, 6), np.float32))
        >>> y.shape, y.transpose(0, 2, 3, 1).flags.c_contiguous
        ((1, 8, 4, 4), True)
        """
        if memory_format not in (None, "channels_last", "contiguous_format"):
            given = _args.said(memory_format)
            raise ValueError(f"memory_format is {given}; it needs 'channels_last' or 'contiguous_format'")
        if memory_format is not None:
            for module in self.modules():
                module._writes_last = memory_format == "channels_last"
        if dtype is not None:
            self._convert(dtype)
        return self

    def _convert(self, dtype: Any) -> None:
        for parameter in self.parameters():
            if parameter.dtype != dtype:
                parameter.data = parameter.value.astype(dtype)
                parameter.grad = None
        for buffer in self.buffers():
            if np.issubdtype(buffer.dtype, np.floating):
                buffer.data = buffer.data.astype(dtype, copy=False)

    # --- state ------------------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        """Parameters, then buffers, then children, under every name they have."""

        def visit(module: Module, prefix: str) -> Iterator[tuple[str, Parameter | Buffer]]:
            for kind in (Parameter, Buffer):
                for name, value in vars(module).items():
                    if isinstance(value, kind):
                        yield _join(prefix, name), value
            for name, child in module.named_children():
                yield from visit(child, _join(prefix, name))

        return visit(self, "")

    def state_dict(self) -> dict[str, np.ndarray]:
        """All parameters and buffers by name, as read-only views: copy them to keep a snapshot.

        >>> import fastconv.nn as nn
        >>> list(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).state_dict())
        ['0.weight', '0.bias']
        """
        return {name: entry.value for name, entry in self._state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into the parameters and buffers of the same names.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            Values are converted to the dtype of the parameter they go to; bfloat16, which NumPy lacks,
            is taken from torch, JAX and ml_dtypes. As in torch, checkpoints from before batch
            normalisation counted its batches may lack ``num_batches_tracked``.
        strict : bool
            Whether keys that are missing or unexpected are errors. A shape that does not fit
            always is.

        Returns
        -------
        LoadResult
            ``(missing_keys, unexpected_keys)``.

        Raises
        ------
        StateDictError
            With every problem listed; no parameter has been changed.
        TypeError
            It is no mapping, or a value is not an array of real numbers; its key is named.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is {_args.said(state_dict)}; it needs a mapping of names to arrays")
        entries = dict(self._state())
        absent = {key for key in entries if key not in state_dict}
        missing = [key for key in entries if key in absent and not getattr(entries[key], "optional", False)]
        unexpected = [key for key in state_dict if key not in entries]
        values, misshapen = {}, {}
        for key, entry in entries.items():
            if key in absent:
                continue
            values[key] = value = _real_numbers(state_dict[key], key)
            if value.shape != entry.shape:
                misshapen[key] = (value.shape, entry.shape)
        if misshapen or (strict and (missing or unexpected)):
            needed, left = (missing, unexpected) if strict else ([], [])
            raise StateDictError.of(type(self).__name__, needed, left, misshapen)
        for key, value in values.items():
            entries[key].data[...] = value
        return LoadResult(missing, unexpected)

    def __getstate__(self) -> dict[str, Any]:
        """Pickling and copying leave out what belongs to an unfinished step."""
        return {name: value for name, value in vars(self).items() if name != "_saved"}

    # --- looks ------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of `repr`; for subclasses."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        if not children:
            return f"{type(self).__name__}({extra})"
        lines = [extra, *children] if extra else children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _real_numbers(value: Any, key: str) -> np.ndarray:
    """What a state dict holds under `key`, as an array; bfloat16 as float32."""
    dtype = str(getattr(value, "dtype", ""))
    try:
        if hasattr(value, "detach"):  # a tensor of torch, which lends no memory that requires grad
            value = value.detach()
            value = value.float() if dtype == "torch.bfloat16" else value
        array = np.asarray(value)
    except Exception as error:  # whatever it is, it has its own ways to say that it is no array
        kind = f"{type(value).__name__} of dtype {dtype}" if dtype else type(value).__name__
        raise TypeError(f"state_dict[{key!r}] is a {kind}, which NumPy cannot read ({error})") from error
    if array.dtype.name == "bfloat16":  # ml_dtypes'
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"state_dict[{key!r}] has dtype {array.dtype}; it needs to hold real numbers")
    return array


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
