"""Products of few rows with a matrix that lies transposed: inner products of rows as they lie.

To pack the matrix takes longer than all multiplications with one row. Here as many of its rows as a
vector has lanes are read at a time. Their sums stay in registers, and then become one vector.
"""

from __future__ import annotations

from typing import Any

from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Read1, Write1
from .vectors import Vectors, cgutils, emitted

BLOCK = 128
"""Products that a lane adds up before they are added to the result."""


def _dots(
    v: Vectors, a: Any, b: Any, start: Any, c: Any,
    a0: Any, b0: Any, stride: Any, depth: Any, s0: Any, c0: Any, there: Any,
) -> None:  # fmt: skip
    """Emit ``c[j] = start[j] + sum_k a[k] b[j, k]`` for the rows of b that are there."""
    builder, a, last = v.builder, v.at(a, a0), v.builder.sub(there, v.index(1))
    rows, sums = [], [cgutils.alloca_once_value(builder, v.zero) for _ in range(v.lanes)]
    for j in map(v.index, range(v.lanes)):  # in place of a row that is not there, the last one
        row = builder.select(builder.icmp_signed("<", j, last), j, last)
        rows.append(v.at(b, builder.add(b0, builder.mul(row, stride))))
    lanes, inside = v.index(v.lanes), v.first(there)
    whole = builder.mul(builder.sdiv(depth, lanes), lanes)
    with cgutils.for_range_slice(builder, v.index(0), whole, lanes, inc=True) as (k, _):
        x = v.load(v.at(a, k))
        for row, place in zip(rows, sums, strict=True):
            builder.store(v.fma(x, v.load(v.at(row, k)), builder.load(place)), place)
    with builder.if_then(builder.icmp_signed("<", whole, depth)):
        mask = v.first(builder.sub(depth, whole))
        x = v.load_masked(v.at(a, whole), mask)
        for row, place in zip(rows, sums, strict=True):
            y = v.load_masked(v.at(row, whole), mask)
            builder.store(v.fma(x, y, builder.load(place)), place)
    found = v.sums([builder.load(place) for place in sums])
    before = v.load_masked(v.at(start, s0), inside)
    v.store_masked(builder.fadd(found, before), v.at(c, c0), inside)


dots = emitted(4, _dots)


@compiled_in_parts(kind=FLOATS)
def inner_products(
    a: Read1, b: Read1, bias: Read1, c: Write1, rows: int, columns: int, depth: int, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Set c = a @ b^T + bias, all flat."""
    tiles, piece = -(-columns // lanes), BLOCK * lanes
    for tile in range(tiles * part // parts, tiles * (part + 1) // parts):
        n0 = tile * lanes
        there = min(lanes, columns - n0)
        for i in range(rows):
            a0, b0, c0 = i * depth, n0 * depth, i * columns + n0
            dots(a, b, bias, c, a0, b0, depth, min(depth, piece), n0, c0, there)
            for k in range(piece, depth, piece):
                dots(a, b, c, c, a0 + k, b0 + k, depth, min(depth - k, piece), c0, c0, there)
