# SPDX-License-Identifier: BSD-3-Clause
"""Plans: what they say of themselves, what they choose, and what becomes of them in other hands."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core, _costs
from fastconv._explanation import Explanation, Verdict
from fastconv.bench.shapes import NETWORKS, conv_layers
from problems import LAYOUTS, Problem, in_layout, operands
from support import poison

SAME = ((1, 1), (1, 1))
PROBLEM = Problem((19, 23), 12, 20, (3, 3), 2, padding=SAME, groups=2, bias=True, activation="relu", residual=True)
LAYERS = [layer for network in NETWORKS for layer in conv_layers(network)]
MEBIBYTE = 1 << 20


def make(problem=PROBLEM, dtype="float32", layout="NCHW", **options):
    """A plan and the arrays to call it with."""
    x, w, b, r = operands(problem, dtype).to(layout)
    plan = fc.ConvPlan(x.shape, w, b, **problem.geometry, layout=layout, activation=problem.activation, **options)
    return plan, x, r


# --- what it says of itself -----------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attributes(layout):
    plan, x, _ = make(layout=layout)
    assert plan.algorithm in fc.ALGORITHMS
    assert plan.isa == fc.isa()
    assert plan.flops == 2 * PROBLEM.products
    assert isinstance(plan.flops, int)
    assert plan.output_shape == in_layout(PROBLEM.output_shape, layout)
    assert plan(x).shape == plan.output_shape
    assert plan.packed_bytes >= 4 * (np.prod(PROBLEM.weight_shape) + PROBLEM.out_channels)
    assert plan.workspace_bytes >= 0
    single = fc.ConvPlan(x.shape[1:], np.ones(PROBLEM.weight_shape, np.float32), groups=2, layout=layout)
    assert single.output_shape == single(x[0]).shape


def test_repr_says_what_it_is():
    plan, _, _ = make(algorithm="im2col")
    text = repr(plan)
    for part in ("(2, 12, 19, 23)", "(2, 20, 19, 23)", "(3, 3)", "NCHW", "float32", "'im2col'", fc.isa()):
        assert part in text


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ["auto", "direct"])
def test_explain_has_a_line_for_every_algorithm(dtype, algorithm):
    plan, x, _ = make(dtype=dtype, algorithm=algorithm)
    lines = {line.split()[0]: line for line in str(plan.explain()).splitlines() if line.split()[0] in fc.ALGORITHMS}
    assert set(lines) == set(fc.ALGORITHMS)
    serving = fc.algorithms(x.shape, PROBLEM.weight_shape, **PROBLEM.geometry, dtype=dtype)
    for name, line in lines.items():
        refused = "refused: " in line
        assert refused == (name not in serving)
        if refused:
            assert len(line.split("refused: ")[1]) > 5
        else:
            assert float(line.split()[1]) > 0
        assert line.endswith("chosen") == (name == plan.algorithm)


@pytest.mark.parametrize("measure", [False, True])
def test_an_explanation_is_rows_a_table_and_html(measure):
    plan = fc.ConvPlan((1, 4, 9, 9), np.ones((4, 4, 1, 1), np.float32))
    why = plan.explain(measure=measure)
    assert [row.algorithm for row in why] == list(fc.ALGORITHMS)
    assert len(why) == len(fc.ALGORITHMS)
    assert [row.algorithm for row in why if row.chosen] == [plan.algorithm]
    assert why["direct"] is why[0]
    assert (why["direct"].measured is not None) == measure
    for row in why:
        assert (row.refusal is None) == (row.predicted is not None)
        assert row.measured is None or row.refusal is None
    assert repr(why) == str(why)
    html = why._repr_html_()
    assert html.count("<tr>") == len(why) + 1
    assert ("measured ms" in html) == ("measured ms" in str(why)) == measure
    with pytest.raises(KeyError, match="algorithm is 'fft'"):
        why["fft"]


def test_html_of_an_explanation_is_escaped():
    why = Explanation((Verdict("a", None, None, "<b> & co", False),), "x < y")
    assert "refused: &lt;b&gt; &amp; co" in why._repr_html_()
    assert "x &lt; y" in why._repr_html_()


def test_attributes_cannot_be_set():
    plan, _, _ = make()
    for name in ("algorithm", "isa", "flops", "workspace_bytes", "packed_bytes", "output_shape"):
        with pytest.raises(AttributeError):
            setattr(plan, name, getattr(plan, name))


def test_weights_changed_afterwards_have_no_effect():
    x, w, b, r = operands(PROBLEM, "float32")
    plan = fc.ConvPlan(x.shape, w, b, **PROBLEM.geometry)
    expected = plan(x, r)
    w[...], b[...] = np.nan, np.nan
    np.testing.assert_array_equal(plan(x, r), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(plan))(x, r), expected)


def test_the_result_is_the_callers():
    """A new array each time, or `out` itself."""
    plan, x, r = make()
    first, second = plan(x, r), plan(x, r)
    assert not np.shares_memory(first, second)
    assert first.flags.owndata or first.base.flags.owndata
    assert first.flags.c_contiguous
    assert first.flags.writeable
    out = poison(plan.output_shape)
    assert plan(x, r, out) is out
    np.testing.assert_array_equal(out, first)
    strided = poison((*plan.output_shape[:-1], 2 * plan.output_shape[-1]))
    assert plan(x, r, out=strided[..., ::2]) is not strided
    np.testing.assert_array_equal(strided[..., ::2], first)
    assert np.isnan(strided[..., 1::2]).all()


def test_inputs_of_any_strides():
    plan, x, r = make()
    expected = plan(x, r)
    np.testing.assert_array_equal(plan(np.asfortranarray(x), np.asfortranarray(r)), expected)
    np.testing.assert_array_equal(plan(x[::-1][::-1], r), expected)


# --- in other hands -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
def test_pickling(layout, dtype, algorithm):
    plan, x, r = make(dtype=dtype, layout=layout, algorithm=algorithm)
    for other in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):
        assert other.algorithm == plan.algorithm
        assert repr(other) == repr(plan)
        np.testing.assert_array_equal(other(x, r), plan(x, r))


def test_pickling_keeps_what_was_asked_for():
    plan, x, r = make(precision="strict")
    other = pickle.loads(pickle.dumps(plan))
    assert "precision='strict'" in str(other.explain())
    np.testing.assert_array_equal(other(x, r), plan(x, r))
    x, w, _, _ = operands(PROBLEM, "float32")
    single = fc.ConvPlan(x.shape[1:], w, stride=(2, 1), padding="same", dilation=(1, 2), groups=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(single))(x[0]), single(x[0]))


def test_a_pickle_is_packed_anew_where_it_is_loaded(tmp_path):
    """On another machine, with other instructions."""
    plan, x, r = make()
    (tmp_path / "plan").write_bytes(pickle.dumps((plan, x, r, plan(x, r))))
    script = """
    import pickle, sys
    import numpy as np
    plan, x, r, expected = pickle.load(open(sys.argv[1], "rb"))
    assert plan.isa == "scalar"
    assert np.abs(plan(x, r) - expected).max() < 1e-5
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "plan")],
        env={**os.environ, "FASTCONV_ISA": "scalar"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd_f4", "pointwise", "depthwise"])
def test_many_threads_at_once(algorithm):
    """One plan, eight threads of Python, each with inputs of its own and several threads of the core."""
    problem = {
        "pointwise": Problem((31, 33), 40, 50, bias=True),
        "depthwise": Problem((31, 33), 64, 64, (3, 3), padding=SAME, groups=64, bias=True),
    }.get(algorithm, Problem((31, 33), 16, 24, (3, 3), padding=SAME, bias=True))
    plan, x, _ = make(problem, algorithm=algorithm)
    images = [x * np.float32(i) for i in range(1, 9)]
    expected = [plan(image) for image in images]

    def work(number):
        with fc.threads(1 + number % 3):
            return [plan(images[number]) for _ in range(12)]

    with ThreadPoolExecutor(8) as pool:
        for number, results in enumerate(pool.map(work, range(8))):
            for result in results:
                np.testing.assert_array_equal(result, expected[number])


def test_many_threads_of_one_shot_calls():
    """They share the plans kept from call to call, and the scratch memory."""
    problems = [Problem((13, 17), c, 2 * c, (3, 3), padding=SAME, bias=True) for c in range(1, 30)]
    arrays = [operands(p, "float32") for p in problems]

    def work(_):
        return [
            fc.conv2d(x, w, b, padding=1, algorithm=algorithm)
            for x, w, b, _ in arrays
            for algorithm in ("auto", "im2col", "direct", "winograd")
        ]

    expected = work(None)
    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(8)):
            for result, right in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, right)


