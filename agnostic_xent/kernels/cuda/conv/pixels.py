"""Where a pixel of a gathered product reads and writes, and the matrix that it is multiplied by.

All kernels of such products take `Places` last.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import WIDE, code_of, of_wide, stored
from ..toolchain.launching import I4, I8, Kernel, codes_of
from ..toolchain.ptx import below, get, put, tf32, widen
from ..toolchain.teams import cuda, device
from .gather import FAR, PHASE, TABLE, Places, Product

RELU, BIAS, VECTOR = 1, 2, 4
"""What ``flags`` say: ReLU and a bias are to be done, pixels may be written four at a time."""

FILL_THREADS = 256


class Sizes(NamedTuple):
    """The sizes of a gathered product."""

    rows: I4
    """Of the table."""
    ld: I4
    """From a row of the matrix to the next one."""
    phase_count: I4
    images: I4
    filters: I4
    """Of a group."""
    flags: I4
    parts: I4
    """Into which the rows of each phase are cut: each writes its sums for itself."""
    part_rows: I4
    part_out: I8
    """Elements of y from a part to the next one."""


def parameters_of(code: str) -> str:
    """Return the types of the parameters of a gathered product of images of the dtype ``code``.

    x, matrix, table, phases, bias, y; sizes; places.
    """
    arrays = f"{code}* {of_wide(code)}* i4* i4* {code}* {code}*"
    return f"{arrays} {codes_of(Sizes)} {codes_of(Places)}"


@device
def place_of(
    m: Any, pixels: Any, plane: Any, columns: Any, image_in: Any, width: Any, step_h: Any,
    step_w: Any, image_out: Any, row_out: Any, column_out: Any,
) -> Any:  # fmt: skip
    """Return where pixel m reads: place, row and column; and where it writes.

    A pixel behind the last one reads far outside of the image.
    """
    image = np.uint32(m) // np.uint32(plane)
    rest = np.uint32(m - np.int64(image) * plane)
    line = rest // np.uint32(columns)
    row, column = np.int64(line), np.int64(rest) - np.int64(line) * columns
    ih, iw = row * step_h, column * step_w
    base = np.int64(image) * image_in + ih * width + iw
    out = np.int64(image) * image_out + row * row_out + column * column_out
    if m >= pixels:
        ih = np.int64(-(FAR >> 1))
    return base, ih, iw, out


@device
def phase_of(z: Any, phases: Any, count: Any, parts: Any, part_rows: Any) -> Any:
    """Return a block's group, part, first row, rows, and pixels of an image, columns and start.

    The last three are those of its phase. All parts of a phase are together, and all phases of a
    group.
    """
    phase = np.int64(np.uint32(z) // np.uint32(parts))
    part = z - phase * parts
    group = np.int64(np.uint32(phase) // np.uint32(count))
    phase = (phase - group * count) * PHASE
    first, columns = part * part_rows, np.int64(get(phases, phase + 3))
    return (
        group, part, get(phases, phase) + first, min(part_rows, get(phases, phase + 1) - first),
        columns * get(phases, phase + 2), columns, get(phases, phase + 4),
    )  # fmt: skip


@device
def is_inside(ih: Any, iw: Any, row: Any, column: Any, height: Any, width: Any) -> Any:
    """Return whether the tap at (row, column) of the pixel at (ih, iw) lies inside the image."""
    return below(ih + row, height) and below(iw + column, width)


@device
def finished(v: Any, bias: Any, n: Any, flags: Any) -> Any:
    """Return the sum v with bias n, and through ReLU, if ``flags`` say so; NaN stays NaN."""
    if flags & BIAS:
        v += widen(get(bias, n))
    if flags & RELU and v <= 0:
        v = type(v)(0)
    return v


# --- the matrix of weights -----------------------------------------------------------------------


def make_fill(kind: Any, rounds: bool) -> Any:
    """Return the kernel that writes the matrix (groups, rows, ld), with zeros past its columns."""

    def fill(
        w: Any, table: Any, matrix: Any, total: int, rows: int, ld: int, filters: int,
        weight_step: int, weight_group: int,
    ) -> None:  # fmt: skip
        i = np.int64(cuda.blockIdx.x) * FILL_THREADS + cuda.threadIdx.x
        if i < total:
            line = i // ld
            n = i - line * ld
            group = line // rows
            where = get(table, (line - group * rows) * TABLE + 3)
            v = kind(0)
            if where >= 0 and n < filters:
                v = widen(get(w, group * weight_group + n * weight_step + where))
            put(matrix, i, tf32(v) if rounds else v)

    fill.__qualname__ = "fill_rounded" if rounds else "fill"
    return fill


@functools.cache
def fill_kernel(code: str, rounds: bool) -> Kernel:
    """Return the kernel that writes the matrix of a dtype, rounded to TF32 or not, made once."""
    parameters = f"{code}* i4* {of_wide(code)}* i8 i4 i4 i4 i4 i8"
    return Kernel(make_fill(WIDE[code], rounds), parameters, FILL_THREADS, 4)


def matrix_of(w: Any, p: Product, ld: int, rounds: bool = False) -> Any:
    """Return the matrix that product p multiplies by: weights w, with columns up to ``ld``."""
    code, total = code_of(w), p.groups * p.rows * ld
    matrix = xp.empty(total, WIDE[code])
    fill_kernel(code, rounds)(
        -(-total // FILL_THREADS), stored(w), p.table, matrix, total, p.rows, ld, p.filters,
        p.weight_step, w.size // p.groups,
    )  # fmt: skip
    return matrix


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [fill_kernel("f4", True), *(fill_kernel(code, False) for code in WIDE)]
