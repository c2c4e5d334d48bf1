"""Depthwise convolution by planes: lanes are channels, as many as a vector has.

The planes of these channels are transposed into work space, with zeros around: the pixels of one
place in all of them follow each other. So lanes are full however small an image is, and every
stride, dilation and window is the same loop. ``depthwise_plans.py`` fills the tables.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import borrowed, plain
from ..simd.tiles import BLOCK, registers
from ..simd.vectors import Vectors, cgutils, emitted
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import FLOATS, Array, Integers, Read1, Write1, WrittenDoubles

TILE, SHORT = 8, 4
"""Outputs of a row that are summed up at once, at most and at least."""

RUNS = (7, 5, 3, 1)
"""Taps side by side, whose pixels are loaded once; 1 is any number of them."""

TAPS = 9
"""Taps of the weight gradient that are summed up at once."""


class Sizes(NamedTuple):
    """Sizes of the images that are read and written; all are integers."""

    images: int
    channels: int
    pixels: int
    """Of a plane that is read."""
    padded: int
    """With zeros around, and room for reading on behind the end."""
    outputs: int
    """Pixels of a plane that is written."""


class Phase(NamedTuple):
    """Outputs that meet the same taps; all are places in work space, and their distances."""

    rows: int
    columns: int
    start: int
    down: int
    across: int
    output: int
    output_down: int
    output_across: int
    tap: int
    """The first one."""
    taps: int
    run: int
    """Taps that lie side by side, of `RUNS`."""


PHASE = np.dtype([(name, np.int64) for name in Phase._fields])
Phases = Annotated[Any, Array(PHASE, 1)]


# --- in registers ---------------------------------------------------------------------------------


def _outputs(run: int) -> Any:
    """Return the kernel that writes up to `TILE` outputs of a row to work space.

    ``run`` taps always lie side by side: a pixel that is loaded once meets all of them.
    """

    def emit(
        v: Vectors, space: Any, offsets: Any, w: Any, bias: Any, x0: Any, across: Any, o0: Any,
        runs: Any, w0: Any, b0: Any, y0: Any, y_across: Any, size: Any, count: Any, relu: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        corner, offsets, weights = v.at(space, x0), v.at(offsets, o0), v.at(w, w0)
        lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
        start, written = v.load(v.at(bias, b0)), v.places(v.at(space, y0), y_across, TILE)

        def tile(size: int) -> None:
            (sums,) = registers(v, 1, size)
            for slot in sums:
                b.store(start, slot)
            with cgutils.for_range(b, runs) as loop:
                taps = v.at(weights, b.mul(loop.index, v.index(run * v.lanes)))
                first = v.at(corner, b.load(v.at(offsets, b.mul(loop.index, v.index(run)))))
                pixels = [v.load(place) for place in v.places(first, across, size + run - 1)]
                for tap in range(run):
                    weight = v.load(v.at(taps, tap * v.lanes))
                    for slot, pixel in zip(sums, pixels[tap:], strict=False):
                        b.store(v.fma(weight, pixel, b.load(slot)), slot)
            put = [v.at_least(b.load(slot), lowest) for slot in sums]
            _first(v, size, count, lambda t: v.store(put[t], written[t]))

        for each in range(SHORT, TILE + 1):
            with b.if_then(b.icmp_signed("==", size, v.index(each))):
                tile(each)

    return emitted(4, emit)


def _first(v: Vectors, size: int, count: Any, each: Any) -> None:
    """Emit ``each(t)`` for t < count <= size."""
    b = v.builder
    behind = b.append_basic_block("behind")
    for t in range(size):
        more = b.append_basic_block("more")
        b.cbranch(b.icmp_signed(">", count, v.index(t)), more, behind)
        b.position_at_end(more)
        each(t)
    b.branch(behind)
    b.position_at_end(behind)


def _each_square(v: Vectors, pixels: Any, square: Any) -> None:
    """Emit ``square(start, count)`` for squares of pixels and planes; the last may overlap."""
    b, lanes = v.builder, v.index(v.lanes)
    last = b.sub(pixels, lanes)
    last = b.select(b.icmp_signed("<", last, v.index(0)), v.index(0), last)
    with cgutils.for_range(b, b.sdiv(b.add(pixels, v.index(v.lanes - 1)), lanes)) as loop:
        start = b.mul(loop.index, lanes)
        start = b.select(b.icmp_signed("<", start, last), start, last)
        square(start, b.sub(pixels, start))


def _gather(v: Vectors, x: Any, space: Any, places: Any, x0: Any, pixels: Any, s0: Any) -> None:
    """Emit ``space[places[p], c] = x[c, p]`` for all pixels of as many planes as lanes.

    The planes that follow are asked for.
    """
    ahead = v.builder.mul(pixels, v.index(v.lanes))

    def square(start: Any, count: Any) -> None:
        rows = v.places(v.at(v.at(x, x0), start), pixels, v.lanes)
        for row in rows:
            v.prefetch(v.at(row, ahead), 0)
        columns = v.transposed([v.load_masked(row, v.first(count)) for row in rows])
        target, table = v.at(space, s0), v.at(places, start)

        for t, column in enumerate(columns):
            v.store(column, v.at(target, v.builder.load(v.at(table, t))))

    _each_square(v, pixels, square)


def _put_back(v: Vectors, space: Any, y: Any, s0: Any, y0: Any, pixels: Any) -> None:
    """Emit ``y[c, p] = space[p, c]`` for all pixels of as many planes as lanes."""
    ahead = v.builder.mul(pixels, v.index(v.lanes))

    def square(start: Any, count: Any) -> None:
        source = v.at(v.at(space, s0), v.builder.mul(start, v.index(v.lanes)))
        rows = v.transposed([v.load(v.at(source, p * v.lanes)) for p in range(v.lanes)])
        places = v.places(v.at(v.at(y, y0), start), pixels, v.lanes)
        for row, place in zip(rows, places, strict=True):
            v.store_masked(row, place, v.first(count))
            v.prefetch(v.at(place, ahead), 1)

    _each_square(v, pixels, square)


def _products(
    v: Vectors,
    space: Any,
    offsets: Any,
    x0: Any,
    down: Any,
    across: Any,
    o0: Any,
    g0: Any,
    rows: Any,
    columns: Any,
    s0: Any,
) -> None:
    """Emit the addition of products of `TAPS` taps and rows of cotangents to their sums."""
    b = v.builder
    (slots,) = registers(v, 1, TAPS)
    for slot in slots:
        b.store(v.zero, slot)
    corner, sums = v.at(space, x0), v.at(space, s0)
    taps = [v.at(corner, b.load(v.at(v.at(offsets, o0), t))) for t in range(TAPS)]
    with cgutils.for_range(b, rows) as row:
        line = b.mul(row.index, down)
        outputs = v.at(space, b.add(g0, b.mul(row.index, b.mul(columns, v.index(v.lanes)))))
        with cgutils.for_range(b, columns) as column:
            cotangents = v.load(v.at(outputs, b.mul(column.index, v.index(v.lanes))))
            place = b.add(line, b.mul(column.index, across))
            for tap, slot in zip(taps, slots, strict=True):
                b.store(v.fma(cotangents, v.load(v.at(tap, place)), b.load(slot)), slot)
    for t, slot in enumerate(slots):
        total = v.at(sums, t * v.lanes)
        v.store(b.fadd(v.load(total), b.load(slot)), total)


_outputs_7, _outputs_5, _outputs_3, _outputs_1 = (_outputs(run) for run in RUNS)
products = emitted(2, _products)
gather, put_back = emitted(3, _gather), emitted(2, _put_back)


# --- loops ----------------------------------------------------------------------------------------


@shared
def scratch_of(s: Sizes, lanes: int) -> int:
    """Return the numbers of a thread's memory: padded planes, and outputs behind them."""
    return s.padded + (s.outputs + lanes) * lanes


