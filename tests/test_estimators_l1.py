"""Penalties that set coefficients to 0: the lasso and the elastic net, to the optimum."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn import linear_model

from agnostic_xent import LogisticRegression, to_backend, to_numpy
from agnostic_xent.estimators import orthants


def drawn(seed):
    """Return samples, labels, weights and options of a problem, by a seed."""
    rng = np.random.default_rng(seed)
    n, features = int(rng.integers(10, 120)), int(rng.integers(1, 30))
    x = rng.standard_normal((n, features)) @ rng.standard_normal((features, features))
    x = x * 10.0 ** rng.uniform(-2, 2, features) + rng.choice([0.0, 30.0]) * rng.random(features)
    x = np.where(rng.random(x.shape) < rng.choice([0.0, 0.7]), 0, x)
    classes = int(rng.integers(2, 5))
    y = np.where(np.arange(n) < classes, np.arange(n) % classes, rng.integers(0, classes, n))
    a = None if rng.random() < 0.5 else rng.random(n) + 0.1
    options = {
        "C": float(10.0 ** rng.uniform(-2, 1) / np.abs(x - x.mean(axis=0)).mean()),
        "l1_ratio": float(rng.choice([1.0, rng.random()])),
        "fit_intercept": bool(rng.random() < 0.8),
    }
    return x, y, a, options


def objective(coef, intercept, x, y, a, options):
    """Return the sum of the losses and the penalty, by its formula."""
    z = x @ coef.T + intercept
    z = np.hstack([np.zeros_like(z), z]) if z.shape[1] == 1 else z
    losses = logsumexp(z, axis=1) - z[np.arange(len(y)), y]
    a, share = np.ones(len(y)) if a is None else a, options["l1_ratio"]
    ridge, lasso = np.square(coef).sum() / 2, np.abs(coef).sum()
    return options["C"] * (a @ losses) + (1 - share) * ridge + share * lasso


def least(x, y, a, options):
    """Return the least value, by L-BFGS-B of the positive and the negative parts of coefficients.

    Of centred features, whose coefficients are in units of their scales.
    """
    classes, scale = len(np.unique(y)), np.maximum(x.std(axis=0), 1e-12)
    units, features = 1 if classes == 2 else classes, x.shape[1]
    mean = x.mean(axis=0) * options["fit_intercept"]
    z, a = (x - mean) / scale, np.ones(len(y)) if a is None else a
    hot, C, share = np.eye(classes)[y][:, -units:], options["C"], options["l1_ratio"]

    def value(parts):
        plus, minus, b = np.split(parts, [units * features, 2 * units * features])
        w = (plus - minus).reshape(units, features)
        size = (plus + minus).reshape(units, features) / scale
        total = objective(w / scale, b, z * scale, y, a, options | {"l1_ratio": 0.0})
        total += share * (size.sum() - np.square(w / scale).sum() / 2)
        logits = z @ w.T + b
        logits = np.hstack([np.zeros_like(logits), logits]) if units == 1 else logits
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))[:, -units:]
        d = C * a[:, None] * (p - hot)
        slope, flat = d.T @ z + (1 - share) * w / scale**2, np.ones((units, 1)) * share / scale
        db = d.sum(axis=0) * options["fit_intercept"]
        return total, np.concatenate([(slope + flat).ravel(), (flat - slope).ravel(), db])

    bounds = [(0, None)] * (2 * units * features) + [(None, None)] * units
    ends = {"maxiter": 20_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 30}
    start = np.zeros(len(bounds))
    return minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=ends).fun


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("seed", range(40))
def test_ends_at_the_optimum_of_random_problems(seed, kind):
    x, y, a, options = drawn(seed)
    model = LogisticRegression(tol=1e-12, **options).fit(kind(x), y, sample_weight=a)
    found = objective(model.coef_, model.intercept_, x, y, a, options)
    expected = least(x, y, a, options)
    assert found <= expected * (1 + 1e-7)
    curve = np.asarray(model.loss_curve_)
    total = options["C"] * (len(y) if a is None else a.sum())
    np.testing.assert_allclose(curve[-1], found / total, rtol=1e-9)
    assert (np.diff(curve) <= 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_0_may_be_and_what_is_not_has_no_slope(seed):
    """The conditions of the optimum: a slope is the penalty's, or less where the number is 0."""
    x, y, a, options = drawn(seed)
    model = LogisticRegression(tol=1e-14, **options).fit(x, y, sample_weight=a)
    p = model.predict_proba(x)[:, -len(model.coef_) :]
    hot = np.eye(len(model.classes_))[y][:, -len(model.coef_) :]
    a = np.ones(len(y)) if a is None else a
    slope = options["C"] * (a[:, None] * (p - hot)).T @ x
    slope += (1 - options["l1_ratio"]) * model.coef_
    share = options["l1_ratio"]
    zero = model.coef_ == 0
    assert (np.abs(slope[zero]) <= share * (1 + 1e-2)).all()
    np.testing.assert_allclose(slope[~zero], -share * np.sign(model.coef_[~zero]), atol=0.02)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("l1_ratio", [0.4, 1.0])
def test_the_same_as_scikit_learn(l1_ratio, classes):
    rng = np.random.default_rng(classes)
    x = rng.standard_normal((150, 12))
    y = (x[:, :classes] + rng.gumbel(size=(150, classes))).argmax(axis=1)
    options = {"C": 0.2, "l1_ratio": l1_ratio}
    theirs = linear_model.LogisticRegression(solver="saga", tol=1e-9, max_iter=20_000, **options)
    expected, found = theirs.fit(x, y), LogisticRegression(tol=1e-14, **options).fit(x, y)
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-5)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-5)
    assert ((found.coef_ == 0) == (expected.coef_ == 0)).all()
    assert 0 < np.count_nonzero(found.coef_) < found.coef_.size


