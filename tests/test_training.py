"""The training loop: the textbook's update, one curve on every library, what is reported."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from conftest import ROWS, VERSIONS, assert_close
from training_case import (
    CLASSES,
    CNN,
    SEED,
    SOFTMAX,
    Recorder,
    each_home,
    images,
    start,
    train,
)

from agnostic_xent import (
    SGD,
    AdamW,
    Dense,
    History,
    Sequential,
    binary_cross_entropy_with_logits,
    cross_entropy,
    evaluate,
    fit,
    logistic,
    predict,
    step_decay,
)
from agnostic_xent.training.loop import Callback, Epoch

# --- what it computes --------------------------------------------------------------------------


def test_one_sample_steps_are_the_textbooks_update():
    """w <- w - eta (p - y) x, sample by sample in the order of rng.permutation."""
    rng, eta = np.random.default_rng(SEED), 0.3
    x = rng.standard_normal((100, 4))
    y = (x @ [1.0, -2.0, 0.5, 0.0] > 0).astype("float64")
    weight = rng.standard_normal((1, 4))
    bias = np.zeros(1)
    w, b = weight[0].copy(), 0.0
    losses = []
    for i in np.random.default_rng(8).permutation(100):
        p = 1 / (1 + math.exp(-(w @ x[i] + b)))
        losses.append(-math.log(p if y[i] else 1 - p))
        w, b = w - eta * (p - y[i]) * x[i], b - eta * (p - y[i])
    trained, history = fit(
        logistic(),
        {"0.weight": weight, "0.bias": bias},
        (x, y[:, None]),
        loss=binary_cross_entropy_with_logits,
        optimizer=SGD(eta),
        epochs=1,
        batch_size=1,
        rng=8,
    )
    assert_close(trained["0.weight"][0], w, "float64", 100)
    assert_close(trained["0.bias"], [b], "float64", 100)
    assert_close(history.column("loss"), [np.mean(losses)], "float64", 100)
    assert np.abs(w - weight[0]).max() > eta  # it has gone somewhere


@each_home
def test_every_library_follows_the_same_curve(home):
    optimizer = SGD(0.05, momentum=0.9, nesterov=True)
    for dtype in home.dtypes:
        x, y = images(dtype=dtype)
        options = {"model": CNN, "optimizer": optimizer, "epochs": 10}
        params, expected = train((x, y), params=start(CNN, dtype), **options)
        own = {k: home.array(v) for k, v in start(CNN, dtype).items()}
        trained, history = train((home.array(x), home.array(y)), params=own, **options)
        assert len(history) == 10  # of 5 steps
        # terms: the rounding of 50 steps, 2e-5 in float32 and 5e-14 in float64
        assert_close(np.log(history.column("loss")), np.log(expected.column("loss")), dtype, 50)
        assert history.column("accuracy") == expected.column("accuracy")
        assert expected[-1].loss < expected[0].loss / 2
        assert trained.keys() == own.keys()
        for name, w in trained.items():
            home.check(w, dtype)
            assert_close(w, params[name], dtype, 100)


def test_history_means_are_over_samples():
    """Recompute an epoch's loss and accuracy with the weights as they moved; 40 = 2 * 16 + 8."""
    x, y = images()
    seen = []

    class Watch(SGD):
        def update(self, params, grads, state):
            seen.append(params)
            return super().update(params, grads, state)

    _, (epoch,) = train((x, y), optimizer=Watch(0.1), epochs=1, batch_size=16)
    order = np.random.default_rng(SEED).permutation(40)
    total = correct = 0.0
    for params, rows in zip(seen, (order[:16], order[16:32], order[32:]), strict=True):
        z = x[rows].reshape(len(rows), -1) @ params["1.weight"].T + params["1.bias"]
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        total -= log_p[np.arange(len(rows)), y[rows]].sum()
        correct += (z.argmax(axis=1) == y[rows]).sum()
    assert_close([epoch.loss, epoch.accuracy], [total / 40, correct / 40], "float32", 20)
    assert 0 < epoch.accuracy < 1
    assert epoch.seconds > 0
    assert_close(epoch.images_per_second * epoch.seconds, 40, "float64")


