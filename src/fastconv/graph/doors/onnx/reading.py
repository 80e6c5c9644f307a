# SPDX-License-Identifier: BSD-3-Clause
"""From a model to a graph: inputs, constants, and node after node."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, inliner, version_converter

from fastconv._names import only
from fastconv.graph.doors.onnx.bounded import bound_shapes
from fastconv.graph.doors.onnx.limits import check_limits, name_of
from fastconv.graph.doors.onnx.modern import modern
from fastconv.graph.doors.onnx.reference import ReferenceStep, ReferenceSteps, captured
from fastconv.graph.doors.onnx.site import Known, dtype_of
from fastconv.graph.doors.onnx.tensors import array_of, read_external
from fastconv.graph.doors.onnx.together import reads_of, together
from fastconv.graph.folding import derived, folded
from fastconv.graph.ir import Graph, Shape, Value

__all__ = ["OLDEST", "read_onnx"]
__dir__ = only(__all__)

OLDEST = 7  # opset; before it, operands did not broadcast as in NumPy
_SMALL = 1024  # elements of constants that say something about shapes


def read_onnx(model: Any, shapes: Any) -> Graph:
    """The graph of a model, or of the file that has it; ``shapes`` as for `fastconv.compile`.

    Raises
    ------
    ValueError
        If the file is none, or the model makes no sense; what is wrong with it is named.
    NotImplementedError
        If the model is of an opset, or has an operator, that nobody here knows.
    """
    name = "model"
    if not isinstance(model, ModelProto):
        path = Path(os.fspath(model))
        name, model = path.stem, _loaded(path)
    check_limits(model)
    model = _converted(model)
    if model.functions:
        model = inliner.inline_local_functions(model)
    return _Reader(model, name).read(shapes)


def _loaded(path: Path) -> ModelProto:
    """The model of a file with all its weights, of which nothing outside of its folder is read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():  # those say so themselves
            raise ValueError("it is no file")
        model = onnx.load(path, load_external_data=False)
        if not model.HasField("graph") or not model.opset_import:
            raise ValueError("there is no graph in it, or no opset")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # protobuf's own, too
        raise ValueError(f"{path} is no ONNX model that can be read: {error}") from error
    read_external(model, path.parent)
    return model


