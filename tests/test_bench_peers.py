# SPDX-License-Identifier: BSD-3-Clause
"""fastconv against other libraries: who counts, what is flagged, and the arithmetic of ratios.

Other libraries need not be installed; those that are compute a few small layers.
"""

import itertools
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench import environment, peak, report, shapes, timing, versus
from fastconv.bench import layers as measuring
from fastconv.bench.cases import case_of
from fastconv.bench.contenders import PEERS, Contender, FastConv, FastConvCall, NumpyIm2col, Prepared, find_peers
from fastconv.bench.contenders.peers import versions
from fastconv.bench.layers import Refusal, Row
from fastconv.bench.memory import PeakMemory
from fastconv.bench.timing import Effort

BRIEF = Effort(rounds=1, slice_time=0.001)
TINY = shapes.conv_layers("lenet5")[1]
PARTICULAR = ("4x4 p1212 32-64@48", "5x5/2 g33 33-33@57")


def row(contender, milliseconds, layer="one", layout="NCHW", **other):
    """A right and fair row, where nothing else is said."""
    base = Row(
        network="table",
        layer=layer,
        shape="8→8 3×3 @8",
        kind="conv",
        count=1,
        contender=contender,
        layout=layout,
        variant="",
        algorithm="",
        dtype="float32",
        batch=1,
        threads=2,
        threads_seen=2,
        cores=1.9,
        milliseconds=milliseconds,
        cold_milliseconds=None,
        work=1.0,
        traffic=0.01,
        ceiling=100.0,
        share=1000.0 / milliseconds / 100.0,
        aim=None,
        packed_bytes=None,
        workspace_bytes=None,
        peak_bytes=None,
        max_error=1e-7,
    )
    return replace(base, **other)


def some_rows():
    """Two layers; the best peers are ncnn (20 ms) and torch (4 ms), fastconv's plan is 2 and 0.5 times as fast."""
    plan = {"variant": "auto", "algorithm": "direct"}
    return [
        row("torch NCHW", 40.0),
        row("torch channels_last", 30.0, layout="NHWC"),
        row("ncnn", 20.0),
        row("fastconv", 25.0, **plan),
        row("fastconv", 10.0, layout="NHWC", **plan),
        row("fastconv call", 15.0, layout="NHWC"),
        row("torch NCHW", 5.0, "two", aim=2.5),
        row("torch channels_last", 4.0, "two", "NHWC", aim=2.5),
        row("ncnn", 16.0, "two", aim=2.5),
        row("fastconv", 8.0, "two", aim=2.5, **plan),
        row("fastconv", 16.0, "two", "NHWC", aim=2.5, **plan),
        row("fastconv call", 8.0, "two", "NHWC", aim=2.5),
    ]


def cells(table):
    heads = [column.head.replace("\n", " ") for column in table.columns]
    return [dict(zip(heads, line, strict=True)) for line in (*table.rows, *table.totals)]


# ------------------------------------------------------------------------------------------- ratios


def test_ratios_are_of_the_best_right_answers():
    [table] = versus.tables(some_rows())
    one, two, mean, lowest = cells(table)
    assert (one["best peer"], one["best ÷ plan"], one["best ÷ plan NCHW"]) == ("ncnn", "2.00×", "0.800×")
    assert (two["best peer"], two["best ÷ plan"], two["best ÷ plan NCHW"]) == (
        "torch channels_last",
        "0.500×",
        "0.500×",
    )
    assert (one["torch c_l ÷ call"], two["torch c_l ÷ call"]) == ("2.00×", "0.500×")
    assert (mean["layer"], mean["best ÷ plan"], mean["best ÷ plan NCHW"]) == ("geometric mean", "1.00×", "0.632×")
    assert (lowest["layer"], lowest["best ÷ plan"]) == ("lowest", "0.500×")
    assert (two["aim ÷ peak"], two["of aim"], one["of aim"]) == ("2.50", "50%", "")
    assert (one["plan ÷ peak"], one["best peer ÷ peak"], one["plan GFLOP/s"]) == ("1.00", "0.50", "100")
    assert any("best ÷ plan: faster on 1 of 2 layers, lowest on two (0.500×)" in note for note in table.notes)


def test_geometric_mean():
    assert report.geometric_mean([2.0, 0.5, 8.0]) == pytest.approx(2.0)


@pytest.mark.parametrize("error", [2e-3, math.nan, math.inf])
def test_a_wrong_answer_is_shown_as_wrong_and_competes_with_nobody(error):
    rows = [replace(r, max_error=error) if (r.contender, r.layer) == ("ncnn", "one") else r for r in some_rows()]
    [table] = versus.tables(rows)
    one = cells(table)[0]
    assert one["ncnn ms"] == "20.0 WRONG"
    assert (one["best peer"], one["best ÷ plan"]) == ("torch channels_last", "3.00×")
    assert any(note.startswith("WRONG: ncnn on one, error") for note in table.notes)


