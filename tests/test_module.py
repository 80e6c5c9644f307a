# SPDX-License-Identifier: BSD-3-Clause
"""Parameter, Module and the containers: names, state, modes, and what is kept for how long."""

import copy
import gc
import pickle
import re

import numpy as np
import pytest

from fastconv import nn


def small_net(rng=0):
    rng = np.random.default_rng(rng)
    return nn.Sequential(nn.Linear(4, 3, rng=rng), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False, rng=rng))


# --- Parameter ------------------------------------------------------------------------------------


def test_parameter_copies_what_it_is_given():
    source = np.ones((2, 3))
    p = nn.Parameter(source)
    source[...] = 7
    np.testing.assert_array_equal(p.value, 1)
    p.data = source
    source[...] = 8
    np.testing.assert_array_equal(p.value, 7)
    assert (p.shape, p.dtype, p.size) == ((2, 3), np.float64, 6)
    with pytest.raises(TypeError, match="data has dtype int64"):
        nn.Parameter(np.arange(3))


def test_value_is_read_only_and_no_write():
    p = nn.Parameter(np.zeros(3))
    version = p.version
    with pytest.raises(ValueError, match="read-only"):
        p.value[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(p)[0] = 1
    assert np.array(p, np.float32).dtype == np.float32
    assert (p.version, p.is_lent) == (version, False)


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.data.__setitem__(0, 5.0),
        lambda p: setattr(p, "data", np.full(3, 5.0)),
        lambda p: p.data.fill(5.0),
        lambda p: np.add(p.data, 5.0, out=p.data),
        lambda p: nn.init.constant_(p, 5.0),
    ],
)
def test_every_write_changes_the_version(write):
    p = nn.Parameter(np.zeros(3))
    version = p.version
    write(p)
    assert p.version != version
    assert p.value[0] == 5
    assert not p.is_lent


@pytest.mark.parametrize("shape", [(4, 3), (3,), (), (0, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_parameter_is_lent_while_any_view_lives(shape, dtype):
    p = nn.Parameter(np.zeros(shape, dtype))
    loan = p.data
    assert p.is_lent
    assert (loan.shape, loan.dtype, loan.flags.writeable) == (shape, dtype, True)
    assert p.data is loan
    view = loan.reshape(-1)[::2]
    del loan
    gc.collect()
    assert p.is_lent
    view += 1
    assert p.value.sum() == view.size
    del view
    gc.collect()
    assert not p.is_lent


def test_accumulate():
    p = nn.Parameter(np.zeros(3, np.float32))
    first = np.ones(3, np.float32)
    p.accumulate(first)
    assert p.grad is first
    p.accumulate(np.full(3, 2.0, np.float32))
    np.testing.assert_array_equal(p.grad, 3)
    with pytest.raises(ValueError, match=r"gradient has shape \(1,\); it needs \(3,\)"):
        p.accumulate(np.ones(1, np.float32))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_independent(duplicate):
    net = small_net()
    x = np.ones((2, 4), np.float32)
    net.backward(net(x))
    twin = duplicate(net)
    np.testing.assert_array_equal(twin[0].weight.grad, net[0].weight.grad)
    before = net[0].weight.value.copy()
    twin[0].weight.data[...] = 0
    twin[2].running_mean.data[...] = 5
    np.testing.assert_array_equal(net[0].weight.value, before)
    assert net[2].running_mean.data.max() < 5
    np.testing.assert_array_equal(duplicate(net.eval())(x), net(x))


# --- Module ---------------------------------------------------------------------------------------

KEYS = [
    "0.weight",
    "0.bias",
    "2.weight",
    "2.bias",
    "2.running_mean",
    "2.running_var",
    "2.num_batches_tracked",
    "3.weight",
]


def test_names():
    net = small_net()
    assert list(net.state_dict()) == KEYS
    parameters = [k for k in KEYS if "running" not in k and "tracked" not in k]
    assert [name for name, _ in net.named_parameters()] == parameters
    assert [name for name, _ in net.named_buffers()] == KEYS[4:7]
    assert [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]
    assert [name for name, _ in net.named_modules("net")] == [
        "net",
        "net.0",
        "net.1",
        "net.2",
        "net.3",
    ]
    assert len(list(net.modules())) == 5
    assert len(list(net.parameters())) == len(parameters)
    assert len(list(net.buffers())) == 3


def test_a_shared_module_is_listed_once_but_saved_under_both_names():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, layer)
    assert len(list(net.parameters())) == 2
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_state_dict_round_trip_and_order_are_torchs():
    torch = pytest.importorskip("torch")
    T = torch.nn
    theirs = T.Sequential(T.Linear(4, 3), T.ReLU(), T.BatchNorm1d(3), T.Linear(3, 2, bias=False))
    assert list(theirs.state_dict()) == KEYS
    net = small_net()
    assert net.load_state_dict(theirs.state_dict()) == ([], [])
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(net.eval()(x), expected, rtol=1e-5, atol=1e-6)


def test_state_dict_is_a_read_only_view():
    net = small_net()
    state = net.state_dict()
    with pytest.raises(ValueError, match="read-only"):
        state["0.weight"][...] = 0
    net[0].weight.data[...] = 3
    np.testing.assert_array_equal(state["0.weight"], 3)


def test_load_converts_to_the_parameters_dtype():
    net = small_net()
    state = {k: np.asarray(v, np.float64) for k, v in small_net(1).state_dict().items()}
    net.load_state_dict(state)
    assert net[0].weight.dtype == np.float32
    assert net[2].num_batches_tracked.dtype == np.int64
    np.testing.assert_array_equal(net[0].weight.value, small_net(1)[0].weight.value)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, nn.StateDictError])
