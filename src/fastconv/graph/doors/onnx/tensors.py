# SPDX-License-Identifier: BSD-3-Clause
"""Tensors and nodes of ONNX's as NumPy and Python have them, and weights that lie in files beside the model."""

from __future__ import annotations

import errno
import math
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    external_data_helper,
    helper,
    numpy_helper,
)

from fastconv._names import only
from fastconv.graph.doors.onnx.site import PlainNode, dtype_of

__all__ = ["array_of", "graphs_in", "plain", "read_external"]
__dir__ = only(__all__)


def array_of(tensor: TensorProto) -> np.ndarray:
    """The numbers of a tensor, in place where they lie as NumPy has them.

    Raises
    ------
    ValueError, NotImplementedError
        If its data are elsewhere, are not as many as its shape says, or are no numbers.
    """
    said = f"tensor {tensor.name!r}"
    if external_data_helper.uses_external_data(tensor):
        raise ValueError(f"{said} is in a file of its own: load the model with onnx.load, or give its path")
    dtype, shape = dtype_of(tensor.data_type, said), tuple(tensor.dims)
    try:
        if min(shape, default=0) < 0:
            raise ValueError("a size is negative")
        plain = tensor.HasField("raw_data") and dtype.kind in "fiub" and dtype.isbuiltin == 1
        if plain and sys.byteorder == "little":
            return np.frombuffer(tensor.raw_data, dtype).reshape(shape)
        return np.asarray(numpy_helper.to_array(tensor))
    except MemoryError:
        raise
    except Exception as error:  # onnx has many ways to say that numbers are missing
        raise ValueError(f"{said} of shape {shape} is damaged: {error}") from error


def plain(node: NodeProto) -> PlainNode:
    """A node in Python's own types; tensors that NumPy cannot have stay what they are."""
    attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
    return PlainNode(node.op_type, node.domain, node.name, tuple(node.input), tuple(node.output), attributes)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, TensorProto):
        try:
            return array_of(value)
        except NotImplementedError:
            return value
    return value if isinstance(value, (int, float, str)) or not hasattr(value, "__len__") else tuple(map(_plain, value))


def graphs_in(body: GraphProto | FunctionProto) -> Iterator[tuple[GraphProto | FunctionProto, int]]:
    """A graph and those in its nodes, each with how many others it lies in; who stops in time goes no deeper."""
    waiting = [(body, 0)]
    while waiting:
        graph, depth = waiting.pop()
        yield graph, depth
        for node in graph.node:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                waiting.extend((g, depth + 1) for g in (*inner, *attribute.graphs))


def read_external(model: ModelProto, folder: Path) -> None:
    """Fills in the tensors whose data lie in files of the model's folder.

    Raises
    ------
    ValueError
        If a file is anywhere else, whichever way it is named, or is shorter than a tensor says.
    OSError
        If it cannot be read; FileNotFoundError if there is none.
    """
    for body in (model.graph, *model.functions):
        for graph, _ in graphs_in(body):
            for tensor in _tensors(graph):
                if tensor.data_location == TensorProto.EXTERNAL:
                    _fill(tensor, folder)


def _tensors(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    if isinstance(graph, GraphProto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _fill(tensor: TensorProto, folder: Path) -> None:
    said = f"tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _inside(folder, entries.get("location", ""), said)
    try:
        offset = int(entries.get("offset", 0))
        nbytes = math.prod(tensor.dims) * dtype_of(tensor.data_type, said).itemsize
        length = int(entries.get("length", nbytes))
    except ValueError as error:
        raise ValueError(f"{said} does not say where in {path} it is: {error}") from error
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if min(offset, length) < 0 or offset + length > status.st_size:
                raise ValueError(
                    f"{said} is {length} bytes from byte {offset} on of {path}, which has {status.st_size}"
                )
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"{said} is in a file that is not there", str(path)) from None
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _inside(folder: Path, location: str, said: str) -> Path:
    """The file of that name in the folder, whatever links there are."""
    try:
        root, path = (Path(os.path.realpath(p)) for p in (folder, folder / location))
        inside = path != root and path.is_relative_to(root)
        if inside and path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no file")
    except ValueError as error:  # of a name that no file can have
        raise ValueError(f"{said} is in {location!r}: {error}") from error
    if not inside:
        raise ValueError(f"{said} is in {location!r}, which is outside of the model's folder, {folder}")
    return path
