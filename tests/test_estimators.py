"""Logistic regression with scikit-learn's conventions: values, weights, solvers, errors."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import assert_close
from training_case import each_home

pytest.importorskip("sklearn")

from scipy.special import log_softmax
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from agnostic_xent import LogisticRegression, to_backend, to_numpy
from agnostic_xent.datasets.packaged import packaged

SEED = 5
WORDS = np.array(["ham", "spam", "virus"])


def blobs(classes=3, samples=60, features=4, dtype="float64"):
    """Return overlapping clouds around one corner a class, and which corner."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, classes, samples)
    x = rng.standard_normal((samples, features)) + 2 * np.eye(classes, features)[y]
    return x.astype(dtype), y


def spambase():
    arrays = packaged("spambase.npz")
    return np.asarray(arrays["X"], dtype=float), np.asarray(arrays["y"], dtype=int)


def logits(model, x):
    z = np.asarray(x) @ to_numpy(model.coef_).T + to_numpy(model.intercept_)
    return np.concatenate([np.zeros_like(z), z], axis=1) if z.shape[1] == 1 else z


def objective(model, x, y, a=1.0):
    """Return ``C sum a l + |w|^2 / 2`` by the textbook."""
    losses = -log_softmax(logits(model, x), axis=1)[np.arange(len(y)), y]
    return float(model.C * np.sum(a * losses) + np.sum(np.square(model.coef_)) / 2)


# --- the optimum ---------------------------------------------------------------------------------

PROBLEMS = {
    "spambase": lambda: (StandardScaler().fit_transform(np.log1p(spambase()[0])), spambase()[1]),
    "digits": lambda: load_digits(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
}


@functools.cache
def optimum(problem):
    """Return the peer's optimum, by the solver that is exact; its L-BFGS has the same, or less."""
    peer = linear_model.LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000)
    return peer.fit(*PROBLEMS[problem]())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_reaches_the_optimum_on_features_as_they_come(problem, dtype):
    x, y = PROBLEMS[problem]()
    peer = optimum(problem)
    own = LogisticRegression().fit(x.astype(dtype), y)
    assert own.coef_.dtype == own.intercept_.dtype == dtype
    assert objective(own, x, y) <= objective(peer, x, y) * (1 + 1e-4)
    assert own.coef_.shape == peer.coef_.shape
    assert own.n_iter_ == len(own.loss_curve_) < 1000


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"C": 1e-3}, {"C": np.inf}])
def test_agrees_with_a_peer(classes, options):
    x, y = blobs(classes)
    a = np.random.default_rng(SEED).uniform(0, 2, len(y))
    own = LogisticRegression(tol=1e-14, **options).fit(x, y, sample_weight=a)
    peer = linear_model.LogisticRegression(tol=1e-10, max_iter=10_000, **options)
    peer.fit(x, y, sample_weight=a)
    found, expected = own.predict_proba(x), peer.predict_proba(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (own.intercept_ == 0).all() == ("fit_intercept" in options)


def test_spambase_in_five_folds():
    x, y = spambase()
    pipeline = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression())
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_validate(pipeline, x, y, cv=folds, scoring=("accuracy", "neg_log_loss"))
    assert scores["test_accuracy"].mean() >= 0.937
    assert scores["test_neg_log_loss"].mean() >= -0.178


def test_ends_with_a_warning_before_the_optimum():
    x, y = blobs()
    with pytest.warns(ConvergenceWarning, match="max_iter=2 iterations"):
        model = LogisticRegression(max_iter=2).fit(x, y)
    assert model.n_iter_ == len(model.loss_curve_) == 2


def test_separable_classes_have_no_optimum_without_a_penalty_and_it_ends():
    x = np.array([[-1.0], [1.0]])
    model = LogisticRegression(C=np.inf).fit(x, [0, 1])
    assert model.score(x, [0, 1]) == 1
    assert np.isfinite(model.coef_).all()


# --- arrays of every library ---------------------------------------------------------------------


