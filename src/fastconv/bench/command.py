# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv bench``.

All contenders run in one process. Each alone in a process of its own is within 5% of that, once their
waiting threads are given time to fall asleep (:data:`~fastconv.bench.timing.SETTLE`), so that nothing
more is needed for fairness. Memory is another matter: see :mod:`~fastconv.bench.memory`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import fastconv as fc
from fastconv._names import only
from fastconv.bench import network_table, peak, report, terminal, training_table, versus
from fastconv.bench.cases import case_of
from fastconv.bench.contenders import (
    OURS,
    PEERS,
    REFERENCES,
    Compiled,
    CompiledStrictly,
    Contender,
    FastConv,
    FastConvCall,
    LayerByLayer,
    find_peers,
    plain_numpy,
    versions,
)
from fastconv.bench.environment import fair_environment, unheld
from fastconv.bench.layers import Refusal, Row, measure_case
from fastconv.bench.memory import PeakMemory
from fastconv.bench.names import MODELS, TRAINERS
from fastconv.bench.networks import LIST, Network, network
from fastconv.bench.shapes import NETWORKS, Layer, layers
from fastconv.bench.timing import Effort

__all__ = ["main"]
__dir__ = only(__all__)

QUICK = Effort(rounds=2, slice_time=0.01)
MANY = Effort(rounds=5, slice_time=0.025, patience=3)  # a dozen contenders
WHOLE = Effort(rounds=7, slice_time=0.1, patience=3)  # networks


def main(args: argparse.Namespace) -> int:
    """Run ``fastconv bench``; ``args.argv`` is the command line it came from.

    Returns
    -------
    int
        The exit status: 1 if a whole network's result is wrong.
    """
    if args.compare:
        one, two = map(report.load, args.compare)
        table = report.comparison(one, two)
        print(table.markdown()) if args.markdown else terminal.show(table)
        return 0
    if args.json == args.markdown == "-":
        raise ValueError("--json and --markdown cannot both go to standard output")
    groups = _groups(args)
    if not groups:
        raise ValueError(f"no layer is called {' or '.join(args.layers)}")
    if args.html and args.peers is None:
        raise ValueError("--html shows fastconv against its peers; it needs --peers")
    if args.plot or args.html:
        from fastconv.bench import plot  # says what is missing before the time is spent
    field, threads = _field(args), args.threads or fc.get_num_threads()
    if field.foreign:
        environment = fair_environment(threads, peers=args.peers is not None)
        if environment is not None:
            command = [sys.executable, "-m", "fastconv", *args.argv]
            return subprocess.run(command, env=environment).returncode
    with fc.threads(threads):
        run, rows, refusals = _measure(args, groups, field)
    _write(args.json, json.dumps(run, indent=1) + "\n")
    if args.markdown:
        target = Path(args.markdown)
        before = target.read_text(encoding="utf-8") if target.is_file() else ""
        _write(args.markdown, report.markdown(run, field.tables(rows, refusals), before, field.section))
    if args.html:
        from fastconv.bench import page

        _write(args.html, page.html(run, rows, field.tables(rows, refusals)))
    if args.plot:
        for path in plot.bars(run, rows, args.plot):
            print(f"wrote {path}", file=sys.stderr)
    # All run the same network: who computes something else was given another one.
    return int(field.networks and not all(row.right for row in rows))


@dataclass(frozen=True)
class _Field:
    """Those who take part, and those who cannot.

    Attributes
    ----------
    contenders : list of Contender
    missing : dict
        Peers that are not installed, and what their import says.
    against_peers : bool
    networks : bool
        Whether whole networks are measured, and no layers.
    training : bool
        Whether gradients are measured, of convolutions alone.
    """

    contenders: list[Contender]
    missing: dict[str, str]
    against_peers: bool
    networks: bool = False
    training: bool = False

    @property
    def foreign(self) -> bool:
        """Whether anybody but fastconv takes part."""
        return any(contender.name not in OURS for contender in self.contenders)

    @property
    def section(self) -> str:
        """Which part of a page its tables are."""
        if self.training:
            return "fastconv bench --training"
        return "fastconv bench --networks" if self.networks else report.SECTION

    def tables(self, rows: Sequence[Row], refusals: Sequence[Refusal]) -> list[terminal.Table]:
        """The tables that show them."""
        if self.networks:
            return network_table.tables(rows, refusals, self.missing, unheld() if self.against_peers else [])
        if self.training:
            return training_table.tables(rows, refusals, self.missing, unheld() if self.against_peers else [])
        if not self.against_peers:
            return report.tables(rows)
        return versus.tables(rows, refusals, self.missing, unheld())


