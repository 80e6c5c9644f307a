# SPDX-License-Identifier: BSD-3-Clause
"""Two hundred steps beside torch: from the same weights, on the same batches, losses follow the same curve."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastconv import models, nn, optim  # noqa: E402
from torch_models import BUILD  # noqa: E402

STEPS, BATCH, CLASSES = 200, 8, 4


def lenet(num_classes):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 5), torch.nn.Tanh(), torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(6, 16, 5), torch.nn.Tanh(), torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(400, 120), torch.nn.Tanh(), torch.nn.Linear(120, 84), torch.nn.Tanh(),
        torch.nn.Linear(84, num_classes),
    )  # fmt: skip


#: Network, side and channels of its images, dtype, and how far apart losses may be. Rounding errors of one step grow in
#: the next ones: those of LeNet-5 hardly, those of ResNet-18, by norms over few pixels, by ten orders in 200 steps.
CASES = [
    ("lenet5", lenet, 32, 1, np.float32, 1e-4),
    pytest.param("resnet18", BUILD.resnet18, 16, 3, np.float64, 1e-4, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "build", "side", "channels", "dtype", "bound"), CASES)
def test_losses_follow_torchs(name, build, side, channels, dtype, bound):
    rng = np.random.default_rng(0)
    labels = np.arange(64) % CLASSES
    images = rng.standard_normal((64, channels, side, side)).astype(dtype)
    for label in range(CLASSES):
        images[labels == label, :, 4 * label : 4 * label + 4] += 1
    ours = models.get(name)(num_classes=CLASSES, in_channels=channels, dtype=dtype, rng=0)
    theirs = build(CLASSES).to(torch.float64 if dtype == np.float64 else torch.float32)
    state = {key: torch.from_numpy(value.copy()) for key, value in ours.state_dict().items()}
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    ours.needs_input_grad = False
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    how = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
    sgd, reference = optim.SGD(ours.parameters(), **how), torch.optim.SGD(theirs.parameters(), **how)
    fall = optim.CosineAnnealingLR(sgd, STEPS)
    reference_fall = torch.optim.lr_scheduler.CosineAnnealingLR(reference, STEPS)
    curves = []
    for _ in range(STEPS):
        chosen = rng.integers(0, 64, BATCH)
        error = loss(ours(images[chosen]), labels[chosen])
        ours.zero_grad()
        ours.backward(loss.backward())
        sgd.step()
        fall.step()
        reference.zero_grad()
        scores = theirs(torch.from_numpy(images[chosen]))
        expected = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels[chosen]), label_smoothing=0.1)
        expected.backward()
        reference.step()
        reference_fall.step()
        curves.append((float(error), expected.item()))
    one, other = np.array(curves).T
    assert one[-20:].mean() < 0.6 * one[:20].mean()
    np.testing.assert_allclose(one, other, rtol=0, atol=bound)
