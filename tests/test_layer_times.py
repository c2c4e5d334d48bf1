"""The table of a model's layers: what it names, that it measures, and that it changes nothing."""

import numpy as np
from training_case import CNN, IMAGE, each_home

from agnostic_xent import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Flatten,
    MaxPool2d,
    ReLU,
    Sequential,
    cross_entropy,
    kernels,
    resnet,
    to_backend,
)
from agnostic_xent.evaluation.layer_times import layer_times


def case(model, shape=IMAGE, xp=np):
    rng = np.random.default_rng(0)
    x = rng.random((4, *shape), np.float32)
    y = (np.arange(4) % 3).astype(np.int32)
    params = {name: to_backend(w, xp) for name, w in model.init(0, shape)[0].items()}
    return model, params, to_backend(x, xp), to_backend(y, xp), cross_entropy


def test_rows_are_what_runs_as_one():
    model = Sequential(
        Conv2d(2, 3, padding=1), ReLU(), MaxPool2d(2), AvgPool2d(3, stride=1), Flatten(), Dense(3)
    )
    rows = layer_times(*case(model))
    assert [row.layer for row in rows] == [
        "Conv2d(2, 3, padding=1, activation='relu', max_pool=2)",
        "AvgPool2d(3, stride=1)",
        "Flatten()",
        "Dense(3)",
        "cross_entropy",
    ]
    assert [row.output for row in rows] == [(2, 3, 3), (2, 1, 1), (2,), (3,), ()]
    assert [row.parameters for row in rows] == [20, 0, 0, 9, 0]
    assert all(row.forward > 0 and row.backward > 0 for row in rows)


@each_home
def test_it_says_what_runs_on_every_library(home):
    rows = layer_times(*case(CNN, xp=home.xp))
    for row in rows:
        assert len(row.kernels) == (not row.layer.startswith("Flatten"))
        if home.library != "numpy" and row.kernels:
            assert row.kernels == [f"portable (no kernel for {home.library} arrays)"]
    if home.library == "numpy":
        assert rows[-1].kernels == ["Numba loops"]


def test_a_residual_block_names_each_implementation_once():
    with kernels("portable"):
        rows = layer_times(*case(resnet(8, 3), (3, 8, 8)))
    assert sum(row.layer == "Residual(…)" for row in rows) == 3
    assert {tuple(row.kernels) for row in rows} == {("portable (kernels are switched off)",)}


def test_nothing_is_changed():
    model, params, x, y, loss = case(Sequential(Conv2d(2, 3), BatchNorm2d(), Flatten(), Dense(3)))
    before = {name: w.copy() for name, w in params.items()}
    layer_times(model, params, x, y, loss)
    for name, w in before.items():
        np.testing.assert_array_equal(params[name], w)


def test_a_slow_layer_is_slow():
    rows = layer_times(*case(Sequential(Flatten(), Dense(2000), Dense(3))))
    assert rows[1].forward + rows[1].backward > rows[0].forward + rows[0].backward


def test_one_sample():
    model, params, x, y, loss = case(Sequential(Flatten(), Dense(3)))
    assert len(layer_times(model, params, x[:1], y[:1], loss)) == 3
