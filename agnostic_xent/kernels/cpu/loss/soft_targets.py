"""Softmax cross entropy over probabilities: rows of logits and rows of targets.

With ``d = (z - max(z)) / T``, where offsets are added to z if there are any, s the sum of
``exp(d)`` and Q the sum of q, the term of a row is ``a (Q log s - sum q d)`` and its gradient
``a (Q exp(d) / s - q)``. A row whose q is all in one class is treated as that label: its gradient
there is ``-a Q others / s``. Notation of ``labels.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import SUM, borrowed, inlined, larger, log1p, njit, plain, row_max
from ..simd.rows import PIECE, exponentials, sum_beside_maximum
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Read1, Read2, Unnamed, Write2, WrittenDoubles
from ..toolchain.threads import PIECES
from .capped import capped, only_read, uncap
from .labels import offset_by


class Numbers(NamedTuple):
    """The options as the loops read them."""

    kept: float
    """1 - label_smoothing."""
    spread: float
    """label_smoothing / classes."""
    inverse_temperature: float
    temperature: float
    softcap: float
    """0 without one."""
    unbias: float
    weight_sum: float
    unit: float
    """The gradient of the loss with respect to a term, over the temperature."""
    z_loss: float
    sums: bool
    """Whether log-sum-exps are written, to the second half of the terms."""


NumbersIn = Annotated[Any, Unnamed(Numbers)]


@njit(**SUM, forceinline=True)
def weigh(x: Any, top: Any, t: Any, weight: Any, inverse_temperature: Any) -> Any:
    """Return the sums of w t, of w t d and of w d over a piece, and the largest w t.

    A factor of 0 leaves out -inf.
    """
    zero = x.dtype.type(0)
    mass, pull, even_pull, largest = zero, zero, zero, zero
    for j in range(x.size):
        q = weight[j] * t[j]
        d = (x[j] - top) * inverse_temperature
        mass += q
        pull += zero if (q == zero) & (d == -np.inf) else q * d
        even_pull += zero if (weight[j] == zero) & (d == -np.inf) else weight[j] * d
        largest = larger(q, largest)
    return mass, pull, even_pull, largest


@inlined
def subtract_target(e: Any, a: Any, t: Any, weight: Any, kept: Any, spread: Any, b: Any) -> None:
    """Turn exponentials into the gradient: multiply by a, and take b q off."""
    for j in range(e.size):
        e[j] = e[j] * a - weight[j] * (t[j] * kept + spread) * b


@inlined
def move(x: Any, base: Any, offset: Any, moved: Any) -> None:
    """Write logits to ``moved``, less ``base`` and with their offsets."""
    for j in range(x.size):
        moved[j] = (x[j] - base) + offset[j]


@plain
def soft_row(x: Any, base: Any, t: Any, weight: Any, a: Any, numbers: Numbers, e: Any) -> Any:
    """Write the gradient of the row ``x + base`` to e; return its term and log-sum-exp."""
    kind, top, classes = x.dtype.type, row_max(x), x.size
    kept, spread = kind(numbers.kept), kind(numbers.spread)
    inverse_temperature = kind(numbers.inverse_temperature)
    of_target, pull, even_pull, largest, total = 0.0, 0.0, 0.0, kind(0), 0.0
    for start in range(0, classes, PIECE):
        z, stop = x[start : start + PIECE], start + PIECE
        m, p, even, high = weigh(z, top, t[start:stop], weight[start:stop], inverse_temperature)
        of_target, pull, largest = (
            of_target + np.float64(m),
            pull + np.float64(p),
            max(largest, high),
        )
        even_pull += np.float64(even)
        total += np.float64(exponentials(z, top, inverse_temperature, e[start:stop]))
    mass = numbers.kept * of_target
    pull = numbers.kept * pull if numbers.kept > 0 else 0.0  # it may be -inf
    if numbers.spread > 0:
        mass += numbers.spread * numbers.weight_sum
        pull += numbers.spread * even_pull
    one = 1 / numbers.unbias
    beside_top = sum_beside_maximum(e, total, numbers.unbias)
    log_sum, total = log1p(beside_top * numbers.unbias), beside_top + one
    loss = 0.0 if (mass == 0) & (log_sum == np.inf) else mass * log_sum - pull
    log_sum += (np.float64(base) + np.float64(top)) * numbers.inverse_temperature
    z_pull = 0.0
    if numbers.z_loss > 0:
        loss, z_pull = loss + numbers.z_loss * log_sum * log_sum, 2 * numbers.z_loss * log_sum
    b = numbers.unit * a
    label, at_label = -1, 0.0
    if numbers.spread == 0 and largest == of_target and mass > 0:
        for j in range(classes):
            if weight[j] * t[j] == largest:
                label = j
        beside = beside_top if e[label] == kind(one) else total - np.float64(e[label])
        at_label = b * (z_pull * (total - beside) - mass * beside) / total
    for start in range(0, classes, PIECE):
        stop = start + PIECE
        subtract_target(
            e[start:stop], kind(b * (mass + z_pull) / total), t[start:stop], weight[start:stop],
            kept, spread, kind(b),
        )  # fmt: skip
    if label >= 0:
        e[label] = at_label
    return a * loss, log_sum


@compiled_in_parts(PIECES, kind=FLOATS)
def soft(
    x: Read2, t: Read2, weight: Read1, sample_weight: Read1, prior: Read1, numbers: NumbersIn,
    g: Write2, terms: WrittenDoubles, parts: int, part: int,
) -> None:  # fmt: skip
    """Write the terms of rows of logits x and targets t, and the gradient unless g is empty."""
    x, t, weight, g = borrowed(x), borrowed(t), borrowed(weight), borrowed(g)
    numbers, moved = Numbers(*numbers), np.empty(prior.size, x.dtype)
    offset = offset_by(prior, numbers.temperature, numbers.softcap)
    room = np.empty(x.shape[1] if numbers.softcap > 0 else 0, x.dtype)
    scratch = np.empty(0 if g.size else x.shape[1], x.dtype)
    for n in range(x.shape[0] * part // parts, x.shape[0] * (part + 1) // parts):
        e, base = g[n] if g.size else scratch, x.dtype.type(0)
        z = capped(x[n], numbers.softcap, numbers.unbias, borrowed(room))
        row = z
        a = np.float64(sample_weight[n]) if sample_weight.size else 1.0
        if a != 0 or numbers.sums:
            if offset.size:
                base = row_max(row)
                move(row, base, offset, moved)
                row = only_read(borrowed(moved))
            terms[n], log_sum = soft_row(row, base, t[n], weight, a, numbers, e)
            if numbers.softcap > 0:
                uncap(e, z)
            if numbers.sums:
                terms[x.shape[0] + n] = log_sum
        if a == 0:
            terms[n] = 0
            e[:] = 0
