# SPDX-License-Identifier: BSD-3-Clause
"""The command line of ``fastconv train``, described without loading what it runs."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable

__all__ = ["add_arguments"]

USAGE = """fastconv train --data PATH --model NAME [options]
       fastconv train --data PATH --model NAME --resume"""

EXAMPLES = """examples:
  fastconv train --data photos --model resnet18 --flip --crop 0.3
  fastconv train --data mnist --model lenet5 --shift 2 --epochs 10
  fastconv train --data digits --model lenet5 --drawings
  fastconv classify photo.jpg --model fastconv-train
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``fastconv train``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = USAGE
    parser.description = textwrap.fill(
        "Train a network on labelled images, and keep its weights, the curves and the confusion matrix in a folder.",
        shutil.get_terminal_size().columns - 2,
    )
    parser.epilog = EXAMPLES

    what = parser.add_argument_group("what is learnt")
    what.add_argument(
        "--data",
        metavar="PATH",
        required=True,
        help="a folder with one of images for each class, an .npz file of images and labels, a folder with the files "
        "of MNIST (IDX) or CIFAR (binary), or the word digits: those of scikit-learn",
    )
    what.add_argument("--model", metavar="NAME", required=True, help="a network of fastconv.models: lenet5, resnet18")
    what.add_argument("--size", type=_count, metavar="N", help="height and width of images (their own, or the model's)")
    what.add_argument("--channels", type=int, choices=(1, 3), help="of images in files: grey or colours (3)")
    what.add_argument(
        "--held-out", type=_share, default=0.2, metavar="S", help="share of each class to judge by (%(default)s)"
    )
    what.add_argument(
        "--drawings", action="store_true", help="look for ink on a ground, frame it and centre it: digits, signs"
    )

    how = parser.add_argument_group("how")
    setting = _adder(how)
    setting("--epochs", _count, "N", "times that every image is seen (30)")
    setting("--batch", _count, "N", "images at a time (64)")
    setting("--accumulate", _count, "N", "batches to an update (1)")
    setting("--optimizer", str, "NAME", "sgd, adam or adamw (sgd)")
    setting("--lr", float, "X", "the highest learning rate (0.05)")
    setting("--momentum", float, "X", "of sgd (0.9)")
    how.add_argument("--nesterov", action="store_true", default=argparse.SUPPRESS, help="Nesterov's momentum")
    setting("--weight-decay", float, "X", "of weights, not of biases (0.0005)")
    setting("--schedule", str, "NAME", "cosine, onecycle, step or constant (cosine)")
    setting("--warmup", float, "N", "epochs in which the rate rises first (0.0)")
    how.add_argument(
        "--milestones",
        type=_count,
        nargs="+",
        metavar="N",
        default=argparse.SUPPRESS,
        help="epochs at which --schedule step falls",
    )
    setting("--gamma", float, "X", "factor by which it falls (0.1)")
    setting("--clip", float, "X", "largest norm of all gradients (none)")
    setting("--ema", float, "X", "decay of averaged weights, such as 0.999 (none)")
    setting("--smoothing", float, "X", "of labels (0.0)")
    how.add_argument(
        "--balance", action="store_true", default=argparse.SUPPRESS, help="let classes of few images count as others do"
    )
    setting("--seed", _seed, "N", "of weights, order and changes (0)")

    change = parser.add_argument_group("changes of images, at random")
    setting = _adder(change)
    change.add_argument("--flip", action="store_true", default=argparse.SUPPRESS, help="left to right")
    setting("--crop", float, "S", "parts of at least this share of the area (1.0)")
    setting("--shift", _seed, "N", "up to so many pixels either way (0)")
    setting("--colour", float, "X", "brightness, contrast, saturation by 1 ± X (0.0)")
    setting("--mixup", float, "A", "mixtures of two, of a beta distribution (0.0)")

    run = parser.add_argument_group("the run")
    run.add_argument("--output", metavar="DIR", default="fastconv-train", help="where everything goes (%(default)s)")
    run.add_argument("--resume", action="store_true", help="go on from the checkpoint in there, if there is one")
    run.add_argument(
        "--on-bad",
        choices=("stop", "skip"),
        default="stop",
        help="images that cannot be read, classes without any, labels out of range, losses that are not finite "
        "(%(default)s)",
    )
    run.add_argument(
        "--save-seconds", type=_seconds, default=60.0, metavar="S", help="between checkpoints (%(default)s)"
    )
    run.add_argument("--threads", type=_count, metavar="N", help="(as many as fastconv takes by itself)")
    run.add_argument("--workers", type=_seed, default=1, metavar="N", help="threads that prepare images (%(default)s)")
    run.add_argument("--log-dir", metavar="DIR", help="write events for TensorBoard, which needs tensorboard")
    run.add_argument("--json", action="store_true", help="print JSON")


def _adder(group: argparse._ArgumentGroup) -> Callable[[str, Callable[[str], object], str, str], None]:
    """Adds options that are left out of the result unless given: their defaults are those of `Settings`."""

    def add(name: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
        group.add_argument(name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text)

    return add


def _whole(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= 1 << 40:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a whole number from {least} on")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _share(text: str) -> float:
    share = _number(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a share above 0 and below 1")
    return share


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a number of seconds")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
