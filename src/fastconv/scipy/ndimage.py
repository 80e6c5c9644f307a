# SPDX-License-Identifier: BSD-3-Clause
"""``scipy.ndimage``'s linear filters: the same signatures, dtypes, values (within rounding) and errors.

Sums of float32 are computed in float32, where SciPy has float64. An integer output is SciPy's, bit for bit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import DTypeLike

from fastconv import _args
from fastconv._names import only
from fastconv.scipy import _gaussian, _numbers
from fastconv.scipy._accelerate import in_place_of
from fastconv.scipy._engine import SUMS, Pass, Problem, run_passes
from fastconv.scipy._engine import correlate as _correlate
from fastconv.scipy._fold import Fold
from fastconv.scipy._numbers import EXACT, FLOAT64, Unserved

__all__ = ["convolve", "convolve1d", "correlate", "correlate1d", "gaussian_filter", "uniform_filter"]
__dir__ = only(__all__)

_BORDERS = {name: name for name in ("reflect", "constant", "nearest", "mirror", "wrap")}
_BORDERS |= {"grid-mirror": "reflect", "grid-constant": "constant", "grid-wrap": "wrap"}
#: SciPy's running sums take the same time for any size, and are faster from about here on.
_RUNNING_SUMS = 512
_UNDERFLOW = 40  # standard deviations, beyond which a Gaussian is zero in float64


@in_place_of(scipy.ndimage)
def correlate(
    input: Any,
    weights: Any,
    output: np.ndarray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Correlate an array with a kernel of as many axes, as :func:`scipy.ndimage.correlate`.

    Parameters
    ----------
    input, weights : array_like
    output : numpy.ndarray or dtype, optional
        Takes the result, or says what dtype it has; otherwise it has the input's.
    mode : {"reflect", "constant", "nearest", "mirror", "wrap"}
        How the input goes on beyond its borders; also ``grid-mirror``, ``grid-constant``, ``grid-wrap``.
    cval : scalar
        What lies beyond with ``mode="constant"``.
    origin : int or sequence of int
        Shifts the kernel: 0 centres it.
    axes : int or sequence of int, optional
        The axes to filter along, if not all.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.correlate(np.array([1, 2, 3, 4]), [1, 0, 2])
    array([ 5,  7, 10, 11])
    """
    return _filtered(input, weights, output, mode, cval, origin, axes, False)


