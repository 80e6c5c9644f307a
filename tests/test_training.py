# SPDX-License-Identifier: BSD-3-Clause
"""Training: that it learns, stops and goes on to the same bits, survives being killed, and names what is wrong."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastconv as fc
from fastconv import models, nn, training
from fastconv.training import progress

SIDE = 12


def bands(count=96, seed=0):
    """Images whose class is where a light band lies."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, SIDE, SIDE), np.uint8)
    for label in range(3):
        images[labels == label, 4 * label : 4 * label + 3] += 100
    return training.split(training.Arrays(images, labels, ["top", "middle", "bottom"]), 0.25)


def network(seed=0):
    """With all that has a state of its own: batch norm's statistics, dropout's generator."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False, rng=rng),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3, rng=rng),
        nn.Linear(6 * SIDE * SIDE // 4, 3, rng=rng),
    )


ALL = {
    "accumulate": 2,
    "batch": 8,
    "clip": 1.0,
    "ema": 0.9,
    "warmup": 0.5,
    "smoothing": 0.1,
    "augmentation": training.Augmentation(flip=True, shift=1, colour=0.1, mixup=0.2),
}
VARIANTS = {
    "sgd": {"nesterov": True},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "schedule": "onecycle", "warmup": 0.0},
    "steps": {"schedule": "step", "milestones": (1, 2), "balance": True},
}


def trainer(settings, folder=None, seed=0, **more):
    return training.Trainer(network(seed), bands(), settings, folder=folder, **more)


def same_state(one, other):
    """All but what was measured."""
    for state in (one, other):
        state["sums"].update(seconds=0, waited=0)
        for epoch in state["history"]:
            epoch.update(seconds=0, images_per_second=0, waiting=0)
    flat = [flattened(state) for state in (one, other)]
    assert flat[0].keys() == flat[1].keys()
    for key, value in flat[0].items():
        np.testing.assert_array_equal(value, flat[1][key], err_msg=key)


def flattened(value, name=""):
    if isinstance(value, dict):
        return {k: v for key, entry in value.items() for k, v in flattened(entry, f"{name}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, entry in enumerate(value) for k, v in flattened(entry, f"{name}/{i}").items()}
    return {name: value}


class StopAt(training.Watch):
    """Ends a training after so many updates, as Ctrl-C does."""

    def __init__(self, updates):
        self.left = updates

    def stepped(self, trainer, loss, accuracy):
        self.left -= 1
        if not self.left:
            trainer._stop = True


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_it_learns(name):
    settings = training.Settings(
        **{**ALL, "epochs": 12, "augmentation": training.Augmentation(shift=1), **VARIANTS[name]}
    )
    one = trainer(settings)
    history = one.run()
    assert [epoch.number for epoch in history] == list(range(1, 13))
    assert history[-1].held_out_accuracy > 0.9
    assert history[-1].loss < history[0].loss
    assert one.finished
    assert not one.model.training
    np.testing.assert_array_equal(one.predictions == one.data.held_out.labels, True)


def test_an_epoch_in_figures():
    watched = []

    class Watch(training.Watch):
        def stepped(self, trainer, loss, accuracy):
            watched.append((loss, accuracy))

    one = trainer(training.Settings(epochs=1, batch=16), watch=Watch())
    (epoch,) = one.run()
    assert len(watched) == 5
    assert (epoch.loss, epoch.accuracy) == watched[-1]
    assert 0 <= epoch.waiting <= 1
    assert epoch.images_per_second == pytest.approx(72 / epoch.seconds)
    assert epoch.skipped == 0


def test_gradients_of_batches_add_up_to_those_of_a_large_one():
    """Without what depends on the batch: norm, dropout, random changes."""

    def trained(**how):
        rng = np.random.default_rng(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3, dtype=np.float64, rng=rng)).to(np.float32)
        one = training.Trainer(net, bands(), training.Settings(epochs=1, lr=0.01, **how))
        one.run()
        return net.state_dict()["1.weight"]

    np.testing.assert_allclose(trained(batch=10, accumulate=4), trained(batch=40), rtol=1e-4, atol=1e-6)


def test_heads_beside_the_scores_are_learnt_from_too():
    data = training.split(training.Arrays(np.zeros((6, 32, 32, 3), np.uint8), np.arange(6) % 2), 0.3)
    net = models.googlenet(num_classes=2, rng=0)
    before = {key: value.copy() for key, value in net.state_dict().items()}
    (epoch,) = training.Trainer(net, data, training.Settings(epochs=1, batch=4)).run()
    assert np.isfinite(epoch.loss)
    heads = [key for key in before if key.startswith("aux") and key.endswith("weight")]
    assert heads
    assert all((net.state_dict()[key] != before[key]).any() for key in heads)


def test_averages_are_what_is_judged_and_kept():
    one = trainer(training.Settings(epochs=2, batch=16, ema=0.99))
    one.run()
    best, own = one.best_state(), one.model.state_dict()
    assert any((best[key] != own[key]).any() for key in own)
    twin = network()
    twin.load_state_dict(best)
    images = next(training.Loader(one.data.held_out, one.preprocessing, 24).epoch(0)).images
    np.testing.assert_array_equal(twin.eval()(images).argmax(axis=1), one.predictions)


class Screen(io.StringIO):
    """What a terminal is given."""

    def isatty(self):
        return True


@pytest.mark.parametrize("with_rich", [False, True])
def test_progress_on_a_terminal(with_rich, monkeypatch):
    if with_rich:
        pytest.importorskip("rich")
        monkeypatch.setenv("COLUMNS", "150")
        monkeypatch.setenv("TERM", "xterm")
    else:
        monkeypatch.setattr(progress, "find_spec", lambda name: None)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.Terminal() as watch:
        trainer(training.Settings(epochs=2, batch=16), watch=watch).run()
        watch.said("a word in between")
    text = screen.getvalue()
    assert "epoch 2/2" in text
    for what in ("loss ", "accuracy ", "images/s", " left", "of the time waiting for images", "a word in between"):
        assert what in text
    assert ("\r" in text and "\x1b" not in text) or with_rich
    assert text.rstrip(" \r")[-1] in "\nlh" or with_rich  # nothing half-written stays


# --- the same again ---------------------------------------------------------------------------------------------------


def test_the_same_for_any_number_of_threads():
    states = []
    for threads, workers in ((1, 0), (2, 3), (3, 1)):
        with fc.threads(threads):
            one = trainer(training.Settings(epochs=2, **ALL), workers=workers)
            one.run()
        states.append(one.state_dict())
    same_state(states[0], states[1])
    same_state(states[0], states[2])
    other = trainer(training.Settings(epochs=2, **ALL, seed=1))
    other.run()
    assert (other.state_dict()["model"]["0.weight"] != states[0]["model"]["0.weight"]).any()


@pytest.mark.parametrize("name", VARIANTS)
def test_it_goes_on_to_the_same_bits(name, tmp_path):
    """Stopped within an epoch and between two, and each time taken up by another process' worth of new objects."""
    settings = training.Settings(**{**ALL, "epochs": 4, **VARIANTS[name]})
    whole = trainer(settings)
    whole.run()
    for updates in (2, 1, 2, 8):  # an epoch has five
        begun = (tmp_path / "checkpoint.npz").exists()
        one = trainer(settings, tmp_path, seed=9 if begun else 0, watch=StopAt(updates))
        assert one.resume() == begun
        one.run()
        assert not one.finished
    last = trainer(settings, tmp_path, seed=9)
    assert last.resume()
    last.run()
    assert last.finished
    same_state(last.state_dict(), whole.state_dict())
    np.testing.assert_array_equal(last.predictions, whole.predictions)
    again = trainer(settings, tmp_path, seed=9)
    assert again.resume()
    assert [epoch.number for epoch in again.run()] == [1, 2, 3, 4]
    np.testing.assert_array_equal(again.predictions, whole.predictions)


