# SPDX-License-Identifier: BSD-3-Clause
"""Writes csrc/kernels/winograd_points.h: the matrices of Winograd's F(m, 3) from exact rationals.

F(m, 3) gives m outputs of a three-tap correlation from m + 2 inputs with m + 2 multiplications,

    y = A^T [ (G g) * (B^T d) ],

by interpolating a polynomial at m + 1 finite points p and at infinity (Toom and Cook; S. Winograd, *Arithmetic
Complexity of Computations*, SIAM 1980; A. Lavin and S. Gray, *Fast Algorithms for Convolutional Neural Networks*,
CVPR 2016). With M(x) the product of all (x - p):

    B^T[p] = coefficients of M(x) / (x - p)      B^T[inf] = coefficients of M(x)
    G[p]   = (1, p, p^2) / M'(p)                 G[inf]   = (0, 0, 1)
    A^T[:, p] = (1, p, .., p^(m-1))              A^T[:, inf] = (0, .., 0, 1)

The points decide the rounding error. For F(4) the customary 0, +-1, +-2 lose more than twice as much as
0, +-5/8, +-3/2, at the same number of operations, and all of B^T and A^T stays exact in binary; for F(3),
0, +-5/4, 1/2 are the best of the small dyadic fractions, a third better than 0, +-1, 2.

Run ``python tools/winograd_points.py`` to rewrite the header; tests/test_winograd_points.py compares and proves it.
"""

from __future__ import annotations

from fractions import Fraction as F
from pathlib import Path

POINTS: dict[int, list[F]] = {
    2: [F(0), F(1), F(-1)],
    3: [F(0), F(5, 4), F(-5, 4), F(1, 2)],
    4: [F(0), F(5, 8), F(-5, 8), F(3, 2), F(-3, 2)],
}
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


def matrices(m: int, points: list[F]) -> tuple[list[list[F]], list[list[F]], list[list[F]]]:
    """B^T, G and A^T of F(m, 3) for m + 1 finite points."""
    size = m + 2
    bt, g = [], []
    for p in points:
        others = [q for q in points if q != p]
        row = _monic(others)
        bt.append(row + [F(0)] * (size - len(row)))
        derivative = F(1)
        for q in others:
            derivative *= p - q
        g.append([p**j / derivative for j in range(3)])
    bt.append(_monic(points))
    g.append([F(0), F(0), F(1)])
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
        "",
    ]
    for m, points in POINTS.items():
        named = [p for p in points if p > 0]
        lines.append(f"// F({m}, 3): points {', '.join(str(p) for p in points)}, infinity")
        for name, p in zip("AB", named, strict=False):
            lines += [f"#define FC_F{m}_{name} {float(p)!r}"]
        _, g, _ = matrices(m, points)
        rows = ", ".join("{" + ", ".join(f"{x.numerator}.0 / {x.denominator}.0" for x in row) + "}" for row in g)
        lines += [f"#define FC_F{m}_G {{{rows}}}", ""]
    return "\n".join([*lines, "#endif", ""])


if __name__ == "__main__":
    HEADER.write_text(header())
