"""Winograd convolution along signals: what is compiled.

A block of tiles, of a signal or of several, goes through three steps while it stays in the
second-level cache, as in ``winograd.py``: transform of the pixels, matrix products for each of the
8 points, transform to the outputs. A long window is cut into pieces, which meet the points of tiles
farther on; with a stride, every so-many-th pixel from each of the first on has channels of its own.
``row_plans.py`` has the sizes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..simd.elementary import plain
from ..simd.lines import prefetch_lines
from ..simd.transposes import transpose
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import SINGLE, Read1, Write1
from .column_transforms import POINTS
from .row_transforms import cotangent_tile, output_tile, pixel_tile, weighted_sum
from .winograd import NARROW_ROWS, SKEW, clear, multiply
from .winograd_gradient import accumulate


class Row(NamedTuple):
    """Sizes, all integers: of the signals that are read and written, and of the blocks between."""

    images: int
    groups: int
    channels: int
    """Of a group, in the signals that are read."""
    width: int
    left: int
    """Zeros in front of them."""
    stride: int
    dilation: int
    filters: int
    """Of a group, in the signals that are written."""
    out_width: int
    window: int
    written: int
    """Outputs of a tile."""
    pieces: int
    """Of the window."""
    taps: int
    """Of a piece, among every ``stride``-th one."""
    shift: int
    """Tiles from a piece to the next."""
    tiles: int
    """Of a signal, for each of the first ``dilation`` outputs."""
    block: int
    """The same of a block."""
    together: int
    """Signals of a block: several, if it has all tiles of each."""
    cuts: int
    """Pieces of the filters that a block is shared out in."""
    padded_channels: int
    """A multiple of the lanes, as are all padded sizes."""
    padded_filters: int
    panel: int
    """Filters of a matrix product's right side at once."""


class Block(NamedTuple):
    """Where a block lies, and how much of it there is."""

    first: int
    """Of its signals."""
    signals: int
    tile: int
    """The first one of each of them."""
    tiles: int


