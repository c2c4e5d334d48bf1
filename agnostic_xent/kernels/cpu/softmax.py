"""Softmax cross entropy over labels in one pass: the formulas of a sample, and rows of classes.

Notation: e are the exponentials of a row's ``(z - max(z)) / T``, s their sum, "own" the
exponential at the label and "others" the sum of the rest, "shift" is ``(z - max(z)) / T`` at the
label; q, a and w as in ``class_loss.py``. Without weights and smoothing ``l = log s - shift`` and
``dl/dz = e / s - q``.

- Where the label holds the maximum, l is ``log1p(others)`` and the slope there ``-others / s``,
  so that a sample which is almost certain keeps its digits.
- The exponentials of a row go to the gradient's own row, which is scaled while it is in cache.
- Every sample writes its term to its own place and the terms are added at the end, so threads and
  blocks leave no trace in the bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .vector_math import STRICT, SUM, borrowed, exp_biased, log1p, njit, row_max, row_sum

PIECE = 4096  # classes that are summed in the dtype of the logits; pieces are added in float64
NOBODY, HIDDEN = -1, -2  # in place of a label: out of range, or of a sample that does not count

plain = njit(**STRICT)
inlined = njit(**STRICT, forceinline=True)  # a call that takes arrays costs as much as 100 elements
pasted = njit(**STRICT, inline="always")  # a layer of functions is optimised anew with all below it


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


@plain
def is_dead(label: Any, n: Any, sample_weight: Any, ignore: Any, ignores: Any) -> Any:
    """Tell whether sample n is ignored or has no weight."""
    return (ignores and label == ignore) or (sample_weight.size > 0 and sample_weight[n] == 0)


@plain
def describe(labels: Any, first: Any, count: Any, classes: Any, problem: Any) -> Any:
    """Return the `Samples` of a block, of which nothing is known but labels and weights."""
    tag, numbers = np.empty(count, np.int32), np.zeros((6, count))
    labels, sample_weight = labels[first : first + count], problem.sample_weight
    if sample_weight.size > 0:
        sample_weight = sample_weight[first : first + count]
    factor, weight = numbers[0], numbers[1]
    for k in range(count):
        label = labels[k]
        known = 0 <= label < classes
        tag[k] = label if known else NOBODY
        factor[k] = 1.0 if known else np.nan
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
    return Samples(tag, factor, weight, numbers[2], numbers[3], numbers[4], numbers[5])


@plain
def row_scale(factor: Any, weight: Any, own: Any, others: Any, problem: Any) -> Any:
    """Return the number that turns biased exponentials into the gradient's first part."""
    total = (1 - problem.smoothing) * weight + problem.spread * problem.weight_sum
    return problem.unit * factor * total * problem.unbias / (own + others)


@plain
def label_gradient(factor: Any, weight: Any, own: Any, others: Any, problem: Any) -> Any:
    """Return the gradient at the label, from the smaller of its two forms."""
    rest = problem.spread * (problem.weight_sum - weight)  # sum of q, but for the label's
    q = (1 - problem.smoothing) * weight + problem.spread * weight
    part = (others if others < own else own) / (own + others)
    slope = rest - (q + rest) * part if others < own else (q + rest) * part - q
    return problem.unit * factor * slope


@plain
def write_terms(samples: Samples, first: Any, problem: Any, terms: Any) -> None:
    """Compute the terms of a block of samples."""
    tag, factor, weight, own, others, shift, shifts = samples
    log_sum = np.empty(tag.size)
    for k in range(tag.size):
        # all the exponentials but the largest, which is 1
        log_sum[k] = others[k] if shift[k] == 0 else (others[k] + own[k]) - 1.0
    for k in range(tag.size):
        log_sum[k] = log1p(log_sum[k])
    found = terms[first : first + tag.size]
    for k in range(tag.size):
        q, loss = (1 - problem.smoothing) * weight[k], log_sum[k] - shift[k]
        found[k] = factor[k] * (0.0 if (q == 0) & (loss == np.inf) else q * loss)
    if problem.smoothing > 0:
        for k in range(tag.size):
            spread = problem.spread * (problem.weight_sum * log_sum[k] - shifts[k])
            found[k] += factor[k] * spread
    for k in range(tag.size):
        found[k] = 0.0 if tag[k] == HIDDEN else found[k]


# --- sweeps over a row ---------------------------------------------------------------------------


@njit(**SUM)
def exponentials(x: Any, top: Any, inverse_temperature: Any, e: Any) -> Any:
    """Store the biased exponentials of a piece of a row and return their sum."""
    total = x.dtype.type(0)
    if inverse_temperature == 1:
        for j in range(x.size):
            value = exp_biased(x[j] - top)
            e[j] = value
            total += value
    else:
        for j in range(x.size):
            value = exp_biased((x[j] - top) * inverse_temperature)
            e[j] = value
            total += value
    return total


@njit(**SUM)
def exponentials_in_place(e: Any, top: Any, inverse_temperature: Any) -> Any:
    """Do as `exponentials`, over the logits; two arrays that overlap would not go in lanes."""
    total = e.dtype.type(0)
    for j in range(e.size):
        value = exp_biased((e[j] - top) * inverse_temperature)
        e[j] = value
        total += value
    return total


