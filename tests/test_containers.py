"""Layers made of layers, and whatever walks through them: also through those of a user."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from layer_samples import CASES, IMAGE, SEED, Product

from agnostic_xent import (
    SGD,
    BatchNorm2d,
    Conv2d,
    Dense,
    DivergenceError,
    Flatten,
    GlobalAvgPool2d,
    ReLU,
    Residual,
    Sequential,
    cross_entropy,
    fit,
    synchronize_batch_norm,
)
from agnostic_xent.core.communication import Alone
from agnostic_xent.evaluation.layer_times import layer_times
from agnostic_xent.network.containers import mapped, outer_params, parts
from agnostic_xent.network.layers import Layer
from agnostic_xent.network.synchronized import SynchronizedBatchNorm
from agnostic_xent.training.batches import ArraySource
from agnostic_xent.training.ranks.task import distributed
from agnostic_xent.training.steps import Task

CONTAINERS = {name: case for name, case in CASES.items() if case[0].children()}
each_container = pytest.mark.parametrize("case", CONTAINERS)

MODEL = Sequential(
    Product(
        Sequential(Conv2d(3, 3), ReLU(), BatchNorm2d()), Residual(Conv2d(3, 3), Conv2d(3, 3))
    ),
    GlobalAvgPool2d(),
    Dense(3),
)  # fmt: skip


CLASSES_FIRST = functools.partial(cross_entropy, axis=1)


def data(samples=12):
    rng = np.random.default_rng(SEED)
    return rng.standard_normal((samples, *IMAGE)).astype("float32"), np.arange(samples) % 3


def start(model):
    return model.init(SEED, IMAGE)[0]


@each_container
def test_children_are_named_as_their_parameters(case):
    layer, shape, _ = CONTAINERS[case]
    names = []
    mapped(layer, lambda name, inner: names.append(name) or inner)
    assert len(names) == len(set(names))
    for full in layer.init(SEED, shape)[0]:
        assert full.rpartition(".")[0] in names


@each_container
def test_rebuilt_of_its_own_children_is_the_same(case):
    layer, _, _ = CONTAINERS[case]
    assert layer.rebuilt(layer.children()) == layer
    assert mapped(layer, lambda name, inner: inner) == layer


def test_a_layer_that_is_not_made_of_layers_is_changed_itself():
    assert Dense(3).children() == {}
    assert mapped(Dense(3), lambda name, layer: Dense(layer.units + 1), "last") == Dense(4)


# --- what walks through a user's layer -----------------------------------------------------------


def test_batch_normalization_in_it_is_synchronized():
    layers = {}
    model = synchronize_batch_norm(MODEL, Alone())
    mapped(model, lambda name, layer: layers.setdefault(name, layer))
    assert type(layers["0.left.2"]) is SynchronizedBatchNorm
    assert [type(x) for x in layers.values()].count(BatchNorm2d) == 0
    assert isinstance(model.layers[0], Product)


@dataclass(frozen=True)
class NaN(Layer):
    """A layer that makes NaN of everything."""

    def forward(self, params, x, how):
        return x * np.nan, lambda dy: (dy * np.nan, {})


def test_the_layer_in_it_that_was_not_finite_is_named():
    model = Sequential(
        Product(Conv2d(2, 3), Sequential(Conv2d(2, 3), NaN())), Flatten(), Dense(3)
    )  # fmt: skip
    with pytest.raises(DivergenceError, match=r"output of layer 0\.right\.1 \(NaN\)"):
        fit(model, start(model), data(), loss=cross_entropy, optimizer=SGD(0.1), epochs=1, rng=0)


@pytest.mark.parametrize("model", [MODEL, MODEL.layers[0]], ids=["in a Sequential", "by itself"])
def test_its_row_in_the_table_of_times_names_what_runs_in_it(model):
    x, _ = data()
    made = model.init(SEED, IMAGE)[1]
    y = np.zeros((len(x), *made[1:]), "int32")
    row, *others = layer_times(model, start(model), x, y, CLASSES_FIRST)
    assert (row.layer, row.output) == ("Product(…)", (3, 4, 4))
    own = start(MODEL.layers[0])
    assert row.parameters == sum(w.size for w in own.values())
    assert len(others) == (3 if model is MODEL else 1)
    assert any(text.startswith("Numba, implicit product") for text in row.kernels)  # convolutions
    assert "Numba loops" in row.kernels  # of the batch normalization


@dataclass(frozen=True)
class Twice(Layer):
    """A layer that is applied twice, with the same parameters."""

    inner: Layer

    def init(self, rng, shape):
        params, shape = self.inner.init(rng, shape)
        return outer_params("inner", params), shape

    def forward(self, params, x, how):
        inner = parts(self, params)["inner"]
        y, pull_first = inner.vjp(x, how)
        z, pull_second = inner.vjp(y, how._replace(input_grad=True))

        def pullback(dy):
            dy, grads = pull_second(dy)
            dx, first = pull_first(dy)
            return dx, {name: grads[name] + first[name] for name in grads}

        return z, pullback

    def children(self):
        return {"inner": self.inner}

    def rebuilt(self, children):
        return Twice(**children)


TIED = Sequential(Flatten(), Twice(Dense(144)), Dense(3))


@pytest.mark.parametrize(
    "model", [MODEL, MODEL.layers[0], TIED, TIED.layers[1]],
    ids=["in a Sequential", "by itself", "tied weights", "tied weights by themselves"],
)  # fmt: skip
def test_its_gradients_are_those_of_ranks(model):
    """The ranks hand out gradients before the backward pass is through."""
    x, y = data()
    if isinstance(model, Twice):
        x = x.reshape(len(x), -1)
    params, made = model.init(SEED, x.shape[1:])
    y = np.zeros((len(x), *made[1:]), "int64")
    optimizer, found = SGD(0.1, momentum=0.9), []
    task = Task(model, ArraySource(x, y, x), CLASSES_FIRST, optimizer, len(x))
    for either in (task, distributed(task, Alone())):
        steps = either.steps([(x, y)] * 2, params, optimizer.init(params), np.random.default_rng(0))
        *_, (after, _, _) = steps
        found.append(after)
    assert found[0].keys() == found[1].keys()
    for name, w in found[0].items():
        np.testing.assert_allclose(found[1][name], w, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.abs(w - params[name]).max() > 0


def test_an_estimator_fits_it():
    estimators = pytest.importorskip("agnostic_xent.estimators")
    x, y = data()
    classifier = estimators.CNNClassifier(MODEL, epochs=2, batch_size=4, random_state=0).fit(x, y)
    assert classifier.predict(x).shape == (12,)
