"""Files that one process, or one thread of it, holds at a time."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .forks import in_child


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file while a block runs; it says who does, and is gone afterwards.

    What counts is the system's lock on the file, not that it is there: the lock ends with its
    process, however that ends. Between machines it holds where the network file system has locks.

    Raises
    ------
    BlockingIOError
        If another process or thread holds it.
    OSError
        If the file cannot be opened for writing.
    """
    descriptor = _taken(path)
    try:
        with suppress(OSError):  # on a full disk it does not say who
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if descriptor in _held:  # else this is a forked child, and its parent goes on
            _held.discard(descriptor)
            with suppress(OSError):  # Windows removes no open file: it stays, and says nothing
                if _lies_at(path, descriptor):
                    path.unlink()
            os.close(descriptor)


_held: set[int] = set()
"""Descriptors of the files that this process holds."""


def _taken(path: Path) -> int:
    """Return the descriptor of the file, locked and empty."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(path, descriptor)
            if _lies_at(path, descriptor):  # else its last holder removed it in the meantime
                os.ftruncate(descriptor, 0)
                _held.add(descriptor)
                return descriptor
        finally:
            if descriptor not in _held:
                os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # a byte that nobody wants to read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = " ".join(os.read(descriptor, 300).decode(errors="replace").split())
        raise BlockingIOError(
            f"{path.parent} is in use: {holder or 'another process'} holds {path.name}"
        ) from None
    except OSError as error:
        warnings.warn(
            f"{path} cannot be locked ({error.strerror}), so nothing keeps a second run away",
            RuntimeWarning,
            stacklevel=2,
        )


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


@in_child
def _forget() -> None:
    """In a forked child: leave what is held to the parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
