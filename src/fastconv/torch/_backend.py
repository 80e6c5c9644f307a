# SPDX-License-Identifier: BSD-3-Clause
"""``torch.compile(model, backend="fastconv")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastconv.torch._accelerate import SERVED

__all__ = ["backend"]


def backend(graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """Compile a graph of dynamo's: convolutions and poolings become fastconv's, the rest stays as it is.

    Registered under the name ``"fastconv"``; autograd goes through the graph as it does in eager mode.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    >>> compiled = torch.compile(model, backend=fastconv.torch.backend)
    >>> x = torch.ones(1, 1, 8, 8)
    >>> torch.allclose(compiled(x), model(x), atol=1e-6)
    True
    """
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in SERVED:
            node.target = SERVED[node.target]
    graph.recompile()
    return graph.forward
