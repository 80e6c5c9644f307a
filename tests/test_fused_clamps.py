# SPDX-License-Identifier: BSD-3-Clause
"""In training a clamp is part of the module before it: the same bits as apart, and only where nobody sees it."""

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn.container import through
from fastconv.nn.module import Symbol

MODULES = {
    "Conv1d": (lambda rng: nn.Conv1d(4, 5, 3, padding=1, rng=rng), (3, 4, 9)),
    "Conv2d": (lambda rng: nn.Conv2d(4, 5, 3, padding=1, rng=rng), (3, 4, 9, 8)),
    "Conv2d, channels last": (lambda rng: nn.Conv2d(4, 5, 3, padding=1, layout="NHWC", rng=rng), (3, 9, 8, 4)),
    "Conv2d, reflecting": (lambda rng: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect", rng=rng), (3, 4, 9, 8)),
    "depthwise": (lambda rng: nn.Conv2d(4, 4, 3, padding=1, groups=4, rng=rng), (3, 4, 9, 8)),
    "Conv3d": (lambda rng: nn.Conv3d(4, 5, 3, padding=1, rng=rng), (3, 4, 5, 6, 4)),
    "ConvTranspose2d": (lambda rng: nn.ConvTranspose2d(4, 5, 3, rng=rng), (3, 4, 9, 8)),
    "Linear": (lambda rng: nn.Linear(9, 5, rng=rng), (3, 4, 9)),
    "BatchNorm1d": (lambda rng: nn.BatchNorm1d(4), (9, 4)),
    "BatchNorm2d": (lambda rng: nn.BatchNorm2d(4), (3, 4, 9, 8)),
    "BatchNorm2d, channels last": (lambda rng: nn.BatchNorm2d(8, layout="NHWC"), (3, 4, 9, 8)),
}


def trained(make, shape, clamp, apart):
    """A step of a module and a clamp, these in one chain or one called after the other."""
    rng = np.random.default_rng(5)
    module, x = make(rng), rng.standard_normal(shape, dtype=np.float32)
    for p in module.parameters():
        p.data[...] = rng.standard_normal(p.shape)
    y = clamp(module(x)) if apart else through((module, clamp), x)
    g = rng.standard_normal(y.shape, dtype=np.float32)
    d = module.backward(clamp.backward(g))
    return y, d, *(p.grad for p in module.parameters()), *(b.data for _, b in module.named_buffers())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
def test_the_same_bits_as_apart(name, kind):
    make, shape = MODULES[name]
    for ours, theirs in zip(trained(make, shape, kind(), False), trained(make, shape, kind(), True), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("inputs", [2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_sum(inputs, dtype):
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((3, 40)).astype(dtype) for _ in range(inputs)]
    add, clamp, g = nn.Add(), nn.ReLU(), rng.standard_normal((3, 40)).astype(dtype)
    expected, grad = clamp(add(*arrays)), add.backward(clamp.backward(g))
    np.testing.assert_array_equal(through((add, clamp), *arrays), expected)
    for ours, theirs in zip(add.backward(clamp.backward(g)), grad, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Loud(nn.Conv2d):
    """Says that it was called, and by nothing but an input."""

    def forward(self, input):
        self.called = True
        return super().forward(input)


class Guided(nn.ReLU):
    """Guided backpropagation: of the gradient, too, only what is positive."""

    def backward(self, grad_output):
        return np.maximum(super().backward(grad_output), 0)


def test_who_redefines_a_method_is_asked():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 6), dtype=np.float32)
    loud = Loud(3, 4, 3, rng=1)
    through((loud, nn.ReLU()), x)
    assert loud.called
    conv, guided = nn.Conv2d(3, 4, 3, rng=1), Guided()
    y = through((conv, guided), x)
    assert (guided.backward(-np.ones_like(y)) == 0).all()
    replaced = nn.ReLU()
    replaced.forward = lambda x: x + 1
    np.testing.assert_array_equal(through((conv, replaced), x), conv(x) + 1)


def test_not_in_eval_mode_nor_of_what_stands_for_an_array():
    conv, relu = nn.Conv2d(3, 4, 3, rng=1), nn.ReLU()
    entered = []

    class Stand(Symbol):
        def enter(self, module, inputs, named):
            entered.append((module, named))
            return self

    through((conv, relu), Stand())
    assert entered == [(conv, {}), (relu, {})]
    x = np.ones((1, 3, 5, 5), np.float32)
    relu.eval()
    np.testing.assert_array_equal(through((conv, relu), x), np.maximum(conv(x), 0))
    conv.eval()
    np.testing.assert_array_equal(through((conv, relu), x), np.maximum(conv(x), 0))
