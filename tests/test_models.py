# SPDX-License-Identifier: BSD-3-Clause
"""Networks: names and sizes as published, shapes through the layers, and that they learn."""

import numpy as np
import pytest

from fastconv import models, nn, optim

# Parameters with the published 1000 classes (LeNet-5: 10).
PARAMETERS = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "zfnet": 62_357_608,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
}
# Positions of the layers with parameters.
CONVOLUTIONS = {
    "lenet5": (0, 3),
    "alexnet": (0, 3, 6, 8, 10),
    "zfnet": (0, 4, 8, 10, 12),
    "vgg11": (0, 3, 6, 8, 11, 13, 16, 18),
    "vgg13": (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
LINEARS = {"lenet5": (0, 2, 4), "alexnet": (1, 4, 6), "zfnet": (1, 4, 6)} | {
    f"vgg{depth}": (0, 3, 6) for depth in (11, 13, 16, 19)
}


@pytest.fixture
def unset(monkeypatch):
    """For tests that do not look at the weights: drawing those of a VGG takes seconds."""
    monkeypatch.setattr(nn.init, "_fill", lambda tensor, *_: tensor)


names_and_sizes_only = pytest.mark.usefixtures("unset")


@names_and_sizes_only
@pytest.mark.parametrize("name", PARAMETERS)
def test_keys_and_sizes(name):
    net = getattr(models, name)()
    keys = [
        f"{part}.{i}.{kind}"
        for part, positions in (("features", CONVOLUTIONS[name]), ("classifier", LINEARS[name]))
        for i in positions
        for kind in ("weight", "bias")
    ]
    assert list(net.state_dict()) == keys
    assert sum(p.size for p in net.parameters()) == PARAMETERS[name]
    assert repr(net).startswith({"l": "LeNet5", "a": "AlexNet", "z": "ZFNet", "v": "VGG"}[name[0]])


@names_and_sizes_only
def test_shapes_are_torchvisions():
    shapes = {key: value.shape for key, value in models.vgg16(num_classes=7).state_dict().items()}
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 25088)
    assert shapes["classifier.6.weight"] == (7, 4096)
    shapes = {key: value.shape for key, value in models.alexnet().state_dict().items()}
    assert [shapes[f"features.{i}.weight"] for i in CONVOLUTIONS["alexnet"]] == [
        (64, 3, 11, 11),
        (192, 64, 5, 5),
        (384, 192, 3, 3),
        (256, 384, 3, 3),
        (256, 256, 3, 3),
    ]
    assert shapes["classifier.1.weight"] == (4096, 9216)


@names_and_sizes_only
def test_vgg_with_batch_norm():
    net = models.vgg16(batch_norm=True)
    assert sum(p.size for p in net.parameters()) == 138_365_992
    state = net.state_dict()
    assert state["features.1.running_mean"].shape == (64,)
    assert state["features.40.weight"].shape == (512, 512, 3, 3)


@names_and_sizes_only
@pytest.mark.parametrize("name", ["alexnet", "zfnet", "vgg11"])
def test_number_of_classes_and_channels(name):
    net = getattr(models, name)(num_classes=3, in_channels=2)
    assert net.features[0].in_channels == 2
    assert net.classifier[6].out_features == 3


def sizes_through(chain, shape):
    """Height after every pooling layer of a chain."""
    x, heights = np.zeros(shape, np.float32), []
    for layer in chain:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            heights.append(x.shape[2])
    return heights


def test_feature_maps_have_the_published_sizes():
    assert sizes_through(models.alexnet().eval().features, (1, 3, 224, 224)) == [27, 13, 6]
    assert sizes_through(models.zfnet().eval().features, (1, 3, 224, 224)) == [55, 13, 6]
    assert sizes_through(models.vgg11().eval().features, (1, 3, 64, 64)) == [32, 16, 8, 4, 2]


@names_and_sizes_only
@pytest.mark.parametrize(("name", "side"), [("alexnet", 63), ("zfnet", 95), ("vgg11", 32)])
def test_forward_and_backward(monkeypatch, name, side):
    net = getattr(models, name)(num_classes=5)
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters(rng)
        elif isinstance(layer, nn.Linear):  # one in a thousand rows is enough to pass something on
            for p in layer.parameters():
                nn.init.zeros_(p)
                nn.init.uniform_(p.data[::1000], rng=rng)
    net.needs_input_grad = False
    x = rng.standard_normal((2, 3, side, side)).astype(np.float32)
    y = net(x)
    assert y.shape == (2, 5)
    assert np.isfinite(y).all()
    net.backward(np.ones_like(y))
    assert all(np.isfinite(p.grad).all() for p in net.parameters())
    assert all(p.grad.any() for p in net.features.parameters())


# --- LeNet-5 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [4, 7, 8, 16, 27, 28, 29, 32, 40])
def test_lenet_of_any_size(image_size):
    net = models.lenet5(3, 2, image_size=image_size).eval()
    assert net(np.zeros((2, 2, image_size, image_size), np.float32)).shape == (2, 3)
    kernel = 5 if image_size >= 28 else 3
    assert net.features[0].kernel_size == (kernel, kernel)


def test_lenet_arguments():
    net = models.lenet5(image_size=8, channels=(4, 9), activation=nn.ReLU, pool=nn.MaxPool2d, dtype=np.float64)
    kinds = [type(layer) for part in (net.features, net.classifier) for layer in part]
    assert nn.Tanh not in kinds
    assert kinds.count(nn.ReLU) == 4
    assert kinds.count(nn.MaxPool2d) == 2
    assert net.state_dict()["features.3.weight"].shape == (9, 4, 3, 3)
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    with pytest.raises(ValueError, match="image_size is 3"):
        models.lenet5(image_size=3)


def test_a_seed_makes_the_same_lenet():
    a, b, c = (models.lenet5(rng=seed).state_dict() for seed in (1, 1, 2))
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert not np.array_equal(a[key], c[key])


@pytest.mark.parametrize("form", [{}, {"activation": nn.ReLU, "pool": nn.MaxPool2d}])
def test_lenet_learns_to_tell_bars_from_dots(form):
    """Four kinds of 8×8 pictures at random places, with noise: a few epochs must suffice."""
    rng = np.random.default_rng(5)
    images = 0.2 * rng.standard_normal((400, 1, 8, 8)).astype(np.float32)
    target = rng.integers(0, 4, 400)
    for image, kind in zip(images[:, 0], target, strict=True):
        i, j = rng.integers(1, 7, 2)
        if kind == 0:
            image[i] += 1
        elif kind == 1:
            image[:, j] += 1
        elif kind == 2:
            image[i - 1 : i + 2, j - 1 : j + 2] += 1
    net = models.lenet5(num_classes=4, image_size=8, rng=rng, **form)
    net.needs_input_grad = False
    loss, adam = nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(15):
        for start in range(0, 300, 30):
            net.zero_grad()
            loss(net(images[start : start + 30]), target[start : start + 30])
            net.backward(loss.backward())
            adam.step()
    right = net.eval()(images[300:]).argmax(axis=1) == target[300:]
    assert right.mean() > 0.8  # guessing gives 0.25
