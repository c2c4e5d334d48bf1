"""Losses and parameters that stop being finite: the step and the layer that went first."""

from __future__ import annotations

import functools
import math
import pickle

import numpy as np
import pytest
from training_case import CNN, SOFTMAX, Recorder, each_home, images, start, train

from agnostic_xent import (
    SGD,
    Conv2d,
    Dense,
    DivergenceError,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Residual,
    Sequential,
    binary_cross_entropy_with_logits,
    cross_entropy,
    load_checkpoint,
    logistic,
)
from agnostic_xent.network.layers import Layer


class Bomb(Layer):
    """The identity, until some of its passes: then a factor of NaN, forward or backward."""

    def __init__(self, at, forward=True):
        self.at, self.forward, self.seen = at, forward, []

    def __call__(self, params, x):
        return x

    def vjp(self, params, x, *, train=True, rng=None, input_grad=True):
        bad = float(abs(np.asarray(x)).sum()) in self.at
        y = x * math.nan if bad and self.forward else x * 1.0
        return y, lambda dy: (dy * math.nan if bad and not self.forward else dy, {})


def sum_at(step, model, x, y, **options):
    """Return by what a layer `Bomb(())` in a model knows a step, counted from 1 over all epochs."""
    sums = []

    class Spy(Bomb):
        def vjp(self, params, x, **options):
            sums.append(float(abs(np.asarray(x)).sum()))
            return super().vjp(params, x, **options)

    train((x, y), model=model(Spy(())), epochs=3, **options)
    return sums[step - 1]


def with_bomb(bomb):
    return Sequential(Conv2d(3, 3), Dropout(0.2), bomb, Flatten(), Dense(3))


@pytest.mark.parametrize("step", [1, 3, 5, 6, 14])
@pytest.mark.parametrize("forward", [True, False])
def test_the_step_and_the_layer_are_named(step, forward, tmp_path):
    """In epochs of 5 steps."""
    x, y = images()
    bomb = Bomb({sum_at(step, with_bomb, x, y)}, forward)
    log = Recorder()
    with pytest.raises(DivergenceError) as caught:
        train((x, y), model=with_bomb(bomb), epochs=3, callbacks=[log], checkpoint=tmp_path)
    error, epoch = caught.value, (step - 1) // 5 + 1
    assert (error.epoch, error.step, error.layer) == (epoch, (step - 1) % 5 + 1, "2")
    kind = "output" if forward else "gradient"
    assert f"the {kind} of layer 2 (Bomb) was the first" in str(error)
    assert f"in epoch {epoch}, at its step {error.step}: " in str(error)
    assert "keeps the last good epoch" in str(error)
    assert log.log[-1] == ("", "end")
    assert len(log.calls("epoch")) == epoch - 1
    params, history = load_checkpoint(tmp_path)
    assert len(history) == epoch - 1
    before = start(with_bomb(Bomb(())))
    if epoch > 1:
        before, _ = train((x, y), model=with_bomb(Bomb(())), epochs=epoch - 1)
    np.testing.assert_equal(params, before)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.step, again.layer) == (str(error), error.step, "2")


def test_layers_within_layers_are_named():
    x, y = images()
    inner = Sequential(Conv2d(1, 3, padding=1), Bomb({}))

    def model(bomb):
        return Sequential(
            Residual(Sequential(*inner.layers[:1], bomb)), GlobalAvgPool2d(), Dense(3)
        )

    bomb = Bomb({sum_at(2, model, x, y)})
    with pytest.raises(DivergenceError, match=r"output of layer 0\.body\.1 \(Bomb\)") as caught:
        train((x, y), model=model(bomb))
    assert caught.value.layer == "0.body.1"


@each_home
def test_on_every_library(home):
    x, y = images()
    x[17] = math.nan
    data = home.array(x), home.array(y)
    for model in (SOFTMAX, CNN):
        own = {k: home.array(v) for k, v in start(model).items()}
        with pytest.raises(DivergenceError, match="its batch has NaN or infinity in x") as caught:
            train(data, model=model, params=own)
        order = np.random.default_rng(3).permutation(40)
        step = int(np.flatnonzero(order == 17)[0]) // 8 + 1
        assert (caught.value.epoch, caught.value.step, caught.value.layer) == (1, step, None)


@pytest.mark.parametrize("epochs", [2, 3])
@pytest.mark.parametrize("watched", [False, True])
def test_parameters_that_the_last_step_of_an_epoch_spoiled(epochs, watched):
    """The epoch's loss has not seen them; to nobody they are handed out."""
    seen = []

    class Spy(Recorder):
        def on_epoch(self, epoch, params):
            seen.append(all(np.isfinite(w).all() for w in params.values()))

    with pytest.raises(DivergenceError, match=r"step (before )?took the parameter 1\.") as caught:
        train(
            optimizer=SGD(lambda step: 1e300 if step == 9 else 0.1, momentum=0.5),
            epochs=epochs,
            callbacks=[Spy()] * watched,
        )
    assert seen == [True] * watched
    looked_at = watched or epochs == 2  # else the next epoch's loss shows it
    assert (caught.value.epoch, caught.value.step) == ((2, 5) if looked_at else (3, 1))
    assert ("the parameters became" in str(caught.value)) == looked_at


def test_a_rate_that_is_too_high_in_steps_of_a_kernel():
    """Of one sample each, many in a call."""
    x, y = np.linspace(-9, 9, 60)[:, None], (np.arange(60) % 3 == 0)[:, None] * 1.0
    with pytest.raises(DivergenceError, match=r"in epoch 1, at its step .*StandardScaler"):
        train(
            (x, y),
            model=logistic(),
            params={"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)},
            loss=binary_cross_entropy_with_logits,
            optimizer=SGD(1e308),
            batch_size=1,
        )


def test_an_iterator_cannot_be_looked_at_again():
    x, y = images()
    x[0] = math.inf
    with pytest.raises(DivergenceError, match="in epoch 1: an iterator") as caught:
        train(iter([(x[8:], y[8:]), (x[:8], y[:8])]), epochs=1)
    assert caught.value.step is None
    with pytest.raises(DivergenceError, match=r"its step 2: its batch"):
        train([(x[8:], y[8:]), (x[:8], y[:8])])


def test_infinity_where_it_was_before_is_no_divergence():
    """A bias of -inf means: never this class."""
    x, y = images()
    y[y == 2] = 1
    params = start() | {"1.bias": np.asarray([0, 0, -math.inf], dtype="float32")}
    trained, history = train((x, y), params=params)
    assert np.isfinite(history.column("loss")).all()
    assert trained["1.bias"][2] == -math.inf


def test_a_mean_of_nothing_is_no_divergence():
    x, _ = images()
    loss = functools.partial(cross_entropy, ignore_index=9, on_empty="zero")
    trained, history = train((x, np.full(40, 9)), loss=loss)
    assert np.isnan(history.column("loss")).all()
    np.testing.assert_equal(trained, start())
