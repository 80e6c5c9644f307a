# SPDX-License-Identifier: BSD-3-Clause
"""Models by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv import _args
from fastconv.models._alexnet import alexnet
from fastconv.models._densenet import densenet121
from fastconv.models._googlenet import googlenet
from fastconv.models._lenet import lenet5
from fastconv.models._mobilenet_v1 import mobilenet_v1
from fastconv.models._mobilenet_v2 import mobilenet_v2
from fastconv.models._resnet import resnet18, resnet34, resnet50
from fastconv.models._squeezenet import squeezenet
from fastconv.models._vgg import vgg11, vgg13, vgg16, vgg19
from fastconv.models._zfnet import zfnet

__all__ = ["get", "names"]

_MODELS: dict[str, Callable[..., Any]] = {
    model.__name__: model
    for model in (
        lenet5,
        alexnet,
        zfnet,
        vgg11,
        vgg13,
        vgg16,
        vgg19,
        googlenet,
        resnet18,
        resnet34,
        resnet50,
        mobilenet_v1,
        mobilenet_v2,
        squeezenet,
        densenet121,
    )
}


def names() -> tuple[str, ...]:
    """The names of all models, as they came out over the years; see `get`.

    >>> from fastconv import models
    >>> models.names()[:3]
    ('lenet5', 'alexnet', 'zfnet')
    """
    return tuple(_MODELS)


def get(name: str) -> Callable[..., Any]:
    """The function that builds the model of this name.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    callable
        ``model(num_classes=..., in_channels=...)``.

    Raises
    ------
    ValueError
        There is no such model; the message lists those that there are.

    Examples
    --------
    >>> from fastconv import models
    >>> models.get("resnet18") is models.resnet18
    True
    """
    if name not in names():
        raise ValueError(f"name is {_args.said(name)}; it needs one of {', '.join(names())}")
    return _MODELS[name]
