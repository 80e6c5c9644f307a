# SPDX-License-Identifier: BSD-3-Clause
"""The demo in small: what it writes and prints, that its networks learn, and that it fails when it should."""

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from support import tolerance

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
image_module = pytest.importorskip("PIL.Image")

import fastconv as fc  # noqa: E402
from fastconv import demo, models, nn  # noqa: E402
from fastconv.bench.timing import Effort  # noqa: E402
from fastconv.demo import compiled, digits, page, vgg  # noqa: E402
from fastconv.demo.results import BAR, WHOLE_DIFFERENCE, Results  # noqa: E402
from fastconv.graph import Profile, Row  # noqa: E402
from fastconv.models._parts import Layers, he_normal  # noqa: E402
from fastconv.models._resnet import BasicBlock  # noqa: E402
from fastconv.training import Arrays, Augmentation, Data, Settings, Trainer  # noqa: E402

PICTURES = ("filters", "feature_maps", "confusion", "training", "vgg_layers", "vgg_maps")

small_net = partial(models.lenet5, in_channels=3, activation=nn.ReLU, pool=nn.MaxPool2d)
EFFORT = Effort(rounds=1, slice_time=0.001)
QUICK = demo.Settings(epochs=2, network=small_net, name="LeNet-5", size=32, effort=EFFORT)


@pytest.fixture(scope="module")
def data():
    return digits.load()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Exit status, folder, stdout and stderr of a demo that is too short to keep its promise."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = demo.main(folder, seed=3, settings=QUICK)
    return status, folder, out.getvalue(), err.getvalue()


@pytest.fixture
def results():
    """Made-up results that keep all promises."""
    ours = digits.Training("convolutional", 100, [0.1], [0.99], 1.0, 1347.0)
    other = digits.Training("fully connected", 400, [0.1], [0.97], 1.0, 1347.0)
    layers = [
        vgg.Layer("conv1_1", "convolution", (3, 8, 8), (4, 8, 8), 112, "direct", 0.5, 2.0, 100.0, 6.0, 200.0, 1e-6),
        vgg.Layer("pool1", "pooling", (4, 8, 8), (4, 4, 4), 0, "", 0.0, 1.0, 10.0, None, 190.0, 0.0),
        vgg.Layer("fc2", "fully connected", (64,), (10,), 650, "pointwise", 0.1, 1.0, None, 3.0, 195.0, 1e-7),
    ]
    run = vgg.Run("VGG-16", 8, 762, layers, milliseconds={"china.jpg": 4.0, "flower.jpg": 4.5})
    step = Row("conv1_1", "conv", "direct", "channels last", (1, 4, 8, 8), 0.6, 2.0, 300.0, 0.75, 1.0, (-1,))
    profile = Profile("VGG-16", [step], [], [], milliseconds=2.0, peaks=[400.0], threads=2)
    whole = compiled.Compiled("china.jpg", 0.5, 2.0, 3.0, 1e-6, profile)
    return Results(0, "2026-01-01T00:00:00+00:00", demo.machine(), ours, other, 450, run, whole, 60.0)


# ------------------------------------------------------------------------------------------- digits


def test_a_quarter_of_every_digit_is_held_out(data):
    assert len(data.images) == 1347
    assert len(data.held_out_images) == 450
    counts = np.bincount(data.labels), np.bincount(data.held_out_labels)
    np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), 0.25, atol=0.01)
    learnt = {image.tobytes() for image in data.images}
    assert not any(image.tobytes() in learnt for image in data.held_out_images)


def test_the_split_is_fixed(data):
    again = digits.load()
    np.testing.assert_array_equal(again.held_out_images, data.held_out_images)
    np.testing.assert_array_equal(again.labels, data.labels)


def test_digits_stand_in_an_empty_frame(data):
    assert data.images.dtype == np.float32
    assert data.images.min() == 0.0
    assert data.images.max() == 1.0
    inside = np.zeros((12, 12), bool)
    inside[2:-2, 2:-2] = True
    assert not data.images[:, 0, ~inside].any()
    assert data.images[:, 0, inside].any(axis=1).all()


def test_the_fully_connected_network_has_four_times_the_parameters():
    ours, other = digits.parameters(digits.convnet(0)), digits.parameters(digits.dense_net(0))
    assert other >= 4 * ours


def test_the_network_learns(data):
    net = digits.convnet(0)
    before = digits.first_filters(net)
    seen = []
    training = digits.train("convolutional", net, data, 10, 0, lambda: seen.append(net.training))
    assert training.accuracy > 0.85  # chance is 0.1
    assert training.losses[-1] < 0.5 * training.losses[0]
    assert training.accuracy == np.mean(training.predictions == data.held_out_labels)
    assert seen == [False] * 10
    assert training.images_per_second == pytest.approx(10 * 1347 / training.seconds)
    assert np.abs(digits.first_filters(net) - before).max() > 0.05


