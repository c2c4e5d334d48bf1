"""Images as the direct loops read and write them: packed bands of rows, and rows put in place.

A packed band holds, for each channel, copies of a few rows of the image: one for each column start
and each row start, every ``column_step``-th pixel of every ``row_step``-th row, zero outside the
image. The pixels that a tap meets for consecutive outputs are then consecutive in memory.
"""

from __future__ import annotations

from typing import Any

from .elementary import plain
from .vectors import Vectors, cgutils, emitted


def _lines(step: int) -> Any:
    """Return the kernel ``line[j] = row[start + j * step]``, 0 outside the row, for j < pitch.

    For several rows, ``distance`` apart, and lines, one behind the other. Whole vectors are
    written: up to a vector behind the last line, which is filled later or is room.
    """

    def emit(
        v: Vectors, x: Any, packed: Any, x0: Any, distance: Any, rows: Any, width: Any,
        start: Any, p0: Any, pitch: Any,
    ) -> None:  # fmt: skip
        b, lanes = v.builder, v.index(v.lanes)
        vectors = b.sdiv(b.add(pitch, v.index(v.lanes - 1)), lanes)
        every = [j * step for j in range(v.lanes)]
        with cgutils.for_range(b, vectors) as loop:
            # the last vectors first: what they write behind their lines is written once more
            done = b.mul(b.sub(b.sub(vectors, v.index(1)), loop.index), lanes)
            position = b.add(start, b.mul(done, v.index(step)))
            places = [b.add(position, v.index(i * v.lanes)) for i in range(step)]
            masks = [
                b.and_(b.not_(v.first(b.neg(place))), v.first(b.sub(width, place)))
                for place in places
            ]
            with cgutils.for_range(b, rows) as inner:
                row = v.at(v.at(x, x0), b.mul(inner.index, distance))
                line = v.at(v.at(packed, p0), b.mul(inner.index, pitch))
                parts = [
                    v.load_masked(v.at(row, place), mask)
                    for place, mask in zip(places, masks, strict=True)
                ]
                v.store(v.shuffle(parts[0], parts[-1], every), v.at(line, done))

    return emitted(2, emit)


def _every_other(
    v: Vectors, line: Any, row: Any, l0: Any, count: Any, r0: Any, width: Any, start: Any
) -> None:
    """Emit ``row[start + 2 * j] = line[j]`` for j < count, except outside the row."""
    b, line, row, lanes = v.builder, v.at(line, l0), v.at(row, r0), v.index(v.lanes)
    parity = v.parity()
    with cgutils.for_range(b, b.sdiv(b.add(count, v.index(v.lanes - 1)), lanes)) as loop:
        done = b.mul(loop.index, lanes)
        vector = v.load(v.at(line, done))
        end = b.add(start, b.mul(count, v.index(2)))
        end = b.select(b.icmp_signed("<", end, width), end, width)
        for half in range(2):
            position = b.add(start, b.add(b.mul(done, v.index(2)), v.index(half * v.lanes)))
            inside = b.and_(b.not_(v.first(b.neg(position))), v.first(b.sub(end, position)))
            spread = [half * v.lanes // 2 + j // 2 for j in range(v.lanes)]
            target = v.at(row, position)
            v.store_masked(v.shuffle(vector, vector, spread), target, b.and_(inside, parity))


copy_lines, _copy_every_other = _lines(1), _lines(2)
_put_every_other = emitted(2, _every_other)


@plain
def pack(
    x: Any, x0: Any, channels: Any, height: Any, width: Any,
    row_starts: Any, row_shift: Any, row_step: Any, rows: Any,
    column_starts: Any, column_shift: Any, column_step: Any, pitch: Any, packed: Any, p0: Any,
) -> None:  # fmt: skip
    """Copy a band of rows of the image at x[x0] to packed[p0]: (channels, copies, rows, pitch)."""
    line = p0
    for c in range(channels):
        for start in column_starts:
            for row_start in row_starts:
                h = row_start + row_shift
                before, end = -h, height - h
                if row_step > 1:  # divisions would take longer than a short row
                    before, end = -(h // row_step), -((h - height) // row_step)
                before = min(rows, max(0, before))
                end = min(rows, max(before, end))
                for j in range(before * pitch):
                    packed[line + j] = 0
                source = x0 + (c * height + h + before * row_step) * width
                copy_rows(x, source, row_step * width, end - before, width, start + column_shift,
                          column_step, packed, line + before * pitch, pitch)  # fmt: skip
                for j in range(end * pitch, rows * pitch):
                    packed[line + j] = 0
                line += rows * pitch


@plain
def copy_rows(
    x: Any, x0: Any, distance: Any, rows: Any, width: Any, start: Any, step: Any,
    packed: Any, p0: Any, pitch: Any,
) -> None:  # fmt: skip
    """Copy every ``step``-th pixel of rows from a start on, 0 outside of them."""
    if step == 1:
        copy_lines(x, packed, x0, distance, rows, width, start, p0, pitch)
    elif step == 2:
        _copy_every_other(x, packed, x0, distance, rows, width, start, p0, pitch)
    else:
        for r in range(rows):
            for j in range(pitch):
                w = start + j * step
                packed[p0 + r * pitch + j] = x[x0 + r * distance + w] if 0 <= w < width else 0


@plain
def place(
    strip: Any, s0: Any, rows: Any, pitch: Any, y: Any, y0: Any, height: Any, width: Any,
    row_start: Any, row_step: Any, column_start: Any, column_step: Any,
) -> None:  # fmt: skip
    """Copy rows of a strip to every ``step``-th pixel of an image; those outside are dropped."""
    first = max(0, -(column_start // column_step))
    last = min(pitch, (width - column_start + column_step - 1) // column_step)
    for r in range(rows):
        h = row_start + r * row_step
        line, row = s0 + r * pitch, y0 + h * width
        if not 0 <= h < height:
            continue
        if column_step == 2:
            _put_every_other(strip, y, line, last, row, width, column_start)
        else:
            for j in range(first, last):
                y[row + column_start + j * column_step] = strip[line + j]


def _prefetch(to_write: int) -> Any:
    """Return the wish to have a line of memory in the cache, to read it or to write to it."""

    def emit(v: Vectors, x: Any, x0: Any) -> None:
        v.prefetch(v.at(x, x0), to_write)

    return emitted(1, emit)


prefetch_to_read, prefetch_to_write = _prefetch(0), _prefetch(1)


@plain
def prefetch_lines(
    x: Any, x0: Any, apart: Any, lines: Any, count: Any, share: Any, shares: Any, to_write: Any
) -> None:
    """Ask for a share of so many lines of ``count`` numbers, which lie ``apart``."""
    for line in range(lines * share // shares, lines * (share + 1) // shares):
        start = x0 + line * apart
        for i in range(0, count, 16):
            if to_write:
                prefetch_to_write(x, start + i)
            else:
                prefetch_to_read(x, start + i)
