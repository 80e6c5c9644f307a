# SPDX-License-Identifier: BSD-3-Clause
"""Problems of pooling for the tests of its values and of its gradients."""

from typing import Any

import numpy as np
import pytest

from fastconv import reference
from support import embedded, to_layout, whole

LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float64")
both_layouts = pytest.mark.parametrize("layout", LAYOUTS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)

#: Around all vectors and blocks of vectors there are, 4 x 16 at most, and a few primes.
EDGES = (*range(1, 20), 23, 31, 32, 33, 34, 47, 48, 63, 64, 65, 66, 79, 127, 128, 129, 131)
#: A line of the core holds 1024 elements.
LONG = (1023, 1024, 1025, 1030, 2100)


def identical(actual, expected):
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == expected.dtype


def random_window(rng: np.random.Generator, size: tuple[int, int], dilated: bool) -> dict[str, Any]:
    """Parameters of a pooling that has at least one output."""
    while True:
        kernel = [int(rng.integers(1, min(n, 6) + 1)) for n in size]
        window = {
            "kernel_size": tuple(kernel),
            "stride": tuple(int(s) for s in rng.integers(1, 5, 2)),
            "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel),
            "ceil_mode": bool(rng.integers(2)),
        }
        if dilated:
            window["dilation"] = tuple(int(d) for d in rng.integers(1, 4, 2))
        try:
            reference.max_pool2d(np.zeros((1, *size)), **window)
        except ValueError:
            continue
        return window


def sprinkled(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """The array with some NaN, or with infinities of either sign."""
    kind = rng.integers(4)
    if kind == 0:
        x[rng.random(x.shape) < 0.1] = np.nan
    elif kind == 1:
        x[rng.random(x.shape) < 0.5] = -np.inf
        x[rng.random(x.shape) < 0.02] = np.inf
    return x


def random_problem(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Images in a layout, as a part of something larger."""
    dtype, layout = str(rng.choice(DTYPES)), str(rng.choice(LAYOUTS))
    shape = [rng.integers(1, 3), rng.choice(EDGES[:30]), rng.integers(1, 9), rng.choice(EDGES)]
    if layout == "NCHW":
        shape[1] = rng.integers(1, 4)
    else:
        shape[3] = rng.integers(1, 12)
    x = to_layout(whole(rng, shape, dtype), layout)
    return embedded(x, dense=bool(rng.integers(2)))[1], layout
