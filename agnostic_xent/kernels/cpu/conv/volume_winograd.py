"""Winograd convolution of volumes: what is compiled.

Planes are transformed as images are (``winograd.py``), each once for all planes of a block of
outputs; the taps in depth are summed among the transforms. ``volume_plans.py`` has the sizes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..simd.elementary import plain
from ..simd.lines import prefetch_lines
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import SINGLE, Bytes, Read1, Write1
from .tiling import Stride1, Tiling, columns_of, tile_rows_of, tiles_of
from .winograd import NARROW_ROWS, ROOM, SKEW, clear, multiply, read_tiles, write_tiles
from .winograd_gradient import accumulate, read_cotangents


class Depth(NamedTuple):
    """The third axis of a convolution, and how it is cut; a tiling has the others."""

    planes: int
    """Of a volume that is read."""
    outputs: int
    """Of one that is written."""
    taps: int
    step: int
    apart: int
    """Planes from one tap to the next."""
    front: int
    """Planes of zeros in front of the first one."""
    block: int
    """Output planes of a block."""
    rows: int
    """Tile rows of each of them."""


class Block(NamedTuple):
    """Where a block lies, and how much of it there is."""

    volume: int
    plane: int
    """The first one that is written."""
    planes: int
    row: int
    """The first tile row."""
    rows: int


@shared
def blocks_of(t: Tiling, d: Depth) -> int:
    """Return how many blocks the volumes have."""
    return t.images * -(-d.outputs // d.block) * -(-tile_rows_of(t) // d.rows)


@shared
def read_of(d: Depth, planes: int) -> int:
    """Return how many planes so many output planes meet."""
    return (planes - 1) * d.step + (d.taps - 1) * d.apart + 1


class Scratch(NamedTuple):
    """A thread's memory, which begins with strips of pixels and of outputs or cotangents."""

    out: int
    """Where the second strip begins."""
    v: int
    """Where the transformed pixels begin: (points, planes, tile rows, tiles, padded channels)."""
    v_plane: int
    """Numbers of a point."""
    m: int
    """Where the products begin, or transformed cotangents: with padded filters."""
    m_plane: int
    m_line: int
    """Numbers of a tile."""
    size: int


