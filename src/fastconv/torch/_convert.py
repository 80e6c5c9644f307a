# SPDX-License-Identifier: BSD-3-Clause
"""Models for inference: weights packed once, batch norm folded in, residuals and ReLU finished at the store."""

from __future__ import annotations

import copy
import operator
import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fastconv import _args
from fastconv.plan import ConvPlan
from fastconv.torch._accelerate import Served, accelerate
from fastconv.torch._functions import FUNCTIONS, Left, _batched, _each, _served
from fastconv.torch._ops import _FORMATS, _LAST, array, tensor

__all__ = ["convert"]

_PLANS = 8  # shapes of input that a layer keeps plans for
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RELUS = {nn.ReLU: "relu", nn.ReLU6: "relu6"}
_RELU_FUNCTIONS = {torch.relu: "relu", nn.functional.relu: "relu", nn.functional.relu6: "relu6"}
_ADDS = (operator.add, operator.iadd, torch.add)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)


class PackedConv(nn.Module):
    """A convolution with packed weights; what follows it in the model is part of it.

    Its parameters are those of the layer it replaces, and are read when a plan is made: changing them later has no
    effect on shapes that have been seen.
    """

    def __init__(self, layer: nn.Module, activation: str | None = None) -> None:
        super().__init__()
        self.layer, self.activation = layer, activation
        self._start()

    def _start(self) -> None:
        self.plans: OrderedDict[Any, ConvPlan] = OrderedDict()
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("plans", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start()

    def _plan(self, shape: tuple[int, ...], layout: str) -> ConvPlan:
        key = (shape, layout)
        with self.lock:
            plan = self.plans.get(key)
            if plan is None:
                rank, layer = self.layer.weight.ndim - 2, self.layer
                bias = None if layer.bias is None else array(layer.bias)
                sizes = (tuple(layer.stride), tuple(_each(layer.padding, rank)), tuple(layer.dilation), layer.groups)
                options = {"layout": layout, "activation": self.activation}
                plan = self.plans[key] = ConvPlan(shape, array(layer.weight), bias, *sizes, **options)
                if len(self.plans) > _PLANS:
                    self.plans.popitem(last=False)
            else:
                self.plans.move_to_end(key)
        return plan

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        rank = self.layer.weight.ndim - 2
        try:
            x, weight, other = _served(input, self.layer.weight, residual)
            x, batched = _batched(x, rank)
            if x.dtype != weight.dtype or not batched or (torch.is_grad_enabled() and input.requires_grad):
                raise Left("not inference")
        except Left:
            y = self.layer(input) if residual is None else self.layer(input) + residual
            return y if self.activation is None else getattr(nn.functional, self.activation)(y)
        form = _FORMATS.get(x.ndim)
        if form is None:  # one axis: torch has no format for channels that come last
            plan = self._plan(tuple(x.shape), _args.channels_first(rank))
            return tensor(plan(array(x), None if other is None else array(other)))
        x = array(x.contiguous(memory_format=form), True)
        if other is not None:
            other = array(other.contiguous(memory_format=form), True)
        return tensor(self._plan(x.shape, _LAST[rank])(x, other), True)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"


def convert(module: nn.Module) -> nn.Module:
    """A copy of a model for inference, with fastconv's convolutions and poolings.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, or it is put there. Its parameters are copied.

    Returns
    -------
    torch.nn.Module
        In evaluation mode. Weights are packed at the first call with each shape. Where `torch.fx` can trace the model
        (a graph that does not depend on data), batch norm is folded into the convolution before it, a residual that is
        added and a ReLU behind are finished as results are stored, poolings are fastconv's, and tensors stay
        channels_last from layer to layer; elsewhere each convolution is replaced by itself.

    Raises
    ------
    TypeError
        If `module` is no module.

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
    module = copy.deepcopy(module).eval()
    if _is_conv(module):
        return PackedConv(module)
    try:
        traced = fx.symbolic_trace(module)
    except Exception:  # what fx cannot trace says so in many ways
        return _layer_by_layer(module)
    return _fused(traced)


def _is_conv(module: nn.Module | None) -> bool:
    return (
        type(module) in _CONVS
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.dtype in (torch.float32, torch.float64)
        and module.weight.device.type == "cpu"
    )


def _layer_by_layer(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, PackedConv(child) if _is_conv(child) else _layer_by_layer(child))
    return module


def _fused(traced: fx.GraphModule) -> nn.Module:
    modules = dict(traced.named_modules())
    uses: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            uses[node.target] = uses.get(node.target, 0) + 1

    def called(node: Any, kind: Any) -> bool:
        return isinstance(node, fx.Node) and node.op == "call_module" and isinstance(modules.get(node.target), kind)

    def put(node: fx.Node, module: nn.Module) -> None:
        parent, _, name = node.target.rpartition(".")
        setattr(traced.get_submodule(parent), name, module)
        modules[node.target] = module

    for node in list(traced.graph.nodes):  # batch norm behind a convolution that nothing else reads
        before = node.args[0] if node.args else None
        if (
            called(node, _NORMS)
            and called(before, _CONVS)
            and len(before.users) == 1
            and uses[before.target] == uses[node.target] == 1
            and modules[node.target].track_running_stats
        ):
            put(before, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and _is_conv(modules.get(node.target)):
            put(node, PackedConv(modules[node.target]))
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in list(traced.graph.nodes):
        if node.op == "call_function" and node.target in FUNCTIONS:
            node.target = Served(node.target)
        elif node.op == "call_module" and isinstance(modules.get(node.target), _POOLS):
            put(node, _Accelerated(modules[node.target]))
        elif _is_add(node):
            _take_residual(traced, node, order, lambda n: _plain_conv(n, modules, uses))
        activation = _activation(node, modules)
        before = node.args[0] if node.args else None
        if activation and _plain_conv(before, modules, uses):
            modules[before.target].activation = activation
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class _Accelerated(nn.Module):
    """A pooling layer whose functions are fastconv's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Any:
        with accelerate():
            return self.layer(input)


def _plain_conv(node: Any, modules: dict[str, nn.Module], uses: dict[str, int]) -> bool:
    """Whether a node is a packed convolution that nothing else reads and that is not finished yet."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1 or uses[node.target] != 1:
        return False
    module = modules.get(node.target)
    return isinstance(module, PackedConv) and module.activation is None


def _is_add(node: fx.Node) -> bool:
    function = node.op == "call_function" and node.target in _ADDS
    method = node.op == "call_method" and node.target in ("add", "add_")
    both = len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)
    return (function or method) and both and node.args[0] is not node.args[1]


def _take_residual(traced: fx.GraphModule, node: fx.Node, order: dict[fx.Node, int], plain: Any) -> None:
    """An addition to a convolution's result becomes that convolution's residual."""
    pairs = [node.args, node.args[::-1]]
    # The later of the two convolutions, so that the other operand is there already.
    for conv, other in sorted(pairs, key=lambda pair: -order.get(pair[0], -1)):
        if plain(conv) and len(conv.args) == 1 and order.get(other, len(order)) < order[conv]:
            conv.args = (conv.args[0], other)
            node.replace_all_uses_with(conv)
            traced.graph.erase_node(node)
            return


def _activation(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    if node.op == "call_module":
        return _RELUS.get(type(modules.get(node.target)))
    if node.op == "call_function":
        return _RELU_FUNCTIONS.get(node.target)
    return "relu" if node.op == "call_method" and node.target in ("relu", "relu_") else None
