# SPDX-License-Identifier: BSD-3-Clause
"""Mistakes that newcomers make: what was written, and what the message must name to put them right."""

from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import models, nn, optim

X = np.ones((2, 4, 9, 8), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
B = np.ones(6, np.float32)
LAST = np.ones((2, 9, 8, 4), np.float32)  # the same image, channels last
SCORES, LABELS = np.ones((5, 3), np.float32), np.array([0, 1, 2, 1, 0])
BIG = np.ones((1, 64, 200, 200), np.float32)


def net():
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(252, 3))


class Net(nn.Module):
    """A network as people write their own."""

    def __init__(self):
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
        self.head = nn.Linear(252, 3)

    def forward(self, x):
        y = self.body(x)
        return self.head(y.reshape(len(y), -1))


def trained(model):
    model(X)
    return model


NAMES = {**globals(), "fc": fc, "Path": Path, "models": models, "optim": optim}

# What was written: the exception, and words of its message, "!" before those that must not be there.
MISTAKES = {
    # --- what is no image
    "fc.conv2d(None, W)": (TypeError, "input is None", "array of float32", "!astype"),
    "fc.conv2d(X, None)": (TypeError, "weight is None", "array of float32", "!astype"),
    "fc.conv2d('cat.jpg', W)": (TypeError, "input is 'cat.jpg'", "read first", "!astype"),
    "fc.conv2d(Path('cat.jpg'), W)": (TypeError, "input is PosixPath('cat.jpg')", "read first", "!astype"),
    "fc.conv2d(b'cat.jpg', W)": (TypeError, "input is b'cat.jpg'", "read first", "!astype"),
    "fc.conv2d({'image': X}, W)": (TypeError, "input is {'image'", "array of float32", "!astype"),
    "fc.conv2d(nn.ReLU(), W)": (TypeError, "input is a ReLU", "array of float32", "!astype"),
    "fc.conv2d([[1, 2], [3]], W)": (ValueError, "input is [[1, 2], [3]]", "NumPy makes no array"),
    "fc.conv2d(3.0, W)": (TypeError, "input has dtype float64", "numpy.asarray(input, numpy.float32)"),
    "fc.conv2d(np.float32(3), W)": (ValueError, "input has shape ()", "4 axes in the order NCHW"),
    "fc.conv2d(np.array(['a']), W)": (TypeError, "input has dtype <U1", "!astype"),
    "fc.conv2d(np.array([None]), W)": (TypeError, "input has dtype object", "!astype"),
    "fc.conv2d(np.array(['2026-01-01'], 'M8[D]'), W)": (TypeError, "input has dtype datetime64[D]", "!astype"),
    "fc.max_pool2d(None, 2)": (TypeError, "input is None", "!astype"),
    "fc.max_pool2d('cat.jpg', 2)": (TypeError, "input is 'cat.jpg'", "read first"),
    "fc.relu(None)": (TypeError, "input is None", "!astype"),
    "fc.linear(None, np.ones((3, 2)))": (TypeError, "input is None"),
    "fc.softmax('abc', 1)": (TypeError, "input is 'abc'"),
    "fc.batch_norm(None, None, None)": (TypeError, "input is None"),
    # --- dtypes
    "fc.conv2d(X.astype(np.uint8), W)": (TypeError, "uint8", "input.astype(numpy.float32)", "/ 255"),
    "fc.conv2d(X.astype(int), W)": (TypeError, "int64", "input.astype(numpy.float32)", "!255"),
    "fc.conv2d(X, W.astype(int))": (TypeError, "int64", "weight.astype(numpy.float32)"),
    "fc.conv2d(X > 0, W)": (TypeError, "bool", "input.astype(numpy.float32)"),
    "fc.conv2d(X * 1j, W)": (TypeError, "complex64", "input.real", "input.imag", "!astype"),
    "fc.conv2d(X.astype(np.longdouble), W)": (TypeError, "input.astype(numpy.float32)"),
    "fc.conv2d(X.astype('>f4'), W)": (TypeError, ">f4", "input.astype(numpy.float32)"),
    "fc.conv2d(X.tolist(), W)": (TypeError, "input", "float64", "numpy.asarray(input, numpy.float32)"),
    "fc.conv2d([[[1, 2], [3, 4]]], W)": (TypeError, "list of int64", "numpy.asarray(input, numpy.float32)", "!astype"),
    "fc.conv2d(X, W.astype(int).tolist())": (TypeError, "list of int64", "numpy.asarray(weight, numpy.float32)"),
    "fc.conv2d(X, W.astype(float))": (TypeError, "weight float64", "numpy.asarray(weight, numpy.float32)", "!(input"),
    "fc.conv2d(X.astype(float), W)": (TypeError, "input has dtype float64", "numpy.asarray(input, numpy.float32)"),
    "fc.conv2d(X, W, np.ones(6))": (TypeError, "bias", "float64", "numpy.asarray(bias, numpy.float32)", "!(weight"),
    "fc.conv2d(X.astype(np.float16), W)": (TypeError, "float16", "numpy.asarray(input, numpy.float32)"),
    "fc.ConvPlan(X.shape, W)(X.astype(float))": (TypeError, "x has dtype float64", "numpy.asarray(x, numpy.float32)"),
    "fc.ConvPlan(X.shape, W.astype(float))(X)": (TypeError, "x has dtype float32", "asarray(weight, numpy.float32)"),
    "fc.ConvPlan(X.shape, W)((X * 255).astype(np.uint8))": (TypeError, "x has dtype uint8", "/ 255"),
    "net()(X.astype(np.uint8))": (TypeError, "layer '0' (Conv2d)", "uint8", "/ 255"),
    "net()(X.astype(float))": (TypeError, "layer '0' (Conv2d)", "numpy.asarray(input, numpy.float32)"),
    "fc.max_pool2d(X.astype(np.uint8), 2)": (TypeError, "uint8", "/ 255"),
    "fc.grad.conv2d_weight(X, W.shape, np.ones((2, 6, 7, 6)))": (TypeError, "grad_output has dtype float64"),
    "nn.Conv2d(4, 6, 3, dtype=int)": (TypeError, "int64", "floating point"),
    "nn.Parameter([1, 2])": (TypeError, "int64", "floating point"),
    # --- shapes and the order of axes
    "fc.conv2d(LAST, W)": (ValueError, "(2, 9, 8, 4)", "layout='NHWC'"),
    "fc.conv2d(LAST[0], W)": (ValueError, "(9, 8, 4)", "layout='NHWC'"),
    "fc.conv2d(X, W, layout='NHWC')": (ValueError, "(2, 4, 9, 8)", "layout='NCHW'"),
    "fc.conv2d(X, W.transpose(2, 3, 1, 0))": (ValueError, "(3, 3, 4, 6)", "weight.transpose(3, 2, 0, 1)"),
    "fc.conv2d(LAST, W, layout='HWC')": (ValueError, "layout is 'HWC'", "'NCHW' or 'NHWC'"),
    "fc.conv2d(LAST, W, layout='nhwc')": (ValueError, "layout is 'nhwc'", "'NHWC'"),
    "fc.conv2d(X, W, layout='NCW')": (ValueError, "layout is 'NCW'", "'NCHW'"),
    "fc.ConvPlan(LAST.shape, W)": (ValueError, "(2, 9, 8, 4)", "layout='NHWC'"),
    "fc.conv_transpose2d(LAST, W.transpose(1, 0, 2, 3))": (ValueError, "(2, 9, 8, 4)", "layout='NHWC'"),
    "nn.Conv2d(4, 6, 3)(LAST)": (ValueError, "(2, 9, 8, 4)", "layout='NHWC'"),
    "fc.conv2d(X[0, 0], W)": (ValueError, "(9, 8)", "4 axes", "3 without the batch"),
    "fc.conv2d(X[None], W)": (ValueError, "(1, 2, 4, 9, 8)", "4 axes"),
    "fc.conv2d(X, W[0])": (ValueError, "weight has shape (4, 3, 3)", "4 axes", "out_channels"),
    "fc.conv2d(X, W[:, :3])": (ValueError, "weight has shape (6, 3, 3, 3)", "needs 4 channels"),
    "fc.conv2d(X, W, np.ones(4, np.float32))": (ValueError, "bias has shape (4,)", "(6,)"),
    "fc.conv2d(X[:, :, :2], W)": (ValueError, "kernel (3, 3)", "larger than input's size (2, 8)"),
    "fc.conv2d(X[:, :, :0], W)": (ValueError, "(2, 4, 0, 8)", "only the batch may be empty"),
    "fc.conv1d(X, W)": (ValueError, "input has shape (2, 4, 9, 8)", "3 axes", "NCW"),
    "fc.conv3d(X, W)": (ValueError, "weight has shape (6, 4, 3, 3)", "5 axes"),
    "fc.ConvPlan(X, W)": (TypeError, "input_shape is an array of shape (2, 4, 9, 8)", ".shape"),
    "fc.ConvPlan(BIG, W)": (TypeError, "input_shape is an array of shape (1, 64, 200, 200)"),
    "fc.ConvPlan(W, X.shape)": (TypeError, "weight", "numpy.asarray(weight"),
    "fc.ConvPlan(9, W)": (TypeError, "input_shape is 9", "tuple of integers"),
    "fc.ConvPlan('2489', W)": (TypeError, "input_shape is '2'", "integer"),
    "fc.ConvPlan(X.shape, W)(X[:1])": (ValueError, "x has shape (1, 4, 9, 8)", "(2, 4, 9, 8)"),
    "fc.algorithms(X, W)": (TypeError, "input_shape is an array of shape", ".shape"),
    "fc.grad.conv2d_input(X, W, X)": (TypeError, "input_size is an array of shape (2, 4, 9, 8)", ".shape"),
    "fc.grad.conv2d_weight(X, W, X)": (TypeError, "weight_size is an array of shape (6, 4, 3, 3)", ".shape"),
    # --- numbers
    "fc.conv2d(X, W, stride=2.0)": (TypeError, "stride is 2.0", "integer"),
    "fc.conv2d(X, W, stride='2')": (TypeError, "stride is '2'", "integer"),
    "fc.conv2d(X, W, stride=0)": (ValueError, "stride is 0", "at least 1"),
    "fc.conv2d(X, W, stride=(1, 1, 1, 1))": (ValueError, "stride is (1, 1, 1, 1)", "2 of them"),
    "fc.conv2d(X, W, stride=B)": (ValueError, "stride is an array of shape (6,)", "2 of them"),
    "fc.conv2d(X, W, padding=-1)": (ValueError, "padding is -1", "at least 0"),
    "fc.conv2d(X, W, padding='SAME')": (ValueError, "padding is 'SAME'", "'same'"),
    "fc.conv2d(X, W, padding=X)": (ValueError, "padding is an array of shape (2, 4, 9, 8)"),
    "fc.conv2d(X, W, padding=None)": (TypeError, "padding is None", "integer"),
    "fc.conv2d(X, W, dilation=0)": (ValueError, "dilation is 0", "at least 1"),
    "fc.conv2d(X, W, groups=5)": (ValueError, "groups is 5", "divide"),
    "fc.conv2d(X, W, groups=True)": (TypeError, "groups is True", "integer"),
    "fc.conv2d(X, W, activation='swish')": (ValueError, "activation is 'swish'", "'relu'"),
    "fc.conv2d(X, W, activation=nn.ReLU())": (ValueError, "activation is a ReLU", "'relu'"),
    "fc.conv2d(X, W, activation=fc.relu)": (ValueError, "activation is the function relu", "'relu'"),
    "fc.conv2d(X, W, algorithm='fft')": (ValueError, "algorithm is 'fft'", "'direct'"),
    "fc.conv2d(X, W, algorithm='depthwise')": (NotImplementedError, "algorithm='depthwise' cannot serve"),
    "fc.conv2d(X, W, precision='high')": (ValueError, "precision is 'high'", "'strict'"),
    "fc.conv2d(X, W, out=[])": (TypeError, "out is a list", "numpy.ndarray"),
    "fc.conv2d(X, W, out=X)": (ValueError, "out has shape (2, 4, 9, 8)", "(2, 6, 7, 6)"),
    "fc.conv2d(X, W, residual=X)": (ValueError, "residual has shape (2, 4, 9, 8)", "(2, 6, 7, 6)"),
    "fc.conv2d(X, W, strides=2)": (TypeError, "conv2d()", "strides"),
    "fc.max_pool2d(X, 0)": (ValueError, "kernel_size is 0", "at least 1"),
    "fc.max_pool2d(X, 2, padding=2)": (ValueError, "padding is 2", "half of kernel_size"),
    "fc.max_pool2d(X, 20)": (ValueError, "kernel_size is 20", "(9, 8)"),
    "fc.adaptive_avg_pool2d(X, (1, 2, 3))": (ValueError, "output_size is (1, 2, 3)"),
    "fc.set_num_threads(0)": (ValueError, "n is 0", "1 to"),
    "fc.set_num_threads('all')": (TypeError, "n is 'all'", "integer"),
    # --- layers and networks
    "nn.Conv2d(4, 6)": (TypeError, "Conv2d.__init__()", "kernel_size", "!_PlainConv"),
    "nn.Conv2d(4, 6, 3, strides=2)": (TypeError, "Conv2d.__init__()", "strides", "!_PlainConv"),
    "nn.ConvTranspose1d(4)": (TypeError, "ConvTranspose1d.__init__()", "!_" + "TransposedConv"),
    "nn.MaxPool2d()": (TypeError, "MaxPool2d.__init__()", "kernel_size", "!_MaxPool"),
    "nn.BatchNorm2d()": (TypeError, "BatchNorm2d.__init__()", "num_features", "!_BatchNorm"),
    "nn.ReLU(True, 1)": (TypeError, "ReLU.__init__()", "!_InplaceActivation"),
    "nn.Conv2d(4, 6, 3)()": (TypeError, "Conv2d.forward()", "!_Conv"),
    "nn.Conv2d(X, W, 3)": (TypeError, "in_channels is an array of shape (2, 4, 9, 8)", "integer"),
    "nn.Conv2d(4, 6, 3, groups=4)": (ValueError, "groups is 4", "out_channels, 6"),
    "nn.Sequential(nn.Conv2d)": (TypeError, "'0' is the class Conv2d", "Module"),
    "nn.Sequential([nn.ReLU()])": (TypeError, "'0' is [ReLU()]", "Module"),
    "net()(X[:, :, 1:])": (ValueError, "layer '3' (Linear)", "(2, 216)", "252"),
    "Net()(X[:, :, 1:])": (ValueError, "layer 'head' (Linear)", "(2, 216)", "252"),
    "Net()(LAST)": (ValueError, "layer 'body.0' (Conv2d)", "layout='NHWC'"),
    "nn.Sequential(Net())(X[:, :, 1:])": (ValueError, "layer '0.head' (Linear)", "252"),
    "net().eval()(X[:, :, 1:])": (ValueError, "layer '3' (Linear)", "252"),
    "models.lenet5()(np.ones((1, 1, 28, 28), np.float32))": (ValueError, "layer 'classifier.0' (Linear)", "400"),
    "models.lenet5()(np.ones((1, 3, 32, 32), np.float32))": (ValueError, "layer 'features.0' (Conv2d)", "3"),
    "models.vgg11(10)(np.ones((1, 3, 16, 16), np.float32))": (ValueError, "layer 'features.20' (MaxPool2d)"),
    "net().backward(SCORES)": (RuntimeError, "Linear.backward has nothing saved", "forward"),
    "net().eval().backward(SCORES)": (RuntimeError, "eval mode", "train()"),
    "net().load_state_dict({})": (ValueError, "missing", "0.weight"),
    "net().load_state_dict('net.npz')": (TypeError, "state_dict"),
    # --- losses and optimisers
    "fc.cross_entropy(SCORES, LABELS.astype(np.float32))": (
        TypeError,
        "target has dtype float32",
        "astype(numpy.int64)",
    ),
    "fc.cross_entropy(SCORES, np.eye(3, dtype=int)[LABELS])": (
        ValueError,
        "target has shape (5, 3)",
        "target.argmax(1)",
    ),
    "fc.cross_entropy(SCORES, LABELS + 1)": (ValueError, "target holds 3", "0 to 2"),
    "fc.cross_entropy(SCORES, LABELS[:4])": (ValueError, "target has shape (4,)", "(5,)"),
    "fc.cross_entropy(SCORES, list('abcab'))": (TypeError, "target has dtype <U1", "integer"),
    "fc.cross_entropy(LABELS, SCORES)": (TypeError, "input has dtype int64"),
    "fc.cross_entropy(SCORES, LABELS, reduction='avg')": (ValueError, "reduction is 'avg'", "'mean'"),
    "nn.CrossEntropyLoss()(SCORES, LABELS.astype(float))": (TypeError, "astype(numpy.int64)"),
    "optim.SGD(net(), lr=0.1)": (TypeError, "params is a Sequential", "model.parameters()"),
    "optim.Adam(Net())": (TypeError, "params is a Net", "model.parameters()"),
    "optim.SGD(net().parameters)": (TypeError, "params is the method parameters", "list"),
    "optim.SGD(nn.Parameter([1.0]), lr=0.1)": (TypeError, "params is", "list"),
    "optim.SGD(net().state_dict().values(), lr=0.1)": (TypeError, "params holds ndarray", "Parameter"),
    "optim.SGD([], lr=0.1)": (ValueError, "params is empty"),
    "optim.SGD(net().parameters(), lr=-1)": (ValueError, "lr is -1"),
    "optim.SGD(net().parameters(), lr='fast')": (TypeError, "lr is 'fast'", "number"),
    # --- files
    "fc.load('nowhere.npz')": (FileNotFoundError, "nowhere.npz"),
    "fc.load(__file__)": (ValueError, "test_mistakes.py", ".npz"),
    "fc.save(net(), 'net.npz')": (TypeError, "Sequential", "state_dict()"),
    "fc.save(net().state_dict(), 'net.pt')": (ValueError, "net.pt", ".npz"),
}


@pytest.mark.parametrize("written", MISTAKES)
def test_a_mistake_is_put_right(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error, *words = MISTAKES[written]
    with pytest.raises(error) as raised:
        eval(written, NAMES)
    message = str(raised.value)
    for word in words:
        assert (word[1:] not in message) if word.startswith("!") else (word in message), message
    assert len(message) < 400


def test_a_layer_alone_has_no_name_to_say():
    with pytest.raises(ValueError, match=r"^input has shape"):
        nn.Linear(3, 2)(X)


def test_there_are_ninety_of_them():
    assert len(MISTAKES) >= 90
