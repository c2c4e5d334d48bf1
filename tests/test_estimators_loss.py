"""The loss that a classifier of images is told to train on, and the prior of its classes."""

from __future__ import annotations

import functools
import itertools
import pickle
import re

import numpy as np
import pytest
from conftest import assert_close
from training_case import each_home

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score

from agnostic_xent import (
    SGD,
    CNNClassifier,
    Dense,
    Flatten,
    Sequential,
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    generalized_cross_entropy,
    jensen_shannon_divergence,
    load_classifier,
    save_classifier,
    to_numpy,
)

SMOOTH = functools.partial(cross_entropy, label_smoothing=0.2)
LINEAR = Sequential(Flatten(), Dense(3))
RATE, STEPS = 0.5, 3


def images(samples=30, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    y = rng.choice(3, samples, p=[0.6, 0.3, 0.1])
    return noise * rng.standard_normal((samples, 1, 2, 2)) + y[:, None, None, None], y


def classifier(**options):
    options = {"model": LINEAR, "optimizer": SGD(RATE), "epochs": STEPS} | options
    return CNNClassifier(batch_size=64, random_state=0, **options)


# --- values --------------------------------------------------------------------------------------


def entropies(p, t):
    return -(t * np.log(p)).sum(axis=1)


TERMS = {
    "default": (None, entropies),
    "smooth": (SMOOTH, lambda p, t: entropies(p, 0.8 * t + 0.2 / 3)),
    "focal": (
        functools.partial(focal_loss, gamma=1.5),
        lambda p, t: -(t * (1 - p) ** 1.5 * np.log(p)).sum(axis=1),
    ),
    "generalized": (
        functools.partial(generalized_cross_entropy, q=0.6, label_smoothing=0.3),
        lambda p, t: ((0.7 * t + 0.1) * (1 - p**0.6) / 0.6).sum(axis=1),
    ),
    "divergence": (
        functools.partial(jensen_shannon_divergence, mixing=0.4),
        lambda p, t: (
            0.4 * (t * np.log(np.where(t > 0, t, 1) / (0.4 * t + 0.6 * p))).sum(axis=1)
            + 0.6 * (p * np.log(p / (0.4 * t + 0.6 * p))).sum(axis=1)
        ),
    ),
}
"""A loss, and its terms as a function of probabilities and targets."""
PRIORS = {"none": None, "empirical": "empirical", "given": [5.0, 1.0, 2.0]}
WEIGHTS = {"none": {}, "samples": {"sample_weight": True}, "classes": {"class_weight": {2: 4.0}}}


def descended(classifier, x, t, a, terms, log_prior):
    """Return the parameters after steps along central differences of the mean loss."""
    start = LINEAR.init(classifier._rng(), (1, 2, 2))[0]
    w = np.concatenate([start["1.weight"], start["1.bias"][:, None]], axis=1).astype(float)
    rows = np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1)

    def loss(w):
        e = np.exp(rows @ w.T + log_prior)
        return a @ terms(e / e.sum(axis=1, keepdims=True), t) / a.sum()

    for _ in range(STEPS):
        steps = 1e-5 * np.eye(w.size).reshape(w.size, *w.shape)
        slopes = [(loss(w + step) - loss(w - step)) / 2e-5 for step in steps]
        w = w - RATE * np.reshape(slopes, w.shape)
    return {"1.weight": w[:, :-1], "1.bias": w[:, -1]}


CASES = [
    (name, prior, weights)
    for name, prior, weights in itertools.product(TERMS, PRIORS, WEIGHTS)
    if (name in ("default", "smooth") or prior == "none")
    and (name != "divergence" or weights == "none")
]
"""The others are refused."""


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft labels"])
@pytest.mark.parametrize(("name", "prior", "weights"), CASES)
def test_what_is_minimised(name, prior, weights, soft):
    loss, terms = TERMS[name]
    (x, y), options = images(), WEIGHTS[weights]
    t = np.random.default_rng(1).dirichlet([0.5] * 3, len(y)) if soft else np.eye(3)[y]
    a = np.linspace(0, 2, len(y)) if "sample_weight" in options else np.ones(len(y))
    of_class = np.array([1, 1, 4.0]) if "class_weight" in options else np.ones(3)
    model = classifier(
        loss=loss, class_prior=PRIORS[prior], class_weight=options.get("class_weight")
    )
    model.fit(x, t if soft else y, sample_weight=a if "sample_weight" in options else None)
    mass = t * of_class
    a, t = a * mass.sum(axis=1), mass / mass.sum(axis=1, keepdims=True)
    shares = {"none": np.ones(3), "empirical": a @ t, "given": PRIORS["given"]}[prior]
    log_prior = np.log(shares / np.sum(shares))
    expected = descended(model, x, t, a, terms, log_prior)
    for key, w in expected.items():
        np.testing.assert_allclose(model.params_[key], w, rtol=1e-5, atol=1e-6)


def test_z_loss_makes_log_sums_small():
    x, y = images(60)
    sums = []
    for loss in (None, functools.partial(cross_entropy, z_loss=1.0)):
        z = classifier(loss=loss, epochs=100).fit(x, y).decision_function(x)
        sums.append(np.abs(np.log(np.exp(z).sum(axis=1))).mean())
    assert sums[1] < sums[0] / 2