RUN = """
import sys
sys.path.insert(0, {tests!r})
from test_training import ALL, trainer
from fastconv import training
one = trainer(training.Settings(epochs=40, **ALL), {folder!r}, save_seconds=0)
one.resume()
print("ready", flush=True)
one.run()
print("done", flush=True)
"""


def start(folder):
    code = textwrap.dedent(RUN).format(tests=os.path.dirname(__file__), folder=str(folder))
    environment = {**os.environ, "FASTCONV_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_random_moments_it_goes_on_to_the_same_bits(tmp_path):
    """A checkpoint after every update: most kills hit one that is being written."""
    whole = trainer(training.Settings(epochs=40, **ALL))
    whole.run()
    moments = random.Random(5)
    kills = 0
    for _ in range(30):
        process = start(tmp_path)
        try:
            process.wait(moments.uniform(0.02, 0.5) if kills < 6 else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        finally:
            process.stdout.close()
        if process.returncode == 0:
            break
        for path in tmp_path.glob("checkpoint.npz"):
            training.load_checkpoint(path)  # whole, whatever the moment
    assert process.returncode == 0
    assert kills >= 2
    last = trainer(training.Settings(epochs=40, **ALL), tmp_path)
    assert last.resume()
    same_state(last.state_dict(), whole.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_be_finished_and_saved(number, tmp_path):
    class Signal(training.Watch):
        def stepped(self, trainer, loss, accuracy):
            if trainer.epoch == 1 and trainer.batch == 3:
                os.kill(os.getpid(), number)

    one = trainer(training.Settings(epochs=10_000, batch=16), tmp_path, watch=Signal())
    before = signal.getsignal(number)
    one.run()
    assert not one.finished
    assert signal.getsignal(number) == before
    last = trainer(training.Settings(epochs=10_000, batch=16), tmp_path)
    assert last.resume()
    assert (last.epoch, last.batch) == (1, 3)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_nested_states(suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    state = {
        "a": {"b": np.arange(6.0).reshape(2, 3), 3: [np.float32(0.1), None, True, "text", {"c": np.zeros(0, np.int8)}]},
        "big": 1 << 127,
        "float": 0.1 + 0.2,
        "pair": (1, 2),
    }
    path = tmp_path / f"state{suffix}"
    training.save_checkpoint(path, state)
    found = training.load_checkpoint(path)
    np.testing.assert_array_equal(found["a"]["b"], state["a"]["b"])
    assert found["a"]["3"][:4] == [float(np.float32(0.1)), None, True, "text"]
    assert found["a"]["3"][4]["c"].dtype == np.int8
    assert (found["big"], found["float"], found["pair"]) == (1 << 127, 0.1 + 0.2, [1, 2])


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", "array:x", np.dtype("f4")])
def test_what_a_checkpoint_does_not_hold(value, tmp_path):
    with pytest.raises(TypeError, match="state/a/0 is"):
        training.save_checkpoint(tmp_path / "x.npz", {"a": [value]})
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "x.npz"
    fc.save({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"x\.npz is no checkpoint: it holds no array 'checkpoint'"):
        training.load_checkpoint(path)
    later = json.dumps({"format": 2, "fastconv": "9.0", "state": {}}).encode()
    fc.save({"checkpoint": np.frombuffer(later, np.uint8)}, path)
    with pytest.raises(ValueError, match=r"it is of format 2, by fastconv 9\.0; this version reads 1"):
        training.load_checkpoint(path)
    missing = json.dumps({"format": 1, "fastconv": "0", "state": {"a": "array:state/a"}}).encode()
    fc.save({"checkpoint": np.frombuffer(missing, np.uint8)}, path)
    with pytest.raises(ValueError, match=r"x\.npz is no checkpoint that can be read: 'state/a'"):
        training.load_checkpoint(path)
    training.save_checkpoint(path, {"a": np.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"x\.npz is not an \.npz file"):
        training.load_checkpoint(path)


def other_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3, rng=0))


MISFITS = {
    "another network": ({"title": "another"}, "the checkpoint is of 'Sequential'; this is 'another'"),
    "other settings": ({"settings": {"lr": 0.01}}, r"made with lr 0\.05; here it is 0\.01"),
    "two other settings": ({"settings": {"lr": 0.01, "seed": 3}}, r"\(and seed differ\)"),
    "other changes": (
        {"settings": {"augmentation": training.Augmentation(flip=True)}},
        "made with augmentation .*'flip': False",
    ),
    "other data": ({"data": bands(60)}, "is of 72 images; here are 45"),
    "other layers": ({"model": other_model()}, "the checkpoint has 1 random generators; the model has 0"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_checkpoint_of_something_else_changes_nothing(name, tmp_path):
    base = {"epochs": 2, "batch": 16}
    trainer(training.Settings(**base), tmp_path, watch=StopAt(2)).run()
    different, message = MISFITS[name]
    settings = training.Settings(**{**base, **different.get("settings", {})})
    arguments = {"title": "Sequential", **different}
    one = training.Trainer(
        arguments.get("model") or network(),
        arguments.get("data") or bands(),
        settings,
        folder=tmp_path,
        title=arguments["title"],
    )
    before = {key: value.copy() for key, value in one.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"checkpoint\.npz: .*" + message):
        one.resume()
    for key, value in one.model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert (one.epoch, one.batch) == (0, 0)


def test_a_checkpoint_whose_end_does_not_fit_is_taken_back(tmp_path):
    one = trainer(training.Settings(epochs=2, batch=16), tmp_path, watch=StopAt(2))
    one.run()
    state = one.state_dict()
    state["schedule"] = {**state["schedule"], "base_lrs": [1.0]}
    twin = trainer(training.Settings(epochs=2, batch=16), seed=4)
    before = {key: value.copy() for key, value in twin.model.state_dict().items()}
    with pytest.raises(ValueError, match="1 base_lrs"):
        twin.load_state_dict(state)
    for key, value in twin.model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert not twin.optimizer.state


# --- losses that are not finite ---------------------------------------------------------------------------------------


def with_a_huge_image():
    """An image whose scores overflow: its pixels are what they may be, and a weight is only for them."""
    rng = np.random.default_rng(0)
    images = rng.random((12, 4, 4), np.float32) / 2
    images[:, 0, 0] = 0
    images[7, 0, 0] = 1
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, rng=0))
    net[1].weight.data[0, 0] = np.inf
    source = training.Arrays(images, np.arange(12) % 2, name="pictures")
    return net, training.Data(source, training.Arrays(images[:4], np.arange(4) % 2))


def test_an_image_without_a_finite_loss_is_named():
    net, data = with_a_huge_image()
    seen = fc.models.Preprocessing(4, 4, (0.0,), (1.0,))
    # NaN in all, since 0·∞ is: a batch names those that it can tell
    one = training.Trainer(net, data, training.Settings(epochs=1, batch=3), preprocessing=seen)
    with pytest.raises(
        ValueError, match=r"the loss is (nan|inf) for pictures\[\d+\], .* \(epoch 1, batch 1 of 4\); the learning"
    ):
        one.run()


class Infected(nn.Module):
    """Passes images on, but for one whose first pixel is 1, of which it makes NaN."""

    def forward(self, x):
        self.save_for_backward()
        return np.where(x[:, :, :1, :1] == 1, np.float32(np.nan), x)

    def backward(self, grad_output):
        self.saved()
        return grad_output


def test_a_batch_without_a_finite_loss_is_passed_over():
    _, data = with_a_huge_image()
    seen = fc.models.Preprocessing(4, 4, (0.0,), (1.0,))
    said = []

    class Watch(training.Watch):
        def said(self, text):
            said.append(text)

    def run(skip):
        net = nn.Sequential(Infected(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2, rng=0))
        one = training.Trainer(
            net, data, training.Settings(epochs=2, batch=3), preprocessing=seen, skip=skip, watch=Watch()
        )
        return net, one.run()

    net, history = run(True)
    assert [epoch.skipped for epoch in history] == [3, 3]
    assert len(said) == 2
    assert all("pictures[" in text and "loss is nan" in text for text in said)
    assert all(np.isfinite(value).all() for value in net.state_dict().values())
    with pytest.raises(ValueError, match="the loss is nan for pictures"):
        run(False)


def test_weights_that_are_lost_end_it_in_any_case():
    net, data = with_a_huge_image()
    seen = fc.models.Preprocessing(4, 4, (0.0,), (1.0,))
    one = training.Trainer(net, data, training.Settings(epochs=9, batch=3), preprocessing=seen, skip=True)
    with pytest.raises(ValueError, match="10 batches in a row had no finite loss; the learning rate"):
        one.run()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"batch": 1.5}, TypeError, "batch is 1.5"),
        ({"optimizer": "lbfgs"}, ValueError, "optimizer is 'lbfgs'; it needs one of sgd, adam, adamw"),
        ({"schedule": "none"}, ValueError, "schedule is 'none'"),
        ({"lr": 0.0}, ValueError, "lr is 0.0"),
        ({"clip": -1.0}, ValueError, "clip is -1.0"),
        ({"ema": 1.0}, ValueError, "ema is 1.0"),
        ({"warmup": 30}, ValueError, "warmup is 30; it needs to be below epochs, 30"),
        ({"warmup": 1, "schedule": "onecycle"}, ValueError, "has a rise of its own"),
    ],
)
def test_settings_that_there_are_not(options, error, message):
    with pytest.raises(error, match=message):
        training.Settings(**options)


