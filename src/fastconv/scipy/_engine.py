# SPDX-License-Identifier: BSD-3-Clause
"""One problem, four engines, of which the cheapest that may serve does: ``direct``; ``separable`` for kernels of rank
one; ``fft``; and ``rounded``, an FFT of whole numbers whose rounding errors are taken off again.

The problem is a correlation of real arrays, ``y[o] = sum over k of kernel[k] * ext(x)[o + offset + k]``, where ``ext``
continues x beyond its borders (csrc/fastconv.h has the equation).

The error of a sum is relative to its own terms, that of an FFT to the whole array: zeros do not stay zeros, sums of
what is not negative become negative, and one element of 1e20 makes all others noise. So who promises sums (``SUMS``)
gets sums, or their exact values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft

from fastconv import _args, _config, _core
from fastconv.scipy._fold import Fold
from fastconv.scipy._numbers import Unserved, log, whole

#: The core's number of each border.
BORDERS = {"constant": 0, "nearest": 1, "reflect": 2, "mirror": 3, "wrap": 4}
ENGINES = ("direct", "separable", "fft", "rounded")
SUMS = ("direct", "separable", "rounded")
_MOST_AXES = 8  # of the core
_BINARY = 2.0**20  # fractions of whole numbers with this denominator are factorised into such
_NARROW = 64  # columns: fewer make short vectors
_SMALL = 20e-6  # seconds: as long as it takes to look for another engine than the direct one


@dataclass(frozen=True)
class Problem:
    """A correlation; the sequences have one entry per axis. Every window reaches the input or begins at most one
    kernel before it: ``offset + kernel > 0``."""

    x: np.ndarray
    kernel: np.ndarray
    out_shape: tuple[int, ...]
    offset: tuple[int, ...]
    border: str
    fill: float = 0.0
    unfused: bool = False  # round each product, as compilers do for CPUs without fused multiply-adds


def correlate(p: Problem, engines: Sequence[str]) -> np.ndarray:
    """The result by the cheapest of these engines that may serve; x and kernel are of the dtype to compute in."""
    if p.x.ndim > _MOST_AXES or not p.x.size or not p.kernel.size or 0 in p.out_shape:
        raise Unserved(f"an array of shape {p.x.shape} and a kernel of shape {p.kernel.shape}")
    p = replace(p, x=_args.addressable(p.x))
    if p.x.ndim == 1:
        return correlate(_with_leading_axis(p), engines)[0]
    order = _vector_order(p)
    if order is not None:
        inverse = np.argsort(order)
        return np.ascontiguousarray(correlate(_permuted(p, order), engines).transpose(inverse))
    name, factors = choose(p, engines)
    p = p if factors else _folded(p)  # factors are folded one by one
    log.debug("%s on %s by %s: %s", p.x.dtype, p.x.shape, p.kernel.shape, name)
    if name == "rounded":
        return _rounded(p)
    if name == "fft":
        y = _fft(p)
        rest = [e for e in engines if e != "fft"]
        # One NaN or infinity spreads over all of a transform.
        return y if not rest or math.isfinite(y.flat[0]) else correlate(p, rest)
    return _direct(p) if factors is None else _separable(p, factors)


def choose(p: Problem, engines: Sequence[str]) -> tuple[str, list[np.ndarray] | None]:
    """The cheapest engine that may serve, and the kernel's factors if it is the separable one."""
    costs, kernel, x, p = {}, p.kernel, p.x, _folded(p)
    if "direct" in engines:
        costs["direct"] = _stencil(p).seconds
        if costs["direct"] < _SMALL:
            return "direct", None
    # Passes fold their weights, which an array that had to be extended forbids.
    factors = factorised(kernel) if "separable" in engines and not p.unfused and p.x is x else None
    if factors is not None:
        costs["separable"] = _separable_cost(p)
    if "fft" in engines:
        costs["fft"] = _fft_cost(p, p.x.itemsize)
    if "rounded" in engines:
        costs["rounded"] = _fft_cost(p, 8)
    for name in sorted(costs, key=costs.__getitem__):
        if (name != "rounded" or _is_exact(p)) and (name != "fft" or len(engines) == 1 or _is_even(p.x)):
            return name, factors if name == "separable" else None
    raise Unserved("an FFT of numbers beyond its precision")


