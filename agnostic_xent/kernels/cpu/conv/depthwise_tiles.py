"""The inner loops of depthwise convolution: rows of one vector of outputs, in registers.

Lanes are neighbouring outputs of a row. Pixels are read where they lie: a row that is loaded meets
up to `STRIP` rows of the window, and masks and a line of zeros stand for what is around an image.

Register budget: 16 sums (or rows of cotangents), 3 weights (or sums) and 3 rows of pixels; 8 with
AVX2, which has half as many registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from ..simd.tiles import registers
from ..simd.vectors import VECTOR_BYTES, Vectors, cgutils, emitted, emitted_by_class

ROWS = 16 if VECTOR_BYTES == 64 else 8
"""Rows of outputs of a tile, at most."""

STRIP = 3
"""Rows of the window that meet a row of pixels at once, at most."""


class Planes(NamedTuple):
    """Sizes of planes (of an image and a channel) that are read; all are integers."""

    images: int
    channels: int
    height: int
    width: int
    row_step: int
    """Rows of pixels from a row of a tile to the next."""
    column_step: int
    """Pixels from an output to the next."""
    column_start: int
    """The column of the image that the first output meets first, outside perhaps."""


class Near(Planes):
    """A tap meets neighbouring pixels: the column step is 1."""

    __slots__ = ()
    STEP = 1


class Far(Planes):
    """A tap meets every other pixel."""

    __slots__ = ()
    STEP = 2


PLANES: tuple[Any, ...] = (Near, Far)


def _masks(v: Vectors, table: Any, number: Any, count: int) -> list[Any]:
    """Return ``count`` masks, the words of a table whose rows are of two."""
    b = v.builder
    first = v.at(table, b.mul(number, v.index(2)))
    words = [b.load(v.at(first, i)) for i in range(count)]
    return [b.bitcast(b.trunc(word, ir.IntType(v.lanes)), v.mask_type) for word in words]


class Image:
    """Rows of pixels for a tile: ``apart`` rows from one to the next."""

    def __init__(
        self, v: Vectors, step: int, x: Any, zeros: Any, height: Any, width: Any, row: Any,
        apart: Any, column: Any,
    ):  # fmt: skip
        self.v, self.step, self.x, self.zeros, self.height = v, step, x, zeros, height
        self.width, self.row, self.apart, self.column = width, row, apart, column

    def rows(self, down: Any, across: Any, masks: Any, number: Any) -> Callable[[], Any]:
        """Return what loads one row after the other, from so far down and across on.

        Rows outside the image are zeros, as are pixels outside the masks of that ``number``.
        """
        v, b = self.v, self.v.builder
        there = _masks(v, masks, number, self.step)
        row = b.add(self.row, down)
        place = b.add(b.mul(row, self.width), b.add(self.column, across))
        following = [row, v.at(self.x, place)]
        step = b.mul(self.apart, self.width)

        def load() -> Any:
            row, place = following
            following[:] = b.add(row, self.apart), v.at(place, step)
            inside = b.icmp_unsigned("<", row, self.height)
            place = b.select(inside, place, self.zeros)
            parts = [v.load_masked(v.at(place, i * v.lanes), m) for i, m in enumerate(there)]
            every = [lane * self.step for lane in range(v.lanes)]
            return v.shuffle(parts[0], parts[-1], every)

        return load


def _each_strip(
    v: Vectors, chunks: Any, count: Any, columns: Any, strip: Callable[[int, Any, Any, Any], None]
) -> None:
    """Emit ``strip(height, down, column, number)`` for all strips of a window, column by column.

    A strip is up to `STRIP` rows of the window that meet successive rows of pixels, the first of
    which is ``down`` rows below that of the window; ``number`` is how many taps were before.
    """
    b, number = v.builder, cgutils.alloca_once(v.builder, v.index(0).type)
    b.store(v.index(0), number)
    with cgutils.for_range(b, count) as loop:
        chunk = v.at(chunks, b.mul(loop.index, v.index(2)))
        down, height = b.load(chunk), b.load(v.at(chunk, 1))
        for h in range(1, STRIP + 1):
            with (
                b.if_then(b.icmp_signed("==", height, v.index(h))),
                cgutils.for_range(b, columns) as each,
            ):
                strip(h, down, each.index, b.load(number))
                b.store(b.add(b.load(number), v.index(h)), number)


def _each_row(v: Vectors, rows: Any, row: Callable[[int], None], every: int = 1) -> None:
    """Emit ``row(t)`` for t < rows, which are one at least, or up to a multiple of ``every``."""
    b = v.builder
    behind = b.append_basic_block("behind")
    for t in range(ROWS):
        if t and t % every == 0:
            more = b.append_basic_block("row")
            b.cbranch(b.icmp_signed(">", rows, v.index(t)), more, behind)
            b.position_at_end(more)
        row(t)
    b.branch(behind)
    b.position_at_end(behind)


def _correlation(p: Any) -> Any:
    """Return the kernel ``y[i, j] = max(b + sum_uv w[u, v] x[i + u, j + v], 0 if relu)``.

    ``offsets`` has the columns of the window, ``chunks`` its rows, w its taps in the order of
    `_each_strip`. If rows are to be merged with others, they go to ``space``, whole vectors.
    """

    def emit(
        v: Vectors, x: Any, zeros: Any, offsets: Any, masks: Any, chunks: Any, w: Any, bias: Any,
        y: Any, space: Any, x0: Any, height: Any, width: Any, row: Any, apart: Any, column: Any,
        o0: Any, columns: Any, m0: Any, c0: Any, count: Any, w0: Any, b0: Any, y0: Any,
        y_step: Any, rows: Any, present: Any, relu: Any, s0: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        image = Image(v, p.STEP, v.at(x, x0), zeros, height, width, row, apart, column)
        (sums,) = registers(v, 1, ROWS)
        start = v.splat(b.load(v.at(bias, b0)))
        for slot in sums:
            b.store(start, slot)
        weights, offsets = v.at(w, w0), v.at(offsets, o0)
        chunks = v.at(chunks, b.mul(c0, v.index(2)))

        def strip(height: int, down: Any, across: Any, number: Any) -> None:
            taps = v.at(weights, number)
            factors = [v.splat(b.load(v.at(taps, u))) for u in range(height)]
            load = image.rows(down, b.load(v.at(offsets, across)), masks, b.add(m0, across))
            found = [load() for _ in range(height - 1)]

            def add(t: int) -> None:
                found.append(load())
                total = b.load(sums[t])
                for factor, pixels in zip(factors, found[t:], strict=True):
                    total = v.fma(factor, pixels, total)
                b.store(total, sums[t])

            _each_row(v, rows, add, every=2)

        _each_strip(v, chunks, count, columns, strip)
        with b.if_else(b.icmp_signed("<", s0, v.index(0))) as (finished, merged):
            with finished:
                low = v.constant(float("-inf"))
                low = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, low)
                (there,) = _masks(v, masks, present, 1)
                places = v.places(v.at(y, y0), y_step, ROWS)

                def put(t: int) -> None:
                    v.store_masked(v.at_least(b.load(sums[t]), low), places[t], there)

                _each_row(v, rows, put)
            with merged:
                for slot, place in zip(sums, v.places(v.at(space, s0), v.lanes, ROWS), strict=True):
                    v.store(b.load(slot), place)

    return emit


def _merge(
    v: Vectors, space: Any, y: Any, s0: Any, y0: Any, y_step: Any, width: Any, start: Any, rows: Any
) -> None:
    """Emit what merges two tiles, of even and odd places from column ``start`` on."""
    b, tile = v.builder, v.at(space, s0)
    starts = [start, b.add(start, v.index(v.lanes))]
    masks = [b.and_(b.not_(v.first(b.neg(s))), v.first(b.sub(width, s))) for s in starts]
    places = [v.at(y, b.add(y0, s)) for s in starts]
    orders = [
        [half * v.lanes // 2 + j // 2 + j % 2 * v.lanes for j in range(v.lanes)]
        for half in range(2)
    ]
    with cgutils.for_range(b, rows) as loop:
        even = v.at(tile, b.mul(loop.index, v.index(v.lanes)))
        both = v.load(even), v.load(v.at(even, ROWS * v.lanes))
        away = b.mul(loop.index, y_step)
        for order, place, mask in zip(orders, places, masks, strict=True):
            v.store_masked(v.shuffle(*both, order), v.at(place, away), mask)


def _product(p: Any) -> Any:
    """Return the kernel ``sums[u, v] += sum_ij dy[i, j] x[i + u, j + v]``, a vector for each tap.

    The taps are in the order of `_each_strip`. Lanes behind the last output count nowhere, even if
    x is NaN there.
    """

    def emit(
        v: Vectors, x: Any, zeros: Any, offsets: Any, masks: Any, chunks: Any, dy: Any, sums: Any,
        x0: Any, height: Any, width: Any, row: Any, apart: Any, column: Any, columns: Any, m0: Any,
        count: Any, g0: Any, g_step: Any, rows: Any, present: Any, s0: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        image = Image(v, p.STEP, v.at(x, x0), zeros, height, width, row, apart, column)
        (cotangents,) = registers(v, 1, ROWS)
        (there,) = _masks(v, masks, present, 1)
        places, sums = v.places(v.at(dy, g0), g_step, ROWS), v.at(sums, s0)
        _each_row(v, rows, lambda t: b.store(v.load_masked(places[t], there), cotangents[t]))

        def strip(height: int, down: Any, across: Any, number: Any) -> None:
            load = image.rows(down, b.load(v.at(offsets, across)), masks, b.add(m0, across))
            found = [load() for _ in range(height - 1)]
            (totals,) = registers(v, 1, height)
            for slot in totals:
                b.store(v.zero, slot)

            def multiply(t: int) -> None:
                found.append(load())
                factor = b.load(cotangents[t])
                for slot, pixels in zip(totals, found[t:], strict=True):
                    b.store(v.fma(factor, pixels, b.load(slot)), slot)

            _each_row(v, rows, multiply)
            for u, slot in enumerate(totals):
                place = v.at(sums, b.mul(b.add(number, v.index(u)), v.index(v.lanes)))
                v.store(b.fadd(v.load(place), b.load(slot)), place)

        _each_strip(v, chunks, count, columns, strip)

    return emit


def _add_across(v: Vectors, sums: Any, totals: Any, s0: Any, t0: Any, taps: Any) -> None:
    """Emit the addition of the sum of each tap's vector to ``totals``, and clear the vector."""
    b, wide = v.builder, v.doubles()
    with cgutils.for_range(b, taps) as loop:
        place = v.at(sums, b.add(s0, b.mul(loop.index, v.index(v.lanes))))
        found, width = v.widened(v.load(place)), v.lanes // 2
        v.store(v.zero, place)
        while width:
            other = wide.shuffle(found, found, [j ^ width for j in range(v.lanes)])
            found, width = b.fadd(found, other), width // 2
        total = v.at(totals, b.add(t0, loop.index))
        b.store(b.fadd(b.load(total), b.extract_element(found, v.index(0))), total)


def _by_class(arrays: int, make: Callable[[Any], Any]) -> Any:
    """Return the function for compiled code, of planes, so many arrays and integers."""
    return emitted_by_class(arrays, {cls: make(cls) for cls in PLANES})


correlation, products = _by_class(9, _correlation), _by_class(7, _product)
merge, add_across = emitted(2, _merge), emitted(2, _add_across)
