"""Binary cross entropy of logits: term and gradient of each element in one pass.

With ``e = exp(-abs(z))`` and ``r = log1p(e)``, ``log s(z) = min(z, 0) - r`` and
``log s(-z) = min(-z, 0) - r``; the gradient of a term is ``w ((1 - t) s(z) - q t s(-z))``, which
keeps its digits where s(z) is almost t. Notation of ``binary_losses.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import inlined, log1p, plain
from ..simd.elements import exp_minus_abs
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Read1, Unnamed, Write1, WrittenDoubles
from ..toolchain.threads import PIECES

BLOCK = 16384
"""Elements whose terms are added up together."""


class Numbers(NamedTuple):
    """The options as the loops read them."""

    smoothing: float
    """label_smoothing: each of the two classes gets half of it."""
    unbias: float
    """What turns biased exponentials into exponentials."""
    unit: float
    """The gradient of the loss with respect to a term."""


NumbersIn = Annotated[Any, Unnamed(Numbers)]


@inlined
def times_log(t: Any, log_p: Any) -> Any:
    """Return t * log_p with 0 * -inf = 0."""
    return 0.0 if (t == 0) & (log_p == -np.inf) else t * log_p


@plain
def some_elements(z: Any, t: Any, w: Any, q: Any, numbers: Numbers, terms: Any, g: Any) -> None:
    """Write the terms of a block of logits z, and the gradient unless g has no elements."""
    kind, smoothing = z.dtype.type, numbers.smoothing
    zero, one, factor = kind(0), kind(1), kind(numbers.unbias)
    for j in range(z.size):
        rest = log1p(np.float64(exp_minus_abs(z[j], factor)))
        smooth = np.float64(t[j]) * (1 - smoothing) + smoothing / 2
        positive = times_log(smooth, np.float64(z[j] if z[j] < zero else zero) - rest)
        negative = times_log(1 - smooth, np.float64(-z[j] if z[j] > zero else zero) - rest)
        if q.size:
            positive = 0.0 if q[j] == zero else positive * np.float64(q[j])
        terms[j] = -(positive + negative)
    for j in range(w.size):
        terms[j] = 0.0 if w[j] == zero else terms[j] * np.float64(w[j])
    if g.size == 0:
        return
    keep, half = kind(1 - smoothing), kind(smoothing / 2)
    for j in range(z.size):
        e = exp_minus_abs(z[j], factor)
        smooth = t[j] * keep + half
        above, below = (one if z[j] >= 0 else e), (e if z[j] >= 0 else one)
        positive = smooth * q[j] if q.size else smooth
        g[j] = ((one - smooth) * above - positive * below) / (one + e) * kind(numbers.unit)
    for j in range(w.size):
        g[j] = zero if w[j] == zero else g[j] * w[j]


@compiled_in_parts(PIECES, kind=FLOATS)
def binary(
    z: Read1, t: Read1, w: Read1, q: Read1, numbers: NumbersIn, terms: WrittenDoubles,
    sums: WrittenDoubles, g: Write1, parts: int, part: int,
) -> None:  # fmt: skip
    """Do a part of the blocks of logits z: write a sum of terms each, the terms, the gradient g.

    Weights w, positive weights q, terms and g may have no elements.
    """
    numbers = Numbers(*numbers)
    for i in range(sums.size * part // parts, sums.size * (part + 1) // parts):
        start, stop = i * BLOCK, min(i * BLOCK + BLOCK, z.size)
        found = terms[start:stop] if terms.size else np.empty(stop - start)
        some_elements(z[start:stop], t[start:stop], w[start:stop], q[start:stop], numbers, found,
                      g[start:stop])  # fmt: skip
        total = 0.0
        for j in range(found.size):
            total += found[j]
        sums[i] = total
