"""The solver "lbfgs": how near to the optimum it ends, and the pieces that bring it there."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from agnostic_xent import LogisticRegression
from agnostic_xent.core.communication import Alone
from agnostic_xent.estimators import lbfgs
from agnostic_xent.estimators import logistic as estimator
from agnostic_xent.estimators.logistic_objective import LogisticObjective
from agnostic_xent.estimators.sample_space import sample_space
from agnostic_xent.estimators.samples import Samples


def drawn(seed):
    """Return samples, labels, weights and options of a problem, by a seed."""
    rng = np.random.default_rng(seed)
    n, features = int(rng.integers(2, 60)), int(rng.integers(1, 25))
    x = rng.standard_normal((n, features)) @ rng.standard_normal((features, features))
    x = x * 10.0 ** rng.uniform(-3, 3, features) + rng.choice([0.0, 1e3]) * rng.random(features)
    if rng.random() < 0.3:
        x[:, rng.integers(features)] = rng.choice([0.0, 1.0])
    if rng.random() < 0.3:
        x[rng.integers(n, size=n // 2)] = x[0]
    classes = int(rng.integers(2, 5))
    y = np.where(np.arange(n) < classes, np.arange(n) % classes, rng.integers(0, classes, n))
    a = rng.choice([None, 1])
    a = None if a is None else rng.integers(0, 4, n) + (np.arange(n) < classes)
    options = {"C": 10.0 ** rng.uniform(-3, 2), "fit_intercept": bool(rng.random() < 0.8)}
    return x, y, a, options


def decrement(model, x, y, a):
    """Return the least value of the objective's Taylor polynomial below its value, and that."""
    a = np.ones(len(y)) if a is None else a
    intercept = np.full((len(y), 1), float(model.fit_intercept))
    xs = np.hstack([x, intercept])
    w = np.hstack([model.coef_, model.intercept_[:, None]])
    z = xs @ w.T
    z = np.hstack([np.zeros_like(z), z]) if len(w) == 1 else z
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    penalty = np.diag([*[1.0] * x.shape[1], 0.0]) / model.C
    value = -a @ np.log(p[np.arange(len(y)), y]) + np.sum(w @ penalty * w) / 2
    p, hot = p[:, -len(w) :], np.eye(p.shape[1])[y][:, -len(w) :]
    gradient = ((p - hot) * a[:, None]).T @ xs + w @ penalty
    curved = np.einsum("n,nk,kl->nkl", a, p, np.eye(len(w))) - np.einsum("n,nk,nl->nkl", a, p, p)
    size = w.size
    hessian = np.einsum("nkl,ni,nj->kilj", curved, xs, xs).reshape(size, size)
    hessian = hessian + np.kron(np.eye(len(w)), penalty)
    scale = 1 / np.sqrt(np.where(np.diag(hessian) > 0, np.diag(hessian), 1))
    step = np.linalg.lstsq(hessian * scale * scale[:, None], gradient.ravel() * scale, rcond=1e-13)
    return gradient.ravel() * scale @ step[0] / 2, value


@pytest.mark.parametrize("seed", range(60))
def test_ends_at_the_optimum_of_random_problems(seed):
    x, y, a, options = drawn(seed)
    model = LogisticRegression(tol=1e-12, **options).fit(x, y, sample_weight=a)
    missing, value = decrement(model, x, y, a)
    assert missing <= 1e-8 * value  # tol is of the solver's own estimate
    assert model.n_iter_ < 1000


@pytest.mark.parametrize("steps", [1, 3, lbfgs.MEMORY + 5])
def test_compact_form_is_the_two_loop_recursion(steps):
    rng = np.random.default_rng(steps)
    shape = 2, 20
    diagonal = rng.uniform(0.5, 2, shape)
    square = rng.standard_normal((40, 40))
    square = square @ square.T / 40 + np.eye(40)
    estimate, seen = lbfgs._InverseHessian(lambda r: r / diagonal), []
    for _ in range(steps):
        s = rng.standard_normal(shape)
        y = (square @ s.ravel()).reshape(shape)
        estimate.update(s, y)
        seen = [*seen, (s, y)][-lbfgs.MEMORY :]
    g = rng.standard_normal(shape)
    r, alphas = g, []
    for s, y in reversed(seen):
        alphas.append(np.sum(s * r) / np.sum(s * y))
        r = r - alphas[-1] * y
    s, y = seen[-1]
    r = np.sum(s * y) / np.sum(y * y / diagonal) * r / diagonal
    for (s, y), alpha in zip(seen, reversed(alphas), strict=True):
        r = r + (alpha - np.sum(y * r) / np.sum(s * y)) * s
    np.testing.assert_allclose(estimate(g), r, rtol=1e-9, atol=1e-9)


