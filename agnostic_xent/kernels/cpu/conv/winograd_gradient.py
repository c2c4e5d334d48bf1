"""The weight gradient of Winograd convolution: what is compiled.

For each of the points, ``du = sum over tiles of v^T g`` with the transformed input v and the
transformed cotangent g. Where du is small, a few sections of the images have one each and all else
stays in a thread's own cache; where it is large there is one, and the threads share out its points.
Either way the order of the sums does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..simd.elementary import plain
from ..simd.transposes import transpose
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import SINGLE, Bytes, Read1, Write1
from .tiling import Stride1, Stride2, Tiling, columns_of, tile_rows_of, tiles_of
from .winograd import (
    DEPTH,
    GRADIENT_ROWS,
    ROOM,
    SKEW,
    area_of,
    clear,
    gradient_product,
    prefetch_rows,
    read_pixels,
    read_tiles,
    taps_of,
)
from .winograd_tiles import output_gradient_tile, weight_gradient_tile

STRETCH = 2048
"""Numbers that stay in the first-level cache while sections are added to them."""

TILINGS = (Stride1, Stride2)


class Strips(NamedTuple):
    """A thread's memory for a row of pixels, one of cotangents and one of unpooled ones."""

    cotangents: int
    """Where they begin, behind the pixels."""
    unpooled: int
    size: int


@shared
def strips_of(t: Tiling) -> Strips:
    """Return the memory for what is read of a row of tiles."""
    cotangents = t.read * columns_of(t) * t.padded_channels
    unpooled = cotangents + t.written * t.written * tiles_of(t) * t.padded_filters
    return Strips(cotangents, unpooled, unpooled + t.filters * t.out_width + ROOM)


class Block(NamedTuple):
    """Memory for a block of tiles, (points, tiles, channels or filters): sizes in numbers."""

    v_plane: int
    """Of a point of the transformed inputs."""
    v: int
    """Of all of them."""
    g_plane: int
    """Of a point of the transformed cotangents."""
    g: int


@shared
def block_of(t: Tiling) -> Block:
    """Return the memory for a block of tiles."""
    tiles, points = t.block * tiles_of(t), t.side * t.side
    v_plane, g_plane = tiles * t.padded_channels + SKEW, tiles * t.padded_filters + SKEW
    return Block(v_plane, points * v_plane, g_plane, points * g_plane)


@shared
def section_scratch(t: Tiling) -> int:
    """Return the numbers of a thread's memory where it transforms and multiplies by itself."""
    block = block_of(t)
    return strips_of(t).size + block.v + block.g


@shared
def weights_of(t: Tiling) -> int:
    """Return the numbers of a transformed weight gradient, with padding."""
    return t.groups * t.side * t.side * t.padded_channels * t.padded_filters


@plain
def read_cotangents(
    lanes: Any, dy: Any, winners: Any, y0: Any, apart: Any, row: Any, t: Any, space: Any, s0: Any,
    row0: Any, g: Any, g0: Any, plane: Any,
) -> None:  # fmt: skip
    """Transform a row of tiles of dy to g (points, tiles, padded filters); see `read_tiles`."""
    tiles, padded = tiles_of(t), t.padded_filters
    line = tiles * t.written * padded
    for r in range(t.written):
        read_pixels(lanes, dy, winners, y0, apart, t.filters, t.out_height, t.out_width,
                    row * t.written + r, space, s0 + r * line, padded, tiles * t.written, 0,
                    row0)  # fmt: skip
    for j in range(tiles):
        for k in range(0, padded, lanes):
            output_gradient_tile(t, space, g, s0 + j * t.written * padded + k, line, padded,
                                 g0 + j * padded + k, t.side * plane, plane)  # fmt: skip


@plain
def read_both(
    lanes: Any, x: Any, dy: Any, winners: Any, group: Any, first: Any, last: Any, t: Any,
    space: Any, s0: Any, v: Any, v0: Any, v_plane: Any, g: Any, g0: Any, g_plane: Any,
) -> None:  # fmt: skip
    """Transform tile rows first to last of x to v and of dy to g."""
    tile_rows, tiles, strips = tile_rows_of(t), tiles_of(t), strips_of(t)
    strip, row0 = s0 + strips.cotangents, s0 + strips.unpooled
    area, out_area = t.height * t.width, area_of(t.out_height, t.out_width, winners.size > 0)
    for r in range(first, last):
        n, row, place = r // tile_rows, r % tile_rows, (r - first) * tiles
        x0, y0 = (n * t.groups + group) * t.channels * area, (n * t.groups + group) * t.filters
        read_tiles(lanes, x, winners[:0], x0, area, row, t, space, s0, row0,
                   v, v0 + place * t.padded_channels, v_plane, r > first and row > 0)  # fmt: skip
        read_cotangents(lanes, dy, winners, y0 * out_area, out_area, row, t, space, strip, row0,
                        g, g0 + place * t.padded_filters, g_plane)  # fmt: skip


@plain
def accumulate(
    lanes: Any, v: Any, v0: Any, stride: Any, g: Any, g0: Any, tiles: Any, t: Any, du: Any,
    du0: Any, add: Any,
) -> None:  # fmt: skip
    """Add v^T g of one point to du (panels, padded channels, panel).

    Tiles of v lie ``stride`` apart.
    """
    channels, filters = t.padded_channels, t.padded_filters
    for first in range(0, tiles, DEPTH):
        depth, more = min(DEPTH, tiles - first), add or first > 0
        for k in range(0, filters, t.panel):
            for c in range(0, channels, GRADIENT_ROWS):
                gradient_product(v, g, du, v0 + first * stride + c, stride,
                              g0 + first * filters + k, filters,
                              du0 + k * channels + c * t.panel, t.panel, depth, more)  # fmt: skip


