"""Softmax cross entropy of rows that shared memory holds: one read, one write, by a block a row.

A thread keeps its numbers of a row there, in place of registers, and reads none of another's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, put, widen
from ..toolchain.teams import cuda, team_max, team_sum
from ..toolchain.vectors import (
    AT_ONCE,
    HELD,
    make_exponentiate,
    make_greatest,
    make_keep,
    make_read,
    make_take,
    room_for,
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


def make_held(code: str, team: int) -> Callable[..., None]:
    """Return the kernel for a dtype and blocks of ``team`` threads."""
    kind, width, vectors = WIDE[code], VECTOR[code], AT_ONCE[code]
    size, chunk = vectors * width, vectors * width * team
    read = make_read(code, team, vectors)
    keep, take = make_keep(code, team, vectors), make_take(code, team, vectors)
    shifts_of, hide, finish = make_parts(code, team, vectors)
    greatest, exponentiate = make_greatest(code, vectors), make_exponentiate(code, team, vectors)

    def held(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any,
        g: Any, terms: Any, rows: int, classes: int, inner: int, ignore: int, flags: int,
        kept: float, spread: float, sharpness: float, unit: float,
    ) -> None:  # fmt: skip
        room, row = cuda.shared.array(32, kind), cuda.shared.array(0, kind, alignment=16)
        e = cuda.local.array(size, kind)
        t, n = np.int32(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        start, own_classes = n * classes, np.int32(classes)
        ahead = np.int32(start & (width - 1))
        extent = np.int32(own_classes + ahead)
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        at_label = widen(get(x, start + label))
        top = kind(-math.inf)
        for base in range(0, extent, chunk):
            first = np.int32(base + t * width - ahead)
            read(e, x, start, first, own_classes, kind(-math.inf))
            keep(row, e, base, t, extent)
            top = greatest(e, top)
        top = team_max(top, room, t, team)
        others, shifts = kind(0), kind(0)
        for base in range(0, extent, chunk):
            first = np.int32(base + t * width - ahead)
            take(e, row, base, t, extent)
            if flags & SMOOTHED:
                shifts += shifts_of(e, first, own_classes, top, sharpness, weight, flags)
            hide(e, np.int32(label - first))
            others += exponentiate(e, base, extent, top, sharpness)
            keep(row, e, base, t, extent)
        others = team_sum(others, room, t, team)
        if flags & SMOOTHED:
            shifts = team_sum(shifts, room, t, team)
        shift = (at_label - top) * sharpness
        own, whole = kind(math.exp(shift)), sum_of_weights(weight_sum, classes, flags, unit)
        if t == 0:
            term = term_of(a, w, own, others, shift, shifts, whole, kept, spread, flags)
            put(terms, n, term if counts else kind(0))
        if flags & WRITES:
            slopes = factors(b, w, own, others, whole, kept, spread)
            for base in range(0, extent, chunk):
                first = np.int32(base + t * width - ahead)
                take(e, row, base, t, extent)
                finish(e, g, start, first, own_classes, label, counts, slopes, weight, flags)

    held.__qualname__ = f"held_{team}"
    return held


@functools.cache
def held_kernel(code: str, team: int) -> Kernel:
    """Return the kernel for a dtype and a team, made once."""

    def shared(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any, g: Any,
        terms: Any, rows: int, classes: int, *others: Any,
    ) -> int:  # fmt: skip
        return room_for(code, classes)

    return Kernel(make_held(code, team), parameters_of(code), team, 1024 // team, shared)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [held_kernel(code, team) for code in WIDE for team, _ in HELD]
