# SPDX-License-Identifier: BSD-3-Clause
"""Input gradients of which most elements are empty sums: one tap along an axis that is strided over."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from support import MANY_THREADS, every_thread, max_error, poison, spoil_scratch, to_layout, tolerance

LAYOUTS = ("NCHW", "NHWC")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)

#: Kernel, stride, padding, groups: one tap along both axes or along one; steps that leave elements over, or leave none;
#: and padding, which is a crop here.
FORMS = (
    ((1, 1), (2, 2), (0, 0), 1),
    ((1, 1), (3, 2), (0, 0), 3),
    ((1, 1), (2, 4), (1, 3), 1),
    ((1, 1), (1, 2), (0, 0), 6),
    ((1, 1), (2, 1), (0, 1), 1),
    ((3, 1), (1, 2), (1, 0), 1),
    ((1, 3), (3, 2), (0, 1), 2),
    ((2, 1), (2, 5), (0, 2), 1),
)
ACTIVATIONS = {
    None: lambda v: v,
    "relu": lambda v: np.maximum(v, 0),
    "relu6": lambda v: np.clip(v, 0, 6),
    "silu": lambda v: v / (1 + np.exp(-v)),
}


def normal(*shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape)


def arrays(form, size, dtype, extra=0):
    """Input, weight, bias and residual of a transposed convolution, channels first, and the sums in float64."""
    kernel, stride, padding, groups = form
    x, w = normal(2, 12, *size), normal(12, 6 // groups, *kernel, seed=3)
    axes = zip(size, kernel, stride, padding, strict=True)
    shape = (2, 6, *((n - 1) * s + k - 2 * p + min(extra, s - 1) for n, k, s, p in axes))
    if min(shape) < 1:
        return None
    x, w, b, r = (a.astype(dtype) for a in (x, w, normal(6, seed=4), normal(*shape, seed=5)))
    options = {"stride": stride, "padding": padding, "groups": groups}
    return x, w, b, r, reference.conv2d_input(shape, w, x, **options, dtype=np.float64)


@each_layout
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_sums_and_what_lies_between_them(form, dtype, layout):
    kernel, stride, padding, groups = form
    for size, extra in (((4, 5), 0), ((7, 17), 1), ((1, 33), 3), ((9, 2), 1)):
        given = arrays(form, size, dtype, extra)
        if given is None:
            continue
        x, w, b, r, sums = given
        options = {"stride": stride, "padding": padding, "groups": groups, "layout": layout}
        options["output_padding"] = tuple(min(extra, s - 1) for s in stride)
        bound = tolerance(dtype, 12 * kernel[0] * kernel[1])
        for activation, function in ACTIVATIONS.items():
            for residual in (None, r):
                truth = sums + b[:, None, None] + (0 if residual is None else residual)
                lies = None if residual is None else to_layout(residual, layout)
                out = poison(to_layout(r, layout).shape, dtype)
                spoil_scratch(dtype)
                fc.conv_transpose2d(
                    to_layout(x, layout), w, b, **options, residual=lies, activation=activation, out=out
                )
                expected = to_layout(function(truth), layout)
                assert max_error(out, expected, 4 * np.abs(truth).max()) <= bound, (size, activation)
                if residual is not None:
                    same = lies.copy()
                    fc.conv_transpose2d(
                        to_layout(x, layout), w, b, **options, residual=same, activation=activation, out=same
                    )
                    np.testing.assert_array_equal(same, out)
        found = fc.grad.conv2d_input(
            to_layout(r, layout).shape, w, to_layout(x, layout), stride, padding, 1, groups, layout=layout
        )
        assert max_error(found, to_layout(sums, layout)) <= bound, size


@each_layout
def test_threads_do_not_change_a_bit(layout):
    for form in FORMS:
        x, w, b, r, _ = arrays(form, (17, 19), "float32")
        options = {"stride": form[1], "padding": form[2], "groups": form[3], "layout": layout}
        call = [to_layout(x, layout), w, b]
        with fc.threads(1):
            expected = fc.conv_transpose2d(*call, **options, residual=to_layout(r, layout))
        for count in MANY_THREADS:
            with every_thread(), fc.threads(count):
                result = fc.conv_transpose2d(*call, **options, residual=to_layout(r, layout))
            np.testing.assert_array_equal(result, expected, err_msg=f"{form}, {count} threads")


@each_layout
@pytest.mark.parametrize("rank", [1, 3])
def test_any_number_of_axes(rank, layout):
    shape = (2, 5, *(4, 6, 7)[:rank])
    names = ({1: "NCW", 3: "NCDHW"} if layout == "NCHW" else {1: "NWC", 3: "NDHWC"})[rank]
    x, w = normal(*shape), normal(5, 3, *(1,) * rank)
    if layout == "NHWC":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    stride = (2, 3, 2)[:rank]
    y = getattr(fc, f"conv_transpose{rank}d")(x, w, stride=stride, layout=names)
    dense = getattr(fc, f"conv_transpose{rank}d")(x, w, layout=names)
    inner = tuple(slice(None, None, s) for s in stride)
    places = (slice(None), *inner, slice(None)) if layout == "NHWC" else (slice(None), slice(None), *inner)
    assert max_error(y[places], dense) <= tolerance("float64", 5)
    y[places] = 0
    np.testing.assert_array_equal(y, np.zeros_like(y))


def test_the_zeros_of_a_gradient_are_written_with_the_sums():
    """The dense sums are in scratch memory, which phases have no use for."""
    x, w = np.ones((1, 64, 28, 28), np.float32), np.ones((64, 32, 1, 1), np.float32)
    dense, spread = (fc.ConvPlan(x.shape, w, stride=stride, transposed=True).workspace_bytes for stride in (1, 2))
    assert fc.isa() == "scalar" or spread >= dense + 32 * 28 * 28 * 4
