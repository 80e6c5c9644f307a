# SPDX-License-Identifier: BSD-3-Clause
"""Results lie in memory as inputs do: what has channels first by its axes and last by its strides stays so."""

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args, _core, models, nn
from support import max_error, poison, tolerance

RANKS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
SIZES = {1: (13,), 2: (7, 6), 3: (5, 4, 6)}


def behind(x, rank):
    """A view with the channels last."""
    return np.moveaxis(x, -rank - 1, -1)


def ahead(x, rank):
    return np.moveaxis(x, -1, -rank - 1)


def last(x, rank):
    """The same with channels last in memory."""
    return ahead(np.ascontiguousarray(behind(x, rank)), rank)


def embedded(x):
    """The same as part of a larger array of NaNs."""
    whole = poison([n + 2 for n in x.shape], x.dtype)
    part = whole[tuple(slice(1, -1) for _ in x.shape)]
    part[...] = x
    return part


def gapped(x, rank):
    """The same with channels last in memory."""
    return ahead(embedded(behind(x, rank)), rank)


def lies_last(x, rank):
    return behind(x, rank).flags.c_contiguous and not x.flags.c_contiguous


def lies_first(x, rank):
    return x.flags.c_contiguous


LAYINGS = {"first": (lambda x, rank: np.ascontiguousarray(x), lies_first), "last": (last, lies_last)}


def images(rank, dtype="float32", batch=(3,), channels=10, size=None, seed=0):
    shape = (*batch, channels, *(size or SIZES[rank]))
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def function(name, rank):
    return getattr(fc, f"{name}{rank}d")


def kernels(rank, outputs, inputs, dtype, side=3):
    return (np.random.default_rng(1).standard_normal((outputs, inputs, *(side,) * rank)) / 8).astype(dtype)


def convolved(rank, x, **more):
    return function("conv", rank)(x, kernels(rank, 12, x.shape[-rank - 1], x.dtype), padding=1, **more)


def grouped(rank, x):
    return function("conv", rank)(x, kernels(rank, 20, 5, x.dtype), stride=2, groups=2)


def depthwise(rank, x):
    return function("conv", rank)(x, kernels(rank, 10, 1, x.dtype), padding="same", groups=10, activation="relu6")


def added_to(rank, x):
    return convolved(rank, x, activation="relu", residual=convolved(rank, np.ascontiguousarray(x)))


def transposed(rank, x):
    return function("conv_transpose", rank)(x, kernels(rank, 10, 6, x.dtype), stride=2, padding=1)


def unpooled(rank, x):
    y, where = function("max_pool", rank)(x, 2, return_indices=True)
    return function("max_unpool", rank)(y, where, 2, output_size=x.shape[-rank:])


def normed(rank, x, training=True):
    mean, var = np.zeros(10, x.dtype), np.ones(10, x.dtype)
    return fc.batch_norm(x, mean, var, np.arange(10).astype(x.dtype), mean + 1, training)


