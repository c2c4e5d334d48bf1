"""A row of outputs of a pool, in registers.

A vector holds neighbouring outputs and meets the taps of their windows one after the other, so that
pixels and outputs go through memory once. The pixels of a tap are consecutive, every other one, or
further apart: kernels that differ in how they load. Windows of 2x2 with step 2 have their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir  # type: ignore[import-untyped]

from .conv.vectors import I32, I64, Vectors, cgutils, emitted


class Row(NamedTuple):
    """Where the windows of a row lie; all are integers."""

    corner: Any
    """Index of the first pixel of the first line that the windows meet."""
    pitch: Any
    """From that line to the next."""
    down: Any
    """Taps."""
    across: Any
    apart: Any
    """Pixels from a tap to the next."""
    start: Any
    """Column of the first tap, less than 0 where there is padding."""
    width: Any
    """Pixels of a line."""
    step: Any
    """Pixels from a window to the next."""
    columns: Any
    """Outputs."""

    fill: Any
    """In place of pixels outside the image."""


# --- loads ---------------------------------------------------------------------------------------


def _spread(v: Vectors, number: Any) -> Any:
    """Return an integer in all lanes."""
    b, kind = v.builder, ir.VectorType(I32, v.lanes)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), b.trunc(number, I32), I32(0))
    return b.shuffle_vector(one, one, ir.Constant(kind, [0] * v.lanes))


def _consecutive(v: Vectors, line: Any, start: Any, row: Row) -> Any:
    """Load pixels; the memory of those outside the line is not touched."""
    b = v.builder
    numbers = ir.Constant(ir.VectorType(I32, v.lanes), list(range(v.lanes)))
    # as unsigned numbers, columns left of the line are larger than those right of it
    inside = b.icmp_unsigned("<", b.add(_spread(v, start), numbers), _spread(v, row.width))
    return b.select(inside, v.load_masked(v.at(line, start), inside), row.fill)


def _pair(v: Vectors, line: Any, start: Any, row: Row) -> list[Any]:
    """Load two vectors, and return the even and the odd pixels."""
    low = _consecutive(v, line, start, row)
    high = _consecutive(v, line, v.builder.add(start, v.index(v.lanes)), row)
    return [v.shuffle(low, high, range(shift, 2 * v.lanes, 2)) for shift in range(2)]


def _every_other(v: Vectors, line: Any, start: Any, row: Row) -> Any:
    """Load every other pixel."""
    return _pair(v, line, start, row)[0]


def _apart(v: Vectors, line: Any, start: Any, row: Row) -> Any:
    """Load pixels that are further apart, one by one."""
    b, pixels = v.builder, row.fill
    fill = b.extract_element(row.fill, I32(0))
    for i in range(v.lanes):
        column = b.add(start, b.mul(row.step, v.index(i)))
        there = b.icmp_unsigned("<", column, row.width)
        pixel = b.load(v.at(line, b.select(there, column, v.index(0))))
        pixels = b.insert_element(pixels, b.select(there, pixel, fill), I32(i))
    return pixels


# --- taps ----------------------------------------------------------------------------------------


def _looped(load: Callable[..., Any]) -> Callable[..., None]:
    """Return what emits the loops over a window's taps, in row-major order."""

    def emit(v: Vectors, corner: Any, start: Any, row: Row, meet: Callable[..., None]) -> None:
        b = v.builder
        with cgutils.for_range(b, row.down) as down:
            line = v.at(corner, b.mul(down.index, row.pitch))
            with cgutils.for_range(b, row.across) as across:
                meet(load(v, line, b.add(start, b.mul(across.index, row.apart)), row))

    return emit


def _two_by_two(v: Vectors, corner: Any, start: Any, row: Row, meet: Callable[..., None]) -> None:
    """Emit the taps of a window of 2x2, for step 2: each pixel is loaded once."""
    for line in (corner, v.at(corner, row.pitch)):
        for pixels in _pair(v, line, start, row):
            meet(pixels)


TAPS = (_two_by_two, _looped(_consecutive), _looped(_every_other), _looped(_apart))


def _vectors(
    v: Vectors, taps: Callable[..., None], x: Any, row: Row, begin: Callable[..., None],
    meet: Callable[..., None], finish: Callable[..., None],
) -> None:  # fmt: skip
    """Emit the loop over the vectors of a row."""
    b, lanes, corner = v.builder, v.index(v.lanes), v.at(x, row.corner)
    with cgutils.for_range(b, b.sdiv(b.add(row.columns, v.index(v.lanes - 1)), lanes)) as vector:
        done = b.mul(vector.index, lanes)
        begin(done)
        taps(v, corner, b.add(row.start, b.mul(done, row.step)), row, meet)
        finish(done, v.first(b.sub(row.columns, done)))


# --- kernels -------------------------------------------------------------------------------------


