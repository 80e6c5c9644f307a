# SPDX-License-Identifier: BSD-3-Clause
"""Each pass by itself: a graph before and after."""

import numpy as np
import pytest

from fastconv.graph import PASSES, Graph, run_passes
from fastconv.graph.programs import clamp
from graphs import interpret
from support import max_error

RELU = (clamp(0),)


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def changed(graph: Graph, name: str) -> list[str]:
    """The lines of the graph's nodes after one pass, whose meaning must be the same as before."""
    inputs = [array(*value.shape) for value in graph.inputs]
    before = interpret(graph, inputs)
    assert PASSES[name](graph) > 0
    graph.verify()
    for y, right in zip(interpret(graph, inputs), before, strict=True):
        assert max_error(y, right) < 1e-12
    assert PASSES[name](graph) == 0  # there is nothing left to do
    return [line.strip() for line in str(graph).splitlines()[1:]]


def start(*shape: int):
    graph = Graph("g")
    return graph, graph.input("x", shape or (1, 4, 6, 6), np.float64)


def conv(graph: Graph, x, channels: int = 4, inputs: int = 4, kernel: int = 3, bias: bool = True, **attributes):
    weights = [graph.constant(array(channels, inputs, kernel, kernel)), graph.constant(array(channels))]
    return graph.add("conv", [x, *(weights if bias else weights[:1])], **attributes)


def norm(graph: Graph, x, channels: int = 4):
    given = [graph.constant(array(channels)) for _ in range(3)]
    return graph.add("batch_norm", [x, *given, graph.constant(array(channels) ** 2 + 1)], eps=1e-5)


def relu(graph: Graph, x):
    return graph.add("map", [x], program=RELU)


def test_fold_constants():
    graph, x = start()
    two = graph.add("map", [graph.constant(np.ones(6)), graph.constant(np.ones(6))], program=(("add", 1),))
    graph.outputs = [graph.add("map", [x, two], program=(("mul", 1),))]
    assert changed(graph, "fold_constants") == ["map1 = map(x, float64[6])  program=(('mul', 1),)"]


def test_remove_identities():
    graph, x = start()
    y = graph.add("identity", [graph.add("pad", [x], pairs=((0, 0),) * 4)])
    y = graph.add("concat", [graph.add("map", [graph.add("transpose", [y], order=(0, 1, 2, 3))], program=())], axis=1)
    graph.outputs = [relu(graph, y)]
    assert changed(graph, "remove_identities") == ["map1 = map(x)  program=(('clamp', 0.0, inf),)"]


def test_merge_shapes():
    graph, x = start()
    y = graph.add("reshape", [graph.add("flatten", [x])], shape=(2, -1))
    z = graph.add("transpose", [graph.add("transpose", [x], order=(0, 2, 3, 1))], order=(0, 3, 1, 2))
    graph.outputs = [y, z]
    lines = changed(graph, "merge_shapes")
    assert "reshape0 = reshape(x)  shape=(2, -1)" in lines
    assert "transpose1 = transpose(x)  order=(0, 1, 2, 3)" in lines


def test_fold_numbers():
    """Of either side; what may change, and what makes axes, stays."""
    graph, x = start()
    three, many = graph.constant(np.float64(3)), graph.constant(array(6))
    shared = graph.constant(np.array(2.0), shared=True)
    for name in ("add", "sub", "mul", "div", "min", "max"):
        for inputs in ([x, three], [three, x]):
            graph.outputs.append(graph.add("map", inputs, program=((name, 1),)))
    graph.outputs.append(graph.add("map", [x, many, three, x], program=(("mul", 1), ("sub", 2), ("add", 3))))
    for other in (shared, many, graph.constant(array(1, 1))):
        graph.outputs.append(graph.add("map", [x, other], program=(("mul", 1),)))
    graph.outputs.append(graph.add("map", [x, graph.constant(np.float64(0))], program=(("div", 1),)))
    lines = [line.split("program=")[1] for line in changed(graph, "fold_numbers")]
    assert lines[:5] == ["(('affine', 1.0, 3.0),)"] * 2 + [
        "(('affine', 1.0, -3.0),)", "(('affine', -1.0, 3.0),)", "(('affine', 3.0, 0.0),)"
    ]  # fmt: skip
    assert lines[7] == "(('reciprocal',), ('affine', 3.0, 0.0))"
    assert lines[8] == lines[9] == "(('clamp', -inf, 3.0),)"
    assert lines[12:] == ["(('mul', 1), ('affine', 1.0, -3.0), ('add', 2))"] + ["(('mul', 1),)"] * 3 + ["(('div', 1),)"]