def test_our_own_wrong_answer_wins_nothing():
    rows = [replace(r, max_error=1.0) if r.contender == "fastconv" else r for r in some_rows()]
    [table] = versus.tables(rows)
    assert cells(table)[0]["fastconv NHWC ms"] == "10.0 WRONG"
    assert "best ÷ plan" not in cells(table.fitted(10**6))[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"threads_seen": 1}, "1 threads where 2 threads"), ({"cores": 3.9}, "3.9 cores where 2 threads")],
)
def test_another_number_of_threads_is_flagged(change, said):
    rows = [replace(r, **change) if r.contender == "ncnn" else r for r in some_rows()]
    [table] = versus.tables(rows)
    assert cells(table)[0]["ncnn ms"] == "20.0 !"
    assert cells(table)[0]["torch NCHW ms"] == "40.0"
    assert any(note.startswith("!: ncnn had") and said in note for note in table.notes)


def test_threads_that_nobody_tells_are_named():
    rows = [replace(r, threads_seen=None) if r.contender == "ncnn" else r for r in some_rows()]
    assert any(note.startswith("ncnn: the number of threads could not") for note in versus.tables(rows)[0].notes)


def test_who_is_missing_or_refuses_is_named():
    refusal = Refusal("table", "one", 1, "float32", "ncnn", "NCHW", "", "too odd")
    rows = [r for r in some_rows() if (r.contender, r.layer) != ("ncnn", "one")]
    [table] = versus.tables(rows, [refusal], {"openvino": "No module named 'openvino'"})
    assert cells(table)[0]["ncnn ms"] == "–"
    assert "NOT INSTALLED: openvino (No module named 'openvino')." in table.notes
    assert "–: ncnn does not serve one: too odd." in table.notes


def test_cold_calls_and_memory_have_tables_of_their_own():
    rows = [replace(r, cold_milliseconds=2 * r.milliseconds, peak_bytes=3 << 20) for r in some_rows()]
    hot, cold, memory = versus.tables(rows)
    assert cold.title == f"{hot.title}, cold"
    assert cells(cold)[0]["ncnn ms"] == "40.0"
    assert cells(cold)[0]["plan ÷ peak"] == "0.50"
    assert cells(memory)[0]["ncnn MiB"] == "3.00"


def test_algorithms_asked_for_have_columns_of_their_own():
    extra = replace(some_rows()[3], variant="im2col", milliseconds=50.0)
    [table] = versus.tables([*some_rows()[:6], extra])
    [one, *_] = cells(table)
    assert (one["fastconv NCHW ms"], one["fastconv NCHW im2col ms"]) == ("25.0", "50.0")


# ---------------------------------------------------------------------------------------- measuring


class Fake(Contender):
    name = "fake"

    def __init__(self, result, threads):
        self.result, self.threads = result, threads

    def conv(self, case):
        return Prepared(lambda: [self.result], threads=lambda: self.threads)

    def array(self, result):
        return result[0]


class Refuser(Contender):
    name = "refuser"

    def conv(self, case):
        raise NotImplementedError("not today")


def test_a_contender_is_checked_before_it_counts():
    case = case_of(TINY)
    contenders = [Fake(case.expected, 2), Fake(case.expected + 1, 2), Fake(case.expected, 1), Refuser()]
    flushed = itertools.count()
    with fc.threads(2):
        rows, refusals = measuring.measure_case(
            case,
            contenders,
            ceiling=lambda: 1.0,
            effort=BRIEF,
            flush=lambda: next(flushed),
            peak_bytes=lambda contender, case: 7,
        )
    assert [r.right for r in rows] == [True, False, True]
    assert [r.threads_seen for r in rows] == [2, 2, 1]
    assert not rows[2].fair
    assert all(r.cold_milliseconds > 0 and r.peak_bytes == 7 for r in rows)
    assert next(flushed) == 3 * timing.COLD_CALLS
    [refusal] = refusals
    assert (refusal.contender, refusal.layer, refusal.reason) == ("refuser", TINY.name, "not today")


def test_a_peer_that_cannot_be_imported_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastconv.bench.contenders.torch", None)
    found, missing = find_peers(["torch", "numpy"])
    assert [type(contender) for contender in found] == [NumpyIm2col]
    assert list(missing) == ["torch"]
    assert "fastconv.bench.contenders.torch" in missing["torch"]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    "layer",
    [
        TINY,
        *(
            layer
            for layer in shapes.conv_layers("untuned")
            if layer.name in ("4x4 p1212 32-64@48", "5x5/2 g33 33-33@57")
        ),
        shapes.conv_layers("untuned")[0],
        shapes.pool_layers("untuned")[1],
        shapes.pool_layers("untuned")[2],
    ],
    ids=lambda layer: layer.name,
)
def test_peers_that_are_installed_are_right(peer, layer):
    found, missing = find_peers([peer])
    if missing:
        pytest.skip(f"not installed: {missing}")
    case = case_of(layer, 2)
    for contender in found:
        if type(contender) is NumpyIm2col and not layer.arithmetic:
            continue
        with fc.threads(1):
            ready = contender.prepare(case)
            result = contender.array(ready.run())
        assert result.shape == layer.output_shape(2, contender.layout)
        assert case.error(result, contender.layout) < 1e-5
        assert set(versions([contender])) <= {peer}


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer != "numpy"])
def test_peers_run_with_the_threads_asked_for(peer):
    found, missing = find_peers([peer])
    if missing:
        pytest.skip(f"not installed: {missing}")
    for contender in found:
        with fc.threads(1):
            ready = contender.prepare(case_of(TINY))
            ready.run()
            assert ready.threads() == 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_call_is_a_contender(layout):
    case = case_of(TINY)
    ready = FastConvCall(layout).prepare(case)
    assert case.error(ready.run(), layout) < 1e-6
    with pytest.raises(NotImplementedError, match="no pooling"):
        FastConvCall(layout).prepare(case_of(shapes.pool_layers("lenet5")[0]))


