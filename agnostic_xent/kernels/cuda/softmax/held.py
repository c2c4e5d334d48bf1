"""Softmax and log_softmax of rows that registers or shared memory hold: one read, one write.

With the greatest number known, the others' exponentials are summed without it: of a row that is
almost certain, log(1 + others) keeps its digits. Numbers equal to the greatest are counted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.elementary import EXPONENTIALS
from ..toolchain.launching import Kernel, codes_of
from ..toolchain.rows import Layout
from ..toolchain.teams import cuda, device, team_max, team_sum
from ..toolchain.vectors import (
    AT_ONCE,
    HELD,
    TEAMS,
    make_greatest,
    make_keep,
    make_read,
    make_take,
    make_write,
    room_for,
    rows_of_block,
)


def make_parts(
    code: str, team: int, vectors: int, log: bool
) -> tuple[Callable[..., Any], Callable[..., None]]:
    """Return the functions by which a thread sums exponentials, and makes results of them."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    count = vectors * width
    exponential = EXPONENTIALS[kind]

    @device
    def summed(e: Any, base: Any, extent: Any, top: Any) -> Any:
        """Return the sum of exponentials, and how many are equal to top and not in it.

        For softmax the exponentials take the place of the numbers.
        """
        others, ones = kind(0), kind(0)
        for k in range(vectors):
            if base + k * team * width < extent:
                for u in range(width):
                    d = e[k * width + u] - top
                    v = exponential(d)
                    if d == 0:
                        ones += kind(1)
                    else:
                        others += v
                    if not log:
                        e[k * width + u] = v
        return others, ones

    @device
    def conclude(e: Any, top: Any, rest: Any) -> None:
        """Turn what `summed` has left into results; ``rest`` is the sum without one of the top."""
        if log:
            shift = kind(math.log1p(rest))
            for i in range(count):
                e[i] = (e[i] - top) - shift
        else:
            scale = kind(1) / (kind(1) + rest)
            for i in range(count):
                e[i] *= scale

    return summed, conclude


def make_rows(code: str, team: int, elements: int, log: bool) -> Callable[..., None]:
    """Return the kernel for a dtype, and rows in registers of ``team`` threads."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    vectors, in_block = max(1, elements // width), rows_of_block(team)
    size = vectors * width
    read, write = make_read(code, team, vectors), make_write(code, team, vectors)
    greatest = make_greatest(code, vectors)
    summed, conclude = make_parts(code, team, vectors, log)

    def rows(x: Any, y: Any, rows: int, classes: int, inner: int) -> None:
        room = cuda.shared.array(32, kind)
        e = cuda.local.array(size, kind)
        t = cuda.threadIdx.x
        row = np.int64(cuda.blockIdx.x) * in_block + t // team
        own_classes = np.int32(classes if row < rows else 0)  # warps stay together
        start = row * classes
        first = np.int32(t % team * width - (start & (width - 1)))
        read(e, x, start, first, own_classes, kind(-math.inf))
        top = team_max(greatest(e, kind(-math.inf)), room, t, team)
        others, ones = summed(e, np.int32(0), classes + width - 1, top)
        others, ones = team_sum(others, room, t, team), team_sum(ones, room, t, team)
        conclude(e, top, others + (ones - kind(1)))
        write(y, e, start, first, own_classes)

    rows.__qualname__ = f"{'log_' * log}softmax_rows_{team}_{elements}"
    return rows


def make_held(code: str, team: int, log: bool) -> Callable[..., None]:
    """Return the kernel for a dtype, and rows in shared memory of blocks of ``team`` threads."""
    kind: Any = WIDE[code]
    width, vectors = VECTOR[code], AT_ONCE[code]
    size, chunk = vectors * width, vectors * width * team
    read, write = make_read(code, team, vectors), make_write(code, team, vectors)
    keep, take = make_keep(code, team, vectors), make_take(code, team, vectors)
    greatest = make_greatest(code, vectors)
    summed, conclude = make_parts(code, team, vectors, log)

    def held(x: Any, y: Any, rows: int, classes: int, inner: int) -> None:
        room = cuda.shared.array(32, kind)
        row = cuda.shared.array(0, kind, alignment=16)
        e = cuda.local.array(size, kind)
        t, start = np.int32(cuda.threadIdx.x), np.int64(cuda.blockIdx.x) * classes
        own_classes, ahead = np.int32(classes), np.int32(start & (width - 1))
        extent = np.int32(own_classes + ahead)
        top, others, ones = kind(-math.inf), kind(0), kind(0)
        for base in range(0, extent, chunk):
            first = np.int32(base + t * width - ahead)
            read(e, x, start, first, own_classes, kind(-math.inf))
            keep(row, e, base, t, extent)
            top = greatest(e, top)
        top = team_max(top, room, t, team)
        for base in range(0, extent, chunk):
            take(e, row, base, t, extent)
            some, equal = summed(e, base, extent, top)
            others, ones = others + some, ones + equal
            if not log:
                keep(row, e, base, t, extent)
        others, ones = team_sum(others, room, t, team), team_sum(ones, room, t, team)
        for base in range(0, extent, chunk):
            first = np.int32(base + t * width - ahead)
            take(e, row, base, t, extent)
            conclude(e, top, others + (ones - kind(1)))
            write(y, e, start, first, own_classes)

    held.__qualname__ = f"{'log_' * log}softmax_held_{team}"
    return held


@functools.cache
def rows_kernel(code: str, team: int, elements: int, log: bool) -> Kernel:
    """Return the kernel for a dtype and rows in registers of a team, made once."""
    threads = rows_of_block(team) * team
    blocks = (512 if code == "f8" else 1024) // max(threads, 128)
    parameters = f"{code}* {code}* {codes_of(Layout)}"
    return Kernel(make_rows(code, team, elements, log), parameters, threads, blocks)


@functools.cache
def held_kernel(code: str, team: int, log: bool) -> Kernel:
    """Return the kernel for a dtype and rows in shared memory by a team, made once."""

    def shared(x: Any, y: Any, rows: int, classes: int, inner: int) -> int:
        return room_for(code, classes)

    parameters = f"{code}* {code}* {codes_of(Layout)}"
    return Kernel(make_held(code, team, log), parameters, team, 1024 // team, shared)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    each = [(code, log) for code in WIDE for log in (False, True)]
    return [rows_kernel(code, *team, log) for code, log in each for team in TEAMS] + [
        held_kernel(code, team, log) for code, log in each for team, _ in HELD
    ]
