# SPDX-License-Identifier: BSD-3-Clause
"""Labelled images to learn from: arrays in memory, or files in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args
from fastconv._names import only

__all__ = ["Arrays", "Data", "Drawings", "Folder", "Part", "Source", "split"]
__dir__ = only(__all__)

#: Left, top, right and bottom of what is seen of an image, in its pixels.
Box = tuple[float, float, float, float]


class Source:
    """Images with labels, one by one; for subclasses.

    Attributes
    ----------
    labels : numpy.ndarray (N,) of int64
    classes : tuple of str
        What the labels mean, in their order.
    channels : int
        1 or 3.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    channels: int

    def __len__(self) -> int:
        return len(self.labels)

    def size(self) -> int | None:
        """Height and width, where all images are squares of one size."""
        return None

    def name(self, index: int) -> str:
        """What an error calls an image."""
        raise NotImplementedError

    def image(self, index: int) -> Any:
        """An image as it is: an array (H, W, channels) of uint8 or, from 0 to 1, of float32; or one of Pillow's.

        Raises
        ------
        ValueError, OSError
            It cannot be read; its name is said.
        """
        raise NotImplementedError

    def pixels(self, index: int, size: int, resize: int, box: Callable[[int, int], Box] | None = None) -> np.ndarray:
        """An image (size, size, channels), of uint8 or, from 0 to 1, of float32.

        Without a `box`, which makes one of width and height, it is the square in the middle after the shorter side
        has been made `resize` long.
        """
        image = self.image(index)
        if box is None and resize == size and isinstance(image, np.ndarray) and image.shape[:2] == (size, size):
            return image
        from fastconv import _images

        return _images.resized(image, size, resize, box)


class Arrays(Source):
    """Images in memory.

    Parameters
    ----------
    images : array (N, H, W), (N, H, W, C) or (N, C, H, W)
        Of uint8, or of floating-point numbers from 0 to 1; C is 1 or 3.
    labels : array (N,) of integers
        From 0 on.
    classes : sequence of str, optional
        Names of the classes; numbers by default.
    name : str
        What errors call the images.
    skipped : callable, optional
        Takes what to say of images whose label is out of range, which are then left out; without it they are an error.

    Raises
    ------
    ValueError
        Shapes that do not fit, a label out of range, or numbers that are not finite, with the number of the image.
    TypeError
        Another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.training import Arrays
    >>> digits = Arrays(np.zeros((5, 8, 8), np.uint8), np.array([0, 1, 2, 1, 0]))
    >>> len(digits), digits.classes, digits.channels, digits.size()
    (5, ('0', '1', '2'), 1, 8)
    """

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        classes: Sequence[str] | None = None,
        *,
        name: str = "images",
        skipped: Callable[[str], object] | None = None,
    ) -> None:
        self.images, self.channels = _channels_last(np.asarray(images), name)
        self.labels = _labels(labels, len(self.images), name)
        most = int(self.labels.max(initial=-1))
        self.classes = tuple(map(str, range(most + 1))) if classes is None else tuple(classes)
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        self._numbers = np.arange(len(self.labels))  # where the images were in what was given
        if wrong.size:
            first = int(wrong[0])
            text = (
                f"{name}: the label of image {first} is {self.labels[first]}; it needs to be from 0 to "
                f"{len(self.classes) - 1}{_more(wrong.size)}"
            )
            if skipped is None or wrong.size == len(self.labels):
                raise ValueError(text)
            skipped(text)
            self._numbers = np.delete(self._numbers, wrong)
            self.images, self.labels = self.images[self._numbers], self.labels[self._numbers]
        self._name = name

    def size(self) -> int | None:
        height, width = self.images.shape[1:3]
        return height if height == width else None

    def name(self, index: int) -> str:
        return f"{self._name}[{self._numbers[index]}]"

    def image(self, index: int) -> Any:
        return self.images[index]


