# SPDX-License-Identifier: BSD-3-Clause
"""An ONNX node at the place where it is translated, and the table of those who translate.

Nothing here, nor in the translators, needs the package onnx: a network in a file has nodes that wait for its sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv._names import only
from fastconv.graph.ir import Graph, Shape, Value

__all__ = ["TRANSLATORS", "Known", "PlainNode", "Site", "Translated", "dtype_of", "is_plain", "translates"]
__dir__ = only(__all__)

Translated = Value | list[Value | None] | None
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_STRING = 8
#: By ONNX's numbers; types that NumPy lacks are left to onnx.
_DTYPES = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15),
        map(np.dtype, ("f4", "u1", "i1", "u2", "i2", "i4", "i8", "?", "f2", "f8", "u4", "u8", "c8", "c16")),
        strict=True,
    )
)


def dtype_of(element: int, said: str) -> np.dtype:
    """NumPy's name of a type of ONNX's; ``said`` is what has it.

    Raises
    ------
    ValueError, NotImplementedError
        If there is none, or it is that of strings.
    """
    if element in _DTYPES:
        return _DTYPES[element]
    if element == _STRING:
        raise NotImplementedError(f"{said} is of strings; a network needs numbers")
    try:
        from onnx import helper

        return np.dtype(helper.tensor_dtype_to_np_dtype(element))
    except (KeyError, ModuleNotFoundError):
        raise ValueError(f"{said} has elements of type {element}, which ONNX does not know") from None


@dataclass(frozen=True, slots=True)
class PlainNode:
    """A node of ONNX's in Python's own types: str for strings, tuples, arrays for tensors. Graphs stay as they are."""

    op_type: str
    domain: str
    name: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    attributes: dict[str, Any]


def is_plain(dtype: np.dtype | None) -> bool:
    """Whether it is a type of NumPy's own for numbers or truth values, of which all functions of NumPy know."""
    return dtype is not None and dtype.kind in "fiub" and dtype.isbuiltin == 1


class Known(NamedTuple):
    """What is known of a value: None is unknown.

    ``of_sizes``: its numbers are known as soon as the sizes of the inputs are.
    """

    dtype: np.dtype | None = None
    shape: Shape | None = None
    of_sizes: bool = False


_NOTHING = Known()


class Site:
    """A node, what it reads, and the graph that it is to be added to.

    Attributes
    ----------
    graph : Graph
    node : PlainNode
    opset : int
        Of the node's domain.
    inputs : list of Value or None
    waits : bool
        Whether something was asked for that is not known before the sizes of the inputs are.
    """

    def __init__(
        self, graph: Graph, node: PlainNode, opset: int, inputs: list[Value | None], known: Mapping[Value, Any]
    ) -> None:
        self.graph, self.node, self.opset, self.inputs, self._known = graph, node, opset, inputs, known
        self.waits = False

    @property
    def name(self) -> str:
        """In errors and profiles; nodes need not have one."""
        return self.node.name or next((name for name in self.node.output if name), self.node.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def writes(self, which: int) -> bool:
        """Whether anybody may want that output."""
        return len(self.node.output) > which and bool(self.node.output[which])

    def input(self, which: int) -> Value | None:
        return self.inputs[which] if len(self.inputs) > which else None

    def known(self, which: int) -> Known:
        value = self.input(which)
        if value is None:
            return _NOTHING
        if value.constant is not None:
            return Known(value.constant.dtype, value.constant.shape)
        return self._known.get(value, _NOTHING)  # or its type

    def dtype(self, which: int) -> np.dtype | None:
        found = self.known(which).dtype
        self.waits |= found is None and self.input(which) is not None
        return found

    def shape(self, which: int) -> Shape | None:
        found = self.known(which).shape
        self.waits |= self.input(which) is not None and (found is None or None in found)
        return found

    def rank(self, which: int) -> int | None:
        shape = self.known(which).shape
        self.waits |= shape is None and self.input(which) is not None
        return None if shape is None else len(shape)

    def array(self, which: int) -> np.ndarray | None:
        """The numbers of an input that is constant."""
        value = self.input(which)
        if value is None:
            return None
        if value.constant is not None:
            return value.constant.array()
        self.waits |= self._is_of_sizes(value)
        return None

    def arrays(self) -> list[np.ndarray | None] | None:
        """The numbers of all inputs, if they are constant; None in place of one that is left out."""
        given = [value for value in self.inputs if value is not None]
        if all(value.constant is not None for value in given):
            return [self.array(i) for i in range(len(self.inputs))]
        self.waits |= all(value.constant is not None or self._is_of_sizes(value) for value in given)
        return None

    def _is_of_sizes(self, value: Value) -> bool:
        return bool(getattr(self._known.get(value), "of_sizes", False))

    def ints(self, which: int) -> tuple[int, ...] | None:
        array = self.array(which)
        return None if array is None else tuple(int(n) for n in array.reshape(-1))

    def is_float(self, *which: int) -> bool:
        """Whether these inputs, those that are there, are of one type that the core computes with."""
        dtypes = {self.dtype(i) for i in which if self.input(i) is not None}
        return len(dtypes) == 1 and next(iter(dtypes)) in _FLOATS

    def add(self, op: str, inputs: list[Value | None], part: str = "", **attributes: Any) -> Value:
        """A node of the graph: the last of those that make up this one, or a ``part`` before it."""
        return self.graph.add(op, inputs, f"{self.name}.{part}" if part else self.name, **attributes)


#: By domain and operator.
TRANSLATORS: dict[tuple[str, str], Callable[[Site], Translated]] = {}


def translates(*operators: str, domain: str = "") -> Callable[[Callable[[Site], Translated]], Any]:
    """Of a function that returns None where the graph has no operator for what the node asks for."""

    def register(translator: Callable[[Site], Translated]) -> Callable[[Site], Translated]:
        for operator in operators:
            TRANSLATORS[domain, operator] = translator
        return translator

    return register
