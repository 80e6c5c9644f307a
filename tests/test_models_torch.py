# SPDX-License-Identifier: BSD-3-Clause
"""Networks beside the same in torch, built by hand with torchvision's names: states, results, gradients."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastconv import models, nn  # noqa: E402
from support import max_error, narrow  # noqa: E402
from torch_models import BUILD  # noqa: E402

# name, arguments beyond the number of classes, side of the images in eval mode and in training
CASES = [
    ("alexnet", {}, 224, 63),
    ("zfnet", {}, 224, 53),
    ("vgg11", {}, 96, 32),
    ("vgg11", {"batch_norm": True}, 64, 64),
    ("googlenet", {}, 224, 64),
    ("googlenet", {"aux_logits": False}, 97, 47),
    ("resnet18", {}, 224, 64),
    ("resnet34", {}, 97, 64),
    ("resnet50", {}, 224, 64),
    ("mobilenet_v1", {}, 224, 64),
    ("mobilenet_v2", {}, 224, 64),
    ("squeezenet", {}, 224, 64),
    ("squeezenet", {"version": "1_1"}, 224, 47),
    ("densenet121", {}, 224, 64),
]
CLASSES = 7
WIDE = ("alexnet", "zfnet", "vgg11")


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """All weights are loaded: do not draw those of a hundred million connections first."""
    monkeypatch.setattr(nn.init, "_fill", lambda tensor, *_: tensor)


def pair(name, arguments, dtype, is_narrow=False):
    """Ours with torch's weights, and torch's; statistics as after some training, dropout off.

    With `is_narrow`, the linear layers of `WIDE` ones are narrow.
    """
    torch.manual_seed(3)
    theirs, ours = getattr(BUILD, name)(CLASSES, **arguments), models.get(name)(CLASSES, dtype=dtype, **arguments)
    if is_narrow and name in WIDE:
        narrow(theirs, torch.nn.Linear)
        narrow(ours, lambda inputs, outputs: nn.Linear(inputs, outputs, dtype=dtype))
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d):  # so that signals neither vanish nor grow
            std = math.sqrt(2 / module.weight[0].numel())
            torch.nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.1)
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    theirs.to(getattr(torch, dtype))
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def cases(*slow):
    """A test for each network."""
    ids = ["-".join([case[0], *case[1]]) for case in CASES]
    marked = [pytest.param(*case, marks=pytest.mark.slow if case[0] in slow else ()) for case in CASES]
    return pytest.mark.parametrize(("name", "arguments", "side", "small"), marked, ids=ids)


@pytest.mark.parametrize("name", [name for name in models.names() if hasattr(BUILD, name)])
def test_names_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        theirs = getattr(BUILD, name)(1000).state_dict()
    ours = models.get(name)().state_dict()
    assert list(ours) == list(theirs)
    assert {key: value.shape for key, value in ours.items()} == {key: tuple(v.shape) for key, v in theirs.items()}


@cases(*WIDE, "resnet34")
def test_inference_is_torchs(name, arguments, side, small):
    ours, theirs = pair(name, arguments, "float32")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    x = np.random.default_rng(1).standard_normal((2, 3, side, side)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    assert expected.std() > 1e-3 * np.abs(expected).max() > 0
    assert max_error(ours.eval()(x), expected) < 1e-5
    assert max_error(ours(x[:1]), expected[:1]) < 1e-5


@cases("resnet34")
def test_a_training_step_is_torchs(name, arguments, side, small):
    """In float64: behind batch norm over few pixels float32 leaves nothing of some gradients, in torch as here."""
    ours, theirs = pair(name, arguments, "float64", is_narrow=True)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 3, small, small))
    t = torch.from_numpy(x).requires_grad_()
    outputs, expected = ours(x), theirs(t)
    heads = isinstance(expected, tuple)
    assert isinstance(outputs, models.GoogLeNetOutputs) == heads
    outputs, expected = (outputs, expected) if heads else ((outputs,), (expected,))
    gradients = [rng.standard_normal(y.shape) for y in outputs]
    for y, z in zip(outputs, expected, strict=True):
        assert max_error(y, z.detach().numpy()) < 1e-11
    torch.autograd.backward(expected, [torch.from_numpy(g) for g in gradients])
    d_input = ours.backward(gradients if heads else gradients[0])
    assert max_error(d_input, t.grad.numpy()) < 1e-10
    largest = max(float(p.grad.abs().max()) for p in theirs.parameters())
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Shifts before a batch norm have no gradient but that of rounding.
        assert max_error(p.grad, q.grad.numpy(), scale=max(float(q.grad.abs().max()), 1e-6 * largest)) < 1e-8, key
    for key, value in theirs.state_dict().items():
        assert max_error(ours.state_dict()[key], value.numpy()) < 1e-11, key


@pytest.mark.parametrize("missing", [1, 2])
def test_auxiliary_heads_without_a_gradient(monkeypatch, missing):
    """None counts as zero; anything but three gradients is refused."""
    monkeypatch.undo()
    ours = models.googlenet(3, rng=0, dropout=0.0, dropout_aux=0.0, dtype=np.float64)
    x = np.random.default_rng(4).standard_normal((2, 3, 32, 32))
    gradients = [np.random.default_rng(i).standard_normal((2, 3)) for i in range(3)]
    results = []
    for absent in (None, np.zeros((2, 3))):
        ours(x)
        results.append(
            ours.backward(models.GoogLeNetOutputs(*(absent if i == missing else g for i, g in enumerate(gradients))))
        )
    np.testing.assert_array_equal(*results)
    ours(x)
    with pytest.raises(TypeError, match=r"grad_output is an array of shape .* logits, aux_logits2 and aux_logits1"):
        ours.backward(gradients[0])
