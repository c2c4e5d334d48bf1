"""Softmax cross entropy over labels in one pass: the formulas of a sample, and rows of classes.

Notation: e are the exponentials of a row's ``(z - max(z)) / T``, s their sum, "own" the
exponential at the label and "others" the sum of the rest, "shift" is ``(z - max(z)) / T`` at the
label; q, a and w as in ``class_loss.py``. Without weights and smoothing ``l = log s - shift`` and
``dl/dz = e / s - q``. Classes with a prior have an offset, ``T log prior``, which is added to
``z - max(z)``; the maximum is then about that of ``z + offset``.

- Where own is the larger one, l is ``log1p(others / own)`` and the slope at the label
  ``-others / s``, so that a sample which is almost certain keeps its digits.
- The exponentials of a row go to the gradient's own row, which is scaled while it is in cache.
- Every sample writes its term to its own place and the terms are added at the end, so threads and
  blocks leave no trace in the bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..simd.elementary import SUM, borrowed, inlined, larger, log1p, njit, plain, row_max, row_sum
from ..simd.rows import PIECE, scale
from .sweep import sweep, sweep_moved

NOBODY, HIDDEN = -1, -2  # in place of a label: out of range, or of a sample that does not count


class Problem(NamedTuple):
    """The options as the loops read them; arrays that are not there have no elements."""

    weight: Any
    """w, a number a class; there whenever labels are smoothed."""
    sample_weight: Any
    ignore: int
    ignores: bool
    weight_sum: float
    smoothing: float
    """The share of the label that all classes get."""
    spread: float
    """The share that each of them gets: smoothing / classes."""
    inverse_temperature: float
    unbias: float
    """What turns a sum of biased exponentials into that of the exponentials."""
    unit: float
    """The gradient of the loss with respect to a term, over the temperature."""
    offset: Any
    """Of `offset_by`, a number a class; not borrowed, as nothing else keeps its memory."""
    offset_sum: float
    """The sum of w log prior."""
    z_loss: float
    """What the square of the log-sum-exp of the scores costs."""
    sums: bool
    """Whether log-sum-exps are written, to the second half of the terms."""


FACTOR, WEIGHT, OWN, OTHERS, SHIFT, SHIFTS, LOG_SUM = range(7)
"""Rows of the memory of `Samples`."""
ROWS = LOG_SUM + 1


class Samples(NamedTuple):
    """Numbers of a block of samples, an array each."""

    tag: Any
    """The label, NOBODY or HIDDEN."""
    factor: Any
    """a; NaN for NOBODY."""
    weight: Any
    """w at the label."""
    own: Any
    others: Any
    shift: Any
    shifts: Any
    """The sum of w times the shift of each class; with smoothing only."""
    log_sum: Any
    """What the scores lost before they became shifts; their log-sum-exp once terms are written."""


@plain
def offset_by(prior: Any, temperature: Any, softcap: Any) -> Any:
    """Return T log prior, divided by the cap if there is one: the offset of each class's logit."""
    factor = temperature / softcap if softcap > 0 else temperature
    offset = np.empty(prior.size, prior.dtype)
    for c in range(prior.size):
        p = np.float64(prior[c])
        size = log1p(max(p, 1 / p) - 1)  # which goes in lanes, as the logarithm itself does not
        offset[c] = factor * (size if p >= 1 else -size if p > 0 else -np.inf)
    return offset


@plain
def is_dead(label: Any, n: Any, sample_weight: Any, ignore: Any, ignores: Any) -> Any:
    """Return whether sample n with this label is ignored or has no weight."""
    return (ignores and label == ignore) or (sample_weight.size > 0 and sample_weight[n] == 0)


@plain
def describe(labels: Any, first: Any, classes: Any, problem: Any, tag: Any, memory: Any) -> Any:
    """Return the `Samples` of a block, of which nothing is known but labels and weights.

    They lie in ``tag`` and, as yet 0, in ``memory`` (ROWS, samples).
    """
    count = tag.size
    labels, sample_weight = labels[first : first + count], problem.sample_weight
    if sample_weight.size > 0:
        sample_weight = sample_weight[first : first + count]
    factor, weight = memory[FACTOR], memory[WEIGHT]
    for k in range(count):
        known = (labels[k] >= 0) & (labels[k] < classes)
        tag[k] = labels[k] if known else NOBODY
    for k in range(count):
        factor[k] = np.nan if tag[k] == NOBODY else 1.0
    for k in range(count):
        weight[k] = 1.0
    if problem.weight.size > 0:
        for k in range(count):
            weight[k] = problem.weight[max(tag[k], 0)]
    if sample_weight.size > 0:
        for k in range(count):
            factor[k] *= sample_weight[k]
    if problem.ignores or sample_weight.size > 0:
        for k in range(count):
            if is_dead(labels[k], k, sample_weight, problem.ignore, problem.ignores):
                tag[k] = HIDDEN
    own, others, shift, shifts = memory[OWN], memory[OTHERS], memory[SHIFT], memory[SHIFTS]
    return Samples(tag, factor, weight, own, others, shift, shifts, memory[LOG_SUM])


