# SPDX-License-Identifier: BSD-3-Clause
"""Instruction set and threads: from the environment, from the machine, by request."""

import os
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

import fastconv as fc
from fastconv import _config, _core

ISAS = _core.isas()
USABLE = [name for name, _, usable in ISAS if usable]
needs_openmp = pytest.mark.skipif(not _core.openmp(), reason="built without OpenMP")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


def run(script, check=True, **environment):
    """A script in a process of its own, with these variables of ours and no others."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FASTCONV_", "OMP_NUM"))}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result.stdout.strip() if check else result


# --- instruction sets -----------------------------------------------------------------------------


def test_the_scalar_kernels_are_always_there():
    assert USABLE[0] == "scalar"
    assert fc.isa() in USABLE
    assert all(built for name, built, usable in ISAS if usable)


@pytest.mark.parametrize("name", USABLE)
def test_a_cap_is_kept(name):
    script = """
    import numpy as np, fastconv as fc
    x, w = np.ones((1, 3, 9, 9), np.float32), np.ones((4, 3, 3, 3), np.float32)
    plan = fc.ConvPlan(x.shape, w)
    print(fc.isa(), plan.isa, plan(x).sum(), fc.config()["isa"])
    """
    assert run(script, FASTCONV_ISA=name).split() == [name, name, str(27.0 * 4 * 49), name]


def test_without_a_cap_the_best_is_used():
    best = ISAS[_core.best_isa()][0]
    assert best == USABLE[-1]
    assert run("import fastconv; print(fastconv.isa())") == best
    assert run("import fastconv; print(fastconv.isa())", FASTCONV_ISA="") == best


@pytest.mark.parametrize("name", ["sse2", "AVX2", "avx2 ", "0", *(n for n, _, usable in ISAS if not usable)])
def test_an_unknown_or_unusable_cap_lists_what_there_is(name):
    result = run("import fastconv", check=False, FASTCONV_ISA=name)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert repr(name) in last
    assert all(usable in last for usable in USABLE)


def test_caps_of_other_families(monkeypatch):
    """avx512 admits avx2 and scalar; neon admits scalar; nothing crosses over."""
    sets = [("scalar", True, True), ("avx2", True, True), ("avx512", True, False), ("neon", False, False)]
    monkeypatch.setattr(_config._core, "isas", lambda: sets)
    assert _config._isa_number("avx2") == 1
    assert _config._isa_number("scalar") == 0
    for name in ("avx512", "neon"):
        with pytest.raises(ImportError, match=rf"{name}.*scalar, avx2$"):
            _config._isa_number(name)


# --- the number of threads ------------------------------------------------------------------------

COUNT = "import fastconv; print(fastconv.get_num_threads())"


@needs_openmp
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FASTCONV_NUM_THREADS": "3"}, 3),
        ({"FASTCONV_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": " 4 "}, 4),
        ({"FASTCONV_NUM_THREADS": "100000"}, 256),
        ({"FASTCONV_NUM_THREADS": "0003"}, 3),
        ({"OMP_NUM_THREADS": "9" * 5000}, 256),
        ({"FASTCONV_NUM_THREADS": "", "OMP_NUM_THREADS": "6"}, 6),
    ],
)
def test_threads_from_the_environment(environment, expected):
    assert run(COUNT, **environment) == str(expected)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²", "٣", "1_0"])
def test_bad_numbers_in_our_variable_are_errors(value):
    result = run(COUNT, check=False, FASTCONV_NUM_THREADS=value)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith(f"ImportError: FASTCONV_NUM_THREADS is {value!r}")


@needs_openmp
def test_bad_numbers_in_openmps_variable_are_not_ours_to_judge():
    for value in ("many", "²", "0", "-2", "1_0"):
        assert run(COUNT, OMP_NUM_THREADS=value) == str(_config.available_cpus())


@pytest.mark.parametrize("optimised", ["-O", "-OO"])
def test_without_assertions_and_docstrings(optimised):
    """Every module that needs no extra is imported, and something is computed."""
    script = """
    import importlib, pkgutil, sys, numpy as np, fastconv as fc
    sys.modules |= dict.fromkeys(("PIL", "dask", "matplotlib", "rich", "scipy", "sklearn", "torch"))
    for module in pkgutil.walk_packages(fc.__path__, "fastconv.", onerror=lambda name: None):
        if module.name != "fastconv.__main__":
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                assert "halted; None in sys.modules" in str(error) or "pip install" in str(error), error
    net = fc.nn.Sequential(fc.nn.Conv2d(3, 4, 3), fc.nn.BatchNorm2d(4), fc.nn.Flatten(), fc.nn.Linear(36, 2))
    net(np.ones((2, 3, 5, 5), np.float32))
    net.backward(np.ones((2, 2), np.float32))
    fc.optim.SGD(net.parameters(), lr=0.1).step()
    print(net.eval()(np.ones((2, 3, 5, 5), np.float32)).shape)
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FASTCONV_", "OMP_NUM"))}
    command = [sys.executable, optimised, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(2, 2)"


@on_linux
def test_affinity_counts():
    script = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {COUNT}"
    assert run(script) == "1"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes the files of a machine, of eight processors, out of a dictionary."""
    monkeypatch.setattr(_config, "Path", lambda name: tmp_path / name.lstrip("/"))
    monkeypatch.setattr(_config.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def make(files):
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        # version 2: one hierarchy, a limit at any level
        ({"/proc/self/cgroup": "0::/\n"}, 8),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 8),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "/sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            },
            2,
        ),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/b/cpu.max": "200000 100000\n",
                "/sys/fs/cgroup/a/cpu.max": "600000 100000\n",
            },
            2,
        ),
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "5000 100000\n"}, 1),
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "5000000 100000\n"}, 8),
        # inside a container the path is the host's, and only the root is there
        ({"/proc/self/cgroup": "0::/docker/abc\n", "/sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        # version 1: the hierarchy of the cpu controller among others
        (
            {
                "/proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/x\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "250000\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/cpu/m/cpu.cfs_quota_us": "100000\n",
                "/sys/fs/cgroup/cpu/m/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/x\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        # what cannot be read is no limit
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "\n"}, 8),
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "lots of it\n"}, 8),
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "100000 0\n"}, 8),
        ({"/proc/self/cgroup": "nonsense\n"}, 8),
    ],
)
def test_quotas_of_control_groups(machine, files, expected):
    machine(files)
    assert _config.available_cpus() == expected


def test_without_openmp_there_is_one_thread(monkeypatch):
    monkeypatch.setattr(_config._core, "openmp", lambda: 0)
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "3")
    assert _config._asked_threads() == _config._most_threads() == 1
    before = fc.get_num_threads()
    try:
        with pytest.warns(RuntimeWarning, match="without OpenMP: it computes in one thread, not in 2") as caught:
            fc.set_num_threads(2)
        assert caught[0].filename == __file__
        assert fc.get_num_threads() == fc.config()["threads"] == 1
        with pytest.warns(RuntimeWarning, match="not in 3"), fc.threads(3):
            assert fc.get_num_threads() == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fc.set_num_threads(1)
    finally:
        monkeypatch.undo()
        fc.set_num_threads(before)


@needs_openmp
def test_threads_for_a_block():
    before = fc.get_num_threads()
    with fc.threads(3):
        assert fc.get_num_threads() == 3
        with fc.threads(1):
            assert fc.get_num_threads() == 1
        assert fc.get_num_threads() == 3
    assert fc.get_num_threads() == before
    with pytest.raises(KeyError), fc.threads(4):
        raise KeyError
    assert fc.get_num_threads() == before


@needs_openmp
def test_threads_for_a_block_are_nobody_elses():
    before, seen = fc.get_num_threads(), []
    with fc.threads(before + 3):
        other = threading.Thread(target=lambda: seen.append(fc.get_num_threads()))
        other.start()
        other.join()
    assert seen == [before]


@needs_openmp
def test_threads_for_the_process():
    before, seen = fc.get_num_threads(), []
    try:
        fc.set_num_threads(before + 1)
        assert fc.get_num_threads() == before + 1
        other = threading.Thread(target=lambda: seen.append(fc.get_num_threads()))
        other.start()
        other.join()
        assert seen == [before + 1]
        with fc.threads(1):
            assert fc.get_num_threads() == 1
    finally:
        fc.set_num_threads(before)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        *((number, ValueError) for number in (0, -1, 257)),
        *((number, TypeError) for number in (1.0, "2", True, None, [1])),
    ],
)
def test_numbers_of_threads_that_are_none(number, error):
    before = fc.get_num_threads()
    for call in (fc.set_num_threads, lambda n: fc.threads(n).__enter__()):
        with pytest.raises(error) as caught:
            call(number)
        assert repr(number) in str(caught.value)
        assert str(caught.value).startswith("n is ")
    assert fc.get_num_threads() == before


# --- what it says ---------------------------------------------------------------------------------


def test_configuration(capsys):
    config = fc.config()
    assert config["fastconv"] == fc.__version__
    assert config["isa"] == fc.isa()
    assert config["isas_usable"] == USABLE
    assert set(USABLE) <= set(config["isas_built"])
    assert config["threads"] == fc.get_num_threads()
    assert config["cpus_available"] == _config.available_cpus() >= 1
    fc.show_config()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(config)
    assert fc.__version__ in lines[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_peak_is_measured(dtype):
    """Faster than any machine of the last twenty years was not, slower than any there will be soon."""
    assert 0.1 < fc.fma_peak(dtype, 1, seconds=0.005) < 1e5


def test_the_peak_of_other_dtypes():
    with pytest.raises(ValueError, match=r"dtype is 'float16'"):
        fc.fma_peak("float16")
    with pytest.raises(ValueError, match=r"n is 0"):
        fc.fma_peak(num_threads=0)
