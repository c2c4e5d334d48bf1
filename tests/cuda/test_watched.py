"""What a training step asks of the host: nothing is read from a GPU, and nothing is sent there."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import watched

import agnostic_xent as ax
from agnostic_xent import SGD, AdamW

CLASSES, IMAGE = 3, (1, 4, 4)
MODEL = ax.Sequential(
    ax.Conv2d(2, 3, padding=1), ax.BatchNorm2d(), ax.ReLU(), ax.MaxPool2d(2),
    ax.Residual(ax.Sequential(ax.Conv2d(2, 1), ax.BatchNorm2d())),
    ax.GlobalAvgPool2d(), ax.Dense(CLASSES),
)  # fmt: skip
OPTIONS = {"ignore_index": 0, "label_smoothing": 0.1, "weight": np.ones(CLASSES, "float32")}


def notes_of(epochs, batch_size, options, optimizer):
    """Return what was read and sent, in a run of four samples."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((4, *IMAGE), "float32"), np.asarray([0, 1, 2, 1])
    params = {name: watched.there(w) for name, w in MODEL.init(0, IMAGE)[0].items()}
    options = {name: watched.there(x) for name, x in options.items()}
    watched.NOTES.clear()
    ax.fit(
        MODEL, params, watched.there(data), loss=functools.partial(ax.cross_entropy, **options),
        optimizer=optimizer, epochs=epochs, batch_size=batch_size, rng=0,
    )  # fmt: skip
    return list(watched.NOTES)


@pytest.mark.parametrize(
    ("options", "optimizer"), [({}, SGD(0.1, momentum=0.9)), (OPTIONS, AdamW())], ids=["", "all"]
)
def test_watched_steps_wait_for_nothing(monkeypatch, options, optimizer):
    """A step reads nothing, and sends nothing once the tables of its shapes are there."""
    watched.install(monkeypatch)
    notes = functools.partial(notes_of, options=options, optimizer=optimizer)
    notes(1, 2)
    ahead = ["read by __bool__", "read by __bool__"]  # whether a label is out of range
    epoch = ["sent (4,)", "sent (4,)", "read by __float__", "read by __float__"]
    after = ["read by __bool__"]  # whether the parameters are finite
    if "ignore_index" in options:
        epoch += ["read by __float__"] * 2  # how many samples count, and their weights
    assert notes(1, 2) == ahead + epoch + after
    assert notes(2, 2) == ahead + epoch * 2 + after


def test_watched_arrays_take_note(monkeypatch):
    watched.install(monkeypatch)
    x = watched.there(np.arange(3.0))
    xp = watched.Namespace(np)
    for read in (
        lambda: float(xp.sum(x)), lambda: bool(x[0]), lambda: int(x.max()), lambda: x[x > 1],
        lambda: xp.nonzero(x), lambda: xp.asarray([1.0]), lambda: (x * 2 + 1)[0].item(),
    ):  # fmt: skip
        watched.NOTES.clear()
        read()
        assert len(watched.NOTES) == 1
    watched.NOTES.clear()
    with ax.kernels("require"):
        y = ax.relu(x)
    assert type(y) is watched.ndarray
    assert not watched.NOTES
