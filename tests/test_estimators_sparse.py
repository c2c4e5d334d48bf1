"""Logistic regression of sparse samples: the dense fit of the same rows, to rounding."""

from __future__ import annotations

import pickle
import sys
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.pipeline import make_pipeline

from agnostic_xent import (
    CNNClassifier,
    DivergenceError,
    LogisticRegression,
    cosine,
    kernels,
    save_report,
    to_numpy,
)
from agnostic_xent.core.sparse import CSR, LIBRARIES
from agnostic_xent.estimators import logistic as estimator
from agnostic_xent.estimators.lbfgs import MANY, MEMORY_OF_MANY
from agnostic_xent.estimators.samples import checked_samples
from agnostic_xent.estimators.used_columns import used_columns
from agnostic_xent.training import sparse_epochs

LBFGS = {"tol": 1e-12}


def drawn(seed):
    """Return sparse rows, labels, weights and options of a problem, by a seed."""
    rng = np.random.default_rng(seed)
    rows, columns, classes = (int(n) for n in rng.integers([20, 1, 2], [300, 60, 5]))
    x = sparse.random(rows, columns, float(rng.uniform(0.02, 0.5)), format="csr", random_state=rng)
    x.data = x.data * rng.choice([1.0, 100.0]) + rng.choice([0.0, -3.0])
    x.data[rng.random(x.nnz) < 0.1] = 0.0
    y = np.where(
        np.arange(rows) < classes, np.arange(rows) % classes, rng.integers(0, classes, rows)
    )
    weights = None if rng.random() < 0.5 else rng.random(rows) + 0.1
    options = {
        "C": 10.0 ** rng.uniform(-2, 1),
        "fit_intercept": bool(rng.random() < 0.8),
        "class_weight": [None, "balanced"][int(rng.integers(2))],
    }
    dtype = str(rng.choice(["float64", "float32"]))
    kind = [sparse.csr_matrix, sparse.csr_array][int(rng.integers(2))]
    return kind(x, dtype=dtype), y, weights, options


def unordered(x):
    """Return the same rows with entries out of order, and some in two parts."""
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    order = np.lexsort((-x.indices, rows))
    data = np.repeat(x.data[order] / 2, 2)
    return type(x)((data, np.repeat(x.indices[order], 2), 2 * x.indptr), shape=x.shape)


def int64(x):
    found = x.copy()
    found.indices, found.indptr = x.indices.astype("int64"), x.indptr.astype("int64")
    return found


def readonly(x):
    found = x.copy()
    for array in (found.data, found.indices, found.indptr):
        array.flags.writeable = False
    return found


FORMS = {
    "as it is": lambda x: x,
    "int64": int64,
    "unordered": unordered,
    "readonly": readonly,
    "csc": lambda x: x.tocsc(),
    "coo": lambda x: x.tocoo(),
}


def agree(found, expected, x, dense, y, digits):
    tolerance = {"rtol": digits, "atol": digits}
    np.testing.assert_allclose(found.coef_, expected.coef_, **tolerance)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, **tolerance)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, **tolerance)
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        both = getattr(found, method)(x), getattr(expected, method)(dense)
        np.testing.assert_allclose(*both, **tolerance)
    assert (found.predict(x) == expected.predict(dense)).all()
    assert found.score(x, y) == expected.score(dense, y)


@pytest.mark.filterwarnings("ignore:lbfgs ended")
@pytest.mark.parametrize("seed", range(25))
def test_lbfgs_is_that_of_the_dense_rows(seed):
    x, y, weights, options = drawn(seed)
    dense = x.toarray()
    digits = 1e-9 if x.dtype == "float64" else 1e-3
    # float32 ends where rounding hides the decrease: a step earlier or later
    steps = {"max_iter": 4} if x.dtype == "float32" else LBFGS
    expected = LogisticRegression(**steps, **options).fit(dense, y, sample_weight=weights)
    for form in FORMS:
        given = FORMS[form](x)
        before = given.copy()
        found = LogisticRegression(**steps, **options).fit(given, y, sample_weight=weights)
        agree(found, expected, given, dense, y, digits)
        assert (given.data == before.data).all()
        assert found.coef_.dtype == x.dtype