OPERATORS = {
    "conv": convolved,
    "conv of groups": grouped,
    "depthwise": depthwise,
    "conv and residual": added_to,
    "pointwise": lambda rank, x: function("conv", rank)(x, kernels(rank, 7, 10, x.dtype, 1)),
    "conv_transpose": transposed,
    "max_pool": lambda rank, x: function("max_pool", rank)(x, 3, 2, 1),
    "max_pool's indices": lambda rank, x: function("max_pool", rank)(x, 3, 2, 1, return_indices=True)[1],
    "avg_pool": lambda rank, x: function("avg_pool", rank)(x, 2, ceil_mode=True),
    "adaptive_avg_pool": lambda rank, x: function("adaptive_avg_pool", rank)(x, 2),
    "adaptive_max_pool": lambda rank, x: function("adaptive_max_pool", rank)(x, 3),
    "lp_pool": lambda rank, x: function("lp_pool", rank)(np.abs(x), 2, 2),
    "lp_pool of maxima": lambda rank, x: function("lp_pool", rank)(x, np.inf, 2),
    "max_unpool": unpooled,
    "batch_norm": normed,
    "batch_norm of statistics": lambda rank, x: normed(rank, x, False),
    "group_norm": lambda rank, x: fc.group_norm(x, 5),
    "group_norm of all": lambda rank, x: fc.group_norm(x, 1),
    "instance_norm": lambda rank, x: fc.instance_norm(x),
    "layer_norm": lambda rank, x: fc.layer_norm(x, x.shape[1:]),
    "local_response_norm": lambda rank, x: fc.local_response_norm(x, 5),
    "softmax": lambda rank, x: fc.softmax(x, 1),
    "relu": lambda rank, x: fc.relu(x),
    "leaky_relu": lambda rank, x: fc.leaky_relu(x),
    "silu": lambda rank, x: fc.silu(x),
    "hardswish": lambda rank, x: fc.hardswish(x),
    "sigmoid": lambda rank, x: fc.sigmoid(x),
    "dropout": lambda rank, x: fc.dropout(x, 0.3, rng=0),
    **{
        f"pad, {mode}": lambda rank, x, mode=mode: fc.pad(x, (1, 2, 0, 1)[: 2 * rank], mode)
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    "interpolate": lambda rank, x: fc.interpolate(x, scale_factor=1.5),
    "interpolate by axes": lambda rank, x: fc.interpolate(x, 2, mode="area"),
    "concatenation": lambda rank, x: nn.Concat()(x, np.ascontiguousarray(x[:, :4])),
    "sum": lambda rank, x: nn.Add()(x, np.ascontiguousarray(x)),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_keeps_the_order_of_axes_in_memory(name, rank, dtype):
    run, x = OPERATORS[name], images(rank, dtype)
    if name == "interpolate by axes":
        x = images(rank, dtype, channels=2, size=[9 * n for n in SIZES[rank]])
    expected = run(rank, x)
    assert lies_first(expected, rank)
    for given, lies in ((last(x, rank), lies_last), (gapped(x, rank), lies_last), (embedded(x), lies_first)):
        for _ in range(3):  # and so does a call like an earlier one
            y = run(rank, given)
            assert y.dtype == expected.dtype
            assert max_error(y, expected) <= tolerance(dtype, 300)
            assert lies(y, rank)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rank", RANKS)
def test_the_kernels_are_those_of_the_layout_with_channels_last(rank, dtype):
    x, other = last(images(rank, dtype), rank), _args.channels_last(rank)
    for name, arguments in (
        ("conv", (kernels(rank, 12, 10, dtype), None, 1, 1)),
        ("conv_transpose", (kernels(rank, 10, 6, dtype), None, 2)),
        ("max_pool", (3, 2, 1)),
        ("avg_pool", (2,)),
        ("adaptive_avg_pool", (3,)),
    ):
        expected = function(name, rank)(behind(x, rank), *arguments, layout=other)
        assert expected.flags.c_contiguous
        np.testing.assert_array_equal(function(name, rank)(x, *arguments), ahead(expected, rank))


@pytest.mark.parametrize("rank", RANKS)
def test_one_image_without_its_batch(rank):
    x = images(rank, batch=())
    for run in (convolved, lambda rank, x: function("max_pool", rank)(x, 2)):
        y = run(rank, last(x, rank))
        assert lies_last(y, rank)
        assert max_error(y, run(rank, x)) <= tolerance("float32", 300)


@pytest.mark.parametrize(
    ("x", "is_last"),
    [
        (np.zeros((2, 3, 4, 5)), False),
        (np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2), True),
        (np.zeros((4, 5, 3)).transpose(2, 0, 1), True),
        (np.zeros((2, 4, 5, 6)).transpose(0, 3, 1, 2)[:, ::2, 1:, ::-1], True),
        (np.zeros((2, 4, 5, 1)).transpose(0, 3, 1, 2), False),  # of one channel
        (np.zeros((2, 1, 1, 3)).transpose(0, 3, 1, 2), False),  # of one pixel
        (np.zeros((2, 1, 1, 6)).transpose(0, 3, 1, 2)[:, ::2], False),
        (np.zeros((2, 1, 5, 3)).transpose(0, 3, 1, 2), True),
        (np.zeros((2, 5, 1, 3)).transpose(0, 3, 1, 2), True),
        (np.zeros((0, 4, 5, 3)).transpose(0, 3, 1, 2), False),
        (np.zeros((2, 3, 5, 4)).transpose(0, 1, 3, 2), False),
        (np.zeros((2, 5, 4, 3)).transpose(0, 3, 2, 1), False),  # columns outside of rows
        (np.zeros((4, 5, 3, 2)).transpose(3, 2, 0, 1), False),  # images inside
        (np.broadcast_to(np.zeros((2, 1, 4, 5)), (2, 3, 4, 5)), False),
        (np.broadcast_to(np.zeros((2, 3, 1, 1)), (2, 3, 4, 5)), False),
    ],
)
def test_what_counts_as_channels_last(x, is_last):
    rank = 2
    assert _args.order_of(x, rank, "NHWC") is None
    assert (_args.order_of(x, rank, "NCHW") is not None) == is_last
    expected = (*range(x.ndim - 3), x.ndim - 2, x.ndim - 1, x.ndim - 3) if is_last else None
    assert _args.order_of(x, rank, "NCHW") == expected


def test_torch_says_the_same_of_what_has_no_gaps():
    torch = pytest.importorskip("torch")
    for order in ((0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 1, 3), (0, 1, 3, 2), (3, 0, 1, 2), (1, 3, 0, 2)):
        x = np.zeros((2, 3, 4, 5)).transpose(order)
        theirs = torch.from_numpy(x).is_contiguous(memory_format=torch.channels_last)
        assert (_args.order_of(x, 2, "NCHW") is not None) == theirs
        y = torch.nn.functional.conv2d(torch.from_numpy(x), torch.zeros(2, x.shape[1], 1, 1, dtype=torch.float64))
        assert fc.conv2d(x, np.zeros((2, x.shape[1], 1, 1))).strides == tuple(8 * s for s in y.stride())


@pytest.mark.parametrize("rank", RANKS)
def test_empty_batches(rank):
    x = last(images(rank), rank)[:0]
    for run in (convolved, transposed, OPERATORS["max_pool"], normed, OPERATORS["relu"], OPERATORS["pad, constant"]):
        y = run(rank, x)
        assert len(y) == 0
        assert y.shape == run(rank, np.ascontiguousarray(x)).shape


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("given", LAYINGS)
@pytest.mark.parametrize("wanted", LAYINGS)
def test_out_decides_alone(given, wanted, dtype):
    rank, x = 2, images(2, dtype)
    lay, _ = LAYINGS[given]
    for run in (
        convolved,
        lambda rank, x, out=None: function("max_pool", rank)(x, 2, out=out),
        lambda rank, x, out=None: function("avg_pool", rank)(x, 2, out=out),
        lambda rank, x, out=None: fc.conv2d(
            x, kernels(2, 10, 10, dtype), padding=1, residual=fc.relu(x), activation="relu", out=out
        ),
    ):
        expected = run(rank, x)
        for _ in range(3):
            out = LAYINGS[wanted][0](poison(expected.shape, dtype), rank)
            before = out.strides
            assert run(rank, lay(x, rank), out=out) is out
            assert out.strides == before
            assert max_error(out, expected) <= tolerance(dtype, 300)


def test_a_residual_that_is_out():
    x, w = last(images(2), 2), kernels(2, 10, 10, "float32")
    expected = fc.conv2d(x, w, padding=1) + x
    for _ in range(3):
        y = x.copy("K")
        assert fc.conv2d(x, w, padding=1, residual=y, out=y) is y
        assert max_error(y, expected) <= tolerance("float32", 100)


def test_large_results_are_of_kept_memory():
    x = last(images(2, size=(96, 96)), 2)
    for run in (convolved, OPERATORS["max_pool"], OPERATORS["relu"], normed, OPERATORS["concatenation"]):
        for _ in range(2):
            y = run(2, x)
            assert lies_last(y, 2)
            while isinstance(y, np.ndarray):
                y = y.base
            assert isinstance(y, _core.Memory)


# --- gradients ------------------------------------------------------------------------------------


def norm_gradient(rank, x, g):
    return fc.grad.batch_norm(g, x, training=True)[0]


#: Gradients with respect to an input that is at hand, or of which indices tell.
GRADIENTS = {
    "conv": lambda rank, x, g: getattr(fc.grad, f"conv{rank}d")(x, kernels(rank, 10, 10, x.dtype), g, 1, 1)[0],
    "depthwise": lambda rank, x, g: getattr(fc.grad, f"conv{rank}d")(
        x, kernels(rank, 10, 1, x.dtype), g, 1, 1, groups=10
    )[0],
    "conv behind a clamp": lambda rank, x, g: getattr(fc.grad, f"conv{rank}d")(
        x, kernels(rank, 10, 10, x.dtype), g, 1, 1, mask=fc.relu(x)
    )[0],
    "conv_transpose": lambda rank, x, g: getattr(fc.grad, f"conv_transpose{rank}d")(
        x, kernels(rank, 10, 10, x.dtype), g, 1, 1
    )[0],
    "max_pool": lambda rank, x, g: getattr(fc.grad, f"max_pool{rank}d")(
        g, function("max_pool", rank)(x, 3, 1, 1, return_indices=True)[1], x.shape
    ),
    "lp_pool": lambda rank, x, g: getattr(fc.grad, f"lp_pool{rank}d")(g, np.abs(x), 2, 1),
    "batch_norm": norm_gradient,
    "group_norm": lambda rank, x, g: fc.grad.group_norm(g, x, 5, np.arange(10).astype(x.dtype))[0],
    "layer_norm": lambda rank, x, g: fc.grad.layer_norm(g, x, x.shape[1:])[0],
    "local_response_norm": lambda rank, x, g: fc.grad.local_response_norm(g, x, 3),
    "relu": lambda rank, x, g: fc.grad.relu(g, x),
    "silu": lambda rank, x, g: fc.grad.silu(g, x),
    "softmax": lambda rank, x, g: fc.grad.softmax(g, x, 1),
}
#: And those of which nobody tells but the gradient itself.
OF_GRADIENTS = {
    "conv": lambda rank, g: getattr(fc.grad, f"conv{rank}d_input")(g.shape, kernels(rank, 10, 10, g.dtype), g, 1, 1),
    "avg_pool": lambda rank, g: getattr(fc.grad, f"avg_pool{rank}d")(g, g.shape, 3, 1, 1),
    "adaptive_avg_pool": lambda rank, g: getattr(fc.grad, f"adaptive_avg_pool{rank}d")(
        g, (*g.shape[:2], *(2 * n for n in g.shape[2:]))
    ),
    "pad": lambda rank, g: fc.grad.pad(g, (*g.shape[:2], *(n - 2 for n in g.shape[2:])), (1, 1) * rank, "reflect"),
    "interpolate": lambda rank, g: fc.grad.interpolate(
        g, (*g.shape[:2], *(2 * n for n in g.shape[2:])), g.shape[2:], mode="area"
    ),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_lies_as_the_input(name, rank, dtype):
    run, x = GRADIENTS[name], images(rank, dtype)
    g = images(rank, dtype, seed=1)
    expected = run(rank, x, g)
    for lay_x, lies in LAYINGS.values():
        for lay_g in (*(lay for lay, _ in LAYINGS.values()), gapped):
            for _ in range(3):
                d = run(rank, lay_x(x, rank), lay_g(g, rank))
                assert lies(d, rank)
                assert max_error(d, expected) <= 4 * tolerance(dtype, 300)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", OF_GRADIENTS)
def test_a_gradient_of_an_input_unseen_lies_as_what_is_given(name, rank):
    run, g = OF_GRADIENTS[name], images(rank)
    expected = run(rank, g)
    assert lies_first(expected, rank)
    for lay in (last, gapped):
        for _ in range(3):
            d = run(rank, lay(g, rank))
            assert lies_last(d, rank)
            assert max_error(d, expected) <= tolerance("float32", 300)


def test_gradients_of_weights_are_contiguous():
    x, g, w = last(images(2), 2), last(images(2, seed=1), 2), kernels(2, 10, 10, "float32")
    _, d_weight, d_bias = fc.grad.conv2d(x, w, g, 1, 1)
    assert d_weight.flags.c_contiguous
    assert d_bias.flags.c_contiguous


# --- layers ---------------------------------------------------------------------------------------

LAYERS = {
    "Conv2d": lambda: nn.Conv2d(10, 6, 3, padding=1, rng=0),
    "Conv2d, depthwise": lambda: nn.Conv2d(10, 10, 3, padding=1, groups=10, rng=0),
    "Conv2d, reflect": lambda: nn.Conv2d(10, 6, 3, padding=1, padding_mode="reflect", rng=0),
    "Conv2d, circular": lambda: nn.Conv2d(10, 6, 3, stride=2, padding=1, padding_mode="circular", rng=0),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(10, 6, 3, stride=2, rng=0),
    "BatchNorm2d": lambda: nn.BatchNorm2d(10),
    "GroupNorm": lambda: nn.GroupNorm(5, 10),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(10),
    "LayerNorm": lambda: nn.LayerNorm((10, 7, 6)),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "MaxPool2d of all": lambda: nn.MaxPool2d((7, 6)),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "AvgPool2d of all": lambda: nn.AvgPool2d((7, 6)),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(1),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(1),
    "LPPool2d": lambda: nn.LPPool2d(2, 2),
    "Upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "SiLU": nn.SiLU,
    "Hardswish": nn.Hardswish,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softmax": lambda: nn.Softmax(1),
    "Flatten": nn.Flatten,
    "conv and clamp": lambda: nn.Sequential(nn.Conv2d(10, 6, 3, rng=0), nn.ReLU()),
    "norm and clamp": lambda: nn.Sequential(nn.BatchNorm2d(10), nn.ReLU6()),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_the_order_of_axes_in_memory(name, dtype):
    x, make = np.abs(images(2, dtype)), LAYERS[name]

    def gone_through(x, g=None):
        layer = make().to(dtype)
        y = layer(x)
        g = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
        return layer, y, g

    layer, expected, g = gone_through(x)
    expected_d = layer.backward(g)
    learnt = [p.grad for p in layer.parameters()]
    for lay, lies in LAYINGS.values():
        for lay_g in (lay for lay, _ in LAYINGS.values()):
            layer, y, _ = gone_through(lay(x, 2))
            assert y.ndim < 4 or 1 in (y.shape[1], y.shape[2] * y.shape[3]) or lies(y, 2)
            assert max_error(y, expected) <= tolerance(dtype, 300)
            d = layer.backward(lay_g(g, 2) if g.ndim == 4 else g)
            assert lies(d, 2)
            assert max_error(d, expected_d) <= 4 * tolerance(dtype, 300)
            for parameter, gradient in zip(layer.parameters(), learnt, strict=True):
                assert max_error(parameter.grad, gradient) <= 4 * tolerance(dtype, 300)
            layer.eval()
            z = layer(lay(x, 2))
            assert z.ndim < 4 or 1 in (z.shape[1], z.shape[2] * z.shape[3]) or lies(z, 2)


def test_flatten_keeps_the_order_of_elements():
    x = images(2)
    np.testing.assert_array_equal(nn.Flatten()(last(x, 2)), x.reshape(len(x), -1))


def test_max_unpool_and_its_gradient():
    x = last(images(2), 2)
    pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    y, where = pool(x)
    z = unpool(y, where)
    assert lies_last(where, 2)
    assert lies_last(z, 2)
    assert lies_last(unpool.backward(np.ones(z.shape, z.dtype)), 2)


# --- networks -------------------------------------------------------------------------------------

NETWORKS = {
    "resnet18": lambda: models.resnet18(num_classes=5, in_channels=3, dtype=np.float64, rng=0),
    "mobilenet_v1": lambda: models.mobilenet_v1(num_classes=5, in_channels=3, dtype=np.float64, rng=0),
    "squeezenet": lambda: models.squeezenet(num_classes=5, in_channels=3, dtype=np.float64, rng=0),
}


def kept_images(net):
    """All images that the modules of a network have kept for the way back."""
    stack = [value for module in net.modules() for value in module._saved or ()]
    while stack:
        value = stack.pop()
        if isinstance(value, tuple):
            stack.extend(value)
        elif isinstance(value, np.ndarray) and value.ndim == 4:
            yield value


def step(net, x, labels):
    loss = nn.CrossEntropyLoss()
    scores = net(x)
    value = loss(scores.reshape(len(scores), -1), labels)
    kept = list(kept_images(net))
    d = net.backward(loss.backward().reshape(scores.shape))
    return float(value), d, {name: p.grad for name, p in net.named_parameters()}, kept


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("given", LAYINGS)
@pytest.mark.parametrize("told", [False, True])
def test_a_step_of_training_is_the_same_in_either_format(name, given, told):
    make, labels = NETWORKS[name], np.arange(4)
    x = images(2, np.float64, batch=(4,), channels=3, size=(32, 32))
    value, d, gradients, kept = step(make(), x, labels)
    assert all(image.flags.c_contiguous for image in kept)
    net = make().to(memory_format="channels_last") if told else make()
    lay, lies = LAYINGS[given]
    found, found_d, found_gradients, kept = step(net, lay(x, 2), labels)
    assert found == pytest.approx(value, rel=1e-12)
    assert max_error(found_d, d) <= 1e-9
    assert lies(found_d, 2)
    for key, gradient in gradients.items():
        assert np.abs(found_gradients[key] - gradient).max() <= 1e-9 * max(np.abs(g).max() for g in gradients.values())
        assert found_gradients[key].flags.c_contiguous
    inside = [image for image in kept if image.shape[1] > 3 and image.shape[2] * image.shape[3] > 1]
    assert len(inside) > 2
    assert all((lies_last if told else lies)(image, 2) for image in inside)


def test_images_of_one_channel_become_channels_last_behind_the_first_layer():
    x = images(2, channels=1)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, rng=0), nn.ReLU(), nn.Conv2d(6, 4, 3, rng=0)).to(
        memory_format="channels_last"
    )
    for mode in (True, False):
        assert lies_last(net.train(mode)(x), 2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 6, 3, rng=0), nn.ConvTranspose2d(3, 6, 3, rng=0), nn.Conv1d(3, 6, 3, rng=0)]
)
def test_to_a_format_and_back(layer, training):
    layer, rank = copy.deepcopy(layer).train(training), layer.rank
    x = images(rank, channels=3)
    state = {name: value.copy() for name, value in layer.state_dict().items()}
    expected = layer(x)
    assert layer.to(memory_format="channels_last") is layer
    assert "channels_last" in repr(layer)
    for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        y = other(x)
        assert lies_last(y, rank)
        assert max_error(y, expected) <= tolerance("float32", 30)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
        assert value.flags.c_contiguous
    layer.to(np.float64, memory_format="contiguous_format")
    assert layer.weight.dtype == np.float64
    assert lies_first(layer(x.astype(np.float64)), rank)
    with pytest.raises(ValueError, match="memory_format is 'NHWC'; it needs 'channels_last' or 'contiguous_format'"):
        layer.to(memory_format="NHWC")


