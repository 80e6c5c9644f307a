# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv classify``: images of every kind as networks were trained to see them, and files that do not fit."""

import json
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv import models
from fastconv.cli import main

Image = pytest.importorskip("PIL.Image")
from fastconv import _images  # noqa: E402

CLASSES = 7
SEEN = models.SqueezeNet.preprocessing


def picture(height=300, width=400, seed=0):
    """Something smooth, so that neighbouring pixels are alike."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    model = models.squeezenet(num_classes=CLASSES, rng=0).eval()
    fc.save(model.state_dict(), folder / "weights.npz")
    (folder / "labels.txt").write_text("".join(f"kind {i}\r\n" for i in range(CLASSES)))
    picture().save(folder / "one.png")
    picture(seed=1).save(folder / "two.jpg")
    whole = (folder / "two.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    return folder


def classify(folder, *arguments, model="squeezenet", weights="weights.npz"):
    return main(["classify", *arguments, "--model", model, "--weights", str(folder / weights)])


# --- images -----------------------------------------------------------------------------------------------------------


def resized_and_cut(image, seen=SEEN):
    """As torchvision's transforms Resize and CenterCrop do it, in two steps."""
    width, height = image.size
    short = min(width, height)
    size = [seen.resize if side == short else int(seen.resize * side / short) for side in image.size]
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - seen.crop) / 2.0) for side in image.size)
    return image.crop((left, top, left + seen.crop, top + seen.crop))


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (257, 259), (40, 50), (1000, 333), (224, 224)])
def test_images_are_cut_as_torchvision_cuts_them(size):
    image = picture(*size)
    ours, theirs = (np.asarray(x).astype(int) for x in (_images.cut(image, SEEN), resized_and_cut(image)))
    assert ours.shape == theirs.shape == (SEEN.crop, SEEN.crop, 3)
    assert np.abs(ours - theirs).max() <= 1


def test_a_long_strip_takes_no_more_memory():
    assert _images.cut(Image.new("RGB", (60_000, 1)), SEEN).size == (SEEN.crop, SEEN.crop)


def test_pixels_are_normalised_by_channel():
    x = _images.pixels(np.full((2, 3, 3), (0, 128, 255), np.uint8), SEEN)
    assert x.shape == (1, 3, 2, 3)
    assert x.dtype == np.float32
    expected = (np.array([0, 128 / 255, 1]) - SEEN.mean) / SEEN.std
    np.testing.assert_allclose(x[0, :, 1, 2], expected, rtol=1e-5)
    assert _images.pixels(np.zeros((4, 4), np.uint8), models.LeNet5.preprocessing).shape == (1, 1, 4, 4)


def saved(image, tmp_path, suffix=".png", **how):
    path = tmp_path / f"image{suffix}"
    image.save(path, **how)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "YCbCr"])
def test_every_mode_becomes_what_the_network_takes(mode, tmp_path):
    suffix = ".tiff" if mode in ("CMYK", "YCbCr") else ".png"
    grey = picture().convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    path = saved(image, tmp_path, suffix)
    for channels, wanted in ((3, "RGB"), (1, "L")):
        read = _images.read(path, channels)
        assert read.mode == wanted
        if mode != "1":
            difference = np.asarray(read.convert("L")).astype(int) - np.asarray(grey)
            assert np.abs(difference).max() <= 3


def test_what_is_transparent_lies_on_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert _images.read(saved(image, tmp_path)).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    assert _images.read(saved(palette, tmp_path, transparency=0)).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_cameras_say(orientation, tmp_path):
    upright = picture(60, 80)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = _images.read(saved(stored, tmp_path, exif=exif))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(upright))


def test_pixels_whose_white_is_not_known_are_refused(tmp_path):
    path = saved(Image.fromarray(np.zeros((4, 4), np.float32)), tmp_path, ".tiff")
    with pytest.raises(ValueError, match=r"image\.tiff is not an image that can be read: .*mode F"):
        _images.read(path)


# --- the command ------------------------------------------------------------------------------------------------------


