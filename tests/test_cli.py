# SPDX-License-Identifier: BSD-3-Clause
"""The command line: what it prints and writes, its exit statuses, and what it says when it cannot."""

import io
import itertools
import json
import os
import subprocess
import sys
import types

import pytest

import fastconv as fc
from fastconv.bench import environment, peak, report, shapes, terminal
from fastconv.bench.names import PEERS, REFERENCES
from fastconv.cli import main

QUICK = ["bench", "--network", "lenet5", "--quick", "--threads", "1"]
ALONE = [*QUICK, "--reference", "none"]


def run(*arguments, **environment):
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fastconv", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


# ---------------------------------------------------------------------------------------- in general


def test_version():
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"fastconv {fc.__version__}\n")


#: Each with the arguments that it has to be given.
NEEDED = {
    "info": [],
    "demo": [],
    "bench": [],
    "tune": [],
    "profile": ["lenet5"],
    "classify": ["cat.png", "--model", "lenet5", "--weights", "lenet5.npz"],
    "train": ["--data", "photos", "--model", "lenet5"],
}
COMMANDS = tuple(NEEDED)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: fastconv {command} ")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_in_a_narrow_terminal(command, capsys, monkeypatch):
    """Command lines, which are to be copied, stay whole; all else follows."""
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 40 and "fastconv " not in line] == []


def test_help_names_the_commands_and_gives_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {command}  " in text and f"fastconv {command}" in text for command in COMMANDS if command != "demo")
    assert "examples:" in text


def test_help_of_bench_explains_every_name_once(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    options, _, names = capsys.readouterr().out.partition("names:")
    assert "examples:" in options
    words = names.replace(":", " ").split()
    for name in (*shapes.NETWORKS, *fc.ALGORITHMS, *PEERS, *REFERENCES):
        assert name in words
        assert options.count(f"{name},") == 0
    assert all(meaning.split()[0] in names for meaning in shapes.LISTS.values())


WRONG = [("FASTCONV_ISA", "avx1024"), ("FASTCONV_NUM_THREADS", "many")]


@pytest.mark.parametrize(("variable", "value"), WRONG)
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_and_version_do_not_depend_on_the_environment(arguments, variable, value):
    result = run(*arguments, **{variable: value})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(("usage: fastconv", f"fastconv {fc.__version__}"))


@pytest.mark.parametrize(("variable", "value"), WRONG)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_environment_that_cannot_be_had_is_one_line(command, variable, value):
    result = run(command, *NEEDED[command], **{variable: value})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"fastconv: {variable} is '{value}'; ")
    assert result.stderr.count("\n") == 1


def test_the_installed_script_is_the_command_line_too(tmp_path):
    script = tmp_path / "fastconv"
    script.write_text("import sys\nfrom fastconv.cli import main\nsys.exit(main())\n")
    for name, status in (("--version", 0), ("info", 1)):
        command = [sys.executable, str(script), name]
        result = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "FASTCONV_ISA": "?"}, cwd=tmp_path
        )
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("given", [["script.py", "-m", "fastconv"], ["-m", "other"]])
def test_no_other_program_is_spared_the_error(given, tmp_path):
    (tmp_path / "script.py").write_text("import fastconv\n")
    (tmp_path / "other.py").write_text("import fastconv\n")
    result = subprocess.run(
        [sys.executable, *given], capture_output=True, text=True, env={**os.environ, "FASTCONV_ISA": "?"}, cwd=tmp_path
    )
    assert result.returncode == 1
    assert "ImportError: FASTCONV_ISA is '?'" in result.stderr


# ---------------------------------------------------------------------------- terminals of all kinds


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_an_ascii_terminal_gets_every_character_spelled(variables):
    variables = {"PYTHONUTF8": "0", **variables}
    result = run(*ALONE, "--layers", "c1", **variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert "1>6 5x5 @32" in result.stdout
    assert "?" not in result.stdout
    assert result.stdout.isascii()


def test_streams_are_left_as_they_were():
    before = sys.stdout.errors
    with terminal.spelled():
        assert sys.stdout.errors != before
    assert sys.stdout.errors == before


def test_what_has_no_spelling_is_a_question_mark():
    assert "3×3 → ☃".encode("ascii", "fastconv.spell") == b"3x3 > ?"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "fastconv.spell")


def test_tables_follow_columns_into_a_pipe():
    wide, narrow = (run(*ALONE, "--layers", "c*", COLUMNS=columns).stdout for columns in ("", "60"))
    assert max(map(len, narrow.splitlines())) <= 60 < max(map(len, wide.splitlines()))
    assert "algorithm" in narrow


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("rich", [False, True])
def test_progress_with_rich_and_without(rich, monkeypatch):
    if rich:
        pytest.importorskip("rich")
    monkeypatch.setattr(terminal, "_rich", lambda: rich)
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    assert list(terminal.track("abc", "letters")) == ["a", "b", "c"]
    assert "letters" in screen.getvalue()
    assert "3/3" in screen.getvalue()


