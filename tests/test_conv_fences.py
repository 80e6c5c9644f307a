# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions on arrays that begin or end where memory may not be touched.

The grid shows what a wrong element does to a result; here an element too far ends the process, also if nobody looks at
it. So an end of the whole run within this file is a failure of the test at work.
"""

import sys

import numpy as np
import pytest

import fastconv as fc
from families import FAMILIES, family
from problems import DTYPES, LAYOUTS, in_layout, operands
from support import Fenced, every_thread, poison

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

#: Bytes between two fences.
ROOM = 8 << 20
#: Whether arrays end before the second fence, or begin behind the first; a plan serves both.
ENDS = (True, False)


@pytest.fixture(scope="module")
def fences():
    """A place for input, weight, bias, residual and output."""
    places = [Fenced(ROOM) for _ in range(5)]
    yield places
    for place in places:
        place.open()


@pytest.fixture(autouse=True, params=[1, 3], ids=["one thread", "three threads"])
def threads(request):
    with every_thread(), fc.threads(request.param):
        yield request.param


def some(name, step, threads):
    """Problems of a family; where several threads share the work, fewer."""
    return family(name)[:: step * threads]


def laid_out(problem, dtype):
    """(layout, operands) in each; none if there is no place for them."""
    arrays = operands(problem, dtype)
    if max(a.nbytes for a in arrays if a is not None) <= ROOM:
        for layout in LAYOUTS:
            yield layout, arrays.to(layout)


def put(fences, arrays, at_end):
    return [None if a is None else fence.place(a, at_end) for fence, a in zip(fences, arrays, strict=False)]


@each_dtype
@pytest.mark.parametrize("name", FAMILIES)
def test_forward(fences, name, dtype, threads):
    for problem in some(name, 2 if dtype == "float32" else 5, threads):
        for layout, arrays in laid_out(problem, dtype):
            nothing = poison(in_layout(problem.output_shape, layout), dtype)
            options = {**problem.geometry, "layout": layout, "activation": problem.activation}
            given = arrays.input.shape, arrays.weight.shape
            algorithms = fc.algorithms(*given, **problem.geometry, layout=layout, dtype=dtype)
            for at_end in ENDS:
                x, w, b, r = put(fences, arrays, at_end)
                for algorithm in algorithms:
                    if algorithm != "reference":
                        out = fences[4].place(nothing, at_end)
                        fc.conv2d(x, w, b, **options, residual=r, algorithm=algorithm, out=out)
                        assert np.isfinite(out).all(), f"{problem}, {algorithm}"


@pytest.mark.parametrize("at_end", ENDS, ids=["at the end", "at the beginning"])
@each_dtype
@pytest.mark.parametrize("name", ["few_channels", "kernel_rows", "depthwise", "pointwise", "winograd_tiles"])
def test_channels_of_wider_pixels(fences, name, dtype, at_end, threads):
    """NHWC, the first or the last channels of more: only the fence is beside the last pixel, or before the first."""

    def place(fence, array):
        wide = np.full((*array.shape[:-1], array.shape[-1] + 3), np.nan, dtype)
        part = np.s_[..., -array.shape[-1] :] if at_end else np.s_[..., : array.shape[-1]]
        wide[part] = array
        return fence.place(wide, at_end)[part]

    for problem in some(name, 2 if dtype == "float32" else 5, threads):
        x, w, b, r = operands(problem, dtype).to("NHWC")
        y = poison(in_layout(problem.output_shape, "NHWC"), dtype)
        if 4 * max(x.nbytes, y.nbytes) > ROOM:
            continue
        if 1 in (problem.in_channels, problem.out_channels):  # then rows are contiguous, but for wider pixels
            continue
        x, r, out = (None if a is None else place(f, a) for f, a in zip(fences, (x, r, y), strict=False))
        options = {**problem.geometry, "layout": "NHWC", "activation": problem.activation}
        for algorithm in fc.algorithms(x.shape, w.shape, **problem.geometry, layout="NHWC", dtype=dtype):
            if algorithm != "reference":
                fc.conv2d(x, w, b, **options, residual=r, algorithm=algorithm, out=out)
                assert np.isfinite(out).all(), f"{problem}, {algorithm}"


@each_dtype
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients(fences, name, dtype, threads):
    for problem in some(name, 3 if dtype == "float32" else 7, threads):
        for layout, (x, w, _, _) in laid_out(problem, dtype):
            y = np.ones(in_layout(problem.output_shape, layout), dtype)
            if y.nbytes > ROOM:
                continue
            options = {**problem.geometry, "layout": layout}
            for at_end in ENDS:
                x, w, y = put(fences, (x, w, y), at_end)
                assert np.isfinite(fc.grad.conv2d_input(x.shape, w, y, **options)).all(), problem
                assert np.isfinite(fc.grad.conv2d_weight(x, w.shape, y, **options)).all(), problem
                out = fences[3].place(poison(x.shape, dtype), at_end), None, None
                given = fc.grad.conv2d(x, w, y, **options, out=out)
                assert all(np.isfinite(gradient).all() for gradient in given), problem
