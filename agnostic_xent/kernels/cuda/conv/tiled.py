"""Gathered products by tiles of 128 pixels that pass through registers.

Each of 128 threads gathers one pixel, eight rows at a time: the next tile into registers, while the
block multiplies the one that lies in shared memory, of which there are two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, load, put, store, widen
from ..toolchain.teams import cuda, device
from .arithmetic import DEPTH, Arithmetic, simt, tensor
from .gather import TABLE
from .pixels import is_inside, parameters_of, phase_of, place_of

THREADS = 128
PIXELS = 128  # of a tile


def make_gather(by_tap: bool, kind: Any) -> Any:
    """Return the function that reads a pixel's tile into registers, zeros outside of the image."""

    @device
    def gather(
        found: Any, x: Any, table: Any, row: Any, base: Any, ih: Any, iw: Any, plane: Any,
        height: Any, width: Any,
    ) -> None:  # fmt: skip
        if by_tap:
            offset, down, across, _ = load(table, row * TABLE, 4)
            start = base + offset
            inside = is_inside(ih, iw, down, across, height, width)
            for i in range(DEPTH):
                found[i] = kind(0)
                if inside:
                    found[i] = widen(get(x, start + i * np.int64(plane)))
        else:
            for i in range(DEPTH):
                offset, down, across, _ = load(table, (row + i) * TABLE, 4)
                found[i] = kind(0)
                if is_inside(ih, iw, down, across, height, width):
                    found[i] = widen(get(x, base + offset))

    return gather


def make_tiled(a: Arithmetic, by_tap: bool) -> Callable[..., None]:
    """Return the kernel of an arithmetic and a kind of table."""
    kind, row_x, row_w, count = a.kind, a.row_x, a.row_w, a.sums
    x_size, w_size, each = 2 * DEPTH * row_x, 2 * DEPTH * row_w, a.columns // 16
    columns, multiply, write, gather = a.columns, a.multiply, a.write, make_gather(by_tap, kind)

    def tiled(
        x: Any, matrix: Any, table: Any, phases: Any, bias: Any, y: Any, rows: int, ld: int,
        phase_count: int, images: int, filters: int, flags: int, image_in: int, group_in: int,
        plane_in: int, height: int, width: int, step_h: int, step_w: int, image_out: int,
        group_out: int, plane_out: int, row_out: int, column_out: int,
    ) -> None:  # fmt: skip
        xs = cuda.shared.array(x_size, kind, alignment=16)
        ws = cuda.shared.array(w_size, kind, alignment=16)
        places = cuda.shared.array(PIXELS, np.int64)
        sums = cuda.local.array(count, kind)
        found = cuda.local.array(DEPTH, kind)
        t = cuda.threadIdx.x
        n0 = np.int64(cuda.blockIdx.y) * columns
        group, first, depth, plane, line, start = phase_of(cuda.blockIdx.z, phases, phase_count)
        left = images * plane - np.int64(cuda.blockIdx.x) * PIXELS
        if left <= 0:
            return
        base, ih, iw, out = place_of(
            np.int64(cuda.blockIdx.x) * PIXELS + t, images * plane, plane, line,
            image_in, width, step_h, step_w, image_out, row_out, column_out,
        )  # fmt: skip
        base += group * group_in
        put(places, t, out + group * group_out + start)
        for i in range(count):
            sums[i] = kind(0)
        at = (group * rows + first + t // 16) * ld + n0 + t % 16 * each
        weights = load(matrix, at, each)
        gather(found, x, table, first, base, ih, iw, plane_in, height, width)
        for tile in range(depth // DEPTH):
            now = (tile & 1) * DEPTH
            for i in range(DEPTH):
                put(xs, (now + i) * row_x + t, found[i])
            store(ws, (now + t // 16) * row_w + t % 16 * each, weights)
            cuda.syncthreads()
            if (tile + 1) * DEPTH < depth:
                at += DEPTH * np.int64(ld)
                weights = load(matrix, at, each)
                row = first + (tile + 1) * DEPTH
                gather(found, x, table, row, base, ih, iw, plane_in, height, width)
            multiply(xs, ws, sums, now, t)
        write(y, bias, sums, places, t, n0, group * filters, left, filters, plane_out, flags)

    tiled.__qualname__ = f"tiled_{a.name}_{'by_tap' if by_tap else 'any'}"
    return tiled


@functools.cache
def tiled_kernel(code: str, a: Arithmetic, by_tap: bool) -> Kernel:
    """Return the kernel for a dtype, an arithmetic and a kind of table, made once."""
    return Kernel(make_tiled(a, by_tap), parameters_of(code), THREADS, 3)


def arithmetics(code: str) -> list[Arithmetic]:
    """Return the arithmetics by which these kernels multiply elements of the dtype ``code``."""
    if code == "f8":
        return [simt(WIDE[code], 8, 4)]
    plain = [simt(WIDE[code], 8, 8), simt(WIDE[code], 8, 4)]
    return plain if code == "f4" else [*plain, tensor("rounded")]


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [
        tiled_kernel(code, a, by_tap)
        for code in WIDE
        for a in arithmetics(code)
        for by_tap in (True, False)
    ]
