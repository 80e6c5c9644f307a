# SPDX-License-Identifier: BSD-3-Clause
"""The command line of ``fastconv bench``, described without loading what it measures."""

from __future__ import annotations

import argparse
import shutil
import textwrap

from fastconv import _args
from fastconv._names import only
from fastconv.bench.names import MODELS, PEERS, REFERENCES
from fastconv.bench.shapes import LISTS, NETWORKS

__all__ = ["add_arguments"]
__dir__ = only(__all__)

ALGORITHMS = ("auto", "winograd", *_args.ALGORITHMS)

USAGE = """fastconv bench [--network NAME ...] [--peers [NAME ...]] [options]
       fastconv bench --networks [NAME ...] [--peers [NAME ...]] [options]
       fastconv bench --compare A B [--markdown [FILE]]"""

EXAMPLES = """examples:
  fastconv bench                                    VGG-16: NumPy and fastconv
  fastconv bench --quick --network lenet5           a first look
  fastconv bench --network resnet50 --reference none --batch 1 8
  fastconv bench --network table --layers "r50*" --algorithm all
  fastconv bench --peers --network table --html peers.html
  fastconv bench --training --peers torch --network table --batch 8
  fastconv bench --networks --peers                 whole networks
  fastconv bench --networks resnet50 --peers ncnn onnxruntime --quick
  fastconv bench --json before.json                 and after a change:
  fastconv bench --compare before.json after.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``fastconv bench``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = USAGE
    parser.description = textwrap.fill(
        "Time known networks and their layers, here and elsewhere; check the results.", _width()
    )
    parser.epilog = f"{EXAMPLES}\n{_names()}"

    what = parser.add_argument_group("what to measure")
    _by_name(what, "--network", "networks whose layers to run (vgg16)", (*NETWORKS, "all"), default=["vgg16"])
    _by_name(what, "--networks", "whole networks instead, compiled and layer by layer (all)", (*MODELS, "all"), "*")
    what.add_argument("--training", action="store_true", help="the gradients of convolutions instead")
    what.add_argument("--layers", nargs="+", metavar="GLOB", default=["*"], help='only layers of such names, as "c*"')
    what.add_argument("--layout", nargs="+", choices=("NCHW", "NHWC"), default=["NCHW", "NHWC"], help="(both)")
    what.add_argument(
        "--batch", nargs="+", type=_positive, metavar="N", help="images at a time (1; of some whole networks 1 and 8)"
    )
    what.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(float32)")
    _by_name(what, "--algorithm", "how fastconv convolves (auto)", (*ALGORITHMS, "all"), default=["auto"])

    whom = parser.add_argument_group("beside whom")
    _by_name(whom, "--reference", "forms of NumPy (both; with --peers none)", (*REFERENCES, "none"))
    _by_name(
        whom, "--peers", "other libraries, and fastconv.conv2d beside fastconv.ConvPlan (all)", (*PEERS, "all"), "*"
    )

    how = parser.add_argument_group("how")
    how.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads of fastconv and of NumPy's BLAS (as many as fastconv takes by itself)",
    )
    how.add_argument("--quick", action="store_true", help="short and rough")
    how.add_argument("--cold", action="store_true", help="also calls that find the caches flushed")
    how.add_argument("--memory", action="store_true", help="also peak memory, each in a process of its own (Linux)")

    show = parser.add_argument_group("what to do with the result")
    for name, text in (("json", "keep as JSON"), ("markdown", "write as Markdown")):
        show.add_argument(f"--{name}", nargs="?", const="-", metavar="FILE", help=f"{text} (standard output)")
    show.add_argument("--html", metavar="FILE", help="write a page with tables and plots (needs --peers)")
    show.add_argument("--plot", metavar="FILE", help="draw bars (png, svg or pdf; one per network)")
    show.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="measure nothing, but set two JSON files side by side"
    )


def _by_name(
    group: argparse._ArgumentGroup,
    option: str,
    text: str,
    names: tuple[str, ...],
    nargs: str = "+",
    default: list[str] | None = None,
) -> None:
    """An option that takes names, which stand once below all options."""
    group.add_argument(option, nargs=nargs, metavar="NAME", choices=names, default=default, help=text)


def _width() -> int:
    """Columns of text that is set here; ``argparse`` has the same."""
    return max(38, min(100, shutil.get_terminal_size().columns) - 2)


def _names() -> str:
    """What the names that options take mean."""
    networks = [name for name in NETWORKS if name not in LISTS]
    meanings = {
        "--network": {" ".join(networks): "", **LISTS, "all": "each of these"},
        "--networks": {" ".join(MODELS): "", "all": "each of these"},
        "--algorithm": {
            " ".join(ALGORITHMS): "",
            "all": "auto and, beside it, all but the reference",
        },
        "--reference": {" ".join(REFERENCES): "", "none": ""},
        "--peers": {" ".join(PEERS): "", "all": "those that are installed; the others are named"},
    }
    lines = ["names:"]
    for option, by_name in meanings.items():
        lines.append(f"  {option}")
        for name, meaning in by_name.items():
            entry = f"{name}: {meaning}" if meaning else name
            lines += textwrap.wrap(
                entry, _width(), initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
            )
    return "\n".join(lines)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a number from 1 to 256")
    return int(text)
