"""Convolution of every geometry as a product of matrices that are never written: what is compiled.

Outputs are pixels x filters, a sum over taps. Lanes are filters; each factor is a single pixel, so
neither the size of an image nor stride and dilation leave lanes empty. Tables say where it lies in
a packed copy of the images: at the place of an output plus the step of a tap. The weight gradient
is taps x filters, a sum over pixels, by the same micro-kernel with the tables changed over.
``implicit_plans.py`` fills them.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import borrowed, plain
from ..simd.lines import copy_lines, pack, place, prefetch_to_read
from ..simd.tiles import gathered_tile
from ..simd.transposes import transpose
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import FLOATS, Array, Integers, Read1, Write1
from ..toolchain.threads import PIECES

TILES = {4: 6, 3: 8, 2: 8, 1: 8}
"""Vectors of a panel of filters -> rows of a tile of sums."""

MOST_ROWS = max(TILES.values())
DEPTH = 96
"""Of a panel of weights or cotangents that stays in the first-level cache."""

STRETCH = 24
"""Rows of sums between two wishes for what follows: whole tiles."""

CHUNK = 64
"""Rows of the weight gradient that are added up at once."""

_6x4, _8x3, _8x2, _8x1 = (gathered_tile(rows, vectors) for vectors, rows in TILES.items())


class Units(NamedTuple):
    """Sizes of the images that are read, and how they are cut; all are integers."""

    images: int
    groups: int
    channels: int
    """Of a group."""
    height: int
    width: int
    row_step: int
    column_step: int
    """Of the packed copies."""
    packed_rows: int
    pitch: int
    """Pixels of a packed row."""
    plane: int
    """Numbers from one channel to the next, with all copies of it."""
    image: int
    """Numbers from one image to the next."""
    in_place: bool
    """Whether the images are read where they lie, and none are packed."""
    together: int
    """Images of a unit of work: several, if it has all rows of each."""
    band: int
    """Rows of outputs of a unit; the last may have fewer."""
    span: int
    """Columns of outputs of a unit: all, if it has several rows."""
    row_stride: int
    column_stride: int
    """From one output to the next, in the image that is read."""
    rows: int
    """Of the outputs of an image; with phases, of one phase."""
    columns: int


class Place(NamedTuple):
    """Where a unit lies, and how much of it there is."""

    x0: int
    """Of its first pixel, in what is read."""
    image: int
    row: int
    column: int
    images: int
    rows: int
    columns: int


class Outputs(NamedTuple):
    """Sizes of what is written."""

    filters: int
    """Of a group."""
    height: int
    width: int
    panel: int
    """Filters that are summed up at once: whole vectors."""
    shares: int
    """Parts of the filters that make units of work of their own."""
    whole: bool
    """Whether a unit's outputs follow each other in the image, and need not be put in place."""


class Phase(NamedTuple):
    """Outputs that meet the same taps."""

    first: int
    """Of its taps, in the tables of all of them."""
    depth: int
    shift: int
    """From the places of outputs, in what is read."""
    row_start: int
    row_step: int
    column_start: int
    column_step: int


PHASE = np.dtype([(name, np.int64) for name in Phase._fields])
Phases = Annotated[Any, Array(PHASE, 1)]
Totals = Annotated[Any, Array("kind", 5, written=True)]


