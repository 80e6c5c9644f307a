# SPDX-License-Identifier: BSD-3-Clause
"""The packed plan that a layer keeps for inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.nn.parameter import Parameter
from fastconv.plan import ConvPlan

__all__ = ["PackedPlan"]


class PackedPlan:
    """The plan of the last problem (the input's shape, say), made anew when that or parameters have changed.

    See `Parameter` for what counts as a change. The entry is replaced as a whole, so threads that
    share a layer at worst make the same plan twice.
    """

    __slots__ = ("_entry",)

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._entry: tuple[tuple[Any, ...], ConvPlan] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedPlan, ()  # copies start empty

    def get(
        self,
        problem: tuple[Any, ...],
        parameters: tuple[Parameter | None, ...],
        make: Callable[[], ConvPlan],
    ) -> ConvPlan | None:
        """The plan, or None while somebody holds a writable view of a parameter."""
        present = [p for p in parameters if p is not None]
        if any(p.is_lent for p in present):
            self.clear()
            return None
        # The parameters themselves are in the key: another Parameter may have the same version.
        key = (problem, *parameters, *(p.version for p in present))
        entry = self._entry
        if entry is None or entry[0] != key:
            entry = self._entry = (key, make())
        return entry[1]