@pytest.mark.parametrize("turned", [False, True])
def test_find_gates(turned):
    graph, x = start()
    gate = graph.add("map", [x], program=(("sigmoid",),))
    silu = graph.add("map", [gate, x] if turned else [x, gate], program=(("mul", 1),))
    ramp = graph.add("map", [graph.add("map", [silu], program=(("affine", 1.0, 3.0),))], program=(clamp(0, 6),))
    product = graph.add("map", [silu, ramp], program=(("mul", 1),))
    graph.outputs = [graph.add("map", [product], program=(("affine", 1 / 6, 0.0),))]
    PASSES["find_gates"](graph)
    PASSES["merge_chains"](graph)
    lines = [line.strip() for line in str(graph).splitlines()[1:]]
    assert lines == ["map5 = map(x)  program=(('silu',), ('hardswish',))"]
    x = array(1, 4, 6, 6)
    silu = x / (1 + np.exp(-x))
    assert max_error(interpret(graph, [x])[0], silu * np.clip(silu + 3, 0, 6) / 6) < 1e-12


@pytest.mark.parametrize("order", ["last", "first", "gate", "once"])
def test_find_gates_of_the_normal_distribution(order):
    """gelu, as frameworks spell it: the half of the product, of x or of the gate; the gate as one function."""
    graph, x = start()

    def scaled(value):
        return graph.add("map", [value], program=(("affine", 0.5, 0.0),))

    if order == "once":
        gate = graph.add("map", [x], program=(("affine", np.sqrt(0.5), 0.0), ("erf",), ("affine", 0.5, 0.5)))
    else:
        inner = graph.add("map", [x], program=(("affine", float(np.float32(np.sqrt(0.5))), 0.0),))
        gate = graph.add("map", [graph.add("map", [inner], program=(("erf",),))], program=(("affine", 1.0, 1.0),))
    factors = [scaled(x) if order == "first" else x, scaled(gate) if order == "gate" else gate]
    product = graph.add("map", factors, program=(("mul", 1),))
    graph.outputs = [scaled(product) if order == "last" else product]
    before = interpret(graph, [array(1, 4, 6, 6)])[0]
    PASSES["find_gates"](graph)
    PASSES["merge_chains"](graph)
    (node,) = graph.nodes
    assert node.attributes["program"] == (("gelu",),)
    assert max_error(interpret(graph, [array(1, 4, 6, 6)])[0], before) < 1e-7


def test_find_gates_leaves_other_products():
    graph, x = start()
    other = graph.add("map", [x], program=(("affine", 1.0, 1.0),))
    gate = graph.add("map", [other], program=(("sigmoid",),))
    bell = graph.add("map", [x], program=(("affine", 0.7, 0.0), ("erf",), ("affine", 1.0, 1.0)))
    graph.outputs = [graph.add("map", [x, g], program=(("mul", 1),)) for g in (gate, bell)]
    assert PASSES["find_gates"](graph) == 0


def test_fold_pads():
    graph, x = start()
    y = graph.add("pad", [x], pairs=((0, 0), (0, 0), (1, 2), (0, 3)))
    graph.outputs = [conv(graph, y, bias=False, padding=1)]
    assert changed(graph, "fold_pads")[1] == "conv0 = conv(x, float64[4, 4, 3, 3])  padding=((2, 3), (1, 4))"


