"""Every combination of the losses' options against plain loops, slopes, and each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from conftest import assert_close, modes_of
from hypothesis import given, settings
from hypothesis import strategies as st

import agnostic_xent as ax

N, CLASSES = 5, 4
RNG = np.random.default_rng(11)
LOGITS = 2 * RNG.standard_normal((N, CLASSES))
LABELS = np.array([0, 3, 1, 3, 2])
SOFT = RNG.random((N, CLASSES))
SOFT /= SOFT.sum(axis=1, keepdims=True)
SHARES = SOFT * np.array([1.0, 0.5, 0.25, 1.0, 2.0])[:, None]
"""Probabilities that do not add up to 1, such as those of labels that are partly unknown."""
WEIGHT, SAMPLE_WEIGHT = RNG.random(CLASSES), RNG.random(N)

OPTIONS = (
    "weight", "sample_weight", "ignore_index", "label_smoothing", "reduction", "normalize"
)  # fmt: skip
COMBINATIONS = [
    dict(zip(OPTIONS, values, strict=True))
    for values in itertools.product(
        (None, WEIGHT), (None, SAMPLE_WEIGHT), (None, 3), (0.0, 0.2), ("mean", "sum", "none"),
        (None, "weight", "count", 3.5),
    )
    if values[4] == "mean" or values[5] is None
]  # fmt: skip


def short(options):
    given = {k: "array" if isinstance(v, np.ndarray) else v for k, v in options.items()}
    return "-".join(f"{k}={v}" for k, v in given.items() if v is not None) or "plain"


def plain(
    log_p, target, *, weight, sample_weight, ignore_index, label_smoothing, reduction, normalize
):
    """The definition, with loops over samples and classes."""
    soft = target.ndim == 2
    terms, by_weight, by_count = [], 0.0, 0
    for n in range(len(log_p)):
        if not soft and target[n] == ignore_index:
            terms.append(0.0)
            continue
        a = 1.0 if sample_weight is None else sample_weight[n]
        term = row_weight = 0.0
        for c in range(log_p.shape[1]):
            w = 1.0 if weight is None else weight[c]
            t = target[n, c] if soft else float(target[n] == c)
            row_weight += w * t
            t = (1 - label_smoothing) * t + label_smoothing / log_p.shape[1]
            term -= w * t * log_p[n, c]
        terms.append(a * term)
        by_weight += a * row_weight
        by_count += 1
    if reduction == "none":
        return np.array(terms)
    if reduction == "sum":
        return np.array(math.fsum(terms))
    by = ("count" if soft else "weight") if normalize is None else normalize
    return np.array(math.fsum(terms) / {"weight": by_weight, "count": by_count}.get(by, by))


def log_softmax(z):
    return np.array([[v - np.log(np.sum(np.exp(row))) for v in row] for row in z])


LOSSES = {
    "cross_entropy": (LOGITS, log_softmax),
    "nll_loss": (log_softmax(LOGITS), lambda s: s),
    "categorical_cross_entropy": (np.exp(log_softmax(LOGITS)), np.log),
}


@pytest.mark.parametrize("options", COMBINATIONS, ids=short)
@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name in LOSSES for mode in modes_of(name)]
)
def test_value_and_gradients(name, options, mode):
    scores, log = LOSSES[name]
    for target in (LABELS, SOFT, SHARES):
        if target is not LABELS and options["ignore_index"] is not None:
            continue
        with ax.kernels(mode):
            value, pullback = getattr(ax, name).vjp(scores, target, **options)
            assert_close(getattr(ax, name)(scores, target, **options), value, "float64", 8)
        assert_close(value, plain(log(scores), target, **options), "float64", 32)
        dy = RNG.standard_normal(value.shape)
        ds, dt = pullback(np.asarray(dy))
        check_slope(lambda s, t=target: plain(log(s), t, **options), scores, dy, ds)
        if target is not LABELS:
            check_slope(lambda t: plain(log(scores), t, **options), target, dy, dt)
        else:
            assert dt is None


def check_slope(f, x, dy, gradient):
    """Compare a gradient with the slope of a plain function along a random direction."""
    direction = RNG.standard_normal(x.shape) * np.abs(x)  # probabilities near 0 stay above it

    def difference(h):
        return (f(x + h * direction) - f(x - h * direction)) / (2 * h)

    slope = float(np.sum(dy * (4 * difference(5e-5) - difference(1e-4)) / 3))
    exact = float(np.sum(gradient * direction))
    assert abs(slope - exact) <= 2e-8 * max(1.0, float(np.sum(np.abs(gradient * direction))))


@pytest.mark.parametrize(
    "options",  # a sample of weight 0 counts, an ignored one does not: no counterpart by count
    [o for o in COMBINATIONS if o["ignore_index"] is None or o["normalize"] != "count"],
    ids=short,
)
def test_one_hot_and_labels_agree(options):
    """Ignored samples have no counterpart among probabilities but a weight of 0."""
    one_hot = np.eye(CLASSES)[LABELS]
    options = options | {"normalize": options["normalize"] or "weight"}
    as_soft = options | {"ignore_index": None}
    if options["ignore_index"] is not None:
        kept = options["ignore_index"] != LABELS
        given = np.ones(N) if options["sample_weight"] is None else options["sample_weight"]
        as_soft["sample_weight"] = given * kept
    value, pullback = ax.cross_entropy.vjp(LOGITS, LABELS, **options)
    soft_value, soft_pullback = ax.cross_entropy.vjp(LOGITS, one_hot, **as_soft)
    assert_close(value, soft_value, "float64", 8)
    dy = RNG.standard_normal(value.shape)
    assert_close(pullback(np.asarray(dy))[0], soft_pullback(np.asarray(dy))[0], "float64", 8)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_any_axis(row, axis):
    z = np.moveaxis(RNG.standard_normal((2, 3, 5, 4)), -1, axis)
    t = RNG.integers(0, 4, (2, 3, 5))
    a, w = RNG.random((2, 3, 5)), RNG.random(4)
    flat = {"sample_weight": a.ravel(), "weight": w}
    expected, pull = ax.cross_entropy.vjp(
        np.moveaxis(z, axis, -1).reshape(-1, 4), t.ravel(), **flat
    )
    dtype = row.dtypes[-1]

    def both(z, a, w):
        loss, pullback = ax.cross_entropy.vjp(
            z, row.array(t), axis=axis, sample_weight=a, weight=w, check_labels=False
        )
        return loss, pullback(loss * 0 + 1)[0]

    loss, gradient = row.call(both, *(row.array(v, dtype) for v in (z, a, w)))
    assert_close(loss, expected, dtype, 32)
    reference = np.moveaxis(pull(np.ones(()))[0].reshape(2, 3, 5, 4), -1, axis)
    assert_close(gradient, reference, dtype, 32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(-(2**12), 2**12), st.integers(0, 99))
def test_a_common_offset_changes_no_bit(n, classes, offset, seed):
    """Logits that are multiples of 1/16 take an integer offset without rounding."""
    rng = np.random.default_rng(seed)
    z = (rng.integers(-128, 128, (n, classes)) / 16).astype("float32")
    t = rng.integers(0, classes, n)
    loss, pullback = ax.cross_entropy.vjp(z, t)
    moved, moved_pullback = ax.cross_entropy.vjp(z + np.float32(offset), t)
    one = np.ones((), dtype="float32")
    assert loss == moved
    np.testing.assert_array_equal(pullback(one)[0], moved_pullback(one)[0])


BINARY = [
    dict(zip(("weight", "pos_weight", "sample_weight", "label_smoothing", "reduction", "normalize"),
             values, strict=True))
    for values in itertools.product(
        (None, WEIGHT), (None, 3 * WEIGHT), (None, SAMPLE_WEIGHT), (0.0, 0.2),
        ("mean", "sum", "none"), (None, "weight", "count", 3.5),
    )
    if values[4] == "mean" or values[5] is None
]  # fmt: skip


def plain_binary(
    log_p, log_q, t, *, weight, pos_weight, sample_weight, label_smoothing, reduction, normalize
):
    t = (1 - label_smoothing) * t + label_smoothing / 2
    w = np.ones(t.shape) * (1 if weight is None else weight)
    w = w * (1 if sample_weight is None else sample_weight[:, None])
    terms = -w * ((1 if pos_weight is None else pos_weight) * t * log_p + (1 - t) * log_q)
    if reduction != "mean":
        return terms if reduction == "none" else np.array(math.fsum(terms.ravel()))
    by = {None: t.size, "count": t.size, "weight": math.fsum(w.ravel())}.get(normalize, normalize)
    return np.array(math.fsum(terms.ravel()) / by)


@pytest.mark.parametrize("options", BINARY, ids=short)
def test_binary_value_and_gradients(options):
    def of_logits(z, t):
        return plain_binary(-np.log1p(np.exp(-z)), -np.log1p(np.exp(z)), t, **options)

    def of_probs(p, t):
        return plain_binary(np.log(p), np.log1p(-p), t, **options)

    cases = [(ax.binary_cross_entropy_with_logits, of_logits, LOGITS, options)]
    if options["pos_weight"] is None:
        rest = {k: v for k, v in options.items() if k != "pos_weight"}
        probs = 1 / (1 + np.exp(-LOGITS))
        cases.append((ax.binary_cross_entropy, of_probs, probs, rest))
    for operation, expected, scores, named in cases:
        value, pullback = operation.vjp(scores, SOFT, **named)
        assert_close(value, expected(scores, SOFT), "float64", 32)
        dy = RNG.standard_normal(value.shape)
        ds, dt = pullback(np.asarray(dy))
        check_slope(lambda s, f=expected: f(s, SOFT), scores, dy, ds)
        check_slope(lambda t, f=expected, s=scores: f(s, t), SOFT, dy, dt)