def test_a_layout_with_channels_last_has_nothing_to_choose():
    x = np.ascontiguousarray(behind(images(2, channels=3), 2))
    layer = nn.Conv2d(3, 6, 3, layout="NHWC", rng=0)
    for mode in (True, False):
        expected = layer.to(memory_format="contiguous_format").train(mode)(x)
        y = layer.to(memory_format="channels_last")(x)
        assert y.flags.c_contiguous
        np.testing.assert_array_equal(y, expected)


def test_a_compiled_network_is_the_same():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, rng=0), nn.ReLU()).eval()
    x = images(2, channels=3)
    expected = fc.compile(net, x.shape)(x)
    np.testing.assert_array_equal(fc.compile(net.to(memory_format="channels_last"), x.shape)(x), expected)


def test_wrong_arguments_are_told_as_they_were_given():
    layer = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AvgPool2d(2)).to(memory_format="channels_last")
    layer(last(images(2, channels=3), 2))
    with pytest.raises(ValueError, match=r"grad_output has shape \(3, 6, 3, 4\)"):
        layer[1].backward(np.ones((3, 6, 3, 4), np.float32))
    with pytest.raises(ValueError, match=r"grad_output has shape \(3, 6, 4, 4\)"):
        layer[0].backward(np.ones((3, 6, 4, 4), np.float32))
    for shape in ((), (3,), (3, 3), (1, 1, 3, 7, 6)):
        for mode in (True, False):
            with pytest.raises(ValueError, match="shape"):
                layer.train(mode)(np.ones(shape, np.float32))


def test_torch_gets_strides_as_it_expects_them():
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("fastconv.torch") and torch.ops.fastconv
    for rank in RANKS:
        for lay in (last, gapped):
            x, w = torch.from_numpy(lay(images(rank), rank)), torch.from_numpy(kernels(rank, 4, 10, "float32"))
            torch.library.opcheck(
                ops.conv.default, (x, w, None, *([n] * rank for n in (1, 0, 1)), False, [0] * rank, 1)
            )
            torch.library.opcheck(ops.max_pool.default, (x, *([n] * rank for n in (2, 2, 0, 1)), False))
            torch.library.opcheck(
                ops.max_pool_backward.default, (*ops.max_pool(x, *([n] * rank for n in (2, 2, 0, 1)), False), x)
            )