@pytest.mark.parametrize("backend", ["torch", "jax.numpy", "array_api_strict"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_arrays_of_any_library(backend, classes):
    xp = pytest.importorskip(backend)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 9)).astype("float32")
    y = np.minimum((x[:, 0] + rng.logistic(size=60) > 0) + 2 * (x[:, 1] > 1), classes - 1)
    model = LogisticRegression(l1_ratio=0.9, C=0.5, max_iter=6, tol=1e-30)
    with pytest.warns(UserWarning, match="lbfgs ended after max_iter=6"):
        expected = model.fit(x, y).coef_.copy()
    with pytest.warns(UserWarning, match="lbfgs ended after max_iter=6"):
        found = model.fit(to_backend(x, xp), y).coef_
    assert type(found) is type(to_backend(x, xp))
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-4)


def test_float32_samples():
    x, y, a, options = drawn(3)
    expected = least(x, y, a, options)
    model = LogisticRegression(**options).fit(x.astype("float32"), y, sample_weight=a)
    assert model.coef_.dtype == "float32"
    found = objective(model.coef_.astype("float64"), model.intercept_, x, y, a, options)
    assert found <= expected * (1 + 1e-4)


def test_a_weight_repeats_a_sample():
    x, y, _, options = drawn(4)
    a = np.arange(len(y)) % 3 + 1
    one = LogisticRegression(tol=1e-13, **options).fit(x, y, sample_weight=a)
    other = LogisticRegression(tol=1e-13, **options).fit(x.repeat(a, axis=0), y.repeat(a))
    np.testing.assert_allclose(one.coef_, other.coef_, atol=1e-4)


def test_no_penalty_has_no_ratio():
    x, y = np.random.default_rng(0).standard_normal((80, 3)), np.arange(80) % 2
    found = LogisticRegression(C=np.inf, l1_ratio=0.7).fit(x, y)
    np.testing.assert_array_equal(found.coef_, LogisticRegression(C=np.inf).fit(x, y).coef_)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_strong_penalty_leaves_the_intercepts(classes):
    x, y = np.random.default_rng(0).standard_normal((90, 3)), (np.arange(90) % 5) % classes
    found = LogisticRegression(C=1e-6, l1_ratio=1.0).fit(x, y)
    assert not found.coef_.any()
    shares = np.bincount(y) / len(y)
    np.testing.assert_allclose(found.predict_proba(x[:1])[0], shares, atol=1e-4)
    assert abs(found.intercept_.sum()) < 1e-12 or classes == 2


def test_a_fit_is_gone_on_with():
    x, y, a, options = drawn(5)
    model = LogisticRegression(warm_start=True, **options).fit(x, y, sample_weight=a)
    first = model.coef_.copy()
    assert pickle.loads(pickle.dumps(model)).fit(x, y, sample_weight=a).n_iter_ == 1
    np.testing.assert_array_equal(model.coef_, first)


def test_several_labels_are_those_of_fits_alone():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 6))
    y = (x[:, :3] + rng.logistic(size=(80, 3)) > 0).astype(int)
    model = LogisticRegression(l1_ratio=0.8, C=0.5, tol=1e-13)
    found = model.fit(x, y)
    pairs = zip(found.coef_.copy(), found.intercept_.copy(), y.T, strict=True)
    for coef, intercept, labels in pairs:
        alone = LogisticRegression(l1_ratio=0.8, C=0.5, tol=1e-13).fit(x, labels)
        np.testing.assert_allclose(alone.coef_[0], coef, atol=1e-5)
        np.testing.assert_allclose(alone.intercept_[0], intercept, atol=1e-5)


def test_empty_columns_stay_0():
    rng = np.random.default_rng(0)
    x = sparse.random(200, 20, 0.3, format="csr", random_state=rng)
    wide = sparse.csr_array((x.data, 40 * x.indices, x.indptr), shape=(200, 900))
    y = rng.integers(0, 2, 200)
    found = LogisticRegression(l1_ratio=0.5, C=5.0, tol=1e-13).fit(wide, y).coef_
    expected = LogisticRegression(l1_ratio=0.5, C=5.0, tol=1e-13).fit(x, y).coef_
    np.testing.assert_allclose(found[:, ::40][:, :20], expected, atol=1e-6)
    assert np.count_nonzero(found) == np.count_nonzero(expected)


def test_a_spoilt_estimate_is_begun_anew(monkeypatch):
    x, y, a, options = drawn(0)
    inverse, calls = orthants._Pairs.inverse, []

    def upwards(self, gradient, free):
        calls.append(len(self))
        found = inverse(self, gradient, free)
        return -found if len(self) == 3 else found

    monkeypatch.setattr(orthants._Pairs, "inverse", upwards)
    model = LogisticRegression(max_iter=100_000, **options).fit(x, y, sample_weight=a)
    assert calls.count(3) > 0
    found = objective(model.coef_, model.intercept_, x, y, a, options)
    assert found <= least(x, y, a, options) * (1 + 1e-4)


@pytest.mark.parametrize("l1_ratio", [-0.1, 1.5, None, "l1", True])
def test_what_is_no_share(l1_ratio):
    x, y, _, _ = drawn(0)
    with pytest.raises(ValueError, match=r"l1_ratio must be in \[0, 1\], got"):
        LogisticRegression(l1_ratio=l1_ratio).fit(x, y)


def test_chosen_coefficients_have_no_summary():
    x, y = np.random.default_rng(0).standard_normal((80, 3)), np.arange(80) % 2
    with pytest.raises(ValueError, match=r"summary is for l1_ratio=0, got 0\.5"):
        LogisticRegression(l1_ratio=0.5).fit(x, y).summary(x)
