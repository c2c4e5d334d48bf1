"""Softmax cross entropy of what does not fit registers, and what surrounds it.

Rows of very many classes, by a block; and classes that lie apart, behind other axes, by a thread a
sample. Both read the logits twice: for the sum of exponentials, kept up to date as greater logits
come, then for the gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE, of_wide
from ..toolchain.launching import Kernel, codes_of
from ..toolchain.ptx import get, narrow, put, widen
from ..toolchain.teams import cuda, device, team_max, team_sum
from .formulas import (
    SAMPLED,
    SMOOTHED,
    WEIGHTED,
    WRITES,
    Samples,
    describe,
    factors,
    is_counted,
    parameters_of,
    sum_of_weights,
    term_of,
    weighted,
)

THREADS = 256
MOST = {"f4": 1024, "f8": 512, "f2": 1024, "u2": 1024}
"""Threads of a row so long that a multiprocessor shall do but one: the rows that all of them do at
a time then stay in cache until they are read again."""

LONG = 1 << 16  # bytes of such a row
AT_ONCE = 4  # logits that a thread waits for together
PER_THREAD = 16  # samples, or elements


def make_sweeps(code: str, team: int) -> tuple[Callable[..., Any], ...]:
    """Return the two functions by which a thread goes over its classes of a row."""
    kind: Any = WIDE[code]

    @device
    def summed(
        x: Any, start: Any, lane: Any, classes: Any, inner: Any, label: Any, top: Any,
        sharpness: Any,
    ) -> Any:  # fmt: skip
        """Return the greatest logit, and the sum of exponentials without the label's."""
        others, nothing = kind(0), kind(-math.inf)
        v = cuda.local.array(AT_ONCE, kind)
        for j in range(lane, classes, team * AT_ONCE):
            for u in range(AT_ONCE):
                c = j + u * team
                v[u] = widen(get(x, start + c * inner)) if c < classes else nothing
            most = max(max(v[0], v[1]), max(v[2], v[3]))
            if most > top:
                others *= math.exp((top - most) * sharpness)
                top = most
            for u in range(AT_ONCE):
                if v[u] != nothing and j + u * team != label:
                    others += math.exp((v[u] - top) * sharpness)
        return top, others

    @device
    def written(
        x: Any, g: Any, start: Any, lane: Any, classes: Any, inner: Any, label: Any, counts: Any,
        top: Any, sharpness: Any, scale: Any, slope: Any, share: Any, weight: Any, flags: Any,
    ) -> Any:  # fmt: skip
        """Write the gradient, if wanted; return shifts, with smoothing."""
        shifts = kind(0)
        v = cuda.local.array(AT_ONCE, kind)
        for j in range(lane, classes, team * AT_ONCE):
            for u in range(AT_ONCE):
                c = j + u * team
                v[u] = widen(get(x, start + c * inner)) if c < classes else kind(0)
            for u in range(AT_ONCE):
                c = j + u * team
                if c < classes:
                    d = (v[u] - top) * sharpness
                    dz = slope if c == label else math.exp(d) * scale
                    if flags & SMOOTHED:
                        shifts += weighted(weight, c, flags, d)
                        if c != label:
                            dz -= share * get(weight, c) if flags & WEIGHTED else share
                    if flags & WRITES:
                        put(g, start + c * inner, narrow(g, dz if counts else kind(0)))
        return shifts

    return summed, written


