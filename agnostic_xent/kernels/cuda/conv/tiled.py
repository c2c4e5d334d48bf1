"""Gathered products by tiles of 128 or 256 pixels, eight rows at a time.

There are two tiles in shared memory. While the block multiplies one, its threads gather pixels into
the other: floats by copies that nobody waits for, halves through registers, where they are widened.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import (
    ahead,
    commit_async,
    copy_async,
    get,
    load,
    put,
    store,
    wait_async,
    widen,
)
from ..toolchain.teams import cuda, device
from .arithmetic import DEPTH, WAYS_OF, Arithmetic, simt, tensor
from .gather import TABLE
from .pixels import is_inside, parameters_of, phase_of, place_of

THREADS = 128


def make_copies(a: Arithmetic, by_tap: bool) -> Any:
    """Return the functions that start and finish the copies of a tile, with no register.

    A thread gathers the pixels that are THREADS apart, and as many weights as the others.
    """
    row_x, row_w, each, mine = a.row_x, a.row_w, a.columns // 16, a.pixels // THREADS

    @device
    def start(
        found: Any, xs: Any, ws: Any, now: Any, t: Any, x: Any, table: Any, row: Any, bases: Any,
        lines: Any, columns: Any, plane: Any, height: Any, width: Any, matrix: Any, at: Any,
    ) -> Any:  # fmt: skip
        if by_tap:
            offset, down, across, _ = load(table, row * TABLE, 4)
            for e in range(mine):
                valid = is_inside(lines[e], columns[e], down, across, height, width)
                first = ahead(x, bases[e] + offset)
                for i in range(DEPTH):
                    place = (now + i) * row_x + e * THREADS + t
                    copy_async(xs, place, first, np.int32(i * plane), 1, valid)
        else:
            for i in range(DEPTH):
                offset, down, across, _ = load(table, (row + i) * TABLE, 4)
                for e in range(mine):
                    valid = is_inside(lines[e], columns[e], down, across, height, width)
                    place = (now + i) * row_x + e * THREADS + t
                    copy_async(xs, place, ahead(x, bases[e]), offset, 1, valid)
        copy_async(ws, (now + t // 16) * row_w + t % 16 * each, matrix, at, each, True)
        commit_async()
        return 0

    @device
    def finish(found: Any, weights: Any, xs: Any, ws: Any, now: Any, t: Any) -> None:
        wait_async(0)

    return start, finish


def make_reads(a: Arithmetic, by_tap: bool) -> Any:
    """Return functions likewise that read a tile into registers, and write it from there."""
    row_x, row_w, each, mine = a.row_x, a.row_w, a.columns // 16, a.pixels // THREADS
    kind = a.kind

    @device
    def start(
        found: Any, xs: Any, ws: Any, now: Any, t: Any, x: Any, table: Any, row: Any, bases: Any,
        lines: Any, columns: Any, plane: Any, height: Any, width: Any, matrix: Any, at: Any,
    ) -> Any:  # fmt: skip
        if by_tap:
            offset, down, across, _ = load(table, row * TABLE, 4)
            for e in range(mine):
                valid = is_inside(lines[e], columns[e], down, across, height, width)
                first = ahead(x, bases[e] + offset)
                for i in range(DEPTH):
                    found[e * DEPTH + i] = kind(0)
                    if valid:
                        found[e * DEPTH + i] = widen(get(first, np.int32(i * plane)))
        else:
            for i in range(DEPTH):
                offset, down, across, _ = load(table, (row + i) * TABLE, 4)
                for e in range(mine):
                    found[e * DEPTH + i] = kind(0)
                    if is_inside(lines[e], columns[e], down, across, height, width):
                        found[e * DEPTH + i] = widen(get(ahead(x, bases[e]), offset))
        return load(matrix, at, each)

    @device
    def finish(found: Any, weights: Any, xs: Any, ws: Any, now: Any, t: Any) -> None:
        for e in range(mine):
            for i in range(DEPTH):
                put(xs, (now + i) * row_x + e * THREADS + t, found[e * DEPTH + i])
        store(ws, (now + t // 16) * row_w + t % 16 * each, weights)

    return start, finish


def make_summed(a: Arithmetic, by_tap: bool, copies: bool) -> Any:
    """Return the function that adds up the products of a block's pixels, tile by tile."""
    kind, multiply = a.kind, a.multiply
    held = 1 if copies else DEPTH * (a.pixels // THREADS)
    start, finish = (make_copies if copies else make_reads)(a, by_tap)

    @device
    def summed(
        sums: Any, xs: Any, ws: Any, t: Any, x: Any, table: Any, first: Any, depth: Any,
        bases: Any, lines: Any, columns: Any, plane: Any, height: Any, width: Any, matrix: Any,
        at: Any, ld: Any,
    ) -> None:  # fmt: skip
        found = cuda.local.array(held, kind)
        if depth > 0:
            weights = start(
                found, xs, ws, 0, t, x, table, first, bases, lines, columns, plane, height, width,
                matrix, at,
            )  # fmt: skip
            finish(found, weights, xs, ws, 0, t)
        cuda.syncthreads()
        now = 0
        for row in range(first + DEPTH, first + depth, DEPTH):
            at += DEPTH * np.int64(ld)
            weights = start(
                found, xs, ws, DEPTH - now, t, x, table, row, bases, lines, columns, plane, height,
                width, matrix, at,
            )  # fmt: skip
            multiply(xs, ws, sums, now, t)
            now = DEPTH - now
            finish(found, weights, xs, ws, now, t)
            cuda.syncthreads()
        if depth > 0:
            multiply(xs, ws, sums, now, t)

    return summed


def make_tiled(a: Arithmetic, by_tap: bool, copies: bool) -> Callable[..., None]:
    """Return the kernel of an arithmetic and a kind of table, which ``copies`` or else widens."""
    kind, count, pixels, columns, write = a.kind, a.sums, a.pixels, a.columns, a.write
    x_size, w_size, mine = 2 * DEPTH * a.row_x, 2 * DEPTH * a.row_w, pixels // THREADS
    each, summed = columns // 16, make_summed(a, by_tap, copies)

    def tiled(
        x: Any, matrix: Any, table: Any, phases: Any, bias: Any, y: Any, rows: int, ld: int,
        phase_count: int, images: int, filters: int, flags: int, parts: int, part_rows: int,
        part_out: int, image_in: int, group_in: int, plane_in: int, height: int, width: int,
        step_h: int, step_w: int, image_out: int, group_out: int, plane_out: int, row_out: int,
        column_out: int,
    ) -> None:  # fmt: skip
        xs = cuda.shared.array(x_size, kind, alignment=16)
        ws = cuda.shared.array(w_size, kind, alignment=16)
        places = cuda.shared.array(pixels, np.int64)
        sums = cuda.local.array(count, kind)
        bases = cuda.local.array(mine, np.int64)
        lines = cuda.local.array(mine, np.int32)
        beside = cuda.local.array(mine, np.int32)
        t = cuda.threadIdx.x
        n0 = np.int64(cuda.blockIdx.y) * columns
        group, part, first, depth, plane, line, begin = phase_of(
            cuda.blockIdx.z, phases, phase_count, parts, part_rows
        )
        p0 = np.int64(cuda.blockIdx.x) * pixels
        left = images * plane - p0
        if left <= 0:
            return
        for e in range(mine):
            base, ih, iw, out = place_of(
                p0 + e * THREADS + t, images * plane, plane, line,
                image_in, width, step_h, step_w, image_out, row_out, column_out,
            )  # fmt: skip
            bases[e], lines[e], beside[e] = base + group * group_in, np.int32(ih), np.int32(iw)
            put(places, e * THREADS + t, out + group * group_out + begin + part * part_out)
        for i in range(count):
            sums[i] = kind(0)
        at = (group * rows + first + t // 16) * ld + n0 + t % 16 * each
        summed(
            sums, xs, ws, t, x, table, first, depth, bases, lines, beside, plane_in, height, width,
            matrix, at, ld,
        )  # fmt: skip
        write(y, bias, sums, places, t, n0, group * filters, left, filters, plane_out, flags)

    tiled.__qualname__ = f"tiled_{a.name}_{'by_tap' if by_tap else 'any'}"
    return tiled


@functools.cache
def tiled_kernel(code: str, a: Arithmetic, by_tap: bool) -> Kernel:
    """Return the kernel for a dtype, an arithmetic and a kind of table, made once."""
    made = make_tiled(a, by_tap, copies=code in ("f4", "f8"))
    return Kernel(made, parameters_of(code), THREADS, 3)


def arithmetic_of(code: str, way: str, columns: int) -> Arithmetic:
    """Return what multiplies by so many columns, or more, elements of the dtype ``code``.

    Tiles of 64 columns multiply most for what they read. Fewer columns have more pixels, so that
    nothing is multiplied that is not there.
    """
    if columns > 32 and way == "rounded":
        return tensor(way)
    if code == "f8":
        return simt(WIDE[code], 8, 4)
    if columns > 32:
        return simt(WIDE[code], 8, 8)
    return simt(WIDE[code], 8, 8 if columns > 16 else 4, across=32)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [
        tiled_kernel(
            code, arithmetic_of(code, WAYS_OF[code][-1 if code != "f4" else 0], columns), by_tap
        )
        for code in WIDE
        for columns in (16, 32, 64)
        for by_tap in (True, False)
    ]
    return list(dict.fromkeys(made))
