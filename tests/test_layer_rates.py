"""Learning rates that differ by layer: those of an optimizer of its own for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import assert_close
from training_case import CNN, Recorder, same, train

from agnostic_xent import SGD, AdamW, ClipByNorm, LayerRates, cosine, to_numpy, warmup

RNG = np.random.default_rng(8)
SHAPES = {
    "0.weight": (4, 3), "0.bias": (4,), "1.body.0.weight": (5,), "1.body.1.weight": (),
    "10.weight": (3,), "none": (0, 3),
}  # fmt: skip
PARAMS = {k: RNG.standard_normal(s) for k, s in SHAPES.items()}
GRADS = [{k: RNG.standard_normal(s) for k, s in SHAPES.items()} for _ in range(2)]
FACTORS = {"0": 0.1, "1": 0.5, "1.body.1": 2.0, "0.bias": 0.0}
FACTOR = {
    "0.weight": 0.1, "0.bias": 0.0, "1.body.0.weight": 0.5, "1.body.1.weight": 2.0,
    "10.weight": 1.0, "none": 1.0,
}  # fmt: skip
OPTIMIZERS = {
    "sgd": SGD(0.1, momentum=0.9, weight_decay=0.01, decay_bias=False),
    "schedule": SGD(warmup(cosine(0.3, steps=9), steps=2)),
    "adamw": AdamW(0.01, weight_decay=0.1),
}


def scaled(optimizer, factor):
    rate = optimizer.learning_rate
    own = (lambda step: factor * rate(step)) if callable(rate) else factor * rate
    return replace(optimizer, learning_rate=own)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_parameter_moves_as_by_its_own_optimizer(row, optimizer):
    inner = OPTIMIZERS[optimizer]
    by_layer = LayerRates(inner, FACTORS)
    for dtype in row.dtypes:
        params = {k: row.array(x, dtype) for k, x in PARAMS.items()}
        state = by_layer.init(params)
        own = {k: ({k: w}, scaled(inner, FACTOR[k]).init({k: w})) for k, w in params.items()}
        for grads in GRADS:
            grads = {k: row.array(g, dtype) for k, g in grads.items()}
            params, state = by_layer.update(params, grads, state)
            for k, (w, of_one) in own.items():
                own[k] = scaled(inner, FACTOR[k]).update(w, {k: grads[k]}, of_one)
        assert state["step"] == len(GRADS)
        for name, w in params.items():
            row.check(w, dtype)
            assert_close(w, to_numpy(own[name][0][name]), dtype, 4)
        assert by_layer.rate(3) == inner.rate(3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interrupted_run_ends_as_one_that_was_not(optimizer, tmp_path):
    by_layer = ClipByNorm(LayerRates(OPTIMIZERS[optimizer], {"0": 0.1, "6.bias": 3.0}), norm=1.0)
    options = {"model": CNN, "optimizer": by_layer}
    expected, _ = train(epochs=4, **options)
    with pytest.raises(RuntimeError, match="out of coffee"):
        train(epochs=4, callbacks=[Recorder(fail=12)], checkpoint=tmp_path, **options)
    same(train(epochs=4, checkpoint=tmp_path, **options)[0], expected)
    other = ClipByNorm(LayerRates(OPTIMIZERS[optimizer], {"0": 0.2}), norm=1.0)
    with pytest.raises(ValueError, match="is of another run: its optimizer is"):
        train(epochs=4, checkpoint=tmp_path, model=CNN, optimizer=other)


def test_arguments():
    with pytest.raises(ValueError, match="factors has '2', which is no layer or parameter"):
        train(model=CNN, optimizer=LayerRates(SGD(0.1), {"2": 0.1}))
    with pytest.raises(ValueError, match=r"factors\['0'\] must be a finite number >= 0, got -1"):
        LayerRates(SGD(0.1), {"0": -1})
    for factors in ({}, [0.1], 0.1):
        with pytest.raises(TypeError, match="factors must be a dict of names to numbers"):
            LayerRates(SGD(0.1), factors)
    for optimizer in (SGD, ClipByNorm(SGD(0.1), norm=1.0)):
        with pytest.raises(TypeError, match="optimizer must be SGD or AdamW"):
            LayerRates(optimizer, {"0": 0.1})