def expected(folder, name):
    model = models.squeezenet(num_classes=CLASSES, rng=0).eval()
    x = _images.pixels(resized_and_cut(_images.read(folder / name)), SEEN)
    return fc.softmax(model(x)[0].astype(np.float64), 0)


def test_the_likeliest_classes(folder, capsys):
    images = [str(folder / name) for name in ("one.png", "two.jpg")]
    assert classify(folder, *images, "--labels", str(folder / "labels.txt"), "--top", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["image"] for entry in found["images"]] == images
    for entry, name in zip(found["images"], ("one.png", "two.jpg"), strict=True):
        probabilities = expected(folder, name)
        order = np.argsort(-probabilities)[:3]
        assert [guess["class"] for guess in entry["top"]] == list(order)
        assert [guess["label"] for guess in entry["top"]] == [f"kind {i}" for i in order]
        np.testing.assert_allclose([guess["probability"] for guess in entry["top"]], probabilities[order], atol=2e-3)


def test_a_table_for_people(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    image = str(folder / "one.png")
    assert classify(folder, image, image, "--threads", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "What squeezenet sees" in lines
    rows = [line for line in lines if line.endswith("%")]
    assert len(rows) == 10
    assert [line.startswith(image) for line in rows] == [True, *[False] * 4] * 2


def test_images_that_cannot_be_read_do_not_stop_the_others(folder, capsys):
    names = ["cut.jpg", "one.png", "text.jpg", "nowhere.png"]
    assert classify(folder, *(str(folder / name) for name in names), "--json") == 1
    shown = capsys.readouterr()
    kinds = [list(entry) for entry in json.loads(shown.out)["images"]]
    assert kinds == [["image", "error"], ["image", "top"], ["image", "error"], ["image", "error"]]
    lines = shown.err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("cut.jpg", "text.jpg", "nowhere.png"), strict=True):
        assert line.startswith("fastconv: ")
        assert name in line


@pytest.mark.parametrize("classes", [3, 1000])
@pytest.mark.parametrize("name", ["lenet5", "googlenet", "mobilenet_v2"])
def test_the_weights_say_how_many_classes(name, classes, folder, tmp_path, capsys):
    options = {"aux_logits": False} if name == "googlenet" else {}
    state = models.get(name)(num_classes=classes, rng=0, **options).state_dict()
    fc.save(state, tmp_path / "weights.npz")
    assert classify(tmp_path, str(folder / "one.png"), "--top", "2000", "--json", model=name) == 0
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    assert len(entry["top"]) == classes
    assert sum(guess["probability"] for guess in entry["top"]) == pytest.approx(1)


# --- files of networks ------------------------------------------------------------------------------------------------


def network(folder, name="net.onnx", shape=("n", 3, "h", "w"), dtype=np.float32, softmax=False, outputs=("y",)):
    """An ONNX model of means, maxima and minima of channels, in the order of its channels."""
    pytest.importorskip("onnx")
    from onnx_models import model_of, node

    last = shape is not None and len(shape) == 4 and shape[-1] in (1, 3)
    pixels = [1, 2] if last else [2, 3]
    nodes = [
        node("Cast", "x", "f", to=1),
        *(node(f"Reduce{kind}", "f", kind, axes=pixels, keepdims=0) for kind in ("Mean", "Max", "Min")),
        node("Concat", "Mean,Max,Min", "s" if softmax else "y", axis=1),
    ]
    if softmax:
        nodes.append(node("Softmax", "s", "y", axis=1))
    model = model_of(nodes, {"x": (dtype, shape)}, (), outputs)
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def seen_by(image, crop, mean=SEEN.mean, std=SEEN.std, resize=None, bgr=False):
    """What the network above makes of an image."""
    seen = models.Preprocessing(resize or round(crop * 8 / 7), crop, mean, std)
    x = np.asarray(resized_and_cut(_images.read(image), seen)).astype(np.float64)[..., :: -1 if bgr else 1]
    x = (x / 255 - mean) / std
    return np.concatenate([x.mean(axis=(0, 1)), x.max(axis=(0, 1)), x.min(axis=(0, 1))])


OPTIONS = {
    "sizes that are open": ({}, [], {"crop": 224}),
    "its own size": ({"shape": (1, 3, 64, 64)}, [], {"crop": 64}),
    "its own height": ({"shape": (1, 3, 70, "w")}, [], {"crop": 70}),
    "channels last": ({"shape": (1, 32, 32, 3)}, [], {"crop": 32}),
    "float64": ({"shape": (1, 3, 32, 32), "dtype": np.float64}, [], {"crop": 32}),
    "sizes as asked": ({}, ["--crop", "48", "--resize", "50"], {"crop": 48, "resize": 50}),
    "numbers as asked": (
        {"shape": (1, 3, 32, 32)}, ["--mean", "0.5", "--std", "0.25,0.5,1"],
        {"crop": 32, "mean": (0.5,) * 3, "std": (0.25, 0.5, 1)},
    ),
    "blue first": ({"shape": (1, 3, 32, 32)}, ["--bgr"], {"crop": 32, "bgr": True}),
}  # fmt: skip


@pytest.mark.parametrize("how", OPTIONS)
def test_an_onnx_model(how, folder, tmp_path, capsys):
    """Images as ImageNet's, but for what the file or an option says."""
    given, options, seen = OPTIONS[how]
    image = folder / "one.png"
    command = ["classify", str(image), "--model", str(network(tmp_path, **given)), "--top", "9", "--json", *options]
    assert main(command) == 0
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    found = {guess["class"]: guess["probability"] for guess in entry["top"]}
    right = fc.softmax(seen_by(image, **seen), 0)
    np.testing.assert_allclose([found[i] for i in range(9)], right, atol=2e-2)


def test_pixels_as_they_are_and_probabilities(folder, tmp_path, capsys):
    """uint8 is not normalised; what adds up to one already is shown as it is."""
    path = str(network(tmp_path, shape=(1, 32, 32, 3), dtype=np.uint8, softmax=True))
    (tmp_path / "labels.txt").write_text("".join(f"kind {i}\n" for i in range(9)))
    command = ["classify", str(folder / "one.png"), "--model", path, "--json", "--top", "1"]
    assert main([*command, "--labels", str(tmp_path / "labels.txt")]) == 0
    ((guess,),) = (entry["top"] for entry in json.loads(capsys.readouterr().out)["images"])
    assert guess["class"] in (3, 4, 5)
    assert guess["label"] == f"kind {guess['class']}"
    assert guess["probability"] > 0.3


def test_a_network_that_was_saved(folder, tmp_path, capsys):
    model = models.squeezenet(num_classes=CLASSES, rng=0).eval()
    fc.compile(model, (1, 3, 224, 224)).save(tmp_path / "net.npz")
    image = str(folder / "one.png")
    assert main(["classify", image, "--model", str(tmp_path / "net.npz"), "--json"]) == 0
    saved = json.loads(capsys.readouterr().out)["images"]
    assert classify(folder, image, "--json") == 0
    assert saved == json.loads(capsys.readouterr().out)["images"]


MISFITS = [
    ({"shape": (2, 3, 32, 32)}, [], "takes 2 images at a time"),
    ({"shape": (1, 3, 32, 48)}, [], "takes images of 32×48; classifying cuts squares"),
    ({"shape": (1, 5, 32, 32)}, [], "takes x of shape (1, 5, 32, 32); an image has four axes, and 1 or 3 channels"),
    ({"shape": (1, 3, "d", 8, 8)}, [], "takes x of shape (1, 3, any, 8, 8); an image has four axes"),
    ({"dtype": np.int64}, [], "takes x of int64; an image is of floating point or uint8"),
    ({"outputs": ("y", "Max")}, [], "returns y, Max; classifying needs one input and one output"),
    ({"outputs": ("f",)}, [], "the network returns an array of shape (1, 3, 224, 224); it needs scores of classes"),
    ({"shape": (1, 3, 32, 32)}, ["--crop", "33"], "--crop is 33; "),
    ({}, ["--resize", "99"], "--resize is 99; a square of 224 is cut from that"),
    ({"shape": (1, 1, 32, 32)}, ["--mean", "1,2,3"], "--mean has 3 numbers; "),
    ({}, ["--std", "0"], "nothing is divided by 0"),
    ({}, ["--weights", "net.npz"], "--weights is net.npz; "),
    ({}, ["--labels", "LABELS"], "has 7 lines; the weights are for 9 classes"),
]


@pytest.mark.parametrize(("how", "more", "message"), MISFITS)
def test_files_that_do_not_fit(how, more, message, folder, tmp_path, capsys):
    path = network(tmp_path, **how)
    more = [str(folder / "labels.txt") if word == "LABELS" else word for word in more]
    assert main(["classify", str(folder / "one.png"), "--model", str(path), *more]) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def broken(state, how):
    state = dict(state)
    if how == "missing":
        del state["features.0.bias"]
    elif how == "extra":
        state["more"] = np.zeros(3, np.float32)
    elif how == "misshapen":
        state["features.0.bias"] = np.zeros(5, np.float32)
    elif how == "complex":
        state["features.0.bias"] = np.zeros(96, np.complex64)
    elif how == "nan":
        state["features.0.bias"] = np.full(96, np.nan, np.float32)
    return state


BROKEN = {
    "missing": "does not fit squeezenet: missing features.0.bias\n",
    "extra": "does not fit squeezenet: extra more\n",
    "misshapen": "does not fit squeezenet: misshapen features.0.bias ((5,) given, (96,) needed)\n",
    "complex": "does not fit squeezenet: state_dict['features.0.bias'] has dtype complex64",
    "nan": "are not finite; the weights may be damaged",
}


@pytest.mark.parametrize("how", BROKEN)
def test_weights_that_do_not_fit(how, folder, tmp_path, capsys):
    fc.save(broken(fc.load(folder / "weights.npz"), how), tmp_path / "weights.npz")
    assert classify(tmp_path, str(folder / "one.png")) == 1
    error = capsys.readouterr().err
    assert BROKEN[how] in error
    assert error.startswith("fastconv: ")
    assert error.count("\n") == 1


def test_weights_of_another_network_are_told_in_brief(folder, capsys):
    assert classify(folder, str(folder / "one.png"), model="resnet18") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert " more; extra features.0.weight" in error
    assert len(error) < 700


WRONG = [
    ({"model": "vgg"}, [], "--model is 'vgg'; it needs one of lenet5, alexnet"),
    ({}, ["--mean", "1,2,3", "--std", "0"], "--std is 0.0; nothing is divided by 0"),
    ({"weights": "nowhere.npz"}, [], "nowhere.npz"),
    ({"weights": "one.png"}, [], "its suffix needs to be '.safetensors' or '.npz'"),
    ({"weights": "damaged.npz"}, [], "damaged.npz is not an .npz file"),
    ({}, ["--labels", "short.txt"], "short.txt has 3 lines; the weights are for 7 classes"),
    ({}, ["--labels", "two.jpg"], "two.jpg is no text in UTF-8"),
    ({}, ["--labels", "nowhere.txt"], "nowhere.txt"),
]


@pytest.mark.parametrize(("how", "more", "message"), WRONG)
def test_what_is_wrong_is_one_line(how, more, message, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "damaged.npz").write_bytes(b"PK\3\4" + bytes(99))
    (folder / "short.txt").write_text("a\nb\nc\n")
    assert classify(folder, "one.png", *more, **how) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.startswith("fastconv: ")
    assert shown.err.count("\n") == 1


def test_weights_have_to_be_given(folder, capsys):
    assert main(["classify", str(folder / "one.png"), "--model", "lenet5"]) == 1
    assert capsys.readouterr().err == "fastconv: --model is lenet5, whose --weights need to be given\n"


@pytest.mark.parametrize(("absent", "advice"), [("PIL", "pillow"), ("safetensors", "safetensors")])
def test_it_says_what_to_install(absent, advice):
    code = (
        f"import sys; sys.modules['{absent}'] = None\n"
        "from fastconv.cli import main\n"
        "sys.exit(main(['classify', 'x.png', '--model', 'lenet5', '--weights', 'x.safetensors']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        f"fastconv: classify needs {absent}, which is not installed: python -m pip install {advice}\n"
    )
