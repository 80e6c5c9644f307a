# SPDX-License-Identifier: BSD-3-Clause
"""Networks: names and sizes as published, shapes through the layers, and what they refuse."""

import inspect
import re

import numpy as np
import pytest

from fastconv import models, nn, optim

# Parameters with the published 1000 classes (LeNet-5: 10); of torchvision's models as it documents them.
PARAMETERS = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "zfnet": 62_357_608,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 13_004_888,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "squeezenet": 1_248_424,
    "densenet121": 7_978_856,
}
VARIANTS = [
    ("vgg11", {"batch_norm": True}, 132_868_840),
    ("vgg16", {"batch_norm": True}, 138_365_992),
    ("googlenet", {"aux_logits": False}, 6_624_904),
    ("squeezenet", {"version": "1_1"}, 1_235_496),
    ("mobilenet_v1", {"width_mult": 0.25}, 470_072),
    ("mobilenet_v1", {"width_mult": 0.75}, 2_585_560),
    ("mobilenet_v2", {"width_mult": 0.5}, 1_968_680),
    ("mobilenet_v2", {"width_mult": 1.4}, 6_108_776),
]
# Multiplications, in millions, that convolutions and linear layers do for an image: the papers' (MobileNet v1: 569,
# ResNet-50: 3800 with its stride one layer earlier) or torchvision's figures.
MULTIPLICATIONS = {
    "lenet5": 0.417,
    "alexnet": 714,
    "zfnet": 1_168,
    "vgg11": 7_609,
    "vgg13": 11_308,
    "vgg16": 15_470,
    "vgg19": 19_632,
    "googlenet": 1_498,
    "resnet18": 1_814,
    "resnet34": 3_664,
    "resnet50": 4_089,
    "mobilenet_v1": 569,
    "mobilenet_v2": 301,
    "squeezenet": 819,
    "densenet121": 2_834,
}
# Channels@height of what comes out of layers, from the tables and figures of the papers.
MAPS = {
    "lenet5": "0:6@28 2:6@14 3:16@10 5:16@5",  # C1, S2, C3, S4
    "alexnet": "0:64@55 2:64@27 3:192@27 5:192@13 7:384@13 9:256@13 12:256@6",
    "zfnet": "0:96@110 2:96@55 4:256@26 6:256@13 9:384@13 11:384@13 14:256@6",
    "vgg11": "0:64@224 2:64@112 5:128@56 10:256@28 15:512@14 20:512@7",
    "vgg13": "0:64@224 4:64@112 9:128@56 14:256@28 19:512@14 24:512@7",
    "vgg16": "0:64@224 4:64@112 9:128@56 16:256@28 23:512@14 30:512@7",
    "vgg19": "0:64@224 4:64@112 9:128@56 18:256@28 27:512@14 36:512@7",
    "googlenet": "conv1:64@112 maxpool1:64@56 conv3:192@56 maxpool2:192@28 inception3a:256@28 inception3b:480@28 "
    "maxpool3:480@14 inception4a:512@14 inception4b:512@14 inception4c:512@14 inception4d:528@14 inception4e:832@14 "
    "maxpool4:832@7 inception5a:832@7 inception5b:1024@7 avgpool:1024@1",
    "resnet18": "conv1:64@112 maxpool:64@56 layer1:64@56 layer2:128@28 layer3:256@14 layer4:512@7",
    "resnet34": "conv1:64@112 maxpool:64@56 layer1:64@56 layer2:128@28 layer3:256@14 layer4:512@7",
    "resnet50": "conv1:64@112 maxpool:64@56 layer1:256@56 layer2:512@28 layer3:1024@14 layer4:2048@7",
    "mobilenet_v1": "0:32@112 1:64@112 2:128@56 3:128@56 4:256@28 5:256@28 6:512@14 11:512@14 12:1024@7 13:1024@7",
    "mobilenet_v2": "0:32@112 1:16@112 3:24@56 6:32@28 10:64@14 13:96@14 16:160@7 17:320@7 18:1280@7",
    # The paper's first maps have a side of 111, which 224 does not give without padding; so its second of 55.
    "squeezenet": "0:96@109 2:96@54 3:128@54 5:256@54 6:256@27 8:384@27 10:512@27 11:512@13 12:512@13",
    "densenet121": "conv0:64@112 pool0:64@56 denseblock1:256@56 transition1:128@28 denseblock2:512@28 "
    "transition2:256@14 denseblock3:1024@14 transition3:512@7 denseblock4:1024@7",
}
VGGS_BUT_16 = ("vgg11", "vgg13", "vgg19")  # which are much the same and take long
# Where the layers with parameters are, in the models that are plain chains.
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


