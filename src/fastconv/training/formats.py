# SPDX-License-Identifier: BSD-3-Clause
"""Data as it lies on a disk: folders of images, .npz, IDX files as MNIST has them, the binary files of CIFAR."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from fastconv import io
from fastconv._names import only
from fastconv.training.sources import Arrays, Data, Folder, Source, split

__all__ = ["open_data"]
__dir__ = only(__all__)

#: Takes what to say of what is left out; None where it is an error.
Skipped = Callable[[str], object] | None

#: Names of images and labels in an .npz file, and of those that are held out.
LEARN = (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y"), ("data", "target"))
HELD_OUT = (("test_images", "test_labels"), ("x_test", "y_test"), ("val_images", "val_labels"), ("x_val", "y_val"))

#: What the folders of a data set are called in which those of the classes lie.
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")


def open_data(
    path: str | os.PathLike[str],
    *,
    share: float = 0.2,
    channels: int | None = None,
    skipped: Skipped = None,
    seed: int = 0,
) -> Data:
    """Find labelled images, in whatever form they lie there.

    Parameters
    ----------
    path : path
        One of

        * a folder with one for each class, or with two such, ``train`` and ``test`` (or ``val``);
        * an ``.npz`` file of images and labels: ``images`` and ``labels``, or ``x_train`` and ``y_train``; held out are
          ``test_images`` and ``test_labels``, or ``x_test`` and ``y_test``;
        * a folder with IDX files as MNIST and Fashion-MNIST have them, packed (``.gz``) or not;
        * a folder with the binary files of CIFAR-10 or CIFAR-100;
        * the word ``digits``: the handwriting that ships with scikit-learn, which is needed.
    share : float
        Of each class, to be held out where the data have no such part.
    channels : int, optional
        Of images in files: 1 or 3 (the default).
    skipped : callable, optional
        Takes what to say of classes without images, and of images whose label is out of range, which are then left out;
        without it they are an error.
    seed : int
        Of the choice of what is held out.

    Returns
    -------
    Data
        ``learn`` and ``held_out``.

    Raises
    ------
    ValueError
        If there is nothing that is known, or what is there is damaged; the file is named.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile, numpy as np, fastconv as fc
    >>> from fastconv import training
    >>> images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fc.save({"images": images, "labels": labels}, folder + "/data.npz")
    ...     data = training.open_data(folder + "/data.npz", share=0.3)
    >>> len(data.learn), len(data.held_out)
    (14, 6)
    """
    if str(path) == "digits":
        return split(_digits(), share, seed)
    path = Path(path)
    if path.is_file():
        if path.suffix != ".npz":
            raise ValueError(f"{path} is a file; data are an .npz file, or a folder")
        learn, held_out = _npz(path, skipped)
    elif path.is_dir():
        learn, held_out = _folder(path, channels or 3, skipped)
    else:
        raise FileNotFoundError(f"{path} does not exist; data are an .npz file, a folder, or the word digits")
    if held_out is None:
        return split(learn, share, seed)
    if held_out.channels != learn.channels:
        raise ValueError(f"{path}: images have {learn.channels} channels, those held out {held_out.channels}")
    return Data(learn, held_out)


def _folder(path: Path, channels: int, skipped: Skipped) -> tuple[Source, Source | None]:
    for known in (_idx, _cifar10, _cifar100):
        if (found := known(path, skipped)) is not None:
            return found
    inside = {folder.name.lower(): folder for folder in sorted(path.iterdir()) if folder.is_dir()}
    train, test = ([inside[name] for name in names if name in inside] for names in (TRAIN, TEST))
    if not train:
        return Folder(path, channels=channels, skipped=skipped), None
    learn = Folder(train[0], channels=channels, skipped=skipped)
    if not test:
        return learn, None
    return learn, Folder(test[0], learn.classes, channels=channels, skipped=skipped)


def _digits() -> Arrays:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Arrays((bunch.images / 16).astype(np.float32), bunch.target, name="digits")


# --- .npz -------------------------------------------------------------------------------------------------------------


def _npz(path: Path, skipped: Skipped) -> tuple[Source, Source | None]:
    arrays = io.load(path)
    learn = _pair(arrays.keys(), LEARN)
    if learn is None:
        raise ValueError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; it needs images and labels, under these names or as "
            f"{' or '.join(' and '.join(pair) for pair in LEARN[1:])}"
        )
    source = Arrays(arrays[learn[0]], arrays[learn[1]], name=f"{path}: {learn[0]}", skipped=skipped)
    held_out = _pair(arrays.keys(), HELD_OUT)
    if held_out is None:
        return source, None
    name = f"{path}: {held_out[0]}"
    return source, Arrays(arrays[held_out[0]], arrays[held_out[1]], source.classes, name=name, skipped=skipped)


def _pair(names: Collection[str], pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    return next((pair for pair in pairs if all(name in names for name in pair)), None)


# --- IDX --------------------------------------------------------------------------------------------------------------


def _idx(path: Path, skipped: Skipped) -> tuple[Source, Source | None] | None:
    """MNIST and its kin: ``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte.gz``, ..."""

    def pair(part: str) -> tuple[Path, Path] | None:
        files = [next(iter(sorted(path.glob(f"{part}-{what}[-.]idx?-ubyte*"))), None) for what in ("images", "labels")]
        return None if files[0] is None or files[1] is None else (files[0], files[1])

    learn, held_out = pair("train"), pair("t10k") or pair("test")
    if learn is None:
        return None
    source = _of_idx(*learn, None, skipped)
    return source, None if held_out is None else _of_idx(*held_out, source.classes, skipped)


def _of_idx(images: Path, labels: Path, classes: Sequence[str] | None, skipped: Skipped) -> Arrays:
    return Arrays(_read_idx(images, 3), _read_idx(labels, 1), classes, name=str(images), skipped=skipped)


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """Two zeros, the type (8: uint8), the number of axes; their lengths, four bytes each, the highest first; data."""
    try:
        opened = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 (closed below)
        with opened as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    head = 4 + 4 * rank
    if content[:4] != bytes([0, 0, 8, rank]):
        raise ValueError(f"{path} is no IDX file of {rank} axes of uint8: it begins with {content[:4].hex(' ')}")
    if len(content) < head:
        raise ValueError(f"{path} has {len(content)} bytes; the lengths of its axes end after {head}")
    shape = tuple(np.frombuffer(content[4:head], ">u4").tolist())
    needed = head + math.prod(shape)
    if len(content) != needed:
        raise ValueError(f"{path} has {len(content)} bytes; its shape {shape} needs {needed}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


# --- CIFAR ------------------------------------------------------------------------------------------------------------


def _cifar10(path: Path, skipped: Skipped) -> tuple[Source, Source | None] | None:
    batches = sorted(path.glob("data_batch_*.bin"))
    return _of_cifar(batches, path / "test_batch.bin", path / "batches.meta.txt", 1, 10, skipped) if batches else None


def _cifar100(path: Path, skipped: Skipped) -> tuple[Source, Source | None] | None:
    train, names = path / "train.bin", path / "fine_label_names.txt"
    return _of_cifar([train], path / "test.bin", names, 2, 100, skipped) if train.exists() else None


def _of_cifar(
    train: Sequence[Path], test: Path, names: Path, labels: int, count: int, skipped: Skipped
) -> tuple[Source, Source | None]:
    classes = names.read_text(encoding="utf-8").split() if names.exists() else list(map(str, range(count)))
    learn = Arrays(*_read_cifar(train, labels), classes, name=str(train[0].parent), skipped=skipped)
    return learn, Arrays(
        *_read_cifar([test], labels), classes, name=str(test), skipped=skipped
    ) if test.exists() else None


def _read_cifar(paths: Sequence[Path], labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the labels, of which the last counts, and 32×32 bytes each of red, green and blue."""
    length = labels + 3 * 32 * 32
    rows = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if not content.size or content.size % length:
            raise ValueError(f"{path} has {content.size} bytes; it needs {length} for each image")
        rows.append(content.reshape(-1, length))
    images = np.concatenate(rows)
    return images[:, labels:].reshape(-1, 3, 32, 32), images[:, labels - 1].astype(np.int64)
