"""The classifier of images: shapes, libraries, weights, continuing, stopping, errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import assert_close
from training_case import Recorder, each_home

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from agnostic_xent import (
    SGD,
    AdamW,
    BatchNorm2d,
    CNNClassifier,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    ReLU,
    Sequential,
    cosine,
    to_backend,
    to_numpy,
)

WORDS = np.array(["bar", "none", "tree"])
SMALL = Sequential(Conv2d(4, 3, padding=1), ReLU(), MaxPool2d(2), Dropout(0.1), Flatten(), Dense(3))
NORMED = Sequential(Conv2d(4, 3, padding=1, bias=False), BatchNorm2d(), ReLU(), Flatten(), Dense(3))


def images(samples=48, dtype="float32"):
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, samples)
    x = rng.standard_normal((samples, 1, 6, 6)) / 2
    x[np.arange(samples), 0, 2 * y] += 1
    return x.astype(dtype), y


def small(**options):
    """Return a quick classifier; one batch an epoch holds all samples."""
    options = {"model": SMALL, "epochs": 4, "random_state": 0, "batch_size": 64} | options
    return CNNClassifier(**options)


def test_learns_digits():
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    model = CNNClassifier(
        optimizer=AdamW(cosine(3e-3, steps=300)),
        batch_size=64,
        random_state=0,
    )
    assert model.fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.97


@each_home
@pytest.mark.parametrize("classes", [2, 3])
def test_everything_is_where_the_images_are(home, classes):
    model = small(model=Sequential(*NORMED.layers[:-1], Dense(classes)))
    for dtype in home.dtypes:
        host, y = images(dtype=dtype)
        y = y % classes
        x, a = home.array(host, dtype), np.linspace(0, 2, len(y))
        own, expected = clone(model), clone(model).fit(host, y, sample_weight=a)
        own.fit(x, home.array(y), sample_weight=a)
        for name, w in own.params_.items():
            home.check(w, dtype)
            assert_close(w, expected.params_[name], dtype, 10_000)
        for name in ("decision_function", "predict_proba", "predict_log_proba"):
            result = getattr(own, name)(x)
            home.check(result, dtype)
            assert_close(result, getattr(expected, name)(host), dtype, 10_000)
        assert to_numpy(own.predict(x)).tolist() == expected.predict(host).tolist()
        assert own.score(x, y) == expected.score(host, y)


@each_home
def test_moves_to_another_library(home):
    host, y = images()
    model = small().partial_fit(host, y, classes=[0, 1, 2])
    moved = to_backend(model, home.xp, home.place())
    x = home.array(host)
    assert_close(moved.predict_proba(x), model.predict_proba(host), "float32", 100)
    moved.partial_fit(x, y)
    model.partial_fit(host, y)
    assert_close(moved.params_["5.weight"], model.params_["5.weight"], "float32", 10_000)
    if home.library != "numpy":
        with pytest.raises(ValueError, match=r"predict_proba\(\) .* agnostic_xent\.to_backend"):
            model.predict_proba(x)


def test_images_in_every_shape():
    x, y = images()
    model = small().fit(x, y)
    assert model.image_shape_ == (1, 6, 6)
    assert model.n_features_in_ == 36
    for shaped in (x[:, 0], x.reshape(-1, 36), x.reshape(-1, 36).tolist()):
        again = small().fit(shaped, y)
        np.testing.assert_array_equal(again.predict_proba(shaped), model.predict_proba(x))
        np.testing.assert_array_equal(model.predict_proba(shaped), model.predict_proba(x))
    wide = CNNClassifier(epochs=1, image_shape=(4, 9)).fit(x.reshape(-1, 36), y)
    assert wide.image_shape_ == (1, 4, 9)
    deep = CNNClassifier(epochs=1, image_shape=(4, 3, 3)).fit(x.reshape(-1, 36), y)
    assert deep.image_shape_ == (4, 3, 3)
    row = CNNClassifier(epochs=1).fit(x.reshape(-1, 36)[:, :35], y)
    assert row.image_shape_ == (1, 1, 35)


def test_labels_of_any_type_and_one_score_for_two():
    x, y = images()
    model = small().fit(x, WORDS[y])
    assert set(model.predict(x)) <= set(WORDS)
    assert model.decision_function(x).shape == (48, 3)
    two = small(model=Sequential(Flatten(), Dense(2))).fit(x, y > 0)
    scores = two.decision_function(x)
    assert scores.shape == (48,)
    np.testing.assert_array_equal(two.predict(x), scores > 0)
    assert_close(two.predict_proba(x)[:, 1], 1 / (1 + np.exp(-scores)), "float32")


def test_class_weights_are_factors_of_the_samples_weights():
    x, y = images(dtype="float64")
    a, factors = np.linspace(0, 2, len(y)), np.array([0.5, 2.0, 3.0])
    expected = small().fit(x, y, sample_weight=a * factors[y]).predict_proba(x)
    weighted = small(class_weight=dict(enumerate(factors))).fit(x, y, sample_weight=a)
    assert_close(weighted.predict_proba(x), expected, "float64", 1000)
    equal = small().fit(x, y, sample_weight=2.0).predict_proba(x)
    assert_close(equal, small().fit(x, y).predict_proba(x), "float64", 1000)


def test_parts_go_on_where_the_last_one_ended():
    """In one batch an epoch, so that parts and epochs are the same steps."""
    x, y = images(dtype="float64")
    for optimizer in (SGD(cosine(0.1, steps=5), momentum=0.9), AdamW(0.01)):
        options = {"model": NORMED, "optimizer": optimizer, "epochs": 3}
        whole = small(**options).fit(x, y)
        parts = small(**options)
        for _ in range(3):
            parts.partial_fit(x, y, classes=[0, 1, 2])
        for name, w in whole.params_.items():
            assert_close(parts.params_[name], w, "float64", 10_000)
        assert_close(parts.loss_curve_, whole.loss_curve_, "float64", 10_000)
        assert parts.n_iter_ == 3


def test_early_stopping_keeps_the_best():
    x, y = images(200)
    options = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2}
    model = small(optimizer=AdamW(0.1), epochs=40, batch_size=16, **options).fit(x, y)
    curve = model.validation_loss_curve_
    least = int(np.argmin(curve))
    assert len(curve) == model.n_iter_ == least + 3 < 40
    shorter = clone(model).set_params(epochs=least + 1).fit(x, y)
    for name, w in shorter.params_.items():
        np.testing.assert_array_equal(model.params_[name], w)


def test_warm_start_callbacks_copies_and_pickles():
    x, y = images()
    recorder = Recorder("r")
    model = small(warm_start=True, callbacks=[recorder], optimizer=SGD(0.1)).fit(x, y)
    assert len(recorder.calls("epoch")) == 4
    first = model.loss_curve_[0]
    assert model.fit(x, y).loss_curve_[0] < first
    again = pickle.loads(pickle.dumps(small().partial_fit(x, y, classes=[0, 1, 2])))
    expected = small().partial_fit(x, y, classes=[0, 1, 2])
    np.testing.assert_array_equal(again.predict_proba(x), expected.predict_proba(x))
    assert again.partial_fit(x, y).loss_curve_ == expected.partial_fit(x, y).loss_curve_
    search = GridSearchCV(small(), {"optimizer": [SGD(1e-9), AdamW(0.03)]}, cv=2).fit(x, y)
    assert search.best_params_ == {"optimizer": AdamW(0.03)}


BAD = {
    "outputs": ({"model": Sequential(Flatten(), Dense(5))}, "one logit for each of 3 classes"),
    "shape": ({"image_shape": (5, 5)}, r"image_shape must be .* 36 numbers .* got \(5, 5\)"),
    "flat shape": ({"image_shape": (36,)}, "image_shape must be"),
    "epochs": ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
    "batch_size": ({"batch_size": True}, "batch_size must be an integer >= 1, got True"),
    "diverges": ({"optimizer": SGD(1e30)}, "in epoch .* lower the learning rate"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", BAD)
def test_refuses(case):
    options, message = BAD[case]
    x, y = images()
    model = small(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(x.reshape(-1, 36), y)
    assert not hasattr(model, "params_")


def test_refuses_images_of_another_shape():
    x, y = images()
    model = small().fit(x, y)
    with pytest.raises(ValueError, match=r"images of shape \(1, 6, 6\), as fitted"):
        model.predict(x.reshape(-1, 4, 3, 3))
    with pytest.raises(ValueError, match="X has 35 features, but CNNClassifier is expecting 36"):
        model.predict(x.reshape(-1, 36)[:, :35])
    with pytest.raises(ValueError, match="NaN"):
        model.predict(np.full_like(x, np.nan))