def make_streams(code: str, team: int) -> Callable[..., None]:
    """Return the kernel for a dtype, with a sample by ``team`` threads: one, or a whole block."""
    kind, in_block = WIDE[code], max(1, THREADS // team)
    summed, written = make_sweeps(code, team)

    def streams(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any,
        g: Any, terms: Any, rows: int, classes: int, inner: int, ignore: int, flags: int,
        kept: float, spread: float, sharpness: float, unit: float,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, kind)
        t = cuda.threadIdx.x
        lane, n = t % team, np.int64(cuda.blockIdx.x) * in_block + t // team
        if n >= rows:  # only where a thread is its own team
            return
        start = n // inner * classes * inner + n % inner
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        at_label = widen(get(x, start + label * inner))
        mine, others = summed(x, start, lane, classes, inner, label, at_label, sharpness)
        top = team_max(mine, room, t, team)
        others = team_sum(others * math.exp((mine - top) * sharpness), room, t, team)
        shift = (at_label - top) * sharpness
        own, whole = math.exp(shift), sum_of_weights(weight_sum, classes, flags, unit)
        shifts = kind(0)
        if flags & (WRITES | SMOOTHED):
            scale, slope = factors(b, w, own, others, whole, kept, spread)
            shifts = written(
                x, g, start, lane, classes, inner, label, counts, top, sharpness, scale, slope,
                b * spread, weight, flags,
            )  # fmt: skip
            if flags & SMOOTHED:
                shifts = team_sum(shifts, room, t, team)
        if lane == 0:
            term = term_of(a, w, own, others, shift, shifts, whole, kept, spread, flags)
            put(terms, n, term if counts else kind(0))

    streams.__qualname__ = f"streams_{team}"
    return streams


# --- what the mean divides by, and what a cotangent multiplies -----------------------------------


def masses(
    labels: Any, weight: Any, sample_weight: Any, sums: Any,
    rows: int, classes: int, ignore: int, flags: int,
) -> None:  # fmt: skip
    """Write each block's sum of ``a w`` over those of its samples that count."""
    room = cuda.shared.array(32, np.float64)
    t = cuda.threadIdx.x
    total = 0.0
    for u in range(PER_THREAD):
        n = (np.int64(cuda.blockIdx.x) * PER_THREAD + u) * THREADS + t
        if n < rows:
            label, mass = get(labels, n), 1.0
            if is_counted(n, label, sample_weight, ignore, flags):
                if flags & WEIGHTED:
                    known = label >= 0 and label < classes
                    mass = np.float64(get(weight, label)) if known else 0.0
                if flags & SAMPLED:
                    mass *= np.float64(get(sample_weight, n))
                total += mass
    total = team_sum(total, room, t, THREADS)
    if t == 0:
        put(sums, cuda.blockIdx.x, total)


def multiply(
    g: Any, labels: Any, sample_weight: Any, dy: Any,
    rows: int, classes: int, inner: int, ignore: int, flags: int, each: int,
) -> None:  # fmt: skip
    """Multiply a gradient by the cotangent of the loss, or ``each`` sample's by its own.

    One that is 1 costs nothing.
    """
    if not each and widen(get(dy, 0)) == 1:
        return
    for u in range(PER_THREAD):
        i = (np.int64(cuda.blockIdx.x) * PER_THREAD + u) * THREADS + cuda.threadIdx.x
        if i < rows * classes:
            n = i // (classes * inner) * inner + i % inner
            if is_counted(n, get(labels, n), sample_weight, ignore, flags):
                put(g, i, narrow(g, widen(get(g, i)) * widen(get(dy, n if each else 0))))


@functools.cache
def streams_kernel(code: str, team: int) -> Kernel:
    """Return the kernel for a dtype and a team, made once."""
    threads = max(THREADS, team)
    blocks = max(1, (512 if code == "f8" else 768) // threads)
    return Kernel(make_streams(code, team), parameters_of(code), threads, blocks)


def team_of_row(code: str, size: int) -> int:
    """Return the threads of a row of ``size`` bytes."""
    return THREADS if size < LONG else MOST[code]


@functools.cache
def masses_kernel(code: str) -> Kernel:
    """Return the kernel of `masses` for weights of the dtype ``code``, made once."""
    return Kernel(masses, f"i8* {code}* {code}* f8* i8 i8 i8 i4", THREADS, 4)


@functools.cache
def multiply_kernel(code: str) -> Kernel:
    """Return the kernel of `multiply` for gradients of the dtype ``code``, made once."""
    parameters = f"{code}* i8* {of_wide(code)}* {code}* {codes_of(Samples)} i4"
    return Kernel(multiply, parameters, THREADS, 4)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [streams_kernel(code, team) for code in WIDE for team in (1, THREADS, MOST[code])]
    return made + [masses_kernel(code) for code in ("f4", "f8")] + list(map(multiply_kernel, WIDE))
