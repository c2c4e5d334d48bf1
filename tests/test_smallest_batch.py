"""A last batch that is too small for batch normalization is refused before the first step."""

from __future__ import annotations

import distributed_case
import numpy as np
import pytest
from ranks import on_ranks
from training_case import Recorder

import agnostic_xent as ax

MODEL = ax.Sequential(ax.Conv2d(4, 3), ax.BatchNorm2d(), ax.Flatten(), ax.Dense(2))


def train(samples, batch_size, model=MODEL, side=3, **options):
    x = np.random.default_rng(0).normal(size=(samples, 1, side, side)).astype("float32")
    params = model.init(0, (1, side, side))[0]
    options = {"optimizer": ax.SGD(0.1), "epochs": 1, "rng": 0} | options
    data = x, np.arange(samples) % 2
    return ax.fit(model, params, data, loss=ax.cross_entropy, batch_size=batch_size, **options)


@pytest.mark.parametrize(("samples", "batch_size"), [(33, 32), (33, 2), (1, 8), (5, 1)])
def test_a_single_sample_is_refused(samples, batch_size):
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"last batch of an epoch has 1 of .* batch_size that"):
        train(samples, batch_size, callbacks=[recorder])
    assert recorder.log == []


@pytest.mark.parametrize(
    ("samples", "batch_size", "options"),
    [
        (34, 32, {}),
        (33, 11, {}),
        (33, 32, {"side": 4}),  # four values a channel
        (33, 32, {"model": ax.Sequential(ax.Flatten(), ax.Dropout(0.5), ax.Dense(2))}),
    ],
)
def test_what_can_be_trained_is(samples, batch_size, options):
    _, history = train(samples, batch_size, **options)
    assert np.isfinite(history[-1].loss)


def test_trying_it_changes_no_random_number():
    model = ax.Sequential(ax.Flatten(), ax.Dropout(0.5), ax.Dense(2))
    rng, expected = np.random.default_rng(3), np.random.default_rng(3)
    train(4, 3, model, rng=rng)
    for size in (3, 1):
        if size == 3:
            expected.permutation(4)
        expected.random((size, 9))
    assert rng.random() == expected.random()


def test_ranks_with_too_few_samples_are_refused_together():
    for found in on_ranks(3, distributed_case.with_small_shares):
        assert found["own, 2"].startswith("the last batch of an epoch has 2 of 34 samples for 3")
        assert "synchronize_batch_norm" in found["own, 2"]
        assert found["all, 2"] == "trained"  # statistics over all ranks
        assert "the running statistics would not be finite" in found["all, 1"]
