# SPDX-License-Identifier: BSD-3-Clause
"""A graph that grows, and what is known of its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastconv._names import only
from fastconv.graph.ir import Graph, Value
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["Growing", "Size", "Unknown"]
__dir__ = only(__all__)

#: Operators that keep the number of images, and those that do so unless they touch the first axis.
_KEEP_IMAGES = frozenset(
    {"conv", "batch_norm", "max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool", "identity", "softmax"}
)
_ANY_DTYPE = frozenset({"flatten", "reshape", "transpose", "slice", "identity"})


class Unknown(Exception):
    """Why a call has no meaning in a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """A number that depends on shapes: ``("size", value, axis)``, or a sum, product, ... of two such or of numbers."""

    entry: tuple[Any, Any, Any]


class Growing:
    """A graph to which translations add nodes.

    Parameters
    ----------
    name : str
    dtype : dtype
        Of inputs and weights.
    shared : bool
        Whether somebody may change weights unnoticed, see `Constant`.
    """

    def __init__(self, name: str, dtype: np.dtype, shared: bool) -> None:
        self.graph, self.dtype = Graph(name), np.dtype(dtype)
        self.weights: dict[int, Tensor] = {}  # tensors that are constants, by their ids
        self._shared = shared
        self._constants: dict[int, Value] = {}
        self._ranks: dict[Value, int | None] = {}
        self._types: dict[Value, Type] = {}
        self._others: set[Value] = set()  # values that may have another dtype
        self._names: dict[str, int] = {}
        self._name = ""

    # --- values -----------------------------------------------------------------------------------

    def tensor(self, tensor: Any, name: str) -> Value | None:
        """A weight, over its memory."""
        if tensor is None:
            return None
        if id(tensor) not in self._constants:
            plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
            if not plain or tensor.device.type != "cpu" or tensor.is_neg() or tensor.is_conj():
                raise Unknown(f"a weight of type {type(tensor).__name__}, {getattr(tensor, 'device', '')}")
            try:
                array = tensor.detach().numpy()
            except (TypeError, RuntimeError) as error:
                raise Unknown(f"a weight of dtype {tensor.dtype}") from error
            value = self.graph.constant(array, f"{self._name}.{name}" if self._name else name, shared=self._shared)
            self._constants[id(tensor)], self.weights[id(tensor)] = value, tensor
            self._ranks[value], self._types[value] = array.ndim, Type(array.shape, array.dtype)
            if array.dtype != self.dtype:
                self._others.add(value)
        return self._constants[id(tensor)]

    def emit(self, op: str, inputs: Sequence[Value | None], rank: int | None, **attributes: Any) -> Value:
        """A node of the graph."""
        given = [value for value in inputs if value is not None]
        if op not in _ANY_DTYPE and any(value in self._others for value in given):
            raise Unknown("a tensor of another dtype")
        value = self.graph.add(op, inputs, self._next_name(), **attributes)
        self._note(self.graph.nodes[-1], rank)
        if given[0] in self._others:
            self._others.add(value)
        return value

    def _next_name(self) -> str:
        taken = self._names.get(self._name, 0)
        self._names[self._name] = taken + 1
        return f"{self._name}#{taken + 1}" if taken else self._name

    def _note(self, node: Any, rank: int | None) -> None:
        """Types of a node's outputs, where those of its inputs are known."""
        for value in node.outputs:
            self._ranks[value] = rank
        if all(value in self._types for value in node.given()):
            try:
                found = OPERATORS[node.op].infer(node, [None if v is None else self._types[v] for v in node.inputs])
            except (ValueError, TypeError, NotImplementedError) as error:
                raise type(error)(f"node {node.name!r} ({node.op}): {error}") from error
            for value, made in zip(node.outputs, found, strict=True):
                self._types[value], self._ranks[value] = made, len(made.shape)
                if made.dtype != self.dtype:
                    self._others.add(value)
                else:
                    self._others.discard(value)

    def rank(self, value: Value) -> int | None:
        """The number of axes, if it is known."""
        return self._ranks.get(value)

    def shape(self, value: Value) -> tuple[int, ...] | None:
        """All sizes, if they are known."""
        return self._types[value].shape if value in self._types else None

    # --- sizes ------------------------------------------------------------------------------------

    def size(self, value: Value, axis: int) -> int | Size:
        shape = self.shape(value)
        if shape is None:
            return Size(("size", value, axis))
        if not 0 <= axis < len(shape):
            raise Unknown(f"axis {axis} of {len(shape)}")
        return shape[axis]

    def _images(self, value: Value) -> Value:
        """The first value that has as many images as this one."""
        node = value.producer
        while node is not None and node.inputs[0] is not None:
            a = node.attributes
            keeps = (
                node.op in _KEEP_IMAGES
                or (node.op == "map" and len(node.inputs) == 1)
                or (node.op == "flatten" and a["start"] > 0)
                or (node.op == "slice" and a["axis"] > 0)
                or (node.op == "concat" and a["axis"] > 0)
                or (node.op == "reshape" and a["shape"][:1] in ((0,), (("size", 0, 0),)))
            )
            if not keeps:
                break
            value, node = node.inputs[0], node.inputs[0].producer
        return value

    def is_size_of(self, size: Any, x: Value, axis: int) -> bool:
        """Whether a number is the size of just that axis."""
        if not isinstance(size, Size) or size.entry[0] != "size" or size.entry[2] != axis:
            return False
        of = size.entry[1]
        return of is x or (axis == 0 and isinstance(of, Value) and self._images(of) is self._images(x))

    def entries(self, x: Value, sizes: Sequence[Any]) -> tuple[tuple[Any, ...], list[Value]]:
        """Sizes as attributes of a node that reads x, and what else it has to read for them."""
        others: list[Value] = []

        def entry(size: Any) -> Any:
            if not isinstance(size, tuple):
                return size
            name, first, second = size
            if name != "size":
                return name, entry(first), entry(second)
            if not isinstance(first, Value):
                return size
            of = self._images(first) if second == 0 else first
            if of is x:
                return name, 0, second
            if of not in others:
                others.append(of)
            return name, 1 + others.index(of), second

        return tuple(entry(size.entry if isinstance(size, Size) else size) for size in sizes), others
