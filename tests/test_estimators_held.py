"""Samples, labels and parameters of the classifiers as users hold them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import agnostic_xent as ax
from agnostic_xent.core.checks import check_channels_first

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 8, 8)).astype("float32")
Y = np.arange(20) % 2
MODEL = ax.Sequential(ax.Conv2d(2, 3), ax.Flatten(), ax.Dense(2))


def network(**options):
    return ax.CNNClassifier(MODEL, random_state=0, **{"epochs": 1} | options)


class Dataset:
    """What a dataset of h5py or zarr is."""

    shape, dtype, ndim = X.shape, X.dtype, 3

    def __len__(self):
        return len(X)

    def __getitem__(self, key):
        return X[key]

    def __array__(self, dtype=None, copy=None):
        return np.array(X, dtype)


HELD = {
    "list of arrays": list(X),
    "list of lists": X.astype("float64").tolist(),
    "tuple": tuple(X),
    "dataset": Dataset(),
}


@pytest.mark.parametrize("name", HELD)
def test_images_that_are_no_array(name):
    images, x = HELD[name], X.astype("float64") if name == "list of lists" else X
    found, expected = network().fit(images, Y), network().fit(x, Y)
    np.testing.assert_array_equal(found.predict_proba(images), expected.predict_proba(x))
    assert found.partial_fit(images, Y).score(images, Y) == expected.partial_fit(x, Y).score(x, Y)


def test_images_of_several_shapes_are_refused():
    with pytest.raises(ValueError, match="X must hold samples of one shape"):
        network().fit([X[0], X[1][:4]], [0, 1])


@pytest.mark.parametrize("shape", [(9, 28, 28, 3), (9, 8, 8, 1), (9, 480, 640, 4), (9, 5, 7, 3)])
def test_images_with_the_channel_last_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(N, C, H, W\).*channel last.*moveaxis"):
        network().fit(np.zeros(shape, "float32"), np.arange(9) % 2)


@pytest.mark.parametrize(
    "shape", [(9, 3, 28, 28), (9, 8, 4, 4), (9, 2, 4, 4), (9, 1, 8, 1), (9, 4)]
)
def test_images_with_the_channel_first_pass(shape):
    check_channels_first("x", shape)


def test_image_shape_says_what_images_are():
    x = RNG.normal(size=(20, 8, 8, 1)).astype("float32")
    model = ax.Sequential(ax.Flatten(), ax.Dense(2))
    classifier = ax.CNNClassifier(model, image_shape=(8, 8, 1), epochs=1)
    assert classifier.fit(x, Y).image_shape_ == (8, 8, 1)
    with pytest.raises(ValueError, match=r"image_shape must be that of the images in X, \(8, 8, 1"):
        classifier.set_params(image_shape=(1, 8, 8)).fit(x, Y)


# --- parameters within parameters ----------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [None, ax.AdamW(), ax.SGD(0.1, 0.9)])
def test_the_learning_rate_is_searched(optimizer):
    rates = [1e-3, 1e-2]
    grid = {"optimizer__learning_rate": rates}
    search = GridSearchCV(network(optimizer=optimizer), grid, cv=2).fit(X, Y)
    assert search.best_params_["optimizer__learning_rate"] in rates
    found = search.best_estimator_.optimizer
    assert type(found) is (type(optimizer) if optimizer else ax.AdamW)
    assert found.learning_rate == search.best_params_["optimizer__learning_rate"]
    assert getattr(found, "momentum", 0.9) == 0.9


def test_parameters_are_set_within_schedules():
    given = ax.SGD(ax.warmup(ax.cosine(0.1, steps=9), steps=3))
    classifier = network(optimizer=given)
    names = classifier.get_params()
    assert names["optimizer__learning_rate__schedule__steps"] == 9
    classifier.set_params(
        optimizer__learning_rate__schedule__steps=7, optimizer__momentum=0.5, epochs=3
    )
    schedule = ax.warmup(ax.cosine(0.1, steps=7), steps=3)
    assert classifier.optimizer == ax.SGD(schedule, 0.5)
    assert classifier.epochs == 3
    assert given.learning_rate.schedule.steps == 9  # another one took its place
    assert clone(classifier).optimizer == classifier.optimizer
    regression = ax.LogisticRegression(learning_rate=ax.constant(0.1))
    assert regression.set_params(learning_rate__rate=0.2).learning_rate == ax.constant(0.2)
    pipeline = make_pipeline(regression)
    pipeline.set_params(logisticregression__learning_rate__rate=0.3)
    assert regression.learning_rate == ax.constant(0.3)


def test_a_new_optimizer_and_its_parameters_are_set_together():
    classifier = network().set_params(optimizer__momentum=0.5, optimizer=ax.SGD(0.1))
    assert classifier.optimizer == ax.SGD(0.1, 0.5)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"optimizer__rate": 1}, "optimizer__rate is no parameter: AdamW has learning_rate, betas"),
        ({"optimizer__learning_rate__rate": 1}, "optimizer__learning_rate__rate is no parameter"),
        ({"optimizer__learning_rate": -1}, "learning_rate must be a finite number >= 0, got -1"),
        ({"optimiser": ax.AdamW()}, "Invalid parameter 'optimiser'"),
    ],
)
def test_a_parameter_that_cannot_be_set_changes_nothing(params, words):
    classifier = network(optimizer=ax.AdamW())
    before = classifier.get_params()
    with pytest.raises(ValueError, match=words):
        classifier.set_params(epochs=7, **params)
    if "optimiser" not in params:
        assert classifier.get_params() == before


# --- samples and labels --------------------------------------------------------------------------

FLAT = X.reshape(20, 64)
REFUSED = {
    "masked X": (np.ma.MaskedArray(FLAT, FLAT > 1), Y, "masked arrays are not taken"),
    "masked images": (np.ma.MaskedArray(X, X > 1), Y, "masked arrays are not taken"),
    "masked y": (FLAT, np.ma.MaskedArray(Y, Y > 0), "masked arrays are not taken"),
    "dates": (np.zeros((20, 4), "M8[s]"), Y, "got dates or times"),
    "times": (np.zeros((20, 4), "m8[s]"), Y, "got dates or times"),
    "NaN in y": (FLAT, np.where(Y > 0, np.nan, 0.0), "Input y contains NaN"),
    "huge": (FLAT.astype("float64") * 1e300, Y, "squares of the numbers in X are too large"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_means_something_else_is_refused(name, solver):
    x, y, words = REFUSED[name]
    classifier = network() if x.ndim == 3 else ax.LogisticRegression(solver=solver)
    with pytest.raises((TypeError, ValueError), match=words):
        classifier.fit(x, y)


def test_masked_weights_and_right_labels_are_refused():
    classifier = ax.LogisticRegression().fit(FLAT, Y)
    for call in (
        lambda: classifier.fit(FLAT, Y, sample_weight=np.ma.MaskedArray(Y + 1.0, Y > 0)),
        lambda: classifier.score(FLAT, np.ma.MaskedArray(Y, Y > 0)),
        lambda: classifier.predict(np.ma.MaskedArray(FLAT, FLAT > 1)),
    ):
        with pytest.raises(TypeError, match="masked arrays are not taken"):
            call()


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "boolean", "string", "category", "object"])
def test_columns_of_pandas_as_labels(dtype):
    pandas = pytest.importorskip("pandas")
    text = dtype in ("string", "category", "object")
    values = np.asarray(["a", "b"])[Y] if text else Y
    y = pandas.Series(values.astype(bool) if dtype == "boolean" else values, dtype=dtype)
    classifier = ax.LogisticRegression().fit(pandas.DataFrame(FLAT), y)
    expected = {"Int64": "int64", "UInt8": "uint8", "boolean": "bool"}.get(dtype, "object")
    assert classifier.predict(pandas.DataFrame(FLAT)).dtype == expected
    assert classifier.score(pandas.DataFrame(FLAT), y) == 1
    if dtype == "Int64":
        with pytest.raises(ValueError, match="Input y contains NaN"):
            classifier.fit(FLAT, y.mask(y == 1))


def test_a_table_with_a_column_of_dates_is_refused():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"when": pandas.to_datetime(["2020-01-01"] * 20), "what": FLAT[:, 0]})
    with pytest.raises(TypeError, match="got dates or times"):
        ax.LogisticRegression().fit(table, Y)
