# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions whose weights are packed once and found again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastconv import _core
from fastconv._config import get_num_threads
from fastconv.plan import ConvPlan
from fastconv.torch._library import array, is_last, layout, tensor
from fastconv.torch._lock import LOCK


def has_gradients(*tensors: Tensor | None) -> bool:
    """Whether a result would have to know where it came from."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _plan(
    shape: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[Any, ...],
    last: bool,
    activation: str | None = None,
) -> ConvPlan:
    stride, padding, dilation, transposed, output_padding, groups = geometry
    return ConvPlan(
        shape,
        array(weight),
        None if bias is None else array(bias),
        *(stride, padding, dilation, groups),
        layout=layout(weight.ndim - 2, last),
        activation=activation,
        transposed=transposed,
        output_padding=output_padding if transposed else 0,
    )


class _Weights:
    """`conv` as ``torch.ops.fastconv.conv``, which serves what has gradients."""

    def conv(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ) -> Tensor:
        geometry = (tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(output_padding), groups)
        if not has_gradients(input, weight, bias):
            last = is_last(input)
            x = array(input, last)
            plan = self.plan(x.shape, weight, bias, geometry, last)
            if plan is not None:
                return tensor(plan(x), last)
        return torch.ops.fastconv.conv(input, weight, bias, *geometry)

    def plan(
        self, shape: tuple[int, ...], weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], last: bool
    ) -> ConvPlan | None:
        """The plan for these weights as they are, if any; `shape` is in the order of the axes in memory."""
        raise NotImplementedError


class CheckedWeights(_Weights):
    """Weights are packed when they come the second time in a row, for as long as their contents stay the same.

    Every call looks at all of the contents, which takes less than packing them, so that no change goes unnoticed. One
    plan is kept for a weight, as long as the weight lives.
    """

    def __init__(self) -> None:
        self.seen = WeakTensorKeyDictionary()

    def plan(
        self, shape: tuple[int, ...], weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], last: bool
    ) -> ConvPlan | None:
        marks = tuple(_contents(x) for x in (weight, bias))
        if None in marks:
            return None
        key = (shape, last, geometry, marks)
        with LOCK:
            found = self.seen.get(weight)
            if found is None or found[0] != key:
                self.seen[weight] = (key, None)
                return None
        if found[1] is not None:
            return found[1]
        plan = _plan(shape, weight, bias, geometry, last)
        with LOCK:
            self.seen[weight] = (key, plan)
        return plan


def _contents(x: Tensor | None) -> tuple[Any, ...] | None:
    """What tells a tensor from one of other contents; None where its elements have gaps."""
    if x is None:
        return ()
    last = is_last(x)
    if not (last or x.is_contiguous()):
        return None
    return x.dtype, x.shape, last, _core.fingerprint(array(x, last), get_num_threads())


def _version(x: Tensor | None) -> int:
    """Counts the changes that torch makes to a tensor in place. Those of `inference_mode` are not counted."""
    return -1 if x is None or x.is_inference() else x._version


class PackedWeights(_Weights):
    """The plans of the last convolutions, by weights and shapes of input; `room` of them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._start()

    def _start(self) -> None:
        self.plans: OrderedDict[Any, tuple[tuple[int, int], ConvPlan, tuple[Tensor | None, ...]]] = OrderedDict()

    def __getstate__(self) -> int:
        return self.room

    def __setstate__(self, room: int) -> None:
        self.room = room
        self._start()

    def plan(
        self,
        shape: tuple[int, ...],
        weight: Tensor,
        bias: Tensor | None,
        geometry: tuple[Any, ...],
        last: bool,
        activation: str | None = None,
    ) -> ConvPlan:
        key = (
            shape,
            last,
            activation,
            geometry,
            weight.data_ptr(),
            weight.shape,
            weight.stride(),
            0 if bias is None else bias.data_ptr(),
        )
        versions = (_version(weight), _version(bias))
        with LOCK:
            found = self.plans.get(key)
            if found is not None and found[0] == versions:
                self.plans.move_to_end(key)
                return found[1]
        plan = _plan(shape, weight, bias, geometry, last, activation)
        with LOCK:  # the tensors are kept, so that no others can take their addresses
            self.plans[key] = (versions, plan, (weight, bias))
            while len(self.plans) > self.room:
                self.plans.popitem(last=False)
        return plan
