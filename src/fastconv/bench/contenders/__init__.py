# SPDX-License-Identifier: BSD-3-Clause
"""Those who compute a layer. A further one is one class in one file here."""

from fastconv.bench.contenders.base import Contender, Prepared
from fastconv.bench.contenders.ours import FastConv
from fastconv.bench.contenders.plain_numpy import NumpyIm2col, NumpyLoops

__all__ = ["Contender", "FastConv", "NumpyIm2col", "NumpyLoops", "Prepared"]
