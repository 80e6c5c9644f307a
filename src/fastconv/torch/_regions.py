# SPDX-License-Identifier: BSD-3-Clause
"""Regions of torch's graphs that a compiled network computes, between what is left to torch.

A region is a row of calls that all have a meaning in our graphs, with a convolution or a pooling among them. What
stands between two of them runs as it stands: hooks, other operators, writes to tensors that others see.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from fastconv.graph import CompiledNet, Graph, Value, run_passes
from fastconv.graph.doors.fx import Aliases, Reader, Unknown
from fastconv.graph.listing import Options
from fastconv.torch._accelerate import SERVED, accelerate, count
from fastconv.torch._functions import FUNCTIONS, Left, _served
from fastconv.torch._library import array, is_last, recorder, tensor
from fastconv.torch._packed import _version, has_gradients

__all__ = ["Region", "with_regions"]

_SIZES = 16  # of inputs for which a region keeps plans


class _Extent:
    """Some nodes of a graph: what they read from outside, and what others read of theirs."""

    def __init__(self, reader: Reader, nodes: Sequence[fx.Node], given: Mapping[fx.Node, Tensor]) -> None:
        inside = set(nodes)
        read = {other: None for node in nodes for other in node.all_input_nodes if other not in inside}
        self.nodes, self.constants = list(nodes), [node for node in read if node.op == "get_attr"]
        self.inputs = [node for node in read if node.op != "get_attr" and node not in given]
        self.given = [node for node in read if node in given]
        wanted = [node for node in nodes if any(user not in inside for user in node.users)]
        self.loose = [node for node in wanted if not isinstance(reader.values[node], Value)]
        #: Nodes by the tensor that they name, which is handed out once.
        self.outputs: dict[fx.Node, list[fx.Node]] = {}
        for node in wanted:
            self.outputs.setdefault(reader.aliases.tensor(node), []).append(node)
        functions = [reader.called(node)[0] for node in nodes]
        self.served = Counter(FUNCTIONS[f].__name__ for f in functions if f in FUNCTIONS)


class Region(nn.Module):
    """A row of calls, as a compiled network for what is served, and in torch's own operators for all else.

    It takes tensors, behind them weights that come as arguments. Its layers' parameters are not its own.
    """

    def __init__(self, source: fx.GraphModule, extent: _Extent, aliases: Aliases, own: bool) -> None:
        super().__init__()
        self.source, self.aliases, self.nodes = (source,), aliases, extent.nodes
        self.inputs, self.given = extent.inputs, extent.given
        self.outputs = [names[0] for names in extent.outputs.values()]
        self.plain = (_plain(source, extent, self.outputs, own),)
        self.names = extent.served
        self.weights: list[Tensor] = []  # those that do not come as arguments
        self.marks: Any = None
        self.graphs: dict[np.dtype, Graph | None] = {}
        self.nets: dict[tuple[np.dtype, bool], CompiledNet] = {}

    def forward(self, *tensors: Any) -> Any:
        try:
            inputs = _served(*tensors[: len(self.inputs)])
        except Left:
            return self._left(tensors)
        weights = tensors[len(self.inputs) :]
        if has_gradients(*inputs, *weights, *self.weights) or any(0 in x.shape for x in inputs):
            return self.plain[0](*tensors)
        last = any(is_last(x) for x in inputs)
        try:
            results = self._net(inputs, weights, last)(*(array(x, last and x.ndim > 2) for x in inputs))
        except (Left, ValueError, TypeError, NotImplementedError):  # what is wrong is torch's to say
            return self._left(tensors)
        count(self.names)
        if len(self.outputs) == 1:
            return tensor(results, last and results.ndim > 2)
        return tuple(tensor(y, last and y.ndim > 2) for y in results)

    def _left(self, tensors: Sequence[Any]) -> Any:
        if recorder() is not None or any(isinstance(x, fx.Proxy) for x in tensors):
            return self.plain[0](*tensors)
        with accelerate():
            return self.plain[0](*tensors)

    def _net(self, inputs: Sequence[Tensor], weights: Sequence[Tensor], last: bool) -> CompiledNet:
        """The network for these weights as they are."""
        marks = _marks((*weights, *self.weights))
        if marks != self.marks:
            self.graphs, self.nets, self.marks = {}, {}, None
        dtype = np.dtype(str(inputs[0].dtype).removeprefix("torch.")) if inputs else np.dtype(np.float32)
        net = self.nets.get((dtype, last))
        if net is None:
            if dtype not in self.graphs:
                self.graphs[dtype] = self._graph(dtype, weights)
            graph = self.graphs[dtype]
            if graph is None:
                raise Left(f"{dtype}")
            net = CompiledNet(graph, Options(last=last), None, False, _SIZES)
            self.nets[dtype, last] = net
            self.marks = _marks((*weights, *self.weights))
        return net

    def _graph(self, dtype: np.dtype, weights: Sequence[Tensor]) -> Graph | None:
        given = dict(zip(self.given, weights, strict=True))
        (source,) = self.source
        reader = Reader(source, source.graph, source._get_name(), dtype, given, shared=False, aliases=self.aliases)
        try:
            for node in self.inputs:
                reader.input(node)
            for node in self.nodes:
                reader.read(node)
        except Unknown:
            return None
        reader.graph.outputs = [reader.values[node] for node in self.outputs]
        self.weights = [x for key, x in reader.weights.items() if key not in set(map(id, weights))]
        run_passes(reader.graph)
        return reader.graph


def _marks(weights: Sequence[Tensor]) -> list[Any]:
    """What tells weights from others, and from themselves before torch changed them in place."""
    return [(id(x), x.data_ptr(), _version(x)) for x in weights]


def _plain(source: fx.GraphModule, extent: _Extent, outputs: Sequence[fx.Node], own: bool) -> fx.GraphModule:
    """The calls of a region as a module; ``own``: torch's own functions, and not ours, which have gradients."""
    graph = fx.Graph()
    found: dict[fx.Node, fx.Node] = {}
    for node in extent.constants:
        found[node] = graph.node_copy(node)
    for node in (*extent.inputs, *extent.given):
        found[node] = graph.placeholder(node.name)
    for node in extent.nodes:
        copied: Any = graph.node_copy(node, found.__getitem__)
        if not own and node.op == "call_function":
            copied.target = SERVED.get(node.target, node.target)
        found[node] = copied
    results = [found[node] for node in outputs]
    graph.output(results[0] if len(results) == 1 else tuple(results))
    return fx.GraphModule(source, graph)