def _measure(
    args: argparse.Namespace, groups: list[_Group], field: _Field
) -> tuple[dict[str, Any], list[Row], list[Refusal]]:
    """All rows; tables are shown as they are finished, unless standard output is spoken for."""
    tables = "-" not in (args.json, args.markdown)
    limits = peak.ceilings(args.dtype)
    command = shlex.join(["fastconv", *args.argv])
    peers = versions(field.contenders)
    if tables:
        terminal.say(report.summary(report.document([], limits, command, peers=peers)))
        for name, reason in field.missing.items():
            terminal.say(f"not installed: {name} ({reason})")
    memory, arithmetic = peak.Memory(), peak.Patient(lambda: peak.fma_peak(args.dtype))
    rows: list[Row] = []
    refusals: list[Refusal] = []
    effort = QUICK if args.quick else WHOLE if field.networks else MANY if field.against_peers else Effort()
    with ExitStack() as stack:
        grown = stack.enter_context(PeakMemory(field.contenders)) if args.memory else None
        for name, batch, members in groups:
            start, refused = len(rows), len(refusals)
            for layer in terminal.track(members, report.title(name)):
                outcome = measure_case(
                    case_of(layer, batch, args.dtype, training=field.training),
                    field.contenders,
                    ceiling=arithmetic if layer.arithmetic else memory.bandwidth,
                    effort=effort,
                    flush=memory.flush if args.cold else None,
                    peak_bytes=grown,
                )
                limits = replace(limits, handover=(*limits.handover, *peak.handover()))
                rows += outcome.rows
                refusals += outcome.refusals
            if tables:
                terminal.show(*field.tables(rows[start:], refusals[refused:]))
    for kind, name in (("conv", "fma"), ("gradients", "fma"), ("network", "fma"), ("pool", "bandwidth")):
        limits = limits.joined(name, [row.ceiling for row in rows if row.kind == kind])
    run = report.document(rows, limits, command, peers=peers, missing=field.missing, refusals=refusals)
    return run, rows, refusals


class _Group(NamedTuple):
    """What makes a table."""

    name: str
    batch: int
    members: Sequence[Layer | Network]


#: Options that have no meaning for whole networks, and what they are where nobody gives them.
_OF_LAYERS = {
    "network": ["vgg16"],
    "layers": ["*"],
    "layout": ["NCHW", "NHWC"],
    "algorithm": ["auto"],
    "dtype": "float32",
    "training": False,
    "reference": None,
    "plot": None,
    "html": None,
}


def _groups(args: argparse.Namespace) -> list[_Group]:
    if args.networks is not None:
        for option, of_layers in _OF_LAYERS.items():
            if getattr(args, option) != of_layers:
                raise ValueError(f"--{option} is about layers; it cannot go with --networks")
        return _whole(args)
    return [
        _Group(name, batch, members) for name, members in _chosen_layers(args).items() for batch in args.batch or [1]
    ]


def _whole(args: argparse.Namespace) -> list[_Group]:
    """Networks by batch; unless one is asked for, those at which each has an aim."""
    names = MODELS if "all" in (args.networks or ["all"]) else dict.fromkeys(args.networks)
    chosen = [network(name) for name in names]
    batches = args.batch or sorted({batch for one in chosen for batch in one.aims})
    groups = [
        _Group(LIST, batch, [one for one in chosen if args.batch or batch in one.aims])
        for batch in dict.fromkeys(batches)
    ]
    return [group for group in groups if group.members]


def _chosen_layers(args: argparse.Namespace) -> dict[str, list[Layer]]:
    networks = NETWORKS if "all" in args.network else args.network
    chosen = {
        network: [
            layer
            for layer in layers(network)
            if any(fnmatchcase(layer.name, glob) for glob in args.layers) and (layer.arithmetic or not args.training)
        ]
        for network in networks
    }
    return {network: members for network, members in chosen.items() if members}


def _field(args: argparse.Namespace) -> _Field:
    if args.networks is not None:
        return _field_of_networks(args)
    if args.training:
        return _field_of_training(args)
    algorithms = list(args.algorithm)
    if "all" in algorithms:
        algorithms = ["auto", *(name for name in fc.ALGORITHMS if name != "reference")]
    ours: list[Contender] = [FastConv(layout, name) for name in dict.fromkeys(algorithms) for layout in args.layout]
    references = args.reference
    if references is None:
        references = list(REFERENCES) if args.peers is None else []
    others: list[Contender] = [getattr(plain_numpy, form)() for name, form in REFERENCES.items() if name in references]
    if args.peers is None:
        return _Field([*others, *ours], {}, against_peers=False)
    peers, missing = find_peers(_peers(args))
    calls = [FastConvCall(layout) for layout in args.layout]
    return _Field([*others, *peers, *ours, *calls], missing, against_peers=True)


def _peers(args: argparse.Namespace) -> list[str]:
    return list(PEERS) if "all" in (args.peers or ["all"]) else args.peers


def _field_of_networks(args: argparse.Namespace) -> _Field:
    ours: list[Contender] = [Compiled(), *([CompiledStrictly()] if args.memory else []), LayerByLayer()]
    if args.peers is None:
        return _Field(ours, {}, against_peers=False, networks=True)
    if "numpy" in args.peers:
        raise ValueError("--peers names numpy, which runs layers alone; it cannot go with --networks")
    peers, missing = find_peers(_peers(args))
    return _Field([*(peer for peer in peers if peer.networks), *ours], missing, against_peers=True, networks=True)


def _field_of_training(args: argparse.Namespace) -> _Field:
    for option in ("reference", "plot", "html"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} is about forward passes; it cannot go with --training")
    ours: list[Contender] = [FastConv(layout, name) for name in dict.fromkeys(args.algorithm) for layout in args.layout]
    if args.peers is None:
        return _Field(ours, {}, against_peers=False, training=True)
    peers, missing = find_peers(name for name in _peers(args) if name in TRAINERS)
    return _Field([*(peer for peer in peers if peer.trains), *ours], missing, against_peers=True, training=True)


def _write(target: str | None, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
    elif target:
        Path(target).write_text(text, encoding="utf-8")
        print(f"wrote {target}", file=sys.stderr)
