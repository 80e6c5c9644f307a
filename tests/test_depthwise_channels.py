# SPDX-License-Identifier: BSD-3-Clause
"""Depthwise convolutions over channels: kernels that are not unrolled, and pixels that share few sets of a cache."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args, _config, _core, reference
from problems import DTYPES, Problem, existing, in_layout, operands
from support import (
    MANY_THREADS,
    embedded,
    every_thread,
    from_layout,
    lanes,
    max_error,
    poison,
    spoil_scratch,
    to_layout,
    tolerance,
)

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

PADDINGS = (((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 1), (3, 5)), ((5, 4), (6, 7)))

#: Outputs around the eight and the four of a window, channels around the vectors of all instruction sets, rows of taps
#: around four; rows that are dilated or far apart.
EDGES = tuple(
    Problem(size, channels, channels, kernel, 2, (stride, 1), padding, (dilation, 1), channels, bias=True)
    for kernel, stride, dilation in (
        ((1, 2), 1, 1), ((2, 3), 2, 1), ((4, 4), 1, 1), ((3, 5), 1, 2), ((6, 6), 1, 1), ((1, 7), 3, 1), ((2, 8), 1, 1),
        ((9, 9), 1, 1), ((11, 11), 1, 1), ((3, 13), 2, 1),
    )
    for (size, channels), padding in zip(
        (
            ((1, 1), 2), ((2, 3), 3), ((3, 4), 4), ((4, 5), 5), ((5, 7), 7), ((6, 8), 8), ((7, 9), 9), ((8, 12), 15),
            ((9, 13), 16), ((11, 16), 17), ((12, 17), 31), ((13, 21), 33), ((14, 40), 64),
        ),
        PADDINGS * 4,
        strict=False,
    )
)  # fmt: skip


#: Groups of several channels: outputs around the eight and the four of a window, rows of one to seven taps, channels
#: that are no whole vectors.
GROUPS = tuple(
    Problem(size, each * groups, each * groups, kernel, 2, (stride,) * 2, padding, (1, dilation), groups, bias=True)
    for each in (2, 4, 8)
    for kernel, stride, dilation in (((3, 3), 1, 1), ((3, 3), 2, 1), ((2, 2), 1, 1), ((5, 4), 2, 1), ((1, 7), 1, 1),
                                     ((1, 1), 1, 1), ((3, 3), 3, 1), ((2, 3), 1, 2))
    for (size, groups), padding in zip(
        (((3, 2), 2), ((4, 7), 3), ((5, 8), 5), ((6, 9), 8), ((7, 17), 9), ((9, 26), 4)), PADDINGS * 2, strict=False
    )
)  # fmt: skip


@each_dtype
def test_edges(dtype):
    problems = existing([p for p in EDGES + GROUPS if p.in_channels // p.groups <= lanes(dtype)])
    for problem in problems:
        x, w, b, _ = operands(problem, dtype)
        inside, out = embedded(poison(in_layout(problem.output_shape, "NHWC"), dtype))
        _, image = embedded(to_layout(x, "NHWC"))
        fc.conv2d(image, w, b, **problem.geometry, layout="NHWC", algorithm="depthwise", out=out)
        truth = reference.conv2d_im2col(x, w, b, **problem.geometry, dtype=np.float64)
        assert max_error(from_layout(out, "NHWC"), truth) < tolerance(dtype, problem.terms), problem
        assert np.count_nonzero(~np.isnan(inside)) == out.size, problem
    assert len(problems) > 80


def apart(x, pixel):
    """The same numbers, channels last, their pixels so many elements apart and NaN in between."""
    wide = poison((*x.shape[:-1], pixel), x.dtype)
    view = wide[..., 3 : 3 + x.shape[-1]]
    view[...] = x
    return view


FAR = [
    ((12, 11), 17, 3, 1, 1, 1),
    ((13, 9), 33, 3, 2, 1, 1),
    ((7, 16), 16, 5, 1, 2, 1),
    ((9, 10), 5, 4, 1, (1, 2), 1),
    ((15, 8), 9, 11, 1, 5, 1),
    ((14, 9), 20, 3, 1, 0, 2),
    ((5, 4), 8, 3, 3, ((4, 0), (0, 4)), 1),
    ((6, 5, 7), 18, 3, 1, 1, 1),
    ((5, 6, 9), 3, 2, (2, 1, 1), 1, 2),
]


@pytest.mark.parametrize("case", FAR, ids=str)
@each_dtype
def test_rows_that_are_copied_change_no_bit(case, dtype):
    size, channels, kernel, *steps = case
    rank, element = len(size), np.dtype(dtype).itemsize
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, *size, channels)).astype(dtype)
    w = rng.standard_normal((channels, 1, *(kernel,) * rank)).astype(dtype)
    conv = {2: fc.conv2d, 3: fc.conv3d}[rank]
    stride, padding, dilation = steps
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    options |= {"layout": {2: "NHWC", 3: "NDHWC"}[rank], "algorithm": "depthwise"}
    expected = conv(x, w, **options)
    for pixel in (4096 // element, 2048 // element):
        image, out = apart(x, pixel), poison(expected.shape, dtype)
        spoil_scratch(dtype)
        with fc.threads(1):
            conv(image, w, **options, out=out)
        np.testing.assert_array_equal(out, expected)
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                np.testing.assert_array_equal(conv(image, w, **options), expected)


def chosen(shape, weight, stride, layout, isa):
    """The form that `auto` takes, and bytes of scratch, by nominal constants and a first-level cache of eight ways."""
    g = _args.geometry(2, shape, weight, stride, weight[-1] // 2, 1, weight[0], layout)
    strides = (_args.dense_strides(sizes, 4) for sizes in (g.input_shape, weight, g.output_shape))
    fields = g.fields("forward", np.dtype(np.float32), *strides)
    return _core.choice(fields, isa, (32 << 10, 8, 1 << 20, 32 << 20), _core.default_costs(isa))[1:]


@pytest.mark.skipif(fc.isa() not in ("avx2", "avx512"), reason="by the lanes of these")
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "expected"),
    [
        (64, 40, 11, 1, "over channels, interleaved"),
        (64, 40, 3, 3, "over channels, interleaved"),
        (96, 57, 3, 3, "over channels, interleaved"),
        (64, 40, 3, 1, "over pixels, in place"),
        (128, 56, 3, 2, "over pixels, in place"),
    ],
)
def test_planes_are_interleaved_where_rows_in_place_are_slow(channels, size, kernel, stride, expected):
    shape, weight = (1, channels, size, size), (channels, 1, kernel, kernel)
    assert chosen(shape, weight, stride, "NCHW", _config.ISA)[0] == expected


@pytest.mark.parametrize(
    ("channels", "kernel", "expected"),
    [
        (512, 3, "over channels, copied"),
        (1024, 5, "over channels, copied"),
        (1536, 3, "over channels, copied"),
        (528, 3, "over channels"),
        (256, 3, "over channels"),
    ],
)
def test_rows_are_copied_where_pixels_share_sets(channels, kernel, expected):
    shape, weight = (1, 14, 14, channels), (channels, 1, kernel, kernel)
    form, scratch = chosen(shape, weight, 1, "NHWC", 0)
    assert form == expected
    assert (scratch > 0) == ("copied" in expected)
