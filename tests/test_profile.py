# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv profile``: tables, JSON and pictures of networks by name and from files, and errors."""

import itertools
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.cli import main
from fastconv.graph import profile as profiles


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A network that takes images of any size."""
    path = tmp_path_factory.mktemp("nets") / "net.npz"
    model = nn.Sequential(nn.Conv2d(3, 4, 3, rng=0), nn.ReLU(), nn.MaxPool2d(2)).eval()
    fc.compile(model, (None, 3, None, None)).save(path)
    return str(path)


def test_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    assert main(["profile", "lenet5", "--batch", "3", "--threads", "1", "--repeats", "2"]) == 0
    out = capsys.readouterr().out
    assert "lenet5, 3×1×32×32, float32" in out
    assert max(map(len, out.splitlines())) <= 72
    for word in ("features.0", "classifier.4", "(between steps)", "direct sum", "on 1 thread."):
        assert word in out


def test_json(capsys):
    assert main(["profile", "squeezenet", "--size", "64", "--layout", "NHWC", "--repeats", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "squeezenet"
    assert found["inputs"][0]["shape"] == [1, 3, 64, 64]
    assert found["threads"] == fc.get_num_threads()
    assert found["peak_gflops"] > 0
    assert sum(step["of_time"] for step in found["steps"]) == pytest.approx(1, abs=0.2)
    convolutions = [step for step in found["steps"] if step["operator"] == "conv"]
    assert len(convolutions) == 26
    first = convolutions[0]
    assert first["gflop"] == pytest.approx(2 * 96 * 29 * 29 * 3 * 49 / 1e9)
    for step in found["steps"]:
        if step["gflop"]:
            assert step["gflops"] == pytest.approx(step["gflop"] / step["milliseconds"] * 1e3)
            assert step["of_peak"] == pytest.approx(step["gflops"] / found["peak_gflops"])
        else:
            assert step["gflops"] is step["of_peak"] is None


def test_pictures(tmp_path, capsys):
    svg, page = tmp_path / "net.svg", tmp_path / "net.html"
    assert main(["profile", "lenet5", "--repeats", "1", "--svg", str(svg), "--html", str(page)]) == 0
    assert capsys.readouterr().err == f"wrote {svg}\nwrote {page}\n"
    ElementTree.parse(svg)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert 'class="fc-graph"' in text
    assert "<h1>lenet5, 1×1×32×32, float32</h1>" in text


def test_a_file(file, capsys):
    assert main(["profile", file, "--batch", "2", "--size", "16", "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"][0]["shape"] == [2, 3, 16, 16]
    assert [step["name"] for step in found["steps"]][:2] == ["0", "2"]


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """Two inputs, one of them of any sizes, and a shape that is computed."""
    pytest.importorskip("onnx")
    from onnx_models import array, model_of, node

    nodes = [
        node("Conv", "x,w", "c"), node("Relu", "c", "r"), node("Shape", "r", "sizes"),
        node("Reshape", "r,sizes", "s"), node("Gather", "v,k", "g"), node("Add", "s,g"),
    ]  # fmt: skip
    inputs = {"x": (np.float32, ("n", 3, "h", "w")), "k": (np.int64, (1,)), "v": (np.float32, None)}
    path = tmp_path_factory.mktemp("nets") / "net.onnx"
    path.write_bytes(model_of(nodes, inputs, {"w": array(4, 3, 3, 3)}).SerializeToString())
    return str(path)


def test_an_onnx_model(onnx_file, capsys):
    arguments = ["--batch", "2", "--size", "16", "--shape", "v=5", "--repeats", "1"]
    assert main(["profile", onnx_file, *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [given["shape"] for given in found["inputs"]] == [[2, 3, 16, 16], [1], [5]]
    assert [step["operator"] for step in found["steps"] if step["operator"] == "conv"] == ["conv"]
    assert main(["profile", onnx_file, "--shape", "1,3,8,12", "--shape", "v=7", "--repeats", "1"]) == 0
    assert f"{onnx_file}, 1×3×8×12, 1, 7, float32, int64" in capsys.readouterr().out


def test_an_onnx_model_that_cannot_be_profiled(onnx_file, tmp_path, capsys):
    from onnx_models import NEWEST, X, array, model_of, node

    damaged, magic, late, wrong = (str(tmp_path / f"{name}.onnx") for name in ("damaged", "magic", "late", "wrong"))
    Path(damaged).write_bytes(Path(onnx_file).read_bytes()[:90])
    Path(magic).write_bytes(model_of([node("Magic")], {"x": X}).SerializeToString())
    Path(late).write_bytes(model_of([node("Relu")], {"x": X}, opset=NEWEST + 1).SerializeToString())
    Path(wrong).write_bytes(model_of([node("Add", "x,w")], {"x": X}, {"w": array(5)}).SerializeToString())
    for arguments, message in (
        (["nowhere.onnx"], "nowhere.onnx"),
        ([damaged], "damaged.onnx is no ONNX model that can be read"),
        ([magic], "magic.onnx: node 'the Magic' (Magic-17): "),
        ([late], f"late.onnx: the model is of opset {NEWEST + 1}"),
        ([wrong], "node 'the Add' "),
        ([onnx_file, "--size", "9"], "takes v of any shape; --shape v=N,... says which to profile"),
        ([onnx_file, "--shape", "v=3"], "takes x of any size; --size says which to profile"),
        ([onnx_file, "--shape", "z=3"], "--shape is for 'z'; the inputs of"),
        ([onnx_file, "--shape", "v=3", "--shape", "x=1,4,9,9"], "x has shape (1, 4, 9, 9); the network needs"),
        (["lenet5", "--shape", "1,1,32,32"], "--shape is for files"),
    ):
        assert main(["profile", *arguments, "--repeats", "1"]) == 1
        shown = capsys.readouterr()
        assert message in shown.err
        assert (shown.out, shown.err.count("\n")) == ("", 1)
    for text in ("1,,3", "x=", "-1", "1,a"):
        with pytest.raises(SystemExit):
            main(["profile", onnx_file, "--shape", text])


def test_peaks_of_float64_are_of_float64(monkeypatch):
    seen = []
    monkeypatch.setattr(profiles._config, "fma_peak", lambda dtype, *more, **how: seen.append(dtype) or 1.0)
    for dtype in (np.float32, np.float64):
        net = fc.compile(nn.Sequential(nn.Conv2d(1, 1, 1, dtype=dtype)).eval(), (1, 1, 4, 4))
        net.profile(np.zeros((1, 1, 4, 4), dtype), repeats=1)
    assert seen == ["float32", "float64"]


@pytest.mark.parametrize(("peaks", "quiet"), [([100.0], True), ([100.0, 5.0], False)])
def test_a_disturbed_machine_is_told(peaks, quiet, monkeypatch, capsys):
    values = itertools.cycle(peaks)
    monkeypatch.setattr(profiles._config, "fma_peak", lambda *given, **how: next(values))
    assert main(["profile", "lenet5", "--repeats", "2"]) == 0
    assert ("NOT A QUIET MACHINE" in capsys.readouterr().out) == (not quiet)
    net = fc.compile(fc.models.lenet5(rng=0).eval(), (1, 1, 32, 32))
    profile = net.profile(np.zeros((1, 1, 32, 32), np.float32), repeats=2)
    for text in (str(profile), profile.to_svg(), profile.to_html()):
        assert ("NOT A QUIET MACHINE" in " ".join(text.split())) == (not quiet)
    assert main(["profile", "lenet5", "--repeats", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quiet"] == quiet


WRONG = [
    (["vgg"], "MODEL is 'vgg'; it needs one of lenet5, alexnet"),
    (["nowhere.npz"], "nowhere.npz"),
    (["lenet5", "--size", "3"], "node 'features"),
    (["FILE"], "takes x of any size; --size says which"),
    (["FILE", "--size", "8", "--layout", "NHWC"], "--layout is NHWC"),
    (["FIXED", "--batch", "2"], "--batch is 2; "),
    (["FIXED", "--size", "9"], "--size is 9; "),
    (["FIXED", "--threads", "1"], "--threads is 1; "),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_one_line(arguments, message, file, tmp_path, capsys):
    fixed = str(tmp_path / "fixed.npz")
    fc.compile(nn.Sequential(nn.Conv2d(3, 4, 3, rng=0)).eval(), (1, 3, 8, 8), threads=2).save(fixed)
    given = [{"FILE": file, "FIXED": fixed}.get(word, word) for word in arguments]
    assert main(["profile", *given, "--repeats", "1"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message.replace("takes x", f"takes {fc.load_net(file).inputs[0].name}") in shown.err
    assert shown.err.count("\n") == 1
