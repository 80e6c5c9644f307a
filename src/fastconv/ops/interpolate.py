# SPDX-License-Identifier: BSD-3-Clause
"""Images of another size, and the gradient: tables of where to read and by what to multiply, one for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _config, _core
from fastconv._names import only
from fastconv.ops._operand import channel_axis, like, operand

__all__ = ["interpolate", "interpolate_grad"]
__dir__ = only(__all__)

#: in, out, indices and weights [tap][out]; without weights there is one tap of weight 1.
Table = tuple[int, int, np.ndarray, np.ndarray | None]
#: Ranks that a mode serves; those of one rank are the same rule.
MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
}
_OF_CELLS = ("nearest", "nearest-exact", "area")  # which have no corners to align


# --- tables ---------------------------------------------------------------------------------------


def _nearest(size: int, out: int, scale: float, exact: bool) -> np.ndarray:
    """The element whose cell the output's low edge lies in, or its middle; in float32, as torch rounds."""
    at = np.arange(out, dtype=np.float32) + np.float32(0.5 if exact else 0)
    return np.minimum(np.floor(at * np.float32(scale)), size - 1).astype(np.int32)


def _area(size: int, out: int) -> Table:
    """The mean of all elements that the output's cell touches."""
    low, high = np.arange(out) * size // out, -(-np.arange(1, out + 1) * size // out)
    tap = np.arange((high - low).max())[:, np.newaxis]
    index = np.minimum(low + tap, size - 1).astype(np.int32)
    return size, out, index, np.where(low + tap < high, 1 / (high - low), 0.0)


def _position(size: int, out: int, scale: float, align_corners: bool) -> np.ndarray:
    """Where the middle of each output lies, in elements of the input from the middle of the first."""
    if align_corners:
        return np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    return (np.arange(out) + 0.5) * scale - 0.5


