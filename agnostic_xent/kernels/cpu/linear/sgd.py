"""The kernel of plain SGD of a linear model: an epoch of logistic regression in one call.

Notation: z logits, t target, p probability, d = p - t the slope of a sample's loss at its logit.
Steps follow each other, so this runs on one thread.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import numpy as np

from ....core.operation import ROUTINES, Implementation
from ..simd.elementary import BIAS, borrowed, exp_biased, log1p, njit, plain, row_max, row_sum
from ..simd.vectors import Vectors, cgutils, intrinsic
from ..toolchain.arguments import why_not
from ..toolchain.compiling import compiled
from ..toolchain.signatures import (
    FLOATS,
    Array,
    Doubles,
    Integers,
    Read1,
    Read2,
    Write1,
    Write2,
    types,
)

MANY = 256
"""Samples a step from which products of whole matrices are faster."""

BINARY = "binary_cross_entropy_with_logits"

sums = njit(fastmath={"reassoc", "contract"}, error_model="numpy")
"""Sums in lanes, in an order that the machine code fixes; infinities and NaN keep their meaning."""

LAYOUTS = ("C", "A")
"""Of the samples, as Numba names them: one after another, or any."""

Samples = Annotated[Any, Array("kind", 2, layout="layout")]


class Decay(NamedTuple):
    """What of weights and biases a step takes away, and whether there are biases."""

    weights: float
    biases: float
    with_bias: bool
    l1: float
    """By so much, times the rate, weights then come nearer to 0."""


def takes(w: Any, b: Any, x: Any, y: Any, *, batch_size: int, loss: str, **_: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    if why := why_not(w, b, x, y):
        return why
    if loss != BINARY and y.dtype.kind not in "iu":
        return "it takes labels, not probabilities"
    if x.dtype != w.dtype or (loss == BINARY and y.dtype != w.dtype):
        return "it takes arrays of one dtype"
    if x.ndim != 2:
        return f"it takes samples of one dimension, not {x.ndim - 1}"
    return f"it takes batches under {MANY} samples" if batch_size >= MANY else None


def value(
    w: Any, b: Any, x: Any, y: Any, order: Any, rates: Any, *,
    loss: str, batch_size: int, weight_decay: float, decay_bias: bool, l1: float = 0.0,
) -> tuple[Any, Any, float, int]:  # fmt: skip
    """Return weights and bias after the steps, the samples' loss and the right predictions."""
    dtype = w.dtype
    variant = dtype, "C" if x.flags.c_contiguous else "A"
    x, y = np.asarray(x), np.take(y, order, axis=0)
    w, with_bias = np.array(w, order="C"), b is not None
    b = np.array(b) if with_bias else np.zeros(len(w), dtype)
    of_biases = float(weight_decay if decay_bias else 0)
    decay = Decay(float(weight_decay), of_biases, with_bias, float(l1))
    data = x, order, rates, decay, w, b
    if loss == BINARY:
        t, z = y.ravel(), np.empty(len(order), dtype)
        if batch_size == 1 and x.flags.c_contiguous and not l1:
            one_by_one[dtype](t, *data, z)
        else:
            in_batches[variant](t, *data, z, np.empty((batch_size, 1), dtype))
        total, correct = score[dtype](z, t, 1 / BIAS[dtype])
    else:
        z, d = np.empty(len(w), dtype), np.empty((batch_size, len(w)), dtype)
        labels = y.astype(np.int64)
        total, correct = of_classes[variant](labels, *data, z, d, 1 / BIAS[dtype])
    return w, b if with_bias else None, total, correct


# --- a step --------------------------------------------------------------------------------------


@sums
def dot(w: Any, c: Any, x: Any, i: Any) -> Any:
    """Return the inner product of row c of w and row i of x."""
    total = w.dtype.type(0)
    for j in range(w.shape[1]):
        total += w[c, j] * x[i, j]
    return total


@plain
def descend(w: Any, b: Any, x: Any, rows: Any, d: Any, rate: Any, decay: Decay) -> None:
    """Do ``w = w - rate * (mean of d x + decay * w)`` for rows of x, and likewise b."""
    one, share = w.dtype.type(1), w.dtype.type(rate / rows.size)
    for c in range(w.shape[0]):
        keep = w.dtype.type(1 - rate * decay.weights)
        keep_b = w.dtype.type(1 - rate * decay.biases)
        for k in range(rows.size):
            scale = share * d[k, c]
            move(w, c, x, rows[k], keep, scale)
            if decay.with_bias:
                b[c] = keep_b * b[c] - scale
            keep = keep_b = one
    if decay.l1 != 0:
        shrink(w, w.dtype.type(rate * decay.l1))


