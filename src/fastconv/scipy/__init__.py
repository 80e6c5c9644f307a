# SPDX-License-Identifier: BSD-3-Clause
"""SciPy's filters, with SciPy's signatures, on fastconv's kernels. Needs SciPy, which the extra ``scipy`` brings.

>>> import numpy as np
>>> from fastconv.scipy import ndimage, signal
>>> image = np.eye(4, dtype=np.float32)
>>> ndimage.uniform_filter(image, 3, mode="constant").round(2)[0]
array([0.22, 0.22, 0.11, 0.  ], dtype=float32)
>>> signal.convolve2d(image, np.ones((2, 2), np.float32), mode="valid")[0]
array([2., 1., 0.], dtype=float32)

:func:`accelerate` redirects code that calls SciPy's functions. What the kernels do not serve goes to SciPy itself, and
so do arguments that are not understood: their errors are SciPy's own. :mod:`fastconv.scipy._numbers` says which numbers
are computed here; every call's engine and every call that was handed over are logged to
``logging.getLogger("fastconv.scipy")`` at level DEBUG, and :func:`report` counts them.
"""

from fastconv._names import only
from fastconv.scipy import ndimage, signal
from fastconv.scipy._accelerate import accelerate, report

__all__ = ["accelerate", "ndimage", "report", "signal"]
__dir__ = only(__all__)
