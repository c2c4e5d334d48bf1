"""The weight gradient: ``dw[k, j] = sum_pixel dy[k, pixel] * x[place(pixel) + offset[j]]``.

Blocks share the pixels out among them, see `parts`. A depthwise convolution has a kernel of its
own, which needs no matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import WIDE, code_of, of_wide, stored
from ..toolchain.launching import I4, I8, Kernel, codes_of
from ..toolchain.ptx import (
    ahead,
    commit_async,
    copy_async,
    get,
    load,
    put,
    tf32,
    wait_async,
    widen,
)  # fmt: skip
from ..toolchain.teams import cuda, device, team_sum
from .arithmetic import DEPTH, WAYS_OF, Arithmetic, simt, tensor
from .gather import FAR, TABLE, Geometry, forward
from .parts import parts_of, write_sum
from .pixels import is_inside, place_of

THREADS = 128
LEAST = 16  # steps of a part, so that few sums are written

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


class Walk(NamedTuple):
    """How a thread comes from one of its pixels to the next one, DEPTH further, by no division.

    It goes some rows and columns on in the image, one row more where it passes the last column, and
    into the next image where it passes the last row.
    """

    down: I4
    across: I4
    last_h: I4
    """The rows of the image that all outputs take, to which ``ih`` never comes; so columns."""
    last_w: I4
    far: I4
    """Elements of x that the step takes; more where it ends in a row below, or an image behind."""
    far_row: I4
    far_image: I4
    far_out: I4
    """Elements of dy, likewise."""
    far_out_image: I4


def walk_of(p: Parts) -> Walk:
    """Return the steps of DEPTH pixels."""
    images, rest = divmod(DEPTH, p.plane)
    rows, columns = divmod(rest, p.columns)
    down, across = rows * p.step_h, columns * p.step_w
    last_h, last_w = p.plane // p.columns * p.step_h, p.columns * p.step_w
    return Walk(
        down, across, last_h, last_w,
        far=images * p.image_in + down * p.width + across,
        far_row=p.step_h * p.width - last_w, far_image=p.image_in - last_h * p.width,
        far_out=DEPTH + images * (p.image_out - p.plane), far_out_image=p.image_out - p.plane,
    )  # fmt: skip


def parameters_of(code: str) -> str:
    """Return the types of the parameters of a weight gradient of images of the dtype ``code``.

    x, dy, table, sums; parts; walk.
    """
    return f"{code}* {code}* i4* {of_wide(code)}* {codes_of(Parts)} {codes_of(Walk)}"


def make_copies(a: Arithmetic) -> Any:
    """Return the functions that start and finish the copies of a thread's pixel, with no register.

    The pixel lies in all rows of the tile, and so does its cotangent in all columns.
    """
    mine, mine_n, row_x, row_w = a.pixels // 16, a.columns // 16, a.row_x, a.row_w

    @device
    def start(
        of_x: Any, of_dy: Any, xs: Any, ws: Any, line: Any, x: Any, dy: Any, rows: Any, left: Any,
        t: Any, ih: Any, iw: Any, filters: Any, plane: Any, height: Any, width: Any,
    ) -> None:  # fmt: skip
        row = ih if left > 0 else np.int32(-(FAR >> 1))
        for i in range(mine):
            valid = is_inside(row, iw, rows[i * 3 + 1], rows[i * 3 + 2], height, width)
            copy_async(xs, line * row_x + i * 16 + t // DEPTH, x, rows[i * 3], 1, valid)
        for j in range(mine_n):
            valid = left > 0 and j * 16 < filters
            at = np.int32(j * 16 * plane)
            copy_async(ws, line * row_w + j * 16 + t // DEPTH, dy, at, 1, valid)
        commit_async()

    @device
    def finish(of_x: Any, of_dy: Any, xs: Any, ws: Any, line: Any, t: Any) -> None:
        wait_async(0)

    return start, finish


def make_reads(a: Arithmetic, rounds: bool) -> Any:
    """Return functions likewise that read a thread's pixel into registers, and write it from there.

    On the way numbers are widened, and rounded to TF32 if ``rounds``.
    """
    kind, mine, mine_n, row_x, row_w = a.kind, a.pixels // 16, a.columns // 16, a.row_x, a.row_w

    @device
    def start(
        of_x: Any, of_dy: Any, xs: Any, ws: Any, line: Any, x: Any, dy: Any, rows: Any, left: Any,
        t: Any, ih: Any, iw: Any, filters: Any, plane: Any, height: Any, width: Any,
    ) -> None:  # fmt: skip
        row = ih if left > 0 else np.int32(-(FAR >> 1))
        for i in range(mine):
            of_x[i] = kind(0)
            if is_inside(row, iw, rows[i * 3 + 1], rows[i * 3 + 2], height, width):
                v = widen(get(x, rows[i * 3]))
                of_x[i] = tf32(v) if rounds else v
        for j in range(mine_n):
            of_dy[j] = kind(0)
            if left > 0 and j * 16 < filters:
                v = widen(get(dy, np.int32(j * 16 * plane)))
                of_dy[j] = tf32(v) if rounds else v

    @device
    def finish(of_x: Any, of_dy: Any, xs: Any, ws: Any, line: Any, t: Any) -> None:
        for i in range(mine):
            put(xs, line * row_x + i * 16 + t // DEPTH, of_x[i])
        for j in range(mine_n):
            put(ws, line * row_w + j * 16 + t // DEPTH, of_dy[j])

    return start, finish


@device
def step_on(
    x: Any, dy: Any, ih: Any, iw: Any, step_h: Any, down: Any, across: Any, last_h: Any,
    last_w: Any, far: Any, far_row: Any, far_image: Any, far_out: Any, far_out_image: Any,
) -> Any:  # fmt: skip
    """Return the places of the pixel that is DEPTH further, as `Walk` tells."""
    zero = np.int32(0)
    iw = np.int32(iw + across)
    passes = iw >= last_w
    iw = np.int32(iw - (last_w if passes else zero))
    ih = np.int32(ih + down + (step_h if passes else zero))
    leaves = ih >= last_h
    ih = np.int32(ih - (last_h if leaves else zero))
    x = ahead(x, np.int32(far + (far_row if passes else zero) + (far_image if leaves else zero)))
    dy = ahead(dy, np.int32(far_out + (far_out_image if leaves else zero)))
    return x, dy, ih, iw


def make_summed(a: Arithmetic, rounds: bool, copies: bool) -> Any:
    """Return the function that adds up the products of a part, DEPTH pixels at a time."""
    kind, mine, mine_n, multiply = a.kind, a.pixels // 16, a.columns // 16, a.multiply
    start, finish = make_copies(a) if copies else make_reads(a, rounds)

    @device
    def summed(
        total: Any, xs: Any, ws: Any, x: Any, dy: Any, rows: Any, left: Any, t: Any, ih: Any,
        iw: Any, filters: Any, part: Any, plane: Any, height: Any, width: Any, step_h: Any,
        down: Any, across: Any, last_h: Any, last_w: Any, far: Any, far_row: Any, far_image: Any,
        far_out: Any, far_out_image: Any,
    ) -> None:  # fmt: skip
        of_x = cuda.local.array(mine, kind)
        of_dy = cuda.local.array(mine_n, kind)
        start(
            of_x, of_dy, xs, ws, t % DEPTH, x, dy, rows, left, t, ih, iw, filters, plane, height,
            width,
        )  # fmt: skip
        finish(of_x, of_dy, xs, ws, t % DEPTH, t)
        now = 0
        for _ in range(0, part, DEPTH):
            cuda.syncthreads()
            x, dy, ih, iw = step_on(
                x, dy, ih, iw, step_h, down, across, last_h, last_w, far, far_row, far_image,
                far_out, far_out_image,
            )  # fmt: skip
            left = np.int32(left - DEPTH)
            line = DEPTH - now + t % DEPTH
            start(
                of_x, of_dy, xs, ws, line, x, dy, rows, left, t, ih, iw, filters, plane, height,
                width,
            )  # fmt: skip
            multiply(xs, ws, total, now, t)
            finish(of_x, of_dy, xs, ws, line, t)
            now = DEPTH - now

    return summed


def make_tiled(a: Arithmetic, rounds: bool, copies: bool) -> Callable[..., None]:
    """Return the kernel of an arithmetic, to which rows of the table are what pixels are else.

    ``rounds``: numbers are rounded to TF32 before they are multiplied. ``copies``: they are as they
    are multiplied, and copied with nobody waiting.
    """
    kind, tile_rows, tile_n, count, write_sums = a.kind, a.pixels, a.columns, a.sums, a.write_sums
    x_size, w_size, mine = 2 * DEPTH * a.row_x, 2 * DEPTH * a.row_w, tile_rows // 16
    row_numbers, summed = 3 * mine, make_summed(a, rounds, copies)

    def tiled(
        x: Any, dy: Any, table: Any, sums: Any, images: int, plane: int, columns: int, rows: int,
        filters: int, part: int, image_in: int, group_in: int, height: int, width: int,
        step_h: int, step_w: int, image_out: int, group_out: int, down: int, across: int,
        last_h: int, last_w: int, far: int, far_row: int, far_image: int, far_out: int,
        far_out_image: int,
    ) -> None:  # fmt: skip
        xs = cuda.shared.array(x_size, kind, alignment=16)
        ws = cuda.shared.array(w_size, kind, alignment=16)
        mine_rows = cuda.local.array(row_numbers, np.int32)
        total = cuda.local.array(count, kind)
        t = cuda.threadIdx.x
        tiles = np.uint32((rows + tile_rows - 1) // tile_rows)
        which = np.int64(np.uint32(cuda.blockIdx.x) // tiles)
        n0, row0 = which * tile_n, (cuda.blockIdx.x - which * np.int64(tiles)) * tile_rows
        group = np.int64(cuda.blockIdx.z)
        first = np.int64(cuda.blockIdx.y) * part
        pixels = np.int32(min(np.int64(part), np.int64(images) * plane - first))
        for i in range(mine):
            offset, below, beside, _ = load(table, (row0 + i * 16 + t // DEPTH) * TABLE, 4)
            mine_rows[i * 3] = np.int32(offset)
            mine_rows[i * 3 + 1], mine_rows[i * 3 + 2] = np.int32(below), np.int32(beside)
        for i in range(count):
            total[i] = kind(0)
        m, n = first + t % DEPTH, n0 + t // DEPTH
        base, ih, iw, out = place_of(
            m, m + 1, plane, columns, image_in, width, step_h, step_w, image_out, columns, 1
        )
        summed(
            total, xs, ws, ahead(x, base + group * group_in),
            ahead(dy, out + group * group_out + n * np.int64(plane)), mine_rows,
            np.int32(pixels - t % DEPTH), t, np.int32(ih), np.int32(iw), filters - n, part, plane,
            height, width, step_h, down, across, last_h, last_w, far, far_row, far_image, far_out,
            far_out_image,
        )  # fmt: skip
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
        step_h: int, step_w: int, image_out: int, group_out: int, down: int, across: int,
        last_h: int, last_w: int, far: int, far_row: int, far_image: int, far_out: int,
        far_out_image: int,
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


@functools.cache
def tiled_kernel(code: str, a: Arithmetic) -> Kernel:
    """Return the kernel for a dtype and an arithmetic, made once."""
    rounds = code == "f4" and a.name == "rounded"
    blocks = 2 if a.name == "tf32x3" else 3  # so that no register is spilled
    copies = code in ("f4", "f8") and not rounds
    return Kernel(make_tiled(a, rounds, copies), parameters_of(code), THREADS, blocks)


@functools.cache
def depthwise_kernel(code: str) -> Kernel:
    """Return the kernel of one filter a group for a dtype, made once."""
    return Kernel(make_depthwise(code), parameters_of(code), THREADS, 4)


def weight_gradient(g: Geometry, x: Any, dy: Any, way: str) -> Any:
    """Return the gradient with respect to w, of contiguous x and dy, in a way to multiply."""
    code, rows, (oh, ow) = code_of(x), g.channels * g.taps, g.output
    if g.filters == 1:
        p, made, tiles = forward(g, FEW), depthwise_kernel(code), -(-rows // FEW)
    else:
        a = arithmetic_of(rows, g.filters, code, way)
        p, made = forward(g, a.pixels), tiled_kernel(code, a)
        tiles = -(-rows // a.pixels) * -(-g.filters // a.columns)
    pixels = g.images * oh * ow
    steps = -(-pixels // DEPTH)
    part = -(-steps // parts_of(tiles * g.groups, steps, LEAST)) * DEPTH
    parts = -(-pixels // part)
    shape = g.groups * g.filters, g.channels, *g.window
    dw = xp.empty(shape, x.dtype)
    sums = dw if parts == 1 and x.dtype == WIDE[code] else xp.empty((parts, dw.size), WIDE[code])
    numbers = Parts(
        images=g.images, plane=oh * ow, columns=ow, rows=rows, filters=g.filters, part=part,
        **{name: x for name, x in p.places._asdict().items() if name in Parts._fields},
    )  # fmt: skip
    made(
        (tiles, parts, g.groups),
        stored(x), stored(dy), p.table, sums, *numbers, *walk_of(numbers),
    )  # fmt: skip
    if sums is not dw:
        write_sum(sums, dw)
    return dw


def arithmetic_of(rows: int, filters: int, code: str, way: str) -> Arithmetic:
    """Return what multiplies a matrix of rows x filters: small tiles for a small matrix."""
    mine = 2 if rows <= 32 else 4 if rows <= 64 or filters <= 32 or code == "f8" else 8
    mine_n = 2 if filters <= 16 else 4 if filters <= 32 or mine < 8 else 8
    if mine < 8 or way == "simt":
        return simt(WIDE[code], mine, mine_n)
    return tensor("rounded" if way == "tf32" else way)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [
        tiled_kernel(code, arithmetic_of(rows, filters, code, way))
        for code, ways in WAYS_OF.items()
        for way in ways
        for rows in (32, 64, 128)
        for filters in (16, 32, 64)
    ]
    made += [depthwise_kernel(code) for code in WIDE]
    return list(dict.fromkeys(made))  # the small tiles are the same for every way
