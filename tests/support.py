# SPDX-License-Identifier: BSD-3-Clause
"""What all tests share: how wrong a result may be, how wrong it is, and arrays to try it with."""

import ctypes
import mmap
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

import fastconv as fc
from fastconv import _core, _costs, _plans
from fastconv.ops import _convolution

# --- accuracy -------------------------------------------------------------------------------------


def tolerance(dtype: DTypeLike, terms: int = 1) -> float:
    """The largest :func:`max_error` to accept from a sum of `terms` products in `dtype`.

    Rounding errors of a sum behave as a random walk: with u the unit roundoff, the error stays
    below ``λ * sqrt(terms) * u`` but for a chance of about ``2 * exp(-λ² / 2)`` per rounding
    (N. Higham, T. Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci.
    Comput., 2019). λ = 6 leaves no such chance; the one term more is the bias or the scale.
    """
    return 6 * np.sqrt(terms + 1) * np.finfo(dtype).eps / 2


def lanes(dtype):
    """Of a vector of the instruction set in use."""
    return {"scalar": 1, "neon": 4, "avx2": 8, "avx512": 16}[fc.isa()] * 4 // np.dtype(dtype).itemsize or 1


def max_error(actual: np.ndarray, expected: np.ndarray, scale: float | np.ndarray | None = None) -> float:
    """max|actual - expected| / max|expected|: the project's one measure of accuracy.

    Infinity stands for a result that is wrong in kind: another shape, or a NaN or an infinity where
    `expected` has something else. Where cancellation leaves small sums of large products, `scale`
    takes the place of `expected` in the denominator (say, the same sum of absolute values).
    """
    if np.shape(actual) != np.shape(expected):
        return np.inf
    with np.errstate(invalid="ignore"):
        difference = np.asarray(np.subtract(actual, expected, dtype=np.float64))
    worst = np.abs(difference, out=difference).max(initial=0.0)
    if np.isfinite(worst):  # and so is all of it
        return _ratio(worst, expected if scale is None else scale)
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(actual[finite]).all():
        return np.inf
    worst = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    return _ratio(worst, expected[finite] if scale is None else scale)


def _ratio(worst: float, scale: float | np.ndarray) -> float:
    if worst == 0.0:
        return 0.0
    largest = np.abs(np.asarray(scale)).max(initial=0.0)
    return float(worst / largest) if largest else np.inf


def numerical_gradient(
    function: Callable[[np.ndarray], np.ndarray],
    argument: np.ndarray,
    grad_output: np.ndarray,
    step: float = 1e-5,
) -> np.ndarray:
    """Central differences of ``sum(function(argument) * grad_output)``, one element at a time.

    The argument is float64 and is restored afterwards. For a function that is linear in it the
    result is exact but for rounding; otherwise the error is of order ``step ** 2``.
    """
    gradient = np.empty(argument.shape)
    for index in np.ndindex(*argument.shape):
        value = argument[index]
        argument[index] = value + step
        above = function(argument)
        argument[index] = value - step
        below = function(argument)
        argument[index] = value
        gradient[index] = np.sum((above - below) * grad_output) / (2 * step)
    return gradient


# --- arrays ---------------------------------------------------------------------------------------


