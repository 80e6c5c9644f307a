# SPDX-License-Identifier: BSD-3-Clause
"""Learning-rate schedules with the names and formulas of `torch.optim.lr_scheduler`.

A schedule is a function of the number of steps done, and of the rate that each group of the optimiser began with.
Whether a step is an epoch or an update is for the caller of `step` to say.

>>> from fastconv import nn, optim
>>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
>>> warm_up, fall = optim.LinearLR(sgd, 0.5, total_iters=2), optim.CosineAnnealingLR(sgd, T_max=4)
>>> schedule = optim.SequentialLR(sgd, [warm_up, fall], milestones=[2])
>>> [(round(sgd.param_groups[0]["lr"], 3), schedule.step())[0] for _ in range(6)]
[0.5, 0.75, 1.0, 0.854, 0.5, 0.146]
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _args
from fastconv._names import only
from fastconv.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "LinearLR", "MultiStepLR", "OneCycleLR", "Schedule", "SequentialLR", "StepLR"]
__dir__ = only(__all__)


class Schedule:
    """Base class: sets the learning rate of every group from its initial one and the number of steps done.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        Number of the step that was the last; -1 begins.

    Raises
    ------
    TypeError
        `optimizer` is not one, or a number is not of its kind.
    ValueError
        A number is out of range, or `last_epoch` says to go on where the optimiser does not know its initial rates.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {_args.said(optimizer)}; it needs to be an Optimizer")
        self.optimizer = optimizer
        last_epoch = _args.integer(last_epoch, "last_epoch", -1)
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])  # another schedule may have set the rate already
            elif "initial_lr" not in group:
                raise ValueError(
                    f"last_epoch is {last_epoch}; to resume, every group of the optimizer must "
                    "hold 'initial_lr' (load its state dict first)"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def _rate_at(self, base: float, epoch: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not say what its rates are")

    def _settings_at(self, epoch: int) -> list[dict[str, Any]]:
        """What the groups are set to, one by one."""
        return [{"lr": self._rate_at(base, epoch)} for base in self.base_lrs]

    def step(self) -> None:
        """Count a step, and set the rates that follow from it. Call it after the optimiser's."""
        settings = self._settings_at(self.last_epoch + 1)
        self.last_epoch += 1
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group now."""
        return [settings["lr"] for settings in self._settings_at(self.last_epoch)]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here."""
        return {k: v for k, v in vars(self).items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from where another schedule of the same kind was; the optimiser's own state holds the rates of now.

        Raises
        ------
        ValueError
            If the state is of another kind of schedule, or of another number of groups; nothing has changed then.
        """
        needed = self.state_dict()
        missing = [key for key in needed if key not in state_dict]
        if missing:
            raise ValueError(f"state_dict has no {', '.join(missing)}; it is not of a {type(self).__name__}")
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"state_dict has {len(state_dict['base_lrs'])} base_lrs; it needs one for each of "
                f"{len(self.base_lrs)} groups"
            )
        vars(self).update({key: state_dict[key] for key in needed})


class StepLR(Schedule):
    """Multiplies the learning rate by `gamma` every `step_size` steps, as torch's `StepLR`.

    >>> from fastconv import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.StepLR(sgd, step_size=2, gamma=0.5)
    >>> [(schedule.step(), sgd.param_groups[0]["lr"])[1] for _ in range(4)]
    [1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = _args.integer(step_size, "step_size", 1)
        self.gamma = _args.real(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def _rate_at(self, base: float, epoch: int) -> float:
        return base * _power(self.gamma, epoch // self.step_size)


class MultiStepLR(Schedule):
    """Multiplies the learning rate by `gamma` at each of the `milestones`, as torch's `MultiStepLR`.

    A milestone that is named twice counts twice.

    >>> from fastconv import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.MultiStepLR(sgd, milestones=[1, 3], gamma=0.5)
    >>> [(schedule.step(), sgd.param_groups[0]["lr"])[1] for _ in range(4)]
    [0.5, 0.5, 0.25, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = sorted(_args.sizes(milestones, "milestones", 0))
        self.gamma = _args.real(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def _rate_at(self, base: float, epoch: int) -> float:
        return base * _power(self.gamma, bisect_right(self.milestones, epoch))


class LinearLR(Schedule):
    """From `start_factor` to `end_factor` times the learning rate in `total_iters` steps, as torch's `LinearLR`.

    >>> from fastconv import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.LinearLR(sgd, start_factor=0.5, total_iters=2)
    >>> [(sgd.param_groups[0]["lr"], schedule.step())[0] for _ in range(4)]
    [0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < _args.real(start_factor, "start_factor") <= 1:
            raise ValueError(f"start_factor is {_args.said(start_factor)}; it needs to be above 0 and at most 1")
        if not 0 <= _args.real(end_factor, "end_factor") <= 1:
            raise ValueError(f"end_factor is {_args.said(end_factor)}; it needs to be from 0 to 1")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = _args.integer(total_iters, "total_iters", 1)
        super().__init__(optimizer, last_epoch)

    def _rate_at(self, base: float, epoch: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(Schedule):
    """Half a cosine from the initial learning rate to `eta_min` in `T_max` steps, then back.

    As torch's `CosineAnnealingLR`. Source: Loshchilov and Hutter (2016), arXiv:1608.03983.

    >>> from fastconv import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.CosineAnnealingLR(sgd, T_max=4)
    >>> [(schedule.step(), round(sgd.param_groups[0]["lr"], 3))[1] for _ in range(4)]
    [0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not _args.real(T_max, "T_max") >= 1:
            raise ValueError(f"T_max is {_args.said(T_max)}; it needs to be at least 1")
        self.T_max = T_max
        self.eta_min = _args.real(eta_min, "eta_min")
        super().__init__(optimizer, last_epoch)

    def _rate_at(self, base: float, epoch: int) -> float:
        return _cosine(base, self.eta_min, epoch / self.T_max)


class OneCycleLR(Schedule):
    """Up to `max_lr` and down to almost nothing, once, while momentum goes the other way; as torch's `OneCycleLR`.

    A step is an update, not an epoch: there are `total_steps` of them, or ``epochs * steps_per_epoch``.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float, or one for each group
    total_steps, epochs, steps_per_epoch : int
    pct_start : float
        Share of the steps in which the rate rises.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether momentum (of Adam its first beta) falls from `max_momentum` to `base_momentum` as the rate rises.
    base_momentum, max_momentum : float, or one for each group
    div_factor, final_div_factor : float
        The rate begins with ``max_lr / div_factor``, and ends with that divided by `final_div_factor`.
    three_phase : bool
        Come down to where the rate began in as many steps as it rose, and only then to the end.
    last_epoch : int
        See `Schedule`.

    Raises
    ------
    ValueError
        A number out of range, no number of steps, momentum to be cycled that the optimiser has not; and in `step`,
        more steps than there are.

    Notes
    -----
    Source: Smith and Topin (2017), arXiv:1708.07120.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    >>> schedule = optim.OneCycleLR(sgd, max_lr=1.0, total_steps=7, pct_start=0.5, anneal_strategy="linear")
    >>> [(round(sgd.param_groups[0]["lr"], 2), i < 6 and schedule.step())[0] for i in range(7)]
    [0.04, 0.42, 0.81, 0.86, 0.57, 0.29, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {_args.said(optimizer)}; it needs to be an Optimizer")
        if total_steps is not None:
            self.total_steps = _args.integer(total_steps, "total_steps", 1)
        elif epochs is not None and steps_per_epoch is not None:
            epochs = _args.integer(epochs, "epochs", 1)
            self.total_steps = epochs * _args.integer(steps_per_epoch, "steps_per_epoch", 1)
        else:
            raise ValueError("total_steps is None; it needs a number of steps, or epochs and steps_per_epoch")
        if not 0 <= _args.real(pct_start, "pct_start") <= 1:
            raise ValueError(f"pct_start is {_args.said(pct_start)}; it needs to be from 0 to 1")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy is {_args.said(anneal_strategy)}; it needs 'cos' or 'linear'")
        groups = optimizer.param_groups
        for name, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not _args.real(factor, name) > 0:
                raise ValueError(f"{name} is {_args.said(factor)}; it needs to be above 0")
        top = _each(max_lr, "max_lr", len(groups))
        first = [rate / div_factor for rate in top]
        last = [rate / final_div_factor for rate in first]
        most, least = (
            _each(max_momentum, "max_momentum", len(groups)),
            _each(base_momentum, "base_momentum", len(groups)),
        )
        self.anneal_strategy = anneal_strategy
        self._momentum = next((name for name in ("momentum", "betas") if name in optimizer.defaults), None)
        if not cycle_momentum:
            self._momentum = None
        elif self._momentum is None:
            raise ValueError(f"cycle_momentum is True; {type(optimizer).__name__} has neither momentum nor betas")
        elif self._momentum == "betas":
            for name, momenta in (("max_momentum", most), ("base_momentum", least)):
                if not max(momenta) < 1:
                    raise ValueError(f"{name} is {max(momenta)}; as the first of betas it needs to be below 1")
        end, rise = self.total_steps - 1, pct_start * self.total_steps
        # The last step of each phase; rates and momenta where phases begin and end.
        if three_phase:
            self._ends = [rise - 1, 2 * rise - 2, end]
            self._rates, self._momenta = [first, top, first, last], [most, least, most, most]
        else:
            self._ends = [rise - 1, end]
            self._rates, self._momenta = [first, top, last], [most, least, most]
        if last_epoch == -1:
            for group, rate in zip(groups, first, strict=True):
                group["initial_lr"] = rate
        super().__init__(optimizer, last_epoch)

    def _settings_at(self, epoch: int) -> list[dict[str, Any]]:
        if epoch >= self.total_steps:
            raise ValueError(
                f"step has been called {epoch} times; there are {self.total_steps} steps, the first set already"
            )
        phase = next((i for i, end in enumerate(self._ends) if epoch <= end), len(self._ends) - 1)
        begin = self._ends[phase - 1] if phase else 0
        length = self._ends[phase] - begin
        done = (epoch - begin) / length if length else 1.0
        between = _cosine if self.anneal_strategy == "cos" else _line
        settings = []
        for i, group in enumerate(self.optimizer.param_groups):
            own: dict[str, Any] = {"lr": between(self._rates[phase][i], self._rates[phase + 1][i], done)}
            momentum = between(self._momenta[phase][i], self._momenta[phase + 1][i], done)
            if self._momentum == "momentum":
                own["momentum"] = momentum
            elif self._momentum == "betas":
                own["betas"] = (momentum, group["betas"][1])
            settings.append(own)
        return settings


class SequentialLR(Schedule):
    """One schedule after another, each from its own beginning; as torch's `SequentialLR`.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of Schedule
        Of this optimiser.
    milestones : list of int
        The steps with which the second, the third and further schedules begin.
    last_epoch : int
        See `Schedule`.

    Raises
    ------
    ValueError
        Not one milestone fewer than schedules, milestones that do not rise, or a schedule of another optimiser.

    Examples
    --------
    A warm-up of two steps:

    >>> from fastconv import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> parts = [optim.LinearLR(sgd, 0.5, total_iters=2), optim.StepLR(sgd, step_size=1, gamma=0.1)]
    >>> schedule = optim.SequentialLR(sgd, parts, milestones=[2])
    >>> [(round(sgd.param_groups[0]["lr"], 3), schedule.step())[0] for _ in range(5)]
    [0.5, 0.75, 1.0, 0.1, 0.01]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        self.milestones = list(_args.sizes(milestones, "milestones", 1))
        self.schedulers = list(schedulers)
        for one in self.schedulers:
            if not isinstance(one, Schedule):
                raise TypeError(f"schedulers holds {_args.said(one)}; every entry needs to be a Schedule")
            if one.optimizer is not optimizer:
                raise ValueError(f"schedulers holds a {type(one).__name__} of another optimizer")
        if not self.schedulers:
            raise ValueError("schedulers is empty; there must be at least one Schedule")
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"milestones has {len(self.milestones)} entries; for {len(self.schedulers)} schedulers it needs "
                f"{len(self.schedulers) - 1}"
            )
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones is {_args.said(milestones)}; each needs to be above the one before")
        super().__init__(optimizer, last_epoch)

    def _settings_at(self, epoch: int) -> list[dict[str, Any]]:
        turn = bisect_right(self.milestones, epoch)
        return self.schedulers[turn]._settings_at(epoch - (self.milestones[turn - 1] if turn else 0))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedulers": [one.state_dict() for one in self.schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parts = self.schedulers
        given = state_dict.get("schedulers", ())
        if len(given) != len(parts):
            raise ValueError(f"state_dict is of {len(given)} schedulers; it needs those of {len(parts)}")
        before = [part.state_dict() for part in parts]
        try:
            for part, state in zip(parts, given, strict=True):
                part.load_state_dict(state)
            super().load_state_dict(state_dict)
        except ValueError:
            for part, state in zip(parts, before, strict=True):
                part.load_state_dict(state)
            raise
        self.schedulers = parts


def _power(gamma: float, exponent: int) -> float:
    with np.errstate(all="ignore"):  # rates may grow beyond all bounds
        return float(np.float_power(gamma, exponent))


def _line(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


def _cosine(start: float, end: float, done: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _each(value: float | Sequence[float], name: str, groups: int) -> list[float]:
    """A positive number for each group, from one for all or from as many."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{name} has {len(values)} entries; it needs one for each of {groups} groups")
    numbers = [_args.real(one, name) for one in values]
    if not all(number > 0 for number in numbers):
        raise ValueError(f"{name} is {_args.said(value)}; it needs to be above 0")
    return numbers
