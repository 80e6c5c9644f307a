# SPDX-License-Identifier: BSD-3-Clause
"""A backend for ONNX models (extra ``onnx``): `onnx.backend.base.Backend` over compiled networks.

``prepare``, ``run_model``, ``run_node`` and ``supports_device`` are functions of this module, too, so that code for
another backend changes one import.

>>> import numpy as np
>>> import fastconv.onnx
>>> from onnx import TensorProto, helper
>>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy")
>>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", [x], [y])
>>> model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
>>> fastconv.onnx.prepare(model).run([np.full((2, 3), -1, np.float32)])[0]
array([[0., 0., 0.],
       [0., 0., 0.]], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, defs, helper
from onnx.backend import base
from onnx.reference.op_run import OpRun

from fastconv._names import only
from fastconv.graph import CompiledNet, compile
from fastconv.graph.doors.onnx.site import TRANSLATORS

__all__ = ["Backend", "BackendRep", "ops", "prepare", "run_model", "run_node", "supports_device"]
__dir__ = only(__all__)


class BackendRep(base.BackendRep):  # type: ignore[misc]
    """A model that is ready to run.

    Attributes
    ----------
    net : CompiledNet
    """

    def __init__(self, net: CompiledNet) -> None:
        self.net = net

    def run(self, inputs: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        """Run it.

        Parameters
        ----------
        inputs : sequence of array_like, dict by name, or one array
            Of the model's inputs.

        Returns
        -------
        tuple of numpy.ndarray
            The outputs, which are attributes by name as well where they have names that can be.

        Raises
        ------
        ValueError, TypeError
            If an input is missing, unknown, or of another shape or dtype than the model says.
        """
        if isinstance(inputs, Mapping):
            found = self.net(**inputs)
        elif isinstance(inputs, Sequence):
            found = self.net(*inputs)
        else:
            found = self.net(inputs)
        results = found if isinstance(found, tuple) else (found,)
        names = [t.name for t in self.net.outputs]
        return base.namedtupledict("Outputs", names)(*results)


class Backend(base.Backend):  # type: ignore[misc]
    """Runs ONNX models of opsets 7 to the newest of the installed ``onnx`` on the CPU."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether it can be prepared."""
        try:
            cls.prepare(model, device, **kwargs)
        except (ValueError, TypeError, NotImplementedError):
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """Compile a model.

        Parameters
        ----------
        model : onnx.ModelProto or path
        device : str
            "CPU", with a number or without.
        **kwargs
            As for `fastconv.compile`.

        Returns
        -------
        BackendRep

        Raises
        ------
        ValueError, TypeError, NotImplementedError
            If the device is another, or the model cannot be run; its node is named.
        """
        _check(device)
        return BackendRep(compile(model, **kwargs))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[np.ndarray, ...]:
        """Compile a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[np.ndarray, ...]:
        """Run a single node on arrays.

        Parameters
        ----------
        node : onnx.NodeProto
        inputs : sequence of array_like, or dict by name
        device : str
        outputs_info : ignored
        opset_version : int, optional
            Of the node's domain; the newest by default.

        Returns
        -------
        tuple of numpy.ndarray
        """
        _check(device)
        names = list(dict.fromkeys(name for name in node.input if name))
        if isinstance(inputs, Mapping):
            arrays = [np.asarray(inputs[name]) for name in names]
        else:
            given = [inputs] if isinstance(inputs, np.ndarray) else inputs
            by_name = dict(zip([name for name in node.input if name], map(np.asarray, given), strict=True))
            arrays = [by_name[name] for name in names]
        version = kwargs.pop("opset_version", None)
        opsets = {"": defs.onnx_opset_version()}
        if version is not None or node.domain:
            opsets[node.domain] = 1 if version is None else version
        return cls.run_model(_model_of(node, names, arrays, opsets), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU."""
        return device.split(":")[0] == "CPU"


def _check(device: str) -> None:
    if not Backend.supports_device(device):
        raise ValueError(f"device is {device!r}; it needs to be 'CPU'")


def _model_of(
    node: NodeProto, names: Sequence[str], arrays: Sequence[np.ndarray], opsets: Mapping[str, int]
) -> ModelProto:
    """A model of one node, for arrays like these as the inputs of these names."""
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in zip(names, arrays, strict=True)
    ]
    wanted = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "node", infos, wanted)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*entry) for entry in opsets.items()])


#: What computes nothing, or is quicker where it stands.
_NOT_OURS = {"Cast", "Constant", "Dropout", "Identity", "Shape", "Size"}


def ops() -> list[type[OpRun]]:
    """The operators of the core for ``onnx.reference.ReferenceEvaluator(model, new_ops=fastconv.onnx.ops())``.

    Returns
    -------
    list of subclasses of onnx.reference.op_run.OpRun
        Each compiles its node for the last shapes that it was given. Weights are inputs to it, so it is slower than
        `prepare`, which packs them once; it is for seeing what a single operator does in a whole model.
    """
    names = [name for domain, name in TRANSLATORS if not domain and name not in _NOT_OURS]
    return [type(name, (_Op,), {"op_domain": "", "__module__": __name__}) for name in names]


class _Op(OpRun):  # type: ignore[misc]
    op_domain = ""

    def _run(self, *inputs: Any, **attributes: Any) -> tuple[np.ndarray, ...]:
        node, opsets = self.onnx_node, self.run_params["opsets"]
        given = {name: np.asarray(x) for name, x in zip(node.input, inputs, strict=False) if name and x is not None}
        kept: dict[Any, CompiledNet] = self.__dict__.setdefault("_nets", {})
        key = tuple((a.shape, a.dtype) for a in given.values())
        if key not in kept:
            kept.clear()
            kept[key] = compile(_model_of(node, list(given), list(given.values()), opsets))
        found = kept[key](*given.values())
        return found if isinstance(found, tuple) else (found,)


prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
