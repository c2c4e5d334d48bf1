"""What callbacks do beside a run: stop it, keep its best, log it; the learning-rate finder."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from training_case import CNN, SOFTMAX, each_home, images, start, train

from agnostic_xent import (
    SGD,
    AdamW,
    EarlyStopping,
    JsonLines,
    KeepBest,
    LearningRates,
    TensorBoard,
    cross_entropy,
    find_learning_rate,
    load_params,
)
from agnostic_xent.training.history import Epoch, History


def epochs(*losses, column="loss"):
    """Return epochs of which one quantity is given."""
    plain = {"loss": 0.0, "accuracy": 0.0, "learning_rate": 0.1, "seconds": 1.0}
    return History(
        Epoch(i, **plain | {"images_per_second": 9.0, column: loss})
        for i, loss in enumerate(losses, 1)
    )


def noisy(samples):
    """Return images of which a third are labelled at random: too much training does harm."""
    x, y = images(samples)
    y[::3] = np.random.default_rng(5).integers(0, 3, len(y[::3]))
    return x, y


def play(callback, history):
    """Call a callback as `fit` does; return the last epoch, whether or not it ended the run."""
    callback.on_start(99, None)
    for epoch in history:
        if callback.on_epoch(epoch, {"w": np.full(2, epoch.epoch)}):
            break
    callback.on_end()
    return epoch.epoch


# --- early stopping and the best parameters ------------------------------------------------------

FALLS = (3.0, 2.0, 2.5, math.nan, 1.9, 1.95, 2.0, 2.1, 1.0)


@pytest.mark.parametrize(
    ("options", "last", "best"),
    [
        ({"patience": 1}, 3, 2),
        ({"patience": 2}, 4, 2),
        ({"patience": 3}, 8, 5),
        ({"patience": 4}, 9, 9),
        ({"patience": 3, "min_delta": 0.1}, 5, 2),  # 1.9 is better by 0.1 alone, not by more
        ({"patience": 3, "min_delta": 0.09}, 8, 5),
    ],
)
def test_early_stopping(options, last, best):
    stopping = EarlyStopping(monitor="loss", **options)
    for _ in range(2):  # a second run begins anew
        assert play(stopping, epochs(*FALLS)) == last
        assert stopping.best_epoch == best
    rising = EarlyStopping(monitor="validation_accuracy", **options)
    history = epochs(*(-loss for loss in FALLS), column="validation_accuracy")
    assert play(rising, history) == last


def test_early_stopping_goes_on_where_it_was():
    stopping = EarlyStopping(3, "loss")
    stopping.on_start(99, None)
    stopping.on_resume(epochs(*FALLS[:6]), {})
    assert stopping.best_epoch == 5
    assert not stopping.on_epoch(epochs(*FALLS)[6], {})
    assert stopping.on_epoch(epochs(*FALLS)[7], {})


def test_a_loss_that_never_is_a_number_ends_the_run():
    assert play(EarlyStopping(2, "loss"), epochs(*[math.nan] * 5)) == 2


def test_keep_best(tmp_path):
    best = KeepBest(tmp_path / "best", "loss")
    assert play(best, epochs(*FALLS[:8])) == 8
    assert best.best_epoch == 5
    assert load_params(tmp_path / "best")["w"].tolist() == [5, 5]
    best.on_start(99, None)
    best.on_resume(epochs(*FALLS[:8]), {})
    best.on_epoch(epochs(*FALLS[:7], 1.95)[7], {"w": np.zeros(2)})
    assert load_params(tmp_path / "best")["w"].tolist() == [5, 5]
    (tmp_path / "best").unlink()  # then the best of what comes is kept
    best.on_start(99, None)
    best.on_resume(epochs(*FALLS[:8]), {})
    best.on_epoch(epochs(*FALLS[:7], 1.95)[7], {"w": np.zeros(2)})
    assert load_params(tmp_path / "best")["w"].tolist() == [0, 0]


def test_both_with_fit(tmp_path):
    x, y = noisy(40)
    best = KeepBest(tmp_path / "best")
    stopping = EarlyStopping(2)
    _, history = train(
        (x[:20], y[:20]),
        validation=(x[20:], y[20:]),
        epochs=60,
        optimizer=SGD(1.0),
        callbacks=[best, stopping],
    )
    least = int(np.argmin(history.column("validation_loss"))) + 1
    assert best.best_epoch == stopping.best_epoch == least == len(history) - 2
    shorter, _ = train((x[:20], y[:20]), epochs=least, optimizer=SGD(1.0))
    np.testing.assert_equal(load_params(tmp_path / "best"), shorter)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(0), "patience must be an integer >= 1, got 0"),
        (lambda: EarlyStopping(1.5), "patience must be an integer >= 1, got 1.5"),
        (lambda: EarlyStopping(1, "f1"), "monitor must be one of validation_loss, .*; got 'f1'"),
        (lambda: EarlyStopping(1, min_delta=-1), "min_delta must be a finite number >= 0, got -1"),
        (lambda: KeepBest("best", "f1"), "monitor must be one of"),
        (lambda: train(callbacks=[EarlyStopping(1)]), r"'validation_loss' needs fit\(\.\.\., val"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- logs ----------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("of an earlier run\n")
    history = epochs(*FALLS)
    play(JsonLines(path), history)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [None if math.isnan(x) else x for x in FALLS]
    assert lines[0] == vars(history[0])
    log = JsonLines(path)  # of the run that goes on from the fifth epoch
    log.on_start(99, None)
    log.on_resume(history[:5], {})
    log.on_epoch(history[5], {})
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again == lines[:6]


def test_tensorboard_is_written_by_its_package(tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("tensorboardX")
    written = []
    x, y = images()

    class Writer(tensorboard.SummaryWriter):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            written.append(options)

        def add_scalar(self, tag, value, step):
            super().add_scalar(tag, value, step)
            written.append((tag, value, step))

    monkeypatch.setattr(tensorboard, "SummaryWriter", Writer)
    _, history = train((x, y), validation=(x, y), callbacks=[TensorBoard(tmp_path)])
    assert written[0] == {"purge_step": 1}
    assert len(written) == 1 + 2 * 6
    assert ("loss/training", history[0].loss, 1) in written
    assert ("accuracy/validation", history[1].validation_accuracy, 2) in written
    (file,) = tmp_path.iterdir()
    assert b"loss/training" in file.read_bytes()


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"TensorBoard needs .* pip install tensorboardX$"):
        TensorBoard(tmp_path)


# --- the learning rate ---------------------------------------------------------------------------


@each_home
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.5), AdamW()], ids=["sgd", "adamw"])
def test_the_rate_found_learns(home, optimizer):
    x, y = (home.array(a) for a in noisy(200))
    own = {k: home.array(v) for k, v in start().items()}
    options = {"loss": cross_entropy, "optimizer": optimizer, "batch_size": 20, "rng": 0}
    found = find_learning_rate(SOFTMAX, own, (x, y), highest=1e3, steps=60, **options)
    assert len(found.rates) == len(found.losses) < 60  # it ended when it was too high
    growth = np.diff(np.log(found.rates))
    np.testing.assert_allclose(growth, np.log(1e9) / 59)
    assert found.rates[0] == 1e-6
    assert found.losses[-1] > 4 * min(found.losses)
    trained = type(optimizer)(found.suggestion)
    _, history = train((x, y), params=own, optimizer=trained, epochs=3)
    assert history[-1].loss < 0.9 * found.losses[0]


def test_the_curve_is_smoothed_and_params_stay():
    x, y = images()
    params, model = start(CNN), CNN
    options = {"loss": cross_entropy, "optimizer": SGD(0.1), "batch_size": 8}
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    found = find_learning_rate(model, params, batches, steps=7, highest=1e-5, rng=0, **options)
    np.testing.assert_equal(params, start(CNN))
    again = find_learning_rate(model, params, batches, steps=7, highest=1e-5, rng=0, **options)
    assert found == again
    assert len(found.losses) == 7  # of five batches: they begin again
    assert LearningRates([0.1, 0.2, 0.4], [3.0, 1.0, 2.0]).suggestion == 0.2 / 10


def test_rates_that_are_too_high_from_the_first():
    x, y = images()
    options = {"loss": cross_entropy, "optimizer": SGD(0.1)}
    with pytest.raises(ValueError, match="not finite at the lowest learning rate, 1e"):
        find_learning_rate(SOFTMAX, start(), (x, y), lowest=1e300, highest=1e301, **options)
    for bad, message in (
        ({"lowest": 0.0}, r"lowest must be a finite number > 0, got 0.0"),
        ({"lowest": 20.0}, "lowest must be below highest, got 20.0 and 10.0"),
        ({"highest": math.inf}, "highest must be a finite number > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            find_learning_rate(SOFTMAX, start(), (x, y), **bad, **options)
    with pytest.raises(ValueError, match="steps must be an integer >= 2, got 1"):
        find_learning_rate(SOFTMAX, start(), (x, y), steps=1, **options)
