# SPDX-License-Identifier: BSD-3-Clause
"""Image files as networks were trained to see them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastconv.models import Preprocessing

__all__ = ["cut", "drawing", "pixels", "read", "resized"]


def read(path: str | os.PathLike[str], channels: int = 3) -> Image.Image:
    """An image of a file, upright, in grey (one channel) or red, green and blue (three).

    Whatever it is stored as is converted: palettes, CMYK, 16 bits; what is transparent lies on white. Of several frames
    the first counts.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it holds no image, or one that is damaged or too large.
    """
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of images so large that they might be a trap
        try:
            with Image.open(file) as image:
                image.load()
                return _converted(ImageOps.exif_transpose(image), channels)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders have a dozen ways to say that bytes are not theirs
            why = "it is of no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"{os.fspath(path)} is not an image that can be read: {why}") from error


def _converted(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Of 16, which Pillow would cut off above 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF or values.dtype.kind == "f":
        raise ValueError(f"its pixels are of mode {image.mode}, whose white is not known")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def cut(image: Image.Image, seen: Preprocessing) -> Image.Image:
    """The square in the middle of an image whose shorter side has been made ``seen.resize`` long, bilinearly.

    Only that square is computed, so that a long strip takes no more memory than another image; sizes and borders are
    rounded as torchvision rounds them.
    """
    short = min(image.size)
    sides = [seen.resize if side == short else seen.resize * side // short for side in image.size]
    left, top = (round((side - seen.crop) / 2) for side in sides)
    x, y = (whole / side for whole, side in zip(image.size, sides, strict=True))
    box = (left * x, top * y, (left + seen.crop) * x, (top + seen.crop) * y)
    return image.resize((seen.crop, seen.crop), Image.Resampling.BILINEAR, box)


def pixels(image: np.ndarray | Image.Image, seen: Preprocessing) -> np.ndarray:
    """An image of uint8, (H, W) or (H, W, 3), as a network takes it: (1, C, H, W) of float32, normalised.

    >>> import numpy as np
    >>> from fastconv import models
    >>> from fastconv._images import pixels
    >>> pixels(np.full((2, 2, 3), 128, np.uint8), models.VGG.preprocessing).shape
    (1, 3, 2, 2)
    """
    values = np.atleast_3d(np.asarray(image)).astype(np.float32) / 255
    normalised = (values - np.asarray(seen.mean, np.float32)) / np.asarray(seen.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def resized(
    image: np.ndarray | Image.Image,
    size: int,
    resize: int,
    box: Callable[[int, int], tuple[float, float, float, float]] | None = None,
) -> np.ndarray:
    """An image as an array (size, size, C) of uint8: what `box` makes of its width and height, or else as `cut` has it.

    >>> import numpy as np
    >>> from fastconv._images import resized
    >>> resized(np.zeros((6, 4, 1), np.uint8), 8, 8).shape
    (8, 8, 1)
    """
    whole = _of_array(image)
    if box is None:
        part = cut(whole, Preprocessing(resize, size, (), ()))
    else:
        part = whole.resize((size, size), Image.Resampling.BILINEAR, box(*whole.size))
    return np.atleast_3d(np.asarray(part))


def _of_array(image: np.ndarray | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels: np.ndarray = image if image.dtype == np.uint8 else np.rint(image * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels))


INK = 0.2  # share of the darkest ink from which on a pixel is taken for some
FRAMED = 20 / 32  # share of the side that the longer side of the ink takes; of MNIST's digits it is 20 pixels


def drawing(image: np.ndarray | Image.Image, size: int) -> np.ndarray:
    """A sign that was written or drawn, as networks learn them: (size, size) of uint8, light on black.

    Whether ink is darker or lighter than the ground is seen at the border. What is inked is made as large as the frame
    allows, and its centre of mass comes to lie in the middle. An image without ink is black.

    >>> import numpy as np
    >>> from fastconv._images import drawing
    >>> page = np.full((40, 60, 1), 250, np.uint8)
    >>> page[5:20, 30:33] = 20  # a dark stroke
    >>> seen = drawing(page, 32)
    >>> [int(n) for n in (seen[0, 0], seen[16, 16], (seen > 128).any(axis=1).sum(), (seen > 128).any(axis=0).sum())]
    [0, 255, 20, 4]
    """
    values = np.asarray(_of_array(image).convert("L")).astype(np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ink = values - np.median(border)
    if -ink.min() > ink.max():
        ink = -ink
    most = ink.max()
    seen = np.zeros((size, size), np.uint8)
    if most <= 0:
        return seen
    ink = np.clip(ink / most, 0, 1)
    rows, columns = (np.flatnonzero((ink >= INK).any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    scale = FRAMED * size / max(bottom - top, right - left)
    height, width = (max(1, round(scale * side)) for side in (bottom - top, right - left))
    whole = Image.fromarray((255 * ink).astype(np.uint8))
    part = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom)))
    weights = part.astype(np.float64)
    weights /= max(weights.sum(), 1e-12)
    y, x = weights.sum(axis=1) @ np.arange(height), weights.sum(axis=0) @ np.arange(width)
    down = min(max(round((size - 1) / 2 - y), 0), size - height)
    across = min(max(round((size - 1) / 2 - x), 0), size - width)
    seen[down : down + height, across : across + width] = part
    return seen
