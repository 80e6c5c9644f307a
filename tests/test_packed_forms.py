# SPDX-License-Identifier: BSD-3-Clause
"""Packed weights carry a tag: plans with the same one read each other's, other plans refuse them."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import LOOPS
from fastconv import _config, _core, _plans
from support import max_error, poison, tolerance


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
    shared = refused = 0
    for _ in range(12):
        kernel = tuple(rng.integers(1, 6, rng.integers(1, 4)).tolist())
        groups = int(rng.choice([1, 1, 2, 24]))
        outs, ins = (int(n) for n in rng.choice([1, 2, 5, 17, 33], 2))
        stride = int(rng.integers(1, 3))
        shape = (groups * ins, outs, *kernel) if transposed else (groups * outs, ins, *kernel)
        weight, bias = rng.standard_normal(shape).astype(dtype), rng.standard_normal(groups * outs).astype(dtype)
        found = {}
        for plan in outcomes(weight, bias, kernel, rng, algorithm, transposed, stride, groups):
            if algorithm == "reference" and plan.flops > 2 * LOOPS:
                continue
            x = rng.standard_normal(plan._shape).astype(dtype)
            own, packed = plan(x), plan._packed
            for tag, other in found.items():
                plan._packed = other
                if tag == plan._plan.tag:
                    np.testing.assert_array_equal(plan(x), own)
                    shared += 1
                else:
                    refused += 1
                    with pytest.raises(ValueError, match="packed for plans of another kind"):
                        plan(x)
            found.setdefault(plan._plan.tag, packed)
    served = not algorithm.startswith("winograd") or dtype is not np.float64
    assert shared > 0 or not served
    assert refused > 0 or algorithm not in ("auto", "direct", "im2col", "pointwise")  # others pack in one form


def test_algorithms_and_instruction_sets_refuse_each_others_weights(monkeypatch):
    """Also where the sizes are equal."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 32, 14, 14), dtype=np.float32)
    weight = rng.standard_normal((32, 32, 3, 3), dtype=np.float32)
    algorithms = [name for name in fc.algorithms(x.shape, weight.shape) if name != "im2col"]  # it packs as direct does
    plans = []
    for isa in (number for number, (_, _, usable) in enumerate(_core.isas()) if usable):
        monkeypatch.setattr(_config, "ISA", isa)
        _plans.kept_plan.cache_clear()  # plans kept are those of one instruction set
        plans += [fc.ConvPlan(x.shape, weight, algorithm=name) for name in algorithms]
    _plans.kept_plan.cache_clear()
    for plan, other in itertools.permutations(plans, 2):
        kept, plan._packed, out = plan._packed, other._packed, poison(plan.output_shape, x.dtype)
        with pytest.raises(ValueError, match="packed for plans of another kind"):
            plan(x, out=out)
        with pytest.raises(ValueError, match="packed for plans of another kind"):
            plan._plan.execute(x, other._packed, None, None, None, out, 1)
        assert np.isnan(out).all()
        plan._packed = kept
    assert len(plans) >= 6


def in_memory(weight, order):
    """The same weights, whose axes lie in another order in memory, or backwards."""
    if order == "backwards":
        return np.ascontiguousarray(weight[::-1, ::-1])[::-1, ::-1]
    axes = tuple(range(weight.ndim)) if order is None else order
    return np.ascontiguousarray(weight.transpose(axes)).transpose(np.argsort(axes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", [(0, 2, 3, 1), (1, 0, 2, 3), (2, 3, 1, 0), (1, 2, 3, 0), "backwards"], ids=str)
@pytest.mark.parametrize("algorithm", ["auto", "direct", "im2col", "pointwise", "winograd_f2", "depthwise"])
def test_weights_may_lie_in_any_order(algorithm, order, dtype):
    """Of rows around tiles and vectors, channels around chunks, one image and a batch of small ones."""
    rng, served = np.random.default_rng(1), 0
    for kernel, outs, ins, groups in itertools.product([(1, 1), (3, 3), (2, 3)], [17, 64, 70], [1, 33, 130], [1, 2]):
        weight = rng.standard_normal((groups * outs, ins, *kernel)).astype(dtype)
        for batch, side in [(5, 3), (1, 9)]:
            x = rng.standard_normal((batch, groups * ins, side, side)).astype(dtype)
            g = rng.standard_normal((batch, groups * outs, *(side + 3 - k for k in kernel))).astype(dtype)
            options = {"padding": 1, "groups": groups, "algorithm": algorithm}

            def calls(w, x=x, g=g, options=options):
                yield lambda: fc.conv2d(x, w, **options), w.shape[1] * w[0, 0].size
                yield lambda: fc.grad.conv2d_input(x.shape, w, g, **options), outs * w[0, 0].size  # noqa: B023

            for (theirs, terms), (ours, _) in zip(calls(weight), calls(in_memory(weight, order)), strict=True):
                try:
                    expected = theirs()
                except NotImplementedError:
                    continue
                served += 1
                assert max_error(ours(), expected) < 2 * tolerance(dtype, 16 * terms), (weight.shape, x.shape)
    assert served > 0 or (algorithm == "winograd_f2" and dtype is np.float64)
