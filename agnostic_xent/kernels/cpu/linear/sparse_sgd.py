"""The kernel of plain SGD of sparse samples: the textbook's update on entries alone.

A penalty shrinks all weights at each step, and an average takes a share of all of them. Both are
put off: with numbers s, p and q that a step changes, the weights are ``w = s v`` and their average
is ``p u + q v``; a step moves v, and u against it, where the samples have entries. L. Bottou,
Stochastic gradient descent tricks (2012), sections 5.1 and 5.2.

Steps follow each other, so this runs on one thread. z are logits, d slopes of the loss at them.
Weights are read and written as (columns, units).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ....core.operation import ROUTINES, Implementation
from ..simd.elementary import BIAS, borrowed, exp_biased, log1p, plain
from ..toolchain.compiling import compiled
from ..toolchain.signatures import FLOATS, Doubles, Integers, Read1, Read2, Write1, Write2
from .sgd import Decay, softmax_slope
from .sparse import INDICES, Columns, add, flat_rows, row_product, spread, why_no_rows

SMALL = 1e-2
"""Factors under it are multiplied out: by so much the digits of what is divided by them suffer."""


class Form(NamedTuple):
    """What of the parameters there is, and how targets say the classes."""

    averaged: bool
    labels: bool
    """Whether targets are labels, no shares of classes."""


def takes(
    w: Any, b: Any, data: Any, indices: Any, indptr: Any, y: Any, *, batch_size: int, **_: Any
) -> str | None:
    """Return why these arguments are not taken, or None."""
    if why := why_no_rows(w, data, indices, indptr):
        return why
    if type(y) is not np.ndarray or (y.dtype.kind not in "iu" and y.dtype != w.dtype):
        return "it takes targets of NumPy: labels, or numbers of the dtype of the weights"
    return None


def value(
    params: Any, rows: Any, targets: Any, means: Any, *,
    order: Any, rates: Any, shares: Any, batch_size: int, weight_decay: float, decay_bias: bool,
) -> tuple[list[Any], list[Any], float, int]:  # fmt: skip
    """Return the parameters and averages after the steps, the loss and the right predictions."""
    (w, b), (mean_w, mean_b), (y,) = params, means, targets
    dtype, units, averaged = w.dtype, len(w), mean_w is not None
    data, indices, indptr = flat_rows(rows)
    v, bias = _turned(w), np.zeros(units, dtype) if b is None else np.array(b)
    u = _turned(mean_w) if averaged else np.zeros((1, units), dtype)
    mean = np.array(mean_b) if averaged and b is not None else np.zeros(units, dtype)
    decay = Decay(float(weight_decay), float(weight_decay if decay_bias else 0), b is not None)
    y = np.take(y, order, axis=0)
    form = Form(averaged, y.ndim == 1)
    labels = y.astype(np.int64) if form.labels else y.argmax(axis=1)
    shares_of_classes = np.zeros((1, units), dtype) if form.labels else np.ascontiguousarray(y)
    total, correct = take_steps[dtype, indices.dtype](
        labels, shares_of_classes, data, indices, indptr, order, rates, shares, decay, form,
        v, bias, u, mean, np.empty(units, dtype), np.empty((batch_size, units), dtype),
        1 / BIAS[dtype],
    )  # fmt: skip
    with_bias = b is not None
    found = [u.T, mean if with_bias else None] if averaged else [None, None]
    return [v.T, bias if with_bias else None], found, total, correct


def _turned(w: Any) -> Any:
    """Return a copy as (columns, units): as it lies, of an array that a call has returned."""
    return np.array(w.T, order="C")


@compiled(kind=FLOATS, index=INDICES)
def take_steps(
    labels: Integers, t: Read2, data: Read1, indices: Columns, indptr: Integers, order: Integers,
    rates: Doubles, shares: Doubles, decay: Decay, form: Form, v: Write2, b: Write1, u: Write2,
    mean: Write1, z: Write1, d: Write2, unbias: float,
) -> tuple[float, int]:  # fmt: skip
    """Take a step a batch; return the sum of the losses and how many predictions were right."""
    total, correct, s, p, q, z = 0.0, 0, 1.0, 1.0, 0.0, borrowed(z)
    for step in range(rates.size):
        first = step * d.shape[0]
        rows = order[first : first + d.shape[0]]
        for k in range(rows.size):
            score(z, s, v, b, data, indices, indptr[rows[k]], indptr[rows[k] + 1])
            own = t[0 if form.labels else first + k]
            loss, hit = sample_slope(z, labels[first + k], own, form.labels, d[k], unbias)
            total += loss
            correct += hit
        s *= 1 - rates[step] * decay.weights
        if abs(s) < SMALL or p < SMALL:
            multiply_out(v, u, s, p, q, form.averaged)
            s, p, q = 1.0, 1.0, 0.0
        for k in range(rows.size):
            rate = rates[step] / rows.size
            keep = 1 - rates[step] * decay.biases if k == 0 else 1.0
            for c in range(z.size):
                if decay.with_bias:
                    b[c] = b.dtype.type(keep * b[c] - rate * d[k, c])
                d[k, c] *= d.dtype.type(-rate / s)
            start, stop = indptr[rows[k]], indptr[rows[k] + 1]
            move(v, d, k, data, indices, start, stop)
            if form.averaged and q != 0:
                for c in range(z.size):
                    d[k, c] *= d.dtype.type(-q / p)
                move(u, d, k, data, indices, start, stop)
        if form.averaged:
            rest, share = 1 - shares[step], shares[step]
            for c in range(z.size):
                mean[c] = mean.dtype.type(rest * mean[c] + share * b[c])
            if rest == 0:
                u[:] = 0
            p, q = p * rest if rest != 0 else 1.0, q * rest + share * s
    multiply_out(v, u, s, p, q, form.averaged)
    return total, correct


@plain
def score(z: Any, s: Any, v: Any, b: Any, data: Any, indices: Any, start: Any, stop: Any) -> None:
    """Write the logits of a sample to z."""
    if z.size == 1:
        z[0] = z.dtype.type(s * row_product(v, data, indices, start, stop)) + b[0]
        return
    z[:] = 0
    for i in range(start, stop):
        factor = data[i]
        for c in range(z.size):
            z[c] += factor * v[indices[i], c]
    for c in range(z.size):
        z[c] = z.dtype.type(s * z[c]) + b[c]


@plain
def move(v: Any, d: Any, k: Any, data: Any, indices: Any, start: Any, stop: Any) -> None:
    """Add row k of d, times a sample's entries, to the weights of their columns."""
    if v.shape[1] == 1:
        spread(v, d[k, 0], data, indices, start, stop)
    else:
        for i in range(start, stop):
            add(v, indices[i], data[i], d, k)


