# SPDX-License-Identifier: BSD-3-Clause
"""Layers in eval mode keep a plan for the last shape, until their weights change."""

import threading

import numpy as np
import pytest

import fastconv.nn.conv
import fastconv.nn.linear
from fastconv import functional as F
from fastconv import nn
from support import max_error, tolerance


@pytest.fixture
def rng():
    return np.random.default_rng(30)


@pytest.fixture
def made(monkeypatch):
    """The input shapes for which a layer has made a plan."""
    shapes = []

    def make(input_shape, *args, **kwargs):
        shapes.append(tuple(input_shape))
        return fastconv.ConvPlan(input_shape, *args, **kwargs)

    monkeypatch.setattr(fastconv.nn.conv, "ConvPlan", make)
    monkeypatch.setattr(fastconv.nn.linear, "ConvPlan", make)
    return shapes


def exact(layer, x):
    """What the layer gives without a plan."""
    bias = None if layer.bias is None else layer.bias.value
    function = F.conv2d if isinstance(layer, nn.Conv2d) else F.linear
    return function(x, layer.weight.value, bias)


@pytest.fixture(params=["Conv2d", "Linear"])
def planned(request, rng):
    """A layer that keeps plans, and an input for it; its sums have 18 terms."""
    if request.param == "Conv2d":
        layer, shape = nn.Conv2d(2, 3, 3, rng=0), (1, 2, 5, 5)
    else:
        layer, shape = nn.Linear(18, 3, rng=0), (4, 18)
    return layer, rng.standard_normal(shape).astype(np.float32)


def test_a_plan_is_kept_for_the_last_shape(planned, made):
    layer, a = planned
    b = np.concatenate([a, a])
    layer(a)
    assert made == []
    layer.eval()
    for x in (a, a, b, b, a):
        layer(x)
    assert [shape[0] for shape in made] == [len(a), len(b), len(a)]
    layer.eval()(a)
    assert len(made) == 3
    layer.train().eval()(a)
    assert len(made) == 4


@pytest.mark.parametrize(
    "write",
    [
        lambda layer: layer.weight.data.__imul__(2),
        lambda layer: layer.bias.data.__iadd__(1),
        lambda layer: setattr(layer.weight, "data", layer.weight.value * 2),
        lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight.value * 2)),
        lambda layer: setattr(layer, "bias", None),
        lambda layer: nn.init.ones_(layer.weight),
        lambda layer: layer.load_state_dict({k: v * 2 for k, v in layer.state_dict().items()}),
        lambda layer: layer.reset_parameters(rng=9),
    ],
)
def test_no_write_leaves_a_stale_plan(planned, made, write):
    layer, x = planned
    before = layer.eval()(x)
    write(layer)
    y = layer(x)
    assert len(made) == 2
    assert not np.allclose(y, before)
    assert max_error(y, exact(layer, x)) < tolerance(np.float32, 18)


def test_an_optimiser_step_leaves_no_stale_plan(planned, made):
    layer, x = planned
    layer.backward(layer(x))
    layer.eval()(x)
    fastconv.optim.SGD(layer.parameters(), lr=0.1).step()
    assert max_error(layer(x), exact(layer, x)) < tolerance(np.float32, 18)
    assert len(made) == 2


def test_no_plan_while_the_weights_are_lent(planned, made):
    layer, x = planned
    layer.eval()(x)
    row = layer.weight.data[0]
    for value in (1.0, 2.0):
        row[...] = value  # a write that no counter sees
        assert max_error(layer(x), exact(layer, x)) < tolerance(np.float32, 18)
    assert len(made) == 1
    del row
    layer(x)
    assert len(made) == 2


def test_threads_share_a_layer(rng):
    layer = nn.Conv2d(3, 8, 3, rng=0).eval()
    inputs = [rng.standard_normal((n, 3, 8, 8)).astype(np.float32) for n in (1, 2, 3, 4)]
    expected = [exact(layer, x) for x in inputs]
    wrong = []

    def work(x, y):
        for _ in range(20):
            if max_error(layer(x), y) > tolerance(np.float32, 27):
                wrong.append(x.shape)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
