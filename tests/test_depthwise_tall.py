# SPDX-License-Identifier: BSD-3-Clause
"""Large kernels between one input channel, or a few, and few outputs: tiles of six rows that read a padded copy."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from problems import DTYPES, Problem, existing, in_layout, operands
from support import (
    MANY_THREADS,
    embedded,
    every_thread,
    from_layout,
    max_error,
    poison,
    spoil_scratch,
    to_layout,
    tolerance,
)

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])

#: Outputs around the six rows and the vectors of a tile, kernels around its height, groups, wide borders.
EDGES = tuple(
    Problem(size, ins * groups, outs * groups, kernel, batch, (1, 1), padding, (1, 1), groups, bias=True)
    for size, kernel, padding, ins, outs, groups, batch in (
        ((6, 69), (6, 6), ((0, 0), (0, 0)), 1, 1, 1, 1),
        ((7, 64), (6, 6), ((5, 0), (3, 2)), 1, 2, 1, 2),
        ((11, 79), (8, 5), ((4, 3), (2, 2)), 1, 1, 1, 1),
        ((12, 80), (9, 9), ((4, 4), (4, 4)), 1, 1, 3, 1),
        ((13, 81), (9, 4), ((8, 8), (3, 3)), 2, 2, 1, 2),
        ((18, 127), (7, 7), ((3, 3), (3, 3)), 3, 3, 1, 1),
        ((19, 129), (12, 3), ((13, 14), (4, 5)), 3, 1, 1, 1),
        ((35, 191), (36, 1), ((18, 17), (0, 0)), 1, 1, 1, 1),
        ((40, 200), (31, 31), ((15, 15), (15, 15)), 1, 2, 1, 1),
        ((150, 1030), (11, 11), ((5, 5), (5, 5)), 1, 1, 1, 1),
    )
)


@each_dtype
@each_layout
def test_edges(layout, dtype):
    problems = existing(EDGES)
    for problem in problems:
        x, w, b, _ = operands(problem, dtype)
        inside, out = embedded(poison(in_layout(problem.output_shape, layout), dtype))
        _, image = embedded(to_layout(x, layout))
        spoil_scratch(dtype)
        fc.conv2d(image, w, b, **problem.geometry, layout=layout, algorithm="depthwise", out=out)
        truth = reference.conv2d_im2col(x, w, b, **problem.geometry, dtype=np.float64)
        assert max_error(from_layout(out, layout), truth) < tolerance(dtype, problem.terms), problem
        assert np.count_nonzero(~np.isnan(inside)) == out.size, problem
    assert len(problems) == len(EDGES)


@each_layout
def test_threads_change_no_bit(layout):
    problem = Problem((100, 200), 3, 3, (9, 9), 1, padding=((4, 4), (4, 4)))
    x, w, _, _ = operands(problem, np.float32)
    image = to_layout(x, layout)

    def result():
        return fc.conv2d(image, w, **problem.geometry, layout=layout, algorithm="depthwise")

    with fc.threads(1):
        alone = result()
    for count in MANY_THREADS:
        with every_thread(), fc.threads(count):
            assert np.array_equal(result(), alone)


def test_residual_and_clamp():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 20, 100)).astype(np.float32)
    w = rng.standard_normal((1, 1, 9, 9)).astype(np.float32)
    residual = rng.standard_normal(x.shape).astype(np.float32)
    plain = fc.conv2d(x, w, padding=4, algorithm="depthwise")
    both = fc.conv2d(x, w, padding=4, algorithm="depthwise", residual=residual, activation="relu")
    assert np.array_equal(both, np.maximum(plain + residual, 0))


@pytest.mark.skipif(fc.isa() not in ("avx2", "avx512"), reason="by the costs of these")
def test_choice():
    """One channel, and few outputs where channels are last; many outputs are a matrix product."""

    def chosen(ins, outs, layout):
        shape = (1, ins, 512, 512) if layout == "NCHW" else (1, 512, 512, ins)
        return fc.ConvPlan(shape, np.ones((outs, ins, 9, 9), np.float32), padding=4, layout=layout).algorithm

    assert chosen(1, 1, "NCHW") == chosen(3, 3, "NHWC") == "depthwise"
    assert chosen(3, 16, "NHWC") != "depthwise"