def _converted(model: ModelProto) -> ModelProto:
    """A model of an older opset as one of the oldest that is read, by ONNX's own converter."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OLDEST)
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset <= newest:
        raise NotImplementedError(f"the model is of opset {opset}; it needs 1 to {newest}, the newest of onnx")
    if opset >= OLDEST:
        return model
    single = {tensor.name for tensor in model.graph.initializer if np.prod(tensor.dims) == 1}
    for node in model.graph.node:
        if node.op_type == "PRelu" and not single.issuperset(node.input[1:]):  # the converter leaves those of channels
            raise NotImplementedError(
                f"node {name_of(node)!r} is PRelu of opset {opset} with several slopes; it needs {OLDEST}"
            )
    try:
        return version_converter.convert_version(model, OLDEST)
    except Exception as error:
        raise NotImplementedError(
            f"the model is of opset {opset} and cannot be made one of {OLDEST}: {error}"
        ) from error


class _Reader:
    """Of a model, or of the body of a node of it, which sees what stands ``around`` it."""

    def __init__(
        self, model: ModelProto, name: str, body: onnx.GraphProto | None = None, around: _Reader | None = None
    ) -> None:
        self.model, self.proto = model, model.graph if body is None else body
        self.graph = Graph(model.graph.name or name if body is None else name)
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        if "ai.onnx" in self.opsets:
            self.opsets.setdefault("", self.opsets.pop("ai.onnx"))
        newest, opset = onnx.defs.onnx_opset_version(), self.opsets.get("", OLDEST)
        if not OLDEST <= opset <= newest:
            raise NotImplementedError(
                f"the model is of opset {opset}; it needs {OLDEST} to {newest}, the newest of onnx"
            )
        self.values: dict[str, Value] = {}
        self.known: dict[Value, Known] = {}
        self.types: dict[str, Known] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.opaque: set[str] = set()  # values that are no arrays of numbers
        if around is not None:
            self.values = {name: value for name, value in around.values.items() if value.constant is not None}

    def read(self, shapes: Any) -> Graph:
        self._constants()
        self._inputs(shapes)
        self.types = self._types()
        return self._whole()

    def body(self) -> Graph:
        """Of a body, whose inputs are there already."""
        self._constants()
        for node in self.nodes:
            if _makes_others(node, self.opsets):
                raise NotImplementedError(
                    f"node {name_of(node)!r} ({node.op_type}) returns what is no array of numbers"
                )
        return self._whole()

    def _constants(self) -> None:
        _check_names(value.name for value in (*self.proto.initializer, *self.proto.input, *self.proto.output))
        for tensor in self.proto.initializer:
            if tensor.data_type == TensorProto.STRING:
                self.opaque.add(tensor.name)
                self.nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
            else:
                self.values[tensor.name] = self.graph.constant(array_of(tensor), tensor.name)
        for sparse in self.proto.sparse_initializer:
            name = sparse.values.name
            raise NotImplementedError(f"tensor {name!r} is sparse; a network needs dense ones")
        self.nodes.extend(self.proto.node)

    def _whole(self) -> Graph:
        self._read_nodes()
        for output in self.proto.output:
            if output.name in self.opaque:
                raise NotImplementedError(f"the model returns {output.name!r}, which is no array of numbers")
            if output.name not in self.values:
                raise ValueError(f"the model returns {output.name!r}, which nothing computes")
            value = self.values[output.name]
            self.graph.outputs.append(value)
            self.graph.output_names.append(output.name)
            dtype = self.known.get(value, Known()).dtype
            self.graph.output_dtypes.append(dtype if value.constant is None else value.constant.dtype)
        self.graph.verify()
        return self.graph

    # --- what is known before ---------------------------------------------------------------------

    def _inputs(self, shapes: Any) -> None:
        given = [value for value in self.proto.input if value.name not in {*self.values, *self.opaque}]
        names = [value.name for value in given]
        if shapes is not None and not isinstance(shapes, Mapping):
            if not names:
                raise ValueError("input_shape is given; the model has no inputs")
            shapes = {names[0]: shapes}
        unknown = [name for name in shapes or {} if name not in names]
        if unknown:
            raise ValueError(f"input_shape names {unknown[0]!r}; the inputs are {', '.join(names)}")
        for info in given:
            if not info.type.HasField("tensor_type"):
                kind = info.type.WhichOneof("value") or "value without a type"
                raise NotImplementedError(f"input {info.name!r} is a {kind}; a network needs arrays")
            dtype = dtype_of(info.type.tensor_type.elem_type, f"input {info.name!r}")
            shape = _filled(info.name, _sizes(info), (shapes or {}).get(info.name))
            value = self.graph.input(info.name, shape, dtype)
            self.values[info.name] = value
            self.known[value] = Known(dtype, shape)

    def _types(self) -> dict[str, Known]:
        """What ONNX infers of all values, from the inputs' shapes as they were asked for, without large constants."""
        light = onnx.GraphProto(name="types")
        light.node.extend(self.proto.node)
        for value in self.graph.inputs:
            element = helper.np_dtype_to_tensor_dtype(value.dtype)
            light.input.append(helper.make_tensor_value_info(value.name, element, value.shape))
        for tensor in self.proto.initializer:
            dims = tuple(tensor.dims)
            light.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, dims))
            if np.prod(dims, dtype=np.int64) <= _SMALL:
                light.initializer.append(tensor)
        bound_shapes(light)
        light.output.extend(onnx.ValueInfoProto(name=value.name) for value in self.proto.output)
        model = helper.make_model(light, opset_imports=self.model.opset_import)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception:  # it refuses what is wrong, too; that is named where it is met
            return {}
        found = {}
        for info in (*inferred.value_info, *inferred.output):
            kind, element = info.type.WhichOneof("value"), info.type.tensor_type.elem_type
            if kind is not None and (kind != "tensor_type" or element == TensorProto.STRING):
                self.opaque.add(info.name)
            elif kind is not None:
                with suppress(ValueError, NotImplementedError):  # of no type, or one that nobody here computes with
                    dtype = dtype_of(element, f"{info.name!r}")
                    found[info.name] = Known(dtype, _sizes(info))
        return found

    # --- nodes ------------------------------------------------------------------------------------

    def _read_nodes(self) -> None:
        """One after the other, but for those that go together."""
        units = together(self.nodes, self.opaque)
        readers: defaultdict[str, set[int]] = defaultdict(set)
        for number, unit in enumerate(units):
            for name in (name for node in unit for name in reads_of(node)):
                readers[name].add(number)
        wanted = {*readers, *(value.name for value in self.proto.output)}
        for number, unit in enumerate(units):
            if len(unit) == 1:
                self._node(unit[0], number, wanted)
            else:
                self._several(unit, {out for node in unit for out in node.output if readers[out] - {number}})

    def _node(self, node: onnx.NodeProto, number: int, wanted: Set[str]) -> None:
        """One of which others want, or the graph returns, what has these names."""
        _check_names((node.name, node.op_type, node.domain, *node.input, *node.output))
        name = node.name or next((out for out in node.output if out), f"number {number}")
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain != node.domain:
            node = _copied(node, domain=domain)
        for read in reads_of(node):
            self._check_read(node, name, read)
        if domain not in self.opsets:
            raise ValueError(f"node {name!r} is of {domain!r}, of which the model does not say the version")
        _check(node, name, self.opsets)
        node = _without_unwanted(node, self.opsets, wanted)
        node, opsets = modern(node, self.opsets, lambda array: self._own(f"{name} scales", array))
        names = reads_of(node)
        outputs = [out for out in node.output if out]
        if not outputs:
            return
        inputs = [self.values[n] for n in names]
        try:
            step = ReferenceStep(node, opsets, names)
            made = self._made(step, inputs, name)
        except (ValueError, TypeError, NotImplementedError) as error:
            kind = next(k for k in (NotImplementedError, TypeError, ValueError) if isinstance(error, k))
            raise kind(f"node {name!r} ({node.op_type}-{opsets.get(domain, 1)}): {error}") from error
        depends = step.is_pure and all(v.constant is not None or self.known[v].of_sizes for v in inputs)
        for out, value in zip(outputs, made, strict=True):
            if out in self.values:
                raise ValueError(f"node {name!r} ({node.op_type}) writes {out!r}, which is there already")
            self.values[out] = value
            if value.constant is None and value not in self.known:
                of_sizes = depends or (value.producer is not None and value.producer.op == "shape")
                self.known[value] = self.types.get(out, Known())._replace(of_sizes=of_sizes)

    def _several(self, nodes: list[onnx.NodeProto], wanted: set[str]) -> None:
        """Several as one step, of which these values are wanted elsewhere."""
        names: dict[str, None] = {}
        written: dict[str, None] = {}
        for node in nodes:
            _check_names((node.name, node.op_type, node.domain, *node.input, *node.output))
            for read in reads_of(node):
                if read not in written:
                    self._check_read(node, name_of(node), read)
                    names[read] = None
            _check(node, name_of(node), self.opsets)
            written.update(dict.fromkeys(node.output))
        wanted = wanted | {value.name for value in self.proto.output}
        outputs = [out for out in written if out and out in wanted and out not in self.opaque]
        if not outputs:
            return
        step, name = ReferenceSteps(nodes, self.opsets, list(names), outputs), name_of(nodes[-1])
        try:
            step.prepare()
        except NotImplementedError as error:
            raise NotImplementedError(f"node {name!r} ({step.said}): {error}") from error
        inputs = [self.values[n] for n in names]
        made = self.graph.add_node("python", inputs, len(outputs), name, call=step).outputs
        for out, value in zip(outputs, made, strict=True):
            self.values[out], self.known[value] = value, self.types.get(out, Known())

    def _check_read(self, node: onnx.NodeProto, name: str, read: str) -> None:
        if read not in self.values:
            raise ValueError(f"node {name!r} ({node.op_type}) reads {read!r}, which nothing before it computes")

    def _made(self, step: ReferenceStep, inputs: list[Value], name: str) -> list[Value]:
        """The values of a node's outputs, as constants where its inputs are."""
        start = len(self.graph.nodes)
        made = self._choice(step.protos[0], name)
        if made is None:
            made, step.waits = step.attempt(self.graph, inputs, self.known)
        if made is None:
            step.prepare()
            made = self.graph.add_node("python", inputs, len(step.outputs), name, call=step).outputs
        added, self.graph.nodes[start:] = self.graph.nodes[start:], []
        found: dict[Value, Value] = {}
        for node in added:
            node.inputs = [None if v is None else found.get(v, v) for v in node.inputs]
            arrays = folded(node, node.inputs)
            if arrays is None:
                weights = derived(node, node.inputs)
                if weights is None:
                    self.graph.nodes.append(node)
                else:
                    found[node.output] = self.graph.constant(weights, node.output.name)
            else:
                constants = (self.graph.computed(a, v.name) for a, v in zip(arrays, node.outputs, strict=True))
                found.update(zip(node.outputs, constants, strict=True))
        return [found.get(value, value) for value in made]

    def _choice(self, node: onnx.NodeProto, name: str) -> list[Value] | None:
        """An If as a choice between two graphs, if the graph has operators for all that is in them."""
        if node.domain or node.op_type != "If":
            return None
        bodies = {a.name: a.g for a in node.attribute}
        reads = {n: self.values[n] for n in captured(node) if self.values[n].constant is None}
        branches = []
        written = [i for i, out in enumerate(node.output) if out]
        for which in ("then_branch", "else_branch"):
            inner = _Reader(self.model, f"{name}.{which}", bodies[which], self)
            for n, value in reads.items():
                known = self.known.get(value, Known())
                inner.values[n] = inner.graph.input(n, known.shape, known.dtype or np.float32)
                inner.known[inner.values[n]] = known
            try:
                branch = inner.body()
            except NotImplementedError:
                return None
            if len(branch.outputs) != len(node.output):
                raise ValueError(f"its {which} returns {len(branch.outputs)} values; it needs {len(node.output)}")
            branch.outputs, branch.output_names, branch.output_dtypes = [branch.outputs[i] for i in written], [], []
            branches.append(branch)
        inputs = [self.values[node.input[0]], *reads.values()]
        return self.graph.add_node("choice", inputs, len(written), name, branches=branches).outputs

    def _own(self, name: str, array: np.ndarray) -> str:
        """A constant that the model has in another form."""
        self.values[name] = self.graph.constant(array, name)
        return name