def _maxima(each_tap: Callable[..., None]) -> Any:
    """Return the kernel of a row of maxima, and of the numbers of the taps where they are.

    The first maximum wins, and the first NaN before all. ``firsts`` are the numbers of the first
    tap of each column's windows in a line inside the image, ``number`` is that of the first line's;
    ``nothing`` is that of windows without pixels. Numbers are loaded and stored in whole vectors:
    their rows have room.
    """

    def emit(
        v: Vectors, x: Any, y: Any, numbers: Any, firsts: Any, corner: Any, pitch: Any, down: Any,
        across: Any, apart: Any, start: Any, width: Any, step: Any, columns: Any, y0: Any,
        numbers0: Any, number: Any, nothing: Any,
    ) -> None:  # fmt: skip
        b, wide = v.builder, ir.VectorType(I32, v.lanes)
        narrow = ir.VectorType(numbers.type.pointee, v.lanes)
        maximum, where, tap = (cgutils.alloca_once(b, kind) for kind in (v.type, wide, I64))
        lowest = v.constant(-float("inf"))

        def begin(done: Any) -> None:
            first = b.load(b.bitcast(v.at(firsts, done), wide.as_pointer()), align=4)
            first, last = b.add(first, _spread(v, number)), _spread(v, nothing)
            b.store(b.select(b.icmp_signed("<", first, last), first, last), where)
            b.store(lowest, maximum)
            b.store(number, tap)

        def meet(pixels: Any) -> None:
            top, this = b.load(maximum), b.load(tap)
            wins = b.and_(b.fcmp_unordered(">", pixels, top), b.fcmp_ordered("ord", top, top))
            b.store(b.select(wins, pixels, top), maximum)
            b.store(b.select(wins, _spread(v, this), b.load(where)), where)
            b.store(b.add(this, v.index(1)), tap)

        def finish(done: Any, inside: Any) -> None:
            v.store_masked(b.load(maximum), v.at(y, b.add(y0, done)), inside)
            found = b.load(where)
            found = found if narrow == wide else b.trunc(found, narrow)
            target = v.at(numbers, b.add(numbers0, done))
            b.store(found, b.bitcast(target, narrow.as_pointer()), align=1)

        row = Row(corner, pitch, down, across, apart, start, width, step, columns, lowest)
        _vectors(v, each_tap, x, row, begin, meet, finish)

    return emitted(4, emit)


def _means(each_tap: Callable[..., None]) -> Any:
    """Return the kernel of a row of sums over the windows, divided by ``counts``."""

    def emit(
        v: Vectors, x: Any, y: Any, counts: Any, corner: Any, pitch: Any, down: Any, across: Any,
        apart: Any, start: Any, width: Any, step: Any, columns: Any, y0: Any, counts0: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        total = cgutils.alloca_once(b, v.type)

        def finish(done: Any, inside: Any) -> None:
            count = v.load_masked(v.at(counts, b.add(counts0, done)), inside)
            mean = b.fdiv(b.load(total), count)
            v.store_masked(mean, v.at(y, b.add(y0, done)), inside)

        row = Row(corner, pitch, down, across, apart, start, width, step, columns, v.zero)
        _vectors(
            v, each_tap, x, row,
            begin=lambda done: b.store(v.zero, total),
            meet=lambda pixels: b.store(b.fadd(b.load(total), pixels), total),
            finish=finish,
        )  # fmt: skip

    return emitted(3, emit)


# --- gradients of windows of 2x2 with step 2 -----------------------------------------------------


def _gradients_2x2(shares: Callable[..., Any]) -> Callable[..., None]:
    """Return what emits the gradients of two lines of pixels, from a row of outputs'.

    ``shares(v, gradient, others, there)`` is what the four pixels of each window get; ``others``
    is a second row, of whole vectors or as long as that of outputs.
    """

    def emit(
        v: Vectors, dy: Any, others: Any, dx: Any, d0: Any, others0: Any, pixel0: Any,
        pitch: Any, columns: Any,
    ) -> None:  # fmt: skip
        b, lanes, pixels = v.builder, v.index(v.lanes), v.builder.mul(columns, v.index(2))
        dy, others, dx = v.at(dy, d0), v.at(others, others0), v.at(dx, pixel0)
        with cgutils.for_range(b, b.sdiv(b.add(columns, v.index(v.lanes - 1)), lanes)) as vector:
            done = b.mul(vector.index, lanes)
            there = v.first(b.sub(columns, done))
            gradient = v.load_masked(v.at(dy, done), there)
            found = shares(v, gradient, v.at(others, done), there)
            for half in range(2):
                start = b.add(b.mul(done, v.index(2)), v.index(half * v.lanes))
                inside = v.first(b.sub(pixels, start))
                order = [half * v.lanes // 2 + i // 2 + i % 2 * v.lanes for i in range(v.lanes)]
                for down, line in enumerate((dx, v.at(dx, pitch))):
                    left, right = found[2 * down : 2 * down + 2]
                    pair = v.shuffle(left, right, order)
                    v.store_masked(pair, v.at(line, start), inside)

    return emit


def _of_maxima(v: Vectors, gradient: Any, numbers: Any, there: Any) -> list[Any]:
    """Return the gradient where the number of the maximum's tap is the pixel's, else 0."""
    b, narrow = v.builder, ir.VectorType(numbers.type.pointee, v.lanes)
    found = b.load(b.bitcast(numbers, narrow.as_pointer()), align=1)
    return [
        b.select(b.icmp_signed("==", found, ir.Constant(narrow, [tap] * v.lanes)), gradient, v.zero)
        for tap in range(4)
    ]


def _of_means(v: Vectors, gradient: Any, counts: Any, there: Any) -> list[Any]:
    """Return the gradient over the count, for all four."""
    return [v.builder.fdiv(gradient, v.load_masked(counts, there))] * 4


maxima_gradient_2x2, means_gradient_2x2 = (
    emitted(3, _gradients_2x2(shares)) for shares in (_of_maxima, _of_means)
)
MAXIMA = tuple(map(_maxima, TAPS))
MEANS = tuple(map(_means, TAPS))
