# SPDX-License-Identifier: BSD-3-Clause
"""Products of two matrices that are both computed, and recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from fastconv import _args, _config, _core
from fastconv._names import only
from fastconv.graph.ir import Node
from fastconv.graph.listing import Listing
from fastconv.graph.operators.record import Operator, needs
from fastconv.graph.views import Type, View, dense

__all__ = ["GATES", "OPERATORS"]
__dir__ = only(__all__)


# --- products ---------------------------------------------------------------------------------------------------------


def _infer_matmul(node: Node, types: Sequence[Type | None]) -> list[Type]:
    """As `numpy.matmul`: of the last two axes, those before them broadcast."""
    a, b = types[0], types[1]
    assert a is not None
    assert b is not None
    if a.dtype != b.dtype:
        raise TypeError(f"its inputs have dtypes {a.dtype} and {b.dtype}; they need to be the same")
    fits = bool(a.shape and b.shape) and a.shape[-1] == b.shape[max(len(b.shape) - 2, 0)]
    needs(fits, "its inputs have shapes {} and {}, which are no matrices to multiply", a.shape, b.shape)
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:][: len(b.shape) - 1])
    return [Type(shape, a.dtype)]


def _evaluate_matmul(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    a, b = arrays[0], arrays[1]
    assert a is not None
    assert b is not None
    with np.errstate(all="ignore"):
        return [np.asarray(np.matmul(a, b))]


def _with_axis(view: View, axis: int) -> View:
    """With an axis of one element, counted in the result."""
    put = axis % (len(view.shape) + 1)
    return view._replace(
        shape=(*view.shape[:put], 1, *view.shape[put:]), strides=(*view.strides[:put], 0, *view.strides[put:])
    )


def _wide(view: View, before: tuple[int, ...]) -> View:
    """With these axes in front of the last two, repeated where it has one element or no such axis."""
    missing = len(before) - (len(view.shape) - 2)
    own = (*(1,) * missing, *view.shape[:-2])
    steps = (*(0,) * missing, *view.strides[:-2])
    steps = tuple(0 if n == 1 else s for n, s in zip(own, steps, strict=True))
    return view._replace(shape=(*before, *view.shape[-2:]), strides=(*steps, *view.strides[-2:]))


def _merged(views: Sequence[View]) -> list[View]:
    """The same with fewer axes in front of the last two: one for those of which each view goes on where it ends."""
    axes: list[tuple[int, tuple[int, ...]]] = []
    for i, n in enumerate(views[0].shape[:-2]):
        steps = tuple(view.strides[i] for view in views)
        if n == 1:
            continue
        if axes and all(outer == n * inner for outer, inner in zip(axes[-1][1], steps, strict=True)):
            axes[-1] = (axes[-1][0] * n, steps)
        else:
            axes.append((n, steps))
    made = []
    for k, view in enumerate(views):
        shape, strides = tuple(n for n, _ in axes), tuple(steps[k] for _, steps in axes)
        made.append(view._replace(shape=(*shape, *view.shape[-2:]), strides=(*strides, *view.strides[-2:])))
    return made


def _in_rows(a: View, b: View, y: View) -> list[View]:
    """The last axis of pairs as more rows, where all of them have one and the same b, and a and y go on."""
    while len(a.shape) > 2 and b.strides[-3] == 0:
        n, rows = a.shape[-3], a.shape[-2]
        if not (rows == 1 or all(v.strides[-3] == rows * v.strides[-2] for v in (a, y))):
            break
        a, y = (
            v._replace(
                shape=(*v.shape[:-3], n * rows, v.shape[-1]),
                strides=(*v.strides[:-3], v.strides[-3] if rows == 1 else v.strides[-2], v.strides[-1]),
            )
            for v in (a, y)
        )
        b = b._replace(shape=(*b.shape[:-3], *b.shape[-2:]), strides=(*b.strides[:-3], *b.strides[-2:]))
    return [a, b, y]


def _pairs(views: Sequence[View]) -> Iterator[list[View]]:
    """Views of three axes: the longest of those in front, and one element of each other."""
    front = views[0].shape[:-2]
    if not front:
        yield [_with_axis(view, 0) for view in views]
        return
    kept = max(range(len(front)), key=lambda i: front[i])
    for at in product(*(range(1) if i == kept else range(n) for i, n in enumerate(front))):
        yield [
            view._replace(
                offset=view.offset + sum(i * s for i, s in zip(at, view.strides, strict=False)),
                shape=(front[kept], *view.shape[-2:]),
                strides=(view.strides[kept], *view.strides[-2:]),
            )
            for view in views
        ]


def _lower_matmul(to: Listing, node: Node) -> None:
    a, b = to.view(node.inputs[0]), to.view(node.inputs[1])
    shape = to.type(node.output).shape
    if a.dtype not in to.floats or 0 in (*a.shape, *b.shape):
        to.foreign(node, _evaluate_matmul)
        return
    y = to.result(node)
    if len(b.shape) == 1:
        b, y = _with_axis(b, 1), _with_axis(y, len(shape))
    if len(a.shape) == 1:
        a, y = _with_axis(a, 0), _with_axis(y, len(y.shape) - 1)
    front = y.shape[:-2]
    for x, other, z in _pairs(_in_rows(*_merged([_wide(a, front), _wide(b, front), y]))):
        sizes = (x.shape[0], x.shape[1], x.shape[2], other.shape[2])
        plan = _core.product_plan(sizes, x.strides, other.strides, z.strides, _args.FLOATS[x.dtype], _config.ISA)
        to.step(node, plan, src=x, dst=z, others=(other,))


# --- recurrent layers -------------------------------------------------------------------------------------------------

#: Kinds in the order of the core's numbers, and how many gates they have.
GATES = {"lstm": 4, "gru": 3}


def _sizes(node: Node, x: tuple[int, ...], weight: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Steps, directions, sequences, and elements of a state."""
    gates = GATES[node.attributes["kind"]]
    directions, out, hidden = weight
    fits = len(x) == 3 and out == gates * hidden and x[2] == out and x[0] % directions == 0
    needs(fits, "its input has shape {}, which does not fit weights of shape {}", x, weight)
    return x[0] // directions, directions, x[1], hidden


