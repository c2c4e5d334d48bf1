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
from .gather import FAR, PHASE, TABLE, Places

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


# --- matrices of weights -------------------------------------------------------------------------


class Filling(NamedTuple):
    """A matrix (groups, rows, ld), with zeros past its columns, and the weights that it holds."""

    total: I8
    """Numbers of the matrix."""
    rows: I4
    ld: I4
    filters: I4
    """Of a group: the columns that are not zeros."""
    weight_step: I4
    rounds: I4
    """Whether weights are rounded to TF32."""


def make_fill(code: str) -> Any:
    """Return the kernel that writes two matrices of the same weights; the other may be empty."""
    kind, may_round = WIDE[code], code == "f4"

    @device
    def write(
        i: Any, w: Any, weight_group: Any, table: Any, matrix: Any, rows: Any, ld: Any,
        filters: Any, weight_step: Any, rounds: Any,
    ) -> None:  # fmt: skip
        line = i // ld
        n = i - line * ld
        group = line // rows
        where = get(table, (line - group * rows) * TABLE + 3)
        v = kind(0)
        if where >= 0 and n < filters:
            v = widen(get(w, group * weight_group + n * weight_step + where))
        if may_round and rounds:
            v = tf32(v)
        put(matrix, i, v)

    def fill(
        w: Any, table: Any, other_table: Any, matrix: Any, other: Any, weight_group: int,
        total: int, rows: int, ld: int, filters: int, weight_step: int, rounds: int,
        other_total: int, other_rows: int, other_ld: int, other_filters: int, other_step: int,
        other_rounds: int,
    ) -> None:  # fmt: skip
        i = np.int64(cuda.blockIdx.x) * FILL_THREADS + cuda.threadIdx.x
        if i < total:
            write(i, w, weight_group, table, matrix, rows, ld, filters, weight_step, rounds)
        elif i < total + other_total:
            write(
                i - total, w, weight_group, other_table, other, other_rows, other_ld,
                other_filters, other_step, other_rounds,
            )  # fmt: skip

    fill.__qualname__ = "fill"
    return fill


@functools.cache
def fill_kernel(code: str) -> Kernel:
    """Return the kernel that writes matrices of a dtype, made once."""
    wide, filling = of_wide(code), codes_of(Filling)
    parameters = f"{code}* i4* i4* {wide}* {wide}* i8 {filling} {filling}"
    return Kernel(make_fill(code), parameters, FILL_THREADS, 4)


NOTHING = Filling(0, 1, 1, 0, 0, 0)


def matrices_of(w: Any, forward: Any, backward: Any = None) -> tuple[Any, Any]:
    """Return the matrices that two products multiply by, of contiguous weights; or one, and None.

    A product is `Ready`, or None.
    """
    code = code_of(w)
    tables, matrices, fillings = [], [], []
    for ready in (forward, backward):
        p, filling = (None, NOTHING) if ready is None else (ready.product, ready.filling)
        tables.append(p and p.table)
        matrices.append(p and xp.empty(filling.total, WIDE[code]))
        fillings.append(filling)
    total = sum(filling.total for filling in fillings)
    fill_kernel(code)(
        -(-total // FILL_THREADS), stored(w), *tables, *matrices, forward.weight_group,
        *fillings[0], *fillings[1],
    )  # fmt: skip
    return matrices[0], matrices[1]


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [fill_kernel(code) for code in WIDE]
