# SPDX-License-Identifier: BSD-3-Clause
"""Memory of large results, which goes to later ones."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core


@pytest.fixture
def nothing_kept():
    gc.collect()
    _core.forget_memory()
    yield
    _core.forget_memory()


LARGE = (4, 64, 64, 64)  # 4 MiB of float32


def test_a_large_result_has_the_memory_of_one_that_is_gone(nothing_kept):
    x = np.ones(LARGE, np.float32)
    y = fc.relu(x)
    place, held = y.ctypes.data, y[1:, :, ::2]
    assert y.flags.writeable
    assert place % 64 == 0
    del y
    z = fc.relu(2 * x)  # the view has its own
    assert z.ctypes.data != place
    assert (held == 1).all()
    del held
    assert _core.results() == x.nbytes
    assert fc.relu(x).ctypes.data == place
    _core.forget_memory()
    assert _core.results() == 0
    assert (z == 2).all()


def test_memory_is_cut_to_what_is_asked_for_and_joined_again(nothing_kept):
    x = np.ones(LARGE, np.float32)
    y = fc.relu(x)
    place = y.ctypes.data
    del y
    parts = [fc.relu(i * x[:1]) for i in range(4)]
    assert _core.results() == 0  # all of it is in use
    assert sorted(y.ctypes.data for y in parts) == [place + i * x[:1].nbytes for i in range(4)]
    for i, y in enumerate(parts):
        assert (y == i).all()
    del parts[2], parts[0], y  # one apart from another, and then what is between them and beside
    assert _core.results() == x[:2].nbytes
    parts.clear()
    assert fc.relu(x).ctypes.data == place


def test_memory_that_waits_is_at_most_half_of_what_was_in_use(nothing_kept):
    arrays = [np.ones((n, 1 << 16), np.float32) for n in (8, 10, 13, 17, 22, 28)]
    most = max(a.nbytes for a in arrays)
    for _ in range(3):
        for a in arrays:
            y = fc.relu(a)
            assert y.nbytes + _core.results() <= 1.5 * most
            del y


def test_memory_that_nobody_got_does_not_count(nothing_kept):
    with pytest.raises(MemoryError):
        fc.conv1d(np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32), padding=1 << 45)
    arrays = [fc.relu(np.ones((n, 1 << 16), np.float32)) for n in (8, 10, 13, 17)]
    used = sum(y.nbytes for y in arrays)
    arrays.clear()
    y = fc.relu(np.ones((40, 1 << 16), np.float32))  # larger than all that waits, some of which goes for it
    assert _core.results() + y.nbytes <= 1.5 * used + (1 << 16)


def test_smaller_results_have_what_would_go_for_them(nothing_kept):
    """A chain of layers, each of another size, goes on in the memory that it has: the system fills no pages for it."""
    resource = pytest.importorskip("resource")
    arrays = [np.ones((n, 1 << 16), np.float32) for n in (8, 28, 10, 22, 13, 17)]

    def rounds(count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            for a in arrays:
                fc.relu(a)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    rounds(3)
    assert rounds(10) * resource.getpagesize() < sum(a.nbytes for a in arrays)


def test_large_scratch_has_the_memory_of_results(nothing_kept):
    # 9 MiB, and as much packed, as long as there are more columns than are worth packing in passing.
    x, w = np.ones((1, 256, 20, 20), np.float32), np.ones((1024, 256, 3, 3), np.float32)
    fc.conv2d(x, w, algorithm="im2col")
    kept = _core.results()
    assert kept >= w.nbytes
    y = fc.relu(w)
    assert _core.results() == kept - w.nbytes
    assert (y == 1).all()


def test_many_threads_share_the_memory_of_results(nothing_kept):
    x = np.random.default_rng(0).standard_normal((3, 1 << 16), np.float32)

    def work(number):
        for i in range(50):
            y = fc.relu(x if i % 2 else x[: 1 + number % 3])
            z = fc.tanh(y)
            np.testing.assert_array_equal(y, np.maximum(x, 0)[: len(y)])
            assert (np.abs(z) <= 1).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
