# SPDX-License-Identifier: BSD-3-Clause
"""Every wrong argument of pooling, one by one: its error names it, what it is, and what it needs."""

import numpy as np
import pytest

import fastconv as fc
from support import to_layout

X = np.zeros((2, 3, 8, 6), np.float32)
HALVED = (2, 3, 4, 3)
G = np.zeros(HALVED, np.float32)
INDICES = np.zeros(HALVED, np.int64)


def read_only(array):
    array.flags.writeable = False
    return array


ERRORS = {
    # The array.
    "rank 2": (lambda: fc.max_pool2d(X[0, 0], 2), ValueError, r"input has shape \(8, 6\); it needs 4 axes .* NCHW"),
    "rank 5": (lambda: fc.avg_pool2d(X[None], 2), ValueError, r"input has shape \(1, 2, 3, 8, 6\)"),
    "no channels": (lambda: fc.max_pool2d(X[:, :0], 2), ValueError, "only the batch may be empty"),
    "no rows": (lambda: fc.adaptive_avg_pool2d(X[:, :, :0], 2), ValueError, "only the batch may be empty"),
    "no image": (lambda: fc.global_avg_pool(X[0, :, :, :0]), ValueError, "only the batch may be empty"),
    "integers": (lambda: fc.max_pool2d(X.astype(int), 2), TypeError, "input has dtype int64; it needs float32"),
    "complex": (lambda: fc.avg_pool2d(X.astype(complex), 2), TypeError, "input has dtype complex128"),
    "big-endian": (lambda: fc.max_pool2d(X.astype(">f4"), 2), TypeError, "input has dtype >f4"),
    "text": (lambda: fc.max_pool2d("image", 2), TypeError, "input is"),
    "layout": (lambda: fc.max_pool2d(X, 2, layout="NCWH"), ValueError, "layout is 'NCWH'; it needs 'NCHW' or 'NHWC'"),
    "layout type": (lambda: fc.avg_pool2d(X, 2, layout=None), ValueError, "layout is None"),
    # The window.
    "kernel 0": (lambda: fc.max_pool2d(X, 0), ValueError, "kernel_size is 0; it needs to be at least 1"),
    "kernel -1": (lambda: fc.avg_pool2d(X, (2, -1)), ValueError, "kernel_size is -1"),
    "kernel float": (lambda: fc.max_pool2d(X, 2.0), TypeError, r"kernel_size is 2\.0; it needs an integer"),
    "kernel bool": (lambda: fc.max_pool2d(X, True), TypeError, "kernel_size is True"),
    "kernel None": (lambda: fc.max_pool2d(X, None), TypeError, "kernel_size is None"),
    "kernel text": (lambda: fc.max_pool2d(X, "22"), TypeError, "kernel_size is '22'"),
    "kernel triple": (lambda: fc.max_pool2d(X, (2, 2, 2)), ValueError, r"kernel_size is \(2, 2, 2\); .* 2 of them"),
    "kernel too large": (lambda: fc.max_pool2d(X, (2, 7)), ValueError, r"kernel_size is \(2, 7\) .* needs to fit"),
    "kernel huge": (lambda: fc.avg_pool2d(X, 2**40), ValueError, "kernel_size is 1099511627776"),
    "kernel beyond": (lambda: fc.avg_pool2d(X, 2**70), ValueError, "kernel_size is .* at most"),
    "padded too small": (lambda: fc.avg_pool2d(X, 12, padding=2), ValueError, "needs to fit .* with padding 2"),
    "dilated too large": (lambda: fc.max_pool2d(X, 3, dilation=3), ValueError, "kernel_size is 3 with dilation 3"),
    "stride 0": (lambda: fc.max_pool2d(X, 2, 0), ValueError, "stride is 0; it needs to be at least 1"),
    "stride -2": (lambda: fc.avg_pool2d(X, 2, (1, -2)), ValueError, "stride is -2"),
    "stride float": (lambda: fc.avg_pool2d(X, 2, 0.5), TypeError, r"stride is 0\.5"),
    "padding -1": (lambda: fc.max_pool2d(X, 2, 1, -1), ValueError, "padding is -1; it needs to be at least 0"),
    "padding 2": (lambda: fc.max_pool2d(X, 3, 1, 2), ValueError, r"padding is 2; .* half of kernel_size \(3, 3\)"),
    "padding pair": (lambda: fc.avg_pool2d(X, (4, 2), 1, (1, 2)), ValueError, r"padding is \(1, 2\)"),
    "padding same": (lambda: fc.avg_pool2d(X, 2, 1, "same"), TypeError, "padding is 'same'"),
    "dilation 0": (lambda: fc.max_pool2d(X, 2, 1, 0, 0), ValueError, "dilation is 0"),
    "divisor 0": (lambda: fc.avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override is 0"),
    "divisor float": (lambda: fc.avg_pool2d(X, 2, divisor_override=1.5), TypeError, r"divisor_override is 1\.5"),
    "grid -2": (lambda: fc.adaptive_max_pool2d(X, -2), ValueError, "output_size is -2; it needs to be at least 0"),
    "grid -1": (lambda: fc.adaptive_avg_pool2d(X, (None, -1)), ValueError, "output_size is -1"),
    "grid triple": (lambda: fc.adaptive_avg_pool2d(X, (1, 2, 3)), ValueError, r"output_size is \(1, 2, 3\)"),
    "grid float": (lambda: fc.adaptive_max_pool2d(X, 1.5), TypeError, r"output_size is 1\.5"),
    "grid text": (lambda: fc.adaptive_max_pool2d(X, "7"), TypeError, "output_size is '7'"),
    "grid huge": (lambda: fc.adaptive_max_pool2d(X, 2**47), ValueError, "the output would have shape"),
    # The result.
    "out list": (lambda: fc.max_pool2d(X, 2, out=[]), TypeError, "out is a list"),
    "out shape": (lambda: fc.max_pool2d(X, 2, out=G[:1]), ValueError, r"out has shape \(1, 3, 4, 3\); it needs"),
    "out dtype": (lambda: fc.avg_pool2d(X, 2, out=np.zeros(HALVED)), TypeError, "out has dtype float64"),
    "out read-only": (lambda: fc.max_pool2d(X, 2, out=read_only(G.copy())), ValueError, "out is read-only"),
    "out overlaps": (lambda: fc.max_pool2d(X, 2, out=X[:, :, ::2, ::2]), ValueError, "out overlaps input"),
    # The gradients.
    "grad dtype": (lambda: fc.grad.avg_pool2d(INDICES, X.shape, 2), TypeError, "grad_output has dtype int64"),
    "grad shape": (
        lambda: fc.grad.avg_pool2d(G, X.shape, 3),
        ValueError,
        "grad_output has shape .* needs the output's",
    ),
    "grad channels": (lambda: fc.grad.adaptive_avg_pool2d(G, (2, 4, 8, 6)), ValueError, "grad_output has shape"),
    "grad rank": (lambda: fc.grad.adaptive_avg_pool2d(G[0], X.shape), ValueError, "grad_output has shape"),
    "input_size int": (lambda: fc.grad.avg_pool2d(G, 8, 2), TypeError, "input_size is 8"),
    "input_size rank": (lambda: fc.grad.avg_pool2d(G, (8, 6), 2), ValueError, r"input_size has shape \(8, 6\)"),
    "input_size -1": (lambda: fc.grad.avg_pool2d(G, (2, 3, -8, 6), 2), ValueError, "input_size is -8"),
    "input_size float": (lambda: fc.grad.avg_pool2d(G, (2, 3, 8.0, 6), 2), TypeError, r"input_size is 8\.0"),
    "input_size 0": (lambda: fc.grad.avg_pool2d(G, (2, 3, 8, 0), 2), ValueError, "only the batch may be empty"),
    "indices dtype": (
        lambda: fc.grad.max_pool2d(G, INDICES.astype(np.int32), X.shape),
        TypeError,
        "indices have dtype int32",
    ),
    "indices shape": (lambda: fc.grad.max_pool2d(G, INDICES[:1], X.shape), ValueError, "indices have shape"),
    "indices rank": (lambda: fc.grad.max_pool2d(G[0], INDICES[0], X.shape), ValueError, "grad_output has shape"),
    "indices behind": (lambda: fc.grad.max_pool2d(G, INDICES + 48, X.shape), ValueError, "indices reach from 48 to 48"),
    "indices before": (
        lambda: fc.grad.global_max_pool(G, INDICES - 2, X.shape),
        ValueError,
        r"planes of \(8, 6\), 0 to 47",
    ),
    "indices far": (lambda: fc.grad.adaptive_max_pool2d(G, INDICES + 2**62, X.shape), ValueError, "indices reach"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, error, words = ERRORS[name]
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrong", [64 * 64, -2, 2**32 + 63 * 64, 2**63 - 1, -(2**63)])
def test_one_wrong_index_among_many_is_found(wrong, dtype, layout):
    """In a first call, and in one like it that has succeeded; 2**32 + n is none of the inputs of n's window."""
    rows, columns = np.indices((32, 32)) * 2
    indices = np.ascontiguousarray(np.broadcast_to(rows * 64 + columns, (1, 64, 32, 32)))
    g, i = np.ones(to_layout(indices, layout).shape, dtype), to_layout(indices.copy(), layout)
    shape = to_layout(np.empty((1, 64, 64, 64)), layout).shape
    i[0, -1, -1, -1] = wrong
    for _ in range(2):
        with pytest.raises(ValueError, match=r"indices reach from .*; they need to be positions in planes"):
            fc.grad.max_pool2d(g, i, shape, layout=layout)
        fc.grad.max_pool2d(g, to_layout(indices, layout), shape, layout=layout)
