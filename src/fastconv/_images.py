# SPDX-License-Identifier: BSD-3-Clause
"""Image files as networks were trained to see them."""

from __future__ import annotations

import os
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastconv.models import Preprocessing

__all__ = ["cut", "pixels", "read"]


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
