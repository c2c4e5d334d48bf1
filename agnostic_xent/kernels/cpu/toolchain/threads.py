"""Numba's threads: how they wait, who may call them, and what is left of them after a fork.

Numba's OpenMP layer serves several Python threads at once; its own work queue, where there is
nothing else, ends the process. None of them survives a fork: the child has no threads left, but
for those of Python, of which it starts its own.
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numba as _numba

numba: Any = _numba  # Numba is typed in part only

SPINS = {"GOMP_SPINCOUNT": "1000"}
"""How often a waiting thread of GNU OpenMP looks again before it sleeps."""


@functools.cache
def start_threads() -> None:
    """Load Numba's threads, and have them wait for work without keeping a core busy for long.

    By default they look again for milliseconds. Where the system has put a thread on the core of
    one that waits for it, as it does after any pause, that is how long nothing happens.
    """
    if os.environ.keys() & {"OMP_WAIT_POLICY", *SPINS}:  # the user knows better
        return
    os.environ.update(SPINS)  # is read once, when the threads are loaded
    try:
        numba.get_num_threads()
    finally:
        for name in SPINS:
            del os.environ[name]


def threads() -> int:
    """Return how many threads a parallel loop is for: Numba's setting."""
    start_threads()
    return int(numba.get_num_threads())


# --- several callers, and forks -------------------------------------------------------------------

_alone = threading.Lock()
_forked = False


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):  # elsewhere nothing forks
        os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    global _alone, _forked, _starting, _workers
    _alone, _starting = threading.Lock(), threading.Lock()  # the old locks' owners may be gone
    _forked, _workers = True, Workers()


def layer() -> str:
    """Return the name of what runs the threads."""
    threads()  # starts them
    _watch_forks()
    return str(numba.threading_layer())


def guarded(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Return a parallel loop for several Python threads, which says no after a fork."""

    def run(*args: Any) -> Any:
        if _forked:
            raise RuntimeError(
                "this process was forked from one whose threads had started, and has none: start "
                'processes with multiprocessing.get_context("spawn"), or compute with '
                'kernels("portable") here'
            )
        return loop(*args)

    def run_alone(*args: Any) -> Any:
        with _alone:
            return run(*args)

    return run_alone if layer() == "workqueue" else run


# --- work in parts -------------------------------------------------------------------------------


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
            error = None
            try:
                self.loop(*self.args, self.parts, part)
            except BaseException as raised:
                error = raised
            self.done.put(error)

    def finish(self) -> None:
        """Wait for all parts, and raise what one of them did."""
        asleep = time.perf_counter() + PATIENCE
        while self.done.qsize() < self.parts and time.perf_counter() < asleep:
            let_others_run()
        errors = [self.done.get() for _ in range(self.parts)]  # they use the arrays until then
        self.args = ()  # a thread that has not even started must not keep arrays alive
        for error in filter(None, errors):
            raise error


class Workers:
    """Threads of Python for loops that say which part of the work they do, and hold no lock.

    A loop that is shared out like this is compiled once, where Numba's own parallel loops are
    several times: as a function, as the body of the loop, and each with all that it calls.
    """

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.count = 0

    def run(self, job: Job, threads: int) -> None:
        """Do a job in so many threads, one of which is this."""
        with _starting:
            while self.count < threads - 1:
                threading.Thread(target=self._work, daemon=True).start()
                self.count += 1
        for _ in range(threads - 1):
            self.jobs.put(job)
        job.work()
        job.finish()

    def _work(self) -> None:
        while True:
            self.jobs.get().work()


_starting = threading.Lock()
_workers = Workers()


def in_parts(loop: Callable[..., Any], pieces: int) -> Callable[..., None]:
    """Return a loop ``(*args, parts, part)`` as a function of the arguments before these two.

    There are so many ``pieces`` as parts a thread.

    ``alone``: all of it runs in the thread of the caller, which is faster where there is little.
    After a fork there are new threads for the rest.
    """
    _watch_forks()

    def run(*args: Any, alone: bool = False) -> None:
        if alone:
            loop(*args, 1, 0)
        else:
            count = threads()
            _workers.run(Job(loop, args, pieces * count), count)

    return run
