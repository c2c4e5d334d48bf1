"""Direct convolution of every geometry: what is compiled.

``correlate`` is the forward pass and the input gradient, ``weight_gradient`` the rest. Both walk
over bands of rows that, packed, stay in the second-level cache; ``direct_plans.py`` says how long a
band is and fills the tables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..simd.lines import pack, place, plain
from ..simd.tiles import TAPS, correlation_tile, product_tile
from .cotangents import mask, total

TILES = {8: 2, 6: 2, 3: 4, 1: 8}
"""Filters of a tile -> its vectors of pixels."""

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
    band: int
    """Rows of outputs of a band; the last may have fewer."""
    rows: int
    """Rows of outputs in all."""
    halo: int
    """Rows that a band is packed with beyond its own."""
    packed: int
    """Numbers of a packed band, with room for reading on behind its end."""


class Phase(NamedTuple):
    """The columns of the table of phases: outputs that meet the same taps."""

    first_offset: int
    depth: int
    first_weight: int
    row_start: int
    row_step: int
    column_start: int
    column_step: int


@plain
def run_of_pixels(
    tile: Any, lanes: Any, x: Any, x0: Any, offsets: Any, o0: Any, w: Any, w0: Any, depth: Any,
    bias: Any, b0: Any, y: Any, y0: Any, y_stride: Any, rows: Any, pixels: Any, relu: Any,
) -> None:  # fmt: skip
    """Compute a tile's filters for a run of consecutive pixels."""
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
    """Pack a unit of work, an image's band; return the image, the first row and their number."""
    cuts = -(-bands.rows // bands.band)
    n, first = unit // cuts, unit % cuts * bands.band
    rows = min(bands.band, bands.rows - first)
    source = (n * bands.groups + group) * bands.channels * bands.height * bands.width
    pack(x, source, bands.channels, bands.height, bands.width,
         row_starts, first * bands.row_step, bands.row_step, bands.band + bands.halo,
         column_starts, bands.column_step, bands.pitch, space, s0)  # fmt: skip
    return n, first, rows


def correlate(
    x: Any,
    w: Any,
    bias: Any,
    offsets: Any,
    phases: Any,
    row_starts: Any,
    column_starts: Any,
    y: Any,
    shape: Any,
    space: Any,
    bands: Any,
    tile: Any,
    lanes: Any,
    whole: Any,
    relu: Any,
    parts: Any,
    part: Any,
) -> None:
    """Write y (N, groups * filters, height, width), a tile of filters after another.

    x, w and y are flat. ``shape`` is (filters of a group, height, width) of y. ``whole``: y is
    laid out as the packed rows are and is written to directly, else by way of a strip. Outputs
    that no tap meets are the bias.
    """
    filters, height, width = shape
    blocks = -(-filters // tile)
    units = bands.images * -(-bands.rows // bands.band) * bands.groups
    s0 = part * (space.size // parts)
    strip = s0 + bands.packed
    for task in range(units * part // parts, units * (part + 1) // parts):
        group = task % bands.groups
        n, first, rows = pack_band(
            x, task // bands.groups, group, bands, row_starts, column_starts, space, s0
        )
        run = rows * bands.pitch
        for number in range(phases.shape[0]):
            o0, depth, w0, row_start, row_step, column_start, column_step = phases[number]
            for block in range(blocks):
                k = group * filters + block * tile
                ours = min(tile, filters - block * tile)
                weights = w0 + (group * blocks + block) * depth * tile
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
                              row_start + first * row_step, row_step,
                              column_start, column_step)  # fmt: skip


def weight_gradient(
    x: Any,
    dy: Any,
    y: Any,
    offsets: Any,
    row_starts: Any,
    column_starts: Any,
    totals: Any,
    planes: Any,
    space: Any,
    bands: Any,
    filters: Any,
    lanes: Any,
    parts: Any,
    part: Any,
) -> None:
    """Add up totals (sections, groups, blocks of filters, blocks of taps, lanes).

    The images are cut into as many sections as ``totals`` has, whatever the number of threads, and
    each is summed in order. dy is flat: (N, groups * filters, rows, pitch). So is y, if there is
    one, and bands are whole planes: then dy counts where y > 0, and ``planes`` are its sums.
    """
    sections, groups, blocks, tap_blocks, _ = totals.shape
    tile = lanes // TAPS
    units = bands.images * -(-bands.rows // bands.band)
    tasks, plane = sections * groups, bands.rows * bands.pitch
    sums = totals.reshape(-1)
    s0 = part * (space.size // parts)
    m0 = s0 + bands.packed
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // groups, task % groups
        for unit in range(units * section // sections, units * (section + 1) // sections):
            n, first, rows = pack_band(x, unit, group, bands, row_starts, column_starts, space, s0)
            for block in range(blocks):
                k = group * filters + block * tile
                g0 = (n * groups * filters + k) * plane + first * bands.pitch
                ours, pixels = min(tile, filters - block * tile), rows * bands.pitch
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
