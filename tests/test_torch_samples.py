# SPDX-License-Identifier: BSD-3-Clause
"""torch's own samples of functions and layers, with gradients of two orders: behind our doors, and by our functions."""

import inspect
import itertools
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch's samples need it")

import fastconv as fc  # noqa: E402
import fastconv.nn as fnn  # noqa: E402
import fastconv.torch as ft  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SERVED = ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "max_unpool")
OPERATORS = {
    op.name.rpartition(".")[2]: op for op in op_db if op.name.startswith("nn.functional.") or op.name == "softmax"
}
DOORS = [name for name in OPERATORS if name[:-2] in SERVED and name[-2:] in ("1d", "2d", "3d")]
OURS = sorted(name for name in fc.functional.__all__ if name in OPERATORS and name != "dropout")
LAYERS = {m.module_cls.__name__: m for m in module_db if hasattr(fnn, m.module_cls.__name__)}


def tensors(values):
    return [v for v in (values if isinstance(values, (tuple, list)) else [values]) if isinstance(v, torch.Tensor)]


def outcome(function, sample, orders):
    """Results and gradients of gradients, or the error."""
    leaves = [v for v in tensors([sample.input, *sample.args, *sample.kwargs.values()]) if v.requires_grad]
    try:
        found = tensors(function(sample.input, *sample.args, **sample.kwargs))
        terms, results = found, list(found)
        for _ in range(orders):
            terms = [t for t in terms if t.requires_grad]
            seeds = [torch.cos(torch.arange(t.numel()).to(t)).reshape(t.shape) for t in terms]
            found = torch.autograd.grad(terms, leaves, seeds, create_graph=True, allow_unused=True) if terms else ()
            # Of what a leaf does not matter to, some operators say nothing and others zero.
            terms = [leaf.detach() * 0 if t is None else t for t, leaf in itertools.zip_longest(found, leaves)]
            results += terms
    except Exception as error:
        return type(error), str(error)
    return [r.detach() for r in results]


@pytest.mark.parametrize("name", DOORS)
def test_torchs_samples_under_the_switch(name):
    op, served = OPERATORS[name], 0
    cases = [(s, orders) for orders in (0, 2) for s in op.sample_inputs("cpu", torch.float64, requires_grad=orders > 0)]
    wrong = op.error_inputs("cpu") if op.error_inputs_func else ()
    cases += [(error.sample_input, 0) for error in wrong if isinstance(error.sample_input.input, torch.Tensor)]
    for sample, orders in cases:
        with torch.set_grad_enabled(orders > 0):
            expected = outcome(op.op, sample, orders)
            for door in (ft.accelerate(), ft.accelerate(frozen=True)):
                with door:
                    for _ in range(1 if orders else 2):  # packed the second time
                        found = outcome(op.op, sample, orders)
                if isinstance(expected, tuple):
                    assert found == expected
                    continue
                for ours, theirs in zip(found, expected, strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, check_stride=False)
                served += 1
    assert served > 0


def arrays(value):
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, torch.dtype):
        return np.dtype(str(value).removeprefix("torch."))
    return type(value)(map(arrays, value)) if isinstance(value, (tuple, list)) else value


def agree(ours, theirs, tolerance):
    ours = ours if isinstance(ours, (tuple, list)) else [ours]
    for a, b in zip(ours, tensors(theirs), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance, strict=True)


@pytest.mark.parametrize("name", OURS)
def test_torchs_samples_by_our_functions(name):
    op, function = OPERATORS[name], getattr(fc, name)
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=False):
        try:
            expected = op.op(sample.input, *sample.args, **sample.kwargs)
        except Exception:  # not by this torch
            continue
        if name == "batch_norm" and sample.input.ndim < 2:  # without channels; torch takes it if it is empty
            continue
        options = {key: arrays(value) for key, value in sample.kwargs.items()}
        agree(function(arrays(sample.input), *map(arrays, sample.args), **options), expected, 1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_torchs_samples_by_our_layers(name, training):
    info, layer = LAYERS[name], getattr(fnn, name)
    known = inspect.signature(layer).parameters
    for sample in info.module_inputs_func(info, "cpu", torch.float32, False, training):
        made, given = sample.constructor_input, sample.forward_input
        options = {key: arrays(value) for key, value in made.kwargs.items() if key not in ("device", "dtype")}
        if not set(options) <= set(known):
            continue
        theirs = info.module_cls(*made.args, **made.kwargs).train(training)
        ours = layer(*map(arrays, made.args), **options)
        ours = ours.train() if training else ours.eval()
        ours.load_state_dict({key: value.numpy().copy() for key, value in theirs.state_dict().items()})
        try:
            expected = theirs(*given.args, **given.kwargs)
        except Exception:
            continue
        if name != "Dropout" or not training:
            agree(ours(*map(arrays, given.args), **{k: arrays(v) for k, v in given.kwargs.items()}), expected, 1e-4)