@plain
def pull_of(log_sum: Any, problem: Any) -> Any:
    """Return what probabilities are multiplied by to be the gradient of the z-loss."""
    return 2 * problem.z_loss * log_sum if problem.z_loss > 0 else 0.0


@plain
def row_scale(factor: Any, weight: Any, own: Any, others: Any, log_sum: Any, problem: Any) -> Any:
    """Return the number that turns biased exponentials into the gradient's first part."""
    total = (1 - problem.smoothing) * weight + problem.spread * problem.weight_sum
    total += pull_of(log_sum, problem)
    return problem.unit * factor * total * problem.unbias / (own + others)


@plain
def label_gradient(
    factor: Any, weight: Any, own: Any, others: Any, log_sum: Any, problem: Any
) -> Any:
    """Return the gradient at the label, from the smaller of its two forms."""
    rest = problem.spread * (problem.weight_sum - weight)  # sum of q, but for the label's
    q = (1 - problem.smoothing) * weight + problem.spread * weight
    part = (others if others < own else own) / (own + others)
    slope = rest - (q + rest) * part if others < own else (q + rest) * part - q
    if problem.z_loss > 0:
        slope += pull_of(log_sum, problem) * own / (own + others)
    return problem.unit * factor * slope


@plain
def write_terms(samples: Samples, first: Any, problem: Any, terms: Any) -> None:
    """Write the terms of a block of samples, from sample ``first`` on, and log-sum-exps."""
    tag, factor, weight, own, others, shift, shifts, log_sums = samples
    smoothing, z_loss, found = problem.smoothing, problem.z_loss, terms[first : first + tag.size]
    odds = others
    if problem.offset.size > 0:  # else a label that is likelier than not has an exponential of 1
        odds = np.empty(tag.size)
        for k in range(tag.size):
            odds[k] = others[k] / own[k]
    for k in range(tag.size):
        sure = own[k] >= others[k]
        part = log1p(odds[k] if sure else (others[k] + own[k]) - 1.0)
        loss, log_sum = part if sure else part - shift[k], part + shift[k] if sure else part
        q = (1 - smoothing) * weight[k]
        term = factor[k] * (0.0 if (q == 0) & (loss == np.inf) else q * loss)
        if smoothing > 0:
            term += factor[k] * problem.spread * (problem.weight_sum * log_sum - shifts[k])
        log_sums[k] += log_sum
        if z_loss > 0:
            term += factor[k] * z_loss * log_sums[k] * log_sums[k]
        found[k] = 0.0 if tag[k] == HIDDEN else term
    if problem.sums:
        start = terms.size // 2 + first
        sums = terms[start : start + tag.size]
        for k in range(tag.size):
            sums[k] = log_sums[k]


@inlined
def exponentials_and_maximum(
    x: Any, top: Any, inverse_temperature: Any, e: Any, ahead: Any, offset: Any, ahead_offset: Any
) -> Any:
    """Store exponentials of x in e, maybe x; return their sum and the maximum of ``ahead``."""
    if offset.size > 0:
        return sweep_moved(
            x, x.size, e, ahead, ahead.size, top, inverse_temperature, offset, ahead_offset
        )
    if inverse_temperature == 1:
        return sweep(x, x.size, e, ahead, ahead.size, top, x.dtype.type(1))
    return sweep(x, x.size, e, ahead, ahead.size, top, inverse_temperature)


@njit(**SUM)
def weighted_shifts(x: Any, top: Any, inverse_temperature: Any, weight: Any) -> Any:
    """Return the sums of w (z - max) / T, where w = 0 leaves out -inf, and of w."""
    zero = x.dtype.type(0)
    total = mass = zero
    for j in range(x.size):
        d = (x[j] - top) * inverse_temperature
        total += zero if (weight[j] == zero) & (d == -np.inf) else weight[j] * d
        mass += weight[j]
    return np.float64(total), np.float64(mass)


@inlined
def maximum_of(x: Any, offset: Any) -> Any:
    """Return the maximum of a piece of logits with their offsets."""
    if offset.size == 0:
        return row_max(x)
    top = x[0] + offset[0]
    for j in range(x.size):
        top = larger(x[j] + offset[j], top)
    return top


@inlined
def scale_and_spread(e: Any, a: Any, weight: Any, b: Any) -> None:
    """Multiply the row e by a and take b * weight off: the gradient with smoothed labels."""
    for j in range(e.size):
        e[j] = e[j] * a - weight[j] * b


# --- rows of many classes ------------------------------------------------------------------------


@inlined
def without(label: Any, total: Any, e: Any) -> Any:
    """Return the sum of the exponentials e of a piece but for the label's."""
    own = e[label]
    others = total - np.float64(own)
    if own > others:  # the difference has lost digits
        e[label] = 0
        others = np.float64(row_sum(e))
        e[label] = own
    return others


