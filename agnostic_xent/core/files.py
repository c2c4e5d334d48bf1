"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

LONGEST = 40
"""Characters of a name that its temporary file has too: file systems take 255 bytes in all."""


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment the old or the new content is there, whole.

    As with ``open(path, "wb")``, a link stays one and the file that it names is replaced; a device
    or a pipe is written to; a file that may not be written stays; and an old file's mode, owner and
    group go over to the new one, where the system lets them. Other names of it (hard links) keep
    the old content.
    """
    path = Path(path)
    try:
        old = path.stat()
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        path.write_bytes(content)
        return
    if old is not None:
        os.close(os.open(path, os.O_WRONLY))  # an error if it may not be written
    target = path.resolve()
    temporary = target.with_name(f"{target.name[:LONGEST]}.{secrets.token_hex(8)}.part")
    try:
        try:  # an interrupt may come right after the file is there
            _fill(_open_new(temporary, private=old is not None), content, old)
            temporary.replace(target)
        except FileExistsError:  # it is somebody else's
            raise
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:  # a full disk does not say where
        raise OSError(error.errno, error.strerror, str(path)) from error
    _sync_folder(target.parent)


def remove_left_over(path: Path) -> None:
    """Remove what processes that were killed while they wrote a file have left beside it.

    Only for one who knows that nobody else is writing it.
    """
    for left_over in path.parent.glob(f"{path.name[:LONGEST]}.*.part"):
        left_over.unlink()


def _open_new(path: Path, *, private: bool) -> int:
    """Return the descriptor of a new file; whatever lies there, such as a link, is an error."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o600 if private else 0o666)


def _fill(descriptor: int, content: bytes, old: os.stat_result | None) -> None:
    """Write a new file down to the disk, as open to others as the old one."""
    with open(descriptor, "wb") as file:
        if old is not None:
            _make_alike(descriptor, old)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _make_alike(descriptor: int, old: os.stat_result) -> None:
    """Give a new file the owner, the group and the mode of the old one, where the system may."""
    if not hasattr(os, "fchown"):  # Windows has other rights
        return
    mode = old.st_mode & 0o777
    for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with suppress(OSError):  # of groups only one's own; owners are changed by root alone
            os.fchown(descriptor, owner, group)
    if os.fstat(descriptor).st_gid != old.st_gid:
        mode &= ~0o070  # what one group might do, another may not
    with suppress(OSError):  # some file systems have no modes
        os.fchmod(descriptor, mode)


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a loss of power, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # a folder may be closed to readers, and some file systems cannot
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
