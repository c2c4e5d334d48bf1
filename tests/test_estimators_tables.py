"""Estimators of tables: soft labels, and several labels a sample."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import PRESENT, assert_close

pytest.importorskip("sklearn")

from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agnostic_xent import (
    SGD,
    BatchNorm2d,
    CNNClassifier,
    Conv2d,
    Dense,
    Flatten,
    LogisticRegression,
    ReLU,
    Sequential,
    save_report,
    to_numpy,
)

HOMES = [row for row in PRESENT if row.library not in ("dask", "array_api_strict")]
each_home = pytest.mark.parametrize(
    "home", [pytest.param(row, id=row.name, marks=row.marks) for row in HOMES]
)
X, MANY = make_multilabel_classification(90, 6, n_classes=4, random_state=3)
X = StandardScaler().fit_transform(X)
RNG = np.random.default_rng(5)
SOFT = RNG.dirichlet(np.ones(3), 90) * 0.5 + 0.5 * np.eye(3)[np.argmax(X[:, :3], axis=1)]
WEIGHTS = RNG.random(90) + 0.2
NET = Sequential(Flatten(), Dense(8), ReLU(), Dense(4))


def expanded(x, table, weights=None):
    """Return each sample once for each class, with its probability as a weight: the same loss."""
    n, classes = table.shape
    a = np.ones(n) if weights is None else weights
    labels = np.tile(np.arange(classes), n)
    return np.repeat(x, classes, axis=0), labels, (table * a[:, None]).reshape(-1)


# --- soft labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
def test_soft_labels_are_samples_of_each_class_with_a_weight(classes, weighted, class_weight):
    table = SOFT if classes == 3 else np.stack([SOFT[:, 0], 1 - SOFT[:, 0]], axis=1)
    weights = WEIGHTS if weighted else None
    options = {"class_weight": class_weight, "tol": 1e-13}
    own = LogisticRegression(**options).fit(X, table, sample_weight=weights)
    x, labels, a = expanded(X, table, weights)
    peer = LogisticRegression(**options).fit(x, labels, sample_weight=a)
    np.testing.assert_allclose(own.coef_, peer.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own.predict_proba(X), peer.predict_proba(X), atol=1e-6)
    assert own.classes_.tolist() == list(range(classes))
    assert own.score(X, table) == own.score(X, table.argmax(axis=1))


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_one_hot_probabilities_are_labels(solver):
    labels = SOFT.argmax(axis=1)
    options = {"solver": solver, "random_state": 0}
    own = LogisticRegression(**options).fit(X, np.eye(3)[labels])
    peer = LogisticRegression(**options).fit(X, labels)
    np.testing.assert_allclose(own.coef_, peer.coef_, rtol=1e-6, atol=1e-9)
    assert (own.predict(X) == peer.predict(X)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_steps_of_soft_labels_come_near_to_the_optimum(classes):
    table = SOFT if classes == 3 else np.stack([SOFT[:, 0], 1 - SOFT[:, 0]], axis=1)
    best = LogisticRegression().fit(X, table)
    near = LogisticRegression(
        solver="sgd", average=True, max_iter=100, random_state=0, batch_size=8
    ).fit(X, table, sample_weight=np.full(90, 2.0) if classes == 2 else None)
    assert abs(near.predict_proba(X) - best.predict_proba(X)).max() < 0.05


def test_a_network_of_soft_labels(tmp_path):
    net = Sequential(Flatten(), Dense(3))
    options = {"random_state": 0, "epochs": 40, "optimizer": SGD(0.3), "image_shape": (1, 6)}
    own = CNNClassifier(net, early_stopping=True, **options).fit(X, SOFT)
    assert abs(own.predict_proba(X) - LogisticRegression(C=100).fit(X, SOFT).predict_proba(X)
               ).mean() < 0.05  # fmt: skip
    entropy = -(SOFT * np.log(SOFT)).sum(axis=1).mean()
    assert entropy < own.loss_curve_[-1] < own.loss_curve_[0]
    save_report(tmp_path / "report.html", own, X, SOFT)
    assert (tmp_path / "report.html").exists()


# --- several labels a sample ---------------------------------------------------------------------


@pytest.mark.parametrize("C", [0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_several_labels_are_independent_problems(C, weighted):
    weights = WEIGHTS if weighted else None
    own = LogisticRegression(C=C, tol=1e-13).fit(X, MANY, sample_weight=weights)
    for i, column in enumerate(MANY.T):
        peer = Peer(C=C, tol=1e-10, max_iter=1000).fit(X, column, sample_weight=weights)
        np.testing.assert_allclose(own.coef_[i : i + 1], peer.coef_, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(own.intercept_[i], peer.intercept_[0], rtol=1e-4, atol=1e-5)
    rest = OneVsRestClassifier(Peer(C=C, tol=1e-10, max_iter=1000)).fit(X, MANY)
    if not weighted:
        assert (own.predict(X) == rest.predict(X)).all()
        assert own.score(X, MANY) == rest.score(X, MANY) == accuracy_score(MANY, own.predict(X))
        np.testing.assert_allclose(own.predict_proba(X), rest.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_steps_of_several_labels_are_those_of_each(batch_size):
    """With the textbook's update of each label, in the same order."""
    options = {"solver": "sgd", "learning_rate": 0.05, "max_iter": 2, "batch_size": batch_size}
    own = LogisticRegression(random_state=0, **options).fit(X, MANY)
    for i, column in enumerate(MANY.T):
        peer = LogisticRegression(random_state=0, **options).fit(X, column)
        np.testing.assert_allclose(own.coef_[i : i + 1], peer.coef_, rtol=1e-9, atol=1e-12)
    weighted = LogisticRegression(random_state=0, **options)
    weighted.fit(X, MANY, sample_weight=np.ones(90))
    np.testing.assert_allclose(weighted.coef_, own.coef_, rtol=1e-9, atol=1e-12)


