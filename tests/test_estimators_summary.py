"""The summary of a logistic regression: standard errors and what follows of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import sparse

from agnostic_xent import LogisticRegression


def drawn(seed, dtype="float64"):
    rng = np.random.default_rng(seed)
    n, features = int(rng.integers(60, 300)), int(rng.integers(1, 6))
    x = np.where(rng.random((n, features)) < 0.4, 0, rng.standard_normal((n, features)) * 3 + 1)
    y = x @ rng.standard_normal(features) / 3 + rng.logistic(size=n) > 0
    return x.astype(dtype), y.astype(int), rng.integers(1, 4, n)


def by_hand(model, x, a):
    """Return the standard errors by sums over samples, and of the inverse of their matrix."""
    xs = np.hstack([x, np.ones((len(x), 1))]) if model.fit_intercept else x
    w = np.concatenate([model.coef_[0], model.intercept_])[: xs.shape[1]]
    information = np.zeros((xs.shape[1],) * 2)
    for row, weight in zip(xs, a, strict=True):
        p = 1 / (1 + math.exp(-row @ w))
        information += weight * p * (1 - p) * np.outer(row, row)
    for j in range(x.shape[1]):
        information[j, j] += 1 / model.C
    return np.sqrt(np.diag(np.linalg.inv(information)))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.1, 10.0, math.inf])
@pytest.mark.parametrize("seed", range(4))
def test_values(seed, C, fit_intercept, kind):
    x, y, a = drawn(seed)
    model = LogisticRegression(C=C, fit_intercept=fit_intercept).fit(kind(x), y, sample_weight=a)
    found = model.summary(kind(x), sample_weight=a)
    np.testing.assert_allclose(found["standard_error"], by_hand(model, x, a), rtol=1e-9)
    coefficients = [*model.coef_[0], *model.intercept_][: len(found["name"])]
    assert found["coefficient"].tolist() == coefficients
    np.testing.assert_allclose(found["z"], found["coefficient"] / found["standard_error"])
    np.testing.assert_allclose(found["odds_ratio"], np.exp(coefficients))
    p = [math.erfc(abs(z) / math.sqrt(2)) for z in found["z"]]
    np.testing.assert_allclose(found["p"], p, rtol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_same_as_statsmodels(seed):
    statsmodels = pytest.importorskip("statsmodels.api")
    x, y, _ = drawn(seed)
    expected = statsmodels.Logit(y, statsmodels.add_constant(x, prepend=False)).fit(disp=0)
    model = LogisticRegression(C=math.inf, tol=1e-14).fit(x, y)
    found = model.summary(x)
    for name, values in (
        ("coefficient", expected.params),
        ("standard_error", expected.bse),
        ("z", expected.tvalues),
        ("p", expected.pvalues),
    ):
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-8, err_msg=name)


def test_float32():
    x, y, _ = drawn(0, "float32")
    model = LogisticRegression().fit(x, y)
    found = model.summary(x)["standard_error"]
    np.testing.assert_allclose(
        found, by_hand(model, x.astype("float64"), np.ones(len(x))), rtol=1e-4
    )


def test_names_of_columns():
    pandas = pytest.importorskip("pandas")
    x, y, _ = drawn(0)
    table = pandas.DataFrame(x, columns=[f"word {i}" for i in range(x.shape[1])])
    found = LogisticRegression().fit(table, y).summary(table)
    assert found["name"].tolist() == [*table.columns, "intercept"]


REFUSED = {
    "three classes": ({}, lambda x, y: (x, np.arange(len(y)) % 3), "two classes"),
    "class weights": ({"class_weight": "balanced"}, lambda x, y: (x, y), "class_weight=None"),
    "many features": ({}, lambda x, y: (np.tile(x, 1100), y), "at most 1024 features"),
    "sums": ({"C": math.inf}, lambda x, y: (np.hstack([x, x]), y), "no standard errors"),
    "zeros": ({"C": math.inf}, lambda x, y: (np.hstack([x, 0 * x]), y), "no standard errors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    options, change, message = REFUSED[name]
    x, y = change(*drawn(1)[:2])
    model = LogisticRegression(**options).fit(x, y)
    with pytest.raises(ValueError, match=message):
        model.summary(x)
