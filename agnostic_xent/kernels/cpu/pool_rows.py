"""Rows of outputs of a pool with windows of 2x2 and step 2, in registers.

A vector holds neighbouring outputs. Two vectors of each of two lines of pixels become four, one a
tap, so that pixels and outputs go through memory once; backward it is the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from .conv.vectors import Vectors, cgutils, emitted


def _vectors(v: Vectors, columns: Any, each: Callable[[Any, Any], None]) -> None:
    """Emit the loop over the vectors of a row: ``each(outputs before, mask of those there)``."""
    b, lanes = v.builder, v.index(v.lanes)
    with cgutils.for_range(b, b.sdiv(b.add(columns, v.index(v.lanes - 1)), lanes)) as vector:
        done = b.mul(vector.index, lanes)
        each(done, v.first(b.sub(columns, done)))


def _pixels_of(v: Vectors, columns: Any, done: Any) -> list[tuple[Any, Any]]:
    """Return where the two vectors of pixels of a vector of outputs start, and their masks."""
    b, start = v.builder, v.builder.mul(done, v.index(2))
    starts = [start, b.add(start, v.index(v.lanes))]
    pixels = b.mul(columns, v.index(2))
    return [(start, v.first(b.sub(pixels, start))) for start in starts]


def _taps(v: Vectors, x: Any, pitch: Any, columns: Any, done: Any) -> list[Any]:
    """Load the pixels of a vector of windows: four vectors, one a tap."""
    taps = []
    for line in (x, v.at(x, pitch)):
        low, high = (
            v.load_masked(v.at(line, start), there)
            for start, there in _pixels_of(v, columns, done)
        )  # fmt: skip
        taps += [v.shuffle(low, high, range(shift, 2 * v.lanes, 2)) for shift in range(2)]
    return taps


# --- values --------------------------------------------------------------------------------------


def _maxima(
    v: Vectors, x: Any, y: Any, numbers: Any, x0: Any, pitch: Any, columns: Any, y0: Any,
    numbers0: Any,
) -> None:  # fmt: skip
    """Emit a row of maxima, and of the numbers of the taps where they are.

    The first maximum wins, and the first NaN before all. Numbers are stored in whole vectors: their
    rows have room.
    """
    b, x, y, numbers = v.builder, v.at(x, x0), v.at(y, y0), v.at(numbers, numbers0)
    kind = ir.VectorType(numbers.type.pointee, v.lanes)

    def each(done: Any, there: Any) -> None:
        top, *others = _taps(v, x, pitch, columns, done)
        where = ir.Constant(kind, [0] * v.lanes)
        for tap, pixels in enumerate(others, 1):
            wins = b.and_(b.fcmp_unordered(">", pixels, top), b.fcmp_ordered("ord", top, top))
            top = b.select(wins, pixels, top)
            where = b.select(wins, ir.Constant(kind, [tap] * v.lanes), where)
        v.store_masked(top, v.at(y, done), there)
        b.store(where, b.bitcast(v.at(numbers, done), kind.as_pointer()), align=1)

    _vectors(v, columns, each)


def _means(
    v: Vectors, x: Any, y: Any, counts: Any, x0: Any, pitch: Any, columns: Any, y0: Any,
    counts0: Any,
) -> None:  # fmt: skip
    """Emit a row of sums over the windows, divided by ``counts``."""
    b, x, y, counts = v.builder, v.at(x, x0), v.at(y, y0), v.at(counts, counts0)

    def each(done: Any, there: Any) -> None:
        total, *others = _taps(v, x, pitch, columns, done)
        for pixels in others:
            total = b.fadd(total, pixels)
        mean = b.fdiv(total, v.load_masked(v.at(counts, done), there))
        v.store_masked(mean, v.at(y, done), there)

    _vectors(v, columns, each)


# --- gradients -----------------------------------------------------------------------------------


def _gradients(shares: Callable[..., Any]) -> Callable[..., None]:
    """Return what emits the gradients of two lines of pixels, from a row of outputs'.

    ``shares(v, gradient, others, there)`` is what the four pixels of each window get; ``others``
    is a second row, of whole vectors or as long as that of outputs.
    """

    def emit(
        v: Vectors, dy: Any, others: Any, dx: Any, d0: Any, others0: Any, pixel0: Any,
        pitch: Any, columns: Any,
    ) -> None:  # fmt: skip
        dy, others, dx = v.at(dy, d0), v.at(others, others0), v.at(dx, pixel0)

        def each(done: Any, there: Any) -> None:
            gradient = v.load_masked(v.at(dy, done), there)
            found = shares(v, gradient, v.at(others, done), there)
            for half, (start, inside) in enumerate(_pixels_of(v, columns, done)):
                order = [half * v.lanes // 2 + i // 2 + i % 2 * v.lanes for i in range(v.lanes)]
                for down, line in enumerate((dx, v.at(dx, pitch))):
                    left, right = found[2 * down : 2 * down + 2]
                    v.store_masked(v.shuffle(left, right, order), v.at(line, start), inside)

        _vectors(v, columns, each)

    return emit


def _of_maxima(v: Vectors, gradient: Any, numbers: Any, there: Any) -> list[Any]:
    """Return the gradient where the number of the maximum's tap is the pixel's, else 0."""
    b, kind = v.builder, ir.VectorType(numbers.type.pointee, v.lanes)
    found = b.load(b.bitcast(numbers, kind.as_pointer()), align=1)
    return [
        b.select(b.icmp_signed("==", found, ir.Constant(kind, [tap] * v.lanes)), gradient, v.zero)
        for tap in range(4)
    ]


def _of_means(v: Vectors, gradient: Any, counts: Any, there: Any) -> list[Any]:
    """Return the gradient over the count, for all four."""
    return [v.builder.fdiv(gradient, v.load_masked(counts, there))] * 4


row_of_maxima, row_of_means = emitted(3, _maxima), emitted(3, _means)
maxima_gradient_row, means_gradient_row = (
    emitted(3, _gradients(shares)) for shares in (_of_maxima, _of_means)
)
