"""Softmax cross entropy of rows of very many classes, by a block a row.

The logits are read twice: for the sum of exponentials, kept up to date as greater logits come, then
for the gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.elementary import EXPONENTIALS
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, put, widen
from ..toolchain.teams import cuda, team_max, team_sum
from ..toolchain.vectors import (
    AT_ONCE,
    MOST,
    make_exponentiate,
    make_greatest,
    make_read,
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


def make_streams(code: str, team: int) -> Callable[..., None]:
    """Return the kernel for a dtype and blocks of ``team`` threads."""
    kind, width, vectors = WIDE[code], VECTOR[code], AT_ONCE[code]
    size, chunk = vectors * width, vectors * width * team
    read = make_read(code, team, vectors)
    shifts_of, hide, finish = make_parts(code, team, vectors)
    greatest, exponential = make_greatest(code, vectors), EXPONENTIALS[kind]
    exponentiate = make_exponentiate(code, team, vectors)

    def streams(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any,
        g: Any, terms: Any, rows: int, classes: int, inner: int, ignore: int, flags: int,
        kept: float, spread: float, sharpness: float, unit: float,
    ) -> None:  # fmt: skip
        room, e = cuda.shared.array(32, kind), cuda.local.array(size, kind)
        t, n = np.int32(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        start, own_classes = n * classes, np.int32(classes)
        ahead = np.int32(start & (width - 1))
        extent = np.int32(own_classes + ahead)
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        at_label = widen(get(x, start + label))
        mine, others, shifts = at_label, kind(0), kind(0)
        for base in range(0, extent, chunk):
            first = np.int32(base + t * width - ahead)
            read(e, x, start, first, own_classes, kind(-math.inf))
            hide(e, np.int32(label - first))
            most = greatest(e, mine)
            if most > mine:
                others *= exponential((mine - most) * sharpness)
                mine = most
            if mine != -math.inf:
                others += exponentiate(e, base, extent, mine, sharpness)
        top = team_max(mine, room, t, team)
        if mine < top:
            others *= exponential((mine - top) * sharpness)
        others = team_sum(others, room, t, team)
        shift = (at_label - top) * sharpness
        own, whole = kind(math.exp(shift)), sum_of_weights(weight_sum, classes, flags, unit)
        if flags & (WRITES | SMOOTHED):
            slopes = factors(b, w, own, others, whole, kept, spread)
            for base in range(0, extent, chunk):
                first = np.int32(base + t * width - ahead)
                read(e, x, start, first, own_classes, kind(-math.inf))
                if flags & SMOOTHED:
                    shifts += shifts_of(e, first, own_classes, top, sharpness, weight, flags)
                exponentiate(e, base, extent, top, sharpness)
                if flags & WRITES:
                    finish(e, g, start, first, own_classes, label, counts, slopes, weight, flags)
            if flags & SMOOTHED:
                shifts = team_sum(shifts, room, t, team)
        if t == 0:
            term = term_of(a, w, own, others, shift, shifts, whole, kept, spread, flags)
            put(terms, n, term if counts else kind(0))

    streams.__qualname__ = f"streams_{team}"
    return streams


@functools.cache
def streams_kernel(code: str, team: int) -> Kernel:
    """Return the kernel for a dtype and a team, made once."""
    return Kernel(make_streams(code, team), parameters_of(code), team, 1)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [streams_kernel(code, MOST[code]) for code in WIDE]