@pytest.mark.slow
def test_a_small_resnet_reads_nearly_all(data):
    """Three blocks, 77,754 weights, moved digits."""
    layers = Layers(None, 0, conv_weights=he_normal)
    net = nn.Sequential(
        layers.conv_norm(1, 16, 3, nn.ReLU()),
        BasicBlock(layers, 16, 16, 1),
        BasicBlock(layers, 16, 32, 2),
        BasicBlock(layers, 32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        layers.linear(64, 10),
    )
    learnt = Data(Arrays(data.images, data.labels), Arrays(data.held_out_images, data.held_out_labels))
    how = Settings(epochs=20, batch=32, smoothing=0.1, warmup=1, ema=0.99, augmentation=Augmentation(shift=2))
    with fc.threads(1):
        history = Trainer(net, learnt, how).run()
    assert history[-1].held_out_accuracy >= 0.994


@pytest.mark.parametrize("make", [digits.convnet, digits.dense_net])
def test_training_is_deterministic(data, make):
    one, two = (digits.train("net", make(5), data, 1, 5) for _ in range(2))
    assert one.losses == two.losses
    assert one.accuracies == two.accuracies
    np.testing.assert_array_equal(one.predictions, two.predictions)
    assert digits.train("net", make(6), data, 1, 6).losses != one.losses


def test_stages_end_in_what_the_network_says(data):
    net = digits.convnet(0).eval()
    image = data.held_out_images[0]
    stages = digits.stages(net, image)
    assert [maps.shape for _, maps in stages] == [
        *((1, 12, 12), (16, 12, 12), (16, 6, 6), (32, 6, 6), (32, 3, 3), (64,), (10,)),
    ]
    assert all(maps.min() >= 0 for _, maps in stages)
    probabilities = stages[-1][1]
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert probabilities.argmax() == net(image[None])[0].argmax()


# ---------------------------------------------------------------------------------------- photographs


@pytest.mark.parametrize("name", vgg.PHOTOGRAPHS)
@pytest.mark.parametrize("size", [224, 33])
def test_photographs(name, size):
    image = vgg.photograph(name, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert image.std() > 20
    x = vgg.pixels(image)
    assert x.shape == (1, 3, size, size)
    np.testing.assert_allclose(x[0, 2, 4, 5], (image[4, 5, 2] / 255 - 0.406) / 0.225, rtol=1e-5)


def test_layers_are_called_as_in_vgg():
    features = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )
    rest = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 10))
    net = nn.Sequential({"features": features, **rest, "classifier": classifier})
    steps = [step for step in vgg.steps(net) if step.name]
    assert [step.name for step in steps] == ["conv1_1", "conv1_2", "pool1", "conv2_1", "pool2", "fc3", "fc4"]
    assert [step.activation for step in steps] == ["relu", "relu", None, "relu", None, "relu", None]


def test_a_run_gives_what_the_network_gives():
    net = small_net(rng=0).eval()
    photographs = {name: vgg.photograph(name, 32) for name in vgg.PHOTOGRAPHS}
    ticks = []
    run = vgg.run(net, photographs, network="LeNet-5", effort=EFFORT, after_layer=lambda: ticks.append(1))
    assert len(ticks) == len(run.layers) == 7
    assert run.difference <= tolerance(np.float32, 400)
    assert run.parameters == sum(layer.weights for layer in run.layers)
    for layer in run.layers:
        assert layer.milliseconds > 0
        assert (layer.loops_milliseconds is None) == (layer.kind == "fully connected")
        assert (layer.blas_milliseconds is None) == (layer.kind == "pooling")
        assert (run.share(layer) is None) == (layer.kind == "pooling")
    for name, image in photographs.items():
        expected = net.features(vgg.pixels(image))[0]
        np.testing.assert_allclose(run.maps[name]["pool2"], expected, atol=1e-5)
        assert run.milliseconds[name] > 0


def compared(net, size, seen):
    """A photograph through a network in both forms."""
    calls = []
    run = compiled.run(
        net, {name: vgg.photograph(name, size) for name in seen}, effort=EFFORT, after_part=lambda: calls.append(1)
    )
    assert len(calls) == 3
    assert run.photograph == seen[0]
    assert min(run.milliseconds, run.layers_milliseconds, run.compile_seconds) > 0
    return run


def test_compiled_and_layer_by_layer():
    run = compared(small_net(rng=0), 32, vgg.PHOTOGRAPHS)
    assert run.difference <= tolerance(np.float32, 400)
    assert {row.operator for row in run.profile} >= {"conv", "max_pool", "linear"}
    assert run.profile.title == "VGG-16 on china.jpg, compiled"


