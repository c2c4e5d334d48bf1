"""Batches on their way to a GPU, on streams that know what is done before what.

CuPy's streams, events and pool are stand-ins: each piece of work on a stream has a time, and each
stream knows up to which times of the others it has waited.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from agnostic_xent.core import uploads
from agnostic_xent.core.conversion import uploaded


class Work:
    """Something that a stream does, and what has been done by then."""

    def __init__(self, name, stream):
        stream.seen[stream] += 1
        self.name, self.stream, self.time = name, stream, stream.seen[stream]
        self.seen = Counter(stream.seen)

    def before(self, later):
        return self.time <= later.seen[self.stream]


class Stream:
    """One that waits for events, and to which the pool keeps the memory of its arrays."""

    current = None

    def __init__(self, non_blocking):
        assert non_blocking  # else it waits for the default stream
        self.seen, self.free = Counter(), []

    def wait_event(self, event):
        self.seen |= event.seen

    @contextmanager
    def _as_current(self):
        before, Stream.current = Stream.current, self
        yield
        Stream.current = before

    def __enter__(self):
        self._entered = self._as_current()
        return self._entered.__enter__()

    def __exit__(self, *error):
        return self._entered.__exit__(*error)


class Event:
    def __init__(self, disable_timing):
        assert disable_timing

    def record(self, stream):
        self.seen = Counter(stream.seen)


class Device:
    id = 0

    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


class OnGPU:
    """An array in a block of memory, which goes back to its stream when nobody holds the array."""

    __module__ = "cupy"
    device = property(lambda self: Device())

    def __init__(self, x, log):
        self.x, self.home = np.array(x), Stream.current
        self.block = self.home.free.pop() if self.home.free else []
        self.work = Work(f"copy {self.x[0]}", Stream.current)
        log.append(self.work)
        self.block.append(("written", self.work))

    def __del__(self):
        self.home.free.append(self.block)


@pytest.fixture
def log(monkeypatch):
    """Install the stand-in, and return the copies and steps in the order of their start."""
    log, cupy = [], SimpleNamespace()
    main = Stream(non_blocking=True)
    monkeypatch.setattr(Stream, "current", main)
    cupy.cuda = SimpleNamespace(
        Stream=Stream, Event=Event, get_current_stream=lambda: Stream.current
    )
    cupy.ndarray, cupy.asarray = OnGPU, lambda x: OnGPU(x, log)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(uploads, "STREAMS", uploads.Streams())
    return log


def run(log, batches=6, held=1):
    """Take a step on each batch, while the last few of them are held; return all blocks."""
    main, last, blocks = Stream.current, [], []
    there = OnGPU(np.asarray([-1]), [])
    source = ((np.asarray([k]), there) for k in range(batches))
    for batch in uploaded(source, there):
        k = int(batch[0].x[0])
        assert batch[1] is there
        last = [*last, batch][max(0, len(last) + 1 - held) :]
        step = Work(f"step {k}", main)
        log.append(step)
        batch[0].block.append(("read", step))
        if not any(batch[0].block is block for block in blocks):
            blocks.append(batch[0].block)
        del batch
    assert Stream.current is main
    assert k == batches - 1
    return blocks


def check(log, blocks):
    """Each block is written when all has read it, and read when it is written."""
    for block in blocks:
        for i, (what, earlier) in enumerate(block):
            for other, later in block[i + 1 :]:
                assert earlier.before(later) or what == other, f"{earlier.name}, {later.name}"
    named = {work.name: work for work in log}
    for k in range(5):
        step, copy = named[f"step {k}"], named[f"copy {k + 1}"]
        orders = step.before(copy), copy.before(step)
        assert not any(orders), f"step {k} is in the way"


@pytest.mark.parametrize("held", [0, 1, 2])
def test_a_batch_is_copied_beside_the_step_on_the_one_before(log, held):
    blocks = run(log, held=held)
    assert len(blocks) == held + 2  # memory is used again
    check(log, blocks)


def test_each_copy_is_started_before_the_step_that_it_runs_beside(log):
    run(log, batches=3)
    assert [work.name for work in log] == [
        "copy 0", "copy 1", "step 0", "copy 2", "step 1", "step 2"
    ]  # fmt: skip


@pytest.mark.parametrize("who", ["the copies", "the steps"])
def test_a_wait_left_out_is_caught(log, monkeypatch, who):
    main, wait = Stream.current, Stream.wait_event

    def sometimes(stream, event):
        if (stream is main) == (who == "the copies"):
            wait(stream, event)

    monkeypatch.setattr(Stream, "wait_event", sometimes)
    with pytest.raises(AssertionError, match="copy"):
        check(log, run(log))


def test_waiting_for_too_much_is_caught(log, monkeypatch):
    """With copies on the stream of the steps, nothing runs beside anything."""
    monkeypatch.setattr(Stream, "__enter__", lambda self: None)
    monkeypatch.setattr(Stream, "__exit__", lambda self, *error: None)
    with pytest.raises(AssertionError, match="in the way"):
        check(log, run(log))


def test_the_next_epoch_uses_the_same_memory(log):
    blocks = [run(log, held=0) for _ in range(2)]
    assert all(any(block is other for other in blocks[0]) for block in blocks[1])
    check(log, blocks[1])


def test_no_batch_is_no_error(log):
    assert list(uploaded(iter(()), OnGPU(np.zeros(1), []))) == []
