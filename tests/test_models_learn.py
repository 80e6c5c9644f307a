# SPDX-License-Identifier: BSD-3-Clause
"""Networks learn: gradients of their blocks by differences, one step of training, one batch learnt by heart."""

import numpy as np
import pytest

from fastconv import models, nn, optim
from fastconv.models._densenet import DenseLayer, _transition
from fastconv.models._googlenet import Inception, _auxiliary
from fastconv.models._mobilenet_v2 import InvertedResidual
from fastconv.models._parts import Branched, Layers
from fastconv.models._resnet import BasicBlock, Bottleneck
from fastconv.models._squeezenet import Fire
from support import max_error, narrow, numerical_gradient

# --- blocks -----------------------------------------------------------------------------------------------------------

# Each takes images of four channels.
BLOCKS = {
    "BasicBlock": lambda layers: BasicBlock(layers, 4, 4, 1),
    "BasicBlock, projected": lambda layers: BasicBlock(layers, 4, 5, 2),
    "Bottleneck": lambda layers: Bottleneck(layers, 4, 1, 1),
    "Bottleneck, projected": lambda layers: Bottleneck(layers, 4, 2, 2),
    "Inception": lambda layers: Inception(layers, 4, 2, 3, 2, 2, 3, 1),
    "auxiliary head": lambda layers: _auxiliary(layers, 4, 3, 0.0),
    "Fire": lambda layers: Fire(layers, 4, 3, 2),
    "InvertedResidual": lambda layers: InvertedResidual(layers, 4, 4, 1, 2),
    "InvertedResidual, narrowing": lambda layers: InvertedResidual(layers, 4, 3, 2, 2),
    "InvertedResidual, not widening": lambda layers: InvertedResidual(layers, 4, 4, 1, 1),
    "DenseLayer": lambda layers: DenseLayer(layers, 4),
    "transition": lambda layers: _transition(layers, 4),
}
# A step of which hardly any crosses the kink of one of thousands of ReLUs, and the relative error that rounding leaves.
STEP, LEAST = 1e-7, 1e-6


def block_and_input(name):
    rng = np.random.default_rng(11)
    block = BLOCKS[name](Layers(np.float64, rng))
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data[...] = rng.uniform(0.5, 1.5, norm.weight.shape)
            norm.bias.data[...] = rng.normal(0, 0.3, norm.bias.shape)
    return block, rng.standard_normal((2, 4, 5, 4)), rng


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_blocks(name):
    """Of the input element by element; of each parameter along three random directions."""
    block, x, rng = block_and_input(name)
    g = rng.standard_normal(block(x).shape)
    d_input = block.backward(g)
    assert max_error(d_input, numerical_gradient(block, x, g, STEP)) < LEAST
    scale = max(np.abs(p.grad).sum() for p in block.parameters())
    for key, p in block.named_parameters():
        rest = p.value.copy()
        for _ in range(3):
            direction = rng.choice([-1.0, 1.0], p.shape)
            sides = []
            for step in (STEP, -STEP):
                p.data = rest + step * direction
                sides.append(np.sum(block(x) * g))
            slope = (sides[0] - sides[1]) / (2 * STEP)
            assert slope == pytest.approx(np.sum(p.grad * direction), rel=1e-5, abs=1e-6 * scale), key
        p.data = rest


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_that_come_first_skip_the_gradient_of_their_input(name):
    block, x, rng = block_and_input(name)
    g = rng.standard_normal(block(x).shape)
    block.backward(g)
    expected = {key: p.grad.copy() for key, p in block.named_parameters()}
    block.zero_grad()
    block.needs_input_grad = False
    block(x)
    assert block.backward(g) is None
    for key, p in block.named_parameters():
        np.testing.assert_array_equal(p.grad, expected[key], err_msg=key)


def test_a_block_leaves_its_input_and_the_gradient_as_they_were():
    for name in BLOCKS:
        block, x, rng = block_and_input(name)
        before = x.copy()
        y = block(x)
        g = rng.standard_normal(y.shape)
        gradient = g.copy()
        block.backward(g)
        block.eval()(x)
        np.testing.assert_array_equal(x, before, err_msg=name)
        np.testing.assert_array_equal(g, gradient, err_msg=name)


def test_a_block_without_branches_says_so():
    with pytest.raises(NotImplementedError, match="Branched does not say what its branches are"):
        Branched()(np.zeros(1))


# --- whole networks ---------------------------------------------------------------------------------------------------

