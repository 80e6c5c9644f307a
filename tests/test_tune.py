# SPDX-License-Identifier: BSD-3-Clause
"""What `auto` rests on: measured constants that are fitted, kept, found again, and never trusted blindly."""

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core, _costs, tune
from fastconv.cli import main


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where FASTCONV_TUNE points to; there is nothing yet."""
    path = tmp_path / "kept" / "costs.json"
    monkeypatch.setenv("FASTCONV_TUNE", str(path))
    return path


def nominal():
    return _core.default_costs(_config.ISA)


def faster(factor=0.5):
    return tuple(seconds * factor for seconds in nominal())


# ---------------------------------------------------------------------------------------------------- the file


def test_what_is_saved_is_loaded(file):
    _costs.save(file, faster(), {"date": "2026-01-02"})
    assert _costs.load() == _costs.Costs(faster(), file)
    assert json.loads(file.read_text())["date"] == "2026-01-02"
    assert [p.name for p in file.parent.iterdir()] == ["costs.json"]


def test_off_reads_nothing(file, monkeypatch):
    _costs.save(file, faster(), {})
    monkeypatch.setenv("FASTCONV_TUNE", "off")
    assert _costs.path() is None
    assert _costs.load() == _costs.Costs(nominal())


def test_the_default_place_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTCONV_TUNE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = _costs.path()
    assert path.parent == tmp_path / "fastconv"
    assert fc.__version__ in path.name
    assert fc.isa() in path.name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _costs.load().tuned
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _costs.path().parent == tmp_path / "home" / ".cache" / "fastconv"


def broken(change):
    content = {**_costs._origin(), "costs": dict(zip(_core.COST_NAMES, faster(), strict=True))}
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is of no use here"),
        ("{not json", "is of no use here"),
        ("[]", "is of no use here"),
        (broken(lambda c: c.pop("costs")), "is of no use here"),
        (broken(lambda c: c["costs"].pop("mac")), "'mac'"),
        (broken(lambda c: c["costs"].update(mac=-1.0)), "not positive"),
        (broken(lambda c: c["costs"].update(mac=math.nan)), "not positive"),
        (broken(lambda c: c["costs"].update(mac="fast")), "is of no use here"),
        (broken(lambda c: c.update(isa="other")), "made for isa 'other'"),
        (broken(lambda c: c.update(fastconv="0.0.0")), "made for fastconv '0.0.0'"),
        (broken(lambda c: c.update(cpu="another")), "made for cpu 'another'"),
        (broken(lambda c: c.update(cpu="x" * 9000)), "made for cpu 'x{5,20}...x{5,20}'"),
        (broken(lambda c: c["costs"].update(mac=10**400)), "is of no use here"),
        (broken(lambda c: c.update(costs=[1])), "is of no use here"),
        (broken(lambda c: None).replace(",", "", 1), "is of no use here"),
        ("[" * 100_000, "is of no use here"),
        ('{"a":' * 100_000, "is of no use here"),
        ("9" * 100_000, "is of no use here"),
        (" " * (1 << 21), "is of no use here"),
    ],
)
def test_a_file_of_no_use_is_warned_of(file, text, reason):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.warns(RuntimeWarning, match=reason):
        assert _costs.load() == _costs.Costs(nominal())


def test_damage_of_any_kind_is_warned_of(file):
    file.parent.mkdir()
    whole, rng = broken(lambda c: None).encode(), np.random.default_rng(3)
    file.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(500):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), rng.integers(1, 9)):
                data[place : place + rng.integers(1, 4)] = rng.bytes(rng.integers(0, 4))
            with open(file, "r+b") as f:
                f.write(data)
                f.truncate()
            assert all(math.isfinite(s) and s > 0 for s in _costs.load().seconds)


def test_a_failed_save_leaves_the_old_file(file, monkeypatch):
    _costs.save(file, faster(), {})
    with pytest.raises(TypeError):
        _costs.save(file, nominal(), {"about": object()})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        _costs.save(file, nominal(), {})
    assert _costs.load() == _costs.Costs(faster(), file)
    assert [p.name for p in file.parent.iterdir()] == ["costs.json"]


def test_a_named_file_that_is_missing_is_warned_of(file):
    with pytest.warns(RuntimeWarning, match="does not exist; `fastconv tune` makes it"):
        assert not _costs.load().tuned


def test_a_directory_in_its_place_is_warned_of(file):
    file.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert not _costs.load().tuned


# --------------------------------------------------------------------------------------------------- the choice

WEIGHT = np.ones((32, 32, 3, 3), np.float32)
SHAPE = (1, 32, 28, 28)


def choice(costs):
    plan = fc.ConvPlan(SHAPE, WEIGHT, padding=1)
    verdicts = plan.verdicts(costs)
    return min((seconds, name) for name, refusal, seconds in verdicts if refusal is None)[1]


def test_costs_decide():
    index = _core.COST_NAMES.index("transform")
    costly = [*nominal()]
    costly[index] *= 1e3
    assert choice(nominal()).startswith("winograd")
    assert not choice(tuple(costly)).startswith("winograd")


def test_only_ratios_count():
    assert choice(faster()) == choice(nominal())


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_the_core_refuses_costs_that_are_no_times(value):
    plan = fc.ConvPlan(SHAPE, WEIGHT, padding=1)
    layouts = [_core.Layout(shape, np.empty(shape, np.float32).strides, "f") for shape in (SHAPE, WEIGHT.shape, SHAPE)]
    costs = (value, *nominal()[1:])
    with pytest.raises(ValueError, match="not a positive number of seconds"):
        _core.Plan(plan._fields, _config.ISA, -1, False, False, False, costs, *layouts, np.dtype(np.float32))


def test_a_new_process_chooses_by_the_file(file):
    costs = [*nominal()]
    costs[_core.COST_NAMES.index("transform")] *= 1e3
    _costs.save(file, tuple(costs), {})
    code = (
        "import numpy as np, fastconv as fc\n"
        "plan = fc.ConvPlan((1, 32, 28, 28), np.ones((32, 32, 3, 3), np.float32), padding=1)\n"
        "print(plan.algorithm, fc.config()['costs'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    algorithm, source = result.stdout.split()
    assert not algorithm.startswith("winograd")
    assert Path(source) == file


# ---------------------------------------------------------------------------------------------------- the measuring


def test_problems_are_of_every_kind_and_can_be_planned():
    drawn, rng = tune.problems(np.random.default_rng(0)), np.random.default_rng(1)
    found = [next(drawn) for _ in range(60)]
    assert {p["layout"] for p in found} == {"NCHW", "NHWC"}
    assert {p["dtype"] for p in found} == {"float32", "float64"}
    assert {p["weight_shape"][2] for p in found} >= {1, 3, 5}
    assert {p["groups"] == 1 for p in found} == {True, False}
    for problem in found:
        options = dict(problem)
        shape, dtype = options.pop("weight_shape"), options.pop("dtype")
        plan = fc.ConvPlan(options.pop("input_shape"), rng.random(shape).astype(dtype), **options)
        low, high = tune.MULTIPLY_ADDS
        assert low / 4 < plan.flops / 2 < high * 4  # sizes are rounded by strides


def test_a_fit_finds_the_costs_of_a_made_up_machine():
    """The clock is the model itself with other constants: the fit has to predict it, and to choose by it."""
    rng = np.random.default_rng(0)
    true = tuple(seconds * math.exp(rng.uniform(-1, 1)) for seconds in nominal())
    samples, drawn = [], tune.problems(rng)
    for _ in range(120):
        options = next(drawn)
        weight = np.zeros(options.pop("weight_shape"), options.pop("dtype"))
        verdicts = fc.ConvPlan(options.pop("input_shape"), weight, **options).verdicts

        def predict(costs, verdicts=verdicts):
            return {name: seconds for name, _, seconds in verdicts(costs)}

        times = {name: seconds for name, seconds in predict(true).items() if seconds < math.inf}
        samples.append(tune.Sample(predict, times))
    tuned = tune.fit(samples[::2], nominal())
    outcome = tune._verdict(samples[1::2], len(samples), nominal(), tuned)
    assert outcome.better
    assert outcome.tuned_error < 1.1 < outcome.error
    assert outcome.tuned_loss < 1.02
    assert outcome.tuned_right > 0.9


def judged(chosen_by_tuned, error=1.0, count=tune.ENOUGH):
    """The outcome of held-out samples of two algorithms, A of 1 s and B of 2 s, of which the nominal costs choose B.

    The nominal costs predict the clock; the tuned ones are wrong by a factor of ``error``.
    """
    nominal, tuned = (1.0,), (2.0,)
    first = {"A": (1.0, 2.0), "B": (2.0, 1.0)}[chosen_by_tuned]

    def predict(costs):
        return {"A": 2.0, "B": 1.0} if costs == nominal else dict(zip("AB", (t * error for t in first), strict=True))

    samples = [tune.Sample(predict, {"A": 1.0, "B": 2.0})] * count
    return tune._verdict(samples, tune.HELD_OUT * count, nominal, tuned)


def test_what_chooses_better_is_kept():
    assert judged("A").better


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (judged("B"), "choose as well"),
        (judged("B", error=5.0), "choose as well"),
        (judged("A", error=5.0), "predict better"),
        (judged("A", count=tune.ENOUGH - 1), "prove nothing"),
        (tune.Outcome(300, 1.1, 1.2, 0.9, 0.9, 1.5, 1.1), "choose better"),
    ],
)
def test_without_proof_the_nominal_constants_stay(outcome, reason):
    assert not outcome.better
    assert reason in outcome.objection


def test_few_samples_keep_the_nominal_constants(monkeypatch):
    monkeypatch.setattr(tune, "fit", lambda samples, start: tuple(s * 2 for s in start))
    monkeypatch.setattr(tune, "_sample", lambda problem, rng: tune.Sample(lambda costs: {"direct": 1.0}, {"direct": 1}))
    costs, outcome = tune.run(1e-9)
    assert costs == nominal()
    assert "prove nothing" in outcome.objection


# ----------------------------------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_tune_keeps_what_it_measured(file, capsys):
    assert main(["tune", "--seconds", "0.3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert Path(report["file"]) == file
    assert set(report["costs"]) == set(_core.COST_NAMES)
    outcome = report["outcome"]
    assert outcome["samples"] >= 6
    assert min(outcome["loss"], outcome["tuned_loss"], outcome["error"], outcome["tuned_error"]) >= 1
    kept = _costs.load()
    assert kept.source == file
    assert dict(zip(_core.COST_NAMES, kept.seconds, strict=True)) == report["costs"]
    if outcome["tuned_loss"] >= outcome["loss"] or outcome["tuned_error"] > outcome["error"]:
        assert kept.seconds == nominal()
    assert kept.tuned == (kept.seconds != nominal())
    assert main(["tune", "--reset"]) == 0
    assert "removed" in capsys.readouterr().out
    assert not file.exists()
    assert main(["tune", "--reset", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "removed": False}


def test_show_changes_nothing(file, capsys):
    assert main(["tune", "--show"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in _core.COST_NAMES)
    assert "nominal" in text
    assert main(["tune", "--show", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["costs"] == report["nominal"] == dict(zip(_core.COST_NAMES, nominal(), strict=True))
    assert report["file"] is None
    assert not file.exists()


def test_tune_needs_a_file(capsys):
    assert main(["tune"]) == 1  # the tests run with FASTCONV_TUNE=off
    assert "FASTCONV_TUNE is 'off'" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "inf", "nan"])
def test_wrong_seconds_are_status_2(seconds, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--seconds", seconds])
    assert stop.value.code == 2
    assert "it needs a number of seconds up to 3600" in capsys.readouterr().err
