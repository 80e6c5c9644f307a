# SPDX-License-Identifier: BSD-3-Clause
"""Pooling along one to three axes against torch over thousands of generated calls.

Results, indices, ties and NaN, gradients, and the kind of every error: torch's RuntimeError for impossible parameters
is a ValueError here. Windows whose elements all lie in the padding, which dilation allows, are refused here; torch
makes them minus infinity, at an index outside of the plane.
"""

import numpy as np
import pytest

import fastconv as fc

torch = pytest.importorskip("torch")

import fastconv.torch as ft  # noqa: E402

F = torch.nn.functional

BLOCKS = range(16)
PER_BLOCK = 60  # problems, of some nine calls each
REFUSALS_PER_BLOCK = 60
BOUND = {np.float32: 2e-6, np.float64: 1e-14}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Problem:
    """Planes, and windows that torch accepts on them."""

    def __init__(self, rng):
        self.rng, self.rank = rng, int(rng.integers(1, 4))
        rank = self.rank
        while True:
            self.size = self.ints(1, {1: 24, 2: 12, 3: 8}[rank])
            self.kernel, self.stride, self.dilation = self.ints(1, 5), self.ints(1, 4), self.ints(1, 3)
            self.padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in self.kernel)
            spans = [
                n + 2 * p - d * (k - 1)
                for n, k, d, p in zip(self.size, self.kernel, self.dilation, self.padding, strict=True)
            ]
            starved = any(d > n and p for n, d, p in zip(self.size, self.dilation, self.padding, strict=True))
            if min(spans) >= 1 and not starved:
                break
        self.ceil = bool(rng.integers(0, 2))
        self.dtype = [np.float32, np.float64][int(rng.integers(0, 2))]
        batch = (int(rng.integers(1, 3)),) if rng.random() < 0.8 else ()
        shape = (*batch, int(rng.integers(1, 4)), *self.size)
        self.x = rng.standard_normal(shape).astype(self.dtype)
        if rng.random() < 0.3:  # ties
            self.x = rng.integers(-2, 3, shape).astype(self.dtype)
        self.plain = self.x.copy()
        if rng.random() < 0.15:
            self.x[rng.random(shape) < 0.1] = np.nan

    def ints(self, low, high):
        return tuple(int(n) for n in self.rng.integers(low, high, self.rank))

    def pair(self, name):
        return getattr(fc, f"{name}{self.rank}d"), getattr(F, f"{name}{self.rank}d")

    def same(self, result, expected, exact=False):
        expected = expected.detach().numpy()
        assert result.shape == expected.shape, self
        assert result.dtype == expected.dtype
        if exact:
            np.testing.assert_array_equal(result, expected, repr(self))
            return
        scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0)))
        np.testing.assert_allclose(result, expected, rtol=0, atol=BOUND[self.dtype] * 64 * scale, err_msg=repr(self))

    def gradient(self, y, x):
        g = self.rng.standard_normal(y.shape).astype(self.dtype)
        y.backward(torch.from_numpy(g))
        return g, x.grad

    def __repr__(self):
        return f"{self.x.shape} {self.kernel} {self.stride} {self.padding} {self.dilation} {self.ceil} {self.dtype}"


def leaf(array):
    return torch.from_numpy(array.copy()).requires_grad_()


@pytest.mark.parametrize("block", BLOCKS)
def test_maxima_are_torchs(block):
    rng = np.random.default_rng(block)
    for _ in range(PER_BLOCK):
        p = Problem(rng)
        ours, theirs = p.pair("max_pool")
        window = (p.kernel, p.stride, p.padding, p.dilation, p.ceil)
        x = leaf(p.x)
        y, where = theirs(x, *window, return_indices=True)
        result, indices = ours(p.x, *window, return_indices=True)
        p.same(result, y, exact=True)
        p.same(indices, where, exact=True)
        again, _ = ours(p.x, *window, return_indices=True)
        assert np.array_equal(again, result, equal_nan=True)
        p.same(ours(p.x, *window, out=np.empty_like(result)), y, exact=True)
        g, expected = p.gradient(y, x)
        p.same(getattr(fc.grad, f"max_pool{p.rank}d")(g, indices, p.x.shape), expected)

        size = tuple(int(rng.integers(0 if rng.random() < 0.1 else 1, n + 3)) for n in p.size)
        form = [size, size[0], list(size), (None, *size[1:])][int(rng.integers(0, 4))]
        form = form if p.rank > 1 or not isinstance(form, tuple) or form[0] is not None else size
        ours, theirs = p.pair("adaptive_max_pool")
        x = leaf(p.x)
        y, where = theirs(x, form, return_indices=True)
        result, indices = ours(p.x, form, return_indices=True)
        p.same(result, y, exact=True)
        p.same(indices, where, exact=True)
        p.same(ours(p.x, form), y, exact=True)
        if result.size:
            g, expected = p.gradient(y, x)
        else:
            g, expected = np.empty_like(result), torch.zeros_like(x)
        p.same(getattr(fc.grad, f"adaptive_max_pool{p.rank}d")(g, indices, p.x.shape), expected)


