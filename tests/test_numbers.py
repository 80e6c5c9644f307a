# SPDX-License-Identifier: BSD-3-Clause
"""Every number that a caller can write, far out of range: a right result or an error as documented, at once."""

import functools
import inspect
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, optim

HUGE = (2**31, 2**48, 2**48 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**400, 10**5000)
NUMBERS = (*HUGE, *(-n for n in HUGE), -(2**63) - 1, np.inf, -np.inf, np.nan, 1e300, -1e300)
ALLOWED = (ValueError, TypeError, NotImplementedError, MemoryError)
#: Parameters that also take one number per axis, or a pair.
PER_AXIS = ("kernel_size", "stride", "padding", "dilation", "output_padding", "output_size")
NO_NUMBERS = {
    *(
        f"{prefix}{name}"
        for name in ("relu", "relu6", "sigmoid", "silu", "hardswish", "tanh")
        for prefix in ("", "grad.")
    ),
    *("linear", "mse_loss", "grad.linear", "global_avg_pool", "global_max_pool"),
    *(f"grad.max_unpool{n}d" for n in (1, 2, 3)),
    *(
        "nn.ReLU",
        "nn.ReLU6",
        "nn.SiLU",
        "nn.Hardswish",
        "nn.Sigmoid",
        "nn.Tanh",
        "nn.Identity",
        "nn.Sequential",
        "nn.Add",
        "nn.MSELoss",
    ),
}


def images(rank, size=4):
    return np.ones((1, 2, *[size] * rank), np.float32)


