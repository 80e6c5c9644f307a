# SPDX-License-Identifier: BSD-3-Clause
"""Compiled networks in files: the graph as JSON, the weights beside it, nothing that depends on the instruction set."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastconv import io
from fastconv._names import only
from fastconv.graph.doors.onnx.step import OnnxStep
from fastconv.graph.ir import DEEPEST, Constant, Graph, Node, Value
from fastconv.graph.lowering import infer, known_types
from fastconv.graph.operators import OPERATORS
from fastconv.graph.views import Type

__all__ = ["DAMAGE", "damaged", "read_net", "save_net"]
__dir__ = only(__all__)

_GRAPH = "fastconv.graph"  # the entry of the file that is not a weight
_VERSION = 1
_WAITING = "onnx"  # in place of an operator: a node of ONNX's that waits for the sizes of what it reads
#: What a description that makes no sense may raise.
DAMAGE = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)


def save_net(graph: Graph, settings: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """See `CompiledNet.save`."""
    foreign: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    known = known_types(graph)
    types = {} if known is None else infer(graph, known)
    described = {"version": _VERSION, "settings": settings, **_described(graph, types, arrays, {}, foreign)}
    if foreign:
        said = f"nodes {', '.join(foreign)} call" if len(foreign) > 1 else f"node {foreign[0]} calls"
        raise ValueError(f"{said} Python, which cannot be saved")
    text = np.frombuffer(json.dumps(described).encode(), np.uint8)
    io.save({_GRAPH: text, **arrays}, path)


def _described(
    graph: Graph, types: dict[Value, Type], arrays: dict[str, np.ndarray], keys: dict[Constant, str], foreign: list[str]
) -> dict[str, Any]:
    """A graph for JSON, if all of its nodes can be described; those that cannot go to ``foreign``.

    Its constants go to ``arrays``, by ``keys`` that graphs within graphs share. A node waits no longer where all that
    it reads has ``types``.
    """
    numbers: dict[Value, int] = {}
    constants = []
    for value in graph.inputs:
        numbers[value] = len(numbers)
    for value in graph.constants():
        constant = value.constant
        assert constant is not None
        numbers[value] = len(numbers)
        if constant not in keys:
            keys[constant] = _key(value.name, arrays)
            arrays[keys[constant]] = np.asarray(constant.array())
        constants.append(keys[constant])
    nodes = []
    for node in graph.nodes:
        op, attributes = node.op, node.attributes
        if op == "choice":
            branches = [_described(branch, {}, arrays, keys, foreign) for branch in attributes["branches"]]
            attributes = {**attributes, "branches": branches}
        elif op == "python":
            if not _waits(node) or all(value in types for value in node.given()):
                foreign.append(repr(node.name))
                continue
            op, attributes = _WAITING, attributes["call"].record()
        for value in node.outputs:
            numbers[value] = len(numbers)
        nodes.append((op, node, attributes))
    if foreign:
        return {}
    return {
        "name": graph.name,
        "inputs": [{"name": v.name, "shape": v.shape, "dtype": str(np.dtype(v.dtype))} for v in graph.inputs],
        "constants": constants,
        "nodes": [
            {
                "op": op,
                "name": node.name,
                "inputs": [None if v is None else numbers[v] for v in node.inputs],
                "outputs": [v.name for v in node.outputs],
                "attributes": attributes,
            }
            for op, node, attributes in nodes
        ],
        "outputs": [numbers[v] for v in graph.outputs],
        "output_names": graph.output_names,
        "output_dtypes": [None if dtype is None else str(dtype) for dtype in graph.output_dtypes],
    }


def _waits(node: Node) -> bool:
    call = node.attributes["call"]
    return isinstance(call, OnnxStep) and call.waits and call.is_pure


def _key(name: str, taken: dict[str, np.ndarray]) -> str:
    key, count = name, 1
    while key in taken or key == _GRAPH:
        count += 1
        key = f"{name}#{count}"
    return key


def read_net(path: str | os.PathLike[str]) -> tuple[Graph, dict[str, Any]]:
    """The graph and the settings of a file; ValueError if there are none."""
    arrays = io.load(path)
    if _GRAPH not in arrays:
        raise ValueError(
            f"{os.fspath(path)} holds no network: there is no entry {_GRAPH!r}; fastconv.load reads weights"
        )
    try:
        described = json.loads(arrays.pop(_GRAPH).tobytes().decode())
        if described["version"] != _VERSION:
            raise ValueError(f"it is of version {described['version']}; this fastconv reads version {_VERSION}")
        return _graph_of(described, _Constants(arrays), 0), dict(described["settings"])
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """What to say of a file whose description makes no sense."""
    why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{os.fspath(path)} holds no network that can be run: {why}")


class _Constants(dict[str, Constant]):
    """Of a file, by their keys; graphs that read the same share it."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._arrays = arrays

    def __missing__(self, key: str) -> Constant:
        return self.setdefault(key, Constant(self._arrays[key]))


