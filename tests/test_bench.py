# SPDX-License-Identifier: BSD-3-Clause
"""The measuring: the shapes file, the clock, what a row says, and how rows become tables and files.

No test depends on how fast anything is.
"""

import itertools
import json
import math
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench import layers as measuring
from fastconv.bench import peak, report, shapes, terminal, timing
from fastconv.bench.cases import GradientCase, case_of
from fastconv.bench.contenders import Contender, FastConv, NumpyIm2col, NumpyLoops, Prepared
from fastconv.bench.timing import Effort
from support import tolerance

BRIEF = Effort(rounds=2, slice_time=0.001)
TINY_CONV, TINY_POOL = shapes.conv_layers("lenet5")[1], shapes.pool_layers("lenet5")[1]
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


# ------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize(
    ("network", "convolutions", "gflop"),
    [
        # Convolutions by count; twice the multiply-adds that the papers' sizes give.
        ("lenet5", 2, 0.000715),
        ("alexnet", 5, 1.311),
        ("vgg16", 13, 30.69),
        ("googlenet", 57, 2.995),
        ("resnet50", 53, 8.174),
        ("mobilenet_v1", 27, 1.135),
    ],
)
def test_networks_have_the_operations_they_are_known_for(network, convolutions, gflop):
    members = shapes.conv_layers(network)
    assert sum(layer.count for layer in members) == convolutions
    assert sum(layer.count * layer.flops() for layer in members) / 1e9 == pytest.approx(gflop, rel=1e-3)


@pytest.mark.parametrize("network", shapes.NETWORKS)
def test_shapes_agree_with_the_library(network):
    for layer in shapes.conv_layers(network):
        names = fc.algorithms(layer.input_shape(), layer.weight_shape, **layer.arguments)
        assert names, layer
        per_image = 2 * layer.terms * math.prod(layer.output_shape())
        assert layer.flops(3) == 3 * per_image
    for layer in shapes.pool_layers(network):
        x = np.zeros(layer.input_shape(), np.float32)
        assert fc.max_pool2d(x, **layer.arguments).shape == layer.output_shape()
        assert layer.traffic(8, 2) == 16 * (x.size + math.prod(layer.output_shape()))


@pytest.mark.parametrize("network", shapes.NETWORKS)
def test_layer_names_are_unique(network):
    names = [layer.name for layer in shapes.layers(network)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("network", "size", "channels"), [("lenet5", 32, 1), ("alexnet", 224, 3), ("vgg16", 224, 3)])
def test_shapes_are_those_of_the_models(network, size, channels):
    """Walking through the model, its convolutions and poolings meet exactly the file's layers."""
    model = getattr(fc.models, network)(in_channels=channels)
    seen = {}
    shape = (channels, size, size)
    for module in model.features:
        name = type(module).__name__
        if name == "Conv2d":
            key = ("conv", *shape, *module.weight.shape, *shapes._pair(module.stride), *_sides(module.padding))
            shape = (module.weight.shape[0], *shape[1:])
        elif name.endswith("Pool2d"):
            kernel, stride = shapes._pair(module.kernel_size), shapes._pair(module.stride)
            key = (name[:3].lower(), *shape, *kernel, *stride, *_sides(module.padding))
        else:
            continue
        seen[key] = seen.get(key, 0) + 1
        shape = (shape[0], *_following(key, shape))
    expected = {}
    for layer in shapes.layers(network):
        size = (layer.in_channels, layer.height, layer.width)
        if isinstance(layer, shapes.ConvLayer):
            expected["conv", *size, *layer.weight_shape, *layer.stride, *layer.padding] = layer.count
        else:
            expected[layer.kind, *size, *layer.kernel, *layer.stride, *layer.padding] = layer.count
    assert seen == expected


