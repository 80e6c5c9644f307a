# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions along one axis and along three, through every algorithm that takes them, against sums in float64.

The grid of two axes is in test_conv_grid.py, and so are the words on poison.
"""

from functools import cache

import numpy as np
import pytest

import fastconv as fc
from support import embedded, max_error, poison, spoil_scratch, tolerance
from test_conv_grid import BOUNDS, LARGEST_OF_MANY, WITHOUT_SCRATCH

CHANNELS = (1, 3, 8, 15, 16, 17, 33)


def summed(x, w, stride, padding, dilation, groups):
    """The definition, channels first, all axes at once."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    rank = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    extent = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, extent, axis=tuple(range(2, 2 + rank)))
    steps = tuple(slice(None, None, s) for s in stride)
    taps = tuple(slice(None, None, d) for d in dilation)
    windows = windows[(slice(None), slice(None), *steps, *taps)]
    n, c, *out = windows.shape[: 2 + rank]
    windows = windows.reshape(n, groups, c // groups, *out, -1)
    w = w.reshape(groups, w.shape[0] // groups, c // groups, -1)
    y = np.einsum("ngc...t,goct->ngo...", windows, w, optimize=True)
    return y.reshape(n, -1, *out)


def problems(rank):
    """(image, kernel, stride, padding, dilation), each along every axis."""
    dice = np.random.default_rng(rank)

    def one(choices):
        return choices[dice.integers(len(choices))]

    if rank == 1:
        for kernel in (1, 2, 3, 4, 5, 6, 7, 9, 12, 16):
            for length in (16, 17, 23, 47, 48, 49, 56, 57, 58, 113, 200):
                stride, dilation = one([(1, 1), (1, 1), (1, 1), (2, 1), (1, 3), (3, 2)])
                padding = dice.integers(kernel)
                length = max(length, (kernel - 1) * dilation + 1)
                yield (length,), (kernel,), (stride,), (padding,), (dilation,)
    else:
        kernels = ((3, 3, 3), (1, 3, 3), (3, 1, 3), (3, 3, 1), (2, 2, 2), (2, 1, 5), (1, 5, 5), (3, 4, 2), (1, 1, 1))
        for kernel in kernels:
            for width in (9, 12, 13, 24, 25, 50, 58):
                strides = one([(1, 1, 1), (1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 2)])
                dilations = one([(1, 1, 1), (1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 2)])
                extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
                image = tuple(max(n, e) for n, e in zip((*dice.integers(5, 9, 2), width), extent, strict=True))
                yield image, kernel, strides, tuple(int(dice.integers(k)) for k in kernel), dilations


@cache
def cases(rank, dtype):
    """(input, weight, bias, options, result): of every problem, channels first, the result in float64."""
    rng = np.random.default_rng(7)
    made = []
    for image, kernel, stride, padding, dilation in problems(rank):
        groups, batch = rng.choice([1, 1, 1, 2]), rng.choice([1, 2])
        channels, outputs = (int(groups * rng.choice(CHANNELS)) for _ in range(2))
        x = np.maximum(rng.standard_normal((batch, channels, *image)), 0).astype(dtype)
        w = rng.standard_normal((outputs, channels // groups, *kernel)) * np.sqrt(
            2 * groups / channels / np.prod(kernel)
        )
        w, bias = w.astype(dtype), rng.standard_normal(outputs).astype(dtype)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": int(groups)}
        truth = np.maximum(summed(x, w, **options) + bias.reshape(-1, *(1,) * rank), 0)
        made.append((x, w, bias, options, truth))
    return made


@pytest.mark.parametrize("layout", ["NCW", "NWC", "NCDHW", "NDHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dense", [True, False])
def test_every_algorithm_sums_the_same(layout, dtype, dense):
    rank = len(layout) - 2
    conv = {1: fc.conv1d, 3: fc.conv3d}[rank]
    served = set()
    for x, w, bias, options, truth in cases(rank, dtype):
        if layout.endswith("C"):
            x, truth = np.ascontiguousarray(np.moveaxis(x, 1, -1)), np.moveaxis(truth, -1 - rank, -1)
        _, x = embedded(x, dense)
        for algorithm in fc.ALGORITHMS:
            whole, out = embedded(poison(truth.shape, dtype), dense)
            if algorithm not in WITHOUT_SCRATCH:
                spoil_scratch(dtype)
            try:
                conv(x, w, bias, **options, layout=layout, activation="relu", algorithm=algorithm, out=out)
            except NotImplementedError:
                continue
            served.add(algorithm)
            case = (algorithm, x.shape, w.shape, options)
            assert np.count_nonzero(~np.isnan(whole)) == out.size, case
            five = algorithm == "winograd_f2" and 5 in w.shape[2:]
            bound = BOUNDS["winograd_f4" if five else algorithm]
            bound = tolerance(dtype, w[0].size) if dtype == "float64" else bound
            assert max_error(out, truth, max(truth.max(), LARGEST_OF_MANY)) <= 1.2 * bound, case
    expected = {name for name in fc.ALGORITHMS if dtype == "float32" or not name.startswith("winograd")}
    assert served >= expected - {"pointwise", "depthwise"}  # which ask for dense rows and for few channels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("length", [8192, 9001])
def test_long_rows_under_a_long_kernel_are_cut_into_spans(dtype, stride, length):
    """One row of one channel is more than one task, and no bit depends on who takes which."""
    rng = np.random.default_rng(11)
    x, w = rng.standard_normal((1, 1, length * stride)), rng.standard_normal((2, 1, 4100)) / 64
    residual = rng.standard_normal((1, 2, length + 1))
    padding = ((2049, 2051),)
    truth = np.stack([np.convolve(np.pad(x[0, 0], padding[0]), k[::-1], "valid")[::stride] for k in w[:, 0]])
    x, w, r = (a.astype(dtype) for a in (x, w, residual[..., : truth.shape[1]]))
    results = []
    for threads in (1, 2, 3):
        with fc.threads(threads):
            out = poison((1, *truth.shape), dtype)
            fc.conv1d(x, w, None, stride, padding, algorithm="depthwise", residual=r, out=out)
            results.append(out)
    assert max_error(results[0][0], truth + r[0], np.abs(truth).max()) <= tolerance(dtype, 4100)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
