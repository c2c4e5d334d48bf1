"""Winograd convolution: what is compiled.

A block of tile rows goes through three steps while it stays in the second-level cache: transform of
the input tiles, one matrix product for each point, transform to the outputs. Lanes are channels, so
rows of pixels are transposed on their way in and out. ``winograd_plans.py`` has the sizes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..simd.elementary import plain
from ..simd.lines import prefetch_to_read, prefetch_to_write
from ..simd.tiles import matrix_tile
from ..simd.transposes import transpose
from ..simd.vectors import VECTOR_BYTES
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import SINGLE, Bytes, Read1, Write1, WrittenBytes
from .tiling import (
    Stride1,
    Stride2,
    Stride2Gradient,
    Tiling,
    columns_of,
    tile_rows_of,
    tiles_of,
)
from .winograd_tiles import (
    POOL,
    input_tile,
    output_tile,
    pooled_output_tile,
    unpool,
    weight_tile,
)

ROWS, NARROW_ROWS = 6, 12
"""Tiles of a micro-kernel's product; of one for a panel of a single vector."""

GRADIENT_ROWS = 8 if VECTOR_BYTES == 64 else 4
"""Channels of a micro-kernel's product in the weight gradient."""

DEPTH = 256
"""Tiles that are summed in registers before a partial sum is stored."""

SKEW = 16
"""Numbers between the planes of two points, which keep them from sharing cache sets."""

ROOM = 64
"""Numbers behind a row of unpooled pixels, which is written in whole vectors."""

_6x4, _6x2, _12x1 = matrix_tile(ROWS, 4), matrix_tile(ROWS, 2), matrix_tile(NARROW_ROWS, 1)
gradient_product = matrix_tile(GRADIENT_ROWS, 2, transposed=True)


TILINGS = (Stride1, Stride2, Stride2Gradient)


class Scratch(NamedTuple):
    """A thread's memory of the forward pass, which begins with a strip of pixels."""

    v: int
    """Where the transformed pixels begin: (points, tiles, padded channels)."""
    v_plane: int
    """Numbers of a point."""
    m: int
    """Where the products begin: (points, tiles, filters of a cut)."""
    m_plane: int
    m_line: int
    """Numbers of a tile."""
    out: int
    """Where a strip of outputs begins; before there are any, rows of unpooled pixels."""
    size: int