@pytest.mark.parametrize("network", ["googlenet", "resnet50", "mobilenet_v1"])
def test_convolutions_are_those_of_the_models_that_branch(monkeypatch, network):
    """Running the model on an image, its convolutions are the file's, each as often."""
    monkeypatch.setattr(fc.nn.init, "_fill", lambda tensor, *_: fc.nn.init.zeros_(tensor))
    model = fc.models.get(network)().eval()
    seen = Counter()
    forward = fc.nn.Conv2d.forward

    def recorded(conv, x):
        seen[x.shape[1:], conv.weight.shape, conv.stride, conv.padding, conv.groups] += 1
        return forward(conv, x)

    monkeypatch.setattr(fc.nn.Conv2d, "forward", recorded)
    model(np.zeros((1, 3, 224, 224), np.float32))
    expected = Counter()
    for layer in shapes.conv_layers(network):
        size = layer.in_channels, layer.height, layer.width
        expected[size, layer.weight_shape, layer.stride, layer.padding, layer.groups] += layer.count
    assert seen == expected


def _sides(padding):
    return shapes._pair(padding)


def _following(key, shape):
    *_, kh, kw, sh, sw, ph, pw = key
    sizes = zip(shape[1:], (kh, kw), (sh, sw), (ph, pw), strict=True)
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)


def test_layouts_name_the_same_shape():
    layer = shapes.conv_layers("table")[9]
    n, c, h, w = layer.input_shape(5)
    assert layer.input_shape(5, "NHWC") == (n, h, w, c)
    n, c, h, w = layer.output_shape(5)
    assert layer.output_shape(5, "NHWC") == (n, h, w, c)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"network is 'vgg'; it needs one of 'lenet5'"):
        shapes.layers("vgg")


def test_a_misspelled_key_in_the_file_is_refused():
    with pytest.raises(TypeError, match="strides"):
        shapes._conv("lenet5", name="c1", out=6, kernel=5, strides=2, **{"in": [1, 32, 32]})


# ---------------------------------------------------------------------------------------- the clock


def test_median_ignores_a_disturbed_run(monkeypatch):
    clock = FakeClock(monkeypatch)
    durations = itertools.chain([9.0, 0.1, 0.2, 5.0, 0.2, 0.1], itertools.repeat(0.2))
    seconds = timing.median_seconds(lambda: clock.advance(next(durations)), min_time=0, min_runs=5)
    assert seconds == pytest.approx(0.2)  # the warm-up of 9 s is not among them


def test_enough_runs_and_enough_time(monkeypatch):
    clock = FakeClock(monkeypatch)
    calls = []

    def run():
        calls.append(clock.advance(0.1))

    timing.median_seconds(run, min_time=1.0, min_runs=3, warm_up=0)
    assert len(calls) in (10, 11)  # rounding of the sum decides
    calls.clear()
    timing.median_seconds(run, min_time=0.0, min_runs=3, warm_up=0)
    assert len(calls) == 3


def test_contenders_take_turns_beside_the_higher_ceiling(monkeypatch):
    clock = FakeClock(monkeypatch)
    order = []
    ceilings = iter([100, 200, 400, 300])

    def contender(name, seconds):
        def run():
            order.append(name)
            clock.advance(seconds)

        return run

    turns = timing.interleaved(
        [contender("a", 1.0), contender("b", 2.0)], lambda: next(ceilings), Effort(rounds=2, slice_time=0.0)
    )
    assert order == ["a", "a", "b", "b"] * 2  # each a warm-up and a timed call
    seen = [[(turn.seconds, turn.ceiling, turn.cold) for turn in mine] for mine in turns]
    assert seen == [[(1.0, 200, None), (1.0, 400, None)], [(2.0, 200, None), (2.0, 400, None)]]


def test_a_line_goes_from_one_thread_to_another():
    with fc.threads(2):
        found = peak.handover(tries=20)
    assert all(1 < nanoseconds < 1e6 for nanoseconds in found)
    with fc.threads(1):
        assert peak.handover() == ()


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ((), ""),
        ((41.0, 40.0, 44.0), "threads 41 ns apart · NumPy"),
        ((40.0, 41.0, 160.0), "threads 41 ns apart, at times 160 · NumPy"),
    ],
)
def test_a_run_says_how_far_apart_threads_were(seen, said):
    run = report.document([], peak.Ceilings(200.0, 30.0, "float32", 2, seen), "fastconv bench")
    assert said in report.summary(run)
    assert ("apart" in report.summary(run)) == bool(seen)


