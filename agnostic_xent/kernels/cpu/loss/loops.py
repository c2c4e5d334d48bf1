"""What is compiled on its own: softmax cross entropy of whole arrays, on one thread or all.

``options`` is a tuple of ignore, ignores, smoothing, temperature, unbias, reduction, normalize (0
for none), by_count, the mean of nothing, and checks: whether a label out of range is an IndexError,
raised before anything is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from ..simd.elementary import borrowed, row_sum
from ..simd.rows import pasted, plain, scale
from .labels import Problem, is_dead, long_rows
from .lanes import block, short_rows

FEW = 20  # rows of up to so many classes are transposed
BLOCK = 16384  # elements of a unit of work, which should stay in cache
MEAN, TOTAL, NONE = 0, 1, 2


@plain
def check(labels: Any, classes: Any, ignore: Any, ignores: Any) -> None:
    """Raise IndexError unless all labels are in [0, classes) or ignored."""
    bad = 0
    for n in range(labels.size):
        label = labels[n]
        bad += ((label < 0) | (label >= classes)) & ~(ignores & (label == ignore))
    if bad:
        raise IndexError("a label is out of range")


@pasted
def divisor_of(labels: Any, classes: Any, weight: Any, sample_weight: Any, options: Any) -> Any:
    """Return what a mean divides by: a count, or the sum of the weights that count."""
    ignore, ignores, by_count = options[0], options[1], options[7]
    if by_count and not ignores:
        return np.float64(labels.size)
    total = 0.0
    for n in range(labels.size):
        label, w = labels[n], 1.0
        if ignores and label == ignore:
            continue
        if not by_count:
            if weight.size > 0:
                w = np.float64(weight[label]) if 0 <= label < classes else 0.0
            if sample_weight.size > 0:
                w *= np.float64(sample_weight[n])
        total += w
    return total


@pasted
def set_up(labels: Any, classes: Any, weight: Any, sample_weight: Any, options: Any) -> Any:
    """Return what the mean divides by, and the numbers of the `Problem`."""
    ignore, ignores, smoothing, temperature, unbias, reduction, normalize, _, empty, checks = (
        options
    )
    if checks:
        check(labels, classes, ignore, ignores)
    weight_sum = 0.0
    for c in range(weight.size):
        weight_sum += np.float64(weight[c])
    divisor, unit = normalize, 1.0
    if reduction == MEAN:
        if normalize == 0:
            divisor = divisor_of(labels, classes, weight, sample_weight, options)
        unit = 1 / divisor if divisor != 0 else empty
    return divisor, np.array(
        [weight_sum, smoothing, smoothing / classes, 1 / temperature, unbias, unit / temperature]
    )


@pasted
def assemble(weight: Any, sample_weight: Any, ignore: Any, ignores: Any, numbers: Any) -> Any:
    """Return the `Problem`, inside of a parallel loop, which takes no tuple from outside."""
    total, smoothing, spread, inverse_temperature, unbias, unit = (
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5],
    )  # fmt: skip
    return Problem(
        borrowed(weight), borrowed(sample_weight), ignore, ignores,
        total, smoothing, spread, inverse_temperature, unbias, unit,
    )  # fmt: skip


@pasted
def places(terms: Any, labels: Any) -> Any:
    """Return where the terms go: an array of the caller's, if it wants them."""
    return terms if terms.size else np.empty(labels.size)


@pasted
def result(terms: Any, divisor: Any, options: Any) -> Any:
    """Return what the terms add up to; 0 with reduction NONE, where they are the result."""
    if options[5] == NONE:
        return 0.0
    total = row_sum(terms)
    if options[5] == TOTAL:
        return total
    return total / divisor if divisor != 0 else options[8]


# --- logits (N, classes) -------------------------------------------------------------------------


