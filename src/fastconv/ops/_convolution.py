# SPDX-License-Identifier: BSD-3-Clause
"""What every convolution does: from what callers give to the one problem of the core.

The private half of `conv.py` and `conv_transpose.py`. An axis that is missing has one element, and a transposed
convolution is the input gradient of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv import _args, _config, _core, _plans
from fastconv.ops import _folds
from fastconv.ops.activation import RECTIFIED, UNBOUNDED, clamp_grad

_CALLS = _core.Calls(1024)  # a step of DenseNet-121 makes 363
_NOWHERE: Mapping[str, None] = dict.fromkeys(_args.GRADIENTS)  # of gradients: into new arrays


def _plan(
    geometry: _args.Geometry,
    direction: str,
    src: np.ndarray,
    wei: np.ndarray,
    dst: np.ndarray,
    algorithm: str = "auto",
    strict: bool = False,
    activation: _args.Activation = _args.ACTIVATIONS[None],
    batch_invariant: bool = False,
    once: bool = True,
) -> _core.Plan:
    """The plan for these arrays. Forward order: input, weight, output, whichever of them is the result."""
    views = [(a.shape, _args.strides_of(a)) for a in (src, wei, dst)]
    fields = geometry.fields(direction, src.dtype, views[0][1], views[1][1], views[2][1], activation)
    # What is read, what is packed, and what is written.
    order = {"forward": (0, 1, 2), "input": (2, 1, 0), "weight": (0, 2, 1)}[direction]
    read, packed, written = (views[i] for i in order)
    return _plans.core_plan(fields, algorithm, strict, once, batch_invariant, read, packed, written, src.dtype)


def convolve(
    rank: int,
    transposed: bool,
    arrays: tuple[Any, ...],
    parameters: tuple[Any, ...],
    batch_invariant: bool = False,
    last: bool = False,
) -> np.ndarray:
    """Any convolution. ``arrays`` are input, weight, bias, residual and out, ``parameters`` as ConvPlan has them.

    The axes of the result lie in memory as those of the input, or with ``last`` have channels last in any case.
    """
    if batch_invariant is not False:
        _args.is_batch_invariant(batch_invariant)
    kind, threads = ("forward", rank, transposed, batch_invariant, last), _config.get_num_threads()
    result = _CALLS.repeat(kind, arrays, parameters, threads)
    if result is not None:
        return result
    input, weight, bias, residual, out = arrays
    stride, padding, output_padding, dilation, groups, layout, activation, algorithm, precision = parameters
    x, w = _args.as_operand(input, "input"), _args.as_operand(weight, "weight")
    _args.same_dtype(x, "input", w, "weight")
    g = _args.geometry_of(
        rank, transposed, x.shape, w.shape, stride, padding, output_padding, dilation, groups, layout, "input"
    )
    shape, channels = (g.input_result_shape, g.in_channels) if transposed else (g.result_shape, g.out_channels)
    b = _args.check_bias(bias, channels, w)
    r = None if residual is None else _args.check_residual(residual, shape, x.dtype)
    finish, strict = _args.activation_fields(activation), _args.is_strict(precision)
    if out is not None:
        _args.check_out(out, shape, x.dtype, {"input": x, "weight": w, "bias": b})
    if transposed and x.dtype == _args.HALF:  # the core reads float16 forward only
        wide = (None if a is None else a.astype(np.float32) for a in (x, w, b, r))
        y = convolve(rank, True, (*wide, None), parameters, batch_invariant, last).astype(x.dtype)
        return _args.handed_over(y, out)
    order = _args.order_of(x if out is None else out, rank, layout)
    if last and out is None and layout == _args.channels_first(rank):
        order = _args.last_order(x.ndim, rank)
    x, w = _args.stored(x, order), _args.stored(w)
    # The core writes any strides; only a residual has to be laid out like the result, and float16 has no gaps.
    y = _args.target(out, r is not None or x.dtype == _args.HALF, shape, x.dtype, order)
    operands = (y, w, x) if transposed else (x, w, y)
    plan = _plan(g, "input" if transposed else "forward", *operands, algorithm, strict, finish, batch_invariant)
    plan.execute(x, None, w, b, _args.laid_out(r, out, order), y, threads)
    _CALLS.remember(kind, arrays, parameters, plan)
    return _args.handed_over(y, out)


def _operand_of_grad(value: Any, shape: tuple[int, ...], other: np.ndarray, name: str) -> np.ndarray:
    grad = _args.as_operand(value, "grad_output")
    if grad.shape != shape:
        raise ValueError(f"grad_output has shape {grad.shape}; it needs the forward result's shape {shape}")
    _args.same_dtype(grad, "grad_output", other, name)
    return grad


def input_grad_plan(
    geometry: _args.Geometry,
    transposed: bool,
    grad: np.ndarray,
    w: np.ndarray,
    result: np.ndarray,
    algorithm: str,
    strict: bool,
    batch_invariant: bool,
    once: bool = True,
) -> _core.Plan:
    """The plan of the gradient of any convolution with respect to its input."""
    direction, order = ("forward", (grad, w, result)) if transposed else ("input", (result, w, grad))
    return _plan(geometry, direction, *order, algorithm, strict, batch_invariant=batch_invariant, once=once)


def input_grad(
    rank: int,
    transposed: bool,
    input_size: Any,
    weight: Any,
    grad_output: Any,
    parameters: tuple[Any, ...],
    batch_invariant: bool,
    out: np.ndarray | None = None,
    input: np.ndarray | None = None,
) -> np.ndarray:
    """Of any convolution. ``parameters`` are stride, padding, output_padding, dilation, groups, layout, algorithm and
    precision.

    Axes lie in memory as those of ``input``, if it is there, else as those of the gradient.
    """
    if batch_invariant is not False:
        _args.is_batch_invariant(batch_invariant)
    arrays, call, threads = (
        (grad_output, weight, None, None, out),
        (input_size, *parameters),
        _config.get_num_threads(),
    )
    order = None if input is None else _args.order_of(input, rank, parameters[5])
    kind = ("input", rank, transposed, batch_invariant, input is None, order)
    result = _CALLS.repeat(kind, arrays, call, threads)
    if result is not None:
        return result
    stride, padding, output_padding, dilation, groups, layout, algorithm, precision = parameters
    w = _args.as_operand(weight, "weight")
    shape = _args.sizes(input_size, "input_size", 0)
    g = _args.geometry_of(
        rank, transposed, shape, w.shape, stride, padding, output_padding, dilation, groups, layout, "input_size"
    )
    grad = _operand_of_grad(grad_output, g.input_result_shape if transposed else g.result_shape, w, "weight")
    dtype, grad, w = w.dtype, _args.computed(grad), _args.computed(w)
    if input is None:
        order = _args.order_of(grad, rank, layout)
    result = _args.target(out if dtype == w.dtype else None, False, shape, w.dtype, order)
    strict = _args.is_strict(precision)
    plan = input_grad_plan(g, transposed, grad, w, result, algorithm, strict, batch_invariant)
    plan.execute(grad, None, w, None, None, result, threads)
    _CALLS.remember(kind, arrays, call, plan)
    return result.astype(dtype, copy=False) if out is None else _args.handed_over(result, out)


def weight_grad(
    rank: int,
    transposed: bool,
    input: Any,
    weight_size: Any,
    grad_output: Any,
    parameters: tuple[Any, ...],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The same for the weight."""
    arrays, call, threads = (
        (input, grad_output, None, None, out),
        (weight_size, *parameters),
        _config.get_num_threads(),
    )
    if transposed:  # the convolution whose input gradient this is reads what the transposed one writes
        arrays = (grad_output, input, None, None, out)
    kind = ("weight", rank, transposed)
    result = _CALLS.repeat(kind, arrays, call, threads)
    if result is not None:
        return result
    stride, padding, output_padding, dilation, groups, layout, algorithm, precision = parameters
    x = _args.as_operand(input, "input")
    size = _args.sizes(weight_size, "weight_size", 1)
    g = _args.geometry_of(
        rank, transposed, x.shape, size, stride, padding, output_padding, dilation, groups, layout, "input"
    )
    grad = _operand_of_grad(grad_output, g.input_result_shape if transposed else g.result_shape, x, "input")
    dtype, x, grad = x.dtype, _args.computed(x), _args.computed(grad)
    read, written = (a if g.batched else a[None] for a in ((grad, x) if transposed else (x, grad)))
    result = _args.target(out if dtype == read.dtype else None, False, size, read.dtype)
    plan = _plan(g, "weight", read, result, written, algorithm, _args.is_strict(precision))
    plan.execute(read, None, written, None, None, result, threads)
    _CALLS.remember(kind, arrays, call, plan)
    return result.astype(dtype, copy=False) if out is None else _args.handed_over(result, out)


Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]
_UNSERVED = _core.Unserved()


