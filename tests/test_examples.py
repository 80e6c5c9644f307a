# SPDX-License-Identifier: BSD-3-Clause
"""Every example in a docstring works as it stands, pasted into a fresh interpreter."""

import doctest
import importlib
import pkgutil

import pytest

import fastconv


def modules():
    """All modules of the package but the reference, which tests its own, and what is run."""
    yield "fastconv"
    for module in pkgutil.walk_packages(fastconv.__path__, "fastconv."):
        parts = module.name.split(".")
        if "reference" not in parts and "__main__" not in parts:
            yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.startswith("fastconv"):
            raise
        pytest.skip(f"needs {error.name}")
    runner, report = doctest.DocTestRunner(), []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
