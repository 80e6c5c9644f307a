# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers with the formulas, defaults and state of `torch.optim`.

An optimiser updates its parameters in place, all of them in one call of the core, which reads and
writes the memory of parameter, gradient and state once. Parameters of float16 are updated in float32
and rounded once per step; what is remembered for them is float32.

>>> import numpy as np
>>> from fastconv import nn, optim
>>> p = nn.Parameter([1.0, 2.0])
>>> p.accumulate(np.array([1.0, -1.0]))
>>> optim.SGD([p], lr=0.5).step()
>>> p.value
array([0.5, 2.5])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastconv import _args, _config, _core
from fastconv._names import only
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter, zero_gradients
from fastconv.ops._operand import widened

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
__dir__ = only(__all__)

#: The core's numbers of rules, `fc_update_kind`.
_SGD, _ADAM = range(2)

#: The rule of a step (`fc_update_rule`, number by number), whether what is remembered is new, and what is remembered.
_Prepared = tuple[tuple[Any, ...], bool, tuple[np.ndarray, ...]]


def _memory_dtype(parameter: Parameter) -> np.dtype:
    """Of what is remembered for a parameter: its own dtype, float32 for float16."""
    return np.result_type(parameter.dtype, np.float32)


def _at_least(value: float, name: str, least: float = 0.0) -> float:
    if not _args.real(value, name) >= least:
        raise ValueError(f"{name} is {_args.said(value)}; it needs to be at least {least:g}")
    return value


def _betas(betas: tuple[float, float]) -> tuple[float, float]:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas is {_args.said(betas)}; it needs two numbers from 0 to below 1")
    first, second = betas
    return first, second


