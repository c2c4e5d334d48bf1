"""Winograd convolution F(4x4, 3x3): what is compiled.

A block of tile rows goes through three steps while it stays in the second-level cache: transform of
the input tiles, one matrix product for each of the 36 points, transform to the outputs. Lanes are
channels, so rows of pixels are transposed on their way in and out. ``winograd_plans.py`` has the
sizes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import prange

from ..vector_math import STRICT, njit
from .micro_kernels import matrix_tile
from .transposes import transpose
from .vectors import VECTOR_BYTES
from .winograd_tiles import (
    POINTS,
    input_tile,
    output_tile,
    prefetch,
    weight_tile,
)

plain = njit(**STRICT)

ROWS = 6
"""Tiles of a micro-kernel's product."""

GRADIENT_ROWS = 8 if VECTOR_BYTES == 64 else 4
"""Channels of a micro-kernel's product in the weight gradient."""

DEPTH = 256
"""Tiles that are summed in registers before a partial sum is stored."""

SKEW = 16
"""Numbers between the planes of two points, which keep them from sharing cache sets."""

_6x4, _6x2 = matrix_tile(ROWS, 4), matrix_tile(ROWS, 2)
gradient_product = matrix_tile(GRADIENT_ROWS, 2, transposed=True)


class Tiling(NamedTuple):
    """Sizes, all integers: of the images that are read and written, and of the blocks between."""

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
    padded_channels: int
    """A multiple of the lanes, as are all padded sizes."""
    padded_filters: int
    panel: int
    """Filters of a matrix product's right side at once: 4 or 2 vectors."""

    # Numba sees no properties: the rest is functions of a tiling


@plain
def tile_grid(t: Any) -> Any:
    """Return how many rows of tiles an image has, and columns."""
    return (t.out_height + 3) // 4, (t.out_width + 3) // 4


@plain
def clear(x: Any, first: Any, count: Any) -> None:
    """Set a stretch to zero."""
    x[first : first + count] = 0


@plain
def read_pixels(
    lanes: Any, x: Any, x0: Any, channels: Any, height: Any, width: Any, h: Any,
    strip: Any, s0: Any, padded: Any, columns: Any, left: Any,
) -> None:  # fmt: skip
    """Transpose row h of an image to (columns, padded channels), zero outside the image."""
    if 0 <= h < height:
        transpose(lanes, x, x0 + h * width, height * width, channels, width,
                  strip, s0 + left * padded, padded, padded)  # fmt: skip
    else:
        clear(strip, s0, columns * padded)


@plain
def read_tiles(
    lanes: Any, x: Any, x0: Any, row: Any, t: Any, space: Any, s0: Any, v: Any, v0: Any,
    plane: Any,
) -> None:  # fmt: skip
    """Transform a row of input tiles to v (points, tiles, padded channels)."""
    columns, padded = tile_grid(t)[1] * 4 + 2, t.padded_channels
    line = columns * padded
    for r in range(6):
        read_pixels(lanes, x, x0, t.channels, t.height, t.width, row * 4 + r - t.top,
                    space, s0 + r * line, padded, columns, t.left)  # fmt: skip
    for j in range(tile_grid(t)[1]):
        for c in range(0, padded, lanes):
            input_tile(space, v, s0 + j * 4 * padded + c, line, padded,
                       v0 + j * padded + c, 6 * plane, plane)  # fmt: skip


@plain
def write_tiles(
    lanes: Any, space: Any, m0: Any, plane: Any, bias: Any, b0: Any, y: Any, y0: Any, row: Any,
    t: Any, s0: Any, relu: Any,
) -> None:  # fmt: skip
    """Transform a row of products m (points, tiles, padded filters) to rows of the output."""
    tiles, padded = tile_grid(t)[1], t.padded_filters
    line, area = tiles * 4 * padded, t.out_height * t.out_width
    for j in range(tiles):
        for k in range(0, padded, lanes):
            output_tile(space, bias, space, m0 + j * padded + k, 6 * plane, plane, b0 + k,
                        s0 + j * 4 * padded + k, line, padded, relu)  # fmt: skip
    rows, target = min(4, t.out_height - row * 4), y0 + row * 4 * t.out_width
    if t.out_width == tiles * 4:  # the rows follow each other without a gap
        pixels = rows * t.out_width
        transpose(lanes, space, s0, padded, pixels, t.filters, y, target, area, pixels)
    else:
        for r in range(rows):
            transpose(lanes, space, s0 + r * line, padded, t.out_width, t.filters,
                      y, target + r * t.out_width, area, t.out_width)  # fmt: skip


