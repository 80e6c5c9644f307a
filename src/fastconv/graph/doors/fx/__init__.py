# SPDX-License-Identifier: BSD-3-Clause
"""Graphs of `torch.fx`: of torch modules that it can trace, and those that dynamo finds.

A graph has no memory that is written twice. So a call that writes in place makes a new value, which from then on is
that of every name for the tensor; where other views of it are still read, it has no translation (`Aliases`). What has
none becomes a step in Python, which calls torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from fastconv import _args
from fastconv._names import only
from fastconv.graph.doors.fx.aliases import Aliases
from fastconv.graph.doors.fx.calls import Unknown
from fastconv.graph.doors.fx.reader import Reader
from fastconv.graph.doors.fx.tracing import Tracer, defaults_of, is_torchs, name_of, traced
from fastconv.graph.ir import Graph, Value

__all__ = ["Aliases", "Reader", "Tracer", "Unknown", "defaults_of", "is_torchs", "read_torch", "traced"]
__dir__ = only(__all__)


def read_torch(model: nn.Module, shapes: Any) -> Graph:
    """The graph of a module of torch's in evaluation mode, or of a graph of `torch.fx`."""
    source = traced(model, defaults_of(model, shapes if isinstance(shapes, Mapping) else None))
    called = {str(node.target) for node in source.graph.nodes if node.op == "call_module"}
    training = [name for name, child in source.named_modules() if name in called and child.training]
    if training or (model.training and not isinstance(model, fx.GraphModule)):
        name = training[0] if training else type(model).__name__
        raise ValueError(f"{name!r} is in training mode; a network is compiled in evaluation mode: call eval()")
    parameters = [p.dtype for p in (*model.parameters(), *model.buffers()) if p.dtype.is_floating_point]
    dtype = parameters[0] if parameters else torch.float32
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"model has weights of {dtype}; it needs torch.float32 or torch.float64")
    name = type(model).__name__ if not isinstance(model, fx.GraphModule) else model._get_name()
    reader = Reader(source, source.graph, name, np.dtype(str(dtype).removeprefix("torch.")))
    _inputs(reader, source.graph, shapes)
    for node in source.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            continue
        if node.op == "output":
            reader.graph.outputs = list(_outputs(reader, node.args[0]))
            continue
        try:
            try:
                reader.read(node)
            except Unknown:
                reader.foreign(node)
        except Unknown as reason:
            raise TypeError(f"node {node.name!r} ({node.target}) cannot be compiled: {reason}") from reason
    reader.graph.verify()
    return reader.graph


def _inputs(reader: Reader, source: fx.Graph, shapes: Any) -> None:
    """The inputs that are required, or whose shapes are given; the others have their defaults."""
    nodes = {name_of(node): node for node in source.nodes if node.op == "placeholder"}
    required = [name for name, node in nodes.items() if not node.args]
    if shapes is None or not isinstance(shapes, Mapping):
        first: Collection[str] = required or list(nodes)
        shapes = {next(iter(first), ""): shapes}
        if not first:
            raise TypeError("model takes no inputs; it needs one")
    unknown = [name for name in shapes if name not in nodes]
    if unknown:
        raise ValueError(f"input_shape names {unknown[0]!r}; the inputs are {', '.join(nodes)}")
    for name, node in nodes.items():
        if name in shapes or name in required:
            reader.input(node, shapes.get(name)).name = name
        else:
            reader.values[node] = node.args[0]


def _outputs(reader: Reader, result: Any) -> Iterator[Value]:
    """The tensors that a model returns: one, or a tuple, list or dictionary of them."""
    if isinstance(result, fx.Node):
        value = reader.values.get(result)
        value = reader.outside(result) if value is None and result.op == "get_attr" else value
        if isinstance(value, (tuple, list)):
            raise TypeError(f"the model returns {_args.said(value)} of {result.name!r}; it needs to return tensors")
        if not isinstance(value, Value):
            raise TypeError(f"the model returns {result.name!r}, which is no tensor")
        yield value
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from _outputs(reader, part)
    elif isinstance(result, dict):
        for part in result.values():
            yield from _outputs(reader, part)
    else:
        raise TypeError(f"the model returns {_args.said(result)}; it needs to return tensors")
