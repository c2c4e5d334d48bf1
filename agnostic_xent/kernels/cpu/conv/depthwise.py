"""Depthwise convolution, a filter for each channel: what is compiled.

Outputs are cut into tiles, up to 16 rows of a vector. ``depthwise_tiles.py`` has what a tile does;
``depthwise_plans.py`` fills the tables, so that a loop over small planes has nothing to work out.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import borrowed, inlined
from ..simd.lines import prefetch_to_read, prefetch_to_write
from ..simd.tiles import BLOCK
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Array, Integers, Read1, Write1, WrittenDoubles
from .depthwise_tiles import PLANES, ROWS, Planes, add_across, correlation, merge, products

LINE = 16
"""Numbers of a line of memory, or of two."""


class Outputs(NamedTuple):
    """Sizes of the images that are written; all are integers."""

    columns: int
    """Of a tile's grid: all of a row, or those of one place in the stride."""
    pixels: int
    """Of a plane."""
    width: int
    step: int
    """Numbers from a row of a tile to the next."""
    column_step: int
    column_start: int


class Tile(NamedTuple):
    """Rows of outputs."""

    row: int
    """The row of pixels that the first tap of the first one meets, outside the image perhaps."""
    output: int
    """Its first output: a place in the plane."""
    rows: int
    window: int
    """The number of the `Window` that it meets; that of the next column follows."""


class Window(NamedTuple):
    """Taps: where their tables begin, and sizes."""

    offset: int
    columns: int
    mask: int
    chunk: int
    chunks: int
    weight: int


TILE, WINDOW = (np.dtype([(name, np.int64) for name in t._fields]) for t in (Tile, Window))
Tiles = Annotated[Any, Array(TILE, 1)]
Windows = Annotated[Any, Array(WINDOW, 1)]


@inlined
def ask_to_read(x: Any, planes: Any, share: Any, number: Any) -> None:
    """Ask for a tile's share of the planes from x[planes[0]] to x[planes[1]]."""
    start = planes[0] + number * share
    for i in range(start, min(start + share, planes[1]), LINE):
        prefetch_to_read(x, i)


@inlined
def ask_to_write(y: Any, planes: Any, share: Any, number: Any) -> None:
    """Ask for the same in order to write it."""
    start = planes[0] + number * share
    for i in range(start, min(start + share, planes[1]), LINE):
        prefetch_to_write(y, i)