@pytest.fixture
def zeros(monkeypatch):
    """For tests that look at shapes alone."""
    monkeypatch.setattr(nn.init, "_fill", lambda tensor, *_: nn.init.zeros_(tensor))


names_and_sizes_only = pytest.mark.usefixtures("unset")


# --- as published -----------------------------------------------------------------------------------------------------


def test_every_model_has_its_figures():
    assert list(models.names()) == list(PARAMETERS) == list(MULTIPLICATIONS) == list(MAPS)


@names_and_sizes_only
@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name):
    assert sum(p.size for p in models.get(name)().parameters()) == PARAMETERS[name]


@names_and_sizes_only
@pytest.mark.parametrize(("name", "arguments", "parameters"), VARIANTS)
def test_number_of_parameters_of_variants(name, arguments, parameters):
    assert sum(p.size for p in models.get(name)(**arguments).parameters()) == parameters


@names_and_sizes_only
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_keys_of_plain_chains(name):
    net = models.get(name)()
    keys = [
        f"{part}.{i}.{kind}"
        for part, positions in (("features", CONVOLUTIONS[name]), ("classifier", LINEARS[name]))
        for i in positions
        for kind in ("weight", "bias")
    ]
    assert list(net.state_dict()) == keys
    assert repr(net).startswith({"l": "LeNet5", "a": "AlexNet", "z": "ZFNet", "v": "VGG"}[name[0]])


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in VGGS_BUT_16 else ()) for name in MAPS]
)
def test_layers_are_as_large_as_published(monkeypatch, name):
    """Shapes and multiplications, layer by layer, of the image that the model was made for."""
    net = models.get(name)().eval()
    path = {id(module): path for path, module in net.named_modules()}
    maps, multiplications = {}, 0
    call = nn.Module.__call__

    def recorded(module, *inputs):
        nonlocal multiplications
        y = call(module, *inputs)
        maps[path[id(module)]] = y.shape[1:3]
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            multiplications += y.size * module.weight.size // module.weight.shape[0]
        return y

    monkeypatch.setattr(nn.Module, "__call__", recorded)
    side = net.preprocessing.crop
    channels = len(net.preprocessing.mean)
    assert net(np.zeros((1, channels, side, side), np.float32)).shape == (1, 10 if name == "lenet5" else 1000)
    prefix = "features." if hasattr(net, "features") else ""
    for published in MAPS[name].split():
        layer, channels, side = re.fullmatch(r"(\w+):(\d+)@(\d+)", published).groups()
        assert maps[f"{prefix}{layer}"] == (int(channels), int(side)), layer
    assert multiplications / 1e6 == pytest.approx(MULTIPLICATIONS[name], abs=0.5 if multiplications > 1e6 else 5e-4)


@names_and_sizes_only
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_forward_pass_is_calls_of_modules_and_nothing_else(monkeypatch, name):
    """Values of which nothing is known but that they are handed on go through, each layer with parameters once."""

    class Opaque:
        __slots__ = ()

    net, call, called = models.get(name)(num_classes=2).eval(), nn.Module.__call__, []

    def opaque(module, *inputs):
        assert all(isinstance(x, Opaque) for x in inputs)
        if next(module.children(), None) is not None:
            return call(module, *inputs)
        called.append(module)
        return Opaque()

    monkeypatch.setattr(nn.Module, "__call__", opaque)
    assert isinstance(net(Opaque()), Opaque)
    leaves = [m for path, m in net.named_modules() if not path.startswith("aux") and next(m.children(), None) is None]
    assert {id(module) for module in called} == {id(module) for module in leaves}
    assert len(called) == len(leaves)


# --- as asked for -----------------------------------------------------------------------------------------------------


