# SPDX-License-Identifier: BSD-3-Clause
"""The record that an operator is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.views import Type

__all__ = ["Operator", "first", "needs"]
__dir__ = only(__all__)


@dataclass(frozen=True)
class Operator:
    """An operator of the graph.

    Attributes
    ----------
    name : str
    infer : callable
        From a node and the types of its inputs (None where one is left out) to those of its outputs. It raises a
        ValueError or TypeError where they do not fit.
    evaluate : callable
        From a node and its inputs as arrays to its outputs: the meaning, for constants, for tests and where there is no
        kernel.
    lower : callable
        Appends the steps of a node to a `Listing`.
    order : {"same", "free", "first"}
        Which order of axes in memory its tensors want: that of the inputs for the outputs as well; any; channels before
        pixels, as arrays have them.
    is_view : bool
        Whether the output may be other strides over the input's memory, rather than written where it is wanted.
    by_image : bool
        Whether what it computes at an index of the first axis depends on its inputs at that index alone, wherever the
        types of the inputs allow fewer of them.
    """

    name: str
    infer: Callable[[Node, Sequence[Type | None]], list[Type]]
    evaluate: Callable[[Node, Sequence[np.ndarray | None]], list[np.ndarray]]
    lower: Callable[[Listing, Node], None]
    order: str = "same"
    is_view: bool = False
    by_image: bool = False


def needs(condition: bool, message: str, *said: Any) -> None:
    """A ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message.format(*said))


T = TypeVar("T")


def first(given: Sequence[T | None]) -> T:
    """The first input, which every operator has."""
    x = given[0]
    assert x is not None
    return x
