# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv classify``: what a network sees in images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv import _images, io, models, nn
from fastconv._files import NETWORKS, is_network, network_of
from fastconv._names import only
from fastconv.bench import terminal
from fastconv.bench.terminal import Column, Table
from fastconv.graph import CompiledNet
from fastconv.graph.net import Tensor
from fastconv.models._preprocessing import IMAGENET
from fastconv.training.trained import RECORD, SHIPPED, read_trained

__all__ = ["main"]
__dir__ = only(__all__)

NAMED = 6  # tensors that do not fit and are named, of each kind


class Guess(NamedTuple):
    """A class of an image."""

    number: int
    probability: float


def main(args: argparse.Namespace) -> int:
    """Run ``fastconv classify``.

    Images that cannot be read are told one by one on stderr; the others are classified.

    Returns
    -------
    int
        The exit status: 1 if an image could not be read.
    """
    found: list[tuple[str, list[Guess] | str]] = []
    with (
        fc.threads(fc.get_num_threads() if args.threads is None else args.threads),
        terminal.stages(lasting=False) as stage,
    ):
        tick = stage(f"{args.model or 'LeNet-5'} gets its weights", 1)
        viewer = _viewer(args)
        labels = list(viewer.labels) if args.labels is None else _labels(args.labels, viewer.classes)
        tick()
        tick = stage("images", len(args.images))
        for path in args.images:
            found.append((path, viewer.guesses(path, args.top)))
            tick()
    _tell(found, args, viewer.name, labels or None)
    failures = [error for _, error in found if isinstance(error, str)]
    for error in failures:
        print(f"fastconv: {error}", file=sys.stderr)
    return 1 if failures else 0


class _Viewer:
    """A network and how it sees images.

    Attributes
    ----------
    net : CompiledNet
    seen : Preprocessing
    last, bgr : bool
        Whether its input has channels last, and which comes first.
    drawing : bool
        Whether images are drawings, to be framed and centred.
    name : str
    labels : sequence of str
        Names of its classes, where it has some.
    classes : int
    """

    def __init__(
        self,
        net: CompiledNet,
        seen: models.Preprocessing,
        name: str,
        *,
        last: bool = False,
        bgr: bool = False,
        drawing: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        self.net, self.seen, self.last, self.bgr = net, seen, last, bgr
        self.name, self.drawing, self.labels = name, drawing, labels
        self.classes = len(self._scores(np.zeros((seen.crop, seen.crop, len(seen.mean)), np.uint8)))

    def guesses(self, path: str, top: int) -> list[Guess] | str:
        """The likeliest classes of an image, or why it cannot be read."""
        try:
            read = _images.read(path, len(self.seen.mean))
            image = _images.drawing(read, self.seen.crop) if self.drawing else _images.cut(read, self.seen)
        except (OSError, ValueError) as error:
            return str(error)
        scores = self._scores(image)
        if not np.isfinite(scores).all():
            raise ValueError(f"the scores of {path} are not finite; the weights may be damaged")
        are_shares = scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3  # the network ends in a softmax itself
        probabilities = scores if are_shares else fc.softmax(scores, 0)
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [Guess(int(i), float(probabilities[i])) for i in order]

    def _scores(self, image: Any) -> np.ndarray:
        dtype = self.net.inputs[0].dtype
        values = np.atleast_3d(np.asarray(image))[:, :, :: -1 if self.bgr else 1]
        if dtype.kind == "f":
            x = _images.pixels(values, self.seen).astype(dtype, copy=False)
        else:  # pixels as they are
            x = np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype)
        scores = self.net(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.last else x)
        if scores.size == 0 or scores.size != max(scores.shape, default=0):
            raise ValueError(f"the network returns an array of shape {scores.shape}; it needs scores of classes")
        return scores.reshape(-1).astype(np.float64)


