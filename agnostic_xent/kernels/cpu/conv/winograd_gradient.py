"""The weight gradient of Winograd convolution: what is compiled.

For each of the points, ``du = sum over tiles of v^T g`` with the transformed input v and the
transformed cotangent g. Where du is small, a few sections of the images have one each and all else
stays in a thread's own cache; where it is large there is one, and the threads share out its points.
Either way the order of the sums does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

from ..simd.transposes import transpose
from .winograd import (
    DEPTH,
    GRADIENT_ROWS,
    ROOM,
    SKEW,
    area_of,
    clear,
    columns_of,
    gradient_product,
    plain,
    prefetch_rows,
    read_pixels,
    read_tiles,
    tile_grid,
)
from .winograd_tiles import output_gradient_tile, weight_gradient_tile

STRETCH = 2048
"""Numbers that stay in the first-level cache while sections are added to them."""


@plain
def read_cotangents(
    lanes: Any, dy: Any, winners: Any, n: Any, row: Any, group: Any, t: Any, space: Any, s0: Any,
    row0: Any, g: Any, g0: Any, plane: Any,
) -> None:  # fmt: skip
    """Transform a row of tiles of dy to g (points, tiles, padded filters)."""
    tiles, padded = tile_grid(t)[1], t.padded_filters
    area = area_of(t.out_height, t.out_width, winners.size > 0)
    line = tiles * t.written * padded
    for r in range(t.written):
        read_pixels(lanes, dy, winners, (n * t.groups + group) * t.filters * area, t.filters,
                    t.out_height, t.out_width, row * t.written + r,
                    space, s0 + r * line, padded, tiles * t.written, 0, row0)  # fmt: skip
    for j in range(tiles):
        for k in range(0, padded, lanes):
            output_gradient_tile(t, space, g, s0 + j * t.written * padded + k, line, padded,
                                 g0 + j * padded + k, t.side * plane, plane)  # fmt: skip


@plain
def strips_of(t: Any) -> Any:
    """Return the numbers of a row of input pixels, one of cotangents and one of unpooled ones."""
    cotangents = t.written * t.written * tile_grid(t)[1] * t.padded_filters
    pixels = t.read * columns_of(t) * t.padded_channels
    return pixels + cotangents + t.filters * t.out_width + ROOM


@plain
def read_both(
    lanes: Any, x: Any, dy: Any, winners: Any, group: Any, first: Any, last: Any, t: Any,
    space: Any, s0: Any, v: Any, v0: Any, v_plane: Any, g: Any, g0: Any, g_plane: Any,
) -> None:  # fmt: skip
    """Transform tile rows of x and of dy."""
    tile_rows, tiles = tile_grid(t)
    strip = s0 + t.read * columns_of(t) * t.padded_channels
    row0 = strip + t.written * t.written * tiles * t.padded_filters
    for r in range(first, last):
        n, row, place = r // tile_rows, r % tile_rows, (r - first) * tiles
        read_tiles(lanes, x, winners[:0], n, row, group, t, space, s0, row0,
                   v, v0 + place * t.padded_channels, v_plane, r > first and row > 0)  # fmt: skip
        read_cotangents(lanes, dy, winners, n, row, group, t, space, strip, row0,
                        g, g0 + place * t.padded_filters, g_plane)  # fmt: skip


@plain
def accumulate(
    lanes: Any, v: Any, v0: Any, g: Any, g0: Any, tiles: Any, t: Any, du: Any, du0: Any, add: Any
) -> None:
    """Add v^T g of one point to du (panels, padded channels, panel)."""
    channels, filters = t.padded_channels, t.padded_filters
    for first in range(0, tiles, DEPTH):
        depth, more = min(DEPTH, tiles - first), add or first > 0
        for k in range(0, filters, t.panel):
            for c in range(0, channels, GRADIENT_ROWS):
                gradient_product(v, g, du, v0 + first * channels + c, channels,
                              g0 + first * filters + k, filters,
                              du0 + k * channels + c * t.panel, t.panel, depth, more)  # fmt: skip


def gradient_by_sections(
    x: Any,
    dy: Any,
    winners: Any,
    du: Any,
    space: Any,
    t: Any,
    lanes: Any,
    sections: Any,
    parts: Any,
    part: Any,
) -> None:
    """Write du (sections, groups, points, panels, channels, panel)."""
    tile_rows, tiles = tile_grid(t)
    plane, points = t.padded_channels * t.padded_filters, t.side * t.side
    v_plane = t.block * tiles * t.padded_channels + SKEW
    g_plane = t.block * tiles * t.padded_filters + SKEW
    strips = strips_of(t)
    rows, tasks, pooled = t.images * tile_rows, sections * t.groups, winners.size > 0
    dy_area = area_of(t.out_height, t.out_width, pooled)
    s0 = part * (space.size // parts)
    v0 = s0 + strips
    g0 = v0 + points * v_plane
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
                accumulate(lanes, space, v0 + point * v_plane, space, g0 + point * g_plane,
                           (last - first) * tiles, t, du, (task * points + point) * plane,
                           first > start)  # fmt: skip


def transform(
    lanes: Any, x: Any, dy: Any, winners: Any, group: Any, first: Any, count: Any, t: Any,
    space: Any, v: Any, v_plane: Any, g: Any, g_plane: Any, parts: Any, part: Any,
) -> None:  # fmt: skip
    """Transform ``count`` tile rows from ``first`` on to v and g, which all threads share."""
    tiles, s0 = tile_grid(t)[1], part * (space.size // parts)
    start, end = count * part // parts, count * (part + 1) // parts
    clear(space, s0, strips_of(t))
    read_both(lanes, x, dy, winners, group, first + start, first + end, t, space, s0,
              v, start * tiles * t.padded_channels, v_plane,
              g, start * tiles * t.padded_filters, g_plane)  # fmt: skip


def multiply_points(
    lanes: Any, v: Any, v_plane: Any, g: Any, g_plane: Any, tiles: Any, t: Any, du: Any, group: Any,
    add: Any, parts: Any, part: Any,
) -> None:  # fmt: skip
    """Set du, or add to it, from v and g."""
    plane, points = t.padded_channels * t.padded_filters, t.side * t.side
    for point in range(points * part // parts, points * (part + 1) // parts):
        accumulate(lanes, v, point * v_plane, g, point * g_plane, tiles, t,
                   du, (group * points + point) * plane, add)  # fmt: skip


@plain
def add_to(total: Any, more: Any) -> None:
    """Add to a stretch of numbers."""
    for i in range(total.size):
        total[i] += more[i]


def add_sections(du: Any, size: Any, sections: Any, parts: Any, part: Any) -> None:
    """Add up the sections in order, in the first, a stretch of it after another."""
    end = size * (part + 1) // parts
    for first in range(size * part // parts, end, STRETCH):
        last = min(first + STRETCH, end)
        for section in range(1, sections):
            other = section * size
            add_to(du[first:last], du[other + first : other + last])


def finish(du: Any, dw: Any, space: Any, t: Any, lanes: Any, parts: Any, part: Any) -> None:
    """Transform du to dw (groups, filters, channels, 3, 3)."""
    plane, s0 = t.padded_channels * t.padded_filters, part * (space.size // parts)
    tasks = t.groups * t.channels
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        group, c = task // t.channels, task % t.channels
        for k in range(0, t.filters, lanes):
            place = k // t.panel * t.padded_channels * t.panel + c * t.panel + k % t.panel
            place += group * t.side * t.side * plane
            weight_gradient_tile(t, du, space, place, t.side * plane, plane,
                                 s0 + k, 3 * t.padded_filters, t.padded_filters)  # fmt: skip
        target = (group * t.filters * t.channels + c) * 9
        transpose(lanes, space, s0, t.padded_filters, 9, t.filters,
                  dw, target, t.channels * 9, 9)  # fmt: skip