# ------------------------------------------------------------------------------------------- arrangement of axes


def _folded(p: Problem) -> Problem:
    if p.unfused:
        return p  # every product is to be rounded
    for axis, (n, m, k, o) in enumerate(zip(p.x.shape, p.out_shape, p.kernel.shape, p.offset, strict=True)):
        if k > n and (fold := Fold(k, n, m, o, p.border)).needed:
            if not _is_finite(p.x, p.fill):
                return replace(p, x=_extended(p), offset=(0,) * p.x.ndim)
            kernel = np.moveaxis(fold.sums(np.moveaxis(p.kernel, axis, 0)), 0, axis)
            p = replace(p, kernel=kernel, offset=(*p.offset[:axis], fold.start, *p.offset[axis + 1 :]))
    return p


def _is_finite(x: np.ndarray, fill: float) -> bool:
    """Infinity times a sum of weights is not the sum of its products if their signs differ."""
    return math.isfinite(fill) and bool(np.isfinite(x).all())


def _with_leading_axis(p: Problem) -> Problem:
    return replace(p, x=p.x[None], kernel=p.kernel[None], out_shape=(1, *p.out_shape), offset=(0, *p.offset))


def _vector_order(p: Problem) -> tuple[int, ...] | None:
    """An order of axes in which rows are long, if the last ones are few colours that the kernel does not mix."""
    still = [n == 1 for n in p.kernel.shape]
    last = max((i for i, s in enumerate(still) if not s), default=-1)
    if last < 1 or last == p.x.ndim - 1 or math.prod(p.out_shape[last + 1 :]) >= _NARROW:
        return None
    return (*range(last + 1, p.x.ndim), *range(last + 1))


def _permuted(p: Problem, order: tuple[int, ...]) -> Problem:
    return replace(
        p,
        x=p.x.transpose(order),
        kernel=p.kernel.transpose(order),
        out_shape=tuple(p.out_shape[i] for i in order),
        offset=tuple(p.offset[i] for i in order),
    )


# -------------------------------------------------------------------------------------------------------- direct


def _stencil(p: Problem) -> _core.Stencil:
    border = BORDERS[p.border]
    axes = tuple(
        (n, m, k, o, border) for n, m, k, o in zip(p.x.shape, p.out_shape, p.kernel.shape, p.offset, strict=True)
    )
    return _core.Stencil(_config.ISA, _args.FLOATS[p.x.dtype], False, p.unfused, (p.fill, p.fill), axes)


def _direct(p: Problem) -> np.ndarray:
    y = np.empty(p.out_shape, p.x.dtype)
    _stencil(p).run(p.x, np.ascontiguousarray(p.kernel), y, _config.get_num_threads())
    return y


# ----------------------------------------------------------------------------------------------------- separable


def factorised(kernel: np.ndarray) -> list[np.ndarray] | None:
    """Factors whose outer product is the kernel, every element to a few units in its last place; or None.

    Those of whole numbers, and of binary fractions of them, are such too: what is exact by direct sums stays so.
    """
    if sum(n > 1 for n in kernel.shape) < 2:
        return None
    kernel64 = kernel.astype(np.float64)
    pivot = np.unravel_index(np.argmax(np.abs(kernel64)), kernel.shape)
    top = kernel64[pivot]
    if not np.isfinite(top) or top == 0:
        return None
    binary = abs(top) < 2.0**40 and whole(kernel64 * _BINARY)
    factors, scale = [], 1.0
    for axis in range(kernel.ndim):
        fibre = kernel64[tuple(slice(None) if i == axis else at for i, at in enumerate(pivot))]
        if axis == kernel.ndim - 1:
            factors.append(fibre / scale)
        else:
            unit = np.gcd.reduce((fibre * _BINARY).astype(np.int64)) / _BINARY if binary else top
            factors.append(fibre / unit)
            scale *= top / unit
    product = factors[0]
    for factor in factors[1:]:
        product = product[..., None] * factor
    if not (np.abs(product - kernel64) <= 4 * np.finfo(kernel.dtype).eps * np.abs(kernel64)).all():
        return None
    return factors


