"""Direct convolution of every geometry: what is compiled.

``correlate`` is the forward pass and the input gradient, ``weight_gradient`` the rest. Both walk
over bands of rows that, packed, stay in the second-level cache; ``direct_plans.py`` says how long a
band is and fills the tables.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import borrowed, plain
from ..simd.lines import pack, place, prefetch_to_read
from ..simd.tiles import TAPS, correlation_tile, product_tile
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import FLOATS, Array, Integers, Read1, Write1
from ..toolchain.threads import PIECES
from .cotangents import mask, total

TILES = {8: 2, 6: 2, 3: 4, 1: 8}
"""Filters of a tile -> its vectors of pixels."""

TIMES = {8: 1.0, 6: 1.03, 3: 1.2, 1: 2.0}
"""The same -> the time of a multiplication, in that of the fastest."""

_8x2, _6x2, _3x4, _1x8 = (correlation_tile(*tile) for tile in TILES.items())


class Bands(NamedTuple):
    """Sizes of the packed image and how it is cut; all are integers."""

    images: int
    groups: int
    channels: int
    """Of a group, in the packed image."""
    height: int
    width: int
    row_step: int
    column_step: int
    pitch: int
    """Pixels of a packed row."""
    line: int
    """Pixels of a row of outputs: the pitch, or of a single row fewer."""
    band: int
    """Rows of outputs of a band; the last may have fewer."""
    rows: int
    """Rows of outputs in all."""
    halo: int
    """Rows that a band is packed with beyond its own."""
    packed: int
    """Numbers of a packed band, with room for reading on behind its end."""


class Outputs(NamedTuple):
    """Sizes of the image that is written, and how."""

    filters: int
    """Of a group."""
    height: int
    width: int
    tile: int
    """Filters of a tile."""
    whole: bool
    """Whether it is laid out as the packed rows are and is written to directly, not by a strip."""


class Phase(NamedTuple):
    """Outputs that meet the same taps."""

    first_offset: int
    depth: int
    first_weight: int
    row_start: int
    row_step: int
    column_start: int
    column_step: int


PHASE = np.dtype([(name, np.int64) for name in Phase._fields])
Phases = Annotated[Any, Array(PHASE, 1)]
Totals = Annotated[Any, Array("kind", 5, written=True)]


def tile_of(filters: int) -> int:
    """Return the filters of a tile that is best for so many."""
    return min(TILES, key=lambda tile: -(-filters // tile) * tile * TIMES[tile])


@shared
def units_of(bands: Bands) -> int:
    """Return how many bands all images have."""
    return bands.images * -(-bands.rows // bands.band)


@shared
def correlation_scratch(bands: Bands, outputs: Outputs, lanes: int) -> int:
    """Return the numbers of a thread's memory: a packed band, and a strip of outputs behind it."""
    if outputs.whole:
        return bands.packed
    strip = outputs.tile * bands.band * bands.pitch
    return bands.packed + strip + lanes  # whole vectors are read from the strip's rows


@shared
def gradient_scratch(bands: Bands, lanes: int, masks: bool) -> int:
    """Return the numbers of a thread's memory: a packed band, and masked planes behind it."""
    masked = lanes // TAPS * bands.rows * bands.line
    return bands.packed + (masked if masks else 0)


@plain
def run_of_pixels(
    tile: Any, lanes: Any, x: Any, x0: Any, offsets: Any, o0: Any, w: Any, w0: Any, depth: Any,
    bias: Any, b0: Any, y: Any, y0: Any, y_stride: Any, rows: Any, pixels: Any, relu: Any,
) -> None:  # fmt: skip
    """Write to y a tile's filters for a run of consecutive pixels of x."""
    if tile == 8:
        for p in range(0, pixels, 2 * lanes):
            _8x2(x, offsets, w, bias, y, x0 + p, o0, w0, depth, b0, y0 + p, y_stride, rows,
                 pixels - p, relu)  # fmt: skip
    elif tile == 6:
        for p in range(0, pixels, 2 * lanes):
            _6x2(x, offsets, w, bias, y, x0 + p, o0, w0, depth, b0, y0 + p, y_stride, rows,
                 pixels - p, relu)  # fmt: skip
    elif tile == 3:
        for p in range(0, pixels, 4 * lanes):
            _3x4(x, offsets, w, bias, y, x0 + p, o0, w0, depth, b0, y0 + p, y_stride, rows,
                 pixels - p, relu)  # fmt: skip
    else:
        for p in range(0, pixels, 8 * lanes):
            _1x8(x, offsets, w, bias, y, x0 + p, o0, w0, depth, b0, y0 + p, y_stride, rows,
                 pixels - p, relu)  # fmt: skip