# name, arguments, learning rate, side, seed: SqueezeNet's last layer is a ReLU, which from many a seed ends as zero.
LEARNERS = [
    ("lenet5", {}, 1e-3, 32, 0),
    ("alexnet", {"dropout": 0.0}, 3e-4, 63, 0),
    ("zfnet", {"dropout": 0.0}, 3e-4, 53, 0),
    ("vgg11", {"dropout": 0.0}, 3e-4, 32, 0),
    ("vgg13", {"batch_norm": True, "dropout": 0.0}, 3e-4, 32, 0),
    ("vgg16", {"batch_norm": True, "dropout": 0.0}, 3e-4, 32, 0),
    ("vgg19", {"batch_norm": True, "dropout": 0.0}, 3e-4, 32, 0),
    ("googlenet", {}, 1e-3, 32, 0),
    ("googlenet", {"aux_logits": False}, 1e-3, 32, 0),
    ("resnet18", {}, 1e-3, 32, 0),
    ("resnet34", {}, 1e-3, 32, 0),
    ("resnet50", {}, 1e-3, 32, 0),
    ("mobilenet_v1", {}, 1e-3, 32, 0),
    ("mobilenet_v2", {}, 1e-3, 32, 0),
    ("squeezenet", {"dropout": 0.0}, 3e-4, 32, 1),
    ("densenet121", {}, 1e-3, 32, 0),
]
SLOW = ("vgg13", "vgg16", "vgg19", "resnet34", "resnet50", "densenet121")
WIDE = ("alexnet", "zfnet", "vgg11", "vgg13", "vgg16", "vgg19")
TARGET = np.array([0, 1, 2, 0])


def pictures(rng, channels, side):
    """Slopes to the right, downwards and towards corners, with noise."""
    ramp = np.linspace(-2, 2, side)
    kinds = np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], side), np.outer(ramp, ramp) / 2])
    noise = 0.3 * rng.standard_normal((len(TARGET), channels, side, side))
    return (kinds[TARGET][:, None] + noise).astype(np.float32)


class Trainer:
    """Steps on one batch; the heads of GoogLeNet weigh as in the paper."""

    def __init__(self, net, x, optimizer):
        net.needs_input_grad = False
        self.net, self.x, self.optimizer = net, x, optimizer
        self.weights = (1.0, 0.3, 0.3) if getattr(net, "aux1", None) else (1.0,)
        self.losses = [nn.CrossEntropyLoss() for _ in self.weights]

    def loss(self):
        """Of the logits alone; the others' losses are there to go back from."""
        outputs = self.net(self.x)
        outputs = outputs if isinstance(outputs, models.GoogLeNetOutputs) else (outputs,)
        errors = [loss(y, TARGET) for loss, y in zip(self.losses, outputs, strict=True)]
        return errors[0]

    def step(self):
        error = self.loss()
        self.net.zero_grad()
        gradients = [loss.backward(weight) for loss, weight in zip(self.losses, self.weights, strict=True)]
        self.net.backward(gradients if len(gradients) > 1 else gradients[0])
        self.optimizer.step()
        return error


@pytest.mark.parametrize(
    ("name", "arguments", "rate", "side", "seed"),
    [pytest.param(*case, marks=pytest.mark.slow if case[0] in SLOW else ()) for case in LEARNERS],
    ids=["-".join([case[0], *case[1]]) for case in LEARNERS],
)
def test_a_batch_is_learnt_by_heart(monkeypatch, name, arguments, rate, side, seed):
    rng = np.random.default_rng(seed)
    channels = 1 if name == "lenet5" else 3
    x = pictures(rng, channels, side)
    net = models.get(name)(num_classes=3, in_channels=channels, rng=rng, **arguments)
    if name in WIDE:
        narrow(net, lambda inputs, outputs: nn.Linear(inputs, outputs, rng=rng), 64)
    trainer = Trainer(net, x, optim.Adam(net.parameters(), lr=rate))
    first = trainer.step()
    assert all(p.grad is not None and np.isfinite(p.grad).all() for p in net.parameters())
    assert any(trainer.step() < first / 5 for _ in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "zfnet", "vgg16"])
def test_a_step_of_the_whole_of_the_widest(name):
    rng = np.random.default_rng(0)
    net = models.get(name)(num_classes=3, dropout=0.0, rng=rng)
    trainer = Trainer(net, pictures(rng, 3, 96), optim.SGD(net.parameters(), lr=1e-3))
    first = trainer.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert trainer.loss() < first
