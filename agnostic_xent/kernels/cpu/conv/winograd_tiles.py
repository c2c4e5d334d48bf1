"""The transforms of a tile, on vectors of channels, and what rides on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir

from ..simd.vectors import Vectors, cgutils, emitted, emitted_by_class
from .winograd_transforms import SCHEMES, Arithmetic, Transform

POOL = 2
"""Window and stride of the max-pool that can follow; its pixels are counted in rows: 0 to 3."""

NOBODY = 4
"""The winner where ReLU lets no gradient through."""


def _both_ways(
    v: Vectors, transform: Transform, size: int, x: Any, strides: Any
) -> Iterator[list[Any]]:
    """Load size x size vectors, transform their columns and yield the transform of each row.

    A row should be stored before the next one is asked for: then few vectors wait in memory.
    """
    o = Arithmetic(v)
    columns = [
        transform(o, [v.load(place) for place in v.places(top, strides[0], size)])
        for top in v.places(x, strides[1], size)
    ]
    for i in range(len(columns[0])):
        yield transform(o, [column[i] for column in columns])


def _tile_transform(transform: Transform, size: int) -> Any:
    """Return what emits the transform of size x size vectors, given two strides a side."""

    def emit(
        v: Vectors, x: Any, y: Any, x0: Any, x_row: Any, x_column: Any,
        y0: Any, y_row: Any, y_column: Any,
    ) -> None:  # fmt: skip
        line = v.at(y, y0)
        for row in _both_ways(v, transform, size, v.at(x, x0), (x_row, x_column)):
            for vector, place in zip(row, v.places(line, y_column, len(row)), strict=True):
                v.store(vector, place)
            line = v.at(line, y_row)

    return emit


def _output_tile(transform: Transform, size: int) -> Any:
    """Return what emits the transform to outputs, plus bias, not below 0 if ``relu``."""

    def emit(
        v: Vectors, x: Any, bias: Any, y: Any, x0: Any, x_row: Any, x_column: Any, b0: Any,
        y0: Any, y_row: Any, y_column: Any, relu: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        start = v.load(v.at(bias, b0))
        lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
        line = v.at(y, y0)
        for row in _both_ways(v, transform, size, v.at(x, x0), (x_row, x_column)):
            for vector, place in zip(row, v.places(line, y_column, len(row)), strict=True):
                v.store(v.at_least(b.fadd(vector, start), lowest), place)
            line = v.at(line, y_row)

    return emit


def _pooled_output_tile(transform: Transform, size: int) -> Any:
    """Return what emits the maxima of 2 x 2 of them; at y[w0], which pixel wins: see `POOL`."""

    def emit(
        v: Vectors, x: Any, bias: Any, y: Any, x0: Any, x_row: Any, x_column: Any, b0: Any,
        y0: Any, y_row: Any, y_column: Any, w0: Any, relu: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        start, relus = v.load(v.at(bias, b0)), b.icmp_signed("!=", relu, v.index(0))
        lowest = b.select(relus, v.zero, v.constant(float("-inf")))
        rows = [
            [v.at_least(b.fadd(vector, start), lowest) for vector in row]
            for row in _both_ways(v, transform, size, v.at(x, x0), (x_row, x_column))
        ]
        for i in (0, 1):
            for j in (0, 1):
                best, winner = rows[2 * i][2 * j], v.zero
                for number in (1, 2, 3):
                    pixel = rows[2 * i + number // 2][2 * j + number % 2]
                    # the first maximum wins, and the first NaN
                    better = b.and_(
                        b.fcmp_unordered(">", pixel, best), b.fcmp_ordered("ord", best, best)
                    )
                    best = b.select(better, pixel, best)
                    winner = b.select(better, v.constant(number), winner)
                stopped = b.and_(b.fcmp_ordered("<=", best, v.zero), v.all_or_none(relus))
                winner = b.select(stopped, v.constant(NOBODY), winner)
                place = b.add(b.mul(y_row, v.index(i)), b.mul(y_column, v.index(j)))
                v.store(best, v.at(v.at(y, y0), place))
                v.store(winner, v.at(v.at(y, w0), place))

    return emit


def _unpool(
    v: Vectors, dy: Any, winners: Any, row: Any, d0: Any, count: Any, first: Any, r0: Any,
    vectors: Any,
) -> None:  # fmt: skip
    """Emit a row of pixels from pooled cotangents, those whose winners are first or first + 1."""
    b, dy, winners, row = v.builder, v.at(dy, d0), v.at(winners, d0), v.at(row, r0)
    bytes_type = ir.VectorType(ir.IntType(8), v.lanes)
    with cgutils.for_range(b, vectors) as loop:
        done = b.mul(loop.index, v.index(v.lanes))
        vector = v.load_masked(v.at(dy, done), v.first(b.sub(count, done)))
        source = b.bitcast(v.at(winners, done), bytes_type.as_pointer())
        winner = b.uitofp(b.load(source, align=1), v.type)
        even = v.splat(b.sitofp(first, v.scalar))
        odd = b.fadd(even, v.constant(1))
        left = b.select(b.fcmp_ordered("==", winner, even), vector, v.zero)
        right = b.select(b.fcmp_ordered("==", winner, odd), vector, v.zero)
        for half in (0, 1):
            order = [half * v.lanes // 2 + i // 2 + i % 2 * v.lanes for i in range(v.lanes)]
            target = b.add(b.mul(done, v.index(2)), v.index(half * v.lanes))
            v.store(v.shuffle(left, right, order), v.at(row, target))


def _prefetch(to_write: int) -> Any:
    """Return the wish to have a line of memory in the cache, to read it or to write to it."""

    def emit(v: Vectors, x: Any, x0: Any) -> None:
        v.prefetch(v.at(x, x0), to_write)

    return emitted(1, emit)


def _by_class(arrays: int, emit: Any, transform: str, size: int | None) -> Any:
    """Return the kernel that a tiling's class picks; size: 3, or which of the class's sizes."""
    emits = {}
    for cls, scheme in SCHEMES.items():
        if (chosen := getattr(scheme, transform)) is not None:
            emits[cls] = emit(chosen, 3 if size is None else cls.SIZES[size])
    return emitted_by_class(arrays, emits)


SIDE, READ, WRITTEN = 0, 1, 3
input_tile = _by_class(2, _tile_transform, "of_input", READ)
output_tile = _by_class(3, _output_tile, "of_output", SIDE)
pooled_output_tile = _by_class(3, _pooled_output_tile, "of_output", SIDE)
output_gradient_tile = _by_class(2, _tile_transform, "of_output_gradient", WRITTEN)
weight_tile = _by_class(2, _tile_transform, "of_weights", None)
weight_gradient_tile = _by_class(2, _tile_transform, "of_weight_gradient", SIDE)
unpool = emitted(3, _unpool)
prefetch_to_read, prefetch_to_write = _prefetch(0), _prefetch(1)
