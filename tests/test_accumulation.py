"""Steps of several batches are those of one with all their samples; epochs of whole steps."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from conftest import assert_close
from training_case import CNN, IMAGE, SOFTMAX, Recorder, each_home, images, same, start, train

import agnostic_xent as ax
from agnostic_xent import (
    SGD,
    AdamW,
    ClipByNorm,
    Conv2d,
    Dense,
    Flatten,
    ReLU,
    Sequential,
    binary_cross_entropy_with_logits,
    categorical_cross_entropy,
    cross_entropy,
    focal_loss,
    generalized_cross_entropy,
    jensen_shannon_divergence,
    kl_divergence,
    nll_loss,
    to_numpy,
)
from agnostic_xent.network.layers import OperationLayer
from agnostic_xent.operations.activations import log_softmax, softmax

NET = Sequential(Conv2d(3, 3, padding=1), ReLU(), Flatten(), Dense(3))
WEIGHT = np.asarray([0.2, 1.0, 3.0])
PRIOR = np.asarray([0.7, 0.2, 0.1])


class LogSoftmax(OperationLayer):
    operation = log_softmax


class Softmax(OperationLayer):
    operation = softmax


def soft(y, rng):
    return (y[:, None] == np.arange(3)) * (rng.random((len(y), 1)) + 0.5)


def sparse(y, rng):
    """Return labels most of which are ignored: some batches have none that counts."""
    return np.where((rng.random(len(y)) < 0.6) | (np.arange(len(y)) % 12 < 4), -1, y)


LOSSES = {
    "plain": (cross_entropy, {}, None),
    "weights": (cross_entropy, {"weight": WEIGHT}, None),
    "ignored": (
        cross_entropy, {"weight": WEIGHT, "ignore_index": -1, "on_empty": "zero"}, sparse,
    ),
    "smoothed": (cross_entropy, {"label_smoothing": 0.2}, None),
    "prior, z-loss": (cross_entropy, {"class_prior": PRIOR, "z_loss": 0.1}, None),
    "a number": (cross_entropy, {"normalize": 7.5}, None),
    "count": (cross_entropy, {"weight": WEIGHT, "normalize": "count"}, None),
    "soft": (cross_entropy, {"normalize": "weight", "weight": WEIGHT}, soft),
    "soft, count": (cross_entropy, {}, soft),
    "nll": (nll_loss, {}, None),
    "categorical": (categorical_cross_entropy, {}, None),
    "focal": (focal_loss, {"gamma": 2.0}, None),
    "generalized": (generalized_cross_entropy, {"q": 0.5}, None),
    "jensen": (jensen_shannon_divergence, {}, None),
    "kl": (kl_divergence, {"temperature": 2.0}, soft),
    "binary": (
        binary_cross_entropy_with_logits, {"pos_weight": WEIGHT},
        lambda y, rng: (y[:, None] == np.arange(3)) * 1.0,
    ),
}  # fmt: skip
LAST = {nll_loss: LogSoftmax(), categorical_cross_entropy: Softmax()}


@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9), AdamW()], ids=["sgd", "adamw"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_is_that_of_all_samples(loss, optimizer):
    """Over batches of several sizes; the last step has fewer of them."""
    function, options, targets = LOSSES[loss]
    rng = np.random.default_rng(len(loss))
    x, y = images(41, "float64")
    y = y if targets is None else targets(y, rng)
    model = Sequential(*NET.layers, LAST[function]) if function in LAST else NET
    arguments = {
        "model": model,
        "params": start(model, "float64"),
        "loss": functools.partial(function, **options),
        "optimizer": optimizer,
        "epochs": 3,
        "validation": (x, y),
    }
    expected, history = train((x, y), batch_size=12, **arguments)
    found, other = train((x, y), batch_size=4, accumulate=3, **arguments)
    for name, w in found.items():
        np.testing.assert_allclose(w, expected[name], rtol=1e-9, atol=1e-11, err_msg=name)
    # of a divisor of the user's own, the mean over the validation depends on its batches
    columns = ("loss", "accuracy", "validation_loss")[: 2 if loss == "a number" else 3]
    for column in columns:
        np.testing.assert_allclose(other.column(column), history.column(column), rtol=1e-9)


@each_home
def test_every_library(home):
    x, y = images(22)
    arguments = {"loss": functools.partial(cross_entropy, ignore_index=1), "epochs": 2}
    params = {k: home.array(v) for k, v in start(SOFTMAX).items()}
    data = home.array(x), home.array(y)
    arguments |= {"model": SOFTMAX, "optimizer": ClipByNorm(SGD(0.1), norm=0.5)}
    found, _ = train(data, params=params, batch_size=4, accumulate=2, **arguments)
    expected, _ = train((x, y), batch_size=8, **arguments)
    for name, w in found.items():
        home.check(w, "float32")
        assert_close(w, expected[name], "float32", terms=200)


def test_half_precision_sums_in_float32():
    x, y = images(16, "float16")
    params = start(SOFTMAX, "float16")
    found, _ = train((x, y), params=params, batch_size=2, accumulate=8, epochs=1)
    expected, _ = train((x, y), params=params, batch_size=16, epochs=1)
    for name, w in found.items():
        assert w.dtype == "float16"
        assert_close(w, expected[name].astype("float64"), "float16", terms=8)


@pytest.mark.parametrize("on_empty", ["nan", "zero", "raise"])
def test_a_step_in_which_nothing_counts(on_empty):
    x, _ = images(8, "float64")
    loss = functools.partial(cross_entropy, ignore_index=0, on_empty=on_empty)
    options = {"loss": loss, "params": start(SOFTMAX, "float64"), "epochs": 1}
    told = []
    for batching in ({"batch_size": 8}, {"batch_size": 4, "accumulate": 2}):
        try:
            params, history = train((x, np.zeros(8, "int64")), **options, **batching)
            told.append((to_numpy(params["1.weight"]).sum(), math.isnan(history[0].loss)))
        except ValueError as error:
            told.append(str(error))
    assert told[0] == told[1]


def test_batch_normalization_moves_by_the_mean_of_the_batches():
    """A plain computation of the running mean after one step of three batches."""
    model = Sequential(ax.BatchNorm2d(momentum=0.3), Flatten(), Dense(3))
    x, y = images(10, "float64")
    params = {k: v.astype("float64") for k, v in model.init(0, IMAGE)[0].items()}
    options = {"model": model, "params": params, "epochs": 1, "rng": None, "optimizer": SGD(0.0)}

    class InOrder:
        def __iter__(self):
            return iter([(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])])

    found, _ = train(InOrder(), accumulate=3, **options)
    parts = [(4, x[:4]), (4, x[4:8]), (2, x[8:])]
    mean = sum(n * part.mean(axis=(0, 2, 3)) for n, part in parts) / 10
    np.testing.assert_allclose(found["0.running_mean"], 0.3 * mean, rtol=1e-12)
    var = sum(n * part.var(axis=(0, 2, 3), ddof=1) for n, part in parts) / 10
    np.testing.assert_allclose(found["0.running_var"], 0.7 + 0.3 * var, rtol=1e-12)


def test_steps_of_a_kernel():
    """The kernel for whole epochs takes them as steps of all their samples."""
    x, y = np.random.default_rng(0).standard_normal((30, 4)), np.arange(30) % 3
    model = Sequential(Dense(3))
    options = {"model": model, "params": {"0.weight": np.zeros((3, 4)), "0.bias": np.zeros(3)}}
    options |= {"optimizer": SGD(0.1), "epochs": 3}
    expected, _ = train((x, y), batch_size=6, **options)
    same(train((x, y), batch_size=2, accumulate=3, **options)[0], expected)
    with ax.kernels("portable"):
        found, _ = train((x[:25], y[:25]), batch_size=6, drop_last=True, **options)
    kernel, _ = train((x[:25], y[:25]), batch_size=6, drop_last=True, **options)
    for name, w in found.items():
        np.testing.assert_allclose(kernel[name], w, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_interrupted_run_ends_as_one_that_was_not(drop_last, tmp_path):
    options = {"model": CNN, "batch_size": 4, "accumulate": 3, "drop_last": drop_last}
    expected, history = train(epochs=4, **options)
    for fail in (2, 7):
        with pytest.raises(RuntimeError, match="out of coffee"):
            train(epochs=4, callbacks=[Recorder(fail=fail)], checkpoint=tmp_path, **options)
    found, again = train(epochs=4, checkpoint=tmp_path, **options)
    same(found, expected)
    assert again.column("loss") == history.column("loss")
    with pytest.raises(ValueError, match="its accumulate is 3, here 2"):
        train(epochs=4, checkpoint=tmp_path, **options | {"accumulate": 2})


# --- whole steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["arrays", "memory-mapped"])
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 5), (2, 2)])
def test_only_whole_steps_are_taken(accumulate, steps, kind, tmp_path):
    data, log = images(40 + 3), Recorder()
    if kind != "arrays":
        for name, a in zip("xy", data, strict=True):
            np.save(tmp_path / f"{name}.npy", a)
        data = tmp_path / "x.npy", tmp_path / "y.npy"
    train(data, drop_last=True, accumulate=accumulate, callbacks=[log], epochs=2)
    assert [samples for *_, samples in log.calls("step")] == [8 * accumulate] * 2 * steps
    assert log.calls("start") == [("", "start", 2, 8 * accumulate * steps)]


def test_what_is_left_out_differs_from_epoch_to_epoch():
    x, y = images(10)
    seen = []

    class Noting(SGD):
        def update(self, params, grads, state):
            seen.append(to_numpy(grads["1.bias"]))
            return super().update(params, grads, state)

    train((x, y), drop_last=True, batch_size=8, epochs=3, optimizer=Noting(0.0))
    assert len(seen) == 3
    assert len({g.tobytes() for g in seen}) == 3


def test_errors():
    with pytest.raises(ValueError, match=r"leaves no step: one takes 80 samples .*there are 40"):
        train(drop_last=True, batch_size=40, accumulate=2)
    with pytest.raises(ValueError, match="drop_last=True is for arrays"):
        train([images(8)], drop_last=True)
    for accumulate in (0, 1.5, True):
        with pytest.raises(ValueError, match="accumulate must be an integer >= 1"):
            train(accumulate=accumulate)
    with pytest.raises(TypeError, match="the option normalize with accumulate > 1, got add"):
        train(loss=ax.add, accumulate=2)


def test_a_divergence_names_its_step_and_its_layer():
    x, y = images(16)
    x[13] = np.inf
    with np.errstate(all="ignore"), pytest.raises(ax.DivergenceError) as found:
        train((x, y), rng=None, batch_size=4, accumulate=2, epochs=1, optimizer=SGD(0.1))
    assert "NaN or infinity in x" in str(found.value)
    with np.errstate(all="ignore"), pytest.raises(ax.DivergenceError) as found:
        train(images(), model=NET, batch_size=4, accumulate=2, optimizer=SGD(1e30), rng=1)
    assert found.value.step == 2
