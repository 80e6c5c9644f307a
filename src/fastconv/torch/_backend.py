# SPDX-License-Identifier: BSD-3-Clause
"""``torch.compile(model, backend="fastconv")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastconv.torch._regions import with_regions

__all__ = ["backend"]


def backend(graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """Compile a graph of dynamo's: where no gradients are wanted, it is run by networks as `fastconv.compile` makes.

    Registered under the name ``"fastconv"``. Where gradients are wanted, convolutions and poolings become fastconv's,
    and autograd goes through the graph as it does in eager mode. What has no meaning in a network stays as it is.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    >>> compiled = torch.compile(model, backend=fastconv.torch.backend)
    >>> x = torch.ones(1, 1, 8, 8)
    >>> torch.allclose(compiled(x), model(x), atol=1e-6)
    True
    """
    places = [node for node in graph.graph.nodes if node.op == "placeholder"]
    weights = {node: x for node, x in zip(places, example_inputs, strict=True) if _is_weight(node)}
    return with_regions(graph, weights, own=False).forward


def _is_weight(node: torch.fx.Node) -> bool:
    """Whether an argument is a parameter or a buffer of a module, which comes unchanged in most calls."""
    return "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})