# --- memory ---------------------------------------------------------------------------------------

HUGE = {
    "3x3 64 @1080x1920": Problem((1080, 1920), 64, 64, (3, 3), padding=SAME),
    "3x3 3 @4096": Problem((4096, 4096), 3, 16, (3, 3), padding=SAME),
    "7x7/2 3 @4000x3000": Problem((4000, 3000), 3, 64, (7, 7), stride=(2, 2), padding=((3, 3), (3, 3))),
    "31x31 @2048": Problem((2048, 2048), 1, 1, (31, 31)),
    "1x1 2048 @256": Problem((256, 256), 2048, 512),
    "depthwise @2048": Problem((2048, 2048), 256, 256, (3, 3), padding=SAME, groups=256),
    "batch of 256": Problem((56, 56), 64, 64, (3, 3), 256, padding=SAME),
    "one row": Problem((1, 1 << 24), 1, 4, (1, 9)),
    "one column": Problem((1 << 24, 1), 1, 4, (9, 1)),
    "linear": Problem((1, 1), 25088, 4096, batch=1000),
    "dilated": Problem((1024, 1024), 32, 32, (3, 3), padding=((64, 64), (64, 64)), dilation=(64, 64)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scratch_memory_stays_below_16_mebibytes(layout, dtype, threads):
    """For every layer of the networks, and far larger ones, by whatever algorithm."""
    problems = {
        f"{layer.network} {layer.name}": (layer.input_shape(1, layout), layer.weight_shape, layer.arguments)
        for layer in LAYERS
    } | {name: (in_layout(p.input_shape, layout), p.weight_shape, p.geometry) for name, p in HUGE.items()}
    found = []
    with fc.threads(threads):
        for name, (shape, weight_shape, options) in problems.items():
            weight = np.broadcast_to(np.zeros(1, dtype), weight_shape)
            if np.prod(weight_shape) > 1e7:
                continue  # packing takes its time, and the scratch does not depend on the kernels' number
            for algorithm in fc.algorithms(shape, weight_shape, **options, layout=layout, dtype=dtype):
                plan = fc.ConvPlan(shape, weight, **options, layout=layout, algorithm=algorithm)
                if plan.workspace_bytes > 16 * MEBIBYTE:
                    found.append(f"{name}, {algorithm}: {plan.workspace_bytes / MEBIBYTE:.1f} MiB")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd_f4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_in_fact(layout, algorithm):
    """The process grows by no more than 16 MiB and the packed weights while a large layer runs."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc/self/status")
    shapes = [in_layout((1, 64, 300, 300), layout)] * 2
    script = f"""
    import re
    import numpy as np
    import fastconv as fc

    def status(field):
        return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

    options = dict(padding=1, layout={layout!r}, algorithm={algorithm!r})
    x, out = np.ones({shapes[0]}, np.float32), np.ones({shapes[1]}, np.float32)
    w = np.ones((64, 64, 3, 3), np.float32)
    with fc.threads(2):
        small = x[:, :8, :32] if {layout!r} == "NHWC" else x[:, :, :8, :32]
        fc.conv2d(small, w, **options)  # threads and code are there
        open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
        before = status("VmRSS")
        fc.conv2d(x, w, out=out, **options)
        print(status("VmHWM") - before, fc.ConvPlan(x.shape, w, **options).packed_bytes)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    if "clear_refs" in run.stderr:
        pytest.skip("this kernel does not let the peak start anew")
    assert run.returncode == 0, run.stderr
    grown, packed = map(int, run.stdout.split())
    assert grown <= 16 * MEBIBYTE + packed


# --- the choice -----------------------------------------------------------------------------------

USABLE = [name for name, _, usable in _core.isas() if usable]


def first(shape, weight_shape, layout="NCHW", **options):
    """What `auto` takes, for a batch in the order NCHW."""
    return fc.algorithms(in_layout(shape, layout), weight_shape, layout=layout, **options)[0]


@pytest.fixture(params=USABLE)
def isa(request, monkeypatch):
    """Choices depend on the instruction set; kernels need not run for that."""
    number = [name for name, _, _ in _core.isas()].index(request.param)
    monkeypatch.setattr(_config, "ISA", number)
    monkeypatch.setattr(_costs, "COSTS", _costs.nominal())
    return request.param


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("layout", LAYOUTS)
class TestChoice:
    """What `auto` takes for telling layers, on each instruction set."""

    def test_3x3_is_winograd(self, layout):
        for channels, size in ((64, 56), (128, 28), (256, 56), (512, 28)):
            shape, kernels = (1, channels, size, size), (channels, channels, 3, 3)
            assert first(shape, kernels, layout, padding=1).startswith("winograd")

    def test_other_kernels_of_stride_1_are_too(self, layout):
        for kernel, options in (
            ((7, 7), {"padding": 3}),
            ((2, 2), {}),
            ((1, 5), {"padding": (0, 2)}),
            ((3, 3), {"padding": 1, "stride": (2, 1)}),
            ((3, 3), {"padding": 1, "stride": 2}),
            ((3, 3), {"padding": (2, 1), "dilation": (2, 1)}),
        ):
            assert first((1, 64, 56, 56), (64, 64, *kernel), layout, **options).startswith("winograd")

    def test_strict_and_float64_never_are(self, layout):
        for channels, size in ((64, 56), (128, 28), (512, 28)):
            shape, kernels = (1, channels, size, size), (channels, channels, 3, 3)
            for options in ({"precision": "strict"}, {"dtype": "float64"}):
                assert first(shape, kernels, layout, padding=1, **options) in ("direct", "im2col")

    def test_1x1_is_pointwise(self, layout):
        for channels, kernels, size in ((64, 256, 56), (256, 64, 56), (512, 512, 14), (2048, 512, 7)):
            found = first((1, channels, size, size), (kernels, channels, 1, 1), layout)
            # Few pixels in a plane leave lanes empty: direct transposes them. Pixels a power of two apart throw each
            # other out of L1, and planes that begin between cache lines are more than it holds: im2col packs them.
            transposes = layout == "NCHW" and size < 28
            packs = transposes or (layout == "NHWC" and channels >= 1024)
            assert found == "pointwise" or (found == "direct" and transposes) or (found == "im2col" and packs)

    def test_depthwise_is_depthwise(self, layout):
        for channels, size, stride in ((32, 112, 1), (128, 56, 2), (512, 14, 1)):
            options = {"padding": 1, "stride": stride, "groups": channels}
            assert first((1, channels, size, size), (channels, 1, 3, 3), layout, **options) == "depthwise"

    def test_the_rest_is_a_matrix_product(self, layout, isa):
        for shape, kernels, options in (
            ((1, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
            ((1, 3, 227, 227), (96, 3, 11, 11), {"stride": 4}),
        ):
            # Without vectors, three channels fill them, and multiplications are what costs.
            if isa != "scalar" or options["stride"] > 2:
                assert first(shape, kernels, layout, **options) in ("direct", "im2col")

    def test_a_dilation_is_as_good_as_none(self, layout):
        for dilation in (2, 4):
            options = {"padding": dilation, "dilation": dilation}
            assert first((1, 64, 56, 56), (64, 64, 3, 3), layout, **options).startswith("winograd")
            assert first((1, 64, 56, 56), (64, 64, 3, 3), layout, **options, precision="strict") in ("direct", "im2col")

    def test_a_column_is_as_good_as_a_row(self, layout):
        for size in ((1000, 1), (56, 56)):
            assert first((1, 64, *size), (128, 64, 3, 1), layout).startswith("winograd")

    def test_loops_are_for_what_nothing_else_is_worth(self, layout):
        for layer in LAYERS:
            shape = (1, layer.in_channels, layer.height, layer.width)
            assert first(shape, layer.weight_shape, layout, **layer.arguments) != "reference"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_takes_the_first_of_the_list(layout):
    for layer in LAYERS:
        if np.prod(layer.weight_shape) > 1e6:
            continue
        shape = layer.input_shape(1, layout)
        weight = np.broadcast_to(np.float32(0), layer.weight_shape)
        plan = fc.ConvPlan(shape, weight, **layer.arguments, layout=layout)
        assert plan.algorithm == fc.algorithms(shape, layer.weight_shape, **layer.arguments, layout=layout)[0]


def test_the_choice_does_not_depend_on_the_number_of_threads():
    """Else results would."""
    for layer in LAYERS:
        taken = set()
        for count in (1, 2, 64):
            with fc.threads(count):
                taken.add(fc.algorithms(layer.input_shape(), layer.weight_shape, **layer.arguments)[0])
        assert len(taken) == 1


def test_winograd_by_name_is_the_cheapest_of_them():
    x, w, _, _ = operands(PROBLEM, "float32")
    serving = fc.algorithms(x.shape, w.shape, **PROBLEM.geometry)
    plan = fc.ConvPlan(x.shape, w, **PROBLEM.geometry, algorithm="winograd")
    assert plan.algorithm == next(name for name in serving if name.startswith("winograd"))