def test_load_lists_every_problem_and_changes_nothing(error):
    net = small_net()
    before = {k: v.copy() for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    state["0.weight"] = np.zeros((4, 3))
    state["4.weight"] = state.pop("3.weight")
    with pytest.raises(error) as info:
        net.load_state_dict(state)
    message = str(info.value)
    assert "state_dict does not fit Sequential" in message
    assert "missing keys: 3.weight" in message
    assert "unexpected keys: 4.weight" in message
    assert "shape of 0.weight: (4, 3) given, (3, 4) needed" in message
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_load_not_strict():
    net = small_net()
    result = net.load_state_dict({"0.bias": np.ones(3), "extra": 1.0}, strict=False)
    assert result.missing_keys == [k for k in KEYS if k not in ("0.bias", "2.num_batches_tracked")]
    assert result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(net[0].bias.value, 1)
    with pytest.raises(nn.StateDictError, match=r"shape of 0\.bias"):
        net.load_state_dict({"0.bias": np.ones(4)}, strict=False)
    with pytest.raises(TypeError, match=r"state_dict\['0.bias'\] has dtype <U1"):
        net.load_state_dict({"0.bias": np.array(["a"] * 3)}, strict=False)


@pytest.mark.parametrize("strict", [True, False])
def test_checkpoints_from_before_batches_were_counted(strict):
    """torch takes them too: the count stays what it is."""
    torch = pytest.importorskip("torch")
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4))
    old = {k: v.numpy() + 1 for k, v in theirs.state_dict().items() if "num_batches" not in k}
    ours[1].num_batches_tracked.data[...] = 7
    for net, state in ((ours, old), (theirs, {k: torch.from_numpy(v) for k, v in old.items()})):
        assert net.load_state_dict(state, strict=strict) == ([], [])
    assert [int(ours[i].num_batches_tracked.value) for i in (1, 2)] == [7, 0]
    for key, value in old.items():
        np.testing.assert_array_equal(ours.state_dict()[key], value)
        np.testing.assert_array_equal(theirs.state_dict()[key], value)
    copied = pickle.loads(pickle.dumps(ours))
    copied.load_state_dict(old)
    del old["1.running_mean"]
    with pytest.raises(nn.StateDictError, match=r"missing keys: 1\.running_mean$"):
        ours.load_state_dict(old)