def test_soft_targets_and_an_option_of_the_loss():
    x, y = images()
    hard, _ = train((x, y))
    soft, history = train((x, np.eye(CLASSES, dtype="float32")[y]))
    last, _ = train((x, y), loss=functools.partial(cross_entropy, axis=1))
    for name in hard:
        assert_close(soft[name], hard[name], "float32", 20)
        np.testing.assert_array_equal(last[name], hard[name])
    assert history[-1].accuracy == train((x, y))[1][-1].accuracy


def test_the_learning_rate_follows_the_steps():
    _, history = train(optimizer=SGD(step_decay(1.0, every=5, factor=0.5)), epochs=3)
    assert history.column("learning_rate") == [1.0, 0.5, 0.25]  # 5 steps an epoch


def test_running_statistics_are_updated_and_used():
    x, y = images()
    before = start(CNN)
    trained, history = train((x, y), model=CNN, validation=(x, y))
    for name in ("1.running_mean", "1.running_var"):
        assert (trained[name] != before[name]).all()
    scores = evaluate(CNN, trained, (x, y), loss=cross_entropy)
    assert_close(history[-1].validation_loss, scores[0], "float32", 8)
    assert history[-1].validation_accuracy == scores[1]


def test_arguments_are_not_written_to():
    x, y = images()
    params = start(CNN)
    for array in (x, y, *params.values()):
        array.flags.writeable = False
    names = list(params)
    trained, _ = train((x, y), model=CNN, params=params, validation=(x, y))
    assert list(params) == names
    np.testing.assert_equal(params, start(CNN))
    assert all((trained[name] != params[name]).any() for name in names)


def test_rng():
    x, y = images()
    one, _ = train((x, y), model=CNN, rng=5)
    same, _ = train((x, y), model=CNN, rng=np.random.default_rng(5))
    other, _ = train((x, y), model=CNN, rng=6)
    fresh, _ = train((x, y), model=CNN, rng=None)
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != other[name]).any()
        assert (one[name] != fresh[name]).any()


# --- evaluate and predict ----------------------------------------------------------------------


@each_home
def test_evaluate_and_predict(home):
    x, y = images(10)
    params = start()
    z = x.reshape(10, -1) @ params["1.weight"].T + params["1.bias"]
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    own = {k: home.array(v) for k, v in params.items()}
    for batch_size in (4, 512):
        size = {"batch_size": batch_size}
        found = predict(SOFTMAX, own, home.array(x), **size)
        home.check(found, "float32")
        assert_close(found, z, "float32", 36)
        data = home.array(x), home.array(y)
        loss, accuracy = evaluate(SOFTMAX, own, data, loss=cross_entropy, **size)
        assert_close(loss, -log_p[np.arange(10), y].mean(), "float32", 36)
        assert_close(accuracy, (z.argmax(axis=1) == y).mean(), "float64")