@shared
def blocks_of(t: Row) -> int:
    """Return how many blocks there are."""
    return -(-t.images // t.together) * -(-t.tiles // t.block)


@shared
def more_of(t: Row) -> int:
    """Return the tiles behind a block that the pieces of a window meet."""
    return (t.pieces - 1) * t.shift


class Scratch(NamedTuple):
    """A thread's memory, which begins with a strip of pixels, or later one of outputs."""

    v: int
    """Where the transformed pixels begin: (points, tiles, phases, padded channels)."""
    v_plane: int
    """Numbers of a point."""
    m: int
    """Where the products begin, or transformed cotangents: (points, tiles, padded filters)."""
    m_plane: int
    size: int


@shared
def scratch_of(t: Row, lanes: int) -> Scratch:
    """Return the memory for a block."""
    tiles = t.block + more_of(t)
    strip = t.stride * (t.written * (tiles - 1) + POINTS) * t.padded_channels
    strip = t.dilation * max(strip, t.written * t.block * t.padded_filters)
    segments = t.together * t.dilation
    v_plane = (segments * tiles + NARROW_ROWS) * t.stride * t.padded_channels + SKEW
    m_plane = (segments * t.block + NARROW_ROWS) * t.padded_filters + SKEW
    m = strip + POINTS * v_plane
    return Scratch(strip, v_plane, m, m_plane, -(-(m + POINTS * m_plane) // lanes) * lanes)


@plain
def block_at(number: Any, t: Any) -> Any:
    """Return where a block lies."""
    cuts = -(-t.tiles // t.block)
    first, tile = number // cuts * t.together, number % cuts * t.block
    return Block(first, min(t.together, t.images - first), tile, min(t.block, t.tiles - tile))


@plain
def read_strip(
    lanes: Any, x: Any, x0: Any, width: Any, channels: Any, start: Any, pixels: Any, space: Any,
    s0: Any, padded: Any,
) -> None:  # fmt: skip
    """Transpose pixels of a signal to (pixels, padded channels), zero outside the signal."""
    first = min(max(0, -start), pixels)
    last = max(first, min(pixels, width - start))
    clear(space, s0, first * padded)
    transpose(lanes, x, x0 + start + first, width, channels, last - first,
              space, s0 + first * padded, padded, padded)  # fmt: skip
    clear(space, s0 + last * padded, (pixels - last) * padded)


@plain
def read_block(
    lanes: Any, x: Any, group: Any, u: Any, t: Any, space: Any, s0: Any, v0: Any, plane: Any
) -> None:
    """Transform the tiles of a block to (points, signals, phases of dilation, tiles, channels)."""
    padded, tiles, apart = t.padded_channels, u.tiles + more_of(t), t.stride * t.dilation
    pixels = apart * (t.written * (tiles - 1) + POINTS)
    for i in range(u.signals):
        x0 = ((u.first + i) * t.groups + group) * t.channels * t.width
        read_strip(lanes, x, x0, t.width, t.channels, apart * t.written * u.tile - t.left, pixels,
                   space, s0, padded)  # fmt: skip
        for a in range(t.dilation):
            for r in range(tiles):
                source = s0 + t.stride * (a + t.dilation * t.written * r) * padded
                target = v0 + ((i * t.dilation + a) * tiles + r) * t.stride * padded
                for c in range(0, t.stride * padded, lanes):
                    pixel_tile(space, space, source + c, apart * padded, target + c, plane)


@plain
def read_cotangents(
    lanes: Any, dy: Any, group: Any, u: Any, t: Any, space: Any, s0: Any, g0: Any, plane: Any
) -> None:
    """Transform the cotangents of a block to (points, signals, phases, tiles, padded filters)."""
    padded, pixels = t.padded_filters, t.dilation * t.written * u.tiles
    for i in range(u.signals):
        y0 = ((u.first + i) * t.groups + group) * t.filters * t.out_width
        read_strip(lanes, dy, y0, t.out_width, t.filters, t.dilation * t.written * u.tile, pixels,
                   space, s0, padded)  # fmt: skip
        for a in range(t.dilation):
            for r in range(u.tiles):
                source = s0 + (a + t.dilation * t.written * r) * padded
                target = g0 + ((i * t.dilation + a) * u.tiles + r) * padded
                for k in range(0, padded, lanes):
                    cotangent_tile(space, space, source + k, t.dilation * padded, t.written,
                                   target + k, plane)  # fmt: skip


@plain
def write_block(
    lanes: Any, space: Any, m0: Any, plane: Any, bias: Any, group: Any, y: Any, u: Any, t: Any,
    s0: Any, relu: Any, k0: Any, k1: Any,
) -> None:  # fmt: skip
    """Transform the products of a block, (points, tiles, padded filters), to outputs.

    Of these, filters k0 to k1.
    """
    padded, k = t.padded_filters, group * t.filters
    start = t.dilation * t.written * u.tile
    pixels = min(t.dilation * t.written * u.tiles, t.out_width - start)
    for i in range(u.signals):
        for a in range(t.dilation):
            for r in range(u.tiles):
                source = m0 + ((i * t.dilation + a) * u.tiles + r) * padded
                target = s0 + (a + t.dilation * t.written * r) * padded
                for f in range(k0, k1, lanes):
                    output_tile(space, bias, space, source + f, plane, k + f, target + f,
                                t.dilation * padded, t.written, relu)  # fmt: skip
        y0 = ((u.first + i) * t.groups * t.filters + k + k0) * t.out_width + start
        transpose(lanes, space, s0 + k0, padded, pixels, min(k1, t.filters) - k0,
                  y, y0, t.out_width, pixels)  # fmt: skip


@plain
def prefetch_block(x: Any, group: Any, u: Any, t: Any, channels: Any, width: Any, share: Any,
                   to_write: Any) -> None:  # fmt: skip
    """Ask for a share of the pixels of a block, or of its outputs, while products hide the way."""
    each = t.dilation * t.written * (1 if to_write else t.stride)
    start = each * u.tile
    for i in range(u.signals):
        x0 = ((u.first + i) * t.groups + group) * channels * width + start
        prefetch_lines(x, x0, width, channels, min(each * u.tiles, width - start), share, POINTS,
                       to_write)  # fmt: skip


@plain
def segments_of(u: Any, t: Any) -> Any:
    """Return how many rows of tiles are multiplied by themselves, and how many tiles each has."""
    segments = u.signals * t.dilation
    return (segments, u.tiles) if t.pieces > 1 else (1, segments * u.tiles)


@compiled_in_parts(kind=SINGLE)
def forward(
    x: Read1, u: Read1, bias: Read1, y: Write1, space: Write1, t: Row, lanes: int, relu: bool,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write y from x and the weights u (groups, points, taps, panels, channels, panel)."""
    layout, blocks, panels = scratch_of(t, lanes), blocks_of(t), t.padded_filters // t.panel
    tasks, weights = blocks * t.groups * t.cuts, t.channels * t.padded_filters
    row, taps = t.stride * t.padded_channels, t.pieces * t.stride
    s0 = part * layout.size
    v0, m0, start = s0 + layout.v, s0 + layout.m, tasks * part // parts
    for task in range(start, tasks * (part + 1) // parts):
        cut, group, block = task % t.cuts, task // t.cuts % t.groups, task // t.cuts // t.groups
        k0, k1 = panels * cut // t.cuts * t.panel, panels * (cut + 1) // t.cuts * t.panel
        b = block_at(block, t)
        if cut == 0 or task == start:
            read_block(lanes, x, group, b, t, space, s0, v0, layout.v_plane)
        segments, tiles = segments_of(b, t)
        following = block_at(min(block + 1, blocks - 1), t)
        for point in range(POINTS):
            prefetch_block(x, group, following, t, t.channels, t.width, point, False)
            prefetch_block(y, group, b, t, t.filters, t.out_width, point, True)
            for i in range(segments):
                left = v0 + point * layout.v_plane + i * (tiles + more_of(t)) * row
                target = m0 + point * layout.m_plane + i * tiles * t.padded_filters
                for tap in range(taps):
                    place = left + tap // t.stride * t.shift * row
                    place += tap % t.stride * t.padded_channels
                    multiply(lanes, space, place, row, u,
                             ((group * POINTS + point) * taps + tap) * weights, 1, target + k0,
                             t.padded_filters, tiles, t, k0, k1, tap > 0)  # fmt: skip
        write_block(lanes, space, m0, layout.m_plane, bias, group, y, b, t, s0, relu, k0, k1)


@compiled_in_parts(kind=SINGLE)
def weight_gradient(
    x: Read1, dy: Read1, du: Write1, space: Write1, t: Row, lanes: int, sections: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write du (sections, groups, points, taps, panels, padded channels, panel)."""
    layout, blocks, tasks = scratch_of(t, lanes), blocks_of(t), sections * t.groups
    row, taps, weights = t.stride * t.padded_channels, t.pieces * t.stride, weights_of(t)
    s0 = part * layout.size
    v0, g0 = s0 + layout.v, s0 + layout.m
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // t.groups, task % t.groups
        start, end = blocks * section // sections, blocks * (section + 1) // sections
        for block in range(start, end):
            b = block_at(block, t)
            read_block(lanes, x, group, b, t, space, s0, v0, layout.v_plane)
            read_cotangents(lanes, dy, group, b, t, space, s0, g0, layout.m_plane)
            segments, tiles = segments_of(b, t)
            for point in range(POINTS):
                for tap in range(taps):
                    place = v0 + point * layout.v_plane + tap // t.stride * t.shift * row
                    place += tap % t.stride * t.padded_channels
                    right = g0 + point * layout.m_plane
                    target = ((task * POINTS + point) * taps + tap) * weights
                    for i in range(segments):
                        accumulate(lanes, space, place + i * (tiles + more_of(t)) * row, row,
                                   space, right + i * tiles * t.padded_filters, tiles, t,
                                   du, target, block > start or i > 0)  # fmt: skip


@shared
def weights_of(t: Row) -> int:
    """Return the numbers of a transformed weight gradient's point and tap, with padding."""
    return t.padded_channels * t.padded_filters


@compiled_in_parts(kind=SINGLE)
def transform_weights(
    w: Read1, factors: Read1, u: Write1, space: Write1, t: Row, lanes: int, reverse: bool,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write u from w (groups, filters, channels, window) and factors (points, taps of a piece).

    ``reverse``: from w (groups, channels, filters, window) with the taps turned around, for the
    input gradient.
    """
    tasks, s0, padded = t.groups * t.channels, part * t.window * t.padded_filters, t.padded_filters
    met = t.pieces * t.stride
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        group, c = task // t.channels, task % t.channels
        first = group * t.channels * t.filters * t.window
        source, stride, corner, step = first + c * t.window, t.channels * t.window, s0, padded
        if reverse:
            source, stride = first + c * t.filters * t.window, t.window
            corner, step = s0 + (t.window - 1) * padded, -padded
        transpose(lanes, w, source, stride, t.filters, t.window, space, s0, padded, padded)
        for tap in range(met):
            start = tap // t.stride * t.taps * t.stride + tap % t.stride
            count = min(t.taps, -(-(t.window - start) // t.stride))
            for point in range(POINTS):
                target = ((group * POINTS + point) * met + tap) * t.channels * padded
                for k in range(0, padded, lanes):
                    place = k // t.panel * t.channels * t.panel + c * t.panel + k % t.panel
                    weighted_sum(factors, space, u, point * t.taps, 1, corner + start * step + k,
                                 t.stride * step, count, target + place)  # fmt: skip


@compiled_in_parts(kind=SINGLE)
def finish(
    du: Write1, factors: Read1, dw: Write1, space: Write1, t: Row, lanes: int, parts: int, part: int
) -> None:
    """Transform du to dw (groups, filters, channels, window)."""
    tasks, s0, padded = t.groups * t.channels, part * t.window * t.padded_filters, t.padded_filters
    met, plane = t.pieces * t.stride, weights_of(t)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        group, c = task // t.channels, task % t.channels
        for u in range(t.window):
            j, piece = u // t.stride % t.taps, u // t.stride // t.taps
            source = (group * POINTS * met + piece * t.stride + u % t.stride) * plane
            for k in range(0, t.filters, lanes):
                place = k // t.panel * t.padded_channels * t.panel + c * t.panel + k % t.panel
                weighted_sum(factors, du, space, j, t.taps, source + place, met * plane, POINTS,
                             s0 + u * padded + k)  # fmt: skip
        target = (group * t.filters * t.channels + c) * t.window
        transpose(lanes, space, s0, padded, t.window, t.filters,
                  dw, target, t.channels * t.window, t.window)  # fmt: skip
