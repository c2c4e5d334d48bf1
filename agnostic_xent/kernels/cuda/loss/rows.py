"""Softmax cross entropy of rows that fit registers: one read, one write, by teams of threads."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, load, narrow, put, store, sync_warp, widen
from ..toolchain.teams import LANES, cuda, device, team_max, team_sum
from .formulas import (
    SMOOTHED,
    WEIGHTED,
    WRITES,
    describe,
    factors,
    parameters_of,
    sum_of_weights,
    term_of,
    weighted,
)

TEAMS = ((4, 4), (16, 8), (32, 16), (64, 16), (128, 16), (256, 16))
"""Threads of a row, and the elements that each of them holds; at least a vector of 16 bytes."""


def team_for(code: str, classes: int) -> tuple[int, int] | None:
    """Return the smallest team for rows of so many classes; None if there is none.

    Rows begin anywhere in a vector, unless each is of whole vectors.
    """
    width = VECTOR[code]
    needed = classes + (width - 1 if classes % width else 0)
    for threads, each in TEAMS:
        if needed <= threads * max(each, width):
            return threads, each
    return None


def rows_of_block(team: int) -> int:
    """Return how many rows a block of 128 threads does, by teams in a warp; a larger team, one."""
    return 128 // team if team <= LANES else 1


@device
def four(g: Any, e: Any, i: Any) -> Any:
    """Return four numbers of e, from the one at i on, as g stores them."""
    return (
        narrow(g, e[i]), narrow(g, e[i + 1]), narrow(g, e[i + 2]), narrow(g, e[i + 3])
    )  # fmt: skip


# --- what a thread does with its part of a row ----------------------------------------------------
# start is the place of a row, first the class of the thread's first element


def make_read(code: str, team: int, vectors: int) -> Callable[..., Any]:
    """Return the function by which a thread reads its part of a row."""
    kind: Any = WIDE[code]
    width = VECTOR[code]

    @device
    def read(e: Any, x: Any, start: Any, first: Any, classes: Any) -> Any:
        """Read logits, with -inf outside of the row; return the greatest."""
        top = kind(-math.inf)
        for k in range(vectors):
            j = first + k * team * width
            if j >= 0 and j + width <= classes:
                vector = load(x, start + j, width)
                for u in range(width):
                    e[k * width + u] = widen(vector[u])
            else:
                for u in range(width):
                    v = kind(-math.inf)
                    if j + u >= 0 and j + u < classes:
                        v = widen(get(x, start + j + u))
                    e[k * width + u] = v
            for u in range(width):
                top = max(top, e[k * width + u])
        return top

    return read


def make_exponentiate(code: str, team: int, vectors: int) -> Callable[..., Any]:
    """Return the function by which a thread sums the exponentials of its part of a row."""
    kind: Any = WIDE[code]
    width = VECTOR[code]

    @device
    def exponentiate(
        e: Any, first: Any, classes: Any, label: Any, top: Any, sharpness: Any, weight: Any,
        flags: Any,
    ) -> Any:  # fmt: skip
        """Turn logits into exponentials; return their sum without the label's, and shifts."""
        others, shifts = kind(0), kind(0)
        for k in range(vectors):
            for u in range(width):
                j, i = first + k * team * width + u, k * width + u
                d = (e[i] - top) * sharpness
                if flags & SMOOTHED and j >= 0 and j < classes:
                    shifts += weighted(weight, j, flags, d)
                e[i] = math.exp(d)
                others += kind(0) if j == label else e[i]
        return others, shifts

    return exponentiate


def make_write(code: str, team: int, vectors: int) -> Callable[..., Any]:
    """Return the function by which a thread writes the gradient of its part of a row."""
    kind: Any = WIDE[code]
    width = VECTOR[code]

    @device
    def write(
        g: Any, e: Any, start: Any, first: Any, classes: Any, label: Any, counts: Any, scale: Any,
        slope: Any, share: Any, weight: Any, flags: Any,
    ) -> None:  # fmt: skip
        """Write the gradient; ``share`` is what every class loses, times its weight."""
        for k in range(vectors):
            j = first + k * team * width
            for u in range(width):
                i = k * width + u
                v = e[i] * scale
                if flags & SMOOTHED and j + u >= 0 and j + u < classes:
                    v -= share * get(weight, j + u) if flags & WEIGHTED else share
                v = slope if j + u == label else v
                e[i] = v if counts else kind(0)
            if j >= 0 and j + width <= classes:
                i = k * width
                if width == 2:
                    store(g, start + j, (e[i], e[i + 1]))
                elif width == 4:
                    store(g, start + j, four(g, e, i))
                else:
                    store(g, start + j, four(g, e, i) + four(g, e, i + 4))
            else:
                for u in range(width):
                    if j + u >= 0 and j + u < classes:
                        put(g, start + j + u, narrow(g, e[k * width + u]))

    return write


# --- the kernels ---------------------------------------------------------------------------------


def make_rows(code: str, team: int, elements: int) -> Callable[..., None]:
    """Return the kernel for a dtype, and rows by ``team`` threads of so many elements each."""
    kind, width = WIDE[code], VECTOR[code]
    vectors, in_block = max(1, elements // width), rows_of_block(team)
    size = vectors * width
    makers = make_read, make_exponentiate, make_write
    read, exponentiate, write = (make(code, team, vectors) for make in makers)

    def rows(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any,
        g: Any, terms: Any, rows: int, classes: int, inner: int, ignore: int, flags: int,
        kept: float, spread: float, sharpness: float, unit: float,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, kind)
        e = cuda.local.array(size, kind)
        t = cuda.threadIdx.x
        row = np.int64(cuda.blockIdx.x) * in_block + t // team
        n = min(row, rows - 1)  # warps stay together: a row too many has no classes
        own_classes = classes if row < rows else 0
        start = n * classes
        first = t % team * width - (start & (width - 1))
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        at_label = widen(get(x, start + label)) if row < rows else kind(0)
        top = team_max(read(e, x, start, first, own_classes), room, t, team)
        others, shifts = exponentiate(
            e, first, own_classes, label, top, sharpness, weight, flags
        )  # fmt: skip
        others = team_sum(others, room, t, team)
        if flags & SMOOTHED:
            shifts = team_sum(shifts, room, t, team)
        shift = (at_label - top) * sharpness
        own, whole = math.exp(shift), sum_of_weights(weight_sum, classes, flags, unit)
        if t % team == 0 and row < rows:
            term = term_of(a, w, own, others, shift, shifts, whole, kept, spread, flags)
            put(terms, n, term if counts else kind(0))
        sync_warp()  # g may be x, whose number at the label all of the team have read
        if flags & WRITES and row < rows:
            scale, slope = factors(b, w, own, others, whole, kept, spread)
            write(
                g, e, start, first, classes, label, counts, scale, slope, b * spread, weight, flags
            )

    rows.__qualname__ = f"rows_{team}_{elements}"
    return rows


@functools.cache
def rows_kernel(code: str, team: int, elements: int) -> Kernel:
    """Return the kernel for a dtype and a team, made once."""
    threads = rows_of_block(team) * team
    blocks = (384 if code == "f8" else 768) // max(threads, 128)  # so that no register is spilled
    return Kernel(make_rows(code, team, elements), parameters_of(code), threads, blocks)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [rows_kernel(code, *team) for code in WIDE for team in TEAMS]
