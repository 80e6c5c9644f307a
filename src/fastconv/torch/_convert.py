# SPDX-License-Identifier: BSD-3-Clause
"""Models for inference: compiled networks behind torch's modules."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.compiler import is_dynamo_compiling

from fastconv.graph.doors.fx import Tracer, is_torchs
from fastconv.torch._accelerate import accelerate
from fastconv.torch._functions import Left, _batched, _each, _served
from fastconv.torch._library import FORMATS, array, recorder, tensor
from fastconv.torch._packed import PackedWeights, has_gradients
from fastconv.torch._regions import with_regions

__all__ = ["convert"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d),
)


class PackedConv(nn.Module):
    """A convolution by itself, with packed weights."""

    layer: Any  # one of torch's convolutions

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        rank = layer.weight.ndim - 2
        transposed = isinstance(layer, _TRANSPOSED)
        extra = tuple(layer.output_padding) if transposed else (0,) * rank
        sizes = (tuple(layer.stride), tuple(_each(layer.padding, rank)), tuple(layer.dilation))
        self.geometry = (*sizes, transposed, extra, layer.groups)
        self.packed = PackedWeights()

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        layer, rank = self.layer, self.layer.weight.ndim - 2
        if output_size is not None:
            return layer(input, output_size)
        try:
            x, weight, bias = _served(input, layer.weight, layer.bias)
            x, batched = _batched(x, rank)
            if not batched or has_gradients(x, weight, bias):
                raise Left("not a batch for inference")
        except Left:
            return layer(input)
        # Of one axis, torch has no format for channels that come last.
        form = FORMATS.get(x.ndim)
        last = form is not None
        x = array(x if form is None else x.contiguous(memory_format=form), last)
        return tensor(self.packed.plan(x.shape, weight, bias, self.geometry, last)(x), last)

    def __prepare_scriptable__(self) -> nn.Module:
        return self.layer


class _Accelerated(nn.Module):
    """A pooling layer whose functions are fastconv's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with accelerate():
            return self.layer(*args, **kwargs)

    def __prepare_scriptable__(self) -> nn.Module:
        return self.layer