@pytest.mark.parametrize(("patience", "rounds"), [(1, 4), (2, 8), (3, 8)])
def test_turns_that_are_apart_are_followed_by_more_of_all(monkeypatch, patience, rounds):
    clock = FakeClock(monkeypatch)
    seconds = [1.0, 1.0, 1.0, 1.9, 1.0, 1.0, 1.0, 1.9, *[1.0] * 40]  # a warm-up and a timed call each
    contenders = [lambda: clock.advance(3.0), lambda: clock.advance(seconds.pop(0))]
    effort = Effort(rounds=4, slice_time=0.0, patience=patience)
    steady, unsteady = timing.interleaved(contenders, lambda: 1.0, effort)
    assert len(steady) == len(unsteady) == rounds
    assert [turn.seconds for turn in unsteady] == pytest.approx([1.0, 1.9, 1.0, 1.9, *[1.0] * (rounds - 4)])


def test_a_cheap_call_is_timed_again(monkeypatch):
    clock = FakeClock(monkeypatch)
    durations = iter([0.05, 0.01])
    result, turn = timing.once(lambda: clock.advance(next(durations)), lambda: 7.0)
    assert turn[:2] == (pytest.approx(0.01), 7.0)
    assert result is None
    durations = iter([3.0])
    assert timing.once(lambda: clock.advance(next(durations)), lambda: 7.0)[1].seconds == pytest.approx(3.0)


class FakeClock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def advance(self, seconds):
        self.now += seconds


def test_a_ceiling_that_varies_or_falls_with_more_threads_is_no_ceiling():
    values = {1: iter([100.0, 90.0, 95.0]), 2: iter([200.0, 190.0, 139.0])}
    found = peak.readings({n: lambda n=n: next(values[n]) for n in values}, "GFLOP/s", rounds=3)
    assert (found[1].low, found[1].high, found[1].quiet) == (90.0, 100.0, True)
    assert not found[2].quiet
    assert "NOT A QUIET MACHINE: it varied from 139 to 200 GFLOP/s" in found[2].warning
    steady = peak.readings({1: lambda: 100.0, 2: lambda: 5.0}, "GFLOP/s")  # two threads that others always disturb
    assert steady[2].high == 5.0
    assert not steady[2].quiet
    assert "from 5.00 to 100 GFLOP/s" in steady[2].warning


def test_ceilings_are_measured():
    limits = peak.ceilings("float64", 1)
    assert limits.fma > 0
    assert limits.bandwidth > 0
    assert (limits.dtype, limits.threads) == ("float64", 1)
    assert limits.joined("fma", [1e9]).fma == 1e9
    assert limits.joined("fma", [0.0]) == limits


# --------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [TINY_CONV, TINY_POOL], ids=lambda layer: layer.name)
def test_a_row_says_what_was_measured(layer, dtype, layout):
    with fc.threads(1):
        row = measuring.measure(layer, layout, 2, dtype=dtype, effort=BRIEF)
    assert (row.network, row.layer, row.layout, row.dtype) == ("lenet5", layer.name, layout, dtype)
    assert (row.batch, row.threads, row.contender, row.variant) == (2, 1, "fastconv", "auto")
    assert row.milliseconds > 0
    assert row.ceiling > 0
    assert row.share > 0
    terms = layer.terms if row.kind == "conv" else math.prod(layer.kernel)
    assert 0 <= row.max_error <= tolerance(dtype, terms)
    if row.kind == "conv":
        assert row.work == layer.flops(2) / 1e9
        assert row.algorithm in fc.ALGORITHMS
        assert row.extra_bytes == row.packed_bytes + row.workspace_bytes
    else:
        assert row.work == layer.traffic(np.dtype(dtype).itemsize, 2) / 1e9
        assert row.extra_bytes is None
    assert row.rate == pytest.approx(row.work / (row.milliseconds / 1e3))