class Folder(Source):
    """Image files, a folder for each class.

    Parameters
    ----------
    path : path
        Holds folders, whose names are the classes in alphabetical order, with image files, also in folders of theirs.
    classes : sequence of str, optional
        The classes, where they are known already; a folder of another name is then an error.
    channels : int
        Of the images as the network sees them: 1 or 3.
    skipped : callable, optional
        Takes what to say of classes without images, which are then left out; without it they are an error.

    Raises
    ------
    ValueError
        There are no folders, or one without images.
    OSError
        The folder cannot be read.
    """

    #: What image files are called; other files are not looked at.
    SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

    def __init__(
        self,
        path: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        *,
        channels: int = 3,
        skipped: Callable[[str], object] | None = None,
    ) -> None:
        root = Path(path)
        found = {folder.name: self._files(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
        found = {name: files for name, files in found.items() if not name.startswith(".")}
        if not found:
            raise ValueError(f"{root} holds no folders; it needs one with image files for each class")
        if classes is not None and (unknown := [name for name in found if name not in classes]):
            raise ValueError(f"{root} has a folder {unknown[0]!r}, which is none of the classes: {', '.join(classes)}")
        empty = [name for name, files in found.items() if not files]
        if empty:
            text = (
                f"{root / empty[0]} holds no images{_more(len(empty))}; each class needs some (files of "
                f"{', '.join(self.SUFFIXES)})"
            )
            if skipped is None:
                raise ValueError(text)
            skipped(text)
        self.classes = tuple(classes) if classes is not None else tuple(name for name, files in found.items() if files)
        self.files = [file for name in self.classes for file in found.get(name, ())]
        if not self.files:
            raise ValueError(f"{root} holds no images in any of its folders")
        counts = [len(found.get(name, ())) for name in self.classes]
        self.labels = np.repeat(np.arange(len(self.classes)), counts)
        self.channels = channels

    @classmethod
    def _files(cls, folder: Path) -> list[Path]:
        return sorted(file for file in folder.rglob("*") if file.suffix.lower() in cls.SUFFIXES and file.is_file())

    def name(self, index: int) -> str:
        return str(self.files[index])

    def image(self, index: int) -> Any:
        from fastconv import _images

        return _images.read(self.files[index], self.channels)


class Part(Source):
    """Some images of another source."""

    def __init__(self, source: Source, numbers: np.ndarray) -> None:
        self.source, self.numbers = source, numbers
        self.labels, self.classes, self.channels = source.labels[numbers], source.classes, source.channels

    def size(self) -> int | None:
        return self.source.size()

    def name(self, index: int) -> str:
        return self.source.name(int(self.numbers[index]))

    def image(self, index: int) -> Any:
        return self.source.image(int(self.numbers[index]))


class Drawings(Source):
    """Another source's images as drawings: light on black, in the middle, of one size; see `fastconv._images.drawing`.

    Each is prepared when it is first asked for, and kept.
    """

    channels = 1

    def __init__(self, source: Source, size: int) -> None:
        self.source, self._size = source, size
        self.labels, self.classes = source.labels, source.classes
        self._prepared: dict[int, np.ndarray] = {}

    def size(self) -> int | None:
        return self._size

    def name(self, index: int) -> str:
        return self.source.name(index)

    def image(self, index: int) -> Any:
        if index not in self._prepared:
            from fastconv import _images

            self._prepared[index] = _images.drawing(self.source.image(index), self._size)[..., None]
        return self._prepared[index]


class Data(NamedTuple):
    """What is learnt from, and what is held out to be judged by."""

    learn: Source
    held_out: Source


def split(source: Source, share: float, seed: int = 0) -> Data:
    """Hold out a share of every class, at least one image of those that have two or more.

    >>> import numpy as np
    >>> from fastconv import training
    >>> source = training.Arrays(np.zeros((10, 4, 4), np.uint8), np.arange(10) % 2)
    >>> learn, held_out = training.split(source, 0.2)
    >>> len(learn), sorted(held_out.labels.tolist())
    (8, [0, 1])
    """
    if not 0 < _args.real(share, "share") < 1:
        raise ValueError(f"share is {_args.said(share)}; it needs to be above 0 and below 1")
    rng = np.random.default_rng(seed)
    held_out = []
    for label in range(len(source.classes)):
        members = rng.permutation(np.flatnonzero(source.labels == label))
        held_out.append(members[: min(max(1, round(share * len(members))), max(0, len(members) - 1))])
    chosen = np.sort(np.concatenate(held_out)).astype(np.intp)
    if not chosen.size:
        raise ValueError("no class has two images, of which one could be held out")
    return Data(Part(source, np.setdiff1d(np.arange(len(source)), chosen)), Part(source, chosen))


def _channels_last(images: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Images as (N, H, W, C), and C."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or not len(images) or (images.shape[3] not in (1, 3) and images.shape[1] not in (1, 3)):
        raise ValueError(
            f"{name} has shape {images.shape}; it needs (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels C"
        )
    if images.shape[3] not in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.dtype == np.uint8:
        return images, images.shape[3]
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{name} has dtype {images.dtype}; it needs uint8, or floating-point numbers from 0 to 1")
    images = images.astype(np.float32, copy=False)
    wrong = np.flatnonzero(~((images >= 0) & (images <= 1)).all(axis=(1, 2, 3)))
    if wrong.size:
        raise ValueError(f"{name}: image {wrong[0]} has pixels that are not from 0 to 1{_more(wrong.size)}")
    return images, images.shape[3]


def _labels(labels: Any, count: int, name: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise ValueError(f"the labels of {name} have shape {labels.shape}; {count} images need ({count},)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"the labels of {name} have dtype {labels.dtype}; they need to be integers")
    return labels.astype(np.int64)


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