@inlined
def share_of(tiles: Any, pixels: Any) -> Any:
    """Return a tile's share of so many pixels, whole lines of memory."""
    return -(-pixels // (tiles * LINE)) * LINE


@compiled_in_parts(kind=FLOATS, p=PLANES)
def correlate(
    x: Read1, zeros: Read1, w: Read1, bias: Read1, offsets: Integers, masks: Integers,
    chunks: Integers, windows: Windows, tiles: Tiles, y: Write1, space: Write1, p: Planes,
    out: Outputs, cuts: int, taps: int, lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y, flat, from x and the weights w (channels, taps) in the order of the windows.

    The tiles of a plane are cut into so many units of work.
    """
    x, w, bias, y, space = borrowed(x), borrowed(w), borrowed(bias), borrowed(y), borrowed(space)
    zeros, offsets, masks = borrowed(zeros), borrowed(offsets), borrowed(masks)
    chunks, windows, tiles = borrowed(chunks), borrowed(windows), borrowed(tiles)
    pixels, s0 = p.height * p.width, part * 2 * ROWS * lanes if out.column_step == 2 else -1
    shares = share_of(tiles.size, pixels), share_of(tiles.size, out.pixels)
    units = p.images * p.channels * cuts
    first, end = units * part // parts, units * (part + 1) // parts
    plane, cut = first // cuts, first % cuts
    channel = plane % p.channels
    for _ in range(first, end):
        x0, y0 = plane * pixels, plane * out.pixels
        ahead = x0 + pixels, min(x.size, x0 + 2 * pixels)
        ahead_y = y0 + out.pixels, min(y.size, y0 + 2 * out.pixels)
        for number in range(tiles.size * cut // cuts, tiles.size * (cut + 1) // cuts):
            tile = tiles[number]
            ask_to_read(x, ahead, shares[0], number)
            ask_to_write(y, ahead_y, shares[1], number)
            to, j, column = y0 + tile.output, 0, p.column_start
            for vector in range(-(-out.columns // lanes)):
                for b in range(out.column_step):
                    window = windows[tile.window + b]
                    correlation(
                        p, x, zeros, offsets, masks, chunks, w, bias, y, space, x0, p.height,
                        p.width, tile.row, p.row_step, column, window.offset, window.columns,
                        window.mask + vector * window.columns, window.chunk, window.chunks,
                        channel * taps + window.weight, channel, to + j, out.step, tile.rows,
                        vector, relu, s0 + b * ROWS * lanes,
                    )  # fmt: skip
                if out.column_step == 2:
                    merge(space, y, s0, to, out.step, out.width, out.column_start + 2 * j,
                          tile.rows)  # fmt: skip
                j, column = j + lanes, column + lanes * p.column_step
        cut += 1
        if cut == cuts:
            cut, plane, channel = 0, plane + 1, channel + 1
            if channel == p.channels:
                channel = 0


@compiled_in_parts(kind=FLOATS, p=PLANES)
def weight_gradient(
    x: Read1, zeros: Read1, dy: Read1, offsets: Integers, masks: Integers, chunks: Integers,
    window: Window, tiles: Tiles, totals: WrittenDoubles, space: Write1, p: Planes, out: Outputs,
    sections: int, block: int, taps: int, lanes: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Add up totals (sections of the images, channels, taps), flat.

    So many channels as a ``block`` are summed at once over a run of images, whatever the number of
    threads.
    """
    x, dy, totals, space = borrowed(x), borrowed(dy), borrowed(totals), borrowed(space)
    zeros, offsets, masks = borrowed(zeros), borrowed(offsets), borrowed(masks)
    chunks, tiles = borrowed(chunks), borrowed(tiles)
    pixels, vectors = p.height * p.width, -(-out.columns // lanes)
    blocks, s0 = -(-p.channels // block), part * block * taps * lanes
    space[s0 : s0 + block * taps * lanes] = 0
    most = max(1, BLOCK // vectors)  # tiles, whose sums are added up in the type of the numbers
    run = max(1, most // tiles.size)  # images
    shares = share_of(tiles.size, pixels), share_of(tiles.size, out.pixels)
    tasks = sections * blocks
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, c0 = task // blocks, task % blocks * block
        start, end = p.images * section // sections, p.images * (section + 1) // sections
        for n in range(start, end):
            done = (n + 1 - start) % run == 0 or n + 1 == end
            for c in range(c0, min(c0 + block, p.channels)):
                x0, g0 = (n * p.channels + c) * pixels, (n * p.channels + c) * out.pixels
                at, t0, added = s0 + (c - c0) * taps * lanes, (section * p.channels + c) * taps, 0
                ahead = x0 + pixels, min(x.size, x0 + 2 * pixels)
                ahead_g = g0 + out.pixels, min(dy.size, g0 + 2 * out.pixels)
                for number in range(tiles.size):
                    tile = tiles[number]
                    ask_to_read(x, ahead, shares[0], number)
                    ask_to_read(dy, ahead_g, shares[1], number)
                    j, column = g0 + tile.output, p.column_start
                    for vector in range(vectors):
                        products(
                            p, x, zeros, offsets, masks, chunks, dy, space, x0, p.height, p.width,
                            tile.row, p.row_step, column, window.columns,
                            window.mask + vector * window.columns, window.chunks, j, out.step,
                            tile.rows, vector, at,
                        )  # fmt: skip
                        j, column = j + lanes, column + lanes * p.column_step
                    added += 1
                    if added == most or (done and number + 1 == tiles.size):
                        add_across(space, totals, at, t0, taps)
                        added = 0
