# SPDX-License-Identifier: BSD-3-Clause
"""The command line: ``fastconv info``, ``fastconv demo`` and ``fastconv bench``.

A command is loaded only when it is called, and those that need more than NumPy say which extra
brings it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

#: Packages that not everybody has, and the extra that brings them.
EXTRAS = dict.fromkeys(("matplotlib", "PIL", "rich", "safetensors", "sklearn"), "demo")


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
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parser(argv).parse_args(argv)
    args.argv = argv
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
        if package not in EXTRAS:
            raise
        return _failed(
            f'{argv[0]} needs {package}, which is not installed: python -m pip install "fastconv[{EXTRAS[package]}]"'
        )
    except (OSError, ValueError) as error:
        return _failed(str(error))


def _failed(message: str) -> int:
    print(f"fastconv: {message}", file=sys.stderr)
    return 1


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    from fastconv import __version__

    parser = argparse.ArgumentParser(prog="fastconv", description="Fast convolutional networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what runs the kernels, and how fast it could")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(command=_info)

    demo = commands.add_parser("demo", help="learn handwriting, and run VGG-16 on a photograph")
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
        from fastconv.bench.command import add_arguments

        add_arguments(bench)
    bench.set_defaults(command=_bench)
    return parser


def _info(args: argparse.Namespace) -> int:
    import fastconv as fc
    from fastconv.bench import peak

    counts = sorted({1, fc.get_num_threads()})
    peaks = {dtype: {count: fc.fma_peak(dtype, count) for count in counts} for dtype in ("float32", "float64")}
    bandwidths = {count: peak.Memory(count).bandwidth() for count in counts}
    if args.json:
        print(
            json.dumps(
                {
                    **fc.config(),
                    "fma_peak_gflops": peaks,
                    "memory_bandwidth_gb_per_second": bandwidths,
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
    show(Table(title, [*heads, Column("memory\nGB/s")], rows))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from fastconv import demo

    return demo.main(args.output, args.seed, args.json)


def _bench(args: argparse.Namespace) -> int:
    from fastconv.bench import command

    return command.main(args)