@pytest.mark.parametrize("layer", [TINY_CONV, TINY_POOL], ids=lambda layer: layer.name)
def test_all_contenders_compute_the_same(layer):
    contenders = [NumpyLoops(), NumpyIm2col(), FastConv("NCHW"), FastConv("NHWC"), FastConv("NCHW", "reference")]
    rows = measuring.measure_case(case_of(layer), contenders, ceiling=lambda: 100.0, effort=BRIEF).rows
    names = [(row.contender, row.layout, row.variant) for row in rows]
    if layer is TINY_CONV:
        assert names == [(c.name, c.layout, c.variant) for c in contenders]
        by_name = {row.contender: row for row in rows}
        patches = layer.terms * math.prod(layer.output_shape()[2:]) * 4
        assert by_name["NumPy im2col"].workspace_bytes >= patches
    else:  # im2col is no pooling, and pooling has one algorithm
        assert names == [("NumPy loops", "NCHW", ""), ("fastconv", "NCHW", "auto"), ("fastconv", "NHWC", "auto")]
    assert all(row.max_error < 1e-6 and row.ceiling == 100.0 for row in rows)


def test_a_wrong_result_shows_as_an_error():
    class Wrong(Contender):
        name = "wrong"

        def __init__(self, result):
            self.result = result

        def conv(self, case):
            return Prepared(lambda: self.result)

    case = case_of(TINY_CONV)
    good = case.expected
    off = good.copy()
    off[0, 3, 2, 1] += np.abs(good).max() / 4
    broken = np.full_like(good, np.nan)
    results = [good, off, broken, good[:, :, :-1]]
    rows = measuring.measure_case(case, [Wrong(r) for r in results], ceiling=lambda: 1.0, effort=BRIEF).rows
    errors = [row.max_error for row in rows]
    assert errors[0] == 0
    assert errors[1] == pytest.approx(0.25)
    assert math.isnan(errors[2])
    assert errors[3] == math.inf


def test_a_refusal_is_the_callers_to_hear():
    with pytest.raises(NotImplementedError, match="pointwise"):
        measuring.measure(TINY_CONV, algorithm="pointwise")


# ---------------------------------------------------------------------------- tables and documents


def some_rows():
    """Rows of a network of two layers, with round figures."""
    base = measuring.Row(
        network="vgg16",
        layer="one",
        shape="3→64 3×3 @8",
        kind="conv",
        count=1,
        contender="NumPy im2col",
        layout="NCHW",
        variant="",
        algorithm="",
        dtype="float32",
        batch=1,
        threads=2,
        threads_seen=2,
        cores=1.9,
        milliseconds=80.0,
        cold_milliseconds=None,
        work=1.0,
        traffic=0.02,
        ceiling=100.0,
        share=0.125,
        aim=None,
        packed_bytes=None,
        workspace_bytes=9 << 20,
        peak_bytes=None,
        max_error=2e-7,
    )
    ours = replace(
        base,
        contender="fastconv",
        variant="auto",
        algorithm="direct",
        milliseconds=20.0,
        share=0.5,
        packed_bytes=1 << 20,
        workspace_bytes=2 << 20,
    )
    first = [base, ours, replace(ours, layout="NHWC", algorithm="im2col", milliseconds=10.0, share=1.0)]
    second = [replace(row, layer="two", count=2, milliseconds=row.milliseconds / 2) for row in first]
    return first + second


def document(rows):
    return report.document(rows, peak.Ceilings(100.0, 30.0, "float32", 2), "fastconv bench")


def cells(table):
    heads = [column.head.replace("\n", " ") for column in table.columns]
    return [dict(zip(heads, row, strict=True)) for row in (*table.rows, *table.totals)]