class Optimizer:
    """Base class: groups of parameters, each with its own settings, and a state per parameter.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group: ``{"params": [...], "lr": ..., ...}``; settings it does not name are the
        optimiser's.
    defaults : dict
        The settings of a group that does not name them.

    Attributes
    ----------
    param_groups : list of dict
        The groups with all their settings, which may be changed between steps.
    state : dict of Parameter to dict
        What an update remembers.
    """

    def __init__(self, params: Iterable[Parameter] | Iterable[dict[str, Any]], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Parameter, dict[str, Any]] = {}
        if isinstance(params, Module):
            raise TypeError(f"params is a {type(params).__name__}; it needs its parameters: model.parameters()")
        if not isinstance(params, Iterable) or isinstance(params, (Parameter, str, dict)):
            raise TypeError(f"params is {_args.said(params)}; it needs several Parameters, or dicts of them, in a list")
        entries = list(params)
        if not entries:
            raise ValueError("params is empty; there must be at least one Parameter")
        groups: list[Any] = entries if isinstance(entries[0], dict) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with settings of their own."""
        given = group["params"]
        parameters = [given] if isinstance(given, Parameter) else list(given)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in parameters:
            if not isinstance(p, Parameter):
                raise TypeError(f"params holds {type(p).__name__}; every entry must be a Parameter")
            if id(p) in known:
                raise ValueError("params holds a parameter more than once")
            known.add(id(p))
        settings = {**self.defaults, **group, "params": parameters}
        self._check(settings)
        self.param_groups.append(settings)

    def _check(self, settings: dict[str, Any]) -> None:
        """Complain about settings that are out of range."""

    def _prepare(self, parameter: Parameter, settings: dict[str, Any], state: dict[str, Any]) -> _Prepared:
        """What a step does with a parameter; `state` gets what is remembered for the first time."""
        raise NotImplementedError

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises
        ------
        ValueError
            A gradient does not have the shape of its parameter; no parameter has been updated then.
        """
        learning = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for parameter, _ in learning:
            if np.shape(parameter.grad) != parameter.shape:
                raise ValueError(f"grad has shape {np.shape(parameter.grad)}; the parameter's is {parameter.shape}")
        rules: dict[tuple[Any, ...], int] = {}
        updates, rounded = [], []
        for parameter, group in learning:
            rule, fresh, remembered = self._prepare(parameter, group, self.state.setdefault(parameter, {}))
            values = parameter.data
            wide = widened(values)
            if wide is not values:
                rounded.append((values, wide))
            gradient = np.ascontiguousarray(parameter.grad, wide.dtype).reshape(wide.shape)
            updates.append((rules.setdefault(rule, len(rules)), fresh, wide, gradient, remembered))
        _core.update(list(rules), updates, _config.ISA, _config.get_num_threads())
        for values, wide in rounded:
            values[...] = wide

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            zero_gradients(group["params"], set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, with parameters numbered in their order, as torch lays it out."""
        number = {p: i for i, p in enumerate(self._parameters())}
        return {
            "state": {number[p]: dict(state) for p, state in self.state.items()},
            "param_groups": [{**group, "params": [number[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the settings and (as copies) the state of an optimiser of the same kind and shape.

        Raises
        ------
        ValueError
            If groups, settings or shapes are others; nothing has changed then.
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        own = [len(group["params"]) for group in self.param_groups]
        if sizes != own:
            raise ValueError(f"state_dict has groups of {sizes} parameters; it needs {own}")
        settings = []
        for group, given in zip(self.param_groups, groups, strict=True):
            missing = [name for name in self.defaults if name not in given]
            if missing:
                raise ValueError(f"state_dict has no {', '.join(missing)}; it is not of a {type(self).__name__}")
            # A file may have made lists of tuples.
            read = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k != "params"}
            self._check({**group, **read})
            settings.append(read)
        parameters = list(self._parameters())
        state = {}
        for number, entry in state_dict["state"].items():
            if not 0 <= int(number) < len(parameters):
                raise ValueError(f"state_dict has a state for parameter {number}; there are {len(parameters)}")
            parameter = parameters[int(number)]
            for name, value in entry.items():
                if np.ndim(value) and np.shape(value) != parameter.shape:
                    raise ValueError(
                        f"state_dict has {name} of shape {np.shape(value)} for parameter {number}; "
                        f"it needs {parameter.shape}"
                    )
            state[parameter] = {
                name: np.array(value, _memory_dtype(parameter), order="C") if np.ndim(value) else value
                for name, value in entry.items()
            }
        for group, read in zip(self.param_groups, settings, strict=True):
            group.update(read)
        self.state = state

    def _parameters(self) -> Iterator[Parameter]:
        return (p for group in self.param_groups for p in group["params"])

    def __repr__(self) -> str:
        groups = [", ".join(f"{k}={v}" for k, v in group.items() if k != "params") for group in self.param_groups]
        return f"{type(self).__name__}({'; '.join(groups)})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`.

    With d = grad + weight_decay·p, the velocity is v = momentum·v + (1 − dampening)·d (v = d at
    first), and the parameter moves by −lr·v, or by −lr·(d + momentum·v) with Nesterov's momentum.

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float
        Learning rate.
    momentum, dampening, weight_decay : float
    nesterov : bool
        Needs momentum and no dampening.

    Raises
    ------
    ValueError
        A negative setting, or `nesterov` without its conditions.

    Notes
    -----
    Source: Sutskever et al. (2013), "On the importance of initialization and momentum in deep
    learning".

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _check(self, settings: dict[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            _at_least(settings[name], name)
        _args.real(settings["dampening"], "dampening")
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ValueError(
                f"nesterov needs momentum above 0 and dampening 0; momentum is "
                f"{settings['momentum']} and dampening {settings['dampening']}"
            )

    def _prepare(self, parameter: Parameter, settings: dict[str, Any], state: dict[str, Any]) -> _Prepared:
        momentum = settings["momentum"]
        fresh = bool(momentum) and "momentum_buffer" not in state
        if fresh:
            state["momentum_buffer"] = np.empty(parameter.shape, _memory_dtype(parameter))
        numbers = settings["lr"], settings["weight_decay"], momentum, 1 - settings["dampening"]
        rule = (_SGD, bool(settings["nesterov"]), *map(float, numbers), 1.0, 0.0, 0.0, 0.0)
        return rule, fresh, (state["momentum_buffer"],) if momentum else ()


class Adam(Optimizer):
    """Adam, as `torch.optim.Adam`; `weight_decay` is added to the gradient.

    With running means m of the gradient and v of its square, each divided by 1 − betaᵗ at step t,
    the parameter moves by −lr·m/(√v + eps).

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float
        Learning rate.
    betas : pair of float
        Decay of the two running means.
    eps, weight_decay : float
    amsgrad : bool
        Divide by the largest v so far.

    Raises
    ------
    ValueError
        A setting out of range.

    Notes
    -----
    Source: Kingma and Ba (2014), arXiv:1412.6980; amsgrad: Reddi, Kale and Kumar (2018).

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> optim.Adam(nn.Linear(2, 2).parameters())
    Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, amsgrad=False)
    """

    _decoupled = False

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
            },
        )

    def _check(self, settings: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            _at_least(settings[name], name)
        _betas(settings["betas"])

    def _prepare(self, parameter: Parameter, settings: dict[str, Any], state: dict[str, Any]) -> _Prepared:
        lr, eps, decay = settings["lr"], settings["eps"], settings["weight_decay"]
        beta1, beta2 = settings["betas"]
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * settings["amsgrad"]
        for name in names:
            if name not in state:
                state[name] = np.zeros(parameter.shape, _memory_dtype(parameter))
        state["step"] = step = state.get("step", 0) + 1
        shrink, added = (1 - lr * decay, 0) if self._decoupled else (1, decay)
        root = 1 / math.sqrt(1 - beta2**step)
        numbers = lr / (1 - beta1**step), added, beta1, 0, shrink, beta2, root, eps
        return (_ADAM, False, *map(float, numbers)), False, tuple(state[name] for name in names)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient, as `torch.optim.AdamW`.

    The parameter first shrinks by the factor 1 − lr·weight_decay. The settings are those of `Adam`,
    with a weight decay of 0.01 unless given.

    Notes
    -----
    Source: Loshchilov and Hutter (2017), arXiv:1711.05101.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> optim.AdamW(nn.Linear(2, 2).parameters())
    AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, amsgrad=False)
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)
