# SPDX-License-Identifier: BSD-3-Clause
"""Models for inference: weights packed once, batch norm folded in, residuals and activations finished with it."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fastconv.torch._accelerate import ORIGINALS, SERVED, accelerate
from fastconv.torch._functions import Left, _batched, _each, _served
from fastconv.torch._library import FORMATS, array, tensor
from fastconv.torch._packed import PackedWeights, has_gradients

__all__ = ["convert"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Sigmoid: "sigmoid",
}
_FUNCTIONS: dict[Any, str] = {getattr(nn.functional, name): name for name in _ACTIVATIONS.values()}
_FUNCTIONS |= {torch.relu: "relu", torch.sigmoid: "sigmoid"}
_METHODS: dict[Any, str] = {"relu": "relu", "relu_": "relu", "sigmoid": "sigmoid", "sigmoid_": "sigmoid"}
_ADDS = (operator.add, operator.iadd, torch.add)
#: Those that leave their operands as they are.
_OPERATORS = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow),
    *(operator.matmul, operator.neg, operator.getitem, operator.eq, operator.ne, operator.lt, operator.gt),
)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d),
)


class PackedConv(nn.Module):
    """A convolution with packed weights; what follows it in the model is part of it."""

    layer: Any  # one of torch's convolutions

    def __init__(self, layer: Any, activation: str | None = None) -> None:
        super().__init__()
        self.layer, self.activation = layer, activation
        rank = layer.weight.ndim - 2
        transposed = isinstance(layer, _TRANSPOSED)
        extra = tuple(layer.output_padding) if transposed else (0,) * rank
        sizes = (tuple(layer.stride), tuple(_each(layer.padding, rank)), tuple(layer.dilation))
        self.geometry = (*sizes, transposed, extra, layer.groups)
        self.packed = PackedWeights()

    def forward(self, input: Tensor, output_size: Any = None, residual: Tensor | None = None) -> Tensor:
        layer, rank = self.layer, self.layer.weight.ndim - 2
        if output_size is not None:
            return self._finished(layer(input, output_size), residual)
        try:
            x, weight, bias, other = _served(input, layer.weight, layer.bias, residual)
            x, batched = _batched(x, rank)
            if not batched or has_gradients(x, weight, bias, other):
                raise Left("not a batch for inference")
        except Left:
            return self._finished(layer(input), residual)
        # Of one axis, torch has no format for channels that come last.
        form = FORMATS.get(x.ndim)
        last = form is not None
        x = array(x if form is None else x.contiguous(memory_format=form), last)
        plan = self.packed.plan(x.shape, weight, bias, self.geometry, last, self.activation)
        if other is None:
            return tensor(plan(x), last)
        if other.ndim == x.ndim:
            added = array(other if form is None else other.contiguous(memory_format=form), last)
            if added.shape == plan.output_shape:
                return tensor(plan(x, added), last)
        # A sum that broadcasts is no residual, and whatever else may be added is torch's to add.
        plain = self.packed.plan(x.shape, weight, bias, self.geometry, last)
        return self._finished(tensor(plain(x), last), other)

    def _finished(self, y: Tensor, residual: Tensor | None) -> Tensor:
        y = y if residual is None else y + residual
        return y if self.activation is None else getattr(nn.functional, self.activation)(y)

    def __prepare_scriptable__(self) -> nn.Module:
        return self.layer  # nothing is finished outside of a _Converted

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"


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


class _Converted(fx.GraphModule):
    """A model of fused convolutions."""

    def __prepare_scriptable__(self) -> nn.Module:
        """The model in torch's own operators, for what reads code instead of running it."""
        graph, modules = fx.Graph(), dict(self.named_modules())
        graph.set_codegen(self.graph._codegen)
        nodes: dict[fx.Node, fx.Node] = {}
        copied: Any  # a node whose target is a name
        for node in self.graph.nodes:
            copied = nodes[node] = graph.node_copy(node, nodes.__getitem__)
            copied.target = ORIGINALS.get(node.target, node.target)
            layer = modules[node.target] if node.op == "call_module" else None
            if isinstance(layer, PackedConv):
                copied.target += ".layer"
                copied.kwargs = {name: value for name, value in copied.kwargs.items() if name != "residual"}
                if "residual" in node.kwargs:
                    nodes[node] = graph.call_function(operator.add, (copied, nodes[node.kwargs["residual"]]))
                if layer.activation is not None:
                    finish = getattr(nn.functional, layer.activation)
                    nodes[node] = graph.call_function(finish, (nodes[node],))
            elif isinstance(layer, _Accelerated):
                copied.target += ".layer"
        return fx.GraphModule(self, graph)