@each_home
def test_where_the_images_are(home):
    host, y = images()
    model = classifier(loss=SMOOTH, class_prior=np.array([3, 2, 1]))
    expected = clone(model).fit(host.astype("float32"), y)
    for dtype in home.dtypes:
        found = clone(model).fit(home.array(host, dtype), y)
        for name, w in found.params_.items():
            home.check(w, dtype)
            assert_close(w, expected.params_[name], "float32", 10_000)


def test_a_prior_finds_rare_classes():
    """It makes up for the frequencies, so that fewer of a rare class are missed."""
    (x, y), (test_x, test_y) = images(600, noise=2.0), images(600, seed=1, noise=2.0)
    plain, free = (
        classifier(class_prior=prior, optimizer=SGD(0.05), epochs=200).fit(x, y)
        for prior in (None, "empirical")
    )
    found = [balanced_accuracy_score(test_y, model.predict(test_x)) for model in (plain, free)]
    assert found[1] > found[0] + 0.05


def test_a_class_whose_samples_weigh_nothing_has_no_prior():
    x, y = images()
    a = (y != 2).astype(float)
    model = classifier(class_prior="empirical").fit(x, y, sample_weight=a)
    assert all(np.isfinite(w).all() for w in model.params_.values())
    w = LINEAR.init(model._rng(), (1, 2, 2))[0]["1.weight"]
    np.testing.assert_array_equal(model.params_["1.weight"][2], w[2])


# --- what goes with it ---------------------------------------------------------------------------


def test_it_is_copied_stored_and_kept(tmp_path):
    x, y = images()
    model = classifier(loss=SMOOTH, class_prior=(3.0, 2.0, 1.0)).fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    save_classifier(tmp_path, model)
    kept = load_classifier(tmp_path)
    for other in (clone(model), again, kept):
        assert other.loss.func is cross_entropy
        assert other.loss.keywords == {"label_smoothing": 0.2}
        assert other.class_prior == (3.0, 2.0, 1.0)
    for other in (again, kept):
        np.testing.assert_array_equal(other.predict_proba(x), model.predict_proba(x))


def test_parts_have_a_prior_that_is_given():
    x, y = images()
    model = classifier(class_prior=[3, 2, 1])
    for _ in range(2):
        model.partial_fit(x, y, classes=[0, 1, 2])
    assert model.n_iter_ == 2
    counting = classifier(class_prior="empirical")
    with pytest.raises(ValueError, match="class_prior must be numbers, or None, in partial_fit"):
        counting.partial_fit(x, y, classes=[0, 1, 2])
    assert not hasattr(counting, "n_features_in_")


def test_a_run_goes_on_with_the_same_loss_alone(tmp_path):
    x, y = images()
    options = {"loss": SMOOTH, "class_prior": "empirical"}
    whole = classifier(**options, epochs=4).fit(x, y)
    classifier(**options, checkpoint=tmp_path, epochs=2).fit(x, y)
    with pytest.raises(ValueError, match="loss"):
        classifier(checkpoint=tmp_path, epochs=4).fit(x, y)
    parts = classifier(**options, checkpoint=tmp_path, epochs=4).fit(x, y)
    for name, w in whole.params_.items():
        np.testing.assert_array_equal(to_numpy(parts.params_[name]), w)


ERRORS = {
    "no loss": ({"loss": "log_loss"}, "loss must be one of cross_entropy, focal_loss"),
    "of several labels": ({"loss": binary_cross_entropy_with_logits}, "loss must be one of"),
    "another option": (
        {"loss": functools.partial(cross_entropy, temperature=2.0)},
        "label_smoothing, mixing, q, z_loss and nothing else; got functools.partial",
    ),
    "no such prior": ({"class_prior": "balanced"}, "class_prior must be \"empirical\", 3 numbers"),
    "too few": ({"class_prior": [1, 2]}, "3 numbers > 0, one for each class, or None; got [1, 2]"),
    "none of a class": ({"class_prior": [1, 2, 0]}, "class_prior must be"),
    "no number": ({"class_prior": [1, 2, np.nan]}, "class_prior must be"),
    "a prior of another loss": (
        {"loss": focal_loss, "class_prior": "empirical"},
        "class_prior is for cross_entropy, not for focal_loss",
    ),
    "weights and a divergence": (
        {"loss": jensen_shannon_divergence, "class_weight": "balanced"},
        "sample_weight and class_weight must be None where the loss is not linear",
    ),
    "weights and a z-loss": (
        {"loss": functools.partial(cross_entropy, z_loss=0.1), "class_weight": "balanced"},
        "sample_weight and class_weight must be None where the loss is not linear",
    ),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    options, text = ERRORS[error]
    model = classifier(**options)
    with pytest.raises(ValueError, match=re.escape(text)):
        model.fit(*images())
    assert not hasattr(model, "params_")


@pytest.mark.parametrize("option", [{"loss": focal_loss}, {"class_prior": "empirical"}], ids=str)
def test_several_labels_have_their_own_loss(option):
    x, y = images()
    with pytest.raises(ValueError, match="loss and class_prior are for one label a sample"):
        classifier(**option).fit(x, np.eye(3, dtype=int)[y])