def test_never_made_dense():
    """10 GB, were it dense."""
    rng = np.random.default_rng(0)
    x = sparse.random(20_000, 60_000, 1e-4, format="csr", random_state=rng)
    y = rng.integers(0, 2, 20_000)
    tracemalloc.start()
    LogisticRegression().fit(x, y).predict_proba(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20


@pytest.mark.filterwarnings("ignore:lbfgs ended")
def test_lbfgs_holds_few_arrays_of_the_size_of_many_coefficients():
    rng = np.random.default_rng(0)
    x = sparse.random(3_000, 9_000, 2e-3, format="csr", random_state=rng)
    y = rng.integers(0, 12, 3_000)
    fit = LogisticRegression(max_iter=9).fit
    fit(x[:30], y[:30])
    tracemalloc.start()
    coefficients = fit(x, y).coef_
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert coefficients.size > MANY
    assert peak < (2 * MEMORY_OF_MANY + 14) * coefficients.nbytes  # steps, changes, and the rest


def test_lbfgs_of_many_coefficients_ends_where_that_of_the_dense_rows_does():
    rng = np.random.default_rng(1)
    x = sparse.random(700, 6_000, 0.01, format="csr", random_state=rng)
    y = rng.integers(0, 12, 700)
    assert 12 * x.shape[1] > MANY
    found, expected = (LogisticRegression(**LBFGS).fit(rows, y) for rows in (x, x.toarray()))
    assert min(found.n_iter_, expected.n_iter_) > MEMORY_OF_MANY
    np.testing.assert_allclose(found.loss_curve_[-1], expected.loss_curve_[-1], rtol=1e-11)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=0, atol=10 * LBFGS["tol"] ** 0.5)


# --- empty columns -------------------------------------------------------------------------------


def hashed(seed=0):
    rng = np.random.default_rng(seed)
    x = sparse.random(600, 40, 0.2, format="csr", random_state=rng)
    places = np.sort(rng.permutation(5000)[:40])
    return sparse.csr_matrix((x.data, places[x.indices], x.indptr), shape=(600, 5000)), places


def test_empty_columns_are_left_out():
    x, places = hashed()
    y = np.random.default_rng(1).integers(0, 3, 600)
    own = used_columns(
        checked_samples(LogisticRegression(), x, reset=True, dtypes=("float64",), sparse=True)
    )
    assert own.samples.features == 40
    found = LogisticRegression(**LBFGS).fit(x, y)
    expected = LogisticRegression(**LBFGS).fit(x[:, places], y)
    np.testing.assert_allclose(found.coef_[:, places], expected.coef_, rtol=1e-9, atol=1e-12)
    assert np.count_nonzero(found.coef_) == expected.coef_.size
    found.set_params(warm_start=True).fit(x, y)
    assert found.n_iter_ == 1


def test_columns_that_are_mostly_used_stay(monkeypatch):
    x, places = hashed()
    samples = checked_samples(
        LogisticRegression(), x[:, places], reset=True, dtypes=("float64",), sparse=True
    )
    assert isinstance(samples.x, CSR)
    assert used_columns(samples) is None
    monkeypatch.setattr(estimator, "used_columns", lambda samples: None)
    y = np.random.default_rng(1).integers(0, 2, 600)
    plain = LogisticRegression(**LBFGS).fit(x, y)
    monkeypatch.undo()
    found = LogisticRegression(**LBFGS).fit(x, y)
    near = LBFGS["tol"] ** 0.5  # at the minimum the loss is flat
    np.testing.assert_allclose(found.coef_, plain.coef_, atol=10 * near)


# --- steps ---------------------------------------------------------------------------------------

STEPS = {
    "plain": {"batch_size": 1, "C": np.inf},
    "penalty": {"batch_size": 1, "C": 0.01},
    "batches": {"batch_size": 7},
    "a batch of all": {"batch_size": 1000, "learning_rate": 0.5},
    "average": {"batch_size": 1, "average": True},
    "lasso": {"batch_size": 1, "l1_ratio": 1.0},
    "elastic net": {"batch_size": 3, "l1_ratio": 0.6, "C": 0.01},
    "strong elastic net": {"l1_ratio": 0.1, "C": 1e-3, "learning_rate": 0.02},
    "average of lassos": {"l1_ratio": 0.8, "average": True},
    "strong penalty": {"batch_size": 3, "average": True, "C": 1e-3, "learning_rate": 0.01},
    "falling rate": {"batch_size": 2, "learning_rate": cosine(0.5, steps=200), "average": True},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2},
    "early stopping of averages": {"early_stopping": True, "average": True},
}