@pytest.mark.parametrize("block", BLOCKS)
def test_means_are_torchs(block):
    rng = np.random.default_rng(100 + block)
    for _ in range(PER_BLOCK):
        p = Problem(rng)
        spare = p.padding if p.rank < 3 else (0, 0, 0)  # torch's avg_pool3d lets no padding make room
        if any(n + 2 * q < k for n, k, q in zip(p.size, p.kernel, spare, strict=True)):
            continue
        ours, theirs = p.pair("avg_pool")
        more = (bool(rng.integers(0, 2)),) + (() if p.rank == 1 else ((None, 3)[int(rng.integers(0, 2))],))
        window = (p.kernel, p.stride, p.padding, p.ceil, *more)
        x = leaf(p.x)
        y = theirs(x, *window)
        for _ in range(2):  # the second call knows the first
            p.same(ours(p.x, *window), y)
        g, expected = p.gradient(y, x)
        p.same(getattr(fc.grad, f"avg_pool{p.rank}d")(g, p.x.shape, *window), expected)

        size = tuple(int(rng.integers(1, n + 3)) for n in p.size)
        ours, theirs = p.pair("adaptive_avg_pool")
        x = leaf(p.x)
        y = theirs(x, size)
        for _ in range(2):
            p.same(ours(p.x, size), y)
        g, expected = p.gradient(y, x)
        p.same(getattr(fc.grad, f"adaptive_avg_pool{p.rank}d")(g, p.x.shape), expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_windows_that_hold_nothing_are_torchs(rank, last):
    """Minus infinity. Their gradient goes nowhere, while torch's goes where the window would have gone on."""
    size, dilation = (4, 5, 3)[3 - rank :], (1, 2, 4)[3 - rank :]
    x = torch.randn(2, 3, *size).requires_grad_()
    if last and rank > 1:
        x = x.detach().to(memory_format=torch.channels_last if rank == 2 else torch.channels_last_3d).requires_grad_()
    pool = getattr(torch.nn.functional, f"max_pool{rank}d")
    expected = pool(x, 2, 1, 1, dilation)
    with ft.accelerate():
        y = pool(x, 2, 1, 1, dilation)
        assert not ft.report()["left"]
    assert torch.isneginf(expected).all()
    assert torch.equal(y, expected)
    y.sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("stride", [None, [], ()])
def test_no_stride_is_the_kernels_size(name, stride):
    x = np.arange(40.0).reshape(1, 2, 4, 5)
    ours, theirs = getattr(fc, f"{name}2d"), getattr(F, f"{name}2d")
    np.testing.assert_array_equal(ours(x, (2, 3), stride), theirs(torch.from_numpy(x), (2, 3), stride).numpy())


@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
@pytest.mark.parametrize("size", [0, (0, 3), (2, 0)])
def test_grids_of_nothing(name, size):
    x = np.ones((2, 3, 4, 5))
    ours, theirs = getattr(fc, name), getattr(F, name)
    y = ours(x, size)
    assert y.shape == tuple(theirs(torch.from_numpy(x), size).shape)
    if "max" in name:
        found = getattr(fc.grad, name)(y, np.empty(y.shape, np.int64), x.shape)
    else:
        found = getattr(fc.grad, name)(y, x.shape)
    np.testing.assert_array_equal(found, np.zeros_like(x))


@pytest.mark.parametrize("block", BLOCKS[:4])
def test_other_layouts_and_float16_are_torchs(block):
    rng = np.random.default_rng(500 + block)
    for _ in range(PER_BLOCK):
        p = Problem(rng)
        x = p.plain if p.plain.ndim == p.rank + 2 else p.plain[None]
        half = x.astype(np.float16)
        last = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[p.rank]
        size = tuple(int(rng.integers(1, n + 3)) for n in p.size)
        calls = [("max_pool", (p.kernel, p.stride, p.padding, p.dilation, p.ceil)), ("adaptive_max_pool", (size,))]
        calls += [("adaptive_avg_pool", (size,))]
        if all(n >= k for n, k in zip(p.size, p.kernel, strict=True)):
            calls += [("avg_pool", (p.kernel, p.stride, 0, p.ceil))]
        for name, arguments in calls:
            ours, theirs = p.pair(name)
            found = ours(np.ascontiguousarray(np.moveaxis(x, 1, -1)), *arguments, layout=last)
            p.same(np.moveaxis(found, -1, 1), theirs(torch.from_numpy(x), *arguments), exact="max" in name)
            found = ours(half, *arguments)
            wide = theirs(torch.from_numpy(half.astype(np.float32)), *arguments).numpy()
            assert found.dtype == np.float16
            # The mean is rounded to float32 in the kernel, whose last bits may decide how float16 rounds.
            np.testing.assert_allclose(found, wide, rtol=0 if "max" in name else 2**-10, atol=2**-24)


@pytest.mark.parametrize("block", BLOCKS)
def test_norms_are_torchs(block):
    rng = np.random.default_rng(200 + block)
    for _ in range(PER_BLOCK // 2):
        p = Problem(rng)
        if any(n < k for n, k in zip(p.size, p.kernel, strict=True)):
            continue
        ours, theirs = p.pair("lp_pool")
        power = [1, 2, 3.0, 0.5, float("inf")][int(rng.integers(0, 5))]
        data = np.abs(p.plain) + 0.25  # roots of sums far from zero
        x = leaf(data)
        kernel, stride = (
            (p.kernel[0], p.stride[0]) if p.rank == 1 else (p.kernel, p.stride)
        )  # torch takes no tuple there
        arguments = (power, kernel, stride if rng.random() < 0.5 else None, p.ceil)
        y = theirs(x, *arguments)
        result = ours(data, *arguments)
        p.same(result, y)
        g, expected = p.gradient(y, x)
        if power != float("inf"):  # torch spreads gradients among equals there
            p.same(getattr(fc.grad, f"lp_pool{p.rank}d")(g, data, *arguments), expected)


@pytest.mark.parametrize("power", [1, 2, 3.0])
def test_norms_of_zeros_have_torchs_gradients(power):
    data = np.array([[[0.0, 0.0, 0.0, 2.0, 3.0, 4.0, 0.0, 0.0]]])
    x = leaf(data)
    y = F.lp_pool1d(x, power, 2)
    g = np.arange(1.0, 5).reshape(1, 1, 4)
    y.backward(torch.from_numpy(g))
    np.testing.assert_allclose(fc.grad.lp_pool1d(g, data, power, 2), x.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("block", BLOCKS)
def test_unpooling_is_torchs(block):
    rng = np.random.default_rng(300 + block)
    for _ in range(PER_BLOCK):
        p = Problem(rng)
        pooled, _ = p.pair("max_pool")
        ours, theirs = p.pair("max_unpool")
        window = (p.kernel, p.stride, p.padding)
        try:
            y, where = pooled(p.plain, *window, return_indices=True)
        except ValueError:
            continue  # windows without dilation need not fit
        plain = [
            (n - 1) * s - 2 * q + k
            for n, s, q, k in zip(y.shape[-p.rank :], p.stride, p.padding, p.kernel, strict=True)
        ]
        fits = all(abs(n - m) < s for n, m, s in zip(p.size, plain, p.stride, strict=True))
        size = p.size if fits else None
        if size is None and where.max(initial=0) >= np.prod(plain):
            with pytest.raises(ValueError, match="indices reach"):
                ours(y, where, *window)
            continue
        if size is None:
            continue  # positions of another plane
        v = leaf(y)
        expected = theirs(v, torch.from_numpy(where), *window, size)
        result = ours(y, where, *window, size)
        p.same(result, expected, exact=True)
        g = rng.standard_normal(result.shape).astype(p.dtype)
        expected.backward(torch.from_numpy(g))
        p.same(getattr(fc.grad, f"max_unpool{p.rank}d")(g, where), v.grad, exact=True)


def change(**arguments):
    return lambda p: arguments


# What makes any call wrong, and what makes calls with windows wrong.
ANY = (
    lambda p: {"x": np.zeros((1, 1, *p.x.shape), p.dtype)},
    lambda p: {"x": np.zeros((*p.x.shape[:-1], 0), p.dtype)},
)
WINDOWS = (
    change(kernel_size=0),
    change(stride=0),
    lambda p: {"kernel_size": (1,) * (p.rank + 1)},
    lambda p: {"kernel_size": tuple(n + 2 * q + 1 for n, q in zip(p.size, p.padding, strict=True))},
    change(kernel_size="two"),
    change(stride=1.5),
)
PADDED = (
    change(padding=-1),
    lambda p: {"padding": tuple(k // 2 + 1 for k in p.kernel)},
    change(padding="one"),
)
GRIDS = (change(output_size=-1), change(output_size=1.5), lambda p: {"output_size": (1,) * (p.rank + 1)})
REFUSED = {
    "max_pool": (*ANY, *WINDOWS, *PADDED, change(dilation=0), change(dilation="one")),
    "avg_pool": (*ANY, *WINDOWS, *PADDED),
    "adaptive_max_pool": (*ANY, *GRIDS),
    "adaptive_avg_pool": (*ANY, *GRIDS),
}
#: torch's kinds of errors, and ours.
KINDS = {RuntimeError: ValueError, ValueError: ValueError, TypeError: TypeError}


@pytest.mark.parametrize("block", BLOCKS)
def test_errors_are_of_torchs_kind(block):
    rng = np.random.default_rng(400 + block)
    refusals = [(name, change) for name, some in REFUSED.items() for change in some]
    for i in range(REFUSALS_PER_BLOCK):
        p = Problem(rng)
        name, change = refusals[i % len(refusals)]
        if "adaptive" in name:
            arguments = {"output_size": 2, **change(p)}
        else:
            arguments = {"kernel_size": p.kernel, "stride": p.stride, "padding": p.padding, **change(p)}
        x = arguments.pop("x", p.x)
        ours, theirs = p.pair(name)
        with pytest.raises((RuntimeError, ValueError, TypeError)) as error:
            theirs(torch.from_numpy(x), **arguments)
        with pytest.raises(KINDS[error.type]):
            ours(x, **arguments)
