# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions of images that do not fit into memory, and models over many batches: fastconv on ``dask.array``.

Blocks exchange the borders that their windows see; weights travel once to each worker, and are packed there. A task
runs on one thread unless told otherwise, because dask already keeps every core busy with a task of its own.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

import dask.array as da
import numpy as np
from dask.delayed import delayed

from fastconv import _args, _config
from fastconv._names import only
from fastconv.plan import ConvPlan

__all__ = ["conv2d", "conv3d", "map_model"]
__dir__ = only(__all__)

#: What lies beyond the image, by SciPy's name, as NumPy's ``pad`` calls it.
_MODES: dict[str, Literal["constant", "symmetric", "edge", "reflect", "wrap"]] = {
    "constant": "constant",
    "reflect": "symmetric",
    "nearest": "edge",
    "mirror": "reflect",
    "wrap": "wrap",
}
_PLANS = 16  # blocks have few shapes: inner ones, and those at each edge


def conv2d(
    x: da.Array,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    activation: str | None = None,
    precision: str = "default",
    mode: str = "constant",
    cval: float = 0.0,
    num_threads: int = 1,
) -> da.Array:
    """Convolve images block by block, as :func:`fastconv.conv2d` does in one piece.

    Parameters
    ----------
    x : dask.array.Array, shape (N, C, H, W) or (C, H, W); with ``layout="NHWC"`` (N, H, W, C) or (H, W, C)
        float32, float64 or float16. Channels are gathered into one block; blocks that are smaller than the windows are
        joined.
    weight, bias, stride, padding, dilation, groups, layout, activation, precision
        As for :func:`fastconv.conv2d`.
    mode : {"constant", "reflect", "nearest", "mirror", "wrap"}
        What the padding holds, as in `scipy.ndimage`: `cval`, the image mirrored about its edge (b a | a b), its last
        pixel, the image mirrored about that (c b | a b c), or its other end.
    cval : float
        For ``mode="constant"``.
    num_threads : int
        Of one task; workers run several tasks at a time.

    Returns
    -------
    dask.array.Array
        Not computed yet.

    Raises
    ------
    TypeError, ValueError
        At once, as :func:`fastconv.conv2d`.

    Examples
    --------
    >>> import dask.array as da, numpy as np, fastconv as fc, fastconv.dask
    >>> image = da.ones((1, 1000, 1000), chunks=(1, 400, 400), dtype=np.float32)
    >>> mean = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    >>> blurred = fc.dask.conv2d(image, mean, padding=1, mode="nearest")
    >>> blurred.shape, float(blurred[0, 0, 0].compute().round(3))
    ((1, 1000, 1000), 1.0)
    """
    options = {"activation": activation, "precision": precision, "mode": mode, "cval": cval, "num_threads": num_threads}
    return _convolved(2, x, weight, bias, (stride, padding, dilation, groups, layout), options)


def conv3d(
    x: da.Array,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    activation: str | None = None,
    precision: str = "default",
    mode: str = "constant",
    cval: float = 0.0,
    num_threads: int = 1,
) -> da.Array:
    """Convolve volumes block by block: as :func:`fastconv.dask.conv2d`, with a depth before height and width.

    Examples
    --------
    >>> import dask.array as da, numpy as np, fastconv as fc, fastconv.dask
    >>> volume = da.ones((1, 40, 50, 60), chunks=(1, 20, 20, 20), dtype=np.float32)
    >>> fc.dask.conv3d(volume, np.ones((2, 1, 3, 3, 3), np.float32), stride=2).shape
    (2, 19, 24, 29)
    """
    options = {"activation": activation, "precision": precision, "mode": mode, "cval": cval, "num_threads": num_threads}
    return _convolved(3, x, weight, bias, (stride, padding, dilation, groups, layout), options)


