# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers and schedules: step by step against torch, and by their own formulas."""

import copy

import numpy as np
import pytest

from fastconv import nn, optim
from support import max_error, tolerance

STEPS = 6
SETTINGS = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
]
settings = pytest.mark.parametrize(("name", "options"), SETTINGS)
SHAPES = [(3, 4), (5,), (40_000,)]  # the last one takes several blocks


@pytest.fixture
def rng():
    return np.random.default_rng(40)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def start(rng, dtype=np.float64):
    return [nn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in SHAPES]


def give_gradients(rng, parameters):
    for p in parameters:
        p.grad = rng.standard_normal(p.shape).astype(p.dtype)


# --- against torch --------------------------------------------------------------------------------


@settings
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_are_torchs(torch, rng, name, options, dtype):
    ours = start(rng, dtype)
    theirs = [torch.from_numpy(p.value.copy()).requires_grad_() for p in ours]
    own = getattr(optim, name)(ours, **options)
    reference = getattr(torch.optim, name)(theirs, **options)
    for step in range(STEPS):
        give_gradients(rng, ours)
        if step == 2:
            ours[1].grad = None  # a parameter without a gradient stays where it is
        for p, q in zip(ours, theirs, strict=True):
            q.grad = None if p.grad is None else torch.from_numpy(p.grad.copy())
        own.step()
        reference.step()
        for p, q in zip(ours, theirs, strict=True):
            # Some ten roundings a step, each relative to numbers no larger than the parameter.
            assert max_error(p.value, q.detach().numpy()) < tolerance(dtype, 10 * STEPS)
    for p, q in zip(ours, theirs, strict=True):
        for key, value in reference.state[q].items():
            if value is not None:
                assert max_error(own.state[p][key], value.numpy()) < tolerance(dtype, 10 * STEPS)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_defaults_are_torchs(torch, name):
    own = getattr(optim, name)([nn.Parameter(np.zeros(1))]).defaults
    theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    assert {key: theirs[key] for key in own} == own


SCHEDULES = [
    ("StepLR", {"step_size": 3}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 7}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.05}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules_are_torchs(torch, name, options):
    own = optim.SGD([{"params": start(np.random.default_rng(0)), "lr": 0.2}])
    reference = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    ours = getattr(optim, name)(own, **options)
    theirs = getattr(torch.optim.lr_scheduler, name)(reference, **options)
    for _ in range(20):
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12, abs=1e-15)
        assert own.param_groups[0]["lr"] == ours.get_last_lr()[0]
        reference.step()
        ours.step()
        theirs.step()


# --- by themselves --------------------------------------------------------------------------------


def test_sgd_by_hand():
    p = nn.Parameter([1.0])
    sgd = optim.SGD([p], lr=0.5, momentum=0.5)
    positions = []
    for _ in range(3):
        p.grad = np.array([1.0])
        sgd.step()
        positions.append(p.value[0])
    assert positions == [0.5, -0.25, -1.125]  # velocities 1, 1.5, 1.75


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_first_step_of_adam_has_the_size_of_the_learning_rate(name):
    p = nn.Parameter([1.0, 1.0, 1.0])
    p.grad = np.array([1e-3, -5.0, 1e6])
    getattr(optim, name)([p], lr=0.01, weight_decay=0.0).step()
    np.testing.assert_allclose(p.value, [0.99, 1.01, 0.99], rtol=1e-6)


@settings
def test_updates_are_in_place_and_leave_the_gradient(rng, name, options):
    parameters = start(rng)
    give_gradients(rng, parameters)
    grads = [p.grad.copy() for p in parameters]
    views = [p.value for p in parameters]
    versions = [p.version for p in parameters]
    before = [v.copy() for v in views]
    getattr(optim, name)(parameters, **options).step()
    for p, view, version, old, grad in zip(parameters, views, versions, before, grads, strict=True):
        assert np.shares_memory(p.value, view)
        assert (p.value != old).all()
        assert p.version != version
        assert not p.is_lent
        np.testing.assert_array_equal(p.grad, grad)


