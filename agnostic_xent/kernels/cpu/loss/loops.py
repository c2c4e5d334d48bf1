"""Softmax cross entropy of whole arrays: what is compiled, for each layout of the logits."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ..simd.elementary import borrowed, pasted, plain, row_sum
from ..simd.rows import scale
from ..toolchain.compiling import compiled, compiled_in_parts
from ..toolchain.signatures import (
    FLOATS,
    Doubles,
    Integers,
    Read1,
    Read2,
    Read3,
    Unnamed,
    Write2,
    Write3,
    WrittenDoubles,
)
from ..toolchain.threads import PIECES
from .capped import cap, capped, only_read, uncap
from .few import few_rows, space_for
from .labels import Problem, is_dead, long_rows, offset_by
from .lanes import block

BLOCK = 16384  # elements of a unit of work, which should stay in cache
MEAN, TOTAL, NONE = 0, 1, 2


class Options(NamedTuple):
    """The options of a call that are no arrays."""

    ignore: int
    ignores: bool
    smoothing: float
    temperature: float
    softcap: float
    """0 without one."""
    unbias: float
    """What turns a sum of biased exponentials into that of the exponentials."""
    reduction: int
    divisor: float
    """What a mean divides by; 0 if that is not known yet, and where nothing counts."""
    by_count: bool
    """Whether that is the number of samples, not of their weights."""
    by_class: bool
    """Whether weights of classes are among those; a label out of range has none."""
    empty: float
    """The mean of nothing."""
    checks: bool
    """Whether a label out of range is an IndexError, raised before anything is written."""
    z_loss: float
    sums: bool
    """Whether log-sum-exps are written, to the second half of the terms."""
    weight_sum: float = 0.0
    """The sum of the weights of all classes, once it is known."""


OptionsIn = Annotated[Any, Unnamed(Options)]


@plain
def check(labels: Any, classes: Any, options: Options) -> None:
    """Raise IndexError unless all labels are in [0, classes) or ignored."""
    ignore, ignores, bad = options.ignore, options.ignores, 0
    for n in range(labels.size):
        label = labels[n]
        bad += ((label < 0) | (label >= classes)) & ~(ignores & (label == ignore))
    if bad:
        raise IndexError("a label is out of range")


@pasted
def divisor_of(labels: Any, classes: Any, weight: Any, sample_weight: Any, options: Options) -> Any:
    """Return what a mean divides by: a count, or the sum of the weights that count."""
    ignore, ignores, by_count = options.ignore, options.ignores, options.by_count
    if by_count and not ignores:
        return np.float64(labels.size)
    total = 0.0
    for n in range(labels.size):
        label, w = labels[n], 1.0
        if ignores and label == ignore:
            continue
        if not by_count:
            if options.by_class:
                w = np.float64(weight[label]) if 0 <= label < classes else 0.0
            if sample_weight.size > 0:
                w *= np.float64(sample_weight[n])
        total += w
    return total


@plain
def surveyed(labels: Any, classes: Any, weight: Any, sample_weight: Any, options: Options) -> Any:
    """Return the options with what is found out of all samples; check labels, if that is asked."""
    if options.checks:
        check(labels, classes, options)
    weight_sum = 0.0
    for c in range(weight.size):
        weight_sum += np.float64(weight[c])
    divisor = options.divisor
    if options.reduction == MEAN and divisor == 0:
        divisor = divisor_of(labels, classes, weight, sample_weight, options)
    return Options(
        options.ignore, options.ignores, options.smoothing, options.temperature, options.softcap,
        options.unbias, options.reduction, divisor, options.by_count, options.by_class,
        options.empty, options.checks, options.z_loss, options.sums, weight_sum,
    )  # fmt: skip


@plain
def problem_of(classes: Any, weight: Any, sample_weight: Any, offset: Any, options: Options) -> Any:
    """Return the `Problem` that all blocks of samples have in common."""
    unit, inverse_temperature, offset_sum = 1.0, 1 / options.temperature, 0.0
    if options.softcap > 0:
        inverse_temperature *= options.softcap
    if options.smoothing > 0:
        for c in range(offset.size):
            if weight[c] != 0:
                offset_sum += np.float64(weight[c] * offset[c]) * inverse_temperature
    if options.reduction == MEAN:
        unit = 1 / options.divisor if options.divisor != 0 else options.empty
    return Problem(
        borrowed(weight), borrowed(sample_weight), options.ignore, options.ignores,
        options.weight_sum, options.smoothing, options.smoothing / classes, inverse_temperature,
        options.unbias, unit / options.temperature, offset, offset_sum, options.z_loss,
        options.sums,
    )  # fmt: skip


@plain
def loss_of(terms: Any, options: Options) -> Any:
    """Return what the terms add up to; 0 with reduction NONE, where they are the result."""
    if options.reduction == NONE:
        return 0.0
    total = row_sum(terms)
    if options.reduction == TOTAL:
        return total
    return total / options.divisor if options.divisor != 0 else options.empty


@compiled(kind=FLOATS)
def survey(
    labels: Integers, weight: Read1, sample_weight: Read1, classes: int, options: OptionsIn
) -> tuple[float, float]:
    """Return the divisor and the weight sum of the options that several threads go on with."""
    found = surveyed(labels, classes, weight, sample_weight, Options(*options))
    return found.divisor, found.weight_sum


@compiled()
def summed(terms: Doubles, options: OptionsIn) -> float:
    """Return the loss from the terms that several threads wrote, in their fixed order."""
    loss: float = loss_of(terms, Options(*options))
    return loss


# --- logits (N, classes) -------------------------------------------------------------------------
#
# A loop that is not shared out, where ``parts`` is 1, surveys the samples by itself, keeps the
# terms to itself if ``terms`` has no elements, and returns the loss: one call, for small arrays.
# Else `survey` comes before it and `summed` behind, and the parts return 0. The gradient is written
# to g if that has elements.


@plain
def room_for(size: Any, options: Options, like: Any) -> Any:
    """Return memory for so many capped logits, of the dtype of an array; none without a cap."""
    return np.empty(size if options.softcap > 0 else 0, like.dtype)


@compiled_in_parts(PIECES, kind=FLOATS)
def long(
    x: Read2, labels: Integers, weight: Read1, sample_weight: Read1, prior: Read1,
    options: OptionsIn, g: Write2, terms: WrittenDoubles, parts: int, part: int,
) -> float:  # fmt: skip
    """Do a part of the rows x of many classes, in blocks that do not depend on the parts."""
    options, step = Options(*options), max(1, BLOCK // x.shape[1])
    if parts == 1:
        options = surveyed(labels, x.shape[1], weight, sample_weight, options)
        terms = terms if terms.size else np.empty(labels.size)
    offset = offset_by(prior, options.temperature, options.softcap)
    problem = problem_of(x.shape[1], weight, sample_weight, offset, options)
    count, classes = x.shape
    blocks, room = (count + step - 1) // step, room_for(step * classes, options, x)
    x, g = borrowed(x).reshape(-1), borrowed(g)
    for i in range(blocks * part // parts, blocks * (part + 1) // parts):
        first, rows = i * step, min(step, count - i * step)
        logits = x[first * classes : (first + rows) * classes]
        z, own = capped(logits, options.softcap, options.unbias, room), g[first : first + rows]
        long_rows(z.reshape(rows, classes), labels, first, problem, own, terms)
        if options.softcap > 0 and g.size:
            uncap(own.reshape(-1), z)
    return loss_of(terms[: labels.size], options) if parts == 1 else 0.0


@pasted
def rows_of_short(classes: Any) -> Any:
    """Return the rows of a block, whole tiles."""
    return 16 * max(1, min(32, BLOCK // 2 // 16 // classes))


@compiled_in_parts(PIECES, kind=FLOATS)
def short(
    x: Read2, labels: Integers, weight: Read1, sample_weight: Read1, prior: Read1,
    options: OptionsIn, g: Write2, terms: WrittenDoubles, parts: int, part: int,
) -> float:  # fmt: skip
    """Do a part of the rows x of few classes."""
    options, step = Options(*options), rows_of_short(x.shape[1])
    if parts == 1:
        options = surveyed(labels, x.shape[1], weight, sample_weight, options)
        terms = terms if terms.size else np.empty(labels.size)
    offset = offset_by(prior, options.temperature, options.softcap)
    problem = problem_of(x.shape[1], weight, sample_weight, offset, options)
    classes, count = x.shape[1], x.shape[0]
    blocks, space = (count + step - 1) // step, space_for(step, classes, x)
    room = room_for(step * classes, options, x)
    x, g = borrowed(x).reshape(-1), borrowed(g).reshape(-1)
    for i in range(blocks * part // parts, blocks * (part + 1) // parts):
        first, rows = i * step, min(step, count - i * step)
        start, stop = first * classes, (first + rows) * classes
        z, own = capped(x[start:stop], options.softcap, options.unbias, room), g[start:stop]
        few_rows(z, classes, borrowed(labels), first, rows, problem, own, borrowed(terms), space)
        if options.softcap > 0 and g.size:
            uncap(own, z)
    return loss_of(terms[: labels.size], options) if parts == 1 else 0.0


@plain
def cotangent_of(n: Any, labels: Any, sample_weight: Any, options: Options, dy: Any) -> Any:
    """Return the cotangent of sample n; 0 where the gradient is to stay 0 whatever it is."""
    dead = is_dead(labels[n], n, sample_weight, options.ignore, options.ignores)
    return dy.dtype.type(0) if dead else dy[n if dy.size > 1 else 0]


@compiled_in_parts(PIECES, kind=FLOATS)
def scale_rows(
    g: Write2, labels: Integers, sample_weight: Read1, options: OptionsIn, dy: Read1,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Multiply rows of the gradient g by one cotangent, or by one a sample."""
    options, rows = Options(*options), borrowed(g)
    for n in range(g.shape[0] * part // parts, g.shape[0] * (part + 1) // parts):
        scale(rows[n], cotangent_of(n, labels, sample_weight, options, dy))


# --- logits (outer, classes, inner) --------------------------------------------------------------


@pasted
def pixels_of_a_block(classes: Any) -> Any:
    """Return how many pixels make a unit of work."""
    return min(1024, max(16, 4 * BLOCK // classes // 16 * 16))


@pasted
def planes_block(
    i: Any, x: Any, labels: Any, problem: Any, options: Options, g: Any, terms: Any, room: Any
) -> None:
    """Do block i of the pixels of x."""
    inner, length = x.shape[2], pixels_of_a_block(x.shape[1])
    runs = (inner + length - 1) // length
    image, start = i // runs, i % runs * length
    stop = min(start + length, inner)
    logits, at = x[image], start
    part = g[image] if g.size else np.empty((0, 0), x.dtype)
    if options.softcap > 0:
        for c in range(x.shape[1]):
            cap(logits[c, start:stop], options.softcap, options.unbias, room[c, : stop - start])
        logits, at = only_read(room), 0
    block(logits, at, start, stop, labels, image * inner + start, problem, part, terms)
    if options.softcap > 0 and g.size:
        for c in range(x.shape[1]):
            uncap(part[c, start:stop], room[c, : stop - start])


@compiled_in_parts(PIECES, kind=FLOATS)
def planes(
    x: Read3, labels: Integers, weight: Read1, sample_weight: Read1, prior: Read1,
    options: OptionsIn, g: Write3, terms: WrittenDoubles, parts: int, part: int,
) -> float:  # fmt: skip
    """Do a part of the pixels of x (outer, classes, inner)."""
    options, length = Options(*options), pixels_of_a_block(x.shape[1])
    if parts == 1:
        options = surveyed(labels, x.shape[1], weight, sample_weight, options)
        terms = terms if terms.size else np.empty(labels.size)
    offset = offset_by(prior, options.temperature, options.softcap)
    problem = problem_of(x.shape[1], weight, sample_weight, offset, options)
    blocks = x.shape[0] * ((x.shape[2] + length - 1) // length)
    room = np.empty((x.shape[1] if options.softcap > 0 else 0, length), x.dtype)
    for i in range(blocks * part // parts, blocks * (part + 1) // parts):
        planes_block(i, x, labels, problem, options, g, terms, room)
    return loss_of(terms[: labels.size], options) if parts == 1 else 0.0


@plain
def scale_pixels(g: Any, factors: Any) -> None:
    """Multiply the pixels g of a class by a number each."""
    for p in range(g.size):
        g[p] *= factors[p]


@compiled_in_parts(PIECES, kind=FLOATS)
def scale_planes(
    g: Write3, labels: Integers, sample_weight: Read1, options: OptionsIn, dy: Read1,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Multiply the gradient g (outer, classes, inner) by one cotangent, or by one a pixel."""
    options, inner, images = Options(*options), g.shape[2], borrowed(g)
    length = -(-inner // parts)
    factors = np.empty(length, dy.dtype)
    for image in range(g.shape[0]):
        first, last = inner * part // parts, inner * (part + 1) // parts
        for p in range(first, last):
            n = image * inner + p
            factors[p - first] = cotangent_of(n, labels, sample_weight, options, dy)
        for c in range(g.shape[1]):
            scale_pixels(images[image, c, first:last], factors)