@plain
def shrink(w: Any, less: Any) -> None:
    """Bring weights nearer to 0, at most to it."""
    for c in range(w.shape[0]):
        for j in range(w.shape[1]):
            w[c, j] = nearer(w[c, j], less)


@plain
def nearer(w: Any, less: Any) -> Any:
    """Return a weight nearer to 0; one that is not finite stays so."""
    return w - less if w > less else (w + less if w < -less else w * 0)


@sums
def move(w: Any, c: Any, x: Any, i: Any, keep: Any, scale: Any) -> None:
    """Shrink row c of w and go along row i of x."""
    for j in range(w.shape[1]):
        w[c, j] = keep * w[c, j] - scale * x[i, j]


# --- one logit -----------------------------------------------------------------------------------


@plain
def slope(z: Any, t: Any, one: Any) -> Any:
    """Return p - t, with all its digits where p is almost t."""
    e = math.exp(-abs(z))
    near = one / (one + e)
    far = e * near
    return (one - t) * near - t * far if z >= 0 else (one - t) * far - t * near


@compiled(kind=FLOATS)
def one_by_one(
    t: Read1, x: Read2, order: Integers, rates: Doubles, decay: Decay, w: Write2, b: Write1,
    z: Write1,
) -> None:  # fmt: skip
    """Take a step a sample of x; t and the logits, written to z, are in the order of the steps.

    The next logit waits for this sample's slope, and that for an exponential. Meanwhile w and x
    of this sample are multiplied by the next x: the next logit is then two products away.
    """
    one, zero, size = w.dtype.type(1), w.dtype.type(0), w.shape[1]
    keep, scale, bias, last, now = one, zero, b[0], order[0], order[0]
    logit = dot(w, 0, x, now) + bias
    for k in range(order.size):
        then = order[min(k + 1, order.size - 1)]
        of_w, of_x = look_ahead(w, x, last * size, now * size, then * size, size, keep, scale)
        z[k] = logit
        keep, scale = w.dtype.type(1 - rates[k] * decay.weights), w.dtype.type(rates[k])
        scale *= slope(logit, t[k], one)
        if decay.with_bias:
            bias = w.dtype.type(1 - rates[k] * decay.biases) * bias - scale
        logit = keep * of_w - scale * of_x + bias
        if not math.isfinite(logit):  # products can overflow where their difference does not
            move(w, 0, x, now, keep, scale)
            keep, scale = one, zero
            logit = dot(w, 0, x, then) + bias
        last, now = now, then
    move(w, 0, x, last, keep, scale)
    b[0] = bias