@shared
def units_of(t: Units) -> int:
    """Return how many units of work the images are."""
    return -(-t.images // t.together) * -(-t.rows // t.band) * -(-t.columns // t.span)


@shared
def panels_of(outputs: Outputs) -> int:
    """Return how many panels the filters of a group are."""
    return -(-outputs.filters // outputs.panel)


@shared
def pixels_of(t: Units) -> int:
    """Return how many outputs a unit has."""
    return t.together * t.band * t.span


@shared
def packed_of(t: Units, lanes: int) -> int:
    """Return the numbers of a packed unit; whole vectors are written."""
    return 0 if t.in_place else t.together * t.image + lanes


@shared
def correlation_scratch(t: Units, outputs: Outputs, lanes: int) -> int:
    """Return the numbers of a thread's memory: packed pixels, sums, and those of an image again."""
    sums = (pixels_of(t) + MOST_ROWS) * outputs.panel
    strip = 0 if outputs.whole else t.band * t.span * outputs.panel + lanes
    return packed_of(t, lanes) + sums + strip


@shared
def gradient_scratch(t: Units, outputs: Outputs, lanes: int) -> int:
    """Return the numbers of a thread's memory: packed pixels, and transposed cotangents."""
    return packed_of(t, lanes) + pixels_of(t) * outputs.panel


@compiled_in_parts(kind=FLOATS)
def lay_out(
    w: Read1, lines: Integers, weights: Write1, space: Write1, groups: int, filters: int,
    panel: int, in_order: bool, run: int, group_step: int, run_step: int, filter_step: int,
    lanes: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Write weights (groups, panels, taps, panel); what is behind the last filter is not used.

    ``lines`` says which of the taps each one becomes, ``in_order`` or not. They come in runs of
    weights that lie side by side, ``run_step`` apart; those of two filters lie ``filter_step``
    apart.
    """
    w, weights, space = borrowed(w), borrowed(weights), borrowed(space)
    panels, runs, s0 = -(-filters // panel), lines.size // run, part * CHUNK * panel
    chunks = -(-run // CHUNK)
    tasks = groups * panels * runs * chunks
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        first, place = task % chunks * CHUNK, task // chunks
        number, n = place % runs, place // runs
        count, k = min(CHUNK, run - first), n % panels * panel
        source = n // panels * group_step + number * run_step + k * filter_step + first
        ours, tap = min(panel, filters - k), number * run + first
        target = (n * lines.size + lines[tap]) * panel
        if in_order:
            transpose(lanes, w, source, filter_step, ours, count, weights, target, panel, panel)
            continue
        transpose(lanes, w, source, filter_step, ours, count, space, s0, panel, panel)
        for i in range(count):
            target = (n * lines.size + lines[tap + i]) * panel
            copy_lines(space, weights, s0 + i * panel, panel, 1, panel, 0, target, panel)


@plain
def place_of(unit: Any, t: Any) -> Any:
    """Return where a unit of a group begins in the images that are read, and its extent."""
    group, place = unit % t.groups, unit // t.groups
    across, down = -(-t.columns // t.span), -(-t.rows // t.band)
    column, place = place % across * t.span, place // across
    row, image = place % down * t.band, place // down * t.together
    line = (image * t.groups + group) * t.channels * t.height + row * t.row_stride
    x0, images = line * t.width + column * t.column_stride, min(t.together, t.images - image)
    rows, columns = min(t.band, t.rows - row), min(t.span, t.columns - column)
    return Place(x0, image, row, column, images, rows, columns)


@plain
def placed(
    x: Any, unit: Any, row_starts: Any, column_starts: Any, space: Any, s0: Any, t: Any
) -> Any:
    """Return where a unit lies in what is read: packed in the space, or in place."""
    u = place_of(unit, t)
    if t.in_place:
        return u
    size = t.channels * t.height * t.width
    source = (u.image * t.groups + unit % t.groups) * size
    for i in range(u.images):
        pack(x, source + i * t.groups * size, t.channels, t.height, t.width,
             row_starts, u.row * t.row_stride, t.row_step, t.packed_rows,
             column_starts, u.column * t.column_stride, t.column_step, t.pitch,
             space, s0 + i * t.image)  # fmt: skip
    return Place(s0, u.image, u.row, u.column, u.images, u.rows, u.columns)


@plain
def ask_for_unit(x: Any, u: Any, part: Any, parts: Any, t: Any) -> None:
    """Have a part of the channels of a unit at u come to the cache."""
    size = t.height * t.width
    rows = min(t.packed_rows * t.row_step, t.height - u.row * t.row_stride)
    count = rows * t.width if t.span == t.columns else u.columns * t.column_stride
    for i in range(u.images):
        for c in range(t.channels * part // parts, t.channels * (part + 1) // parts):
            for j in range(0, count, 16):
                prefetch_to_read(x, u.x0 + (i * t.groups * t.channels + c) * size + j)


@plain
def multiply(
    lanes: Any, x: Any, places: Any, steps: Any, right: Any, bias: Any, c: Any,
    x0: Any, p0: Any, r0: Any, right0: Any, bias0: Any, c0: Any, panel: Any, rows: Any,
    depth: Any, first: Any, relu: Any,
) -> None:  # fmt: skip
    """Add up rows of a panel, a tile after another: see `gathered_tile`."""
    if panel == 4 * lanes:
        for i in range(0, rows, 6):
            _6x4(x, places, steps, right, bias, c, x0, p0 + i, r0, right0, bias0, c0 + i * panel,
                 rows - i, depth, first, relu)  # fmt: skip
    elif panel == 3 * lanes:
        for i in range(0, rows, 8):
            _8x3(x, places, steps, right, bias, c, x0, p0 + i, r0, right0, bias0, c0 + i * panel,
                 rows - i, depth, first, relu)  # fmt: skip
    elif panel == 2 * lanes:
        for i in range(0, rows, 8):
            _8x2(x, places, steps, right, bias, c, x0, p0 + i, r0, right0, bias0, c0 + i * panel,
                 rows - i, depth, first, relu)  # fmt: skip
    else:
        for i in range(0, rows, 8):
            _8x1(x, places, steps, right, bias, c, x0, p0 + i, r0, right0, bias0, c0 + i * panel,
                 rows - i, depth, first, relu)  # fmt: skip


@plain
def add_up(
    lanes: Any, source: Any, places: Any, steps: Any, weights: Any, bias: Any, space: Any, x0: Any,
    phase: Any, w0: Any, k: Any, c0: Any, panel: Any, rows: Any, relu: Any,
    x: Any, following: Any, done: Any, panels: Any, t: Any,
) -> None:  # fmt: skip
    """Write the sums of a phase and a panel; meanwhile the ``following`` unit is asked for."""
    blocks, strides = -(-max(1, phase.depth) // DEPTH), -(-rows // STRETCH)
    for block in range(blocks):
        r = block * DEPTH
        rest = phase.depth - r
        for i in range(strides):
            ask_for_unit(x, following, (done * blocks + block) * strides + i,
                         panels * blocks * strides, t)  # fmt: skip
            first = i * STRETCH
            multiply(lanes, source, places, steps, weights, bias, space, x0 + phase.shift, first,
                     phase.first + r, w0 + r * panel, k, c0 + first * panel, panel,
                     min(STRETCH, rows - first), min(rest, DEPTH), r == 0,
                     relu and rest <= DEPTH)  # fmt: skip


@plain
def put(
    lanes: Any, space: Any, c0: Any, strip: Any, panel: Any, ours: Any, u: Any, phase: Any,
    y: Any, y0: Any, outputs: Any,
) -> None:  # fmt: skip
    """Write the sums of a unit's image, (pixels, panel), to the image at y0."""
    height, width, pixels = outputs.height, outputs.width, u.rows * u.columns
    if outputs.whole:
        first = (phase.row_start + u.row) * width + u.column
        transpose(lanes, space, c0, panel, pixels, ours,
                  y, y0 + first, height * width, pixels)  # fmt: skip
        return
    transpose(lanes, space, c0, panel, pixels, ours, space, strip, pixels, pixels)
    for f in range(ours):
        place(space, strip + f * pixels, u.rows, u.columns, y, y0 + f * height * width,
              height, width, phase.row_start + u.row * phase.row_step, phase.row_step,
              phase.column_start + u.column * phase.column_step, phase.column_step)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def correlate(
    x: Read1, source: Read1, weights: Read1, bias: Read1, places: Integers, steps: Integers,
    phases: Phases, row_starts: Integers, column_starts: Integers, y: Write1, space: Write1,
    t: Units, outputs: Outputs, lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y (N, groups * filters, height, width), a panel of filters after another.

    ``source`` is x if it is read in place, else the space, where its pixels are packed.
    """
    x, source, weights, bias = borrowed(x), borrowed(source), borrowed(weights), borrowed(bias)
    places, steps, y, space = borrowed(places), borrowed(steps), borrowed(y), borrowed(space)
    row_starts, column_starts = borrowed(row_starts), borrowed(column_starts)
    filters, panel, shares = outputs.filters, outputs.panel, outputs.shares
    panels, s0 = panels_of(outputs), part * correlation_scratch(t, outputs, lanes)
    c0 = s0 + packed_of(t, lanes)
    strip = c0 + (pixels_of(t) + MOST_ROWS) * panel
    units, packed = units_of(t) * t.groups, -1
    tasks = units * shares
    u = Place(0, 0, 0, 0, 0, 0, 0)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        share, unit, group = task % shares, task // shares, task // shares % t.groups
        if unit != packed:
            packed = unit
            u = placed(x, unit, row_starts, column_starts, space, s0, t)
        pixels, following = u.rows * u.columns, place_of(min(unit + 1, units - 1), t)
        mine, end = panels * share // shares, panels * (share + 1) // shares
        for phase in phases:
            for n in range(mine, end):
                k, ours = group * filters + n * panel, min(panel, filters - n * panel)
                line = (group * panels + n) * steps.size + phase.first
                add_up(lanes, source, places, steps, weights, bias, space, u.x0, phase,
                       line * panel, k, c0, panel, u.images * pixels, relu, x, following,
                       n - mine, end - mine, t)  # fmt: skip
                for i in range(u.images):
                    y0 = ((u.image + i) * t.groups * filters + k) * outputs.height * outputs.width
                    put(lanes, space, c0 + i * pixels * panel, strip, panel, ours, u, phase, y, y0,
                        outputs)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def weight_gradient(
    x: Read1, source: Read1, dy: Read1, zero: Read1, places: Integers, steps: Integers,
    row_starts: Integers, column_starts: Integers, totals: Totals, space: Write1, t: Units,
    outputs: Outputs, lanes: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Add up totals (sections, groups, panels, taps, panel): the taps are rounded up to tiles.

    The units are cut into as many sections as ``totals`` has, whatever the number of threads, and
    each is summed in order.
    """
    x, source, dy, zero = borrowed(x), borrowed(source), borrowed(dy), borrowed(zero)
    places, steps, space = borrowed(places), borrowed(steps), borrowed(space)
    row_starts, column_starts = borrowed(row_starts), borrowed(column_starts)
    totals = borrowed(totals)
    filters, height, width, panel, shares, _ = outputs
    sections, _, panels, taps, _ = totals.shape
    sums, units, tasks = totals.reshape(-1), units_of(t), sections * t.groups * shares
    s0 = part * gradient_scratch(t, outputs, lanes)
    g0 = s0 + packed_of(t, lanes)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group, share = task // shares // t.groups, task // shares % t.groups, task % shares
        start, end = units * section // sections, units * (section + 1) // sections
        mine, last = panels * share // shares, panels * (share + 1) // shares
        for unit in range(start, end):
            u = placed(x, unit * t.groups + group, row_starts, column_starts, space, s0, t)
            pixels = u.rows * u.columns
            following = place_of(min(unit + 1, end - 1) * t.groups + group, t)
            for n in range(mine, last):
                k = group * filters + n * panel
                for i in range(u.images):
                    y0 = ((u.image + i) * t.groups * filters + k) * height * width
                    transpose(lanes, dy, y0 + u.row * width + u.column, height * width,
                              min(panel, filters - n * panel), pixels,
                              space, g0 + i * pixels * panel, panel, panel)  # fmt: skip
                target = ((section * t.groups + group) * panels + n) * taps * panel
                blocks = -(-u.images * pixels // DEPTH)
                for block in range(blocks):
                    p = block * DEPTH
                    ask_for_unit(x, following,
                                 (n - mine) * blocks + block, (last - mine) * blocks,
                                 t)  # fmt: skip
                    multiply(lanes, source, steps, places, space, zero, sums, u.x0, 0, p,
                             g0 + p * panel, 0, target, panel, steps.size,
                             min(DEPTH, u.images * pixels - p), unit == start and p == 0,
                             False)  # fmt: skip


@compiled_in_parts(PIECES, kind=FLOATS)
def finish(
    totals: Totals, dw: Write1, taps: int, filters: int, lanes: int, parts: int, part: int
) -> None:
    """Add up the sections of totals, in order, and write dw (groups * filters, taps)."""
    totals, dw = borrowed(totals), borrowed(dw)
    sections, groups, panels, rows, panel = totals.shape
    chunks, sums = -(-taps // CHUNK), totals.reshape(-1)
    tasks = groups * panels * chunks
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        group, n, first = task // chunks // panels, task // chunks % panels, task % chunks * CHUNK
        ours, k = min(CHUNK, taps - first), group * filters + n * panel
        source = (task // chunks * rows + first) * panel
        mine = sums[source : source + ours * panel]
        for section in range(1, sections):
            more = source + section * groups * panels * rows * panel
            other = sums[more : more + ours * panel]
            for i in range(mine.size):
                mine[i] += other[i]
        transpose(lanes, sums, source, panel, ours, min(panel, filters - n * panel),
                  dw, k * taps + first, taps, ours)  # fmt: skip
