"""Thresholds of two classes, against scikit-learn, and the strongest features of a class."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_case import Page

from agnostic_xent.evaluation.strongest import MOST, strongest
from agnostic_xent.evaluation.thresholds import Thresholds

SAMPLES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40)


@settings(max_examples=100, deadline=None)
@given(SAMPLES)
def test_the_same_as_scikit_learn(samples):
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.asarray([score / 5 for score, _ in samples])
    positive = np.asarray([each for _, each in samples])
    found = Thresholds.of(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
        return
    fpr, tpr, thresholds = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_alarms, fpr[1:])
    np.testing.assert_allclose(found.recall, tpr[1:])
    np.testing.assert_allclose(found.thresholds, thresholds[1:])
    precision, recall, thresholds = metrics.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(found.precision, precision[:-1][::-1])
    np.testing.assert_allclose(found.recall, recall[:-1][::-1])
    np.testing.assert_allclose(found.area, metrics.roc_auc_score(positive, scores))
    expected = metrics.average_precision_score(positive, scores)
    np.testing.assert_allclose(found.average_precision, expected)


@settings(max_examples=100, deadline=None)
@given(SAMPLES, st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_the_lowest_threshold_of_a_precision(samples, wanted):
    scores = np.asarray([score / 5 for score, _ in samples])
    positive = np.asarray([each for _, each in samples])
    reached = [
        (t, positive[scores >= t].sum() / max(1, positive.sum()))
        for t in np.unique(scores)
        if positive[scores >= t].mean() >= wanted
    ]
    found = Thresholds.of(scores, positive)
    if found is not None:
        assert found.at_precision(wanted) == (reached[0] if reached else None)


def test_strongest_features():
    names = [f"word {i}" for i in range(30)]
    row = np.linspace(-1, 1, 30)[np.random.default_rng(0).permutation(30)]
    found = strongest(row[None, :], names, ["ham", "spam"])
    assert found["spam"] == [names[i] for i in np.argsort(-row)[:MOST]]
    assert found["ham"] == [names[i] for i in np.argsort(row)[:MOST]]
    rows = np.stack([row, -np.abs(row), 0 * row])
    of_three = strongest(rows, names, ["a", "b", "c"])
    assert of_three == {"a": found["spam"], "b": [], "c": []}


def test_the_report_of_a_pipeline_of_text(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    from agnostic_xent import LogisticRegression, save_report

    texts = ["cheap pills now", "meeting at noon", "cheap <b>offer</b>", "lunch at noon"] * 5
    labels = ["spam", "ham"] * 10
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10.0)).fit(texts, labels)
    save_report(tmp_path / "report.html", pipeline, texts, labels)
    page = Page(tmp_path / "report.html")
    shown = {row[0]: row[1:] for row in page.rows if len(row) == 3}
    assert shown["0.99"][1] == "1.000"
    assert "ROC, and precision over recall, of spam: area 1.0000, average precision 1.0000" in [
        picture["alt"] for picture in page.pictures
    ]
    assert '>spam</th><td class="any"><bdi>cheap</bdi>, <bdi>' in page.text
    assert re.search("dir=.auto.>ham</th><td class=.any.><bdi>(at|noon)</bdi>", page.text)
    assert "Strongest features" in page.words
