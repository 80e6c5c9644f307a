# SPDX-License-Identifier: BSD-3-Clause
"""The package is built in floors: what a module imports lies below it. Neither imports nor calls of C form a circle."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import fastconv

ROOT = Path(fastconv.__file__).parent
CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
CSRC = CONTRIBUTING.parent / "csrc"
FILES = {".".join(("fastconv", *p.relative_to(ROOT).with_suffix("").parts)): p for p in ROOT.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in FILES.items()}
MODULES["fastconv._core"] = ast.parse("")  # of C, which imports nothing


def imported(name, tree):
    """Names that statements import, wherever they stand: a module, or what may be one in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = f"{name}.__init__" in FILES
            above = name.rsplit(".", node.level - package)[0] if node.level > package else name
            module = ".".join(filter(None, (above if node.level else "", node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def of_package(name):
    """The module that an imported name is, or is in; None outside of the package."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def imports():
    return {name: {of_package(what) for what in imported(name, tree)} - {None, name} for name, tree in MODULES.items()}


def circle(graph):
    """The modules of a circle of imports, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_circles():
    assert circle(imports()) is None


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    everything = imports()
    assert "fastconv._args" in everything["fastconv.ops._convolution"]
    assert "fastconv.ops.conv" in everything["fastconv.functional"]
    everything["fastconv._args"] = everything["fastconv._args"] | {"fastconv.ops.conv"}
    assert "fastconv._args" in circle(everything)


needs_sources = pytest.mark.skipif(not CSRC.exists(), reason="runs from the source tree only")


#: A function or a table that begins here and is not static; what a macro defines has a name that ends in ##.
DEFINED = re.compile(
    r"^(?!static|extern|typedef)\w[\w \*]*?\b(fc_\w+(?:##)?)(?:\w*\(.*|\w*\[.*\]|\w*) (?:\{|= \{)", re.MULTILINE
)


def calls(sources):
    """Of each C file those that define what it names. Names with ## stand for all that begin like that."""
    plain = {
        name: re.sub(r"//[^\n]*|/\*.*?\*/|\\$", "", text, flags=re.DOTALL | re.MULTILINE)
        for name, text in sources.items()
    }
    home = {}
    for name, text in plain.items():
        flat = re.sub(r",\n\s+", ", ", re.sub(r"^    (?=const fc_kind )", "", text, flags=re.MULTILINE))
        home |= dict.fromkeys(DEFINED.findall(flat), name)
    graph = {}
    for name, text in plain.items():
        used = set(re.findall(r"\bfc_\w+(?:##)?", text))
        graph[name] = {
            there
            for symbol, there in home.items()
            for use in used
            if use == symbol
            or (use.endswith("##") and symbol.startswith(use[:-2]))
            or (symbol.endswith("##") and use.startswith(symbol[:-2]))
        } - {name}
    return graph


@needs_sources
def test_no_circles_in_c():
    sources = {str(p.relative_to(CSRC)): p.read_text() for p in CSRC.rglob("*.c") if p.parent != CSRC / "kernels"}
    graph = calls(sources)
    assert circle(graph) is None
    for above, below in (
        ("conv/bands.c", "conv/parts.c"),
        ("core/planner.c", "core/algorithms.c"),
        ("core/algorithms.c", "conv/winograd.c"),
        ("core/family.c", "core/problem.c"),
    ):
        assert below in graph[above]
    sources["core/plan.c"] += "int fc_back(void) { return fc_plan_create(0, 0, 0, 0); }"
    assert "core/plan.c" in circle(calls(sources))


@needs_sources
def test_a_call_goes_down_as_it_is_written():
    """No function twice, each where it is said to be, and those of Python in this order."""
    section = CONTRIBUTING.read_text().partition("The first call of `fc.conv2d`")[2].partition("\n\n| |")[2]
    rows = re.findall(r"^\| (`.+?) \| `([\w/.]+)`", section.partition("\n\n")[0], re.MULTILINE)
    names = [(name, file) for cell, file in rows for name in re.findall(r"`([\w.]+)`", cell)]
    assert len(names) > 15
    assert len({name for name, _ in names}) == len(names)
    for name, file in names:
        path = (CONTRIBUTING.parent / "csrc" if file.endswith(".c") else ROOT) / file
        assert re.search(rf"\b{name.rpartition('.')[2]}\(", path.read_text()), (name, file)
    called = []

    def note(frame, event, _):
        if event == "call" and frame.f_globals.get("__name__", "").startswith("fastconv."):
            called.append(frame.f_code.co_qualname)

    x, w, bias = np.ones((1, 2, 5, 7)), np.ones((3, 2, 2, 3)), np.ones(3)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        fastconv.conv2d(x, w, bias, residual=np.ones((1, 3, 4, 5)), out=np.ones((1, 3, 4, 5)))
    finally:
        sys.setprofile(before)
    first = list(dict.fromkeys(called))
    python = [name for name, file in names if file.endswith(".py")]
    assert python == [name for name in first if name in python]


def test_plans_and_operators_stand_beside_each_other():
    """What both need lies below both, so that a call goes one way; a plan's gradients are those of any convolution."""
    everything = imports()
    operators = {name for name in everything if name.startswith("fastconv.ops")}
    for name in ("fastconv._args", "fastconv._plans", *operators):
        below = {name} | everything[name]
        while (more := below.union(*(everything[module] for module in below))) != below:
            below = more
        assert "fastconv.plan" not in below
        assert not below & operators or name in operators
    assert everything["fastconv.plan"] & operators == {"fastconv.ops._convolution"}
