# SPDX-License-Identifier: BSD-3-Clause
"""Layers: values, gradients, state and looks against torch; gradients by differences."""

import numpy as np
import pytest

from fastconv import nn, optim
from support import from_layout, max_error, numerical_gradient, to_layout, tolerance

# torch says so of even kernels, by which it may be slower.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

IMAGE, SIGNAL, VOLUME = (2, 4, 9, 8), (2, 4, 11), (2, 4, 4, 6, 5)

# class, positional arguments, keyword arguments, input shape
LAYERS = [
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, (2, 3), (2, 1), (1, 2), (1, 2), 2, False), {}, IMAGE),
    ("Conv2d", (4, 8, 3), {"groups": 4, "padding": 1}, IMAGE),
    ("Conv2d", (4, 3, (3, 4)), {"padding": "same"}, IMAGE),
    ("Conv2d", (4, 3, 3), {"padding": "valid", "stride": 3}, IMAGE),
    ("Conv2d", (4, 3, 3), {"padding": 2, "padding_mode": "reflect", "stride": 2}, IMAGE),
    ("Conv2d", (4, 3, 4), {"padding": "same", "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (4, 3, 3), {"padding": (1, 2), "padding_mode": "replicate"}, (4, 9, 8)),
    ("Conv2d", (4, 3, 3), {}, (4, 9, 8)),
    ("Conv1d", (4, 6, 3), {}, SIGNAL),
    ("Conv1d", (4, 6, 5, 2, 3, 1, 2), {"padding_mode": "circular"}, SIGNAL),
    ("Conv1d", (4, 2, 3), {"padding": "same", "dilation": 2, "bias": False}, (4, 11)),
    ("Conv3d", (4, 6, 2), {"padding": 1}, VOLUME),
    ("Conv3d", (4, 4, (1, 2, 3), (1, 2, 1), (0, 1, 1), (1, 1, 2), 4), {}, VOLUME),
    ("Conv3d", (4, 3, 3), {"padding": 1, "padding_mode": "replicate"}, (4, 4, 6, 5)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, SIGNAL),
    ("ConvTranspose1d", (4, 3, 4, 3, 2), {"dilation": 2, "bias": False}, (4, 11)),
    ("ConvTranspose2d", (4, 6, 4, 2, 1), {}, IMAGE),
    ("ConvTranspose2d", (4, 4, 3, (2, 3), 1, (1, 2), 4), {}, IMAGE),
    ("ConvTranspose2d", (4, 6, (2, 3)), {"groups": 2, "dilation": (1, 2), "bias": False}, (4, 9, 8)),
    ("ConvTranspose3d", (4, 2, 2, 2), {}, VOLUME),
    ("ConvTranspose3d", (4, 2, (1, 3, 2), (1, 2, 3), (0, 1, 1), (0, 1, 0), 2), {}, VOLUME),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}, IMAGE),
    ("MaxPool2d", ((2, 3), (1, 2), (1, 0), (2, 1)), {}, IMAGE),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (3, 2, 1), {"count_include_pad": False, "ceil_mode": True}, IMAGE),
    ("AvgPool2d", ((2, 3),), {"divisor_override": 5}, IMAGE),
    ("AdaptiveAvgPool2d", ((3, 5),), {}, IMAGE),
    ("AdaptiveAvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (2, []), {}, IMAGE),
    ("AdaptiveMaxPool2d", ((4, 3),), {}, IMAGE),
    ("MaxPool1d", (3, 2, 1), {"ceil_mode": True}, SIGNAL),
    ("MaxPool1d", (2,), {"dilation": 3}, (4, 11)),
    ("MaxPool3d", (2,), {}, VOLUME),
    ("MaxPool3d", ((1, 2, 3), (2, 1, 2), (0, 1, 1)), {}, VOLUME),
    ("AvgPool1d", (3, 2, 1), {"count_include_pad": False}, SIGNAL),
    ("AvgPool3d", (2,), {"ceil_mode": True, "divisor_override": 3}, VOLUME),
    ("AdaptiveAvgPool1d", (4,), {}, SIGNAL),
    ("AdaptiveAvgPool3d", ((2, 3, 4),), {}, VOLUME),
    ("AdaptiveMaxPool1d", (4,), {}, SIGNAL),
    ("AdaptiveMaxPool3d", ((2, 3, 4),), {}, VOLUME),
    ("LPPool1d", (2, 3), {"stride": 2}, SIGNAL),
    ("LPPool2d", (2, (2, 3)), {"ceil_mode": True}, IMAGE),
    ("LPPool3d", (4, 2), {}, VOLUME),
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3, False), {}, (2, 3, 5)),
    ("BatchNorm1d", (4,), {}, (6, 4)),
    ("BatchNorm1d", (4, 1e-3, 0.5), {}, (6, 4, 5)),
    ("BatchNorm2d", (4,), {}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False, "momentum": None}, IMAGE),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, IMAGE),
    *((f"BatchNorm{rank}d", (4,), {"bias": False}, (2, 4, 3, 5, 4)[: rank + 2]) for rank in (1, 2, 3)),
    ("BatchNorm3d", (4,), {}, VOLUME),
    ("LocalResponseNorm", (3,), {"alpha": 0.5}, IMAGE),
    ("LayerNorm", (5,), {}, (2, 3, 5)),
    ("LayerNorm", ((4, 5, 3), 1e-3), {"bias": False}, (2, 4, 5, 3)),
    ("LayerNorm", ([5, 3],), {"elementwise_affine": False}, (2, 4, 5, 3)),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("GroupNorm", (4, 4, 1e-3), {"affine": False}, SIGNAL),
    ("GroupNorm", (1, 4), {}, VOLUME),
    ("InstanceNorm1d", (4,), {}, SIGNAL),
    ("InstanceNorm1d", (4, 1e-3, 0.3), {"affine": True}, (4, 11)),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, IMAGE),
    ("InstanceNorm3d", (4,), {}, VOLUME),
    ("Upsample", (), {"scale_factor": 2}, IMAGE),
    ("Upsample", (17,), {"mode": "linear"}, SIGNAL),
    ("Upsample", ((5, 16),), {"mode": "bilinear", "align_corners": True}, IMAGE),
    ("Upsample", (None, 1.5), {"mode": "trilinear"}, VOLUME),
    ("ReLU", (), {}, IMAGE),
    ("ReLU6", (), {}, IMAGE),
    ("SiLU", (), {}, IMAGE),
    ("Hardswish", (), {}, IMAGE),
    ("LeakyReLU", (), {}, IMAGE),
    ("LeakyReLU", (0.3,), {}, IMAGE),
    ("Sigmoid", (), {}, IMAGE),
    ("Tanh", (), {}, IMAGE),
    ("Softmax", (1,), {}, IMAGE),
    ("Dropout", (0.0,), {}, IMAGE),
    ("Flatten", (), {}, IMAGE),
    ("Flatten", (0, 2), {}, IMAGE),
    ("Identity", (), {}, IMAGE),
]
BEYOND_TORCH = [
    ("Conv2d", (4, 3, 3), {"padding": ((1, 0), (2, 1)), "stride": 2}, IMAGE),
    ("Conv2d", (4, 3, 4), {"padding": "same", "stride": 2}, IMAGE),
    ("Conv2d", (4, 3, 4), {"padding": "same_lower", "padding_mode": "reflect"}, IMAGE),
    ("ConvTranspose2d", (4, 3, 3), {"padding": ((1, 0), (2, 1)), "stride": 2}, IMAGE),
]
ALL = LAYERS + BEYOND_TORCH
OF_ANY_RANK = ("LocalResponseNorm", "GroupNorm", "Upsample")
WITH_LAYOUT = [case for case in ALL if "2d" in case[0] or (case[0] in OF_ANY_RANK and case[3] == IMAGE)]
REARRANGING = ("Flatten", "Identity")


