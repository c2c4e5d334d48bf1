"""Direct convolution of volumes: what is compiled.

An output plane is the convolution of an image with the channels of all planes under the taps in
depth, which are packed from where they lie; the rest is as in ``direct.py``.
"""

from __future__ import annotations

from typing import Any

from ..simd.elementary import borrowed, plain
from ..simd.lines import pack, place
from ..simd.tiles import TAPS, product_tile
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Integers, Read1, Write1
from .direct import (
    Bands,
    Outputs,
    Phases,
    Totals,
    correlation_scratch,
    gradient_scratch,
    run_of_pixels,
    units_of,
)
from .volume_winograd import Depth


@plain
def pack_planes(
    x: Any, unit: Any, group: Any, bands: Any, d: Any, row_starts: Any, column_starts: Any,
    space: Any, s0: Any,
) -> Any:  # fmt: skip
    """Pack the bands that a unit of work meets: (channels, taps in depth, copies, rows, pitch).

    Return the volume, the output plane, its first row and the row count.
    """
    cuts = -(-bands.rows // bands.band)
    n, first = unit // cuts, unit % cuts * bands.band
    volume, plane, rows = n // d.outputs, n % d.outputs, min(bands.band, bands.rows - first)
    area, channels = bands.height * bands.width, bands.channels // d.taps
    size = row_starts.size * column_starts.size * (bands.band + bands.halo) * bands.pitch
    x0 = (volume * bands.groups + group) * channels * d.planes
    for c in range(channels):
        for tap in range(d.taps):
            where = plane * d.step - d.front + tap * d.apart
            if 0 <= where < d.planes:
                pack(x, (x0 + c * d.planes + where) * area, 1, bands.height, bands.width,
                     row_starts, first * bands.row_step, bands.row_step, bands.band + bands.halo,
                     column_starts, 0, bands.column_step, bands.pitch, space, s0)  # fmt: skip
            else:
                space[s0 : s0 + size] = 0
            s0 += size
    return volume, plane, first, rows


@compiled_in_parts(kind=FLOATS)
def correlate(
    x: Read1, w: Read1, bias: Read1, offsets: Integers, phases: Phases, row_starts: Integers,
    column_starts: Integers, y: Write1, outputs: Outputs, space: Write1, bands: Bands, d: Depth,
    lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y (N, groups * filters, planes, height, width); see ``direct.correlate``."""
    x, w, bias, offsets = borrowed(x), borrowed(w), borrowed(bias), borrowed(offsets)
    row_starts, column_starts = borrowed(row_starts), borrowed(column_starts)
    y, space = borrowed(y), borrowed(space)
    filters, height, width, tile, whole = outputs
    blocks, units = -(-filters // tile), units_of(bands) * bands.groups
    s0 = part * correlation_scratch(bands, outputs, lanes)
    strip, apart = s0 + bands.packed, d.outputs * height * width
    for task in range(units * part // parts, units * (part + 1) // parts):
        group = task % bands.groups
        volume, plane, first, rows = pack_planes(
            x, task // bands.groups, group, bands, d, row_starts, column_starts, space, s0
        )
        run = (rows - 1) * bands.pitch + bands.line
        for phase in phases:
            o0, depth = phase.first_offset, phase.depth
            for block in range(blocks):
                k, ours = group * filters + block * tile, min(tile, filters - block * tile)
                weights = phase.first_weight + (group * blocks + block) * depth * tile
                image = (volume * bands.groups * filters + k) * apart + plane * height * width
                if whole:
                    run_of_pixels(tile, lanes, space, s0, offsets, o0, w, weights, depth,
                                  bias, k, y, image + first * width, apart, ours,
                                  run, relu)  # fmt: skip
                else:
                    run_of_pixels(tile, lanes, space, s0, offsets, o0, w, weights, depth,
                                  bias, k, space, strip, run, ours, run, relu)  # fmt: skip
                    for f in range(ours):
                        place(space, strip + f * run, rows, bands.pitch, y, image + f * apart,
                              height, width, phase.row_start + first * phase.row_step,
                              phase.row_step, phase.column_start, phase.column_step)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def weight_gradient(
    x: Read1, dy: Read1, offsets: Integers, row_starts: Integers, column_starts: Integers,
    totals: Totals, space: Write1, bands: Bands, d: Depth, filters: int, lanes: int, parts: int,
    part: int,
) -> None:  # fmt: skip
    """Add up totals (sections, groups, blocks of filters, blocks of taps, lanes)."""
    x, dy, offsets = borrowed(x), borrowed(dy), borrowed(offsets)
    row_starts, column_starts = borrowed(row_starts), borrowed(column_starts)
    totals, space = borrowed(totals), borrowed(space)
    sections, groups, blocks, tap_blocks, _ = totals.shape
    tile, units, tasks = lanes // TAPS, units_of(bands), sections * groups
    image, sums = bands.rows * bands.line, totals.reshape(-1)
    s0 = part * gradient_scratch(bands, lanes, False)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // groups, task % groups
        for unit in range(units * section // sections, units * (section + 1) // sections):
            volume, plane, first, rows = pack_planes(
                x, unit, group, bands, d, row_starts, column_starts, space, s0
            )
            for block in range(blocks):
                k = (volume * groups + group) * filters + block * tile
                g0 = (k * d.outputs + plane) * image + first * bands.line
                for t in range(tap_blocks):
                    target = ((task * blocks + block) * tap_blocks + t) * lanes
                    product_tile(space, offsets, dy, sums, s0, t * TAPS, g0, d.outputs * image,
                                 min(tile, filters - block * tile), rows * bands.line,
                                 target)  # fmt: skip
