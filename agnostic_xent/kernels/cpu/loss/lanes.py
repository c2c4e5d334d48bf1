"""Softmax cross entropy where the lanes are pixels: classes along any axis but the last.

A block is (classes, pixels) logits, for which the sweeps over the classes keep a maximum and a sum
each. ``labels.py`` has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import borrowed, exp_biased, inlined, plain
from .labels import HIDDEN, NOBODY, ROWS, Samples, describe, label_gradient, row_scale, write_terms

GROUP = 64  # classes that are summed in the dtype of the logits; groups are added in float64


@inlined
def raise_to(x: Any, top: Any) -> None:
    """Raise ``top`` to x where that is larger; NaN spoils the sum later, kept here or not."""
    for p in range(x.size):
        top[p] = x[p] if x[p] > top[p] else top[p]


@inlined
def raise_to_moved(x: Any, offset: Any, top: Any) -> None:
    """Raise ``top`` to x + offset where that is larger."""
    for p in range(x.size):
        moved = x[p] + offset
        top[p] = moved if moved > top[p] else top[p]


@inlined
def add_exponentials(
    x: Any, top: Any, inverse_temperature: Any, tag: Any, c: Any, e: Any, others: Any
) -> None:
    """Store a class's exponentials and add them to the sums, except where it is the label."""
    zero = x.dtype.type(0)
    for p in range(x.size):
        value = exp_biased((x[p] - top[p]) * inverse_temperature)
        e[p] = value
        others[p] += zero if tag[p] == c else value


@inlined
def add_exponentials_moved(
    x: Any, offset: Any, top: Any, inverse_temperature: Any, tag: Any, c: Any, e: Any, others: Any
) -> None:
    """Do the same of x + offset."""
    zero = x.dtype.type(0)
    for p in range(x.size):
        value = exp_biased(((x[p] - top[p]) + offset) * inverse_temperature)
        e[p] = value
        others[p] += zero if tag[p] == c else value


@inlined
def add_shifts(x: Any, top: Any, inverse_temperature: Any, w: Any, shifts: Any) -> None:
    """Add w (z - max) / T of a class, where w = 0 leaves out -inf."""
    for p in range(x.size):
        d = (x[p] - top[p]) * inverse_temperature
        shifts[p] += 0.0 if (w == 0) & (d == -np.inf) else np.float64(w * d)


@inlined
def scale_pixels(e: Any, a: Any, tag: Any) -> None:
    """Multiply a class's exponentials e by numbers a; those of hidden samples become 0."""
    zero = e.dtype.type(0)
    for p in range(e.size):
        e[p] = zero if tag[p] == HIDDEN else e[p] * a[p]


@inlined
def take_off(e: Any, w: Any, b: Any, tag: Any) -> None:
    """Subtract a class's part of smoothed labels, w b, from e."""
    zero = e.dtype.type(0)
    for p in range(e.size):
        e[p] -= zero if tag[p] == HIDDEN else w * b[p]


@inlined
def offset_of(c: Any, problem: Any) -> Any:
    """Return the offset of class c."""
    return problem.offset[c] if problem.offset.size > 0 else problem.offset.dtype.type(0)


@plain
def sum_classes(
    x: Any, at: Any, start: Any, top: Any, samples: Samples, problem: Any, e: Any, part: Any,
    scratch: Any,
) -> None:  # fmt: skip
    """Store the exponentials of a block, and sum them; ``at`` and ``e`` as in `block`."""
    tag, _, _, own, others, shift, shifts, log_sum = samples
    inverse_temperature, stop = x.dtype.type(problem.inverse_temperature), start + top.size
    moves = problem.offset.size > 0
    for p in range(top.size):
        part[p] = x[max(tag[p], 0), at + p] - top[p]
    if moves:
        for p in range(top.size):
            part[p] += problem.offset[max(tag[p], 0)]
    for p in range(top.size):
        part[p] *= inverse_temperature
        shift[p] = part[p]
    for p in range(top.size):
        log_sum[p] = np.float64(top[p]) * problem.inverse_temperature
    for p in range(top.size):
        own[p] = np.float64(exp_biased(part[p])) * problem.unbias
    for p in range(top.size):  # by itself: behind a condition no exponential goes in lanes
        own[p] = 0.0 if tag[p] < 0 else own[p]
    part[:] = 0
    for c in range(x.shape[0]):
        logits, offset = x[c, at : at + top.size], offset_of(c, problem)
        stored = e[c, start:stop] if e.shape[0] == x.shape[0] else scratch
        if problem.smoothing > 0:
            add_shifts(logits, top, inverse_temperature, problem.weight[c], shifts)
        label = np.int32(c)
        if moves:
            add_exponentials_moved(
                logits, offset, top, inverse_temperature, tag, label, stored, part
            )
        else:
            add_exponentials(logits, top, inverse_temperature, tag, label, stored, part)
        if (c + 1) % GROUP == 0 or c + 1 == x.shape[0]:
            for p in range(top.size):
                others[p] += np.float64(part[p])
                part[p] = 0
    for p in range(top.size):
        others[p] *= problem.unbias
        shifts[p] += problem.offset_sum


@plain
def block(
    x: Any, at: Any, start: Any, stop: Any, labels: Any, first: Any, problem: Any, g: Any,
    terms: Any,
) -> None:  # fmt: skip
    """Do pixels start to stop of (classes, pixels), the first of which is sample ``first``.

    Their logits begin at ``at`` in x. ``g`` has no rows where the gradient is not wanted.
    """
    classes, pixels = x.shape[0], stop - start
    x, g = borrowed(x), borrowed(g)
    tag, memory = np.empty(pixels, np.int32), np.zeros((ROWS, pixels))
    samples = describe(labels, first, classes, problem, tag, memory)
    tag, factor, weight, own, others, _, _, log_sum = samples
    top, scratch = np.full(pixels, -np.inf, x.dtype), np.empty(pixels, x.dtype)
    a, b, at_label = np.empty_like(top), np.empty_like(top), np.empty_like(top)
    for c in range(classes):
        if problem.offset.size > 0:
            raise_to_moved(x[c, at : at + pixels], problem.offset[c], top)
        else:
            raise_to(x[c, at : at + pixels], top)
    sum_classes(x, at, start, top, samples, problem, g, a, scratch)
    write_terms(samples, first, problem, terms)
    if g.shape[0] < classes:
        return
    for p in range(pixels):
        a[p] = row_scale(factor[p], weight[p], own[p], others[p], log_sum[p], problem)
    for p in range(pixels):
        at_label[p] = label_gradient(factor[p], weight[p], own[p], others[p], log_sum[p], problem)
    for c in range(classes):
        scale_pixels(g[c, start:stop], a, tag)
    if problem.smoothing > 0:
        for p in range(pixels):
            b[p] = problem.unit * factor[p] * problem.spread
        for c in range(classes):
            take_off(g[c, start:stop], problem.weight[c], b, tag)
    for p in range(pixels):
        if tag[p] > NOBODY:
            g[tag[p], start + p] = at_label[p]