def poison(shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An array to write into, full of what no right result holds: NaN, or the smallest integer."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).min, dtype)


def whole(
    rng: np.random.Generator,
    shape: int | Sequence[int],
    dtype: DTypeLike = np.float32,
    largest: int = 4,
) -> np.ndarray:
    """Random integers from -largest to largest, stored in `dtype`.

    Their products and sums are exact in any order, so results can be compared with ``==``; and
    there are many ties.
    """
    return rng.integers(-largest, largest, shape, endpoint=True).astype(dtype)


def to_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """(..., C, H, W) in the order of axes that `layout` names, contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, -3, -1) if _channels_last(layout) else array)


def from_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of :func:`to_layout`."""
    return np.ascontiguousarray(np.moveaxis(array, -1, -3) if _channels_last(layout) else array)


def _channels_last(layout: str) -> bool:
    return {"NCHW": False, "NHWC": True}[layout]


def embedded(array: np.ndarray, dense: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(whole, part): a copy of `array` as a part of a larger array whose other elements are poison.

    The part is contiguous if `dense`; otherwise poison lies between its rows too, except that the
    elements along the last axis stay neighbours.
    """
    if dense:
        whole = poison(array.size + 128, array.dtype)
        part = whole[64 : 64 + array.size].reshape(array.shape)
    else:
        whole = poison([n + 3 for n in array.shape], array.dtype)
        part = whole[tuple(slice(1, n + 1) for n in array.shape)]
    part[...] = array
    return whole, part


class Fenced:
    """Memory between two pages that nobody may touch: whoever reads or writes one element too far ends the process."""

    def __init__(self, nbytes: int) -> None:
        page = mmap.PAGESIZE
        self._room = -(-nbytes // page) * page
        self._memory = mmap.mmap(-1, self._room + 2 * page)
        start = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._fences = (start, start + page + self._room)
        self._protect(0)

    def place(self, values: np.ndarray, at_end: bool) -> np.ndarray:
        """A copy that begins behind the first fence or ends before the second. Another one takes its place."""
        offset = mmap.PAGESIZE + (self._room - values.nbytes if at_end else 0)
        part = np.frombuffer(self._memory, values.dtype, values.size, offset).reshape(values.shape)
        part[...] = values
        return part

    def open(self) -> None:
        """Take the fences down, so that the memory can be given back."""
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)

    def _protect(self, allowed: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for fence in self._fences:
            if libc.mprotect(fence, mmap.PAGESIZE, allowed):
                raise OSError(ctypes.get_errno(), "mprotect")


def same_values(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays equal to this one that lie differently in memory, each with a name for its test id."""
    yield "contiguous", np.ascontiguousarray(array)
    yield "fortran", np.asfortranarray(array)
    yield "reversed", np.ascontiguousarray(array[..., ::-1])[..., ::-1]

    spread = poison((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    spread[..., ::2] = array
    yield "every second", spread[..., ::2]

    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    unaligned = raw.view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned

    read_only = np.array(array)
    read_only.flags.writeable = False
    yield "read-only", read_only


# --- networks -------------------------------------------------------------------------------------------------------


def narrow(net: Any, linear: Callable[[int, int], Any], width: int = 32) -> None:
    """Give the three linear layers of AlexNet's kin, of torch's or ours, few units where they have 4096."""
    places = [i for i, layer in enumerate(net.classifier) if type(layer).__name__ == "Linear"]
    inputs, classes = net.classifier[places[0]].in_features, net.classifier[places[2]].out_features
    sizes = (inputs, width, width, classes)
    for place, before, after in zip(places, sizes, sizes[1:], strict=False):
        net.classifier[place] = linear(before, after)


# --- limits ---------------------------------------------------------------------------------------------------------


def limited(code: str, megabytes: int = 1024, seconds: int = 60) -> None:
    """Run code in a process of its own that may not take more than this: memory, or the time after which it hangs."""
    resource = pytest.importorskip("resource", reason="this system limits no memory")
    program = "import numpy as np, fastconv as fc\n" + textwrap.dedent(code)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    environment = {**os.environ, "FASTCONV_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, preexec_fn=limit, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


# --- scratch memory ---------------------------------------------------------------------------------------------------


@cache
def _spoiler(dtype: str) -> tuple[fc.ConvPlan, np.ndarray]:
    shape = (1, 256, 1, 416)
    plan = fc.ConvPlan(shape, np.ones((1, 256, 1, 1), dtype), algorithm="im2col")
    assert plan.workspace_bytes > 300_000
    return plan, np.full(shape, np.nan, dtype)


def spoil_scratch(dtype: str) -> None:
    """Leave NaN in the scratch memory that the next call on one thread will be given."""
    with fc.threads(1):
        plan, nans = _spoiler(dtype)
        plan(nans)


# --- threads ----------------------------------------------------------------------------------------------------------

#: More than there are tasks for, cores, or rows; powers of two and not.
MANY_THREADS = (3, 16, 36, 64)


@contextmanager
def every_thread() -> Iterator[None]:
    """Let convolutions go to as many threads as there are tasks for, however small they are.

    Their predicted time decides how many are worth waking, so it is a million times as long; the choices stay.
    """
    costs, calls = _costs.COSTS, _convolution._CALLS
    _costs.COSTS = replace(costs, seconds=tuple(1e6 * seconds for seconds in costs.seconds))
    _convolution._CALLS = _core.Calls(128)
    _plans.forget()
    try:
        yield
    finally:
        _costs.COSTS, _convolution._CALLS = costs, calls
        _plans.forget()