@pytest.mark.slow
def test_a_photograph_goes_through_the_whole_vgg_16():
    """With random weights, which take a while to draw."""
    run = compared(models.vgg16(rng=0), 224, ["china.jpg"])
    assert run.difference <= WHOLE_DIFFERENCE
    assert sum(row.operator.startswith("conv") for row in run.profile) == 13
    assert sum(row.operator == "linear" for row in run.profile) == 3
    assert sum(row.gflop for row in run.profile) == pytest.approx(30.94, abs=0.01)


# ------------------------------------------------------------------------------------------ the whole


def test_it_fails_when_the_bar_is_missed(quick):
    status, _, out, err = quick
    assert status == 1
    assert f"at least {100 * BAR:.1f}%" in err
    assert "BROKEN: the convolutional network reads at least" in out


def test_it_prints_both_tables(quick):
    _, folder, out, _ = quick
    assert "24,202" in out
    assert "105,482" in out
    assert re.search(r"^conv1_1 ", out, re.M)
    assert re.search(r"^all layers ", out, re.M)
    assert str(folder / "index.html") in out
    assert "\x1b" not in out


def test_it_writes_pictures_for_light_and_dark_pages(quick):
    _, folder, _, _ = quick
    for name in PICTURES:
        light, dark = (image_module.open(place / f"{name}.png") for place in (folder, folder / "dark"))
        assert light.size == dark.size
        assert light.size[0] == 1500
        corner_light, corner_dark = (sum(image.convert("RGB").getpixel((2, 2))) for image in (light, dark))
        assert corner_light > 600 > 200 > corner_dark
        assert np.asarray(light.convert("L")).std() > 5


def test_the_page_needs_nothing_from_elsewhere(quick):
    _, folder, _, _ = quick
    text = (folder / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|srcset|href)="([^"]*)"', text)
    assert len(links) == 2 * len(PICTURES) + 2
    assert all((folder / link).is_file() for link in links)
    assert "http" not in text
    assert "random" in text  # weights, and therefore no labels
    assert text.count("<section>") == text.count("</section>") == 4


def test_json_is_all_that_is_printed_and_what_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo.plots, "write", lambda *_: None)  # the other demo's pictures are as good
    status = demo.main(tmp_path, seed=3, json=True, settings=replace(QUICK, epochs=1))
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert printed["passed"] is (status == 0) is False
    assert printed["seed"] == 3
    assert len(printed["digits"]["convolutional"]["predictions"]) == 450
    assert len(printed["vgg"]["layers"]) == 7
    assert set(printed["vgg"]["milliseconds"]) == set(vgg.PHOTOGRAPHS)
    assert len(printed["compiled"]["profile"]["steps"]) == 8
    assert printed["compiled"]["difference"] < 1e-5


def test_kept_promises(results):
    assert results.passed
    assert [check.kept for check in results.checks] == [True] * 4


@pytest.mark.parametrize("broken", [0, 1, 2, 3])
def test_broken_promises(results, broken):
    if broken == 0:
        results.convnet.accuracies = [0.984]
    elif broken == 1:
        results.dense.accuracies = [0.99]
    elif broken == 2:
        results.vgg.layers[0] = replace(results.vgg.layers[0], difference=2e-5)
    else:
        results.compiled = replace(results.compiled, difference=2e-4)
    assert not results.passed
    assert [check.kept for check in results.checks] == [i != broken for i in range(4)]


def test_sums_of_layers(results):
    convolutions, everything = results.vgg_table().totals
    assert convolutions[4:7] == ["100", "6.00", "2.00"]
    assert everything[4:7] == ["113", "19.0", "4.00"]
    assert results.convolution_speedups() == (50.0, 3.0)
    assert results.vgg.peak == 200.0


def test_both_forms_of_the_whole(results):
    table = results.compiled_table()
    assert [row[1:4] for row in table.rows] == [["3.00", "200", ""], ["2.00", "300", "1.50×"]]
    assert "to 0 steps" in table.notes[0]


def test_a_disturbed_machine_is_told(results):
    assert "QUIET" not in " ".join(results.vgg_table().notes)
    results.vgg.layers[1] = replace(results.vgg.layers[1], ceiling=100.0)
    assert "varied from 100 to 200 GFLOP/s" in " ".join(results.vgg_table().notes)


def test_the_page_does_not_claim_what_did_not_happen(results):
    assert "still reads fewer" in page.html(results, 60, 1347)
    results.dense.accuracies = [0.995]
    text = page.html(results, 60, 1347)
    assert "still reads fewer" not in text
    assert 'class="broken"' in text
