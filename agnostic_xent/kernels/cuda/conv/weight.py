"""The weight gradient: ``dw[k, j] = sum_pixel dy[k, pixel] * x[place(pixel) + offset[j]]``.

The pixels are shared out in parts whose number the problem decides; each block writes the sum of
its part, and a second kernel adds the parts in their order, so that the same bits come out each
time. A depthwise convolution has a kernel of its own, which needs no matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import WIDE, code_of, of_wide, stored
from ..toolchain.launching import I4, I8, Kernel, codes_of
from ..toolchain.ptx import get, load, narrow, put, tf32, widen
from ..toolchain.teams import cuda, device, team_sum
from .arithmetic import DEPTH, WAYS_OF, Arithmetic, simt, tensor
from .gather import TABLE, Geometry, forward
from .pixels import is_inside, place_of

THREADS = 128
BLOCKS = 384
"""Blocks that are about as many as a large GPU has room for at once, three a multiprocessor: a few
more than that would run alone, after all others."""

LEAST = 256  # pixels of a part, so that few sums are written

FEW = 8  # rows that a block of the depthwise kernel makes


class Parts(NamedTuple):
    """The pixels of a weight gradient, how they are shared out, and those of `Places` it takes."""

    images: I4
    plane: I4
    """Pixels of an output."""
    columns: I4
    """Of an output."""
    rows: I4
    """Of the table."""
    filters: I4
    """Of a group."""
    part: I4
    """Pixels of a part."""
    image_in: I8
    group_in: I8
    height: I4
    width: I4
    step_h: I4
    step_w: I4
    image_out: I8
    group_out: I8


def parameters_of(code: str) -> str:
    """Return the types of the parameters of a weight gradient of images of the dtype ``code``.

    x, dy, table, sums; parts.
    """
    return f"{code}* {code}* i4* {of_wide(code)}* {codes_of(Parts)}"


def make_read(a: Arithmetic, rounds: bool) -> Any:
    """Return the function that reads a pixel's rows and its cotangents into registers."""
    kind, mine, mine_n = a.kind, a.pixels // 16, a.columns // 16

    @device
    def read(
        of_x: Any, of_dy: Any, x: Any, dy: Any, rows: Any, m: Any, end: Any, t: Any, group: Any,
        n0: Any, filters: Any, plane: Any, columns: Any, image_in: Any, group_in: Any,
        height: Any, width: Any, step_h: Any, step_w: Any, image_out: Any, group_out: Any,
    ) -> None:  # fmt: skip
        base, ih, iw, out = place_of(
            m, end, plane, columns, image_in, width, step_h, step_w, image_out, columns, 1
        )
        base += group * group_in
        for i in range(mine):
            offset, down, across, _ = load(rows, (i * 16 + t // DEPTH) * TABLE, 4)
            of_x[i] = kind(0)
            if is_inside(ih, iw, down, across, height, width):
                v = widen(get(x, base + offset))
                of_x[i] = tf32(v) if rounds else v
        for j in range(mine_n):
            n = n0 + j * 16 + t // DEPTH
            of_dy[j] = kind(0)
            if m < end and n < filters:
                v = widen(get(dy, out + group * group_out + n * np.int64(plane)))
                of_dy[j] = tf32(v) if rounds else v

    return read


def make_tiled(a: Arithmetic, rounds: bool) -> Callable[..., None]:
    """Return the kernel of an arithmetic, to which rows of the table are what pixels are else.

    ``rounds``: numbers are rounded to TF32 before they are multiplied.
    """
    kind, tile_rows, tile_n, row_x, row_w = a.kind, a.pixels, a.columns, a.row_x, a.row_w
    x_size, w_size, r_size = 2 * DEPTH * row_x, 2 * DEPTH * row_w, tile_rows * TABLE
    mine, mine_n, count = tile_rows // 16, tile_n // 16, a.sums
    read, multiply, write_sums = make_read(a, rounds), a.multiply, a.write_sums

    def tiled(
        x: Any, dy: Any, table: Any, sums: Any, images: int, plane: int, columns: int, rows: int,
        filters: int, part: int, image_in: int, group_in: int, height: int, width: int,
        step_h: int, step_w: int, image_out: int, group_out: int,
    ) -> None:  # fmt: skip
        xs = cuda.shared.array(x_size, kind, alignment=16)
        ws = cuda.shared.array(w_size, kind, alignment=16)
        mine_rows = cuda.shared.array(r_size, np.int32, alignment=16)
        total = cuda.local.array(count, kind)
        of_x = cuda.local.array(mine, kind)
        of_dy = cuda.local.array(mine_n, kind)
        t = cuda.threadIdx.x
        tiles = (rows + tile_rows - 1) // tile_rows
        n0, row0 = cuda.blockIdx.x // tiles * tile_n, cuda.blockIdx.x % tiles * tile_rows
        group = np.int64(cuda.blockIdx.z)
        first = np.int64(cuda.blockIdx.y) * part
        end = min(first + part, np.int64(images) * plane)
        for i in range(t, r_size, THREADS):
            put(mine_rows, i, np.int32(get(table, row0 * TABLE + i)))
        for i in range(count):
            total[i] = kind(0)
        cuda.syncthreads()
        read(
            of_x, of_dy, x, dy, mine_rows, first + t % DEPTH, end, t, group, n0, filters, plane,
            columns, image_in, group_in, height, width, step_h, step_w, image_out, group_out,
        )  # fmt: skip
        now = 0
        for m in range(first + t % DEPTH, end + t % DEPTH, DEPTH):
            for i in range(mine):
                put(xs, (now + t % DEPTH) * row_x + i * 16 + t // DEPTH, of_x[i])
            for j in range(mine_n):
                put(ws, (now + t % DEPTH) * row_w + j * 16 + t // DEPTH, of_dy[j])
            cuda.syncthreads()
            read(
                of_x, of_dy, x, dy, mine_rows, m + DEPTH, end, t, group, n0, filters, plane,
                columns, image_in, group_in, height, width, step_h, step_w, image_out, group_out,
            )  # fmt: skip
            multiply(xs, ws, total, now, t)
            now = DEPTH - now
        slab = (np.int64(cuda.blockIdx.y) * cuda.gridDim.z + group) * filters * rows
        write_sums(sums, total, t, slab, row0, rows, n0, filters)

    tiled.__qualname__ = f"weight_{'to_be_' * rounds}{a.name}"
    return tiled


def make_depthwise(code: str) -> Callable[..., None]:
    """Return the kernel of one filter a group: a block makes FEW rows of it, pixel by pixel."""
    kind = WIDE[code]

    def depthwise(
        x: Any, dy: Any, table: Any, sums: Any, images: int, plane: int, columns: int, rows: int,
        filters: int, part: int, image_in: int, group_in: int, height: int, width: int,
        step_h: int, step_w: int, image_out: int, group_out: int,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, kind)
        total = cuda.local.array(FEW, kind)
        t = cuda.threadIdx.x
        row0 = cuda.blockIdx.x * FEW
        group = np.int64(cuda.blockIdx.z)
        first = np.int64(cuda.blockIdx.y) * part
        end = min(first + part, np.int64(images) * plane)
        for i in range(FEW):
            total[i] = kind(0)
        for m in range(first + t, end, THREADS):
            base, ih, iw, out = place_of(
                m, end, plane, columns, image_in, width, step_h, step_w, image_out, columns, 1
            )
            base += group * group_in
            v = widen(get(dy, out + group * group_out))
            for i in range(FEW):
                offset, down, across, _ = load(table, (row0 + i) * TABLE, 4)
                w = kind(0)
                if is_inside(ih, iw, down, across, height, width):
                    w = widen(get(x, base + offset))
                total[i] += v * w
        slab = (np.int64(cuda.blockIdx.y) * cuda.gridDim.z + group) * rows
        for i in range(FEW):
            v = team_sum(total[i], room, t, THREADS)
            if t == 0 and row0 + i < rows:
                put(sums, slab + row0 + i, v)

    depthwise.__qualname__ = "weight_depthwise"
    return depthwise


def add_parts(sums: Any, y: Any, n: int, parts: int) -> None:
    """Write to y the sum of the parts of ``sums``, each n numbers, in their order."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        total = get(sums, i)
        for part in range(1, parts):
            total += get(sums, part * np.int64(n) + i)
        put(y, i, narrow(y, total))


@functools.cache
def tiled_kernel(code: str, a: Arithmetic) -> Kernel:
    """Return the kernel for a dtype and an arithmetic, made once."""
    rounds = code == "f4" and a.name == "rounded"
    blocks = 2 if a.name == "tf32x3" else 3  # so that no register is spilled
    return Kernel(make_tiled(a, rounds), parameters_of(code), THREADS, blocks)


@functools.cache
def depthwise_kernel(code: str) -> Kernel:
    """Return the kernel of one filter a group for a dtype, made once."""
    return Kernel(make_depthwise(code), parameters_of(code), THREADS, 4)


@functools.cache
def add_parts_kernel(code: str) -> Kernel:
    """Return the kernel of `add_parts` for a dtype, made once."""
    return Kernel(add_parts, f"{of_wide(code)}* {code}* i8 i4", THREADS, 8)


def sum_of_parts(sums: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return the sum of ``sums`` (parts, n) over the parts, as an array of a shape and dtype."""
    y = xp.empty(shape, dtype)
    parts, n = sums.shape
    add_parts_kernel(code_of(y))(-(-n // THREADS), sums, stored(y.reshape(-1)), n, parts)
    return y


def weight_gradient(g: Geometry, x: Any, dy: Any, way: str) -> Any:
    """Return the gradient with respect to w, of contiguous x and dy, in a way to multiply."""
    code, rows, (oh, ow) = code_of(x), g.channels * g.taps, g.output
    if g.filters == 1:
        p, made, tiles = forward(g, FEW), depthwise_kernel(code), -(-rows // FEW)
    else:
        a = arithmetic_of(rows, g.filters, code, way)
        p, made = forward(g, a.pixels), tiled_kernel(code, a)
        tiles = -(-rows // a.pixels) * -(-g.filters // a.columns)
    part = part_of(g.images * oh * ow, tiles * g.groups)
    parts = -(-g.images * oh * ow // part)
    sums = xp.empty((parts, g.groups * g.filters * rows), WIDE[code])
    numbers = Parts(
        images=g.images, plane=oh * ow, columns=ow, rows=rows, filters=g.filters, part=part,
        **{name: x for name, x in p.places._asdict().items() if name in Parts._fields},
    )  # fmt: skip
    made((tiles, parts, g.groups), stored(x), stored(dy), p.table, sums, *numbers)
    shape = g.groups * g.filters, g.channels, *g.window
    return sum_of_parts(sums, shape, x.dtype)


def arithmetic_of(rows: int, filters: int, code: str, way: str) -> Arithmetic:
    """Return what multiplies a matrix of rows x filters: small tiles for a small matrix."""
    if rows <= 64 or filters <= 16:
        return simt(WIDE[code], 2, 2)
    if code == "f8":
        return simt(WIDE[code], 4, 4)
    if way == "simt":
        return simt(WIDE[code], 8, 8)
    return tensor("rounded" if way == "tf32" else way)


def part_of(pixels: int, tiles: int) -> int:
    """Return the pixels of a part, for BLOCKS blocks in all, and LEAST pixels at the least."""
    parts = max(1, min(-(-BLOCKS // tiles), pixels // LEAST))
    return -(-pixels // parts // DEPTH) * DEPTH


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [
        tiled_kernel(code, arithmetic_of(size, size, code, way))
        for code, ways in WAYS_OF.items()
        for way in ways
        for size in (16, 128)
    ]
    made += [make(code) for make in (depthwise_kernel, add_parts_kernel) for code in WIDE]
    return list(dict.fromkeys(made))  # the small tiles are the same for every way
