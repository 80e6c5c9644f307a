# SPDX-License-Identifier: BSD-3-Clause
"""A trained network as a folder: its weights, and all that it takes to use them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv import io, models, nn
from fastconv._names import only
from fastconv._version import __version__
from fastconv.models import Preprocessing

__all__ = ["SHIPPED", "Trained", "read_trained", "write_trained"]
__dir__ = only(__all__)

FORMAT = 1
RECORD = "model.json"

#: The network that comes with the package: LeNet-5, which has learnt the handwritten digits of scikit-learn.
SHIPPED = Path(__file__).parent / "digits"


class Trained(NamedTuple):
    """A network that has been trained.

    Attributes
    ----------
    model : Module
        In eval mode.
    name : str
        Of the function in `fastconv.models` that made it.
    arguments : dict
        Of that function.
    classes : tuple of str
    preprocessing : Preprocessing
    drawing : bool
        Whether images are drawings, which are looked for on their ground, framed and centred.
    """

    model: Any
    name: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    drawing: bool = False


def write_trained(
    folder: str | os.PathLike[str], trained: Trained, state: Mapping[str, np.ndarray] | None = None
) -> Path:
    """Write a trained network to a folder, for `read_trained` and for ``fastconv classify --model FOLDER``.

    Parameters
    ----------
    folder : path
        Made if there is none.
    trained : Trained
    state : mapping of str to numpy.ndarray, optional
        The weights; those of the model by default.

    Returns
    -------
    Path
        Of the weights: ``.safetensors`` where the package safetensors is installed, else ``.npz``.

    Raises
    ------
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import models, training
    >>> net = models.lenet5(num_classes=2, rng=0)
    >>> trained = training.Trained(net, "lenet5", {"num_classes": 2}, ("cat", "dog"), net.preprocessing)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = training.write_trained(folder, trained)
    ...     training.read_trained(folder).classes
    ('cat', 'dog')
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = "weights.safetensors" if find_spec("safetensors") else "weights.npz"
    record = {
        "format": FORMAT,
        "fastconv": __version__,
        "model": trained.name,
        "arguments": trained.arguments,
        "classes": list(trained.classes),
        "preprocessing": trained.preprocessing._asdict(),
        "drawing": trained.drawing,
        "weights": weights,
    }
    io.save(trained.model.state_dict() if state is None else state, folder / weights)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder / weights


def read_trained(folder: str | os.PathLike[str]) -> Trained:
    """Read what `write_trained` wrote.

    Raises
    ------
    ValueError
        If it is damaged, of a later version, or of a network that there is not.
    OSError
        If it cannot be read.
    """
    path = Path(folder) / RECORD
    text = path.read_text(encoding="utf-8")
    try:
        record = json.loads(text)
        if record["format"] != FORMAT:
            raise ValueError(f"it is of format {record['format']}; this version reads {FORMAT}")
        seen = record["preprocessing"]
        preprocessing = Preprocessing(seen["resize"], seen["crop"], tuple(seen["mean"]), tuple(seen["std"]))
        model = models.get(record["model"])(**record["arguments"], rng=0)
        classes = _words(record["classes"])
        weights = Path(folder) / Path(record["weights"]).name
        drawing = bool(record["drawing"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a trained network: {error}") from error
    try:
        model.load_state_dict(io.load(weights))
    except (nn.StateDictError, TypeError) as error:
        raise ValueError(f"{weights} does not fit {record['model']}: {error}") from error
    return Trained(model.eval(), record["model"], record["arguments"], classes, preprocessing, drawing)


def _words(given: Sequence[str]) -> tuple[str, ...]:
    if not all(isinstance(word, str) for word in given):
        raise TypeError("its classes need to be text")
    return tuple(given)
