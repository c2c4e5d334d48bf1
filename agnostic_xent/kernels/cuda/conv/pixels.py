"""Where a pixel of a gathered product reads and writes, and the matrix that it is multiplied by.

All kernels of such products take, after their arrays, the numbers of gather.py::

    image_in, group_in, plane_in, height, width, step_h, step_w   of x
    image_out, group_out, plane_out, row_out, column_out          of y
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import WIDE, code_of, of_wide, stored
from ..toolchain.launching import Kernel
from ..toolchain.ptx import below, get, put, tf32, widen
from ..toolchain.teams import cuda, device
from .gather import FAR, PHASE, TABLE, Product

RELU, BIAS, VECTOR = 1, 2, 4
"""What ``flags`` say."""


NUMBERS = "i8 i8 i4 i4 i4 i4 i4 i8 i8 i8 i4 i4"
"""The numbers' types."""


PRODUCT = "{x}* {k}* i4* i4* {x}* {x}* i4 i4 i4 i4 i4 i4 " + NUMBERS
"""Parameters: x, matrix, table, phases, bias, y; rows, ld, count of phases, images, filters, flags;
the numbers."""


FILL_THREADS = 256


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
def phase_of(z: Any, phases: Any, count: Any) -> Any:
    """Return a block's group; first row, rows, pixels of an image, columns and start of its phase.

    All phases of a group are together.
    """
    group = z // count
    phase = (z - group * count) * PHASE
    columns = np.int64(get(phases, phase + 3))
    return (
        np.int64(group), get(phases, phase), get(phases, phase + 1),
        columns * get(phases, phase + 2), columns, get(phases, phase + 4),
    )  # fmt: skip


@device
def is_inside(ih: Any, iw: Any, row: Any, column: Any, height: Any, width: Any) -> Any:
    """Tell whether a tap of a pixel lies inside the image."""
    return below(ih + row, height) and below(iw + column, width)


@device
def finished(v: Any, bias: Any, n: Any, flags: Any) -> Any:
    """Return a sum with its bias, through ReLU; NaN stays NaN."""
    if flags & BIAS:
        v += widen(get(bias, n))
    if flags & RELU and v <= 0:
        v = type(v)(0)
    return v


# --- the matrix of weights -----------------------------------------------------------------------


def make_fill(kind: Any, rounds: bool) -> Any:
    """Return the kernel that writes the matrix, (groups, rows, ld), zeros beside its columns."""

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
    """Return the kernel that writes the matrix of weights of a dtype, rounded to TF32 or not."""
    parameters = f"{code}* i4* {of_wide(code)}* i8 i4 i4 i4 i4 i8"
    return Kernel(make_fill(WIDE[code], rounds), parameters, FILL_THREADS, 4)


def matrix_of(w: Any, p: Product, ld: int, rounds: bool = False) -> Any:
    """Return the matrix that a product multiplies by, with columns up to ``ld``."""
    code, total = code_of(w), p.groups * p.rows * ld
    matrix = xp.empty(total, WIDE[code])
    numbers = total, p.rows, ld, p.filters, p.weight_step, w.size // p.groups
    fill_kernel(code, rounds)(-(-total // FILL_THREADS), stored(w), p.table, matrix, *numbers)
    return matrix


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [fill_kernel("f4", True), *(fill_kernel(code, False) for code in WIDE)]
