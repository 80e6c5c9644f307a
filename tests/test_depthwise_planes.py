# SPDX-License-Identifier: BSD-3-Clause
"""Depthwise layers of so many small planes that a task has several of them, which a kernel takes together."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from problems import DTYPES, Problem, existing, operands
from support import MANY_THREADS, embedded, every_thread, max_error, poison, spoil_scratch, tolerance

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

#: Widths around vectors, halves of them, and the columns of planes that go together; unrolled kernels and others;
#: several outputs of a plane.
PLANES = existing(
    Problem(
        (height, width), 40, 40 * outs, kernel, 2, stride, ((pad, pad), (pad, pad)), dilation, 40, True, None, residual
    )
    for height, width in (
        (1, 3),
        (5, 4),
        (7, 7),
        (8, 8),
        (9, 13),
        (14, 14),
        (6, 16),
        (3, 17),
        (15, 31),
        (7, 33),
        (10, 34),
    )
    for kernel, stride, pad, dilation, outs, residual in (
        ((3, 3), (1, 1), 1, (1, 1), 1, False),
        ((3, 3), (1, 1), 0, (1, 1), 3, True),
        ((3, 3), (2, 2), 1, (1, 1), 1, True),
        ((5, 5), (1, 1), 2, (1, 1), 2, False),
        ((4, 3), (1, 2), 2, (2, 1), 1, False),
        ((3, 2), (3, 3), 1, (1, 1), 2, True),
    )
)


@each_dtype
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "apart"])
def test_planes(dtype, dense):
    for problem in PLANES:
        x, w, b, residual = operands(problem, dtype)
        inside, out = embedded(poison(problem.output_shape, dtype), dense)
        spoil_scratch(dtype)
        _, image = embedded(x, dense)
        fc.conv2d(image, w, b, **problem.geometry, residual=residual, algorithm="depthwise", out=out)
        truth = reference.conv2d_im2col(x, w, b, **problem.geometry, dtype=np.float64)
        if residual is not None:
            truth = truth + residual
        assert max_error(out, truth) < tolerance(dtype, problem.terms + 1), problem
        assert np.count_nonzero(~np.isnan(inside)) == out.size, problem
    assert len(PLANES) >= 60


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_threads_and_neighbours_change_no_bit(activation):
    """A plane's bits are those that it has alone; a pass of its own that computes an activation meets every plane."""
    problem = Problem((7, 14), 64, 64, (3, 3), 3, padding=((1, 1), (1, 1)), groups=64, bias=True)
    x, w, b, _ = operands(problem, np.float32)

    def result(channels=slice(None)):
        groups = len(w[channels])
        return fc.conv2d(x[:, channels], w[channels], b[channels], padding=1, groups=groups, activation=activation)

    with fc.threads(1):
        alone = result()
    for count in MANY_THREADS:
        with every_thread(), fc.threads(count):
            assert np.array_equal(result(), alone)
    for channel in (0, 17, 63):
        assert np.array_equal(result(slice(channel, channel + 1)), alone[:, channel : channel + 1])
