"""Penalties chosen by cross-validation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import sparse
from sklearn import linear_model, metrics
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from agnostic_xent import LogisticRegression, LogisticRegressionCV, to_backend, to_numpy

CS, RATIOS = [0.01, 0.3, 10.0], [0.0, 0.7]


def drawn(seed=0, n=120, classes=2):
    """Return samples of which two features tell something, and labels."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, 8)) < 0.3, 0, rng.standard_normal((n, 8)))
    z = x[:, [0, 1, 0]][:, :classes] * [2, -2, -2][:classes]
    return x, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.coo_matrix])
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_those_of_fits_from_zeros(classes, kind, weighted):
    x, y = drawn(classes=classes)
    a = np.random.default_rng(1).random(len(y)) if weighted else None
    model = LogisticRegressionCV(Cs=CS, l1_ratios=RATIOS, cv=3, tol=1e-12)
    model.fit(kind(x), y, sample_weight=a)
    assert model.scores_.shape == (3, 2, 3)
    for i, (train, test) in enumerate(StratifiedKFold(3).split(x, y)):
        parts = [None if a is None else a[rows] for rows in (train, test)]
        for j, ratio in enumerate(RATIOS):
            for k, C in enumerate(CS):
                one = LogisticRegression(C=C, l1_ratio=ratio, tol=1e-12)
                p = one.fit(x[train], y[train], sample_weight=parts[0]).predict_proba(x[test])
                expected = -metrics.log_loss(y[test], p, sample_weight=parts[1])
                np.testing.assert_allclose(model.scores_[i, j, k], expected, rtol=1e-5)
    best = model.scores_.mean(axis=0)
    assert best.max() == best[RATIOS.index(model.l1_ratio_), CS.index(model.C_)]
    again = LogisticRegression(C=model.C_, l1_ratio=model.l1_ratio_, tol=1e-12)
    again.fit(kind(x), y, sample_weight=a)
    np.testing.assert_array_equal(model.coef_, again.coef_)
    np.testing.assert_array_equal(model.predict(kind(x)), again.predict(kind(x)))


@pytest.mark.parametrize("scoring", ["neg_log_loss", "accuracy", "roc_auc"])
def test_the_same_as_scikit_learn(scoring):
    x, y = drawn(3)
    options = {"Cs": 5, "l1_ratios": (0.0,), "scoring": scoring, "cv": 4}
    theirs = linear_model.LogisticRegressionCV(
        tol=1e-10, max_iter=10_000, use_legacy_attributes=False, **options
    ).fit(x, y)
    own = LogisticRegressionCV(tol=1e-13, **options).fit(x, y)
    np.testing.assert_array_equal(own.Cs_, theirs.Cs_)
    np.testing.assert_allclose(own.scores_, theirs.scores_, atol=1e-6)
    assert (own.C_, own.l1_ratio_) == (theirs.C_, theirs.l1_ratio_)
    np.testing.assert_allclose(own.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(own.score(x, y), theirs.score(x, y), atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "jax.numpy", "array_api_strict"])
@pytest.mark.parametrize("scoring", ["neg_log_loss", "balanced_accuracy"])
def test_the_arrays_of_any_library(scoring, backend):
    xp = pytest.importorskip(backend)
    x, y = drawn(1, n=40)
    x = x.astype("float32")
    model = LogisticRegressionCV(Cs=[0.1, 1.0], cv=2, scoring=scoring)
    expected, found = clone(model).fit(x, y), model.fit(to_backend(x, xp), y)
    np.testing.assert_allclose(to_numpy(found.scores_), expected.scores_, atol=1e-4)
    assert type(found.coef_) is type(to_backend(x, xp))
    np.testing.assert_allclose(to_numpy(found.coef_), expected.coef_, atol=1e-2)


def test_a_part_without_a_class_is_scored():
    x, y = drawn(2, n=60, classes=3)
    parts = [(np.arange(60), np.flatnonzero(y != 1)[:20])]
    model = LogisticRegressionCV(Cs=[1.0], cv=parts).fit(x, y)
    p = LogisticRegression().fit(x, y).predict_proba(x[parts[0][1]])
    expected = -metrics.log_loss(y[parts[0][1]], p, labels=[0, 1, 2])
    np.testing.assert_allclose(model.scores_[0, 0, 0], expected, rtol=1e-6)


def test_scorers_and_splitters_of_a_users_own():
    x, y = drawn()
    words = np.asarray(["ham", "spam"])[y]

    def hits(estimator, X, y):
        assert len(X) == 40
        return float(np.mean(estimator.predict(X) == y))

    model = LogisticRegressionCV(Cs=[1.0], cv=KFold(3), scoring=hits).fit(x.tolist(), words)
    assert model.scores_.shape == (3, 1, 1)
    assert model.score(x[:40], words[:40]) == hits(model, x[:40], words[:40])
    again = pickle.loads(pickle.dumps(LogisticRegressionCV(Cs=[1.0]).fit(x, words)))
    assert again.predict(x[:3]).tolist() == model.predict(x[:3]).tolist()


def test_groups_are_held_out_whole():
    rng = np.random.default_rng(5)
    x, groups = rng.standard_normal((60, 3)), np.repeat(np.arange(6), 10)
    y = (x[:, 0] + rng.standard_normal(60) > 0) * 1
    of_groups = LogisticRegressionCV(Cs=[0.1, 1.0], cv=GroupKFold(3)).fit(x, y, groups=groups)
    by_hand = LogisticRegressionCV(Cs=[0.1, 1.0], cv=[*GroupKFold(3).split(x, y, groups)])
    np.testing.assert_array_equal(of_groups.scores_, by_hand.fit(x, y).scores_)
    with pytest.raises(ValueError, match=r"groups must have shape \(60,\)"):
        of_groups.fit(x, y, groups=groups[:-1])


def test_several_labels_are_refused():
    x, y = drawn()
    with pytest.raises(ValueError, match="y should be a 1d array"):
        LogisticRegressionCV().fit(x, np.stack([y, 1 - y, y], axis=1))


def test_names_and_summary_are_those_of_the_chosen():
    pandas = pytest.importorskip("pandas")
    x, y = drawn()
    table = pandas.DataFrame(x, columns=list("abcdefgh"))
    model = LogisticRegressionCV(Cs=[0.5]).fit(table, y)
    expected = LogisticRegression(C=0.5).fit(table, y).summary(table)
    for name, column in model.summary(table).items():
        assert column.tolist() == expected[name].tolist()
    assert not hasattr(model, "partial_fit")


REFUSED = {
    "no C": ({"Cs": []}, "Cs must hold a number to try, got none"),
    "a bad C": ({"Cs": [1.0, -1.0]}, "Cs must be a number > 0, got -1.0"),
    "no count": ({"Cs": 0}, "Cs must be an integer >= 1, got 0"),
    "a bad ratio": ({"l1_ratios": [2]}, r"l1_ratios must be in \[0, 1\], got 2"),
    "no ratio": ({"l1_ratios": []}, "l1_ratios must hold a number to try, got none"),
    "a bad tol": ({"tol": -1}, "tol must be a number > 0, got -1"),
    "a class left out": ({"cv": [(range(0, 60, 2), range(1, 60, 2))]}, "too few samples of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    options, message = REFUSED[name]
    x, _ = drawn(n=60)
    with pytest.raises(ValueError, match=message):
        LogisticRegressionCV(**options).fit(x, np.arange(60) % 2)