class Converted(nn.Module):
    """A model with compiled networks for what they can compute, and with the names and the layers of its own.

    The model itself stands behind it, and takes its place where something records operators, a layer is put in training
    mode, or it can no longer be traced. Whoever changes a layer, a parameter or a hook has it compiled anew.
    """

    def __new__(cls, model: nn.Module) -> Converted:
        # A class of its own, since torch.fx, torch.export and others look at the arguments of a class's forward.
        forward = functools.wraps(type(model).forward)(Converted.forward)
        return super().__new__(type(cls.__name__, (Converted,), {"forward": forward}))

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple: no layer, for all of its layers are ours
        mine = self.__dict__
        for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            mine[name] = model.__dict__[name]
        self.training = model.training
        self._forget()

    def _forget(self) -> None:
        model = self._model[0]
        self._layers = list(model.modules())
        tables = (table for m in self._layers for table in (m._parameters, m._buffers, m._modules))
        self._tables = [table for table in tables if table]
        self._hooks = [hooks for m in self._layers for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._state = self._look()
        self._compiled: dict[frozenset[str], fx.GraphModule | None] = {}
        parameters = inspect.signature(model.forward).parameters.values()
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

    def _look(self) -> tuple[list[int], list[int]]:
        """What the model consists of."""
        return [id(x) for table in self._tables for x in table.values()], [len(hooks) for hooks in self._hooks]

    def compiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule | None:
        """The networks for these arguments, and what stands between them; None if fx cannot trace the model."""
        if self._state != self._look():
            self._forget()
        given = self._given(args, kwargs) if self._defaults else frozenset()
        if given not in self._compiled:
            self._compiled[given] = self._made(given)
        return self._compiled[given]

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> frozenset[str]:
        """Arguments that have defaults, and are given all the same."""
        bound = inspect.signature(self._model[0].forward).bind_partial(*args, **kwargs)
        return frozenset(bound.arguments.keys() & self._defaults.keys())

    def _made(self, given: frozenset[str]) -> fx.GraphModule | None:
        # Tracing looks through modules that are not torch's own, and would forget their hooks.
        if any(_has_hooks(child) for child in self._layers if not is_torchs(child)):
            return None
        source = self._source({name: default for name, default in self._defaults.items() if name not in given})
        if source is None:
            return None
        made = with_regions(source, {}, own=True)
        for node in made.graph.nodes:
            if node.op == "call_module":
                layer = _replacement(made.get_submodule(str(node.target)))
                if layer is not None:
                    made.set_submodule(str(node.target), layer)
        return made

    def _source(self, known: dict[str, Any]) -> fx.GraphModule | None:
        """The model as a graph of torch's own operators, for arguments of which some are known."""
        (model,) = self._model
        try:
            return fx.GraphModule(model, Tracer().traced(model, known))
        except Exception:  # what fx cannot trace says so in many ways
            return None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        (model,) = self._model
        if is_dynamo_compiling() or recorder() is not None or any(isinstance(x, fx.Proxy) for x in args):
            return model.forward(*args, **kwargs)
        if any(layer.training for layer in self._layers):
            return model.forward(*args, **kwargs)
        compiled = self.compiled(args, kwargs)
        return (model if compiled is None else compiled).forward(*args, **kwargs)

    def train(self, mode: bool = True) -> Converted:
        self._model[0].train(mode)
        return super().train(mode)

    def __reduce__(self) -> tuple[Any, ...]:
        made = ("_layers", "_tables", "_hooks", "_state", "_compiled", "_defaults")
        state = {name: value for name, value in self.__dict__.items() if name not in made}
        return Converted, self._model, state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._forget()

    def __prepare_scriptable__(self) -> nn.Module:
        """What reads code instead of running it reads that of the graph, if there is one."""
        return self._source(self._defaults) or self._model[0]

    def _get_name(self) -> str:
        return f"Converted{self._model[0]._get_name()}"


def convert(module: nn.Module) -> nn.Module:
    """A copy of a model for inference, with fastconv's convolutions and poolings.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, or it is put there. Its parameters are copied.

    Returns
    -------
    torch.nn.Module
        In evaluation mode; its parameters want no gradients, and have the names that they have in the model. What
        `torch.fx` can trace (a graph that does not depend on data) is run by networks as `fastconv.compile` makes them,
        wherever a row of calls has a meaning there; what stands in between, and layers with hooks, run as they are.
        Results are channels_last where an input is. Where it cannot be traced, each convolution and each pooling is
        replaced by itself.

    Raises
    ------
    TypeError
        If `module` is no module.

    Notes
    -----
    Weights are packed at the first call, in one form for most sizes of images. Changes that torch makes to them in
    place later (``load_state_dict``, ``copy_`` under ``no_grad``) are noticed, and they are packed again; so is what is
    put in the place of a parameter or a layer, and a hook. Changes that go past torch's version counter are not:
    through ``.data`` in place, through a NumPy view, or inside ``torch.inference_mode()``. After such, convert again.
    Where gradients are wanted, the model's own layers compute.

    A converted model is traced, scripted and exported as the model itself is: packed weights are no part of a graph.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    >>> images = torch.ones(1, 3, 32, 32)
    >>> with torch.inference_mode():
    ...     bool(torch.allclose(fastconv.torch.convert(model)(images), model(images), atol=1e-5))
    True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; it needs to be a torch.nn.Module")
    module = copy.deepcopy(module).eval().requires_grad_(False)
    if (alone := _replacement(module)) is not None:
        return alone
    converted = Converted(module)
    return _layer_by_layer(module) if converted.compiled((), {}) is None else converted


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_conv(module: Any) -> bool:
    return (
        type(module) in (*_CONVS, *_TRANSPOSED)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.dtype in (torch.float32, torch.float64)
        and module.weight.device.type == "cpu"
        and not _has_hooks(module)
    )


def _replacement(module: Any) -> nn.Module | None:
    """What takes the place of a layer by itself, if anything does."""
    if _is_conv(module):
        return PackedConv(module)
    return _Accelerated(module) if type(module) in _POOLS and not _has_hooks(module) else None


def _layer_by_layer(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _replacement(child) or _layer_by_layer(child))
    return module
