"""The transforms of Winograd convolution F(4x4, 3x3), on vectors of channels.

``y = A^T [(G w G^T) * (B^T x B)] A`` computes 4 x 4 outputs from 6 x 6 pixels with 36
multiplications instead of 144, by interpolation at 0, 1, -1, 2, -2 and infinity. The gradients use
the transposes of the same matrices.

References
----------
Lavin and Gray, Fast algorithms for convolutional neural networks, arXiv:1509.09308.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from .vectors import I32, Vectors, cgutils, emitted

POINTS = 36
"""Of the transformed tile, 6 x 6."""

POOL = 2
"""Window and stride of the max-pool that can follow; its pixels are counted in rows: 0 to 3."""

NOBODY = 4
"""The winner where ReLU lets no gradient through."""

Transform = Callable[["Arithmetic", list[Any]], list[Any]]


class Arithmetic:
    """What the transforms are made of."""

    def __init__(self, v: Vectors):
        self.v, self.add, self.subtract = v, v.builder.fadd, v.builder.fsub

    def plus(self, factor: float, x: Any, y: Any) -> Any:
        """Return factor * x + y."""
        return self.v.fma(self.v.constant(factor), x, y)

    def times(self, factor: float, x: Any) -> Any:
        """Return factor * x."""
        return self.v.builder.fmul(self.v.constant(factor), x)


def of_input(o: Arithmetic, d: list[Any]) -> list[Any]:
    """Return B^T d: 6 pixels to 6 points."""
    even, odd = o.plus(-4, d[2], d[4]), o.plus(-4, d[1], d[3])
    even2, odd2 = o.subtract(d[4], d[2]), o.subtract(d[3], d[1])
    return [
        o.plus(4, d[0], o.plus(-5, d[2], d[4])),
        o.add(even, odd),
        o.subtract(even, odd),
        o.plus(2, odd2, even2),
        o.plus(-2, odd2, even2),
        o.plus(4, d[1], o.plus(-5, d[3], d[5])),
    ]


def of_output(o: Arithmetic, m: list[Any]) -> list[Any]:
    """Return A^T m: 6 points to 4 outputs."""
    s1, d1 = o.add(m[1], m[2]), o.subtract(m[1], m[2])
    s2, d2 = o.add(m[3], m[4]), o.subtract(m[3], m[4])
    return [
        o.add(o.add(m[0], s1), s2),
        o.plus(2, d2, d1),
        o.plus(4, s2, s1),
        o.add(o.plus(8, d2, d1), m[5]),
    ]


def of_output_gradient(o: Arithmetic, y: list[Any]) -> list[Any]:
    """Return A y: 4 cotangents to 6 points."""
    even, odd = o.add(y[0], y[2]), o.add(y[1], y[3])
    even2, odd2 = o.plus(4, y[2], y[0]), o.plus(4, y[3], y[1])
    return [
        y[0],
        o.add(even, odd),
        o.subtract(even, odd),
        o.plus(2, odd2, even2),
        o.plus(-2, odd2, even2),
        y[3],
    ]


def of_weights(o: Arithmetic, g: list[Any]) -> list[Any]:
    """Return G g: 3 weights to 6 points."""
    even, odd = o.times(-1 / 6, o.add(g[0], g[2])), o.times(-1 / 6, g[1])
    even2 = o.plus(1 / 24, g[0], o.times(1 / 6, g[2]))
    return [
        o.times(1 / 4, g[0]),
        o.add(even, odd),
        o.subtract(even, odd),
        o.plus(1 / 12, g[1], even2),
        o.plus(-1 / 12, g[1], even2),
        g[2],
    ]


def of_weight_gradient(o: Arithmetic, u: list[Any]) -> list[Any]:
    """Return G^T u: 6 points to 3 gradients of weights."""
    s1, d1 = o.add(u[1], u[2]), o.subtract(u[1], u[2])
    s2, d2 = o.add(u[3], u[4]), o.subtract(u[3], u[4])
    return [
        o.plus(1 / 4, u[0], o.plus(-1 / 6, s1, o.times(1 / 24, s2))),
        o.plus(-1 / 6, d1, o.times(1 / 12, d2)),
        o.plus(-1 / 6, s1, o.plus(1 / 6, s2, u[5])),
    ]


def _both_ways(v: Vectors, transform: Transform, size: int, x: Any, strides: Any) -> list[Any]:
    """Load size x size vectors and return the transform of their columns and then rows."""
    o, b = Arithmetic(v), v.builder
    columns = []
    for j in range(size):
        top = v.at(x, b.mul(strides[1], v.index(j)))
        pixels = [v.load(v.at(top, b.mul(strides[0], v.index(i)))) for i in range(size)]
        columns.append(transform(o, pixels))
    return [transform(o, [column[i] for column in columns]) for i in range(len(columns[0]))]


def tile_transform(transform: Transform, size: int) -> Any:
    """Return the kernel that transforms a tile of size x size vectors, given two strides a side."""

    def emit(
        v: Vectors, x: Any, y: Any, x0: Any, x_row: Any, x_column: Any,
        y0: Any, y_row: Any, y_column: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        for i, row in enumerate(_both_ways(v, transform, size, v.at(x, x0), (x_row, x_column))):
            line = v.at(v.at(y, y0), b.mul(y_row, v.index(i)))
            for j, vector in enumerate(row):
                v.store(vector, v.at(line, b.mul(y_column, v.index(j))))

    return emitted(2, emit)


def _output_tile(
    v: Vectors, x: Any, bias: Any, y: Any, x0: Any, x_row: Any, x_column: Any, b0: Any,
    y0: Any, y_row: Any, y_column: Any, relu: Any,
) -> None:  # fmt: skip
    """Emit the transform to outputs, plus bias, not below 0 if ``relu``."""
    b = v.builder
    start = v.load(v.at(bias, b0))
    lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
    for i, row in enumerate(_both_ways(v, of_output, 6, v.at(x, x0), (x_row, x_column))):
        line = v.at(v.at(y, y0), b.mul(y_row, v.index(i)))
        for j, vector in enumerate(row):
            result = v.at_least(b.fadd(vector, start), lowest)
            v.store(result, v.at(line, b.mul(y_column, v.index(j))))


def _pooled_output_tile(
    v: Vectors, x: Any, bias: Any, y: Any, x0: Any, x_row: Any, x_column: Any, b0: Any,
    y0: Any, y_row: Any, y_column: Any, w0: Any, relu: Any,
) -> None:  # fmt: skip
    """Emit the same, and the maxima of 2 x 2 outputs; at y[w0], which pixel wins: see `POOL`."""
    b = v.builder
    start, relus = v.load(v.at(bias, b0)), b.icmp_signed("!=", relu, v.index(0))
    lowest = b.select(relus, v.zero, v.constant(float("-inf")))
    rows = [
        [v.at_least(b.fadd(vector, start), lowest) for vector in row]
        for row in _both_ways(v, of_output, 6, v.at(x, x0), (x_row, x_column))
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
        b, pointer = v.builder, ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        call = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        hints = [ir.Constant(I32, hint) for hint in (to_write, 2, 1)]
        b.call(call, [b.bitcast(v.at(x, x0), pointer), *hints])

    return emitted(1, emit)


input_tile = tile_transform(of_input, 6)
output_tile, pooled_output_tile = emitted(3, _output_tile), emitted(3, _pooled_output_tile)
unpool = emitted(3, _unpool)
prefetch_to_read, prefetch_to_write = _prefetch(0), _prefetch(1)
output_gradient_tile = tile_transform(of_output_gradient, 4)
weight_tile = tile_transform(of_weights, 3)
weight_gradient_tile = tile_transform(of_weight_gradient, 6)
