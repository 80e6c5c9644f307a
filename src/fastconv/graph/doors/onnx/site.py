# SPDX-License-Identifier: BSD-3-Clause
"""An ONNX node at the place where it is translated, and the table of those who translate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, helper

from fastconv._names import only
from fastconv.graph.ir import Graph, Shape, Value

__all__ = ["TRANSLATORS", "Known", "Site", "Translated", "dtype_of", "translates"]
__dir__ = only(__all__)

Translated = Value | list[Value | None] | None
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def dtype_of(element: int, said: str) -> np.dtype:
    """NumPy's name of a type of ONNX's; ``said`` is what has it.

    Raises
    ------
    ValueError, NotImplementedError
        If there is none, or it is that of strings.
    """
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element))
    except KeyError:
        raise ValueError(f"{said} has elements of type {element}, which ONNX does not know") from None
    if dtype.hasobject:
        raise NotImplementedError(f"{said} is of strings; a network needs numbers")
    return dtype


class Known(NamedTuple):
    """What is known of a value: None is unknown."""

    dtype: np.dtype | None = None
    shape: Shape | None = None


_NOTHING = Known()


class Site:
    """A node, what it reads, and the graph that it is to be added to.

    Attributes
    ----------
    graph : Graph
    node : onnx.NodeProto
    opset : int
        Of the node's domain.
    inputs : list of Value or None
    """

    def __init__(
        self, graph: Graph, node: NodeProto, opset: int, inputs: list[Value | None], known: dict[Value, Known]
    ) -> None:
        self.graph, self.node, self.opset, self.inputs, self._known = graph, node, opset, inputs, known
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    @property
    def name(self) -> str:
        """In errors and profiles; nodes need not have one."""
        return self.node.name or next((name for name in self.node.output if name), self.node.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Strings as str, lists as tuples."""
        value = self.attributes.get(name, default)
        if isinstance(value, bytes):
            return value.decode()
        return tuple(value) if isinstance(value, list) else value

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
        return self._known.get(value, _NOTHING)

    def shape(self, which: int) -> Shape | None:
        return self.known(which).shape

    def rank(self, which: int) -> int | None:
        shape = self.known(which).shape
        return None if shape is None else len(shape)

    def array(self, which: int) -> np.ndarray | None:
        """The numbers of an input that is constant."""
        value = self.input(which)
        return None if value is None or value.constant is None else value.constant.array()

    def ints(self, which: int) -> tuple[int, ...] | None:
        array = self.array(which)
        return None if array is None else tuple(int(n) for n in array.reshape(-1))

    def is_float(self, *which: int) -> bool:
        """Whether these inputs, those that are there, are of one type that the core computes with."""
        dtypes = {self.known(i).dtype for i in which if self.input(i) is not None}
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
