# SPDX-License-Identifier: BSD-3-Clause
"""Unchanged code on fastconv.scipy: the switch, and functions put into SciPy's place by hand."""

import asyncio
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

pytest.importorskip("scipy")
import scipy.ndimage
import scipy.signal

import fastconv.scipy as fs
from fastconv.scipy import _accelerate

OURS = [(module, name) for module in (fs.ndimage, fs.signal) for name in module.__all__]
PAIRS = {fs.ndimage: scipy.ndimage, fs.signal: scipy.signal}
ORIGINALS = {(module, name): getattr(PAIRS[module], name) for module, name in OURS}
IMAGE = np.random.default_rng(0).random((40, 50))
KERNEL = np.random.default_rng(1).random((5, 7))


@pytest.fixture(autouse=True)
def untouched():
    """Whatever a test does, SciPy is what it was when it ends."""
    fs.report(reset=True)
    yield
    assert _accelerate._names.users == 0
    assert all(getattr(PAIRS[module], name) is original for (module, name), original in ORIGINALS.items())


def served():
    return fs.report()["served"]


def arguments(module, name):
    """A call that is served, and one that is left to SciPy."""
    lines, planes = ([1.0, 2.0, 1.0],), (KERNEL,)
    rest = {"convolve1d": lines, "correlate1d": lines, "gaussian_filter": (1.5,), "uniform_filter": (3,)}
    rest["sepfir2d"] = lines * 2
    mine = rest.get(name, planes)
    if name == "sepfir2d":
        return (IMAGE, *mine), (IMAGE.astype(complex), *mine)
    left = IMAGE > 0.5 if module is fs.ndimage else np.full(IMAGE.shape, 2**60)
    return (IMAGE, *mine), (left, np.arange(6).reshape(2, 3)) if mine is planes else (left, *mine)


@pytest.mark.parametrize(("module", "name"), OURS)
def test_functions_in_scipys_place_find_scipys(monkeypatch, module, name):
    """What is left to SciPy goes to the function that stood there, not to what stands there now."""
    mine, left = arguments(module, name)
    expected = [ORIGINALS[module, name](*a) for a in (mine, left)]
    monkeypatch.setattr(PAIRS[module], name, getattr(module, name))
    for a, e in zip((mine, left), expected, strict=True):
        np.testing.assert_allclose(getattr(PAIRS[module], name)(*a), e, rtol=1e-12)
    monkeypatch.undo()


