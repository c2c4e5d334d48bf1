"""Training of some layers alone: what is frozen stays, and costs nothing on the way back."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import assert_close
from training_case import CNN, IMAGE, SEED, Recorder, each_home, images, same, start, train

import agnostic_xent as ax
from agnostic_xent import (
    SGD,
    AdamW,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    cross_entropy,
    to_numpy,
)
from agnostic_xent.network.frozen import frozen
from agnostic_xent.network.layers import Layer, split_statistics

PLAIN = Sequential(
    Conv2d(3, 3, padding=1), ReLU(), MaxPool2d(2), Conv2d(4, 3, padding=1), ReLU(), Flatten(),
    Dense(3),
)  # fmt: skip
BLOCKS = Sequential(
    Conv2d(4, 3, padding=1, bias=False), BatchNorm2d(), ReLU(),
    Residual(Sequential(Conv2d(4, 3, padding=1, bias=False), BatchNorm2d(), ReLU(), Dropout(0.2))),
    ReLU(),
    Residual(Sequential(Conv2d(4, 1), BatchNorm2d()), BatchNorm2d()),
    GlobalAvgPool2d(), Dense(3),
)  # fmt: skip


class Only:
    """An optimizer that is given gradients of some parameters alone: what freezing comes to."""

    def __init__(self, optimizer, names):
        self.names, self.optimizer = names, optimizer
        self.init, self.rate = optimizer.init, optimizer.rate

    def update(self, params, grads, state):
        return self.optimizer.update(params, {n: grads[n] for n in self.names if n in grads}, state)


@each_home
def test_the_steps_are_those_of_the_layer_alone(home):
    data = tuple(home.array(a) for a in images())
    own = {k: home.array(v) for k, v in start(PLAIN).items()}
    layer, optimizer = "3", SGD(0.1, momentum=0.9)
    names = [name for name in own if name.startswith(layer)]
    options = {"model": PLAIN, "params": own, "epochs": 2}
    found, history = train(data, trainable=[layer], optimizer=optimizer, **options)
    expected, other = train(data, optimizer=Only(optimizer, names), **options)
    for name, w in found.items():
        home.check(w, "float32")
        assert_close(w, to_numpy(expected[name]), "float32", terms=100)
        stays = (to_numpy(w) == to_numpy(own[name])).all()
        assert stays == (name not in names)
    assert history.column("loss") == pytest.approx(other.column("loss"), rel=1e-5)


def drawn(rng):
    """Return a network, and what of it is trained, drawn at random."""
    model = (PLAIN, BLOCKS, CNN)[rng.integers(3)]
    params = {k: v.astype("float64") for k, v in model.init(SEED, IMAGE)[0].items()}
    for name, w in params.items():
        if name.endswith(("bias", "running_mean")):
            w += 0.1 * rng.standard_normal(w.shape)
    learnt = list(split_statistics(params)[0])
    names = rng.choice(learnt, rng.integers(1, 4), replace=False).tolist()
    if rng.random() < 0.5:  # layers, or layers of layers
        names = [name.rsplit(".", rng.integers(1, 1 + name.count(".")))[0] for name in names]
    return model, params, names


@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_what_is_trained_are_those_in_full(seed):
    """By central differences of the model as it is trained: of frozen layers in inference."""
    rng = np.random.default_rng(seed)
    model, params, names = drawn(rng)
    x, dy = rng.standard_normal((5, *IMAGE)), rng.standard_normal((5, 3))
    part = frozen(model, params, names)
    _, pullback = part.vjp(params, x, rng=0, input_grad=False)
    learnt = split_statistics(pullback(dy)[1])[0]
    assert learnt.keys() == {
        own for own in split_statistics(params)[0]
        for name in names if own == name or own.startswith(f"{name}.")
    }  # fmt: skip
    check_slopes(part, params, x, dy, learnt, rng)
    np.testing.assert_allclose(part(params, x), model(params, x), rtol=1e-12)


def check_slopes(model, params, x, dy, grads, rng):
    """Compare gradients with central differences, along a direction for each parameter."""
    for name, grad in grads.items():
        step = rng.standard_normal(grad.shape) * 1e-6
        above, below = (
            model.vjp(params | {name: params[name] + sign * step}, x, rng=0)[0] for sign in (1, -1)
        )
        slope = float(np.sum(dy * (above - below))) / 2
        assert slope == pytest.approx(float(np.sum(grad * step)), rel=1e-4, abs=1e-10)


def test_batch_normalization_that_is_frozen_keeps_its_statistics():
    found, _ = train(model=CNN, trainable=["6"])
    first = start(CNN)
    for name in first:
        assert (found[name] == first[name]).all() == (name[0] != "6")
    moved, _ = train(model=CNN, trainable=["1.weight", "6"])
    assert (moved["1.running_mean"] != first["1.running_mean"]).any()
    assert (moved["1.bias"] == first["1.bias"]).all()
    assert (moved["1.weight"] != first["1.weight"]).any()


class Noted(Layer):
    """A layer that does nothing, and notes its pullbacks."""

    def __init__(self, notes):
        self.notes = notes

    def forward(self, params, x, how):
        return x, lambda dy: (self.notes.append(how.input_grad) or dy, {})


def test_nothing_goes_back_below_the_lowest_trained_layer(monkeypatch):
    asked, below, above = [], [], []
    of = ax.conv2d.vjp
    monkeypatch.setattr(type(ax.conv2d), "vjp", lambda self, *a, wrt=None, **o: (
        asked.append((self.name, wrt)) or of.__func__(self, *a, wrt=wrt, **o)))  # fmt: skip
    model = Sequential(
        Conv2d(3, 3), Noted(below), Conv2d(4, 3), Noted(above), Conv2d(4, 1), Flatten(), Dense(3)
    )
    x, y = images(8)
    train((x, y), model=model, params=model.init(0, IMAGE)[0], trainable=["2"], epochs=1)
    assert below == []
    assert above == [True]
    kinds = [(name, tuple(wrt)) for name, wrt in asked if name in ("conv2d", "dense")]
    # the first convolution runs as in inference, the last one has no gradients of its own
    assert kinds == [("conv2d", (1, 2)), ("conv2d", (0,)), ("dense", (0,))]


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), AdamW()], ids=["sgd", "adamw"])
def test_an_interrupted_run_ends_as_one_that_was_not(optimizer, tmp_path):
    options = {"model": BLOCKS, "optimizer": optimizer, "trainable": ["5", "7"]}
    expected, _ = train(epochs=4, **options)
    with pytest.raises(RuntimeError, match="out of coffee"):
        train(epochs=4, callbacks=[Recorder(fail=8)], checkpoint=tmp_path, **options)
    same(train(epochs=4, checkpoint=tmp_path, **options)[0], expected)
    with pytest.raises(ValueError, match="is of another run: its model is"):
        train(epochs=4, checkpoint=tmp_path, **options | {"trainable": ["7"]})


def test_all_layers_are_the_whole_model():
    names = ["0", "1", "6"]
    same(train(model=CNN, trainable=names)[0], train(model=CNN)[0])


ERRORS = {
    "unknown": (["9"], ValueError, "trainable has '9', which is no .* the layers are 0, 1, 6"),
    "statistics": (["1.running_mean"], ValueError, "no layer or parameter that is learnt"),
    "not learnt": (["5"], ValueError, "no layer or parameter that is learnt"),
    "half a name": (["0.w"], ValueError, "no layer or parameter that is learnt"),
    "nothing": ([], ValueError, "at least one"),
    "a string": ("6", TypeError, r'sequence of names such as \["6"\] or None, got \'6\''),
    "a number": ([6], TypeError, "sequence of names"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    names, kind, text = ERRORS[error]
    with pytest.raises(kind, match=text):
        train(model=CNN, trainable=names)


def test_a_loss_of_logistic_regression_without_its_bias():
    """The kernel for whole epochs knows no frozen parameters."""
    x, y = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 3
    model, loss = Sequential(Dense(3)), functools.partial(cross_entropy)
    params = {k: v.astype("float64") for k, v in model.init(0, (4,))[0].items()}
    found, _ = train((x, y), model=model, params=params, loss=loss, trainable=["0.weight"])
    assert (found["0.bias"] == params["0.bias"]).all()
    assert (found["0.weight"] != params["0.weight"]).all()