def test_evaluate_of_one_logit_counts_its_sign():
    params = {"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)}
    x, y = np.array([[0.2], [-1.0], [3.0], [-3.0]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    loss, accuracy = evaluate(logistic(), params, (x, y), loss=binary_cross_entropy_with_logits)
    terms = [math.log1p(math.exp(s * v)) for s, v in ((-1, 0.2), (-1, -1), (1, 3), (1, -3))]
    assert_close(loss, np.mean(terms), "float64")
    assert accuracy == 0.5


# --- history and callbacks ---------------------------------------------------------------------


def test_history():
    x, y = images()
    _, history = train((x, y), epochs=3, validation=(x, y))
    assert isinstance(history, History)
    assert history.column("epoch") == [1, 2, 3]
    assert json.loads(history.to_json()) == [vars(epoch) for epoch in history]
    assert set(map(type, vars(history[0]).values())) == {int, float}
    _, without = train((x, y), epochs=3)
    assert without.column("loss") == history.column("loss")
    assert without.column("validation_loss") == without.column("validation_accuracy") == [None] * 3


def test_callbacks_are_called_in_order():
    log = []
    x, y = images(20)
    train((x, y), callbacks=[Recorder("a", log), Recorder("b", log)], epochs=2)
    both = [("start", 2, 20), ("step", 8), ("step", 8), ("step", 4), ("epoch", 1)]
    both += [("step", 8), ("step", 8), ("step", 4), ("epoch", 2), ("end",)]
    assert log == [(name, *entry) for entry in both for name in "ab"]


def test_a_callback_sees_the_parameters_and_ends_the_training():
    seen = []

    class Keep(Callback):
        def on_epoch(self, epoch, params):
            seen.append(params)

    log = []
    callbacks = [Recorder("a", log, stop=2), Keep(), Recorder("b", log)]
    trained, history = train(epochs=9, callbacks=callbacks)
    assert history.column("epoch") == [1, 2]
    assert log[-3:] == [("b", "epoch", 2), ("a", "end"), ("b", "end")]
    two, _ = train(epochs=2)
    np.testing.assert_equal(seen[-1], trained)
    np.testing.assert_equal(two, trained)


def test_on_end_is_called_when_an_exception_flies():
    log = []
    with pytest.raises(RuntimeError, match="out of coffee"):
        train(callbacks=[Recorder("a", log, fail=3), Recorder("b", log)])
    assert log[-3:] == [("a", "step", 8), ("a", "end"), ("b", "end")]


def test_json_has_no_number_that_is_not_finite():
    history = History([Epoch(1, math.nan, 0.5, 0.1, 1.0, math.inf)])
    (epoch,) = json.loads(history.to_json(), parse_constant=pytest.fail)
    assert epoch["loss"] is epoch["images_per_second"] is epoch["validation_loss"] is None
    assert epoch["accuracy"] == 0.5


# --- reads from the device ---------------------------------------------------------------------

READS = ("__float__", "__bool__", "__int__", "__index__", "__complex__", "__array__", "__buffer__")
READS += ("item", "tolist", "numpy", "cpu", "get")


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), AdamW()], ids=["sgd", "adamw"])
@pytest.mark.parametrize(
    "library", ["torch", "array_api_strict", pytest.param("cupy", marks=pytest.mark.gpu)]
)
def test_no_read_from_the_device_within_an_epoch(library, optimizer, monkeypatch):
    """How often an array's value is read does not depend on the number of steps."""
    row = next(row for row in ROWS if row.library == library)
    if not VERSIONS[row.name]:
        pytest.skip("not available here")
    x, y = images()
    data = row.array(x), row.array(y)
    params = {k: row.array(v) for k, v in start(CNN).items()}
    reads = []

    def counted(name, method):
        def read(self, *args, **kwargs):
            reads.append(name)
            return method(self, *args, **kwargs)

        return read

    kind = type(data[0])
    for name in READS:
        if hasattr(kind, name):
            monkeypatch.setattr(kind, name, counted(name, getattr(kind, name)))

    def count(batch_size, epochs):
        reads.clear()
        train(
            data,
            model=CNN,
            params=params,
            optimizer=optimizer,
            batch_size=batch_size,
            epochs=epochs,
        )
        return reads.count("__float__"), len(reads)

    one_step, eight_steps, again = count(40, 1), count(5, 1), count(40, 3)
    assert one_step == eight_steps
    assert (one_step[0], again[0]) == (2, 6)  # loss and accuracy of each epoch


def test_ignored_labels_count_in_no_mean():
    """In batches of 2, 1 and 0 labels that count; of none of them the loss is NaN."""
    model = Sequential(Dense(2, bias=False))
    params = {"0.weight": np.array([[-1.0], [1.0]])}
    x = np.array([[1.0], [-2.0], [-1.0], [1.0], [1.0], [1.0]])
    y = np.array([1, 1, 255, 1, 255, 255])
    loss = functools.partial(cross_entropy, ignore_index=255)
    terms = [math.log1p(math.exp(-2 * s)) for s in (1, -2, 1)]
    for batch_size in (2, 6):
        scores = evaluate(model, params, (x, y), loss=loss, batch_size=batch_size)
        assert_close(scores, [np.mean(terms), 2 / 3], "float64")
    _, history = fit(
        model, params, (x, y), loss=loss, optimizer=SGD(0.0), epochs=1, batch_size=2, rng=SEED
    )
    assert_close([history[0].loss, history[0].accuracy], scores, "float64")
    nothing = evaluate(model, params, (x[:2], y[-2:]), loss=loss)
    assert np.isnan(nothing).all()


@each_home
def test_ignored_labels_on_every_library(home):
    x, y = images()
    y[::3] = 255
    loss = functools.partial(cross_entropy, ignore_index=255)
    expected = evaluate(SOFTMAX, start(), (x[y != 255], y[y != 255]), loss=cross_entropy)
    own = {k: home.array(v) for k, v in start().items()}
    found = evaluate(SOFTMAX, own, (home.array(x), home.array(y)), loss=loss, batch_size=7)
    assert_close(found, expected, "float32", 40)
