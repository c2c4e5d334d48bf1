"""Rows of few numbers as tiles, whose lanes are rows.

A tile is (columns, lanes) numbers that follow each other: as many rows as a vector has lanes,
transposed in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .elementary import inlined
from .transposes import into_lanes, lanes_to_rows, out_of_lanes, rows_to_lanes
from .vectors import Vectors, cgutils

FEW = 64
"""Numbers of a row up to which tiles are faster; sums of so many are not cut."""


class Tile:
    """Emits loops over the columns of a tile."""

    def __init__(self, v: Vectors, tile: Any, columns: Any):
        self.v, self.tile, self.columns = v, tile, columns

    def place(self, column: Any) -> Any:
        """Emit the place of a column's vector."""
        return self.v.at(self.tile, self.v.builder.mul(column, self.v.index(self.v.lanes)))

    @contextmanager
    def each(self) -> Iterator[tuple[Any, Any]]:
        """Emit a loop; give the number of a column, and the place of its vector."""
        with cgutils.for_range(self.v.builder, self.columns) as loop:
            yield loop.index, self.place(loop.index)

    def maximum(self) -> Any:
        """Emit that of each lane; NaN spoils the sum later, kept here or not."""
        v, b = self.v, self.v.builder
        top = cgutils.alloca_once_value(b, v.load(self.tile))
        with self.each() as (_, place):
            x, best = v.load(place), b.load(top)
            b.store(b.select(b.fcmp_ordered(">", x, best), x, best), top)
        return b.load(top)


# --- rows and tiles ------------------------------------------------------------------------------

_into_1, _into_2, _into_3, _into_4 = map(rows_to_lanes, range(1, 5))
_out_of_1, _out_of_2, _out_of_3, _out_of_4 = map(lanes_to_rows, range(1, 5))
_into_8, _into_16 = map(into_lanes, (8, 16))
_out_of_8, _out_of_16 = map(out_of_lanes, (8, 16))


@inlined
def load_tile(x: Any, x0: Any, rows: Any, classes: Any, lanes: Any, tiles: Any, start: Any) -> None:
    """Set a tile to rows at x0 of the flat logits x; the last columns overlap those before."""
    if classes == 1:
        _into_1(x, tiles, x0, start, rows)
    elif classes == 2:
        _into_2(x, tiles, x0, start, rows)
    elif classes == 3:
        _into_3(x, tiles, x0, start, rows)
    elif classes == 4:
        _into_4(x, tiles, x0, start, rows)
    elif classes <= 8 < lanes:
        _into_8(x, tiles, x0, classes, start, rows, classes)
    else:
        for p in range(0, classes, lanes):
            j = max(0, min(p, classes - lanes))
            _into_16(x, tiles, x0 + j, classes, start + j * lanes, rows, classes)


@inlined
def store_tile(
    tiles: Any, start: Any, rows: Any, classes: Any, lanes: Any, g: Any, g0: Any
) -> None:
    """Set rows at g0 of the flat g to a tile."""
    if classes == 1:
        _out_of_1(tiles, g, start, g0, rows)
    elif classes == 2:
        _out_of_2(tiles, g, start, g0, rows)
    elif classes == 3:
        _out_of_3(tiles, g, start, g0, rows)
    elif classes == 4:
        _out_of_4(tiles, g, start, g0, rows)
    elif classes <= 8 < lanes:
        _out_of_8(tiles, g, start, g0, classes, rows, classes)
    else:
        for p in range(0, classes, lanes):
            j = max(0, min(p, classes - lanes))
            _out_of_16(tiles, g, start + j * lanes, g0 + j, classes, rows, classes)
