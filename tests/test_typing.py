# SPDX-License-Identifier: BSD-3-Clause
"""What type checkers are told is so: the stubs of the binding, overloads, and a program that mypy checks elsewhere."""

import ast
import inspect
import types
import typing
from pathlib import Path

import pytest

import fastconv
import typed_program
from fastconv import _core
from fastconv.ops import _maxima

STUBS = ast.parse(Path(fastconv.__file__).with_name("_core.pyi").read_text())
#: What the binding imports, and what Cython puts beside a class.
OTHERS = {"empty", "empty_like", "ndarray", "numpy_dtype", "partial", "INT64"}


def is_ours(name):
    return not name.startswith("__") and name not in OTHERS


def defined(body):
    """Functions and classes by name."""
    return {node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def parameters(function):
    return [argument.arg for argument in function.args.args]


CLASSES = [name for name, value in vars(_core).items() if isinstance(value, type) and is_ours(name)]
FUNCTIONS = [name for name, value in vars(_core).items() if inspect.isroutine(value) and is_ours(name)]


def test_every_name_has_a_stub():
    values = {node.target.id for node in STUBS.body if isinstance(node, ast.AnnAssign)}
    assert values | set(defined(STUBS.body)) == {name for name in dir(_core) if is_ours(name)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_parameters_of_its_stub(name):
    assert parameters(defined(STUBS.body)[name]) == list(inspect.signature(getattr(_core, name)).parameters)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_members_of_its_stub(name):
    stub, members = defined(STUBS.body)[name], vars(getattr(_core, name))
    told = {member for member in defined(stub.body) if not member.startswith("__")}
    assert told == {member for member in members if is_ours(member)}
    for member, value in members.items():
        if is_ours(member) and inspect.isroutine(value):
            assert parameters(defined(stub.body)[member]) == list(inspect.signature(value).parameters)


@pytest.mark.parametrize("name", [n for n in fastconv.functional.__all__ if "max_pool" in n and "unpool" not in n])
def test_each_signature_of_a_maximum_is_the_functions(name):
    function = getattr(fastconv, name)
    kind = {"max": _maxima.MaxPool, "ada": _maxima.AdaptiveMaxPool, "glo": _maxima.GlobalMaxPool}[name[:3]]
    wanted = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.name != "layout"}
    # A protocol's method has nothing but overloads: they are kept under its name.
    call = types.SimpleNamespace(__module__=kind.__module__, __qualname__=f"{kind.__qualname__}.__call__")
    *exact, any_of_them = typing.get_overloads(call)
    for overload in exact:
        assert set(inspect.signature(overload).parameters) == {"self", "layout", *wanted}
    told = inspect.signature(any_of_them).parameters
    assert {n: p.default for n, p in told.items() if n not in ("self", "layout")} == wanted


@pytest.mark.parametrize("name", ["cross_entropy", "mse_loss"])
def test_each_signature_of_a_loss_is_the_functions(name):
    function = getattr(fastconv, name)
    for overload in typing.get_overloads(function):
        assert list(inspect.signature(overload).parameters) == list(inspect.signature(function).parameters)


def test_the_typed_program_runs(tmp_path):
    typed_program.main(tmp_path)
