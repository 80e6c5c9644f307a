# SPDX-License-Identifier: BSD-3-Clause
"""Packed weights carry a tag: plans with the same one read each other's, other plans refuse them."""

import numpy as np
import pytest

import fastconv as fc


def outcomes(weight, bias, kernel, rng, algorithm, transposed, stride, groups):
    """Plans for images of many sizes and both layouts, as far as the algorithm serves them."""
    rank = len(kernel)
    first, last = ("NCW", "NCHW", "NCDHW")[rank - 1], ("NWC", "NHWC", "NDHWC")[rank - 1]
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    for _ in range(8):
        layout = (first, last)[rng.integers(2)]
        sizes = [int(rng.integers(k, k + (40, 14, 8)[rank - 1])) for k in kernel]
        batch = int(rng.integers(1, 4))
        shape = (batch, channels, *sizes) if layout == first else (batch, *sizes, channels)
        options = {"layout": layout, "algorithm": algorithm, "activation": (None, "relu")[rng.integers(2)]}
        try:
            yield fc.ConvPlan(shape, weight, bias, stride, groups=groups, transposed=transposed, **options)
        except NotImplementedError:
            continue


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("algorithm", ["auto", *fc.ALGORITHMS])
def test_plans_of_the_same_tag_read_each_others_weights(algorithm, transposed, dtype):
    rng = np.random.default_rng(0)
    shared = 0
    for _ in range(12):
        kernel = tuple(rng.integers(1, 6, rng.integers(1, 4)).tolist())
        groups = int(rng.choice([1, 1, 2, 24]))
        outs, ins = (int(n) for n in rng.choice([1, 2, 5, 17, 33], 2))
        stride = int(rng.integers(1, 3))
        shape = (groups * ins, outs, *kernel) if transposed else (groups * outs, ins, *kernel)
        weight, bias = rng.standard_normal(shape).astype(dtype), rng.standard_normal(groups * outs).astype(dtype)
        found = {}
        for plan in outcomes(weight, bias, kernel, rng, algorithm, transposed, stride, groups):
            x = rng.standard_normal(plan._shape).astype(dtype)
            own, packed = plan(x), plan._packed
            for tag, other in found.items():
                plan._packed = other
                if tag == plan._plan.tag:
                    np.testing.assert_array_equal(plan(x), own)
                    shared += 1
                else:
                    with pytest.raises(ValueError, match="packed for plans of another kind"):
                        plan(x)
            found.setdefault(plan._plan.tag, packed)
    refused = algorithm.startswith("winograd") and dtype is np.float64
    assert shared > 0 or refused