def test_a_table_has_a_line_for_each_layer_and_the_total():
    [table] = report.tables(some_rows())
    one, two, total = cells(table)
    assert table.title == "VGG-16: convolutions, batch 1, float32"
    assert one["NumPy im2col ms"] == "80.0"
    assert one["NumPy im2col MiB"] == "9.00"
    assert (one["NCHW ms"], one["NHWC ms"]) == ("20.0", "10.0")
    assert (one["NCHW GFLOP/s"], one["NHWC ÷ peak"]) == ("50.0", "1.00")
    assert (one["algorithm"], one["speed-up to im2col"]) == ("direct / im2col", "4.00×")
    assert (one["MiB"], one["error"]) == ("3.00", "2.0e-07")
    assert two["layer"] == "two ×2"
    # Twice half of it again: the total is twice the first layer.
    assert (total["layer"], total["NumPy im2col ms"], total["NCHW ms"]) == ("total", "160", "40.0")
    assert (total["GFLOP"], total["NCHW GFLOP/s"]) == ("3.00", "75.0")
    assert total["MiB"] == "5.00"  # all packed weights, one workspace


def test_algorithms_have_lines_of_their_own():
    extra = [
        replace(row, variant="winograd_f4", algorithm="winograd_f4", milliseconds=5.0)
        for row in some_rows()
        if row.layer == "one" and row.layout == "NCHW" and row.variant
    ]
    rows = sorted(some_rows() + extra, key=lambda row: row.layer)
    lines = cells(report.tables(rows)[0])
    chosen = "auto: direct / im2col"
    assert [line["algorithm"] for line in lines] == [chosen, "winograd_f4", chosen, "auto"]
    assert (lines[1]["layer"], lines[1]["NumPy im2col ms"], lines[1]["NHWC ms"]) == ("", "", "")
    assert lines[1]["speed-up to im2col"] == "16.0×"
    # Winograd has not served every layer, so it has no total.
    assert [line["layer"] for line in lines] == ["one", "", "two ×2", "total"]


def test_a_disturbed_machine_is_told():
    rows = some_rows()
    assert "QUIET" not in " ".join(report.tables(rows)[0].notes)
    rows[3] = replace(rows[3], ceiling=69.0)
    assert "it varied from 69.0 to 100 GFLOP/s" in " ".join(report.tables(rows)[0].notes)


def test_a_narrow_terminal_gets_the_columns_that_matter():
    [table] = report.tables(some_rows())
    everything, fitted = table.fitted(10_000), table.fitted(80)
    assert len(fitted.columns) < len(everything.columns)
    assert max(map(len, fitted.plain().splitlines()[1:-3])) <= 80
    assert {"NCHW ms", "NHWC ms", "NCHW ÷ peak", "algorithm"} <= set(cells(fitted)[0])
    assert table.fitted(1).columns  # never none