def _at_once(
    rank: int,
    x: np.ndarray,
    w: np.ndarray,
    grad: np.ndarray,
    parameters: tuple[Any, ...],
    bias: bool,
    out: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """All gradients of a convolution in one pass through memory; None where that does not exist or does not pay."""
    stride, padding, _, dilation, groups, layout, algorithm, precision = parameters
    if algorithm not in ("auto", "depthwise") or w.shape[1] != 1 or w.shape[0] != groups or x.ndim != rank + 2:
        return None
    kind, arrays, threads = ("gradients", rank, bias), (x, grad, w, None, out), _config.get_num_threads()
    result = _CALLS.repeat(kind, arrays, parameters, threads)
    if result is not None:
        return result or None
    g = _args.geometry_of(rank, False, x.shape, w.shape, stride, padding, 0, dilation, groups, layout, "input")
    x, grad, weight = (_args.computed(a) for a in (x, grad, w))
    d_input = _args.target(out, False, x.shape, x.dtype, _args.order_of(x, rank, layout))
    seen, output, weights, found = views = [(a.shape, _args.strides_of(a)) for a in (x, grad, weight, d_input)]
    dense = _args.dense_strides(w.shape, w.itemsize)
    by_weight = g.fields("weight", x.dtype, seen[1], dense, output[1])
    by_input = g.fields("input", x.dtype, found[1], weights[1], output[1])
    strict = _args.is_strict(precision)
    plan = _plans.layer_gradient_plan(by_weight, by_input, groups if bias else 0, algorithm, strict, *views, x.dtype)
    if plan is None:
        _CALLS.remember(kind, arrays, parameters, _UNSERVED)
        return None
    d_weight, d_bias = plan.execute(x, grad, weight, d_input, threads)
    _CALLS.remember(kind, arrays, parameters, plan)
    return _args.handed_over(d_input, out), d_weight, d_bias


def gradients(
    rank: int,
    transposed: bool,
    input: Any,
    weight: Any,
    grad_output: Any,
    parameters: tuple[Any, ...],
    needs: Any,
    mask: Any,
    batch_invariant: bool,
    out: Any,
) -> Gradients:
    """Of input, weight and bias, as far as they are needed; ``parameters`` as above."""
    stride, padding, output_padding, dilation, groups, layout, _, _ = parameters
    x, w = _args.as_operand(input, "input"), _args.as_operand(weight, "weight")
    _args.same_dtype(x, "input", w, "weight")
    g = _args.geometry_of(
        rank, transposed, x.shape, w.shape, stride, padding, output_padding, dilation, groups, layout, "input"
    )
    _args.is_batch_invariant(batch_invariant)
    bounds = UNBOUNDED if mask is None else RECTIFIED
    asked = asked_of(g, transposed, x, w, grad_output, needs, mask, bounds, out)
    return back(rank, transposed, x, w, parameters, asked, batch_invariant)


class Asked(NamedTuple):
    """Gradients that are asked for, of a result that is that of a clamp, and where they go."""

    grad: Any
    wanted: Collection[str]
    output: np.ndarray | None = None
    bounds: tuple[float, float] = UNBOUNDED
    outs: Mapping[str, np.ndarray | None] = _NOWHERE


def asked_of(
    g: _args.Geometry,
    transposed: bool,
    x: np.ndarray,
    w: np.ndarray,
    grad_output: Any,
    needs: Any,
    output: Any,
    bounds: tuple[float, float],
    out: Any,
) -> Asked:
    """All of it checked."""
    grad = _operand_of_grad(grad_output, g.input_result_shape if transposed else g.result_shape, x, "input")
    wanted = _args.needed(needs)
    inputs = {"input": x, "weight": w, "grad_output": grad}
    if output is not None:
        output = inputs["mask"] = _args.check_mask(output, grad)
    shapes = {"input": x.shape, "weight": w.shape, "bias": (g.in_channels if transposed else g.out_channels,)}
    outs = _args.check_outs(out, {name: shapes[name] for name in wanted}, inputs)
    return Asked(grad, wanted, output, bounds, outs)


def back(
    rank: int,
    transposed: bool,
    x: np.ndarray,
    w: np.ndarray,
    parameters: tuple[Any, ...],
    asked: Asked,
    batch_invariant: bool = False,
    of_input: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None = None,
) -> Gradients:
    """The gradients that are asked for, of the arrays of a forward call; that of the input perhaps by ``of_input``.

    A clamp and the gradient of the bias behind it take one pass through memory.
    """
    grad, wanted, output, bounds, outs = asked
    grad = _args.as_operand(grad, "grad_output")
    if output is not None:
        grad = _operand_of_grad(grad, output.shape, output, "the result")
    if x.dtype == grad.dtype == _args.HALF:
        single = np.float32
        wide = Asked(grad.astype(single), wanted, None if output is None else output.astype(single), bounds)
        found = back(rank, transposed, x.astype(single), w.astype(single), parameters, wide, batch_invariant, of_input)
        halves = [
            None if a is None else _args.handed_over(a.astype(_args.HALF), outs[name])
            for name, a in zip(_args.GRADIENTS, found, strict=True)
        ]
        return halves[0], halves[1], halves[2]
    d_input = d_weight = d_bias = None
    channels = _args.layout_axes(parameters[5], rank)[1] - (grad.ndim == rank + 1)
    if output is not None and bounds != UNBOUNDED and wanted:
        if "bias" in wanted:
            grad, d_bias = _folds.through(grad, output, channels, bounds)
        else:
            grad = clamp_grad(grad, output, bounds)
    if "input" in wanted and "weight" in wanted and of_input is None and not (transposed or batch_invariant):
        bias = "bias" in wanted and d_bias is None
        together = _at_once(rank, x, w, grad, parameters, bias, outs["input"])
        if together is not None:
            d_input, d_weight, d_bias = (
                together[0],
                _args.handed_over(together[1], outs["weight"]),
                together[2] if bias else d_bias,
            )
            wanted = ("bias",) if "bias" in wanted else ()
    if "input" in wanted:
        if of_input is None:
            d_input = input_grad(rank, transposed, x.shape, w, grad, parameters, batch_invariant, outs["input"], x)
        else:
            d_input = of_input(grad, outs["input"])
    if "weight" in wanted:
        d_weight = weight_grad(rank, transposed, x, w.shape, grad, parameters, outs["weight"])
    if "bias" in wanted:
        if d_bias is None:
            d_bias = _folds.total(grad, [i for i in range(grad.ndim) if i != channels]).ravel()
        d_bias = _args.handed_over(d_bias, outs["bias"])
    return d_input, d_weight, d_bias
