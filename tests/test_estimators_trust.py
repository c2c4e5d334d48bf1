"""Prediction sets, label issues and explanations of estimators, on the arrays of every library."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from training_case import CNN, each_home, images

pytest.importorskip("sklearn")

from array_api_compat import array_namespace
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import agnostic_xent as ax

WORDS = np.array(["high", "low", "middle"])


def blobs(samples=300, seed=0):
    """Return rows of three classes that overlap, and their names."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    return rng.standard_normal((samples, 3)) + 1.5 * np.eye(3)[y], WORDS[y]


@each_home
def test_sets_where_the_samples_are(home):
    x, y = blobs()
    inner = ax.LogisticRegression().fit(x.astype("float32"), y)
    inner = FrozenEstimator(ax.to_backend(inner, home.xp, home.place()))
    model, rows = ax.ConformalClassifier(inner, coverage=0.8), home.array(x, "float32")
    found = model.fit(rows, y).predict_sets(rows)
    home.check(found, "bool")
    probs = ax.to_numpy(model.predict_proba(rows))
    np.testing.assert_array_equal(ax.to_numpy(found), model.sets_(probs))
    assert model.classes_.tolist() == WORDS.tolist()
    assert model.score(rows, y) == model.estimator_.score(rows, y)
    assert model.n_features_in_ == 3


def test_what_calibrates_was_not_trained_on():
    x, y = blobs()
    seen = []

    class Noting(GaussianNB):
        def fit(self, X, y):
            seen.append(len(X))
            return super().fit(X, y)

        def predict_proba(self, X):
            seen.append(len(X))
            return super().predict_proba(X)

    ax.ConformalClassifier(Noting(), calibration_fraction=0.3, random_state=0).fit(x, y)
    assert seen == [210, 90]


@pytest.mark.parametrize("options", [{}, {"method": "lac"}, {"penalty": 0.1, "unpenalized": 2}])
def test_a_frozen_classifier_is_calibrated_on_all_samples(options):
    x, y = blobs()
    inner = make_pipeline(StandardScaler(), GaussianNB()).fit(x[:100], y[:100])
    model = ax.ConformalClassifier(FrozenEstimator(inner), coverage=0.85, **options)
    found = model.fit(x[100:], y[100:].tolist()).sets_
    labels = np.searchsorted(WORDS, y[100:])
    expected = ax.fit_conformal(inner.predict_proba(x[100:]), labels, coverage=0.85, **options)
    assert found == expected
    assert model.predict(x).tolist() == inner.predict(x).tolist()


def test_images():
    x, y = images(90)
    inner = ax.CNNClassifier(CNN, epochs=2, random_state=0)
    model = ax.ConformalClassifier(inner, random_state=0).fit(x, y)
    assert model.predict_sets(x.tolist()).shape == (90, 3)
    assert ax.find_label_issues(inner, x, y, cv=2).keys() == {
        "index", "label", "suggested", "probability", "suggested_probability"
    }  # fmt: skip


class Shares(ClassifierMixin, BaseEstimator):
    """Takes the numbers of a row, less what they are on average, for logits."""

    def fit(self, X, y):
        xp, self.classes_ = array_namespace(X), np.unique(y)
        self.means_ = xp.mean(X, axis=0)
        return self

    def predict_proba(self, X):
        return ax.softmax(X - self.means_)

    def predict(self, X):
        return self.classes_[ax.to_numpy(self.predict_proba(X)).argmax(axis=1)]


@each_home
def test_label_issues_are_those_of_cross_validation(home):
    x, y = blobs(200)
    y[[3, 50]] = WORDS[(np.searchsorted(WORDS, y[[3, 50]]) + 1) % 3]
    table = ax.find_label_issues(Shares(), home.array(x, "float32"), y, cv=3)
    p = cross_val_predict(Shares(), x.astype("float32"), y, cv=3, method="predict_proba")
    labels = np.searchsorted(WORDS, y)
    rows = np.flatnonzero(ax.label_issues(p, labels))
    rows = rows[np.argsort(p[rows, labels[rows]])]
    assert table["index"].tolist() == rows.tolist()
    assert {3, 50} <= {*table["index"]}
    assert table["label"].tolist() == y[rows].tolist()
    assert table["suggested"].tolist() == WORDS[p[rows].argmax(axis=1)].tolist()
    np.testing.assert_allclose(table["probability"], p[rows, labels[rows]], atol=1e-4)
    np.testing.assert_allclose(table["suggested_probability"], p[rows].max(axis=1), atol=1e-4)