def _check_names(names: Iterable[str | bytes]) -> None:
    """A ValueError if one is not in UTF-8, which protobuf then has as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"the model has the name {name!r}, which is no text in UTF-8")


def _check(node: onnx.NodeProto, name: str, opsets: dict[str, int]) -> None:
    """A ValueError if a node has not the inputs or attributes that its operator needs.

    ONNX's checker does not know what lies around a node, so of those that have graphs in them no more is asked than
    that the graphs, and what the node reads, are there. It lets operands of any number be left out (``Max(x, "")``).
    """
    if not onnx.defs.has(node.op_type, node.domain):
        return
    around = any(a.HasField("g") or a.graphs for a in node.attribute)
    if not around:
        context = onnx.checker.C.CheckerContext()
        context.ir_version, context.opset_imports = onnx.IR_VERSION, opsets
        try:
            onnx.checker.check_node(node, context)
        except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # which may quote bytes that are no text
            said = str(error).splitlines() or ["ONNX's checker refuses it"]  # some builds of onnx lose its words
            raise ValueError(f"node {name!r} ({node.op_type}): {said[0]}") from error
    schema = _schema(node, opsets)
    if schema is None:  # of an opset in which there is no such operator: whoever runs it says so
        return
    lacks = _attribute_amiss(node, schema) if around else None
    lacks = lacks or _input_amiss(node, schema)
    if lacks:
        raise ValueError(f"node {name!r} ({node.op_type}) {lacks}")


def _attribute_amiss(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str | None:
    kinds = {a.name: int(a.type) for a in node.attribute}
    for wanted in schema.attributes.values():
        kind = kinds.get(wanted.name)
        if kind is None and wanted.required:
            return f"lacks its attribute {wanted.name!r}"
        if kind not in (None, int(wanted.type)):
            return f"has of another type its attribute {wanted.name!r}"
    return None


def _input_amiss(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str | None:
    if not schema.min_input <= len(node.input) <= schema.max_input:
        return f"has {len(node.input)} inputs, which are too few or too many"
    for i, given in enumerate(node.input):
        wanted = schema.inputs[min(i, len(schema.inputs) - 1)]
        if not given and wanted.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
            return f"lacks its input {i}, {wanted.name!r}"
    return None


def _schema(node: onnx.NodeProto, opsets: dict[str, int]) -> onnx.defs.OpSchema | None:
    """What ONNX says of an operator as it is in the model's opset, if there is such a one."""
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None