@plain
def prefetch_rows(
    x: Any, x0: Any, channels: Any, height: Any, width: Any, t: Any, first: Any, last: Any,
    point: Any,
) -> None:  # fmt: skip
    """Ask for a 36th of the pixels of tile rows to come, while products hide the way."""
    tile_rows = tile_grid(t)[0]
    for r in range(first, last):
        h = r % tile_rows * 4
        count = min(4, height - h) * width
        image = x0 + r // tile_rows * t.groups * channels * height * width + h * width
        for c in range(channels * point // POINTS, channels * (point + 1) // POINTS):
            for p in range(0, count, 16):
                prefetch(x, image + c * height * width + p)


@plain
def multiply(lanes: Any, space: Any, v0: Any, u: Any, u0: Any, m0: Any, tiles: Any, t: Any) -> None:
    """Set m (tiles, padded filters) = v (tiles, channels) @ u (panels, channels, panel)."""
    for panel in range(t.padded_filters // t.panel):
        right, out = u0 + panel * t.channels * t.panel, m0 + panel * t.panel
        for i in range(0, tiles, ROWS):
            left, target = v0 + i * t.padded_channels, out + i * t.padded_filters
            if t.panel == 4 * lanes:
                _6x4(space, u, space, left, t.padded_channels, right, t.panel,
                     target, t.padded_filters, t.channels, 0)  # fmt: skip
            else:
                _6x2(space, u, space, left, t.padded_channels, right, t.panel,
                     target, t.padded_filters, t.channels, 0)  # fmt: skip


def forward(
    x: Any, u: Any, bias: Any, y: Any, space: Any, t: Any, lanes: Any, relu: Any, parts: Any
) -> None:
    """Write y from x and the transformed weights u (groups, points, panels, channels, panel)."""
    tile_rows, tiles = tile_grid(t)
    most = -(-t.block * tiles // ROWS) * ROWS
    v_plane, m_plane = most * t.padded_channels + SKEW, most * t.padded_filters + SKEW
    strip, out_strip = 6 * (tiles * 4 + 2) * t.padded_channels, 16 * tiles * t.padded_filters
    u_plane = t.channels * t.padded_filters
    blocks = -(-t.images * tile_rows // t.block)
    for part in prange(parts):
        s0 = part * (space.size // parts)
        o0 = s0 + strip
        v0 = o0 + out_strip
        m0 = v0 + POINTS * v_plane
        clear(space, s0, strip)
        for task in range(
            blocks * t.groups * part // parts, blocks * t.groups * (part + 1) // parts
        ):
            group, first = task % t.groups, task // t.groups * t.block
            last = min(first + t.block, t.images * tile_rows)
            x0 = group * t.channels * t.height * t.width
            y0 = group * t.filters * t.out_height * t.out_width
            for r in range(first, last):
                image = r // tile_rows * t.groups * t.channels * t.height * t.width
                read_tiles(lanes, x, x0 + image, r % tile_rows, t, space, s0, space,
                           v0 + (r - first) * tiles * t.padded_channels, v_plane)  # fmt: skip
            for point in range(POINTS):
                prefetch_rows(x, x0, t.channels, t.height, t.width, t, last,
                              min(last + t.block, t.images * tile_rows), point)  # fmt: skip
                multiply(lanes, space, v0 + point * v_plane, u, (group * POINTS + point) * u_plane,
                         m0 + point * m_plane, (last - first) * tiles, t)  # fmt: skip
            for r in range(first, last):
                image = r // tile_rows * t.groups * t.filters * t.out_height * t.out_width
                write_tiles(lanes, space, m0 + (r - first) * tiles * t.padded_filters, m_plane,
                            bias, group * t.filters, y, y0 + image, r % tile_rows, t, o0,
                            relu)  # fmt: skip


def transform_weights(
    w: Any, u: Any, space: Any, t: Any, lanes: Any, reverse: Any, parts: Any
) -> None:
    """Write u from w (groups, filters, channels, 3, 3).

    ``reverse``: from w (groups, channels, filters, 3, 3) with the taps turned by half a turn, for
    the input gradient.
    """
    u_plane = t.channels * t.padded_filters
    for part in prange(parts):
        s0 = part * (space.size // parts)
        for task in range(
            t.groups * t.channels * part // parts, t.groups * t.channels * (part + 1) // parts
        ):
            group, c = task // t.channels, task % t.channels
            first = group * t.channels * t.filters * 9
            source, stride, step = first + c * 9, t.channels * 9, t.padded_filters
            corner = s0
            if reverse:
                source, stride, step = first + c * t.filters * 9, 9, -t.padded_filters
                corner = s0 + 8 * t.padded_filters
            transpose(lanes, w, source, stride, t.filters, 9,
                      space, s0, t.padded_filters, t.padded_filters)  # fmt: skip
            for k in range(0, t.padded_filters, lanes):
                place = k // t.panel * t.channels * t.panel + c * t.panel + k % t.panel
                weight_tile(space, u, corner + k, 3 * step, step,
                            group * POINTS * u_plane + place, 6 * u_plane, u_plane)  # fmt: skip
