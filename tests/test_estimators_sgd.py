"""Logistic regression step by step: the textbook's steps, in parts, with penalty and schedule."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from conftest import assert_close

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from test_estimators import PROBLEMS, blobs, objective

from agnostic_xent import LogisticRegression, cosine, kernels, step_decay, warmup
from agnostic_xent.estimators.fitting import _Best
from agnostic_xent.training.history import Epoch


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_textbook_steps():
    x, y = blobs(2)
    model = LogisticRegression(
        solver="sgd", C=np.inf, batch_size=1, learning_rate=0.1, max_iter=2, random_state=0
    ).fit(x, y)
    rng = np.random.default_rng(np.random.RandomState(0).randint(2**31 - 1))
    w, b, losses = np.zeros(4), 0.0, []
    for _ in range(2):
        seen = []
        for i in rng.permutation(len(y)):
            p = sigmoid(x[i] @ w + b)
            seen.append(-np.log(p if y[i] else 1 - p))
            w, b = w - 0.1 * (p - y[i]) * x[i], b - 0.1 * (p - y[i])
        losses.append(np.mean(seen))
    assert_close(model.coef_[0], w, "float64", len(y))
    assert_close(model.intercept_, [b], "float64", len(y))
    assert_close(model.loss_curve_, losses, "float64", len(y))
    assert model.n_iter_ == 2


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_go_on_where_the_last_one_ended(average, weighted):
    """A schedule, the penalty of all samples so far, and the average, against a plain loop."""
    x, y = blobs(2)
    a = np.linspace(0.5, 2, len(y)) if weighted else np.ones(len(y))
    schedule = cosine(0.5, steps=10)
    model = LogisticRegression(
        solver="sgd", C=0.5, batch_size=100, learning_rate=schedule, average=average
    )
    w, b, seen = np.zeros(4), 0.0, 0.0
    mean_w, mean_b = w, b
    for step in range(4):
        rows = slice(10 * step, 10 * step + 10)
        weights = {"sample_weight": a[rows]} if weighted else {}
        model.partial_fit(x[rows], y[rows], classes=[0, 1], **weights)
        xs, ys, shares = x[rows], y[rows], a[rows] / a[rows].sum()
        seen += a[rows].sum()
        residual = shares * (sigmoid(xs @ w + b) - ys)
        rate = schedule(step)
        w = w - rate * (residual @ xs + w / (0.5 * seen))
        b = b - rate * residual.sum()
        share = 4 / (3 + step + 1) if average else 1
        mean_w, mean_b = mean_w + share * (w - mean_w), mean_b + share * (b - mean_b)
        assert_close(model.coef_[0], mean_w, "float64", 100)
        assert_close(model.intercept_, [mean_b], "float64", 100)
    assert model.n_iter_ == len(model.loss_curve_) == 4


def test_steps_come_near_to_the_optimum():
    x, y = PROBLEMS["spambase"]()
    best = objective(LogisticRegression().fit(x, y), x, y)
    for average in (False, True):
        model = LogisticRegression(solver="sgd", average=average, random_state=0).fit(x, y)
        assert objective(model, x, y) < 1.05 * best


def test_early_stopping_keeps_the_best():
    x, y = blobs(3, samples=200)
    for average in (False, True):
        model = LogisticRegression(
            solver="sgd", learning_rate=2.0, early_stopping=True, validation_fraction=0.25,
            n_iter_no_change=3, max_iter=50, random_state=1, average=average,
        ).fit(x, y)  # fmt: skip
        curve = model.validation_loss_curve_
        least = int(np.argmin(curve))
        assert len(curve) == model.n_iter_ == len(model.loss_curve_) < 50
        assert len(curve) - 1 - least == 3
        shorter = clone(model).set_params(early_stopping=True, max_iter=least + 1).fit(x, y)
        np.testing.assert_array_equal(model.coef_, shorter.coef_)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_parts_go_on_after_a_fit(classes, average):
    """With the steps of the schedule and the samples of the penalty that the fit has behind it."""
    x, y = blobs(classes)
    schedule = cosine(0.5, steps=30)
    options = {"batch_size": 7, "learning_rate": schedule, "average": average, "random_state": 0}
    model = LogisticRegression(solver="sgd", max_iter=2, **options).fit(x, y)
    inner, seen = model._state["inner"], model._state["seen"]
    assert (inner["step"], seen) == (2 * 9, 60)
    before = model._state["last"]
    model.partial_fit(x[:5], y[:5])
    z = x[:5] @ before["0.weight"].T + before["0.bias"]
    if classes == 2:
        residual = sigmoid(z) - y[:5, None]
    else:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        residual = p / p.sum(axis=1, keepdims=True) - np.eye(classes)[y[:5]]
    w = before["0.weight"] * (1 - schedule(18) / 65) - schedule(18) * residual.T @ x[:5] / 5
    assert_close(model._state["last"]["0.weight"], w, "float64", 100)
    assert_close(
        model._state["last"]["0.bias"],
        before["0.bias"] - schedule(18) * residual.mean(axis=0),
        "float64",
        100,
    )


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_kernel_takes_the_steps_of_a_penalty(classes, fit_intercept, early_stopping, monkeypatch):
    """Many in a call, to the same coefficients as step by step."""
    x, y = blobs(classes)
    model = LogisticRegression(
        solver="sgd", C=0.1, batch_size=3, max_iter=4, fit_intercept=fit_intercept,
        early_stopping=early_stopping, random_state=0, learning_rate=cosine(0.5, steps=70),
    )  # fmt: skip
    with kernels("portable"):
        expected = clone(model).fit(x, y)

    def update(*args):
        raise AssertionError("a step by itself")

    with monkeypatch.context() as patched:
        patched.setattr("agnostic_xent.training.optimizers.SGD.update", update)
        model.fit(x, y)
    for name in ("coef_", "intercept_", "loss_curve_", "validation_loss_curve_"):
        if hasattr(expected, name):
            assert_close(getattr(model, name), getattr(expected, name), "float64", 1000)


@pytest.mark.parametrize(
    "schedule", [cosine(0.5, steps=70), warmup(step_decay(0.5, every=20), steps=9)], ids=str
)
def test_a_schedule_goes_where_the_estimator_goes(schedule):
    x, y = blobs()
    model = LogisticRegression(solver="sgd", learning_rate=schedule, random_state=0).fit(x, y)
    for copy in (pickle.loads(pickle.dumps(model)), clone(model).fit(x, y)):
        assert copy.learning_rate == schedule
        np.testing.assert_array_equal(copy.coef_, model.coef_)
    search = GridSearchCV(model, {"learning_rate": [schedule, 1e-9]}, cv=3).fit(x, y)
    assert search.best_params_["learning_rate"] == schedule
    assert type(schedule).__name__ in repr(model)


def test_the_last_are_kept_where_no_loss_has_been_finite():
    best = _Best(9)
    epoch = Epoch(1, 0.5, 0.5, 0.1, 1.0, 1.0, validation_loss=math.nan)
    assert not best.on_epoch(epoch, {"w": 1})
    assert not best.on_epoch(replace(epoch, epoch=2), {"w": 2})
    assert best.params == {"w": 2}
    for number, loss in ((3, 0.5), (4, 0.6)):
        assert not best.on_epoch(replace(epoch, epoch=number, validation_loss=loss), {"w": number})
    assert best.params == {"w": 3}
    np.testing.assert_array_equal(best.losses, [math.nan, math.nan, 0.5, 0.6])
