# SPDX-License-Identifier: BSD-3-Clause
"""Windows over planes: where they lie, and what is computed under them.

The private half of `max_pool.py` and `avg_pool.py`, for any number of spatial axes: from what callers give to the one
problem of the core, and every argument error on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from fastconv import _args, _config, _core

Pooled = np.ndarray | tuple[np.ndarray, np.ndarray]  # with the positions of the maxima
MAX, AVG = 0, 1  # the core's kinds
_CALLS = _core.Calls(128, indices=True)


@dataclass(frozen=True)
class Images:
    """The shape of a batch of images as the caller gave it, and how the core sees such arrays."""

    shape: tuple[int, ...]
    rank: int
    layout: str
    name: str
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        _args.layout_axes(self.layout, self.rank)
        if len(self.shape) not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"{self.name} has shape {self.shape}; it needs {self.rank + 2} axes in the order "
                f"{self.layout}, or {self.rank + 1} without the batch"
            )
        if not self.may_be_empty and 0 in self.shape[len(self.shape) - self.rank - 1 :]:
            raise ValueError(f"{self.name} has shape {self.shape}; only the batch may be empty")

    @property
    def _axes(self) -> tuple[int, ...]:
        """Where the axes of a plane lie in `shape`."""
        missing = self.rank + 2 - len(self.shape)
        return tuple(axis - missing for axis in _args.layout_axes(self.layout, self.rank)[2:])

    @property
    def size(self) -> tuple[int, ...]:
        """Of one plane."""
        return tuple(self.shape[axis] for axis in self._axes)

    def pooled(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The shape with planes of another size."""
        shape = list(self.shape)
        for axis, length in zip(self._axes, size, strict=True):
            shape[axis] = length
        if math.prod(shape) > _args.LIMIT:
            raise ValueError(f"the output would have shape {tuple(shape)}; it needs at most {_args.LIMIT} elements")
        return tuple(shape)

    def order(self, array: np.ndarray) -> _args.Order:
        """Of the axes of results in memory, for an array of this rank and layout."""
        return _args.order_of(array, self.rank, self.layout)

    def planes(self, array: np.ndarray) -> np.ndarray:
        """An array of this rank and layout as (images, channels, spatial), without a copy."""
        whole = array if array.ndim == self.rank + 2 else array[None]
        return whole.transpose(_args.layout_axes(self.layout, self.rank))


def input_of(value: Any, rank: int, layout: str) -> tuple[np.ndarray, Images]:
    """The argument `input`."""
    array = _args.as_operand(value, "input")
    return array, Images(array.shape, rank, layout, "input")


def input_size_of(value: Any, rank: int, layout: str) -> Images:
    """The argument `input_size`."""
    if not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"input_size is {_args.said(value)}; it needs the shape of the input")
    shape = tuple(_args.integer(length, "input_size", 0) for length in value)
    return Images(shape, rank, layout, "input_size")


@dataclass(frozen=True)
class Windows:
    """Windows over planes: `axes` has what the core wants to know of each spatial axis."""

    out_size: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    adaptive: bool = False


@dataclass(frozen=True)
class Pooling:
    """What is computed under windows."""

    windows: Windows
    kind: int
    count_include_pad: bool = False
    divisor: int = 0

    @property
    def core(self) -> _core.Pool:
        w = self.windows
        return _core.Pool(self.kind, w.adaptive, self.count_include_pad, self.divisor, w.axes)


