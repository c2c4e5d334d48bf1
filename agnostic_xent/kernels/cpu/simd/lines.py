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

    Whole vectors are written: up to a vector behind the line, which is filled later or is room.
    """

    def emit(
        v: Vectors, row: Any, line: Any, r0: Any, width: Any, start: Any, l0: Any, pitch: Any
    ) -> None:
        b, row, line = v.builder, v.at(row, r0), v.at(line, l0)
        lanes = v.index(v.lanes)
        vectors = b.sdiv(b.add(pitch, v.index(v.lanes - 1)), lanes)
        with cgutils.for_range(b, vectors) as loop:
            done = b.mul(loop.index, lanes)
            position = b.add(start, b.mul(done, v.index(step)))
            parts = []
            for _ in range(step):
                inside = b.and_(b.not_(v.first(b.neg(position))), v.first(b.sub(width, position)))
                parts.append(v.load_masked(v.at(row, position), inside))
                position = b.add(position, lanes)
            every = [j * step for j in range(v.lanes)]
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


line_of_all, _line_of_every_other = _lines(1), _lines(2)
_put_every_other = emitted(2, _every_other)


@plain
def pack(
    x: Any, x0: Any, channels: Any, height: Any, width: Any,
    row_starts: Any, row_shift: Any, row_step: Any, rows: Any,
    column_starts: Any, column_step: Any, pitch: Any, packed: Any, p0: Any,
) -> None:  # fmt: skip
    """Copy a band of rows of the image at x[x0] to packed[p0]: (channels, copies, rows, pitch)."""
    line = p0
    for c in range(channels):
        for start in column_starts:
            for row_start in row_starts:
                for r in range(rows):
                    h = row_start + row_shift + r * row_step
                    inside = 0 <= h < height
                    row = x0 + (c * height + h) * width
                    seen = width if inside else 0
                    if column_step == 1:
                        line_of_all(x, packed, row, seen, start, line, pitch)
                    elif column_step == 2:
                        _line_of_every_other(x, packed, row, seen, start, line, pitch)
                    else:
                        for j in range(pitch):
                            w = start + j * column_step
                            packed[line + j] = x[row + w] if 0 <= w < seen else 0
                    line += pitch


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
