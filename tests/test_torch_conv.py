# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions of one to three axes, plain and transposed, against torch over thousands of generated calls.

Results, shapes, dtypes, gradients, and the kind of every error. torch raises RuntimeError for impossible parameters and
for dtypes that differ; here those are a ValueError and a TypeError.
"""

import numpy as np
import pytest

import fastconv as fc

torch = pytest.importorskip("torch")
F = torch.nn.functional

# torch says so of even kernels, by which it may be slower.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

BLOCKS = range(16)
PER_BLOCK = 160  # problems; five to eight calls each
REFUSALS_PER_BLOCK = 80

# Of the sum's magnitude; float32 sums have at most some hundred terms here.
BOUND = {np.float16: 4e-3, np.float32: 4e-6, np.float64: 1e-13}
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Problem:
    """A valid call, and what torch makes of it."""

    def __init__(self, rng):
        self.rng, self.rank, self.transposed = rng, int(rng.integers(1, 4)), bool(rng.integers(0, 2))
        rank, groups = self.rank, int(rng.choice([1, 1, 2, 3]))
        ins, outs = (groups * int(rng.integers(1, 4)) for _ in range(2))
        if rng.random() < 0.2:  # depthwise
            ins = outs = groups
        while True:
            self.size, self.kernel, self.stride, self.dilation, self.padding = (
                self.ints(low, high) for low, high in ((1, {1: 24, 2: 13, 3: 8}[rank]), (1, 5), (1, 4), (1, 3), (0, 3))
            )
            spans = [
                n - d * (k - 1) - 1 + 2 * p if not self.transposed else (n - 1) * s - 2 * p + d * (k - 1)
                for n, k, s, d, p in zip(self.size, self.kernel, self.stride, self.dilation, self.padding, strict=True)
            ]
            if min(spans) >= 0:
                break
        self.output_padding = tuple(
            int(rng.integers(0, max(s, d))) for s, d in zip(self.stride, self.dilation, strict=True)
        )
        self.groups, self.ins, self.outs = groups, ins, outs
        self.dtype = [np.float32, np.float64][int(rng.integers(0, 2))]
        self.batch = (int(rng.integers(1, 3)),) if rng.random() < 0.8 else ()
        self.x = self.normal((*self.batch, ins, *self.size))
        first, second = (ins, outs) if self.transposed else (outs, ins)
        self.weight = self.normal((first, second // groups, *self.kernel))
        self.bias = self.normal((outs,)) if rng.random() < 0.5 else None
        self.terms = self.weight[0].size if not self.transposed else ins // groups * int(np.prod(self.kernel))

    def ints(self, low, high):
        return tuple(int(n) for n in self.rng.integers(low, high, self.rank))

    def normal(self, shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    @property
    def name(self):
        return f"conv{'_transpose' if self.transposed else ''}{self.rank}d"

    @property
    def geometry(self):
        """As both libraries order it."""
        if self.transposed:
            return (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return (self.stride, self.padding, self.dilation, self.groups)

    @property
    def plan_geometry(self):
        extra = {"transposed": True, "output_padding": self.output_padding} if self.transposed else {}
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            **extra,
        }

    def tensors(self):
        arrays = (self.x, self.weight, self.bias)
        return tuple(None if a is None else torch.from_numpy(a).requires_grad_() for a in arrays)

    def check(self, result, expected, dtype=None):
        bound = BOUND[dtype or self.dtype]
        assert result.dtype == (dtype or self.dtype)
        assert result.shape == tuple(expected.shape), self
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        assert np.abs(result.astype(np.float64) - expected).max(initial=0) <= bound * scale, self

    def __repr__(self):
        return f"{self.name}({self.x.shape}, {self.weight.shape}, {self.geometry}, {self.dtype.__name__})"


@pytest.mark.parametrize("block", BLOCKS)
def test_results_and_gradients_are_torchs(block):
    rng = np.random.default_rng(block)
    for _ in range(PER_BLOCK):
        p = Problem(rng)
        ours, (x, weight, bias) = getattr(fc, p.name), p.tensors()
        expected = getattr(F, p.name)(x, weight, bias, *p.geometry)
        wanted = expected.detach().numpy()
        result = ours(p.x, p.weight, p.bias, *p.geometry)
        p.check(result, wanted)
        assert np.array_equal(ours(p.x, p.weight, p.bias, *p.geometry), result)  # the kept plan
        plan = fc.ConvPlan(p.x.shape, p.weight, p.bias, **p.plan_geometry)
        assert plan.output_shape == result.shape
        p.check(plan(p.x), wanted)

        residual = p.normal(result.shape)
        out = np.full(result.shape, np.nan, p.dtype)
        finished = ours(p.x, p.weight, p.bias, *p.geometry, residual=residual, activation="relu", out=out)
        assert finished is out
        p.check(out, np.maximum(wanted + residual, 0))

        if p.batch:
            axes = (0, *range(2, p.rank + 2), 1)
            last = ours(
                np.ascontiguousarray(p.x.transpose(axes)), p.weight, p.bias, *p.geometry, layout=LAYOUTS[p.rank][1]
            )
            p.check(last.transpose(0, p.rank + 1, *range(1, p.rank + 1)), wanted)

        grad = p.normal(result.shape)
        expected.backward(torch.from_numpy(grad))
        p.check(getattr(fc.grad, p.name + "_input")(p.x.shape, p.weight, grad, *p.geometry), x.grad.numpy())
        scale = max(1, result.size / p.outs) ** 0.5  # the sum over all positions has more terms
        found = getattr(fc.grad, p.name + "_weight")(p.x, p.weight.shape, grad, *p.geometry)
        p.check((found / scale).astype(p.dtype), weight.grad.numpy() / scale)


@pytest.mark.parametrize("block", BLOCKS[:4])
def test_float16_is_computed_in_float32(block):
    rng = np.random.default_rng(100 + block)
    for _ in range(PER_BLOCK // 4):
        p = Problem(rng)
        half = [None if a is None else a.astype(np.float16) for a in (p.x, p.weight, p.bias)]
        wide = [None if a is None else torch.from_numpy(a.astype(np.float32)) for a in half]
        expected = getattr(F, p.name)(*wide, *p.geometry).numpy()
        p.check(getattr(fc, p.name)(*half, *p.geometry), expected, np.float16)
        p.check(fc.ConvPlan(half[0].shape, *half[1:], **p.plan_geometry)(half[0]), expected, np.float16)


@pytest.mark.parametrize("block", BLOCKS[:4])
def test_forms_of_arguments(block):
    """An int, a tuple or list of one, a list; names of paddings."""
    rng = np.random.default_rng(200 + block)
    for _ in range(PER_BLOCK // 4):
        p = Problem(rng)
        one = int(rng.integers(1, 3))
        form = [one, (one,), [one], [one] * p.rank][int(rng.integers(0, 4))]
        arrays = (p.x, p.weight)
        tensors = tuple(map(torch.from_numpy, arrays))
        if p.transposed:
            size = [(n - 1) * one + d * (k - 1) for n, d, k in zip(p.size, p.dilation, p.kernel, strict=True)]
            if min(size) < 0:
                continue
            arguments = (form, 0, 0, p.groups, p.dilation)
        else:
            name = ["valid", "same"][int(rng.integers(0, 2))]
            if name == "same":
                arguments = (1, name, p.dilation, p.groups)
            elif any(n < d * (k - 1) + 1 for n, d, k in zip(p.size, p.dilation, p.kernel, strict=True)):
                continue
            else:
                arguments = (form, name, p.dilation, p.groups)
        p.check(getattr(fc, p.name)(*arrays, None, *arguments), getattr(F, p.name)(*tensors, None, *arguments).numpy())


# What is changed in a valid call, and the kind of error that it has to be.
def _too_many_axes(p, a):
    a["x"] = np.zeros((1, 1, *p.x.shape), p.dtype)


def _channels(p, a):
    shape = list(p.x.shape)
    shape[len(p.batch)] += p.groups
    a["x"] = np.zeros(shape, p.dtype)


def _groups(p, a):
    a["groups"] = p.ins + p.outs + 1


def _no_groups(p, a):
    a["groups"] = 0


def _bias(p, a):
    a["bias"] = np.zeros(p.outs + 1, p.dtype)


def _stride(p, a):
    a["stride"] = 0


def _negative_padding(p, a):
    a["padding"] = -1


def _dilation(p, a):
    a["dilation"] = -1  # torch takes 0 where kernels have one element


def _many(p, a):
    a["stride"] = (1,) * (p.rank + 1)


def _weight_axes(p, a):
    a["weight"] = p.weight[0]


def _kernel(p, a):
    if p.transposed:
        a["padding"] = tuple(100 for _ in p.size)
    else:
        a["weight"] = np.zeros(
            (*p.weight.shape[:2], *(n + 2 * q + 1 for n, q in zip(p.size, p.padding, strict=True))), p.dtype
        )


def _output_padding(p, a):
    if p.transposed:
        a["output_padding"] = tuple(max(s, d) for s, d in zip(p.stride, p.dilation, strict=True))
    else:
        a["padding"] = "none"


def _dtype(p, a):
    a["weight"] = p.weight.astype(np.float64 if p.dtype == np.float32 else np.float32)


def _text(p, a):
    a["stride"] = "two"


def _fraction(p, a):
    a["dilation"] = 1.5


def _group_text(p, a):
    a["groups"] = "one"


REFUSED = {
    ValueError: (
        _too_many_axes,
        _channels,
        _groups,
        _no_groups,
        _bias,
        _stride,
        _negative_padding,
        _dilation,
        _many,
        _weight_axes,
        _kernel,
        _output_padding,
    ),
    TypeError: (_dtype, _text, _fraction, _group_text),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_errors_are_of_torchs_kind(block):
    rng = np.random.default_rng(300 + block)
    changes = [(kind, change) for kind, some in REFUSED.items() for change in some]
    for i in range(REFUSALS_PER_BLOCK):
        p = Problem(rng)
        kind, change = changes[i % len(changes)]
        names = ("stride", "padding", "output_padding", "groups", "dilation")
        names = names if p.transposed else ("stride", "padding", "dilation", "groups")
        arguments = {"x": p.x, "weight": p.weight, "bias": p.bias, **dict(zip(names, p.geometry, strict=True))}
        change(p, arguments)
        arrays = [arguments.pop(name) for name in ("x", "weight", "bias")]
        tensors = [None if a is None else torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            getattr(F, p.name)(*tensors, **arguments)
        with pytest.raises(kind):
            getattr(fc, p.name)(*arrays, **arguments)
