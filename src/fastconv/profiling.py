# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv profile``: what each step of a compiled network takes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import fastconv as fc
from fastconv import models
from fastconv._files import NETWORKS, is_network, network_of
from fastconv._names import only
from fastconv.bench import terminal
from fastconv.bench.report import machine
from fastconv.graph import CompiledNet

__all__ = ["main"]
__dir__ = only(__all__)


def main(args: argparse.Namespace) -> int:
    """Run ``fastconv profile``.

    Returns
    -------
    int
        The exit status.
    """
    wanted = fc.get_num_threads() if args.threads is None else args.threads
    with fc.threads(wanted), terminal.stages(lasting=False) as stage:
        tick = stage(f"{args.model} is compiled", 1)
        net = _net(args)
        inputs = _inputs(net, args)
        tick()
        tick = stage(f"{args.model} runs", 1)
        profile = net.profile(*inputs, repeats=args.repeats)
        tick()
    if args.threads not in (None, profile.threads):
        raise ValueError(f"--threads is {args.threads}; {args.model} was compiled for {profile.threads}")
    shapes = ["×".join(map(str, x.shape)) for x in inputs]
    profile.title = ", ".join([args.model, *shapes, *dict.fromkeys(str(x.dtype) for x in inputs)])
    for target, text in ((args.svg, profile.to_svg), (args.html, profile.to_html)):
        if target:
            Path(target).write_text(text(), encoding="utf-8")
            print(f"wrote {target}", file=sys.stderr)
    if args.json:
        facts = {"model": args.model, "repeats": args.repeats, "machine": machine()}
        print(json.dumps({**facts, **profile.record()}, indent=1))
    else:
        terminal.show(profile.table())
    return 0


def _net(args: argparse.Namespace) -> CompiledNet:
    """The network of a name or of a file."""
    if is_network(args.model):
        return network_of(args.model, args.layout)
    if args.shape:
        raise ValueError(f"--shape is for files; {args.model} has --batch and --size")
    if args.model not in models.names():
        known = ", ".join(models.names())
        raise ValueError(f"MODEL is {args.model!r}; it needs one of {known}, or a file ({', '.join(NETWORKS)})")
    model = models.get(args.model)(rng=0).eval()
    seen = model.preprocessing
    size = seen.crop if args.size is None else args.size
    shape = (1 if args.batch is None else args.batch, len(seen.mean), size, size)
    if args.layout == "NHWC":
        shape = (shape[0], *shape[2:], shape[1])
    return fc.compile(model, shape, layout=args.layout)


def _inputs(net: CompiledNet, args: argparse.Namespace) -> list[np.ndarray]:
    """Random numbers for all inputs: of the network's sizes, and of those asked for where it leaves them open."""
    _check_options(net, args)
    rng, arrays, asked = np.random.default_rng(0), [], _shapes(net, args)
    for name, shape, dtype in net.inputs:
        sizes = asked[name] if name in asked else _sizes(name, shape, args)
        arrays.append(rng.standard_normal(sizes).astype(dtype))
    return arrays


def _shapes(net: CompiledNet, args: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Those of --shape, by the names of inputs; the first is meant where none is given."""
    names, found = [t.name for t in net.inputs], {}
    for name, sizes in args.shape:
        if not names or name not in (None, *names):
            raise ValueError(f"--shape is for {name!r}; the inputs of {args.model} are {', '.join(names) or 'none'}")
        found[name or names[0]] = sizes
    return found


def _check_options(net: CompiledNet, args: argparse.Namespace) -> None:
    """What is asked for has to be a size that an input has or leaves open."""
    for option, asked, part in (("--batch", args.batch, slice(1)), ("--size", args.size, slice(1, None))):
        shapes = [t.shape[part] for t in net.inputs if t.shape is not None]
        if asked is not None and shapes and not any(None in sizes or asked in sizes for sizes in shapes):
            t = net.inputs[0]
            raise ValueError(f"{option} is {asked}; {args.model} takes {t.name} of shape {t.shape}")


def _sizes(name: str, shape: tuple[int | None, ...] | None, args: argparse.Namespace) -> list[int]:
    if shape is None:
        raise ValueError(f"{args.model} takes {name} of any shape; --shape {name}=N,... says which to profile")
    if None in shape[1:] and args.size is None:
        raise ValueError(f"{args.model} takes {name} of any size; --size says which to profile")
    asked = (args.batch or 1, *[args.size] * len(shape[1:]))
    return [n if m is None else m for n, m in zip(asked, shape, strict=False)]
