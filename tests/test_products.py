# SPDX-License-Identifier: BSD-3-Clause
"""Products of computed matrices, recurrent layers, and what moves numbers: steps beside their meaning in NumPy."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core
from fastconv.graph import CompiledNet, Graph, run_passes
from fastconv.graph.listing import Options
from graphs import interpret
from support import max_error


def results(graph, inputs, threads=2):
    """Of the compiled graph, in an arena full of NaN."""
    run_passes(graph)
    net = CompiledNet(graph, Options(), None, False, 8)
    take = net._arena

    def poisoned(nbytes):
        arena = take(nbytes)
        arena[...] = 0xFF
        return arena

    net._arena = poisoned
    with fc.threads(threads):
        y = net(*inputs)
    return net, list(y) if isinstance(y, tuple) else [y]


def array(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def graph_of(op, arrays, **attributes):
    graph = Graph("one")
    inputs = [graph.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)]
    graph.outputs = [graph.add(op, inputs, **attributes)]
    return graph


# --- products -----------------------------------------------------------------------------------------------------

SHAPES = [
    ((1, 1), (1, 1)),
    ((3, 5), (5, 7)),
    ((17, 300), (300, 70)),
    ((65, 33), (33, 1)),
    ((2, 3, 9, 16), (2, 3, 16, 33)),
    ((4, 9, 16), (16, 33)),
    ((9, 16), (4, 16, 5)),
    ((2, 1, 9, 16), (3, 16, 5)),
    ((5,), (5, 7)),
    ((3, 5), (5,)),
    ((2, 3, 5), (5,)),
    ((5,), (2, 5, 4)),
    ((5,), (5,)),
    ((2, 2, 3, 2, 4, 6), (2, 1, 3, 2, 6, 5)),
    ((0, 5), (5, 7)),
    ((3, 0), (0, 7)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_products(shapes, dtype):
    a, b = (array(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes))
    net, (found,) = results(graph_of("matmul", [a, b]), [a, b])
    right = np.matmul(a.astype(np.float64), b.astype(np.float64))
    assert found.shape == right.shape
    assert max_error(found, right) < (a.shape[-1] + 2) * np.finfo(dtype).eps * 4
    if a.size and b.size:
        assert {step.algorithm for step in net.summary()} == {"matmul"}
    _, (again,) = results(graph_of("matmul", [a, b]), [a, b], threads=1)
    assert np.array_equal(again, found)


@pytest.mark.parametrize("left", [(0, 2, 1, 3), (0, 2, 3, 1), (2, 0, 3, 1)])
@pytest.mark.parametrize("right", [(0, 2, 1, 3), (0, 2, 3, 1), (1, 0, 2, 3)])
def test_products_of_views(left, right):
    """Heads of an attention layer, in all orders of axes, without a copy: strides say where numbers lie."""
    wanted, other = (2, 3, 20, 16), (2, 3, 16, 20)
    a = array(*(wanted[left.index(i)] for i in range(4)))
    b = array(*(other[right.index(i)] for i in range(4)), seed=1)
    graph = Graph("heads")
    inputs = [graph.input("a", a.shape, a.dtype), graph.input("b", b.shape, b.dtype)]
    views = [graph.add("transpose", [x], order=order) for x, order in zip(inputs, (left, right), strict=True)]
    product = graph.add("matmul", views)
    graph.outputs = [graph.add("map", [product], program=(("affine", 0.25, 0.0),))]
    net, (found,) = results(graph, [a, b])
    assert max_error(found, 0.25 * np.matmul(a.transpose(left), b.transpose(right))) < 1e-13
    assert {step.algorithm for step in net.summary()} == {"matmul", "map"}


def test_products_say_what_does_not_fit():
    a, b = array(3, 5), array(4, 7)
    with pytest.raises(ValueError, match=r"node 'matmul0' .*\(3, 5\) and \(4, 7\)"):
        results(graph_of("matmul", [a, b]), [a, b])
    with pytest.raises(TypeError, match="float64 and float32"):
        results(graph_of("matmul", [a, b.astype(np.float32)]), [])


def test_the_core_refuses_products_that_are_none():
    with pytest.raises(ValueError, match="0 x 1 x 1"):
        _core.product_plan((1, 0, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), 0, fc._config.ISA)
    with pytest.raises(ValueError, match="axis 1: stride"):
        _core.product_plan((1, 1, 1, 1), (1, 1 << 60, 1), (1, 1, 1), (1, 1, 1), 0, fc._config.ISA)
    with pytest.raises(ValueError, match="3 directions"):
        _core.Recurrent(0, 1, 3, 1, 1, 0, 0, fc._config.ISA)


# --- recurrent layers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("steps", "batch", "hidden", "directions", "backward"),
    [(1, 1, 1, 1, 0), (5, 1, 33, 1, 0), (4, 3, 16, 1, 1), (3, 2, 20, 2, 2), (2, 9, 7, 2, 1), (3, 1, 130, 2, 2)],
)
def test_recurrent_layers(kind, steps, batch, hidden, directions, backward, dtype):
    gates = {"lstm": 4, "gru": 3}[kind]
    x = array(directions * steps, batch, gates * hidden, dtype=dtype)
    states = [array(directions, batch, hidden, seed=i, dtype=dtype) for i in range(2 if kind == "lstm" else 1)]
    weight = array(directions, gates * hidden, hidden, seed=5, dtype=dtype) / dtype(np.sqrt(hidden))

    def made(dtype):
        graph = Graph("layer")
        arrays = [a.astype(dtype) for a in (x, *states)]
        inputs = [graph.input(f"x{i}", a.shape, dtype) for i, a in enumerate(arrays)]
        bias = array(directions, gates * hidden, seed=6).astype(dtype) if kind == "gru" else None
        given = [graph.constant(weight.astype(dtype)), None if bias is None else graph.constant(bias)]
        run = graph.add("recurrent", [inputs[0], *given, *inputs[1:]], kind=kind, backward=backward)
        graph.outputs = [run, graph.add("slice", [run], axis=0, start=-1, stop=None)]
        return graph, arrays

    wide, arrays = made(np.float64)
    right = interpret(wide, arrays)
    graph, arrays = made(dtype)
    net, found = results(graph, arrays)
    for y, expected in zip(found, right, strict=True):
        assert max_error(y, expected) < 8 * steps * (hidden + 8) * np.finfo(dtype).eps
    assert "recurrent" in [step.algorithm for step in net.summary()]
    assert net.summary()[0].gflop == pytest.approx(2e-9 * steps * directions * batch * gates * hidden**2)
    _, again = results(made(dtype)[0], arrays, threads=1)
    assert all(map(np.array_equal, again, found))


# --- what moves numbers -------------------------------------------------------------------------------------------

MOVES = {
    "every other": ("slice", {"axis": 2, "start": 1, "stop": None, "step": 2}),
    "backwards": ("slice", {"axis": -1, "start": None, "stop": None, "step": -1}),
    "backwards by two": ("slice", {"axis": 1, "start": -1, "stop": 0, "step": -2}),
    "backwards, nothing": ("slice", {"axis": 1, "start": 0, "stop": 3, "step": -1}),
    "wider": ("expand", {"shape": (4, 1, 6, 9, 1)}),
    "mirrored": ("pad", {"pairs": ((1, 0), (0, 2), (3, 4), (8, 0)), "mode": "reflect"}),
    "repeated edges": ("pad", {"pairs": ((1, 0), (0, 2), (3, 40), (8, 0)), "mode": "edge"}),
    "around": ("pad", {"pairs": ((0, 0), (2, 2), (9, 0), (1, 3)), "mode": "wrap"}),
    "mirrored and cut": ("pad", {"pairs": ((0, 0), (-1, 0), (2, -3), (0, 0)), "mode": "reflect"}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("name", MOVES)
def test_moves(name, dtype):
    op, attributes = MOVES[name]
    x = np.arange(2 * 6 * 9 * 11).reshape(2, 6, 9, 11).astype(dtype)
    graph = graph_of(op, [x], **attributes)
    (right,) = interpret(graph, [x])
    net, (found,) = results(graph, [x])
    assert found.dtype == dtype
    assert np.array_equal(found, right)
    if dtype == np.float32:
        assert "python" not in [step.algorithm for step in net.summary()]


def test_a_mirror_that_is_too_short():
    """NumPy goes to and fro."""
    x = array(1, 1, 3, 4)
    graph = graph_of("pad", [x], pairs=((0, 0), (0, 0), (5, 0), (0, 0)), mode="reflect")
    _, (found,) = results(graph, [x])
    assert np.array_equal(found, np.pad(x, ((0, 0), (0, 0), (5, 0), (0, 0)), mode="reflect"))


def test_parts_with_steps_are_convolved_where_they_lie():
    """The four quarters of an image as channels, as the first layer of some detectors reads them."""
    x, w = array(1, 3, 12, 10, dtype=np.float32), array(4, 12, 3, 3, seed=1, dtype=np.float32)
    graph = Graph("focus")
    value = graph.input("x", x.shape, x.dtype)
    parts = []
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
        rows = graph.add("slice", [value], axis=2, start=i, stop=None, step=2)
        parts.append(graph.add("slice", [rows], axis=3, start=j, stop=None, step=2))
    whole = graph.add("concat", parts, axis=1)
    graph.outputs = [
        graph.add("conv", [v, graph.constant(k)], padding=1) for v, k in ((whole, w), (parts[3], w[:, :3]))
    ]
    _, found = results(graph, [x])
    pieces = [x[:, :, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert max_error(found[0], fc.conv2d(np.concatenate(pieces, 1), w, padding=1)) < 1e-5
    assert (
        max_error(found[1], fc.conv2d(np.ascontiguousarray(pieces[3]), np.ascontiguousarray(w[:, :3]), padding=1))
        < 1e-5
    )
