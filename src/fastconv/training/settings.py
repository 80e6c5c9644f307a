# SPDX-License-Identifier: BSD-3-Clause
"""How a network is trained: all numbers that the result depends on, and the optimiser and schedule they describe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fastconv import _args, nn, optim
from fastconv._names import only
from fastconv.training.augment import Augmentation

__all__ = ["Settings"]
__dir__ = only(__all__)

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "onecycle", "step", "constant")


@dataclass(frozen=True)
class Settings:
    """All that decides, with the data and the first weights, what becomes of a network.

    Attributes
    ----------
    epochs, batch : int
        Times that every image is seen, and the most of them at a time.
    accumulate : int
        Batches whose gradients are summed up to those of one large batch before the weights are updated.
    optimizer : {"sgd", "adam", "adamw"}
    lr : float
        The highest learning rate.
    momentum : float
        Of SGD.
    nesterov : bool
    weight_decay : float
        Of weights; biases, and the scales and shifts of norms, do not decay.
    schedule : {"cosine", "onecycle", "step", "constant"}
        How the rate falls, update by update: as half a cosine; up and down as `fastconv.optim.OneCycleLR` has it; by a
        factor `gamma` at each of the epochs `milestones`.
    warmup : float
        Epochs in which the rate rises first, from a hundredth; not with "onecycle", which has a rise of its own.
    milestones : tuple of int
    gamma : float
    clip : float
        The largest norm of all gradients together; 0 clips nothing.
    ema : float
        Decay of the moving average of weights, which is then what is judged and kept; 0 takes the weights themselves.
    smoothing : float
        Share of each label that is spread over all classes.
    balance : bool
        Weigh classes so that each counts as if all had as many images.
    augmentation : Augmentation
    seed : int
        Of the order of the images and of their changes.

    Raises
    ------
    ValueError, TypeError
        A number or a word is not one of those that there are.

    Examples
    --------
    >>> from fastconv import training
    >>> training.Settings(lr=-1.0)
    Traceback (most recent call last):
        ...
    ValueError: lr is -1.0; it needs to be above 0
    """

    epochs: int = 30
    batch: int = 64
    accumulate: int = 1
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    clip: float = 0.0
    ema: float = 0.0
    smoothing: float = 0.0
    balance: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate"):
            _args.integer(getattr(self, name), name, 1)
        _args.integer(self.seed, "seed", 0)
        for name, words in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {_args.said(getattr(self, name))}; it needs one of {', '.join(words)}")
        for name in ("lr", "gamma"):
            if not 0 < _args.real(getattr(self, name), name) < math.inf:
                raise ValueError(f"{name} is {_args.said(getattr(self, name))}; it needs to be above 0")
        for name in ("momentum", "weight_decay", "warmup", "clip"):
            if not 0 <= _args.real(getattr(self, name), name) < math.inf:
                raise ValueError(f"{name} is {_args.said(getattr(self, name))}; it needs to be at least 0")
        for name in ("momentum", "ema", "smoothing"):
            if not 0 <= _args.real(getattr(self, name), name) < 1:
                raise ValueError(f"{name} is {_args.said(getattr(self, name))}; it needs to be from 0 to below 1")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError(f"warmup is {self.warmup}; schedule 'onecycle' has a rise of its own")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup is {self.warmup}; it needs to be below epochs, {self.epochs}")

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Settings:
        """What `record` gave, of a file that knows no tuples."""
        given = dict(record)
        given["augmentation"] = Augmentation(**given["augmentation"])
        given["milestones"] = tuple(given["milestones"])
        return cls(**given)

    def make_optimizer(self, model: nn.Module) -> optim.Optimizer:
        """With two groups: of what decays, which has two axes or more, and of what does not."""
        parameters = list(model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if len(p.shape) <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer == "sgd":
            return optim.SGD(groups, self.lr, self.momentum, nesterov=self.nesterov)
        return {"adam": optim.Adam, "adamw": optim.AdamW}[self.optimizer](groups, self.lr)

    def make_schedule(self, optimizer: optim.Optimizer, updates: int) -> optim.Schedule:
        """Of a step for each update, of which an epoch has so many."""
        total, rise = self.epochs * updates, math.ceil(self.warmup * updates)
        if self.schedule == "onecycle":
            return optim.OneCycleLR(optimizer, self.lr, total + 1)
        fall: optim.Schedule
        if self.schedule == "cosine":
            fall = optim.CosineAnnealingLR(optimizer, max(1, total - rise))
        else:
            milestones = self.milestones if self.schedule == "step" else ()
            fall = optim.MultiStepLR(optimizer, [max(0, epoch * updates - rise) for epoch in milestones], self.gamma)
        if not rise:
            return fall
        return optim.SequentialLR(optimizer, [optim.LinearLR(optimizer, 0.01, total_iters=rise), fall], [rise])
