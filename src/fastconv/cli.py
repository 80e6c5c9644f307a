# SPDX-License-Identifier: BSD-3-Clause
"""The command line: ``fastconv info``, ``demo``, ``bench``, ``tune``, ``profile``, ``classify`` and ``train``.

A command is loaded only when it is called, and those that need more than NumPy say what to install.
Nothing here needs the C core before that: ``--help`` and ``--version`` answer whatever the environment
asks for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence

from fastconv._names import only
from fastconv._version import __version__
from fastconv.bench import terminal

__all__ = ["main"]
__dir__ = only(__all__)

#: Packages that not everybody has, and what to install for them.
INSTALL = {
    "matplotlib": "matplotlib",
    "onnx": "onnx",
    "PIL": "pillow",
    "rich": "rich",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        The exit status: 0, or 1 when something failed, with one line on stderr that says what.

    Raises
    ------
    SystemExit
        Of status 2 for wrong arguments, and 0 after ``--help`` and ``--version``.

    Examples
    --------
    >>> from fastconv.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    fastconv ...
    0
    """
    with terminal.spelled():
        return _run(sys.argv[1:] if argv is None else list(argv))


def _run(argv: list[str]) -> int:
    import fastconv

    args = _parser(argv).parse_args(argv)
    args.argv = argv
    if fastconv._failure is not None:
        return _failed(str(fastconv._failure))
    try:
        status = args.command(args) or 0
        sys.stdout.flush()  # a reader who has gone away is to be noticed here
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as in `fastconv bench | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in INSTALL:
            raise
        return _failed(f"{argv[0]} needs {package}, which is not installed: python -m pip install {INSTALL[package]}")
    except (OSError, ValueError) as error:
        return _failed(str(error))


def _failed(message: str) -> int:
    print(f"fastconv: {message}", file=sys.stderr)
    return 1


EXAMPLES = """examples:
  fastconv info              what runs here, and how fast the machine could be
  fastconv bench --quick     VGG-16 layer by layer, beside NumPy
  fastconv bench --help      what else there is to measure
  fastconv tune              let this machine choose its algorithms better
  fastconv profile resnet50  where the time of a whole network goes
  fastconv profile model.onnx --size 320
  fastconv classify cat.jpg --model vgg16 --weights vgg16.safetensors
  fastconv classify cat.jpg --model model.onnx --labels labels.txt
  fastconv train --data photos --model resnet18

Every command takes --help and --json. The environment variables
FASTCONV_NUM_THREADS and FASTCONV_ISA (scalar, avx2, avx512, neon) limit what
is used."""


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastconv",
        usage="fastconv COMMAND [options]",
        description="Fast convolutional networks on the CPU.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(required=True, title="commands", metavar="COMMAND", prog="fastconv")

    text = "what runs the kernels, and how fast it could"
    info = commands.add_parser("info", help=text, description=f"Show {text}.")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(command=_info)

    demo = commands.add_parser(
        "demo",
        help="learn handwriting, and run VGG-16 on a photograph",
        description="Let two networks learn handwriting, and run VGG-16 on a photograph.",
    )
    demo.add_argument(
        "--output",
        metavar="DIR",
        default="fastconv-demo",
        help="where pictures and index.html go (%(default)s)",
    )
    demo.add_argument("--json", action="store_true", help="print the figures as JSON")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="of the demo (%(default)s)")
    demo.set_defaults(command=_demo)

    bench = commands.add_parser("bench", help="time layers of well-known networks")
    if "bench" in argv:
        from fastconv.bench.arguments import add_arguments

        add_arguments(bench)
    bench.set_defaults(command=_bench)

    tune = commands.add_parser(
        "tune",
        usage="fastconv tune [--seconds S | --show | --reset] [--json]",
        help="measure what this machine's choice of algorithms rests on",
        description="Measure on one thread what the choice of algorithms rests on, and keep it for this version, "
        "instruction set and processor: in the file that FASTCONV_TUNE names, or in the user's cache.",
    )
    tune.add_argument("--seconds", type=_seconds, default=15.0, metavar="S", help="to measure for (%(default)s)")
    tune.add_argument("--json", action="store_true", help="print JSON")
    instead = tune.add_mutually_exclusive_group()
    instead.add_argument("--show", action="store_true", help="only show what is in use")
    instead.add_argument("--reset", action="store_true", help="forget what was measured")
    tune.set_defaults(command=_tune)

    profile = commands.add_parser(
        "profile",
        usage="fastconv profile MODEL [options]",
        help="show where the time of a whole network goes",
        description="Compile a network for inference, run it on random numbers, and show what each of its steps takes.",
    )
    profile.add_argument(
        "model",
        metavar="MODEL",
        help="a network of fastconv.models, with random weights (lenet5, vgg16, resnet50, ...), an ONNX model (.onnx), "
        "or a file that CompiledNet.save wrote (.npz, .safetensors)",
    )
    profile.add_argument("--batch", type=_number(1024), metavar="N", help="images at a time (1)")
    profile.add_argument("--size", type=_number(8192), metavar="N", help="their height and width (as in training)")
    profile.add_argument(
        "--shape",
        type=_shape,
        action="append",
        default=[],
        metavar="[NAME=]N,...",
        help="shape of an input of a file, the first by default; may be given again",
    )
    profile.add_argument("--layout", choices=("NCHW", "NHWC"), help="of the images (NCHW, or as the file says)")
    profile.add_argument("--threads", type=_number(256), metavar="N", help="(as many as fastconv takes by itself)")
    profile.add_argument(
        "--repeats",
        type=_number(10_000),
        default=10,
        metavar="N",
        help="calls, of which medians are shown (%(default)s)",
    )
    profile.add_argument("--json", action="store_true", help="print JSON")
    profile.add_argument("--html", metavar="FILE", help="write a page with the table and a picture of the network")
    profile.add_argument("--svg", metavar="FILE", help="write the picture")
    profile.set_defaults(command=_profile)

    classify = commands.add_parser(
        "classify",
        usage="fastconv classify IMAGE ... [--model MODEL] [--weights FILE] [options]",
        help="say what a network sees in images",
        description="Prepare images as the network was trained to see them, run it, and print its likeliest classes. "
        "What is transparent becomes white, and photographs are turned as their cameras say. "
        "A file does not say how its network was trained: on ImageNet as is usual, unless options say otherwise. "
        "Without a model, a LeNet-5 that comes with fastconv reads handwritten digits.",
    )
    classify.add_argument("images", metavar="IMAGE", nargs="+", help="any file that Pillow reads")
    classify.add_argument(
        "--model",
        metavar="MODEL",
        help="a network of fastconv.models (vgg16, resnet50, ...), an ONNX model (.onnx), a file that "
        "CompiledNet.save wrote (.npz, .safetensors), or a folder that fastconv train wrote",
    )
    classify.add_argument(
        "--weights",
        metavar="FILE",
        help="state dict of a network of fastconv.models, .safetensors or .npz, with torchvision's names",
    )
    classify.add_argument("--labels", metavar="FILE", help="a line of text for each class, in their order")
    classify.add_argument("--resize", type=_number(8192), metavar="N", help="length of the shorter side (crop × 8/7)")
    classify.add_argument(
        "--crop",
        type=_number(8192),
        metavar="N",
        help="side of the square in the middle (what the network takes, or 224)",
    )
    classify.add_argument(
        "--mean", type=_numbers, metavar="R,G,B", help="taken from pixels between 0 and 1 (0.485,0.456,0.406)"
    )
    classify.add_argument("--std", type=_numbers, metavar="R,G,B", help="what divides them then (0.229,0.224,0.225)")
    classify.add_argument(
        "--bgr", action="store_true", help="channels in the order blue, green, red; so are mean and std"
    )
    classify.add_argument("--top", type=_number(100_000), default=5, metavar="N", help="classes to show (%(default)s)")
    classify.add_argument("--threads", type=_number(256), metavar="N", help="(as many as fastconv takes by itself)")
    classify.add_argument("--json", action="store_true", help="print JSON")
    classify.set_defaults(command=_classify)

    train = commands.add_parser("train", help="let a network learn from images, a folder for each class")
    if "train" in argv:
        from fastconv._train import add_arguments as add_training_arguments

        add_training_arguments(train)
    train.set_defaults(command=_train)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a number of seconds up to 3600")
    return seconds


def _number(most: int) -> Callable[[str], int]:
    """What takes an argument for a number from 1 to ``most``."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"it is {text!r}; it needs a number from 1 to {most}")
        return int(text)

    return number


def _numbers(text: str) -> tuple[float, ...]:
    """Of one channel, or of three."""
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs one number, or three with commas between them")
    return numbers


def _shape(text: str) -> tuple[str | None, tuple[int, ...]]:
    """A name, if there is one, and sizes."""
    name, _, sizes = text.rpartition("=")
    words = sizes.split(",")
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise argparse.ArgumentTypeError(f"it is {text!r}; it needs sizes with commas between them, as x=1,3,320,320")
    return name or None, tuple(map(int, words))


def _info(args: argparse.Namespace) -> int:
    from functools import partial

    import fastconv as fc
    from fastconv.bench import peak

    counts = sorted({1, fc.get_num_threads()})
    dtypes = ("float32", "float64")
    seen = {d: peak.readings({n: partial(peak.fma_peak, d, n) for n in counts}, "GFLOP/s") for d in dtypes}
    memory = peak.readings({n: peak.Memory(n).bandwidth for n in counts}, "GB/s", rounds=3)
    peaks = {dtype: {n: seen[dtype][n].high for n in counts} for dtype in dtypes}
    bandwidths = {n: memory[n].high for n in counts}
    ranges = [found for by_threads in (*seen.values(), memory) for found in by_threads.values()]
    apart = peak.handover()
    disturbed = [found.warning for found in ranges if not found.quiet][:1]
    if args.json:
        print(
            json.dumps(
                {
                    **fc.config(),
                    "fma_peak_gflops": peaks,
                    "memory_bandwidth_gb_per_second": bandwidths,
                    "handover_nanoseconds": apart[0] if apart else None,
                    "quiet": not disturbed,
                },
                indent=1,
            )
        )
        return 0
    fc.show_config()
    print()
    from fastconv.bench.terminal import Column, Table, show

    heads = [Column("threads"), Column("float32\nGFLOP/s"), Column("float64\nGFLOP/s")]
    rows = [[str(n), *(f"{peaks[dtype][n]:.0f}" for dtype in peaks), f"{bandwidths[n]:.1f}"] for n in counts]
    title = "What this machine can do, measured now"
    near = [f"A line of memory takes {ns:.0f} ns from one thread to another." for ns in apart]
    show(Table(title, [*heads, Column("memory\nGB/s")], rows, notes=[*near, *disturbed]))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from fastconv import demo

    return demo.main(args.output, args.seed, args.json)


def _bench(args: argparse.Namespace) -> int:
    from fastconv.bench import command

    return command.main(args)


def _tune(args: argparse.Namespace) -> int:
    from dataclasses import asdict
    from datetime import date

    from fastconv import _core, _costs

    file = _costs.path()
    if file is None and not args.show:
        raise ValueError("FASTCONV_TUNE is 'off'; tuning needs a file to keep its result in")
    if args.reset and file is not None:
        found = file.exists()
        file.unlink(missing_ok=True)
        report = {"file": str(file), "removed": found}
        print(json.dumps(report) if args.json else f"{file}: {'removed' if found else 'there was none'}")
        return 0
    from fastconv.bench.terminal import Column, Table, show, track

    nominal, costs, notes = _costs.nominal().seconds, _costs.COSTS.seconds, []
    outcome = None
    if file is not None and not args.show:
        from fastconv import tune

        costs, outcome = tune.run(args.seconds, lambda percents: track(percents, "measuring"))
        _costs.save(file, costs, {"date": date.today().isoformat(), "outcome": asdict(outcome)})
        notes = [
            f"{outcome.samples} convolutions, a third of them held out. On those, nominal -> tuned:",
            f"typical factor between prediction and clock {outcome.error:.2f} -> {outcome.tuned_error:.2f},",
            f"choices within a tenth of the fastest {outcome.right:.0%} -> {outcome.tuned_right:.0%},",
            f"time against the fastest algorithm's {outcome.loss:.3f} -> {outcome.tuned_loss:.3f}.",
            *([] if outcome.better else [f"The nominal constants were kept: {outcome.objection}."]),
            f"Written to {file}; processes that start from now on use it.",
        ]
    if args.json:
        report = {
            "file": str(file) if outcome or _costs.COSTS.tuned else None,
            "costs": dict(zip(_core.COST_NAMES, costs, strict=True)),
            "nominal": dict(zip(_core.COST_NAMES, nominal, strict=True)),
            "outcome": asdict(outcome) if outcome else None,
        }
        print(json.dumps(report, indent=1))
        return 0
    rows = [
        [name, f"{was * 1e9:.3g}", f"{now * 1e9:.3g}", f"{now / was:.2f}"]
        for name, was, now in zip(_core.COST_NAMES, nominal, costs, strict=True)
    ]
    heads = [Column("constant", left=True), Column("nominal\nns"), Column("in use\nns"), Column("ratio")]
    show(Table("What the choice of algorithms rests on, one thread", heads, rows, notes=notes or [_costs.origin()]))
    return 0


def _profile(args: argparse.Namespace) -> int:
    from fastconv import profiling

    return profiling.main(args)


def _classify(args: argparse.Namespace) -> int:
    from fastconv import classify

    return classify.main(args)


def _train(args: argparse.Namespace) -> int:
    from fastconv.training import command

    return command.main(args)
