"""The kernel of plain SGD of sparse samples: the textbook's update on entries alone.

A penalty shrinks all weights at each step, and an average takes a share of all of them. Both are
put off: with numbers s, p and q that a step changes, the weights are ``w = s v`` and their average
is ``p u + q v``; a step moves v, and u against it, where the samples have entries. L. Bottou,
Stochastic gradient descent tricks (2012), sections 5.1 and 5.2. An l1 penalty brings all weights
nearer to 0. That is put off, too, until a column is met: steps in between add up. B. Carpenter,
Lazy sparse stochastic gradient descent for regularized multinomial logistic regression (2008).

Steps follow each other, so this runs on one thread. z are logits, d slopes of the loss at them.
Weights are read and written as (columns, units), those of u behind those of v.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ....core.operation import ROUTINES, Implementation
from ..simd.elementary import BIAS, borrowed, exp_biased, inlined, log1p
from ..simd.lines import prefetch_to_read, prefetch_to_write
from ..toolchain.compiling import compiled
from ..toolchain.signatures import (
    FLOATS,
    Doubles,
    Integers,
    Read1,
    Read2,
    Write1,
    Write2,
    WrittenDoubles,
)
from .sgd import Decay, nearer, softmax_slope
from .sparse import INDICES, Columns, add, flat_rows, row_product, spread, why_no_rows

SMALL = 1e-2
"""Factors under it are multiplied out: by so much the digits of what is divided by them suffer."""

AHEAD = 4
"""Entries are asked for so many samples before their turn, and where they are twice as early.

Samples lie anywhere in memory: without that, waiting for them takes four fifths of the time.
"""

LARGE = 1 << 19
"""Weights that no cache near the core holds; the next sample's are asked for, too."""


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
    l1: float = 0.0,
) -> tuple[list[Any], list[Any], float, int]:  # fmt: skip
    """Return the parameters and averages after the steps, the loss and the right predictions."""
    (w, b), (mean_w, mean_b), (y,) = params, means, targets
    dtype, units, averaged = w.dtype, len(w), mean_w is not None
    data, indices, indptr = flat_rows(rows)
    v, bias = _turned(w, mean_w), np.zeros(units, dtype) if b is None else np.array(b)
    mean = np.array(mean_b) if averaged and b is not None else np.zeros(units, dtype)
    of_biases = float(weight_decay if decay_bias else 0)
    decay = Decay(float(weight_decay), of_biases, b is not None, float(l1))
    y = np.take(y, order, axis=0)
    form = Form(averaged, y.ndim == 1)
    labels = _labels(y, units)
    shares_of_classes = np.zeros((1, units), dtype) if form.labels else np.ascontiguousarray(y)
    total, correct = take_steps[dtype, indices.dtype](
        labels, shares_of_classes, data, indices, indptr, order, rates, shares, decay, form,
        v, np.zeros(len(v) if l1 else 0), bias, mean,
        np.empty(units, dtype), np.empty((batch_size, v.shape[1]), dtype), 1 / BIAS[dtype],
    )  # fmt: skip
    with_bias = b is not None
    parts = [np.ascontiguousarray(v[:, i : i + units]).T for i in range(0, v.shape[1], units)]
    w, found = parts[0], [parts[-1] if averaged else None, mean if averaged and with_bias else None]
    return [w, bias if with_bias else None], found, total, correct


def _turned(w: Any, mean: Any) -> Any:
    """Return a copy as (columns, units), or (columns, 2 units) together with the average."""
    parts = [w] if mean is None else [w, mean]
    v, units = np.empty((w.shape[1], len(parts) * len(w)), w.dtype), len(w)
    for i, part in enumerate(parts):
        v[:, i * units : (i + 1) * units] = part.T
    return v


def _labels(y: Any, units: int) -> Any:
    """Return the classes that have the largest shares; zeros of one unit, which needs none."""
    if units == 1:
        return np.zeros(len(y), np.int64)
    return y.astype(np.int64) if y.ndim == 1 else y.argmax(axis=1)


