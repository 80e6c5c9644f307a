# SPDX-License-Identifier: BSD-3-Clause
"""The core's plans of convolutions: found by the algorithm's public name, and kept."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastconv import _args, _config, _core, _costs

_Layout = tuple[tuple[int, ...], tuple[int, ...]]  # shape, strides in bytes


def core_plan(
    fields: _args.Fields,
    algorithm: str,
    strict: bool,
    once: bool,
    batch_invariant: bool,
    src: _Layout,
    wei: _Layout,
    dst: _Layout,
    dtype: np.dtype,
) -> _core.Plan:
    """The core's plan for a problem; src, wei and dst are (shape, strides in bytes) of the callers' arrays.

    ``once``: weights will be packed in every call, and the time for that counts in the choice. ``batch_invariant``: the
    choice and the order of sums are those of one image.
    """
    numbers = _args.candidates(algorithm)
    try:
        return kept_plan(fields, numbers, strict, once, batch_invariant, src, wei, dst, dtype)
    except NotImplementedError as error:
        raise NotImplementedError(f"algorithm={algorithm!r} cannot serve this convolution: {error}") from None


@lru_cache(maxsize=1024)
def kept_plan(
    fields: _args.Fields,
    numbers: tuple[int, ...],
    strict: bool,
    once: bool,
    batch_invariant: bool,
    src: _Layout,
    wei: _Layout,
    dst: _Layout,
    dtype: np.dtype,
) -> _core.Plan:
    """Plans hold no weights and are immutable, so the last ones are kept for one-shot calls."""
    if len(numbers) > 1:
        verdicts = _core.explain(fields, _config.ISA, strict, batch_invariant, _costs.COSTS.seconds)
        numbers = (min(numbers, key=lambda i: verdicts[i][2]),)
    read, packed, written = (_core.Layout(shape, strides, dtype.char) for shape, strides in (src, wei, dst))
    seconds = _costs.COSTS.seconds
    return _core.Plan(
        fields, _config.ISA, numbers[0], strict, once, batch_invariant, seconds, read, packed, written, dtype
    )


@lru_cache(maxsize=1024)
def layer_gradient_plan(
    weight: _args.Fields,
    input: _args.Fields,
    biases: int,
    algorithm: str,
    strict: bool,
    src: _Layout,
    grad: _Layout,
    wei: _Layout,
    dst: _Layout,
    dtype: np.dtype,
) -> _core.LayerGradient | None:
    """The plan of all gradients of a layer at once, of the bias unless there are no ``biases``.

    ``weight`` and ``input`` are the problems of the two gradients. None where these are to be computed one after the
    other, which with ``"auto"`` may be because that is faster.
    """
    x, y, w, d = (_core.Layout(shape, strides, dtype.char) for shape, strides in (src, grad, wei, dst))
    (number,), seconds = _args.candidates(algorithm), _costs.COSTS.seconds
    try:
        return _core.LayerGradient(
            weight, input, wei[0], biases, _config.ISA, number, strict, seconds, x, y, w, d, dtype
        )
    except NotImplementedError:
        return None


def forget() -> None:
    """All plans that are kept, since the costs that they were chosen by are others now."""
    kept_plan.cache_clear()
    layer_gradient_plan.cache_clear()