@in_place_of(scipy.ndimage)
def convolve(
    input: Any,
    weights: Any,
    output: np.ndarray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Convolve an array with a kernel, as :func:`scipy.ndimage.convolve`; the parameters of :func:`correlate`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.convolve(np.array([1, 2, 3, 4]), [1, 0, 2])
    array([ 4,  5,  8, 10])
    """
    return _filtered(input, weights, output, mode, cval, origin, axes, True)


@in_place_of(scipy.ndimage)
def correlate1d(
    input: Any,
    weights: Any,
    axis: int = -1,
    output: np.ndarray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int = 0,
) -> np.ndarray:
    """Correlate along one axis, as :func:`scipy.ndimage.correlate1d`; the parameters of :func:`correlate`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.correlate1d(np.array([[1, 2, 3, 4]]), [1, 0, 2])
    array([[ 5,  7, 10, 11]])
    """
    return _along(input, np.asarray(weights), axis, output, mode, cval, origin)


@in_place_of(scipy.ndimage)
def convolve1d(
    input: Any,
    weights: Any,
    axis: int = -1,
    output: np.ndarray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int = 0,
) -> np.ndarray:
    """Convolve along one axis, as :func:`scipy.ndimage.convolve1d`; the parameters of :func:`correlate`."""
    kernel, shift = np.asarray(weights), _index(origin)
    if kernel.ndim != 1:
        raise Unserved("weights")
    return _along(input, kernel[::-1].conj(), axis, output, mode, cval, -shift - (len(kernel) % 2 == 0))


@in_place_of(scipy.ndimage)
def gaussian_filter(
    input: Any,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    output: np.ndarray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Smooth by a Gaussian, or by its derivatives, as :func:`scipy.ndimage.gaussian_filter`.

    Parameters
    ----------
    input : array_like
    sigma : scalar or sequence of scalars
        Standard deviation, for all axes or one per axis.
    order : int or sequence of int
        Which derivative of the Gaussian; 0 smooths.
    output, mode, cval, axes
        As for :func:`correlate`; `mode` may be a sequence.
    truncate : float
        Where to cut the Gaussian off, in standard deviations.
    radius : int or sequence of int, optional
        Where to cut it off, in elements.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.gaussian_filter(np.eye(3), 1, truncate=1).round(2)
    array([[0.6 , 0.32, 0.08],
           [0.32, 0.35, 0.32],
           [0.08, 0.32, 0.6 ]])
    """
    return _smoothed(input, sigma, order, output, mode, cval, truncate, radius, axes)


@in_place_of(scipy.ndimage)
def uniform_filter(
    input: Any,
    size: int | Sequence[int] = 3,
    output: np.ndarray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Average over a box, as :func:`scipy.ndimage.uniform_filter`; parameters as for :func:`gaussian_filter`.

    A NaN reaches as far as the box, where SciPy's running sums carry it to the end of the row.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import ndimage
    >>> ndimage.uniform_filter(np.array([0.0, 3.0, 6.0, 0.0]), 3)
    array([1., 3., 3., 2.])
    """
    return _averaged(input, size, output, mode, cval, origin, axes)


# ------------------------------------------------------------------------------------------------- arguments


def _index(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise Unserved("an argument that is no integer") from None


def _real(value: Any) -> float:
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise Unserved(f"{value!r} where a real number was expected")
    return float(value)


def _border(mode: Any) -> str:
    if not isinstance(mode, str) or mode not in _BORDERS:
        raise Unserved(f"mode={mode!r}")
    return _BORDERS[mode]


def _axes(axes: Any, rank: int) -> tuple[int, ...]:
    """Which axes, counted from the front."""
    numbers = tuple(range(rank)) if axes is None else tuple(_index(a) for a in np.atleast_1d(axes).tolist())
    if any(not -rank <= a < rank for a in numbers):
        raise Unserved(f"axes={axes!r}")
    numbers = tuple(a % rank for a in numbers)
    if len(set(numbers)) != len(numbers):
        raise Unserved(f"axes={axes!r}")
    return numbers


def _per_axis(value: Any, count: int) -> list[Any]:
    values = list(value) if np.iterable(value) and not isinstance(value, str) else [value] * count
    if len(values) != count:
        raise Unserved("a sequence of another length than the axes")
    return values


def _as_input(value: Any) -> np.ndarray:
    x = np.asarray(value)
    if x.ndim == 0 or x.size == 0:
        raise Unserved("no elements along an axis")
    return x


def _output_dtype(output: Any, x: np.ndarray, complex_result: bool) -> np.dtype:
    """The dtype of the result; only what NumPy and SciPy read alike."""
    if output is None:
        dtype = np.promote_types(x.dtype, np.complex64) if complex_result else x.dtype
    elif isinstance(output, np.ndarray):
        dtype = output.dtype
        if output.shape != x.shape or not output.flags.writeable:
            raise Unserved("an output of another shape, or one that is read-only")
    elif isinstance(output, (type, np.dtype)):
        dtype = np.dtype(output)
    else:
        raise Unserved(f"output={output!r}")
    if (dtype.kind == "c") != complex_result:
        raise Unserved(f"an output of dtype {dtype}")
    _numbers.real_dtype(dtype)
    return dtype


def _delivered(sums: np.ndarray, dtype: np.dtype, output: Any) -> np.ndarray:
    """The result in the dtype, and in the array, that it is asked for in."""
    if _numbers.is_integer(dtype):
        sums = _numbers.truncated(sums, dtype)
    if isinstance(output, np.ndarray):
        output[...] = sums
        return output
    return sums.astype(dtype, copy=False)


def _by_parts(
    x: np.ndarray, weights: np.ndarray, cval: Any, function: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
) -> np.ndarray:
    """function(x, weights, cval), linear in x and in the weights, for real or complex ones."""
    cval = complex(cval)
    if x.dtype.kind != "c" and cval.imag:
        raise Unserved("a complex cval")
    if x.dtype.kind != "c" and weights.dtype.kind != "c":
        return function(x, weights, cval.real)
    real = function(x.real, weights.real, cval.real)
    out = np.empty(real.shape, np.complex64 if real.dtype == np.float32 else np.complex128)
    out.real = real
    if x.dtype.kind == "c" and weights.dtype.kind == "c":
        out.real -= function(x.imag, weights.imag, cval.imag)
        out.imag = function(x.real, weights.imag, cval.real)
        out.imag += function(x.imag, weights.real, cval.imag)
    elif x.dtype.kind == "c":
        out.imag = function(x.imag, weights, cval.imag)
    else:
        out.imag = function(x, weights.imag, cval.real)
    return out


def _sum_dtype(x: np.ndarray, dtype: np.dtype) -> np.dtype:
    """What to add in: the wider of input and output."""
    return np.promote_types(_numbers.real_dtype(x.dtype), _numbers.real_dtype(dtype))


# --------------------------------------------------------------------------------------------------- filters


def _filtered(
    input: Any, weights: Any, output: Any, mode: Any, cval: Any, origin: Any, axes: Any, convolution: bool
) -> np.ndarray:
    x, w = _as_input(input), np.asarray(weights)
    border, numbers = _border(mode), _axes(axes, x.ndim)
    if w.ndim != len(numbers) or not w.size or w.dtype.kind not in "iufcb" or list(numbers) != sorted(numbers):
        raise Unserved("weights")
    w = w.astype(np.complex128 if w.dtype.kind == "c" else np.float64)
    if w.dtype.kind == "c" and not convolution:
        w = w.conj()
    origins = dict(zip(numbers, map(_index, _per_axis(origin, len(numbers))), strict=True))
    w = np.expand_dims(w, tuple(set(range(x.ndim)) - set(numbers)))
    offset = []
    for axis, k in enumerate(w.shape):
        shift = origins.get(axis, 0)
        if convolution:
            shift = -shift - (k % 2 == 0)
        if not -(k // 2) <= shift <= (k - 1) // 2:
            raise Unserved(f"origin={origin!r}")
        offset.append(-(k // 2) - shift)
    if convolution:
        w = w[(slice(None, None, -1),) * w.ndim]
    dtype = _output_dtype(output, x, x.dtype.kind == "c" or w.dtype.kind == "c")
    compute = _sum_dtype(x, dtype)

    def part(x: np.ndarray, w: np.ndarray, cval: float) -> np.ndarray:
        w = np.where(np.abs(w) > np.finfo(np.float64).eps, w, 0)  # as SciPy: smaller weights are none
        problem = Problem(
            x.astype(compute, copy=False), w.astype(compute), x.shape, tuple(offset), border, cval,
            unfused=_numbers.is_integer(dtype),
        )  # fmt: skip
        y = _correlate(problem, ("direct",) if problem.unfused else SUMS)
        if not w.all() and not np.isfinite(np.vdot(y, y)) and not np.isfinite(x).all():
            raise Unserved("NaN or infinity under weights of zero, which SciPy passes over")
        return y

    return _delivered(_by_parts(x, w, cval, part), dtype, output)


def _linear(x: np.ndarray, output: Any, passes: Sequence[Pass], complex_result: bool, cval: Any) -> np.ndarray:
    """One pass per axis, with the same cval in each."""
    dtype = _output_dtype(output, x, complex_result)
    compute = _sum_dtype(x, dtype)
    if _numbers.is_integer(dtype):
        raise Unserved("integers from weighted sums, which depend on the order of the terms")
    if x.ndim > 8:
        raise Unserved(f"{x.ndim} axes")

    def part(x: np.ndarray, _: np.ndarray, cval: float) -> np.ndarray:
        x = _args.addressable(x.astype(compute, copy=False))
        return run_passes(x, [replace(p, fill=cval) for p in passes])

    return _delivered(_by_parts(x, np.ones(1), cval, part), dtype, output)


def _along(input: Any, weights: np.ndarray, axis: Any, output: Any, mode: Any, cval: Any, origin: Any) -> np.ndarray:
    x = _as_input(input)
    (number,) = _axes(_index(axis), x.ndim)
    border, shift = _border(mode), _index(origin)
    if weights.ndim != 1 or not weights.size or weights.dtype.kind not in "iufc":
        raise Unserved("weights")
    k = len(weights)
    if not -(k // 2) <= shift <= (k - 1) // 2:
        raise Unserved(f"origin={origin!r}")
    w = weights.conj().astype(np.complex128 if weights.dtype.kind == "c" else np.float64)
    dtype = _output_dtype(output, x, x.dtype.kind == "c" or w.dtype.kind == "c")
    compute = _sum_dtype(x, dtype)
    if _numbers.is_integer(dtype) and not _exact(x, w, cval):
        raise Unserved("integers from weighted sums, which depend on the order of the terms")
    if x.ndim > 8:
        raise Unserved(f"{x.ndim} axes")

    def part(x: np.ndarray, w: np.ndarray, cval: float) -> np.ndarray:
        one = Pass(number, w, x.shape[number], -(k // 2) - shift, border, cval)
        return run_passes(_args.addressable(x.astype(compute, copy=False)), [one])

    return _delivered(_by_parts(x, w, cval, part), dtype, output)


def _exact(x: np.ndarray, weights: np.ndarray, cval: Any) -> bool:
    """Whether all sums are whole numbers that float64 holds."""
    if not _numbers.is_integer(x.dtype) or not _numbers.whole(weights) or _real(cval) != int(_real(cval)):
        return False
    return max(_numbers.largest(x), abs(int(cval))) * int(np.abs(weights).sum()) < EXACT


def _smoothed(
    input: Any, sigma: Any, order: Any, output: Any, mode: Any, cval: Any, truncate: Any, radius: Any, axes: Any
) -> np.ndarray:
    x = _as_input(input)
    numbers, passes, unit = _axes(axes, x.ndim), [], True
    parameters = (_per_axis(value, len(numbers)) for value in (sigma, order, mode, radius))
    for axis, s, derivative, border, reach in zip(numbers, *parameters, strict=True):
        if _real(s) <= 1e-15:
            continue
        r = _index(reach) if reach is not None else int(_real(truncate) * _real(s) + 0.5)
        if r < 0 or _index(derivative) < 0:
            raise Unserved("a negative radius or order")
        if r > _UNDERFLOW * _real(s) + 1 and np.isfinite(x).all():
            r = math.ceil(_UNDERFLOW * _real(s))
        n = x.shape[axis]
        weights, offset = _gaussian.taps(float(s), _index(derivative), Fold(2 * r + 1, n, n, -r, _border(border)))
        unit &= derivative == 0
        passes.append(Pass(axis, weights, n, offset, _border(border)))
    if not passes:
        raise Unserved("no axis to smooth along")
    # Behind a constant border the order of axes matters, unless all weights sum to one.
    if unit or complex(cval) == 0 or all(p.border != "constant" for p in passes):
        passes = _columns_before_rows(passes, x.ndim)
    return _linear(x, output, passes, x.dtype.kind == "c", cval)


def _columns_before_rows(passes: list[Pass], rank: int) -> list[Pass]:
    """In the order in which the two last axes can be one pass."""
    return sorted(passes, key=lambda p: p.axis if p.axis < rank - 2 else 2 * rank - p.axis)


def _averaged(input: Any, size: Any, output: Any, mode: Any, cval: Any, origin: Any, axes: Any) -> np.ndarray:
    x = _as_input(input)
    numbers, sums, lengths = _axes(axes, x.ndim), [], []
    parameters = (_per_axis(value, len(numbers)) for value in (size, origin, mode))
    for axis, length, shift, border in zip(numbers, *parameters, strict=True):
        k, before, n = int(_real(length)), _index(shift), x.shape[axis]
        if k <= 1:
            continue
        fold = Fold(k, n, n, -(k // 2) - before, _border(border))
        if not 0 <= k // 2 + before < k or (fold.needed and not np.isfinite(x).all()):
            raise Unserved(f"size={size!r}, origin={origin!r}")
        if k > _RUNNING_SUMS and not fold.needed:
            raise Unserved("a long box, whose running sums are faster")
        taps = fold.counts() if fold.needed else np.ones(k)
        box = fold if len(taps) > _RUNNING_SUMS else None
        sums.append(Pass(axis, taps, n, fold.start if fold.needed else fold.offset, fold.border, box=box))
        lengths.append(k)
    if not sums:
        raise Unserved("no axis to average along")
    dtype = _output_dtype(output, x, x.dtype.kind == "c")
    if not _numbers.is_integer(dtype):
        passes = [replace(p, weights=p.weights / k) for p, k in zip(sums, lengths, strict=True)]
        return _linear(x, output, _columns_before_rows(passes, x.ndim), x.dtype.kind == "c", cval)
    # Sums of integers are exact; each axis is divided, and stored as the output would be, before the next.
    for p, k in zip(sums, lengths, strict=True):
        if x.ndim > 8 or not _exact(x, np.array([float(max(k, 4 * p.out))]), cval):
            raise Unserved("integers beyond 2**53")
        y = run_passes(_args.addressable(x.astype(FLOAT64)), [replace(p, fill=_real(cval))])
        x = _numbers.truncated(y / k, dtype)
    if not isinstance(output, np.ndarray):
        return x
    output[...] = x
    return output
