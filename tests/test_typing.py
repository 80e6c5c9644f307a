# SPDX-License-Identifier: BSD-3-Clause
"""What type checkers are told of the binding is what the binding has."""

import ast
import inspect
from pathlib import Path

import pytest

import fastconv
from fastconv import _core

STUBS = ast.parse(Path(fastconv.__file__).with_name("_core.pyi").read_text())
#: What the binding imports, and what Cython puts beside a class.
OTHERS = {"empty", "ndarray", "numpy_dtype", "INT64"}


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
