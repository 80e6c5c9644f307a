# SPDX-License-Identifier: BSD-3-Clause
"""Spoil ONNX models and compile them: each is to run, or to be an error that says why.

    python tools/fuzz_onnx.py --count 10000 [MODEL.onnx ...]

Besides the models that are given, those of onnx's own tests are spoilt: bytes, or fields of the model, of which numbers
become odd, names those of others, and lists shorter or longer. A process of its own tries them one after the other. If
it dies, says nothing for a while or takes too much memory, that model is reported, and another goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from onnx import ModelProto

import fastconv as fc

#: What a model that makes no sense may raise; what its files may, too.
EXPECTED = (ValueError, TypeError, NotImplementedError, MemoryError, OSError)
_DATA = Path(onnx.__file__).parent / "backend/test/data"
_FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")
_LIGHT = ("light_squeezenet", "light_shufflenet")
_ODD = (-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 3, 8, 255, 1 << 31, 1 << 40, (1 << 63) - 1)
_ADDRESSES = 6 << 30  # bytes that a process may ask for
_WORK = 1 << 26  # elements of what is run, and of what it computes


def sources(more: list[str], only: bool = False) -> list[Path]:
    """The models to spoil."""
    if only:
        return [Path(name) for name in more]
    found = [path for folder in _FOLDERS for path in sorted((_DATA / folder).glob("*/model.onnx"))]
    found += [_DATA / "light" / f"{name}.onnx" for name in _LIGHT]
    return [path for path in found if path.exists()] + [Path(name) for name in more]


# --- spoiling ---------------------------------------------------------------------------------------------------------


def spoilt(text: bytes, rng: np.random.Generator) -> bytes:
    """A model as a file has it, with one to three changes."""
    if rng.random() < 0.2:
        return _bytes(text, rng)
    model = ModelProto.FromString(text)
    places = list(_places(model))
    strings = [value for message, field in places for value in _strings(message, field)]
    for _ in range(int(rng.integers(1, 4))):
        _change(*places[int(rng.integers(len(places)))], strings, rng)
    return model.SerializeToString()


def _bytes(text: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.3:
        return text[: int(rng.integers(len(text)))]
    changed = bytearray(text)
    for at in rng.integers(min(len(text), 1 << 16), size=int(rng.integers(1, 5))):
        changed[at] = int(rng.integers(256))
    return bytes(changed)


def _places(message: Any) -> Any:
    """All fields that are set, of a message and of those in it."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if _is_list(value) else [value]:
                yield from _places(inner)


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes))


def _strings(message: Any, field: Any) -> list[str]:
    value = getattr(message, field.name)
    if field.type != FieldDescriptor.TYPE_STRING:
        return []
    return list(value)[:8] if _is_list(value) else [value]


def _change(message: Any, field: Any, strings: list[str], rng: np.random.Generator) -> None:
    try:
        value = getattr(message, field.name)
        if not _is_list(value):
            if field.type == FieldDescriptor.TYPE_MESSAGE or rng.random() < 0.1:
                message.ClearField(field.name)
            else:
                setattr(message, field.name, _other(value, strings, rng))
            return
        if not len(value):
            return
        at, how = int(rng.integers(len(value))), rng.random()
        if how < 0.3:
            del value[at]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            value.add().CopyFrom(value[at])
            if how < 0.6:
                value.insert(0, value.pop())
        elif how < 0.5:
            value.append(_other(value[at], strings, rng))
        else:
            value[at] = _other(value[at], strings, rng)
    except (
        ValueError,
        TypeError,
        AttributeError,
    ):  # what the field cannot hold, or its list not do
        return


def _other(value: Any, strings: list[str], rng: np.random.Generator) -> Any:
    if isinstance(value, (bool, int)):
        return int(rng.choice([*map(int, _ODD[1:-2]), value + 1, value - 1])) if rng.random() < 0.8 else _ODD[-1]
    if isinstance(value, float):
        return float(rng.choice([0.0, -1.0, np.nan, np.inf, 1e30, -value]))
    if isinstance(value, str):
        return strings[int(rng.integers(len(strings)))] if strings and rng.random() < 0.8 else value[:-1]
    return _bytes(value, rng) if value else value


# --- trying -----------------------------------------------------------------------------------------------------------