@plain
def pack_band(
    x: Any, unit: Any, group: Any, bands: Any, row_starts: Any, column_starts: Any,
    space: Any, s0: Any,
) -> Any:  # fmt: skip
    """Pack a unit of work, an image's band; return the image, its first row and the row count."""
    cuts = -(-bands.rows // bands.band)
    n, first = unit // cuts, unit % cuts * bands.band
    rows = min(bands.band, bands.rows - first)
    source = (n * bands.groups + group) * bands.channels * bands.height * bands.width
    pack(x, source, bands.channels, bands.height, bands.width,
         row_starts, first * bands.row_step, bands.row_step, bands.band + bands.halo,
         column_starts, 0, bands.column_step, bands.pitch, space, s0)  # fmt: skip
    return n, first, rows


@plain
def prefetch_share(x: Any, x0: Any, size: Any, share: Any, shares: Any) -> None:
    """Ask for a share of the numbers from x[x0] on, while products hide the way."""
    for p in range(size * share // shares, size * (share + 1) // shares, 16):
        prefetch_to_read(x, x0 + p)


@compiled_in_parts(PIECES, kind=FLOATS)
def gather(w: Read1, order: Integers, weights: Write1, parts: int, part: int) -> None:
    """Write the weights in the order of the taps; -1 stands for 0."""
    for i in range(order.size * part // parts, order.size * (part + 1) // parts):
        weights[i] = w[order[i]] if order[i] >= 0 else w.dtype.type(0)


@compiled_in_parts(kind=FLOATS)
def correlate(
    x: Read1, w: Read1, bias: Read1, offsets: Integers, phases: Phases, row_starts: Integers,
    column_starts: Integers, y: Write1, outputs: Outputs, space: Write1, bands: Bands, lanes: int,
    relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y (N, groups * filters, height, width), a tile of filters after another.

    x, w and y are flat. Outputs that no tap meets are the bias.
    """
    x, w, bias, offsets = borrowed(x), borrowed(w), borrowed(bias), borrowed(offsets)
    row_starts, column_starts = borrowed(row_starts), borrowed(column_starts)
    y, space = borrowed(y), borrowed(space)
    filters, height, width, tile, whole = outputs
    blocks = -(-filters // tile)
    units = units_of(bands) * bands.groups
    s0 = part * correlation_scratch(bands, outputs, lanes)
    strip = s0 + bands.packed
    image_size, end = bands.channels * bands.height * bands.width, units * (part + 1) // parts
    for task in range(units * part // parts, end):
        follows = bands.band == bands.rows and task + 1 < end  # another image, read as a whole
        group = task % bands.groups
        n, first, rows = pack_band(
            x, task // bands.groups, group, bands, row_starts, column_starts, space, s0
        )
        run = (rows - 1) * bands.pitch + bands.line
        for phase in phases:
            o0, depth = phase.first_offset, phase.depth
            for block in range(blocks):
                prefetch_share(x, (task + 1) * image_size, image_size * follows, block, blocks)
                k = group * filters + block * tile
                ours = min(tile, filters - block * tile)
                weights = phase.first_weight + (group * blocks + block) * depth * tile
                image = (n * bands.groups * filters + k) * height * width
                if whole:
                    run_of_pixels(tile, lanes, space, s0, offsets, o0, w, weights, depth,
                                  bias, k, y, image + first * width, height * width, ours,
                                  run, relu)  # fmt: skip
                else:
                    run_of_pixels(tile, lanes, space, s0, offsets, o0, w, weights, depth,
                                  bias, k, space, strip, run, ours, run, relu)  # fmt: skip
                    for f in range(ours):
                        place(space, strip + f * run, rows, bands.pitch,
                              y, image + f * height * width, height, width,
                              phase.row_start + first * phase.row_step, phase.row_step,
                              phase.column_start, phase.column_step)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def weight_gradient(
    x: Read1, dy: Read1, y: Read1, offsets: Integers, row_starts: Integers,
    column_starts: Integers, totals: Totals, planes: Write1, space: Write1, bands: Bands,
    filters: int, lanes: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Add up totals (sections, groups, blocks of filters, blocks of taps, lanes).

    The images are cut into as many sections as ``totals`` has, whatever the number of threads, and
    each is summed in order. dy is flat: (N, groups * filters, rows, line). So is y, if there is
    one, and bands are whole planes: then dy counts where y > 0, and ``planes`` are its sums.
    """
    x, dy, y, offsets, planes = (
        borrowed(x), borrowed(dy), borrowed(y), borrowed(offsets), borrowed(planes),
    )  # fmt: skip
    row_starts, column_starts = borrowed(row_starts), borrowed(column_starts)
    totals, space = borrowed(totals), borrowed(space)
    sections, groups, blocks, tap_blocks, _ = totals.shape
    tile, units = lanes // TAPS, units_of(bands)
    tasks, plane = sections * groups, bands.rows * bands.line
    sums = totals.reshape(-1)
    s0 = part * gradient_scratch(bands, lanes, y.size > 0)
    m0 = s0 + bands.packed
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // groups, task % groups
        for unit in range(units * section // sections, units * (section + 1) // sections):
            n, first, rows = pack_band(x, unit, group, bands, row_starts, column_starts, space, s0)
            for block in range(blocks):
                k = group * filters + block * tile
                g0 = (n * groups * filters + k) * plane + first * bands.line
                ours, pixels = min(tile, filters - block * tile), rows * bands.line
                for f in range(ours if y.size > 0 else 0):
                    start = g0 + f * plane
                    masked = space[m0 + f * plane : m0 + (f + 1) * plane]
                    mask(dy[start : start + plane], y[start : start + plane], masked)
                    total(masked, planes, plane, n * groups * filters + k + f)
                for t in range(tap_blocks):
                    target = ((task * blocks + block) * tap_blocks + t) * lanes
                    if y.size > 0:
                        product_tile(space, offsets, space, sums, s0, t * TAPS, m0, plane, ours,
                                     pixels, target)  # fmt: skip
                    else:
                        product_tile(space, offsets, dy, sums, s0, t * TAPS, g0, plane, ours,
                                     pixels, target)  # fmt: skip