def _infer_recurrent(node: Node, types: Sequence[Type | None]) -> list[Type]:
    """Inputs: what the gates get from outside, (directions * steps, sequences, gates * hidden), recurrent weights
    (directions, gates * hidden, hidden) and biases or None, and the states before, (directions, sequences, hidden).
    What comes out is h of all steps, and with LSTM behind it c of the last: (steps, directions, sequences, hidden).
    """
    x, weight = types[0], types[1]
    assert x is not None
    assert weight is not None
    steps, directions, batch, hidden = _sizes(node, x.shape, weight.shape)
    for t in types[3:]:
        assert t is not None
        needs(t.shape == (directions, batch, hidden), "a state has shape {}; it needs {}", t.shape, weight.shape)
    return [Type((steps + (node.attributes["kind"] == "lstm"), directions, batch, hidden), x.dtype)]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _evaluate_recurrent(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    x, weight, bias, *states = arrays
    assert x is not None
    assert weight is not None
    steps, directions, batch, hidden = _sizes(node, x.shape, weight.shape)
    is_lstm = node.attributes["kind"] == "lstm"
    made = np.empty((steps + is_lstm, directions, batch, hidden), x.dtype)
    parts = x.reshape(directions, steps, batch, -1)
    for d in range(directions):
        h, c = (None if state is None else state[d] for state in (*states, None)[:2])
        assert h is not None
        times = range(steps)
        for t in reversed(times) if node.attributes["backward"] >> d & 1 else times:
            r = h @ weight[d].T
            if bias is not None:
                r = r + bias[d]
            inner, outer = np.split(r, GATES[node.attributes["kind"]], 1), np.split(parts[d, t], len(r[0]) // hidden, 1)
            if is_lstm:
                i, o, f = (_sigmoid(p + q) for p, q in zip(inner[:3], outer[:3], strict=True))
                c = f * c + i * np.tanh(inner[3] + outer[3])
                h = o * np.tanh(c)
            else:
                z, s = (_sigmoid(p + q) for p, q in zip(inner[:2], outer[:2], strict=True))
                h = (1 - z) * np.tanh(outer[2] + s * inner[2]) + z * h
            made[t, d] = h
        if is_lstm:
            made[steps, d] = c
    return [made]


def _lower_recurrent(to: Listing, node: Node) -> None:
    x, weight, bias = to.view(node.inputs[0]), node.inputs[1], node.inputs[2]
    assert weight is not None
    known = weight.constant is not None and (bias is None or bias.constant is not None)
    shape = to.type(node.output).shape
    if x.dtype not in to.floats or 0 in shape or not known:
        to.foreign(node, _evaluate_recurrent)
        return
    kind = list(GATES).index(node.attributes["kind"])
    steps, directions, batch, hidden = _sizes(node, x.shape, to.type(weight).shape)
    plan = _core.Recurrent(
        kind, steps, directions, batch, hidden, node.attributes["backward"], _args.FLOATS[x.dtype], _config.ISA
    )
    assert weight.constant is not None
    packed = to.packed(plan, weight.constant, weight.constant.shape, None if bias is None else bias.constant)
    states = [to.without_gaps(node, to.view(value)) for value in node.inputs[3:]]
    y = to.result(node)
    written = y if y.is_dense() else to.scratch(y.type, dense(shape), node.name)
    to.step(node, plan, src=to.without_gaps(node, x), wei=packed, dst=written, others=states)
    if written is not y:
        to.elementwise(node, (), written, (), y)


OPERATORS = (
    Operator("matmul", _infer_matmul, _evaluate_matmul, _lower_matmul, order="first"),
    Operator("recurrent", _infer_recurrent, _evaluate_recurrent, _lower_recurrent, order="first"),
)