def tried(text: bytes, path: Path | None) -> str:
    """What becomes of a model, by way of a file if there is a path for one; what is not expected is raised."""
    stage = "read"
    try:
        if path is None:
            try:
                model: Any = ModelProto.FromString(text)
            except Exception:  # protobuf's own
                return "no protobuf"
        else:
            path.write_bytes(text)
            model = path
        stage = "compile"
        net = fc.compile(model)
        shapes = [tuple(3 if n is None else n for n in t.shape or (1, 3, 32, 32)) for t in net.inputs]
        if sum(float(np.prod(shape, dtype=float)) for shape in shapes) > _WORK:
            return "compiled"
        stage = "run"
        arrays = [np.ones(shape, t.dtype) for shape, t in zip(shapes, net.inputs, strict=True)]
        _, program = net._taken(tuple(arrays), {})
        if program.arena_bytes > 4 * _WORK or sum(step.flops for step in program.steps) > 100 * _WORK:
            return "planned"
        net(*arrays)
        return "ran"
    except EXPECTED as error:
        if not str(error) and not isinstance(error, MemoryError):
            raise AssertionError(f"a {type(error).__name__} that says nothing") from error
        return f"{stage}: {type(error).__name__}"


def _case(files: list[Path], seed: int, number: int) -> tuple[Path, bytes]:
    rng = np.random.default_rng([seed, number])
    path = files[int(rng.integers(len(files)))]
    return path, spoilt(path.read_bytes(), rng)


def _work(args: argparse.Namespace) -> None:
    """Tries models from a number on; a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    files = sources(args.models, args.only)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.work, args.count):
            source, text = _case(files, args.seed, number)
            start = time.perf_counter()
            try:
                outcome = tried(text, Path(folder) / "spoilt.onnx" if number % 2 else None)
            except Exception as error:
                import traceback

                outcome = f"UNEXPECTED {type(error).__name__}: {error} {traceback.format_exc()[-600:]}"
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            spent = time.perf_counter() - start
            print(json.dumps([number, source.parent.name, outcome, round(spent, 3), peak]), flush=True)
            if peak > args.memory:
                return


def _answers(args: argparse.Namespace, first: int) -> Iterator[list[Any] | str]:
    """What a process says of each model from ``first`` on; last what is wrong with it, if it has not come to an end."""
    command = [sys.executable, __file__, *args.models, "--work", str(first)]
    if args.only:
        command.append("--only")
    for name in ("count", "seed", "memory"):
        command += [f"--{name}", str(getattr(args, name))]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: Queue[str] = Queue()

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.put(line)
        lines.put("")

    Thread(target=read, daemon=True).start()
    try:
        while line := lines.get(timeout=args.seconds + 30):
            yield json.loads(line)
        if worker.wait() != 0:
            yield f"ended the process with status {worker.returncode}"
    except Empty:
        yield f"said nothing for {args.seconds + 30} s"
    finally:
        worker.kill()
        worker.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL.onnx", help="to spoil as well")
    parser.add_argument("--only", action="store_true", help="spoil those models alone, and none of onnx's")
    parser.add_argument("--count", type=int, default=1000, help="of models (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="that a model may take (%(default)s)")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that a process may have taken (%(default)s)")
    parser.add_argument("--write", metavar="FILE", help="write model number --first as it was spoilt, and do no more")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only and not args.models:
        parser.error("--only needs models")
    if args.work is not None:
        _work(args)
        return 0
    if args.write:
        source, text = _case(sources(args.models, args.only), args.seed, args.first)
        Path(args.write).write_bytes(text)
        print(source)
        return 0

    outcomes: Counter[str] = Counter()
    faults, slowest, peak, number = 0, 0.0, 0, args.first

    def fault(number: int, what: str) -> None:
        nonlocal faults
        faults += 1
        print(f"--seed {args.seed} --first {number}: {what}", flush=True)

    while number < args.count:
        for answer in _answers(args, number):
            if isinstance(answer, str):
                fault(number, answer)
                outcomes["FAULT"] += 1
                number += 1
                continue
            at, source, outcome, spent, used = answer
            number = at + 1
            slowest, peak = max(slowest, spent), max(peak, used)
            wrong = outcome.startswith("UNEXPECTED")
            outcomes["UNEXPECTED" if wrong else outcome] += 1
            if wrong or spent > args.seconds or used > args.memory:
                fault(at, f"{source}: {outcome}, {spent} s, {used} MiB")
            if number % 1000 == 0:
                print(f"{number}: {faults} faults", file=sys.stderr, flush=True)
    for outcome, count in outcomes.most_common():
        print(f"{count:7}  {outcome}")
    print(f"the slowest took {slowest:.2f} s, the largest process {peak} MiB")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