@settings
def test_non_contiguous_gradients(rng, name, options):
    a, b = (nn.Parameter(np.ones((30, 20))) for _ in range(2))
    a.grad = rng.standard_normal((20, 30)).T
    b.grad = a.grad.copy()
    for p in (a, b):
        getattr(optim, name)([p], **options).step()
    np.testing.assert_array_equal(a.value, b.value)


@settings
def test_state_round_trip(rng, name, options):
    parameters = start(rng)
    first = getattr(optim, name)(parameters, **options)
    give_gradients(rng, parameters)
    first.step()
    twins = copy.deepcopy(parameters)
    second = getattr(optim, name)(twins, lr=7.0)
    state = first.state_dict()
    assert state["param_groups"][0]["params"] == [0, 1, 2]
    # As if it came from a file of other habits: Fortran order.
    state = copy.deepcopy(state)
    for entry in state["state"].values():
        entry.update({k: np.asfortranarray(v) for k, v in entry.items() if np.ndim(v)})
    second.load_state_dict(state)
    for _ in range(2):
        give_gradients(rng, parameters)
        for p, q in zip(parameters, twins, strict=True):
            q.grad = p.grad
        first.step()
        second.step()
    for p, q in zip(parameters, twins, strict=True):
        np.testing.assert_array_equal(p.value, q.value)


def test_a_state_of_another_network():
    p, q = nn.Parameter(np.zeros(3)), nn.Parameter(np.zeros(4))
    adam = optim.Adam([p])
    p.grad = np.ones(3)
    adam.step()
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters; it needs \[2\]"):
        optim.Adam([p, q]).load_state_dict(adam.state_dict())
    with pytest.raises(ValueError, match=r"exp_avg of shape \(3,\) for parameter 0; .*\(4,\)"):
        optim.Adam([q]).load_state_dict(adam.state_dict())


def test_groups():
    p, q = nn.Parameter([1.0]), nn.Parameter([1.0])
    sgd = optim.SGD([{"params": [p]}, {"params": q, "lr": 0.5}], lr=0.1)
    p.grad = q.grad = np.ones(1)
    sgd.step()
    assert (p.value[0], q.value[0]) == (0.9, 0.5)
    assert repr(sgd).count("lr=") == 2
    sgd.zero_grad()
    assert p.grad is None
    p.grad = np.ones(1)
    sgd.zero_grad(set_to_none=False)
    assert p.grad[0] == 0
    schedule = optim.StepLR(sgd, 1, gamma=0.5)
    schedule.step()
    assert [group["lr"] for group in sgd.param_groups] == [0.05, 0.25]


def test_a_schedule_goes_on_where_another_was():
    sgd = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    first = optim.CosineAnnealingLR(sgd, 10)
    for _ in range(4):
        first.step()
    other = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    with pytest.raises(ValueError, match="last_epoch is 4; to resume"):
        optim.CosineAnnealingLR(other, 10, last_epoch=4)
    other.load_state_dict(sgd.state_dict())
    second = optim.CosineAnnealingLR(other, 10)
    second.load_state_dict(first.state_dict())
    first.step()
    second.step()
    assert other.param_groups[0]["lr"] == sgd.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([]), ValueError, "params is empty"),
        (lambda p: optim.SGD([np.zeros(1)]), TypeError, "params holds ndarray"),
        (lambda p: optim.SGD([p, p]), ValueError, "more than once"),
        (lambda p: optim.SGD([p], lr=-1.0), ValueError, "lr is -1.0; .* at least 0"),
        (lambda p: optim.SGD([p], lr=float("nan")), ValueError, "lr is nan"),
        (lambda p: optim.SGD([p], momentum=-1.0), ValueError, "momentum is -1.0"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov needs momentum above 0"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), ValueError, r"betas is \(1.0, 0.9\)"),
        (lambda p: optim.AdamW([p], eps=-1e-9), ValueError, "eps is -1e-09"),
        (lambda p: optim.StepLR(optim.SGD([p]), 0), ValueError, "step_size is 0"),
        (lambda p: optim.CosineAnnealingLR(optim.SGD([p]), 0), ValueError, "T_max is 0"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make(nn.Parameter(np.zeros(1)))
