"""Gathered products of few columns: depthwise convolution, the first layers of small networks.

They wait for memory, not for arithmetic: a thread makes all columns of its pixel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, load, narrow, put, widen
from ..toolchain.teams import cuda
from .gather import TABLE
from .pixels import finished, is_inside, parameters_of, phase_of, place_of

THREADS = 128
FEW = 8  # columns at most


def make_few(code: str, columns: int) -> Callable[..., None]:
    """Return the kernel of up to ``columns`` columns, which a thread makes for its pixel."""
    kind = WIDE[code]

    def few(
        x: Any, matrix: Any, table: Any, phases: Any, bias: Any, y: Any, rows: int, ld: int,
        phase_count: int, images: int, filters: int, flags: int, parts: int, part_rows: int,
        part_out: int, image_in: int, group_in: int,
        plane_in: int, height: int, width: int, step_h: int, step_w: int, image_out: int,
        group_out: int, plane_out: int, row_out: int, column_out: int,
    ) -> None:  # fmt: skip
        sums = cuda.local.array(columns, kind)
        group, _, first, count, plane, line, start = phase_of(
            cuda.blockIdx.z, phases, phase_count, parts, part_rows
        )
        m = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if m >= images * plane:
            return
        base, ih, iw, out = place_of(
            m, images * plane, plane, line,
            image_in, width, step_h, step_w, image_out, row_out, column_out,
        )  # fmt: skip
        base += group * group_in
        for j in range(columns):
            sums[j] = kind(0)
        at = (group * rows + first) * columns
        for row in range(first, first + count):
            offset, down, across, _ = load(table, row * TABLE, 4)
            v = kind(0)
            if is_inside(ih, iw, down, across, height, width):
                v = widen(get(x, base + offset))
            weights = load(matrix, at, columns)
            for j in range(columns):
                sums[j] += v * weights[j]
            at += columns
        out += group * group_out + start
        for j in range(columns):
            if j < filters:
                v = finished(sums[j], bias, group * filters + j, flags)
                put(y, out + j * np.int64(plane_out), narrow(y, v))

    few.__qualname__ = f"few_{columns}"
    return few


@functools.cache
def few_kernel(code: str, columns: int) -> Kernel:
    """Return the kernel for a dtype, and a power of two of columns, made once."""
    return Kernel(make_few(code, columns), parameters_of(code), THREADS, 4)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [few_kernel(code, columns) for code in WIDE for columns in (1, 2, 4, FEW)]
