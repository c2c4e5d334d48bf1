"""A small problem for the training loop, and the libraries that it runs on."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import PRESENT

from agnostic_xent import (
    SGD,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    ReLU,
    Sequential,
    cross_entropy,
    fit,
)
from agnostic_xent.core.conversion import to_numpy
from agnostic_xent.training.loop import Callback

# dask is left out: each step would add a layer to one graph that nobody computes, so that its
# cost grows with every step; dask arrays are for data, see test_sources_give_the_same_result
FITTING = [row for row in PRESENT if row.library != "dask"]
each_home = pytest.mark.parametrize(
    "home", [pytest.param(row, id=row.name, marks=row.marks) for row in FITTING]
)

SEED, CLASSES, IMAGE = 3, 3, (1, 6, 6)
CNN = Sequential(
    Conv2d(3, 3, padding=1, bias=False),
    BatchNorm2d(),
    ReLU(),
    MaxPool2d(2),
    Dropout(0.2),
    Flatten(),
    Dense(CLASSES),
)
SOFTMAX = Sequential(Flatten(), Dense(CLASSES))


def images(samples=40, dtype="float32"):
    """Return noisy images of bars at one of three heights, and which height."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, CLASSES, samples)
    x = rng.standard_normal((samples, *IMAGE)) / 2
    x[np.arange(samples), 0, 2 * y] += 1
    return x.astype(dtype), y


def start(model=SOFTMAX, dtype="float32"):
    return {k: v.astype(dtype) for k, v in model.init(SEED, IMAGE)[0].items()}


def train(data=None, *, model=SOFTMAX, **changed):
    """Call `fit` on a small problem with some arguments changed."""
    params = changed.pop("params", None)
    arguments = {
        "loss": cross_entropy,
        "optimizer": SGD(0.1, momentum=0.9),
        "epochs": 2,
        "batch_size": 8,
        "rng": SEED,
    }
    params = start(model) if params is None else params
    return fit(model, params, images() if data is None else data, **arguments | changed)


def same(found, expected):
    """Check that parameters are the same bits, of the same library."""
    assert found.keys() == expected.keys()
    for name, w in found.items():
        assert type(w) is type(expected[name])
        np.testing.assert_array_equal(to_numpy(w), to_numpy(expected[name]))


class Recorder(Callback):
    """Write down every call; stop after some epochs, or fail at some step."""

    def __init__(self, name="", log=None, *, stop=None, fail=None):
        self.name, self.stop, self.fail = name, stop, fail
        self.log = [] if log is None else log

    def on_start(self, epochs, samples):
        self.log.append((self.name, "start", epochs, samples))

    def on_step(self, samples):
        self.log.append((self.name, "step", samples))
        if self.fail is not None and len(self.calls("step")) == self.fail:
            raise RuntimeError("out of coffee")

    def on_epoch(self, epoch, params):
        self.log.append((self.name, "epoch", epoch.epoch))
        return epoch.epoch == self.stop

    def on_end(self):
        self.log.append((self.name, "end"))

    def calls(self, kind):
        return [entry for entry in self.log if entry[:2] == (self.name, kind)]
