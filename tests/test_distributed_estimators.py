"""Estimators on several ranks, and their lazy predictions where dask computes."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
from conftest import assert_close
from distributed_case import one_after_the_other
from ranks import on_ranks

pytest.importorskip("sklearn")

from scipy import sparse

from agnostic_xent import Conv2d, Dense, Flatten, ReLU, Sequential
from agnostic_xent.estimators import CNNClassifier, LogisticRegression

SEED, SIDE, SAMPLES = 3, 4, 90
NETWORK = Sequential(Conv2d(4, 3, padding=1), ReLU(), Flatten(), Dense(3))
SGD = {"solver": "sgd", "batch_size": 8, "max_iter": 4}
CNN = {"epochs": 4, "batch_size": 20}
STOPS = {"early_stopping": True, "n_iter_no_change": 2, "validation_fraction": 0.3}
MODELS = {
    "lbfgs": LogisticRegression(),
    "lbfgs, by class": LogisticRegression(class_weight="balanced", C=10, fit_intercept=False),
    "lasso": LogisticRegression(l1_ratio=0.8, C=0.1, tol=1e-12),
    "sgd": LogisticRegression(**SGD, random_state=SEED),
    "sgd, average": LogisticRegression(**SGD, **STOPS, average=True, random_state=SEED),
    "cnn": CNNClassifier(NETWORK, **CNN, random_state=SEED),
    "cnn, by class": CNNClassifier(
        NETWORK, **CNN, **STOPS, class_weight="balanced", random_state=SEED
    ),
}


def samples(classes=3):
    """Return images as rows, and which pixel is bright."""
    rng = np.random.default_rng(SEED)
    y = np.minimum(rng.integers(0, classes + 1, SAMPLES), classes - 1)
    x = rng.standard_normal((SAMPLES, SIDE**2))
    x[np.arange(SAMPLES), y] += 2
    return x, y


def fit_all(communicator):
    """Fit each model, also with weights, to two and three classes; return probabilities."""
    found = {}
    for name, model in MODELS.items():
        for classes in (2, 3):
            if classes == 2 and "cnn" in name:
                continue
            x, y = samples(classes)
            for weights in (None, np.linspace(0, 2, SAMPLES)):
                model.set_params(communicator=communicator).fit(x, y, sample_weight=weights)
                key = name, classes, weights is None
                found[key] = model.predict_proba(x), model.n_iter_, model.loss_curve_
        model.set_params(communicator=None)
    return found | fit_sparse(communicator)


def fit_sparse(communicator):
    """Fit to sparse rows, of which some are 0."""
    found, (x, y) = {}, samples()
    x = sparse.csr_array(np.where(np.abs(x) < 1, 0, x))
    for name in ("lbfgs", "sgd", "sgd, average"):
        model = MODELS[name].set_params(communicator=communicator).fit(x, y)
        found[f"{name}, sparse"] = model.predict_proba(x), model.n_iter_, model.loss_curve_
        model.set_params(communicator=None)
    return found


@pytest.fixture(scope="module")
def alone():
    return fit_all(None)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_fit_what_one_does(ranks, alone):
    first, *others = on_ranks(ranks, fit_all)
    for key, (probabilities, iterations, losses) in alone.items():
        tolerance = (
            1e-6 if "lbfgs" in str(key) else 1e-10
        )  # it ends at an estimate, not at the point
        np.testing.assert_allclose(first[key][0], probabilities, atol=tolerance, err_msg=str(key))
        if "lbfgs" not in str(key):
            assert first[key][1] == iterations
            np.testing.assert_allclose(first[key][2], losses, rtol=1e-10, err_msg=str(key))
        for other in others:
            assert (other[key][0] == first[key][0]).all()
            assert other[key][1:] == first[key][1:]


def stored(communicator, path):
    """Fit on a file mapped into memory, and on a dask array; without a seed."""
    import dask.array

    x, y = np.load(path, mmap_mode="r"), samples()[1]
    models = [LogisticRegression(), LogisticRegression(**SGD), CNNClassifier(NETWORK, **CNN)]
    return [
        model.set_params(communicator=communicator).fit(data, y).predict_proba(np.asarray(x))
        for model in models
        for data in (x, dask.array.from_array(np.asarray(x), chunks=(40, -1)))
    ]


def test_stored_samples_without_a_seed(tmp_path):
    pytest.importorskip("dask.array")
    np.save(tmp_path / "x.npy", samples()[0])
    first, second = on_ranks(2, stored, tmp_path / "x.npy")
    for a, b in zip(first, second, strict=True):
        assert (a == b).all()
    (alone, *_) = stored(None, tmp_path / "x.npy")
    np.testing.assert_allclose(first[0], alone, atol=1e-6)
    np.testing.assert_allclose(first[1], alone, atol=1e-6)


def refused(communicator, changed):
    x, y = samples()
    options = changed if communicator.rank == 1 else {}
    try:
        LogisticRegression(communicator=communicator, **options).fit(x, y)
    except ValueError as error:
        return str(error)
    return "accepted"


def test_a_rank_with_other_settings_is_refused():
    changes = {
        "penalty": {"C": 2.0},
        "tol": {"tol": 1e-3},
        "fit_intercept": {"fit_intercept": False},
    }
    calls = [(refused, changed) for changed in changes.values()]
    for errors in on_ranks(2, one_after_the_other, calls):
        for name, error in zip(changes, errors, strict=True):
            assert error.startswith("rank 1 differs from rank 0: "), name
            assert name in error


def pickled(communicator):
    x, y = samples()
    model = LogisticRegression(communicator=communicator).fit(x, y)
    return pickle.dumps(model), model.predict_proba(x)


def test_a_pickle_has_no_ranks():
    for text, expected in on_ranks(2, pickled):
        model = pickle.loads(text)
        assert model.communicator is None
        assert (model.predict_proba(samples()[0]) == expected).all()


# --- dask ----------------------------------------------------------------------------------------

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def lazy(x, rows=25):
    return pytest.importorskip("dask.array").from_array(x, chunks=(rows, *[3] * (x.ndim - 1)))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("words", [False, True])
def test_predictions_are_lazy(method, classes, words):
    x, y = samples(classes)
    model = LogisticRegression().fit(x, np.array(["a", "b", "c"])[y] if words else y)
    expected = getattr(model, method)(x)

    def fails(block):
        if block.size:
            raise AssertionError("a block was computed")
        return block

    unread = lazy(x).map_blocks(fails, dtype=x.dtype)
    made = getattr(model, method)(unread)
    assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    assert made.chunks[0] == unread.chunks[0]
    with pytest.raises(AssertionError, match="a block was computed"):
        made.compute()
    found = getattr(model, method)(lazy(x)).compute()
    if words and method == "predict":
        assert (found == expected).all()
    else:
        assert_close(found, expected, "float64", SIDE**2)


def test_blocks_of_unknown_length():
    x, y = samples()
    model = LogisticRegression().fit(x, y)
    rows = lazy(x)[lazy(y[:, None])[:, 0] == 1]
    rows = rows[rows[:, 0] < 1e9]
    assert_close(model.predict_proba(rows).compute(), model.predict_proba(x[y == 1]), "float64", 9)
    nothing = lazy(x)[lazy(x)[:, 0] > 1e9]
    assert model.predict_proba(nothing).compute().shape == (0, 3)


def test_wrong_samples_are_refused_at_once():
    x, y = samples()
    model = LogisticRegression().fit(x, y)
    with pytest.raises(ValueError, match="15 features"):
        model.predict_proba(lazy(x[:, 1:]))
    x[40, 3] = np.nan
    found = model.predict_proba(lazy(x))
    with pytest.raises(ValueError, match="NaN"):
        found.compute()


def test_a_cluster_of_two_processes():
    distributed = pytest.importorskip("distributed")
    x, y = samples()
    model = MODELS["cnn"].fit(x, y)
    images = x.reshape(-1, SIDE, SIDE)
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        found = model.predict_proba(lazy(images, rows=10)).compute()
        workers = client.run(lambda: (os.getpid(), "agnostic_xent" in sys.modules))
    assert len({pid for pid, _ in workers.values()} - {os.getpid()}) == 2
    assert all(used for _, used in workers.values())
    assert_close(found, model.predict_proba(x), "float64", 64)
