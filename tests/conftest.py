# SPDX-License-Identifier: BSD-3-Clause
"""Before anything of fastconv is imported."""

import gc
import os

import pytest

# Machines that run tests are shared. OpenMP's threads wait for each other by spinning unless told otherwise, and where
# their cores are also wanted by others, a call of microseconds then takes many milliseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# So do those of NumPy's BLAS, and always: on two of them the references' small matrix products took up to fourteen
# times as much of the processor. It is asked when it is loaded; processes that tests start are as anybody's.
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
if BLAS_THREADS not in os.environ:
    os.environ[BLAS_THREADS] = "1"
    import numpy  # noqa: F401

    del os.environ[BLAS_THREADS]

# What somebody tuned on this machine is not what the tests are about.
os.environ["FASTCONV_TUNE"] = "off"


def pytest_collection_finish():
    """Modules and thousands of tests live to the end: no garbage collection, asked for or not, has to look at them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so that what it writes comes behind the list of what was skipped
def pytest_terminal_summary(terminalreporter):
    """One line on what the README's command leaves out where PyTorch is not installed."""
    yield
    reports = terminalreporter.stats.get("skipped", [])
    skipped = [r.nodeid for r in reports if "could not import 'torch" in str(r.longrepr)]
    files = sum("::" not in node for node in skipped)
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped) - files} tests and {files} whole files were skipped for want of torch; this runs them all: "
            'python -m pip install -e ".[test,torch]" && pytest'
        )
