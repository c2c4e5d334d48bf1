"""Transposition of matrices, a square of lanes x lanes after another, in registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .elementary import plain
from .vectors import Vectors, emitted

SAME_SET, WAYS = 1024, 8
"""Numbers whose multiples meet in one set of a first-level cache, and how many it has room for."""


def _whole(v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any) -> None:
    """Emit the transposition of a square of lanes x lanes from x to y."""
    rows = [v.load(place) for place in v.places(v.at(x, x0), x_stride, v.lanes)]
    places = v.places(v.at(y, y0), y_stride, v.lanes)
    for column, place in zip(v.transposed(rows), places, strict=True):
        v.store(column, place)


def _narrow(
    v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any, columns: Any
) -> None:
    """Emit the transposition of all rows and the first columns of a square of x."""
    b, inside = v.builder, v.first(columns)
    rows = [v.load_masked(place, inside) for place in v.places(v.at(x, x0), x_stride, v.lanes)]
    places = v.places(v.at(y, y0), y_stride, v.lanes)
    for j, (column, place) in enumerate(zip(v.transposed(rows), places, strict=True)):
        with b.if_then(b.icmp_signed("<", v.index(j), columns)):
            v.store(column, place)


def _edge(
    v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any,
    rows: Any, columns: Any, written: Any,
) -> None:  # fmt: skip
    """Emit that of the first rows and columns; of each column ``written``, with zeros behind."""
    b = v.builder
    inside, kept = v.first(columns), v.first(written)
    squares = []
    for i, place in enumerate(v.places(v.at(x, x0), x_stride, v.lanes)):
        there = b.select(b.icmp_signed("<", v.index(i), rows), inside, v.first(v.index(0)))
        squares.append(v.load_masked(place, there))
    places = v.places(v.at(y, y0), y_stride, v.lanes)
    for j, (column, place) in enumerate(zip(v.transposed(squares), places, strict=True)):
        with b.if_then(b.icmp_signed("<", v.index(j), columns)):
            v.store_masked(column, place, kept)


def _flat(v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any) -> None:
    """Emit the transposition of half as many rows of x as lanes, which are whole vectors."""
    half, low = v.narrower(v.lanes // 2), range(v.lanes // 2)
    rows = [v.load(place) for place in v.places(v.at(x, x0), x_stride, half.lanes)]
    columns = v.transposed(rows)
    parts = [v.shuffle(column, column, low) for column in columns]
    parts += [v.shuffle(column, column, [k + half.lanes for k in low]) for column in columns]
    for part, place in zip(parts, v.places(v.at(y, y0), y_stride, v.lanes), strict=True):
        half.store(part, place)


def _tall(v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any) -> None:
    """Emit the transposition of half as many columns of x as lanes, which become whole vectors."""
    half = v.narrower(v.lanes // 2)
    parts = [half.load(place) for place in v.places(v.at(x, x0), x_stride, v.lanes)]
    rows = [v.joined([parts[i], parts[i + half.lanes]]) for i in range(half.lanes)]
    places = v.places(v.at(y, y0), y_stride, half.lanes)
    for column, place in zip(v.transposed(rows), places, strict=True):
        v.store(column, place)


_transpose_whole, _transpose_narrow = emitted(2, _whole), emitted(2, _narrow)
_transpose_edge, _transpose_flat, _transpose_tall = (
    emitted(2, _edge),
    emitted(2, _flat),
    emitted(2, _tall),
)


@plain
def transpose(
    lanes: Any, x: Any, x0: Any, x_stride: Any, rows: Any, columns: Any,
    y: Any, y0: Any, y_stride: Any, written: Any,
) -> None:  # fmt: skip
    """Set y[j, i] = x[i, j] of matrices with row strides, and 0 where rows <= i < written.

    Squares follow each other along the rows of the matrix whose rows lie farther apart, an image.
    The last one overlaps the one before it, which saves the masks of a narrow one. Of rows that
    meet in the same set of a cache, there is room for half as many.
    """
    along_y = y_stride > x_stride
    outer, inner = (columns, rows) if along_y else (rows, columns)
    half = lanes // 2
    crowded = lanes > WAYS and max(x_stride, y_stride) % SAME_SET == 0
    if crowded and written <= rows and outer >= half and inner >= lanes:
        for p in range(0, outer, half):
            for q in range(0, inner, lanes):
                far, near = min(p, outer - half), min(q, inner - lanes)
                if along_y:
                    _transpose_tall(x, y, x0 + near * x_stride + far, x_stride,
                                    y0 + far * y_stride + near, y_stride)  # fmt: skip
                else:
                    _transpose_flat(x, y, x0 + far * x_stride + near, x_stride,
                                    y0 + near * y_stride + far, y_stride)  # fmt: skip
        return
    last_i, last_j = rows - lanes if written <= rows else rows, columns - lanes
    for p in range(0, outer, lanes):
        for q in range(0, inner, lanes):
            i, j = (q, p) if along_y else (p, q)
            i, j = max(0, min(i, last_i)), max(0, min(j, last_j))
            source, target = x0 + i * x_stride + j, y0 + j * y_stride + i
            if rows - i >= lanes and columns - j >= lanes:
                _transpose_whole(x, y, source, x_stride, target, y_stride)
            elif rows - i >= lanes:
                _transpose_narrow(x, y, source, x_stride, target, y_stride, columns - j)
            else:
                _transpose_edge(x, y, source, x_stride, target, y_stride,
                                rows - i, columns - j, written - i)  # fmt: skip


# --- rows of few columns, as many at a time as there are lanes ------------------------------------
#
# Rows of up to four numbers follow each other in as many vectors, whose lanes are dealt out. Wider
# rows fill a vector together, those that are ``width`` apart, so as many vectors are transposed as
# that. They are read and written ``width`` numbers wide, where those behind a row are of the next,
# which is written after it.


def _dealt(v: Vectors, vectors: list[Any], places: list[int]) -> Any:
    """Return the vector of the lanes at these places, counted through vectors."""
    found = v.zero
    for i, vector in enumerate(vectors):
        lanes = [
            v.lanes + place % v.lanes if place // v.lanes == i else k
            for k, place in enumerate(places)
        ]
        found = v.shuffle(found, vector, lanes)
    return found


def rows_to_lanes(columns: int) -> Any:
    """Return the kernel that sets y (columns, lanes) to the columns of ``rows`` rows of x."""

    def emit(v: Vectors, x: Any, y: Any, x0: Any, y0: Any, rows: Any) -> None:
        b, x, y = v.builder, v.at(x, x0), v.at(y, y0)
        size, vectors = b.mul(rows, v.index(columns)), []
        for i in range(columns):
            there = v.first(b.sub(size, v.index(i * v.lanes)))
            vectors.append(v.load_masked(v.at(x, i * v.lanes), there))
        for c in range(columns):
            column = _dealt(v, vectors, [k * columns + c for k in range(v.lanes)])
            v.store(column, v.at(y, c * v.lanes))

    return emitted(2, emit)


def lanes_to_rows(columns: int) -> Any:
    """Return the kernel that undoes `rows_to_lanes`."""

    def emit(v: Vectors, y: Any, x: Any, y0: Any, x0: Any, rows: Any) -> None:
        b, x, y = v.builder, v.at(x, x0), v.at(y, y0)
        size = b.mul(rows, v.index(columns))
        vectors = [v.load(v.at(y, c * v.lanes)) for c in range(columns)]
        for i in range(columns):
            there = v.first(b.sub(size, v.index(i * v.lanes)))
            numbers = range(i * v.lanes, (i + 1) * v.lanes)
            lanes = [n % columns * v.lanes + n // columns for n in numbers]
            v.store_masked(_dealt(v, vectors, lanes), v.at(x, i * v.lanes), there)

    return emitted(2, emit)


class Rows:
    """Emits what reads and writes as many rows as there are lanes, of which the first are there."""

    def __init__(self, v: Vectors, width: int, x: Any, stride: Any, rows: Any, columns: Any):
        self.v, self.narrow = v, v.narrower(min(width, v.lanes))
        self.places, self.rows = v.places(x, stride, v.lanes), rows
        self.inside, self.outside = self.narrow.first(columns), self.narrow.first(v.index(0))

    def mask(self, i: int) -> Any:
        """Emit the mask of row i."""
        b = self.v.builder
        return b.select(b.icmp_signed("<", self.v.index(i), self.rows), self.inside, self.outside)

    def load(self, *, whole: bool) -> list[Any]:
        """Emit the vectors of rows; ``whole`` where all are there."""
        narrow, lanes, parts = self.narrow, self.v.lanes, []
        for i, place in enumerate(self.places):
            if whole and i < lanes - 1:
                parts.append(narrow.load(place))
            else:
                parts.append(narrow.load_masked(place, self.inside if whole else self.mask(i)))
        return [self.v.joined(parts[i :: narrow.lanes]) for i in range(narrow.lanes)]

    def store(self, vectors: list[Any], *, whole: bool) -> None:
        """Emit the stores of rows."""
        narrow, lanes = self.narrow, self.v.lanes
        for i, place in enumerate(self.places):
            vector, first = vectors[i % narrow.lanes], i // narrow.lanes * narrow.lanes
            part = self.v.shuffle(vector, vector, range(first, first + narrow.lanes))
            if whole and i < lanes - 1:
                narrow.store(part, place)
            else:
                narrow.store_masked(part, place, self.inside if whole else self.mask(i))


def _whole_or_not(v: Vectors, rows: Any, emit: Callable[[bool], None]) -> None:
    """Emit ``emit`` for as many rows as there are lanes, and for fewer."""
    with v.builder.if_else(v.builder.icmp_signed(">=", rows, v.index(v.lanes))) as branches:
        for branch, whole in zip(branches, (True, False), strict=True):
            with branch:
                emit(whole)


def into_lanes(width: int) -> Any:
    """Return the kernel that sets y (width, lanes) to the columns of ``rows`` rows of x."""

    def emit(
        v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, rows: Any, columns: Any
    ) -> None:
        def transpose(whole: bool) -> None:
            there = Rows(v, width, v.at(x, x0), x_stride, rows, columns)
            for j, column in enumerate(v.transposed(there.load(whole=whole))):
                v.store(column, v.at(v.at(y, y0), j * v.lanes))

        _whole_or_not(v, rows, transpose)

    return emitted(2, emit)


def out_of_lanes(width: int) -> Any:
    """Return the kernel that undoes `into_lanes`."""

    def emit(
        v: Vectors, y: Any, x: Any, y0: Any, x0: Any, x_stride: Any, rows: Any, columns: Any
    ) -> None:
        def transpose(whole: bool) -> None:
            there = Rows(v, width, v.at(x, x0), x_stride, rows, columns)
            columns_of = [v.load(v.at(v.at(y, y0), j * v.lanes)) for j in range(there.narrow.lanes)]
            there.store(v.transposed(columns_of), whole=whole)

        _whole_or_not(v, rows, transpose)

    return emitted(2, emit)