def table():
    """Calls that work, by the name of the function: what replaces what in them."""
    calls = {}
    for n in (1, 2, 3):
        x, w, small, where = (
            images(n),
            np.ones((2, 2, *[3] * n), np.float32),
            images(n, 2),
            np.zeros((1, 2, *[2] * n), int),
        )
        steps = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        window = {"kernel_size": 2, "stride": 2, "padding": 0}
        mean = window if n == 1 else {**window, "divisor_override": 2}
        more = {**steps, "output_padding": 0}
        calls |= {
            f"conv{n}d": {"input": x, "weight": w, **steps},
            f"conv_transpose{n}d": {"input": x, "weight": w, **more},
            f"grad.conv{n}d": {"input": x, "weight": w, "grad_output": small, "needs": ("weight",), **steps},
            f"grad.conv{n}d_input": {"input_size": x.shape, "weight": w, "grad_output": small, **steps},
            f"grad.conv{n}d_weight": {"input": x, "weight_size": w.shape, "grad_output": small, **steps},
            f"max_pool{n}d": {"input": x, "dilation": 1, **window},
            f"grad.max_pool{n}d": {"grad_output": small, "indices": where, "input_size": x.shape},
            f"avg_pool{n}d": {"input": x, **mean},
            f"grad.avg_pool{n}d": {"grad_output": small, "input_size": x.shape, **mean},
            f"max_unpool{n}d": {"input": small, "indices": where, "output_size": (4,) * n, **window},
            f"max_unpool{n}d ": {"input": small, "indices": where, **window},
            f"adaptive_avg_pool{n}d": {"input": x, "output_size": 2},
            f"adaptive_max_pool{n}d": {"input": x, "output_size": 2},
            f"grad.adaptive_avg_pool{n}d": {"grad_output": small, "input_size": x.shape},
            f"grad.adaptive_max_pool{n}d": {"grad_output": small, "indices": where, "input_size": x.shape},
            f"nn.Conv{n}d": {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "rng": 0, **steps},
            f"nn.ConvTranspose{n}d": {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "rng": 0, **more},
            f"nn.MaxPool{n}d": {"dilation": 1, **window},
            f"nn.AvgPool{n}d": mean,
            f"nn.MaxUnpool{n}d": window,
            f"nn.AdaptiveAvgPool{n}d": {"output_size": 2},
            f"nn.AdaptiveMaxPool{n}d": {"output_size": 2},
            f"nn.BatchNorm{n}d": {"num_features": 2, "eps": 1e-5, "momentum": 0.1},
        }
        wide = images(n, 6)
        for what, sizes in (
            ("input", {"input_size": x.shape, "weight": w}),
            ("weight", {"input": x, "weight_size": w.shape}),
        ):
            calls[f"grad.conv_transpose{n}d_{what}"] = {**sizes, "grad_output": wide, **more}
        calls[f"grad.conv_transpose{n}d"] = {"input": x, "weight": w, "grad_output": wide, **more}
        power = {"norm_type": 2.0, "kernel_size": 2, "stride": 2}
        calls[f"lp_pool{n}d"] = {"input": x, **power}
        calls[f"grad.lp_pool{n}d"] = {"grad_output": small, "input": x, **power}
        calls[f"nn.LPPool{n}d"] = power
    x, vector = images(2), np.ones(2, np.float32)
    near = {"size": 2, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    scores, labels = np.ones((2, 3), np.float32), np.array([0, 1])
    ignore = {"ignore_index": 5, "label_smoothing": 0.1}
    shapes = {"input_shape": x.shape, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    decay = {"lr": 0.1, "weight_decay": 0.1}
    adam = {"betas": (0.9, 0.99), "eps": 1e-8, **decay}
    cycle = {"max_lr": (1.0,), "pct_start": 0.5, "base_momentum": 0.8, "max_momentum": 0.9, "last_epoch": -1}
    cycle |= {"div_factor": 25.0, "final_div_factor": 1e4}
    for mode in ("constant", "reflect", "replicate", "circular"):
        calls[f"pad {mode}"] = {"input": x, "pad": (1, 1), "mode": mode}
        calls[f"grad.pad {mode}"] = {"grad_output": x, "input_size": (1, 2, 4, 2), "pad": (1, 1), "mode": mode}
    calls |= {
        "pad": {"input": x, "pad": (1, 1), "value": 0.0},
        "pad of integers": {"input": np.ones(3, np.uint8), "pad": [1, 1], "value": 0},
        "grad.pad": {"grad_output": x, "input_size": (1, 2, 4, 2), "pad": (1, 1)},
        "local_response_norm": {"input": x, **near},
        "grad.local_response_norm": {"grad_output": x, "input": x, **near},
        "nn.LocalResponseNorm": near,
        "nn.LeakyReLU": {"negative_slope": 0.1},
        "batch_norm": {"input": x, "running_mean": vector, "running_var": vector, "training": True, "momentum": 0.1},
        "batch_norm in use": {"input": x, "running_mean": vector, "running_var": vector, "eps": 1e-5},
        "grad.batch_norm": {"grad_output": x, "input": x, "training": True, "eps": 1e-5},
        "layer_norm": {"input": x, "normalized_shape": x.shape[2:], "eps": 1e-5},
        "grad.layer_norm": {"grad_output": x, "input": x, "normalized_shape": x.shape[-1], "eps": 1e-5},
        "nn.LayerNorm": {"normalized_shape": 4},
        "group_norm": {"input": x, "num_groups": 2, "eps": 1e-5},
        "grad.group_norm": {"grad_output": x, "input": x, "num_groups": 1, "eps": 1e-5},
        "nn.GroupNorm": {"num_groups": 2, "num_channels": 2},
        "instance_norm": {"input": x, "momentum": 0.1, "eps": 1e-5},
        "grad.instance_norm": {"grad_output": x, "input": x, "eps": 1e-5},
        **{f"nn.InstanceNorm{n}d": {"num_features": 2} for n in (1, 2, 3)},
        "interpolate": {"input": x, "size": 5},
        "interpolate by factors": {"input": x, "scale_factor": 2.0},
        "grad.interpolate": {"grad_output": x, "input_size": (*x.shape[:2], 3, 5), "size": x.shape[2:]},
        "nn.Upsample": {"scale_factor": 2.0},
        "leaky_relu": {"input": x, "negative_slope": 0.1},
        "grad.leaky_relu": {"grad_output": x, "input": x, "negative_slope": 0.1},
        "softmax": {"input": x, "dim": 1},
        "log_softmax": {"input": x, "dim": 1},
        "grad.softmax": {"grad_output": x, "output": x, "dim": 1},
        "grad.log_softmax": {"grad_output": x, "output": x, "dim": 1},
        "nn.Softmax": {"dim": 1},
        "dropout": {"input": x, "p": 0.5, "rng": 1},
        "grad.dropout": {"grad_output": x, "mask": x > 0, "p": 0.5},
        "nn.Dropout": {"p": 0.5, "rng": 1},
        "cross_entropy": {"input": scores, "target": labels, **ignore},
        "cross_entropy of bytes": {"input": scores, "target": labels.astype(np.uint8), **ignore},
        "grad.cross_entropy": {"grad_output": 1.0, "input": scores, "target": labels, **ignore},
        "nn.CrossEntropyLoss": ignore,
        "grad.mse_loss": {"grad_output": 1.0, "input": vector, "target": vector},
        "grad.global_avg_pool": {"grad_output": images(2, 1), "input_size": x.shape},
        "grad.global_max_pool": {
            "grad_output": images(2, 1),
            "indices": np.zeros((1, 2, 1, 1), int),
            "input_size": x.shape,
        },
        "nn.Linear": {"in_features": 4, "out_features": 2, "rng": 0},
        "nn.Flatten": {"start_dim": 1, "end_dim": 2},
        "nn.Concat": {"dim": 1},
        "ConvPlan": {"weight": np.ones((2, 2, 3, 3), np.float32), **shapes},
        "algorithms": {"weight_shape": (2, 2, 3, 3), **shapes},
        "fma_peak": {"seconds": 0.0, "num_threads": 1},
        "set_num_threads": {"n": 1},
        "threads": {"n": 1},
        "optim.SGD": {"momentum": 0.5, "dampening": 0.0, **decay},
        "optim.Adam": adam,
        "optim.AdamW": adam,
        "optim.StepLR": {"step_size": 2, "gamma": 0.1, "last_epoch": -1},
        "optim.CosineAnnealingLR": {"T_max": 4, "eta_min": 0.0, "last_epoch": -1},
        "optim.MultiStepLR": {"milestones": (1, 3), "gamma": 0.1, "last_epoch": -1},
        "optim.LinearLR": {"start_factor": 0.5, "end_factor": 1.0, "total_iters": 2, "last_epoch": -1},
        "optim.OneCycleLR": {"total_steps": 4, **cycle},
        "optim.OneCycleLR of Adam": {"total_steps": 4, "three_phase": True, **cycle},
        "optim.OneCycleLR of epochs": {"epochs": 2, "steps_per_epoch": 2, "anneal_strategy": "linear", **cycle},
        "optim.SequentialLR": {"milestones": (1, 3), "last_epoch": -1},
        "optim.EMA": {"decay": 0.9},
    }
    return calls


def call(name, arguments):
    """The function, and a pass through what it makes."""
    name, *of = name.split()
    function = functools.reduce(getattr, name.split("."), fc)
    if name == "optim.EMA":
        average = function(nn.BatchNorm1d(2), **arguments)
        average.update()
        with average.applied():
            return
    if name.startswith("optim."):
        parameter = nn.Parameter(np.ones(2))
        parameter.grad = np.ones(2)
        if not name.endswith("LR"):
            optimizer = function([parameter], **arguments)
            for _ in range(3):
                optimizer.step()
            return
        optimizer = (optim.Adam if of == ["of", "Adam"] else optim.SGD)([parameter], lr=0.1)
        if name == "optim.SequentialLR":
            parts = optim.LinearLR(optimizer), optim.StepLR(optimizer, 1), optim.CosineAnnealingLR(optimizer, 4)
            arguments = {"schedulers": parts, **arguments}
        schedule = function(optimizer, **arguments)
        for _ in range(3):
            optimizer.step()
            schedule.step()
        return
    made = function(**arguments)
    if name == "threads":
        with made:
            return
    if isinstance(made, fc.ConvPlan):
        made(images(2))
        made.explain()
    if isinstance(made, nn.Module):
        rank = int(name[-2]) if name.endswith("d") and name[-2].isdigit() else 2
        if name == "nn.CrossEntropyLoss":
            made(np.ones((2, 3)), np.array([0, 1]))
            made.backward()
        elif "Unpool" in name:
            made(images(rank, 2), np.zeros((1, 2, *[2] * rank), int))
        elif name == "nn.Concat":
            made(images(2), images(2))
        else:
            made.backward(np.ones_like(made(images(rank))))
            made.eval()(images(rank))


def variants(name, key, value):
    """What to write in place of a number, or of each of several."""
    if isinstance(value, tuple):
        for number in NUMBERS:
            yield (number,) * len(value)
            for i in range(len(value)):
                yield (*value[:i], number, *value[i + 1 :])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from NUMBERS
        if key in PER_AXIS:
            rank = next((int(c) for c in name if c.isdigit()), 2)
            for number in NUMBERS:
                yield (*(value,) * (rank - 1), number)
                if key == "padding":
                    yield (*((0, 0),) * (rank - 1), (0, number))


def sweep(seconds):
    """All of it; prints what is neither a result nor an error of the kinds that are documented."""

    def late(*_):
        raise TimeoutError(f"longer than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    for name, arguments in table().items():
        call(name, arguments)
        for key, value in arguments.items():
            for number in variants(name, key, value):
                signal.alarm(seconds)
                try:
                    call(name, {**arguments, key: number})
                except ALLOWED:
                    pass
                except BaseException as error:
                    print(f"{name}({key}={fc._args.said(number)}): {type(error).__name__}: {str(error)[:200]}")
                finally:
                    signal.alarm(0)


def public():
    yield from fc.functional.__all__
    yield from (f"grad.{name}" for name in fc.grad.__all__)
    for room in (nn, optim):
        for name in room.__all__:
            thing = getattr(room, name)
            if inspect.isclass(thing) and not name.endswith(("Error", "Result")):
                yield f"{room.__name__.removeprefix('fastconv.')}.{name}"


def test_the_table_is_complete():
    bases = {"nn.Module", "nn.Parameter", "nn.Buffer", "optim.Optimizer", "optim.Schedule"}
    known = {name.split()[0] for name in table()}
    assert set(public()) - bases - NO_NUMBERS <= known
    assert not known & NO_NUMBERS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by POSIX's means")
def test_numbers_far_out_of_range():
    script = (
        "import resource, warnings, test_numbers; warnings.simplefilter('ignore');"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); test_numbers.sweep(20)"
    )
    command = [sys.executable, "-c", script]
    place = Path(__file__).parent
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr[-2000:]


def test_the_argument_is_named():
    x = images(2)
    for message, function in {
        r"value is 300; it needs to be one that input's uint8": lambda: fc.pad(np.ones(2, np.uint8), (1, 1), value=300),
        r"eps is an integer of 1329 bits; it needs to be within": lambda: fc.batch_norm(x, None, None, eps=10**400),
        r"padding is an integer of 16610 bits; it needs": lambda: fc.avg_pool2d(x, 2, padding=10**5000),
        r"seconds is inf; it needs to be from 0 to 60": lambda: fc.fma_peak(seconds=np.inf),
        r"eps is an integer of 1329 bits; it needs to be within a": lambda: nn.BatchNorm2d(2, eps=10**400)(x),
        r"momentum is an integer of 1329 bits": lambda: nn.BatchNorm2d(2, momentum=10**400)(x),
        r"ignore_index is 9223372036854775808; it needs to be at most": lambda: fc.cross_entropy(
            np.ones(2), 0, ignore_index=2**63
        ),
        r"label_smoothing is an integer of 16610 bits": lambda: fc.cross_entropy(
            np.ones(2), 0, label_smoothing=10**5000
        ),
        r"lr is an integer of 1329 bits": lambda: optim.SGD([nn.Parameter([1.0])], lr=10**400),
        r"grad_output is an integer of 1329 bits": lambda: fc.grad.mse_loss(10**400, x, x),
    }.items():
        with pytest.raises(ValueError, match=message):
            function()
    with pytest.raises(TypeError, match="eps is '1'; it needs a number"):
        fc.batch_norm(x, None, None, eps="1")


def test_a_rate_may_grow_beyond_all_bounds():
    sgd = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    schedule = optim.StepLR(sgd, 1, gamma=1e200)
    rates = []
    for _ in range(3):
        schedule.step()
        rates.append(sgd.param_groups[0]["lr"])
    assert rates == [1e200, np.inf, np.inf]
