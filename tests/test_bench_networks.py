# SPDX-License-Identifier: BSD-3-Clause
"""Whole networks beside other libraries: that everybody is given the same one, and what a table says of it.

Other libraries need not be installed. Images are small, but where a network has layers that need large ones.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench import command, network_table, report
from fastconv.bench import layers as measuring
from fastconv.bench.cases import NetworkCase, case_of
from fastconv.bench.contenders import Compiled, LayerByLayer, find_peers
from fastconv.bench.contenders.base import Contender, Prepared
from fastconv.bench.layers import Row
from fastconv.bench.memory import PeakMemory
from fastconv.bench.names import MODELS
from fastconv.bench.networks import Repeating, build, network
from fastconv.bench.timing import Effort
from fastconv.cli import main
from fastconv.graph import Graph

BRIEF = Effort(rounds=1, slice_time=0.001)
#: Pooled to 7 x 7 and to 6 x 6 before the last layers, whatever the image: ONNX has that for such sizes alone.
WIDE = {"vgg16": 224, "alexnet": 224, "lenet5": 32}
NARROW = [name for name in MODELS if name not in ("vgg16", "alexnet")]


def case(name, batch=2):
    size = WIDE.get(name, 64 if name != "unet" else 32)
    one = network(name)
    return NetworkCase(replace(one, image=(one.image[0], size, size)), batch)


# ----------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("name", "gflop"),
    [
        # Twice the multiply-adds of convolutions and linear layers, as the papers' sizes give them.
        ("resnet18", 3.628),
        ("resnet50", 8.178),
        ("mobilenet_v1", 1.137),
        ("mobilenet_v2", 0.601),
        ("googlenet", 2.997),
        ("densenet121", 5.668),
    ],
)
def test_networks_have_the_operations_they_are_known_for(name, gflop):
    assert case_of(network(name)).work == pytest.approx(gflop, rel=2e-3)


def test_a_transposed_convolution_counts_what_it_multiplies():
    one = case("unet", 1)
    node = next(node for node in one.graph.nodes if node.attributes.get("transposed"))
    types = one.types(one.graph)
    x, weight = (types[value].shape for value in node.inputs[:2])
    alone = Graph("alone")
    value = alone.input("x", x, np.float32)
    alone.outputs = [alone.add("conv", [value, node.inputs[1]], **node.attributes)]
    one.graph, one.layer = alone, replace(one.layer, image=x[1:])
    assert one.work == 2 * np.prod(x) * np.prod(weight[1:]) / 1e9


@pytest.mark.parametrize("name", NARROW)
def test_weights_keep_numbers_in_range_and_leave_nothing_out(name):
    model = build(name)
    for key, value in model.state_dict().items():
        array = np.asarray(value).ravel()[:10_000]
        if array.dtype.kind == "f":
            assert np.unique(array).size > array.size // 2, key
            assert (array == 0).mean() < 0.1, key
    assert 1e-2 < np.abs(case(name, 1).expected).max() < 1e3


def test_drawing_repeats_but_not_from_row_to_row():
    drawn = Repeating(0).standard_normal(2_500_000, np.float32)
    again = np.empty((2, 1_250_000), np.float32)
    Repeating(0).standard_normal(dtype=np.float32, out=again)
    assert np.array_equal(drawn, again.ravel())
    assert np.array_equal(drawn[:1000], drawn[1_000_003:1_001_003])
    assert not np.array_equal(drawn[:1000], drawn[1_000_000:1_001_000])
    assert drawn.std() == pytest.approx(1, rel=0.01)


def test_a_network_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="network is 'lenet'; it needs one of vgg16"):
        network("lenet")
    with pytest.raises(NotImplementedError, match="float32; dtype is 'float64'"):
        case_of(network("lenet5"), dtype="float64")


# --------------------------------------------------------------------------------------- contenders


@pytest.mark.parametrize("name", NARROW)
def test_fastconv_computes_what_the_nodes_mean(name):
    one = case(name)
    for contender in (Compiled(), LayerByLayer()):
        result = contender.prepare(one).run()
        assert one.error(result, "NCHW") < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_the_translation_to_onnx_is_valid(name):
    onnx = pytest.importorskip("onnx")
    from fastconv.bench.contenders._onnx import model_for
    from fastconv.bench.contenders._onnx_graph import onnx_graph

    one = case(name)
    graph = onnx_graph(one.graph, one.types(one.graph, 3))
    if name in NARROW:  # the others have too many weights to look at all of them
        onnx.checker.check_model(onnx.load_from_string(model_for(one, 3)), full_check=True)
    (x,), (y,) = graph.input, graph.output
    sizes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (x, y)]
    (output,) = one.graph.outputs
    assert (x.name, y.name) == ("x", "y")
    assert sizes == [[3, *one.layer.image], [3, *one.types(one.graph)[output].shape[1:]]]
    # One node for one: nothing has been fused on the way.
    assert len(graph.node) == len(one.graph.nodes)
    sizes = sorted(tuple(constant.dims) for constant in graph.initializer if constant.dims)
    assert sizes == sorted(value.constant.shape for value in one.graph.constants())


@pytest.mark.parametrize("peer", ["torch", "onnxruntime", "openvino", "ncnn"])
@pytest.mark.parametrize("name", NARROW)
def test_peers_that_are_installed_compute_the_same(peer, name):
    found, missing = find_peers([peer])
    if missing:
        pytest.skip(f"not installed: {missing}")
    if peer == "ncnn":
        pytest.importorskip("pnnx")
    one, (contender,) = case(name), [contender for contender in found if contender.networks]
    with fc.threads(1):
        ready = contender.prepare(one)
        result = contender.array(ready.run())
        assert ready.threads() == 1
    assert one.error(result, contender.layout) < 1e-5
    again = contender.array(ready.run())
    assert np.array_equal(again, result)  # nothing is left behind by a call, in place or not


def test_functions_of_every_sort_are_translated():
    """Those of one number and of two, as torch and ONNX Runtime have them."""
    torch, runtime = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from fastconv.bench.contenders._onnx_graph import OPSET, onnx_graph
    from fastconv.bench.contenders._torch_graph import torch_module
    from fastconv.graph.lowering import infer
    from fastconv.graph.operators import OPERATORS
    from fastconv.graph.views import Type

    rng = np.random.default_rng(0)
    x, y = (rng.uniform(0.5, 1.5, (2, 4, 6, 6)).astype(np.float32) for _ in range(2))
    programs = [
        *(((name,),) for name in ("sigmoid", "tanh", "softplus", "exp", "log", "sqrt", "reciprocal", "abs", "neg")),
        *(((name,),) for name in ("erf", "floor", "ceil", "round", "sign", "hardswish", "silu")),
        *(((name, 1),) for name in ("add", "sub", "rsub", "mul", "div", "rdiv", "min", "max", "pow")),
        (("affine", 2.0, -3.0), ("clamp", -1.0, 0.25), ("leaky_relu", 0.1), ("elu", 0.5), ("fma", 1, 1)),
    ]
    for program in programs:
        graph = Graph("one")
        values = [graph.input(name, x.shape, np.float32) for name in ("x", "y")]
        inputs = values if any(name in ("fma", "add") or 1 in rest for name, *rest in program) else values[:1]
        graph.inputs = inputs
        graph.outputs = [graph.add("map", inputs, program=program)]
        types = infer(graph, [Type(x.shape, x.dtype)] * len(inputs))
        arrays = [x, y][: len(inputs)]
        (expected,) = OPERATORS["map"].evaluate(graph.nodes[0], arrays)
        with torch.inference_mode():
            theirs = torch_module(graph, types)(*map(torch.from_numpy, arrays)).numpy()
        np.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-6, err_msg=str(program))
        model = onnx.helper.make_model(
            onnx_graph(graph, types), opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8
        )
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (theirs,) = session.run(None, dict(zip(("x", "x1"), arrays, strict=False)))
        np.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-6, err_msg=str(program))


def test_what_cannot_be_translated_is_named():
    pytest.importorskip("onnx")
    from fastconv.bench.contenders._onnx import model_of

    one = case("lenet5", 1)
    one.graph.nodes[1].attributes["program"] = (("mish",),)
    name = one.graph.nodes[1].name
    with pytest.raises(NotImplementedError, match=f"ONNX has no form of map '{name}': function mish"):
        model_of(one)


# ------------------------------------------------------------------------------------------- tables


class Peer(Contender):
    """Somebody whose answer is off by a factor."""

    name, networks = "peer", True

    def __init__(self, factor=1.0):
        self.factor = factor

    def network(self, case):
        return Prepared(lambda: case.expected * self.factor)


def rows(factor=1.0):
    with fc.threads(1):
        outcome = measuring.measure_case(
            case("lenet5", 1), [Peer(factor), Compiled(), LayerByLayer()], ceiling=lambda: 100.0, effort=BRIEF
        )
    assert not outcome.refusals
    times = {"peer": 4.0, Compiled.name: 2.0, LayerByLayer.name: 8.0}
    return [replace(row, milliseconds=times[row.contender]) for row in outcome.rows]


def cells(table):
    heads = [column.head.replace("\n", " ") for column in table.columns]
    return [dict(zip(heads, line, strict=True)) for line in (*table.rows, *table.totals)]


def test_a_row_of_a_network():
    ours = next(row for row in rows() if row.contender == Compiled.name)
    assert isinstance(ours, Row)
    assert (ours.network, ours.layer, ours.kind, ours.shape) == ("networks", "lenet5", "network", "1×32")
    assert ours.max_error < 1e-5
    assert ours.aim == network("lenet5").aims[1]
    assert ours.work == pytest.approx(0.000833, rel=1e-3)
    assert ours.packed_bytes > 0


def test_the_table_sets_the_compiled_network_beside_the_best_peer():
    [table] = network_table.tables(rows())
    assert table.title == "Whole networks: inference, batch 1, float32"
    line, mean = cells(table)
    assert line["network"] == "LeNet-5"
    assert (line["fastconv compiled ms"], line["fastconv layers ms"], line["peer ms"]) == ("2.00", "8.00", "4.00")
    assert (line["best peer"], line["compiled ÷ best"], line["aim"]) == ("peer", "0.50", "0.67")
    assert mean["compiled ÷ best"] == "0.50"


def test_a_peer_that_computes_something_else_competes_with_nobody():
    [table] = network_table.tables(rows(1.01))
    line = cells(table)[0]
    assert line["peer ms"] == "4.00 WRONG"
    assert (line["best peer"], line["compiled ÷ best"]) == ("", "")
    assert any(note.startswith("WRONG: peer on lenet5, error 1.0e-02") for note in table.notes)


def test_memory_of_a_network_is_the_growth_of_a_process():
    one = case("resnet18", 1)
    try:
        memory = PeakMemory([Compiled()])
    except OSError as error:
        pytest.skip(str(error))
    with memory:
        grown = memory(Compiled(), one)
    packed = Compiled().prepare(one).packed_bytes
    assert packed / 2 < grown < 6 * packed


# ----------------------------------------------------------------------------------------- commands


def test_bench_of_networks_writes_json_and_markdown(tmp_path, capsys):
    page = tmp_path / "page.md"
    first, last = report.marks("fastconv bench --networks")
    page.write_text(f"before\n{first}\n{last}\nafter\n")
    arguments = ["bench", "--networks", "lenet5", "--quick", "--batch", "1", "2", "--threads", "1"]
    assert main([*arguments, "--json", "-", "--markdown", str(page)]) == 0
    run = json.loads(capsys.readouterr().out)
    assert [(row["layer"], row["batch"], row["contender"]) for row in run["rows"]] == [
        ("lenet5", batch, contender) for batch in (1, 2) for contender in (Compiled.name, LayerByLayer.name)
    ]
    assert all(row["max_error"] < 1e-5 and row["ceiling"] > 0 for row in run["rows"])
    text = page.read_text()
    assert text.startswith(f"before\n{first}\n\nMeasured on")
    assert "### Whole networks: inference, batch 2, float32" in text
    assert text.endswith(f"{last}\nafter\n")


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.01, 1)])
def test_bench_fails_where_somebody_computes_something_else(factor, status, monkeypatch, capsys):
    monkeypatch.setattr(command, "find_peers", lambda names: ([Peer(factor)], {}))
    monkeypatch.setattr(command, "fair_environment", lambda threads, peers: None)
    assert main(["bench", "--networks", "lenet5", "--quick", "--threads", "1", "--peers", "ncnn"]) == status
    assert ("WRONG" in capsys.readouterr().out) == bool(status)


def test_networks_have_batches_of_their_own():
    from fastconv.cli import _parser

    def groups(*arguments):
        argv = ["bench", "--networks", *arguments]
        return [(g.batch, [one.name for one in g.members]) for g in command._groups(_parser(argv).parse_args(argv))]

    assert groups() == [(1, list(MODELS)), (8, ["vgg16", "resnet50"])]
    assert groups("unet", "resnet50") == [(1, ["unet", "resnet50"]), (8, ["resnet50"])]
    assert groups("unet", "--batch", "3") == [(3, ["unet"])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "lenet5", "--layers", "c1"], "--layers is about layers; it cannot go with --networks"),
        (["--networks", "lenet5", "--dtype", "float64"], "--dtype is about layers"),
        (["--networks", "lenet5", "--html", "x.html"], "--html is about layers"),
        (["--networks", "lenet5", "--peers", "numpy"], "--peers names numpy, which runs layers alone"),
    ],
)
def test_bench_says_what_does_not_go_together(arguments, message, capsys):
    assert main(["bench", *arguments]) != 0
    assert message in capsys.readouterr().err


def test_a_network_of_another_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--networks", "vgg"])
    assert "invalid choice: 'vgg'" in capsys.readouterr().err
