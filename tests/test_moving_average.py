"""Averages of weights along a run: their formula, what is evaluated, kept and returned."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from training_case import CNN, SOFTMAX, Recorder, each_home, images, same, start, train

import agnostic_xent as ax
from agnostic_xent import (
    SGD,
    AdamW,
    Callback,
    ClipByNorm,
    KeepBest,
    MovingAverage,
    cross_entropy,
    evaluate,
    load_checkpoint,
    load_params,
    to_numpy,
)

RNG = np.random.default_rng(6)
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (), "none": (0, 3)}
PARAMS = {k: RNG.standard_normal(s) for k, s in SHAPES.items()}
GRADS = [{k: RNG.standard_normal(s) for k, s in SHAPES.items()} for _ in range(5)]


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_formula(row, decay):
    for dtype in row.dtypes:
        params = {k: row.array(x, dtype) for k, x in PARAMS.items()}
        averaged, sgd = MovingAverage(SGD(0.1, momentum=0.9), decay), SGD(0.1, momentum=0.9)
        state, plain = averaged.init(params), sgd.init(params)
        after, mean = params, {k: x.astype("float64") for k, x in PARAMS.items()}
        for t, grads in enumerate(GRADS, 1):
            grads = {k: row.array(g, dtype) for k, g in grads.items()}
            params, state = averaged.update(params, grads, state)
            after, plain = sgd.update(after, grads, plain)
            d = min(decay, (1 + t) / (10 + t))
            mean = {k: d * m + (1 - d) * to_numpy(after[k]) for k, m in mean.items()}
        assert state["step"] == len(GRADS)
        for name, w in averaged.averages(params, state).items():
            row.check(w, dtype)
            assert_close(w, mean[name], dtype, 16)
            assert_close(params[name], to_numpy(after[name]), dtype, 0)


def test_half_precision_is_averaged_in_float32():
    w, averaged = {"w": np.ones(3, "f2")}, MovingAverage(SGD(2**-10), 0.9999)
    state = averaged.init(w)
    for _ in range(50):
        w, state = averaged.update(w, {"w": np.ones(3, "f2")}, state)
    assert state["mean"]["w"].dtype == "float32"
    assert averaged.averages(w, state)["w"].dtype == "float16"


@each_home
def test_what_is_evaluated_is_what_is_returned(home, tmp_path):
    data = tuple(home.array(a) for a in images())
    own = {k: home.array(v) for k, v in start(SOFTMAX).items()}
    seen = []

    class Noting(Callback):
        def on_epoch(self, epoch, params):
            seen.append(params)

    options = {"params": own, "epochs": 3, "validation": data}
    options |= {"callbacks": [Noting(), KeepBest(tmp_path / "best", "validation_loss")]}
    found, history = train(data, optimizer=MovingAverage(SGD(0.3), 0.5), **options)
    plain, _ = train(data, params=own, epochs=3, optimizer=SGD(0.3))
    same(found, seen[2])
    loss, accuracy = evaluate(SOFTMAX, found, data, loss=cross_entropy, batch_size=8)
    assert (history[-1].validation_loss, history[-1].validation_accuracy) == (loss, accuracy)
    best = min(range(3), key=lambda i: history[i].validation_loss)
    for name, w in load_params(tmp_path / "best").items():
        np.testing.assert_array_equal(w, to_numpy(seen[best][name]))
        assert (to_numpy(found[name]) != to_numpy(plain[name])).any(), name


OPTIMIZERS = {
    "sgd": MovingAverage(SGD(0.1, momentum=0.9), 0.8),
    "adamw": MovingAverage(AdamW(), 0.5),
    "clipped": MovingAverage(ClipByNorm(SGD(0.1), norm=0.3), 0.9),
    "clipped outside": ClipByNorm(MovingAverage(SGD(0.1), 0.9), norm=0.3),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interrupted_run_ends_as_one_that_was_not(optimizer, tmp_path):
    options = {"model": CNN, "optimizer": OPTIMIZERS[optimizer], "validation": images(9)}
    expected, history = train(epochs=4, **options)
    for fail in (2, 9):
        with pytest.raises(RuntimeError, match="out of coffee"):
            train(epochs=4, callbacks=[Recorder(fail=fail)], checkpoint=tmp_path, **options)
    found, again = train(epochs=4, checkpoint=tmp_path, **options)
    same(found, expected)
    assert again.column("validation_loss") == history.column("validation_loss")
    same(load_checkpoint(tmp_path)[0], found)


def test_layers_that_are_frozen_stay_to_the_bit():
    found, _ = train(model=CNN, optimizer=MovingAverage(SGD(0.1)), trainable=["6"])
    for name, w in start(CNN).items():
        assert (found[name] == w).all() == (name[0] != "6")


def test_estimators_predict_with_the_averages():
    pytest.importorskip("sklearn")
    x, y = images()
    averaged = ax.CNNClassifier(
        CNN, optimizer=MovingAverage(SGD(0.1), 0.9), epochs=2, random_state=0, batch_size=8
    ).fit(x, y)
    plain = ax.CNNClassifier(CNN, optimizer=SGD(0.1), epochs=2, random_state=0, batch_size=8)
    plain.fit(x, y)
    assert any((averaged.params_[k] != plain.params_[k]).any() for k in plain.params_)
    averaged.set_params(optimizer__optimizer__learning_rate=0.2)
    assert averaged.optimizer == MovingAverage(SGD(0.2), 0.9)


def test_training_in_parts_goes_on_from_the_weights_not_from_their_averages():
    pytest.importorskip("sklearn")
    x, y = images()
    made = [
        ax.CNNClassifier(SOFTMAX, optimizer=optimizer, random_state=0, batch_size=8)
        for optimizer in (SGD(0.1), MovingAverage(SGD(0.1), 0.9))
    ]
    for _ in range(3):
        for classifier in made:
            classifier.partial_fit(x, y, classes=[0, 1, 2])
    plain, averaged = made
    same(averaged._state["last"], plain.params_)


def test_arguments():
    for decay in (1.0, -0.1, "1"):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
            MovingAverage(SGD(0.1), decay)
    with pytest.raises(TypeError, match=r"optimizer must be one such as SGD\(0.1\)"):
        MovingAverage(SGD)