def layers(cases):
    """A test for each of these cases."""
    ids = [f"{i}-{case[0]}" for i, case in enumerate(cases)]
    return pytest.mark.parametrize(("name", "args", "kwargs", "shape"), cases, ids=ids)


LEAST = 1e-7  # relative error of central differences with a step of 1e-5 in float64


def build(name, args, kwargs, **more):
    """One of our layers in float64."""
    learns = name.startswith("Conv") or name == "Linear"
    scales = "Norm" in name and name != "LocalResponseNorm"
    more |= {"dtype": np.float64} if learns or scales else {}
    more |= {"rng": 3} if learns else {}
    return getattr(nn, name)(*args, **kwargs, **more)


def example(shape, seed=4):
    """Values spread so that no two are close: maxima and kinks stay where they are."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    return (rng.permutation(size).reshape(shape) - size / 2 + 0.25) * (8 / size)


@pytest.fixture
def rng():
    return np.random.default_rng(30)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


# --- against torch --------------------------------------------------------------------------------


@layers(LAYERS)
def test_layer_is_torchs(torch, rng, name, args, kwargs, shape):
    ours = build(name, args, kwargs)
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    if not name.startswith("Batch"):  # torch's versions differ there
        assert repr(ours) == repr(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())

    x = example(shape)
    t = torch.from_numpy(x.copy()).requires_grad_()
    bound = tolerance(np.float64, x.size)
    for _ in range(2):  # twice: running statistics move, gradients accumulate
        y, expected = ours(x), theirs(t)
        assert max_error(y, expected.detach().numpy()) < bound
        g = rng.standard_normal(y.shape)
        expected.backward(torch.from_numpy(g))
        assert max_error(ours.backward(g), t.grad.numpy()) < bound
        t.grad = None
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert max_error(p.grad, q.grad.numpy()) < bound, key
    for key, value in theirs.state_dict().items():
        assert max_error(ours.state_dict()[key], value.numpy()) < bound, key
    assert max_error(ours.eval()(x), theirs.eval()(t).detach().numpy()) < bound


def test_dropout_masks_forward_and_backward_alike(rng):
    layer = nn.Dropout(0.4, rng=1)
    x = np.ones((50, 50))
    y = layer(x)
    np.testing.assert_array_equal(layer.backward(x), y)
    assert 0.3 < np.mean(y == 0) < 0.5
    assert not np.array_equal(y, layer(x))
    assert layer.eval()(x) is x
    assert repr(layer) == "Dropout(p=0.4, inplace=False)"
    with pytest.raises(ValueError, match="p is 2"):
        nn.Dropout(2)


def test_one_training_step_is_torchs(torch, rng):
    T = torch.nn

    def chain(nn):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 10),
        )

    ours, theirs = chain(nn), chain(T)
    ours.load_state_dict(theirs.state_dict())
    ours.needs_input_grad = False
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    sgd = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        x = rng.standard_normal((8, 1, 12, 12)).astype(np.float32)
        target = rng.integers(0, 10, 8)
        sgd.zero_grad()
        value = loss(ours(x), target)
        assert ours.backward(loss.backward()) is None
        sgd.step()
        reference.zero_grad()
        expected = T.CrossEntropyLoss(label_smoothing=0.1)(theirs(torch.from_numpy(x)), torch.from_numpy(target))
        expected.backward()
        reference.step()
        assert abs(value - expected.item()) < tolerance(np.float32, 100) * expected.item()
    for key, value in theirs.state_dict().items():
        # The longest sum behind a weight is the first convolution's gradient: 8 images of 12×12.
        assert max_error(ours.state_dict()[key], value) < tolerance(np.float32, 8 * 144), key


# --- by themselves --------------------------------------------------------------------------------


@layers(ALL)
def test_gradients_by_differences(rng, name, args, kwargs, shape):
    layer = build(name, args, kwargs)
    shape = tuple(min(n, 5) if i > 1 else n for i, n in enumerate(shape))
    x = example(shape)
    g = rng.standard_normal(layer(x).shape)
    d_input = layer.backward(g)
    assert max_error(d_input, numerical_gradient(lambda v: layer(v).copy(), x, g)) < LEAST
    for p in layer.parameters():
        p_data = p.data
        numerical = numerical_gradient(lambda _: layer(x), p_data, g)
        assert max_error(p.grad, numerical) < LEAST


@layers([case for case in ALL if case[0] not in REARRANGING])
def test_without_the_gradient_of_the_input(rng, name, args, kwargs, shape):
    """The others stay as they are, bit for bit but where both come from one pass over interleaved planes."""
    layer = build(name, args, kwargs)
    interleaves = getattr(layer, "groups", 1) == shape[1]
    x = example(shape)
    g = rng.standard_normal(layer(x).shape)
    layer.backward(g)
    expected = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    layer.needs_input_grad = False
    layer(x)
    assert layer.backward(g) is None
    for p, grad in zip(layer.parameters(), expected, strict=True):
        if interleaves:
            assert max_error(p.grad, grad) <= tolerance(np.float64, x.size)
        else:
            np.testing.assert_array_equal(p.grad, grad)


@layers(WITH_LAYOUT)
def test_channels_last(rng, name, args, kwargs, shape):
    first, last = build(name, args, kwargs), build(name, args, kwargs, layout="NHWC")
    x = example(shape)
    y = first(x)
    bound = tolerance(np.float64, x.size)
    assert max_error(from_layout(last(to_layout(x, "NHWC")), "NHWC"), y) < bound
    g = rng.standard_normal(y.shape)
    d = last.backward(to_layout(g, "NHWC"))
    assert max_error(from_layout(d, "NHWC"), first.backward(g)) < bound
    for p, q in zip(last.parameters(), first.parameters(), strict=True):
        assert max_error(p.grad, q.grad) < bound
    with pytest.raises(ValueError, match="layout is 'CHW'"):
        build(name, args, kwargs, layout="CHW")


@layers(ALL)
def test_float32_stays_float32(name, args, kwargs, shape):
    layer = getattr(nn, name)(*args, **kwargs)
    x = example(shape).astype(np.float32)
    y = layer(x)
    assert y.dtype == np.float32
    assert layer.backward(y).dtype == np.float32
    assert all(p.grad.dtype == np.float32 for p in layer.parameters())
    assert layer.eval()(x).dtype == np.float32


@layers([case for case in ALL if case[3] == IMAGE and "track_running_stats" not in case[2]])
def test_an_empty_batch(name, args, kwargs, shape):
    layer = build(name, args, kwargs)
    y = layer.eval()(np.zeros((0, *shape[1:])))
    assert y.size == 0
    assert y.shape[0] == 0 or name == "Flatten"


@pytest.mark.parametrize("name", ["MaxPool2d", "AdaptiveMaxPool2d"])
def test_indices_of_maxima(rng, name):
    layer = getattr(nn, name)(2, return_indices=True)
    x = example(IMAGE)
    y, indices = layer(x)
    flat = x.reshape(*IMAGE[:2], -1)
    taken = np.take_along_axis(flat, indices.reshape(*IMAGE[:2], -1), -1)
    np.testing.assert_array_equal(taken.reshape(y.shape), y)
    assert layer.backward(y).shape == IMAGE
    np.testing.assert_array_equal(layer.eval()(x)[1], indices)


def test_rectifiers_overwrite_in_eval_mode_only():
    for cls in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.LeakyReLU):
        layer, x = cls(inplace=True), np.full(3, -1.0)
        assert layer(x) is not x
        assert x[0] == -1
        assert layer.eval()(x) is x
        slope = "negative_slope=0.01, " if cls is nn.LeakyReLU else ""
        assert repr(layer) == f"{cls.__name__}({slope}inplace=True)"


def test_batch_norm_ranks():
    with pytest.raises(ValueError, match=r"input has shape \(2, 3\); it needs 4 axes"):
        nn.BatchNorm2d(3)(np.ones((2, 3)))
    with pytest.raises(ValueError, match="it needs 5 axes"):
        nn.BatchNorm3d(3)(np.ones((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="it needs 2 or 3 axes"):
        nn.BatchNorm1d(3)(np.ones((2, 3, 1, 1)))


def test_a_batch_that_batch_norm_refuses_is_not_counted():
    for momentum in (0.1, None):
        norm = nn.BatchNorm1d(3, momentum=momentum)
        with pytest.raises(ValueError, match="each channel needs at least two values"):
            norm(np.ones((1, 3), np.float32))
        assert int(norm.num_batches_tracked.value) == 0
        with pytest.raises(RuntimeError, match="nothing saved"):
            norm.backward(np.ones((1, 3), np.float32))
        norm(np.array([[0, 1, 2], [2, 3, 6]], np.float32))
        assert int(norm.num_batches_tracked.value) == 1
        expected = np.array([1, 2, 4]) * (0.1 if momentum else 1.0)
        np.testing.assert_allclose(norm.running_mean.value, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(0, 1, 3), ValueError, "in_channels is 0; it needs to be at least 1"),
        (lambda: nn.Conv2d(1, 2.0, 3), TypeError, "out_channels is 2.0; it needs an integer"),
        (lambda: nn.Conv2d(1, 1, (3, 3, 3)), ValueError, r"kernel_size is \(3, 3, 3\)"),
        (lambda: nn.Conv2d(1, 1, 3, stride=0), ValueError, "stride is 0"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), ValueError, "padding is -1; .* at least 0"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), ValueError, "padding is 'full'"),
        (
            lambda: nn.Conv2d(1, 1, 3, padding=((1, 1),)),
            ValueError,
            "it needs 2 pairs",
        ),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups is 2; .* in_channels, 3"),
        (lambda: nn.Conv2d(2, 3, 3, groups=2), ValueError, "groups is 2; .* out_channels, 3"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="x"), ValueError, "padding_mode is 'x'"),
        (lambda: nn.Conv2d(1, 1, 3, dtype=np.int8), TypeError, "data has dtype int8"),
        (lambda: nn.MaxPool2d(0), ValueError, "kernel_size is 0"),
        (lambda: nn.AdaptiveAvgPool2d((1, -1)), ValueError, "output_size is -1"),
        (lambda: nn.Linear(True, 1), TypeError, "in_features is True"),
        (lambda: nn.LocalResponseNorm(0), ValueError, "size is 0"),
        (lambda: nn.Flatten(2, 1)(np.ones((1, 1, 1))), ValueError, "start_dim is 2 and end_dim 1"),
    ],
)
def test_errors_of_constructors(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- losses ---------------------------------------------------------------------------------------


def test_losses_as_modules(torch, rng):
    x, weight = rng.standard_normal((6, 4)), rng.uniform(1, 2, 4)
    target = rng.integers(0, 4, 6)
    loss = nn.CrossEntropyLoss(weight, ignore_index=1, reduction="sum", label_smoothing=0.1)
    theirs = torch.nn.CrossEntropyLoss(torch.from_numpy(weight), ignore_index=1, reduction="sum", label_smoothing=0.1)
    assert list(loss.state_dict()) == list(theirs.state_dict()) == ["weight"]
    t = torch.from_numpy(x.copy()).requires_grad_()
    expected = theirs(t, torch.from_numpy(target))
    (2 * expected).backward()
    assert loss(x, target) == pytest.approx(expected.item(), rel=1e-13)
    assert max_error(loss.backward(2.0), t.grad.numpy()) < tolerance(np.float64, 24)
    mse = nn.MSELoss()
    assert mse(x, x + 2) == pytest.approx(4.0, rel=1e-13)
    assert max_error(mse.backward(), np.full((6, 4), -4 / 24)) < tolerance(np.float64, 24)
    assert repr(mse) == "MSELoss(reduction='mean')"
    assert list(nn.CrossEntropyLoss().state_dict()) == []


@pytest.mark.parametrize(
    "name", ["Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d", "BatchNorm2d", "ReLU", "Flatten"]
)
def test_input_by_its_name(name, rng):
    layer = getattr(nn, name)(
        *{"Conv2d": (4, 3, 2), "ConvTranspose2d": (4, 3, 2), "BatchNorm2d": (4,)}.get(name, ()),
        **{"kernel_size": 2} if "Pool" in name else {},
    ).eval()
    x = rng.standard_normal(IMAGE).astype(np.float32)
    np.testing.assert_array_equal(layer(input=x), layer(x))
    np.testing.assert_array_equal(nn.Sequential(layer)(input=x), layer(x))
