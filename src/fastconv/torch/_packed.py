# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions whose weights are packed once and found again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastconv import _core
from fastconv._config import get_num_threads
from fastconv.plan import ConvPlan
from fastconv.torch._library import array, is_last, layout, ops, tensor
from fastconv.torch._lock import LOCK


def has_gradients(*tensors: Tensor | None) -> bool:
    """Whether a result would have to know where it came from."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


_PLANS = 64  # of a weight: sizes of images
_FORMS = 4  # of a weight: packed copies


class _Plan(ConvPlan):
    """One that takes packed weights from among `forms`, by their tags, and puts there what it packs."""

    def __init__(self, forms: dict[int, _core.Packed], *args: Any, **options: Any) -> None:
        self._forms = forms
        super().__init__(*args, **options)
        del self._forms

    def _pack(self, weight: np.ndarray, bias: np.ndarray | None) -> _core.Packed:
        found = self._forms.get(self.tag)
        if found is None:
            found = self._forms[self.tag] = super()._pack(weight, bias)
        return found

    @property
    def tag(self) -> int:
        """Equal for plans whose packed weights are the same, if their weights are."""
        return self._plan.tag


def _plan(
    shape: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[Any, ...],
    last: bool,
    activation: str | None = None,
    forms: dict[int, _core.Packed] | None = None,
) -> _Plan:
    stride, padding, dilation, transposed, output_padding, groups = geometry
    return _Plan(
        {} if forms is None else forms,
        shape,
        _frozen(weight),
        None if bias is None else _frozen(bias),
        *(stride, padding, dilation, groups),
        layout=layout(weight.ndim - 2, last),
        activation=activation,
        transposed=transposed,
        output_padding=output_padding if transposed else 0,
    )


def _frozen(x: Tensor) -> np.ndarray:
    """The tensor's memory as what a plan need not copy: it is dropped when the tensor changes."""
    result = array(x)
    result.flags.writeable = False
    return result


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
            # Views are new tensors in every call: none comes again.
            plan = None if weight._is_view() else self.plan(x.shape, weight, bias, geometry, last)
            if plan is not None:
                return tensor(plan(x), last)
        return ops.conv(input, weight, bias, *geometry)

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


class _Packings:
    """The plans of weights as they are, by problem, and their packed forms, by tag; the last used at the end."""

    def __init__(self, state: tuple[Any, ...]) -> None:
        self.state = state
        self.plans: OrderedDict[Any, _Plan] = OrderedDict()
        self.forms: OrderedDict[int, _core.Packed] = OrderedDict()

    def add(self, key: Any, plan: _Plan, forms: dict[int, _core.Packed]) -> None:
        self.plans[key] = plan
        self.forms[plan.tag] = forms[plan.tag]
        self.forms.move_to_end(plan.tag)
        while len(self.forms) > _FORMS:
            tag, _ = self.forms.popitem(last=False)
            self.plans = OrderedDict((key, plan) for key, plan in self.plans.items() if plan.tag != tag)
        while len(self.plans) > _PLANS:
            self.plans.popitem(last=False)


class PackedWeights(_Weights):
    """The plans of the last convolutions with each weight, as long as the weight lives.

    Plans share packed weights: a weight has as many copies as there are forms that its plans want, at most `_FORMS`.
    """

    def __init__(self) -> None:
        self.packings = WeakTensorKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedWeights, ()  # copies start empty

    def plan(
        self,
        shape: tuple[int, ...],
        weight: Tensor,
        bias: Tensor | None,
        geometry: tuple[Any, ...],
        last: bool,
        activation: str | None = None,
    ) -> ConvPlan:
        key = (shape, last, activation, geometry)
        # Plans hold on to the memory that they were made from, so that nothing else takes its address.
        shift = None if bias is None else (bias.data_ptr(), _version(bias))
        state = (weight.data_ptr(), weight.shape, weight.stride(), _version(weight), shift)
        with LOCK:
            packings = self.packings.get(weight)
            if packings is None or packings.state != state:
                packings = self.packings[weight] = _Packings(state)
            plan = packings.plans.get(key)
            if plan is not None:
                packings.plans.move_to_end(key)
                return plan
            forms = dict(packings.forms)
        plan = _plan(shape, weight, bias, geometry, last, activation, forms)
        with LOCK:
            packings.add(key, plan, forms)
        return plan