def test_two_labels_are_not_two_classes():
    y = MANY[:, :2]
    for own in (
        LogisticRegression().fit(X, y),
        CNNClassifier(Sequential(Flatten(), Dense(2)), epochs=2, image_shape=(1, 6)).fit(X, y),
    ):
        assert own.decision_function(X).shape == own.predict_proba(X).shape == y.shape
        assert own.predict(X).shape == y.shape
        assert own.predict(X[:1]).shape == (1, 2)
        np.testing.assert_allclose(np.exp(own.predict_log_proba(X)), own.predict_proba(X))


@each_home
@pytest.mark.parametrize("kind", ["soft", "several"])
def test_every_library(home, kind):
    table = SOFT.astype("float32") if kind == "soft" else MANY
    x = home.array(X.astype("float32"))
    own = LogisticRegression(random_state=0).fit(x, home.array(table))
    expected = LogisticRegression(random_state=0).fit(X.astype("float32"), table)
    p = own.predict_proba(x)
    home.check(p, "float32")
    assert_close(p, expected.predict_proba(X.astype("float32")).astype("float64"), "float32", 4000)
    predicted = to_numpy(own.predict(x))
    assert predicted.shape == (MANY.shape if kind == "several" else (90,))
    assert own.score(x, home.array(table)) == pytest.approx(accuracy_score(
        MANY if kind == "several" else table.argmax(1), predicted))  # fmt: skip


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_network_of_several_labels(early_stopping):
    model = Sequential(
        Conv2d(4, (1, 3), bias=False, padding="same"), BatchNorm2d(), ReLU(), Flatten(), Dense(4)
    )
    options = {"epochs": 30, "random_state": 0, "image_shape": (1, 6), "batch_size": 16}
    options["learning_rate"] = 0.02
    own = CNNClassifier(model, early_stopping=early_stopping, **options).fit(X, MANY > 0)
    decisions = (own.predict(X) == MANY).mean()
    guessing = np.maximum(MANY.mean(axis=0), 1 - MANY.mean(axis=0)).mean()
    assert decisions > guessing + 0.1
    assert own.score(X, MANY) <= decisions  # all labels of a sample have to be right
    assert own.history_[-1].accuracy > guessing + 0.1  # of single decisions
    again = pickle.loads(pickle.dumps(own))
    assert (again.predict(X) == own.predict(X)).all()


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("kind", ["soft", "several"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_samples(solver, kind, weighted):
    x = np.where(RNG.random(X.shape) < 0.4, X, 0)
    table, weights = (SOFT if kind == "soft" else MANY), (WEIGHTS if weighted else None)
    options = {"solver": solver, "random_state": 0, "tol": 1e-12, "learning_rate": 0.1}
    own = LogisticRegression(**options).fit(csr_array(x), table, sample_weight=weights)
    dense = LogisticRegression(**options).fit(x, table, sample_weight=weights)
    np.testing.assert_allclose(own.coef_, dense.coef_, rtol=1e-5, atol=1e-7)


def test_dask_samples():
    dask = pytest.importorskip("dask.array")
    own = LogisticRegression().fit(X, MANY)
    lazy = dask.from_array(X, chunks=(40, 6))
    for method in ("predict", "predict_proba", "decision_function"):
        found = getattr(own, method)(lazy)
        np.testing.assert_allclose(found.compute(), getattr(own, method)(X))
    again = LogisticRegression().fit(lazy, MANY)
    np.testing.assert_allclose(again.coef_, own.coef_, rtol=1e-4, atol=1e-6)


def test_thresholds():
    own = LogisticRegression().fit(X, MANY)
    p = own.predict_proba(X)
    for limits in (0.2, [0.1, 0.5, 0.9, 0.3], np.asarray(0.7)):
        own.set_params(thresholds=limits)
        np.testing.assert_array_equal(own.predict(X), (p > np.asarray(limits)).astype(int))
    for limits in (1.5, [0.5] * 3, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"thresholds must be a number in \[0, 1\], or 4"):
            own.set_params(thresholds=limits).predict(X)


def test_in_parts():
    for table, classes in ((SOFT, None), (SOFT, [0, 1, 2]), (MANY, None)):
        options = {"solver": "sgd", "random_state": 0, "learning_rate": 0.1}
        own = LogisticRegression(**options)
        for part in range(3):
            own.partial_fit(X[part::3], table[part::3], classes=classes)
        assert own.predict(X).shape == (MANY.shape if table is MANY else (90,))
    with pytest.raises(ValueError, match="y must have several labels a sample, as in the last"):
        own.partial_fit(X, np.arange(90) % 4)
    with pytest.raises(ValueError, match="y must have a column for each of 4 classes"):
        own.partial_fit(X, MANY[:, :3])


def test_with_tools_of_scikit_learn():
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    peer = make_pipeline(StandardScaler(), OneVsRestClassifier(Peer()))
    own = cross_val_score(pipe, X, MANY, cv=3)
    np.testing.assert_allclose(own, cross_val_score(peer, X, MANY, cv=3), atol=0.04)
    search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, scoring="f1_micro", cv=3)
    assert search.fit(X, MANY).best_params_ == {"C": 1.0}
    assert clone(LogisticRegression(thresholds=0.3)).thresholds == 0.3
    pandas = pytest.importorskip("pandas")
    own = LogisticRegression().fit(pandas.DataFrame(X), pandas.DataFrame(MANY))
    np.testing.assert_array_equal(own.predict(X), LogisticRegression().fit(X, MANY).predict(X))
    assert log_loss(MANY[:, 0], own.predict_proba(X)[:, 0]) < 0.6


ERRORS = {
    "three": (MANY + 1, "must be 0 or 1, whether a sample has a label; got 2"),
    "sums": (SOFT * 0.9, "whose sum is 1 for each sample; got 0.9"),
    "floats": (MANY * 1.0, "for several labels a sample, pass integers 0 and 1"),
    "negative": (SOFT - 1, "must be probabilities"),
    "nan": (np.where(SOFT > 0.5, np.nan, SOFT), "must be probabilities"),
    "texts": (np.full((90, 2), "a"), "y must be labels, one a sample, or of shape"),
    "fewer": (MANY[:-1], "X has 90, y has 89"),
    "one class": (np.eye(3)[[0] * 90], "needs samples of at least 2 classes"),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", [LogisticRegression, CNNClassifier])
def test_errors(kind, error):
    y, text = ERRORS[error]
    own = kind()
    with pytest.raises(ValueError, match=text):
        own.fit(X, y)
    assert not hasattr(own, "classes_")


def test_other_errors(tmp_path):
    with pytest.raises(ValueError, match="class_weight is for one label a sample"):
        LogisticRegression(class_weight="balanced").fit(X, MANY)
    with pytest.raises(ValueError, match="class_weight must be a dict"):
        LogisticRegression(class_weight="even").fit(X, SOFT)
    own = LogisticRegression().fit(X, MANY[:, :2])
    with pytest.raises(ValueError, match="classifier has several labels a sample"):
        save_report(tmp_path / "report.html", own, X, MANY)
    with pytest.raises(ValueError, match="summary is for two classes"):
        own.summary(X)
