# SPDX-License-Identifier: BSD-3-Clause
"""What the binding has, for type checkers: `_core*.pxi` say what each does, and a test that nothing is missing here."""

from collections.abc import Hashable
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike

Fields = tuple[Any, ...]  # fastconv._args.Fields, which stands above this
Axis = tuple[int, ...]
FoldAxes = tuple[tuple[int, int, int, int, bool], ...]  # count, steps of src, dst and weights, whether folded
ResizeAxis = tuple[int, int, np.ndarray, np.ndarray | None]  # in, out, indices and weights [tap][out]
Arrays = tuple[Any, Any, Any, Any, Any]  # input, weight, bias, residual, out

Operations = tuple[tuple[str, int, int, float, float], ...]  # name, y and z of the others, a and b

# fc_update_rule, number by number; that of the rule, whether fresh, the parameters, their gradient, what is remembered
Rule = tuple[int, bool, float, float, float, float, float, float, float, float]
UpdateArrays = tuple[int, bool, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]

MAP_NAMES: tuple[str, ...]
ACTIVATION_NAMES: tuple[str, ...]
COST_NAMES: tuple[str, ...]
CACHE_NAMES: tuple[str, ...]

class Memory:
    def __new__(cls, nbytes: int) -> Memory: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def new_array(shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...] | None = None) -> np.ndarray: ...
def new_like(array: np.ndarray) -> np.ndarray: ...
def axes_in_memory(array: np.ndarray) -> tuple[int, ...] | None: ...
def forget_memory() -> None: ...

class Layout:
    def __new__(cls, shape: tuple[int, ...], strides: tuple[int, ...], format: str) -> Layout: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

class Packed:
    def __new__(cls, nbytes: int, tag: int) -> Packed: ...
    @property
    def nbytes(self) -> int: ...

class Views: ...
class Tables: ...
class Prepared: ...

class Planned(Prepared):
    @property
    def seconds(self) -> float: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def flops(self) -> float: ...
    def workspace_bytes(self, threads: int) -> int: ...

class LayerGradient(Planned):
    def __new__(
        cls,
        weight: Fields,
        input: Fields,
        shape: tuple[int, ...],
        biases: int,
        isa: int,
        algorithm: int,
        strict: bool,
        costs: tuple[float, ...],
        src: Layout,
        grad: Layout,
        wei: Layout,
        dst: Layout,
        dtype: DTypeLike,
    ) -> LayerGradient: ...
    def execute(
        self, src: np.ndarray, grad: np.ndarray, wei: np.ndarray, dst: np.ndarray, threads: int
    ) -> tuple[np.ndarray, np.ndarray | None]: ...

class Unserved(Prepared): ...

class Plan(Planned):
    def __new__(
        cls,
        fields: Fields,
        isa: int,
        algorithm: int,
        strict: bool,
        once: bool,
        batch_invariant: bool,
        costs: tuple[float, ...],
        src: Layout,
        wei: Layout,
        dst: Layout,
        dtype: DTypeLike,
    ) -> Plan: ...
    @property
    def tag(self) -> int: ...
    @property
    def algorithm(self) -> int: ...
    def pack(self, wei: np.ndarray, bias: np.ndarray | None, threads: int) -> Packed: ...
    @overload
    def execute(
        self,
        src: np.ndarray,
        packed: Packed,
        wei: None,
        bias: None,
        residual: np.ndarray | None,
        dst: np.ndarray,
        threads: int,
    ) -> None: ...
    @overload
    def execute(
        self,
        src: np.ndarray,
        packed: None,
        wei: np.ndarray,
        bias: np.ndarray | None,
        residual: np.ndarray | None,
        dst: np.ndarray,
        threads: int,
    ) -> None: ...
    # Anything may be handed to a call; what is no array of the plan's gives None.
    def call(
        self, src: Any, packed: Packed, residual: Any, out: np.ndarray | None, threads: int
    ) -> np.ndarray | None: ...

class Calls:
    def __new__(cls, room: int, indices: bool = False) -> Calls: ...
    def __len__(self) -> int: ...
    # An array, or two where the call was one for indices.
    def repeat(self, kind: Hashable, arrays: Arrays, parameters: tuple[Any, ...], threads: int) -> Any: ...
    def remember(self, kind: Hashable, arrays: Arrays, parameters: tuple[Any, ...], plan: Prepared) -> None: ...

class PoolCall(Planned):
    def returns(self, shape: tuple[int, ...], dtype: DTypeLike, order: tuple[int, ...] | None) -> PoolCall: ...

class Pool:
    def __new__(
        cls, kind: int, adaptive: bool, count_include_pad: bool, divisor: int, axes: tuple[Axis, ...]
    ) -> Pool: ...
    def plan(
        self,
        shape: tuple[int, ...],
        src: tuple[int, ...],
        out: tuple[int, ...],
        dst: tuple[int, ...],
        itemsize: int,
        isa: int,
    ) -> PoolCall: ...
    def forward(
        self, src: np.ndarray, dst: np.ndarray, indices: np.ndarray | None, isa: int, threads: int
    ) -> PoolCall: ...
    def backward(
        self, d_dst: np.ndarray, indices: np.ndarray | None, d_src: np.ndarray, isa: int, threads: int
    ) -> PoolCall | None: ...

