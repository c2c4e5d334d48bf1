"""Softmax cross entropy of classes that lie apart, behind other axes, by a thread a sample.

The logits are read twice: for the sum of exponentials, kept up to date as greater logits come, then
for the gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.elementary import EXPONENTIALS
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, narrow, put, widen
from ..toolchain.teams import cuda, device
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

THREADS = 256
AT_ONCE = 4  # logits that a thread waits for together


def make_sweeps(code: str) -> tuple[Callable[..., Any], ...]:
    """Return the two functions by which a thread goes over its classes of a row."""
    kind: Any = WIDE[code]
    exponential = EXPONENTIALS[kind]

    @device
    def summed(
        x: Any, start: Any, classes: Any, inner: Any, label: Any, top: Any,
        sharpness: Any,
    ) -> Any:  # fmt: skip
        """Return the greatest logit, and the sum of exponentials without the label's."""
        others, nothing = kind(0), kind(-math.inf)
        v = cuda.local.array(AT_ONCE, kind)
        for j in range(0, classes, AT_ONCE):
            for u in range(AT_ONCE):
                c = j + u
                v[u] = widen(get(x, start + c * inner)) if c < classes else nothing
            most = max(max(v[0], v[1]), max(v[2], v[3]))
            if most > top:
                others *= exponential((top - most) * sharpness)
                top = most
            for u in range(AT_ONCE):
                if v[u] != nothing and j + u != label:
                    others += exponential((v[u] - top) * sharpness)
        return top, others

    @device
    def written(
        x: Any, g: Any, start: Any, classes: Any, inner: Any, label: Any, counts: Any,
        top: Any, sharpness: Any, scale: Any, slope: Any, share: Any, weight: Any, flags: Any,
    ) -> Any:  # fmt: skip
        """Write the gradient, if wanted; return shifts, with smoothing."""
        shifts = kind(0)
        v = cuda.local.array(AT_ONCE, kind)
        for j in range(0, classes, AT_ONCE):
            for u in range(AT_ONCE):
                c = j + u
                v[u] = widen(get(x, start + c * inner)) if c < classes else kind(0)
            for u in range(AT_ONCE):
                c = j + u
                if c < classes:
                    d = (v[u] - top) * sharpness
                    dz = slope if c == label else exponential(d) * scale
                    if flags & SMOOTHED:
                        shifts += weighted(weight, c, flags, d)
                        if c != label:
                            dz -= share * get(weight, c) if flags & WEIGHTED else share
                    if flags & WRITES:
                        put(g, start + c * inner, narrow(g, dz if counts else kind(0)))
        return shifts

    return summed, written


def make_apart(code: str) -> Callable[..., None]:
    """Return the kernel for a dtype."""
    kind: Any = WIDE[code]
    summed, written = make_sweeps(code)

    def apart(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any,
        g: Any, terms: Any, rows: int, classes: int, inner: int, ignore: int, flags: int,
        kept: float, spread: float, sharpness: float, unit: float,
    ) -> None:  # fmt: skip
        n = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if n >= rows:
            return
        start = n // inner * classes * inner + n % inner
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        at_label = widen(get(x, start + label * inner))
        top, others = summed(x, start, classes, inner, label, at_label, sharpness)
        shift = (at_label - top) * sharpness
        own, whole = kind(math.exp(shift)), sum_of_weights(weight_sum, classes, flags, unit)
        shifts = kind(0)
        if flags & (WRITES | SMOOTHED):
            scale, slope, share = factors(b, w, own, others, whole, kept, spread)
            shifts = written(
                x, g, start, classes, inner, label, counts, top, sharpness, scale, slope, share,
                weight, flags,
            )  # fmt: skip
        term = term_of(a, w, own, others, shift, shifts, whole, kept, spread, flags)
        put(terms, n, term if counts else kind(0))

    apart.__qualname__ = "apart"
    return apart


@functools.cache
def apart_kernel(code: str) -> Kernel:
    """Return the kernel for a dtype, made once."""
    blocks = 2 if code == "f8" else 3
    return Kernel(make_apart(code), parameters_of(code), THREADS, blocks)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [apart_kernel(code) for code in WIDE]
