# SPDX-License-Identifier: BSD-3-Clause
"""What a tabulator shows: the public names of every module, each one thing."""

import importlib
import pkgutil
import types
from pathlib import Path

import pytest

import fastconv as fc


def _modules():
    """Every module without an underscore in its path."""
    root = Path(fc.__file__).parent
    files = (file.relative_to(root.parent).with_suffix("").parts for file in root.rglob("*.py"))
    names = [".".join(part for part in parts if part != "__init__") for parts in files]
    return sorted(name for name in names if "._" not in name)


def _load(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.startswith("fastconv"):
            raise
        pytest.skip(f"needs {error.name}")


@pytest.mark.parametrize("name", _modules())
def test_dir_shows_what_is_public_and_nothing_else(name):
    module = _load(name)
    assert dir(module) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public)
        assert not public.startswith("_") or public == "__version__"


@pytest.mark.parametrize("name", _modules())
def test_a_name_is_a_module_or_something_else_but_not_both(name):
    package = _load(name)
    for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if module.name in package.__all__:
            assert isinstance(getattr(package, module.name), types.ModuleType), f"{name}.{module.name}"


def test_there_are_modules():
    assert {"fastconv", "fastconv.models", "fastconv.nn.conv", "fastconv.bench.report"} <= set(_modules())
