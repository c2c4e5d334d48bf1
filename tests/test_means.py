"""Means over several batches are sums over divisors, whatever the batches."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax
from agnostic_xent.core.operation import Operation, normalized

RNG = np.random.default_rng(5)
WEIGHT = np.asarray([1.0, 9.0, 0.25])
LABELS = np.sort(RNG.integers(0, 3, 30))  # so that batches differ in their weights
LABELS[-5:] = 1
SOFT = RNG.random((30, 3)) * np.linspace(0, 1, 30)[:, None]
LOSSES = {
    "class weights": (ax.cross_entropy, {"weight": WEIGHT}, LABELS),
    "ignored labels": (ax.cross_entropy, {"ignore_index": 0}, LABELS),
    "both": (ax.cross_entropy, {"weight": WEIGHT, "ignore_index": 0}, LABELS),
    "by count": (ax.cross_entropy, {"weight": WEIGHT, "normalize": "count"}, LABELS),
    "probabilities": (ax.cross_entropy, {"weight": WEIGHT, "normalize": "weight"}, SOFT),
    "probabilities alone": (ax.cross_entropy, {"normalize": "weight"}, SOFT),
    "probabilities of probabilities": (ax.nll_loss, {"normalize": "weight"}, SOFT),
    "binary": (
        ax.binary_cross_entropy_with_logits, {"weight": WEIGHT, "normalize": "weight"}, SOFT,
    ),
    "focal": (ax.focal_loss, {"weight": WEIGHT, "ignore_index": 0}, LABELS),
    "generalized": (ax.generalized_cross_entropy, {"normalize": "weight"}, SOFT),
    "divergence of labels": (ax.jensen_shannon_divergence, {"ignore_index": 0}, LABELS),
    "distillation": (ax.kl_divergence, {"normalize": "weight"}, np.log(SOFT + 0.1)),
    "binary focal": (ax.binary_focal_loss, {"weight": WEIGHT, "normalize": "weight"}, SOFT),
    "prior and z-loss": (ax.cross_entropy, {"class_prior": WEIGHT, "z_loss": 0.1}, LABELS),
    "plain": (ax.cross_entropy, {}, LABELS),
}  # fmt: skip
MODEL = ax.Sequential(ax.Dense(3, bias=False))
PARAMS = {"0.weight": RNG.standard_normal((3, 4))}
X = RNG.standard_normal((30, 4))


@pytest.mark.parametrize("batch_size", [1, 7, 30, 512])
@pytest.mark.parametrize("name", LOSSES)
def test_evaluate_does_not_depend_on_the_batch_size(name, batch_size):
    operation, options, y = LOSSES[name]
    loss = functools.partial(operation, **options)
    expected = float(loss(ax.predict(MODEL, PARAMS, X), y))
    found, _ = ax.evaluate(MODEL, PARAMS, (X, y), loss=loss, batch_size=batch_size)
    assert_close(found, expected, "float64", 64)


@pytest.mark.parametrize("name", LOSSES)
def test_the_history_is_the_mean_over_the_epoch(name):
    operation, options, y = LOSSES[name]
    loss = functools.partial(operation, **options)
    expected = float(loss(ax.predict(MODEL, PARAMS, X), y))
    _, history = ax.fit(
        MODEL, PARAMS, (X, y), loss=loss, optimizer=ax.SGD(0.0), epochs=1, batch_size=7, rng=0,
        validation=(X, y),
    )  # fmt: skip
    assert_close(history[-1].loss, expected, "float64", 64)
    assert_close(history[-1].validation_loss, expected, "float64", 64)


def test_a_batch_without_weight_changes_nothing():
    loss = functools.partial(ax.cross_entropy, weight=np.asarray([0.0, 1.0, 1.0]))
    expected = float(loss(ax.predict(MODEL, PARAMS, X), LABELS))
    assert (LABELS[:5] == 0).all()
    found, _ = ax.evaluate(MODEL, PARAMS, (X, LABELS), loss=loss, batch_size=5)
    assert_close(found, expected, "float64", 64)


@pytest.mark.parametrize(
    ("loss", "right", "wrong"),
    [
        (ax.binary_cross_entropy_with_logits, 3.0, -3.0),
        (ax.binary_cross_entropy, 0.9, 0.1),
        (ax.binary_focal_loss, 3.0, -3.0),
    ],
)
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_several_outputs_are_several_decisions(loss, right, wrong, outputs):
    target = RNG.integers(0, 2, (12, outputs)).astype(float)
    scores = np.where(target == 1, right, wrong)
    model, params = ax.Sequential(ax.Dense(outputs, bias=False)), {"0.weight": np.eye(outputs)}
    assert ax.evaluate(model, params, (scores, target), loss=loss)[1] == 1
    scores[0, 0] = wrong if target[0, 0] == 1 else right
    accuracy = ax.evaluate(model, params, (scores, target), loss=loss, batch_size=5)[1]
    assert accuracy == pytest.approx(1 - 1 / (12 * outputs))


def test_one_output_of_a_loss_of_the_users_own_decides_by_its_sign():
    made = Operation(lambda scores, target: normalized(scores, target))

    @made.definition
    def value(scores, target):
        return np.mean((scores - 2 * target + 1) ** 2)

    @made.pullback
    def vjp(scores, target):
        return value(scores, target), lambda dy: (2 * dy * (scores - 2 * target + 1), None)

    scores, target = np.asarray([[3.0], [-2.0], [1.0], [-1.0]]), np.asarray([[1.0], [0], [0], [1]])
    model, params = ax.Sequential(ax.Dense(1, bias=False)), {"0.weight": np.ones((1, 1))}
    loss, accuracy = ax.evaluate(model, params, (scores, target), loss=made, batch_size=3)
    assert loss == pytest.approx(value(scores, target))
    assert accuracy == 0.5