@each_home
@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("classes", [2, 3])
def test_everything_is_where_the_samples_are(home, solver, classes):
    for dtype in home.dtypes:
        host, y = blobs(classes, dtype=dtype)
        x, options = home.array(host, dtype), {"solver": solver, "random_state": 0}
        a = np.linspace(0, 2, len(y))
        model = LogisticRegression(**options).fit(x, home.array(y), sample_weight=a)
        expected = LogisticRegression(**options).fit(host, y, sample_weight=a)
        steps = 100 * model.n_iter_
        for name in ("coef_", "intercept_"):
            home.check(getattr(model, name), dtype)
            assert_close(getattr(model, name), getattr(expected, name), dtype, steps)
        for name in ("decision_function", "predict_proba", "predict_log_proba"):
            result = getattr(model, name)(x)
            home.check(result, dtype)
            assert_close(result, getattr(expected, name)(host), dtype, steps)
        predicted = model.predict(x)
        home.check(predicted, str(predicted.dtype).rpartition(".")[2])
        assert to_numpy(predicted).tolist() == expected.predict(host).tolist()
        assert model.score(x, home.array(y)) == expected.score(host, y)
        words = LogisticRegression(**options).fit(x, WORDS[y], sample_weight=a)
        assert words.predict(x).tolist() == WORDS[expected.predict(host)].tolist()


@each_home
def test_moves_to_another_library(home):
    host, y = blobs(dtype="float32")
    x = home.array(host)
    model = LogisticRegression(solver="sgd", random_state=0, average=True).fit(host, y)
    model.partial_fit(host, y)
    moved = to_backend(model, home.xp, home.place())
    home.check(moved.coef_, "float32")
    assert_close(moved.predict_proba(x), model.predict_proba(host), "float32", 50)
    moved.partial_fit(x, y)  # the average and the count of steps went with it
    model.partial_fit(host, y)
    assert_close(moved.coef_, model.coef_, "float32", 1000)
    if home.library != "numpy":
        with pytest.raises(ValueError, match=r"predict\(\) must use .* agnostic_xent\.to_backend"):
            model.predict(x)
        with pytest.raises(ValueError, match="to_backend"):
            model.partial_fit(x, y)


def test_labels_of_any_type():
    x, y = blobs()
    expected = LogisticRegression().fit(x, y).predict(x)
    for names in (WORDS, WORDS.astype(object), np.array([-3, 7, 900]), np.array([0.0, 1.0, 2.0])):
        for labels in (names[y], names[y].tolist()):
            model = LogisticRegression().fit(x, labels)
            assert model.classes_.tolist() == sorted(names)
            assert model.predict(x).tolist() == names[expected].tolist()
    model = LogisticRegression().fit(x, y > 0)
    assert model.predict(x).dtype == bool


def test_integers_and_half_precision_are_converted():
    x, y = (10 * blobs()[0]).astype(int), blobs()[1]
    assert LogisticRegression().fit(x, y).coef_.dtype == "float64"
    assert LogisticRegression().fit(x.astype("float16"), y).coef_.dtype == "float64"
    model = LogisticRegression().fit(x.astype("float32"), y)
    assert model.predict_proba(x).dtype == "float32"  # that of the coefficients


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("classes", [2, 3])
def test_class_weights_are_factors_of_the_samples_weights(solver, classes):
    x, y = blobs(classes)
    a = np.linspace(0, 2, len(y))
    factors = np.array([0.5, 2.0, 3.0])[:classes]
    model = LogisticRegression(solver=solver, random_state=0)
    expected = clone(model).fit(x, y, sample_weight=a * factors[y]).coef_
    model.set_params(class_weight=dict(enumerate(factors)))
    assert_close(model.fit(x, y, sample_weight=a).coef_, expected, "float64", 100)
    totals = np.bincount(y, weights=a)
    expected = clone(model).set_params(class_weight=None)
    expected.fit(x, y, sample_weight=a * (a.sum() / classes / totals)[y])
    model.set_params(class_weight="balanced").fit(x, y, sample_weight=a)
    assert_close(model.coef_, expected.coef_, "float64", 100)


@pytest.mark.parametrize("classes", [2, 3])
def test_equal_weights_change_nothing_without_a_penalty(classes):
    x, y = blobs(classes)
    model = LogisticRegression(solver="sgd", C=np.inf, random_state=0)
    expected = clone(model).fit(x, y).coef_
    assert_close(model.fit(x, y, sample_weight=3.0).coef_, expected, "float64", 1000)


# --- scikit-learn's tools ------------------------------------------------------------------------


def test_warm_start():
    x, y = blobs()
    model = LogisticRegression(warm_start=True).fit(x, y)
    assert model.n_iter_ > 3
    first = model.coef_
    assert model.fit(x, y).n_iter_ == 1
    assert_close(model.coef_, first, "float64", 100)
    steps = LogisticRegression(solver="sgd", warm_start=True, random_state=0, max_iter=3).fit(x, y)
    assert steps.loss_curve_[-1] > steps.fit(x, y).loss_curve_[0]
    with pytest.raises(ValueError, match=r"classes of the last fit, \[0, 1, 2\]"):
        model.fit(x, WORDS[y])