def _graph_of(described: dict[str, Any], constants: _Constants, depth: int) -> Graph:
    graph = Graph(str(described["name"]))
    values: list[Value] = []
    for entry in described["inputs"]:
        values.append(graph.input(str(entry["name"]), _tuple(entry["shape"]), np.dtype(entry["dtype"])))
    for key in described["constants"]:
        values.append(graph.constant(constants[key], key))
    for entry in described["nodes"]:
        op, name = entry["op"], str(entry["name"])
        if op != _WAITING and (op not in OPERATORS or op == "python"):
            raise ValueError(f"node {name!r} is of an unknown operator, {op!r}")
        inputs = [None if i is None else values[_index(i, values)] for i in entry["inputs"]]
        if op == _WAITING:
            node = Node("python", name, inputs, attributes={"call": _waiting(entry["attributes"], inputs)})
        elif op == "choice":
            if depth == DEEPEST:
                raise ValueError(f"node {name!r} has graphs that lie {depth + 1} deep in others; {DEEPEST} are read")
            branches = [_graph_of(branch, constants, depth + 1) for branch in entry["attributes"]["branches"]]
            node = Node(op, name, inputs, attributes={"branches": branches})
        else:
            attributes = {str(key): _tuple(value) for key, value in entry["attributes"].items()}
            node = Node(op, name, inputs, attributes=attributes)
        node.outputs = [Value(str(name), producer=node) for name in entry["outputs"]]
        if op == "choice":
            _check_choice(node)
        graph.nodes.append(node)
        values.extend(node.outputs)
    graph.outputs = [values[_index(i, values)] for i in described["outputs"]]
    graph.output_names = [str(name) for name in described.get("output_names", ())]
    dtypes = described.get("output_dtypes", ())
    graph.output_dtypes = [None if name is None else np.dtype(name) for name in dtypes]
    if graph.output_dtypes and len(graph.output_dtypes) != len(graph.outputs):
        raise ValueError(f"it has types of {len(graph.output_dtypes)} of {len(graph.outputs)} outputs")
    if graph.output_names and len(graph.output_names) != len(graph.outputs):
        raise ValueError(f"it names {len(graph.output_names)} of {len(graph.outputs)} outputs")
    graph.verify()
    return graph


def _check_choice(node: Node) -> None:
    sizes = [(len(branch.inputs), len(branch.outputs)) for branch in node.attributes["branches"]]
    if sizes != [(len(node.inputs) - 1, len(node.outputs))] * 2 or None in node.inputs:
        raise ValueError(f"node {node.name!r} chooses between graphs that do not fit it")


def _waiting(record: dict[str, Any], inputs: list[Value | None]) -> OnnxStep:
    step = OnnxStep.of_record(record)
    if len(step.names) != len(inputs) or None in inputs:
        raise ValueError(f"node {step.node.name!r} has names for {len(step.names)} of {len(inputs)} inputs")
    return step


def _index(i: Any, values: list[Value]) -> int:
    if not isinstance(i, int) or not 0 <= i < len(values):
        raise ValueError(f"a node reads value {i!r}, which nothing before it computes")
    return i


def _tuple(value: Any) -> Any:
    """JSON has lists for tuples."""
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value
