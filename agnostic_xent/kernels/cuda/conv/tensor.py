"""Gathered products of float32 on the tensor cores, by tiles that are copied with nobody waiting.

128 pixels x 64 columns, 16 rows at a time, through a ring of three stages in shared memory: while
one is multiplied, the copies of the next two are under way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.launching import Kernel
from ..toolchain.ptx import commit_async, copy_async, load, put, wait_async
from ..toolchain.teams import cuda, device
from .arithmetic import DEPTH, WAYS_OF, Arithmetic, tensor
from .gather import TABLE
from .pixels import is_inside, parameters_of, phase_of, place_of

THREADS = 128
PIXELS = 128
STAGES = 3
ROWS = 2 * DEPTH  # of a stage


def make_fetch(a: Arithmetic, by_tap: bool) -> Any:
    """Return the function that starts the copies of a tile: a pixel, and a thread's weights."""
    row_x, row_w = a.row_x, a.row_w

    @device
    def fetch(
        tile: Any, xs: Any, ws: Any, x: Any, matrix: Any, table: Any, first: Any, t: Any, base: Any,
        ih: Any, iw: Any, plane: Any, height: Any, width: Any, weights: Any, ld: Any,
    ) -> None:  # fmt: skip
        top = tile % STAGES * ROWS
        row = first + tile * ROWS
        if by_tap:
            offset, down, across, _ = load(table, row * TABLE, 4)
            valid = is_inside(ih, iw, down, across, height, width)
            place = base + offset if valid else np.int64(0)
            step = np.int64(plane) if valid else np.int64(0)
            for i in range(ROWS):
                copy_async(xs, (top + i) * row_x + t, x, place + i * step, 1, valid)
        else:
            for i in range(ROWS):
                offset, down, across, _ = load(table, (row + i) * TABLE, 4)
                valid = is_inside(ih, iw, down, across, height, width)
                place = base + offset if valid else np.int64(0)
                copy_async(xs, (top + i) * row_x + t, x, place, 1, valid)
        line = t // 16
        column = t % 16 * 4
        at = weights + (tile * ROWS + line) * np.int64(ld) + column
        copy_async(ws, (top + line) * row_w + column, matrix, at, 4, True)
        copy_async(ws, (top + 8 + line) * row_w + column, matrix, at + 8 * np.int64(ld), 4, True)

    return fetch


def make_staged(a: Arithmetic, by_tap: bool) -> Callable[..., None]:
    """Return the kernel of an arithmetic of the tensor cores and a kind of table."""
    x_size, w_size = STAGES * ROWS * a.row_x, STAGES * ROWS * a.row_w
    columns, count, multiply, write = a.columns, a.sums, a.multiply, a.write
    fetch = make_fetch(a, by_tap)

    def staged(
        x: Any, matrix: Any, table: Any, phases: Any, bias: Any, y: Any, rows: int, ld: int,
        phase_count: int, images: int, filters: int, flags: int, parts: int, part_rows: int,
        part_out: int, image_in: int, group_in: int,
        plane_in: int, height: int, width: int, step_h: int, step_w: int, image_out: int,
        group_out: int, plane_out: int, row_out: int, column_out: int,
    ) -> None:  # fmt: skip
        xs = cuda.shared.array(x_size, np.float32, alignment=16)
        ws = cuda.shared.array(w_size, np.float32, alignment=16)
        places = cuda.shared.array(PIXELS, np.int64)
        sums = cuda.local.array(count, np.float32)
        t = cuda.threadIdx.x
        n0 = np.int64(cuda.blockIdx.y) * columns
        group, part, first, depth, plane, line, start = phase_of(
            cuda.blockIdx.z, phases, phase_count, parts, part_rows
        )
        left = images * plane - np.int64(cuda.blockIdx.x) * PIXELS
        if left <= 0:
            return
        base, ih, iw, out = place_of(
            np.int64(cuda.blockIdx.x) * PIXELS + t, images * plane, plane, line,
            image_in, width, step_h, step_w, image_out, row_out, column_out,
        )  # fmt: skip
        base += group * group_in
        put(places, t, out + group * group_out + start + part * part_out)
        for i in range(count):
            sums[i] = np.float32(0)
        at = (group * rows + first) * ld + n0
        for tile in range(STAGES - 1):
            if tile * ROWS < depth:
                fetch(
                    tile, xs, ws, x, matrix, table, first, t, base, ih, iw, plane_in, height,
                    width, at, ld,
                )  # fmt: skip
            commit_async()
        for tile in range(max(0, depth) // ROWS):
            wait_async(1)
            cuda.syncthreads()
            if (tile + STAGES - 1) * ROWS < depth:
                fetch(
                    tile + STAGES - 1, xs, ws, x, matrix, table, first, t, base, ih, iw, plane_in,
                    height, width, at, ld,
                )  # fmt: skip
            commit_async()
            top = tile % STAGES * ROWS
            multiply(xs, ws, sums, top, t)
            multiply(xs, ws, sums, top + 8, t)
        write(y, bias, sums, places, t, n0, group * filters, left, filters, plane_out, flags)

    staged.__qualname__ = f"staged_{a.name}_{'by_tap' if by_tap else 'any'}"
    return staged


@functools.cache
def staged_kernel(a: Arithmetic, by_tap: bool) -> Kernel:
    """Return the kernel for an arithmetic and a kind of table, made once."""
    blocks = 3 if by_tap and a.name != "tf32x3" else 2  # so that no register is spilled
    return Kernel(make_staged(a, by_tap), parameters_of("f4"), THREADS, blocks)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    ways = [way for way in WAYS_OF["f4"] if way != "simt"]
    return [staged_kernel(tensor(way), by_tap) for way in ways for by_tap in (True, False)]