def test_wrappers_that_were_there_first():
    """They are in SciPy's place before fastconv.scipy is imported, and lead to it."""
    code = """
import functools, numpy as np, scipy.ndimage, scipy.signal
for module, name in ((scipy.ndimage, "convolve"), (scipy.signal, "convolve2d")):
    def wrapper(*args, _part=module.__name__.partition(".")[2], _name=name):
        import fastconv.scipy
        return getattr(getattr(fastconv.scipy, _part), _name)(*args)
    setattr(module, name, functools.wraps(getattr(module, name))(wrapper))
x = np.full((9, 9), 2**60)
assert scipy.ndimage.convolve(x > 0, x[:3, :3] > 0).dtype == bool
assert scipy.signal.convolve2d(x, x[:3, :3]).shape == (11, 11)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(("module", "name"), OURS)
def test_every_function_is_redirected(module, name):
    mine, left = arguments(module, name)
    key = f"{module.__name__.rpartition('.')[2]}.{name}"
    expected = [ORIGINALS[module, name](*a) for a in (mine, left)]
    with fs.accelerate():
        results = [getattr(PAIRS[module], name)(*a) for a in (mine, left)]
        assert getattr(PAIRS[module], name) is not ORIGINALS[module, name]
    report = fs.report()
    assert report["served"] == {key: 1}
    assert [*report["left"]] == [key]
    assert [*report["left"][key].values()] == [1]
    for r, e in zip(results, expected, strict=True):
        np.testing.assert_allclose(r, e, rtol=1e-12)
    getattr(PAIRS[module], name)(*mine)
    assert served() == {key: 1}


@pytest.mark.parametrize(
    ("function", "through"),
    [
        (lambda: scipy.ndimage.gaussian_laplace(IMAGE, 2), "ndimage.gaussian_filter"),
        (lambda: scipy.ndimage.gaussian_filter1d(IMAGE, 2), "ndimage.correlate1d"),
        (lambda: scipy.ndimage.gaussian_gradient_magnitude(IMAGE, 2), "ndimage.gaussian_filter"),
        (lambda: scipy.ndimage.sobel(IMAGE), "ndimage.correlate1d"),
        (lambda: scipy.ndimage.laplace(IMAGE), "ndimage.correlate1d"),
        (lambda: scipy.signal.savgol_filter(IMAGE, 5, 2), "ndimage.convolve1d"),
        (lambda: scipy.signal.wiener(IMAGE), "signal.correlate"),
    ],
)
def test_scipys_own_code_is_redirected(function, through):
    expected = function()
    assert not served()
    with fs.accelerate():
        result = function()
    assert served()[through] > 0
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


def test_names_that_modules_imported(monkeypatch):
    module, late = types.ModuleType("user_of_scipy"), types.ModuleType("late_user_of_scipy")
    source = "from scipy.ndimage import convolve as blur\ndef run(*args): return blur(*args)"
    exec(source, vars(module))
    monkeypatch.setitem(sys.modules, "user_of_scipy", module)
    with fs.accelerate():
        module.run(IMAGE, KERNEL)
        assert served() == {"ndimage.convolve": 1}
        exec(source, vars(late))
        monkeypatch.setitem(sys.modules, "late_user_of_scipy", late)
    assert module.blur is scipy.ndimage.convolve
    for m in (module, late):  # one imported the name inside: it leads to SciPy when the switch is off
        m.run(IMAGE, KERNEL)
    assert served() == {"ndimage.convolve": 1}
    vars(module)["again"] = scipy.ndimage.convolve  # a name that was not there before
    with fs.accelerate():
        late.run(IMAGE, KERNEL)
        module.again(IMAGE, KERNEL)
    assert served() == {"ndimage.convolve": 3}
    assert module.again is scipy.ndimage.convolve


def test_what_others_put_there_meanwhile_stays():
    with fs.accelerate():
        scipy.ndimage.convolve = len
    assert scipy.ndimage.convolve is len
    scipy.ndimage.convolve = ORIGINALS[fs.ndimage, "convolve"]


def test_it_nests_and_ends_with_an_exception():
    switch, call = fs.accelerate(), lambda: scipy.ndimage.convolve(IMAGE, KERNEL)
    with switch:
        with switch, fs.accelerate():
            call()
        call()
    assert served() == {"ndimage.convolve": 2}
    with pytest.raises(ZeroDivisionError), switch:
        raise ZeroDivisionError
    call()
    assert served() == {"ndimage.convolve": 2}


def test_a_decorator():
    @fs.accelerate()
    def blurred(x, depth=2):
        """Its own."""
        return scipy.ndimage.gaussian_filter(blurred(x, depth - 1) if depth else x, 1)

    assert blurred.__doc__ == "Its own."
    blurred(IMAGE)
    assert served() == {"ndimage.gaussian_filter": 3}


def test_errors_are_scipys():
    with fs.accelerate():
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'weights'"):
            scipy.ndimage.convolve(IMAGE)
        with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
            scipy.ndimage.convolve(IMAGE, KERNEL, speed=2)
        with pytest.raises(RuntimeError, match="boundary mode not supported"):
            scipy.ndimage.convolve(IMAGE, KERNEL, mode="blue")


def test_what_is_left_is_all_of_it_scipys():
    """gaussian_filter of integers goes through correlate1d, once per axis."""
    x = np.arange(40, dtype=np.uint8).reshape(5, 8)
    expected = scipy.ndimage.gaussian_filter(x, 1)
    with fs.accelerate():
        np.testing.assert_array_equal(scipy.ndimage.gaussian_filter(x, 1), expected)
    assert served() == {}
    assert [*fs.report()["left"]] == ["ndimage.gaussian_filter"]


def test_a_switch_is_its_threads_own():
    """Two overlap, the first one ends first; a third thread has SciPy's functions all the while."""
    steps, counts = [threading.Event() for _ in range(3)], []

    def call():
        scipy.ndimage.convolve(IMAGE, KERNEL)
        counts.append(served().get("ndimage.convolve", 0))

    def first():
        with fs.accelerate():
            steps[0].set()
            steps[1].wait(30)
            call()
        steps[2].set()

    def second():
        steps[0].wait(30)
        with fs.accelerate():
            steps[1].set()
            steps[2].wait(30)
            call()

    threads = [threading.Thread(target=t) for t in (first, second)]
    for t in threads:
        t.start()
    steps[1].wait(30)
    scipy.ndimage.correlate(IMAGE, KERNEL)
    for t in threads:
        t.join(30)
    assert counts == [1, 2]
    assert served() == {"ndimage.convolve": 2}


def test_a_switch_is_its_tasks_own():
    async def task(accelerated):
        with fs.accelerate() if accelerated else _accelerate._at_depth(0):
            await asyncio.sleep(0)
            scipy.ndimage.convolve(IMAGE, KERNEL)
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(task(True), task(False), task(True))

    asyncio.run(both())
    assert served() == {"ndimage.convolve": 2}


def test_threads_enter_and_leave_at_any_time():
    def often():
        for _ in range(50):
            with fs.accelerate():
                scipy.ndimage.convolve(IMAGE[:5, :5], KERNEL[:3, :3])

    threads = [threading.Thread(target=often) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert served() == {"ndimage.convolve": 200}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_have_the_switch_and_no_lock():
    """While another thread holds the lock most of the time."""
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            with fs.accelerate():
                pass

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with fs.accelerate():
            for _ in range(10):
                child = os.fork()
                if child == 0:
                    os._exit(0 if fs.report() and _accelerate._depth.get() == 1 else 1)
                assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join(30)


def test_reports_are_bounded():
    for n in range(2 * _accelerate._REASONS):
        with pytest.raises(RuntimeError):
            fs.ndimage.convolve(IMAGE, KERNEL, mode=f"no mode {n}")
    reasons = fs.report(reset=True)["left"]["ndimage.convolve"]
    assert len(reasons) <= _accelerate._REASONS + 1
    assert sum(reasons.values()) == 2 * _accelerate._REASONS
    assert fs.report() == {"served": {}, "left": {}}