def map_model(model: Callable[[np.ndarray], np.ndarray], x: da.Array, *, num_threads: int = 1) -> da.Array:
    """Run a model over the blocks of a batch.

    Parameters
    ----------
    model : callable
        A :class:`fastconv.nn.Module` in evaluation mode, or anything else that makes an array of N rows from one of N
        images and can be pickled. It travels once to each worker.
    x : dask.array.Array, shape (N, ...)
        Each image is gathered into one block.
    num_threads : int
        Of one task.

    Returns
    -------
    dask.array.Array, shape (N, ...)

    Raises
    ------
    TypeError
        If ``x`` is no dask array of NumPy arrays.
    ValueError
        If the model does not make one result per image, or their sizes are unknown.

    Examples
    --------
    >>> import dask.array as da, numpy as np, fastconv as fc, fastconv.dask
    >>> model = fc.models.lenet5(num_classes=10).eval()
    >>> digits = da.zeros((100, 1, 32, 32), chunks=(25, 1, 32, 32), dtype=np.float32)
    >>> fc.dask.map_model(model, digits).shape
    (100, 10)
    """
    _needs_dask(x, slice(1, None))
    if x.ndim < 1:
        raise ValueError(f"x has shape {x.shape}; it needs a batch of images")
    task = _Model(model, num_threads)
    sample = task(np.zeros((1, *x.shape[1:]), x.dtype))
    if sample.ndim < 1 or sample.shape[0] != 1:
        raise ValueError(f"model makes an array of shape {sample.shape} of one image; it needs one row per image")
    x = x.rechunk(dict.fromkeys(range(1, x.ndim), -1))
    return da.map_blocks(
        _call,
        x,
        task=delayed(task, pure=True, traverse=False),
        dtype=sample.dtype,
        chunks=(x.chunks[0], *((length,) for length in sample.shape[1:])),
        drop_axis=list(range(1, x.ndim)),
        new_axis=list(range(1, sample.ndim)),
        meta=np.empty((0,) * sample.ndim, sample.dtype),
    )


# ---------------------------------------------------------------------------------------------------------- tasks


def _call(block: np.ndarray, task: Callable[..., np.ndarray], block_id: tuple[int, ...] | None = None) -> np.ndarray:
    return task(block) if isinstance(task, _Model) else task(block, block_id)


class _Model:
    """What a task does with a batch."""

    def __init__(self, model: Callable[[np.ndarray], np.ndarray], num_threads: int) -> None:
        if not callable(model):
            raise TypeError(f"model is a {type(model).__name__}; it needs to be callable")
        self.model, self.num_threads = model, _args.integer(num_threads, "num_threads", 1)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        with _config.threads(self.num_threads):
            return np.asarray(self.model(block))


