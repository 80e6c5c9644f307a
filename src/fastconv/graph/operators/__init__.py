# SPDX-License-Identifier: BSD-3-Clause
"""What nodes may be: one record for each operator, in one file for each family.

A record says what shapes and dtypes come out, what the operator means in NumPy, and how it becomes steps of a network.
"""

from __future__ import annotations

from fastconv._names import only
from fastconv.graph.operators import (
    choice,
    conv,
    detection,
    elementwise,
    foreign,
    normalize,
    numeric,
    pool,
    product,
    resize,
    shape,
)
from fastconv.graph.operators.record import Operator

__all__ = ["OPERATORS", "Operator"]
__dir__ = only(__all__)

#: By name.
OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for family in (choice, conv, detection, elementwise, foreign, normalize, numeric, pool, product, resize, shape)
    for operator in family.OPERATORS
}
