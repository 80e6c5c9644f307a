# SPDX-License-Identifier: BSD-3-Clause
"""A program as users write them, with types: a test runs it, and mypy checks it against the wheel."""

import sys
from pathlib import Path
from typing import assert_type

import numpy as np

import fastconv as fc
from fastconv import nn, optim

Array = np.ndarray


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(4 * 4 * 4, classes, rng=0)

    def forward(self, x: Array) -> Array:
        y: Array = self.classifier(self.flatten(self.features(x)))
        return y

    def backward(self, grad_output: Array) -> Array | None:
        d: Array | None = self.features.backward(self.flatten.backward(self.classifier.backward(grad_output)))
        return d


def operators(x: Array, weight: Array) -> Array:
    bias = np.zeros(len(weight), x.dtype)
    y = fc.conv2d(x, weight, bias, stride=(1, 1), padding="same", activation="relu")
    assert_type(y, Array)
    plan = fc.ConvPlan(x.shape, weight, bias, padding=1, activation="relu")
    assert_type(plan(x), Array)
    assert_type(plan.explain(measure=False)[0].refusal, str | None)
    np.testing.assert_allclose(plan(x), y, atol=1e-4)

    assert_type(fc.max_pool2d(y, 2), Array)
    pooled, indices = fc.max_pool2d(y, 2, return_indices=True)
    assert_type(fc.max_pool2d(y, 2, None, 0, 1, False, True), tuple[Array, Array])
    assert_type(fc.adaptive_max_pool2d(y, (2, None)), Array)
    assert_type(fc.adaptive_max_pool2d(y, 1, True), tuple[Array, Array])
    assert_type(fc.global_max_pool(y, return_indices=True), tuple[Array, Array])
    either = fc.max_pool2d(y, 2, return_indices=len(x) > 1)
    assert_type(either, Array | tuple[Array, Array])

    d_y = fc.grad.max_pool2d(np.ones_like(pooled), indices, y.shape)
    assert_type(fc.grad.conv2d_weight(x, weight.shape, d_y, padding=1), Array)
    return fc.grad.conv2d_input(x.shape, weight, d_y, padding=1)


def training(images: Array, digits: Array, file: Path) -> float:
    net, loss = Net(10), nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    optim.AdamW([{"params": list(net.parameters()), "lr": 1e-3}])
    first = last = float(loss(net(images), digits))
    for _ in range(5):
        optimizer.zero_grad()
        last = float(loss(net(images), digits))
        net.backward(loss.backward())
        optimizer.step()
    assert last < first

    fc.save(net.state_dict(), file)
    loaded = fc.load(file)
    assert_type(loaded, dict[str, Array])
    other = Net(10)
    other.load_state_dict(loaded)
    with fc.threads(1):
        np.testing.assert_array_equal(other.eval()(images), net.eval()(images))
    return last


def losses(scores: Array, digits: Array) -> None:
    assert_type(fc.cross_entropy(scores, digits, reduction="none"), Array)
    number = fc.cross_entropy(scores, digits)
    assert_type(float(number), float)
    assert_type(fc.mse_loss(scores, scores, reduction="none"), Array)


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 1, 8, 8), np.float32)
    operators(images, rng.standard_normal((3, 1, 3, 3), np.float32))
    training(images, rng.integers(0, 10, 6), folder / "net.npz")
    losses(rng.standard_normal((6, 10), np.float32), rng.integers(0, 10, 6))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
