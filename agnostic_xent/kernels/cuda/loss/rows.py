"""Softmax cross entropy of rows that fit registers: one read, one write, by teams of threads."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, put, sync_warp, widen
from ..toolchain.teams import cuda, team_max, team_sum
from ..toolchain.vectors import (
    TEAMS,
    make_exponentiate,
    make_greatest,
    make_read,
    rows_of_block,
)
from .formulas import (
    SMOOTHED,
    WRITES,
    describe,
    factors,
    parameters_of,
    sum_of_weights,
    term_of,
)
from .parts import make_parts


def make_rows(code: str, team: int, elements: int) -> Callable[..., None]:
    """Return the kernel for a dtype, and rows by ``team`` threads of so many elements each."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    vectors, in_block = max(1, elements // width), rows_of_block(team)
    size = vectors * width
    read = make_read(code, team, vectors)
    shifts_of, hide, finish = make_parts(code, team, vectors)
    greatest, exponentiate = make_greatest(code, vectors), make_exponentiate(code, team, vectors)

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
        own_classes = np.int32(classes if row < rows else 0)
        start = n * classes
        first = np.int32(t % team * width - (start & (width - 1)))
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        read(e, x, start, first, own_classes, kind(-math.inf))
        at_label = widen(get(x, start + label)) if row < rows else kind(0)
        top = team_max(greatest(e, kind(-math.inf)), room, t, team)
        shifts = kind(0)
        if flags & SMOOTHED:
            mine = shifts_of(e, first, own_classes, top, sharpness, weight, flags)
            shifts = team_sum(mine, room, t, team)
        hide(e, np.int32(label - first))
        others = exponentiate(e, np.int32(0), classes + width - 1, top, sharpness)
        others = team_sum(others, room, t, team)
        shift = (at_label - top) * sharpness
        own, whole = kind(math.exp(shift)), sum_of_weights(weight_sum, classes, flags, unit)
        if t % team == 0 and row < rows:
            term = term_of(a, w, own, others, shift, shifts, whole, kept, spread, flags)
            put(terms, n, term if counts else kind(0))
        sync_warp()  # g may be x, whose number at the label all of the team have read
        if flags & WRITES and row < rows:
            slopes = factors(b, w, own, others, whole, kept, spread)
            finish(e, g, start, first, classes, label, counts, slopes, weight, flags)

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
