"""The kernels of the binary losses: terms, their sums and gradients in one pass.

Notation of ``binary_losses.py``; a weight that broadcasts belongs to element i at
``i // inner % period``. What ``flags`` do not name is neither read nor written. `Places` and
`Factors` are the numbers that the kernels take.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ....operations.binary_losses import LOG_FLOOR
from ..toolchain.dtypes import WIDE, of_wide
from ..toolchain.elementary import exp_minus_abs, sigmoid_of, times_log
from ..toolchain.launching import I8, Kernel, codes_of
from ..toolchain.ptx import get, narrow, put, widen
from ..toolchain.teams import cuda, device, team_sum

WEIGHTED, POSITIVE, SAMPLED, DIVIDED, ONE, EACH, SKIPS, SUMS, TERMS, SCORES, TARGETS = (
    1 << k for k in range(11)
)
"""What there is: weight, pos_weight, sample_weight, a divisor, a cotangent of all or of each, one
that need not be multiplied by if it is 1; what is wanted: sums of blocks, terms, both gradients."""

THREADS = 256
PER_THREAD = 4  # elements
BLOCK = THREADS * PER_THREAD

CLAMPED = math.exp(LOG_FLOOR)


class Places(NamedTuple):
    """How many elements there are, and where the weights of each lie."""

    n: I8
    inner: I8
    """Of weight, as is period."""
    period: I8
    pos_inner: I8
    """Of pos_weight, as is pos_period."""
    pos_period: I8
    of_sample: I8
    """How many elements have the same sample_weight."""


class Factors(NamedTuple):
    """What targets and gradients are multiplied by."""

    kept: float
    """1 - label_smoothing."""
    spread: float
    """label_smoothing / 2."""
    unit: float
    """The gradient of the loss with respect to a term."""


# --- formulas ------------------------------------------------------------------------------------
# logs: log p and log(1 - p); slopes: minus the derivative of log(1 - p), and that of log p, times
# a number each, which comes first: the derivative alone may overflow


@device
def logs_of_logit(v: Any) -> Any:
    """Return log p and log(1 - p) at the logit v."""
    kind = type(v)
    rest = kind(math.log1p(exp_minus_abs(v)))
    return (v if v < 0 else kind(0)) - rest, (-v if v > 0 else kind(0)) - rest


@device
def slopes_of_logit(v: Any, negative: Any, positive: Any) -> Any:
    """Return both slopes at the logit v, which keep their digits where p is almost 1."""
    return negative * sigmoid_of(v), positive * sigmoid_of(-v)


@device
def is_clamped(p: Any) -> Any:
    """Return whether log(p) is clamped; it is not at NaN, which must show."""
    return p <= type(p)(CLAMPED)


@device
def clamped_log(p: Any) -> Any:
    """Return log(p), but no less than LOG_FLOOR."""
    kind = type(p)
    return kind(LOG_FLOOR) if is_clamped(p) else kind(math.log(p))


@device
def clamped_quotient(a: Any, p: Any) -> Any:
    """Return a times the derivative of `clamped_log` at p."""
    return type(p)(0) if is_clamped(p) else a / p


@device
def logs_of_probability(p: Any) -> Any:
    """Return log p and log(1 - p) of a probability, clamped; the latter is so at 1 alone."""
    kind = type(p)
    return clamped_log(p), kind(LOG_FLOOR) if p >= kind(1) else kind(math.log1p(-p))


@device
def slopes_of_probability(p: Any, negative: Any, positive: Any) -> Any:
    """Return both slopes at a probability, which are 0 where the logarithm is clamped."""
    return clamped_quotient(negative, type(p)(1) - p), clamped_quotient(positive, p)


@device
def times_clamped(t: Any, log_p: Any) -> Any:
    """Return t * log_p; a clamped logarithm is never -inf, and of p outside [0, 1] NaN shows."""
    return t * log_p


FORMULAS = {
    "binary_cross_entropy_with_logits": (logs_of_logit, slopes_of_logit, times_log),
    "binary_cross_entropy": (logs_of_probability, slopes_of_probability, times_clamped),
}

# --- kernels -------------------------------------------------------------------------------------


@device
def times(weight: Any, v: Any) -> Any:
    """Return weight * v, with 0 * NaN = 0 * inf = 0."""
    return type(v)(0) if weight == 0 else weight * v


@device
def weight_of(
    i: Any, weight: Any, inner: Any, period: Any, sample_weight: Any, of_sample: Any, flags: Any,
    like: Any,
) -> Any:  # fmt: skip
    """Return the weight of element i: of its class, times that of its sample."""
    found = type(like)(1)
    if flags & WEIGHTED:
        found = widen(get(weight, i // inner % period))
    if flags & SAMPLED:
        found *= widen(get(sample_weight, i // of_sample))
    return found


def make_binary(name: str, code: str) -> Callable[..., None]:
    """Return the kernel of the loss ``name`` for scores of the dtype ``code``."""
    kind: Any = WIDE[code]
    logs, slopes, product = FORMULAS[name]

    def binary(
        x: Any, target: Any, weight: Any, pos_weight: Any, sample_weight: Any, divisor: Any,
        dy: Any, sums: Any, terms: Any, dx: Any, dt: Any, n: int, inner: int, period: int,
        pos_inner: int, pos_period: int, of_sample: int, flags: int, kept: float, spread: float,
        unit: float,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, np.float64)
        scores = cuda.local.array(PER_THREAD, kind)
        targets = cuda.local.array(PER_THREAD, kind)
        first = np.int64(cuda.blockIdx.x) * BLOCK + cuda.threadIdx.x
        b, one, total = unit, kind(1), 0.0
        if flags & DIVIDED:
            b *= kind(get(divisor, 1))
        if flags & ONE:
            if flags & SKIPS and widen(get(dy, 0)) == one:
                return
            b *= widen(get(dy, 0))
        for u in range(PER_THREAD):
            i = first + u * THREADS
            if i < n:
                scores[u], targets[u] = widen(get(x, i)), widen(get(target, i))
        for u in range(PER_THREAD):
            i = first + u * THREADS
            if i < n:
                w = weight_of(i, weight, inner, period, sample_weight, of_sample, flags, unit)
                q = one
                if flags & POSITIVE:
                    q = widen(get(pos_weight, i // pos_inner % pos_period))
                v, t = scores[u], targets[u] * kept + spread
                log_p, log_q = logs(v)
                if flags & (SUMS | TERMS):
                    term = times(w, -(times(q, product(t, log_p)) + product(one - t, log_q)))
                    total += term
                    if flags & TERMS:
                        put(terms, i, narrow(terms, term))
                scale = b * widen(get(dy, i)) if flags & EACH else b
                if flags & SCORES:
                    up, down = slopes(v, scale * (one - t), scale * t)
                    put(dx, i, narrow(dx, times(w, up - times(q, down))))
                if flags & TARGETS:
                    slope = kept * (log_q - times(q, log_p))
                    put(dt, i, narrow(dt, times(w, scale * slope)))
        if flags & SUMS:
            total = team_sum(total, room, cuda.threadIdx.x, THREADS)
            if cuda.threadIdx.x == 0:
                put(sums, cuda.blockIdx.x, total)

    binary.__qualname__ = name
    return binary


def make_weights(code: str) -> Callable[..., None]:
    """Return the kernel that writes each block's sum of the weights of its elements."""
    kind: Any = WIDE[code]

    def weights(
        weight: Any, sample_weight: Any, sums: Any, n: int, inner: int, period: int,
        of_sample: int, flags: int,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, np.float64)
        first = np.int64(cuda.blockIdx.x) * BLOCK + cuda.threadIdx.x
        total = 0.0
        for u in range(PER_THREAD):
            i = first + u * THREADS
            if i < n:
                total += weight_of(
                    i, weight, inner, period, sample_weight, of_sample, flags, kind(1)
                )
        total = team_sum(total, room, cuda.threadIdx.x, THREADS)
        if cuda.threadIdx.x == 0:
            put(sums, cuda.blockIdx.x, total)

    weights.__qualname__ = "weights"
    return weights


@functools.cache
def binary_kernel(name: str, code: str) -> Kernel:
    """Return the kernel of the loss ``name`` for a dtype, made once."""
    x, numbers = f"{code}*", codes_of(Factors, of_wide(code))
    arrays = f"{x} {x} {x} {x} {x} f8* {x} f8* {x} {x} {x}"
    parameters = f"{arrays} {codes_of(Places)} i4 {numbers}"
    return Kernel(make_binary(name, code), parameters, THREADS, 2 if code == "f8" else 4)


@functools.cache
def weights_kernel(code: str) -> Kernel:
    """Return the kernel of the sums of weights for a dtype, made once."""
    return Kernel(make_weights(code), f"{code}* {code}* f8* i8 i8 i8 i8 i4", THREADS, 4)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [binary_kernel(name, code) for name in FORMULAS for code in WIDE]
    return made + [weights_kernel(code) for code in WIDE]