def test_searches_copies_and_pickles():
    x, y = blobs()
    search = GridSearchCV(LogisticRegression(), {"C": [1e-6, 1.0]}, cv=3).fit(x, WORDS[y])
    assert search.best_params_ == {"C": 1.0}
    model = LogisticRegression(solver="sgd", average=True, random_state=0).fit(x, y)
    model.partial_fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(again.partial_fit(x, y).coef_, model.partial_fit(x, y).coef_)
    assert not hasattr(clone(model), "coef_")
    assert log_loss(y, model.predict_proba(x)) < 1


def test_names_of_features():
    pandas = pytest.importorskip("pandas")
    x, y = blobs()
    table = pandas.DataFrame(x, columns=list("abcd"))
    model = LogisticRegression().fit(table, pandas.Series(y))
    assert model.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table[list("dcba")])


# --- what is refused -----------------------------------------------------------------------------

X, Y = blobs()
BAD = {
    "C": ({"C": 0}, {}, "C must be a number > 0, got 0"),
    "tol": ({"tol": -1.0}, {}, "tol must be a number > 0"),
    "solver": ({"solver": "saga"}, {}, "solver must be one of 'lbfgs', 'sgd'"),
    "max_iter": ({"max_iter": 0}, {}, "max_iter must be an integer >= 1, got 0"),
    "batch_size": ({"batch_size": 1.5}, {}, "batch_size must be an integer >= 1"),
    "class_weight": ({"class_weight": "even"}, {}, "class_weight must be a dict"),
    "unknown class": ({"class_weight": {7: 1.0}}, {}, "not in class_weight"),
    "fraction": (
        {"solver": "sgd", "early_stopping": True, "validation_fraction": 1.0},
        {},
        r"validation_fraction must be in \(0, 1\)",
    ),
    "patience": (
        {"solver": "sgd", "early_stopping": True, "n_iter_no_change": 0},
        {},
        "n_iter_no_change must be an integer >= 1",
    ),
    "diverges": (
        {"solver": "sgd", "learning_rate": 1e200},
        {},
        "the parameters became NaN or infinite in epoch 1.* lower the learning rate, or scale",
    ),
    "one class": ({}, {"y": np.zeros(60)}, "at least 2 classes"),
    "one class of weight": ({}, {"sample_weight": (Y == 1) * 1.0}, "one class alone"),
    "negative weight": ({}, {"sample_weight": Y - 1.0}, "sample_weight must be >= 0, got -1"),
    "shape of weights": ({}, {"sample_weight": np.ones(3)}, r"have shape \(60,\)"),
    "zero weights": ({}, {"sample_weight": np.zeros(60)}, "at least one non-zero"),
    "length": ({}, {"y": Y[:-1]}, "inconsistent numbers of samples"),
    "no y": ({}, {"y": None}, "requires y to be passed"),
    "nan": ({}, {"X": np.where(X > 2, np.nan, X)}, "NaN"),
}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("case", BAD)
def test_refuses(case):
    options, changed, message = BAD[case]
    model = LogisticRegression(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(**({"X": X, "y": Y} | changed))
    assert not hasattr(model, "coef_")
    assert not hasattr(model, "classes_")


@each_home
def test_refuses_samples_of_every_library(home):
    x = home.array(X, home.dtypes[0])
    model = LogisticRegression().fit(x, Y)
    for bad, message in (
        (x[0, :], "Expected 2D array, got 1D array"),
        (x[:, :2], "X has 2 features, but LogisticRegression is expecting 4"),
        (home.array(np.where(X > 2, np.inf, X), home.dtypes[0]), "infinity"),
        (home.array(X[:0], home.dtypes[0]), r"0 sample\(s\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(bad)
    with pytest.raises(ValueError, match="Complex data not supported"):
        LogisticRegression().fit(home.xp.asarray(X + 0j), Y)


def test_refuses_wrong_parts():
    model = LogisticRegression(solver="sgd")
    with pytest.raises(ValueError, match="classes must be given at the first"):
        model.partial_fit(X, Y)
    model.partial_fit(X[:1], Y[:1], classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"classes must be those of the first fit, \[0, 1, 2\]"):
        model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"y has labels that are not in classes: \[5\]"):
        model.partial_fit(X[:1], [5])
    assert not hasattr(LogisticRegression(), "partial_fit")


def test_scikit_learn_is_imported_where_it_is_used_and_its_absence_explained():
    code = (
        "import sys, agnostic_xent\n"
        "assert 'sklearn' not in sys.modules\n"
        "sys.modules['sklearn'] = None\n"
        "agnostic_xent.LogisticRegression"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: LogisticRegression needs scikit-learn: python -m pip install scikit-learn"
    )
