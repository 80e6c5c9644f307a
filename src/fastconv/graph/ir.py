# SPDX-License-Identifier: BSD-3-Clause
"""Graphs: values, the nodes that compute them, and constants. Nothing here knows what an operator means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv import _config, _core
from fastconv._names import only

__all__ = ["DEEPEST", "Constant", "Graph", "Node", "Readers", "Value"]
__dir__ = only(__all__)

Size = int | None  # of an axis; None may vary
Shape = tuple[Size, ...]
DEEPEST = 16  # graphs within graphs
_COMPUTED = 1 << 30  # bytes of what a graph computes of its constants before it runs


class Constant:
    """An array that is known when a network is compiled, or what makes it of others.

    Weights belong to whoever made the model and are not copied. So that a later change to them is noticed, their
    contents are marked; what passes make of them (weights times the scale of a batch norm, say) is computed when it is
    asked for and not kept.
    """

    __slots__ = ("_array", "_make", "_mark", "dtype", "parts", "shape")

    def __init__(self, array: np.ndarray, shared: bool = False) -> None:
        self._array: np.ndarray | None = array
        self.shape, self.dtype = array.shape, array.dtype
        self.parts: tuple[Constant, ...] = ()
        self._make: Callable[..., np.ndarray] | None = None
        self._mark = _marked(array) if shared else None

    @classmethod
    def derived(
        cls, make: Callable[..., np.ndarray], parts: Iterable[Constant], shape: tuple[int, ...], dtype: Any
    ) -> Constant:
        """What ``make`` returns for the arrays of these parts, of a shape and dtype that are known before."""
        self = cls.__new__(cls)
        self._array, self._make, self._mark = None, make, None
        self.parts, self.shape, self.dtype = tuple(parts), tuple(shape), np.dtype(dtype)
        return self

    def array(self) -> np.ndarray:
        """The values, not to be written to.

        Raises
        ------
        RuntimeError
            If they have changed since the network was compiled.
        """
        if self._make is not None:
            with np.errstate(all="ignore"):  # NaN and infinity are what they are
                made = self._make(*(part.array() for part in self.parts))
            assert made.shape == self.shape, (made.shape, self.shape)
            return made.astype(self.dtype, copy=False)
        assert self._array is not None
        if self._mark is not None and self._mark != _marked(self._array):
            raise RuntimeError(
                "the model's weights have changed since it was compiled, and the network needs them again (for another "
                "shape of inputs, to be saved or to be pickled): compile it again, or with keep_weights=True, which "
                "keeps a copy"
            )
        return self._array

    def kept(self) -> Constant:
        """The same values in memory of its own."""
        return Constant(np.array(self.array()))

    @property
    def is_shared(self) -> bool:
        """Whether somebody else may change it, or a part of it."""
        return self._mark is not None or any(part.is_shared for part in self.parts)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __reduce__(self) -> tuple[Any, ...]:
        return Constant, (self.array(),)


def _marked(array: np.ndarray) -> int:
    return _core.fingerprint(np.ascontiguousarray(array), _config.get_num_threads())


@dataclass(eq=False, slots=True)
class Value:
    """What a node computes, a graph is given, or is known (``constant``)."""

    name: str
    constant: Constant | None = None
    producer: Node | None = field(default=None, repr=False)
    shape: Shape | None = None  # of an input, as it was declared
    dtype: np.dtype | None = None  # of an input


@dataclass(eq=False, slots=True)
class Node:
    """One operator: its name in `fastconv.graph.operators`, what it reads (None: an input left out) and writes.

    Graphs that it may stand for are in the attribute ``branches``.
    """

    op: str
    name: str
    inputs: list[Value | None]
    outputs: list[Value] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Value:
        (value,) = self.outputs
        return value

    def given(self) -> Iterator[Value]:
        """The inputs that are there."""
        return (value for value in self.inputs if value is not None)


#: The nodes that read each value, once for each time that they do.
Readers = dict[Value, list[Node]]


class Graph:
    """Nodes in an order in which they can be computed.

    Attributes
    ----------
    inputs, outputs : list of Value
    output_names : list of str
        What the model calls its outputs, if it does; otherwise they are called as the values are.
    output_dtypes : list of numpy.dtype or None
        What the model says of them, if it does.
    nodes : list of Node

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.graph import Graph
    >>> graph = Graph("small")
    >>> x = graph.input("x", (1, 2), np.float32)
    >>> graph.outputs = [graph.add("map", [x], program=(("relu",),))]
    >>> print(graph)
    small(x: float32[1, 2]) -> map0
      map0 = map(x)  program=(('relu',),)
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.output_names: list[str] = []
        self.output_dtypes: list[np.dtype | None] = []
        self.nodes: list[Node] = []
        self._computed = 0  # bytes of constants

    # --- making -----------------------------------------------------------------------------------

    def input(self, name: str, shape: Shape | None, dtype: Any) -> Value:
        value = Value(name, shape=shape, dtype=np.dtype(dtype))
        self.inputs.append(value)
        return value

    def constant(self, array: Any, name: str = "", shared: bool = False) -> Value:
        """A value that is known; ``shared``: of an array that somebody else may change."""
        known = array if isinstance(array, Constant) else Constant(np.asarray(array), shared)
        return Value(name or "constant", constant=known)

    def computed(self, array: np.ndarray, name: str) -> Value:
        """A value that has become known.

        Raises
        ------
        ValueError
            If those of the graph take too much memory together.
        """
        self._computed += array.nbytes
        if self._computed > _COMPUTED:
            raise ValueError(f"what is computed of constants takes more than {_COMPUTED >> 20} MiB")
        return self.constant(array, name)

    def add(self, op: str, inputs: Iterable[Value | None], name: str = "", **attributes: Any) -> Value:
        """A node with one output, at the end."""
        return self.add_node(op, inputs, 1, name, **attributes).output

    def add_node(
        self, op: str, inputs: Iterable[Value | None], outputs: int, name: str = "", **attributes: Any
    ) -> Node:
        node = self._made(op, list(inputs), outputs, name, attributes)
        self.nodes.append(node)
        return node

    def insert(self, before: Node, op: str, inputs: Iterable[Value | None], name: str = "", **attributes: Any) -> Value:
        """A node with one output, in front of another."""
        node = self._made(op, list(inputs), 1, name, attributes)
        self.nodes.insert(self.nodes.index(before), node)
        return node.output

    def _made(self, op: str, inputs: list[Value | None], outputs: int, name: str, attributes: dict[str, Any]) -> Node:
        name = name or f"{op}{sum(node.op == op for node in self.nodes)}"
        node = Node(op, name, inputs, attributes=attributes)
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        node.outputs = [Value(name, producer=node) for name in names]
        return node

    def adopt(self, node: Node, inputs: Iterable[Value | None]) -> Node:
        """A node like that of another graph, of other inputs, at the end."""
        copy = Node(node.op, node.name, list(inputs), attributes=dict(node.attributes))
        copy.outputs = [Value(value.name, producer=copy) for value in node.outputs]
        self.nodes.append(copy)
        return copy

    # --- asking -----------------------------------------------------------------------------------

    def readers(self) -> Readers:
        """Of all values that are read."""
        found: Readers = {}
        for node in self.nodes:
            for value in node.given():
                found.setdefault(value, []).append(node)
        return found

    def constants(self) -> Iterator[Value]:
        """The constants that nodes read or the graph returns, each once."""
        seen: set[Value] = set()
        for value in (*(v for node in self.nodes for v in node.given()), *self.outputs):
            if value.constant is not None and value not in seen:
                seen.add(value)
                yield value

    def graphs(self) -> Iterator[Graph]:
        """This one, and those within it."""
        yield self
        for node in self.nodes:
            for branch in node.attributes.get("branches", ()):
                yield from branch.graphs()

    # --- changing ---------------------------------------------------------------------------------

    def replace(self, old: Value, new: Value, readers: Readers | None = None) -> None:
        """Whoever reads ``old`` reads ``new``; ``readers`` are kept up, and save looking for those."""
        reading = self.nodes if readers is None else readers.pop(old, [])
        for node in reading:
            node.inputs = [new if value is old else value for value in node.inputs]
        if readers is not None:
            readers.setdefault(new, []).extend(reading)
        if old in self.outputs:
            self.outputs = [new if value is old else value for value in self.outputs]

    def remove(self, node: Node, instead: Value | None = None, readers: Readers | None = None) -> None:
        """Without a node, whose only output is replaced, if something is given instead; ``readers`` are kept up."""
        if instead is not None:
            self.replace(node.output, instead, readers)
        if readers is not None:
            for value in dict.fromkeys(node.given()):
                readers[value] = [reader for reader in readers.get(value, ()) if reader is not node]
        self.nodes.remove(node)

    def verify(self) -> None:
        """Every value is there before it is read, and is written once.

        Raises
        ------
        ValueError
            With the node's name.
        """
        known = set(self.inputs)
        for node in self.nodes:
            for value in node.given():
                if value not in known and value.constant is None:
                    raise ValueError(f"node {node.name!r} reads {value.name!r}, which nothing before it computes")
            for value in node.outputs:
                if value in known or value.producer is not node:
                    raise ValueError(f"node {node.name!r} writes {value.name!r}, which is not its own")
                known.add(value)
        for value in self.outputs:
            if value not in known and value.constant is None:
                raise ValueError(f"the graph returns {value.name!r}, which nothing computes")

    # --- looks ------------------------------------------------------------------------------------

    def __str__(self) -> str:
        inputs = ", ".join(f"{value.name}: {said_type(value)}" for value in self.inputs)
        lines = [f"{self.name}({inputs}) -> {', '.join(value.name for value in self.outputs)}"]
        for node in self.nodes:
            reads = ", ".join("-" if value is None else _read(value) for value in node.inputs)
            more = "".join(f"  {key}={value!r}" for key, value in node.attributes.items())
            lines.append(f"  {', '.join(v.name for v in node.outputs)} = {node.op}({reads}){more}")
        return "\n".join(lines)


def _read(value: Value) -> str:
    if value.constant is None:
        return value.name
    return f"{value.constant.dtype}[{', '.join(map(str, value.constant.shape))}]"


def said_type(value: Value) -> str:
    """The declared type of an input, ``?`` where a size may vary."""
    shape = "..." if value.shape is None else ", ".join("?" if n is None else str(n) for n in value.shape)
    return f"{value.dtype}[{shape}]"