@pytest.mark.parametrize("mode", ["auto", "portable"])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("seed", range(6))
def test_sgd_is_that_of_the_dense_rows(seed, name, mode):
    x, y, weights, options = drawn(seed)
    options |= {"solver": "sgd", "max_iter": 3, "random_state": seed} | STEPS[name]
    if options.get("early_stopping"):
        y = np.arange(len(y)) % (y.max() + 1)  # enough of each class to hold some out
    dense = x.toarray()
    expected = LogisticRegression(**options).fit(dense, y, sample_weight=weights)
    with kernels(mode):
        found = LogisticRegression(**options).fit(x, y, sample_weight=weights)
    agree(found, expected, x, dense, y, 1e-9 if x.dtype == "float64" else 2e-3)
    assert found.n_iter_ == expected.n_iter_
    for column in ("accuracy", "learning_rate"):
        pair = found.history_.column(column), expected.history_.column(column)
        np.testing.assert_allclose(*pair, atol=1e-9)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_partial_fit_is_that_of_the_dense_rows(classes, average):
    rng = np.random.default_rng(0)
    x = sparse.random(200, 30, 0.2, format="csr", random_state=rng)
    y, weights = rng.integers(0, classes, 200), rng.random(200) + 0.1
    options = {"solver": "sgd", "random_state": 0, "average": average, "learning_rate": 0.5}
    found, expected = LogisticRegression(**options), LogisticRegression(**options)
    for part, a in ((slice(0, 70), None), (slice(70, 90), None), (slice(90, 200), weights[90:])):
        found.partial_fit(x[part], y[part], range(classes), sample_weight=a)
        expected.partial_fit(x[part].toarray(), y[part], range(classes), sample_weight=a)
    agree(found, expected, x, x.toarray(), y, 1e-9)


def test_the_kernel_takes_the_steps():
    x, y, _, _ = drawn(2)
    for weights in (None, np.ones(len(y))):
        for average in (False, True):
            options = {"average": average, "max_iter": 1, "random_state": 0}
            with kernels("require"):
                LogisticRegression(solver="sgd", **options).fit(x, y, sample_weight=weights)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_an_epoch_in_parts(classes, average, monkeypatch):
    rng = np.random.default_rng(0)
    x = sparse.random(500, 30, 0.2, format="csr", random_state=rng)
    y = rng.integers(0, classes, 500)
    options = {"solver": "sgd", "max_iter": 2, "random_state": 0, "average": average}
    whole = LogisticRegression(**options).fit(x, y)
    monkeypatch.setattr(sparse_epochs, "CHUNK", 1)
    monkeypatch.setattr(sparse_epochs, "PASSES", 8)
    parts = LogisticRegression(**options).fit(x, y)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_columns_that_no_cache_holds(classes):
    x, places = hashed()
    wide = sparse.csr_matrix((x.data, 120 * x.indices, x.indptr), shape=(600, 600_000))
    y = np.random.default_rng(2).integers(0, classes, 600)
    options = {"solver": "sgd", "max_iter": 2, "random_state": 0, "batch_size": 1}
    found = LogisticRegression(**options).fit(wide, y)
    expected = LogisticRegression(**options).fit(x[:, places], y)
    np.testing.assert_array_equal(found.coef_[:, 120 * places], expected.coef_)
    assert np.count_nonzero(found.coef_) == expected.coef_.size


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_rows_of_any_length(classes, average):
    """Rows without entries, with few and with hundreds, so that what is asked for ahead varies."""
    rng = np.random.default_rng(3)
    x = sparse.random(150, 700, 0.3, format="csr", random_state=rng).tolil()
    x[rng.random(150) < 0.4, 3:] = 0
    x[rng.random(150) < 0.2, :] = 0
    x, y = sparse.csr_matrix(x), rng.integers(0, classes, 150)
    options = {"solver": "sgd", "max_iter": 3, "random_state": 0, "average": average}
    for batch_size in (1, 4):
        found = LogisticRegression(**options, batch_size=batch_size).fit(x, y)
        expected = LogisticRegression(**options, batch_size=batch_size).fit(x.toarray(), y)
        agree(found, expected, x, x.toarray(), y, 1e-9)


def test_the_same_bits_each_time():
    x, y, weights, _ = drawn(1)
    options = {"solver": "sgd", "max_iter": 2, "random_state": 0, "average": True}
    made = [LogisticRegression(**options).fit(x, y, sample_weight=weights) for _ in range(3)]
    assert len({np.ascontiguousarray(each.coef_).tobytes() for each in made}) == 1


def test_steps_that_diverge_say_where():
    x, y, _, _ = drawn(2)
    options = {"solver": "sgd", "learning_rate": 1e300, "random_state": 0, "batch_size": 1}
    with pytest.raises(DivergenceError, match="epoch 1"):
        LogisticRegression(**options).fit(x, y)


def test_a_confident_answer_keeps_its_digits():
    """p - t of a logit of 40 is -exp(-40), which p rounded to 1 would lose."""
    x = sparse.csr_matrix(np.ones((2, 1)))
    for classes, weights in ((2, None), (2, [1.0, 1e-300]), (3, None)):
        y = np.asarray([1, 0]) if classes == 2 else np.asarray([1, 2])
        model = LogisticRegression(
            solver="sgd", C=np.inf, fit_intercept=False, learning_rate=1e18, batch_size=1
        )
        model.partial_fit(x, y, range(classes), sample_weight=weights)
        model.coef_[:] = 0
        model._state["last"]["0.weight"] = model.coef_
        model.coef_[-1 if classes == 2 else 1] = 40.0
        model.partial_fit(x[:1], y[:1])
        moved = (model.coef_[-1 if classes == 2 else 1, 0] - 40.0) / 1e18
        np.testing.assert_allclose(moved, (classes - 1) * np.exp(-40), rtol=1e-12)


