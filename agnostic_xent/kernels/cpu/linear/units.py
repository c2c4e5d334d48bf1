"""Rows of weights, in which the units of a column lie side by side: sums and multiples of them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..simd.elementary import inlined
from ..simd.vectors import VECTOR_BYTES, Vectors, cgutils, emitted


def _sums(vectors: int) -> Any:
    """Return the kernel ``z[i, c] = sum over p of x[p] w[columns[p], c]`` for the first units c.

    So many vectors of units are summed at a time, in registers.
    """

    def emit(
        v: Vectors, x: Any, columns: Any, w: Any, z: Any,
        i: Any, count: Any, units: Any, stride: Any,
    ) -> None:  # fmt: skip
        b, step = v.builder, v.index(vectors * v.lanes)
        z = v.at(z, b.mul(i, units))
        with cgutils.for_range_slice(b, v.index(0), units, step, inc=True) as (c, _):
            left = b.sub(units, c)
            masks = [v.first(left, j * v.lanes) for j in range(vectors)]
            totals = [cgutils.alloca_once(b, v.type) for _ in masks]
            for total in totals:
                b.store(v.zero, total)
            with cgutils.for_range(b, count) as loop:
                column = b.load(v.at(columns, loop.index))
                if column.type.width < 64:
                    column = b.sext(column, ir.IntType(64))
                row = v.at(w, b.add(b.mul(column, stride), c))
                factor = v.splat(b.load(v.at(x, loop.index)))
                for j, (total, mask) in enumerate(zip(totals, masks, strict=True)):
                    part = v.load_masked(v.at(row, j * v.lanes), mask)
                    b.store(v.fma(factor, part, b.load(total)), total)
            for j, (total, mask) in enumerate(zip(totals, masks, strict=True)):
                v.store_masked(b.load(total), v.at(v.at(z, c), j * v.lanes), mask)

    return emitted(4, emit)


_one, _two, _four = _sums(1), _sums(2), _sums(4)


@inlined
def sum_rows(z: Any, i: Any, units: Any, w: Any, x: Any, columns: Any) -> None:
    """Write to row i of z, of so many units, the sum of rows of w, each times a number of x."""
    lanes = VECTOR_BYTES // x.itemsize
    if units <= lanes:
        _one(x, columns, w, z, i, x.size, units, w.shape[1])
    elif units <= 2 * lanes:
        _two(x, columns, w, z, i, x.size, units, w.shape[1])
    else:
        _four(x, columns, w, z, i, x.size, units, w.shape[1])


def _add_multiple(
    v: Vectors, to: Any, factors: Any, rows: Any, i: Any, p: Any, j: Any, units: Any
) -> None:
    """Emit ``to[i, c] += factors[p] * rows[j, c]`` for all units c."""
    b, lanes = v.builder, v.index(v.lanes)
    to, rows = v.at(to, b.mul(i, units)), v.at(rows, b.mul(j, units))
    factor = v.splat(b.load(v.at(factors, p)))
    with cgutils.for_range_slice(b, v.index(0), units, lanes, inc=True) as (c, _):
        here, mask = v.at(to, c), v.first(b.sub(units, c))
        moved = v.fma(factor, v.load_masked(v.at(rows, c), mask), v.load_masked(here, mask))
        v.store_masked(moved, here, mask)


add_multiple = emitted(3, _add_multiple)
