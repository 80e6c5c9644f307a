# SPDX-License-Identifier: BSD-3-Clause
"""Parameter and Buffer: the arrays that make up a module's state."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv._names import only

__all__ = ["Buffer", "Parameter"]
__dir__ = only(__all__)


class Parameter:
    """An array that is learnt, with its gradient.

    Parameters
    ----------
    data : array-like
        Initial values; they are copied. `Parameter.empty` makes one without values.

    Attributes
    ----------
    data : numpy.ndarray
        The values, writable. Assigning to it copies the new values in; shape and dtype may change.
    value : numpy.ndarray
        The values, read-only: for those who only read.
    grad : numpy.ndarray or None
        What `backward` has accumulated.
    version : int
        Changes whenever the values may have changed.
    is_lent : bool
        Whether a writable array, once taken from `data`, is still alive somewhere.

    Notes
    -----
    Layers in eval mode keep packed copies of their weights, which must never be stale. Therefore
    taking `data` counts as a write: it raises `version`. And as long as the array that was taken
    (or any view of it) lives, `is_lent` is true and nobody may rely on a packed copy, since a
    write could come at any time. Read through `value` and neither happens.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> p.data[0] = 5.0
    >>> p.value
    array([5., 2.])
    >>> p.accumulate(np.ones(2)); p.accumulate(np.ones(2)); p.grad
    array([2., 2.])
    """

    __slots__ = ("__weakref__", "_array", "_loan", "_version", "grad")

    def __init__(self, data: ArrayLike) -> None:
        self._adopt(np.array(data, order="C"))
        self._version = 0
        self.grad: np.ndarray | None = None

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: Any = np.float32) -> Parameter:
        """A parameter of undefined values, for an initialiser to fill.

        >>> import fastconv.nn as nn
        >>> nn.Parameter.empty((2, 3)).shape
        (2, 3)
        """
        self = cls.__new__(cls)
        self._adopt(np.empty(shape, dtype))
        self._version = 0
        self.grad = None
        return self

    def _adopt(self, array: np.ndarray) -> None:
        if not np.issubdtype(array.dtype, np.floating):
            raise TypeError(f"data has dtype {array.dtype}; a parameter must be floating point")
        self._array = array
        self._loan: weakref.ref[np.ndarray] | None = None

    @property
    def data(self) -> np.ndarray:
        # Views of an array refer to the array that owns the memory, not to the view they were made
        # from. Behind a memoryview the loan is its own owner, so its lifetime covers its views'.
        loan = self._loan() if self._loan is not None else None
        if loan is None:
            loan = np.asarray(self._array.data)
            self._loan = weakref.ref(loan)
        self._version += 1
        return loan

    @data.setter
    def data(self, values: Any) -> None:
        self._adopt(np.array(values, order="C"))
        self._version += 1

    @property
    def value(self) -> np.ndarray:
        return _read_only(self._array)

    @property
    def version(self) -> int:
        return self._version

    @property
    def is_lent(self) -> bool:
        return self._loan is not None and self._loan() is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype

    @property
    def size(self) -> int:
        return self._array.size

    def accumulate(self, gradient: np.ndarray) -> None:
        """Add to `grad`. The first gradient after `zero_grad` is kept as it is, not copied."""
        if gradient.shape != self.shape:
            raise ValueError(f"gradient has shape {gradient.shape}; it needs {self.shape}")
        if self.grad is None:
            self.grad = gradient.astype(self.dtype, copy=False)
        else:
            self.grad += gradient

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is None:  # NumPy 1 knows no such value
            return np.asarray(self.value, dtype=dtype)
        return np.array(self.value, dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_parameter, (self._array, self.grad)

    def __repr__(self) -> str:
        return f"Parameter({np.array2string(self._array, threshold=20)}, dtype={self.dtype})"


def _rebuild_parameter(array: np.ndarray, grad: np.ndarray | None) -> Parameter:
    parameter = Parameter(array)
    parameter.grad = grad
    return parameter


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


class Buffer:
    """An array that belongs to a module's state but is not learnt, such as a running mean.

    `data` is a writable array; nobody keeps packed copies of it. A state dict may lack a buffer that
    is `optional`, which then keeps its value.

    >>> import fastconv.nn as nn
    >>> nn.BatchNorm2d(3).running_var
    Buffer([1. 1. 1.], dtype=float32)
    """

    __slots__ = ("data", "optional")

    def __init__(self, data: ArrayLike, optional: bool = False) -> None:
        self.data = np.array(data)
        self.optional = optional

    @property
    def value(self) -> np.ndarray:
        return _read_only(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def __repr__(self) -> str:
        return f"Buffer({np.array2string(self.data, threshold=20)}, dtype={self.dtype})"


def zero_gradients(parameters: Iterable[Parameter], set_to_none: bool = True) -> None:
    """Forget the gradients of `parameters`, or fill them with zeros."""
    for parameter in parameters:
        if set_to_none:
            parameter.grad = None
        elif parameter.grad is not None:
            parameter.grad.fill(0)