@dataclass(frozen=True)
class Pass:
    """A correlation along one axis."""

    axis: int
    weights: np.ndarray
    out: int
    offset: int
    border: str
    fill: float = 0.0
    box: Fold | None = None  # what the weights are the counts of, but for a factor: for running sums

    def folded(self, x: np.ndarray) -> Pass:
        k, n = len(self.weights), x.shape[self.axis]
        if k <= n or not (fold := Fold(k, n, self.out, self.offset, self.border)).needed:
            return self
        if not _is_finite(x, self.fill):
            raise Unserved("NaN or infinity under a kernel longer than the array")
        return replace(self, weights=fold.sums(self.weights), offset=fold.start)


def _passes(p: Problem, factors: list[np.ndarray]) -> list[Pass]:
    """What lies beyond the sums along an axis is the fill times the sum of its weights.

    Rows last, since they are summed behind the columns where both are done in one pass.
    """
    axes = [*range(p.x.ndim - 2), p.x.ndim - 1, p.x.ndim - 2]
    fill, passes = p.fill, []
    for axis in axes:
        if (
            len(factors[axis]) == 1
            and axis != p.x.ndim - 1
            and p.x.shape[axis] == p.out_shape[axis]
            and not p.offset[axis]
        ):
            continue  # its only weight is one: the last axis has the scale
        passes.append(Pass(axis, factors[axis], p.out_shape[axis], p.offset[axis], p.border, fill))
        fill *= float(factors[axis].sum())
    return passes


def run_passes(x: np.ndarray, passes: Sequence[Pass]) -> np.ndarray:
    """Correlations along one axis after another; columns and rows of a plane are one pass, without an image between,
    unless that would sum too many rows twice; long boxes by running sums."""
    rest = [p.folded(x) for p in passes]
    while rest:
        first, *others = rest
        if first.box is not None:
            x, rest = _running(x, first, first.box), others
        elif first.axis != x.ndim - 1:
            x, rest = _run(x, first, None), others
        elif others and _fuse(others[0], x.ndim - 2):
            x, rest = _run(x, others[0], first), others[1:]
        else:
            x, rest = _run(x, None, first), others
    return x


def _fuse(rows: Pass, axis: int) -> bool:
    return rows.axis == axis and rows.box is None and 4 * len(rows.weights) <= rows.out


def _running(x: np.ndarray, p: Pass, fold: Fold) -> np.ndarray:
    """A box that is longer than the axis, in time that depends on neither's product."""
    taps, scale = len(p.weights), p.weights[-1] / fold.counts()[-1]
    y = np.moveaxis(x.astype(np.float64, copy=False), p.axis, -1)
    y = _continued(y, y.ndim - 1, p.offset, p.out + taps - 1, p.border, p.fill)
    running = np.zeros((*y.shape[:-1], y.shape[-1] + 1))
    np.cumsum(y, axis=-1, out=running[..., 1:])

    def window(length: int) -> np.ndarray:
        return running[..., length : length + p.out] - running[..., : p.out]

    sums = window(taps)
    if fold.period:
        times, rest = divmod(fold.length, fold.period)
        sums = float(times) * sums + window(rest)
    else:
        sums += max(0, fold.before - 1) * y[..., : p.out] + max(0, fold.after - 1) * y[..., taps - 1 :]
    return np.moveaxis(sums * scale, -1, p.axis).astype(x.dtype)