def test_label_issues_of_a_class_that_a_fold_lacks():
    x, y = blobs(60)
    x, y = x[np.argsort(y)], np.sort(y)
    parts = np.arange(60).reshape(3, 20)  # the first one, say, has one class alone
    folds = [(np.setdiff1d(np.arange(60), part), part) for part in parts]
    found = ax.find_label_issues(GaussianNB(), x, y, cv=folds)
    assert set(found["label"]) <= {*WORDS}


@each_home
def test_attributions(home):
    x, y = images(30)
    model = ax.CNNClassifier(CNN, epochs=1, random_state=0).fit(x.astype("float32"), WORDS[y])
    model = ax.to_backend(model, home.xp, home.place())
    some = home.array(x[:5], "float32")
    for method, options in [
        ("integrated_gradients", {"steps": 1}),
        ("occlusion", {"window": 6}),
        ("grad_cam", {}),
    ]:
        found = model.attributions(some, method=method, **options)
        home.check(found, "float32")
        expected = getattr(ax, method)(model.model_, model.params_, some, **options)
        np.testing.assert_array_equal(ax.to_numpy(found), ax.to_numpy(expected))
        again = model.attributions(some, model.predict(some), method=method, **options)
        np.testing.assert_array_equal(ax.to_numpy(again), ax.to_numpy(expected))
        flat = model.attributions(home.xp.reshape(some, (5, -1)), method=method, **options)
        np.testing.assert_array_equal(ax.to_numpy(flat), ax.to_numpy(expected))


def test_attributions_come_piece_by_piece(monkeypatch):
    x, y = images(30)
    model = ax.CNNClassifier(CNN, epochs=1, random_state=0).fit(x, y)
    expected = model.attributions(x, y, steps=4)
    monkeypatch.setattr("agnostic_xent.estimators.cnn.PREDICTED", 7)
    found = model.attributions(x, y, steps=4)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_attributions_of_levels_are_those_of_numbers_from_0_to_1():
    x, y = images(30)
    levels = np.clip(128 + 40 * x, 0, 255).astype("uint8")
    model = ax.CNNClassifier(CNN, epochs=1, random_state=0).fit(levels, y)
    found = model.attributions(levels[:3])
    shares = levels[:3] / np.float32(255)
    expected = ax.integrated_gradients(model.model_, model.params_, shares)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


X, Y = blobs(40)
FITTED = ax.CNNClassifier(CNN, epochs=1, random_state=0).fit(*images(30))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ax.ConformalClassifier(GaussianNB(), coverage=2).fit(X, Y),
            ValueError,
            "coverage must be",
        ),
        (
            lambda: ax.ConformalClassifier(GaussianNB(), method="x").fit(X, Y),
            ValueError,
            "method must be",
        ),
        (
            lambda: ax.ConformalClassifier(GaussianNB(), calibration_fraction=1).fit(X, Y),
            ValueError,
            r"calibration_fraction must be in \(0, 1\)",
        ),
        (
            lambda: ax.ConformalClassifier(GaussianNB()).fit(X, Y[1:]),
            ValueError,
            "inconsistent numbers of samples",
        ),
        (
            lambda: ax.ConformalClassifier(GaussianNB()).predict_sets(X),
            NotFittedError,
            "not fitted",
        ),
        (
            lambda: ax.find_label_issues(GaussianNB(), X, Y[1:]),
            ValueError,
            "inconsistent numbers of samples",
        ),
        (
            lambda: ax.find_label_issues(GaussianNB(), X, Y, cv=ShuffleSplit(2)),
            ValueError,
            "cv must put each sample",
        ),
        (lambda: ax.find_label_issues(GaussianNB(), X, X[:, 0]), ValueError, "Unknown label type"),
        (
            lambda: ax.find_label_issues(GaussianNB(), X, Y, cv=StratifiedKFold(50)),
            ValueError,
            "n_splits=50",
        ),
        (
            lambda: FITTED.attributions(images(3)[0], method="shap"),
            ValueError,
            "method must be one of 'integrated_gradients'",
        ),
        (
            lambda: FITTED.attributions(images(3)[0], [0, 1, 7]),
            ValueError,
            "y has labels that are not in classes",
        ),
        (lambda: FITTED.attributions(images(3)[0], [0]), ValueError, "inconsistent numbers"),
        (lambda: ax.CNNClassifier().attributions(images(3)[0]), NotFittedError, "not fitted"),
    ],
    ids=itertools.count(),
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
