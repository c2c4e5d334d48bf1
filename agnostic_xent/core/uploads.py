"""Batches on their way to a GPU: one is copied while kernels work on the one before."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

Batch: TypeAlias = tuple[Any, ...]


class Streams(threading.local):
    """The stream of the copies of this thread to each device: the pool keeps memory for each."""

    def __init__(self) -> None:
        self.to: dict[int, Any] = {}


STREAMS = Streams()


def overlapped(batches: Iterable[Batch], device: Any) -> Iterator[Batch]:
    """Yield batches with the parts that NumPy holds copied to a device of CuPy.

    The copies are from pinned memory and on a stream of their own, so that they run beside the
    kernels of the current stream; nothing waits on the host.
    """
    cupy: Any = importlib.import_module("cupy")
    if device.id not in STREAMS.to:
        with device:
            STREAMS.to[device.id] = cupy.cuda.Stream(non_blocking=True)
    stream, before = STREAMS.to[device.id], None
    for batch in batches:
        with device:
            sent = _sent(cupy, batch, stream)
        if before is not None:
            yield _arrived(cupy, before, device)
        before = sent
    if before is not None:
        yield _arrived(cupy, before, device)


def _sent(cupy: Any, batch: Batch, stream: Any) -> tuple[Batch, Any]:
    """Start the copies of a batch; return it, and the event of its arrival.

    The memory may be that of an earlier batch: what has been started so far may still read it.
    What starts later, the step on the batch before this one, has its own.
    """
    stream.wait_event(_event(cupy, cupy.cuda.get_current_stream()))
    with stream:  # CuPy itself goes through its pool of pinned memory
        there = tuple(cupy.asarray(x) if not isinstance(x, cupy.ndarray) else x for x in batch)
    return there, _event(cupy, stream)


def _arrived(cupy: Any, sent: tuple[Batch, Any], device: Any) -> Batch:
    """Return a batch for the current stream, which waits for its arrival."""
    batch, event = sent
    with device:
        cupy.cuda.get_current_stream().wait_event(event)
    return batch


def _event(cupy: Any, stream: Any) -> Any:
    """Return the event that a stream has done all that was started on it so far."""
    event = cupy.cuda.Event(disable_timing=True)
    event.record(stream)
    return event
