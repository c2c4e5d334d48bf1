"""How a block of 128 threads multiplies tiles that lie in shared memory, and writes what it sums.

An arithmetic makes ``pixels`` x ``columns`` sums, of which each thread holds some, out of tiles of
eight rows. On the plain cores each thread makes 8 x 8 or fewer, and the 8 x 4 threads of a warp lie
beside each other, so that they read little from shared memory. On the tensor cores four warps make
64 x 32 each, out of numbers rounded to TF32: ``tf32`` rounds them and loses 13 bits; ``tf32x3``
takes a number for the sum of two and multiplies three times, which keeps nearly all of float32. A
tensor core truncates what it adds, so that the sums of ``tf32x3`` grow outside of it (Ootomo and
Yokota, Recovering single precision accuracy from Tensor Cores, 2022).
Halves are TF32 as they are.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.ptx import get, load, mma_tf32, narrow, put, store, tf32
from ..toolchain.teams import cuda, device
from .pixels import VECTOR, finished

DEPTH = 8  # rows of a tile


class Arithmetic(NamedTuple):
    """The functions of one way to multiply, and the sizes that go with them."""

    name: str
    kind: Any
    """In what it computes."""
    pixels: int
    columns: int
    sums: int
    """Of a thread."""
    row_x: int
    """From a row of pixels to the next one, in shared memory."""
    row_w: int
    multiply: Any
    """Adds the product of eight rows."""
    write: Any
    """Writes the sums as pixels of y."""
    write_sums: Any
    """Writes the sums as they are: a matrix of columns x rows."""


# --- plain cores ---------------------------------------------------------------------------------


@functools.cache
def simt(kind: Any, mine: int, mine_n: int, across: int = 16) -> Arithmetic:
    """Return the arithmetic of ``mine`` pixels x ``mine_n`` columns a thread.

    ``across``: threads that share a column, 16 or 32 of the 128.
    """
    pixels, columns = mine * across, mine_n * (128 // across)
    row_x, row_w = pixels + 4, columns + 4  # by which the weight gradient meets no bank twice
    return Arithmetic(
        f"simt_{pixels}_{columns}", kind, pixels=pixels, columns=columns,
        sums=mine * mine_n, row_x=row_x, row_w=row_w,
        multiply=simt_multiply(kind, mine, mine_n, across, row_x, row_w),
        write=simt_write(mine_n, across) if mine == 8 else None,
        write_sums=simt_write_sums(mine, mine_n, across),
    )  # fmt: skip


@functools.cache
def threads_of(across: int) -> Any:
    """Return the function that tells a thread's place among those beside it, and among columns."""
    warps = across // 8

    @device
    def place(t: Any) -> Any:
        warp = t // 32
        return warp % warps * 8 + t % 8, warp // warps * 4 + t // 8 % 4

    return place


def simt_multiply(kind: Any, mine: int, mine_n: int, across: int, row_x: int, row_w: int) -> Any:
    """Return the function by which a thread multiplies vectors that lie apart by all threads'."""
    v, u = min(mine, 4), min(mine_n, 4)
    vectors, vectors_n, down = mine // v, mine_n // u, 128 // across
    place = threads_of(across)

    @device
    def multiply_row(xs: Any, ws: Any, sums: Any, row: Any, tx: Any, ty: Any) -> None:
        xv = cuda.local.array(mine, kind)
        wv = cuda.local.array(mine_n, kind)
        for h in range(vectors):
            part = load(xs, row * row_x + (h * across + tx) * v, v)
            for i in range(v):
                xv[h * v + i] = part[i]
        for h in range(vectors_n):
            part = load(ws, row * row_w + (h * down + ty) * u, u)
            for j in range(u):
                wv[h * u + j] = part[j]
        for i in range(mine):
            for j in range(mine_n):
                sums[i * mine_n + j] += xv[i] * wv[j]

    @device
    def multiply(xs: Any, ws: Any, sums: Any, row: Any, t: Any) -> None:
        tx, ty = place(t)
        multiply_row(xs, ws, sums, row, tx, ty)  # by hand: a loop would be left as one
        multiply_row(xs, ws, sums, row + 1, tx, ty)
        multiply_row(xs, ws, sums, row + 2, tx, ty)
        multiply_row(xs, ws, sums, row + 3, tx, ty)
        multiply_row(xs, ws, sums, row + 4, tx, ty)
        multiply_row(xs, ws, sums, row + 5, tx, ty)
        multiply_row(xs, ws, sums, row + 6, tx, ty)
        multiply_row(xs, ws, sums, row + 7, tx, ty)

    return multiply


