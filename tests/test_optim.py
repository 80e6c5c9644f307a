# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers, schedules, clipping and averages: step by step against torch, and by their own formulas."""

import copy
import json

import numpy as np
import pytest

import fastconv as fc
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
    ("MultiStepLR", {"milestones": [2, 9, 5, 5], "gamma": 0.5}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 8}),
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


CYCLES = [
    {"total_steps": 20},
    {"epochs": 4, "steps_per_epoch": 5, "pct_start": 0.5, "anneal_strategy": "linear"},
    {"total_steps": 20, "three_phase": True, "div_factor": 5.0, "final_div_factor": 10.0},
    {"total_steps": 20, "pct_start": 0.0, "base_momentum": 0.5, "max_momentum": 0.6},
    {"total_steps": 20, "cycle_momentum": False},
]


@pytest.mark.parametrize("options", CYCLES)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_one_cycle_is_torchs(torch, name, options):
    ours = getattr(optim, name)([{"params": [nn.Parameter([0.0])]}, {"params": [nn.Parameter([0.0])], "lr": 7.0}])
    theirs = getattr(torch.optim, name)([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 7.0}])
    schedule = optim.OneCycleLR(ours, [0.4, 0.2], **options)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, [0.4, 0.2], **options)
    for step in range(20):
        for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            for key in ("lr", "momentum", "betas"):
                if key in other:
                    assert mine[key] == pytest.approx(other[key], rel=1e-12, abs=1e-15), (step, key)
        if step < 19:
            theirs.step()
            schedule.step()
            reference.step()
    before = copy.deepcopy(ours.param_groups)
    with pytest.raises(ValueError, match="20 times; there are 20 steps"):
        schedule.step()
    assert [group["lr"] for group in ours.param_groups] == [group["lr"] for group in before]


def chained(module, optimizer):
    """A warm-up, a cosine and steps, one after the other."""
    parts = [
        module.LinearLR(optimizer, start_factor=0.1, total_iters=4),
        module.CosineAnnealingLR(optimizer, T_max=6),
        module.StepLR(optimizer, 2),
    ]
    return module.SequentialLR(optimizer, parts, milestones=[4, 9])