def test_an_estimate_that_leads_up_is_no_optimum(monkeypatch):
    x, y, a, options = drawn(0)
    expected = LogisticRegression(**options).fit(x, y, sample_weight=a)
    monkeypatch.setattr(LogisticObjective, "by_hessian", lambda self, w: lambda r: -r)
    found = LogisticRegression(max_iter=20_000, **options).fit(x, y, sample_weight=a)
    np.testing.assert_allclose(found.loss_curve_[-1], expected.loss_curve_[-1], rtol=1e-6)


def test_a_change_without_curvature_is_not_taken_in():
    estimate = lbfgs._InverseHessian(lambda r: r)
    s = np.ones((1, 2))
    estimate.update(s, -s)
    np.testing.assert_array_equal(estimate(s), s)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_the_hessian_of_two_classes_is_inverted(fit_intercept):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 4)) * [1, 10, 100, 1] + [0, 5, -300, 1]
    a, penalty = rng.uniform(0.5, 2, 50), 0.1
    labels = rng.integers(0, 2, 50)
    objective = LogisticObjective(
        Samples(x, x), labels, a, float(a.sum()), penalty, fit_intercept, Alone()
    )
    w = np.array([[0.3, 0.02, 0.01, -0.5, 0.4 * fit_intercept]])
    precondition, h = objective.by_hessian(w), 1e-5
    for i in range(4 + fit_intercept):
        step = h * np.eye(5)[[i]] / np.abs([*x.std(axis=0), 1.0])[i]
        change = objective(w + step)[1] - objective(w - step)[1]
        np.testing.assert_allclose(precondition(change / 2), step, rtol=1e-3, atol=1e-3 * h)


# --- fewer samples than features -----------------------------------------------------------------


def wide(seed=0, n=12, features=40):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, features)), np.arange(n) % 3, rng.integers(0, 3, n) + 0.5


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_space_of_the_samples_holds_the_optimum(fit_intercept, classes, monkeypatch):
    x, y, a = wide()
    model = LogisticRegression(fit_intercept=fit_intercept, tol=1e-15)
    y = np.minimum(y, classes - 1)
    found = model.fit(x, y, sample_weight=a).coef_
    monkeypatch.setattr(estimator, "sample_space", lambda *samples: None)
    expected = model.fit(x, y, sample_weight=a).coef_
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_coordinates_keep_lengths_and_products():
    x, _, a = wide()
    a[3] = 0
    space = sample_space(Samples(x, x), a)
    counted = a > 0
    w = np.random.default_rng(1).standard_normal((2, 12)) @ (x * counted[:, None])
    v = space.coordinates(w)
    np.testing.assert_allclose(space.coefficients(v), w, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(v @ v.T, w @ w.T, rtol=1e-10)
    own = np.asarray(space.samples.x)[counted]
    np.testing.assert_allclose(own @ v.T, (x @ w.T)[counted], rtol=1e-10, atol=1e-10)


def test_a_repeated_sample_is_one_of_twice_the_weight():
    x, y, _ = wide()
    a = np.asarray([1, 2, 0, 3, 1, 1, 2, 0, 1, 2, 1, 3])
    one = LogisticRegression(tol=1e-3).fit(x, y, sample_weight=a)
    other = LogisticRegression(tol=1e-3).fit(x.repeat(a, axis=0), y.repeat(a))
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-8, atol=1e-10)


NOT_IN_A_SPACE = {
    "as many features": lambda x: x[:, :12],
    "float32": lambda x: x.astype("float32"),
    "very different sizes": lambda x: x * np.where(np.arange(12) == 0, 1e9, 1)[:, None],
    "nothing": lambda x: 0 * x,
    "many": lambda x: np.tile(x, (50, 20)),
}


@pytest.mark.parametrize("case", NOT_IN_A_SPACE)
def test_samples_that_are_taken_as_they_are(case):
    x = NOT_IN_A_SPACE[case](wide()[0])
    assert sample_space(Samples(x, x), np.ones(len(x), x.dtype)) is None
