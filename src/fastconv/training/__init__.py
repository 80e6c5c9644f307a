# SPDX-License-Identifier: BSD-3-Clause
"""Training networks on labelled images: what ``fastconv train`` runs.

>>> import numpy as np
>>> from fastconv import models, training
>>> rng = np.random.default_rng(0)
>>> labels = np.arange(60) % 2
>>> images = rng.integers(0, 100, (60, 16, 16), np.uint8)
>>> images[labels == 1, 4:12] += 100  # a light band
>>> data = training.split(training.Arrays(images, labels, ["dark", "band"]), share=0.2)
>>> net = models.lenet5(num_classes=2, image_size=16, rng=0)
>>> history = training.Trainer(net, data, training.Settings(epochs=12, batch=8)).run()
>>> history[-1].held_out_accuracy
1.0
"""

from fastconv._names import only
from fastconv.training.augment import Augmentation
from fastconv.training.checkpoint import load_checkpoint, save_checkpoint
from fastconv.training.formats import open_data
from fastconv.training.loader import Batch, Loader
from fastconv.training.loop import Epoch, Settings, Trainer, Watch
from fastconv.training.sources import Arrays, Data, Drawings, Folder, Source, split
from fastconv.training.trained import Trained, read_trained, write_trained

__all__ = [
    "Arrays",
    "Augmentation",
    "Batch",
    "Data",
    "Drawings",
    "Epoch",
    "Folder",
    "Loader",
    "Settings",
    "Source",
    "Trained",
    "Trainer",
    "Watch",
    "load_checkpoint",
    "open_data",
    "read_trained",
    "save_checkpoint",
    "split",
    "write_trained",
]
__dir__ = only(__all__)
