"""When gradients are summed, in how many messages and where; by a communicator that takes notes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from agnostic_xent import (
    SGD,
    BatchNorm2d,
    Conv2d,
    Dense,
    Flatten,
    ReLU,
    Residual,
    Sequential,
    cross_entropy,
    kernels,
)
from agnostic_xent.training.batches import ArraySource
from agnostic_xent.training.ranks.sums import LARGE, GradientSums
from agnostic_xent.training.ranks.task import distributed
from agnostic_xent.training.steps import Task

UNITS, STEPS = 600, 3  # a layer's weights are large
PULLBACK, START, WAIT, UPDATE = "pullback", "start of a sum", "wait", "update"


class Notes:
    """One of two ranks that are the same; notes what happens when."""

    rank, size = 0, 2

    def __init__(self, reads=True):
        self.events, self.summed, self.reads = [], [], lambda x: reads

    def start_sum(self, x):
        self.events.append(START)
        self.summed.append(x)
        x *= 2
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
    """Return the notes of some steps, and how many arrays were summed in each."""
    notes = Watched.notes
    model = Sequential(*[Watched(UNITS) for _ in range(3)])
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, UNITS), "f4"), rng.integers(0, UNITS, 4)
    params, optimizer = model.init(0, (UNITS,))[0], WatchedSGD(0.1, momentum=0.9)
    task = distributed(Task(model, ArraySource(x, y, x), cross_entropy, optimizer, 8), notes)
    batches = itertools.repeat((x, y), STEPS)
    for _ in task.steps(batches, params, optimizer.init(params), rng):
        pass
    return notes


def test_sums_start_during_the_backward_pass(notes):
    size_of_batch = [START, WAIT]  # with the forward pass between them
    # the batch's numbers and all biases go last
    step = [*[PULLBACK, START] * 3, START, *[WAIT] * 4, UPDATE]
    assert notes.events == (size_of_batch + step) * STEPS + size_of_batch


def test_large_arrays_are_summed_where_they_are(notes):
    summed = notes.summed[-5:-1]  # of the last step
    for name, grad in Watched.grads.items():
        own = [np.shares_memory(grad, x) for x in summed]
        assert own == [name == f"{i}.weight" for i in (2, 1, 0)] + [name.endswith("bias")]


def test_small_arrays_travel_together_in_buffers_that_are_used_again():
    notes = Notes()
    sums = GradientSums(notes)
    arrays = {str(i): np.full((2, LARGE // 20), i, "f4") for i in range(25)}
    for _ in range(STEPS):
        for name, x in arrays.items():
            sums.add({name: x})
        assert notes.events == [START] * 2
        found = sums.finish()
        assert notes.events == [START] * 3 + [WAIT] * 3
        notes.events.clear()
        for name, x in arrays.items():
            assert (found[name] == 2 * x).all()
            assert x[0, 0] == int(name)
        assert len({x.ctypes.data for x in notes.summed}) == 3


NOT_THEIRS = {
    "a view": lambda x: x[1:],
    "read-only": lambda x: x.setflags(write=False) or x,
    "in another order": np.asfortranarray,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


@pytest.mark.parametrize("change", NOT_THEIRS.values(), ids=NOT_THEIRS)
def test_large_arrays_that_are_not_to_be_changed_are_copied(change):
    x = np.ones((4, LARGE), "f4")
    given = change(x)
    sums = GradientSums(Notes())
    sums.add({"x": given})
    assert (sums.finish()["x"] == 2).all()
    assert (given == 1).all()
    assert (x == 1).all()


def test_arrays_that_the_ranks_do_not_read_are_copied():
    x, notes = np.ones((4, LARGE), "f4"), Notes(reads=False)
    sums = GradientSums(notes)
    sums.add({"x": x})
    found = sums.finish()["x"]
    assert (found == 2).all()
    assert (x == 1).all()
    assert not np.shares_memory(found, notes.summed[0])


@pytest.mark.parametrize("shape", [(2,), (LARGE,)])
def test_dtypes_travel_apart_and_kept_sums_are_copies(shape):
    notes = Notes()
    sums = GradientSums(notes)
    sums.add(
        {name: np.ones(shape, dtype) for name, dtype in (("a", "f4"), ("b", "f8"), ("c", "f2"))}
    )
    found = sums.finish(keep=True)
    assert [found[name].dtype for name in ("a", "b", "c")] == ["f4", "f8", "f4"]
    for x in found.values():
        assert (x == 2).all()
        assert not any(np.shares_memory(x, other) for other in notes.summed)


LAYERS = {
    "dense": Dense(3),
    "conv2d": Conv2d(4, 3),
    "conv2d of a pixel": Conv2d(4, 1),
    "batch_norm": BatchNorm2d(),
    "residual": Residual(Conv2d(2, 3, padding=1), Conv2d(2, 1)),
    "sequential": Sequential(Conv2d(2, 3, padding=1), ReLU(), Flatten(), Dense(1), Dense(5)),
}


@pytest.mark.parametrize("mode", ["auto", "portable"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_gradients_are_arrays_of_their_own(layer, mode):
    """So they may be summed in place: nobody else has them, not even in a batch of one."""
    shape = (6,) if isinstance(layer, Dense) else (2, 5, 5)
    params, _ = layer.init(0, shape)
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype("f4")
    with kernels(mode):
        y, pullback = layer.vjp(params, x, train=True, rng=0)
        dy = np.ones_like(y)
        dx, grads = pullback(dy)
    own = list(grads.values())
    others = [x, y, dx, dy, *params.values()]
    for i, grad in enumerate(own):
        assert not any(np.shares_memory(grad, other) for other in (*others, *own[:i]))
