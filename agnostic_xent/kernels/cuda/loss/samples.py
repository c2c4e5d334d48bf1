"""What the mean divides by, and what a cotangent multiplies: over samples with labels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE, of_wide
from ..toolchain.launching import Kernel, codes_of
from ..toolchain.ptx import get, narrow, put, widen
from ..toolchain.teams import cuda, team_sum
from .formulas import SAMPLED, WEIGHTED, Samples, is_counted

THREADS = 256
PER_THREAD = 16  # samples, or elements


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
    return [masses_kernel(code) for code in ("f4", "f8")] + list(map(multiply_kernel, WIDE))
