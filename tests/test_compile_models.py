# SPDX-License-Identifier: BSD-3-Clause
"""The architectures of the field, compiled: what they compute layer by layer, and what is left of their layers."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import models, nn
from support import max_error

# Of each: images as small as its layers allow, and operators that must not be left.
SMALL = {
    "lenet5": (1, 32),
    "alexnet": (3, 64),
    "zfnet": (3, 224),
    "vgg11": (3, 32),
    "googlenet": (3, 64),
    "resnet18": (3, 64),
    "resnet50": (3, 64),
    "mobilenet_v1": (3, 64),
    "mobilenet_v2": (3, 64),
    "squeezenet": (3, 64),
    "densenet121": (3, 64),
}


def made(name: str) -> nn.Module:
    """With statistics as they might be after training."""
    channels, _ = SMALL[name]
    model = getattr(models, name)(num_classes=10, in_channels=channels, rng=0).eval()
    rng = np.random.default_rng(1)
    for key, buffer in model.named_buffers():
        if key.endswith("running_var"):
            buffer.data = rng.uniform(0.5, 2, buffer.shape).astype(np.float32)
        elif key.endswith("running_mean"):
            buffer.data = rng.uniform(-0.5, 0.5, buffer.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("name", SMALL)
def test_compiled_is_as_layer_by_layer(name):
    model, (channels, size) = made(name), SMALL[name]
    image = np.random.default_rng(2).standard_normal((2, channels, size, size), dtype=np.float32)
    net = fc.compile(model, (None, channels, size, size))
    expected = model(image)
    expected = expected if isinstance(expected, np.ndarray) else expected[0]
    found = net(image)
    found = found if isinstance(found, np.ndarray) else found[0]
    assert max_error(found, expected) < 2e-4
    operators = [node.op for node in net.graph.nodes]
    assert "python" not in operators
    assert "identity" not in operators
    if name not in ("densenet121",):  # whose norms stand before their activations
        assert "batch_norm" not in operators
    m = net.memory
    assert m.arena <= 1.2 * m.least
    assert changed_hands(net) < 0.14


def changed_hands(net):
    """The share of the bytes written to the arena that the other half of the threads wrote before, call after call."""
    (program,) = net._programs.values()
    owner = np.full(program.arena_bytes, -1, np.int8)

    def call():
        changed = written = 0
        for buffer in (view.buffer.root() for step in program.steps for view in step.writes):
            if buffer.is_external:
                continue
            for half, part in enumerate(np.array_split(owner[buffer.offset :][: buffer.nbytes], 2)):
                changed += np.count_nonzero(part != half)
                written += part.size
                part[...] = half
        return changed / written

    call()
    return call()


def test_residuals_and_activations_are_part_of_convolutions():
    net = fc.compile(made("resnet50"), (1, 3, 64, 64))
    assert sorted({node.op for node in net.graph.nodes}) == [
        "adaptive_avg_pool",
        "conv",
        "flatten",
        "linear",
        "max_pool",
    ]
    assert len(net.graph.nodes) == 53 + 4
    assert sum(step.operator == "copy" for step in net.summary()) == 0


def test_concatenations_are_not_copied():
    for name in ("googlenet", "squeezenet", "densenet121"):
        net = fc.compile(made(name), (1, 3, 64, 64))
        assert "concat" in [node.op for node in net.graph.nodes]
        assert {"concat", "copy"}.isdisjoint(step.operator for step in net.summary()), name
