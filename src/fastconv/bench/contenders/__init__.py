# SPDX-License-Identifier: BSD-3-Clause
"""Those who compute a layer or a network. A further one is one class in one file here.

Peers are other libraries, which not everybody has: their files are imported by :func:`find_peers` alone.
"""

from fastconv._names import only
from fastconv.bench.contenders.base import Contender, Prepared
from fastconv.bench.contenders.ours import OURS, Compiled, CompiledStrictly, FastConv, FastConvCall, LayerByLayer
from fastconv.bench.contenders.peers import find_peers, versions
from fastconv.bench.contenders.plain_numpy import NumpyIm2col, NumpyLoops
from fastconv.bench.names import PEERS, REFERENCES

__all__ = [
    "OURS",
    "PEERS",
    "REFERENCES",
    "Compiled",
    "CompiledStrictly",
    "Contender",
    "FastConv",
    "FastConvCall",
    "LayerByLayer",
    "NumpyIm2col",
    "NumpyLoops",
    "Prepared",
    "find_peers",
    "versions",
]
__dir__ = only(__all__)
