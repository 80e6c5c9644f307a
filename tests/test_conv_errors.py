# SPDX-License-Identifier: BSD-3-Clause
"""Bad input, one by one: the exception, and a message that names the argument and what it got."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastconv as fc
from support import poison

X = np.ones((2, 4, 9, 8), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
B = np.ones(6, np.float32)
Y = np.ones((2, 6, 7, 6), np.float32)  # the result's shape
for _array in (X, W, B, Y):
    _array.flags.writeable = False
HUGE = 1 << 25
MANY = np.broadcast_to(np.float32(1), (1, 1, HUGE, HUGE))  # 2^50 elements in four bytes


def conv(x=X, w=W, b=None, **options):
    return lambda: fc.conv2d(x, w, b, **options)


def plan(shape=X.shape, w=W, b=None, **options):
    return lambda: fc.ConvPlan(shape, w, b, **options)


def called(*arguments, **options):
    return lambda: fc.ConvPlan(X.shape, W)(*arguments, **options)


def overlapping():
    """Input and output side by side, but for one element."""
    memory = np.zeros(X.size + Y.size - 1, np.float32)
    return fc.conv2d(memory[: X.size].reshape(X.shape), W, out=memory[X.size - 1 :].reshape(Y.shape))


def with_out_in(name):
    """`out` on top of one of the other arrays."""

    def call():
        memory = np.zeros(max(X.size, Y.size), np.float32)
        arrays = {"input": X, "weight": W, "bias": B}
        arrays[name] = memory[: arrays[name].size].reshape(arrays[name].shape)
        return fc.conv2d(*arrays.values(), out=memory[: Y.size].reshape(Y.shape))

    return call


def with_shifted_residual():
    memory = np.zeros(Y.size + 1, np.float32)
    return fc.conv2d(X, W, residual=memory[1:].reshape(Y.shape), out=memory[:-1].reshape(Y.shape))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class OnAnotherDevice:
    def __dlpack__(self, **_):
        raise AssertionError("asked for")

    def __dlpack_device__(self):
        return 2, 0


class WithGradient:
    requires_grad = True

    def __dlpack__(self, **_):
        raise AssertionError("asked for")

    def __dlpack_device__(self):
        return 1, 0


# name: (call, exception, what the message says)
CASES = {
    # types of arrays
    "integer input": (conv(X.astype(int)), TypeError, r"input has dtype int64.*float32"),
    "integer weight": (conv(w=W.astype(np.int8)), TypeError, r"weight has dtype int8.*float32"),
    "boolean input": (conv(X > 0), TypeError, r"input has dtype bool"),
    "complex input": (conv(X.astype(complex)), TypeError, r"input has dtype complex128"),
    "long double": (conv(X.astype(np.longdouble)), TypeError, r"input has dtype (float128|longdouble)"),
    "other byte order": (conv(X.astype(">f4")), TypeError, r"input has dtype >f4"),
    "object input": (conv(X.astype(object)), TypeError, r"input has dtype object"),
    "input None": (conv(None), TypeError, r"input is None"),
    "input a string": (conv("image"), TypeError, r"input is 'image'"),
    "weight a list of ints": (conv(w=[[[[1]]]]), TypeError, r"weight is a list of int"),
    "mixed input and weight": (conv(X.astype(float)), TypeError, r"input has dtype float64 and weight float32"),
    "mixed bias": (conv(b=B.astype(float)), TypeError, r"bias has dtype float64 and weight float32"),
    "integer bias": (conv(b=[1] * 6), TypeError, r"bias is a list of int64"),
    "another device": (conv(OnAnotherDevice()), TypeError, r"OnAnotherDevice on device \(2, 0\)"),
    "requires grad": (conv(WithGradient()), TypeError, r"input requires grad.*input\.detach\(\)"),
    # ranks and sizes
    "input of rank 2": (conv(X[0, 0]), ValueError, r"input has shape \(9, 8\).*4 axes.*NCHW"),
    "input of rank 5": (conv(X[None]), ValueError, r"input has shape \(1, 2, 4, 9, 8\).*4 axes"),
    "input a number": (conv(np.float32(1)), ValueError, r"input has shape \(\)"),
    "weight of rank 3": (conv(w=W[0]), ValueError, r"weight has shape \(4, 3, 3\).*4 axes"),
    "weight of rank 5": (conv(w=W[None]), ValueError, r"weight has shape \(1, 6, 4, 3, 3\).*4 axes"),
    "bias of rank 2": (conv(b=B[None]), ValueError, r"bias has shape \(1, 6\); it needs \(6,\)"),
    "bias too long": (conv(b=np.ones(7, np.float32)), ValueError, r"bias has shape \(7,\); it needs \(6,\)"),
    "bias a number": (conv(b=np.float32(1)), ValueError, r"bias has shape \(\); it needs \(6,\)"),
    "wrong channels": (conv(X[:, :3]), ValueError, r"weight has shape \(6, 4, 3, 3\).*\(2, 3, 9, 8\) needs 3"),
    "channels of the other layout": (conv(layout="NHWC"), ValueError, r"weight .*\(2, 4, 9, 8\) needs 8 channels"),
    "no channels": (conv(X[:, :0]), ValueError, r"input has shape \(2, 0, 9, 8\); only the batch may be empty"),
    "no rows": (conv(X[:, :, :0]), ValueError, r"input has shape \(2, 4, 0, 8\); only the batch"),
    "no kernels": (conv(w=W[:0]), ValueError, r"weight has shape \(0, 4, 3, 3\).*at least one"),
    "an empty kernel": (conv(w=W[..., :0]), ValueError, r"weight has shape \(6, 4, 3, 0\).*at least one"),
    "kernel too large": (conv(X[:, :, :2]), ValueError, r"kernel \(3, 3\).*larger than input's size \(2, 8\)"),
    "dilated too far": (conv(dilation=(1, 4)), ValueError, r"kernel .*dilation \(1, 4\).*larger than input's"),
    "padding too small": (conv(X[:, :, :1], padding=((1, 0), (0, 0))), ValueError, r"padding \(\(1, 0\), \(0, 0\)\)"),
    # groups
    "groups 0": (conv(groups=0), ValueError, r"groups is 0; .*at least 1"),
    "groups negative": (conv(groups=-2), ValueError, r"groups is -2"),
    "groups not of kernels": (conv(groups=4), ValueError, r"groups is 4; .*divide weight's 6 output channels"),
    "groups not of channels": (conv(groups=3), ValueError, r"groups is 3; .*divide input's 4 channels"),
    "groups of other weights": (conv(groups=2), ValueError, r"weight .*\(2, 4, 9, 8\) needs 2 channels per group"),
    "groups a float": (conv(groups=1.0), TypeError, r"groups is 1\.0; it needs an integer"),
    "groups True": (conv(groups=True), TypeError, r"groups is True; it needs an integer"),
    "groups a string": (conv(groups="1"), TypeError, r"groups is '1'; it needs an integer"),
    "groups None": (conv(groups=None), TypeError, r"groups is None; it needs an integer"),
    "groups a pair": (conv(groups=(1, 1)), TypeError, r"groups is \(1, 1\); it needs an integer"),
    # what is neither an integer nor a pair of them
    **{
        f"{name} {bad!r}": (conv(**{name: bad}), kind, rf"{name} is {text}")
        for name in ("stride", "dilation", "padding")
        for bad, kind, text in (
            (1.0, TypeError, r"1\.0"),
            ((1, 1.5), TypeError, r"1\.5"),
            (True, TypeError, "True"),
            ((False, 1), TypeError, "False"),
            (None, TypeError, "None"),
            (1j, TypeError, "1j"),
            (b"1", TypeError, "b'1'"),
            ((1, "1"), TypeError, "'1'"),
            ({1, 2}, TypeError, r"\{1, 2\}"),
            (np.float32(1), TypeError, "np.float32"),
            (-1, ValueError, "-1; .*at least"),
            ((1, -3), ValueError, "-3; .*at least"),
            ((1, 1, 1), ValueError, r"\(1, 1, 1\); .*2"),
            ((), ValueError, r"\(\)"),
            (10**30, ValueError, "1000000000000000000000000000000; .*at most"),
        )
    },
    "stride 0": (conv(stride=0), ValueError, r"stride is 0; .*at least 1"),
    "stride (1, 0)": (conv(stride=(1, 0)), ValueError, r"stride is 0; .*at least 1"),
    "dilation 0": (conv(dilation=0), ValueError, r"dilation is 0; .*at least 1"),
    "stride 'same'": (conv(stride="same"), TypeError, r"stride is 'same'"),
    "padding 'full'": (conv(padding="full"), ValueError, r"padding is 'full'; .*'valid', 'same', 'same_lower'"),
    "padding 'SAME'": (conv(padding="SAME"), ValueError, r"padding is 'SAME'"),
    "padding a negative side": (conv(padding=((0, -1), (0, 0))), ValueError, r"padding is -1; .*at least 0"),
    "padding three pairs": (conv(padding=((0, 0),) * 3), ValueError, r"padding is .*2 pairs \(before, after\)"),
    "padding triples": (conv(padding=((0, 0, 0),) * 2), ValueError, r"padding is .*2 pairs \(before, after\)"),
    "padding a ragged list": (conv(padding=[1, (2, 3)]), TypeError, r"padding is "),
    "padding float pairs": (conv(padding=((0, 0.5), (0, 0))), TypeError, r"padding is 0\.5"),
    # names
    "layout unknown": (conv(layout="CHWN"), ValueError, r"layout is 'CHWN'; it needs 'NCHW' or 'NHWC'"),
    "layout of one axis": (conv(layout="NCW"), ValueError, r"layout is 'NCW'"),
    "layout None": (conv(layout=None), ValueError, r"layout is None"),
    "layout a list": (conv(layout=["NCHW"]), ValueError, r"layout is \['NCHW'\]"),
    "activation unknown": (conv(activation="gelu"), ValueError, r"activation is 'gelu'; .*'relu'"),
    "activation a function": (conv(activation=fc.relu), ValueError, r"activation is the function relu"),
    "precision unknown": (conv(precision="high"), ValueError, r"precision is 'high'; .*'default' or 'strict'"),
    "precision None": (conv(precision=None), ValueError, r"precision is None"),
    "algorithm unknown": (conv(algorithm="fft"), ValueError, r"algorithm is 'fft'; .*'auto'.*'reference'"),
    "algorithm None": (conv(algorithm=None), ValueError, r"algorithm is None"),
    "algorithm a number": (conv(algorithm=1), ValueError, r"algorithm is 1"),
    "algorithm a list": (conv(algorithm=["auto"]), ValueError, r"algorithm is \['auto'\]"),
    # algorithms that cannot
    "pointwise 3x3": (conv(algorithm="pointwise"), NotImplementedError, r"algorithm='pointwise'.*1x1"),
    "depthwise": (conv(algorithm="depthwise"), NotImplementedError, r"algorithm='depthwise'.*more than one input"),
    "winograd 1x1": (conv(w=W[..., :1, :1], algorithm="winograd"), NotImplementedError, r"'winograd'.*two columns"),
    "winograd strided": (conv(stride=3, algorithm="winograd_f4"), NotImplementedError, r"'winograd_f4'.*strides 1"),
    "winograd dilated": (
        conv(dilation=9, padding=9, algorithm="winograd_f2"),
        NotImplementedError,
        r"'winograd_f2'.*dilation 1",
    ),
    "winograd far too deep": (
        conv(
            np.broadcast_to(X[:, :1], (2, 1 << 20, 9, 8)),
            np.broadcast_to(W[:, :1], (6, 1 << 20, 3, 3)),
            algorithm="winograd_f4",
        ),
        NotImplementedError,
        r"'winograd_f4'.*third-level cache",
    ),
    "winograd float64": (
        conv(X.astype(float), W.astype(float), algorithm="winograd"),
        NotImplementedError,
        r"'winograd'.*float64",
    ),
    "winograd strict": (
        conv(algorithm="winograd_f3", precision="strict"),
        NotImplementedError,
        r"'winograd_f3'.*strict",
    ),
    # out
    "out of another shape": (
        conv(out=poison((2, 6, 7, 7))),
        ValueError,
        r"out has shape \(2, 6, 7, 7\).*\(2, 6, 7, 6\)",
    ),
    "out without a batch": (conv(out=poison((6, 7, 6))), ValueError, r"out has shape \(6, 7, 6\)"),
    "out in another layout": (conv(out=poison((2, 7, 6, 6))), ValueError, r"out has shape \(2, 7, 6, 6\)"),
    "out of another dtype": (conv(out=poison(Y.shape, float)), TypeError, r"out has dtype float64; it needs float32"),
    "out of integers": (conv(out=poison(Y.shape, int)), TypeError, r"out has dtype int64; it needs float32"),
    "out read-only": (conv(out=read_only(Y)), ValueError, r"out is read-only"),
    "out broadcast": (conv(out=np.broadcast_to(np.float32(0), Y.shape)), ValueError, r"out is read-only"),
    "out on one element": (
        conv(out=np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), Y.shape, (0, 0, 0, 0))),
        ValueError,
        r"out has strides \(0, 0, 0, 0\) .* its elements need memory of their own",
    ),
    "out of rows that overlap": (
        conv(out=np.lib.stride_tricks.as_strided(np.zeros(Y.size, np.float32), Y.shape, (1008, 168, 4, 4))),
        ValueError,
        r"its elements need memory of their own",
    ),
    "out masked": (conv(out=np.ma.zeros(Y.shape, np.float32)), TypeError, r"out is a masked array"),
    "out a list": (conv(out=[]), TypeError, r"out is a list; it needs to be a numpy\.ndarray"),
    "out a bytearray": (conv(out=bytearray(Y.nbytes)), TypeError, r"out is a bytearray"),
    "out overlaps input by one": (overlapping, ValueError, r"out overlaps input in memory"),
    "out overlaps input": (with_out_in("input"), ValueError, r"out overlaps input in memory"),
    "out overlaps weight": (with_out_in("weight"), ValueError, r"out overlaps weight in memory"),
    "out overlaps bias": (with_out_in("bias"), ValueError, r"out overlaps bias in memory"),
    "out overlaps residual": (with_shifted_residual, ValueError, r"out overlaps residual in memory"),
    # residual
    "residual of another shape": (conv(residual=X), ValueError, r"residual has shape \(2, 4, 9, 8\).*\(2, 6, 7, 6\)"),
    "residual to broadcast": (conv(residual=Y[:1]), ValueError, r"residual has shape \(1, 6, 7, 6\)"),
    "residual of another dtype": (conv(residual=Y.astype(float)), TypeError, r"residual has dtype float64.*float32"),
    "residual of integers": (conv(residual=Y.astype(int)), TypeError, r"residual has dtype int64"),
    # sizes whose product overflows
    "2^50 pixels": (conv(MANY, W[:1, :1]), ValueError, r"input would have \d+ elements; .*at most"),
    "2^75 products": (
        conv(MANY[..., : 1 << 20, : 1 << 20], np.broadcast_to(np.float32(1), (1 << 25, 1, 1 << 10, 1 << 19))),
        ValueError,
        r"elements|product",
    ),
    "2^70 outputs": (
        conv(MANY[..., : 1 << 20, : 1 << 20], np.broadcast_to(np.float32(1), (1 << 30, 1, 1, 1))),
        ValueError,
        r"output would have \d+ elements",
    ),
    "padded to 2^80": (conv(padding=1 << 40), ValueError, r"output would have \d+ elements"),
    "dilated to 2^90": (conv(dilation=1 << 47, padding=1 << 48, stride=1 << 48), ValueError, r"product"),
    # plans
    "plan: input_shape a number": (plan(9), TypeError, r"input_shape is 9"),
    "plan: input_shape None": (plan(None), TypeError, r"input_shape is None"),
    "plan: input_shape of floats": (plan((2, 4, 9.0, 8)), TypeError, r"input_shape is 9\.0"),
    "plan: input_shape negative": (plan((-2, 4, 9, 8)), ValueError, r"input_shape is -2"),
    "plan: input_shape too short": (
        plan((9, 8)),
        ValueError,
        r"input_shape has shape \(9, 8\)|input_shape is \(9, 8\)",
    ),
    "plan: weight of integers": (plan(w=W.astype(int)), TypeError, r"weight has dtype int64"),
    "plan: weight of rank 2": (plan(w=W[0, 0]), ValueError, r"weight has shape \(3, 3\)"),
    "plan: mixed bias": (plan(b=B.astype(float)), TypeError, r"bias has dtype float64"),
    "plan: stride": (plan(stride=0), ValueError, r"stride is 0"),
    "plan: algorithm": (plan(algorithm="fft"), ValueError, r"algorithm is 'fft'"),
    "plan: algorithm a list": (plan(algorithm=["auto"]), ValueError, r"algorithm is \['auto'\]"),
    "plan: refused": (plan(algorithm="depthwise"), NotImplementedError, r"algorithm='depthwise'"),
    "plan: precision": (plan(precision="low"), ValueError, r"precision is 'low'"),
    "plan: activation": (plan(activation="tanh"), ValueError, r"activation is 'tanh'"),
    "plan: layout": (plan(layout="HWCN"), ValueError, r"layout is 'HWCN'"),
    "call: another shape": (called(X[:1]), ValueError, r"x has shape \(1, 4, 9, 8\); the plan needs \(2, 4, 9, 8\)"),
    "call: another dtype": (called(X.astype(float)), TypeError, r"x has dtype float64; the plan needs float32"),
    "call: integers": (called(X.astype(int)), TypeError, r"x has dtype int64"),
    "call: residual": (called(X, X), ValueError, r"residual has shape \(2, 4, 9, 8\)"),
    "call: out": (called(X, out=poison(X.shape)), ValueError, r"out has shape \(2, 4, 9, 8\)"),
    "call: out read-only": (called(X, out=read_only(Y)), ValueError, r"out is read-only"),
    # gradients
    "input gradient: size a number": (lambda: fc.grad.conv2d_input(9, W, Y), TypeError, r"input_size is 9"),
    "input gradient: size of floats": (
        lambda: fc.grad.conv2d_input((2, 4, 9.0, 8), W, Y),
        TypeError,
        r"input_size is 9\.0",
    ),
    "input gradient: another size": (
        lambda: fc.grad.conv2d_input((2, 4, 9, 9), W, Y),
        ValueError,
        r"grad_output has shape \(2, 6, 7, 6\).*\(2, 6, 7, 7\)",
    ),
    "input gradient: mixed": (
        lambda: fc.grad.conv2d_input(X.shape, W, Y.astype(float)),
        TypeError,
        r"grad_output has dtype float64 and weight float32",
    ),
    "input gradient: integers": (
        lambda: fc.grad.conv2d_input(X.shape, W, Y.astype(int)),
        TypeError,
        r"grad_output has dtype int64",
    ),
    "input gradient: weight of rank 1": (
        lambda: fc.grad.conv2d_input(X.shape, B, Y),
        ValueError,
        r"weight has shape \(6,\)",
    ),
    "input gradient: algorithm": (
        lambda: fc.grad.conv2d_input(X.shape, W, Y, algorithm="fft"),
        ValueError,
        r"algorithm is 'fft'",
    ),
    "weight gradient: size a number": (lambda: fc.grad.conv2d_weight(X, 9, Y), TypeError, r"weight_size is 9"),
    "weight gradient: size with 0": (
        lambda: fc.grad.conv2d_weight(X, (6, 4, 3, 0), Y),
        ValueError,
        r"weight_size is 0",
    ),
    "weight gradient: another size": (
        lambda: fc.grad.conv2d_weight(X, (6, 4, 3, 2), Y),
        ValueError,
        r"grad_output has shape \(2, 6, 7, 6\).*\(2, 6, 7, 7\)",
    ),
    "weight gradient: mixed": (
        lambda: fc.grad.conv2d_weight(X, W.shape, Y.astype(float)),
        TypeError,
        r"grad_output has dtype float64 and input float32",
    ),
    "weight gradient: stride": (
        lambda: fc.grad.conv2d_weight(X, W.shape, Y, stride=0),
        ValueError,
        r"stride is 0",
    ),
    "weight gradient: layout": (
        lambda: fc.grad.conv2d_weight(X, W.shape, Y, layout="NC"),
        ValueError,
        r"layout is 'NC'",
    ),
    # linear
    "linear: features": (
        lambda: fc.linear(X, np.ones((3, 9), np.float32)),
        ValueError,
        r"input has shape \(2, 4, 9, 8\); it needs 9",
    ),
    "linear: weight of rank 4": (lambda: fc.linear(X, W), ValueError, r"weight has shape \(6, 4, 3, 3\).*two axes"),
    "linear: a number": (
        lambda: fc.linear(np.float32(1), np.ones((3, 1), np.float32)),
        ValueError,
        r"input has shape \(\)",
    ),
    "linear: mixed": (
        lambda: fc.linear(X.astype(float), np.ones((3, 8), np.float32)),
        TypeError,
        r"input has dtype float64 and weight float32",
    ),
    "linear: bias": (
        lambda: fc.linear(X, np.ones((3, 8), np.float32), np.ones(4, np.float32)),
        ValueError,
        r"bias has shape \(4,\); it needs \(3,\)",
    ),
    "linear gradient: grad_output": (
        lambda: fc.grad.linear(X, np.ones((3, 8), np.float32), X),
        ValueError,
        r"grad_output has shape \(2, 4, 9, 8\); it needs 3",
    ),
    # who could serve
    "algorithms: dtype": (lambda: fc.algorithms(X.shape, W.shape, dtype=int), TypeError, r"dtype is int64"),
    "algorithms: shape": (lambda: fc.algorithms(5, W.shape), TypeError, r"input_shape is 5"),
    "algorithms: weight_shape": (lambda: fc.algorithms(X.shape, None), TypeError, r"weight_shape is None"),
    "algorithms: precision": (lambda: fc.algorithms(X.shape, W.shape, precision=1), ValueError, r"precision is 1"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name):
    call, kind, message = CASES[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert type(caught.value) is kind


def test_out_is_left_alone_when_the_call_fails():
    out = poison(Y.shape)
    for options in ({"stride": 0}, {"groups": 5}, {"algorithm": "pointwise"}, {"residual": X}, {"activation": "gelu"}):
        with pytest.raises((ValueError, NotImplementedError)):
            fc.conv2d(X, W, out=out, **options)
        assert np.isnan(out).all()


# --- valid, however large -------------------------------------------------------------------------

ONE = np.ones((1, 1, 8, 8), np.float32)
FAR = 1 << 40
# A result of a few elements, from strides, dilations and paddings of a trillion: (call, values expected).
EXTREMES = {
    "stride": (lambda a: fc.conv2d(ONE, ONE[..., :1, :1], stride=FAR, algorithm=a), [1]),
    "stride, 3x3": (lambda a: fc.conv2d(ONE, ONE[..., :3, :3], padding=1, stride=1 << 47, algorithm=a), [4]),
    "dilation of one tap": (
        lambda a: fc.conv2d(ONE[..., :1, :2], ONE[..., :1, :1], dilation=1 << 46, algorithm=a),
        [1, 1],
    ),
    "dilation in padding": (
        lambda a: fc.conv2d(ONE, ONE[..., :2, :2], dilation=FAR, padding=((FAR, 0), (FAR, 0)), stride=8, algorithm=a),
        [1],
    ),
    "padding and stride": (
        lambda a: fc.conv2d(ONE, ONE[..., :1, :1], padding=((FAR, 0), (0, 0)), stride=FAR, algorithm=a),
        [0, 1],
    ),
    "padding and stride, both axes": (
        lambda a: fc.conv2d(ONE, ONE[..., :3, :3], padding=1 << 44, stride=1 << 44, algorithm=a),
        [0, 0, 0, 0, 9, 0, 0, 0, 0],
    ),
    "a wide image": (
        lambda a: fc.conv2d(
            np.broadcast_to(np.float32(1), (1, 4, 1, FAR)),
            ONE[0, 0, :4, :1, None, None],
            None,
            FAR >> 2,
            0,
            1,
            4,
            algorithm=a,
        ),
        [1] * 16,
    ),
    "a dilated kernel in a wide image": (
        lambda a: fc.conv2d(
            np.broadcast_to(np.float32(1), (1, 1, 1 << 20, 1 << 20)),
            ONE[..., :3, :3],
            stride=1 << 10,
            dilation=(1 << 19) - 1,
            algorithm=a,
        ),
        [9],
    ),
    "input gradient, stride": (
        lambda a: fc.grad.conv2d_input((1, 1, 2, 2), ONE[..., :1, :1], ONE[..., :1, :1], FAR, 0, 3, algorithm=a),
        [1, 0, 0, 0],
    ),
    "weight gradient, stride": (
        lambda a: fc.grad.conv2d_weight(ONE, (1, 1, 2, 2), ONE[..., :1, :1], FAR, algorithm=a),
        [1, 1, 1, 1],
    ),
}


@pytest.mark.parametrize("algorithm", ["auto", *fc.ALGORITHMS])
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_are_served_or_refused(name, algorithm):
    call, expected = EXTREMES[name]
    try:
        result = call(algorithm)
    except NotImplementedError:
        assert algorithm not in ("auto", "reference")
    else:
        np.testing.assert_array_equal(result.ravel(), expected)


# --- memory that is not there ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "fc.conv2d(one((1, 1, 1 << 20, 1 << 20)), one((1, 1, 1, 1)))",  # the result
        "fc.conv2d(one((1, 1, 1 << 20, 1 << 20)), one((1, 1, 1 << 20, 1 << 20)))",  # the packed weights
        "fc.conv2d(one((1, 1 << 40, 3, 3)), one((1, 1 << 40, 3, 3)), algorithm='im2col')",
        "fc.conv2d(one((1, 1, 1, 1)), one((1 << 40, 1, 1, 1)), algorithm='pointwise')",
        "fc.conv2d(one((1, 1 << 14, 3, 3)), one((1 << 14, 1 << 14, 3, 3)), algorithm='winograd_f4')",
        "fc.conv2d(one((1, 1 << 40, 1, 1)), one((1 << 40, 1, 1, 1)), groups=1 << 40, algorithm='depthwise')",
        "fc.conv2d(one((1 << 44, 1, 1, 1)), one((1, 1, 1, 1)))",
        "fc.ConvPlan((1, 1 << 40, 1, 1), one((1, 1 << 40, 1, 1)))",
        "fc.grad.conv2d_input((1, 1, 1 << 20, 1 << 20), one((1, 1, 1, 1)), one((1, 1, 1 << 20, 1 << 20)))",
        "fc.grad.conv2d_weight(one((1, 1 << 40, 1, 1)), (1, 1 << 40, 1, 1), one((1, 1, 1, 1)))",
    ],
)
def test_too_little_memory_is_a_memory_error(call):
    """In a process of its own that may have four gigabytes: the call fails, and the next one works."""
    pytest.importorskip("resource")
    script = f"""
    import resource
    import numpy as np
    import fastconv as fc

    def one(shape):
        return np.broadcast_to(np.float32(1), shape)

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    try:
        {call}
    except MemoryError as error:
        assert str(error), "no message"
    else:
        raise AssertionError("it went through")
    print(fc.conv2d(one((1, 2, 5, 5)), one((1, 2, 3, 3))).sum())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["162.0"]
