"""Softmax cross entropy over labels: the formulas of a sample, whoever reads its logits.

Notation of ``class_loss.py``: q, a and w; d is ``(z - max(z)) / T``, "own" is ``exp(d)`` at the
label and "others" the sum over the other classes, "shift" is d at the label, "shifts" the sum of
``w d``; b is the gradient of the loss with respect to a term, times a, over the temperature. The
kernels take logits ``x``, ``labels``, the gradient ``g`` and ``terms``; if ``flags`` say so,
``weight`` of classes, its sum ``weight_sum[0]``, ``sample_weight`` and ``divisor[1]``, which
multiplies ``unit``; and the numbers of `Samples` and `Factors`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..toolchain.dtypes import of_wide
from ..toolchain.launching import I4, I8, codes_of
from ..toolchain.ptx import get
from ..toolchain.teams import device

WEIGHTED, SAMPLED, IGNORES, DIVIDED, WRITES, SMOOTHED = (1 << k for k in range(6))
"""What ``flags`` say is there: arrays, options, a gradient to write."""


class Samples(NamedTuple):
    """The `Layout` of the logits, the label that is ignored, and what there is."""

    rows: I8
    classes: I8
    inner: I8
    ignore: I8
    flags: I4


class Factors(NamedTuple):
    """What terms and gradients are multiplied by."""

    kept: float
    """1 - label_smoothing."""
    spread: float
    """label_smoothing / classes."""
    sharpness: float
    """1 / T."""
    unit: float
    """The gradient of the loss with respect to a term."""


def parameters_of(code: str) -> str:
    """Return the types of the parameters of a kernel for logits of the dtype ``code``.

    x, labels, weight, sample_weight, weight_sum, divisor, g, terms; samples; factors.
    """
    k = of_wide(code)
    arrays = f"{code}* i8* {k}* {k}* f8* f8* {code}* f8*"
    return f"{arrays} {codes_of(Samples)} {codes_of(Factors, k)}"


@device
def is_counted(n: Any, label: Any, sample_weight: Any, ignore: Any, flags: Any) -> Any:
    """Return whether sample n counts: its label is not ignored, and its weight is not 0."""
    if flags & IGNORES and label == ignore:
        return False
    return not (flags & SAMPLED and get(sample_weight, n) == 0)


@device
def describe(
    n: Any, labels: Any, weight: Any, sample_weight: Any, divisor: Any,
    classes: Any, ignore: Any, flags: Any, unit: Any,
) -> Any:  # fmt: skip
    """Return a sample's label (0 if out of range), whether it counts, a, w and b."""
    kind = type(unit)
    label, a, w = get(labels, n), kind(1), kind(1)
    counts = is_counted(n, label, sample_weight, ignore, flags)
    known = label >= 0 and label < classes
    label = label if known else 0
    if flags & WEIGHTED:
        w = get(weight, label)
    if flags & SAMPLED:
        a = get(sample_weight, n)
    if not known:
        a = kind(math.nan)
    b = a * unit
    if flags & DIVIDED:
        b *= kind(get(divisor, 1))
    return label, counts, a, w, b


@device
def sum_of_weights(weight_sum: Any, classes: Any, flags: Any, like: Any) -> Any:
    """Return the sum of w over the classes as the type of ``like``; needed for smoothing alone."""
    kind = type(like)
    if flags & WEIGHTED and flags & SMOOTHED:
        return kind(get(weight_sum, 0))
    return kind(classes)


@device
def weighted(weight: Any, j: Any, flags: Any, d: Any) -> Any:
    """Return w d of class j, which is 0 where w is 0, also for d = -inf."""
    kind = type(d)
    w = get(weight, j) if flags & WEIGHTED else kind(1)
    return kind(0) if w == 0 and d == kind(-math.inf) else w * d


@device
def term_of(
    a: Any, w: Any, own: Any, others: Any, shift: Any, shifts: Any, whole: Any,
    kept: Any, spread: Any, flags: Any,
) -> Any:  # fmt: skip
    """Return a sample's term of the loss: see the formulas of ``class_loss.py``."""
    kind = type(w)
    # all the exponentials but the largest, which is 1
    log_sum = math.log1p(others if shift == 0 else (others + own) - kind(1))
    q, loss = kept * w, log_sum - shift
    term = kind(0) if q == 0 and loss == kind(math.inf) else q * loss
    if flags & SMOOTHED:
        term += spread * (whole * log_sum - shifts)
    return a * term


@device
def factors(b: Any, w: Any, own: Any, others: Any, whole: Any, kept: Any, spread: Any) -> Any:
    """Return what turns exponentials into gradients, the gradient at the label, and what all lose.

    That at the label is made of the smaller of own and others: p - 1 loses its digits where p is
    almost 1.
    """
    q, rest = kept * w + spread * w, spread * (whole - w)
    total, s = q + rest, own + others
    slope = rest - total * (others / s) if others < own else total * (own / s) - q
    return b * total / s, b * slope, b * spread
