# SPDX-License-Identifier: BSD-3-Clause
"""Elementwise maps of the core against NumPy: every operation, chains, broadcasting, and views of any strides."""

import math

import numpy as np
import pytest

from fastconv import _config, _core
from fastconv._maps import Map, op

DTYPES = (np.float32, np.float64)
BOUNDS = {"a": -0.75, "b": 1.25}
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x.astype(np.float64))


def erfc(x):
    near = x.astype(np.float64)
    rest = np.where(np.isinf(x), 0, x - near)
    return np.vectorize(math.erfc, otypes=[np.float64])(near) - 2 / np.sqrt(np.pi) * np.exp(-near * near) * rest


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x > 0, 1 / (1 + e), np.where(np.isnan(x), x, e / (1 + e)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def where_nan(x, y):
    return np.where(np.isnan(x), x, y)


# Meanings of operations in x, y, z, a and b, in the precision that their arguments have.
MEANING = {
    "clamp": lambda x, y, z, a, b: np.clip(x, a, b),
    "affine": lambda x, y, z, a, b: a * x + b,
    "abs": lambda x, y, z, a, b: np.abs(x),
    "neg": lambda x, y, z, a, b: -x,
    "sign": lambda x, y, z, a, b: np.sign(x),
    "square": lambda x, y, z, a, b: x * x,
    "sqrt": lambda x, y, z, a, b: np.sqrt(x),
    "rsqrt": lambda x, y, z, a, b: 1 / np.sqrt(x),
    "reciprocal": lambda x, y, z, a, b: 1 / x,
    "floor": lambda x, y, z, a, b: np.floor(x),
    "ceil": lambda x, y, z, a, b: np.ceil(x),
    "round": lambda x, y, z, a, b: np.rint(x),
    "exp": lambda x, y, z, a, b: np.exp(x),
    "log": lambda x, y, z, a, b: np.log(x),
    "erf": lambda x, y, z, a, b: erf(x),
    "tanh": lambda x, y, z, a, b: np.tanh(x),
    "sigmoid": lambda x, y, z, a, b: sigmoid(x),
    "silu": lambda x, y, z, a, b: x * sigmoid(x),
    "silu_slope": lambda x, y, z, a, b: sigmoid(x) * (1 + x * sigmoid(-x)),
    "hardswish": lambda x, y, z, a, b: x * (np.clip(x + 3, 0, 6) / 6),
    "hardswish_slope": lambda x, y, z, a, b: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
    "leaky_relu": lambda x, y, z, a, b: np.where(x > 0, x, a * x),
    "elu": lambda x, y, z, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x, y, z, a, b: x * (erfc(-x / np.sqrt(x.dtype.type(2))) / 2),
    "gelu_tanh": lambda x, y, z, a, b: x * sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "softplus": lambda x, y, z, a, b: softplus(x),
    "mish": lambda x, y, z, a, b: x * np.tanh(softplus(x)),
    "add": lambda x, y, z, a, b: x + y,
    "sub": lambda x, y, z, a, b: x - y,
    "rsub": lambda x, y, z, a, b: y - x,
    "mul": lambda x, y, z, a, b: x * y,
    "div": lambda x, y, z, a, b: x / y,
    "rdiv": lambda x, y, z, a, b: y / x,
    "min": lambda x, y, z, a, b: np.minimum(x, y),
    "max": lambda x, y, z, a, b: np.maximum(x, y),
    "prelu": lambda x, y, z, a, b: np.where(x > 0, x, y * x),
    "where_above": lambda x, y, z, a, b: np.where(y <= a, 0, x),
    "where_below": lambda x, y, z, a, b: np.where(y >= a, 0, x),
    "leaky_slope": lambda x, y, z, a, b: np.where(y <= 0, a * x, x),
    "fma": lambda x, y, z, a, b: x * y + z,
}
BINARY = [
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "rdiv",
    "min",
    "max",
    "prelu",
    "where_above",
    "where_below",
    "leaky_slope",
]
OPERANDS = {**dict.fromkeys(BINARY, 2), "fma": 3}
EXACT = {"clamp", "abs", "neg", "sign", "sqrt", "floor", "ceil", "round", *BINARY} - {"prelu", "leaky_slope"}
UNITS = {"gelu": 6, "silu_slope": 6}  # what is right to, in units of the last place; 4 where nothing is said
# What is wrong by a few units is the largest term of a sum that may cancel, or the exponent of an exponential.
TERMS = {
    "affine": lambda x, y, right: BOUNDS["a"] * x,
    "fma": lambda x, y, right: x * y,
    "silu_slope": lambda x, y, right: sigmoid(x),
    "hardswish_slope": lambda x, y, right: np.minimum(1, np.abs(x)),
    "gelu": lambda x, y, right: np.maximum(np.abs(right), 40 * np.finfo(np.float64).tiny),  # below, erfc has few digits
    "gelu_tanh": lambda x, y, right: right * np.maximum(1, np.abs(1.6 * x + 0.0714 * x**3)),
}
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 1e-42, 3.0, -3.0, 0.5, -0.5, 1.5, 2.5, 30.0, -30.0, 1e30]


