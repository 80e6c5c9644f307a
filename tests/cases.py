# SPDX-License-Identifier: BSD-3-Clause
"""A few convolutions by every algorithm that serves them, for tests of what holds for each."""

import pytest

import fastconv as fc
from problems import DTYPES, LAYOUTS, Problem, in_layout
from support import tolerance

SAME = ((1, 1), (1, 1))
#: Small, and served by every algorithm between them.
SMALL = {
    "3x3": Problem((13, 17), 5, 7, (3, 3), 3, padding=SAME, bias=True, activation="relu", residual=True),
    "strided": Problem((12, 15), 6, 4, (3, 2), 2, (2, 1), ((0, 1), (2, 0)), (1, 2), 2, bias=True),
    "1x1": Problem((7, 9), 12, 18, batch=3, bias=True, activation="relu6"),
    "depthwise": Problem((11, 19), 18, 18, (3, 3), 2, padding=SAME, groups=18, bias=True, residual=True),
    "multiplier": Problem((11, 19), 3, 6, (5, 3), 2, (2, 1), ((2, 2), (1, 1)), groups=3, activation="relu"),
}
#: Enough tasks for several threads.
LARGE = {
    "3x3": Problem((35, 33), 24, 40, (3, 3), 2, padding=SAME, bias=True, activation="relu", residual=True),
    "deep": Problem((9, 9), 130, 129, (3, 3), padding=SAME, bias=True),
    "wide": Problem((75, 70), 3, 20, (3, 3), padding=SAME, activation="relu"),
    "groups": Problem((28, 29), 24, 48, (3, 3), 3, padding=SAME, groups=3, residual=True),
    "strided": Problem((61, 67), 7, 33, (5, 5), stride=(2, 2), padding=((2, 2), (2, 1)), bias=True),
    "1x1": Problem((29, 31), 300, 66, bias=True, activation="relu6"),
    "one pixel": Problem((1, 1), 1025, 700, batch=3, bias=True),
    "tall": Problem((1200, 3), 4, 9, (3, 3), padding=SAME, bias=True),
    "depthwise": Problem((57, 59), 67, 67, (3, 3), 2, padding=SAME, groups=67, bias=True, residual=True),
    "multiplier": Problem((57, 59), 30, 60, (5, 5), 1, (2, 2), ((2, 2), (2, 2)), groups=30, bias=True),
    "many taps": Problem((57, 59), 3, 3, (11, 9), padding=((5, 5), (4, 4)), groups=3),
}
#: The loops of the reference would take as long for larger ones as all others together, and there is no tile to miss.
LOOPS = 6_000_000
EXACT = tuple(a for a in fc.ALGORITHMS if not a.startswith("winograd"))

each_algorithm = pytest.mark.parametrize("algorithm", fc.ALGORITHMS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_exact_algorithm = pytest.mark.parametrize("algorithm", EXACT)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_algorithm_and_dtype = pytest.mark.parametrize(
    ("algorithm", "dtype"), [(a, d) for d in DTYPES for a in fc.ALGORITHMS if a in EXACT or d == "float32"]
)


def rounding(algorithm, dtype, terms):
    """What two ways to the same result may differ by, as a share of the largest."""
    return {"winograd_f2": 2, "winograd_f3": 10, "winograd_f4": 10, "winograd_f6": 60}.get(algorithm, 1) * tolerance(
        dtype, terms
    )


def served(problems, algorithm, layout, dtype="float32"):
    """(name, problem) of those that the algorithm takes. There is at least one."""
    found = [
        (name, p)
        for name, p in problems.items()
        if (algorithm != "reference" or p.products <= LOOPS)
        and algorithm
        in fc.algorithms(in_layout(p.input_shape, layout), p.weight_shape, **p.geometry, layout=layout, dtype=dtype)
    ]
    assert found
    return found


def run(problem, arrays, layout, algorithm, **options):
    """conv2d with everything that the problem has, on arrays that lie in `layout`."""
    x, w, b, r = arrays
    return fc.conv2d(
        x,
        w,
        b,
        **problem.geometry,
        layout=layout,
        activation=problem.activation,
        residual=r,
        algorithm=algorithm,
        **options,
    )
