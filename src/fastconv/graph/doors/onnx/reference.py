# SPDX-License-Identifier: BSD-3-Clause
"""Steps in Python, by `onnx.reference`: nodes that the graph has no operator for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastconv import _args
from fastconv._names import only
from fastconv.graph.doors.onnx.bounded import AXES, shape_input
from fastconv.graph.doors.onnx.site import dtype_of
from fastconv.graph.doors.onnx.step import OnnxStep
from fastconv.graph.doors.onnx.tensors import plain
from fastconv.graph.operators.foreign import DependsOnNumbers
from fastconv.graph.views import Type

__all__ = ["ReferenceStep", "ReferenceSteps", "captured"]
__dir__ = only(__all__)

_SMALL = 4096  # elements of constants that say something about shapes
_SEVERAL = "fastconv.several"  # a domain in which there is no operator
_CHANGED = {"Softmax", "LogSoftmax", "Hardmax"}  # in opset 13; the reference has the later meaning


def captured(node: NodeProto) -> list[str]:
    """What the graphs in a node's attributes read from around it."""
    names: list[str] = []
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += _free(graph)
    return list(dict.fromkeys(names))


def _free(graph: onnx.GraphProto) -> list[str]:
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    free: list[str] = []
    for node in graph.node:
        free += [name for name in (*node.input, *captured(node)) if name and name not in own]
        own.update(node.output)
    free += [v.name for v in graph.output if v.name and v.name not in own]
    return free


class ReferenceStep(OnnxStep):
    """What a node does to arrays. It is called with those inputs that are given, and returns the outputs that are."""

    def __init__(self, node: NodeProto, opsets: dict[str, int], names: Sequence[str]) -> None:
        super().__init__(plain(node), opsets.get(node.domain, 1), names)
        self.protos, self.opsets = [node], opsets
        self._evaluator: tuple[tuple[np.dtype, ...], ReferenceEvaluator] | None = None

    def __getstate__(self) -> Any:
        return self.protos[0].SerializeToString(), self.opsets, self.names, self.waits

    def __setstate__(self, state: Any) -> None:
        text, opsets, names, waits = state
        self.__init__(NodeProto.FromString(text), opsets, names)  # type: ignore[misc]
        self.waits = waits

    def _model(
        self, types: Sequence[Type] | None, constants: Sequence[np.ndarray | None], ranks: bool = True
    ) -> onnx.ModelProto:
        """Of this node alone, and what is known of its inputs."""
        inputs, initializers = [], []
        for at, name in enumerate(self.names):
            if types is None:
                inputs.append(onnx.ValueInfoProto(name=name))
            else:
                element = helper.np_dtype_to_tensor_dtype(types[at].dtype)
                inputs.append(helper.make_tensor_value_info(name, element, types[at].shape if ranks else None))
                if constants[at] is not None:
                    initializers.append(numpy_helper.from_array(constants[at], name))
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph(self.protos, "node", inputs, outputs, initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=opsets)

    def prepare(self) -> None:
        """NotImplementedError if nobody knows the operator."""
        try:
            ReferenceEvaluator(self._model(None, ()))
        except Exception as error:
            raise NotImplementedError(
                f"{self.said} is neither an operator of fastconv nor of onnx.reference: {_first_line(error)}"
            ) from error

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        dtypes = tuple(array.dtype for array in arrays)
        evaluator = self._evaluator
        if evaluator is None or evaluator[0] != dtypes:  # what some operators stand for depends on these
            types = [Type((), dtype) for dtype in dtypes]
            evaluator = dtypes, ReferenceEvaluator(self._model(types, (None,) * len(types), ranks=False))
            self._evaluator = evaluator
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = evaluator[1].run(self.outputs, dict(zip(self.names, arrays, strict=True)))
        except (NotImplementedError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"{self.said} cannot be computed: {_first_line(error)}") from error
        for name, result in zip(self.outputs, results, strict=True):
            if not isinstance(result, (np.ndarray, np.generic)) or result.dtype.hasobject or result.dtype.kind in "US":
                raise NotImplementedError(f"{self.said} returns {name!r}, which is no array of numbers")
        return [np.asarray(result) for result in results]

    def infer(self, types: Sequence[Type], constants: Sequence[np.ndarray | None]) -> list[Type]:
        """Types of the outputs, as ONNX infers them.

        Raises
        ------
        DependsOnNumbers
            If it cannot tell the shapes.
        NotImplementedError
            If `onnx.reference` does not have the operator as it was in this opset.
        """
        if not self.node.domain and self.node.op_type in _CHANGED and self.opsets.get("", 0) < 13:
            axis, rank = self.node.attributes.get("axis", 1), len(types[0].shape)
            if axis not in (-1, rank - 1):
                raise NotImplementedError(f"{self.said} along axis {axis} of {rank}, which meant all from there on")
        shape = shape_input(self.protos[0])
        count = math.prod(types[self.names.index(shape)].shape) if shape and len(self.protos) == 1 else 0
        if count > AXES:
            raise ValueError(f"its shape has {count} elements; arrays have at most {AXES} axes")
        found = self._inferred(types, [c if c is not None and c.size <= _SMALL else None for c in constants])
        if found is None:
            raise DependsOnNumbers(f"the shape of what {self.said} returns depends on numbers")
        return found

    def _inferred(self, types: Sequence[Type], constants: Sequence[np.ndarray | None]) -> list[Type] | None:
        try:
            model = onnx.shape_inference.infer_shapes(self._model(types, constants), strict_mode=True, data_prop=True)
        except Exception:  # of operators that it does not know
            return None
        found = []
        for value in model.graph.output:
            if value.type.WhichOneof("value") not in (None, "tensor_type"):
                raise NotImplementedError(f"{self.said} returns {value.name!r}, which is no array of numbers")
            tensor = value.type.tensor_type
            sizes: list[Any] = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
            if not tensor.elem_type or not tensor.HasField("shape") or None in sizes:
                return None
            dtype = dtype_of(tensor.elem_type, f"{value.name!r}")
            if min(sizes, default=0) < 0 or math.prod(sizes) > _args.LIMIT:
                raise ValueError(f"it would return an array of shape {tuple(sizes)}")
            found.append(Type(tuple(sizes), dtype))
        return found


class ReferenceSteps(ReferenceStep):
    """The same of several nodes that hand each other what is no array of numbers."""

    def __init__(
        self, nodes: Sequence[NodeProto], opsets: dict[str, int], names: Sequence[str], outputs: Sequence[str]
    ) -> None:
        kinds = dict.fromkeys(node.op_type for node in nodes)
        whole = helper.make_node(" and ".join(kinds), names, outputs, domain=_SEVERAL)
        super().__init__(whole, opsets, names)
        self.protos = list(nodes)

    def __getstate__(self) -> Any:
        return [node.SerializeToString() for node in self.protos], self.opsets, self.names, self.outputs

    def __setstate__(self, state: Any) -> None:
        texts, opsets, names, outputs = state
        self.__init__([NodeProto.FromString(t) for t in texts], opsets, names, outputs)  # type: ignore[misc]

    @property
    def is_pure(self) -> bool:
        return False

    @property
    def said(self) -> str:
        return self.node.op_type


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
