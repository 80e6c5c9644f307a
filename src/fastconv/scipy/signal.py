# SPDX-License-Identifier: BSD-3-Clause
"""``scipy.signal``'s convolutions: the same signatures, dtypes, values (within rounding) and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.signal

from fastconv._names import only
from fastconv.scipy import _numbers
from fastconv.scipy._accelerate import in_place_of
from fastconv.scipy._engine import SUMS, Pass, Problem, run_passes
from fastconv.scipy._engine import correlate as _correlate
from fastconv.scipy._numbers import EXACT, Unserved

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d", "sepfir2d"]
__dir__ = only(__all__)

_BORDERS = {"fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap", "symm": "reflect"}
_BORDERS["symmetric"] = "reflect"
_METHODS = {"auto": ("direct", "separable", "fft"), "direct": ("direct", "separable"), "fft": ("fft",)}


@in_place_of(scipy.signal)
def convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> np.ndarray:
    """Convolve two N-dimensional arrays, as :func:`scipy.signal.convolve`.

    Parameters
    ----------
    in1, in2 : array_like
        Of the same number of axes.
    mode : {"full", "valid", "same"}
    method : {"auto", "direct", "fft"}
        ``"auto"`` takes what is predicted to be fastest here, which may be another method than SciPy's choice; an FFT
        only if the range of in1 leaves typical sums their digits.

    Returns
    -------
    numpy.ndarray, of the dtype that both promote to
        Integers are exact, modulo their range.

    Examples
    --------
    >>> from fastconv.scipy import signal
    >>> signal.convolve([1, 2, 3], [0, 1, 0.5])
    array([0. , 1. , 2.5, 4. , 1.5])
    """
    return _convolved(np.asarray(in1), np.asarray(in2), mode, "constant", 0, _METHODS.get(method))


@in_place_of(scipy.signal)
def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> np.ndarray:
    """Cross-correlate two N-dimensional arrays, as :func:`scipy.signal.correlate`; the parameters of :func:`convolve`.

    Examples
    --------
    >>> from fastconv.scipy import signal
    >>> signal.correlate([1, 2, 3], [0, 1, 0.5])
    array([0.5, 2. , 3.5, 3. , 0. ])
    """
    kernel = _reversed(np.asarray(in2)).conj()
    return _convolved(np.asarray(in1), kernel, mode, "constant", 0, _METHODS.get(method))


@in_place_of(scipy.signal)
def convolve2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> np.ndarray:
    """Convolve two 2-dimensional arrays, as :func:`scipy.signal.convolve2d`.

    Parameters
    ----------
    in1, in2 : array_like of two axes
    mode : {"full", "valid", "same"}
    boundary : {"fill", "wrap", "symm"}
    fillvalue : scalar
        What lies beyond ``in1`` with ``boundary="fill"``.

    Returns
    -------
    numpy.ndarray, of the dtype that both promote to

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import signal
    >>> signal.convolve2d(np.eye(3), [[1, 2]], mode="same", boundary="wrap")
    array([[1., 2., 0.],
           [0., 1., 2.],
           [2., 0., 1.]])
    """
    return _convolved2d(np.asarray(in1), np.asarray(in2), mode, boundary, fillvalue, False)


@in_place_of(scipy.signal)
def correlate2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> np.ndarray:
    """Cross-correlate two 2-dimensional arrays, as :func:`scipy.signal.correlate2d`; the parameters of
    :func:`convolve2d`."""
    return _convolved2d(np.asarray(in1), np.asarray(in2), mode, boundary, fillvalue, True)


@in_place_of(scipy.signal)
def sepfir2d(input: Any, hrow: Any, hcol: Any) -> np.ndarray:
    """Filter an image by a row and a column of odd length, as :func:`scipy.signal.sepfir2d`.

    Beyond its edges the image is reflected, the last element included; as often as it takes, where SciPy 1.17 reads
    outside of an image that is smaller than half a filter.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.scipy import signal
    >>> signal.sepfir2d(np.eye(3, dtype=np.float32), [1, 2, 1], [0, 1, 0])
    array([[3., 1., 0.],
           [1., 2., 1.],
           [0., 1., 3.]], dtype=float32)
    """
    return _sepfir2d(np.asarray(input), np.asarray(hrow), np.asarray(hcol))


def _reversed(array: np.ndarray) -> np.ndarray:
    return array[(slice(None, None, -1),) * array.ndim]


def _convolved2d(a: np.ndarray, b: np.ndarray, mode: str, boundary: str, fill: Any, correlated: bool) -> np.ndarray:
    if not a.ndim == b.ndim == 2 or type(fill) not in (int, float) or _BORDERS.get(_hashable(boundary)) is None:
        raise Unserved("arguments")
    if (
        correlated
        and a.size
        and b.size
        and mode == "valid"
        and any(k > n for n, k in zip(a.shape, b.shape, strict=True))
    ):
        raise Unserved("a kernel larger than the array")  # SciPy's result is turned round, but not conjugated
    b = _reversed(b).conj() if correlated else b
    return _convolved(a, b, mode, _BORDERS[boundary], fill, SUMS, late=correlated)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _convolved(
    a: np.ndarray,
    b: np.ndarray,
    mode: str,
    border: str,
    fill: float,
    engines: tuple[str, ...] | None,
    late: bool = False,
) -> np.ndarray:
    """Convolution of arrays of any dtype that is served; `late` is for the window of :func:`_window`."""
    if engines is None or mode not in ("full", "same", "valid") or a.ndim != b.ndim or a.ndim == 0:
        raise Unserved("arguments")
    if not a.size or not b.size:
        raise Unserved("an empty array")
    smaller = all(k <= n for n, k in zip(a.shape, b.shape, strict=True))
    if not smaller and mode == "valid":
        a, b = b, a
        if any(k > n for n, k in zip(a.shape, b.shape, strict=True)):
            raise Unserved("neither array holds the other")
    elif not smaller and mode == "same":
        raise Unserved("a kernel larger than the array")
    elif not smaller and border == "constant" and fill == 0 and b.size > a.size:
        a, b = b, a
    dtype = np.result_type(a.dtype, b.dtype)
    compute = _numbers.real_dtype(dtype)
    if _numbers.is_integer(dtype):
        if not isinstance(fill, int) or (fill and not np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max):
            raise Unserved("fillvalue")
        bound = max(_numbers.largest(a), abs(fill)) * _numbers.largest(b) * b.size
        if bound >= EXACT:
            raise Unserved("sums of integers beyond 2**53")
        # A kernel's factors need not be whole.
        engines = tuple({"fft": "rounded"}.get(e, e) for e in engines if e != "separable")
    elif a.dtype.kind not in "iufc" or b.dtype.kind not in "iufc":
        raise Unserved(f"numbers of dtype {a.dtype} and {b.dtype}")
    sums = _complex_parts(a, _reversed(b), dtype, compute, _window(a.shape, b.shape, mode, late), border, fill, engines)
    if engines == ("fft",) and not np.isfinite(sums.flat[0]):
        raise Unserved("NaN or infinity in an FFT")
    return _numbers.wrapped(np.rint(sums), dtype) if _numbers.is_integer(dtype) else sums


def _window(
    shape: tuple[int, ...], kernel: tuple[int, ...], mode: str, late: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Output sizes and offsets. Of two middle elements of an even kernel, ``correlate2d`` takes the first as the
    centre, all others the second: its windows are one element late."""
    if mode == "full":
        return tuple(n + k - 1 for n, k in zip(shape, kernel, strict=True)), tuple(1 - k for k in kernel)
    if mode == "valid":
        return tuple(n - k + 1 for n, k in zip(shape, kernel, strict=True)), (0,) * len(shape)
    return shape, tuple(-((k - late) // 2) for k in kernel)


def _complex_parts(
    a: np.ndarray,
    kernel: np.ndarray,
    dtype: np.dtype,
    compute: np.dtype,
    window: tuple[tuple[int, ...], tuple[int, ...]],
    border: str,
    fill: float,
    engines: tuple[str, ...],
) -> np.ndarray:
    """Correlation of real or complex arrays as one to four of real ones."""

    def part(x: np.ndarray, w: np.ndarray, real: bool = True) -> np.ndarray:
        x, w = x.astype(compute, copy=False), w.astype(compute, copy=False)
        return _correlate(Problem(x, w, *window, border, float(fill) if real else 0.0), engines)

    if dtype.kind != "c":
        return part(a, kernel)
    out = np.empty(window[0], dtype)
    if a.dtype.kind != "c":
        out.real, out.imag = part(a, kernel.real), part(a, kernel.imag)
    elif kernel.dtype.kind != "c":
        out.real, out.imag = part(a.real, kernel), part(a.imag, kernel, False)
    else:
        out.real = part(a.real, kernel.real) - part(a.imag, kernel.imag, False)
        out.imag = part(a.real, kernel.imag) + part(a.imag, kernel.real, False)
    return out


def _sepfir2d(x: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    if (
        x.ndim != 2
        or not x.size
        or row.ndim != 1
        or column.ndim != 1
        or x.dtype.kind not in "iuf"
        or x.itemsize not in (1, 2, 4, 8)
    ):
        raise Unserved("arguments")
    if not (len(row) % 2 and len(column) % 2 and row.dtype.kind in "iuf" and column.dtype.kind in "iuf"):
        raise Unserved("filters")
    dtype = np.promote_types(x.dtype, np.float32)
    if not all(np.can_cast(f.dtype, dtype, "safe") for f in (row, column)):
        raise Unserved(f"filters of another dtype than {dtype}")
    h, w = x.shape
    filters = [f.astype(dtype)[::-1] for f in (row, column)]
    across = Pass(1, filters[0], w, -(len(row) // 2), "reflect")
    down = Pass(0, filters[1], h, -(len(column) // 2), "reflect")
    return run_passes(x.astype(dtype, copy=False), [across, down])
