# SPDX-License-Identifier: BSD-3-Clause
"""The yardstick itself: a measure that cannot fail would make every other test worthless."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import (
    embedded,
    from_layout,
    max_error,
    numerical_gradient,
    poison,
    same_values,
    to_layout,
    tolerance,
    whole,
)


def test_max_error_is_relative_to_the_largest_expected_value():
    assert max_error([1.0, 9.0], [1.0, 10.0]) == 0.1
    assert max_error([1.0, 9.0], [1.0, 10.0], scale=20.0) == 0.05
    assert max_error([np.nan, np.inf, 9.0], [np.nan, np.inf, 10.0]) == 0.1


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([1.0], [1.0, 1.0]),
        ([np.nan], [1.0]),
        ([np.inf], [1.0]),
        ([1.0], [np.nan]),
        ([-np.inf], [np.inf]),
        ([1e-300], [0.0]),
    ],
)
def test_a_result_of_the_wrong_kind_is_infinitely_wrong(actual, expected):
    assert max_error(actual, expected) == np.inf


def test_nothing_wrong_is_no_error():
    assert max_error(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0
    assert max_error([0.0], [0.0]) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("terms", [1, 9, 4608])
def test_tolerance_accepts_rounding_and_little_more(dtype, terms):
    rng = np.random.default_rng(terms)
    a, b = rng.normal(size=(2, 200, terms)).astype(dtype)
    exact = (a.astype(np.longdouble) * b).sum(axis=1)
    rounded = np.add.accumulate(a * b, axis=1)[:, -1]
    assert max_error(rounded, exact) < tolerance(dtype, terms)
    assert max_error(rounded * (1 + 2 * tolerance(dtype, terms)), exact) > tolerance(dtype, terms)


def test_numerical_gradient_restores_its_argument():
    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(numerical_gradient(np.square, x, np.ones(2)), [2.0, 4.0], rtol=1e-9)
    np.testing.assert_array_equal(x, [1.0, 2.0])


def test_poison_is_no_result():
    assert np.isnan(poison((2, 3))).all()
    assert (poison(3, np.int64) < 0).all()


def test_layouts_are_each_others_inverse():
    array = whole(np.random.default_rng(0), (2, 3, 4, 5))
    assert to_layout(array, "NHWC").shape == (2, 4, 5, 3)
    for layout in ("NCHW", "NHWC"):
        np.testing.assert_array_equal(from_layout(to_layout(array, layout), layout), array)


def test_same_values_are_the_same_and_lie_differently():
    array = whole(np.random.default_rng(0), (2, 3, 4, 5))
    flags = set()
    for _, variant in same_values(array):
        np.testing.assert_array_equal(variant, array)
        flags.add((variant.strides, variant.flags.aligned, variant.flags.writeable))
    assert len(flags) == 6


@pytest.mark.parametrize("dense", [True, False])
def test_embedded_arrays_lie_in_poison(dense):
    array = whole(np.random.default_rng(0), (2, 3, 4, 5))
    around, part = embedded(array, dense)
    np.testing.assert_array_equal(part, array)
    assert part.flags.c_contiguous == dense
    assert part.strides[-1] == part.itemsize
    part[...] = np.nan
    assert np.isnan(around).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
@pytest.mark.parametrize(("at_end", "step", "good"), [(True, 0, True), (True, 1, False), (False, -1, False)])
def test_a_fence_stops_the_process(at_end, step, good):
    script = f"""
import ctypes, resource, sys
sys.path[:0] = {sys.path}
import numpy as np
from support import Fenced
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
part = Fenced(10_000).place(np.ones(50, np.float32), {at_end})
print(part.sum(), flush=True)
element = part.ctypes.data + (49 * 4 if {at_end} else 0) + {step} * 4
print(ctypes.c_float.from_address(element).value)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.split() == (["50.0", "1.0"] if good else ["50.0"])
    assert (run.returncode == 0) == good


# --- what is said at the end ------------------------------------------------------------------------------------------


def test_tests_that_are_skipped_for_want_of_torch():
    """In one line, which also says how to run them."""
    program = """
import sys
sys.modules["torch"] = None  # not to be imported
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_norm.py", "tests/test_torch_packed.py"]))
"""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    tests = sum(int(n) for n in re.findall(r"SKIPPED \[(\d+)\] tests/test_norm.py", run.stdout))
    command = 'python -m pip install -e ".[test,torch]" && pytest'
    said = f"{tests} tests and 1 whole files were skipped for want of torch; this runs them all: {command}"
    assert tests > 20
    assert run.stdout.splitlines()[-2] == said