def convert(module: nn.Module) -> nn.Module:
    """A copy of a model for inference, with fastconv's convolutions and poolings.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, or it is put there. Its parameters are copied.

    Returns
    -------
    torch.nn.Module
        In evaluation mode; its parameters want no gradients. Where `torch.fx` can trace the model (a graph that does
        not depend on data), batch norm is folded into the convolution before it, a residual that is added and an
        activation behind (ReLU, ReLU6, SiLU, hardswish, sigmoid) are finished as results are stored, and tensors stay
        channels_last from layer to layer; elsewhere each convolution and each pooling is replaced by itself. Layers
        with hooks are left as they are.

    Raises
    ------
    TypeError
        If `module` is no module.

    Notes
    -----
    Weights are packed at the first call, in one form for most sizes of images, in four at most. Changes that torch
    makes to them in place later (``load_state_dict``, ``copy_`` under ``no_grad``) are noticed, and they are packed
    again. Changes that go past its version counter are not: through ``.data``, through a NumPy view, or inside
    ``torch.inference_mode()``. After such, convert again.

    A converted model is traced, scripted and exported with torch's own convolutions: packed weights are no part of a
    graph.

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
    # Tracing looks through modules that are not torch's own, and would forget their hooks.
    if any(_has_hooks(child) for child in module.modules() if not _is_torchs(child)):
        return _layer_by_layer(module)
    try:
        traced = _Converted(module, _Tracer().trace(module))
    except Exception:  # what fx cannot trace says so in many ways
        return _layer_by_layer(module)
    return _Fusion(traced).run()


def _in_place(function: Any) -> Any:
    def method(self: fx.Proxy, *args: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, *args), {})

    return method


class _Proxy(fx.Proxy):
    """What happens in place is traced as such: other names for a tensor see it."""

    __iadd__, __isub__, __imul__ = _in_place(operator.iadd), _in_place(operator.isub), _in_place(operator.imul)
    __itruediv__, __ipow__ = _in_place(operator.itruediv), _in_place(operator.ipow)
    __setitem__ = _in_place(operator.setitem)


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)


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


class _Fusion:
    """A traced model on its way to fused convolutions."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.modules: dict[Any, nn.Module] = dict(traced.named_modules())
        self.uses: dict[Any, int] = {}
        for node in traced.graph.nodes:
            if node.op == "call_module":
                self.uses[node.target] = self.uses.get(node.target, 0) + 1

    def run(self) -> nn.Module:
        nodes = list(self.traced.graph.nodes)
        for node in nodes:
            self._fold_norm(node)
        nodes = list(self.traced.graph.nodes)
        for node in nodes:
            if node.op == "call_function" and node.target in SERVED:
                node.target = SERVED[node.target]
            elif (replacement := _replacement(self._module(node))) is not None:
                self._put(node, replacement)
        order = {node: i for i, node in enumerate(nodes)}
        for node in nodes:
            if _is_add(node):
                self._take_residual(node, order)
            else:
                self._take_activation(node)
        self.traced.graph.lint()
        self.traced.delete_all_unused_submodules()
        self.traced.recompile()
        return self.traced

    def _module(self, node: Any) -> nn.Module | None:
        """The module that a node calls, unless something is to happen around it."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        module = self.modules.get(node.target)
        return None if module is None or _has_hooks(module) else module

    def _put(self, node: Any, module: nn.Module) -> None:
        parent, _, name = node.target.rpartition(".")
        setattr(self.traced.get_submodule(parent), name, module)
        self.modules[node.target] = module

    def _merge(self, node: fx.Node, conv: fx.Node) -> None:
        """What a node did is part of the convolution now."""
        node.replace_all_uses_with(conv)
        self.traced.graph.erase_node(node)

    def _is_single(self, node: Any, *kwargs: str) -> bool:
        """Whether a module is called here only, with one tensor and at most `kwargs`, and one node reads the result."""
        return (
            self._module(node) is not None
            and len(node.users) == 1
            and self.uses[node.target] == 1
            and len(node.args) == 1
            and set(node.kwargs) <= set(kwargs)
        )

    def _fold_norm(self, node: fx.Node) -> None:
        """Batch norm behind a convolution that nothing else reads."""
        norm: Any = self._module(node)
        before: Any = node.args[0] if node.args else None
        conv: Any = self._module(before)
        if not isinstance(norm, _NORMS) or self.uses[node.target] != 1 or not norm.track_running_stats:
            return
        # Of transposed weights the output channels are the second axis, one group after the other.
        transposed = isinstance(conv, _TRANSPOSED) and conv.groups == 1
        if self._is_single(before) and (isinstance(conv, _CONVS) or transposed):
            self._put(before, fuse_conv_bn_eval(conv, norm, transposed))
            self._merge(node, before)

    def _is_open(self, node: Any, *kwargs: str) -> bool:
        """Whether a node is a packed convolution that nothing else reads and that is not finished yet."""
        module = self._module(node)
        return isinstance(module, PackedConv) and module.activation is None and self._is_single(node, *kwargs)

    def _take_activation(self, node: fx.Node) -> None:
        """An activation behind a convolution."""
        kind = _activation(node, self._module(node))
        before: Any = node.args[0] if node.args else None
        if kind and self._is_open(before, "residual"):
            conv: Any = self.modules[before.target]
            conv.activation = kind
            self._merge(node, before)

    def _take_residual(self, node: fx.Node, order: dict[Any, int]) -> None:
        """An addition to a convolution's result becomes that convolution's residual."""
        first, second = node.args
        pairs: list[tuple[Any, Any]] = [(first, second)]
        # An addition in place changes its first operand, which nothing else may read then.
        if not _writes(node, None) or self._is_open(first):
            pairs.append((second, first))
        # The later of the two convolutions, so that the other operand is there already.
        for conv, other in sorted(pairs, key=lambda pair: -order.get(pair[0], -1)):
            if self._is_open(conv) and order.get(other, len(order)) < order[conv] and not self._changes(conv, node):
                conv.kwargs = {"residual": other}
                self._merge(node, conv)
                return

    def _changes(self, start: fx.Node, end: fx.Node) -> bool:
        """Whether anything between two nodes may write to a tensor: a residual is read where its convolution stands."""
        node = start.next
        while node is not end:
            if _writes(node, self.modules.get(node.target) if node.op == "call_module" else None):
                return True
            node = node.next
        return False


def _is_add(node: fx.Node) -> bool:
    function = node.op == "call_function" and node.target in _ADDS
    method = node.op == "call_method" and node.target in ("add", "add_")
    both = len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)
    return (function or method) and both and node.args[0] is not node.args[1]


def _writes(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node may change a tensor that was there before. If in doubt, it may."""
    if node.op == "call_module":
        ours = isinstance(module, (PackedConv, _Accelerated))
        return not ours and (module is None or not _is_torchs(module) or bool(getattr(module, "inplace", False)))
    if node.op not in ("call_method", "call_function"):
        return False
    if "out" in node.kwargs or node.kwargs.get("inplace") or any(a is True for a in node.args):
        return True
    if node.op == "call_function" and getattr(node.target, "__module__", None) == "_operator":
        return node.target not in _OPERATORS
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    return name.endswith("_")


def _activation(node: fx.Node, module: nn.Module | None) -> str | None:
    if node.op == "call_module":
        return _ACTIVATIONS.get(type(module))
    if node.op == "call_function":
        return _FUNCTIONS.get(node.target)
    return _METHODS.get(node.target) if node.op == "call_method" else None
