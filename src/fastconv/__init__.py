# SPDX-License-Identifier: BSD-3-Clause
"""fastconv: convolutional networks on the CPU, at the speed the CPU has.

>>> import numpy as np, fastconv as fc
>>> image = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
>>> kernels = np.ones((8, 3, 3, 3), np.float32) / 27
>>> fc.conv2d(image, kernels, padding=1, activation="relu").shape
(1, 8, 32, 32)
"""

from fastconv import _runtime  # noqa: F401 (first: it loads the core)
from fastconv._names import only

#: Why there is nothing here but the command line, which tells it in one line.
_failure: ImportError | None = None
try:
    from fastconv import functional, grad, graph, models, nn, optim, reference
    from fastconv._about import config, show_config
    from fastconv._config import fma_peak, get_num_threads, isa, set_num_threads, threads
    from fastconv._version import __version__
    from fastconv.functional import *  # noqa: F403
    from fastconv.functional import __all__ as _functions
    from fastconv.graph import compile, load_net
    from fastconv.io import load, save
    from fastconv.plan import ALGORITHMS, ConvPlan, algorithms
except ImportError as error:  # FASTCONV_ISA is unknown, or the like
    from fastconv._program import started_this_process

    if not started_this_process():
        raise
    _failure, _functions = error, []

__all__ = [
    *_functions,
    "ALGORITHMS",
    "ConvPlan",
    "__version__",
    "algorithms",
    "compile",
    "config",
    "fma_peak",
    "functional",
    "get_num_threads",
    "grad",
    "graph",
    "isa",
    "load",
    "load_net",
    "models",
    "nn",
    "optim",
    "reference",
    "save",
    "set_num_threads",
    "show_config",
    "threads",
]
__dir__ = only(__all__)
