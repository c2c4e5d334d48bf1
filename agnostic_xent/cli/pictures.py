"""Pictures: a folder of them as an array, and the order of their axes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.checks import check_channels_first
from ..core.requirements import missing
from .reading import naming, reading

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Of Pillow: black and white, grey, palettes and colours, some with transparency."""


def read_pictures(
    argument: str, folder: Path, shape: tuple[int, ...], white_of_16_bits: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Return names and pixels (N, C, H, W), black 0 and white 1, of the pictures in a folder.

    They are turned as a viewer turns them. Colours become grey if C is 1, and grey becomes the
    colour if C is 3.

    Raises
    ------
    ValueError
        If there is none, or one cannot be read, is transparent, or has another size.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("a folder of pictures", "pillow") from error
    with naming(argument, folder):
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ValueError("it is a folder, but the model takes no pictures of 1 or 3 channels")
        files = sorted(file for file in folder.iterdir() if _is_picture(file))
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise ValueError(f"it has no {kinds} files (folders in it are not looked into)")
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    pixels = np.empty((len(files), *shape), np.float32)
    for i, file in enumerate(files):
        with reading(argument, file), Image.open(file, formats=formats) as image:
            pixels[i] = _pixels(image, shape, white_of_16_bits)
    return [file.name for file in files], pixels


def as_images(name: str, x: NDArray[Any]) -> NDArray[Any]:
    """Return images as (N, C, H, W), also those without an axis of channels.

    Raises
    ------
    ValueError
        If the channels are the last axis.
    """
    if x.ndim == 3:
        x = x[:, None]  # (N, H, W) -> (N, 1, H, W)
    check_channels_first(name, x.shape)
    return x


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _pixels(image: Image, shape: tuple[int, ...], white_of_16_bits: int) -> NDArray[np.float32]:
    """Return the pixels of a picture as (C, H, W)."""
    from PIL import ImageOps

    channels, height, width = shape
    size, sixteen_bits = image.size, _has_sixteen_bits(image)
    if sorted(size) == sorted((width, height)):  # else not unpacked: it may be huge
        image = ImageOps.exif_transpose(image)
        size = image.size
    if size != (width, height):
        there = f"{size[0]} x {size[1]} pixels"
        raise ValueError(f"it has {there}, but the model takes {width} x {height}: resize it")
    if sixteen_bits:
        return np.broadcast_to(np.asarray(image) / np.float32(white_of_16_bits), shape)
    if image.mode not in MODES:
        raise ValueError(f"its pixels are of mode {image.mode}: save it as grey or RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("it is transparent in places: lay it on a background")
    levels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32)
    return levels.reshape(height, width, channels).transpose(2, 0, 1) / np.float32(255)


def _has_sixteen_bits(image: Image) -> bool:
    old_pillow = image.mode == "I" and image.format == "PNG"
    return image.mode.startswith("I;16") or old_pillow