@compiled(kind=FLOATS, index=INDICES)
def take_steps(
    labels: Integers, t: Read2, data: Read1, indices: Columns, indptr: Integers, order: Integers,
    rates: Doubles, shares: Doubles, decay: Decay, form: Form, v: Write2, past: WrittenDoubles,
    b: Write1, mean: Write1, z: Write1, d: Write2, unbias: float,
) -> tuple[float, int]:  # fmt: skip
    """Take a step a batch; return the sum of the losses and how many predictions were right.

    By ``due`` have weights to come nearer to 0 since the first step; those of a column did by past.
    """
    total, correct, s, p, q, due = 0.0, 0, 1.0, 1.0, 0.0, 0.0
    order, t, z, d = borrowed(order), borrowed(t), borrowed(z), borrowed(d)
    data, indices = borrowed(data), borrowed(indices)
    for step in range(rates.size):
        first = step * d.shape[0]
        rows = order[first : first + d.shape[0]]
        for k in range(rows.size):
            prefetch_to_read(indptr, order[min(first + k + 2 * AHEAD, order.size - 1)])
            fetch(data, indices, indptr, order[min(first + k + AHEAD, order.size - 1)])
            if v.size > LARGE:
                fetch_weights(v, part(indices, indptr, order[min(first + k + 1, order.size - 1)]))
            x, columns = part(data, indptr, rows[k]), part(indices, indptr, rows[k])
            if past.size:
                for j in columns:
                    catch_up(v, past, due, np.int64(j))
            score(z, s, v, b, x, columns)
            own = t[0 if form.labels else first + k]
            loss, hit = sample_slope(z, labels[first + k], own, form.labels, d[k, : z.size], unbias)
            total += loss
            correct += hit
        s *= 1 - rates[step] * decay.weights
        if abs(s) < SMALL or p < SMALL:
            for j in range(past.size):
                catch_up(v, past, due, j)
            past[:], due = 0, 0.0
            multiply_out(v, z.size, s, p, q)
            s, p, q = 1.0, 1.0, 0.0
        for k in range(rows.size):
            rate = rates[step] / rows.size
            keep = 1 - rates[step] * decay.biases if k == 0 else 1.0
            for c in range(z.size):
                if decay.with_bias:
                    b[c] = b.dtype.type(keep * b[c] - rate * d[k, c])
                d[k, c] *= d.dtype.type(-rate / s)
                if form.averaged:
                    d[k, z.size + c] = d.dtype.type(-q / p) * d[k, c]
            move(v, d, k, part(data, indptr, rows[k]), part(indices, indptr, rows[k]))
        due += rates[step] * decay.l1 / abs(s)
        if form.averaged:
            rest, share = 1 - shares[step], shares[step]
            for c in range(z.size):
                mean[c] = mean.dtype.type(rest * mean[c] + share * b[c])
            if rest == 0:
                v[:, z.size :] = 0
            p, q = p * rest if rest != 0 else 1.0, q * rest + share * s
    for j in range(past.size):
        catch_up(v, past, due, j)
    multiply_out(v, z.size, s, p, q)
    return total, correct


@inlined
def part(x: Any, indptr: Any, i: Any) -> Any:
    """Return the entries of sample i."""
    return x[indptr[i] : indptr[i + 1]]


@inlined
def catch_up(v: Any, past: Any, due: Any, j: Any) -> None:
    """Bring the weights of a column, of which there is no average, as near to 0 as is due."""
    less = v.dtype.type(due - past[j])
    for c in range(v.shape[1]):
        v[j, c] = nearer(v[j, c], less)
    past[j] = due


@inlined
def score(z: Any, s: Any, v: Any, b: Any, x: Any, columns: Any) -> None:
    """Write the logits of a sample to z."""
    if z.size == 1:
        z[0] = z.dtype.type(s * row_product(v, x, columns)) + b[0]
        return
    z[:] = 0
    for i in range(x.size):
        j = np.uint64(columns[i])
        for c in range(z.size):
            z[c] += x[i] * v[j, c]
    for c in range(z.size):
        z[c] = z.dtype.type(s * z[c]) + b[c]


@inlined
def fetch(data: Any, indices: Any, indptr: Any, sample: Any) -> None:
    """Ask for the entries of a sample, which lies anywhere."""
    start, stop = indptr[sample], indptr[sample + 1]
    for i in range(start, stop + 7, 8):  # numbers in a line of memory, which begins anywhere
        prefetch_to_read(data, i)
    for i in range(start, stop + 15, 16):
        prefetch_to_read(indices, i)


@inlined
def fetch_weights(v: Any, columns: Any) -> None:
    """Ask for the weights of a sample's columns."""
    for j in columns:
        first = np.int64(j) * v.shape[1]
        for i in range(first, first + v.shape[1] + 7, 8):
            prefetch_to_write(v, i)


@inlined
def move(v: Any, d: Any, k: Any, x: Any, columns: Any) -> None:
    """Add row k of d, times a sample's entries, to the weights of their columns."""
    if v.shape[1] == 1:
        spread(v, d[k, 0], x, columns)
    elif v.shape[1] == 2:  # as below, without the loop's own cost
        for i in range(x.size):
            j = np.uint64(columns[i])
            v[j, 0] += d[k, 0] * x[i]
            v[j, 1] += d[k, 1] * x[i]
    else:
        for i in range(x.size):
            add(v, columns[i], x[i], d, k)


@inlined
def multiply_out(v: Any, units: Any, s: Any, p: Any, q: Any) -> None:
    """Let v be the weights, and what follows them, if anything does, their average."""
    for j in range(v.shape[0]):
        for c in range(units, v.shape[1]):
            v[j, c] = v.dtype.type(p * v[j, c] + q * v[j, c - units])
        for c in range(units):
            v[j, c] = v.dtype.type(s * v[j, c])


# --- the slopes of a sample's loss ---------------------------------------------------------------


@inlined
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


@inlined
def one_logit(z: Any, t0: Any, t1: Any, d: Any, unbias: Any) -> Any:
    """Do the same for a logit of the second class, with all digits where p is almost the target."""
    e = exp_biased(-abs(z)) * d.dtype.type(unbias)
    near = 1 / (1 + e)
    far = e * near
    d[0] = t0 * near - t1 * far if z >= 0 else t0 * far - t1 * near
    tail = log1p(e)
    loss = t1 * (tail + max(-z, 0.0)) if t1 != 0 else 0.0
    loss += t0 * (tail + max(z, 0.0)) if t0 != 0 else 0.0
    return loss, int((z > 0) == (t1 > t0))


options = "order", "rates", "shares", "batch_size", "weight_decay", "decay_bias", "l1"
kernel = Implementation("Numba loops", value, takes=takes, options=options)
ROUTINES["sparse_sgd"].add_kernel("numpy", kernel)
