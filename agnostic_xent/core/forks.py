"""What a fork must not copy half-way: a child has one thread, and locks that no other gives back.

Who has a lock, or threads of its own, has them made anew in a child. Work that cannot be done anew
there, such as that of a compiler, is waited for before a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FORKS = hasattr(os, "register_at_fork")

_at_work = threading.RLock()


def in_child(renew: Callable[[], None]) -> Callable[[], None]:
    """Call a function in every child that is forked from now on (decorator)."""
    if FORKS:
        os.register_at_fork(after_in_child=renew)
    return renew


def as_a_whole(work: Callable[[], T]) -> T:
    """Return ``work()``, which no signal, fork or other such work breaks off half-way.

    A signal's handler runs in the main thread. Its exception, as KeyboardInterrupt, would leave
    the tables of a compiler half filled. So the main thread has another one do the work, and
    waits. If it is interrupted, the work goes on, and the next call finds it done.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def do() -> None:
        try:
            with _at_work:
                found.append(work())
        except BaseException as error:
            failed.append(error)

    if threading.current_thread() is threading.main_thread():
        _in_another_thread(do)
    else:
        do()
    if failed:
        raise failed.pop()
    return found[0]


def _in_another_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, name="agnostic_xent")
    try:
        thread.start()
    except RuntimeError:  # none can be started: the interpreter ends, or the system has no more
        work()
    else:
        thread.join()


if FORKS:
    os.register_at_fork(
        before=_at_work.acquire,
        after_in_parent=_at_work.release,
        after_in_child=_at_work.release,
    )