@plain
def row_of_outputs(
    run: Any, space: Any, offsets: Any, w: Any, bias: Any, x0: Any, across: Any, o0: Any,
    runs: Any, w0: Any, b0: Any, y0: Any, y_across: Any, size: Any, count: Any, relu: Any,
) -> None:  # fmt: skip
    """Write the first ``count`` of ``size`` outputs of a row to work space."""
    if run == 7:
        _outputs_7(space, offsets, w, bias, x0, across, o0, runs, w0, b0, y0, y_across, size,
                   count, relu)  # fmt: skip
    elif run == 5:
        _outputs_5(space, offsets, w, bias, x0, across, o0, runs, w0, b0, y0, y_across, size,
                   count, relu)  # fmt: skip
    elif run == 3:
        _outputs_3(space, offsets, w, bias, x0, across, o0, runs, w0, b0, y0, y_across, size,
                   count, relu)  # fmt: skip
    else:
        _outputs_1(space, offsets, w, bias, x0, across, o0, runs, w0, b0, y0, y_across, size,
                   count, relu)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def correlate(
    x: Read1, w: Read1, bias: Read1, offsets: Integers, places: Integers, phases: Phases,
    y: Write1, space: Write1, s: Sizes, taps: int, lanes: int, relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y, flat, from x, w (blocks of channels, taps, lanes) and the bias (blocks, lanes).

    The channels of the last block may overlap those before: the same numbers again.
    """
    x, w, bias, y, space = borrowed(x), borrowed(w), borrowed(bias), borrowed(y), borrowed(space)
    offsets, places, phases = borrowed(offsets), borrowed(places), borrowed(phases)
    blocks, s0 = -(-s.channels // lanes), part * scratch_of(s, lanes)
    space[s0 : s0 + s.padded] = 0
    y0 = s0 + s.padded
    units = s.images * blocks
    for unit in range(units * part // parts, units * (part + 1) // parts):
        block = unit % blocks
        plane = unit // blocks * s.channels + min(block * lanes, s.channels - lanes)
        gather(x, space, places, plane * s.pixels, s.pixels, s0)
        for phase in phases:
            w0 = (block * taps + phase.tap) * lanes
            size = max(SHORT, -(-phase.columns // -(-phase.columns // TILE)))
            for i in range(phase.rows):
                start, output = phase.start + i * phase.down, phase.output + i * phase.output_down
                for j in range(0, phase.columns, size):
                    row_of_outputs(phase.run, space, offsets, w, bias,
                                   s0 + start + j * phase.across, phase.across, phase.tap,
                                   phase.taps // phase.run, w0, block * lanes,
                                   y0 + output + j * phase.output_across, phase.output_across,
                                   size, phase.columns - j, relu)  # fmt: skip
        put_back(space, y, y0, plane * s.outputs, s.outputs)


@shared
def gradient_scratch(s: Sizes, taps: int, lanes: int) -> int:
    """Return the numbers of a thread's memory: padded planes, cotangents, and sums of the taps."""
    return scratch_of(s, lanes) + taps * lanes


@compiled_in_parts(kind=FLOATS)
def weight_gradient(
    x: Read1, dy: Read1, offsets: Integers, places: Integers, output_places: Integers,
    phase: Phase, totals: WrittenDoubles, space: Write1, s: Sizes, sections: int, taps: int,
    lanes: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Add up totals (sections of the images, blocks of channels, taps, lanes), flat.

    ``taps`` are a multiple of `TAPS`. Up to a block of products is added up in registers, up to a
    block of such sums in the type of the numbers, and these in float64.
    """
    x, dy, totals, space = borrowed(x), borrowed(dy), borrowed(totals), borrowed(space)
    offsets, places, output_places = borrowed(offsets), borrowed(places), borrowed(output_places)
    blocks, s0 = -(-s.channels // lanes), part * gradient_scratch(s, taps, lanes)
    g0 = s0 + s.padded
    sums = g0 + (s.outputs + lanes) * lanes
    space[s0 : s0 + gradient_scratch(s, taps, lanes)] = 0
    at_once = max(1, BLOCK // phase.columns)  # rows
    run = max(1, BLOCK // -(-phase.rows // at_once))  # images
    tasks = sections * blocks
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, block = task // blocks, task % blocks
        start, end = s.images * section // sections, s.images * (section + 1) // sections
        for n in range(start, end):
            plane = n * s.channels + min(block * lanes, s.channels - lanes)
            gather(x, space, places, plane * s.pixels, s.pixels, s0)
            gather(dy, space, output_places, plane * s.outputs, s.outputs, g0)
            for i in range(0, phase.rows, at_once):
                for tap in range(0, taps, TAPS):
                    products(space, offsets, s0 + phase.start + i * phase.down, phase.down,
                             phase.across, tap, g0 + i * phase.columns * lanes,
                             min(at_once, phase.rows - i), phase.columns,
                             sums + tap * lanes)  # fmt: skip
            if (n + 1 - start) % run == 0 or n + 1 == end:
                for k in range(taps * lanes):
                    totals[task * taps * lanes + k] += np.float64(space[sums + k])
                    space[sums + k] = 0