def _cubic(t: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = −3/4 at distances 1 + t, t, 1 − t, 2 − t."""
    a = -0.75
    far, near = np.stack([1 + t, 2 - t]), np.stack([t, 1 - t])
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    return np.stack([outer[0], inner[0], inner[1], outer[1]])


def _made_table(mode: str, size: int, out: int, scale: float, align_corners: bool) -> Table:
    if mode.startswith("nearest"):
        return size, out, _nearest(size, out, scale, mode == "nearest-exact")[np.newaxis], None
    if mode == "area":
        return _area(size, out)
    at = _position(size, out, scale, align_corners)
    if mode == "bicubic":
        low = np.floor(at)
        index = np.clip(low + np.arange(-1, 3)[:, np.newaxis], 0, size - 1)
        return size, out, index.astype(np.int32), _cubic(at - low)
    at = np.clip(at, 0, size - 1)
    low = np.floor(at)
    index = np.stack([low, np.minimum(low + 1, size - 1)]).astype(np.int32)
    return size, out, index, np.stack([1 - (at - low), at - low])


_kept_table = lru_cache(maxsize=128)(_made_table)
_KEPT = 4096  # outputs of a table that is kept, so that all of them take at most some 25 MB


def _table(mode: str, size: int, out: int, scale: float, align_corners: bool) -> Table:
    return (_kept_table if out <= _KEPT else _made_table)(mode, size, out, scale, align_corners)


def _transposed(table: Table) -> Table:
    """The table of the gradient: for every input, the outputs that it goes into."""
    size, out, index, weight = table
    taps = len(index)
    values = np.ones(taps * out) if weight is None else weight.ravel()
    used = np.flatnonzero(values)
    used = used[np.argsort(index.ravel()[used], kind="stable")]
    target = index.ravel()[used]
    counts = np.bincount(target, minlength=size)
    rank = np.arange(len(used)) - np.repeat(np.cumsum(counts) - counts, counts)
    most = max(int(counts.max()), 1)
    back, weights = np.zeros((most, size), np.int32), np.zeros((most, size))
    back[rank, target] = used % out
    weights[rank, target] = values[used]
    return out, size, back, weights


def is_at_once(tables: tuple[Table, ...]) -> bool:
    """Whether all axes go in one pass: where each output is a sum of few elements."""
    return math.prod(len(index) for _, _, index, _ in tables) <= 64


def _applied(images: np.ndarray, axis: int, tables: tuple[Table, ...]) -> np.ndarray:
    """Images of another size, whose channels are that axis."""
    rank = images.ndim - 2
    order = _args.order_of(images, rank, _args.channels_first(rank)) if axis == 1 else _args.last_order(rank + 2, rank)
    planes = np.moveaxis(_args.addressable(images), axis, 1)
    return np.moveaxis(_resized(planes, tables, order), 1, axis)


def _resized(planes: np.ndarray, tables: tuple[Table, ...], order: _args.Order) -> np.ndarray:
    """Planes (images, channels, spatial) of another size, their axes in this order in memory."""
    threads = _config.get_num_threads()
    if is_at_once(tables):
        shape = (*planes.shape[:2], *(out for _, out, _, _ in tables))
        target = _core.new_array(shape, planes.dtype, order)
        _core.resize(planes, target, tables, _config.ISA, threads)
        return target
    for axis, table in enumerate(
        tables, 2
    ):  # one axis after the other is less work: as the last, among the taps of none
        shape = (*planes.shape[:axis], table[1], *planes.shape[axis + 1 :])
        target = _core.new_array(shape, planes.dtype, order)
        turned = np.moveaxis(planes, axis, -1)
        rest = tuple((n, n, np.arange(n, dtype=np.int32)[np.newaxis], None) for n in turned.shape[2:-1])
        _core.resize(turned, np.moveaxis(target, axis, -1), (*rest, table), _config.ISA, threads)
        planes = target
    return planes


# --- arguments ------------------------------------------------------------------------------------


def _per_axis(value: Any, rank: int, name: str) -> tuple[Any, ...]:
    several = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
    numbers = tuple(value) if several else (value,) * rank
    if len(numbers) != rank:
        raise ValueError(f"{name} is {_args.said(value)}; it needs a number or {rank} of them")
    return numbers


def tables_of(
    shape: tuple[int, ...],
    axis: int,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
) -> tuple[Table, ...]:
    """One for each spatial axis: all argument errors but those of the input."""
    rank = len(shape) - 2
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"mode is {_args.said(mode)}; it needs {', '.join(map(repr, MODES))}")
    if rank not in MODES[mode]:
        fit = [name for name, ranks in MODES.items() if rank in ranks]
        raise ValueError(f"mode is {mode!r}; input of shape {shape} needs {', '.join(map(repr, fit))}")
    if align_corners is not None and mode in _OF_CELLS:
        raise ValueError(f"align_corners is {_args.said(align_corners)}; mode {mode!r} needs None")
    if (size is None) == (scale_factor is None):
        given = "both are given" if size is not None else "neither is given"
        raise ValueError(f"size or scale_factor is needed, and not the other; {given}")
    if size is not None and recompute_scale_factor:
        raise ValueError("recompute_scale_factor is True; it needs a scale_factor")
    in_size = tuple(n for i, n in enumerate(shape) if i not in (0, axis))
    if 0 in in_size or shape[axis] == 0:
        raise ValueError(f"input has shape {shape}; only the batch may be empty")
    if size is not None:
        out_size = tuple(_args.integer(n, "size", 1) for n in _per_axis(size, rank, "size"))
        scales = [n / m for n, m in zip(in_size, out_size, strict=True)]
    else:
        factors = [_args.real(f, "scale_factor") for f in _per_axis(scale_factor, rank, "scale_factor")]
        if not all(0 < f < math.inf for f in factors):
            raise ValueError(f"scale_factor is {_args.said(scale_factor)}; it needs to be positive and finite")
        if any(n * f > _args.LIMIT for n, f in zip(in_size, factors, strict=True)):
            raise ValueError(f"scale_factor is {_args.said(scale_factor)}; it makes more than {_args.LIMIT} elements")
        out_size = tuple(math.floor(n * f) for n, f in zip(in_size, factors, strict=True))
        if 0 in out_size:
            raise ValueError(f"scale_factor is {_args.said(scale_factor)}; of size {in_size} it leaves {out_size}")
        scales = [1 / f for f in factors]
        if recompute_scale_factor:
            scales = [n / m for n, m in zip(in_size, out_size, strict=True)]
    if shape[0] * shape[axis] * math.prod(out_size) > _args.LIMIT:
        raise ValueError(f"the output would have size {out_size}; it needs at most {_args.LIMIT} elements in all")
    if max(*in_size, *out_size) >= 1 << 31:
        raise ValueError(f"sizes are {in_size} and {out_size}; they need to be below {1 << 31}")
    aligned = bool(align_corners)
    return tuple(_table(mode, *sizes, aligned) for sizes in zip(in_size, out_size, scales, strict=True))


def _check_rank(shape: tuple[int, ...], name: str) -> None:
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"{name} is of shape {shape}; it needs 3 to 5 axes, batch and channels included")


def interpolate(
    input: ArrayLike,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Give images another size.

    Parameters
    ----------
    input : array of 3 to 5 axes, float32, float64 or float16
        ``(N, C, ...)``, or ``(N, ..., C)`` with a channels-last `layout`; one to three spatial axes.
    size : int or sequence of int, optional
        The spatial size of the result.
    scale_factor : float or sequence of float, optional
        By what to multiply the spatial size instead; the result is rounded down.
    mode : str
        ``"nearest"``, ``"nearest-exact"``, ``"area"``, or by the number of spatial axes ``"linear"``, ``"bilinear"`` or
        ``"bicubic"``, ``"trilinear"``.
    align_corners : bool, optional
        Whether the middles of the corner elements stay where they are, rather than the edges of the image. Not for the
        nearest modes and areas.
    recompute_scale_factor : bool, optional
        Whether coordinates follow from the sizes, rather than from `scale_factor`.
    layout : str, keyword only
        As in :func:`fastconv.batch_norm`.

    Returns
    -------
    numpy.ndarray
        The dtype and layout of `input`.

    Raises
    ------
    ValueError
        Wrong rank, a mode for another rank, not just one of `size` and `scale_factor`, or one that leaves nothing.
    TypeError
        A dtype that is not floating point, or a number of the wrong type.

    Notes
    -----
    What lies beyond the border is the border. A weight of zero leaves out its element, even one that is infinite.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.interpolate(np.array([[[1.0, 2.0]]]), scale_factor=2, mode="linear")
    array([[[1.  , 1.25, 1.75, 2.  ]]])
    """
    x = operand(input)
    _check_rank(x.shape, "input")
    axis = channel_axis(layout, x.ndim)
    tables = tables_of(x.shape, axis, size, scale_factor, mode, align_corners, recompute_scale_factor)
    return like(_applied(x, axis, tables), input)


def interpolate_grad(
    grad_output: ArrayLike,
    input_size: Sequence[int],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    *,
    layout: str = "NCHW",
) -> np.ndarray:
    """Gradient of :func:`fastconv.interpolate`, which is linear: the transposed tables.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the output.
    input_size : sequence of int
        Shape of the input, in the order of `layout`.
    size, scale_factor, mode, align_corners, recompute_scale_factor, layout
        Those of the forward call.

    Returns
    -------
    numpy.ndarray, of shape `input_size`

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.interpolate`; also if `grad_output` has not the output's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.interpolate(np.ones((1, 1, 4)), (1, 1, 2), size=4, mode="linear")
    array([[[2., 2.]]])
    """
    g = operand(grad_output, "grad_output")
    shape = _args.sizes(input_size, "input_size", 0)
    _check_rank(shape, "input_size")
    axis = channel_axis(layout, len(shape))
    tables = tables_of(shape, axis, size, scale_factor, mode, align_corners, recompute_scale_factor)
    out = list(shape)
    for i, (_, length, _, _) in zip([i for i in range(1, len(shape)) if i != axis], tables, strict=True):
        out[i] = length
    if g.shape != tuple(out):
        raise ValueError(f"grad_output has shape {g.shape}; it needs the output's {tuple(out)}")
    return like(_applied(g, axis, tuple(map(_transposed, tables))), grad_output)
