"""Tilings of images, for Winograd convolution: sizes, and classes by which loops are compiled."""

from __future__ import annotations

from typing import NamedTuple

from ..toolchain.compiling import shared


class Tiling(NamedTuple):
    """Sizes, all integers: of the images that are read and written, and of the blocks between."""

    side: int
    """Points of a row of a transformed tile."""
    read: int
    """Pixels of a row of a tile that is read."""
    step: int
    """Pixels from one such tile to the next."""
    written: int
    """Pixels of a row of a tile that is written."""
    images: int
    groups: int
    channels: int
    """Of a group, in the images that are read."""
    height: int
    width: int
    top: int
    left: int
    """Zeros above and to the left of them."""
    filters: int
    """Of a group, in the images that are written."""
    out_height: int
    out_width: int
    block: int
    """Tile rows of a block."""
    cuts: int
    """Pieces of the filters that a block is shared out in."""
    padded_channels: int
    """A multiple of the lanes, as are all padded sizes."""
    padded_filters: int
    panel: int
    """Filters of a matrix product's right side at once: 4, 2 or 1 vectors."""

    # Numba sees no properties: the rest is functions of a tiling


class Stride1(Tiling):
    """Of F(4x4, 3x3), in all directions."""

    __slots__ = ()
    SIZES = 6, 6, 4, 4


class Stride2(Tiling):
    """Of the relative of F(4x4, 3x3) for stride 2: value and weight gradient."""

    __slots__ = ()
    SIZES = 9, 9, 8, 4


class Stride2Gradient(Tiling):
    """Of the input gradient for stride 2: cotangents are read and pixels written."""

    __slots__ = ()
    SIZES = 9, 5, 4, 8


@shared
def tile_rows_of(t: Tiling) -> int:
    """Return how many rows of tiles an image has."""
    return -(-t.out_height // t.written)


@shared
def tiles_of(t: Tiling) -> int:
    """Return how many tiles a row of them has."""
    return -(-t.out_width // t.written)


@shared
def columns_of(t: Tiling) -> int:
    """Return the pixels of a row that is read for a row of tiles."""
    return (tiles_of(t) - 1) * t.step + t.read
