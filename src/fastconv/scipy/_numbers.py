# SPDX-License-Identifier: BSD-3-Clause
"""Which numbers are computed here, in what precision, and how results become integers. What is not goes to SciPy.

float32 and float64, and their complex pairs, are computed as they are. Integers are computed in float64 as long as
their sums are whole numbers below 2**53, where float64 is exact. bool, float16, long double and objects are SciPy's.
"""

from __future__ import annotations

import logging

import numpy as np

log = logging.getLogger("fastconv.scipy")

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_COMPUTED: dict[np.dtype, np.dtype] = {
    FLOAT32: FLOAT32,
    FLOAT64: FLOAT64,
    np.dtype("c8"): FLOAT32,
    np.dtype("c16"): FLOAT64,
}
#: Whole numbers up to here are exact in float64.
EXACT = 2**53


class Unserved(Exception):
    """Why a call is SciPy's."""


def is_integer(dtype: np.dtype) -> bool:
    """Whether these are integers that can be computed here."""
    return dtype.kind in "iu" and dtype.isnative


def real_dtype(dtype: np.dtype) -> np.dtype:
    """The precision in which results of this dtype are computed."""
    if is_integer(dtype):
        return FLOAT64
    if dtype not in _COMPUTED or not dtype.isnative:
        raise Unserved(f"numbers of dtype {dtype}")
    return _COMPUTED[dtype]


def largest(array: np.ndarray) -> int:
    """The largest magnitude among integers."""
    return max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def whole(array: np.ndarray) -> bool:
    """Whether all of these are whole numbers."""
    return array.dtype.kind in "iu" or bool((array == np.rint(array)).all())


def wrapped(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Whole numbers in float64 as integers, modulo their range: what integer arithmetic would have given."""
    return sums.astype(np.int64).astype(dtype)


def truncated(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Sums as ``scipy.ndimage`` stores them as integers: towards zero, and modulo the range where C defines that."""
    limit = 2.0**31 if dtype.itemsize < 4 or dtype == np.int32 else 2.0**62
    if not (sums.min(initial=0) > -limit and sums.max(initial=0) < limit):
        raise Unserved(f"sums that {dtype} cannot hold, by far")
    return wrapped(sums, dtype)
