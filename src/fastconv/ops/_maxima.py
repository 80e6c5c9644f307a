# SPDX-License-Identifier: BSD-3-Clause
"""What type checkers are told of maxima: with `return_indices` a call returns two arrays, otherwise one.

The decorators return the functions themselves. A signature that all ranks share is written once this way, and the
functions stay free of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from fastconv.ops._windows import Pooled

Size = int | Sequence[int]


class MaxPool(Protocol):
    """Maxima under a window that moves."""

    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: Literal[False] = False,
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> np.ndarray: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        return_indices: Literal[True],
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        dilation: Size,
        ceil_mode: bool,
        return_indices: Literal[True],
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> Pooled: ...


class AdaptiveMaxPool(Protocol):
    """Maxima in the cells of a grid."""

    @overload
    def __call__(
        self,
        input: ArrayLike,
        output_size: int | Sequence[int | None],
        return_indices: Literal[False] = False,
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> np.ndarray: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        output_size: int | Sequence[int | None],
        return_indices: Literal[True],
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        output_size: int | Sequence[int | None],
        return_indices: bool = False,
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> Pooled: ...


class GlobalMaxPool(Protocol):
    """Maxima of whole planes."""

    @overload
    def __call__(
        self,
        input: ArrayLike,
        return_indices: Literal[False] = False,
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> np.ndarray: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        return_indices: Literal[True],
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        return_indices: bool = False,
        *,
        layout: str = ...,
        out: np.ndarray | None = None,
    ) -> Pooled: ...


def moving(function: Callable[..., Pooled]) -> MaxPool:
    return cast(MaxPool, function)


def adaptive(function: Callable[..., Pooled]) -> AdaptiveMaxPool:
    return cast(AdaptiveMaxPool, function)


def whole(function: Callable[..., Pooled]) -> GlobalMaxPool:
    return cast(GlobalMaxPool, function)