def test_fold_pads_leaves_other_borders():
    graph, x = start()
    for attributes in (
        {"value": 1.0, "pairs": ((0, 0), (0, 0), (1, 1), (1, 1))},
        {"pairs": ((0, 0), (1, 1), (0, 0), (0, 0))},
    ):
        inputs = 4 if "value" in attributes else 6
        graph.outputs.append(conv(graph, graph.add("pad", [x], **attributes), inputs=inputs))
    graph.outputs.append(conv(graph, graph.add("pad", [x], pairs=((0, 0), (0, 0), (1, 1), (1, 1))), padding="same"))
    assert PASSES["fold_pads"](graph) == 0


@pytest.mark.parametrize("bias", [False, True])
def test_fold_batch_norms_behind(bias):
    graph, x = start()
    graph.outputs = [norm(graph, conv(graph, x, bias=bias, padding=1))]
    assert changed(graph, "fold_batch_norms") == ["conv0 = conv(x, float64[4, 4, 3, 3], float64[4])  padding=1"]


@pytest.mark.parametrize("groups", [1, 2])
def test_fold_batch_norms_behind_transposed(groups):
    graph, x = start()
    weight = graph.constant(array(4, 6 // groups, 2, 2))
    y = graph.add("conv", [x, weight], transposed=True, stride=2, groups=groups)
    graph.outputs = [norm(graph, y, 6)]
    assert len(changed(graph, "fold_batch_norms")) == 1


def test_fold_batch_norms_with_an_activation():
    """As a norm has one whose weights were not known before, behind a convolution, and behind several."""
    graph, x = start()
    parts = [conv(graph, x), conv(graph, x, 3)]
    both = norm(graph, graph.add("concat", parts, axis=1), 7)
    graph.outputs = [norm(graph, conv(graph, x)), both]
    for value in graph.outputs:
        value.producer.attributes["finish"] = RELU
    lines = changed(graph, "fold_batch_norms")
    assert [line.endswith("finish=(('clamp', 0.0, inf),)") for line in lines] == [True, True, False, True]


def test_fold_batch_norms_before():
    graph, x = start()
    y = graph.add("conv", [norm(graph, x), graph.constant(array(4, 2, 3, 3))], groups=2)
    graph.outputs = [y]
    assert changed(graph, "fold_batch_norms") == ["conv0 = conv(x, float64[4, 2, 3, 3], float64[4])  groups=2"]


def test_fold_batch_norms_before_a_border_of_zeros_stay():
    graph, x = start()
    graph.outputs = [conv(graph, norm(graph, x), padding=1)]
    assert PASSES["fold_batch_norms"](graph) == 0


def test_fold_batch_norms_of_a_concatenation():
    graph, x = start()
    parts = [conv(graph, x, 3, padding=1), conv(graph, x, 5, bias=False, padding=1)]
    graph.outputs = [norm(graph, graph.add("concat", parts, axis=1), 8)]
    lines = changed(graph, "fold_batch_norms")
    assert [line.split(" = ")[1].split("(")[0] for line in lines] == ["conv", "conv", "concat"]


def test_fold_batch_norms_leaves_what_others_read():
    graph, x = start()
    y = conv(graph, x, padding=1)
    graph.outputs = [norm(graph, y), relu(graph, y)]
    assert PASSES["fold_batch_norms"](graph) == 0


@pytest.mark.parametrize("turned", [False, True])
def test_sink_transposes(turned):
    """A sum behind a transpose, of what is and what is not transposed itself, and a function of the sum."""
    graph, x = start()
    last = graph.add("transpose", [x], order=(0, 2, 3, 1))
    weight = [graph.constant(array(4, 4)), graph.constant(array(4))]
    y = graph.add("transpose", [graph.add("linear", [last, *weight])], order=(0, 3, 1, 2))
    y = graph.add("map", [y, graph.constant(array(4, 1, 1))], program=(("mul", 1),))
    other = graph.add("transpose", [last], order=(0, 3, 1, 2)) if turned else x
    y = relu(graph, graph.add("map", [other, y], program=(("add", 1),)))
    graph.outputs = [conv(graph, y)]
    lines = changed(graph, "sink_transposes")
    back = [] if turned else ["transpose"]
    ops = [line.split(" = ")[1].split("(")[0] for line in lines]
    assert ops == ["transpose", "linear", "map", *back, "map", "map", "transpose", "conv"]
    assert "(linear0, float64[1, 1, 1, 4])" in lines[2]
    PASSES["fold_scales"](graph)
    PASSES["fuse_residuals"](graph)
    PASSES["fuse_activations"](graph)
    ops = [node.op for node in graph.nodes]
    assert ops == ["transpose", "linear", "transpose", "conv"] if turned else ops.count("map") == 0


def test_sink_transposes_leaves_what_others_read_or_have_fewer_axes():
    graph, x = start()
    for program in ((("add", 1),), (("sub", 1),)):
        y = graph.add("transpose", [conv(graph, x)], order=(0, 2, 3, 1))
        other = graph.input(f"a{len(graph.inputs)}", (4,), np.float64)  # of fewer axes
        graph.outputs += [conv(graph, graph.add("map", [y, other], program=program))]
    y = graph.add("transpose", [conv(graph, x)], order=(0, 2, 3, 1))
    graph.outputs += [conv(graph, relu(graph, y)), y]
    assert PASSES["sink_transposes"](graph) == 0


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_fold_scales(groups, transposed):
    graph, x = start()
    y = conv(graph, x, 6 // groups if transposed else 6, 4 if transposed else 4 // groups, groups=groups)
    if transposed:
        weight = graph.constant(array(4, 6 // groups, 3, 3))
        y = graph.add("conv", [x, weight], transposed=True, groups=groups)
    shapes = {"mul": (6, 1, 1), "sub": (1, 6, 1, 1), "rsub": (6, 1, 1), "div": (1, 1, 1), "add": ()}
    for name, shape in shapes.items():
        y = graph.add("map", [y, graph.constant(array(*shape) + 2)], program=((name, 1),))
    graph.outputs = [graph.add("map", [y], program=(("affine", 0.5, 3.0), ("clamp", 0.0, 1.0)))]
    PASSES["remove_dead_nodes"](graph)
    PASSES["merge_chains"](graph)
    lines = changed(graph, "fold_scales")
    assert len(lines) == 2
    assert lines[1].endswith("program=(('clamp', 0.0, 1.0),)")


def test_fold_scales_of_linear_layers():
    graph, x = start(2, 5, 4)
    y = graph.add("linear", [x, graph.constant(array(3, 4))])
    y = graph.add("map", [y, graph.constant(array(1, 1, 3))], program=(("mul", 1),))
    z = graph.add("map", [y, graph.constant(array(3))], program=(("add", 1), ("neg",)))
    graph.outputs = [z]
    assert changed(graph, "fold_scales") == [
        "linear0 = linear(x, float64[3, 4], float64[3])",
        "map1 = map(linear0)  program=(('neg',),)",
    ]


def test_fold_scales_leaves_what_is_not_of_channels():
    graph, x = start()
    for shape in ((4, 1), (4,), (1, 1, 4, 1), (1, 1, 4, 1, 1)):
        y = conv(graph, x)
        graph.outputs.append(graph.add("map", [y, graph.constant(array(*shape))], program=(("mul", 1),)))
    y = conv(graph, x)
    graph.outputs += [graph.add("map", [y, graph.constant(array(4, 1, 1))], program=(("mul", 1),)), y]
    assert PASSES["fold_scales"](graph) == 0


def test_fuse_residuals():
    """Into the later of two convolutions, which moves to where the sum was."""
    graph, x = start()
    first, second = conv(graph, x, padding=1), conv(graph, x, kernel=1)
    graph.outputs = [graph.add("map", [second, relu(graph, first)], program=(("add", 1),))]
    lines = changed(graph, "fuse_residuals")
    assert lines[-1].startswith("conv1 = conv(x, float64[4, 4, 1, 1], float64[4], map0)")


def test_fuse_residuals_that_broadcast():
    graph, x = start()
    graph.outputs = [graph.add("map", [conv(graph, x), graph.constant(array(4, 1, 1))], program=(("add", 1),))]
    assert len(changed(graph, "fuse_residuals")) == 1


def test_fuse_activations():
    graph, x = start()
    y = graph.add("map", [conv(graph, x)], program=(("leaky_relu", 0.1),))
    graph.outputs = [relu(graph, norm(graph, y))]
    lines = changed(graph, "fuse_activations")
    assert lines[0].endswith("finish=(('leaky_relu', 0.1),)")
    assert lines[1].endswith("finish=(('clamp', 0.0, inf),)")


def test_fuse_activations_leaves_what_others_read():
    graph, x = start()
    y = conv(graph, x)
    graph.outputs = [relu(graph, y), y]
    assert PASSES["fuse_activations"](graph) == 0


def pool(graph: Graph, x, **attributes):
    return graph.add("max_pool", [x], **{"kernel_size": 2, **attributes})


@pytest.mark.parametrize("finish", [{}, {"finish": RELU}])
@pytest.mark.parametrize("window", [{"stride": 2}, {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0)}])
def test_fuse_pooling(finish, window):
    graph, x = start(1, 4, 6, 7)
    y = pool(graph, conv(graph, x, **finish), dilation=1, ceil_mode=False, **window)
    graph.outputs = [relu(graph, y)]
    lines = changed(graph, "fuse_pooling")
    assert len(lines) == 2
    assert lines[0].endswith("pooled='max_pool0'")
    for name in ("fuse_activations", "fuse_residuals", "fold_scales"):  # what is behind it stays there
        assert PASSES[name](graph) == 0


def test_fuse_pooling_leaves_other_windows():
    graph, x = start(1, 4, 9, 9)
    windows = (
        {"kernel_size": 3},
        {"stride": 1},
        {"stride": (2, 1)},
        {"padding": 1},
        {"ceil_mode": True},
        {"dilation": 2},
    )
    graph.outputs = [pool(graph, conv(graph, x), **window) for window in windows]
    graph.outputs += [
        graph.add("avg_pool", [conv(graph, x)], kernel_size=2),
        pool(graph, conv(graph, x, transposed=True)),
    ]
    graph.outputs += [pool(graph, conv(graph, x, finish=(("gelu",),))), pool(graph, relu(graph, x))]
    y, z = conv(graph, x), conv(graph, x, padding=1)
    graph.outputs += [y, pool(graph, y), pool(graph, graph.add("map", [z, x], program=(("add", 1),)))]
    assert PASSES["fuse_residuals"](graph) == 1
    assert PASSES["fuse_pooling"](graph) == 0


def test_merge_chains():
    graph, x = start()
    y = graph.add("map", [x, graph.constant(array(6))], program=(("mul", 1),))
    z = graph.add("map", [relu(graph, y), x], program=(("sub", 1),))
    graph.outputs = [z]
    assert changed(graph, "merge_chains") == [
        "map2 = map(x, float64[6], x)  program=(('mul', 1), ('clamp', 0.0, inf), ('sub', 2))"
    ]


def test_remove_dead_nodes():
    graph, x = start()
    relu(graph, conv(graph, x))
    graph.outputs = [relu(graph, x)]
    assert changed(graph, "remove_dead_nodes") == ["map1 = map(x)  program=(('clamp', 0.0, inf),)"]


def test_passes_can_be_left_out():
    graph, x = start()
    graph.outputs = [relu(graph, conv(graph, x))]
    assert "fuse_activations" not in run_passes(graph, ["fuse_activations"])
    assert len(graph.nodes) == 2
    assert run_passes(graph)["fuse_activations"] == 1


def test_a_graph_that_reads_what_is_not_there():
    graph, x = start()
    y = relu(graph, x)
    graph.outputs = [relu(graph, y)]
    graph.nodes.reverse()
    with pytest.raises(ValueError, match="node 'map1' reads 'map0', which nothing before it computes"):
        graph.verify()
