"""Threads of Python that share out the parts of a loop, as many as Numba is set to use.

None of them survives a fork: the child starts its own.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import numba as _numba

from ....core.forks import as_a_whole, in_child
from .machine_code import machine_code
from .sharing import LOOKING, WANTED, look_for_work, new_board
from .signatures import signature_of

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


class Workers:
    """Threads of Python that do parts of loops: compiled code, which holds no lock of Python.

    A loop that is shared out like this is compiled once, where Numba's own parallel loops are
    several times: as a function, as the body of the loop, and each with all that it calls.
    """

    def __init__(self) -> None:
        self.starting = threading.Lock()
        self.jobs: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.count = 0
        self.board = new_board()
        self.words = self.board.reshape(-1)
        self.address = int(self.board.ctypes.data)

    def ready(self, threads: int) -> int:
        """Return the address of the board, for so many threads, one of which is this.

        They are as many as there can be, and those that sleep are woken.
        """
        others = threads - 1
        if self.count < others:
            self._start(others)
        self.words[WANTED // 8] = others
        awake = int(self.words[LOOKING // 8]) + self.jobs.qsize()
        for _ in range(min(self.count, others) - awake):
            self.jobs.put(None)
        return self.address

    def _start(self, count: int) -> None:
        look = as_a_whole(looking)
        with self.starting, suppress(RuntimeError):  # where no thread can start, fewer will do
            while self.count < count:
                threading.Thread(target=self._work, args=(look,), daemon=True).start()
                self.count += 1

    def _work(self, look: Callable[[int], None]) -> None:
        while True:
            self.jobs.get()
            look(self.address)


@functools.cache
def looking() -> Any:
    """Return the compiled `look_for_work`."""
    return machine_code(look_for_work, signature_of(look_for_work, {}))


_workers = Workers()


@in_child
def _renew() -> None:
    global _workers
    _workers = Workers()


def board_of(count: int) -> int:
    """Return the address of the board on which loops are shared out to so many threads."""
    return _workers.ready(count)


class Call(NamedTuple):
    """A call of a loop in parts."""

    loop: Callable[..., Any]
    """Compiled; it takes the arguments, and then parts and part."""
    args: tuple[Any, ...]
    parts: int
    """As many as it can be cut into; one will do."""


class Record(NamedTuple):
    """What a thread did."""

    calls: list[Call]
    """Of loops in parts."""
    scratch: list[Any]
    """Memory that they asked for: an equal piece for each thread."""


_recorded: ContextVar[Record | None] = ContextVar("recorded", default=None)


@contextmanager
def recorded() -> Iterator[Record]:
    """Return a record that all calls of loops in parts are noted in, in this thread."""
    record = Record([], [])
    token = _recorded.set(record)
    try:
        yield record
    finally:
        _recorded.reset(token)


def is_recorded() -> bool:
    """Return whether calls of loops are recorded in this thread."""
    return _recorded.get() is not None


def note_scratch(x: Any) -> None:
    """Note memory that has an equal piece for each thread, if calls are recorded."""
    record = _recorded.get()
    if record is not None:
        record.scratch.append(x)


class InParts:
    """A loop ``(*args, parts, part)`` as a function of the arguments before these two.

    There are so many ``pieces`` as parts a thread.
    """

    __slots__ = ("part", "pieces")

    def __init__(self, loop: Callable[..., Any], pieces: int):
        self.part, self.pieces = loop, pieces

    def __call__(self, *args: Any, alone: bool = False) -> None:
        """Do all parts; ``alone``: as one, in the thread of the caller, faster for little work."""
        record = _recorded.get()
        if record is not None:
            record.calls.append(Call(self.part, args, self.pieces * threads()))
        count = 1 if alone else threads()
        if count == 1:
            self.part(*args, 1, 0)
        else:
            self.part(*args, self.pieces * count, -board_of(count))
