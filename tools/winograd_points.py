# SPDX-License-Identifier: BSD-3-Clause
"""Writes csrc/kernels/winograd_points.h: the matrices of Winograd's F(m, r) from exact rationals.

F(m, r) gives m outputs of an r-tap correlation from m + r - 1 inputs with as many multiplications,

    y = A^T [ (G g) * (B^T d) ],

by interpolating a polynomial at m + r - 2 finite points p and at infinity (Toom and Cook; S. Winograd, *Arithmetic
Complexity of Computations*, SIAM 1980; A. Lavin and S. Gray, *Fast Algorithms for Convolutional Neural Networks*,
CVPR 2016). With M(x) the product of all (x - p):

    B^T[p] = coefficients of M(x) / (x - p)      B^T[inf] = coefficients of M(x)
    G[p]   = (1, p, .., p^(r-1)) / M'(p)         G[inf]   = (0, .., 0, 1)
    A^T[:, p] = (1, p, .., p^(m-1))              A^T[:, inf] = (0, .., 0, 1)

B^T depends on the points alone, so forms of one size share it: F(4, 3) and F(2, 5) have six, F(3, 3) and
F(4, 2) five, F(2, 3) and F(3, 2) four.

The points decide the rounding error. Of six, the customary 0, +-1, +-2 lose more than twice as much as
0, +-5/8, +-3/2, at the same number of operations, and all of B^T and A^T stays exact in binary; of five,
0, +-5/4, 1/2 are the best of the small dyadic fractions, a third better than 0, +-1, 2; of eight, 0, +-1/2, +-1, +-2
of all triples of pairs between 1/4 and 5/2 in steps of an eighth or so. F(6, 3) loses four to six times as much as
F(4, 3) all the same. Half of that comes from the products' sums, so that neither points nor transforms that round less
bring it within the bound of F(4, 3). Seven points, for F(5, 3), are no better than eight: one has no partner of the
other sign.

Run ``python tools/winograd_points.py`` to rewrite the header; tests/test_winograd_points.py compares and proves it.
"""

from __future__ import annotations

from fractions import Fraction as F
from pathlib import Path

#: Finite points by the size m + r - 1, and the forms (m, r) that there are.
POINTS: dict[int, list[F]] = {
    4: [F(0), F(1), F(-1)],
    5: [F(0), F(5, 4), F(-5, 4), F(1, 2)],
    6: [F(0), F(5, 8), F(-5, 8), F(3, 2), F(-3, 2)],
    8: [F(0), F(1), F(-1), F(1, 2), F(-1, 2), F(2), F(-2)],
}
FORMS: list[tuple[int, int]] = [(2, 3), (3, 3), (4, 3), (6, 3), (2, 5), (3, 2), (4, 2)]
HEADER = Path(__file__).resolve().parent.parent / "csrc" / "kernels" / "winograd_points.h"


def _times(a: list[F], b: list[F]) -> list[F]:
    """Product of two polynomials, coefficients from the constant upwards."""
    product = [F(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] += x * y
    return product


def _monic(roots: list[F]) -> list[F]:
    polynomial = [F(1)]
    for root in roots:
        polynomial = _times(polynomial, [-root, F(1)])
    return polynomial


def matrices(m: int, r: int) -> tuple[list[list[F]], list[list[F]], list[list[F]]]:
    """B^T, G and A^T of F(m, r)."""
    size = m + r - 1
    points = POINTS[size]
    bt, g = [], []
    for p in points:
        others = [q for q in points if q != p]
        row = _monic(others)
        bt.append(row + [F(0)] * (size - len(row)))
        derivative = F(1)
        for q in others:
            derivative *= p - q
        g.append([p**j / derivative for j in range(r)])
    bt.append(_monic(points))
    g.append([F(int(j == r - 1)) for j in range(r)])
    at = [[p**i for p in points] + [F(int(i == m - 1))] for i in range(m)]
    return bt, g, at


def header() -> str:
    """The text of winograd_points.h."""
    lines = [
        "// SPDX-License-Identifier: BSD-3-Clause",
        "// Written by tools/winograd_points.py; not to be edited.",
        "// clang-format off",
        "#ifndef FC_WINOGRAD_POINTS_H",
        "#define FC_WINOGRAD_POINTS_H",
    ]
    for size, points in POINTS.items():
        lines += ["", f"// {size} points: {', '.join(map(str, points))}, infinity"]
        named = [p for p in points if p > 0]
        lines += [f"#define FC_W{size}_{name} {float(p)!r}" for name, p in zip("ABC", named, strict=False)]
    for m, r in FORMS:
        _, g, _ = matrices(m, r)
        entries = ", ".join(f"{x.numerator}.0 / {x.denominator}.0" for row in g for x in row)
        lines += ["", f"// F({m}, {r})", f"#define FC_F{m}_{r}_G {{{entries}}}"]
    return "\n".join([*lines, "", "#endif", ""])


if __name__ == "__main__":
    HEADER.write_text(header())
