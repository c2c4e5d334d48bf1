"""Conformal sets against plain loops, and what they promise, on every row of the matrix."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agnostic_xent as ax

OPTIONS = [
    {"method": "lac"},
    {"method": "aps"},
    {"method": "aps", "penalty": 0.05, "unpenalized": 2},
    {"method": "aps", "penalty": 3.0},
]
each_method = pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda o: "-".join(map(str, o.values()))
)


def draw(n, classes, seed=0, dtype="float64"):
    """Return probabilities, labels that they do not quite fit, and uniform numbers."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.5), n).astype(dtype)
    return (
        p,
        np.array([rng.choice(classes, p=np.sqrt(q) / np.sqrt(q).sum()) for q in p]),
        rng.random(n),
    )


def plain_scores(p, uniform, method, penalty=0.0, unpenalized=1):
    """Return the score of each class, sample by sample and class by class."""
    scores = np.zeros(p.shape)
    for i, row in enumerate(p.astype("float64")):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        for rank, k in enumerate(order):
            before = sum(row[j] for j in order[:rank])
            late = penalty * max(rank + 1 - unpenalized, 0)
            scores[i, k] = 1 - row[k] if method == "lac" else before + uniform[i] * row[k] + late
    return scores


@pytest.mark.parametrize("uniform", [False, True])
@each_method
def test_sets_are_those_of_plain_loops(row, options, uniform):
    if uniform and options["method"] == "lac":
        return
    p, labels, u = draw(61, 7)
    draws = row.array(u, "float32") if uniform else None
    u = u.astype("float32").astype("float64") * uniform
    for dtype in row.dtypes:
        probs, scores = row.array(p, dtype), plain_scores(p.astype(dtype), u, **options)
        sets = ax.fit_conformal(probs, row.array(labels), coverage=0.8, uniform=draws, **options)
        k = math.ceil(0.8 * 62)
        expected = np.sort(scores[np.arange(61), labels])[k - 1]
        assert sets.threshold == pytest.approx(expected, abs=1e-6 if dtype == "float32" else 1e-12)
        found = row.call(functools.partial(sets, uniform=draws), probs)
        row.check(found, "bool")
        taken, near = ax.to_numpy(found), np.abs(scores - expected) < 1e-6
        np.testing.assert_array_equal(taken | near, (scores <= expected) | near)
        assert taken[np.arange(61), labels].sum() >= k  # of the calibration samples themselves


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(2, 6),
    st.floats(0.05, 0.95),
    st.integers(0, 9),
    st.sampled_from(OPTIONS),
)
def test_each_sample_left_out_in_turn_is_covered_as_often_as_promised(
    n, classes, coverage, seed, options
):
    """Of n + 1 samples exactly k are, where no scores are equal: exchangeability, counted out."""
    p, labels, u = draw(n + 1, classes, seed)
    random = options["method"] == "aps"
    hits = 0
    for i in range(n + 1):
        rest = np.arange(n + 1) != i
        draws = (u[rest], u[i : i + 1]) if random else (None, None)
        sets = ax.fit_conformal(
            p[rest], labels[rest], coverage=coverage, uniform=draws[0], **options
        )
        hits += sets(p[i : i + 1], uniform=draws[1])[0, labels[i]]
    k = math.ceil(round((n + 1) * coverage, 9))
    assert hits == k


def test_adaptive_sets_are_never_empty():
    p, labels, _ = draw(500, 5, 3)
    for options in OPTIONS[1:]:
        sets = ax.fit_conformal(p, labels, coverage=0.01, **options)
        found = sets(p)
        assert (found.sum(axis=1) == 1).all()
        assert found[np.arange(500), p.argmax(axis=1)].all()


def test_a_penalty_makes_large_sets_rarer():
    p, labels, _ = draw(2000, 20, 5)
    plain = ax.fit_conformal(p, labels)(p).sum(axis=1)
    regular = ax.fit_conformal(p, labels, penalty=0.2, unpenalized=3)(p).sum(axis=1)
    assert regular.max() < plain.max()


def test_too_few_samples_take_all_classes(row):
    p, labels, _ = draw(8, 4)
    sets = ax.fit_conformal(row.array(p, "float32"), row.array(labels))
    assert sets == ax.ConformalSets(math.inf)
    assert ax.to_numpy(sets(row.array(p, "float32"))).all()
    assert ax.fit_conformal(*draw(9, 4)[:2]).threshold < math.inf


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_nan_takes_all_classes(row, method):
    p = np.array([[0.5, math.nan, 0.5], [0.9, 0.1, 0.0]])
    sets = ax.ConformalSets(0.2, method)(row.array(p, "float32"))
    assert ax.to_numpy(sets).tolist() == [[True] * 3, [True, False, False]]


def test_tied_probabilities_are_taken_in_order(row):
    sets = ax.ConformalSets(0.25)(row.array(np.full((2, 4), 0.25), "float32"))
    assert ax.to_numpy(sets).tolist() == [[True, True, False, False]] * 2


def test_half_precision():
    p, labels, _ = draw(200, 5, dtype="float16")
    for options in OPTIONS:
        half = ax.fit_conformal(p, labels, **options)
        assert half == ax.fit_conformal(p.astype("float32"), labels, **options)
        np.testing.assert_array_equal(half(p), half(p.astype("float32")))


P, Y, U = draw(10, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ax.fit_conformal(P, Y, coverage=1.0), ValueError, r"coverage must be in \(0, 1\)"),
        (
            lambda: ax.fit_conformal(P, Y, method="raps"),
            ValueError,
            r"method must be one of 'aps', 'lac'",
        ),
        (
            lambda: ax.fit_conformal(P, Y, penalty=-1),
            ValueError,
            r"penalty must be a finite number >= 0",
        ),
        (
            lambda: ax.fit_conformal(P, Y, unpenalized=0),
            ValueError,
            r"unpenalized must be an integer >= 1",
        ),
        (
            lambda: ax.fit_conformal(P, Y, method="lac", penalty=1),
            ValueError,
            r"penalty is one of method",
        ),
        (
            lambda: ax.fit_conformal(P, Y, method="lac", uniform=U),
            ValueError,
            r"uniform is of method",
        ),
        (
            lambda: ax.fit_conformal(P, Y, uniform=U[:3]),
            ValueError,
            r"uniform must have shape \(10,\)",
        ),
        (
            lambda: ax.fit_conformal(P, Y, uniform=Y),
            TypeError,
            r"uniform must have a real floating",
        ),
        (lambda: ax.fit_conformal(P / 0, Y), ValueError, r"probs must be finite"),
        (lambda: ax.fit_conformal(P, Y + 3), ValueError, r"labels\[0\] is \d"),
        (
            lambda: ax.fit_conformal(P[:0], Y[:0]),
            ValueError,
            r"probs must hold at least one sample",
        ),
        (lambda: ax.ConformalSets(math.nan), ValueError, r"threshold must be a number"),
        (lambda: ax.ConformalSets(0.5)(P[0]), ValueError, r"probs must have 2 dimensions"),
        (lambda: ax.ConformalSets(0.5)(P, uniform=U[1:]), ValueError, r"uniform must have shape"),
        (lambda: ax.ConformalSets(0.5)(Y[:, None]), TypeError, r"probs must have a real floating"),
    ],
)
def test_bad_input(call, error, message):
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(error, match=message):
        call()
