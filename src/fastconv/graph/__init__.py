# SPDX-License-Identifier: BSD-3-Clause
"""Networks as graphs: doors in, passes, lowering to steps, and the compiled network.

`fastconv.compile` goes through all of it: a door (`doors`) reads a model into a `Graph` (`ir`), passes (`passes`)
change it, `lowering` makes steps of it for given shapes, with orders of axes from `layout` and addresses from `memory`,
and a `CompiledNet` (`net`) runs them.
"""

from fastconv._names import only
from fastconv.graph.ir import Constant, Graph, Node, Value
from fastconv.graph.net import CompiledNet, Memory, Tensor, compile, load_net
from fastconv.graph.operators import OPERATORS
from fastconv.graph.passes import PASSES, run_passes
from fastconv.graph.profile import Profile, Row, Summary

__all__ = [
    "OPERATORS",
    "PASSES",
    "CompiledNet",
    "Constant",
    "Graph",
    "Memory",
    "Node",
    "Profile",
    "Row",
    "Summary",
    "Tensor",
    "Value",
    "compile",
    "load_net",
    "run_passes",
]
__dir__ = only(__all__)
