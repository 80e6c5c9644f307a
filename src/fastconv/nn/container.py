# SPDX-License-Identifier: BSD-3-Clause
"""Modules that connect others: a chain, a sum, a concatenation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv import _args, _core
from fastconv._maps import Map, op
from fastconv._names import only
from fastconv.nn.module import Module, Symbol
from fastconv.ops._operand import axis_index
from fastconv.ops.activation import UNBOUNDED, clamp_grad

__all__ = ["Add", "Concat", "Sequential"]
__dir__ = only(__all__)


@lru_cache
def _sum(others: int, bounds: tuple[float, float]) -> Map:
    """Of up to four arrays of one dtype, in one pass, and clamped."""
    clamp = [] if bounds == UNBOUNDED else [op("clamp", a=bounds[0], b=bounds[1])]
    return Map(*(op("add", i) for i in range(others)), *clamp, others=others)


class Sequential(Module):
    """Modules in a chain, as `torch.nn.Sequential`.

    Parameters
    ----------
    *modules : Module, or one mapping of str to Module
        In the order of their application; without names they are called "0", "1", ...

    Notes
    -----
    With ``needs_input_grad = False``, `backward` goes back no further than to the first module
    that has parameters, does not compute the gradient of that one's input, and returns None.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> net[1]
    Linear(in_features=4, out_features=2, bias=True)
    >>> net(np.zeros((3, 2, 2), np.float32)).shape
    (3, 2)
    """

    _owns_gradients = True

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)

    def add_module(self, name: str, module: Module) -> None:
        """Append `module` under a new `name`."""
        if not isinstance(module, Module):
            raise TypeError(f"module {name!r} is {_args.said(module)}; it needs to be a Module")
        if not isinstance(name, str) or not name or "." in name or hasattr(self, name):
            raise ValueError(f"name is {name!r}; it needs to be a new attribute name, not empty and without dots")
        setattr(self, name, module)

    def append(self, module: Module) -> Sequential:
        """Append `module` under the next number; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def _name_of(self, index: int | str) -> str:
        names = [name for name, _ in self.named_children()]
        if isinstance(index, str):
            if index not in names:
                raise KeyError(f"index is {index!r}; it needs one of {', '.join(names)}")
            return index
        if not -len(names) <= index < len(names):
            raise IndexError(f"index is {index}; there are {len(names)} modules")
        return names[index]

    def __getitem__(self, index: int | slice | str) -> Module:
        """A module by number or name, or a new chain of the same modules by slice."""
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return getattr(self, self._name_of(index))

    def __setitem__(self, index: int | str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module is {type(module).__name__}; it needs to be a Module")
        setattr(self, self._name_of(index), module)

    def forward(self, input: Any) -> Any:
        return through(self.children(), input)

    def backward(self, grad_output: Any) -> Any:
        chain, own = list(self.children()), self._overwrites()
        grad_input, self._owns_gradients = _back(chain, grad_output, self.needs_input_grad, own)
        return grad_input


def through(chain: Iterable[Module], *inputs: Any) -> Any:
    """The result of modules that are applied one after the other.

    In training a clamp is applied by the module before it, if that can: it costs no pass of its own, and the gradient
    goes back through both in one.
    """
    modules = list(chain)
    for i, module in enumerate(modules):
        if i > 0 and _is_applied(modules[i - 1], module, *inputs):
            module.save_for_backward(None)
        elif i + 1 < len(modules) and _is_applied(module, modules[i + 1], *inputs):
            inputs = (module._called(module._clamped, modules[i + 1]._bounds, *inputs),)
        else:
            inputs = (module(*inputs),)
    return inputs[0]


def _is_applied(module: Module, clamp: Module, *inputs: Any) -> bool:
    """Whether `module` applies the clamp behind it, rather than that itself."""
    return (
        module._takes_bounds
        and clamp._bounds is not None
        and module.training
        and clamp.training
        and not any(isinstance(x, Symbol) for x in inputs)
        and not any("forward" in own or "backward" in own for own in (vars(module), vars(clamp)))
    )


def back_through(chain: Sequence[Module], grad_output: Any, needs_input_grad: bool = True) -> Any:
    """The gradient of the input of modules that `through` applied.

    Without `needs_input_grad` nothing is computed for what has no parameters below it, and the result is None.
    """
    return _back(chain, grad_output, needs_input_grad, own=False)[0]


def _back(chain: Sequence[Module], grad_output: Any, needs_input_grad: bool, own: bool) -> tuple[Any, bool]:
    """`back_through`, and whether nobody else has the result; `own` says that of `grad_output`."""
    last_needed = 0
    if not needs_input_grad:
        learning = (i for i, module in enumerate(chain) if any(True for _ in module.parameters()))
        last_needed = next(learning, len(chain))
    for i in range(len(chain) - 1, last_needed - 1, -1):
        module, given = chain[i], grad_output
        knows = type(module)._owns_gradients and "backward" not in vars(module)
        module.needs_input_grad, module._may_overwrite = needs_input_grad or i > last_needed, own and knows
        grad_output = module.backward(given)
        own = module._owns_gradients if knows else own and grad_output is given
    return (grad_output, own) if needs_input_grad else (None, False)


def summed(arrays: Sequence[np.ndarray], bounds: tuple[float, float] = UNBOUNDED) -> np.ndarray:
    """The clamped sum of arrays of one shape, in a new array if there are several; float16 is added in float32."""
    if len(arrays) == 1:
        return arrays[0]
    dtype = arrays[0].dtype
    if len(arrays) <= 4 and dtype in _args.FLOATS and all(array.dtype == dtype for array in arrays):
        return _sum(len(arrays) - 1, bounds)(*arrays)
    dtype = np.result_type(*arrays)
    total = arrays[0].astype(np.float32 if dtype == _args.HALF else dtype)
    for array in arrays[1:]:
        total += array
    total = total if bounds == UNBOUNDED else np.clip(total, *bounds)
    return total.astype(dtype, copy=False)


class Add(Module):
    """The sum of two or more inputs of one shape; every input gets the whole gradient.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Add()(np.ones(2), np.ones(2))
    array([2., 2.])
    """

    _takes_bounds = True

    def forward(self, *inputs: Any) -> np.ndarray:
        return self._clamped(UNBOUNDED, *inputs)

    def _clamped(self, bounds: tuple[float, float], *inputs: Any) -> np.ndarray:
        arrays = _arrays(inputs)
        for i, array in enumerate(arrays):
            if array.shape != arrays[0].shape:
                raise ValueError(f"input {i} has shape {array.shape}; it needs that of input 0, {arrays[0].shape}")
        y = summed(arrays, bounds)
        self.save_for_backward(len(arrays), bounds, None if bounds == UNBOUNDED else y)
        return y

    def backward(self, grad_output: np.ndarray) -> tuple[np.ndarray, ...]:
        """One gradient per input; they are the same array, so do not write into them."""
        count, bounds, y = self.saved()
        return (clamp_grad(grad_output, y, bounds),) * count


class Concat(Module):
    """Two or more inputs, one after the other along axis `dim`; the gradient is cut up likewise.

    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Concat(dim=0)(np.zeros(2), np.ones(1))
    array([0., 0., 1.])
    """

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, *inputs: Any) -> np.ndarray:
        arrays = _arrays(inputs)
        axis = axis_index(self.dim, arrays[0].ndim)
        rests = [array.shape[:axis] + array.shape[axis + 1 :] for array in arrays]
        for i, (array, rest) in enumerate(zip(arrays, rests, strict=True)):
            if array.ndim != arrays[0].ndim or rest != rests[0]:
                raise ValueError(
                    f"input {i} has shape {array.shape}; except along axis {axis} it needs "
                    f"that of input 0, {arrays[0].shape}"
                )
        lengths = [array.shape[axis] for array in arrays]
        self.save_for_backward(axis, lengths)
        shape = (*rests[0][:axis], sum(lengths), *rests[0][axis:])
        order = _core.axes_in_memory(max(arrays, key=lambda array: array.size))
        return np.concatenate(arrays, axis, out=_core.new_array(shape, np.result_type(*arrays), order))

    def backward(self, grad_output: np.ndarray) -> tuple[np.ndarray, ...]:
        """One gradient per input, as views of `grad_output`."""
        axis, lengths = self.saved()
        return tuple(np.split(grad_output, np.cumsum(lengths)[:-1], axis))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def _arrays(inputs: tuple[Any, ...]) -> list[np.ndarray]:
    if len(inputs) < 2:
        raise ValueError(f"{len(inputs)} inputs given; there must be at least two")
    return [np.asarray(x) for x in inputs]
