"""Pictures in files: found in folders, and read as numbers from black, 0, to white, 1."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..core.requirements import missing
from .reading import reading

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Of Pillow: black and white, grey, palettes and colours, some with transparency."""
WHITE = 65535
"""In a picture of 16 bits."""
IN_MEMORY = 1 << 30
"""Bytes of pixels that are held in memory; more are held in a temporary file."""
MANY = 500
"""Files whose reading shows its progress, on a terminal."""


def is_picture(file: Path) -> bool:
    """Return whether a file has the name of a picture that is read."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder and in the folders in it, in the order of their paths."""
    found = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(
        file
        for file in found
        if is_picture(file)
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def common_shape(files: Sequence[Path], most: int) -> tuple[int, int, int]:
    """Return the shape (C, H, W) that pictures are brought to.

    C is 1 if all are grey, else 3. H and W are theirs if they have one size of at most ``most``,
    else the side of a square: the median of their shorter sides, or ``most``.
    """
    _need_pillow()
    with ThreadPoolExecutor() as pool:
        heads = [*pool.map(_head, files)]
    channels = 1 if all(grey for grey, _ in heads) else 3
    sizes = {size for _, size in heads}
    width, height = min(sizes)
    if len(sizes) == 1 and max(width, height) <= most:
        return channels, height, width
    side = min(most, int(np.median([min(size) for _, size in heads])))
    return channels, side, side


def read_pictures(
    files: Sequence[Path],
    shape: tuple[int, ...],
    *,
    resized: bool,
    white_of_16_bits: int = WHITE,
) -> NDArray[np.float32]:
    """Return the pixels (N, C, H, W) of pictures, black 0 and white 1, given the shape (C, H, W).

    They are turned as a viewer turns them. Colours become grey if C is 1, and grey becomes the
    colour if C is 3. They are read by several threads.

    Raises
    ------
    ValueError
        If one cannot be read, or is transparent; or is of another size and not to be ``resized``.
    """
    _need_pillow()
    pixels = _room((len(files), *shape))

    def read(file: Path) -> NDArray[np.float32]:
        with reading(file), _opened(file) as image:
            return _pixels(image, shape, resized, white_of_16_bits)

    with ThreadPoolExecutor() as pool:
        for i, picture in enumerate(_shown(pool.map(read, files), len(files))):
            pixels[i] = picture
    return pixels


def _shown(pictures: Iterator[Any], count: int) -> Iterator[Any]:
    """Yield pictures; where somebody waits for many, show how far they are."""
    if count < MANY or sys.stderr is None or not sys.stderr.isatty():
        return pictures
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(pictures, "reading pictures", count, console=console, transient=True))


def _room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    if 4 * np.prod(shape, dtype=np.int64) <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps it
        return np.memmap(cast(Any, file), np.float32, "w+", shape=shape)


def _need_pillow() -> None:
    """Have Pillow know its formats; raise ImportError if it is not there."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("reading pictures", "pillow") from error
    Image.init()


def _opened(file: Path) -> Image:
    from PIL import Image

    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def _head(file: Path) -> tuple[bool, tuple[int, int]]:
    """Return whether a picture is grey, and its width and height as a viewer shows it."""
    with reading(file), _opened(file) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF's orientation
        size = image.size[::-1] if turned else image.size
        return image.mode in ("1", "L", "LA") or _has_sixteen_bits(image), size


def _pixels(
    image: Image, shape: tuple[int, ...], resized: bool, white_of_16_bits: int
) -> NDArray[np.float32]:
    """Return the pixels of a picture as (C, H, W)."""
    from PIL import ImageOps

    channels, height, width = shape
    size, sixteen_bits = image.size, _has_sixteen_bits(image)
    if resized or sorted(size) == sorted((width, height)):  # else not unpacked: it may be huge
        image = ImageOps.exif_transpose(image)
        size = image.size
    if size != (width, height) and not resized:
        there = f"{size[0]} x {size[1]} pixels"
        raise ValueError(f"it has {there}, but the model takes {width} x {height}: resize it")
    if sixteen_bits:
        levels = _levels(np.asarray(image, np.float32), width, height)
        return np.broadcast_to(levels / np.float32(white_of_16_bits), shape)
    if image.mode not in MODES:
        raise ValueError(f"its pixels are of mode {image.mode}: save it as grey or RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("it is transparent in places: lay it on a background")
    image = image.convert("L" if channels == 1 else "RGB")
    if size != (width, height):
        image = ImageOps.fit(image, (width, height))
    levels = np.asarray(image, np.float32)
    return levels.reshape(height, width, channels).transpose(2, 0, 1) / np.float32(255)


def _levels(levels: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Return grey levels of any size as (H, W)."""
    from PIL import Image, ImageOps

    if levels.shape == (height, width):
        return levels
    return np.asarray(ImageOps.fit(Image.fromarray(levels), (width, height)))


def _has_sixteen_bits(image: Image) -> bool:
    old_pillow = image.mode == "I" and image.format == "PNG"
    return image.mode.startswith("I;16") or old_pillow