def steps_of(stride: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The argument `stride`, which is the kernel's size where there is none, or an empty one."""
    if stride is None or (isinstance(stride, (list, tuple)) and len(stride) == 0):
        return kernel
    return _args.per_axis(stride, len(kernel), "stride", 1)


def strided(images: Images, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Windows:
    """Windows of one size that move by `stride`."""
    rank, size = images.rank, images.size
    kernel = _args.per_axis(kernel_size, rank, "kernel_size", 1)
    steps = steps_of(stride, kernel)
    pads = _args.per_axis(padding, rank, "padding", 0)
    dilations = _args.per_axis(dilation, rank, "dilation", 1)
    if any(pad > k // 2 for pad, k in zip(pads, kernel, strict=True)):
        raise ValueError(f"padding is {_args.said(padding)}; it needs to be at most half of kernel_size {kernel}")
    out = []
    for length, k, step, pad, dil in zip(size, kernel, steps, pads, dilations, strict=True):
        room = length + 2 * pad - dil * (k - 1) - 1
        count = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (count - 1) * step >= length + pad:
            count -= 1  # the last window would see nothing but the padding behind the image
        if count < 1:
            raise ValueError(
                f"kernel_size is {_args.said(kernel_size)} with dilation {_args.said(dilation)}; it needs to fit into "
                f"{images.name}'s size {size} with padding {_args.said(padding)}"
            )
        out.append(count)
    return Windows(tuple(out), tuple(zip(kernel, steps, dilations, pads, pads, strict=True)))


def adaptive(images: Images, output_size: Any) -> Windows:
    """Windows that share a plane as evenly as they can."""
    rank, name = images.rank, "output_size"
    several = isinstance(output_size, (list, tuple)) or getattr(output_size, "ndim", 0) == 1
    wanted = tuple(output_size) if several else (output_size,) * rank
    if len(wanted) != rank:
        raise ValueError(f"{name} is {_args.said(output_size)}; it needs an integer or {rank} of them")
    return evenly(
        tuple(
            length if number is None else _args.integer(number, name, 0)
            for number, length in zip(wanted, images.size, strict=True)
        )
    )


def evenly(out_size: tuple[int, ...]) -> Windows:
    """`out_size` windows, window i of n from floor(i * size / n) to ceil((i + 1) * size / n)."""
    return Windows(out_size, ((1, 1, 1, 0, 0),) * len(out_size), adaptive=True)


def divisor(value: Any) -> int:
    """The argument `divisor_override` as the core takes it, 0 for none."""
    if value is None:
        return 0
    number = _args.integer(value, "divisor_override", -_args.LIMIT)
    if number == 0:
        raise ValueError("divisor_override is 0; it needs an integer other than 0")
    return number


@overload
def forward(
    rank: int,
    input: Any,
    layout: str,
    parameters: tuple[Any, ...],
    pooling: Callable[[Images], Pooling],
    out: np.ndarray | None,
) -> np.ndarray: ...
@overload
def forward(
    rank: int,
    input: Any,
    layout: str,
    parameters: tuple[Any, ...],
    pooling: Callable[[Images], Pooling],
    out: np.ndarray | None,
    return_indices: bool,
) -> Pooled: ...
def forward(
    rank: int,
    input: Any,
    layout: str,
    parameters: tuple[Any, ...],
    pooling: Callable[[Images], Pooling],
    out: np.ndarray | None,
    return_indices: bool = False,
) -> Pooled:
    """The result in `out` or in a new array, and the indices if they are wanted.

    `parameters` tell one pooling from another; a call like an earlier one is not understood anew.
    """
    kind, arrays, call = (rank, 1 if return_indices else 0), (input, None, None, None, out), (layout, *parameters)
    threads = _config.get_num_threads()
    result = _CALLS.repeat(kind, arrays, call, threads)
    if result is not None:
        return result
    array, images = input_of(input, rank, layout)
    what = pooling(images)
    shape = images.pooled(what.windows.out_size)
    if out is not None:
        _args.check_out(out, shape, array.dtype, {"input": array})
    src = _args.computed(array)
    usable = out if out is not None and out.dtype == src.dtype and _args.addressable(out) is out else None
    order = images.order(array if out is None else out)
    dst = _core.new_array(shape, src.dtype, order) if usable is None else usable
    indices = _core.new_array(shape, np.dtype(np.int64), order) if return_indices else None
    if dst.size:
        where = None if indices is None else images.planes(indices)
        done = what.core.forward(images.planes(src), images.planes(dst), where, _config.ISA, threads)
        if src is array and usable is out:
            _CALLS.remember(kind, arrays, call, done.returns(shape, src.dtype, order))
    if out is None:
        answer = dst.astype(array.dtype, copy=False)
    else:
        answer = out
        if dst is not out:
            out[...] = dst
    return answer if indices is None else (answer, indices)


def backward(
    rank: int,
    grad_output: Any,
    indices: Any,
    input_size: Any,
    layout: str,
    parameters: tuple[Any, ...],
    pooling: Callable[[Images, Images], Pooling],
) -> np.ndarray:
    """The gradient with respect to the input, of shape `input_size`.

    `pooling` sees the input and the gradient; `indices` are those of a maximum, else None. `parameters` are as for
    `forward`.
    """
    kind, arrays = (rank, 2 if indices is None else 3), (grad_output, indices, None, None, None)
    call, threads = (layout, input_size, *parameters), _config.get_num_threads()
    result = _CALLS.repeat(kind, arrays, call, threads)
    if result is not None:
        return result
    images, grad = input_size_of(input_size, rank, layout), _args.as_operand(grad_output, "grad_output")
    what = pooling(images, Images(grad.shape, rank, layout, "grad_output", may_be_empty=True))
    where = None if indices is None else positions(indices, grad.shape, "grad_output")
    shape = images.pooled(what.windows.out_size)
    if grad.shape != shape:
        raise ValueError(f"grad_output has shape {grad.shape}; it needs the output's {shape}")
    d_dst = _args.computed(grad)
    if not d_dst.size:
        return np.zeros(images.shape, grad.dtype)
    order = images.order(grad if where is None else where)
    d_src = _core.new_array(images.shape, d_dst.dtype, order)
    done = what.core.backward(
        images.planes(d_dst),
        None if where is None else images.planes(_args.addressable(where)),
        images.planes(d_src),
        _config.ISA,
        threads,
    )
    if done is None:
        raise outside(where, images)
    if d_dst is grad:
        _CALLS.remember(kind, arrays, call, done.returns(images.shape, d_src.dtype, order))
    return d_src.astype(grad.dtype, copy=False)


def evenly_grad(kind: int, rank: int, grad_output: Any, indices: Any, input_size: Any, layout: str) -> np.ndarray:
    """The gradient of windows of which the gradient's shape says all, or the indices of maxima do."""

    def pooling(images: Images, grad: Images) -> Pooling:
        if len(grad.shape) != len(images.shape):
            raise ValueError(
                f"grad_output has shape {grad.shape}; it needs {len(images.shape)} axes, as input_size {images.shape}"
            )
        return Pooling(evenly(grad.size), kind)

    return backward(rank, grad_output, indices, input_size, layout, ("even", kind), pooling)


def max_grad(grad_output: Any, indices: Any, input_size: Any, rank: int, layout: str) -> np.ndarray:
    """The gradient of any maximum. Where its windows lay does not matter: the indices tell.

    The core tries the windows that the sizes suggest, and is fast where they are right. (To be told of windows that
    overlap made nothing faster: to compare an index with every input takes as long as to add where it says.)
    """
    return evenly_grad(MAX, rank, grad_output, indices, input_size, layout)


def positions(indices: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The argument `indices`, which has the shape of argument `name`."""
    where = _args.as_array(indices, "indices")
    if where.dtype != np.int64:
        raise TypeError(f"indices have dtype {where.dtype}; they need int64")
    if where.shape != shape:
        raise ValueError(f"indices have shape {where.shape}; they need {name}'s {shape}")
    return where


def outside(indices: np.ndarray | None, images: Images) -> ValueError:
    """What is wrong with indices that are not all positions in a plane."""
    assert indices is not None
    return ValueError(
        f"indices reach from {indices.min()} to {indices.max()}; they need to be positions in "
        f"planes of {images.size}, 0 to {math.prod(images.size) - 1}"
    )
