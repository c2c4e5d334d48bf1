"""Mixup and CutMix: a plain reference, the same on every library, and what is refused."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from training_case import CNN, IMAGE, SOFTMAX, each_home, images, same, start, train

import agnostic_xent as ax
from agnostic_xent import CutMix, Mixup, to_numpy
from agnostic_xent.training.mixing import Mixing

MIXES = {"mixup": Mixup(0.4), "cutmix": CutMix()}
each_mix = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def plain(mix, x, y, classes, rng):
    """Mix sample by sample, pixel by pixel, from the same draws."""
    order = rng.permutation(len(x))
    share = rng.beta(mix.alpha, mix.alpha)
    mixed = x.copy()
    if isinstance(mix, Mixup):
        for i, j in enumerate(order):
            mixed[i] = share * x[i] + (1 - share) * x[j]
    else:
        side, sizes = math.sqrt(1 - share), x.shape[2:]
        middles = [math.floor(rng.random() * n) for n in sizes]
        cut = [
            (row, column)
            for row in range(sizes[0])
            for column in range(sizes[1])
            if abs(row - middles[0]) < side * sizes[0] / 2
            and abs(column - middles[1]) < side * sizes[1] / 2
        ]
        for i, j in enumerate(order):
            for row, column in cut:
                mixed[i, :, row, column] = x[j, :, row, column]
        share = 1 - len(cut) / math.prod(sizes)
    target = np.zeros((len(x), classes))
    for i, j in enumerate(order):
        target[i, y[i]] += share
        target[i, y[j]] += 1 - share
    return mixed, target


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(MIXES.values())),
    st.tuples(*(st.integers(1, n) for n in (9, 3, 7, 7))),
    st.integers(0, 999),
)
def test_batches_are_the_plain_ones(mix, shape, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(shape), rng.integers(0, 5, shape[0])
    model = ax.Sequential(ax.Flatten(), ax.Dense(5))
    params = {k: w.astype("f8") for k, w in model.init(0, shape[1:])[0].items()}
    mixing = Mixing(mix, model, ax.cross_entropy)
    found = mixing((x, y), params, np.random.default_rng(seed))
    for got, wanted in zip(found, plain(mix, x, y, 5, np.random.default_rng(seed)), strict=True):
        assert_close(got, wanted, "float64")
    assert_close(found[1].sum(axis=1), np.ones(shape[0]), "float64")


@each_mix
def test_the_same_bits_on_every_library(row, mix):
    x, y = images(9)
    params = start()
    expected = Mixing(mix, SOFTMAX, ax.cross_entropy)((x, y), params, np.random.default_rng(2))
    there = {k: row.array(w) for k, w in params.items()}
    mixing = Mixing(mix, SOFTMAX, ax.cross_entropy)
    found = mixing((row.array(x), row.array(y)), there, np.random.default_rng(2))
    for got, wanted in zip(found, expected, strict=True):
        row.check(got, "float32")
        np.testing.assert_array_equal(to_numpy(got), wanted)


@each_home
@each_mix
def test_fit_goes_the_same_way_on_every_library(home, mix):
    x, y = images()
    expected, history = train((x, y), mix=mix)
    params = {k: home.array(w) for k, w in start().items()}
    found, other = train((home.array(x), home.array(y)), mix=mix, params=params)
    for name, w in expected.items():
        np.testing.assert_allclose(to_numpy(found[name]), w, rtol=1e-4, atol=1e-5)
    assert other.column("loss") == pytest.approx(history.column("loss"), rel=1e-4)
    assert history.column("loss") != train((x, y))[1].column("loss")


@each_mix
def test_a_mean_of_losses_is_the_loss_of_the_means(mix):
    """The loss of a step is s * loss(y1) + (1 - s) * loss(y2) on the mixed samples."""
    x, y = images(8, "float64")
    params = start(dtype="float64")
    _, history = train((x, y), mix=mix, params=params, epochs=1, optimizer=ax.SGD(1e-30), rng=5)
    rng = np.random.default_rng(5)
    order = rng.permutation(8)
    mixed, target = plain(mix, x[order], y[order], 3, rng)
    logits = SOFTMAX(params, mixed)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert history[0].loss == pytest.approx(-(target * np.log(p)).sum(axis=1).mean(), rel=1e-12)
    right = p.argmax(axis=1) == target.argmax(axis=1)
    assert history[0].accuracy == pytest.approx(right.mean())


def test_targets_of_other_losses():
    x, y = images()
    binary = (y[:, None] == 0).astype("f4")
    one = ax.Sequential(ax.Flatten(), ax.Dense(1))
    for loss, model, target in [
        (ax.binary_cross_entropy_with_logits, one, binary),
        (functools.partial(ax.cross_entropy, label_smoothing=0.1), SOFTMAX, y),
        (functools.partial(ax.cross_entropy, weight=np.ones(3, "f4")), SOFTMAX, y),
        (ax.focal_loss, SOFTMAX, y),
        (ax.cross_entropy, SOFTMAX, np.eye(3, dtype="f4")[y]),
    ]:
        _, history = train((x, target), model=model, loss=loss, mix=Mixup(), epochs=6)
        assert history[-1].loss < history[0].loss
    labels, _ = train((x, y), mix=Mixup())
    one_hot, _ = train((x, np.eye(3, dtype="f4")[y]), mix=Mixup())
    same(labels, one_hot)


@each_mix
def test_a_run_goes_on_to_the_same_bits(mix, tmp_path):
    whole, _ = train(model=CNN, mix=mix, epochs=3)
    train(model=CNN, mix=mix, epochs=1, checkpoint=tmp_path)
    found, _ = train(model=CNN, mix=mix, epochs=3, checkpoint=tmp_path)
    same(found, whole)
    with pytest.raises(ValueError, match=rf"its mix is {type(mix).__name__}.*, here None"):
        train(model=CNN, epochs=3, checkpoint=tmp_path)


@each_mix
def test_validation_and_iterables(mix):
    x, y = images()
    params, history = train((x, y), mix=mix, validation=(x, y))
    loss, _ = ax.evaluate(SOFTMAX, params, (x, y), loss=ax.cross_entropy)
    assert history[-1].validation_loss == pytest.approx(loss, rel=1e-6)
    batches = [(x[:16], y[:16]), (x[16:], y[16:])]
    assert len(train(batches, mix=mix)[1]) == 2


def test_what_diverges_is_found_again():
    x, y = images()
    with pytest.raises(ax.DivergenceError) as caught:
        train((x * 1e30, y), mix=Mixup(), optimizer=ax.SGD(1e20))
    assert caught.value.step is not None


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"mix": 0.2}, r"mix must be one such as Mixup\(0.2\) or CutMix\(\), got 0.2"),
        ({"mix": Mixup}, r"mix must be one such as"),
        (
            {"mix": Mixup(), "loss": functools.partial(ax.cross_entropy, ignore_index=0)},
            "mix is for losses without ignore_index",
        ),
        (
            {
                "mix": Mixup(),
                "loss": ax.kl_divergence,
                "data": (images()[0], np.ones((40, 3), "f4")),
            },
            "mix needs a loss whose targets",
        ),
        ({"mix": CutMix(), "data": (np.ones((4, 36), "f4"), np.arange(4) % 3)}, "for CutMix"),
    ],
)
def test_refusals(changed, error):
    changed = dict(changed)
    data = changed.pop("data", None)
    with pytest.raises((TypeError, ValueError), match=error):
        train(data, **changed)


@pytest.mark.parametrize("alpha", [0, -1, math.inf, math.nan, "0.2", True])
def test_alpha_is_a_number_above_0(alpha):
    for make in (Mixup, CutMix):
        with pytest.raises(ValueError, match=r"alpha must be a finite number > 0"):
            make(alpha)


def test_images_with_a_label_each_pixel_are_refused():
    model = ax.Conv2d(3, 1)
    params = model.init(0, IMAGE)[0]
    x, _ = images(6)
    with pytest.raises(ValueError, match="one label a sample, to be mixed"):
        ax.fit(
            model, params, (x, np.zeros((6, 6, 6), "i8")), mix=Mixup(), epochs=1,
            loss=functools.partial(ax.cross_entropy, axis=1), optimizer=ax.SGD(0.1),
        )  # fmt: skip


@each_mix
@pytest.mark.parametrize("weights", [None, np.arange(40) % 3 + 1.0])
def test_of_a_classifier_it_is_that_of_fit(mix, weights):
    """Also of weights, which mixtures have their shares of; a copy keeps it."""
    pytest.importorskip("sklearn")
    from sklearn.base import clone

    x, y = images()
    options = {"optimizer": ax.SGD(0.1), "epochs": 2, "batch_size": 8, "random_state": 0}
    classifier = clone(ax.CNNClassifier(SOFTMAX, mix=mix, **options))
    found = classifier.fit(x, y, weights)
    rng = found._rng()
    params = SOFTMAX.init(rng, IMAGE)[0]
    target, loss = y, ax.cross_entropy
    if weights is not None:
        target = (np.eye(3)[y] * (weights / weights.mean())[:, None]).astype("f4")
        loss = functools.partial(loss, normalize="count")
    task = {"loss": loss, "optimizer": ax.SGD(0.1), "epochs": 2, "batch_size": 8, "rng": rng}
    expected, history = ax.fit(SOFTMAX, params, (x, target), mix=mix, **task)
    same(found.params_, expected)
    assert found.loss_curve_ == history.column("loss")
    assert found.partial_fit(x, y).predict(x).shape == (40,)