@names_and_sizes_only
@pytest.mark.parametrize("name", [name for name in PARAMETERS if name not in VGGS_BUT_16])
def test_number_of_classes_and_channels_and_dtype(name):
    net = models.get(name)(num_classes=3, in_channels=2, dtype=np.float64)
    assert next(m for m in net.modules() if isinstance(m, nn.Conv2d)).in_channels == 2
    *_, last = (m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert last.weight.shape[0] == 3
    assert {value.dtype for key, value in net.state_dict().items() if "num_batches" not in key} == {np.dtype("d")}


@pytest.mark.parametrize("name", [name for name in PARAMETERS if PARAMETERS[name] < 14e6])
def test_a_seed_makes_the_same_network(name):
    a, b, c = (models.get(name)(num_classes=2, rng=seed).state_dict() for seed in (1, 1, 2))
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    assert any(not np.array_equal(a[key], c[key]) for key in a)


def test_a_model_by_its_name():
    assert models.get("mobilenet_v1") is models.mobilenet_v1
    with pytest.raises(ValueError, match=r"name is 'resnet51'; it needs one of lenet5, .*, resnet50, "):
        models.get("resnet51")
    with pytest.raises(ValueError, match=r"version is '1\.1'; it needs one of '1_0', '1_1'"):
        models.squeezenet(version="1.1")


def test_how_images_are_prepared():
    for name in models.names():
        kind = type(models.get(name)(num_classes=1)) if PARAMETERS[name] < 14e6 else None
        prepared = (kind or models.VGG).preprocessing
        assert prepared.resize >= prepared.crop
        assert len(prepared.mean) == len(prepared.std)
    assert models.lenet5(image_size=28).preprocessing.crop == 28
    white, ink = (
        (pixel - models.LeNet5.preprocessing.mean[0]) / models.LeNet5.preprocessing.std[0] for pixel in (0, 1)
    )
    assert (white, ink) == (pytest.approx(-0.1), pytest.approx(1.175))
    # torchvision's GoogLeNet, after the ImageNet normalisation: x·(std / ½) + (mean − ½) / ½
    usual, google = models.ResNet.preprocessing, models.GoogLeNet.preprocessing
    for pixel in (0.0, 0.3, 1.0):
        for i in range(3):
            x = (pixel - usual.mean[i]) / usual.std[i]
            transformed = x * (usual.std[i] / 0.5) + (usual.mean[i] - 0.5) / 0.5
            assert (pixel - google.mean[i]) / google.std[i] == pytest.approx(transformed)


# name, arguments, the smallest side that works, the layer that has nothing left below it
SMALLEST = [
    ("alexnet", {}, 63, "features.12"),
    ("zfnet", {}, 53, "features.14"),
    ("vgg16", {}, 32, "features.30"),
    ("googlenet", {"aux_logits": False}, 15, "maxpool3"),
    ("resnet18", {}, 1, None),
    ("mobilenet_v1", {}, 1, None),
    ("mobilenet_v2", {}, 1, None),
    ("squeezenet", {}, 21, "features.11"),
    ("squeezenet", {"version": "1_1"}, 17, "features.8"),
    ("densenet121", {}, 29, "features.transition3.pool"),
]


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize(("name", "arguments", "side", "layer"), SMALLEST)
def test_too_small_an_image_is_an_error_that_names_the_layer(name, arguments, side, layer):
    net = models.get(name)(num_classes=2, **arguments).eval()
    assert net(np.zeros((1, 3, side, side), np.float32)).shape == (1, 2)
    assert layer is None or f"at least {side}×{side}" in inspect.getdoc(models.get(name))
    if layer is not None:
        with pytest.raises(ValueError, match=rf"^layer '{layer}' \(\w+Pool2d\): kernel_size is"):
            net(np.zeros((1, 3, side - 1, side - 1), np.float32))


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "conv1"), ("mobilenet_v2", "features.0.0")])
def test_a_wrong_number_of_channels_names_the_layer(name, layer):
    with pytest.raises(ValueError, match=rf"layer '{layer}' \(Conv2d\): .*1"):
        models.get(name)(num_classes=2)(np.zeros((1, 1, 32, 32), np.float32))


def test_a_wrong_weight_file_says_what_is_missing_extra_and_misshapen():
    net = models.resnet18(num_classes=2, rng=0)
    before = {key: value.copy() for key, value in net.state_dict().items()}
    state = models.resnet18(num_classes=3, rng=1).state_dict()
    state["layer1.0.conv9.weight"] = state.pop("layer1.0.conv1.weight")
    with pytest.raises(nn.StateDictError) as error:
        net.load_state_dict(state)
    assert "missing keys: layer1.0.conv1.weight\n" in str(error.value)
    assert "unexpected keys: layer1.0.conv9.weight\n" in str(error.value)
    assert "shape of fc.weight: (3, 512) given, (2, 512) needed" in str(error.value)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


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