@shared
def scratch_of(t: Tiling, lanes: int) -> Scratch:
    """Return the memory of the forward pass for a block of tiles.

    Pixels that no other cut needs share room with the products: of the points, taken from the last
    one on, each is written behind all that are still to be read.
    """
    tiles, points = tiles_of(t), t.side * t.side
    most = -(-t.block * tiles // NARROW_ROWS) * NARROW_ROWS
    m_line = -(-(t.padded_filters // t.panel) // t.cuts) * t.panel
    v_plane, m_plane = most * t.padded_channels + SKEW, most * m_line + SKEW
    v = t.read * columns_of(t) * t.padded_channels
    apart = max(0, v_plane - m_plane) if t.cuts == 1 else v_plane
    m = v + v_plane + (points - 1) * apart
    out = m + points * m_plane
    strip = max(t.written * t.written * tiles * m_line, t.channels * t.width + ROOM)
    return Scratch(v, v_plane, m, m_plane, m_line, out, -(-(out + strip) // lanes) * lanes)


@shared
def taps_of(t: Tiling) -> int:
    """Return the numbers of a thread's memory for the weights of all filters and a channel."""
    return 9 * t.padded_filters


@plain
def clear(x: Any, first: Any, count: Any) -> None:
    """Set x[first : first + count] to zero."""
    for i in range(first, first + count):
        x[i] = 0


@plain
def copy(x: Any, y: Any) -> None:
    """Copy x to y."""
    for i in range(x.size):
        y[i] = x[i]


@plain
def area_of(height: Any, width: Any, pooled: Any) -> Any:
    """Return the pixels of an image, or of what a 2 x 2 pool leaves of it."""
    return (height // POOL) * (width // POOL) if pooled else height * width


@plain
def read_pixels(
    lanes: Any, x: Any, winners: Any, x0: Any, apart: Any, channels: Any, height: Any, width: Any,
    h: Any, space: Any, s0: Any, padded: Any, columns: Any, left: Any, row0: Any,
) -> None:  # fmt: skip
    """Transpose row h of an image to (columns, padded channels), zero outside the image.

    Channels lie so far ``apart``. A pixel on the right that no tile meets is left out. With
    ``winners``, x are the cotangents behind a pool, and the row is made at space[row0].
    """
    pooled = winners.size > 0
    if h < 0 or h >= (height // POOL * POOL if pooled else height):
        clear(space, s0, columns * padded)
    elif pooled:
        pixels = width // POOL
        vectors = (width // POOL + lanes) // lanes  # one pixel more where the width is odd
        for c in range(channels):
            unpool(x, winners, space, x0 + c * apart + h // POOL * pixels, pixels,
                   h % POOL * POOL, row0 + c * width, vectors)  # fmt: skip
        transpose(lanes, space, row0, width, channels, min(width, columns - left),
                  space, s0 + left * padded, padded, padded)  # fmt: skip
    else:
        transpose(lanes, x, x0 + h * width, apart, channels, min(width, columns - left),
                  space, s0 + left * padded, padded, padded)  # fmt: skip


@plain
def read_tiles(
    lanes: Any, x: Any, winners: Any, x0: Any, apart: Any, row: Any, t: Any, space: Any, s0: Any,
    row0: Any, v: Any, v0: Any, plane: Any, follows: Any,
) -> None:  # fmt: skip
    """Transform a row of input tiles to v (points, tiles, padded channels).

    The image lies at x0, its channels so far ``apart``. ``follows``: the strip holds the row above,
    whose last rows of pixels are the first here.
    """
    columns, padded, shared = columns_of(t), t.padded_channels, t.read - t.step
    line = columns * padded
    if follows:
        source = s0 + t.step * line
        copy(space[source : source + shared * line], space[s0 : s0 + shared * line])
    for r in range(shared if follows else 0, t.read):
        h = row * t.step + r - t.top
        read_pixels(lanes, x, winners, x0, apart, t.channels, t.height, t.width, h,
                    space, s0 + r * line, padded, columns, t.left, row0)  # fmt: skip
    for j in range(tiles_of(t)):
        for c in range(0, padded, lanes):
            input_tile(t, space, v, s0 + j * t.step * padded + c, line, padded,
                       v0 + j * padded + c, t.side * plane, plane)  # fmt: skip


@plain
def write_tiles(
    lanes: Any, space: Any, m0: Any, layout: Any, bias: Any, b0: Any, y: Any, y0: Any, apart: Any,
    row: Any, t: Any, s0: Any, relu: Any, k0: Any, k1: Any,
) -> None:  # fmt: skip
    """Transform a row of products m (points, tiles, filters k0 to k1) to rows of the output.

    Filters lie so far ``apart`` in y. The rows follow each other without a gap. What the last tile
    writes behind the end of a row comes to lie in the next one, where the first tile, which is done
    last, writes over it.
    """
    tiles, padded, plane = tiles_of(t), layout.m_line, layout.m_plane
    line = t.out_width * padded
    for i in range(1, tiles + 1):
        j = i % tiles
        for k in range(0, k1 - k0, lanes):
            output_tile(t, space, bias, space, m0 + j * padded + k, t.side * plane, plane,
                        b0 + k0 + k, s0 + j * t.written * padded + k, line, padded,
                        relu)  # fmt: skip
    pixels = min(t.written, t.out_height - row * t.written) * t.out_width
    target = y0 + row * t.written * t.out_width + k0 * apart
    filters = min(k1, t.filters) - k0
    transpose(lanes, space, s0, padded, pixels, filters, y, target, apart, pixels)


@plain
def write_pooled_tiles(
    lanes: Any, space: Any, m0: Any, layout: Any, bias: Any, b0: Any, y: Any, winners: Any, y0: Any,
    row: Any, t: Any, s0: Any, relu: Any, k0: Any, k1: Any,
) -> None:  # fmt: skip
    """Transform a row of products m to rows of maxima of 2 x 2 outputs, and of who wins them.

    They are of filters k0 to k1.
    """
    tiles, padded, plane = tiles_of(t), layout.m_line, layout.m_plane
    line, pixels = tiles * 2 * padded, t.out_width // POOL
    area = area_of(t.out_height, t.out_width, True)
    w0, row0, filters = s0 + 2 * line, s0 + 4 * line, min(k1, t.filters) - k0
    for j in range(tiles):
        for k in range(0, k1 - k0, lanes):
            pooled_output_tile(t, space, bias, space, m0 + j * padded + k, t.side * plane, plane,
                               b0 + k0 + k, s0 + j * 2 * padded + k, line, padded,
                               w0 + j * 2 * padded + k, relu)  # fmt: skip
    for r in range(min(2, t.out_height // POOL - row * 2)):
        target, place = y0 + (row * 2 + r) * pixels + k0 * area, r * line
        transpose(lanes, space, s0 + place, padded, pixels, filters, y, target, area, pixels)
        transpose(lanes, space, w0 + place, padded, pixels, filters,
                  space, row0, pixels, pixels)  # fmt: skip
        for k in range(filters):
            for j in range(pixels):
                winners[target + k * area + j] = np.uint8(space[row0 + k * pixels + j])


@plain
def prefetch_rows(
    x: Any, x0: Any, channels: Any, height: Any, width: Any, t: Any, rows: Any, pooled: Any,
    first: Any, last: Any, point: Any, to_write: Any,
) -> None:  # fmt: skip
    """Ask for a point's share of the pixels of tile rows to come, while products hide the way."""
    tile_rows, points = tile_rows_of(t), t.side * t.side
    if pooled:
        height, width, rows = height // POOL, width // POOL, rows // POOL
    for r in range(first, last):
        h = r % tile_rows * rows
        count = min(rows, height - h) * width
        image = x0 + (r // tile_rows * t.groups * channels * height + h) * width
        for c in range(channels * point // points, channels * (point + 1) // points):
            for p in range(0, count, 16):
                if to_write:
                    prefetch_to_write(x, image + c * height * width + p)
                else:
                    prefetch_to_read(x, image + c * height * width + p)


@plain
def multiply(
    lanes: Any, space: Any, v0: Any, stride: Any, u: Any, u0: Any, depth: Any, m0: Any, m_line: Any,
    tiles: Any, t: Any, k0: Any, k1: Any, add: Any,
) -> None:  # fmt: skip
    """Set m (tiles, filters k0 to k1) = v (tiles, channels) @ u (panels, channels, depth, panel).

    Of u, the first layer of ``depth``. Tiles of v lie ``stride`` apart. ``add``: add to m.
    """
    line = depth * t.panel
    for panel in range(k0 // t.panel, k1 // t.panel):
        right, out = u0 + panel * t.channels * line, m0 + panel * t.panel - k0
        for i in range(0, tiles, NARROW_ROWS if t.panel == lanes else ROWS):
            left, target = v0 + i * stride, out + i * m_line
            if t.panel == 4 * lanes:
                _6x4(space, u, space, left, stride, right, line,
                     target, m_line, t.channels, add)  # fmt: skip
            elif t.panel == lanes:
                _12x1(space, u, space, left, stride, right, line,
                      target, m_line, t.channels, add)  # fmt: skip
            else:
                _6x2(space, u, space, left, stride, right, line,
                     target, m_line, t.channels, add)  # fmt: skip


@compiled_in_parts(kind=SINGLE, t=TILINGS)
def forward(
    x: Read1, x_winners: Bytes, u: Read1, bias: Read1, y: Write1, y_winners: WrittenBytes,
    space: Write1, t: Tiling, lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y from x and the transformed weights u (groups, points, panels, channels, panel).

    With ``x_winners``, x are cotangents behind a pool; with ``y_winners``, y is pooled.
    """
    tile_rows, tiles, points = tile_rows_of(t), tiles_of(t), t.side * t.side
    layout, u_plane = scratch_of(t, lanes), t.channels * t.padded_filters
    v_plane, m_plane = layout.v_plane, layout.m_plane
    x_pooled, y_pooled = x_winners.size > 0, y_winners.size > 0
    x_area = area_of(t.height, t.width, x_pooled)
    y_area = area_of(t.out_height, t.out_width, y_pooled)
    rows, panels = t.images * tile_rows, t.padded_filters // t.panel
    tasks = -(-rows // t.block) * t.groups * t.cuts
    s0 = part * layout.size
    v0, m0, o0 = s0 + layout.v, s0 + layout.m, s0 + layout.out
    clear(space, s0, layout.v)
    start = tasks * part // parts
    for task in range(start, tasks * (part + 1) // parts):
        cut, group, block = task % t.cuts, task // t.cuts % t.groups, task // t.cuts // t.groups
        first, last = block * t.block, min(block * t.block + t.block, rows)
        k0, k1 = panels * cut // t.cuts * t.panel, panels * (cut + 1) // t.cuts * t.panel
        x0, y0 = group * t.channels * x_area, group * t.filters * y_area
        for r in range(first, last if cut == 0 or task == start else first):
            image = x0 + r // tile_rows * t.groups * t.channels * x_area
            read_tiles(lanes, x, x_winners, image, x_area, r % tile_rows, t, space,
                       s0, o0, space, v0 + (r - first) * tiles * t.padded_channels, v_plane,
                       r > first and r % tile_rows > 0)  # fmt: skip
        for i in range(points):
            point = points - 1 - i  # whose products may lie where later points were
            prefetch_rows(x, x0, t.channels, t.height, t.width, t, t.step, x_pooled, last,
                          min(last + t.block, rows), point, False)  # fmt: skip
            prefetch_rows(y, y0 + k0 * y_area, min(k1, t.filters) - k0, t.out_height, t.out_width,
                          t, t.written, y_pooled, first, last, point, True)  # fmt: skip
            multiply(lanes, space, v0 + point * v_plane, t.padded_channels, u,
                     (group * points + point) * u_plane, 1, m0 + point * m_plane, layout.m_line,
                     (last - first) * tiles, t, k0, k1, False)  # fmt: skip
        for r in range(first, last):
            image = y0 + r // tile_rows * t.groups * t.filters * y_area
            products = m0 + (r - first) * tiles * layout.m_line
            if y_pooled:
                write_pooled_tiles(lanes, space, products, layout, bias, group * t.filters,
                                   y, y_winners, image, r % tile_rows, t, o0, relu,
                                   k0, k1)  # fmt: skip
            else:
                write_tiles(lanes, space, products, layout, bias, group * t.filters,
                            y, image, y_area, r % tile_rows, t, o0, relu, k0, k1)  # fmt: skip


@compiled_in_parts(kind=SINGLE, t=TILINGS)
def transform_weights(
    w: Read1, u: Write1, space: Write1, t: Tiling, lanes: int, depth: int, reverse: bool,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write u from w (groups, filters, channels, depth, 3, 3).

    ``reverse``: from w (groups, channels, filters, depth, 3, 3) with the taps turned by half a
    turn, and the depth, for the input gradient.
    """
    channels = t.channels * depth
    u_plane, tasks = channels * t.padded_filters, t.groups * channels
    s0 = part * taps_of(t)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        group, c, layer = task // channels, task % channels // depth, task % depth
        first = group * channels * t.filters * 9
        source, stride, step = first + task % channels * 9, channels * 9, t.padded_filters
        corner = s0
        if reverse:
            source = first + (c * t.filters * depth + depth - 1 - layer) * 9
            stride, step, corner = depth * 9, -t.padded_filters, s0 + 8 * t.padded_filters
        transpose(lanes, w, source, stride, t.filters, 9,
                  space, s0, t.padded_filters, t.padded_filters)  # fmt: skip
        for k in range(0, t.padded_filters, lanes):
            place = k // t.panel * channels * t.panel + task % channels * t.panel + k % t.panel
            place += group * t.side * t.side * u_plane
            weight_tile(t, space, u, corner + k, 3 * step, step, place,
                        t.side * u_plane, u_plane)  # fmt: skip
