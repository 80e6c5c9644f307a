# SPDX-License-Identifier: BSD-3-Clause
"""Elementwise maps of arrays by the core: chains of its operations, of which each element goes through all at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _args, _config, _core

Operation = tuple[str, int, int, float, float]


def op(name: str, *operands: int, a: float = 0.0, b: float = 0.0) -> Operation:
    """An operation by its name in `FC_MAP_LIST` (csrc/problem.h), which says what it does with `a` and `b`.

    `operands` are the numbers of the arrays that it takes beside what the one before it has left: 0 is the first behind
    the source.
    """
    y, z = (*operands, 0, 0)[:2]
    return name, y, z, a, b


class Map:
    """A chain of operations on arrays of one dtype, float32 or float64, whose shapes broadcast.

    >>> import numpy as np
    >>> from fastconv._maps import Map, op
    >>> scale_and_shift = Map(op("fma", 0, 1), op("clamp", a=0.0, b=np.inf), others=2)
    >>> scale_and_shift(np.ones((2, 2)), np.array([1.0, -2.0]), np.ones(1))
    array([[2., 0.],
           [2., 0.]])
    """

    __slots__ = ("_program",)

    def __init__(self, *operations: Operation, others: int = 0) -> None:
        self._program = _core.Program(operations, others)

    def at_once(self, src: Any, *others: Any) -> np.ndarray | None:
        """The result, if all arguments are arrays that can be taken as they stand; whatever else they are, None."""
        return self._program.run(src, others, None, _config.ISA, _config.get_num_threads())

    def __call__(self, src: np.ndarray, *others: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The result, in `out` if given, which may be `src` or overlap anything."""
        threads = _config.get_num_threads()
        result = self._program.run(src, others, out, _config.ISA, threads)
        if result is not None:
            return result
        arrays = [_args.addressable(np.asarray(array)) for array in (src, *others)]
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        if len(shape) > _MOST_AXES:
            arrays = [np.broadcast_to(array, shape).reshape(-1) for array in arrays]
        result = self._program.run(arrays[0], tuple(arrays[1:]), None, _config.ISA, threads)
        if result is None:
            dtypes = ", ".join(str(array.dtype) for array in arrays)
            raise TypeError(f"operands have dtypes {dtypes}; a map needs all float32, or all float64")
        result = result.reshape(shape)
        if out is None:
            return result
        out[...] = result
        return out


_MOST_AXES = 8