@intrinsic
def look_ahead(
    context: Any, w: Any, x: Any, last: Any, now: Any, then: Any, size: Any, keep: Any, scale: Any
) -> Any:
    """Update w by the last sample; return the products of w and of this sample with the next.

    Samples are given by their offsets in x. Whole vectors, of which the last one is masked: a
    loop that Numba vectorises would do the last features one by one.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w, x, *offsets, size, keep, scale = args
        of_w, of_x, *_, kind = signature.args
        v = Vectors(context, builder, kind)
        weights, samples = v.data(of_w, w), v.data(of_x, x)
        rows, lanes = [v.at(samples, offset) for offset in offsets], v.index(v.lanes)
        keep, minus_scale = v.splat(keep), v.splat(builder.fneg(scale))
        sums = [cgutils.alloca_once_value(builder, v.zero) for _ in range(2)]

        def part(j: Any, load: Any, store: Any) -> None:
            last, now, then = (load(v.at(row, j)) for row in rows)
            moved = v.fma(last, minus_scale, builder.fmul(keep, load(v.at(weights, j))))
            store(moved, v.at(weights, j))
            for total, factor in zip(sums, (moved, now), strict=True):
                builder.store(v.fma(factor, then, builder.load(total)), total)

        whole = builder.mul(builder.sdiv(size, lanes), lanes)
        with cgutils.for_range_slice(builder, v.index(0), whole, lanes) as (j, _):
            part(j, v.load, v.store)
        mask = v.first(builder.sub(size, whole))
        part(whole, lambda at: v.load_masked(at, mask), lambda y, at: v.store_masked(y, at, mask))
        totals = [_total(v, builder.load(total)) for total in sums]
        return context.make_tuple(builder, signature.return_type, totals)

    kind, i = w.dtype, types.int64
    return types.UniTuple(kind, 2)(w, x, i, i, i, i, kind, kind), emit


def _total(v: Vectors, x: Any) -> Any:
    """Emit the sum of the lanes of the vector x, two halves at a time."""
    width = v.lanes // 2
    while width:
        x = v.builder.fadd(x, v.shuffle(x, x, [i ^ width for i in range(v.lanes)]))
        width //= 2
    return v.builder.extract_element(x, v.index(0))


@compiled(kind=FLOATS, layout=LAYOUTS)
def in_batches(
    t: Read1, x: Samples, order: Integers, rates: Doubles, decay: Decay, w: Write2, b: Write1,
    z: Write1, d: Write2,
) -> None:  # fmt: skip
    """Take a step a batch of as many samples as d has rows; t and z as in `one_by_one`."""
    one = w.dtype.type(1)
    for step in range(rates.size):
        first = step * d.shape[0]
        rows = order[first : first + d.shape[0]]
        for k in range(rows.size):
            z[first + k] = dot(w, 0, x, rows[k]) + b[0]
            d[k, 0] = slope(z[first + k], t[first + k], one)
        descend(w, b, x, rows, d, rates[step], decay)


@compiled(kind=FLOATS)
def score(z: Read1, t: Read1, unbias: float) -> tuple[float, int]:
    """Return the sum of the losses of logits z, and how many of them have the right sign."""
    return losses(z, t, unbias), right(z, t)


@sums
def losses(z: Any, t: Any, unbias: Any) -> Any:
    """Return the sum of ``-t log s(z) - (1 - t) log s(-z)``, with 0 inf = 0."""
    total = 0.0
    for k in range(z.size):
        tail = log1p(exp_biased(-abs(z[k])) * unbias)
        positive = t[k] * (tail + max(-z[k], 0.0)) if t[k] != 0 else 0.0
        total += positive + ((1.0 - t[k]) * (tail + max(z[k], 0.0)) if t[k] != 1 else 0.0)
    return total


@plain
def right(z: Any, t: Any) -> Any:
    """Return how many of the logits z have the sign that the target t asks for."""
    count = 0
    for k in range(z.size):
        count += (z[k] > 0) == (t[k] > 0.5)
    return count


# --- classes -------------------------------------------------------------------------------------


@compiled(kind=FLOATS, layout=LAYOUTS)
def of_classes(
    labels: Integers, x: Samples, order: Integers, rates: Doubles, decay: Decay, w: Write2,
    b: Write1, z: Write1, d: Write2, unbias: float,
) -> tuple[float, int]:  # fmt: skip
    """Take a step a batch; return the sum of the losses and how many predictions were right."""
    total, correct, z, d = 0.0, 0, borrowed(z), borrowed(d)
    for step in range(rates.size):
        first = step * d.shape[0]
        rows = order[first : first + d.shape[0]]
        for k in range(rows.size):
            for c in range(z.size):
                z[c] = dot(w, c, x, rows[k]) + b[c]
            loss, hit = softmax_slope(z, labels[first + k], d[k], unbias)
            total += loss
            correct += hit
        descend(w, b, x, rows, d, rates[step], decay)
    return total, correct


@plain
def softmax_slope(z: Any, label: Any, d: Any, unbias: Any) -> Any:
    """Write p - t to d; return the loss, and 1 if the label is the first of the largest logits."""
    if not 0 <= label < z.size:
        d[:] = np.nan
        return np.nan, 0
    top = row_max(z)
    for c in range(z.size):
        d[c] = exp_biased(z[c] - top)
    own, d[label] = d[label], 0
    others = row_sum(d)
    for c in range(z.size):
        d[c] /= own + others
    d[label] = -others / (own + others)
    if z[label] != top:
        return math.log((own + others) * unbias) - (z[label] - top), 0
    hit = 1
    for c in range(label):
        if z[c] == top:
            hit = 0
    return log1p(others * unbias), hit


options = "loss", "batch_size", "weight_decay", "decay_bias", "l1"
kernel = Implementation("Numba loops", value, takes=takes, options=options)
ROUTINES["linear_sgd"].add_kernel("numpy", kernel)