@plain
def multiply_out(v: Any, u: Any, s: Any, p: Any, q: Any, averaged: Any) -> None:
    """Let v be the weights, and u their average, where there is one.

    The average is that of v as it was before its last factor s was to be taken in.
    """
    for j in range(v.shape[0]):
        for c in range(v.shape[1]):
            if averaged:
                u[j, c] = u.dtype.type(p * u[j, c] + q * v[j, c])
            v[j, c] = v.dtype.type(s * v[j, c])


# --- the slopes of a sample's loss ---------------------------------------------------------------


@plain
def sample_slope(z: Any, label: Any, t: Any, as_labels: Any, d: Any, unbias: Any) -> Any:
    """Write the slopes to d; return the loss, and 1 if the prediction is right.

    t are the classes' shares of the sample's weight, unless the label alone counts.
    """
    if z.size == 1:
        return one_logit(z[0], t[0], t[1], d, unbias)
    loss, hit = softmax_slope(z, label, d, unbias)
    if as_labels:
        return loss, hit
    total, others = 0.0, 0.0
    for c in range(z.size):
        total += t[c]
        others += t[c] * (z[label] - z[c]) if t[c] != 0 and c != label else 0.0
    for c in range(z.size):  # d is p - 1 of the label; of one class alone nothing is subtracted
        d[c] = d.dtype.type(total * d[c]) - (t[c] if c != label else 0)
    d[label] += d.dtype.type(total - t[label])
    return (total * loss + others if total != 0 else 0.0), hit


@plain
def one_logit(z: Any, t0: Any, t1: Any, d: Any, unbias: Any) -> Any:
    """Do the same for a logit of the second class, with all digits where p is almost the target."""
    e = math.exp(-abs(z))
    near = 1 / (1 + e)
    far = e * near
    d[0] = t0 * near - t1 * far if z >= 0 else t0 * far - t1 * near
    tail = log1p(exp_biased(-abs(z)) * unbias)
    loss = t1 * (tail + max(-z, 0.0)) if t1 != 0 else 0.0
    loss += t0 * (tail + max(z, 0.0)) if t0 != 0 else 0.0
    return loss, int((z > 0) == (t1 > t0))


options = "order", "rates", "shares", "batch_size", "weight_decay", "decay_bias"
kernel = Implementation("Numba loops", value, takes=takes, options=options)
ROUTINES["sparse_sgd"].add_kernel("numpy", kernel)
