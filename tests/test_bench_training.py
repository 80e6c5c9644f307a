# SPDX-License-Identifier: BSD-3-Clause
"""``fastconv bench --training``: the gradients of convolutions, everybody's checked against the reference."""

import json

import numpy as np
import pytest

from fastconv.bench import shapes, training_table
from fastconv.bench.cases import case_of
from fastconv.bench.contenders import FastConv, find_peers
from fastconv.bench.layers import measure_case
from fastconv.bench.timing import Effort
from fastconv.cli import main
from support import tolerance

TINY = shapes.conv_layers("lenet5")[1]
BRIEF = Effort(rounds=1, slice_time=0.001)


def contenders():
    peers, _ = find_peers(["torch"])
    return [*peers, FastConv("NCHW"), FastConv("NHWC")]


def test_everybody_computes_the_same_gradients():
    case = case_of(TINY, 2, training=True)
    rows, refusals = measure_case(case, contenders(), ceiling=lambda: 1.0, effort=BRIEF)
    assert not refusals
    assert len(rows) >= 2
    for row in rows:
        assert row.max_error < tolerance("float32", 2 * 10 * 10), row.contender  # outputs of two images
        assert row.kind == "gradients"
        assert row.work == pytest.approx(2 * TINY.flops(2) / 1e9)


@pytest.mark.parametrize("which", range(3))
def test_each_of_the_three_counts(which):
    case = case_of(TINY, 2, training=True)
    contender = FastConv("NHWC")
    result = [np.array(a) for a in contender.prepare(case).run()]
    result[which].flat[5] += 1
    assert case.judge(result, contender.array, "NHWC") > 1e-3
    result[which].flat[5] = np.nan
    assert not case.judge(result, contender.array, "NHWC") <= 1


def test_the_table_compares_with_the_best_peer():
    case = case_of(TINY, 2, training=True)
    rows, refusals = measure_case(case, contenders(), ceiling=lambda: 1.0, effort=BRIEF)
    [table] = training_table.tables(rows, refusals)
    [line] = table.rows
    heads = [column.head for column in table.columns]
    assert "gradients" in table.title
    ours = min(row.milliseconds for row in rows if row.contender == "fastconv")
    theirs = [row.milliseconds for row in rows if row.contender != "fastconv"]
    shown = line[heads.index("best peer ÷\nfastconv")]
    if theirs:
        assert float(shown.strip("×")) == pytest.approx(min(theirs) / ours, rel=0.05)
    else:
        assert not shown.strip("–")


def test_the_command_line(tmp_path):
    target = tmp_path / "run.json"
    command = ["bench", "--training", "--network", "lenet5", "--layout", "NHWC", "--quick", "--json", str(target)]
    assert main(command) == 0
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    assert [row["kind"] for row in rows] == ["gradients"] * 2  # of convolutions, and no pooling


@pytest.mark.parametrize("option", [["--reference", "loops"], ["--networks"]])
def test_what_cannot_go_with_it(option, capsys):
    assert main(["bench", "--training", *option]) != 0
    assert option[0] in capsys.readouterr().err