@plain
def sum_rows(x: Any, samples: Samples, problem: Problem, g: Any, scratch: Any, tops: Any) -> None:
    """Complete the `Samples` of rows, and leave the exponentials in g, if that has elements.

    Those of a piece are taken from the maximum of the row so far, which goes to ``tops``, so that
    a row comes from memory but once: while exponentials are taken, the next piece is looked at.
    """
    tag, _, _, owns, rests, shift, shifts, log_sum = samples
    x, g, scratch, tops = borrowed(x), borrowed(g), borrowed(scratch), borrowed(tops)
    inverse_temperature, unbias = x.dtype.type(problem.inverse_temperature), problem.unbias
    offset, moves = borrowed(problem.offset), problem.offset.size > 0
    rows = np.flatnonzero((tag >= 0) | problem.sums)
    best = maximum_of(x[rows[0], :PIECE], offset[:PIECE]) if rows.size else scratch[0]
    for i in range(rows.size):
        k, follower = rows[i], rows[min(i + 1, rows.size - 1)]
        at_label, top = x[k, max(tag[k], 0)], np.finfo(x.dtype).min
        own = others = distance = mass = 0.0
        for p in range(tops.shape[1]):
            start, stop, label = p * PIECE, (p + 1) * PIECE, tag[k] - p * PIECE
            more = stop < x.shape[1]
            piece, ahead = (
                x[k, start:stop],
                x[k, stop : stop + PIECE] if more else x[follower, :PIECE],
            )
            if best > top:
                if p:
                    step = (np.float64(top) - np.float64(best)) * problem.inverse_temperature
                    own, others = own * np.exp(step), others * np.exp(step)
                    distance += mass * step if mass > 0 else 0.0
                top = best
            tops[k, p] = top
            if problem.smoothing > 0:
                w = problem.weight[start:stop]
                moved, weighed = weighted_shifts(piece, top, inverse_temperature, w)
                distance, mass = distance + moved, mass + weighed
            e = g[k, start:stop] if g.size else scratch[: piece.size]
            part, best = exponentials_and_maximum(
                piece, top, inverse_temperature, e, ahead,
                offset[start:stop], offset[stop : stop + PIECE] if more else offset[:PIECE],
            )  # fmt: skip
            total = np.float64(part)
            if 0 <= label < piece.size:
                own, total = np.float64(e[label]), without(label, total, e)
            others += total
        if not own + others > 0:  # of a row of -inf
            own = np.nan
        owns[k], rests[k], shifts[k] = own * unbias, others * unbias, distance + problem.offset_sum
        at_label -= top
        if moves:
            at_label += offset[max(tag[k], 0)]
        shift[k] = at_label * inverse_temperature
        log_sum[k] = np.float64(top) * problem.inverse_temperature


@plain
def long_rows(x: Any, labels: Any, first: Any, problem: Any, g: Any, terms: Any) -> None:
    """Write terms and gradient of rows x of many classes, which are samples from ``first`` on."""
    count, classes = x.shape
    tag, memory = np.empty(count, np.int32), np.zeros((ROWS, count))
    tops = np.empty((count, (classes + PIECE - 1) // PIECE), x.dtype)
    scratch = np.empty(min(PIECE, classes), x.dtype)
    fill_rows(x, labels, first, problem, g, terms, tag, memory, tops, scratch)


@plain
def fill_rows(
    x: Any, labels: Any, first: Any, problem: Any, g: Any, terms: Any,
    tag: Any, memory: Any, tops: Any, scratch: Any,
) -> None:  # fmt: skip
    """Do the rows of x, which are samples from ``first`` on, in memory of the caller.

    Counting who refers to it, at every view, took as long as a tenth of the exponentials.
    """
    tag, memory = borrowed(tag), borrowed(memory)
    x, g = borrowed(x), borrowed(g)
    samples = describe(borrowed(labels), first, x.shape[1], problem, tag, memory)
    sum_rows(x, samples, problem, g, scratch, tops)
    write_terms(samples, first, problem, borrowed(terms))
    if g.size:
        write_gradient(samples, problem, g, tops)


@plain
def write_gradient(samples: Samples, problem: Any, g: Any, tops: Any) -> None:
    """Turn the exponentials of rows, in g, into their gradient."""
    tag, factor, weight, own, others, _, _, log_sum = samples
    g, tops = borrowed(g), borrowed(tops)
    kind, scales, at_label = g.dtype.type, np.empty(tag.size), np.empty(tag.size)
    for k in range(tag.size):
        scales[k] = row_scale(factor[k], weight[k], own[k], others[k], log_sum[k], problem)
    for k in range(tag.size):
        at_label[k] = label_gradient(factor[k], weight[k], own[k], others[k], log_sum[k], problem)
    for k in range(tag.size):
        label = tag[k]
        if label < 0:
            g[k, :] = 0 if label == HIDDEN else np.nan
            continue
        b, last = kind(problem.unit * factor[k] * problem.spread), tops.shape[1] - 1
        for p in range(tops.shape[1]):
            a, top, start = scales[k], np.float64(tops[k, p]), p * PIECE
            if tops[k, p] != tops[k, last]:
                a *= np.exp((top - np.float64(tops[k, last])) * problem.inverse_temperature)
            e = g[k, start : start + PIECE]
            if problem.smoothing > 0:
                scale_and_spread(e, kind(a), problem.weight[start : start + PIECE], b)
            else:
                scale(e, kind(a))
        g[k, label] = at_label[k]