@pytest.fixture
def rng():
    return np.random.default_rng(15)


def meaning(name, x, y, z, a, b):
    """What an operation is in the next wider precision."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        return MEANING[name](*(v.astype(wide) for v in (x, y, z)), a, b)


def ulps_off(is_, right, terms):
    """Distance in units of the last place of what is right, or of larger terms; 0 between equal special values."""
    with np.errstate(all="ignore"):
        rounded = right.astype(is_.dtype)
        size = np.maximum(np.abs(rounded), np.abs(np.nan_to_num(terms.astype(is_.dtype))))
        unit = np.maximum(np.spacing(size), np.finfo(is_.dtype).smallest_subnormal)
        off = np.abs(is_.astype(right.dtype) - right) / unit
    special = ~np.isfinite(rounded)
    assert np.array_equal(is_[special], rounded[special], equal_nan=True)
    return np.where(special, 0, off)


def arguments(rng, dtype, count=6000):
    """Numbers of all sizes that the functions tell apart, and special ones, in three arrays."""
    parts = [
        rng.uniform(-4, 4, count),
        rng.uniform(-100, 100, count),
        rng.normal(0, 1, count) * 10.0 ** rng.uniform(-9, 9, count),
    ]
    x = np.concatenate([*parts, np.repeat(SPECIAL, len(SPECIAL))]).astype(dtype)
    y = np.concatenate([*(rng.permutation(p) for p in parts), SPECIAL * len(SPECIAL)]).astype(dtype)
    return x, y, rng.permutation(y)


def test_every_operation_is_tried():
    assert set(MEANING) == set(_core.MAP_NAMES)


@dtypes
@pytest.mark.parametrize("name", MEANING)
def test_an_operation_is_numpys(rng, name, dtype):
    x, y, z = arguments(rng, dtype)
    others = (y, z)[: OPERANDS.get(name, 1) - 1]
    is_ = Map(op(name, *range(len(others)), **BOUNDS), others=len(others))(x, *others)
    right = meaning(name, x, y, z, *BOUNDS.values())
    with np.errstate(all="ignore"):
        terms = TERMS[name](x.astype(right.dtype), y.astype(right.dtype), right) if name in TERMS else right
    off = ulps_off(is_, right, terms)
    worst = np.argmax(off)
    limit = 0.500001 if name in EXACT else UNITS.get(name, 4)
    assert off[worst] <= limit, (name, off[worst], x[worst], is_[worst], right[worst])


# --- arrays ---------------------------------------------------------------------------------------


RELU = op("clamp", a=0.0, b=np.inf)
CHAIN = Map(op("fma", 0, 1), op("tanh"), op("sub", 2), RELU, op("affine", a=2.0, b=-1.0), others=3)


def chained(x, y, z, w):
    return 2 * np.maximum(np.tanh(x.astype(np.float64) * y + z) - w, 0) - 1


def room(rng, shape, dtype):
    """An array to take views of, and to see what around them has been written."""
    return rng.normal(0, 1, shape).astype(dtype)


def operand(rng, shape, dtype, how):
    """An array of that shape, whose elements lie in memory in one of several ways."""
    rank = len(shape)
    if how == "plain":
        return room(rng, shape, dtype)
    if how == "turned":
        return room(rng, shape[::-1], dtype).transpose()
    if how == "last first":
        return np.moveaxis(room(rng, (*shape[1:], shape[0]), dtype), -1, 0) if rank else room(rng, shape, dtype)
    if how == "backwards":
        return room(rng, shape, dtype)[(slice(None, None, -1),) * rank]
    if how == "apart":
        return room(rng, [2 * n + 1 for n in shape], dtype)[(slice(1, None, 2),) * rank]
    return np.broadcast_to(room(rng, [1 if i % 2 else n for i, n in enumerate(shape)], dtype), shape)  # "repeated"


WAYS = ("plain", "turned", "last first", "backwards", "apart", "repeated")
SHAPES = [
    (),
    (1,),
    (17,),
    (5000,),
    (3, 1),
    (2, 70),
    (70, 2),
    (33, 65),
    (300, 17),
    (2, 3, 7, 7),
    (4, 5, 6, 8),
    (2, 3, 4, 1, 2, 3, 2, 5),
]


@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operands_lie_in_any_way(rng, shape, dtype):
    for _ in range(12):
        x, y, z, w = (operand(rng, shape, dtype, how) for how in rng.choice(WAYS, 4))
        how = rng.choice(["plain", "turned", "apart", "backwards"])
        frame = np.full([(2 * n + 1 if how == "apart" else n + 2) for n in shape], np.nan, dtype)
        if how == "apart":
            out = frame[(slice(1, -1, 2),) * len(shape)] if shape else frame
        elif how == "backwards":
            out = frame[tuple(slice(n, 0, -1) for n in shape)] if shape else frame
        elif how == "turned":
            frame = frame.transpose().copy().transpose()
            out = frame[tuple(slice(1, n + 1) for n in shape)] if shape else frame
        else:
            out = frame[tuple(slice(1, n + 1) for n in shape)] if shape else frame
        assert out.shape == shape
        assert CHAIN(x, y, z, w, out=out) is out
        np.testing.assert_allclose(out, chained(x, y, z, w), rtol=1e-5, atol=1e-5)
        out[...] = np.nan
        assert np.isnan(frame).all()  # nothing around it was written


@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_map_without_operations_is_a_copy(rng, shape, dtype):
    copy = Map()
    for how in WAYS:
        x = operand(rng, shape, dtype, how)
        for order in ("C", "F"):
            out = np.full(shape, np.nan, dtype, order=order)
            assert np.array_equal(copy(x, out=out), x)
        apart = np.full([2 * n for n in shape], np.nan, dtype)
        view = apart[(slice(None, None, 2),) * len(shape)] if shape else apart
        copy(x, out=view)
        assert np.array_equal(view, x)
        view[...] = np.nan
        assert np.isnan(apart).all()


@dtypes
@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64, 130])
def test_layouts_are_turned(rng, channels, dtype):
    first = room(rng, (2, channels, 13, 11), dtype)
    last = np.full((2, 13, 11, channels), np.nan, dtype)
    Map()(first.transpose(0, 2, 3, 1), out=last)
    assert np.array_equal(last, first.transpose(0, 2, 3, 1))
    back = np.full(first.shape, np.nan, dtype)
    Map()(last.transpose(0, 3, 1, 2), out=back)
    assert np.array_equal(back, first)
    doubled = np.full(first.shape, np.nan, dtype)
    Map(op("affine", a=2.0))(last.transpose(0, 3, 1, 2), out=doubled)
    assert np.array_equal(doubled, 2 * first)


@dtypes
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("spatial", [1, 7, 56, 3000])
def test_one_number_for_each_channel(rng, spatial, axis, dtype):
    shape = (2, 37, spatial) if axis == 1 else (2, spatial, 37)
    x = room(rng, shape, dtype)
    s, t = room(rng, (37, 1) if axis == 1 else (37,), dtype), room(rng, (37, 1) if axis == 1 else (37,), dtype)
    y = Map(op("mul", 0), op("add", 1), RELU, others=2)(x, s, t)
    assert np.array_equal(y, np.maximum(x * s + t, 0))
    assert np.array_equal(Map(op("add", 0), others=1)(s, x), x + s)  # the source is repeated, too


def test_shapes_broadcast(rng):
    x, y, z = rng.normal(size=(3, 1, 4)), rng.normal(size=(5, 1)), rng.normal(size=())
    add = Map(op("add", 0), op("mul", 1), others=2)
    assert np.array_equal(add(x, y, z), (x + y) * z)
    for operands in ((x, np.ones((2, 1)), np.ones(3)), (x, np.ones((3, 5, 2)), z)):
        with pytest.raises(ValueError, match="do not fit"):
            add(*operands)
    with pytest.raises(ValueError, match="more axes than"):
        add(x, y, z, out=np.empty(4))
    with pytest.raises(TypeError, match="all float32, or all float64"):
        add(x, y.astype(np.float32), z)
    with pytest.raises(TypeError, match="int64, float64"):
        Map(op("add", 0), others=1)(np.ones(3, int), np.ones(3))


def test_the_result_lies_as_the_source_does(rng):
    x = rng.normal(size=(4, 5, 6)).transpose(2, 0, 1)
    assert Map(RELU)(x).strides == x.strides


@dtypes
def test_more_axes_than_the_core_has(rng, dtype):
    x, y = room(rng, (2,) * 10, dtype), room(rng, (2, 1) * 5, dtype)
    assert np.array_equal(Map(op("add", 0), others=1)(x, y), x + y)
    assert np.array_equal(Map()(x.transpose(), out=np.empty_like(x)), x.transpose())


@dtypes
def test_results_overwrite_operands(rng, dtype):
    add = Map(op("affine", a=3.0), op("add", 0), others=1)
    for shape in ((40, 50), (9000,)):
        x, y = room(rng, shape, dtype), room(rng, shape, dtype)
        expected = 3 * x + y
        for which in (0, 1):
            operands = [x.copy(), y.copy()]
            np.testing.assert_allclose(add(*operands, out=operands[which]), expected, rtol=1e-5, atol=1e-6)
        memory = np.concatenate([x.ravel(), y.ravel()])
        add(memory[: x.size], memory[100 : 100 + x.size], out=memory[50 : 50 + x.size])
        shifted = np.concatenate([x.ravel(), y.ravel()])
        expected = 3 * shifted[: x.size] + shifted[100 : 100 + x.size]
        np.testing.assert_allclose(memory[50 : 50 + x.size], expected, rtol=1e-5, atol=1e-6)
        square = room(rng, (40, 40), dtype)
        turned = square.T.copy()
        assert np.array_equal(Map()(square.T, out=square), turned)


@dtypes
def test_memory_that_cannot_be_taken_as_it_is(rng, dtype):
    raw = np.zeros(100 * dtype().itemsize + 1, np.uint8)
    odd = raw[1:].view(dtype)
    odd[...] = rng.normal(size=100)
    assert np.array_equal(Map(RELU)(odd), np.maximum(odd, 0))
    fixed = np.ones(3, dtype)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        Map(RELU)(np.ones(3, dtype), out=fixed)


@dtypes
def test_bits_do_not_depend_on_threads_or_place(rng, dtype):
    x = room(rng, (300_001,), dtype)
    gelu = Map(op("gelu"), op("mul", 0), others=1)
    program = _core.Program((op("gelu"), op("mul", 0)), 1)
    whole = gelu(x, x)
    for threads in (1, 2, 3):
        assert np.array_equal(program.run(x, (x,), None, _config.ISA, threads), whole)
    assert np.array_equal(gelu(x[7:5000], x[7:5000]), whole[7:5000])


def test_of_nothing_there_is_nothing(rng):
    for shape in ((0,), (3, 0, 2)):
        assert CHAIN(*[np.empty(shape)] * 4).shape == shape


# --- plans from plain fields ----------------------------------------------------------------------


def test_a_plan_is_made_of_plain_fields():
    program = (op("fma", 0, 1), RELU)
    plan = _core.map_plan(0, ((2, 12, 12, 0, 0), (3, 4, 4, 1, 1), (4, 1, 1, 0, 0)), program, 2, _config.ISA)
    assert isinstance(plan, _core.Planned)
    assert plan.seconds > 0
    assert plan.packed_bytes == 0
    assert plan.workspace_bytes(1) >= 0


@pytest.mark.parametrize(
    ("axes", "program", "others", "message"),
    [
        (((-1, 1, 1),), (), 0, "axis 0: -1 elements"),
        (((3, 1, 0),), (), 0, "axis 0 of the result is repeated"),
        (((3, 2**50, 1),), (), 0, "stride"),
        (((2**40, 1, 1), (2**40, 1, 1)), (), 0, "axis 1"),
        (((3, 1, 1),) * 9, (), 0, "9 axes; it needs at most 8"),
        (((3, 1, 1),), (op("add", 0),), 0, "operation 0: there is no operand 0"),
        (((3, 1, 1, 1),), (op("fma", 0, 1),), 1, "operation 0: there is no operand 1"),
        (((3, 1, 1),), (op("clamp", a=1.0, b=0.0),), 0, "bounds are not ordered"),
        (((3, 1, 1),), (RELU,) * 9, 0, "9 operations"),
        (((3, 1, 1),), (op("twist"),), 0, "'twist'"),
        (((3, 1, 1, 1, 1, 1, 1),), (), 4, "5 operands"),
    ],
)
def test_fields_that_make_no_plan(axes, program, others, message):
    with pytest.raises(ValueError, match=message):
        _core.map_plan(0, axes, program, others, _config.ISA)
