"""The inner loops of convolution, on tiles of sums that stay in registers.

In direct convolution lanes are neighbouring pixels of an output row, so images are read and written
as they lie. A tap is a place in the packed image (see ``lines.py``); its offset comes from a
table, which makes every stride, dilation and window the same loop. Winograd convolution multiplies
plain matrices; its lanes are filters.

Register budget (32 registers of 16 lanes with AVX-512, 16 of 8 lanes with AVX2): a tile of 8
filters x 2 vectors of pixels has 16 sums, 2 vectors of pixels and 1 weight, which comes from memory
within the multiplication; the 6 x 4 tile of matrices has 24, 4 and 1.
"""

from __future__ import annotations

from typing import Any

from .vectors import Vectors, cgutils, emitted

TAPS = 4
"""Taps of a tile of the weight gradient; it has lanes / 4 filters, so as many sums as lanes."""

BLOCK = 128
"""Products that are added up in registers, one after the other.

The error of such a sum grows with the number of products, so longer sums are sums of blocks.
"""

BLOCKS = 16
"""Blocks that are added up in the type of the numbers, before they are added in float64."""

DEEP = 256
"""The products of a block where it is added to the result in memory."""


def registers(v: Vectors, rows: int, columns: int) -> list[list[Any]]:
    """Return rows x columns stack slots for vectors, which LLVM turns into registers."""
    return [[cgutils.alloca_once(v.builder, v.type) for _ in range(columns)] for _ in range(rows)]


def correlation_tile(filters: int, vectors: int) -> Any:
    """Return the kernel ``y[f, p] = max(b[f] + sum_r w[r, f] x[offsets[r] + p], 0 if relu)``.

    For a tile of so many filters x vectors of pixels, of which the first ``rows`` and ``pixels``
    are written. Weights lie as (taps, filters).
    """

    def emit(
        v: Vectors, x: Any, offsets: Any, w: Any, bias: Any, y: Any,
        x0: Any, o0: Any, w0: Any, depth: Any, b0: Any, y0: Any, y_stride: Any,
        rows: Any, pixels: Any, relu: Any,
    ) -> None:  # fmt: skip
        b = v.builder
        sums = registers(v, filters, vectors)
        for f in range(filters):
            start = v.splat(b.load(v.at(v.at(bias, b0), f)))
            for j in range(vectors):
                b.store(start, sums[f][j])
        x, offsets, w, y = v.at(x, x0), v.at(offsets, o0), v.at(w, w0), v.at(y, y0)

        def step(r: Any) -> None:
            tap = v.at(x, b.load(v.at(offsets, r)))
            image = [v.load(v.at(tap, j * v.lanes)) for j in range(vectors)]
            weights = v.at(w, b.mul(r, v.index(filters)))
            for f in range(filters):
                weight = v.splat(b.load(v.at(weights, f)))
                for j in range(vectors):
                    b.store(v.fma(weight, image[j], b.load(sums[f][j])), sums[f][j])

        in_blocks(v, depth, step, sums)
        lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
        masks = [v.first(b.sub(pixels, v.index(j * v.lanes))) for j in range(vectors)]
        for f in range(filters):
            with b.if_then(b.icmp_signed(">", rows, v.index(f))):
                row = v.at(y, b.mul(y_stride, v.index(f)))
                for j in range(vectors):
                    result = v.at_least(b.load(sums[f][j]), lowest)
                    v.store_masked(result, v.at(row, j * v.lanes), masks[j])

    return emitted(5, emit)


def in_blocks(v: Vectors, depth: Any, step: Any, sums: Any) -> None:
    """Emit ``step(r)`` for r < depth, which adds to ``sums``: in blocks, if there are several.

    The error does not grow with their number.
    """
    b, flat = v.builder, [slot for row in sums for slot in row]
    before = b.sdiv(b.sub(depth, v.index(1)), v.index(BLOCK))  # whole blocks before the last one
    with b.if_else(b.icmp_signed(">", before, v.index(0))) as (several, one):
        with several:
            _several_blocks(v, before, depth, step, flat)
        with one, cgutils.for_range(b, depth) as loop:
            step(loop.index)


