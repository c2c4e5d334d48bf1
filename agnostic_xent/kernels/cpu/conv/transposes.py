"""Transposition of matrices, a square of lanes x lanes after another, in registers."""

from __future__ import annotations

from typing import Any

from ..vector_math import STRICT, njit
from .vectors import Vectors, emitted


def _whole(v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any) -> None:
    """Emit the transposition of a whole square."""
    b, x, y = v.builder, v.at(x, x0), v.at(y, y0)
    rows = [v.load(v.at(x, b.mul(x_stride, v.index(i)))) for i in range(v.lanes)]
    for j, column in enumerate(v.transposed(rows)):
        v.store(column, v.at(y, b.mul(y_stride, v.index(j))))


def _edge(
    v: Vectors, x: Any, y: Any, x0: Any, x_stride: Any, y0: Any, y_stride: Any,
    rows: Any, columns: Any, written: Any,
) -> None:  # fmt: skip
    """Emit it for the first rows and columns; each column is written so long, with zeros behind."""
    b, x, y = v.builder, v.at(x, x0), v.at(y, y0)
    inside, kept = v.first(columns), v.first(written)
    squares = []
    for i in range(v.lanes):
        there = b.select(b.icmp_signed("<", v.index(i), rows), inside, v.first(v.index(0)))
        squares.append(v.load_masked(v.at(x, b.mul(x_stride, v.index(i))), there))
    for j, column in enumerate(v.transposed(squares)):
        with b.if_then(b.icmp_signed("<", v.index(j), columns)):
            v.store_masked(column, v.at(y, b.mul(y_stride, v.index(j))), kept)


_transpose_whole, _transpose_edge = emitted(2, _whole), emitted(2, _edge)


@njit(**STRICT)
def transpose(
    lanes: Any, x: Any, x0: Any, x_stride: Any, rows: Any, columns: Any,
    y: Any, y0: Any, y_stride: Any, written: Any,
) -> None:  # fmt: skip
    """Set y[j, i] = x[i, j] of matrices with row strides, and 0 where rows <= i < written."""
    for i in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            source, target = x0 + i * x_stride + j, y0 + j * y_stride + i
            if rows - i >= lanes and columns - j >= lanes:
                _transpose_whole(x, y, source, x_stride, target, y_stride)
            else:
                _transpose_edge(x, y, source, x_stride, target, y_stride,
                                rows - i, columns - j, written - i)  # fmt: skip
