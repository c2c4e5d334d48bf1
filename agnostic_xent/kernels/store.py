"""Machine code on disk, for later processes and for other users.

It is kept beside the package, or in the folder that ``NUMBA_CACHE_DIR`` names. Where this user
cannot write there, that folder is read all the same, and what is compiled anew is kept in the
user's own cache.

Whoever can write a file of machine code can run code in the process that loads it. So files are
read, and written, only where nobody but this user, the owner of the package, and root can write.

A file holds a hash of the source, a checksum of all, and the code. It is written under another
name first, so that processes do not meet each other's halves. What is damaged, or from other
source, is as good as not there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .compiler import config
from .stamps import PACKAGE

logger = logging.getLogger("agnostic_xent")

DIGEST = hashlib.sha256().digest_size

_told: set[str] = set()


def file_name(function: Any, *identity: Any) -> str:
    """Return the name of the file of a function's code for this identity, which has a ``repr``."""
    every = repr((function.__module__, function.__qualname__, *identity))
    readable = re.sub(r"\W+", "_", function.__qualname__)
    return f"{readable}-{hashlib.sha256(every.encode()).hexdigest()[:32]}.code"


def load(name: str, source: str, places: Iterable[Path] | None = None) -> bytes | None:
    """Return what was kept under a name, of this source; None if there is nothing good.

    ``places`` are the folders in which to look, instead of this machine's own.
    """
    for folder in folders() if places is None else places:
        try:
            content = _read(folder, name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            tell_once("compiled code is not read: %s", error)
            continue
        head, code = content[: 2 * DIGEST], content[2 * DIGEST :]
        if head[DIGEST:] != _hash(head[:DIGEST] + code):
            tell_once("compiled code on disk is damaged, and made anew: %s", folder / name)
        elif head[:DIGEST] == _hash(source.encode()):
            return code
    return None


def keep(name: str, source: str, code: bytes) -> None:
    """Keep code under a name, for `load`; if that cannot be, say so once."""
    found = folders()
    try:
        if not found:
            raise FileNotFoundError("this user has no folder for it")
        write(found[-1], name, source, code)
    except OSError as error:
        tell_once("compiled code is not kept on disk, so every process compiles: %s", error)


def tell_once(message: str, cause: Any) -> None:
    """Log a warning, the first time that it is given in this process."""
    if message not in _told:
        _told.add(message)
        logger.warning(message, cause)


# --- folders -------------------------------------------------------------------------------------


def folders() -> list[Path]:
    """Return where machine code may be; what is new goes to the last of them."""
    shared = _shared()
    if shared is not None and _takes_files(shared):
        return [shared]
    return [folder for folder in (shared, _own()) if folder is not None]


def _shared() -> Path | None:
    if not config.CACHE_DIR:
        return PACKAGE / "kernels" / "__pycache__" / "machine_code"
    try:
        return _ours_in(Path(config.CACHE_DIR).expanduser())
    except RuntimeError:  # "~" of nobody
        return None


def _own() -> Path | None:
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        cache = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # this user has no home
        return None
    return _ours_in(cache) if cache.is_absolute() else None


def _ours_in(cache: Path) -> Path:
    """Return the folder of this package, of this place, in a cache of many."""
    return cache / "agnostic_xent" / hashlib.sha256(os.fsencode(PACKAGE)).hexdigest()[:12]


def _takes_files(folder: Path) -> bool:
    try:
        _make(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _make(folder: Path) -> None:
    """Make a folder, if it is not there, and check it."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    _check(folder, folder.lstat(), folder.stat())


# --- files ---------------------------------------------------------------------------------------


def _read(folder: Path, name: str) -> bytes:
    _check(folder, folder.lstat(), folder.stat())
    with (folder / name).open("rb") as file:
        _check(folder / name, os.fstat(file.fileno()))
        return file.read()


def write(folder: Path, name: str, source: str, code: bytes) -> None:
    """Write code into a folder, for `load`; raise OSError if that cannot be."""
    head = _hash(source.encode())
    content = head + _hash(head + code) + code
    _make(folder)
    part = folder / f"{name}.{uuid.uuid4().hex}"
    try:
        with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as file:
            file.write(content)
        part.replace(folder / name)
    finally:
        with suppress(OSError):
            part.unlink()


def _check(path: Path, *found: os.stat_result) -> None:
    """Raise PermissionError if somebody else can write to a path, of which this was found."""
    if os.name != "posix":  # rights are not in the mode there; the folders are the user's
        return
    trusted = {0, os.geteuid(), PACKAGE.stat().st_uid}
    if not trusted.issuperset(status.st_uid for status in found):
        raise PermissionError(f"{path} belongs to another user")
    if found[-1].st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"other users can write to {path}")


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