def _several_blocks(v: Vectors, before: Any, depth: Any, step: Any, sums: list[Any]) -> None:
    b, wide = v.builder, v.doubles()
    (totals,), (grand,) = registers(v, 1, len(sums)), registers(wide, 1, len(sums))
    many = b.icmp_signed(">=", before, v.index(BLOCKS))
    for total in totals:
        b.store(v.zero, total)
    with b.if_then(many):
        for total in grand:
            b.store(wide.zero, total)

    def add_up(parts: list[Any], to: list[Any], widened: bool = False) -> None:
        for part, total in zip(parts, to, strict=True):
            more = v.widened(b.load(part)) if widened else b.load(part)
            b.store(b.fadd(b.load(total), more), total)
            b.store(v.zero, part)

    with cgutils.for_range(b, before) as block:
        start = b.mul(block.index, v.index(BLOCK))
        with cgutils.for_range(b, v.index(BLOCK)) as loop:
            step(b.add(start, loop.index))
        add_up(sums, totals)
        place = b.srem(block.index, v.index(BLOCKS))
        with b.if_then(b.icmp_signed("==", place, v.index(BLOCKS - 1))):
            add_up(totals, grand, widened=True)
    done = b.mul(before, v.index(BLOCK))
    with cgutils.for_range(b, b.sub(depth, done)) as loop:
        step(b.add(done, loop.index))
    for some, total in zip(sums, totals, strict=True):
        b.store(b.fadd(b.load(total), b.load(some)), some)
    with b.if_then(many):
        for some, total in zip(sums, grand, strict=True):
            b.store(v.narrowed(b.fadd(b.load(total), v.widened(b.load(some)))), some)


def _product(
    v: Vectors, x: Any, offsets: Any, g: Any, total: Any,
    x0: Any, o0: Any, g0: Any, g_stride: Any, rows: Any, pixels: Any, t0: Any,
) -> None:  # fmt: skip
    """Emit ``total[f, r] += sum_p g[f, p] x[offsets[r] + p]`` for a tile of filters x taps."""
    b, filters = v.builder, v.lanes // TAPS
    sums = registers(v, filters, TAPS)
    flat, tile = [slot for row in sums for slot in row], v.at(total, t0)
    for slot in flat:
        b.store(v.zero, slot)
    x, g, last = v.at(x, x0), v.at(g, g0), b.sub(rows, v.index(1))
    taps = [v.at(x, b.load(v.at(v.at(offsets, o0), t))) for t in range(TAPS)]
    lines = []
    for f in range(filters):  # behind the last filter there is none to read: it stands in
        line = b.select(b.icmp_signed("<", last, v.index(f)), last, v.index(f))
        lines.append(v.at(g, b.mul(line, g_stride)))

    def step(load: Any, p: Any) -> None:
        cotangents = [load(v.at(line, p)) for line in lines]
        for t in range(TAPS):
            image = load(v.at(taps[t], p))
            for f in range(filters):
                b.store(v.fma(cotangents[f], image, b.load(sums[f][t])), sums[f][t])

    def add_up() -> None:
        found = v.sums([b.load(slot) for slot in flat])
        v.store(b.fadd(v.load(tile), found), tile)

    whole = b.sdiv(pixels, v.index(v.lanes))
    before = b.sdiv(whole, v.index(BLOCK))
    with cgutils.for_range(b, before) as block:
        start = b.mul(block.index, v.index(BLOCK * v.lanes))
        with cgutils.for_range(b, v.index(BLOCK)) as loop:
            step(v.load, b.add(start, b.mul(loop.index, v.index(v.lanes))))
        add_up()
        for slot in flat:
            b.store(v.zero, slot)
    start = b.mul(before, v.index(BLOCK))
    with cgutils.for_range(b, b.sub(whole, start)) as loop:
        step(v.load, b.mul(b.add(start, loop.index), v.index(v.lanes)))
    done = b.mul(whole, v.index(v.lanes))
    with b.if_then(b.icmp_signed("<", done, pixels)):
        mask = v.first(b.sub(pixels, done))
        step(lambda pointer: v.load_masked(pointer, mask), done)
    add_up()


product_tile = emitted(4, _product)


