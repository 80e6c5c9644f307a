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
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.lowering import known_types
from fastconv.graph.operators import OPERATORS

__all__ = ["DAMAGE", "damaged", "read_net", "save_net"]
__dir__ = only(__all__)

_GRAPH = "fastconv.graph"  # the entry of the file that is not a weight
_VERSION = 1
_WAITING = "onnx"  # in place of an operator: a node of ONNX's that waits for the sizes of the inputs
#: What a description that makes no sense may raise.
DAMAGE = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError)


def save_net(graph: Graph, settings: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """See `CompiledNet.save`."""
    open_sizes = known_types(graph) is None
    waiting = {node for node in graph.nodes if node.op == "python" and open_sizes and _waits(node)}
    foreign = [repr(node.name) for node in graph.nodes if node.op == "python" and node not in waiting]
    if foreign:
        said = f"nodes {', '.join(foreign)} call" if len(foreign) > 1 else f"node {foreign[0]} calls"
        raise ValueError(f"{said} Python, which cannot be saved")
    for node in graph.nodes:
        if node.op == "choice":
            raise ValueError(f"node {node.name!r} chooses between two graphs, which cannot be saved")
    numbers: dict[Value, int] = {}
    arrays: dict[str, np.ndarray] = {}
    constants = []
    for value in graph.inputs:
        numbers[value] = len(numbers)
    for value in graph.constants():
        assert value.constant is not None
        numbers[value] = len(numbers)
        key = _key(value.name, arrays)
        constants.append(key)
        arrays[key] = np.asarray(value.constant.array())
    for node in graph.nodes:
        for value in node.outputs:
            numbers[value] = len(numbers)
    described = {
        "version": _VERSION,
        "name": graph.name,
        "settings": settings,
        "inputs": [{"name": v.name, "shape": v.shape, "dtype": str(np.dtype(v.dtype))} for v in graph.inputs],
        "constants": constants,
        "nodes": [
            {
                "op": _WAITING if node in waiting else node.op,
                "name": node.name,
                "inputs": [None if v is None else numbers[v] for v in node.inputs],
                "outputs": [v.name for v in node.outputs],
                "attributes": node.attributes["call"].record() if node in waiting else node.attributes,
            }
            for node in graph.nodes
        ],
        "outputs": [numbers[v] for v in graph.outputs],
        "output_names": graph.output_names,
        "output_dtypes": [None if dtype is None else str(dtype) for dtype in graph.output_dtypes],
    }
    text = np.frombuffer(json.dumps(described).encode(), np.uint8)
    io.save({_GRAPH: text, **arrays}, path)


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
        return _graph_of(described, arrays), dict(described["settings"])
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """What to say of a file whose description makes no sense."""
    why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{os.fspath(path)} holds no network that can be run: {why}")


def _graph_of(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> Graph:
    graph = Graph(str(described["name"]))
    values: list[Value] = []
    for entry in described["inputs"]:
        values.append(graph.input(str(entry["name"]), _tuple(entry["shape"]), np.dtype(entry["dtype"])))
    for key in described["constants"]:
        values.append(graph.constant(arrays[key], key))
    for entry in described["nodes"]:
        op, name = entry["op"], str(entry["name"])
        if op != _WAITING and (op not in OPERATORS or op in ("python", "choice")):
            raise ValueError(f"node {name!r} is of an unknown operator, {op!r}")
        inputs = [None if i is None else values[_index(i, values)] for i in entry["inputs"]]
        if op == _WAITING:
            node = Node("python", name, inputs, attributes={"call": _waiting(entry["attributes"], inputs)})
        else:
            attributes = {str(key): _tuple(value) for key, value in entry["attributes"].items()}
            node = Node(op, name, inputs, attributes=attributes)
        node.outputs = [Value(str(name), producer=node) for name in entry["outputs"]]
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