def _makes_others(node: onnx.NodeProto, opsets: dict[str, int]) -> bool:
    """Whether the operator returns sequences or optional values, whatever it reads."""
    schema = _schema(node, opsets)
    outputs = [] if schema is None else schema.outputs
    return any(all(not kind.startswith("tensor") for kind in output.types) for output in outputs)


def _without_unwanted(node: onnx.NodeProto, opsets: dict[str, int], wanted: Set[str]) -> onnx.NodeProto:
    """A node whose optional outputs have no names where nobody wants them, as exporters leave the mask of a Dropout.

    How many a BatchNormalization of an older opset has says how it computes.
    """
    unwanted = {i for i, out in enumerate(node.output) if out and out not in wanted}
    schema = _schema(node, opsets) if unwanted else None
    if schema is None or len(unwanted) == len(node.output) or node.op_type == "BatchNormalization":
        return node
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    unwanted = {i for i in unwanted if i < len(schema.outputs) and schema.outputs[i].option == optional}
    return (
        _copied(node, output=["" if i in unwanted else out for i, out in enumerate(node.output)]) if unwanted else node
    )


def _copied(node: onnx.NodeProto, **changes: Any) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for key, value in changes.items():
        if isinstance(value, list):
            getattr(copy, key)[:] = value
        else:
            setattr(copy, key, value)
    return copy


def _sizes(info: onnx.ValueInfoProto) -> Shape | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)


def _filled(name: str, own: Shape | None, asked: Shape | None) -> Shape | None:
    """The model's shape with what was asked for; None asks for nothing."""
    if asked is None or own is None:
        return own if asked is None else asked
    if len(asked) != len(own):
        raise ValueError(f"input_shape is {asked} for {name!r}; the model says {len(own)} axes: {own}")
    return tuple(n if m is None else m for n, m in zip(own, asked, strict=True))
