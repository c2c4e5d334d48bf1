"""The report of an estimator: what the page says of it, on the arrays of every library."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from report_case import Page, pixels
from training_case import CNN, each_home, images

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from agnostic_xent import (
    CNNClassifier,
    ConformalClassifier,
    Dense,
    Flatten,
    LogisticRegression,
    Sequential,
    save_report,
    to_numpy,
)

WORDS = np.array(["<low>", "middle", "high"])


def page(tmp_path, *args, **options):
    save_report(tmp_path / "report.html", *args, **options)
    return Page(tmp_path / "report.html")


def numbers(found):
    """Return what is said at the top."""
    end = found.words.index("Classes")
    end -= found.words[end - 1].startswith("The ")  # what the curves say
    return dict(zip(found.words[2:end:2], found.words[3:end:2], strict=True))


def cnn(**options):
    return CNNClassifier(CNN, epochs=3, batch_size=16, random_state=0, **options)


@each_home
def test_says_what_the_classifier_does_where_it_is(home, tmp_path):
    x, y = images(80)
    model = cnn().fit(home.array(x[:50], "float32"), WORDS[y[:50]])
    test = home.array(x[50:], "float32")
    found = page(tmp_path, model, test, WORDS[y[50:]])
    assert found.words[0] == "CNNClassifier"
    said = numbers(found)
    assert said["test accuracy"] == f"{model.score(test, WORDS[y[50:]]):.4f}"
    p = to_numpy(model.predict_proba(test)).astype(float)
    of_truth = p[np.arange(30), np.searchsorted(model.classes_, WORDS[y[50:]])]
    assert float(said["test loss"]) == pytest.approx(-np.log(of_truth).mean(), rel=1e-3)
    assert (said["test samples"], said["epochs"]) == ("30", "3")
    assert said["parameters"] == f"{sum(w.size for w in CNN.init(0, (1, 6, 6))[0].values()):,}"
    assert said["training"].endswith(" s")
    mistakes = [p for p in found.pictures if p["alt"] == ""]
    assert len(mistakes) == round(30 * (1 - model.score(test, WORDS[y[50:]])))
    reasons = [p for p in found.pictures if p["alt"].startswith("What spoke for ")]
    assert [pixels(p).shape for p in reasons] == [(6, 6, 4)] * len(mistakes)
    filters = [p for p in found.pictures if p["alt"].startswith("Filter ")]
    assert [pixels(p).shape for p in filters] == [(3, 3, 4)] * 3
    assert "loss in training" in found.pictures[0]["alt"]
    assert f"A training step of 16 samples on {home.library} arrays" in found.text
    assert ["estimator", "CNNClassifier"] in found.rows
    assert ["batch_size", "16"] in found.rows
    assert {row[0] for row in found.rows} >= {home.library, "Dense(3)", "cross_entropy", "<low>"}


@pytest.mark.parametrize(("solver", "unit"), [("lbfgs", "iterations"), ("sgd", "epochs")])
@pytest.mark.parametrize("classes", [2, 3])
def test_of_logistic_regression(tmp_path, solver, unit, classes):
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, 60)
    x = rng.standard_normal((60, 4)) + np.eye(4)[y]
    model = LogisticRegression(solver=solver, random_state=0, warm_start=True).fit(x, y)
    for _ in range(2):  # the second starts at the optimum
        found = page(tmp_path, model, x.tolist(), y.tolist(), title="four numbers")
        said = numbers(found)
        assert found.words[0] == "four numbers"
        assert float(said["test loss"]) == pytest.approx(
            log_loss(y, model.predict_proba(x)), rel=1e-3
        )
        assert said[unit] == str(model.n_iter_)
        assert said["parameters"] == str(model.coef_.size + model.intercept_.size)
        assert [row[0] for row in found.rows][1 : 1 + classes] == [str(c) for c in range(classes)]
        assert not {"Layers", "Most confident mistakes"} & set(found.words)
        model.fit(x, y)


def test_of_a_classifier_in_a_conformal_one(tmp_path):
    x, y = images(80)
    model = ConformalClassifier(cnn(), random_state=0).fit(x, y)
    found = page(tmp_path, model, x, y)
    assert found.words[0] == "CNNClassifier"
    assert numbers(found)["test accuracy"] == f"{model.score(x, y):.4f}"
    frozen = ConformalClassifier(FrozenEstimator(model.estimator_)).fit(x, y)
    assert page(tmp_path, frozen, x, y).words[0] == "CNNClassifier"


def test_curves_are_the_history(tmp_path):
    x, y = images(80)
    model = cnn(early_stopping=True, validation_fraction=0.25).fit(x, y)
    assert [e.epoch for e in model.history_] == [1, 2, 3]
    (last,) = model.history_[-1:]
    said = page(tmp_path, model, x, y).pictures[0]["alt"]
    for name in ("loss", "accuracy"):
        assert f"{name} in training {getattr(last, name):.4g}" in said
        assert f"{name} in validation {getattr(last, 'validation_' + name):.4g}" in said
    model.partial_fit(x, y)
    assert [e.epoch for e in model.history_] == [1, 2, 3, 4]
    assert model.history_.column("loss") == model.loss_curve_


def test_stored_samples_give_the_same_page(tmp_path):
    dask_array = pytest.importorskip("dask.array")
    x, y = images(80)
    model = cnn().fit(x, y)
    np.save(tmp_path / "x.npy", x)
    expected = page(tmp_path, model, x, y)
    for stored in (np.load(tmp_path / "x.npy", mmap_mode="r"), dask_array.from_array(x, chunks=30)):
        found = page(tmp_path, model, stored, y)
        assert numbers(found) == numbers(expected)
        assert [p["src"] for p in found.pictures] == [p["src"] for p in expected.pictures]


def test_pictures_of_three_channels_have_colours(tmp_path):
    x = np.zeros((12, 3, 5, 5), "float32")
    x[:, 0] = 7.0  # red
    y = np.arange(12) % 2  # which nobody can tell
    found = page(tmp_path, CNNClassifier(epochs=1, random_state=0).fit(x, y), x, y)
    mistakes = [p for p in found.pictures if p["alt"] == ""]
    assert len(mistakes) == 6
    assert pixels(mistakes[0])[2, 2].tolist() == [255, 0, 0, 255]


def test_rows_of_numbers_show_no_pictures(tmp_path):
    x, y = images(30)
    rows = x.reshape(30, 1, 36)
    model = CNNClassifier(Sequential(Flatten(), Dense(3)), epochs=1, random_state=0).fit(rows, y)
    assert len(page(tmp_path, model, rows, y).pictures) == 3


# --- what is refused -----------------------------------------------------------------------------


def test_refuses(tmp_path):
    x, y = images(30)
    model, path = cnn().fit(x, y), tmp_path / "report.html"
    path.write_text("old")
    for args, error, message in (
        ((cnn(), x, y), NotFittedError, "not fitted yet"),
        ((model, x, y[:-1]), ValueError, "X has 30, y has 29"),
        ((model, x, y + 1), ValueError, r"y has labels that are not in classes: \[3\]"),
        ((model, x[:, :, :5], y), ValueError, "X must hold images of shape"),
    ):
        with pytest.raises(error, match=message):
            save_report(path, *args)
    assert path.read_text() == "old"


def test_without_its_packages_it_says_what_to_install(tmp_path, monkeypatch):
    x, y = images(30)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ImportError, match=r"needs matplotlib and jinja2: .* pip install matplotlib jinja2$"
    ):
        save_report(tmp_path / "report.html", cnn().fit(x, y), x, y)
    assert list(tmp_path.iterdir()) == []


# --- pipelines, searches and scikit-learn's own ---------------------------------------------------


def rows(count=90):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, count)
    return rng.standard_normal((count, 4)) + 2 * np.eye(4)[y], y


OTHERS = {
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "pipeline of one": lambda: make_pipeline(LogisticRegression()),
    "search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3),
    "search of a pipeline": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__C": [0.1, 1.0]},
        cv=3,
    ),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "pipeline of another": lambda: make_pipeline(StandardScaler(), GaussianNB()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_of_what_scikit_learn_makes(tmp_path, name):
    x, y = rows()
    model = OTHERS[name]().fit(x[:60], WORDS[y[:60]])
    found = page(tmp_path, model, x[60:], WORDS[y[60:]])
    said = numbers(found)
    assert said["test accuracy"] == f"{model.score(x[60:], WORDS[y[60:]]):.4f}"
    expected = log_loss(WORDS[y[60:]], model.predict_proba(x[60:]), labels=sorted(WORDS))
    assert float(said["test loss"]) == pytest.approx(expected, rel=1e-2)
    if "another" not in name and name != "forest":
        assert found.words[0] == "LogisticRegression"
        assert said["parameters"] == "15"
    short = WORDS[y[60:-1]]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        save_report(tmp_path / "x.html", model, x[60:], short)


def test_of_a_search_over_images(tmp_path):
    x, y = images(80)
    search = GridSearchCV(cnn(), {"learning_rate": [1e-3, 1e-2]}, cv=2)
    search.fit(x[:50].astype("f4"), WORDS[y[:50]])
    found = page(tmp_path, search, x[50:].astype("f4"), WORDS[y[50:]])
    assert found.words[0] == "CNNClassifier"
    assert ["learning_rate", str(search.best_params_["learning_rate"])] in found.rows


def test_of_what_has_no_probabilities(tmp_path):
    x, y = rows()
    with pytest.raises(
        TypeError, match=r"a fitted classifier with predict_proba, .* got LinearSVC"
    ):
        save_report(tmp_path / "x.html", LinearSVC().fit(x, y), x, y)