def _run(x: np.ndarray, rows: Pass | None, columns: Pass | None) -> np.ndarray:
    """One axis, or two: `columns` is along the last one."""
    shape = x.shape
    if columns is None:  # planes of (axis, all that lies behind it)
        assert rows is not None
        n = shape[rows.axis]
        before, behind = math.prod(shape[: rows.axis]), math.prod(shape[rows.axis + 1 :])
        x = _dense(x).reshape(before, n, behind) if behind > 1 else _dense(x).reshape(before, 1, n)
        out = (*shape[: rows.axis], rows.out, *shape[rows.axis + 1 :])
        if behind == 1:
            rows, columns = None, rows
    else:
        out = (*shape[:-1], columns.out) if rows is None else (*shape[:-2], rows.out, columns.out)
        if x.ndim != 3:
            x = _dense(x) if x.ndim > 3 else x
            x = x.reshape(-1, *shape[-2:]) if x.ndim > 3 else x.reshape((1,) * (3 - x.ndim) + shape)
    stencil, y = _pass_stencil(x.shape, x.dtype, rows, columns)
    weights = [p.weights for p in (rows, columns) if p is not None]
    stencil.run(x, np.concatenate(weights).astype(x.dtype), y, _config.get_num_threads())
    return y.reshape(out)


def _dense(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x)


def _pass_stencil(
    shape: tuple[int, ...], dtype: np.dtype, rows: Pass | None, columns: Pass | None
) -> tuple[_core.Stencil, np.ndarray]:
    batch, height, width = shape
    axes = [
        (n, n, 1, 0, 0) if p is None else (n, p.out, len(p.weights), p.offset, BORDERS[p.border])
        for n, p in ((height, rows), (width, columns))
    ]
    passes = [p for p in (rows, columns) if p is not None]
    fill = (passes[-1].fill, passes[0].fill)
    y = np.empty((batch, axes[0][1], axes[1][1]), dtype)
    sizes = ((batch, batch, 1, 0, 0), *axes)
    return _core.Stencil(_config.ISA, _args.FLOATS[dtype], len(passes) == 2, False, fill, sizes), y


def _separable(p: Problem, factors: list[np.ndarray]) -> np.ndarray:
    return run_passes(p.x, _passes(p, factors))


def _separable_cost(p: Problem) -> float:
    """As much as stencils of one axis each, the last two in one."""
    cost = 0.0
    *leading, rows, columns = range(p.x.ndim)
    for axes in ([axis] for axis in leading if p.kernel.shape[axis] > 1):
        cost += _core.Stencil(_config.ISA, _args.FLOATS[p.x.dtype], False, False, (0.0, 0.0), _axes(p, axes)).seconds
    plane = _core.Stencil(_config.ISA, _args.FLOATS[p.x.dtype], True, False, (0.0, 0.0), _axes(p, (rows, columns)))
    return cost + plane.seconds


