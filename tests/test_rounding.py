# SPDX-License-Identifier: BSD-3-Clause
"""float16 is computed in float32 and rounded once: every function, gradient, layer, loss and optimiser.

A row of the table runs on arrays of float16 and on the same numbers in float64. They are chosen so that an intermediate
result of float16 would show: squares of 300 overflow, powers of 0.01 vanish, and sums of many terms do either.
"""

import functools

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, optim

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")

HALF = np.float16
ROWS = {}


def row(name):
    """Enters a function of ``cast``, which takes arrays of float16 to the dtype to compute in, into the table."""

    def enter(function):
        assert name not in ROWS
        ROWS[name] = function
        return function

    return enter


def hard(*shape, seed=0, values=(300, -300, 250, -150, 7, 0.01, -0.01)):
    return np.random.default_rng(seed).choice(np.array(values, HALF), shape)


def small(*shape, seed=1):
    return hard(*shape, seed=seed, values=(0.01, -0.02, 0.5))


def many(*shape):
    """So many terms that their sum is beyond float16, or grows no more."""
    return np.full(shape, 3, HALF)


def exact_halves(y):
    """Numbers rounded to float16, and half the distance there to the next."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(y, np.float64).astype(HALF)
    ulp = np.ldexp(1.0, np.maximum(np.frexp(np.abs(np.asarray(y, np.float64)))[1] - 11, -24))
    return rounded, ulp / 2


def results(answer):
    if isinstance(answer, (tuple, list)):
        return [leaf for part in answer for leaf in results(part)]
    return [] if answer is None else [answer]


# --- functions ------------------------------------------------------------------------------------


def image(rank, *, batch=2, channels=4, size=9):
    return (batch, channels, *[size] * rank)


for n in (1, 2, 3):

    @row(f"conv{n}d")
    def _(cast, n=n):
        x, w, b = hard(*image(n)), small(6, 2, *[3] * n), hard(6)
        conv = getattr(fc, f"conv{n}d")
        return [
            conv(cast(x), cast(w), cast(b), groups=2, padding=1, activation="relu"),
            conv(cast(hard(1, 1024, *[2] * n)), cast(hard(1, 1024, *[2] * n, seed=4)) / 300),
        ]

    @row(f"grad.conv{n}d")
    def _(cast, n=n):
        x, w, y = hard(*image(n)), hard(6, 2, *[3] * n), small(*image(n, channels=6))
        return list(getattr(fc.grad, f"conv{n}d")(cast(x), cast(w), cast(y), groups=2, padding=1))

    @row(f"grad.conv{n}d_input")
    def _(cast, n=n):
        return getattr(fc.grad, f"conv{n}d_input")(
            image(n), cast(hard(6, 2, *[3] * n)), cast(small(*image(n, channels=6))), groups=2, padding=1
        )

    @row(f"grad.conv{n}d_weight")
    def _(cast, n=n):
        return getattr(fc.grad, f"conv{n}d_weight")(
            cast(hard(*image(n))), (6, 2, *[3] * n), cast(small(*image(n, channels=6))), groups=2, padding=1
        )

    @row(f"conv_transpose{n}d")
    def _(cast, n=n):
        x, w, b, r = hard(*image(n)), small(4, 3, *[3] * n), hard(6), hard(*image(n, channels=6), seed=5)
        options = {"groups": 2, "padding": 1, "residual": cast(r)}
        return getattr(fc, f"conv_transpose{n}d")(cast(x), cast(w), cast(b), **options)

    @row(f"grad.conv_transpose{n}d")
    def _(cast, n=n):
        x, w, y = hard(*image(n)), hard(4, 3, *[3] * n), small(*image(n, channels=6))
        return list(getattr(fc.grad, f"conv_transpose{n}d")(cast(x), cast(w), cast(y), groups=2, padding=1))

    @row(f"grad.conv_transpose{n}d_input")
    def _(cast, n=n):
        return getattr(fc.grad, f"conv_transpose{n}d_input")(
            image(n), cast(hard(4, 3, *[3] * n)), cast(small(*image(n, channels=6))), groups=2, padding=1
        )

    @row(f"grad.conv_transpose{n}d_weight")
    def _(cast, n=n):
        return getattr(fc.grad, f"conv_transpose{n}d_weight")(
            cast(hard(*image(n))), (4, 3, *[3] * n), cast(small(*image(n, channels=6))), groups=2, padding=1
        )

    @row(f"avg_pool{n}d")
    def _(cast, n=n):
        pool, length = getattr(fc, f"avg_pool{n}d"), {1: 60_000, 2: 240, 3: 40}[n]
        return [pool(cast(hard(*image(n))), 3, 2, 1), pool(cast(many(1, 1, *[length] * n)), length)]

    @row(f"grad.avg_pool{n}d")
    def _(cast, n=n):
        return getattr(fc.grad, f"avg_pool{n}d")(cast(hard(*image(n, size=7))), image(n), 3, 1)

    @row(f"adaptive_avg_pool{n}d")
    def _(cast, n=n):
        pool, length = getattr(fc, f"adaptive_avg_pool{n}d"), {1: 60_000, 2: 240, 3: 40}[n]
        return [pool(cast(hard(*image(n))), 4), pool(cast(many(1, 1, *[length] * n)), 1)]

    @row(f"grad.adaptive_avg_pool{n}d")
    def _(cast, n=n):
        return getattr(fc.grad, f"adaptive_avg_pool{n}d")(cast(hard(*image(n, size=7))), image(n))

    @row(f"max_pool{n}d")
    def _(cast, n=n):
        return getattr(fc, f"max_pool{n}d")(cast(hard(*image(n))), 3)

    @row(f"adaptive_max_pool{n}d")
    def _(cast, n=n):
        return getattr(fc, f"adaptive_max_pool{n}d")(cast(hard(*image(n))), 4)

    @row(f"grad.max_pool{n}d")
    def _(cast, n=n):
        x = hard(*image(n))
        y, where = getattr(fc, f"max_pool{n}d")(x, 5, 1, return_indices=True)
        return getattr(fc.grad, f"max_pool{n}d")(cast(hard(*y.shape)), where, x.shape)

    @row(f"grad.adaptive_max_pool{n}d")
    def _(cast, n=n):
        x = hard(*image(n))
        y, where = getattr(fc, f"adaptive_max_pool{n}d")(x, 7, return_indices=True)
        return getattr(fc.grad, f"adaptive_max_pool{n}d")(cast(hard(*y.shape)), where, x.shape)

    @row(f"max_unpool{n}d")
    def _(cast, n=n):
        y, where = getattr(fc, f"max_pool{n}d")(hard(*image(n)), 3, return_indices=True)
        return getattr(fc, f"max_unpool{n}d")(cast(y), where, 3)

    @row(f"grad.max_unpool{n}d")
    def _(cast, n=n):
        x = hard(*image(n))
        _, where = getattr(fc, f"max_pool{n}d")(x, 3, return_indices=True)
        return getattr(fc.grad, f"max_unpool{n}d")(cast(x), where)

    @row(f"lp_pool{n}d")
    def _(cast, n=n):
        pool = getattr(fc, f"lp_pool{n}d")
        x, tiny = np.abs(hard(*image(n))), np.full(image(n), 0.01, HALF)
        long = many(1, 1, *[{1: 10_000, 2: 100, 3: 20}[n]] * n)
        return [
            *(pool(cast(x), p, 3, 2) for p in (1, 2, 3, np.inf, -np.inf)),
            *(pool(cast(tiny), p, 3) for p in (2, 4)),
            pool(cast(long), 2, long.shape[-1]),
        ]

    @row(f"grad.lp_pool{n}d")
    def _(cast, n=n):
        pool, g = getattr(fc.grad, f"lp_pool{n}d"), hard(*image(n, size=7))
        x, tiny = np.abs(hard(*image(n))), np.full(image(n), 0.01, HALF)
        return [
            *(pool(cast(g), cast(x), p, 3, 1) for p in (1, 2, 3, np.inf, -np.inf)),
            *(pool(cast(small(*g.shape)), cast(tiny), p, 3, 1) for p in (2, 4)),
        ]


VALUES = (300, -300, 5, -5, 2.5, -2.5, 1, 0.01, -0.01, 1e-4, 60_000, -60_000)
for name in ("relu", "relu6", "leaky_relu", "silu", "sigmoid", "tanh", "hardswish"):

    @row(name)
    def _(cast, name=name):
        x = hard(300, values=VALUES)
        y = getattr(fc, name)(cast(x))
        if name in ("sigmoid", "tanh"):
            return y
        overwritten = cast(x).copy()
        assert getattr(fc, name)(overwritten, inplace=True) is overwritten
        return [y, overwritten]

    @row(f"grad.{name}")
    def _(cast, name=name):
        kept = hard(300, values=(0.999, 0.01, 0.5, 1e-4) if name in ("sigmoid", "tanh") else VALUES)
        return getattr(fc.grad, name)(cast(hard(300, seed=2, values=(300, 0.01, 60_000))), cast(kept))


for name in ("softmax", "log_softmax"):

    @row(name)
    def _(cast, name=name):
        function = getattr(fc, name)
        return [
            function(cast(hard(4, 50, values=(300, 299, -300, 0.01))), 1),
            function(cast(many(100_000) / HALF(300)), 0),
        ]


@row("grad.softmax")
def _(cast):
    y = np.full((2, 100_000), 1e-4, HALF)
    return fc.grad.softmax(cast(hard(*y.shape, values=(300, 299, 0.01))), cast(y), 1)


@row("grad.log_softmax")
def _(cast):
    y = np.full((2, 100_000), -9, HALF)
    return fc.grad.log_softmax(cast(hard(*y.shape, values=(300, 299, 0.01))), cast(y), 1)


@row("dropout")
def _(cast):
    return fc.dropout(cast(hard(1000)), 0.99, rng=0)


@row("grad.dropout")
def _(cast):
    return fc.grad.dropout(cast(hard(1000)), np.arange(1000) % 3 == 0, 0.99)


@row("linear")
def _(cast):
    return fc.linear(cast(hard(5, 4096)), cast(small(3, 4096)), cast(hard(3)))


@row("grad.linear")
def _(cast):
    x, w = hard(4000, 20), hard(8, 20)
    return fc.grad.linear(cast(x), cast(w), cast(hard(4000, 8, values=(0.01, -0.01, 0.02))))


@row("global_avg_pool")
def _(cast):
    return fc.global_avg_pool(cast(many(2, 3, 300, 300)))


@row("grad.global_avg_pool")
def _(cast):
    return fc.grad.global_avg_pool(cast(hard(2, 3, 1, 1)), (2, 3, 30, 30))


@row("global_max_pool")
def _(cast):
    return fc.global_max_pool(cast(hard(2, 3, 30, 30)))


@row("grad.global_max_pool")
def _(cast):
    _, where = fc.global_max_pool(hard(2, 3, 30, 30), return_indices=True)
    return fc.grad.global_max_pool(cast(hard(2, 3, 1, 1)), where, (2, 3, 30, 30))


@row("batch_norm")
def _(cast):
    answers = []
    for shape in ((3, 4, 9, 9), (50_000, 4)):
        x, weight, bias = hard(*shape), hard(4), hard(4)
        mean, var = cast(hard(4)).copy(), cast(np.full(4, 0.5, HALF)).copy()
        answers.append(fc.batch_norm(cast(x), mean, var, cast(weight), cast(bias), eps=0.01))
        answers.append(fc.batch_norm(cast(x), mean, var, cast(weight), cast(bias), training=True))
        answers += [mean, var]
        wide = np.float64 if mean.dtype == np.float64 else np.float32
        answers.append(fc.batch_norm(cast(x), *(a.astype(wide) for a in (bias, np.abs(weight), weight))))
    return answers


@row("grad.batch_norm")
def _(cast):
    g, x, weight = hard(3, 4, 9, 9), hard(3, 4, 9, 9, seed=3), hard(4)
    statistics = cast(hard(4)), cast(np.full(4, 0.01, HALF))
    return [
        fc.grad.batch_norm(cast(g), cast(x), cast(weight), training=True),
        fc.grad.batch_norm(cast(small(*g.shape)), cast(x), cast(small(4)), *statistics),
    ]


@row("layer_norm")
def _(cast):
    x = cast(hard(3, 4, 90))
    return [fc.layer_norm(x, 90, cast(hard(90)), cast(hard(90))), fc.layer_norm(x, (4, 90))]


@row("grad.layer_norm")
def _(cast):
    g, x, weight = hard(3, 4, 9), hard(3, 4, 9, seed=3), hard(9)
    return fc.grad.layer_norm(cast(g), cast(x), 9, cast(weight))


@row("group_norm")
def _(cast):
    x, weight, bias = hard(3, 4, 9, 9), hard(4), hard(4)
    return [fc.group_norm(cast(x), 2, cast(weight), cast(bias)), fc.group_norm(cast(x), 9, layout="NHWC")]


@row("grad.group_norm")
def _(cast):
    return fc.grad.group_norm(cast(hard(3, 4, 9, 9)), cast(hard(3, 4, 9, 9, seed=3)), 2, cast(hard(4)))


@row("instance_norm")
def _(cast):
    x, (mean, var) = cast(hard(3, 4, 9, 9)), (cast(hard(4)), cast(np.full(4, 0.5, HALF)))
    moved = mean.copy(), var.copy()
    return [fc.instance_norm(x, *moved), *moved, fc.instance_norm(x, mean, var, use_input_stats=False)]


@row("grad.instance_norm")
def _(cast):
    return fc.grad.instance_norm(cast(hard(3, 4, 9, 9)), cast(hard(3, 4, 9, 9, seed=3)), cast(hard(4)))


@row("interpolate")
def _(cast):
    x = cast(hard(2, 3, 9, 8))
    return [fc.interpolate(x, 14, mode=mode) for mode in ("nearest", "bilinear", "bicubic")]


@row("grad.interpolate")
def _(cast):
    return fc.grad.interpolate(cast(hard(2, 3, 90, 80)), (2, 3, 2, 3), (90, 80), mode="bilinear")


@row("local_response_norm")
def _(cast):
    return fc.local_response_norm(cast(hard(2, 9, 5, 5)), 5, alpha=0.01)


@row("grad.local_response_norm")
def _(cast):
    return fc.grad.local_response_norm(cast(hard(2, 9, 5, 5)), cast(hard(2, 9, 5, 5, seed=3)), 5, alpha=0.01)


LABELS = np.random.default_rng(6).integers(0, 7, 20_000)


@row("cross_entropy")
def _(cast):
    x, weight = cast(hard(20_000, 7)), cast(hard(7, values=(0.01, 3)))
    return [
        fc.cross_entropy(x, LABELS, label_smoothing=0.1),
        fc.cross_entropy(x, LABELS, weight),
        fc.cross_entropy(x[:90], LABELS[:90], weight, reduction="sum"),
        fc.cross_entropy(x, LABELS, reduction="none"),
    ]


@row("grad.cross_entropy")
def _(cast):
    x, weight = cast(hard(20_000, 7, values=(2, 1, -1))), cast(hard(7, values=(0.01, 300)))
    return [
        fc.grad.cross_entropy(1e4, x, LABELS, weight, label_smoothing=0.1),
        fc.grad.cross_entropy(cast(hard(20_000)), x, LABELS, weight, reduction="none"),
    ]


@row("mse_loss")
def _(cast):
    x, y = cast(hard(100_000, values=(300, *[0.01] * 30))), cast(hard(100_000, seed=2, values=(0.01, 0.02)))
    return [fc.mse_loss(x, y), fc.mse_loss(x[-30:], y[-30:], reduction="none"), fc.mse_loss(y, 2 * y, reduction="sum")]


@row("grad.mse_loss")
def _(cast):
    x, y = hard(1000), hard(1000, seed=2)
    return [fc.grad.mse_loss(1.0, cast(x), cast(y)), fc.grad.mse_loss(10.0, cast(x), cast(y), reduction="sum")]


@row("pad")
def _(cast):
    x = cast(hard(2, 3, 9, 9))
    return [fc.pad(x, (2, 1, 3, 0), mode) for mode in ("constant", "reflect", "replicate", "circular")]


@row("grad.pad")
def _(cast):
    answers = [fc.grad.pad(cast(many(60_000) / HALF(100)), (2,), (29_999, 29_999), "replicate")]
    for mode in ("constant", "reflect", "replicate", "circular"):
        answers.append(fc.grad.pad(cast(hard(2, 16, 14)), (2, 9, 9), (2, 3, 3, 4), mode))
    g = np.array([[60_000, 60_000, -60_000, -60_000, 7]], HALF)
    return [*answers, fc.grad.pad(cast(g), (1, 1), (4, 0), "replicate")]


# --- layers ---------------------------------------------------------------------------------------


def layer(name, make, *shapes, labels=None, values=(300, -300, 0.01, 7)):
    """A forward pass in training mode and back; for what changes in eval mode, one more."""

    @row(f"nn.{name}")
    def _(cast):
        # Built in float16, so that the parameters are the same numbers in both.
        module = make().to(cast(np.zeros(1, HALF)).dtype)
        inputs = [cast(hard(*shape, seed=i, values=values)) for i, shape in enumerate(shapes)]
        y = module(*inputs) if labels is None else module(*inputs, labels)
        if name in ("Sigmoid", "Tanh", "Softmax"):  # their gradient is a function of the rounded result, as in torch
            module.save_for_backward(cast(y.astype(HALF)))
        g = cast(small(*np.shape(y))) if np.ndim(y) else 100.0
        answers = [y, module.backward(g), *(p.grad for p in module.parameters())]
        answers += [b.data for b in module.buffers() if b.dtype.kind == "f"]
        if labels is None and not any(module.buffers()):
            answers.append(module.eval()(*inputs))
        return answers


def unpooled(n):
    """A pooling layer whose positions an unpooling one takes."""

    class Both(nn.Module):
        def __init__(self):
            self.pool = getattr(nn, f"MaxPool{n}d")(3, return_indices=True)
            self.unpool = getattr(nn, f"MaxUnpool{n}d")(3)

        def forward(self, x):
            return self.unpool(*self.pool(x))

        def backward(self, g):
            return self.pool.backward(self.unpool.backward(g))

    return Both()


for n in (1, 2, 3):
    layer(f"Conv{n}d", lambda n=n: getattr(nn, f"Conv{n}d")(4, 6, 3, padding=1, dtype=HALF, rng=0), image(n))
    layer(
        f"ConvTranspose{n}d",
        lambda n=n: getattr(nn, f"ConvTranspose{n}d")(4, 6, 3, padding=1, dtype=HALF, rng=0),
        image(n),
    )
    layer(f"BatchNorm{n}d", lambda n=n: getattr(nn, f"BatchNorm{n}d")(4, dtype=HALF), image(n))
    layer(f"InstanceNorm{n}d", lambda n=n: getattr(nn, f"InstanceNorm{n}d")(4, affine=True, dtype=HALF), image(n))
    layer(f"MaxPool{n}d", lambda n=n: getattr(nn, f"MaxPool{n}d")(3, 1), image(n))
    layer(f"MaxUnpool{n}d", lambda n=n: unpooled(n), image(n))
    layer(f"AvgPool{n}d", lambda n=n: getattr(nn, f"AvgPool{n}d")(3, 1), image(n))
    layer(f"LPPool{n}d", lambda n=n: getattr(nn, f"LPPool{n}d")(2, 3, 1), image(n))
    layer(f"AdaptiveAvgPool{n}d", lambda n=n: getattr(nn, f"AdaptiveAvgPool{n}d")(4), image(n))
    layer(f"AdaptiveMaxPool{n}d", lambda n=n: getattr(nn, f"AdaptiveMaxPool{n}d")(4), image(n))
for name in ("ReLU", "ReLU6", "LeakyReLU", "SiLU", "Hardswish", "Sigmoid", "Tanh", "Flatten", "Identity"):
    layer(name, getattr(nn, name), (20, 30), values=(5, -5, 0.01, 300))
layer("Softmax", lambda: nn.Softmax(1), (3, 500), values=(5, -5, 0.01))
layer("Dropout", lambda: nn.Dropout(0.9, rng=0), (20, 30))
layer("Linear", lambda: nn.Linear(40, 5, dtype=HALF, rng=0), (2000, 40))
layer("LocalResponseNorm", lambda: nn.LocalResponseNorm(5), (2, 9, 5, 5))
layer("LayerNorm", lambda: nn.LayerNorm((5, 6), dtype=HALF), (2, 9, 5, 6))
layer("GroupNorm", lambda: nn.GroupNorm(3, 9, dtype=HALF), (2, 9, 5, 6))
layer("Upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (2, 9, 5, 6))
layer("Add", nn.Add, (4, 5), (4, 5), (4, 5), values=(60_000, -60_000, 7))
layer("Concat", nn.Concat, (4, 5), (4, 5))
layer("CrossEntropyLoss", nn.CrossEntropyLoss, (20_000, 7), labels=LABELS)
layer("MSELoss", nn.MSELoss, (1000,), labels=0)
layer("Sequential", lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3, dtype=HALF, rng=0)), (50, 4, 16))
del ROWS["nn.MSELoss"]


@row("nn.MSELoss")
def _(cast):
    loss = nn.MSELoss()
    return [loss(cast(hard(1000, values=(300, *[0.01] * 9))), cast(small(1000))), loss.backward(100.0)]


def names():
    """Everything public that takes arrays."""
    yield from fc.functional.__all__
    yield from (f"grad.{name}" for name in fc.grad.__all__)
    for name in nn.__all__:
        thing = getattr(nn, name)
        if isinstance(thing, type) and issubclass(thing, nn.Module) and thing is not nn.Module:
            yield f"nn.{name}"


def test_the_table_is_complete():
    assert sorted(ROWS) == sorted(names())


@pytest.mark.parametrize("name", ROWS)
def test_computed_in_float32_and_rounded_once(name):
    halves = results(ROWS[name](lambda a: a))
    exact = results(ROWS[name](lambda a: a.astype(np.float64)))
    assert len(halves) == len(exact) > 0
    for i, (y, wanted) in enumerate(zip(halves, exact, strict=True)):
        assert y.dtype == HALF, i
        assert np.shape(y) == np.shape(wanted)
        rounded, half_ulp = exact_halves(wanted)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(np.asarray(y)[~finite], rounded[~finite], err_msg=str(i))
        largest = np.abs(np.asarray(wanted)[finite]).max(initial=0)
        error = np.abs(np.asarray(y, np.float64) - wanted)[finite]
        assert (error <= 1.01 * half_ulp[finite] + 2e-5 * largest).all(), (i, error.max(), largest)
        assert largest > 0, i


def test_sums_that_cancel():
    """The bias gradients of two images, each beyond float16."""
    for n in (1, 2, 3):
        for kind in ("Conv", "ConvTranspose"):
            for layout in (None, {1: "NWC", 2: "NHWC", 3: "NDHWC"}[n]):
                module = getattr(nn, f"{kind}{n}d")(1, 1, 1, dtype=HALF, layout=layout)
                shape = (2, 1, *[5] * n) if layout is None else (2, *[5] * n, 1)
                module(np.ones(shape, HALF))
                g = np.full(shape, 60_000, HALF)
                g[1] *= -1
                module.backward(g)
                np.testing.assert_array_equal(module.bias.grad, [0])


def test_the_border_of_a_layer_is_part_of_it():
    """What reaches the padding is summed before it is rounded."""
    layer = nn.Conv1d(1, 1, 1, padding=3, padding_mode="replicate", bias=False, dtype=HALF)
    layer.weight.data = np.full((1, 1, 1), 2, HALF)
    layer(np.ones((1, 1, 1), HALF))
    g = np.array([60_000, 60_000, -60_000, -60_000, 7, 1, -1], HALF).reshape(1, 1, 7)
    np.testing.assert_array_equal(layer.backward(g), [[[14]]])


# --- optimisers -----------------------------------------------------------------------------------

OPTIMISERS = {
    "SGD": functools.partial(optim.SGD, lr=0.03),
    "SGD with momentum": functools.partial(optim.SGD, lr=0.03, momentum=0.9, weight_decay=0.3),
    "SGD with Nesterov's": functools.partial(optim.SGD, lr=1e-5, momentum=0.9, nesterov=True),
    "Adam": functools.partial(optim.Adam, lr=0.1),
    "Adam with decay": functools.partial(optim.Adam, lr=0.1, weight_decay=0.01, amsgrad=True),
    "AdamW": functools.partial(optim.AdamW, lr=0.1, amsgrad=True),
}


def test_every_optimiser_is_tried():
    kinds = {getattr(optim, name) for name in optim.__all__}
    wanted = {k for k in kinds if issubclass(k, optim.Optimizer) and k is not optim.Optimizer}
    assert {make.func for make in OPTIMISERS.values()} == wanted


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("size", [300, 3 << 14])
def test_an_update_is_computed_in_float32_and_rounded_once(name, size):
    """Step by step beside an optimiser in float64 that starts each step from the rounded parameters."""
    half = nn.Parameter(hard(size, values=(300, 0.01, -1, 2e-4)))
    wide = nn.Parameter(half.value.astype(np.float64))
    pair = [(OPTIMISERS[name]([p]), p) for p in (half, wide)]
    for step in range(5):
        gradient = hard(size, seed=step, values=(60_000, -300, 0.01, 1e-4, -1e-5))
        wide.data[...] = half.value
        for optimiser, p in pair:
            p.grad = gradient.astype(p.dtype)
            optimiser.step()
        assert half.dtype == HALF
        rounded, half_ulp = exact_halves(wide.value)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(half.value[~finite], rounded[~finite])
        error = np.abs(half.value.astype(np.float64) - wide.value)[finite]
        assert (error <= 1.01 * half_ulp[finite] + 1e-5 * np.abs(wide.value[finite])).all()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_is_remembered_is_float32_and_comes_back(name):
    def run(optimiser, p, steps):
        for step in steps:
            p.grad = hard(*p.shape, seed=step, values=(300, 0.01, 1e-4))
            optimiser.step()

    through, first = nn.Parameter(hard(50)), nn.Parameter(hard(50))
    run(OPTIMISERS[name]([through]), through, range(6))
    optimiser = OPTIMISERS[name]([first])
    run(optimiser, first, range(3))
    state = optimiser.state_dict()
    arrays = [v for entry in state["state"].values() for v in entry.values() if np.ndim(v)]
    assert all(a.dtype == np.float32 for a in arrays)
    assert bool(arrays) == (name != "SGD")
    second = nn.Parameter(first.value)
    again = OPTIMISERS[name]([second])
    again.load_state_dict(state)
    run(again, second, range(3, 6))
    np.testing.assert_array_equal(second.value, through.value)