def _viewer(args: argparse.Namespace) -> _Viewer:
    if args.model is None:
        if args.weights is not None:
            raise ValueError(f"--weights is {args.weights} without --model; it needs the network that they are of")
        return _of_training(args, SHIPPED)
    if is_network(args.model):
        return _of_file(args)
    if (Path(args.model) / RECORD).is_file():
        return _of_training(args, args.model)
    return _of_weights(args)


# --- from a file ------------------------------------------------------------------------------------------------------


def _of_file(args: argparse.Namespace) -> _Viewer:
    """Input and output as the file has them."""
    if args.weights is not None:
        raise ValueError(f"--weights is {args.weights}; {args.model} has its own")
    net = network_of(args.model)
    for what, tensors in (("takes", net.inputs), ("returns", net.outputs)):
        if len(tensors) != 1:
            names = ", ".join(t.name for t in tensors) or "nothing"
            raise ValueError(f"{args.model} {what} {names}; classifying needs one input and one output")
    (image,) = net.inputs
    if image.dtype.kind != "f" and image.dtype != np.uint8:
        raise ValueError(f"{args.model} takes {image.name} of {image.dtype}; an image is of floating point or uint8")
    batch, channels, height, width, last = _axes(args.model, image)
    if batch not in (None, 1):
        raise ValueError(f"{args.model} takes {batch} images at a time; classifying needs one that takes 1")
    if None not in (height, width) and height != width:
        raise ValueError(f"{args.model} takes images of {height}×{width}; classifying cuts squares")
    own = width if height is None else height
    if args.crop is not None and own not in (None, args.crop):
        raise ValueError(f"--crop is {args.crop}; {args.model} takes {image.name} of shape {image.shape}")
    crop = own or args.crop or IMAGENET.crop
    seen = IMAGENET._replace(crop=crop, resize=round(crop * IMAGENET.resize / IMAGENET.crop))
    if channels == 1:
        seen = seen._replace(mean=(sum(seen.mean) / 3,), std=(sum(seen.std) / 3,))
    try:
        return _Viewer(net, _asked(seen, args), args.model, last=last, bgr=args.bgr)
    except (TypeError, NotImplementedError) as error:  # of its nodes, for this size
        raise ValueError(f"{args.model}: {error}") from error


def _axes(model: str, image: Tensor) -> tuple[int | None, int, int | None, int | None, bool]:
    """Images, channels, height and width, and whether the channels are last."""
    shape = (None, 3, None, None) if image.shape is None else image.shape
    if len(shape) == 4:
        batch, *rest = shape
        if rest[0] in (1, 3):
            return batch, rest[0], rest[1], rest[2], False
        if rest[2] in (1, 3):
            return batch, rest[2], rest[0], rest[1], True
        if rest[0] is None:
            return batch, 3, rest[1], rest[2], False
    sizes = ", ".join("any" if n is None else str(n) for n in shape)
    raise ValueError(f"{model} takes {image.name} of shape ({sizes}); an image has four axes, and 1 or 3 channels")