# --- another library -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["lbfgs", "lasso", "sgd", "few samples"])
@pytest.mark.parametrize("classes", [2, 3])
def test_matrices_of_another_library(classes, solver, monkeypatch):
    """Those of CuPy go through the same lines."""
    pytest.importorskip("array_api_strict")
    from sparse_stand_in import DEVICE, MODULE, Matrix, there

    monkeypatch.setitem(LIBRARIES, "array_api_strict", "a_stand_in")
    monkeypatch.setitem(sys.modules, "a_stand_in", MODULE)
    rng = np.random.default_rng(0)
    x = sparse.random(
        20 if solver == "few samples" else 90, 30, 0.2, format="csr", random_state=rng
    )
    x = unordered(x)
    y = np.arange(x.shape[0]) % classes
    options = {"solver": "sgd", "max_iter": 2, "random_state": 0} if solver == "sgd" else {}
    options |= {"l1_ratio": 0.5, "tol": 1e-13} if solver == "lasso" else {}
    for average in (False, True) if solver == "sgd" else (False,):
        model = LogisticRegression(average=average, **options)
        expected = clone(model).fit(x.toarray(), y)
        found = model.fit(Matrix.of(x), there(y))
        assert found.coef_.device == DEVICE
        for name in ("coef_", "intercept_"):
            both = to_numpy(getattr(found, name)), getattr(expected, name)
            np.testing.assert_allclose(*both, rtol=1e-8, atol=1e-10)
        predicted = to_numpy(found.predict_proba(Matrix.of(x)))
        np.testing.assert_allclose(predicted, expected.predict_proba(x.toarray()), rtol=1e-8)
        assert to_numpy(found.predict(Matrix.of(x.astype("float32")))).shape == (x.shape[0],)


def test_empty_columns_of_another_library(monkeypatch):
    pytest.importorskip("array_api_strict")
    from sparse_stand_in import MODULE, Matrix, there

    monkeypatch.setitem(LIBRARIES, "array_api_strict", "a_stand_in")
    monkeypatch.setitem(sys.modules, "a_stand_in", MODULE)
    x, _ = hashed()
    y = np.random.default_rng(1).integers(0, 3, 600)
    found, expected = (
        LogisticRegression().fit(Matrix.of(x), there(y)),
        LogisticRegression().fit(x, y),
    )
    np.testing.assert_allclose(to_numpy(found.coef_), expected.coef_, rtol=1e-8, atol=1e-12)
    broken = x.copy()
    broken.data[3] = np.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        found.predict(Matrix.of(broken))


# --- in use --------------------------------------------------------------------------------------

TEXTS = ["cheap pills now", "meeting at noon", "cheap meeting pills", "lunch at noon"] * 4
LABELS = np.asarray(["spam", "ham", "spam", "ham"] * 4)


@pytest.mark.parametrize("vectorizer", [TfidfVectorizer(), HashingVectorizer()])
def test_pipelines_of_text(vectorizer, tmp_path):
    pipeline = make_pipeline(vectorizer, LogisticRegression(C=10.0)).fit(TEXTS, LABELS)
    assert pipeline.score(TEXTS, LABELS) == 1.0
    again = pickle.loads(pickle.dumps(pipeline))
    assert again.predict(["cheap pills"]).tolist() == ["spam"]
    x = vectorizer.transform(TEXTS)
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    save_report(tmp_path / "report.html", pipeline[-1], x, LABELS)
    assert (tmp_path / "report.html").exists()


def test_a_dense_fit_predicts_sparse_rows_and_the_other_way_round():
    x, y, _, options = drawn(3)
    dense = x.toarray()
    found = LogisticRegression(**options).fit(x, y)
    np.testing.assert_allclose(
        found.decision_function(x), found.decision_function(dense), rtol=1e-5
    )


BAD = {
    "infinity": (lambda x: x * np.inf, ValueError, "NaN|infinity"),
    "too few columns": (lambda x: x[:, :-1], ValueError, "features"),
    "a column too far": (lambda x: spoilt(x), ValueError, "no whole CSR matrix"),
    "complex": (lambda x: x * 1j, ValueError, "Complex data not supported"),
}


def spoilt(x):
    x = x.copy()
    x.indices[0] = x.shape[1] + 5
    return x


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name):
    x, y, _, _ = drawn(5)
    change, error, message = BAD[name]
    fitted = LogisticRegression().fit(x, y)
    with pytest.raises(error, match=message), np.errstate(all="ignore"):
        fitted.predict(change(x))


def test_images_are_dense():
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        CNNClassifier().fit(sparse.csr_matrix(np.eye(64)), np.arange(64) % 2)