def test_progress_without_rich_is_one_line_for_each_stage(monkeypatch):
    monkeypatch.setattr(terminal, "_rich", lambda: False)
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with terminal.stages() as begin:
        for label in ("one", "two"):
            tick = begin(label, 2)
            tick()
            tick()
    assert screen.getvalue().replace("\r", "|") == "|one 0/2|one 1/2|one 2/2\n|two 0/2|two 1/2|two 2/2\n"


def test_progress_in_a_file_is_a_line_for_each_stage(monkeypatch):
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    with terminal.stages() as begin:
        begin("one", 2)()
    assert list(terminal.track("ab", "letters")) == ["a", "b"]
    assert file.getvalue() == "one\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["bench", "--network", "vgg"], "invalid choice: 'vgg'"),
        (["bench", "--threads", "0"], "it is '0'; it needs a number from 1 to 256"),
        (["bench", "--batch", "two"], "it is 'two'; it needs a number from 1 to 256"),
        (["bench", "--algorithm", "magic"], "invalid choice: 'magic'"),
        (["demo", "--seed", "x"], "--seed"),
        (["profile"], "MODEL"),
        (["profile", "lenet5", "--size", "0"], "it is '0'; it needs a number from 1 to 8192"),
        (["profile", "lenet5", "--layout", "NCWH"], "invalid choice: 'NCWH'"),
        (["classify", "--model", "lenet5", "--weights", "x.npz"], "IMAGE"),
        (["classify", "cat.png", "--model", "net.onnx", "--mean", "0,x"], "it is '0,x'; it needs one number, or three"),
        (["train", "--model", "lenet5"], "--data"),
        (
            ["train", "--data", "photos", "--model", "lenet5", "--epochs", "0"],
            "it is '0'; it needs a whole number from 1",
        ),
    ],
)
def test_wrong_arguments_are_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reader_who_leaves_is_no_error_to_shout_about():
    process = subprocess.Popen(
        [sys.executable, "-m", "fastconv", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert errors == ""


# --------------------------------------------------------------------------------------------- info


def test_info_is_for_people(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("fastconv")
    assert all(word in text for word in (fc.__version__, fc.isa(), "compiler", "float32", "float64", "memory"))


def test_info_as_json(capsys):
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert fc.config().items() <= info.items()
    threads = {"1", str(fc.get_num_threads())}
    assert set(info["fma_peak_gflops"]) == {"float32", "float64"}
    for figures in (*info["fma_peak_gflops"].values(), info["memory_bandwidth_gb_per_second"]):
        assert set(figures) == threads
        assert all(figure > 0 for figure in figures.values())


@pytest.mark.parametrize(("figures", "quiet"), [([100.0], True), ([100.0, 5.0], False)])
def test_info_warns_where_bench_does(figures, quiet, monkeypatch, capsys):
    endless = itertools.cycle(figures)
    monkeypatch.setattr(peak, "fma_peak", lambda dtype, num_threads: next(endless))
    monkeypatch.setattr(peak.Memory, "bandwidth", lambda self: 20.0)
    assert main(["info"]) == 0
    assert ("NOT A QUIET MACHINE" in capsys.readouterr().out) == (not quiet)
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quiet"] == quiet


def test_info_needs_numpy_alone():
    code = (
        "import sys\n"
        "absent = ('rich', 'matplotlib', 'sklearn', 'PIL', 'safetensors')\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from fastconv.cli import main\n"
        "sys.exit(main(['info']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "GFLOP/s" in result.stdout


# --------------------------------------------------------------------------------------------- demo


@pytest.fixture
def demo(monkeypatch):
    """A demo that does what a test wants."""
    module = types.ModuleType("fastconv.demo")
    monkeypatch.setitem(sys.modules, "fastconv.demo", module)
    monkeypatch.setattr(fc, "demo", module, raising=False)
    return module


def test_demo_is_given_its_options(demo):
    seen = []
    demo.main = lambda *given: seen.append(given) or 0
    assert main(["demo"]) == 0
    assert main(["demo", "--output", "there", "--seed", "7", "--json"]) == 0
    assert seen == [("fastconv-demo", 0, False), ("there", 7, True)]


def test_the_status_of_a_command_is_handed_on(demo):
    demo.main = lambda *given: 3
    assert main(["demo"]) == 3


def raising(error):
    def fail(*given):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("n is 0"), 1, "fastconv: n is 0\n"),
        (FileNotFoundError(2, "No such file", "x.json"), 1, "fastconv: [Errno 2] No such file: 'x.json'\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            ModuleNotFoundError("No module named 'sklearn.datasets'", name="sklearn.datasets"),
            1,
            "fastconv: demo needs sklearn, which is not installed: python -m pip install scikit-learn\n",
        ),
    ],
)
def test_failures_are_one_line(demo, capsys, error, status, message):
    demo.main = raising(error)
    assert main(["demo"]) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [ModuleNotFoundError("broken", name="fastconv.nowhere"), ZeroDivisionError()])
