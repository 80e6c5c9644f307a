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
from fastconv._names import only
from fastconv.bench import terminal
from fastconv.bench.report import machine
from fastconv.graph import CompiledNet

__all__ = ["main"]
__dir__ = only(__all__)

FILES = (".npz", ".safetensors")


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
    profile.title = ", ".join([args.model, *("×".join(map(str, x.shape)) for x in inputs), str(inputs[0].dtype)])
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
    if Path(args.model).suffix in FILES:
        net = fc.load_net(args.model)
        if args.layout is not None:
            raise ValueError(f"--layout is {args.layout}; {args.model} has been compiled for its own")
        return net
    if args.model not in models.names():
        known = ", ".join(models.names())
        raise ValueError(f"MODEL is {args.model!r}; it needs one of {known}, or a file ({', '.join(FILES)})")
    model = models.get(args.model)(rng=0).eval()
    seen = model.preprocessing
    size = seen.crop if args.size is None else args.size
    shape = (1 if args.batch is None else args.batch, len(seen.mean), size, size)
    if args.layout == "NHWC":
        shape = (shape[0], *shape[2:], shape[1])
    return fc.compile(model, shape, layout=args.layout)


def _inputs(net: CompiledNet, args: argparse.Namespace) -> list[np.ndarray]:
    """Random numbers for all inputs: of the network's sizes, and of those asked for where it leaves them open."""
    rng, arrays = np.random.default_rng(0), []
    for name, shape, dtype in net.inputs:
        if shape is None:
            raise ValueError(f"{args.model} takes {name} of any shape; compile it for one to profile it")
        batch, *rest = shape
        for option, asked, declared in (("--batch", args.batch, [batch]), ("--size", args.size, rest)):
            if asked is not None and None not in declared and asked not in declared:
                raise ValueError(f"{option} is {asked}; {args.model} takes {name} of shape {shape}")
        if None in rest and args.size is None:
            raise ValueError(f"{args.model} takes {name} of any size; --size says which to profile")
        sizes = [args.batch or 1 if batch is None else batch, *(args.size if n is None else n for n in rest)]
        arrays.append(rng.standard_normal(sizes).astype(dtype))
    return arrays