def test_one_schedule_after_another_is_torchs(torch):
    own, reference = optim.SGD([nn.Parameter([0.0])], lr=0.2), torch.optim.SGD([torch.zeros(1)], lr=0.2)
    ours, theirs = chained(optim, own), chained(torch.optim.lr_scheduler, reference)
    for _ in range(16):
        assert own.param_groups[0]["lr"] == pytest.approx(reference.param_groups[0]["lr"], rel=1e-12)
        reference.step()
        ours.step()
        theirs.step()


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_is_torchs(torch, rng, dtype, factor, norm_type):
    ours = start(rng, dtype)
    give_gradients(rng, ours)
    ours.append(nn.Parameter(np.zeros(3, dtype)))  # without a gradient
    theirs = [torch.zeros(p.shape) for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        q.data = torch.from_numpy(p.value.copy())
        q.grad = None if p.grad is None else torch.from_numpy(p.grad.copy())
    limit = factor * nn.utils.get_total_norm(ours, norm_type)
    norm = nn.utils.clip_grad_norm_(ours, limit, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit, norm_type)
    # Sums of 40,000 terms, whose errors are those of sums in blocks.
    assert norm == pytest.approx(float(expected), rel=tolerance(dtype, 400))
    for p, q in zip(ours[:-1], theirs, strict=False):
        assert max_error(p.grad, q.grad.numpy()) < tolerance(dtype, 400)


def test_averages_are_torchs(torch, rng):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    net = nn.Sequential(nn.Linear(3, 4, dtype=np.float64, rng=rng), nn.Linear(4, 2, dtype=np.float64, rng=rng))
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    other.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in net.state_dict().items()})
    ours, theirs = optim.EMA(net, 0.9), AveragedModel(other, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(other)  # the first one copies
    for _ in range(5):
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            p.data[...] = rng.standard_normal(p.shape)
            q.data = torch.from_numpy(p.value.copy())
        ours.update()
        theirs.update_parameters(other)
    for key, value in theirs.module.state_dict().items():
        np.testing.assert_allclose(ours.average[key], value.numpy(), rtol=1e-14, atol=1e-14)


# --- by themselves --------------------------------------------------------------------------------


def test_an_average_takes_in_statistics_and_copies_counts(rng):
    norm = nn.BatchNorm1d(2)
    ema = optim.EMA(norm, 0.5, warm_up=True)
    norm(np.array([[0.0, 2.0], [2.0, 6.0]], np.float32))
    assert norm.running_mean.data == pytest.approx([0.1, 0.4])
    ema.update()  # the first one keeps a tenth
    assert ema.average["running_mean"] == pytest.approx([0.09, 0.36])
    assert ema.average["num_batches_tracked"] == 1
    again = optim.EMA(nn.BatchNorm1d(2))
    again.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert again.updates == 1
    np.testing.assert_array_equal(again.average["running_mean"], ema.average["running_mean"])
    before = {key: value.copy() for key, value in norm.state_dict().items()}
    with ema.applied():
        np.testing.assert_array_equal(norm.running_mean.data, ema.average["running_mean"])
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    for key, value in norm.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_averages_of_another_network():
    ema = optim.EMA(nn.Linear(2, 3))
    with pytest.raises(ValueError, match="'bias' and 0 more are not in both"):
        ema.load_state_dict(optim.EMA(nn.Linear(2, 3, bias=False)).state_dict())
    with pytest.raises(ValueError, match=r"weight of shape \(3, 3\); it needs \(3, 2\)"):
        ema.load_state_dict(optim.EMA(nn.Linear(3, 3)).state_dict())


def test_clipping_what_is_not_finite():
    p, q = nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(3, np.float16))
    p.grad, q.grad = np.array([1.0, np.inf]), np.ones(3, np.float16)
    with pytest.raises(RuntimeError, match="the norm of the gradients is inf"):
        nn.utils.clip_grad_norm_([p, q], 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(p.grad, [1.0, np.inf])
    p.grad[1] = 1.0
    assert nn.utils.clip_grad_norm_([p, q], 1.0) == pytest.approx(np.sqrt(5))
    np.testing.assert_allclose(q.grad, 1 / np.sqrt(5), rtol=1e-3)
    assert q.grad.dtype == np.float16
    assert nn.utils.get_total_norm([]) == 0.0


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
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bits_do_not_depend_on_threads_nor_on_the_company(rng, name, options, dtype):
    """Sizes around vectors and tasks; each parameter in a step of all, and in a step of its own."""
    sizes = (0, 1, 7, 8, 15, 16, 17, 31, 33, 16383, 16384, 16385, 50_000)
    values = [rng.standard_normal(n).astype(dtype) for n in sizes]
    gradients = [[rng.standard_normal(n).astype(dtype) for n in sizes] for _ in range(3)]

    def trained(groups, threads):
        parameters = [nn.Parameter(v) for v in values]
        optimisers = [getattr(optim, name)([parameters[i] for i in group], **options) for group in groups]
        with fc.threads(threads):
            for step in gradients:
                for p, g in zip(parameters, step, strict=True):
                    p.grad = g
                for optimiser in optimisers:
                    optimiser.step()
        return [p.value for p in parameters]

    expected = trained([range(len(sizes))], 1)
    for threads, groups in ((3, [range(len(sizes))]), (2, [[i] for i in range(len(sizes))])):
        for ours, theirs in zip(trained(groups, threads), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@settings
def test_a_gradient_that_does_not_fit_leaves_all_as_it_was(rng, name, options):
    parameters = start(rng)
    give_gradients(rng, parameters)
    before = [p.value.copy() for p in parameters]
    parameters[1].grad = np.ones((5, 1))
    optimiser = getattr(optim, name)(parameters, **options)
    with pytest.raises(ValueError, match=r"grad has shape \(5, 1\); the parameter's is \(5,\)"):
        optimiser.step()
    for p, old in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(p.value, old)
    assert not optimiser.state


@settings
def test_infinite_parameters_stay(name, options):
    p = nn.Parameter(np.array([np.inf, -np.inf]))
    p.grad = np.ones(2)
    if not options.get("weight_decay"):
        getattr(optim, name)([p], **options).step()
        np.testing.assert_array_equal(p.value, [np.inf, -np.inf])


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


@pytest.mark.parametrize("make", [chained, lambda module, optimizer: module.OneCycleLR(optimizer, 0.3, 20)])
def test_schedules_and_their_optimisers_go_on_from_text(make):
    """As a file has them, which knows no tuples."""
    first = optim.Adam([nn.Parameter([1.0])], lr=0.2)
    schedule = make(optim, first)
    for _ in range(6):
        schedule.step()
    text = json.dumps([first.state_dict(), schedule.state_dict()])
    second = optim.Adam([nn.Parameter([1.0])], lr=0.2)
    again = make(optim, second)
    of_optimizer, of_schedule = json.loads(text)
    second.load_state_dict(of_optimizer)
    again.load_state_dict(of_schedule)
    for _ in range(8):
        assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]
        assert second.param_groups[0]["betas"] == first.param_groups[0]["betas"]
        schedule.step()
        again.step()


def test_a_state_of_another_kind():
    p = nn.Parameter([1.0])
    sgd, adam = optim.SGD([p]), optim.Adam([p])
    with pytest.raises(ValueError, match="has no betas, eps, amsgrad; it is not of a Adam"):
        adam.load_state_dict(sgd.state_dict())
    bad = sgd.state_dict()
    bad["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr is -1\.0"):
        sgd.load_state_dict(bad)
    assert sgd.param_groups[0]["lr"] == 1e-3
    with pytest.raises(ValueError, match="has no T_max, eta_min; it is not of a CosineAnnealingLR"):
        optim.CosineAnnealingLR(sgd, 3).load_state_dict(optim.StepLR(sgd, 3).state_dict())
    with pytest.raises(ValueError, match="of 0 schedulers; it needs those of 3"):
        chained(optim, sgd).load_state_dict(optim.StepLR(sgd, 3).state_dict())


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
        (lambda p: optim.StepLR([p], 1), TypeError, "optimizer is .*; it needs to be an Optimizer"),
        (lambda p: optim.MultiStepLR(optim.SGD([p]), [-1]), ValueError, "milestones is -1"),
        (lambda p: optim.LinearLR(optim.SGD([p]), 0.0), ValueError, "start_factor is 0.0"),
        (lambda p: optim.LinearLR(optim.SGD([p]), 0.5, 2.0), ValueError, "end_factor is 2.0"),
        (lambda p: optim.OneCycleLR(optim.SGD([p]), 0.1), ValueError, "total_steps is None"),
        (
            lambda p: optim.OneCycleLR(optim.Adam([p]), 0.1, 9, max_momentum=1.0),
            ValueError,
            "max_momentum is 1.0; as the first of betas it needs to be below 1",
        ),
        (lambda p: optim.OneCycleLR(optim.SGD([p]), 0.1, 9, pct_start=2.0), ValueError, "pct_start is 2.0"),
        (lambda p: optim.OneCycleLR(optim.SGD([p]), [0.1, 0.2], 9), ValueError, "max_lr has 2 entries; .* 1 groups"),
        (lambda p: optim.SequentialLR(optim.SGD([p]), [], []), ValueError, "schedulers"),
        (lambda p: chained(optim, optim.SGD([p])).__class__(optim.SGD([p]), [1], []), TypeError, "holds 1; every"),
        (lambda p: optim.EMA(nn.Linear(1, 1), 1.0), ValueError, "decay is 1.0"),
        (lambda p: optim.EMA(p), TypeError, "module is .*; it needs to be a Module"),
        (lambda p: nn.utils.clip_grad_norm_([p], -1.0), ValueError, "max_norm is -1.0"),
        (lambda p: nn.utils.clip_grad_norm_([1.0], 1.0), TypeError, "parameters holds 1.0"),
        (lambda p: nn.utils.get_total_norm([p], 0.0), ValueError, "norm_type is 0.0"),
        (lambda p: nn.utils.get_total_norm(nn.Linear(1, 1)), TypeError, r"model.parameters\(\)"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make(nn.Parameter(np.zeros(1)))
