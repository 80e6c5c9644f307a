# SPDX-License-Identifier: BSD-3-Clause
"""Measurements behind ``fastconv bench``, the demo and ``benchmarks/``.

``shapes.toml`` names the layers, :mod:`~fastconv.bench.shapes` reads it,
:mod:`~fastconv.bench.contenders` are those who compute them, :mod:`~fastconv.bench.timing` and
:mod:`~fastconv.bench.peak` hold the clock and the machine's ceilings, :mod:`~fastconv.bench.quiet` doubts them,
:mod:`~fastconv.bench.layers` brings them together, :mod:`~fastconv.bench.report` and
:mod:`~fastconv.bench.versus` make tables of it, and :mod:`~fastconv.bench.plot` and
:mod:`~fastconv.bench.page` pictures and a page.
"""

from fastconv._names import only

__all__ = []
__dir__ = only(__all__)