def simt_write(mine_n: int, across: int) -> Any:
    """Return the function that writes a thread's 8 pixels x ``mine_n`` columns."""
    down, place = 128 // across, threads_of(across)

    @device
    def write_half(
        h: Any, y: Any, bias: Any, sums: Any, places: Any, t: Any, n0: Any, bias0: Any,
        left: Any, filters: Any, plane: Any, flags: Any,
    ) -> None:  # fmt: skip
        tx, ty = place(t)
        p = (h * across + tx) * 4
        for j in range(mine_n):
            n = n0 + (j // 4 * down + ty) * 4 + j % 4
            if n < filters and p < left:
                a = narrow(y, finished(sums[h * 4 * mine_n + j], bias, bias0 + n, flags))
                b = narrow(y, finished(sums[(h * 4 + 1) * mine_n + j], bias, bias0 + n, flags))
                c = narrow(y, finished(sums[(h * 4 + 2) * mine_n + j], bias, bias0 + n, flags))
                d = narrow(y, finished(sums[(h * 4 + 3) * mine_n + j], bias, bias0 + n, flags))
                if flags & VECTOR:
                    store(y, get(places, p) + n * plane, (a, b, c, d))
                else:
                    put(y, get(places, p) + n * plane, a)
                    if p + 1 < left:
                        put(y, get(places, p + 1) + n * plane, b)
                    if p + 2 < left:
                        put(y, get(places, p + 2) + n * plane, c)
                    if p + 3 < left:
                        put(y, get(places, p + 3) + n * plane, d)

    @device
    def write(
        y: Any, bias: Any, sums: Any, places: Any, t: Any, n0: Any, bias0: Any, left: Any,
        filters: Any, plane: Any, flags: Any,
    ) -> None:  # fmt: skip
        write_half(0, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
        write_half(1, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)

    return write


def simt_write_sums(mine: int, mine_n: int, across: int) -> Any:
    """Return the function that writes a thread's sums to y as a matrix, from ``start`` on."""
    v, u, down, place = min(mine, 4), min(mine_n, 4), 128 // across, threads_of(across)

    @device
    def write_sums(
        y: Any, sums: Any, t: Any, start: Any, row0: Any, rows: Any, n0: Any, filters: Any
    ) -> None:
        tx, ty = place(t)
        for i in range(mine):
            row = row0 + (i // v * across + tx) * v + i % v
            for j in range(mine_n):
                n = n0 + (j // u * down + ty) * u + j % u
                if row < rows and n < filters:
                    put(y, start + n * np.int64(rows) + row, sums[i * mine_n + j])

    return write_sums


# --- tensor cores --------------------------------------------------------------------------------

WAYS_OF = {
    "f4": ("simt", "tf32", "tf32x3"),
    "f8": ("simt",),
    "f2": ("simt", "rounded"),
    "u2": ("simt", "rounded"),
}
"""How the dtypes may be multiplied. Tensor cores get pixels that are rounded to TF32 (weights are
before), numbers that are split in two, or numbers that are all TF32 already."""


@functools.cache
def tensor(way: str) -> Arithmetic:
    """Return the arithmetic of the tensor cores: 128 pixels x 64 columns."""
    row_x, row_w = 128 + 8, 64 + 8  # by which reading fragments meets no bank twice
    return Arithmetic(
        way, np.float32, pixels=128, columns=64, sums=64, row_x=row_x, row_w=row_w,
        multiply=tensor_multiply(way, row_x, row_w),
        write=tensor_write, write_sums=tensor_write_sums,
    )  # fmt: skip


@device
def lanes(t: Any) -> Any:
    """Return the place of thread t in fragments, and its warp's first column and pixel."""
    lane = t % 32
    return lane // 4, lane % 4, t // 32 % 2 * 32, t // 64 * 64


def tensor_multiply(way: str, row_x: int, row_w: int) -> Any:
    """Return the function by which a warp multiplies, 16 columns x 8 pixels x 8 rows at a time."""
    split = way == "tf32x3"
    rounds = way != "rounded"  # pixels; weights are rounded already
    zero = np.float32(0)

    @device
    def multiply(xs: Any, ws: Any, sums: Any, row: Any, t: Any) -> None:
        high = cuda.local.array(8, np.float32)
        low = cuda.local.array(8, np.float32)
        g, q, column, pixel = lanes(t)
        for i in range(2):
            for e in range(4):
                v = get(ws, (row + q + e // 2 * 4) * row_w + column + i * 16 + g + e % 2 * 8)
                high[i * 4 + e] = tf32(v) if split else v
                if split:
                    low[i * 4 + e] = tf32(v - high[i * 4 + e])
        for j in range(8):
            v = get(xs, (row + q) * row_x + pixel + j * 8 + g)
            u = get(xs, (row + q + 4) * row_x + pixel + j * 8 + g)
            b = (tf32(v), tf32(u)) if rounds else (v, u)
            for i in range(2):
                s = (i * 8 + j) * 4
                a = high[i * 4], high[i * 4 + 1], high[i * 4 + 2], high[i * 4 + 3]
                if split:
                    rest = low[i * 4], low[i * 4 + 1], low[i * 4 + 2], low[i * 4 + 3]
                    c = mma_tf32((zero, zero, zero, zero), rest, b)
                    c = mma_tf32(c, a, (tf32(v - b[0]), tf32(u - b[1])))
                    c = mma_tf32(c, a, b)
                    sums[s] += c[0]
                    sums[s + 1] += c[1]
                    sums[s + 2] += c[2]
                    sums[s + 3] += c[3]
                else:
                    c = sums[s], sums[s + 1], sums[s + 2], sums[s + 3]
                    sums[s], sums[s + 1], sums[s + 2], sums[s + 3] = mma_tf32(c, a, b)

    return multiply


@device
def tensor_write_pair(
    j: Any, y: Any, bias: Any, sums: Any, places: Any, t: Any, n0: Any, bias0: Any, left: Any,
    filters: Any, plane: Any, flags: Any,
) -> None:  # fmt: skip
    """Write pair j of a thread's pixels, which lie beside each other, in its four columns."""
    g, q, column, pixel = lanes(t)
    p = pixel + j * 8 + q * 2
    for i in range(4):
        n = n0 + column + i * 8 + g
        s = (i // 2 * 8 + j) * 4 + i % 2 * 2
        if n < filters and p < left:
            a = narrow(y, finished(sums[s], bias, bias0 + n, flags))
            b = narrow(y, finished(sums[s + 1], bias, bias0 + n, flags))
            if flags & VECTOR:
                store(y, get(places, p) + n * plane, (a, b))
            else:
                put(y, get(places, p) + n * plane, a)
                if p + 1 < left:
                    put(y, get(places, p + 1) + n * plane, b)


@device
def tensor_write(
    y: Any, bias: Any, sums: Any, places: Any, t: Any, n0: Any, bias0: Any, left: Any,
    filters: Any, plane: Any, flags: Any,
) -> None:  # fmt: skip
    """Write a thread's sums as pixels of y, pair by pair: a loop would not be unrolled."""
    tensor_write_pair(0, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(1, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(2, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(3, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(4, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(5, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(6, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)
    tensor_write_pair(7, y, bias, sums, places, t, n0, bias0, left, filters, plane, flags)


@device
def tensor_write_sums(
    y: Any, sums: Any, t: Any, start: Any, row0: Any, rows: Any, n0: Any, filters: Any
) -> None:
    """Write a thread's sums to y as a matrix; ``start`` is the place of row 0 in column 0."""
    g, q, column, pixel = lanes(t)
    for j in range(8):
        row = row0 + pixel + j * 8 + q * 2
        for i in range(4):
            n = n0 + column + i * 8 + g
            s = (i // 2 * 8 + j) * 4 + i % 2 * 2
            if n < filters and row < rows:
                put(y, start + n * np.int64(rows) + row, sums[s])
                if row + 1 < rows:
                    put(y, start + n * np.int64(rows) + row + 1, sums[s + 1])
