"""Pools with step 2 from whole vectors: where the pixels of their windows lie, and go back to.

Output (i, j) has pixels (2i, 2j), (2i, 2j + 1), (2i + 1, 2j) and (2i + 1, 2j + 1): its corners. A
window of 2x2 is these four; one of 3x3 starts a pixel before them, so that it has five more, which
are corners of the outputs before. Four vectors of pixels become four of corners by shuffles, and
backward it is the other way round: pixels and outputs go through memory once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ..simd.vectors import Vectors, cgutils

Each = Callable[[Any, Any], None]
"""``each(outputs before, mask of those in the vector)``"""

Taps = Callable[[Any], list[Any]]
Read = Callable[[int, Any, Any], tuple[Any, ...]]
Near = dict[tuple[int, int], tuple[Any, ...]]

CORNERS = {
    2: (((0, (0, 0)),), ((1, (0, 0)),), ((2, (0, 0)),), ((3, (0, 0)),)),
    3: (
        ((4, (0, 0)),),
        ((5, (0, 0)), (3, (0, 1))),
        ((7, (0, 0)), (1, (1, 0))),
        ((8, (0, 0)), (6, (0, 1)), (2, (1, 0)), (0, (1, 1))),
    ),
}
"""By the size of a window, what tap each corner of (i, j) is of (i, j) and of outputs behind it."""


def distances(window: int) -> list[tuple[int, int]]:
    """Return how far the outputs that share corners are from (i, j), down and across."""
    return [(down, across) for down in range(window - 1) for across in range(window - 1)]


def _parted(v: Vectors, x: Any, y: Any) -> list[Any]:
    """Return the even and the odd lanes of two vectors."""
    return [v.shuffle(x, y, range(odd, 2 * v.lanes, 2)) for odd in (0, 1)]


def _joined(v: Vectors, even: Any, odd: Any) -> list[Any]:
    """Return the two vectors whose even and odd lanes these are: undo `_parted`."""
    half = v.lanes // 2
    starts = (0, half)
    return [
        v.shuffle(even, odd, [start + i // 2 + i % 2 * v.lanes for i in range(v.lanes)])
        for start in starts
    ]


class Rows:
    """Outputs of a vector are neighbours in a row, and their pixels in two lines."""

    def __init__(self, window: int):
        self.window = window

    def vectors(self, v: Vectors, columns: Any, each: Each) -> None:
        """Emit the loop over the vectors of a row."""
        b, lanes = v.builder, v.index(v.lanes)
        with cgutils.for_range(b, b.sdiv(b.add(columns, v.index(v.lanes - 1)), lanes)) as vector:
            done = b.mul(vector.index, lanes)
            each(done, v.first(b.sub(columns, done)))

    def _pixels(self, v: Vectors, columns: Any, done: Any) -> list[tuple[Any, Any]]:
        """Return where the two vectors of pixels of a line start, and their masks."""
        b, start = v.builder, v.builder.mul(done, v.index(2))
        starts = [start, b.add(start, v.index(v.lanes))]
        pixels = b.mul(columns, v.index(2))
        return [(start, v.first(b.sub(pixels, start))) for start in starts]

    def taps(self, v: Vectors, x: Any, pitch: Any, columns: Any, row: Any, fill: Any) -> Taps:
        """Return what emits the taps of the windows after so many ones of this row, in turn.

        Where there are no pixels, they are ``fill``.
        """
        b = v.builder
        lines = [(x, columns), (v.at(x, pitch), columns)]
        if self.window == 3:
            above = b.select(b.icmp_signed(">", row, v.index(0)), columns, v.index(0))
            lines.insert(0, (v.at(x, b.neg(pitch)), above))
        lefts = [cgutils.alloca_once_value(b, fill) for _ in lines]  # the odd pixels before

        def emit(done: Any) -> list[Any]:
            found = []
            for (line, inside), left in zip(lines, lefts, strict=True):
                pixels = self._pixels(v, inside, done)
                low, high = (v.load_masked(v.at(line, at), there, fill) for at, there in pixels)
                even, odd = _parted(v, low, high)
                if self.window == 3:
                    order = range(v.lanes - 1, 2 * v.lanes - 1)
                    found.append(v.shuffle(b.load(left), odd, order))
                    b.store(odd, left)
                found += [even, odd]
            return found

        return emit

    def first(self, v: Vectors, kind: Any, row: Any, done: Any) -> Any:
        """Return the numbers of the first taps that meet pixels, as a vector of bytes."""
        b, nothing = v.builder, ir.Constant(kind, [0] * v.lanes)
        if self.window == 2:
            return nothing
        line, pixel = ir.Constant(kind, [3] * v.lanes), ir.Constant(kind, [1] + [0] * (v.lanes - 1))
        top, left = (v.all_or_none(b.icmp_signed("==", n, v.index(0))) for n in (row, done))
        return b.add(b.select(top, line, nothing), b.select(left, pixel, nothing))

    def near(self, v: Vectors, read: Read, columns: Any, below: Any, done: Any) -> Near:
        """Return what is read of outputs and of those behind them: nothing where there are none.

        ``read(rows, outputs before, mask of those there)``; ``below`` is how many rows follow.
        """
        b, found = v.builder, {}
        for down, across in distances(self.window):
            inside = b.select(b.icmp_signed("<", below, v.index(down)), v.index(0), columns)
            start = b.add(done, v.index(across))
            found[down, across] = read(down, start, v.first(b.sub(inside, start)))
        return found

    def put(self, v: Vectors, corners: list[Any], x: Any, pitch: Any, columns: Any,
            done: Any) -> None:  # fmt: skip
        """Store the corners as pixels."""
        for line, pair in ((x, corners[:2]), (v.at(x, pitch), corners[2:])):
            pixels = self._pixels(v, columns, done)
            for vector, (start, there) in zip(_joined(v, *pair), pixels, strict=True):
                v.store_masked(vector, v.at(line, start), there)


class ShortRows:
    """Outputs of a vector are whole rows, and their pixels four vectors after each other.

    Windows of 3x3 need the whole image in them.
    """

    def __init__(self, window: int, columns: int):
        self.window, self.columns = window, columns

    def vectors(self, v: Vectors, columns: Any, each: Each) -> None:
        """Emit the only vector of what passes for a row: a whole one, but for the very last.

        Where LLVM sees that it is whole, no masks are left, which cost a quarter of the time.
        """
        with v.builder.if_else(v.builder.icmp_signed("==", columns, v.index(v.lanes))) as branches:
            for branch in branches:
                with branch:
                    each(v.index(0), v.first(columns))

    def _pixels(self, v: Vectors, columns: Any) -> list[tuple[Any, Any]]:
        """Return where the vectors of pixels start, and their masks."""
        pixels = v.builder.mul(columns, v.index(4))
        starts = range(0, 4 * v.lanes, v.lanes)
        return [(v.index(start), v.first(pixels, start)) for start in starts]

    def _moved(self, v: Vectors, x: Any, fill: Any, down: int, across: int) -> Any:
        """Return, in the place of each output, that of another one, ``fill`` where none is."""
        rows, order = v.lanes // self.columns, []
        for lane in range(v.lanes):
            i, j = lane // self.columns + down, lane % self.columns + across
            inside = 0 <= i < rows and 0 <= j < self.columns
            order.append(i * self.columns + j if inside else v.lanes)
        return v.shuffle(x, fill, order)

    def taps(self, v: Vectors, x: Any, pitch: Any, columns: Any, row: Any, fill: Any) -> Taps:
        """Return what emits the taps of the windows, ``fill`` where there are no pixels."""

        def emit(done: Any) -> list[Any]:
            pixels = self._pixels(v, columns)
            vectors = [v.load_masked(v.at(x, start), there, fill) for start, there in pixels]
            halves = _parted(v, *vectors[:2]), _parted(v, *vectors[2:])
            a, b, c, d = (
                v.shuffle(*pair, [k for k in range(2 * v.lanes) if k // self.columns % 2 == odd])
                for odd in (0, 1)
                for pair in zip(*halves, strict=True)
            )
            if self.window == 2:
                return [a, b, c, d]

            def before(vector: Any, down: int, across: int) -> Any:
                return self._moved(v, vector, fill, -down, -across)

            above = [before(d, 1, 1), before(c, 1, 0), before(d, 1, 0)]
            return [*above, before(b, 0, 1), a, b, before(d, 0, 1), c, d]

        return emit

    def first(self, v: Vectors, kind: Any, row: Any, done: Any) -> Any:
        """Return the numbers of the first taps that meet pixels."""
        numbers = [0] * v.lanes
        if self.window == 3:
            numbers = [3 * (k < self.columns) + (k % self.columns == 0) for k in range(v.lanes)]
        return ir.Constant(kind, numbers)

    def near(self, v: Vectors, read: Read, columns: Any, below: Any, done: Any) -> Near:
        """Return what is read of outputs and of those behind them."""
        here = read(0, done, v.first(columns))
        return {
            (down, across): tuple(
                self._moved(v, x, ir.Constant(x.type, None), down, across) for x in here
            )
            for down, across in distances(self.window)
        }

    def put(self, v: Vectors, corners: list[Any], x: Any, pitch: Any, columns: Any,
            done: Any) -> None:  # fmt: skip
        """Store the corners as pixels."""
        halves = []
        for upper, lower in (corners[::2], corners[1::2]):
            orders: list[list[int]] = [[], []]
            for k in range(2 * v.lanes):
                i, j = divmod(k, self.columns)
                orders[k // v.lanes].append(i // 2 * self.columns + j + i % 2 * v.lanes)
            halves.append([v.shuffle(upper, lower, order) for order in orders])
        vectors = [vector for pair in zip(*halves, strict=True) for vector in _joined(v, *pair)]
        for vector, (start, there) in zip(vectors, self._pixels(v, columns), strict=True):
            v.store_masked(vector, v.at(x, start), there)