@shared
def scratch_of(t: Tiling, d: Depth, lanes: int) -> Scratch:
    """Return the memory for a block."""
    tiles, points = d.rows * tiles_of(t), t.side * t.side
    out = t.read * columns_of(t) * t.padded_channels
    v = out + t.written * t.written * tiles_of(t) * t.padded_filters + ROOM
    v_plane = (read_of(d, d.block) * tiles + NARROW_ROWS) * t.padded_channels + SKEW
    m_plane = (d.block * tiles + NARROW_ROWS) * t.padded_filters + SKEW
    m = v + points * v_plane
    size = -(-(m + points * m_plane) // lanes) * lanes
    return Scratch(out, v, v_plane, m, m_plane, t.padded_filters, size)


@plain
def block_at(number: Any, t: Any, d: Any) -> Any:
    """Return where a block lies."""
    down, across = -(-tile_rows_of(t) // d.rows), -(-d.outputs // d.block)
    row, plane = number % down * d.rows, number // down % across * d.block
    rows, planes = min(d.rows, tile_rows_of(t) - row), min(d.block, d.outputs - plane)
    return Block(number // down // across, plane, planes, row, rows)


@plain
def read_planes(
    lanes: Any, x: Any, nothing: Any, group: Any, u: Any, t: Any, d: Any, space: Any, s0: Any,
    v0: Any, plane: Any,
) -> None:  # fmt: skip
    """Transform the tiles of all planes that a block meets, zero in front and behind."""
    area, size = t.height * t.width, u.rows * tiles_of(t) * t.padded_channels
    x0 = (u.volume * t.groups + group) * t.channels * d.planes * area
    for p in range(read_of(d, u.planes)):
        place, target = u.plane * d.step - d.front + p, v0 + p * size
        if 0 <= place < d.planes:
            for r in range(u.rows):
                read_tiles(lanes, x, nothing, x0 + place * area, d.planes * area, u.row + r, t,
                           space, s0, s0, space, target + r * tiles_of(t) * t.padded_channels,
                           plane, r > 0)  # fmt: skip
        else:
            for point in range(t.side * t.side):
                clear(space, target + point * plane, size)


@plain
def prefetch_planes(
    x: Any, x0: Any, channels: Any, planes: Any, first: Any, last: Any, row: Any, rows: Any,
    height: Any, width: Any, share: Any, shares: Any, to_write: Any,
) -> None:  # fmt: skip
    """Ask for a share of rows of some of the planes of a volume, while products hide the way."""
    area, count = height * width, min(rows, height - row) * width
    for place in range(max(0, first), min(last, planes)):
        prefetch_lines(x, x0 + place * area + row * width, planes * area, channels, count, share,
                       shares, to_write)  # fmt: skip


@plain
def segments_of(u: Any, t: Any, d: Any) -> Any:
    """Return how many runs of tiles follow each other in what is read and written, and how long."""
    tiles = u.rows * tiles_of(t)
    return (1, u.planes * tiles) if d.step == 1 else (u.planes, tiles)


@compiled_in_parts(kind=SINGLE, t=(Stride1,))
def forward(
    x: Read1, nothing: Bytes, u: Read1, bias: Read1, y: Write1, space: Write1, t: Tiling,
    d: Depth, lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y from x and weights u (groups, points, panels, channels, taps in depth, panel)."""
    layout, points, panels = scratch_of(t, d, lanes), t.side * t.side, t.padded_filters // t.panel
    tasks, weights = blocks_of(t, d) * t.groups * t.cuts, t.channels * d.taps * t.padded_filters
    area = t.out_height * t.out_width
    s0, start = part * layout.size, tasks * part // parts
    v0, m0 = s0 + layout.v, s0 + layout.m
    clear(space, s0, layout.out)
    for task in range(start, tasks * (part + 1) // parts):
        cut, group, block = task % t.cuts, task // t.cuts % t.groups, task // t.cuts // t.groups
        k0, k1 = panels * cut // t.cuts * t.panel, panels * (cut + 1) // t.cuts * t.panel
        b = block_at(block, t, d)
        if cut == 0 or task == start:
            read_planes(lanes, x, nothing, group, b, t, d, space, s0, v0, layout.v_plane)
        segments, tiles = segments_of(b, t, d)
        layer = b.rows * tiles_of(t) * t.padded_channels
        n, volume = block_at(min(block + 1, blocks_of(t, d) - 1), t, d), b.volume * t.groups + group
        x0 = (n.volume * t.groups + group) * t.channels * d.planes * t.height * t.width
        y0, front = volume * t.filters * d.outputs * area, n.plane * d.step - d.front
        for point in range(points):
            prefetch_planes(x, x0, t.channels, d.planes, front, front + read_of(d, n.planes),
                            n.row * t.step, n.rows * t.step, t.height, t.width, point, points,
                            False)  # fmt: skip
            prefetch_planes(y, y0, t.filters, d.outputs, b.plane, b.plane + b.planes,
                            b.row * t.written, b.rows * t.written, t.out_height, t.out_width,
                            point, points, True)  # fmt: skip
            u0 = (group * points + point) * weights
            for i in range(segments):
                left = v0 + point * layout.v_plane + i * d.step * layer
                target = m0 + point * layout.m_plane + i * tiles * t.padded_filters
                for tap in range(d.taps):
                    multiply(lanes, space, left + tap * d.apart * layer, t.padded_channels, u,
                             u0 + tap * t.panel, d.taps, target, t.padded_filters, tiles, t,
                             k0, k1, tap > 0)  # fmt: skip
        for r in range(b.planes * b.rows):
            image = y0 + (b.plane + r // b.rows) * area
            write_tiles(lanes, space, m0 + r * tiles_of(t) * t.padded_filters, layout,
                        bias, group * t.filters, y, image, d.outputs * area, b.row + r % b.rows,
                        t, s0 + layout.out, relu, k0, k1)  # fmt: skip


@compiled_in_parts(kind=SINGLE, t=(Stride1,))
def weight_gradient(
    x: Read1, nothing: Bytes, dy: Read1, du: Write1, space: Write1, t: Tiling, d: Depth,
    lanes: int, sections: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Write du (sections, groups, points, taps in depth, panels, padded channels, panel)."""
    layout, blocks, tasks = scratch_of(t, d, lanes), blocks_of(t, d), sections * t.groups
    points, weights = t.side * t.side, t.padded_channels * t.padded_filters
    area, s0 = t.out_height * t.out_width, part * layout.size
    v0, g0 = s0 + layout.v, s0 + layout.m
    clear(space, s0, layout.v)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // t.groups, task % t.groups
        start, end = blocks * section // sections, blocks * (section + 1) // sections
        for block in range(start, end):
            b = block_at(block, t, d)
            read_planes(lanes, x, nothing, group, b, t, d, space, s0, v0, layout.v_plane)
            volume = (b.volume * t.groups + group) * t.filters * d.outputs
            for r in range(b.planes * b.rows):
                read_cotangents(lanes, dy, nothing, (volume + b.plane + r // b.rows) * area,
                                d.outputs * area, b.row + r % b.rows, t, space, s0 + layout.out, s0,
                                space, g0 + r * tiles_of(t) * t.padded_filters,
                                layout.m_plane)  # fmt: skip
            segments, tiles = segments_of(b, t, d)
            layer = b.rows * tiles_of(t) * t.padded_channels
            for place in range(points * d.taps):
                point, tap = place // d.taps, place % d.taps
                left = v0 + point * layout.v_plane + tap * d.apart * layer
                target = (task * points * d.taps + place) * weights
                for i in range(segments):
                    right = g0 + point * layout.m_plane + i * tiles * t.padded_filters
                    accumulate(lanes, space, left + i * d.step * layer, t.padded_channels, space,
                               right, tiles, t, du, target, block > start or i > 0)  # fmt: skip
