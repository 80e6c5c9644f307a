# SPDX-License-Identifier: BSD-3-Clause
"""ONNX nodes in a graph: what they are translated to, now or when the sizes of the inputs are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv._names import only
from fastconv.graph.doors.onnx import functions, layers, numeric, recurrent, shapes  # noqa: F401 (they fill the table of translators)
from fastconv.graph.doors.onnx.site import TRANSLATORS, PlainNode, Site
from fastconv.graph.doors.onnx.sizes import computed, has_meaning
from fastconv.graph.ir import Graph, Value
from fastconv.graph.views import Type

__all__ = ["OnnxStep"]
__dir__ = only(__all__)

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


class OnnxStep:
    """A node that the graph has no operator for, or not yet.

    Attributes
    ----------
    node : PlainNode
    opset : int
        Of the node's domain.
    names : list of str
        Of what it reads.
    waits : bool
        Whether it may be an operator of the graph when the sizes of the inputs are known.
    """

    def __init__(self, node: PlainNode, opset: int, names: Sequence[str]) -> None:
        self.node, self.opset, self.names = node, opset, list(names)
        self.waits = False

    @property
    def outputs(self) -> list[str]:
        """Those that are given."""
        return [name for name in self.node.output if name]

    @property
    def is_pure(self) -> bool:
        """Whether it always returns the same for the same arrays."""
        return self.node.op_type not in _RANDOM and all(map(_is_plain, self.node.attributes.values()))

    @property
    def said(self) -> str:
        """The operator, with domain and version."""
        domain = self.node.domain
        return f"{domain + '.' if domain else ''}{self.node.op_type}-{self.opset}"

    # --- as nodes of the graph --------------------------------------------------------------------

    def translated(self, graph: Graph, inputs: Sequence[Value], known: Mapping[Value, Any]) -> list[Value] | None:
        """Nodes of the graph that do the same, or constants, if there are any, and the values of the given outputs."""
        return self.attempt(graph, inputs, known)[0]

    def attempt(
        self, graph: Graph, inputs: Sequence[Value], known: Mapping[Value, Any]
    ) -> tuple[list[Value] | None, bool]:
        """The same, and whether that may be another answer once the sizes of the inputs are known."""
        given = dict(zip(self.names, inputs, strict=True))
        reads = [given[name] if name else None for name in self.node.input]
        site = Site(graph, self.node, self.opset, reads, known)
        start = len(graph.nodes)
        try:
            made = self._made(site)
        except (LookupError, AttributeError, ArithmeticError) as error:  # of attributes that make no sense
            raise ValueError(f"it makes no sense: {type(error).__name__}: {error}") from error
        if made is None:
            del graph.nodes[start:]
            return None, site.waits
        values = made if isinstance(made, list) else [made]
        return [v for v, name in zip(values, self.node.output, strict=False) if name and v is not None], False

    def _made(self, site: Site) -> Any:
        translator = TRANSLATORS.get((self.node.domain, self.node.op_type))
        made = None if translator is None else translator(site)
        if made is None and has_meaning(self.node.op_type, self.node.domain):
            array = computed(site)
            if array is not None:
                return site.graph.computed(array, self.outputs[0])
        return made

    # --- as a step --------------------------------------------------------------------------------

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        raise self._absent()

    def infer(self, types: Sequence[Type], constants: Sequence[np.ndarray | None]) -> list[Type]:
        raise self._absent()

    def _absent(self) -> NotImplementedError:
        return NotImplementedError(
            f"{self.said} is no operator of fastconv for inputs like these; compile the ONNX model, which may call "
            "onnx.reference"
        )

    # --- in files ---------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """What `of_record` makes it of, for JSON."""
        node = self.node
        attributes = {name: _written(value) for name, value in node.attributes.items()}
        fields = {"op_type": node.op_type, "domain": node.domain, "name": node.name, "attributes": attributes}
        return {**fields, "input": node.input, "output": node.output, "opset": self.opset, "names": self.names}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> OnnxStep:
        """ValueError, TypeError or KeyError if it makes no sense."""
        op_type, domain, name = (str(record[key]) for key in ("op_type", "domain", "name"))
        reads, writes, names = (tuple(map(str, record[key])) for key in ("input", "output", "names"))
        attributes = {str(key): _read(value) for key, value in record["attributes"].items()}
        if not set(reads) - {""} <= set(names):
            raise ValueError(f"node {name!r} reads {reads} and is given {names}")
        step = cls(PlainNode(op_type, domain, name, reads, writes, attributes), int(record["opset"]), names)
        step.waits = True
        return step


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (int, float, str)) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def _written(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "shape": value.shape, "numbers": value.reshape(-1).tolist()}
    return value


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return np.array(value["numbers"], value["dtype"]).reshape(value["shape"])
    return tuple(map(_read, value)) if isinstance(value, list) else value
