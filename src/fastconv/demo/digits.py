# SPDX-License-Identifier: BSD-3-Clause
"""Real handwriting, and two networks that learn to read it on the same budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastconv as fc
from fastconv import nn
from fastconv._names import only
from fastconv.models import Preprocessing
from fastconv.training import Arrays, Augmentation, Data, Epoch, Settings, Trainer, Watch

__all__ = ["Digits", "Training", "convnet", "dense_net", "first_filters", "load", "parameters", "stages", "train"]
__dir__ = only(__all__)

SIDE = 8  # pixels of a digit as scikit-learn has it
FRAME = 2  # empty pixels put around, as LeNet-5 was given digits of 28 pixels in a field of 32
SHIFT = FRAME  # pixels by which a digit is moved about in its frame in training, at most and either way
SPLIT = 0  # seed of the split, which stays the same whatever the seed of the demo

BATCH = 32
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 12, 12) of float32 from 0 to 1, and labels (N,): three quarters to learn from, one held out."""

    images: np.ndarray
    labels: np.ndarray
    held_out_images: np.ndarray
    held_out_labels: np.ndarray


@dataclass
class Training:
    """What became of a network.

    Attributes
    ----------
    name : str
    parameters : int
    losses : list of float
        Mean cross-entropy of the training images by epoch, before smoothing of labels.
    accuracies : list of float
        Share of the held-out digits read correctly, after each epoch.
    seconds : float
        Spent on training steps; looking at the held-out digits does not count.
    images_per_second : float
    predictions : numpy.ndarray
        Of the held-out digits, after the last epoch.
    """

    name: str
    parameters: int
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images_per_second: float = 0.0
    predictions: np.ndarray = field(default_factory=lambda: np.empty(0, np.intp))

    @property
    def accuracy(self) -> float:
        """After the last epoch; the best one on the way would be chosen by looking at the answers."""
        return self.accuracies[-1]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "accuracy": self.accuracy, "predictions": self.predictions.tolist()}


def load() -> Digits:
    """The digits that ship with scikit-learn, a fixed quarter of each kind held out.

    >>> from fastconv.demo.digits import load
    >>> digits = load()
    >>> digits.images.shape, digits.held_out_images.shape
    ((1347, 1, 12, 12), (450, 1, 12, 12))
    """
    bunch = load_digits()
    images = (bunch.images[:, None] / 16).astype(np.float32)
    images = np.pad(images, ((0, 0), (0, 0), (FRAME, FRAME), (FRAME, FRAME)))
    learn, held_out, labels, held_out_labels = train_test_split(
        images, bunch.target, test_size=0.25, stratify=bunch.target, random_state=SPLIT
    )
    return Digits(learn, labels, held_out, held_out_labels)


def convnet(rng: np.random.Generator | int | None = None) -> nn.Sequential:
    """LeNet-5 for small images: two convolutions, each followed by pooling, then fully connected layers."""
    rng = np.random.default_rng(rng)
    side = (SIDE + 2 * FRAME) // 4
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * side * side, 64, rng=rng),
        nn.ReLU(),
        nn.Linear(64, 10, rng=rng),
    )


def dense_net(rng: np.random.Generator | int | None = None) -> nn.Sequential:
    """Fully connected layers alone, with more than four times the parameters of :func:`convnet`."""
    rng = np.random.default_rng(rng)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear((SIDE + 2 * FRAME) ** 2, 256, rng=rng),
        nn.ReLU(),
        nn.Linear(256, 256, rng=rng),
        nn.ReLU(),
        nn.Linear(256, 10, rng=rng),
    )


def parameters(net: nn.Module) -> int:
    """Number of weights that a network learns."""
    return sum(parameter.size for parameter in net.parameters())


def train(
    name: str,
    net: nn.Module,
    digits: Digits,
    epochs: int,
    seed: int = 0,
    after_epoch: Callable[[], Any] = lambda: None,
) -> Training:
    """Train a network by stochastic gradient descent with momentum, its rate falling as half a cosine.

    Parameters
    ----------
    name : str
    net : Module
        From images to ten scores; it is left in eval mode.
    digits : Digits
    epochs : int
        Times that every training image is seen, each time moved by up to two pixels either way.
    seed : int
        Of the order of the images and of their moves.
    after_epoch : callable
        Called after every epoch.

    Returns
    -------
    Training
    """
    data = Data(Arrays(digits.images, digits.labels), Arrays(digits.held_out_images, digits.held_out_labels))
    settings = Settings(
        epochs,
        BATCH,
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        smoothing=SMOOTHING,
        augmentation=Augmentation(shift=SHIFT),
        seed=seed,
    )
    side = digits.images.shape[-1]
    as_they_are = Preprocessing(side, side, (0.0,), (1.0,))
    with fc.threads(1):  # waking a second thread takes longer than any of these small layers
        trainer = Trainer(net, data, settings, preprocessing=as_they_are, watch=_After(after_epoch))
        history = trainer.run()
    seconds = sum(epoch.seconds for epoch in history)
    return Training(
        name,
        parameters(net),
        [epoch.loss for epoch in history],
        [epoch.held_out_accuracy for epoch in history],
        seconds,
        epochs * len(digits.images) / seconds,
        trainer.predictions,
    )


class _After(Watch):
    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def ended(self, epoch: Epoch) -> None:
        self._call()


def first_filters(net: nn.Sequential) -> np.ndarray:
    """A copy of the kernels of the first layer, (kernels, height, width)."""
    first = net[0]
    assert isinstance(first, nn.Conv2d)
    return first.weight.value[:, 0].copy()


def stages(net: nn.Sequential, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What a convolutional network makes of one image (1, H, W), from the image to its ten scores as probabilities.

    Activations are shown applied; flattening is not shown.

    >>> import numpy as np
    >>> from fastconv.demo.digits import convnet, stages
    >>> net, image = convnet(0).eval(), np.zeros((1, 12, 12), np.float32)
    >>> [(name, maps.shape) for name, maps in stages(net, image)][:3]
    [('image', (1, 12, 12)), ('convolution 5×5', (16, 12, 12)), ('max pooling', (16, 6, 6))]
    """
    shown, x = [("image", image)], image[None]
    for module in net:
        x = module(x)
        if isinstance(module, nn.Conv2d):
            shown.append((f"convolution {module.kernel_size[0]}×{module.kernel_size[1]}", x[0]))
        elif isinstance(module, nn.MaxPool2d):
            shown.append(("max pooling", x[0]))
        elif isinstance(module, nn.Linear):
            shown.append(("fully connected", x[0]))
        elif isinstance(module, nn.ReLU):
            shown[-1] = (shown[-1][0], x[0])
    name, scores = shown[-1]
    shown[-1] = (name, fc.softmax(scores, 0))
    return shown
