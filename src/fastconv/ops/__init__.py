# SPDX-License-Identifier: BSD-3-Clause
"""The operators: one file per family, each with its gradients beside it.

The public names are in `fastconv.functional` and `fastconv.grad`.
"""

from fastconv._names import only

__all__ = []
__dir__ = only(__all__)