def test_memory_is_the_growth_of_a_process():
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is measured on Linux only")
    case = case_of(shapes.conv_layers("resnet50")[2])
    with PeakMemory([NumpyIm2col(), FastConv()]) as memory:
        grown = memory(NumpyIm2col(), case)
        ours = memory(FastConv("NCHW", "direct"), case)
    patches = case.layer.terms * math.prod(case.layer.output_shape()[2:]) * 4
    assert grown >= patches > ours


def test_ceilings_wait_for_a_disturbance_to_pass(monkeypatch):
    monkeypatch.setattr(peak.time, "sleep", lambda seconds: None)
    found = iter([100.0, 20.0, 90.0, 10.0, 10.0, 10.0])
    patient = peak.Patient(lambda: next(found), tries=3)
    assert [patient(), patient(), patient()] == [100.0, 90.0, 10.0]
    assert next(found, None) is None


# ---------------------------------------------------------------------------------------- the field


def test_peers_are_held_to_our_instruction_set(monkeypatch):
    for name in (*environment.HANDICAPS, *environment.BLAS_THREADS, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASTCONV_ISA", "avx2")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert environment.fair_environment(2, peers=False) is None
    held = environment.fair_environment(2, peers=True)
    assert (held["ATEN_CPU_CAPABILITY"], held["ONEDNN_MAX_CPU_ISA"], held["OPENBLAS_CORETYPE"]) == (
        "avx2",
        "AVX2",
        "Haswell",
    )
    for name, value in held.items():
        monkeypatch.setenv(name, value)
    assert environment.fair_environment(2, peers=True) is None  # so that it runs again once only


def test_those_who_are_not_held_are_named(monkeypatch):
    monkeypatch.setattr(fc, "config", lambda: {"isas_usable": ["scalar", "avx2", "avx512"]})
    monkeypatch.setattr(fc, "isa", lambda: "avx512")
    assert environment.unheld() == []
    monkeypatch.setattr(fc, "isa", lambda: "avx2")
    [remark] = environment.unheld()
    assert remark == "NOT HELD to avx2, as fastconv is: ONNX Runtime and ncnn."
    assert versus.tables(some_rows(), remarks=[remark])[0].notes[0] == remark
    monkeypatch.setattr(fc, "isa", lambda: "scalar")
    assert environment.unheld() == ["NOT HELD to scalar, as fastconv is: all peers."]


def test_untuned_layers_are_what_they_are_meant_to_be():
    layers = shapes.conv_layers("untuned")
    assert {3, 7, 17, 33, 129} <= {n for layer in layers for n in (layer.in_channels, layer.out_channels)}
    assert set(range(2, 16)) - {10, 12, 14} <= {k for layer in layers for k in layer.kernel}
    assert {2, 3, 4} <= {layer.dilation[0] for layer in layers}
    assert {2, 4, 8, 16, 32, 64} <= {layer.groups for layer in layers}
    assert any(layer.stride == (3, 3) for layer in layers)
    assert sum(layer.symmetric_padding is None for layer in layers) >= 5


def test_padding_on_one_side():
    layer = next(layer for layer in shapes.conv_layers("untuned") if layer.name == "3x3 p1001 64-64@57")
    assert layer.sides == (1, 0, 0, 1)
    assert layer.symmetric_padding is None
    assert layer.label == "64→64 3×3 @57 padding 1+0 0+1"
    assert layer.output_shape() == (1, 64, 56, 56)
    x = np.zeros(layer.input_shape(), np.float32)
    assert fc.conv2d(x, np.zeros(layer.weight_shape, np.float32), **layer.arguments).shape == layer.output_shape()


# ------------------------------------------------------------------------------------------ the page


def test_the_page_refers_to_nothing_elsewhere():
    pytest.importorskip("matplotlib")
    from fastconv.bench import page

    rows = some_rows()
    missing = {"openvino": "No module named 'openvino'"}
    limits = peak.Ceilings(100.0, 30.0, "float32", 2)
    run = report.document(rows, limits, "fastconv bench --peers <all>", peers={"torch": "2.0"}, missing=missing)
    text = page.html(run, rows, versus.tables(rows, [], missing))
    assert text.count("data:image/png;base64,") == 2  # shares and roofline
    for link in ("http:", "https:", 'src="/', "<script", "<link", "@import", "url("):
        assert link not in text
    assert "fastconv bench --peers &lt;all&gt;" in text
    assert "openvino (No module named" in text
    assert "geometric mean" in text