def _asked(seen: models.Preprocessing, args: argparse.Namespace) -> models.Preprocessing:
    """With what the options say."""
    changes: dict[str, Any] = {}
    for name in ("mean", "std"):
        numbers = getattr(args, name)
        if numbers is not None:
            if len(numbers) not in (1, len(seen.mean)):
                whose = args.model or "LeNet-5"
                raise ValueError(f"--{name} has {len(numbers)} numbers; {whose} takes {len(seen.mean)} channels")
            changes[name] = numbers * (len(seen.mean) // len(numbers))
    if 0 in changes.get("std", ()):
        raise ValueError(f"--std is {','.join(map(str, args.std))}; nothing is divided by 0")
    crop = args.crop or seen.crop
    resize = args.resize or (seen.resize if crop == seen.crop else round(crop * seen.resize / seen.crop))
    if resize < crop:
        raise ValueError(f"--resize is {resize}; a square of {crop} is cut from that")
    return seen._replace(crop=crop, resize=resize, **changes)


# --- a network of fastconv.models -------------------------------------------------------------------------------------


def _of_weights(args: argparse.Namespace) -> _Viewer:
    if args.model not in models.names():
        known = ", ".join(models.names())
        files = f"a file ({', '.join(NETWORKS)}), or a folder that fastconv train wrote"
        raise ValueError(f"--model is {args.model!r}; it needs one of {known}, {files}")
    if args.weights is None:
        raise ValueError(f"--model is {args.model}, whose --weights need to be given")
    model = _model(args.model, args.weights)
    seen = _asked(model.preprocessing, args)
    net = fc.compile(model, (1, len(seen.mean), seen.crop, seen.crop))
    return _Viewer(net, seen, args.model, bgr=args.bgr)


# --- a network that was trained here ----------------------------------------------------------------------------------


def _of_training(args: argparse.Namespace, folder: str | Path) -> _Viewer:
    """With all that it takes."""
    if args.weights is not None:
        raise ValueError(f"--weights is {args.weights}; {folder} has its own")
    trained = read_trained(folder)
    seen = _asked(trained.preprocessing, args)
    net = fc.compile(trained.model, (1, len(seen.mean), seen.crop, seen.crop))
    return _Viewer(net, seen, trained.name, bgr=args.bgr, drawing=trained.drawing, labels=trained.classes)


def _model(name: str, path: str) -> Any:
    """The model with the weights of a file, which also say how many classes it has, and for GoogLeNet, whether it has
    the heads that only training needs."""
    given = io.load(path)
    build = models.get(name)
    model = build(rng=0)
    last = next(reversed(model.state_dict()))  # the bias of what gives the scores
    options: dict[str, Any] = {}
    if last in given and given[last].ndim == 1 and len(given[last]) not in (0, _classes(model)):
        options["num_classes"] = len(given[last])
    if name == "googlenet" and not any(key.startswith("aux") for key in given):
        options["aux_logits"] = False
    if options:
        model = build(rng=0, **options)
    try:
        model.load_state_dict(given)
    except nn.StateDictError as error:
        raise ValueError(f"{path} does not fit {name}: {_misfits(error)}") from error
    except TypeError as error:
        raise ValueError(f"{path} does not fit {name}: {error}") from error
    return model.eval()


def _classes(model: Any) -> int:
    *_, last = model.state_dict().values()
    return len(last)


def _misfits(error: nn.StateDictError) -> str:
    shapes = [f"{key} ({given} given, {needed} needed)" for key, (given, needed) in error.misshapen.items()]
    kinds = {"missing": error.missing, "extra": error.unexpected, "misshapen": shapes}
    return "; ".join(f"{kind} {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _labels(path: str, classes: int) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    labels = [line.strip() for line in text.rstrip().split("\n")]
    if len(labels) != classes:
        raise ValueError(f"{path} has {len(labels)} lines; the weights are for {classes} classes, a line for each")
    return labels


# --- what it says -----------------------------------------------------------------------------------------------------


def _tell(
    found: list[tuple[str, list[Guess] | str]], args: argparse.Namespace, name: str, labels: list[str] | None
) -> None:
    if args.json:
        images = [
            {"image": path, "error": guesses}
            if isinstance(guesses, str)
            else {"image": path, "top": [_entry(guess, labels) for guess in guesses]}
            for path, guesses in found
        ]
        print(json.dumps({"model": name, "weights": args.weights, "images": images}, indent=1))
        return
    rows = [
        ["" if place else path, "" if labels is None else labels[i], str(i), f"{probability:.1%}"]
        for path, guesses in found
        if not isinstance(guesses, str)
        for place, (i, probability) in enumerate(guesses)
    ]
    heads = [Column("image", left=True), Column("label", left=True), Column("class"), Column("probability")]
    if rows:
        terminal.show(Table(f"What {name} sees", heads, rows))


def _entry(guess: Guess, labels: list[str] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"class": guess.number, "probability": guess.probability}
    return entry if labels is None else {**entry, "label": labels[guess.number]}
