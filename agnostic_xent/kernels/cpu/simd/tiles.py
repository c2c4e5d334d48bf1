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
        with cgutils.for_range(b, depth) as loop:
            tap = v.at(x, b.load(v.at(offsets, loop.index)))
            image = [v.load(v.at(tap, j * v.lanes)) for j in range(vectors)]
            weights = v.at(w, b.mul(loop.index, v.index(filters)))
            for f in range(filters):
                weight = v.splat(b.load(v.at(weights, f)))
                for j in range(vectors):
                    b.store(v.fma(weight, image[j], b.load(sums[f][j])), sums[f][j])
        lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
        masks = [v.first(b.sub(pixels, v.index(j * v.lanes))) for j in range(vectors)]
        for f in range(filters):
            with b.if_then(b.icmp_signed(">", rows, v.index(f))):
                row = v.at(y, b.mul(y_stride, v.index(f)))
                for j in range(vectors):
                    result = v.at_least(b.load(sums[f][j]), lowest)
                    v.store_masked(result, v.at(row, j * v.lanes), masks[j])

    return emitted(5, emit)


def _product(
    v: Vectors, x: Any, offsets: Any, g: Any, total: Any,
    x0: Any, o0: Any, g0: Any, g_stride: Any, rows: Any, pixels: Any, t0: Any,
) -> None:  # fmt: skip
    """Emit ``total[f, r] += sum_p g[f, p] x[offsets[r] + p]`` for a tile of filters x taps."""
    b, filters = v.builder, v.lanes // TAPS
    sums = registers(v, filters, TAPS)
    for f in range(filters):
        for t in range(TAPS):
            b.store(v.zero, sums[f][t])
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

    whole = b.sdiv(pixels, v.index(v.lanes))
    with cgutils.for_range(b, whole) as loop:
        step(v.load, b.mul(loop.index, v.index(v.lanes)))
    done = b.mul(whole, v.index(v.lanes))
    with b.if_then(b.icmp_signed("<", done, pixels)):
        mask = v.first(b.sub(pixels, done))
        step(lambda pointer: v.load_masked(pointer, mask), done)
    tile = v.at(total, t0)
    flat = [b.load(slot) for row in sums for slot in row]
    v.store(b.fadd(v.load(tile), v.sums(flat)), tile)


product_tile = emitted(4, _product)


def matrix_tile(rows: int, vectors: int, transposed: bool = False) -> Any:
    """Return the kernel ``c[i, j] (+)= sum_k a[i, k] b[k, j]`` for rows x vectors of c.

    All three have row strides; ``transposed``: a lies as (k, i). ``add``: start from c, not from 0.
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
        with build.if_else(build.icmp_signed("!=", add, v.index(0))) as (more, fresh):
            with more:
                for slot, place in zip(flat, places, strict=True):
                    build.store(v.load(place), slot)
            with fresh:
                for slot in flat:
                    build.store(v.zero, slot)
        starts = [
            a if transposed else v.at(a, build.mul(a_stride, v.index(i))) for i in range(rows)
        ]
        with cgutils.for_range(build, depth) as loop:
            line = v.at(b, build.mul(loop.index, b_stride))
            right = [v.load(v.at(line, j * v.lanes)) for j in range(vectors)]
            along = build.mul(loop.index, a_stride) if transposed else loop.index
            for i in range(rows):
                left = v.at(v.at(starts[i], along), i if transposed else 0)
                factor = v.splat(build.load(left))
                for j in range(vectors):
                    total = v.fma(factor, right[j], build.load(sums[i][j]))
                    build.store(total, sums[i][j])
        for slot, place in zip(flat, places, strict=True):
            v.store(build.load(slot), place)

    return emitted(3, emit)