# --- finding them -----------------------------------------------------------------------------------------------------


class _Search:
    def __init__(self, source: fx.GraphModule, given: Mapping[fx.Node, Tensor]) -> None:
        self.source, self.given = source, given
        self.aliases = Aliases(source.graph, dict(source.named_modules(remove_duplicate=False)))
        tensors = (*given.values(), *source.parameters(), *source.buffers())
        kinds = (x.dtype for x in tensors if x.dtype in (torch.float32, torch.float64))
        self.dtype = np.dtype(str(next(kinds, torch.float32)).removeprefix("torch."))
        self.barred: set[fx.Node] = set()

    def run(self) -> list[_Extent]:
        while True:
            extents, barred = self._attempt()
            if barred <= self.barred:
                return extents
            self.barred |= barred

    def _attempt(self) -> tuple[list[_Extent], set[fx.Node]]:
        """Regions, and nodes that are not to be part of one after all."""
        barred: set[fx.Node] = set()
        extents = []
        for reader, nodes in self._rows():
            extent = _Extent(reader, nodes, self.given)
            if not extent.served:
                barred.update(nodes)
            else:
                barred.update(extent.loose)
                extents.append(extent)
        inside = {node for extent in extents for node in extent.nodes}
        for node, written in self.aliases.written.items():
            if node not in inside:  # torch writes: whatever shares that memory is torch's too
                for other in written:
                    names = self.aliases.shared(other)[1:]
                    barred.update(name for name in names if name in inside)
        return extents, barred

    def _rows(self) -> Iterator[tuple[Reader, list[fx.Node]]]:
        """Calls one after the other that have a meaning."""
        row: list[fx.Node] = []
        reader = self._reader()
        for node in self.source.graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                continue
            if row and not self._takes(reader, row, node):
                yield reader, row
                reader, row = self._reader(), []
            if row or self._takes(reader, row, node):
                row.append(node)

    def _reader(self) -> Reader:
        return Reader(self.source, self.source.graph, "", self.dtype, self.given, shared=False, aliases=self.aliases)

    def _takes(self, reader: Reader, row: list[fx.Node], node: fx.Node) -> bool:
        if node in self.barred or node.op == "output":
            return False
        for other in self.aliases.written[node]:
            # Whoever made a tensor before may see what is written to it.
            if any(name not in row and self.aliases.is_before(name, node) for name in self.aliases.shared(other)):
                return False
        try:
            reader.read(node)
        except Unknown:
            return False
        return True


def with_regions(source: fx.GraphModule, given: Mapping[fx.Node, Tensor], own: bool) -> fx.GraphModule:
    """A graph in which regions take the place of their calls, and our functions that of torch's in between.

    Parameters
    ----------
    source : fx.GraphModule
    given : mapping of fx.Node to Tensor
        Placeholders that stand for weights.
    own : bool
        Whether what wants gradients is computed by torch's own functions, and not by ours.
    """
    search = _Search(source, given)
    extents = search.run()
    starts = {extent.nodes[-1]: i for i, extent in enumerate(extents)}
    inside = {node for extent in extents for node in extent.nodes}
    graph = fx.Graph()
    found: dict[fx.Node, fx.Node] = {}
    modules: dict[str, Region] = {}
    graph.set_codegen(source.graph._codegen)
    for node in source.graph.nodes:
        if node not in inside:
            copied: Any = graph.node_copy(node, found.__getitem__)
            if node.op == "call_function":
                copied.target = SERVED.get(node.target, node.target)
            found[node] = copied
        if node not in starts:
            continue
        extent, name = extents[starts[node]], f"_region{starts[node]}"
        modules[name] = Region(source, extent, search.aliases, own)
        call = graph.create_node("call_module", name, tuple(found[x] for x in (*extent.inputs, *extent.given)))
        for i, names in enumerate(extent.outputs.values()):
            part = call if len(extent.outputs) == 1 else graph.call_function(operator.getitem, (call, i))
            found.update(dict.fromkeys(names, part))
    for name, region in modules.items():
        source.add_module(name, region)
    graph.eliminate_dead_code(lambda node: node.op != "get_attr")
    return fx.GraphModule(source, graph)