@njit(**SUM)
def weighted_shifts(x: Any, top: Any, inverse_temperature: Any, weight: Any) -> Any:
    """Return the sum of w (z - max) / T, where w = 0 leaves out -inf."""
    zero = x.dtype.type(0)
    total = zero
    for j in range(x.size):
        d = (x[j] - top) * inverse_temperature
        total += zero if (weight[j] == zero) & (d == -np.inf) else weight[j] * d
    return total


@inlined
def scale(e: Any, a: Any) -> None:
    """Multiply a row by a number."""
    for j in range(e.size):
        e[j] = e[j] * a


@inlined
def scale_and_spread(e: Any, a: Any, weight: Any, b: Any) -> None:
    """Multiply a row by a and take b w off: the gradient with smoothed labels."""
    for j in range(e.size):
        e[j] = e[j] * a - weight[j] * b


# --- rows of many classes ------------------------------------------------------------------------


@inlined
def sum_others(x: Any, label: Any, own: Any, top: Any, inverse_temperature: Any, e: Any) -> Any:
    """Store the exponentials of a piece and return their sum without the label's, if it is here."""
    if x.ctypes.data == e.ctypes.data:
        total = exponentials_in_place(e, top, inverse_temperature)
    else:
        total = exponentials(x, top, inverse_temperature, e)
    if not 0 <= label < x.size:
        return total
    others = total - own
    if own > others:  # the difference has lost digits
        e[label] = 0
        others = row_sum(e)
        e[label] = own
    return others


@inlined
def sum_row(x: Any, label: Any, own: Any, top: Any, inverse_temperature: Any, e: Any) -> Any:
    """Do as `sum_others` for a row.

    ``e`` is as long as the row, or as a piece where the exponentials are not wanted.
    """
    if x.size <= PIECE:
        return np.float64(sum_others(x, label, own, top, inverse_temperature, e))
    others = 0.0
    for start in range(0, x.size, PIECE):
        piece = x[start : start + PIECE]
        stored = e[start : start + PIECE] if e.size == x.size else e[: piece.size]
        part = sum_others(piece, label - start, own, top, inverse_temperature, stored)
        others += np.float64(part)
    return others


@plain
def long_rows(x: Any, labels: Any, first: Any, last: Any, problem: Any, g: Any, terms: Any) -> None:
    """Do rows first to last of many classes: sweep by sweep, for a row alone is mostly waiting."""
    x, g = borrowed(x), borrowed(g)
    count, classes, kind = last - first, x.shape[1], x.dtype.type
    samples = describe(labels, first, count, classes, problem)
    tag, _, _, own, others, shift, shifts = samples
    inverse_temperature, unbias = kind(problem.inverse_temperature), problem.unbias
    top, at_label = np.empty(count, x.dtype), np.empty(count, x.dtype)
    for k in range(count):
        top[k] = row_max(x[first + k])
    for k in range(count):
        at_label[k] = (x[first + k, max(tag[k], 0)] - top[k]) * inverse_temperature
    for k in range(count):
        shift[k] = at_label[k]
        at_label[k] = exp_biased(at_label[k])
    if problem.smoothing > 0:
        for k in range(count):
            for start in range(0, classes, PIECE):
                piece, w = (
                    x[first + k, start : start + PIECE],
                    problem.weight[start : start + PIECE],
                )
                part = weighted_shifts(piece, top[k], inverse_temperature, w)
                shifts[k] += np.float64(part)
    scratch = np.empty(0 if g.size else min(PIECE, classes), x.dtype)
    for k in range(count):
        if tag[k] >= 0:
            e = g[first + k] if g.size else scratch
            row = x[first + k]
            rest = sum_row(row, tag[k], at_label[k], top[k], inverse_temperature, e)
            own[k], others[k] = np.float64(at_label[k]) * unbias, rest * unbias
    write_terms(samples, first, problem, terms)
    if g.size:
        write_gradient(samples, first, problem, g)


@plain
def write_gradient(samples: Samples, first: Any, problem: Any, g: Any) -> None:
    """Turn the exponentials of a block of rows into their gradient."""
    tag, factor, weight, own, others, _, _ = samples
    kind, scales, at_label = g.dtype.type, np.empty(tag.size), np.empty(tag.size)
    for k in range(tag.size):
        scales[k] = row_scale(factor[k], weight[k], own[k], others[k], problem)
    for k in range(tag.size):
        at_label[k] = label_gradient(factor[k], weight[k], own[k], others[k], problem)
    for k in range(tag.size):
        e, label = g[first + k], tag[k]
        if label < 0:
            e[:] = 0 if label == HIDDEN else np.nan
            continue
        if problem.smoothing > 0:
            b = kind(problem.unit * factor[k] * problem.spread)
            scale_and_spread(e, kind(scales[k]), problem.weight, b)
        else:
            scale(e, kind(scales[k]))
        e[label] = at_label[k]
