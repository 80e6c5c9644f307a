# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv train`` and what it leaves behind: from a folder of images to a classified one."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from dataclasses import MISSING, fields

import numpy as np
import pytest

import fastconv as fc
from fastconv import _train, training
from fastconv.cli import main

Image = pytest.importorskip("PIL.Image")
SMALL = ["--epochs", "3", "--batch", "16", "--size", "32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Squares and discs on noise, in colours and of several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("disc", "square"):
        (folder / name).mkdir()
        for i in range(24):
            side = int(rng.integers(36, 60))
            pixels = rng.integers(0, 90, (side, side, 3), np.uint8)
            y, x = np.mgrid[:side, :side] - (side - 1) / 2
            inside = np.hypot(x, y) < side / 3 if name == "disc" else np.maximum(abs(x), abs(y)) < side / 6
            pixels[inside] = (230, 60, 60) if name == "disc" else (60, 60, 230)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def train(*arguments):
    return main(["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "new"
    how = ["--data", photos, "--model", "lenet5", "--flip", "--crop", "0.6", "--output", folder, *SMALL, "--lr", "0.02"]
    assert train(*how, "--epochs", "8") == 0
    return folder


def test_from_a_folder_of_images_to_a_classified_one(photos, trained, capsys):
    assert main(["classify", str(photos / "square" / "3.png"), "--model", str(trained), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "lenet5"
    assert report["images"][0]["top"][0]["label"] == "square"
    assert {guess["label"] for guess in report["images"][0]["top"]} == {"disc", "square"}


def test_what_it_leaves(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"checkpoint.npz", "model.json", "history.json"} <= names
    history = json.loads((trained / "history.json").read_text())
    assert [epoch["number"] for epoch in history["history"]] == list(range(1, 9))
    assert history["settings"]["augmentation"]["flip"] is True
    found = training.read_trained(trained)
    assert found.classes == ("disc", "square")
    assert found.preprocessing.crop == 32
    pytest.importorskip("matplotlib")
    for name in ("curves", "confusion"):
        image = Image.open(trained / f"{name}.png")
        assert image.width == 1500
        assert np.asarray(image.convert("L")).std() > 5


def test_a_report_for_people(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert train("--data", photos, "--model", "lenet5", "--output", tmp_path, *SMALL) == 0
    shown = capsys.readouterr()
    assert "What lenet5 has learnt" in shown.out
    assert "waiting" in shown.out
    assert f"fastconv classify IMAGE --model {tmp_path}" in shown.out
    assert [line.split(":")[0] for line in shown.err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "of the time waiting for images" in shown.err


def test_a_report_as_json(photos, tmp_path, capsys):
    assert train("--data", photos, "--model", "lenet5", "--output", tmp_path, *SMALL, "--json") == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert shown.err == ""
    assert report["classes"] == ["disc", "square"]
    assert (report["images"], report["held_out"]) == (38, 10)
    assert len(report["history"]) == 3
    assert all(os.path.exists(path) for path in report["files"])


def test_the_same_from_the_same_seed(photos, tmp_path):
    how = ["--data", photos, "--model", "lenet5", *SMALL, "--mixup", "0.2", "--colour", "0.2", "--shift", "2"]
    weights = []
    for i, more in enumerate(
        (["--threads", "1", "--workers", "0"], ["--threads", "2", "--workers", "3"], ["--seed", "1"])
    ):
        assert train(*how, *more, "--output", tmp_path / str(i)) == 0
        weights.append(training.read_trained(tmp_path / str(i)).model.state_dict())
    for key, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][key])
    assert any((value != weights[2][key]).any() for key, value in weights[0].items())


def test_a_checkpoint_is_not_written_over_unasked(photos, tmp_path, capsys):
    how = ["--data", photos, "--model", "lenet5", "--output", tmp_path, *SMALL]
    assert train(*how, "--resume") == 0  # there is none: it begins
    assert train(*how) == 1
    assert "checkpoint.npz is there already: --resume goes on from it" in capsys.readouterr().err
    assert train(*how, "--resume") == 0
    assert train(*how, "--resume", "--lr", "0.7") == 1
    assert "made with lr 0.05; here it is 0.7" in capsys.readouterr().err


def test_ctrl_c_saves_and_ends(photos, tmp_path):
    command = [sys.executable, "-m", "fastconv", "train", "--data", str(photos), "--model", "lenet5"]
    command += ["--output", str(tmp_path / "out"), *SMALL, "--epochs", "100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "epoch 1/100000" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert time.monotonic() - started < 30
    assert "with --resume goes on" in rest
    assert "Traceback" not in rest
    assert training.load_checkpoint(tmp_path / "out" / "checkpoint.npz")["epoch"] >= 1


def test_events_for_tensorboard(photos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = tmp_path / "logs"
    assert train("--data", photos, "--model", "lenet5", "--output", tmp_path / "out", *SMALL, "--log-dir", logs) == 0
    events = EventAccumulator(str(logs)).Reload()
    assert [event.step for event in events.Scalars("loss/training")] == [1, 2, 3]
    history = json.loads((tmp_path / "out" / "history.json").read_text())["history"]
    found = [event.value for event in events.Scalars("accuracy/held out")]
    assert found == pytest.approx([epoch["held_out_accuracy"] for epoch in history])


def test_defaults_in_the_help_are_those_of_the_settings():
    parser = ArgumentParser()
    _train.add_arguments(parser)
    texts = {action.dest: action.help for action in parser._actions}
    for group in (training.Settings, training.Augmentation):
        for one in fields(group):
            if one.name in ("augmentation", "milestones") or isinstance(one.default, bool):
                assert one.name == "augmentation" or one.name in texts
            elif one.default is not MISSING and "(none)" in texts[one.name]:
                assert one.default == 0
            else:
                assert f"({one.default})" in texts[one.name], one.name


WRONG = [
    (["--model", "resnet"], "--model is 'resnet'; it needs one of lenet5"),
    (["--optimizer", "lbfgs"], "optimizer is 'lbfgs'"),
    (["--crop", "2"], "crop is 2.0"),
    (["--data", "nowhere"], "nowhere does not exist"),
    (["--data", "{one}"], "it needs two or more"),
    (["--data", "{broken}"], "cat/1.png is not an image that can be read"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_one_line(arguments, message, photos, tmp_path, capsys):
    folders = {"one": tmp_path / "one", "broken": tmp_path / "broken"}
    for folder, classes in ((folders["one"], ["cat"]), (folders["broken"], ["cat", "dog"])):
        for name in classes:
            (folder / name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8)).save(folder / name / f"{i}.png")
    (folders["broken"] / "cat" / "1.png").write_bytes(b"none")
    given = [argument.format(**folders) for argument in arguments]
    assert train("--data", photos, "--model", "lenet5", *SMALL, "--output", tmp_path / "out", *given) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("fastconv: ")
    assert error.count("\n") == 1


def test_broken_images_can_be_passed_over(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (32, 32), (200 * (name == "cat"), 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "cat" / "1.png").write_bytes(b"none")
    (tmp_path / "data" / "eel").mkdir()
    how = ["--data", tmp_path / "data", "--model", "lenet5", *SMALL, "--output", tmp_path / "out", "--on-bad", "skip"]
    assert train(*how) == 0
    assert capsys.readouterr().err.count("cat/1.png is not an image") == 1
    assert training.read_trained(tmp_path / "out").classes == ("cat", "dog")


# --- the network that comes with fastconv -----------------------------------------------------------------------------


def test_it_reads_digits_out_of_the_box(tmp_path, capsys):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    pytest.importorskip("safetensors")
    numbers = [8, 3, 500, 1001, 1500]
    for i in numbers:  # on paper and on a board, small and large
        pixels = digits.images[i] * 15
        image = Image.fromarray((pixels if i % 2 else 255 - pixels).astype(np.uint8))
        side = 8 if i == 3 else 100 + i
        framed = Image.new("L", (side + 60, side + 90), image.getpixel((0, 0)))
        framed.paste(image.resize((side, side), Image.Resampling.BICUBIC), (10, 40))
        framed.save(tmp_path / f"{i}.png")
    assert main(["classify", *(str(tmp_path / f"{i}.png") for i in numbers), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "lenet5"
    found = [entry["top"][0]["label"] for entry in report["images"]]
    assert found == [str(digits.target[i]) for i in numbers]


def test_it_reads_those_that_were_held_out():
    pytest.importorskip("sklearn")
    pytest.importorskip("safetensors")
    net = training.read_trained(training.trained.SHIPPED)
    assert net.drawing
    assert sum(p.size for p in net.model.parameters()) == 61_706
    held_out = training.Drawings(training.open_data("digits", share=0.25).held_out, net.preprocessing.crop)
    (batch,) = training.Loader(held_out, net.preprocessing, len(held_out)).epoch(0)
    assert np.mean(net.model(batch.images).argmax(axis=1) == batch.labels) >= 0.99


# --- folders of trained networks --------------------------------------------------------------------------------------


def test_a_folder_that_does_not_fit_says_where(trained, tmp_path, photos, capsys):
    record = json.loads((trained / "model.json").read_text())
    weights = fc.load(trained / record["weights"])
    for change, message in [
        ({"format": 2}, "it is of format 2; this version reads 1"),
        ({"model": "resnet"}, "name is 'resnet'"),
        ({"classes": [1, 2]}, "its classes need to be text"),
        ({"arguments": {"num_classes": 5}}, "does not fit lenet5"),
    ]:
        (tmp_path / "model.json").write_text(json.dumps({**record, **change}))
        fc.save(weights, tmp_path / record["weights"])
        assert main(["classify", str(photos / "disc" / "1.png"), "--model", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert str(tmp_path) in error
    image = str(photos / "disc" / "1.png")
    assert main(["classify", image, "--model", str(trained), "--weights", "x.npz"]) == 1
    assert f"--weights is x.npz; {trained} has its own" in capsys.readouterr().err
    assert main(["classify", image, "--model", "lenet5"]) == 1
    assert "--model is lenet5, whose --weights need to be given" in capsys.readouterr().err
    assert main(["classify", image, "--weights", "x.npz"]) == 1
    assert "without --model" in capsys.readouterr().err
