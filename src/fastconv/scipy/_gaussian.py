# SPDX-License-Identifier: BSD-3-Clause
"""Weights of Gaussians and their derivatives; of very wide ones without looking at every tap."""

from __future__ import annotations

import numpy as np
import scipy.special

from fastconv.scipy._fold import Fold

_MANY = 1 << 16  # taps: fewer are summed one by one, in the order in which SciPy has them
_FINE = 8  # steps per standard deviation, from which on the formula below is exact to float64
_BERNOULLI = (1 / 6 / 2, -1 / 30 / 24, 1 / 42 / 720, -1 / 30 / 40320, 5 / 66 / 3628800)  # B[2j] / (2j)!


def gaussian(sigma: float, order: int, radius: int) -> np.ndarray:
    """A Gaussian of sum one, or its derivative: polynomials q with q[0] = 1 and q[n + 1] = q[n]' - x q[n] / sigma**2
    times it."""
    x = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / sigma**2 * x**2)
    weights /= weights.sum()
    q = np.polynomial.Polynomial([1.0])
    for _ in range(order):
        q = q.deriv() - np.polynomial.Polynomial([0.0, 1.0]) * q / sigma**2
    return q(x) * weights


def taps(sigma: float, order: int, fold: Fold) -> tuple[np.ndarray, int]:
    """Weights of a correlation with a Gaussian of this length, folded if that is worth it; and their offset."""
    if fold.length > _MANY and fold.needed and sigma >= _FINE * max(1, fold.period):
        return _folded(sigma, order, fold), fold.start
    return gaussian(sigma, order, fold.length // 2)[::-1], fold.offset


def _folded(sigma: float, order: int, fold: Fold) -> np.ndarray:
    radius = fold.length // 2
    norm = _sum(0, radius / sigma, 1 / sigma, fold.length)
    if fold.period:
        first = np.arange(fold.period, dtype=np.float64)
        count = 1 + (float(fold.length - 1) - first) // fold.period
        sums = _sum(order, (radius - first) / sigma, fold.period / sigma, count)
    else:
        middle = (float(radius - fold.before) - np.arange(fold.length - fold.after - fold.before)) / sigma
        ends = [
            [_sum(order, top / sigma, 1 / sigma, count)] if count else []
            for top, count in ((radius, fold.before), (fold.after - 1 - radius, fold.after))
        ]
        sums = np.concatenate((ends[0], _derivative(order, middle), ends[1]))
    return sums / norm / sigma**order


def _derivative(n: int, t: np.ndarray | float) -> np.ndarray:
    """The n-th derivative of exp(-t**2 / 2); its integral from 0 for n = -1."""
    if n < 0:
        return np.sqrt(np.pi / 2) * scipy.special.erf(t / np.sqrt(2))
    return (-1) ** n * scipy.special.eval_hermitenorm(n, t) * np.exp(-0.5 * np.square(t))


def _sum(n: int, top: np.ndarray | float, step: float, count: np.ndarray | int) -> np.ndarray:
    """The n-th derivative of exp(-t**2 / 2), summed over t = top, top - step, ...: `count` of them.

    By Euler and Maclaurin: the integral, half of both ends, and differences of odd derivatives there.
    """
    low = top - step * (count - 1.0)
    total = (_derivative(n - 1, top) - _derivative(n - 1, low)) / step
    total = total + (_derivative(n, top) + _derivative(n, low)) / 2
    for j, b in enumerate(_BERNOULLI):
        m = n + 2 * j + 1
        total = total + b * step ** (2 * j + 1) * (_derivative(m, top) - _derivative(m, low))
    return total
