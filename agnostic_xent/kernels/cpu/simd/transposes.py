"""Transposition of matrices, a square of lanes x lanes after another, in registers."""

from __future__ import annotations

from typing import Any

from .elementary import plain
from .vectors import Vectors, emitted


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


_transpose_whole, _transpose_narrow = emitted(2, _whole), emitted(2, _narrow)
_transpose_edge = emitted(2, _edge)


@plain
def transpose(
    lanes: Any, x: Any, x0: Any, x_stride: Any, rows: Any, columns: Any,
    y: Any, y0: Any, y_stride: Any, written: Any,
) -> None:  # fmt: skip
    """Set y[j, i] = x[i, j] of matrices with row strides, and 0 where rows <= i < written.

    Squares follow each other along the rows of the matrix whose rows lie farther apart, an image.
    The last one overlaps the one before it, which saves the masks of a narrow one.
    """
    along_y = y_stride > x_stride
    outer, inner = (columns, rows) if along_y else (rows, columns)
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