def test_our_own_mistakes_are_not_hidden(demo, error):
    demo.main = raising(error)
    with pytest.raises(type(error)):
        main(["demo"])


# -------------------------------------------------------------------------------------------- bench


def test_bench_writes_what_it_is_asked_for(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = [tmp_path / name for name in ("run.json", "run.md", "run.png")]
    options = [str(word) for pair in zip(("--json", "--markdown", "--plot"), files, strict=True) for word in pair]
    assert main([*ALONE, *options]) == 0
    shown = capsys.readouterr()
    assert "LeNet-5: convolutions, batch 1, float32" in shown.out
    assert "LeNet-5: pooling, batch 1, float32" in shown.out
    assert shown.err == "".join(f"wrote {file}\n" for file in files)
    run, rows = report.load(files[0])
    assert run["command"] == " ".join(["fastconv", *ALONE, *options])
    assert [(row.layer, row.layout) for row in rows] == [
        (layer, layout) for layer in ("c1", "c3", "s2", "s4") for layout in ("NCHW", "NHWC")
    ]
    assert all(row.threads == 1 and row.max_error < 1e-6 for row in rows)
    assert files[1].read_text().startswith(report.marks()[0])
    assert files[2].stat().st_size > 1000


def test_bench_json_to_standard_output_is_json_alone(capsys):
    assert main([*ALONE, "--layers", "c*", "--layout", "NHWC", "--algorithm", "all", "--batch", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["layout"] for row in shown["rows"]} == {"NHWC"}
    assert {row["batch"] for row in shown["rows"]} == {2}
    first = [row["variant"] for row in shown["rows"] if row["layer"] == "c1"]
    assert first[0] == "auto"
    assert {"direct", "im2col"} <= set(first)
    assert "reference" not in first


def test_bench_compares_with_numpy_on_equal_threads():
    """Where NumPy's BLAS has another number of threads, the command runs itself again."""
    result = run(*QUICK, "--layers", "c3", "--json", OPENBLAS_NUM_THREADS="3", OPENBLAS_CORETYPE="Prescott")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [row["contender"] for row in rows] == ["NumPy loops", "NumPy im2col", "fastconv", "fastconv"]


def test_the_environment_that_is_fair_to_numpy(monkeypatch):
    for name in (*environment.BLAS_THREADS, *environment.HANDICAPS, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert environment.fair_environment(3, peers=False) is None
    other = environment.fair_environment(2, peers=False)
    assert other["OPENBLAS_NUM_THREADS"] == "2"
    assert other["PATH"] == os.environ["PATH"]
    for name, value in other.items():
        monkeypatch.setenv(name, value)
    assert environment.fair_environment(2, peers=False) is None  # so that it runs again once only
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1024")
    assert "OPENBLAS_L2_SIZE" not in environment.fair_environment(2, peers=False)


def test_bench_against_peers():
    """One of which nobody has."""
    hidden = "import sys; sys.modules['ncnn'] = None; from fastconv.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [*ALONE, "--layers", "c3", "--peers", "ncnn", "--batch", "1", "2", "--cold", "--json", "-"]
    result = subprocess.run([sys.executable, "-c", hidden, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert list(document["missing"]) == ["ncnn"]
    rows = document["rows"]
    assert [row["batch"] for row in rows] == [1] * 4 + [2] * 4
    assert [row["contender"] for row in rows[:4]] == ["fastconv"] * 2 + ["fastconv call"] * 2
    assert all(row["cold_milliseconds"] > 0 and row["max_error"] < 1e-6 for row in rows)


def test_bench_sets_two_runs_side_by_side(tmp_path, capsys):
    file = str(tmp_path / "run.json")
    assert main([*ALONE, "--layers", "s4", "--json", file]) == 0
    capsys.readouterr()
    assert main(["bench", "--compare", file, file]) == 0
    text = capsys.readouterr().out
    assert "B against A" in text
    assert "geometric mean" in text
    assert main(["bench", "--compare", file, file, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("### B against A")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ALONE, "--layers", "nothing", "no*"], "no layer is called nothing or no*"),
        ([*ALONE, "--html", "x.html"], "--html shows fastconv against its peers; it needs --peers"),
        ([*ALONE, "--json", "--markdown"], "--json and --markdown cannot both go to standard output"),
        (["bench", "--compare", "/nowhere/a", "/nowhere/b"], "/nowhere/a"),
    ],
)
def test_bench_says_what_is_wrong(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastconv: ")
    assert message in error
    assert error.count("\n") == 1


def test_bench_asks_for_matplotlib_before_it_measures(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "fastconv.bench.plot", raising=False)
    monkeypatch.delattr("fastconv.bench.plot", raising=False)
    assert main([*ALONE, "--plot", "x.png"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("fastconv: bench needs matplotlib, which is not installed: python -m pip install")
