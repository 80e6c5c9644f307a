# SPDX-License-Identifier: BSD-3-Clause
"""Every problem through every algorithm that takes it, against sums in float64.

Before each call the output is full of NaN, and so is the scratch memory that the call will get;
NaN lies around all arrays, between their rows too where they are parts of larger ones. Whatever is
read outside, left unwritten or read before it is written shows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from families import FAMILIES, family
from fastconv import reference
from problems import DTYPES, LAYOUTS, Operands, Problem, in_layout, operands, spell
from support import embedded, from_layout, max_error, poison, spoil_scratch, tolerance

#: The policy of precision: max|y - y64| / max|y64| in float32.
BOUNDS = dict.fromkeys(fc.ALGORITHMS, 5e-7) | {
    "winograd_f2": 1e-6,
    "winograd_f3": 5e-6,
    "winograd_f4": 5e-6,
    "winograd_f6": 3e-5,
}
#: The largest of a million sums of variance 1, as a layer has. Problems of few outputs are samples of such layers: one
#: whose outputs happen to be small is no worse for it.
LARGEST_OF_MANY, FEW = 5.0, 10_000
#: The loops of the reference take seconds for what the others do in milliseconds, and there is no tile to miss.
LOOPS = 300_000
#: Activations that are no clamp make errors larger or smaller by their slope, at most.
STEEPEST = {"silu": 1.1, "hardswish": 1.5, "sigmoid": 0.25}
WITHOUT_SCRATCH = ("depthwise", "reference")


@pytest.fixture(autouse=True)
def one_thread():
    with fc.threads(1):
        yield


def expected(problem: Problem, arrays: Operands) -> np.ndarray:
    """Channels first."""
    x, w, b, r = arrays
    return reference.conv2d_im2col(
        x,
        w,
        b,
        **problem.geometry,
        activation=problem.activation,
        residual=r,
        dtype=np.float64,
    )


def allowed(problem: Problem, algorithm: str, dtype: str) -> float:
    """Of the largest sum."""
    slope = STEEPEST.get(problem.activation, 1)
    if dtype == "float64":
        return slope * tolerance(dtype, problem.terms)
    # F(2) of five taps interpolates at as many points as F(4) of three.
    five = set(problem.kernel) <= {1, 5}
    bound = BOUNDS["winograd_f4" if algorithm == "winograd_f2" and five else algorithm]
    # Without fused multiply-adds, products are rounded before they are added.
    return slope * bound * (1.2 if fc.isa() == "scalar" else 1.0)


def serving(problem: Problem, layout: str, dtype: str) -> list[str]:
    shape = in_layout(problem.input_shape, layout)
    return fc.algorithms(shape, problem.weight_shape, **problem.geometry, layout=layout, dtype=dtype)


def faults(problem: Problem, dtype: str, dense: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with each algorithm's result, and in which layout; the sums in float64 serve both."""
    arrays = operands(problem, dtype)
    truth = expected(problem, arrays)
    sums = expected(replace(problem, activation=None), arrays) if problem.activation in STEEPEST else truth
    scale = np.abs(sums).max()
    if truth.size < FEW:
        scale = max(scale, LARGEST_OF_MANY)
    for layout in LAYOUTS:
        for fault in faults_in(layout, problem, arrays, truth, scale, dtype, dense):
            yield layout, fault


def faults_in(
    layout: str, problem: Problem, arrays: Operands, truth: np.ndarray, scale: float, dtype: str, dense: bool
) -> Iterator[str]:
    x, w, b, r = (None if array is None else embedded(array, dense)[1] for array in arrays.to(layout))
    takers = serving(problem, layout, dtype)
    for algorithm in fc.ALGORITHMS:
        if algorithm == "reference" and problem.products > LOOPS:
            continue
        whole, out = embedded(poison(in_layout(truth.shape, layout), dtype), dense)
        if algorithm in takers and algorithm not in WITHOUT_SCRATCH:
            spoil_scratch(dtype)
        options = {"layout": layout, "activation": problem.activation, "algorithm": algorithm}
        try:
            y = fc.conv2d(x, w, b, **problem.geometry, **options, residual=r, out=out)
        except NotImplementedError as error:
            # Whether rows and channels are contiguous decides for these two.
            if algorithm in takers and (dense or algorithm not in ("pointwise", "depthwise")):
                yield f"{algorithm}: refused, though listed among those that serve: {error}"
            elif not str(error).startswith(f"algorithm={algorithm!r} cannot serve"):
                yield f"{algorithm}: refused without a reason: {error}"
            continue
        if dense and algorithm not in takers:
            yield f"{algorithm}: served, though not listed"
        if y is not out:
            yield f"{algorithm}: the result is not `out`"
        if np.count_nonzero(~np.isnan(whole)) > out.size:
            yield f"{algorithm}: wrote outside of `out`"
        error = max_error(from_layout(y, layout), truth, scale)
        if not error <= allowed(problem, algorithm, dtype):
            yield f"{algorithm}: error {error:.3g} > {allowed(problem, algorithm, dtype):.3g}"


def report(found: list[str]) -> str:
    more = [] if len(found) <= 20 else [f"... and {len(found) - 20} more"]
    return "\n".join([f"{len(found)} faults:", *found[:20], *more])


def agree(problems: Iterable[Problem], dtype: str, dense: bool) -> None:
    found = [
        spell(problem, layout, dtype, fault) for problem in problems for layout, fault in faults(problem, dtype, dense)
    ]
    assert not found, report(found)


each_family = pytest.mark.parametrize("name", FAMILIES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@each_family
def test_every_problem(name):
    agree(family(name), "float32", dense=True)


@each_family
def test_every_third_problem_in_float64(name):
    agree(family(name)[::3], "float64", dense=True)


@each_family
@each_dtype
def test_every_fifth_problem_inside_larger_arrays(name, dtype):
    agree(family(name)[1::5], dtype, dense=False)


@each_family
@each_dtype
@pytest.mark.parametrize("activation", STEEPEST)
def test_some_problems_with_each_activation(name, dtype, activation):
    problems = [replace(problem, activation=activation) for problem in family(name)[2::40]]
    agree(problems[::2], dtype, dense=True)
    agree(problems[1::2], dtype, dense=False)


def test_there_are_enough_problems():
    problems = {problem for name in FAMILIES for problem in family(name)}
    assert len(problems) >= 2000
    for layout in LAYOUTS:
        takers = Counter(a for p in problems for a in serving(p, layout, "float32"))
        assert takers["reference"] == takers["im2col"] == len(problems)
        assert all(takers[algorithm] >= 200 for algorithm in fc.ALGORITHMS), takers
