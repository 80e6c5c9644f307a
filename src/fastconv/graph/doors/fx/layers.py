# SPDX-License-Identifier: BSD-3-Clause
"""What torch's layers are: the function that each calls, and the arguments that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastconv._names import only
from fastconv.graph.doors.fx.calls import identity, needs
from fastconv.graph.doors.fx.growing import Growing

__all__ = ["LAYERS"]
__dir__ = only(__all__)

#: By class: from a layer to the function that it is, and the arguments behind its input.
LAYERS: dict[type, Callable[[Growing, Any], tuple[Any, dict[str, Any]]]] = {}


def _layer(kind: str, function: Any, *names: str, **renamed: str) -> None:
    """A layer that calls a function with attributes of its own."""

    def arguments(r: Growing, layer: Any) -> tuple[Any, dict[str, Any]]:
        found = {name: getattr(layer, name) for name in names}
        return function, found | {name: getattr(layer, attribute) for name, attribute in renamed.items()}

    if hasattr(nn, kind):
        LAYERS[getattr(nn, kind)] = arguments


def _convolution(function: Any, transposed: bool) -> Callable[[Growing, Any], tuple[Any, dict[str, Any]]]:
    names = ("stride", "padding", "dilation", "groups", *(("output_padding",) if transposed else ()))

    def arguments(r: Growing, layer: Any) -> tuple[Any, dict[str, Any]]:
        needs(layer.padding_mode == "zeros", f"padding_mode {layer.padding_mode!r}")
        weights = {name: r.tensor(getattr(layer, name), name) for name in ("weight", "bias")}
        return function, weights | {name: getattr(layer, name) for name in names}

    return arguments


for _n in (1, 2, 3):
    LAYERS[getattr(nn, f"Conv{_n}d")] = _convolution(getattr(torch, f"conv{_n}d"), False)
    LAYERS[getattr(nn, f"ConvTranspose{_n}d")] = _convolution(getattr(torch, f"conv_transpose{_n}d"), True)
    _window = ("kernel_size", "stride", "padding", "ceil_mode")
    _layer(f"MaxPool{_n}d", getattr(F, f"max_pool{_n}d"), *_window, "dilation", "return_indices")
    _more = ("count_include_pad", *(("divisor_override",) if _n > 1 else ()))
    _layer(f"AvgPool{_n}d", getattr(F, f"avg_pool{_n}d"), *_window, *_more)
    _layer(f"AdaptiveAvgPool{_n}d", getattr(F, f"adaptive_avg_pool{_n}d"), "output_size")
    _layer(f"AdaptiveMaxPool{_n}d", getattr(F, f"adaptive_max_pool{_n}d"), "output_size", "return_indices")
    _layer(f"Dropout{_n}d", F.dropout, "training")
for _name in ("Dropout", "AlphaDropout", "FeatureAlphaDropout"):
    _layer(_name, F.dropout, "training")
_layer("Identity", identity)
_layer("Flatten", torch.flatten, "start_dim", "end_dim")
_layer("Softmax", F.softmax, "dim")
_layer("LogSoftmax", F.log_softmax, "dim")
_layer("LocalResponseNorm", F.local_response_norm, "size", "alpha", "beta", "k")
_layer("Hardtanh", F.hardtanh, "min_val", "max_val", "inplace")
_layer("ReLU6", F.relu6, "inplace")
_layer("LeakyReLU", F.leaky_relu, "negative_slope", "inplace")
_layer("ELU", F.elu, "alpha", "inplace")
_layer("GELU", F.gelu, "approximate")
_layer("Softplus", F.softplus, "beta", "threshold")
for _name in ("ReLU", "SiLU", "Hardsigmoid", "Hardswish", "Mish"):
    _layer(_name, getattr(F, _name.lower()), "inplace")
_layer("Sigmoid", torch.sigmoid)
_layer("Tanh", torch.tanh)


def _weighted(function: Any, names: Sequence[str]) -> Callable[[Growing, Any], tuple[Any, dict[str, Any]]]:
    return lambda r, layer: (function, {name: r.tensor(getattr(layer, name), name) for name in names})


LAYERS[nn.Linear] = _weighted(F.linear, ("weight", "bias"))
LAYERS[nn.PReLU] = _weighted(F.prelu, ("weight",))


def _norm_layer(r: Growing, layer: Any) -> tuple[Any, dict[str, Any]]:
    names = ("running_mean", "running_var", "weight", "bias")
    parameters = {name: r.tensor(getattr(layer, name), name) for name in names}
    return F.batch_norm, {**parameters, "training": layer.training, "eps": layer.eps}


def _layer_norm(r: Growing, layer: Any) -> tuple[Any, dict[str, Any]]:
    parameters = {name: r.tensor(getattr(layer, name), name) for name in ("weight", "bias")}
    return F.layer_norm, {**parameters, "normalized_shape": layer.normalized_shape, "eps": layer.eps}


def _group_norm(r: Growing, layer: Any) -> tuple[Any, dict[str, Any]]:
    parameters = {name: r.tensor(getattr(layer, name), name) for name in ("weight", "bias")}
    return F.group_norm, {**parameters, "num_groups": layer.num_groups, "eps": layer.eps}


def _instance_norm(rank: int) -> Callable[[Growing, Any], tuple[Any, dict[str, Any]]]:
    def arguments(r: Growing, layer: Any) -> tuple[Any, dict[str, Any]]:
        needs(not layer.track_running_stats, "running statistics")
        parameters = {name: r.tensor(getattr(layer, name), name) for name in ("weight", "bias")}
        return F.group_norm, {**parameters, "num_groups": layer.num_features, "eps": layer.eps, "rank": rank + 2}

    return arguments


LAYERS[nn.LayerNorm], LAYERS[nn.GroupNorm] = _layer_norm, _group_norm
_resized = ("size", "scale_factor", "mode")
_layer("Upsample", F.interpolate, *_resized, "align_corners", "recompute_scale_factor")
_layer("UpsamplingNearest2d", F.interpolate, *_resized)
_layer("UpsamplingBilinear2d", F.interpolate, *_resized, "align_corners")


def _border(rank: int) -> Callable[[Growing, Any], tuple[Any, dict[str, Any]]]:
    return lambda r, layer: (F.pad, {"pad": layer.padding, "value": layer.value, "rank": rank + 2})


for _n in (1, 2, 3):
    LAYERS[getattr(nn, f"BatchNorm{_n}d")] = _norm_layer
    LAYERS[getattr(nn, f"InstanceNorm{_n}d")] = _instance_norm(_n)
    LAYERS[getattr(nn, f"ZeroPad{_n}d")] = LAYERS[getattr(nn, f"ConstantPad{_n}d")] = _border(_n)