def test_a_table_without_rich_is_text(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_rich", lambda: False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    [table] = report.tables(some_rows())
    terminal.show(table)
    plain = capsys.readouterr().out
    assert plain == "\n" + table.fitted(300).plain() + "\n"
    assert list(terminal.track([1, 2], "two")) == [1, 2]


def test_rich_shows_the_same_cells():
    console = pytest.importorskip("rich.console")
    [table] = report.tables(some_rows())
    fitted = table.fitted(1000)
    with (output := console.Console(width=1000, color_system=None)).capture() as captured:
        output.print(fitted.rich())
    words = captured.get().split()
    for row in (*fitted.rows, *fitted.totals):
        for cell in row:
            assert all(word in words for word in cell.split())
    # As wide as the text, so that what fits the terminal there fits here.
    rule = next(line for line in fitted.plain().splitlines() if line.startswith("---"))
    assert max(len(line.rstrip()) for line in captured.get().splitlines()) <= len(rule)


def test_documents_survive_a_file(tmp_path):
    rows = some_rows()
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document(rows)))
    run, read = report.load(path)
    assert read == rows
    assert run["machine"]["isa"] == fc.isa()
    assert run["machine"]["numpy"] == np.__version__
    assert run["ceilings"]["fma_gflops"] == 100.0
    assert run["rows"][1]["rate"] == 50.0
    assert run["date"][:2] == "20"
    assert "FMA peak 100 GFLOP/s float32" in report.summary(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not what fastconv bench --json writes"),
        ("[]", "is not what fastconv bench --json writes"),
        ('{"rows": []}', "is not what fastconv bench --json writes: KeyError"),
        ('{"schema": 99}', "has schema 99; this version needs 2"),
        ('{"schema": 2, "rows": [{"layer": "one"}]}', "KeyError"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        report.load(path)


def test_comparison_matches_rows_and_gives_ratios():
    before, after = some_rows(), [replace(row, milliseconds=row.milliseconds / 2) for row in some_rows()]
    after = [replace(row, share=row.share * 2) for row in after if row.layer == "one"]
    table = report.comparison((document(before), before), (document(after), after))
    lines = cells(table)
    assert len(lines) == 3 + 1  # the second layer is only in one of them
    assert {line["ms A ÷ B"] for line in lines} == {"2.00"}
    assert {line["share B ÷ A"] for line in lines} == {"2.00"}
    assert lines[-1]["network"] == "geometric mean"
    with pytest.raises(ValueError, match="no row in common"):
        report.comparison((document(before), before), (document([]), []))


def test_markdown_replaces_what_stands_between_its_marks():
    rows, marks = some_rows(), report.marks()
    page = "# Title\n\n{}\nold\n{}\n\nafter\n".format(*marks)
    text = report.markdown(document(rows), report.tables(rows), page)
    assert text.startswith("# Title\n\n" + report.marks()[0])
    assert text.endswith(report.marks()[1] + "\n\nafter\n")
    assert "old" not in text
    assert "### VGG-16: convolutions, batch 1, float32" in text
    assert "fastconv bench\n" in text
    assert report.markdown(document(rows), report.tables(rows), text) == text
    alone = report.markdown(document(rows), report.tables(rows), "no marks here")
    assert alone.startswith(report.marks()[0])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_a_page_with_marks_waits_for_the_figures():
    page = Path(__file__).parents[1] / "docs" / "performance.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the tests")
    text = page.read_text(encoding="utf-8")
    assert text.count(report.marks()[0]) == text.count(report.marks()[1]) == 1
    assert text.index(report.marks()[0]) < text.index(report.marks()[1])


def test_bars_are_drawn_for_each_network(tmp_path):
    pytest.importorskip("matplotlib")
    from fastconv.bench import plot

    rows = some_rows()
    pool = [replace(row, kind="pool", layer="p" + row.layer, algorithm="") for row in rows]
    others = [replace(row, network="lenet5") for row in rows]
    assert plot.bars(document(rows), rows + pool, tmp_path / "one.png") == [tmp_path / "one.png"]
    written = plot.bars(document(rows), rows + others, tmp_path / "two.svg")
    assert [path.name for path in written] == ["two-vgg16.svg", "two-lenet5.svg"]
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert all(b"<svg" in path.read_bytes() for path in written)


# -------------------------------------------------------------------------------- pytest-benchmark


def test_the_benchmark_suites_run():
    pytest.importorskip("pytest_benchmark")
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks/ is not beside the tests")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(BENCHMARKS)]
    options = ["--benchmark-disable", "--network", "lenet5", "--batch", "2"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, cwd=BENCHMARKS.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
    assert "failed" not in result.stdout


def test_the_choice_knows_gradients_of_one_pass(monkeypatch):
    """Of a depthwise layer, beside those of three calls."""
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks/ is not beside the tests")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import choice

    monkeypatch.setattr(choice, "FAR", math.inf)  # on a busy machine a first call may take any time
    layer = next(layer for layer in shapes.conv_layers("mobilenet_v1") if layer.groups == 256)
    chosen, calls = choice.gradient(GradientCase(layer, 2), "NHWC", "all")
    assert chosen == "auto"
    assert {"auto", "depthwise", "apart"} <= set(calls)
    assert calls["apart"]() is None
    for ours, theirs in zip(calls["auto"](), calls["depthwise"](), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    row = choice.measure(layer, "NCHW", "all", 1, 1, 1e-4)
    assert set(row["milliseconds"]) >= {"auto", "depthwise", "apart"}
    assert row["of"] == "all"
