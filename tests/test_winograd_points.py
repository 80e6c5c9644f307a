# SPDX-License-Identifier: BSD-3-Clause
"""The Winograd matrices: proven in rationals, and the header is what the generator writes."""

import importlib.util
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

GENERATOR = Path(__file__).parent.parent / "tools" / "winograd_points.py"


@pytest.fixture(scope="module")
def points():
    if not GENERATOR.exists():
        pytest.skip("the sources are not here: this is an installed package")
    spec = importlib.util.spec_from_file_location("winograd_points", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_header_is_up_to_date(points):
    if not points.HEADER.exists():
        pytest.skip("the C sources are not here: this is an installed package")
    assert points.HEADER.read_text() == points.header()


FORMS = [(2, 3), (3, 3), (4, 3), (6, 3), (2, 5), (3, 2), (4, 2)]


def test_the_forms_are_those_of_the_generator(points):
    assert points.FORMS == FORMS


@pytest.mark.parametrize(("m", "r"), FORMS)
def test_the_matrices_compute_a_correlation(points, m, r):
    """A^T [(G g) * (B^T d)] = correlation of d with g: both sides are bilinear, so unit vectors prove it."""
    bt, g, at = points.matrices(m, r)
    size = m + r - 1
    assert (len(bt), len(g), len(at)) == (size, size, m)
    for tap, place in product(range(r), range(size)):
        products = [g[p][tap] * bt[p][place] for p in range(size)]
        result = [sum(a * x for a, x in zip(row, products, strict=True)) for row in at]
        assert result == [Fraction(place == output + tap) for output in range(m)]


@pytest.mark.parametrize(("m", "r"), FORMS)
def test_the_transforms_of_pixels_are_exact_in_float32(points, m, r):
    """B^T and A^T hold numbers of few bits; only the transform of the weights has to be rounded."""
    bt, _, at = points.matrices(m, r)
    for value in (value for matrix in (bt, at) for row in matrix for value in row):
        assert value.denominator & (value.denominator - 1) == 0
        assert abs(value.numerator) < 1 << 24