@compiled_in_parts(kind=SINGLE, t=TILINGS)
def gradient_by_sections(
    x: Read1, dy: Read1, winners: Bytes, du: Write1, space: Write1, t: Tiling, lanes: int,
    sections: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Write du (sections, groups, points, panels, channels, panel)."""
    tile_rows, tiles, strips, block = tile_rows_of(t), tiles_of(t), strips_of(t).size, block_of(t)
    plane, points = t.padded_channels * t.padded_filters, t.side * t.side
    v_plane, g_plane = block.v_plane, block.g_plane
    rows, tasks, pooled = t.images * tile_rows, sections * t.groups, winners.size > 0
    dy_area = area_of(t.out_height, t.out_width, pooled)
    s0 = part * section_scratch(t)
    v0 = s0 + strips
    g0 = v0 + block.v
    clear(space, s0, strips)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // t.groups, task % t.groups
        start, end = rows * section // sections, rows * (section + 1) // sections
        for first in range(start, end, t.block):
            last = min(first + t.block, end)
            read_both(lanes, x, dy, winners, group, first, last, t, space, s0, space, v0,
                      v_plane, space, g0, g_plane)  # fmt: skip
            for point in range(points):
                end_of_next = min(last + t.block, end)
                prefetch_rows(x, group * t.channels * t.height * t.width, t.channels,
                              t.height, t.width, t, t.step, False, last, end_of_next,
                              point, False)  # fmt: skip
                prefetch_rows(dy, group * t.filters * dy_area, t.filters, t.out_height,
                              t.out_width, t, t.written, pooled, last, end_of_next, point,
                              False)  # fmt: skip
                accumulate(lanes, space, v0 + point * v_plane, t.padded_channels, space,
                           g0 + point * g_plane, (last - first) * tiles, t, du,
                           (task * points + point) * plane, first > start)  # fmt: skip


class Rows(NamedTuple):
    """Tile rows of a group, which all threads transform together."""

    group: int
    first: int
    number: int


@compiled_in_parts(kind=SINGLE, t=TILINGS)
def transform(
    x: Read1, dy: Read1, winners: Bytes, rows: Rows, t: Tiling, space: Write1, v: Write1,
    g: Write1, lanes: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Transform rows of tiles to v and g, which all threads share."""
    tiles, strips, block = tiles_of(t), strips_of(t).size, block_of(t)
    start, end = rows.number * part // parts, rows.number * (part + 1) // parts
    s0 = part * strips
    clear(space, s0, strips)
    read_both(lanes, x, dy, winners, rows.group, rows.first + start, rows.first + end, t,
              space, s0, v, start * tiles * t.padded_channels, block.v_plane,
              g, start * tiles * t.padded_filters, block.g_plane)  # fmt: skip


@compiled_in_parts(kind=SINGLE, t=TILINGS)
def multiply_points(
    v: Write1, g: Write1, du: Write1, rows: Rows, t: Tiling, lanes: int, parts: int, part: int
) -> None:
    """Add the products of v and g to du, or set it to those of the first rows of a group."""
    plane, points, block = t.padded_channels * t.padded_filters, t.side * t.side, block_of(t)
    for point in range(points * part // parts, points * (part + 1) // parts):
        accumulate(lanes, v, point * block.v_plane, t.padded_channels, g, point * block.g_plane,
                   rows.number * tiles_of(t), t, du, (rows.group * points + point) * plane,
                   rows.first > 0)  # fmt: skip


@plain
def add_to(total: Any, more: Any) -> None:
    """Add the numbers ``more`` to ``total``."""
    for i in range(total.size):
        total[i] += more[i]


@compiled_in_parts(kind=SINGLE)
def add_sections(du: Write1, size: int, sections: int, parts: int, part: int) -> None:
    """Add the sections of du, of so many numbers, to the first in order, in short stretches."""
    end = size * (part + 1) // parts
    for first in range(size * part // parts, end, STRETCH):
        last = min(first + STRETCH, end)
        for section in range(1, sections):
            other = section * size
            add_to(du[first:last], du[other + first : other + last])


@compiled_in_parts(kind=SINGLE, t=TILINGS)
def finish(
    du: Write1, dw: Write1, space: Write1, t: Tiling, lanes: int, depth: int, parts: int,
    part: int,
) -> None:  # fmt: skip
    """Transform du (groups, points, depth, ...) to dw (groups, filters, channels, depth, 3, 3)."""
    weights, s0 = t.padded_channels * t.padded_filters, part * taps_of(t)
    channels, plane = t.channels * depth, depth * weights
    tasks = t.groups * channels
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        group, c, layer = task // channels, task % channels // depth, task % depth
        for k in range(0, t.filters, lanes):
            place = k // t.panel * t.padded_channels * t.panel + c * t.panel + k % t.panel
            place += group * t.side * t.side * plane + layer * weights
            weight_gradient_tile(t, du, space, place, t.side * plane, plane,
                                 s0 + k, 3 * t.padded_filters, t.padded_filters)  # fmt: skip
        target = (group * t.filters * channels + task % channels) * 9
        transpose(lanes, space, s0, t.padded_filters, 9, t.filters,
                  dw, target, channels * 9, 9)  # fmt: skip
