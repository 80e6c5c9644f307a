# SPDX-License-Identifier: BSD-3-Clause
"""Compiled networks."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv import _args, _config, _core
from fastconv._names import only
from fastconv.graph.doors import read
from fastconv.graph.ir import Constant, Graph, Shape
from fastconv.graph.listing import Options
from fastconv.graph.lowering import known_types, specialise
from fastconv.graph.passes import run_passes
from fastconv.graph.profile import Profile, Summary, Timed, profile_of, summary_of
from fastconv.graph.program import Program, outward
from fastconv.graph.store import DAMAGE, damaged, read_net, save_net
from fastconv.graph.views import Type

__all__ = ["CompiledNet", "Memory", "Tensor", "compile", "load_net"]
__dir__ = only(__all__)

_ALIGN = 64
_IDLE = 2  # arenas that wait for the next calls


class Tensor(NamedTuple):
    """An input or output of a network; sizes that may vary are None."""

    name: str
    shape: Shape | None
    dtype: np.dtype


class Memory(NamedTuple):
    """Bytes that a compiled network needs.

    Attributes
    ----------
    weights : int
        Of the model, as it was given; what belongs to the model is not copied.
    packed : int
        Weights in the order in which kernels read them, shared by all shapes of inputs and all threads.
    arena : int
        Of a call, for what is computed between inputs and outputs.
    least : int
        Most bytes of it that are needed at one moment: no arena could be smaller.
    scratch : int
        Of a call, for the kernels' own use.
    peak : int
        Packed weights, arena and scratch of one call.
    programs : int
        Shapes of inputs that are prepared; at most ``cache_size``.
    """

    weights: int
    packed: int
    arena: int
    least: int
    scratch: int
    peak: int
    programs: int


class CompiledNet:
    """A network of fused layers, with packed weights and planned memory, that `fastconv.compile` makes.

    Attributes
    ----------
    inputs, outputs : list of Tensor
        Names, shapes (None where a size may vary) and dtypes, in the model's order.
    graph : Graph
        What is computed, after all passes; it prints.

    Notes
    -----
    A network may be called from many threads at once, which share its packed weights. Its result does not depend on the
    number of threads. It is what the model computed when it was compiled: later changes of the model's weights have no
    effect. They are packed for the shapes of inputs that are known; the network does not keep the model's own weights
    but refers to them, and should it need them again after they have changed, a RuntimeError says so.
    """

    def __init__(
        self,
        graph: Graph,
        options: Options,
        threads: int | None,
        keep_weights: bool,
        cache_size: int,
    ) -> None:
        self.graph = graph
        self._options, self._threads, self._keeps, self._room = options, threads, keep_weights, cache_size
        if keep_weights:
            kept: dict[Constant, Constant] = {}
            for value in {value for within in graph.graphs() for value in within.constants()}:
                assert value.constant is not None
                if value.constant not in kept:
                    kept[value.constant] = value.constant.kept()
                value.constant = kept[value.constant]
        self._prepare()

    def _prepare(self) -> None:
        self._programs: OrderedDict[tuple[Type, ...], Program] = OrderedDict()
        self._recent: Program | None = None  # the last of them
        self._packed: weakref.WeakValueDictionary[tuple[Any, ...], _core.Packed] = weakref.WeakValueDictionary()
        self._lock = threading.RLock()
        self._arenas: list[np.ndarray] = []
        self._largest = 0  # bytes of an arena that is in use
        self._names = [value.name for value in self.graph.inputs]
        known = known_types(self.graph)
        if known is not None:
            self._program(known)

    # --- what it is -------------------------------------------------------------------------------

    @property
    def inputs(self) -> list[Tensor]:
        return [Tensor(v.name, self._outward(v.shape), np.dtype(v.dtype)) for v in self.graph.inputs]

    @property
    def outputs(self) -> list[Tensor]:
        known = known_types(self.graph)
        program = None if known is None else self._program(known)
        types = None if program is None or program.later is not None else program.outputs
        names = self.graph.output_names or [value.name for value in self.graph.outputs]
        if types is None:
            likely = next((v.dtype for v in self.graph.inputs), None)
            dtypes = self.graph.output_dtypes or [None] * len(names)
            return [Tensor(name, None, np.dtype(t or likely)) for name, t in zip(names, dtypes, strict=True)]
        return [Tensor(name, self._outward(t.shape), t.dtype) for name, t in zip(names, types, strict=True)]

    def _outward(self, shape: Any) -> Any:
        """A shape in the order that callers see, from that of the graph."""
        return outward(shape, self._options.last)

    # --- running ----------------------------------------------------------------------------------

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the network.

        Parameters
        ----------
        *inputs, **named : array_like
            In the model's order, or by name.

        Returns
        -------
        numpy.ndarray, or a tuple of them where the model has several outputs

        Raises
        ------
        ValueError, TypeError
            If an input is missing, unknown, or of another shape or dtype than the network takes.
        """
        answer = self._run(*self._taken(inputs, named))
        return answer[0] if len(answer) == 1 else answer

    def _run(
        self, arrays: Sequence[np.ndarray], program: Program, watch: list[Timed] | None = None
    ) -> tuple[np.ndarray, ...]:
        """The outputs; ``watch`` is given the programs that have run, and what their steps took."""
        results = tuple([np.empty(shape, dtype) for shape, dtype in program.returned])
        arena = self._arena(program.arena_bytes)
        try:
            given = (arena, *arrays, *results)
            if watch is None:
                program.run(given, self._thread_count())
            else:
                watch.append((program, program.timed(given, self._thread_count())))
        finally:
            self._release(arena)
        return results if program.later is None else program.later.finish(results, watch)

    def _run_any(self, arrays: list[np.ndarray], watch: list[Timed] | None) -> tuple[np.ndarray, ...]:
        """For arrays of any types."""
        dense = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
        return self._run(dense, self._program(tuple(Type(array.shape, array.dtype) for array in dense)), watch)

    def _thread_count(self) -> int:
        return _config.get_num_threads() if self._threads is None else self._threads

    def _taken(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Sequence[np.ndarray], Program]:
        """The inputs as arrays without gaps, and the program for their shapes."""
        if named:
            inputs = self._in_order(inputs, named)
        known = self._repeated(inputs)
        if known is not None:
            return inputs, known
        if len(inputs) != len(self._names):
            raise ValueError(
                f"{len(inputs)} inputs are given; the network needs {len(self._names)}: {', '.join(self._names)}"
            )
        arrays, types = [], []
        for value, given in zip(self.graph.inputs, inputs, strict=True):
            array = _args.as_array(given, value.name)
            if array.dtype != value.dtype:
                raise TypeError(f"{value.name} has dtype {array.dtype}; the network needs {value.dtype}")
            declared = self._outward(value.shape)
            if declared is not None and (
                len(declared) != array.ndim
                or any(n is not None and n != m for n, m in zip(declared, array.shape, strict=True))
            ):
                wanted = ", ".join("any" if n is None else str(n) for n in declared)
                raise ValueError(f"{value.name} has shape {array.shape}; the network needs ({wanted})")
            shape = array.shape
            if self._options.last and array.ndim > 2:
                shape = (shape[0], shape[-1], *shape[1:-1])
            types.append(Type(shape, array.dtype))
            dense = np.ascontiguousarray(_args.addressable(array))
            arrays.append(dense.reshape(array.shape))  # NumPy gives what has no axes one
        return arrays, self._program(tuple(types))

    def _repeated(self, inputs: tuple[Any, ...]) -> Program | None:
        """The program of an earlier call with such arrays, which have been found to fit."""
        recent = self._recent
        if recent is not None and recent.takes(inputs):
            return recent
        with self._lock:
            for types, program in reversed(self._programs.items()):
                if program.takes(inputs):
                    return self._program(types)
        return None

    def _in_order(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        left = self._names[len(inputs) :]
        for name in named:
            if name not in left:
                why = (
                    "is given twice" if name in self._names else f"is unknown; the inputs are {', '.join(self._names)}"
                )
                raise TypeError(f"input {name!r} {why}")
        missing = [name for name in left if name not in named]
        if missing:
            raise TypeError(f"input {missing[0]!r} is missing")
        return (*inputs, *(named[name] for name in left))

    def _program(self, types: tuple[Type, ...]) -> Program:
        with self._lock:
            program = self._programs.get(types)
            if program is None:
                program = Program(self.graph, types, self._options, self._pack)
                if program.later is not None:
                    program.later.compiled = self._rest
                self._programs[types] = program
                while len(self._programs) > self._room:
                    self._programs.popitem(last=False)
                self._largest = max(p.arena_bytes for p in self._programs.values())
            else:
                self._programs.move_to_end(types)
            self._recent = program
            return program

    def _rest(self, graph: Graph) -> CompiledNet:
        """The network of a graph that comes later."""
        return CompiledNet(graph, self._options, self._threads, False, self._room)

    def _pack(
        self, plan: _core.Plan | _core.Recurrent, weight: Constant, shape: tuple[int, ...], bias: Constant | None
    ) -> _core.Packed:
        """Packed weights, which all plans that read them in one order share."""
        key = (id(weight), id(bias), plan.tag)
        packed = self._packed.get(key)
        if packed is None:
            array = np.ascontiguousarray(weight.array()).reshape(shape)
            offset = None if bias is None else np.ascontiguousarray(bias.array())
            packed = plan.pack(array, offset, _config.get_num_threads())
            self._packed[key] = packed
        return packed

    def _arena(self, nbytes: int) -> np.ndarray:
        """Memory for one call: one that waits, if it is large enough."""
        try:
            arena = self._arenas.pop()
        except IndexError:
            arena = None
        if arena is None or arena.nbytes < nbytes:
            whole = np.empty(nbytes + _ALIGN, np.uint8)
            start = -whole.ctypes.data % _ALIGN
            arena = whole[start : start + nbytes]
        return arena

    def _release(self, arena: np.ndarray) -> None:
        if len(self._arenas) < _IDLE and arena.nbytes <= self._largest:
            self._arenas.append(arena)

    # --- looks ------------------------------------------------------------------------------------

    def _any_program(self) -> Program:
        with self._lock:
            if not self._programs:
                raise ValueError(
                    "no shape of inputs is known yet: give input_shape to fastconv.compile, or call the network once"
                )
            return next(reversed(self._programs.values()))

    def _chain(self) -> list[Program]:
        """The program of the last call, and those of what came later in it."""
        program = self._any_program()
        rest = None if program.later is None else program.later.last
        return [program] if rest is None else [program, *rest._chain()]

    def summary(self) -> Summary:
        """What the network consists of: a row for each step, for the shapes of the last call; it prints as a table.

        Where shapes depend on numbers, what follows is known from the last call; before the first, a note says where
        the rows end.

        Raises
        ------
        ValueError
            If no shape of inputs is known yet.
        """
        return summary_of(repr(self), self._chain(), self.memory)

    def profile(self, *inputs: Any, repeats: int = 5, **named: Any) -> Profile:
        """Where the time of a call goes: a row for each step, and one for what lies between them.

        Parameters
        ----------
        *inputs, **named : array_like
            As for a call.
        repeats : int
            Rows are medians of so many calls, or turns of 2 ms of them; where shapes depend on random numbers, of those
            calls that had the last one's.

        Returns
        -------
        Profile
            Rows with ``name``, ``algorithm``, ``layout``, ``milliseconds``, ``gflops`` (per second), ``of_peak`` (share
            of the peak that this machine reached just now) and ``of_time``. It prints as a table; ``to_svg()`` draws
            it, ``to_html()`` makes a page of both, ``to_json()`` has all figures.
        """
        repeats = _args.integer(repeats, "repeats", 1)
        arrays, program = self._taken(inputs, named)

        def run(watch: list[Timed] | None) -> None:
            self._run(arrays, program, watch)

        return profile_of(self.graph.name, run, program, self._thread_count(), repeats)

    @property
    def memory(self) -> Memory:
        """Bytes of weights, packed weights and of a call; see `Memory`."""
        with self._lock:
            programs = list(self._programs.values())
            packed = sum(p.nbytes for p in self._packed.values())
        weights, arena, least, scratch = _weight_bytes(self.graph), 0, 0, 0
        for program in programs:
            rests = [] if program.later is None else [network.memory for network in program.later.networks]
            packed += sum(rest.packed for rest in rests)
            arena = max(arena, program.arena_bytes + max((rest.arena for rest in rests), default=0))
            least = max(least, program.least_bytes, *(rest.least for rest in rests))
            own = program.scratch_bytes(self._thread_count())
            scratch = max(scratch, own, *(rest.scratch for rest in rests))
        return Memory(weights, packed, arena, least, scratch, packed + arena + scratch, len(programs))

    def __repr__(self) -> str:
        inputs = ", ".join(f"{t.name}: {_said(t)}" for t in self.inputs)
        outputs = ", ".join(f"{t.name}: {_said(t)}" for t in self.outputs)
        return f"CompiledNet({self.graph.name}: ({inputs}) -> ({outputs}), {len(self.graph.nodes)} nodes)"

    # --- storing ----------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the network to a file that `fastconv.load_net` reads: the graph as JSON beside the weights.

        Parameters
        ----------
        path : path-like
            ``.npz`` or ``.safetensors``.

        Raises
        ------
        ValueError
            If the ending is another, or nodes call Python, which a file cannot; they are named. Nodes of ONNX's that
            wait for the sizes of what they read can be written, if they call nothing once those are known; and so can
            both graphs of a choice.
        """
        save_net(self.graph, self._settings(), path)

    def _settings(self) -> dict[str, Any]:
        o = self._options
        return {
            "strict": o.strict,
            "batch_invariant": o.batch_invariant,
            "last": o.last,
            "without": list(o.without),
            "threads": self._threads,
            "keep_weights": self._keeps,
            "cache_size": self._room,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.graph, self._settings())


def _rebuilt(graph: Graph, settings: dict[str, Any]) -> CompiledNet:
    """A network of a graph that has been through the passes."""
    without = tuple(settings.get("without", ()))
    options = Options(settings["strict"], settings["batch_invariant"], settings["last"], without)
    return CompiledNet(graph, options, settings["threads"], settings["keep_weights"], settings["cache_size"])


def _weight_bytes(graph: Graph) -> int:
    """Of the constants, each once, as the model has them."""
    seen: set[int] = set()
    total = 0
    stack = [value.constant for within in graph.graphs() for value in within.constants()]
    while stack:
        constant = stack.pop()
        if constant is None or id(constant) in seen:
            continue
        seen.add(id(constant))
        stack.extend(constant.parts)
        total += 0 if constant.parts else constant.nbytes
    return total


def _said(t: Tensor) -> str:
    sizes = "..." if t.shape is None else ", ".join("?" if n is None else str(n) for n in t.shape)
    return f"{t.dtype}[{sizes}]"


def compile(
    model: Any,
    input_shape: Any = None,
    *,
    layout: str | None = None,
    precision: str = "default",
    batch_invariant: bool = False,
    threads: int | None = None,
    keep_weights: bool = False,
    cache_size: int = 8,
    without: Collection[str] = (),
) -> CompiledNet:
    """Compile a model for inference: layers are fused, weights packed, memory planned.

    Parameters
    ----------
    model : fastconv.nn.Module, torch.nn.Module, torch.fx.GraphModule, onnx.ModelProto or path
        In evaluation mode. One of torch's is traced by `torch.fx`; a path is that of an ONNX file.
    input_shape : tuple, or dict of str to tuple, optional
        Shape of the input, batch first, or shapes by the names of the inputs. A size that may vary is None. Without it
        the network takes what comes.
    layout : {"NCHW", "NHWC"}, optional
        The order of axes of inputs and outputs (of all ranks: "NHWC" means that channels are last); that of the model
        by default. What lies between them is in whichever order is predicted to be fastest.
    precision : {"default", "strict"}
        As for `fastconv.conv2d`.
    batch_invariant : bool
        As for `fastconv.conv2d`.
    threads : int, optional
        Otherwise `fastconv.get_num_threads` at the time of a call.
    keep_weights : bool
        Whether to keep a copy of the weights. Without it the network refers to the model's own, from which it makes
        packed weights for further shapes of inputs, and files.
    cache_size : int
        For how many shapes of inputs plans are kept.
    without : collection of str
        Passes to leave out, of `fastconv.graph.PASSES`.

    Returns
    -------
    CompiledNet

    Raises
    ------
    TypeError, ValueError
        If the model is none, or its layers do not fit each other or the shape; the node is named.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> model = fc.nn.Sequential(fc.nn.Conv2d(3, 8, 3, rng=0), fc.nn.BatchNorm2d(8), fc.nn.ReLU()).eval()
    >>> net = fc.compile(model, (1, 3, 32, 32))
    >>> image = np.ones((1, 3, 32, 32), np.float32)
    >>> np.allclose(net(image), model(image), atol=1e-5)
    True
    >>> [step.operator for step in net.summary()]
    ['conv']
    """
    last = _is_last(layout)
    strict = _args.is_strict(precision)
    batch_invariant = _args.is_batch_invariant(batch_invariant)
    threads = None if threads is None else _args.integer(threads, "threads", 1)
    cache_size = _args.integer(cache_size, "cache_size", 1)
    graph = read(model, _shapes(input_shape, last))
    known = known_types(graph)
    if known is not None:
        graph = specialise(graph, known)
    run_passes(graph, without)
    options = Options(strict, batch_invariant, last, tuple(without))
    return CompiledNet(graph, options, threads, keep_weights, cache_size)


def _is_last(layout: str | None) -> bool:
    if layout is None:
        return False
    rank = _args.rank_of(layout)
    return layout != _args.channels_first(rank)


def _shapes(given: Any, last: bool) -> Any:
    """``input_shape`` with channels first, sizes checked."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {name: _shape(shape, f"input_shape[{name!r}]", last) for name, shape in given.items()}
    return _shape(given, "input_shape", last)


def _shape(given: Any, name: str, last: bool) -> Shape:
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"{name} is {_args.said(given)}; it needs a tuple of sizes, None where one may vary")
    shape = tuple(None if n is None else _args.integer(n, name, 0) for n in given)
    if math.prod(n or 1 for n in shape) > _args.LIMIT:
        raise ValueError(f"{name} is {shape}; it needs at most {_args.LIMIT} elements")
    return (shape[0], shape[-1], *shape[1:-1]) if last and len(shape) > 2 else shape


def load_net(path: str | os.PathLike[str]) -> CompiledNet:
    """A network from a file that `CompiledNet.save` wrote. It takes NumPy alone, whatever the model came from.

    Parameters
    ----------
    path : path-like
        ``.npz`` or ``.safetensors``.

    Returns
    -------
    CompiledNet

    Raises
    ------
    ValueError
        If the file is damaged, or holds no network.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import numpy as np, tempfile, fastconv as fc
    >>> model = fc.nn.Sequential(fc.nn.Conv2d(3, 8, 3, rng=0), fc.nn.ReLU()).eval()
    >>> image = np.ones((1, 3, 8, 8), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fc.compile(model, image.shape).save(folder + "/net.npz")
    ...     net = fc.load_net(folder + "/net.npz")
    >>> np.array_equal(net(image), fc.compile(model, image.shape)(image))
    True
    """
    graph, settings = read_net(path)
    try:
        return _rebuilt(graph, settings)
    except DAMAGE as error:
        raise damaged(path, error) from error