@pasted
def count_long(x: Any) -> Any:
    """Return the number of blocks: a matter of the problem, not of the threads."""
    step = max(1, BLOCK // x.shape[1])
    return (x.shape[0] + step - 1) // step


@pasted
def long_block(i: Any, x: Any, labels: Any, problem: Any, g: Any, terms: Any) -> None:
    """Do block i of rows of many classes."""
    step = max(1, BLOCK // x.shape[1])
    long_rows(x, labels, i * step, min(i * step + step, x.shape[0]), problem, g, terms)


@pasted
def rows_of_short(classes: Any) -> Any:
    """Return the rows of a block: an odd number of cache lines, for a power of two would crowd."""
    lines = min(31, BLOCK // 2 // 16 // classes)
    return 16 * max(1, (lines - 1) | 1)


@pasted
def count_short(x: Any) -> Any:
    """Return the number of blocks of rows of few classes."""
    step = rows_of_short(x.shape[1])
    return (x.shape[0] + step - 1) // step


@pasted
def short_block(i: Any, x: Any, labels: Any, problem: Any, g: Any, terms: Any) -> None:
    """Do block i of rows of few classes."""
    step = rows_of_short(x.shape[1])
    short_rows(x, labels, i * step, min(i * step + step, x.shape[0]), problem, g, terms)


def long(
    x: Any, labels: Any, weight: Any, sample_weight: Any, options: Any, g: Any, wanted: Any
) -> Any:
    """Return the loss of rows of many classes.

    The gradient is written to g, and the terms to ``wanted``, if they have elements.
    """
    divisor, numbers = set_up(labels, x.shape[1], weight, sample_weight, options)
    ignore, ignores, terms = options[0], options[1], places(wanted, labels)
    for i in range(count_long(x)):
        problem = assemble(weight, sample_weight, ignore, ignores, numbers)
        long_block(i, x, labels, problem, g, terms)
    return result(terms, divisor, options)


def long_in_parallel(
    x: Any, labels: Any, weight: Any, sample_weight: Any, options: Any, g: Any, wanted: Any
) -> Any:
    """Do as `long` on all threads."""
    divisor, numbers = set_up(labels, x.shape[1], weight, sample_weight, options)
    ignore, ignores, terms = options[0], options[1], places(wanted, labels)
    for i in prange(count_long(x)):
        problem = assemble(weight, sample_weight, ignore, ignores, numbers)
        long_block(i, x, labels, problem, g, terms)
    return result(terms, divisor, options)


def short(
    x: Any, labels: Any, weight: Any, sample_weight: Any, options: Any, g: Any, wanted: Any
) -> Any:
    """Do as `long` for rows of few classes."""
    divisor, numbers = set_up(labels, x.shape[1], weight, sample_weight, options)
    ignore, ignores, terms = options[0], options[1], places(wanted, labels)
    for i in range(count_short(x)):
        problem = assemble(weight, sample_weight, ignore, ignores, numbers)
        short_block(i, x, labels, problem, g, terms)
    return result(terms, divisor, options)


def short_in_parallel(
    x: Any, labels: Any, weight: Any, sample_weight: Any, options: Any, g: Any, wanted: Any
) -> Any:
    """Do as `short` on all threads."""
    divisor, numbers = set_up(labels, x.shape[1], weight, sample_weight, options)
    ignore, ignores, terms = options[0], options[1], places(wanted, labels)
    for i in prange(count_short(x)):
        problem = assemble(weight, sample_weight, ignore, ignores, numbers)
        short_block(i, x, labels, problem, g, terms)
    return result(terms, divisor, options)


@pasted
def scales(labels: Any, sample_weight: Any, options: Any, dy: Any) -> Any:
    """Return the cotangent of each sample; 0 where the gradient is to stay 0 whatever it is."""
    found = np.empty(labels.size, dy.dtype)
    for n in range(labels.size):
        dead = is_dead(labels[n], n, sample_weight, options[0], options[1])
        found[n] = 0 if dead else dy[n if dy.size > 1 else 0]
    return found


@plain
def scale_some(g: Any, first: Any, last: Any, factors: Any) -> None:
    """Multiply rows first to last by a number each."""
    g = borrowed(g)
    for n in range(first, last):
        scale(g[n], factors[n])


def scale_rows(g: Any, labels: Any, sample_weight: Any, options: Any, dy: Any) -> None:
    """Multiply the gradient of (N, classes) logits by one cotangent, or by one a sample."""
    scale_some(g, 0, g.shape[0], scales(labels, sample_weight, options, dy))


def scale_rows_in_parallel(g: Any, labels: Any, sample_weight: Any, options: Any, dy: Any) -> None:
    """Do as `scale_rows` on all threads."""
    factors, step = scales(labels, sample_weight, options, dy), max(1, BLOCK // g.shape[1])
    for i in prange((g.shape[0] + step - 1) // step):
        scale_some(g, i * step, min(i * step + step, g.shape[0]), factors)


# --- logits (outer, classes, inner) --------------------------------------------------------------


@pasted
def pixels_of_a_block(classes: Any) -> Any:
    """Return how many pixels make a unit of work."""
    return min(1024, max(16, 4 * BLOCK // classes // 16 * 16))


@pasted
def planes_block(i: Any, x: Any, labels: Any, problem: Any, g: Any, terms: Any) -> None:
    """Do block i of the pixels."""
    inner, length = x.shape[2], pixels_of_a_block(x.shape[1])
    runs = (inner + length - 1) // length
    image, start = i // runs, i % runs * length
    stop = min(start + length, inner)
    part = g[image] if g.size else np.empty((0, 0), x.dtype)
    block(x[image], start, stop, labels, image * inner + start, problem, part, terms)


@pasted
def count_planes(x: Any) -> Any:
    """Return how many blocks there are."""
    length = pixels_of_a_block(x.shape[1])
    return x.shape[0] * ((x.shape[2] + length - 1) // length)


def planes(
    x: Any, labels: Any, weight: Any, sample_weight: Any, options: Any, g: Any, wanted: Any
) -> Any:
    """Do as `long` for logits (outer, classes, inner)."""
    divisor, numbers = set_up(labels, x.shape[1], weight, sample_weight, options)
    ignore, ignores, terms = options[0], options[1], places(wanted, labels)
    for i in range(count_planes(x)):
        problem = assemble(weight, sample_weight, ignore, ignores, numbers)
        planes_block(i, x, labels, problem, g, terms)
    return result(terms, divisor, options)


def planes_in_parallel(
    x: Any, labels: Any, weight: Any, sample_weight: Any, options: Any, g: Any, wanted: Any
) -> Any:
    """Do as `planes` on all threads."""
    divisor, numbers = set_up(labels, x.shape[1], weight, sample_weight, options)
    ignore, ignores, terms = options[0], options[1], places(wanted, labels)
    for i in prange(count_planes(x)):
        problem = assemble(weight, sample_weight, ignore, ignores, numbers)
        planes_block(i, x, labels, problem, g, terms)
    return result(terms, divisor, options)


@plain
def scale_image(g: Any, factors: Any) -> None:
    """Multiply the pixels of each class by a number each."""
    for c in range(g.shape[0]):
        for p in range(g.shape[1]):
            g[c, p] *= factors[p]


def scale_planes(g: Any, labels: Any, sample_weight: Any, options: Any, dy: Any) -> None:
    """Multiply the gradient of (outer, classes, inner) logits by the cotangent."""
    factors, inner = scales(labels, sample_weight, options, dy), g.shape[2]
    for i in range(g.shape[0]):
        scale_image(g[i], factors[i * inner : i * inner + inner])


def scale_planes_in_parallel(
    g: Any, labels: Any, sample_weight: Any, options: Any, dy: Any
) -> None:
    """Do as `scale_planes` on all threads, one class of an image at a time."""
    factors, classes, inner = scales(labels, sample_weight, options, dy), g.shape[1], g.shape[2]
    for i in prange(g.shape[0] * classes):
        image, c = i // classes, i % classes
        scale_image(g[image, c : c + 1], factors[image * inner : image * inner + inner])