def matrix_tile(rows: int, vectors: int, transposed: bool = False) -> Any:
    """Return the kernel ``c[i, j] (+)= sum_k a[i, k] b[k, j]`` for rows x vectors of c.

    All three have row strides; ``transposed``: a lies as (k, i). ``add``: add to c. Each ``DEEP``
    products are added up first, and then to c.
    """

    def emit(
        v: Vectors, a: Any, b: Any, c: Any,
        a0: Any, a_stride: Any, b0: Any, b_stride: Any, c0: Any, c_stride: Any,
        depth: Any, add: Any,
    ) -> None:  # fmt: skip
        build = v.builder
        sums = registers(v, rows, vectors)
        a, b, c = v.at(a, a0), v.at(b, b0), v.at(c, c0)
        places = [
            v.at(c, build.add(build.mul(c_stride, v.index(i)), v.index(j * v.lanes)))
            for i in range(rows)
            for j in range(vectors)
        ]
        flat = [slot for row in sums for slot in row]
        starts = [
            a if transposed else v.at(a, build.mul(a_stride, v.index(i))) for i in range(rows)
        ]

        def step(k: Any) -> None:
            line = v.at(b, build.mul(k, b_stride))
            right = [v.load(v.at(line, j * v.lanes)) for j in range(vectors)]
            along = build.mul(k, a_stride) if transposed else k
            for i in range(rows):
                left = v.at(v.at(starts[i], along), i if transposed else 0)
                factor = v.splat(build.load(left))
                for j in range(vectors):
                    total = v.fma(factor, right[j], build.load(sums[i][j]))
                    build.store(total, sums[i][j])

        blocks = build.sdiv(build.add(depth, v.index(DEEP - 1)), v.index(DEEP))
        with cgutils.for_range(build, blocks) as block:
            start = build.mul(block.index, v.index(DEEP))
            rest = build.sub(depth, start)
            deep = build.icmp_signed("<", rest, v.index(DEEP))
            for slot in flat:
                build.store(v.zero, slot)
            with cgutils.for_range(build, build.select(deep, rest, v.index(DEEP))) as loop:
                step(build.add(start, loop.index))
            first = build.icmp_signed("==", build.or_(add, block.index), v.index(0))
            with build.if_else(first) as (fresh, more):
                with fresh:
                    for slot, place in zip(flat, places, strict=True):
                        v.store(build.load(slot), place)
                with more:
                    for slot, place in zip(flat, places, strict=True):
                        v.store(build.fadd(v.load(place), build.load(slot)), place)

    return emitted(3, emit)


def gathered_tile(rows: int, vectors: int) -> Any:
    """Return the kernel ``c[i, j] = max(start + sum_r x[places[i] + steps[r]] b[r, j], lowest)``.

    For rows x vectors of c, of which b and c are whole rows. Behind the last of ``count`` places
    that one is taken again. ``start`` is the bias of j where the sum begins (``first``), else c;
    lowest is 0 if ``relu``, else -inf.
    """

    def emit(
        v: Vectors, x: Any, places: Any, steps: Any, b: Any, bias: Any, c: Any,
        x0: Any, p0: Any, r0: Any, b0: Any, bias0: Any, c0: Any, count: Any, depth: Any,
        first: Any, relu: Any,
    ) -> None:  # fmt: skip
        build, wide = v.builder, vectors * v.lanes
        sums = registers(v, rows, vectors)
        for slot in (slot for row in sums for slot in row):
            build.store(v.zero, slot)
        x, places, steps = v.at(x, x0), v.at(places, p0), v.at(steps, r0)
        b, bias, c = v.at(b, b0), v.at(bias, bias0), v.at(c, c0)
        starts, last = [], build.sub(count, v.index(1))
        for i in range(rows):
            place = build.select(build.icmp_signed("<", last, v.index(i)), last, v.index(i))
            starts.append(v.at(x, build.load(v.at(places, place))))
        with cgutils.for_range(build, depth) as loop:
            step = build.load(v.at(steps, loop.index))
            line = v.at(b, build.mul(loop.index, v.index(wide)))
            right = [v.load(v.at(line, j * v.lanes)) for j in range(vectors)]
            for start, row in zip(starts, sums, strict=True):
                factor = v.splat(build.load(v.at(start, step)))
                for vector, slot in zip(right, row, strict=True):
                    build.store(v.fma(factor, vector, build.load(slot)), slot)
        is_first = build.icmp_signed("!=", first, v.index(0))
        lowest = build.select(
            build.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf"))
        )
        for i, row in enumerate(sums):
            for j, slot in enumerate(row):
                place = v.at(c, i * wide + j * v.lanes)
                before = build.select(is_first, v.at(bias, j * v.lanes), place)
                total = build.fadd(v.load(before), build.load(slot))
                v.store(v.at_least(total, lowest), place)

    return emitted(6, emit)