def _axes(p: Problem, filtered: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((m, m, p.kernel.shape[i] if i in filtered else 1, 0, 0) for i, m in enumerate(p.out_shape))


# ----------------------------------------------------------------------------------------------------------- FFT


def _fft_lengths(p: Problem) -> list[int]:
    """A good length of transform per axis: wrapping may spoil only what is not asked for."""
    lengths = []
    for n, k, o, m in zip(*_fft_sizes(p), strict=True):
        first, last = o + k - 1, o + k - 1 + m - 1  # of the full convolution
        lengths.append(scipy.fft.next_fast_len(max(n, k, last + 1, n + k - 1 - max(first, 0)), real=True))
    return lengths


def _fft_sizes(p: Problem) -> tuple[Sequence[int], ...]:
    """Input, kernel, offset and output per axis; a border that is not zero becomes a part of the input."""
    if p.border == "constant" and p.fill == 0:
        return p.x.shape, p.kernel.shape, p.offset, p.out_shape
    extended = [m + k - 1 for m, k in zip(p.out_shape, p.kernel.shape, strict=True)]
    return extended, p.kernel.shape, (0,) * p.x.ndim, p.out_shape


def _fft_cost(p: Problem, itemsize: int) -> float:
    """On the nominal core of csrc/core/cost.c: three transforms by pocketfft, which has vectors along no more than
    one axis."""
    n = math.prod(_fft_lengths(p))
    return 40e-6 + 3 * n * (4.0 + math.log2(n)) * (0.16e-9 if itemsize == 4 else 0.25e-9)


def _fft(p: Problem) -> np.ndarray:
    lengths, axes = _fft_lengths(p), range(p.x.ndim)
    _, _, offsets, _ = _fft_sizes(p)
    x = p.x if p.border == "constant" and p.fill == 0 else _extended(p)
    workers = _config.get_num_threads()
    flipped = p.kernel[(slice(None, None, -1),) * p.kernel.ndim]
    product = scipy.fft.rfftn(x, lengths, axes, workers=workers)
    product *= scipy.fft.rfftn(flipped, lengths, axes, workers=workers)
    full = scipy.fft.irfftn(product, lengths, axes, overwrite_x=True, workers=workers)
    starts = [o + k - 1 for o, k in zip(offsets, p.kernel.shape, strict=True)]
    return np.ascontiguousarray(full[tuple(slice(s, s + m) for s, m in zip(starts, p.out_shape, strict=True))])


def _rounded(p: Problem) -> np.ndarray:
    y = _fft(replace(p, x=p.x.astype(np.float64, copy=False), kernel=p.kernel.astype(np.float64, copy=False)))
    y = np.rint(y, out=y)
    y += 0.0  # no zero is negative
    return y.astype(p.x.dtype, copy=False)


def _is_exact(p: Problem) -> bool:
    """Whether the sums are whole numbers, and a transform in float64 errs by less than a quarter.

    No element of a convolution of length N by transforms errs by more than about 4 eps log2(N) |x|_2 |kernel|_2.
    """
    lengths = _fft_lengths(p)
    most = max(abs(p.fill), float(p.x.max()), -float(p.x.min()))
    norms = most * math.sqrt(math.prod(lengths)) * float(np.linalg.norm(p.kernel.ravel().astype(np.float64)))
    if not 4 * np.finfo(np.float64).eps * math.log2(2 + math.prod(lengths)) * norms < 0.25:  # or there is a NaN
        return False
    return p.fill == round(p.fill) and whole(p.kernel) and whole(p.x)


def _is_even(x: np.ndarray) -> bool:
    """Whether rounding errors relative to the largest elements leave a typical one that is not zero its first digits.

    An FFT spreads about eps times the root mean square over every output.
    """
    sample = np.abs(x.ravel()[:: max(1, x.size // 4096)]).astype(np.float64)
    sample = sample[sample > 0]
    if not sample.size:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.square(x, dtype=np.float64).mean())
    return not math.sqrt(square) * np.finfo(x.dtype).eps > 2.0**-12 * float(np.median(sample))


def _extended(p: Problem) -> np.ndarray:
    """The input with all that windows reach beyond its borders."""
    x = p.x
    for axis, (m, k, o) in enumerate(zip(p.out_shape, p.kernel.shape, p.offset, strict=True)):
        x = _continued(x, axis, o, m + k - 1, p.border, p.fill)
    return x


def _continued(x: np.ndarray, axis: int, start: int, count: int, border: str, fill: float) -> np.ndarray:
    """`count` elements of an axis that goes on beyond its borders, from `start` on."""
    n, at = x.shape[axis], np.arange(start, start + count)
    inside = (at >= 0) & (at < n)
    if border in ("constant", "nearest"):
        source = at.clip(0, n - 1)
    elif border == "wrap":
        source = at % n
    else:
        period = 2 * n if border == "reflect" else max(1, 2 * (n - 1))
        source = at % period
        source = np.where(source < n, source, period - source - (border == "reflect"))
    x = x.take(source, axis)
    if border == "constant":
        x[(slice(None),) * axis + (~inside,)] = fill
    return x