def test_load_bfloat16():
    torch = pytest.importorskip("torch")
    net, values = nn.Linear(3, 2), torch.tensor([[1.0, -2.5, 3e30], [0.0, 1e-20, -1.0]]).bfloat16()
    wanted = values.float().numpy()
    net.load_state_dict({"weight": torch.nn.Parameter(values), "bias": np.zeros(2)})
    np.testing.assert_array_equal(net.weight.value, wanted)
    dtypes = pytest.importorskip("ml_dtypes")
    net.load_state_dict({"weight": -wanted.astype(dtypes.bfloat16), "bias": torch.ones(2, requires_grad=True)})
    np.testing.assert_array_equal(net.weight.value, -wanted)


def test_what_is_no_array_is_named():
    torch = pytest.importorskip("torch")
    net = nn.Linear(3, 2)
    before = net.weight.value.copy()
    eighth = torch.ones(2, 3).to(torch.float8_e4m3fn)
    for value, reason in (
        (eighth, "is a Tensor of dtype torch.float8_e4m3fn, which NumPy cannot read"),
        (torch.ones(2, 3, device="meta"), "is a Tensor of dtype torch.float32, which NumPy cannot read"),
        (torch.ones(2, 3).to_sparse(), "is a Tensor of dtype torch.float32, which NumPy cannot read"),
        ([[1.0, 2.0, 3.0], [4.0]], "is a list, which NumPy cannot read"),
        (torch.ones(2, 3, dtype=torch.complex64), "has dtype complex64; it needs to hold real numbers"),
        (None, "has dtype object; it needs to hold real numbers"),
    ):
        with pytest.raises(TypeError, match=r"state_dict\['weight'\] " + re.escape(reason)):
            net.load_state_dict({"bias": np.ones(2), "weight": value})
    np.testing.assert_array_equal(net.weight.value, before)


def test_modes():
    net = small_net()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert net.train() is net
    assert all(m.training for m in net.modules())


def test_backward_needs_a_forward_pass_in_training_mode():
    net = small_net()
    x, g = np.ones((2, 4), np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(RuntimeError, match=r"Linear\.backward has nothing saved: each forward"):
        net.backward(g)
    net(x)
    net.backward(g)
    with pytest.raises(RuntimeError, match="allows one backward pass"):
        net.backward(g)
    net(x)
    net.eval()(x)
    with pytest.raises(RuntimeError, match=r"eval mode; call train\(\) before forward"):
        net.backward(g)
    net.train()
    with pytest.raises(RuntimeError, match="nothing saved"):
        net.backward(g)


def test_zero_grad():
    net = small_net()
    net.backward(net(np.ones((2, 4), np.float32)))
    kept = net[0].weight.grad
    net.zero_grad(set_to_none=False)
    assert net[0].weight.grad is kept
    assert not kept.any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_gradients_accumulate():
    net = nn.Sequential(nn.Linear(4, 3, rng=0))
    x, g = np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)
    for _ in range(3):
        net(x)
        net.backward(g)
    np.testing.assert_array_equal(net[0].bias.grad, 6)


def test_to():
    net = small_net()
    before = net[0].weight.value
    assert net.to(np.float64) is net
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    assert net[2].running_mean.dtype == np.float64
    assert net[2].num_batches_tracked.dtype == np.int64
    np.testing.assert_array_equal(net[0].weight.value, before)
    assert net(np.ones((2, 4))).dtype == np.float64


def test_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)
    with pytest.raises(NotImplementedError, match="Module does not define backward"):
        nn.Module().backward(1)


def test_repr_is_torchs():
    T = pytest.importorskip("torch").nn

    def build(nn):
        inner = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Dropout(0.25))
        return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.ReLU(), nn.MaxPool2d(2), inner)

    assert repr(build(nn)) == repr(build(T))


# --- Sequential -----------------------------------------------------------------------------------


def test_sequential_access():
    net = small_net()
    assert len(net) == 4
    assert list(net) == [net[0], net[1], net[2], net[3]]
    assert net[-1] is net[3] is net["3"]
    part = net[1:3]
    assert isinstance(part, nn.Sequential)
    assert [name for name, _ in part.named_children()] == ["1", "2"]
    net[1] = nn.SiLU()
    assert isinstance(net[1], nn.SiLU)
    assert net.append(nn.ReLU()) is net
    assert isinstance(net["4"], nn.ReLU)
    with pytest.raises(IndexError, match="index is 5; there are 5"):
        net[5]
    with pytest.raises(KeyError, match="index is 'x'"):
        net["x"]