class Net:
    def __new__(
        cls, steps: list[tuple[Any, ...]], fixed: tuple[Any, ...], sizes: tuple[int, ...], threads: int
    ) -> Net: ...
    @property
    def steps(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def scratch_bytes(self) -> int: ...
    @overload
    def run(self, arrays: tuple[Any, ...], timed: Literal[False] = False) -> None: ...
    @overload
    def run(self, arrays: tuple[Any, ...], timed: Literal[True]) -> list[float]: ...

class Stencil:
    def __new__(
        cls,
        isa: int,
        dtype: int,
        separable: bool,
        unfused: bool,
        fill: tuple[float, float],
        axes: tuple[Axis, ...],
    ) -> Stencil: ...
    @property
    def seconds(self) -> float: ...
    def run(self, src: np.ndarray, weights: np.ndarray, dst: np.ndarray, threads: int) -> None: ...

class Program:
    def __new__(cls, program: Operations, others: int) -> Program: ...
    # None: an array cannot be taken as it stands.
    def run(
        self, src: Any, others: tuple[Any, ...], out: np.ndarray | None, isa: int, threads: int
    ) -> np.ndarray | None: ...

def map_plan(dtype: int, axes: tuple[Axis, ...], program: Operations, others: int, isa: int) -> Planned: ...
def reduce_plan(axes: FoldAxes, kind: int, second: int, dtype: int, isa: int) -> Planned: ...
def norm_plan(axes: FoldAxes, kind: int, eps: float, dtype: int, isa: int) -> Planned: ...
def lrn_plan(
    axes: FoldAxes, before: int, after: int, share: float, beta: float, k: float, dtype: int, isa: int
) -> Planned: ...
def resize_plan(
    batch: int,
    channels: int,
    src: tuple[int, ...],
    dst: tuple[int, ...],
    axes: tuple[ResizeAxis, ...],
    dtype: int,
    isa: int,
) -> Planned: ...
def product_plan(
    sizes: tuple[int, int, int, int],
    src: tuple[int, ...],
    other: tuple[int, ...],
    dst: tuple[int, ...],
    dtype: int,
    isa: int,
) -> Planned: ...

class Recurrent(Planned):
    def __new__(
        cls, kind: int, steps: int, directions: int, batch: int, hidden: int, backward: int, dtype: int, isa: int
    ) -> Recurrent: ...
    @property
    def tag(self) -> int: ...
    def pack(self, wei: np.ndarray, bias: np.ndarray | None, threads: int) -> Packed: ...

def reduce(src: np.ndarray, dst: np.ndarray, folded: int, kind: int, isa: int, threads: int) -> None: ...
def norm(
    src: np.ndarray,
    dst: np.ndarray,
    scale: np.ndarray | None,
    shift: np.ndarray | None,
    folded: int,
    kind: int,
    eps: float,
    isa: int,
    threads: int,
) -> None: ...
def through(
    src: np.ndarray, result: np.ndarray, dst: np.ndarray, axis: int, low: float, high: float, isa: int, threads: int
) -> None: ...
def lrn(
    src: np.ndarray,
    grad: np.ndarray | None,
    dst: np.ndarray,
    axis: int,
    before: int,
    after: int,
    share: float,
    beta: float,
    k: float,
    isa: int,
    threads: int,
) -> None: ...
def batch_norm(
    src: np.ndarray,
    other: np.ndarray | None,
    vectors: np.ndarray | None,
    gain: np.ndarray | None,
    dst: np.ndarray,
    axis: int,
    kind: int,
    low: float,
    high: float,
    eps: float,
    isa: int,
    threads: int,
) -> None: ...
def blend(running: np.ndarray, fresh: np.ndarray, momentum: float, factor: float) -> None: ...
def cross_entropy(
    src: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore: int,
    smoothing: float,
    loss: np.ndarray | None,
    d: np.ndarray | None,
    grad: np.ndarray | None,
    mean: bool,
    isa: int,
    threads: int,
) -> tuple[float, float, int]: ...
def update(rules: list[Rule], arrays: list[UpdateArrays], isa: int, threads: int) -> None: ...
def resize(src: np.ndarray, dst: np.ndarray, axes: tuple[ResizeAxis, ...], isa: int, threads: int) -> None: ...
def fingerprint(array: np.ndarray, threads: int) -> int: ...
def default_costs(isa: int) -> tuple[float, ...]: ...
def caches() -> tuple[int, ...]: ...
def explain(
    fields: Fields, isa: int, strict: bool, batch_invariant: bool, costs: tuple[float, ...]
) -> list[tuple[str, str | None, float]]: ...
def choice(
    fields: Fields, isa: int, caches: tuple[int, ...] | None, costs: tuple[float, ...], once: bool = False
) -> tuple[int, str, int]: ...
def isas() -> list[tuple[str, bool, bool]]: ...
def best_isa() -> int: ...
def compiler() -> str: ...
def openmp() -> int: ...
def process() -> tuple[bool, bool]: ...
def cpus(most: int) -> int: ...
def scratch() -> tuple[int, int]: ...
def results() -> int: ...
def fma_burn(isa: int, dtype: int, threads: int, rounds: int) -> tuple[float, float]: ...
def handover(rounds: int) -> float: ...
