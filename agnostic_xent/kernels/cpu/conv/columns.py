"""Winograd convolution down the columns: what is compiled.

A block of tile rows, each some rows of outputs, goes through three steps while it stays in the
second-level cache: transform of 8 rows of pixels, the sum over channels and the taps of a row of
the window for each of the 8 points, by the micro-kernels of direct convolution, and the transform
to rows of the output. ``column_plans.py`` has the sizes.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from ..simd.elementary import plain
from ..simd.tiles import TAPS, product_tile
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import SINGLE, Array, Integers, Read1, Write1
from .column_transforms import POINTS, read_cotangents, read_every_other, read_rows, write_rows
from .direct import TILES, run_of_pixels


class Columns(NamedTuple):
    """Sizes of the images that are read and written, and of the blocks; all are integers."""

    images: int
    groups: int
    channels: int
    """Of a group, in the image that is read."""
    height: int
    width: int
    top: int
    left: int
    """Zeros above and to the left."""
    row_step: int
    column_step: int
    """The stride: so many images of every other row and column are read for one."""
    filters: int
    """Of a group, in the image that is written."""
    out_height: int
    out_width: int
    written: int
    """Rows of outputs of a tile row."""
    pitch: int
    """Pixels of a tile row: some more than an output row has."""
    block: int
    """Tile rows of a block."""
    run: int
    """Numbers of a plane: a block's pixels and some room."""
    cuts: int
    """Pieces of the filters that a block is shared out in."""


Totals = Annotated[Any, Array("kind", 6, written=True)]

READ_ON = max(TILES.values())
"""Vectors behind a block that may be read."""


@shared
def tile_rows_of(t: Columns) -> int:
    """Return how many tile rows an image has."""
    return -(-t.out_height // t.written)


class Scratch(NamedTuple):
    """A thread's memory: the points of a block's pixels, and behind them others with as many."""

    plane: int
    """Numbers of a point of the pixels."""
    others: int
    """Where the others begin: products of the filters of a tile, or points of cotangents."""
    size: int


@shared
def scratch_of(t: Columns, filters: int, lanes: int) -> Scratch:
    """Return the memory for a block's pixels and for so many filters."""
    plane = t.channels * t.row_step * t.column_step * t.run
    others = POINTS * plane
    return Scratch(plane, others, others + POINTS * filters * t.run + READ_ON * lanes)


@plain
def read_block(
    x: Any, group: Any, first: Any, last: Any, t: Any, space: Any, s0: Any, point: Any
) -> None:
    """Transform tile rows of x to (points, channels, row phases, column phases, run) in space."""
    tile_rows = tile_rows_of(t)
    for r in range(first, last):
        h0 = r % tile_rows * t.written * t.row_step - t.top
        image = (r // tile_rows * t.groups + group) * t.channels * t.height * t.width
        target = s0 + (r - first) * t.pitch
        for c in range(t.channels):
            for a in range(t.row_step):
                h = h0 + a
                top = (-h + t.row_step - 1) // t.row_step  # the first row inside the image
                bottom = (t.height - h + t.row_step - 1) // t.row_step
                row = image + (c * t.height + h) * t.width
                for left in range(-t.left, t.column_step - t.left):
                    if t.column_step == 1:
                        read_rows(x, space, row, t.row_step * t.width, top, bottom, left,
                                  t.width, target, point, t.pitch)  # fmt: skip
                    else:
                        read_every_other(x, space, row, t.row_step * t.width, top, bottom, left,
                                         t.width, target, point, t.pitch)  # fmt: skip
                    target += t.run


@compiled_in_parts(kind=SINGLE)
def forward(
    x: Read1, u: Read1, nothing: Read1, bias: Read1, offsets: Integers, y: Write1, space: Write1,
    t: Columns, tile: int, lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y from x and the weights u (groups, blocks of filters, points, taps, tile)."""
    tile_rows, depth = tile_rows_of(t), offsets.size
    rows, blocks = t.images * tile_rows, -(-t.filters // tile)
    tasks = -(-rows // t.block) * t.groups * t.cuts
    layout = scratch_of(t, tile, lanes)
    v_point, s0 = layout.plane, part * layout.size
    m0 = s0 + layout.others
    start = tasks * part // parts
    for task in range(start, tasks * (part + 1) // parts):
        cut, group = task % t.cuts, task // t.cuts % t.groups
        first = task // t.cuts // t.groups * t.block
        last = min(first + t.block, rows)
        if cut == 0 or task == start:
            read_block(x, group, first, last, t, space, s0, v_point)
        for block in range(blocks * cut // t.cuts, blocks * (cut + 1) // t.cuts):
            ours = min(tile, t.filters - block * tile)
            weights = (group * blocks + block) * POINTS * depth * tile
            for point in range(POINTS):
                run_of_pixels(tile, lanes, space, s0 + point * v_point, offsets, 0, u,
                              weights + point * depth * tile, depth, nothing, 0,
                              space, m0 + point * tile * t.run, t.run, ours,
                              (last - first) * t.pitch, False)  # fmt: skip
            for r in range(first, last):
                k = group * t.filters + block * tile
                h = r % tile_rows * t.written
                image = (r // tile_rows * t.groups * t.filters + k) * t.out_height + h
                for f in range(ours):
                    write_rows(space, bias, y, m0 + f * t.run + (r - first) * t.pitch,
                               tile * t.run, k + f, (image + f * t.out_height) * t.out_width,
                               t.out_width, min(t.written, t.out_height - h), t.written,
                               t.out_width, relu)  # fmt: skip


@compiled_in_parts(kind=SINGLE)
def weight_gradient(
    x: Read1, dy: Read1, offsets: Integers, totals: Totals, space: Write1, t: Columns, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Add up totals (sections, groups, points, blocks of filters, blocks of taps, lanes)."""
    sections, groups, points, blocks, tap_blocks, _ = totals.shape
    tile_rows, tile = tile_rows_of(t), lanes // TAPS
    rows, tasks, sums = t.images * tile_rows, sections * groups, totals.reshape(-1)
    layout = scratch_of(t, t.filters, lanes)
    v_point, g_point = layout.plane, t.filters * t.run
    s0 = part * layout.size
    g0 = s0 + layout.others
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // groups, task % groups
        end = rows * (section + 1) // sections
        for first in range(rows * section // sections, end, t.block):
            last = min(first + t.block, end)
            read_block(x, group, first, last, t, space, s0, v_point)
            for r in range(first, last):
                h = r % tile_rows * t.written
                image = (r // tile_rows * groups + group) * t.filters * t.out_height + h
                for k in range(t.filters):
                    read_cotangents(dy, space, (image + k * t.out_height) * t.out_width,
                                    t.out_width, min(t.written, t.out_height - h), t.written,
                                    t.out_width, g0 + k * t.run + (r - first) * t.pitch, g_point,
                                    t.pitch)  # fmt: skip
            pixels = (last - first - 1) * t.pitch + t.out_width
            for point in range(points):
                for block in range(blocks):
                    source = g0 + point * g_point + block * tile * t.run
                    for taps in range(tap_blocks):
                        target = ((task * points + point) * blocks + block) * tap_blocks + taps
                        product_tile(space, offsets, space, sums, s0 + point * v_point,
                                     taps * TAPS, source, t.run, t.filters - block * tile,
                                     pixels, target * lanes)  # fmt: skip