def test_sequential_names():
    net = nn.Sequential({"first": nn.Linear(2, 2), "second": nn.ReLU()})
    assert list(net.state_dict()) == ["first.weight", "first.bias"]
    assert net["second"] is net[1] is net.second
    for name in ("first", "forward", "", "a.b"):
        with pytest.raises(ValueError, match="name is"):
            net.add_module(name, nn.ReLU())
    with pytest.raises(TypeError, match="module '0' is the function"):
        nn.Sequential(lambda x: x)


class Watched(nn.Linear):
    """A linear layer that notes whether it was asked for the gradient of its input."""

    def backward(self, grad_output):
        self.asked = self.needs_input_grad
        return super().backward(grad_output)


def test_the_first_layer_need_not_go_back_to_its_input():
    net = nn.Sequential(nn.Flatten(), Watched(4, 3, rng=0), nn.ReLU(), Watched(3, 2, rng=1))
    x = np.random.default_rng(3).standard_normal((5, 2, 2)).astype(np.float32)
    full = net.backward(net(x))
    assert full.shape == x.shape
    assert (net[1].asked, net[3].asked) == (True, True)
    expected = [p.grad for p in net.parameters()]
    net.zero_grad()
    net.needs_input_grad = False
    assert net.backward(net(x)) is None
    assert (net[1].asked, net[3].asked) == (False, True)
    for p, grad in zip(net.parameters(), expected, strict=True):
        np.testing.assert_array_equal(p.grad, grad)
    net.needs_input_grad = True
    np.testing.assert_array_equal(net.backward(net(x)), full)


def test_nested_chains_pass_it_on():
    inner = nn.Sequential(Watched(4, 3, rng=0), nn.ReLU(), Watched(3, 3, rng=0))
    net = nn.Sequential(inner, Watched(3, 2, rng=1))
    net.needs_input_grad = False
    assert net.backward(net(np.ones((2, 4), np.float32))) is None
    assert [m.asked for m in (inner[0], inner[2], net[1])] == [False, True, True]


def test_a_chain_without_parameters():
    net = nn.Sequential(nn.ReLU(), nn.Flatten())
    np.testing.assert_array_equal(net.backward(net(np.ones((2, 3, 1)))), np.ones((2, 3, 1)))
    net.needs_input_grad = False
    assert net.backward(net(np.ones((2, 3, 1)))) is None


# --- Add and Concat -------------------------------------------------------------------------------


def test_add():
    layer = nn.Add()
    a, b, c = np.random.default_rng(1).standard_normal((3, 2, 3))
    np.testing.assert_allclose(layer(a, b, c), a + b + c, rtol=1e-15)
    g = np.ones((2, 3))
    assert all(np.array_equal(d, g) for d in layer.backward(g))
    with pytest.raises(ValueError, match=r"input 1 has shape \(2,\); it needs that of input 0"):
        layer(a, b[0, :2])
    with pytest.raises(ValueError, match="1 inputs given"):
        layer(a)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("dtypes", ["e", "f", "d", "fd", "ef", "i"])
def test_a_sum_of_several_is_numpys(count, dtypes):
    values = np.random.default_rng(count).integers(-9, 9, (count, 3, 70)) / (1 if dtypes == "i" else 4)
    terms = [value.astype(dtypes[i % len(dtypes)]) for i, value in enumerate(values)]
    y = nn.Add()(*terms)
    assert y.dtype == np.result_type(*terms)
    np.testing.assert_array_equal(y, values.sum(0))  # exact in each dtype


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_concat(dim):
    rng = np.random.default_rng(2)
    lengths = (1, 3, 2)
    parts = []
    for length in lengths:
        shape = [4, 4, 4]
        shape[dim] = length
        parts.append(rng.standard_normal(shape))
    layer = nn.Concat(dim)
    y = layer(*parts)
    np.testing.assert_array_equal(y, np.concatenate(parts, dim))
    for back, part in zip(layer.backward(y), parts, strict=True):
        np.testing.assert_array_equal(back, part)
    with pytest.raises(ValueError, match="input 1 has shape"):
        layer(parts[0], np.zeros((5, 5, 5)))
