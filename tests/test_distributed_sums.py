"""When gradients are summed, in how many messages and where; by a communicator that takes notes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from agnostic_xent import SGD, Dense, Sequential, cross_entropy
from agnostic_xent.batches import ArraySource
from agnostic_xent.distributed import distributed
from agnostic_xent.distributed_sums import BUCKET, GradientSums
from agnostic_xent.steps import Task

UNITS, STEPS = 600, 3  # a layer has more parameters than a bucket takes
PULLBACK, START, WAIT, UPDATE = "pullback", "start of a sum", "wait", "update"


class Notes:
    """One of two ranks that are the same; notes what happens when."""

    rank, size = 0, 2

    def __init__(self):
        self.events, self.buffers = [], []

    def buffer(self, count, like):
        self.buffers.append(np.zeros(count, like.dtype))
        return self.buffers[-1]

    def start_sum(self, buffer):
        self.events.append(START)
        buffer *= 2
        return lambda: self.events.append(WAIT)


class Watched(Dense):
    """A layer that notes when its pullback ran."""

    notes = Notes()

    def vjp(self, *arguments, **options):
        y, pullback = super().vjp(*arguments, **options)

        def noted(dy):
            result = pullback(dy)
            self.notes.events.append(PULLBACK)
            return result

        return y, noted


class WatchedSGD(SGD):
    """An optimizer that keeps the gradients of the last step."""

    def update(self, params, grads, state):
        Watched.notes.events.append(UPDATE)
        Watched.grads = grads
        return super().update(params, grads, state)


@pytest.fixture(scope="module")
def notes():
    """Return the notes of some steps, and how many buffers there were after each."""
    notes = Watched.notes
    model = Sequential(*[Watched(UNITS) for _ in range(3)])
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, UNITS), "f4"), rng.integers(0, UNITS, 4)
    params, optimizer = model.init(0, (UNITS,))[0], WatchedSGD(0.1, momentum=0.9)
    task = distributed(Task(model, ArraySource(x, y, x), cross_entropy, optimizer, 8), notes)
    batches = itertools.repeat((x, y), STEPS)
    notes.counts = []
    for _ in task.steps(batches, params, optimizer.init(params), rng):
        notes.counts.append(len(notes.buffers))
    return notes


def test_sums_start_during_the_backward_pass(notes):
    size_of_batch = [START, WAIT]  # with the forward pass between them
    # its numbers go with the first layer's gradients, and biases with the next layer's
    step = [PULLBACK, START, PULLBACK, START, PULLBACK, START, START, *[WAIT] * 4, UPDATE]
    assert notes.events == (size_of_batch + step) * STEPS + size_of_batch


def test_buffers_are_used_again_and_read_in_place(notes):
    assert notes.counts == [4] * STEPS
    for grad in Watched.grads.values():
        assert any(np.shares_memory(grad, buffer) for buffer in notes.buffers)


def test_small_arrays_travel_together():
    notes = Notes()
    sums = GradientSums(notes)
    arrays = {str(i): np.full((2, BUCKET // 20), i, "f4") for i in range(25)}
    for name, x in arrays.items():
        sums.add({name: x})
    assert notes.events == [START] * 2
    found = sums.finish()
    assert notes.events == [START] * 3 + [WAIT] * 3
    for name, x in arrays.items():
        assert (found[name] == 2 * x).all()
        assert x[0, 0] == int(name)


def test_dtypes_travel_apart_and_kept_sums_are_copies():
    notes = Notes()
    sums = GradientSums(notes)
    sums.add({"a": np.ones(2, "f4"), "b": np.ones(2, "f8"), "half": np.ones(2, "f2")})
    found = sums.finish(keep=True)
    assert [found[name].dtype for name in ("a", "b", "half")] == ["f4", "f8", "f4"]
    assert all((x == 2).all() for x in found.values())
    for x in found.values():
        assert not any(np.shares_memory(x, buffer) for buffer in notes.buffers)