def test_rates_over_the_updates():
    def rates(**how):
        settings = training.Settings(epochs=4, lr=1.0, **how)
        optimizer = settings.make_optimizer(network())
        schedule = settings.make_schedule(optimizer, 5)
        found = []
        for _ in range(20):
            found.append(optimizer.param_groups[0]["lr"])
            schedule.step()
        return found

    cosine = rates(warmup=1)
    assert cosine[:5] == pytest.approx([0.01, 0.208, 0.406, 0.604, 0.802])
    assert cosine[5] == 1.0
    assert cosine[-1] == pytest.approx((1 + np.cos(np.pi * 14 / 15)) / 2)
    assert rates(schedule="constant") == [1.0] * 20
    assert rates(schedule="step", milestones=(1, 3)) == pytest.approx([1.0] * 5 + [0.1] * 10 + [0.01] * 5)
    assert rates(schedule="step", milestones=(1, 3), warmup=1)[5:] == pytest.approx([0.1] * 10 + [0.01] * 5)
    assert max(rates(schedule="onecycle")) == pytest.approx(1.0, abs=0.05)


def test_biases_and_norms_do_not_decay():
    net = network()
    groups = training.Settings().make_optimizer(net).param_groups
    assert [len(group["params"]) for group in groups] == [2, 3]
    assert [group["weight_decay"] for group in groups] == [5e-4, 0.0]


def test_images_as_a_network_sees_them():
    grey = bands()
    own = training.loop.preprocessing_for(models.resnet18(num_classes=3, in_channels=1, rng=0), grey)
    assert (own.resize, own.crop) == (SIDE, SIDE)
    assert own.mean == pytest.approx((np.mean(models.ResNet.preprocessing.mean),))
    net = models.lenet5(rng=0)
    assert training.loop.preprocessing_for(net, grey, 40)[:2] == (40, 40)
    with pytest.raises(TypeError, match="model is None"):
        training.Trainer(None, grey)
