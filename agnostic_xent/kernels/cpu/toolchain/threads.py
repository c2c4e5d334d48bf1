"""Threads of Python that share out the parts of a loop, as many as Numba is set to use.

None of them survives a fork: the child starts its own.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba as _numba

from ....core.forks import in_child

numba: Any = _numba  # Numba is typed in part only


def threads() -> int:
    """Return how many threads a loop is shared out to: Numba's setting."""
    try:
        numba.threading_layer()
    except ValueError:  # Numba's own threads have not started, as they do to be set to fewer
        return int(numba.config.NUMBA_NUM_THREADS)
    return int(numba.get_num_threads())


PIECES = 4
"""Parts a thread, where parts need no memory of their own: who wakes late does fewer of them."""

PATIENCE = 5e-5
"""Seconds that a thread looks again whether the last parts are done, before it sleeps.

They mostly are within 10 microseconds, and to be woken takes 20."""

let_others_run = getattr(os, "sched_yield", lambda: None)


class Job:
    """A loop over parts: every thread that works on it does those that no other has taken."""

    def __init__(self, loop: Callable[..., Any], args: tuple[Any, ...], parts: int) -> None:
        self.loop, self.args, self.parts = loop, args, parts
        self.numbers = itertools.count()  # the next one is taken in a single step
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work(self) -> None:
        """Do parts until all are taken."""
        while (part := next(self.numbers)) < self.parts:
            self.done.put(self._failure(part))

    def _failure(self, part: int) -> BaseException | None:
        """Do a part; return what it raised."""
        try:
            self.loop(*self.args, self.parts, part)
        except BaseException as raised:
            return raised
        return None

    def finish(self) -> None:
        """Wait for all parts, and raise what one of them did."""
        asleep = time.perf_counter() + PATIENCE
        while self.done.qsize() < self.parts and time.perf_counter() < asleep:
            let_others_run()
        ends = [self.done.get() for _ in range(self.parts)]  # they use the arrays until then
        self.args = ()  # a thread that has not even started must not keep arrays alive
        errors = [error for error in ends if error is not None]
        del ends
        if errors:
            raise errors.pop(0)  # if its traceback held it, it would keep arrays alive


class Workers:
    """Threads that wait for jobs, whose loops hold no lock of Python.

    A loop that is shared out like this is compiled once, where Numba's own parallel loops are
    several times: as a function, as the body of the loop, and each with all that it calls.
    """

    def __init__(self) -> None:
        self.starting = threading.Lock()
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.count = 0

    def run(self, job: Job, threads: int) -> None:
        """Do a job in so many threads, one of which is this, or as many as there can be."""
        if self.count < threads - 1:
            self._start(threads - 1)
        for _ in range(min(self.count, threads - 1)):
            self.jobs.put(job)
        job.work()
        job.finish()

    def _start(self, count: int) -> None:
        with self.starting, suppress(RuntimeError):  # where no thread can start, fewer will do
            while self.count < count:
                threading.Thread(target=self._work, daemon=True).start()
                self.count += 1

    def _work(self) -> None:
        while True:
            self.jobs.get().work()


_workers = Workers()


@in_child
def _renew() -> None:
    global _workers
    _workers = Workers()


class InParts:
    """A loop ``(*args, parts, part)`` as a function of the arguments before these two.

    There are so many ``pieces`` as parts a thread.
    """

    __slots__ = ("part", "pieces")

    def __init__(self, loop: Callable[..., Any], pieces: int):
        self.part, self.pieces = loop, pieces

    def __call__(self, *args: Any, alone: bool = False) -> None:
        """Do all parts; ``alone``: as one, in the thread of the caller, faster for little work."""
        if alone:
            self.part(*args, 1, 0)
        else:
            count = threads()
            _workers.run(Job(self.part, args, self.pieces * count), count)