class _Convolution:
    """What a task does with a block and its borders; a worker packs the weights for each shape of block once."""

    def __init__(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        geometry: _args.Geometry,
        options: dict[str, Any],
        sides: dict[int, _Side],
    ) -> None:
        self.weight, self.bias, self.geometry, self.options, self.sides = weight, bias, geometry, options, sides
        self._start()

    def _start(self) -> None:
        self.plans: OrderedDict[Any, ConvPlan] = OrderedDict()
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("plans", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _plan(self, shape: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> ConvPlan:
        key, g, o = (shape, padding), self.geometry, self.options
        with self.lock:
            if key not in self.plans:
                if len(self.plans) == _PLANS:
                    self.plans.popitem(last=False)
                arguments = (self.weight, self.bias, g.stride, padding, g.dilation, g.groups)
                kept = {name: o[name] for name in ("activation", "precision")}
                self.plans[key] = ConvPlan(shape, *arguments, layout=g.layout, **kept)
            self.plans.move_to_end(key)
            return self.plans[key]

    def __call__(self, block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        mode, cval = self.options["mode"], self.options["cval"]
        windows = {axis: side.windows(block_id[axis]) for axis, side in self.sides.items()}
        beyond = {axis: (max(0, -low), max(0, high - self.sides[axis].size)) for axis, (low, high) in windows.items()}
        zeros = mode == "constant" and cval == 0
        if not zeros and any(map(any, beyond.values())):  # the plan itself pads with zeros, without a copy
            pads = [beyond.get(axis, (0, 0)) for axis in range(block.ndim)]
            filling: dict[str, Any] = {"constant_values": cval} if mode == "constant" else {}
            block = np.pad(block, pads, _MODES[mode], **filling)
        cut = [slice(None)] * block.ndim
        for axis, (low, high) in windows.items():
            side, origin = self.sides[axis], self.sides[axis].starts[block_id[axis]]
            if zeros:
                low, high = max(low, 0), min(high, side.size)
            else:
                origin -= beyond[axis][0]
            cut[axis] = slice(low - origin, high - origin)
        block = block[tuple(cut)]
        padding = tuple(beyond.values()) if zeros else ((0, 0),) * len(beyond)
        with _config.threads(self.options["num_threads"]):
            return self._plan(block.shape, padding)(block)


class _Side:
    """How one axis is cut: a block [a, b) makes the outputs whose windows start in it, or before it if it is the first.

    So a window sees its own block and the first elements of the next one, whatever stride and padding are.
    """

    def __init__(self, chunks: Iterable[int], g: _args.Geometry, i: int) -> None:
        self.size, self.out, self.stride = g.in_size[i], g.out_size[i], g.stride[i]
        self.before, self.after = g.padding[i]
        self.reach = (g.kernel[i] - 1) * g.dilation[i] + 1
        self.starts = [0]
        # A block is mirrored into the padding, and lends its neighbour what a window reaches.
        least = max(self.reach, self.stride, self.before + 1, self.after + 1)
        for edge in accumulate(chunks):
            if min(edge - self.starts[-1], self.size - edge) >= least and self._first(edge) < self.out:
                self.starts.append(edge)
        self.outputs = [*map(self._first, self.starts), self.out]

    def _first(self, start: int) -> int:
        """The first output whose window starts at `start` or later."""
        return -(-(start + self.before) // self.stride) if start else 0

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in pairwise([*self.starts, self.size]))

    @property
    def output_chunks(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in pairwise(self.outputs))

    def windows(self, index: int) -> tuple[int, int]:
        """Where the windows of a block begin and end in the image."""
        first, last = self.outputs[index], self.outputs[index + 1] - 1
        return first * self.stride - self.before, last * self.stride - self.before + self.reach


def _convolved(
    rank: int, x: da.Array, weight: Any, bias: Any, parameters: Sequence[Any], options: dict[str, Any]
) -> da.Array:
    _needs_dask(x, slice(None))
    stride, padding, dilation, groups, layout = parameters
    _args.activation_fields(options["activation"])
    _args.is_strict(options["precision"])
    if not isinstance(options["mode"], str) or options["mode"] not in _MODES:
        raise ValueError(f"mode is {options['mode']!r}; it needs one of {', '.join(map(repr, _MODES))}")
    options["cval"] = _number(options["cval"], "cval")
    options["num_threads"] = _args.integer(options["num_threads"], "num_threads", 1)
    w = np.array(_args.as_operand(weight, "weight"))
    b = None if bias is None else np.array(_args.as_operand(bias, "bias"))
    if x.dtype != w.dtype:
        raise TypeError(f"x has dtype {x.dtype} and weight {w.dtype}; they need the same")
    g = _args.geometry(rank, x.shape, w.shape, stride, padding, dilation, groups, layout, "x")
    _args.check_bias(b, g.out_channels, w)
    missing = 0 if g.batched else 1
    channel, *spatial = (axis - missing for axis in _args.layout_axes(g.layout, rank)[1:])
    if options["mode"] == "wrap":  # the other end may be far away: it is brought here first
        pads = list(g.padding)
        for i, axis in enumerate(spatial):
            if max(pads[i]) <= x.shape[axis]:  # else the axis is one block, which has it all
                x, pads[i] = _wrapped(x, axis, *pads[i]), (0, 0)
        g = _args.geometry(rank, x.shape, w.shape, g.stride, pads, g.dilation, g.groups, g.layout, "x")
    sides = {axis: _Side(x.chunks[axis], g, i) for i, axis in enumerate(spatial)}
    task = _Convolution(w, b, g, options, sides)
    x = x.rechunk({channel: -1, **{axis: side.chunks for axis, side in sides.items()}})
    depth = {axis: (0, side.reach - 1 if len(side.starts) > 1 else 0) for axis, side in sides.items()}
    overlapped = da.overlap.overlap(x, depth, "none", allow_rechunk=False)
    chunks = list(x.chunks)
    chunks[channel] = (g.out_channels,)
    for axis, side in sides.items():
        chunks[axis] = side.output_chunks
    return da.map_blocks(
        _call,
        overlapped,
        task=delayed(task, pure=True, traverse=False),
        dtype=x.dtype,
        chunks=tuple(chunks),
        meta=np.empty((0,) * x.ndim, x.dtype),
    )


def _wrapped(x: da.Array, axis: int, before: int, after: int) -> da.Array:
    """Between its other ends; ``dask.array.pad`` is wrong for some amounts."""
    n = x.shape[axis]
    ahead, behind = (x[(slice(None),) * axis + (part,)] for part in (slice(n - before, n), slice(0, after)))
    parts = [part for part in (ahead, x, behind) if part.shape[axis]]
    return da.concatenate(parts, axis) if len(parts) > 1 else x


def _needs_dask(x: Any, known: slice) -> None:
    """Whether it is a dask array of NumPy arrays whose sizes are known along these axes."""
    if not isinstance(x, da.Array):
        raise TypeError(f"x is a {type(x).__name__}; it needs to be a dask.array.Array")
    if type(x._meta) is not np.ndarray:
        what = "; fill it first, such as by dask.array.ma.filled" if isinstance(x._meta, np.ma.MaskedArray) else ""
        raise TypeError(f"x has blocks of type {type(x._meta).__name__}; it needs numpy.ndarray{what}")
    if any(math.isnan(n) for n in x.shape[known]):
        raise ValueError(f"x has shape {x.shape}, with chunks of unknown sizes; call x.compute_chunk_sizes() first")


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it needs a real number") from None
