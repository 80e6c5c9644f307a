# SPDX-License-Identifier: BSD-3-Clause
"""Calls that are made again: they skip the checks of the first, and nobody may notice."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core
from fastconv.ops import _convolution, _windows
from support import poison, same_values

rng = np.random.default_rng(5)
X = rng.standard_normal((2, 4, 9, 8), dtype=np.float32)
W = rng.standard_normal((6, 4, 3, 3), dtype=np.float32)
B = rng.standard_normal(6, dtype=np.float32)
R = rng.standard_normal((2, 6, 7, 6), dtype=np.float32)
ROOM = 128


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """An empty memory of calls for each test."""
    fresh = _core.Calls(ROOM)
    monkeypatch.setattr(_convolution, "_CALLS", fresh)
    return fresh


SPELLINGS = {
    "plain": ((X, W), {}),
    "by place": ((X, W, B, 1, 0, 1, 1), {}),
    "pairs": ((X, W, B), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}),
    "names": ((X, W), {"padding": "same", "activation": "relu", "algorithm": "direct", "precision": "strict"}),
    "residual": ((X, W, B), {"residual": R, "activation": "relu6"}),
    "channels last": ((X.transpose(0, 2, 3, 1), W), {"layout": "NHWC"}),
    "one image": ((X[0], W, B), {"residual": R[0]}),
    "no images": ((X[:0], W, B), {}),
    "strides": ((X[:, ::-1, ::2], W[::-1], B), {}),
    "float64": ((X.astype(float), W.astype(float)), {}),
    "float16": ((X.astype(np.float16), W.astype(np.float16), B.astype(np.float16)), {}),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_again_is_the_same(name, calls):
    arguments, options = SPELLINGS[name]
    first = fc.conv2d(*arguments, **options)
    assert len(calls) == 1
    again = fc.conv2d(*arguments, **options)
    assert len(calls) == 1
    assert (again.dtype, again.shape) == (first.dtype, first.shape)
    assert again.flags.c_contiguous
    assert not np.shares_memory(again, first)
    np.testing.assert_array_equal(again, first)
    out = poison(first.shape, first.dtype)
    for _ in range(2):
        out[...] = np.nan
        assert fc.conv2d(*arguments, **options, out=out) is out
        np.testing.assert_array_equal(out, first)
    assert len(calls) == 2


GRADIENTS = {
    "weight": lambda x, **o: fc.grad.conv2d_weight(x, W.shape, R, **o),
    "input": lambda r, **o: fc.grad.conv2d_input(X.shape, W, r, **o),
    "weight of a transposed": lambda x, **o: fc.grad.conv_transpose2d_weight(R, W.shape, x, **o),
    "input of a transposed": lambda x, **o: fc.grad.conv_transpose2d_input(R.shape, W, x, **o),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_known_again(name, calls):
    gradient, read = GRADIENTS[name], R if name == "input" else X
    first = gradient(read)
    assert len(calls) == 1
    np.testing.assert_array_equal(gradient(read), first)
    assert len(calls) == 1
    # Other numbers are the same call; another algorithm is another.
    doubled = gradient(2 * read)
    assert len(calls) == 1
    np.testing.assert_allclose(doubled, 2 * first, rtol=0, atol=1e-4)
    np.testing.assert_allclose(gradient(read, algorithm="reference"), first, rtol=0, atol=1e-4)
    assert len(calls) == 2
    with pytest.raises(TypeError, match="stride"):  # True is equal to the stride of the calls before
        gradient(read, stride=True)
    with pytest.raises(ValueError, match="shape"):
        gradient(read[:, :, 1:])
    if name.startswith("input"):
        with pytest.raises(TypeError, match="batch_invariant"):
            gradient(read, batch_invariant=0)


POOL_GRADIENTS = {
    "max": lambda g, **o: fc.grad.max_pool2d(g, np.arange(24).reshape(1, 2, 3, 4), (1, 2, 6, 8), **o),
    "avg": lambda g, **o: fc.grad.avg_pool2d(g, (1, 2, 6, 8), 2, **o),
    "adaptive avg": lambda g, **o: fc.grad.adaptive_avg_pool2d(g, (1, 2, 6, 8), **o),
}


@pytest.mark.parametrize("name", POOL_GRADIENTS)
def test_gradients_of_pooling_are_known_again(name, monkeypatch):
    calls = _core.Calls(ROOM, indices=True)
    monkeypatch.setattr(_windows, "_CALLS", calls)
    gradient, g = POOL_GRADIENTS[name], np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    first = gradient(g)
    assert first.sum() == g.sum()
    assert len(calls) == 1
    again = gradient(2 * g)
    assert len(calls) == 1
    assert not np.shares_memory(again, first)
    np.testing.assert_array_equal(again, 2 * first)
    np.testing.assert_array_equal(gradient(g.astype(float)), first)
    np.testing.assert_array_equal(gradient(np.asfortranarray(g)), first)
    assert len(calls) == 3
    with pytest.raises(ValueError, match="shape"):
        gradient(g[:, :1])
    with pytest.raises(TypeError, match="grad_output has dtype int64"):
        gradient(g.astype(int))
    assert gradient(g.astype(np.float16)).dtype == np.float16


def test_gradients_of_one_image_and_of_float16_are_not_mistaken(calls):
    one = fc.grad.conv2d_weight(X[0], W.shape, R[0])
    np.testing.assert_array_equal(fc.grad.conv2d_weight(X[0], W.shape, R[0]), one)
    half = [fc.grad.conv2d_weight(X.astype("e"), W.shape, R.astype("e")) for _ in range(2)]
    assert half[0].dtype == half[1].dtype == np.float16
    np.testing.assert_array_equal(*half)
    assert fc.grad.conv2d_weight(X, W.shape, R).dtype == np.float32


def test_only_layouts_and_parameters_are_remembered(calls):
    """Not what is in the arrays, nor where they lie."""
    fc.conv2d(X, W, B)
    for x, w, b in ((X + 1, W, B), (X, 2 * W, B), (X.copy(), W, B + 1)):
        expected = fc.conv2d(x, w, b, algorithm="reference")
        np.testing.assert_allclose(fc.conv2d(x, w, b), expected, rtol=0, atol=1e-5)
    assert len(calls) == 2


def test_whatever_differs_is_another_call(calls):
    variants = [
        {},
        {"bias": B},
        {"stride": 2},
        {"padding": 1},
        {"padding": (1, 0)},
        {"padding": ((1, 0), (0, 0))},
        {"dilation": 2},
        {"activation": "relu"},
        {"residual": R},
        {"residual": R, "bias": B},
        {"algorithm": "direct"},
        {"precision": "strict"},
        {"input": X[:1]},
        {"input": X[:, ::-1]},
        {"input": X.transpose(0, 1, 3, 2)},
        {"weight": W[:5]},
        {"weight": W[:, :, ::-1]},
        {"groups": 2, "weight": W[:, :2]},
        {"layout": "NHWC", "weight": rng.standard_normal((3, 8, 1, 1), dtype=np.float32)},
    ]
    alone = []
    for options in variants:
        alone.append(fc.conv2d(**{"input": X, "weight": W, **options}))
    assert len(calls) == len(variants)
    for options, expected in zip(variants, alone, strict=True):
        np.testing.assert_array_equal(fc.conv2d(**{"input": X, "weight": W, **options}), expected)
    assert len(calls) == len(variants)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": True},
        {"stride": 1.0},
        {"stride": np.True_},
        {"stride": (1, True)},
        {"stride": (1, 1.0)},
        {"padding": False},
        {"padding": 0.0},
        {"padding": ((0, False), (0, 0))},
        {"padding": ((0, 0), (0, 0.0))},
        {"dilation": True},
        {"groups": True},
        {"groups": 1.0},
    ],
)
def test_equal_is_not_the_same_number(options):
    """True == 1.0 == 1, but only 1 is an integer, however often that has been asked for."""
    for good in ({}, {"stride": (1, 1)}, {"padding": ((0, 0), (0, 0))}):
        for _ in range(2):
            fc.conv2d(X, W, B, **good)
    with pytest.raises(TypeError, match=next(iter(options))):
        fc.conv2d(X, W, B, **options)


def test_tuples_without_end():
    """Neither looked through nor hashed to their bottom."""
    deep = 1
    for _ in range(1_000_000):
        deep = (deep,)
    with pytest.raises((TypeError, RecursionError, ValueError)):
        fc.conv2d(X, W, B, stride=deep)


def test_odd_parameters_are_served_all_the_same(calls):
    expected = fc.conv2d(X, W, stride=(1, 2), padding=1)
    for stride, padding in (([1, 2], 1), (np.array([1, 2]), np.int64(1)), ((np.int8(1), 2), [1, 1])):
        for _ in range(2):
            np.testing.assert_array_equal(fc.conv2d(X, W, stride=stride, padding=padding), expected)
    assert len(calls) == 1


def test_arrays_that_need_preparation_are_not_remembered(calls):
    expected = fc.conv2d(X, W, B)
    for which in range(3):
        for name, value in same_values((X, W, B)[which]):
            arguments = [X, W, B]
            arguments[which] = value
            for _ in range(2):
                np.testing.assert_allclose(fc.conv2d(*arguments), expected, rtol=0, atol=1e-5, err_msg=name)
    known = len(calls)
    raw = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    raw[...] = X
    for x in (raw, memoryview(X), X.view(type("Sub", (np.ndarray,), {}))):
        for _ in range(2):
            np.testing.assert_array_equal(fc.conv2d(x, W, B), expected)
    assert len(calls) == known


def test_errors_stay_what_they_are():
    out = np.empty_like(R)
    plan = fc.ConvPlan(X.shape, W, B)
    for _ in range(2):
        fc.conv2d(X, W, B, out=out)
        plan(X, out=out)
    shared = np.zeros(X.size + R.size - 1, np.float32)
    x, overlapping = shared[: X.size].reshape(X.shape), shared[X.size - 1 :].reshape(R.shape)
    frozen = out.copy()
    frozen.flags.writeable = False
    shifted = np.zeros(R.size + 1, np.float32)
    residual, behind = shifted[1:].reshape(R.shape), shifted[:-1].reshape(R.shape)
    swapped = out.astype(out.dtype.newbyteorder())
    for call in (lambda x, **options: fc.conv2d(x, W, B, **options), plan):
        for _ in range(2):
            with pytest.raises(ValueError, match="out overlaps"):
                call(x, out=overlapping)
            with pytest.raises(ValueError, match="out overlaps residual"):
                call(X, residual=residual, out=behind)
            with pytest.raises(ValueError, match="out is read-only"):
                call(X, out=frozen)
            with pytest.raises(ValueError, match="out has shape"):
                call(X, out=out[:1])
            with pytest.raises(TypeError, match="out is a list"):
                call(X, out=[])
            with pytest.raises(TypeError, match="out has dtype"):
                call(X, out=swapped)
            with pytest.raises(TypeError, match="dtype"):
                call(X.astype(X.dtype.newbyteorder()))
            with pytest.raises(TypeError, match="dtype"):
                call(X.astype(np.datetime64))
            with pytest.raises((TypeError, ValueError), match=r"x|input"):
                call(None)


def test_side_by_side_is_not_overlapping():
    memory = poison(X.size + R.size)
    x, out = memory[: X.size].reshape(X.shape), memory[X.size :].reshape(R.shape)
    x[...] = X
    combed = poison((*R.shape, 2))
    combed[..., 1] = R
    plan = fc.ConvPlan(X.shape, W, B)
    for call in (lambda x, **options: fc.conv2d(x, W, B, **options), plan):
        expected = call(X)
        for _ in range(2):
            out[...] = np.nan
            np.testing.assert_array_equal(call(x, out=out), expected)
            np.testing.assert_array_equal(call(X, residual=R, out=combed[..., 0]), call(X, residual=R))
        in_place = R.copy()
        with_residual = call(X, residual=R)
        np.testing.assert_array_equal(call(X, residual=in_place, out=in_place), with_residual)
        in_place[...] = R
        np.testing.assert_array_equal(call(X, residual=in_place, out=in_place), with_residual)


def test_the_number_of_calls_kept_is_bounded(calls):
    for size in range(3, 3 + 3 * ROOM):
        fc.conv2d(X[:, :, :3, :1], W[:, :, :1, :1])  # in use all the time
        fc.conv2d(np.ones((1, 1, size, 3), np.float32), W[:1, :1])
        assert len(calls) <= ROOM
    assert len(calls) >= ROOM // 2
    known = len(calls)
    fc.conv2d(X[:, :, :3, :1], W[:, :, :1, :1])
    fc.conv2d(np.ones((1, 1, size - ROOM // 4, 3), np.float32), W[:1, :1])
    assert len(calls) == known


def test_from_many_threads(calls):
    images = [rng.standard_normal((1, 4, n, 7), dtype=np.float32) for n in range(3, 200)]
    expected = [fc.conv2d(x, W, B) for x in images]

    def work(first):
        return [fc.conv2d(x, W, B) for x in images[first:] + images[:first]]

    with ThreadPoolExecutor(8) as pool:
        for first, results in zip(range(0, 160, 20), pool.map(work, range(0, 160, 20)), strict=True):
            for result, right in zip(results, expected[first:] + expected[:first], strict=True):
                np.testing.assert_array_equal(result, right)
    assert len(calls) <= ROOM


@pytest.mark.parametrize("count", [1, 7, 63, 64, 65, 1000, 300_000])
def test_fingerprints_tell_contents_apart(count):
    memory = np.random.default_rng(count).integers(0, 256, count, np.uint8)
    marks = {_core.fingerprint(memory, 1)}
    assert {_core.fingerprint(memory.copy(), threads) for threads in (1, 2)} == marks
    changed = [np.append(memory, np.uint8(0)), memory[:-1]]
    for at in {0, count // 2, count - 1}:
        for bit in range(8):
            other = memory.copy()
            other[at] ^= 1 << bit
            changed.append(other)
    if count > 64:
        changed.append(np.roll(memory, 8))  # words in another order
        signs = memory.copy()
        signs[7:64:8] ^= 0x80  # the highest bits of neighbours
        changed.append(signs)
    if count == 300_000:
        changed.append(np.concatenate([memory[1 << 18 :], memory[: 1 << 18]]))
        changed.append(np.concatenate([memory[64:128], memory[:64], memory[128:]]))
    for other in changed:
        marks.add(_core.fingerprint(other, 2))
    assert len(marks) == 1 + len(changed)
    with pytest.raises(ValueError, match="not contiguous"):
        _core.fingerprint(np.zeros((4, 4))[:, ::2], 1)
