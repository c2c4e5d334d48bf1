"""Scikit-learn's searches and metadata routing with the classifiers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import agnostic_xent as ax
from agnostic_xent import CNNClassifier, LogisticRegression

MODEL = ax.Sequential(ax.Flatten(), ax.Dense(2))


def rows(samples=60):
    rng = np.random.default_rng(2)
    y = np.arange(samples) % 2
    return rng.standard_normal((samples, 9)) + 1.5 * y[:, None], y


@pytest.mark.parametrize("optimizer", [None, ax.SGD(0.1), ax.SGD(ax.step_decay(0.1, every=100))])
def test_a_search_over_the_rate_within_the_optimizer(optimizer):
    x, y = rows()
    name = "optimizer__learning_rate"
    if optimizer is not None and not isinstance(optimizer.learning_rate, float):
        name += "__rate"
    classifier = CNNClassifier(MODEL, optimizer=optimizer, epochs=2, batch_size=4, random_state=0)
    search = GridSearchCV(classifier, {name: [1e-9, 0.1]}, cv=2)
    assert search.fit(x, y).best_params_ == {name: 0.1}
    assert search.best_score_ > 0.8


def test_a_search_over_the_rate_of_the_recipe():
    x, y = rows()
    classifier = CNNClassifier(MODEL, epochs=2, batch_size=4, random_state=0)
    search = GridSearchCV(classifier, {"learning_rate": [1e-9, 0.1], "augment": [None]}, cv=2)
    assert search.fit(x, y).best_params_["learning_rate"] == 0.1


@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(),
        CNNClassifier(MODEL, optimizer=ax.SGD(0.5), epochs=6, batch_size=10, random_state=0),
    ],
)
def test_sample_weights_are_routed(classifier):
    """Through a pipeline and a search, as if the classifier had got them itself."""
    x, y = rows()
    y[:8] = 1 - y[:8]
    weights = np.where(np.arange(len(y)) < 8, 1e-6, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        asks = sklearn.base.clone(classifier).set_fit_request(sample_weight=True)
        asks.set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asks)
        pipeline.fit(x, y, sample_weight=weights)
        z = pipeline[:-1].transform(x)
        expected = sklearn.base.clone(classifier).fit(z, y, weights)
        np.testing.assert_array_equal(pipeline.predict_proba(x), expected.predict_proba(z))
        assert pipeline.score(x, y, sample_weight=weights) == expected.score(z, y, weights)
        scores = cross_val_score(
            asks, x, y, cv=2, params={"sample_weight": weights}, error_score="raise"
        )
        assert scores.min() > 0.8


def test_output_of_tables_stays_with_transformers():
    x, y = rows()
    pandas = pytest.importorskip("pandas")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).set_output(transform="pandas")
    frame = pandas.DataFrame(x, columns=[f"f{i}" for i in range(9)])
    pipeline.fit(frame, y)
    assert pipeline[-1].feature_names_in_.tolist() == frame.columns.tolist()
    assert pipeline.score(frame, y) > 0.8
